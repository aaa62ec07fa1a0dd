//! Reads the secrets that documents refer to, at each start anew: a file that has changed is taken by the next one.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::model::{EnvValue, Environment, Origin, SecretRef, SecretRights};

/// Largest secret. The kernel takes 128 KiB for a variable with its name; no key comes near.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// How long the files of one start may take to be read, all together. A disk answers in milliseconds and so does a server of files that is awake; one
/// that hangs is not to hold up the next agents of the order, nor a take-over, during which leases run.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// Files that are read at once. One that hangs keeps its thread for as long as the kernel pleases, and the runtime has 512 of them for all.
const READS_MAX: usize = 64;

/// Variables of the daemon that are its own: its configuration and the token of its API.
const OURS: &str = "HIVEKEEPER_";

/// Looks a variable of the daemon up.
type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;
/// Reads a file; where directories are named, only one that lies below them.
type FileReader = fn(&Path, Option<&[PathBuf]>) -> io::Result<String>;

/// Whoever reads secrets.
#[derive(Clone)]
pub struct Secrets {
    rights: Arc<SecretRights>,
    lookup: Arc<Lookup>,
    files: FileReader,
    reads: Arc<Semaphore>,
    patience: Duration,
}

/// An environment with its secrets filled in.
pub struct Resolved {
    /// Every variable.
    pub env: BTreeMap<String, String>,
    /// Those of the values that nobody is shown.
    pub secrets: Vec<String>,
}

/// Why a secret can't be had. Names where it should lie, and never what it is.
#[derive(Debug, thiserror::Error)]
#[error("variable {variable} can't be had from {secret}: {why}")]
pub struct SecretError {
    /// The agent's variable.
    pub variable: String,
    /// What its document says.
    pub secret: SecretRef,
    /// What is wrong there.
    pub why: String,
}

impl Secrets {
    /// Reads files, and the daemon's own variables.
    pub fn new(rights: SecretRights) -> Self {
        Self::with_lookup(rights, |name| std::env::var(name).ok())
    }

    /// Finds variables elsewhere, for tests.
    pub fn with_lookup(rights: SecretRights, lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self {
            rights: Arc::new(rights),
            lookup: Arc::new(lookup),
            files: read_file,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            patience: READ_DEADLINE,
        }
    }

    /// Fills the secrets in. `origin` is who refers to them: the API may not to all.
    ///
    /// # Errors
    /// The first that can't be had.
    pub async fn resolve(&self, env: &Environment, origin: Origin) -> Result<Resolved, SecretError> {
        let until = Instant::now() + self.patience;
        let mut resolved = Resolved { env: BTreeMap::new(), secrets: Vec::new() };
        for (name, value) in env {
            let secret = match value {
                EnvValue::Plain(text) => {
                    resolved.env.insert(name.clone(), text.clone());
                    continue;
                }
                EnvValue::Secret(secret) => secret,
            };
            let refuse = |why: String| SecretError { variable: name.clone(), secret: secret.clone(), why };
            let text = self.read(secret, origin, until).await.map_err(refuse)?;
            resolved.secrets.push(text.clone());
            resolved.env.insert(name.clone(), text);
        }
        Ok(resolved)
    }

    /// Those values that can be had, and why one can't: for what is started already.
    pub async fn values(&self, env: &Environment, origin: Origin) -> (Vec<String>, Option<SecretError>) {
        let until = Instant::now() + self.patience;
        let (mut values, mut missing) = (Vec::new(), None);
        for (variable, value) in env {
            let EnvValue::Secret(secret) = value else { continue };
            match self.read(secret, origin, until).await {
                Ok(text) => values.push(text),
                Err(why) => missing = Some(SecretError { variable: variable.clone(), secret: secret.clone(), why }),
            }
        }
        (values, missing)
    }

    async fn read(&self, secret: &SecretRef, origin: Origin, until: Instant) -> Result<String, String> {
        if origin == Origin::Api && !self.rights.allow(secret) {
            let list = match secret {
                SecretRef::File(_) => "it lies below no directory of [secrets] allow_files",
                SecretRef::Env(_) => "[secrets] allow_env does not have it",
            };
            return Err(list.to_owned());
        }
        let text = match secret {
            SecretRef::Env(name) if name.starts_with(OURS) => return Err("it is the daemon's own".to_owned()),
            SecretRef::Env(name) => (self.lookup)(name).ok_or("it is not set, or no UTF-8")?,
            SecretRef::File(path) => {
                let (path, rights, files) = (path.clone(), Arc::clone(&self.rights), self.files);
                let read = async {
                    let place = Arc::clone(&self.reads).acquire_owned().await.map_err(|error| error.to_string())?;
                    let read = spawn_blocking(move || {
                        // Kept for as long as the read hangs, whoever still waits for it.
                        let _place = place;
                        let below = (origin == Origin::Api).then_some(&*rights.files);
                        files(&path, below).map_err(|error| error.to_string())
                    });
                    read.await.map_err(|error| error.to_string())?
                };
                let late =
                    |_| format!("it could not be read in time; a start may take {:?} for its secrets", self.patience);
                timeout_at(until, read).await.map_err(late)??
            }
        };
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if text.contains('\0') {
            return Err("it holds a NUL byte".to_owned());
        }
        if text.len() as u64 > SECRET_BYTES_MAX {
            return Err(format!("it is larger than {SECRET_BYTES_MAX} bytes"));
        }
        Ok(text)
    }
}

/// The text of a regular file without the newline at its end. `below`: only a file that lies below one of these directories when all links are followed.
fn read_file(path: &Path, below: Option<&[PathBuf]>) -> io::Result<String> {
    // A pipe that nobody writes to would otherwise be waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if let Some(directories) = below {
        // What was opened is asked for its path, and not the path for what it leads to: that may be something else by now.
        let opened = opened_path(&file)?;
        let directories: Vec<PathBuf> = directories.iter().filter_map(|dir| dir.canonicalize().ok()).collect();
        if !crate::model::secret::is_below(&opened, &directories) {
            return Err(io::Error::other("it leads out of the directories of [secrets] allow_files"));
        }
    }
    let mut text = String::new();
    if file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > SECRET_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {SECRET_BYTES_MAX} bytes")));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn opened_path(file: &File) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn env(secret: SecretRef) -> Environment {
        [("KEY".to_owned(), EnvValue::Secret(secret)), ("LANG".to_owned(), EnvValue::Plain("C".to_owned()))].into()
    }

    async fn ask(secrets: &Secrets, secret: SecretRef, origin: Origin) -> Result<String, String> {
        let resolved = secrets.resolve(&env(secret), origin).await.map_err(|error| error.to_string())?;
        assert_eq!((resolved.env["LANG"].as_str(), resolved.secrets.len()), ("C", 1));
        assert_eq!(resolved.env["KEY"], resolved.secrets[0]);
        Ok(resolved.env["KEY"].clone())
    }

    #[tokio::test]
    async fn a_file_is_read_anew_each_time_without_its_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let secrets = Secrets::new(SecretRights::default());
        for (written, read) in [("one", "one"), ("two\n", "two"), ("three\r\n", "three"), ("four\n\n", "four\n")] {
            fs::write(&path, written).unwrap();
            assert_eq!(ask(&secrets, SecretRef::File(path.clone()), Origin::Config).await.unwrap(), read);
        }
    }

    #[tokio::test]
    async fn what_can_not_be_had_names_the_reference_and_never_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("empty"), "\n").unwrap();
        fs::write(at("nul"), "planted\0secret").unwrap();
        fs::write(at("binary"), b"planted\xff").unwrap();
        fs::write(at("large"), "planted".repeat(10_000)).unwrap();
        fs::create_dir(at("directory")).unwrap();
        std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        let secrets = Secrets::with_lookup(SecretRights::default(), |name| {
            ["EMPTY", "HIVEKEEPER_API_TOKEN"].contains(&name).then(String::new)
        });
        for (name, why) in [
            ("missing", "No such file"),
            ("empty", "empty"),
            ("nul", "NUL"),
            ("binary", "UTF-8"),
            ("large", "larger than"),
            ("directory", "no regular file"),
            ("pipe", "no regular file"),
        ] {
            let error = ask(&secrets, SecretRef::File(at(name)), Origin::Config).await.unwrap_err();
            assert!(error.contains(why) && error.contains("KEY") && error.contains(name), "{error}");
            assert!(!error.contains("planted"), "{error}");
        }
        for (name, why) in [("MISSING", "not set"), ("EMPTY", "empty"), ("HIVEKEEPER_API_TOKEN", "daemon's own")] {
            let error = ask(&secrets, SecretRef::Env(name.to_owned()), Origin::Config).await.unwrap_err();
            assert!(error.contains(why) && error.contains(name), "{error}");
        }
    }

    #[tokio::test]
    async fn files_that_hang_hold_a_start_up_once_and_keep_few_threads() {
        fn hangs(_: &Path, _: Option<&[PathBuf]>) -> io::Result<String> {
            std::thread::sleep(Duration::from_millis(500));
            Ok("late".to_owned())
        }
        let lookup = |_: &str| Some("value".to_owned());
        let patience = Duration::from_millis(50);
        let secrets = Secrets { files: hangs, patience, ..Secrets::with_lookup(SecretRights::default(), lookup) };
        let file = |n: usize| (format!("KEY_{n}"), EnvValue::Secret(SecretRef::File("/mnt/away/key".into())));
        let many: Environment = (0..10).map(file).collect();

        let begun = Instant::now();
        let error = secrets.resolve(&many, Origin::Config).await.err().unwrap().to_string();
        assert!(error.contains("KEY_0") && error.contains("in time") && error.contains("/mnt/away/key"), "{error}");
        let (values, missing) = secrets.values(&many, Origin::Config).await;
        assert!(values.is_empty() && missing.is_some());
        assert!(begun.elapsed() < 5 * patience, "each file has waited for itself: {:?}", begun.elapsed());

        let starts = (0..2 * READS_MAX).map(|_| secrets.resolve(&many, Origin::Config));
        let all = futures_util::future::join_all(starts).await;
        assert!(all.iter().all(Result::is_err));
        assert_eq!(secrets.reads.available_permits(), 0, "those that hang have all the places there are");
        assert_eq!(ask(&secrets, SecretRef::Env("LISTED".to_owned()), Origin::Config).await.unwrap(), "value");
    }

    #[tokio::test]
    async fn the_api_reads_only_what_is_listed_and_no_link_leads_it_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("real")).unwrap();
        symlink(at("real"), at("keys")).unwrap();
        fs::write(at("outside"), "planted").unwrap();
        fs::write(at("keys/inside"), "value").unwrap();
        symlink(at("outside"), at("keys/link")).unwrap();
        symlink(at("keys/inside"), at("keys/harmless")).unwrap();
        let rights = SecretRights { files: vec![at("keys")], env: vec!["LISTED".to_owned()] };
        let secrets = Secrets::with_lookup(rights, |name| Some(name.to_lowercase()));
        let api = |secret| ask(&secrets, secret, Origin::Api);
        assert_eq!(api(SecretRef::File(at("keys/inside"))).await.unwrap(), "value");
        assert_eq!(api(SecretRef::File(at("keys/harmless"))).await.unwrap(), "value");
        assert_eq!(api(SecretRef::Env("LISTED".to_owned())).await.unwrap(), "listed");
        for refused in ["outside", "keys/link", "keys/../outside"] {
            let error = api(SecretRef::File(at(refused))).await.unwrap_err();
            assert!(error.contains("allow_files"), "{error}");
        }
        assert!(api(SecretRef::Env("PATH".to_owned())).await.unwrap_err().contains("allow_env"));
        let config = ask(&secrets, SecretRef::File(at("keys/link")), Origin::Config).await;
        assert_eq!(config.unwrap(), "planted", "the file may refer to any");
    }
}
