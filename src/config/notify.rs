//! `[[notify]]`: who is told when something is wrong.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ureq::http::{HeaderName, HeaderValue};

use crate::{
    model::{NotifierName, NotifySpec, Receiver, SwarmName, Topic, UrlSpec, Webhook},
    notify,
};

use super::{
    fields::{Fields, Setting},
    problem::{Complaint, Place, Problem},
    read::{self, duration, integer},
    tree::{Node, Value, quoted},
};

/// Notifiers of one hive: each follows the feed.
const NOTIFIERS_MAX: usize = 16;
/// Headers of one webhook.
const HEADERS_MAX: usize = 16;
/// What we send ourselves, or what only the library that sends may say.
const OUR_HEADERS: [&str; 8] = [
    "authorization",
    "content-type",
    "content-length",
    "host",
    "transfer-encoding",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];
/// Below a tenth of a second no receiver answers; one that takes more than a minute holds up what waits behind.
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_PER_MINUTE: u32 = 10;
const DEFAULT_RECOVERED_AFTER: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(60 * 60);

/// What the tables are read with.
pub(super) struct Ground<'a> {
    /// Relative paths count from here.
    pub(super) base: &'a Path,
    /// Reads a file.
    pub(super) read: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// Reads the `notify` array.
pub(super) fn notifiers(node: Node, ground: &Ground<'_>, problems: &mut Vec<Problem>) -> Vec<NotifySpec> {
    let nodes = match node.value {
        Value::Array(nodes) => nodes,
        other => {
            let allowed = "tables headed [[notify]], with two brackets";
            problems.push(Complaint::allowed(other.describe(), allowed).at(node.place, "notify".to_owned()));
            return Vec::new();
        }
    };
    if nodes.len() > NOTIFIERS_MAX {
        let found = format!("{} notifiers", nodes.len());
        let complaint = Complaint::allowed(found, format!("{NOTIFIERS_MAX} at most"));
        problems.push(complaint.at(node.place, "notify".to_owned()));
    }
    let mut names = HashMap::new();
    let mut notifiers = Vec::new();
    for (i, node) in nodes.into_iter().enumerate() {
        let Some(fields) = Fields::open(node, format!("notify[#{}]", i + 1), problems) else { continue };
        notifiers.extend(notifier(fields, ground, &mut names));
    }
    notifiers
}

fn notifier(
    mut fields: Fields<'_>,
    ground: &Ground<'_>,
    names: &mut HashMap<NotifierName, Place>,
) -> Option<NotifySpec> {
    let name = fields.required("name", read::name::<NotifierName>);
    if let Some(Setting { value, place }) = &name {
        fields.rename(format!("notify[{value}]"));
        if let Some(first) = names.get(value) {
            let rule = format!("allowed: each name once; the first is at {first}");
            fields.complain(place.clone(), "name", Complaint::rule(format!("a second notifier \"{value}\""), rule));
        } else {
            names.insert(value.clone(), place.clone());
        }
    }
    let to = receiver(&mut fields, ground);
    let on = fields.get("on", topics);
    let swarms = fields.get("swarms", swarms);
    // Faster than ten a second it is a stream, which `/events` is for.
    let per_minute = fields.get("per_minute", integer(1..=600));
    let recovered_after = fields.get("recovered_after", duration(Duration::ZERO..=DAY));
    let timeout = fields.get("timeout", duration(TIMEOUT));
    let retry_for = fields.get("retry_for", duration(Duration::ZERO..=DAY));
    fields.finish();
    let value = |said: Option<Setting<Duration>>, default| said.map_or(default, |said| said.value);
    Some(NotifySpec {
        name: name?.value,
        to: to?,
        on: on.map_or_else(|| Topic::ALL.into(), |said| said.value),
        swarms: swarms.map(|said| said.value).unwrap_or_default(),
        per_minute: match per_minute {
            Some(said) => u32::try_from(said.value).ok()?,
            None => DEFAULT_PER_MINUTE,
        },
        recovered_after: value(recovered_after, DEFAULT_RECOVERED_AFTER),
        timeout: value(timeout, DEFAULT_TIMEOUT),
        retry_for: value(retry_for, DEFAULT_RETRY_FOR),
    })
}

/// Exactly one of `webhook`, `webhook_file` and `command`.
fn receiver(fields: &mut Fields<'_>, ground: &Ground<'_>) -> Option<Receiver> {
    let said: Vec<&str> =
        ["webhook", "webhook_file", "command"].into_iter().filter(|key| fields.place_of(key).is_some()).collect();
    if said.len() != 1 {
        let found = if said.is_empty() { "nobody to tell".to_owned() } else { said.join(" and ") };
        let place = fields.place.clone();
        let rule = "allowed: one of webhook = \"https://...\", webhook_file = \"FILE\", command = [\"PROGRAM\", ...]";
        fields.complain(place, "", Complaint::rule(found, rule));
    }
    let command = fields.get("command", |node| read::argv(node).map(|argv| placed(argv, ground.base)));
    let url = fields.get("webhook", url).map(|said| UrlSpec::Plain(said.value));
    let url_file = file(fields, "webhook_file", ground, |text| notify::check_url(text).map_err(str::to_owned));
    if command.is_some() {
        fields.refuse(&["headers", "token_file", "secret_file", "ca_file"], |key| {
            format!("`{key}` belongs to a webhook; a command finds what it needs itself")
        });
    }
    let headers = fields.get("headers", headers).map(|said| said.value).unwrap_or_default();
    let token_file = file(fields, "token_file", ground, |text| {
        let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then_some(()).ok_or_else(|| "no word of printable ASCII characters is in it".to_owned())
    });
    let secret_file = file(fields, "secret_file", ground, |text| {
        notify::check_secret(text)
            .then_some(())
            .ok_or_else(|| "no secret is in it, or no base64 behind whsec_".to_owned())
    });
    let authorities = authorities(fields, ground);
    if said.len() != 1 {
        return None;
    }
    if let Some(command) = command {
        return Some(Receiver::Command(command.value));
    }
    let url = url.or(url_file.map(UrlSpec::File))?;
    Some(Receiver::Webhook(Webhook { url, headers, token_file, secret_file, authorities }))
}

/// A program with a slash in it is where the file says it is, whatever directory the daemon is started in.
fn placed(mut argv: Vec<String>, base: &Path) -> Vec<String> {
    if let Some(program) = argv.first_mut().filter(|program| program.contains('/')) {
        *program = base.join(&*program).display().to_string();
    }
    argv
}

/// A file that is read for each message; it is looked at now, so that a mistake is found before a message is lost to it.
fn file(
    fields: &mut Fields<'_>,
    key: &'static str,
    ground: &Ground<'_>,
    check: impl FnOnce(&str) -> Result<(), String>,
) -> Option<PathBuf> {
    let said = fields.get(key, read::path(ground.base))?;
    let path = said.value?;
    let complaint = match (ground.read)(&path) {
        Ok(text) => match check(text.trim()) {
            Ok(()) => return Some(path),
            Err(why) => {
                Complaint::rule(format!("{path:?}: {why}"), "allowed: a file with what its key says, and nothing else")
            }
        },
        Err(error) => Complaint::rule(format!("{path:?}, which can't be read: {error}"), "allowed: a readable file"),
    };
    fields.complain(said.place, key, complaint);
    None
}

fn authorities(fields: &mut Fields<'_>, ground: &Ground<'_>) -> Option<Arc<str>> {
    let path = file(fields, "ca_file", ground, |text| {
        notify::authorities(text).map(drop).ok_or_else(|| "no certificate that can be read is in it (PEM)".to_owned())
    })?;
    (ground.read)(&path).ok().map(Arc::from)
}

fn url(node: &Node) -> Result<String, Complaint> {
    let found = read::text(node)?;
    // Not repeated: it may be a secret.
    notify::check_url(&found).map_err(|why| {
        Complaint::allowed(format!("a text that is none: {why}"), "a URL such as \"https://hooks.example.org/hive\"")
    })?;
    Ok(found)
}

fn topics(node: &Node) -> Result<BTreeSet<Topic>, Complaint> {
    let allowed = || {
        let words: Vec<String> = Topic::ALL.iter().map(|topic| format!("{:?}", topic.word())).collect();
        format!("an array of at least one of {}", words.join(", "))
    };
    let words = read::strings(node).map_err(|complaint| Complaint::allowed(complaint.found, allowed()))?;
    let mut topics = BTreeSet::new();
    for word in &words {
        let topic = Topic::ALL.into_iter().find(|topic| topic.word() == word);
        topics.insert(topic.ok_or_else(|| Complaint::allowed(quoted(word), allowed()))?);
    }
    // A recovery of what nobody was told of is told to nobody.
    if topics.iter().all(|topic| *topic == Topic::Recovered) {
        return Err(Complaint::allowed(format!("{words:?}"), "something that can be wrong, besides \"recovered\""));
    }
    Ok(topics)
}

fn swarms(node: &Node) -> Result<BTreeSet<SwarmName>, Complaint> {
    let words = read::strings(node)?;
    let name = |word: &String| word.parse().map_err(|_| Complaint::allowed(quoted(word), "names of swarms"));
    words.iter().map(name).collect()
}

fn headers(node: &Node) -> Result<Vec<(String, String)>, Complaint> {
    const ALLOWED: &str = "a table of at most 16 headers, such as { X-Room = \"ops\" }";
    let Value::Table(entries) = &node.value else {
        return Err(Complaint::allowed(node.value.describe(), ALLOWED));
    };
    if entries.len() > HEADERS_MAX {
        return Err(Complaint::allowed(format!("{} headers", entries.len()), ALLOWED));
    }
    let mut headers = Vec::new();
    for entry in entries {
        let value = read::text(&entry.node)?;
        let name = entry.key.parse::<HeaderName>();
        if name.is_err() || value.parse::<HeaderValue>().is_err() {
            return Err(Complaint::allowed(format!("{}, which no header can be", quoted(&entry.key)), ALLOWED));
        }
        if OUR_HEADERS.contains(&entry.key.to_ascii_lowercase().as_str()) {
            let rule = "set by Hivekeeper; a bearer token comes from token_file, a signature from secret_file";
            return Err(Complaint::rule(quoted(&entry.key), rule));
        }
        headers.push((entry.key.clone(), value));
    }
    Ok(headers)
}
