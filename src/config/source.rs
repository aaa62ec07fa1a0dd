//! `[[source]]`: MCP servers to poll.

use std::{collections::HashMap, net::Ipv6Addr, sync::Arc, time::Duration};

use crate::model::{SourceName, SourceSpec, ToolSpec};

use super::{
    fields::{Fields, Setting},
    problem::{Complaint, Place, Problem},
    read::{self, duration, integer},
    tree::{Entry, Node, Value, quoted},
};

/// Sources of one hive: each holds up to eight connections and stands in every health document.
const SOURCES_MAX: usize = 64;
/// Tools of one source: each is called at every poll.
const TOOLS_MAX: usize = 16;
/// Longest name of a tool, and longest host name (RFC 1035: 255 bytes, without the length bytes 253).
const NAME_BYTES_MAX: usize = 253;
/// Longest arguments of a tool, as JSON: a question, not a document.
const ARGUMENTS_BYTES_MAX: usize = 4096;
/// More often than this a poll is a load of its own; less often than daily it tells nothing of now.
const INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
/// Below it a busy machine is not to be told from a dead one; above a minute a hung server holds a poll for too long.
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// What the servers of agent containers offer about themselves.
const DEFAULT_TOOLS: [&str; 2] = ["agent_list", "swarm_status"];
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_CONNECTIONS: usize = 2;

/// Reads the `source` array.
pub(super) fn sources(node: Node, problems: &mut Vec<Problem>) -> Vec<SourceSpec> {
    let nodes = match node.value {
        Value::Array(nodes) => nodes,
        other => {
            let allowed = "tables headed [[source]], with two brackets";
            problems.push(Complaint::allowed(other.describe(), allowed).at(node.place, "source".to_owned()));
            return Vec::new();
        }
    };
    if nodes.len() > SOURCES_MAX {
        let found = format!("{} sources", nodes.len());
        problems.push(Complaint::allowed(found, format!("{SOURCES_MAX} at most")).at(node.place, "source".to_owned()));
    }
    let mut names = HashMap::new();
    let mut sources = Vec::new();
    for (i, node) in nodes.into_iter().enumerate() {
        let Some(fields) = Fields::open(node, format!("source[#{}]", i + 1), problems) else { continue };
        sources.extend(source(fields, &mut names));
    }
    sources
}

fn source(mut fields: Fields<'_>, names: &mut HashMap<SourceName, Place>) -> Option<SourceSpec> {
    let name = fields.required("name", read::name::<SourceName>);
    if let Some(Setting { value, place }) = &name {
        fields.rename(format!("source[{value}]"));
        if let Some(first) = names.get(value) {
            let rule = format!("allowed: each name once; the first is at {first}");
            fields.complain(place.clone(), "name", Complaint::rule(format!("a second source \"{value}\""), rule));
        } else {
            names.insert(value.clone(), place.clone());
        }
    }
    let address = fields.required("address", address);
    let tools = tools(&mut fields);
    let interval = fields.get("interval", duration(INTERVAL));
    let timeout = fields.get("timeout", duration(TIMEOUT));
    let connections = fields.get("connections", integer(1..=8));
    fields.finish();
    Some(SourceSpec {
        name: name?.value,
        address: address?.value,
        tools: tools?,
        interval: interval.map_or(DEFAULT_INTERVAL, |said| said.value),
        timeout: timeout.map_or(DEFAULT_TIMEOUT, |said| said.value),
        connections: match connections {
            Some(said) => usize::try_from(said.value).ok()?,
            None => DEFAULT_CONNECTIONS,
        },
    })
}

/// `HOST:PORT`.
fn address(node: &Node) -> Result<Arc<str>, Complaint> {
    const ALLOWED: &str = "a host and a port, such as \"127.0.0.1:9500\", \"[::1]:9500\" or \"agents.lan:9500\"";
    let found = read::text(node).map_err(|complaint| Complaint::allowed(complaint.found, ALLOWED))?;
    let refuse = || Complaint::allowed(quoted(&found), ALLOWED);
    let (host, port) = found.rsplit_once(':').ok_or_else(refuse)?;
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| *port > 0 && digits);
    let named = |host: &str| {
        !host.is_empty()
            && host.len() <= NAME_BYTES_MAX
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<Ipv6Addr>().is_ok(),
        None => named(host),
    };
    if port.is_some() && host_fits { Ok(Arc::from(found)) } else { Err(refuse()) }
}

fn tools(fields: &mut Fields<'_>) -> Option<Vec<ToolSpec>> {
    const ALLOWED: &str = "an array of 1 to 16 tools, each \"NAME\" or { name = \"NAME\", arguments = { ... } }";
    let plain = |name: &str| ToolSpec { name: Arc::from(name), arguments: Arc::from("{}") };
    let Some(node) = fields.node("tools") else { return Some(DEFAULT_TOOLS.iter().map(|name| plain(name)).collect()) };
    let items = match node.value {
        Value::Array(items) if !items.is_empty() && items.len() <= TOOLS_MAX => items,
        Value::Array(items) => {
            fields.complain(node.place, "tools", Complaint::allowed(format!("{} tools", items.len()), ALLOWED));
            return None;
        }
        other => {
            fields.complain(node.place, "tools", Complaint::allowed(other.describe(), ALLOWED));
            return None;
        }
    };
    let mut tools = Vec::new();
    let mut sound = true;
    for (i, item) in items.into_iter().enumerate() {
        let key = format!("tools[#{}]", i + 1);
        let tool = match &item.value {
            Value::Table(_) => {
                let path = fields.path(&key);
                fields.open_below(item, path).and_then(called)
            }
            Value::String(_) => match tool_name(&item) {
                Ok(name) => Some(plain(&name)),
                Err(complaint) => {
                    fields.complain(item.place, &key, complaint);
                    None
                }
            },
            other => {
                fields.complain(item.place, &key, Complaint::allowed(other.describe(), ALLOWED));
                None
            }
        };
        sound &= tool.is_some();
        tools.extend(tool);
    }
    sound.then_some(tools)
}

/// A tool with its arguments.
fn called(mut fields: Fields<'_>) -> Option<ToolSpec> {
    let name = fields.required("name", tool_name);
    let arguments = fields.get("arguments", arguments);
    fields.finish();
    Some(ToolSpec {
        name: Arc::from(name?.value),
        arguments: arguments.map_or_else(|| Arc::from("{}"), |said| said.value),
    })
}

fn tool_name(node: &Node) -> Result<String, Complaint> {
    let found = read::text(node)?;
    let fits = !found.is_empty() && found.len() <= NAME_BYTES_MAX && !found.chars().any(char::is_control);
    if fits { Ok(found) } else { Err(Complaint::allowed(quoted(&found), "the name of a tool, of 1 to 253 bytes")) }
}

fn arguments(node: &Node) -> Result<Arc<str>, Complaint> {
    const ALLOWED: &str = "a table of at most 4096 bytes as JSON, such as { timezone = \"UTC\" }";
    let Value::Table(entries) = &node.value else {
        return Err(Complaint::allowed(node.value.describe(), ALLOWED));
    };
    let text = table(entries).to_string();
    if text.len() > ARGUMENTS_BYTES_MAX {
        return Err(Complaint::allowed(format!("a table of {} bytes", text.len()), ALLOWED));
    }
    Ok(Arc::from(text))
}

fn table(entries: &[Entry]) -> serde_json::Value {
    entries.iter().map(|entry| (entry.key.clone(), json(&entry.node.value))).collect()
}

/// JSON has no dates, which become text, and no infinities, which become null.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Raw(text) | Value::String(text) | Value::Datetime(text) => text.clone().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
        Value::Array(items) => items.iter().map(|item| json(&item.value)).collect(),
        Value::Table(entries) => table(entries),
    }
}
