//! `env`: values, and references to secrets.

use crate::model::{EnvValue, Environment, SecretRef};

use super::{
    fields::Fields,
    home::{Author, Machine},
    problem::Complaint,
    read,
    tree::{Node, Value, quoted},
};

/// What a variable of the daemon is never called that may be handed on.
const OURS: &str = "HIVEKEEPER_";

/// Reads `env`. Files count from where the document lies.
pub(super) fn environment(fields: &mut Fields<'_>, machine: Machine<'_>) -> Environment {
    let Some(node) = fields.node("env") else { return Environment::new() };
    let Value::Table(entries) = node.value else {
        let allowed = "a table of strings, such as { LANG = \"C.UTF-8\" }";
        fields.complain(node.place, "env", Complaint::allowed(node.value.describe(), allowed));
        return Environment::new();
    };
    let mut env = Environment::new();
    for entry in entries {
        let key = format!("env.{}", entry.key);
        let value = match &entry.node.value {
            Value::Table(_) => match read::variable_name(&entry.key) {
                Ok(()) => secret(fields, fields.path(&key), entry.node, machine).map(EnvValue::Secret),
                Err(complaint) => {
                    fields.complain(entry.place, &key, complaint);
                    None
                }
            },
            _ => match read::variable(&entry.key, &entry.node) {
                Ok(text) => Some(EnvValue::Plain(text)),
                Err(complaint) => {
                    fields.complain(entry.place, &key, complaint);
                    None
                }
            },
        };
        env.extend(value.map(|value| (entry.key, value)));
    }
    env
}

fn secret(fields: &mut Fields<'_>, path: String, node: Node, machine: Machine<'_>) -> Option<SecretRef> {
    const ONE: &str = "{ file = \"PATH\" } or { env = \"NAME\" }";
    let place = node.place.clone();
    let mut below = fields.open_below(node, path)?;
    let file = below.node("file");
    let variable = below.node("env");
    let found = match (file, variable) {
        (Some(node), None) => below.read_node("file", node, |node| file_of(node, machine)),
        (None, Some(node)) => below.read_node("env", node, |node| variable_of(node, machine)),
        (both, _) => {
            let found = if both.is_some() { "both `file` and `env`" } else { "neither `file` nor `env`" };
            below.complain(place, "", Complaint::allowed(found, ONE));
            None
        }
    };
    below.finish();
    found.map(|said| said.value)
}

/// Whether it is there is seen at each start, not now: secrets are often put there later.
fn file_of(node: &Node, machine: Machine<'_>) -> Result<SecretRef, Complaint> {
    let path = machine.path(node)?.ok_or_else(|| Complaint::allowed("\"\"", "the path of a file"))?;
    let secret = SecretRef::File(path);
    allowed(&secret, machine, "[secrets] allow_files has directories below which such a file may lie")?;
    Ok(secret)
}

fn variable_of(node: &Node, machine: Machine<'_>) -> Result<SecretRef, Complaint> {
    let secret = SecretRef::Env(name(read::text(node)?)?);
    allowed(&secret, machine, "[secrets] allow_env has the names of variables that may be handed on")?;
    Ok(secret)
}

fn allowed(secret: &SecretRef, machine: Machine<'_>, rule: &str) -> Result<(), Complaint> {
    match machine.author {
        Author::Api(rights) if !rights.secrets.allow(secret) => {
            let rule = format!("documents sent to the API may not refer to it; {rule}");
            Err(Complaint::rule(secret.to_string(), rule))
        }
        _ => Ok(()),
    }
}

/// `[secrets] allow_env`
pub(super) fn names(node: &Node) -> Result<Vec<String>, Complaint> {
    read::strings(node)?.into_iter().map(name).collect()
}

fn name(name: String) -> Result<String, Complaint> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Complaint::allowed(quoted(&name), "the name of a variable of the daemon"));
    }
    if name.starts_with(OURS) {
        return Err(Complaint::rule(quoted(&name), "variables that begin with HIVEKEEPER_ are the daemon's own"));
    }
    Ok(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{io, path::Path, sync::Arc};

    use super::*;
    use crate::{
        config::{
            engine::Sockets,
            home::{ApiRights, home},
            problem::Problem,
            tree,
        },
        model::SecretRights,
    };

    /// `/srv/link` leads out of what is listed.
    fn resolve(path: &Path) -> io::Result<std::path::PathBuf> {
        match path.to_str() {
            Some("/srv/swarms/link") => Ok("/etc".into()),
            Some(path) if path.contains(".sock") => Err(io::Error::from(io::ErrorKind::NotFound)),
            _ => Ok(path.to_owned()),
        }
    }

    fn problems(document: &str, author: Author<'_>) -> Vec<Problem> {
        let sockets = Sockets::new(None, &resolve);
        let machine = Machine { base: Some(Path::new("/h")), resolve: &resolve, sockets: &sockets, author };
        let root = tree::parse(&Arc::from("document"), document).unwrap();
        let mut problems = Vec::new();
        let mut fields = Fields::open(root, "swarm", &mut problems).unwrap();
        let _ = (home(&mut fields, machine), environment(&mut fields, machine));
        fields.finish();
        problems
    }

    fn rights() -> ApiRights {
        ApiRights {
            mounts: vec!["/srv/swarms".into()],
            secrets: SecretRights { files: vec!["/srv/keys".into()], env: vec!["LISTED".to_owned()] },
        }
    }

    #[test]
    fn documents_of_the_api_refer_to_what_is_listed() {
        let (some, none) = (rights(), ApiRights::default());
        for (value, allowed, list) in [
            ("{ file = \"/srv/keys/a\" }", true, "allow_files"),
            ("{ file = \"/srv/keys/../a\" }", false, "allow_files"),
            ("{ file = \"/etc/shadow\" }", false, "allow_files"),
            ("{ file = \"key\" }", false, "allow_files"),
            ("{ env = \"LISTED\" }", true, "allow_env"),
            ("{ env = \"HOME\" }", false, "allow_env"),
        ] {
            let document = format!("env = {{ KEY = {value} }}");
            let refused = problems(&document, Author::Api(&some));
            assert_eq!(refused.is_empty(), allowed, "{value}: {refused:?}");
            let refused = problems(&document, Author::Api(&none));
            assert!(refused.len() == 1 && refused[0].rule.contains(list), "{value}: {refused:?}");
            assert_eq!(problems(&document, Author::File), [], "the file may refer to any");
        }
    }

    #[test]
    fn documents_of_the_api_mount_what_is_listed() {
        let (some, none) = (rights(), ApiRights::default());
        for (source, allowed) in [
            ("/srv/swarms/a", true),
            ("/srv/swarms", true),
            ("/srv/swarms2/a", false),
            ("/srv", false),
            ("/srv/swarms/link", false),
            ("repo", false),
        ] {
            let document = format!("image = \"i\"\nmounts = [{{ source = {source:?}, target = \"/w\" }}]");
            let refused = problems(&document, Author::Api(&some));
            assert_eq!(refused.is_empty(), allowed, "{source}: {refused:?}");
            let refused = problems(&document, Author::Api(&none));
            assert!(refused.len() == 1 && refused[0].rule.contains("allow_mounts"), "{source}: {refused:?}");
            assert_eq!(problems(&document, Author::File), [], "the file may mount what it names");
        }
    }
}
