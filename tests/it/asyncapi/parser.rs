//! AsyncAPI's own parser, npm's, which is installed below `target/`: it runs with `tests/run --long`.

use std::{fs, path::Path};

use crate::harness::{
    outside::{command, long, npm},
    skipped,
};

#[test]
fn it_objects_to_nothing() {
    if !long() {
        return;
    }
    let Some(modules) = npm("@asyncapi/parser") else {
        return skipped("needs node and npm's @asyncapi/parser");
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = here.join("tests/it/asyncapi/parser.mjs").display().to_string();
    let judge = |file: &Path| {
        let told = command("node", &[&script, file.to_str().unwrap(), &modules]).output().unwrap();
        let words = [told.stdout, told.stderr].concat();
        (told.status.code(), String::from_utf8(words).unwrap())
    };
    let file = here.join("docs/asyncapi.yaml");
    assert_eq!(judge(&file), (Some(0), String::new()));
    // It does object to what is wrong.
    let wrong = tempfile::NamedTempFile::new().unwrap();
    let text = fs::read_to_string(file).unwrap();
    fs::write(wrong.path(), text.replacen("action: send", "action: shout", 1)).unwrap();
    let (code, words) = judge(wrong.path());
    assert!(code == Some(1) && words.contains("action"), "{code:?}: {words}");
}
