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
    let path = read::path(machine.base)(node)?.ok_or_else(|| Complaint::allowed("\"\"", "the path of a file"))?;
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
