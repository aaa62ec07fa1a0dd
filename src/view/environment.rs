//! The `env` of swarm documents. A secret is shown as the reference that it is; nothing here has ever seen its value.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::document::DocumentError;
use crate::model::{EnvValue, Environment, SecretRef};

/// `env`
pub(super) type EnvironmentDocument = BTreeMap<String, EnvValueDocument>;

/// `"C.UTF-8"`, `{ "file": "/run/secrets/key" }` or `{ "env": "NAME" }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string, { file = \"PATH\" } or { env = \"NAME\" }")]
pub enum EnvValueDocument {
    /// The value itself.
    Plain(String),
    /// Where it lies.
    Secret(SecretDocument),
}

/// Where a secret lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretDocument {
    /// In this file of the daemon's machine.
    File(String),
    /// In this variable of the daemon.
    Env(String),
}

/// Shows an environment.
pub fn document(env: &Environment) -> EnvironmentDocument {
    let shown = |value: &EnvValue| match value {
        EnvValue::Plain(text) => EnvValueDocument::Plain(text.clone()),
        EnvValue::Secret(SecretRef::File(path)) => {
            EnvValueDocument::Secret(SecretDocument::File(path.to_string_lossy().into_owned()))
        }
        EnvValue::Secret(SecretRef::Env(name)) => EnvValueDocument::Secret(SecretDocument::Env(name.clone())),
    };
    env.iter().map(|(name, value)| (name.clone(), shown(value))).collect()
}

/// The counterpart of [`document`].
///
/// # Errors
/// A file that is named by a relative path: nobody can tell to what.
pub(super) fn meant(env: EnvironmentDocument) -> Result<Environment, DocumentError> {
    let meant = |value| {
        Ok(match value {
            EnvValueDocument::Plain(text) => EnvValue::Plain(text),
            EnvValueDocument::Secret(SecretDocument::File(path)) if Path::new(&path).is_absolute() => {
                EnvValue::Secret(SecretRef::File(path.into()))
            }
            EnvValueDocument::Secret(SecretDocument::File(_)) => {
                return Err(DocumentError::Key { key: "env", rule: "the file of a secret is an absolute path" });
            }
            EnvValueDocument::Secret(SecretDocument::Env(name)) => EnvValue::Secret(SecretRef::Env(name)),
        })
    };
    env.into_iter().map(|(name, value)| Ok((name, meant(value)?))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Environment, String> {
        let document: EnvironmentDocument = serde_json::from_value(value).map_err(|error| error.to_string())?;
        meant(document).map_err(|error| error.to_string())
    }

    #[test]
    fn references_survive_the_way_there_and_back() {
        let value = json!({ "A": "text", "B": { "file": "/run/secrets/b" }, "C": { "env": "NAME" } });
        let env = read(value.clone()).unwrap();
        assert_eq!(env["B"], EnvValue::Secret(SecretRef::File("/run/secrets/b".into())));
        assert_eq!(env["C"], EnvValue::Secret(SecretRef::Env("NAME".to_owned())));
        assert_eq!(serde_json::to_value(document(&env)).unwrap(), value);
    }

    #[test]
    fn anything_else_is_refused() {
        for value in [json!(1), json!(null), json!({}), json!({ "value": "x" }), json!({ "file": "/a", "env": "B" })] {
            let why = read(json!({ "A": value })).unwrap_err();
            assert!(why.contains("a string, { file"), "{why}");
        }
        assert!(read(json!({ "A": { "file": "relative" } })).unwrap_err().contains("absolute"));
    }
}
