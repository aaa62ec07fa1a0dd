//! Secrets by reference: a document says where a value is found, and never what it is.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Component, Path, PathBuf},
};

/// An agent's environment as its documents have it.
pub type Environment = BTreeMap<String, EnvValue>;

/// What one variable is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// This text, which everybody may see.
    Plain(String),
    /// What lies elsewhere at each start, which nobody is shown.
    Secret(SecretRef),
}

impl From<String> for EnvValue {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

/// Where a secret lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In this file; an absolute path of this machine.
    File(PathBuf),
    /// In this variable of the daemon.
    Env(String),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Env(name) => write!(f, "the daemon's variable {name}"),
        }
    }
}

/// The secrets that documents sent to the API may refer to. The configuration file may refer to any: who writes it has given the daemon its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretRights {
    /// Absolute directories below which its files lie.
    pub files: Vec<PathBuf>,
    /// Names of the daemon's variables.
    pub env: Vec<String>,
}

impl SecretRights {
    /// Whether a document of the API may refer to it. Of a file it is asked with its path as it was said and as it resolves: a link may lead elsewhere.
    pub fn allow(&self, secret: &SecretRef) -> bool {
        match secret {
            SecretRef::File(path) => is_below(path, &self.files),
            SecretRef::Env(name) => self.env.contains(name),
        }
    }
}

/// Whether a path lies below one of these directories, without a way back up in it.
pub fn is_below(path: &Path, directories: &[PathBuf]) -> bool {
    let plain = path.components().all(|part| part != Component::ParentDir);
    plain && directories.iter().any(|directory| path != directory && path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_may_refer_only_to_what_is_listed() {
        let rights = SecretRights { files: vec!["/srv/keys".into()], env: vec!["KEY".to_owned()] };
        let file = |path: &str| SecretRef::File(path.into());
        let env = |name: &str| SecretRef::Env(name.to_owned());
        assert!(
            rights.allow(&file("/srv/keys/a")) && rights.allow(&file("/srv/keys/a/b")) && rights.allow(&env("KEY"))
        );
        for refused in ["/srv/keys", "/srv/keys2/a", "/srv", "/etc/shadow", "/srv/keys/../a", "srv/keys/a"] {
            assert!(!rights.allow(&file(refused)), "{refused}");
        }
        assert!(!rights.allow(&env("KEY2")) && !rights.allow(&env("key")) && !rights.allow(&env("")));
        let none = SecretRights::default();
        assert!(!none.allow(&file("/srv/keys/a")) && !none.allow(&env("KEY")));
    }
}
