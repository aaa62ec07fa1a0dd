//! What a document asks of the machine, as the engine can give it: paths under the names that the engine knows, no more processors than there are.

use std::{fs, path::Path};

use super::{
    engine::{CallError, Engine, Limits, MountPlan},
    lodging::EnterError,
};
use crate::model::{self, Mount};

/// The mounts of a swarm, which its document names as this process sees them.
pub(super) fn mounts(engine: &Engine, mounts: &[Mount]) -> Result<Vec<MountPlan>, EnterError> {
    let plan = |mount: &Mount| {
        let seen = unmoved(&mount.source)?;
        let source = engine.outside(seen).map_err(|error| EnterError::Refused(error.to_string()))?;
        Ok(MountPlan { source, target: mount.target.clone(), read_only: mount.read_only })
    };
    mounts.iter().map(plan).collect()
}

/// Refuses a source that leads elsewhere by now. Documents hold it without links, and what it led to was judged when they were read: an agent that can
/// write to the directory above must not choose what is mounted at its next start.
fn unmoved(source: &Path) -> Result<&Path, EnterError> {
    match fs::canonicalize(source) {
        Ok(seen) if seen != source => {
            let (source, seen) = (source.display(), seen.display());
            let why = format!(
                "mount source {source} leads to {seen} since its document was read; send the document again if that is meant"
            );
            Err(EnterError::Refused(why))
        }
        // An engine on this machine says itself what is wrong with a source that has gone.
        _ => Ok(source),
    }
}

/// The limits of a swarm on the engine's machine, and what of them is other than its document asks. A limit above what the machine has limits nothing;
/// engines refuse it all the same.
pub(super) async fn limits(engine: &Engine, asked: model::Limits) -> Result<(Limits, Vec<String>), CallError> {
    let cpus = match asked.cpus {
        Some(_) => engine.cpus().await?,
        None => 0,
    };
    Ok(within(asked, cpus))
}

fn within(asked: model::Limits, machine: u32) -> (Limits, Vec<String>) {
    let mut adjustments = Vec::new();
    let mut limits = Limits { memory_bytes: asked.memory, cpus: asked.cpus, pids: asked.pids };
    let there = f64::from(machine);
    if let Some(asked) = asked.cpus
        && machine > 0
        && asked > there
    {
        limits.cpus = Some(there);
        adjustments.push(format!("limits.cpus {asked} is {machine}, which is all that the engine's machine has"));
    }
    (limits, adjustments)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_became_a_link_is_not_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (source, kept) = (dir.join("source"), dir.join("kept"));
        assert_eq!(unmoved(&source).unwrap(), source, "the engine tells of what is missing");
        fs::create_dir(&source).unwrap();
        assert_eq!(unmoved(&source).unwrap(), source);
        fs::rename(&source, &kept).unwrap();
        for elsewhere in [Path::new("/"), &kept] {
            std::os::unix::fs::symlink(elsewhere, &source).unwrap();
            let refused = unmoved(&source).unwrap_err().to_string();
            assert!(refused.contains(&format!("leads to {}", elsewhere.display())), "{refused}");
            fs::remove_file(&source).unwrap();
        }
    }

    #[test]
    fn a_limit_of_processors_is_at_most_what_the_machine_has() {
        let given = |cpus, machine| {
            let asked = model::Limits { memory: Some(1), cpus, pids: Some(2) };
            let (limits, adjustments) = within(asked, machine);
            assert_eq!((limits.memory_bytes, limits.pids), (Some(1), Some(2)));
            (limits.cpus, adjustments)
        };
        assert_eq!(given(Some(1.5), 2), (Some(1.5), vec![]));
        assert_eq!(given(Some(2.0), 2), (Some(2.0), vec![]));
        assert_eq!(given(None, 2), (None, vec![]));
        let text = "limits.cpus 1.5 is 1, which is all that the engine's machine has";
        assert_eq!(given(Some(1.5), 1), (Some(1.0), vec![text.to_owned()]));
        assert_eq!(
            given(Some(64.0), 0),
            (Some(64.0), vec![]),
            "an engine that does not say how many it has decides itself"
        );
    }
}
