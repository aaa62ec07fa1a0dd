//! Swarm documents: as TOML through the reader of the configuration, as JSON through the form that the API and the journal have.
#![no_main]

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use hivekeeper::{
    config::{Config, LoadArgs},
    model::{Origin, SwarmSpec},
    view::{SwarmDocument, document},
};
use libfuzzer_sys::fuzz_target;

/// What was read is written and read back equal: this is the way through the journal.
fn survives(spec: &SwarmSpec) {
    let text = serde_json::to_string(&document(spec)).expect("a document is JSON");
    let again: SwarmDocument = serde_json::from_str(&text).expect("what we write we read");
    assert_eq!(&again.into_spec(spec.origin).expect("what was allowed is allowed"), spec);
    let _ = (spec.expand(), spec.home.relaxations());
}

fn toml(text: &str) {
    let env = BTreeMap::new();
    let read = |path: &Path| match path.to_str() {
        Some("/h/config.toml") => Ok(text.to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let resolve = |path: &Path| Ok(path.to_owned());
    let args = LoadArgs {
        file: None,
        cwd: PathBuf::from("/h"),
        env: &env,
        flags: Vec::new(),
        read: &read,
        resolve: &resolve,
    };
    match Config::load(&args) {
        Ok(config) => config.swarms.iter().for_each(survives),
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            assert!(errors.problems().iter().all(|problem| !problem.rule.is_empty()));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    toml(text);
    if let Ok(said) = serde_json::from_str::<SwarmDocument>(text)
        && let Ok(spec) = said.into_spec(Origin::Api)
    {
        survives(&spec);
    }
});
