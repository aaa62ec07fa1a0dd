//! Readers of the words that a container is described with: images, names, networks, users, capabilities.

use crate::model::NetworkSpec;

use super::{
    problem::Complaint,
    read,
    suggest::nearest,
    tree::{Node, quoted},
};

type Read<T> = Result<T, Complaint>;

/// Longest name of an image without tag and digest (distribution's reference grammar).
const IMAGE_NAME_MAX: usize = 255;
/// Longest tag (same).
const TAG_MAX: usize = 128;
/// Fewest digits of a digest (same); sha256 has 64.
const DIGEST_MIN: usize = 32;
/// Longest name of a container, network or user: none is known to be longer, and every message that shows it stays readable.
const NAME_MAX: usize = 255;
/// Largest user id (moby's `user` package: 2^31 - 1).
const ID_MAX: u64 = i32::MAX as u64;

/// Every capability of the kernel (linux/capability.h, 0 to 40), without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// The reference of an image: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
pub(super) fn image(node: &Node) -> Read<String> {
    let allowed = "an image, such as \"debian:bookworm-slim\" or \"ghcr.io/org/agent@sha256:...\"";
    worded(node, is_image, allowed)
}

/// The name of a container.
pub(super) fn name(node: &Node) -> Read<String> {
    worded(node, is_name, "the name of a container: letters, digits, '_', '.' and '-', two at least")
}

/// What a swarm can reach.
pub(super) fn network(node: &Node) -> Read<NetworkSpec> {
    const ALLOWED: &str = "\"none\", \"swarm\" (a bridge of its own), or the name of an existing network";
    match worded(node, is_name, ALLOWED)?.as_str() {
        "none" => Ok(NetworkSpec::None),
        "swarm" => Ok(NetworkSpec::Swarm),
        "host" => Err(Complaint::rule(
            "\"host\"",
            format!("with the host's own network a swarm would not be isolated; allowed: {ALLOWED}"),
        )),
        other => Ok(NetworkSpec::Named(other.to_owned())),
    }
}

/// Who the agents are in the container.
pub(super) fn user(node: &Node) -> Read<String> {
    let fits = |text: &str| match text.split_once(':') {
        None => is_user(text),
        Some((user, group)) => is_user(user) && is_user(group),
    };
    worded(node, fits, "a user name or id, such as \"10001\", \"agent\" or \"10001:10001\"")
}

/// Capabilities, each in capitals and without `CAP_`, and once.
pub(super) fn capabilities(node: &Node) -> Read<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for word in read::strings(node)? {
        let name = word.strip_prefix("CAP_").unwrap_or(&word);
        if name.eq_ignore_ascii_case("ALL") {
            return Err(Complaint::rule(
                quoted(&word),
                "it would give everything away; name each capability that is needed",
            ));
        }
        if !CAPABILITIES.contains(&name) {
            let meant = nearest(&name.to_ascii_uppercase(), &CAPABILITIES);
            let hint = meant.map(|meant| format!("did you mean \"{meant}\"? ")).unwrap_or_default();
            let rule =
                format!("{hint}allowed: capabilities of the kernel, such as \"NET_BIND_SERVICE\" (capabilities(7))");
            return Err(Complaint::rule(quoted(&word), rule));
        }
        if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

fn worded(node: &Node, fits: impl Fn(&str) -> bool, allowed: &str) -> Read<String> {
    let text = read::text(node).map_err(|complaint| Complaint::allowed(complaint.found, allowed))?;
    if fits(&text) { Ok(text) } else { Err(Complaint::allowed(quoted(&text), allowed)) }
}

/// The grammar of distribution's `reference` package.
fn is_image(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => (rest, Some(digest)),
    };
    let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[after_slash..].find(':') {
        None => (rest, None),
        Some(at) => (&rest[..after_slash + at], Some(&rest[after_slash + at + 1..])),
    };
    let path = match name.split_once('/') {
        Some((host, path))
            if host.contains(|c: char| c == '.' || c == ':' || c.is_ascii_uppercase()) || host == "localhost" =>
        {
            if !is_host(host) {
                return false;
            }
            path
        }
        _ => name,
    };
    name.len() <= IMAGE_NAME_MAX
        && path.split('/').all(is_path_part)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        // An address of IPv6.
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", rest.strip_prefix(':')),
            _ => return false,
        },
        None => match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => (host, Some(port)),
        },
    };
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Words of small letters and digits, joined by one dot, by one or two underscores, or by any number of hyphens.
fn is_path_part(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |text: &str| text.bytes().next().is_some_and(is_word) && text.bytes().next_back().is_some_and(is_word);
    let joints = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let joins = |joint: &str| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-');
    ends(text) && joints.into_iter().all(joins)
}

fn is_tag(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=TAG_MAX).contains(&text.len()) && !text.starts_with(['.', '-']) && text.bytes().all(inner)
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match algorithm {
        "sha256" => hex && digits.len() == 64,
        _ => {
            hex && digits.len() >= DIGEST_MIN
                && !algorithm.is_empty()
                && algorithm.bytes().all(|b| b.is_ascii_alphanumeric())
        }
    }
}

/// What engines take for the name of a container or a network (moby's `RestrictedNameChars`).
fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    (2..=NAME_MAX).contains(&text.len()) && first && text.bytes().all(inner)
}

/// A name that useradd(8) would make, or an id.
fn is_user(text: &str) -> bool {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<u64>().is_ok_and(|id| id <= ID_MAX);
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    text.len() <= NAME_MAX && first && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_what_is_none() {
        let digest = "0123456789abcdef".repeat(4);
        let pinned = format!("ghcr.io/org/agent:1.2@sha256:{digest}");
        for good in [
            "debian",
            "debian:bookworm-slim",
            "localhost/agent",
            "localhost:5000/team/agent:1.0_RC-1",
            "registry.example.com/a/b/c__d/e---f/g.h",
            "[::1]:5000/agent",
            "10.0.0.1:5000/agent",
            pinned.as_str(),
            &format!("sha256:{digest}"),
        ] {
            assert!(is_image(good), "{good}");
        }
        let (long_name, long_tag) = ("a".repeat(256), format!("a:{}", "t".repeat(129)));
        for bad in [
            "",
            "Debian",
            "debian:",
            "debian:-slim",
            "debian slim",
            "-debian",
            "debian-",
            "a..b",
            "a___b",
            "a/",
            "/a",
            "a//b",
            "a@sha256:0123",
            "a@sha256",
            "http://example.com/a",
            "example.com:port/a",
            "-a.com/b",
            "[::1/a",
            "a;rm -rf /",
            "a\nb",
            long_name.as_str(),
            long_tag.as_str(),
        ] {
            assert!(!is_image(bad), "{bad}");
        }
    }

    #[test]
    fn names_and_users_are_told_from_what_is_none() {
        for (text, name, user) in [
            ("dev-1_a.b", true, true),
            ("a", false, true),
            ("1a", true, false),
            ("10001", true, true),
            ("2147483647", true, true),
            ("2147483648", true, false),
            ("_agent", false, true),
            ("", false, false),
            ("-a", false, false),
            ("a b", false, false),
            ("a/b", false, false),
            ("container:x", false, false),
        ] {
            assert_eq!((is_name(text), is_user(text)), (name, user), "{text}");
        }
    }

    #[test]
    fn the_list_of_capabilities_is_sorted_and_whole() {
        assert!(CAPABILITIES.is_sorted());
        // A kernel that knows more than we do is where this list is to be looked at again; older ones know fewer.
        if let Ok(last) = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap") {
            assert!(last.trim().parse().is_ok_and(|last: usize| last < CAPABILITIES.len()), "{last}");
        }
    }
}
