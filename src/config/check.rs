//! What only the whole can tell: settings that don't go together.

use std::{net::SocketAddr, path::Path};

use super::{
    draft::Draft,
    fields::Setting,
    problem::{Complaint, Problem},
    settings::Token,
    swarm::heartbeat_fits,
};

/// Longest data directory: a launcher's socket `DATA_DIR/run/UUID.sock` must fit into the 108 bytes of `sun_path` (unix(7)).
const DATA_DIR_BYTES_MAX: usize = 60;
/// Shortest token: 16 random characters are past guessing over a network.
const TOKEN_LEN_MIN: usize = 16;

/// Notes everything that does not go together.
pub(super) fn whole(draft: &Draft, problems: &mut Vec<Problem>) {
    data_dir(draft, problems);
    for (bind, key) in [(&draft.http_bind, "http.bind"), (&draft.data_plane.bind, "data_plane.bind")] {
        let has_token = draft.token_file.as_ref().is_some_and(|said| said.value.is_some());
        if let Some(bind) = bind
            && !bind.value.ip().is_loopback()
            && !has_token
        {
            let rule = "an address that others can reach needs a token: set http.token_file, or bind to 127.0.0.1";
            note(bind, key, Complaint::rule(format!("\"{}\" without a token", bind.value), rule), problems);
        }
    }
    if let (Some(http), Some(data)) = (&draft.http_bind, &draft.data_plane.bind)
        && clash(http.value, data.value)
    {
        let found = format!("\"{}\", which http.bind has, too ({})", data.value, http.place);
        note(data, "data_plane.bind", Complaint::allowed(found, "a port of its own"), problems);
    }
    if let (Some(agent), Some(total)) = (&draft.agent_max, &draft.total_max)
        && agent.value > total.value
    {
        let found = format!("\"{}\"", bytesize::ByteSize(agent.value));
        let allowed = format!("at most log.total_max, \"{}\"", bytesize::ByteSize(total.value));
        note(agent, "log.agent_max", Complaint::allowed(found, allowed), problems);
    }
    if let (Some(timeout), Some(interval)) = (&draft.agent_defaults.heartbeat_timeout, &draft.sample_interval)
        && let Err(complaint) = heartbeat_fits(timeout.value, interval.value)
    {
        note(timeout, "health.heartbeat_timeout", complaint, problems);
    }
}

/// Reads the token.
pub(super) fn token(
    draft: &Draft,
    read: &dyn Fn(&Path) -> std::io::Result<String>,
    problems: &mut Vec<Problem>,
) -> Option<Token> {
    let said = draft.token_file.as_ref()?;
    let path = said.value.as_ref()?;
    let complaint = match read(path) {
        Ok(text) => {
            let text = text.trim();
            if text.len() >= TOKEN_LEN_MIN && text.bytes().all(|b| b.is_ascii_graphic()) {
                return Some(Token::new(text.to_owned()));
            }
            let allowed = format!("a file with one word of at least {TOKEN_LEN_MIN} printable ASCII characters");
            Complaint::allowed(format!("{path:?}, which holds no token"), allowed)
        }
        Err(error) => Complaint::rule(
            format!("{path:?}, which can't be read: {error}"),
            "allowed: a readable file with the token",
        ),
    };
    note(said, "http.token_file", complaint, problems);
    None
}

fn data_dir(draft: &Draft, problems: &mut Vec<Problem>) {
    let Some(said) = &draft.data_dir else { return };
    let Some(path) = &said.value else {
        return note(said, "hive.data_dir", Complaint::allowed("\"\"", "the path of a directory"), problems);
    };
    let len = path.as_os_str().len();
    if len > DATA_DIR_BYTES_MAX {
        let found = format!("{path:?}, {len} bytes long");
        let allowed = format!(
            "{DATA_DIR_BYTES_MAX} bytes at most, because the paths of unix sockets below it are limited; try \"/var/lib/hivekeeper\""
        );
        note(said, "hive.data_dir", Complaint::allowed(found, allowed), problems);
    }
}

/// Whether two listeners would want the same port of the same address.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let same_address = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_address
}

fn note<T>(said: &Setting<T>, key: &str, complaint: Complaint, problems: &mut Vec<Problem>) {
    problems.push(complaint.at(said.place.clone(), key.to_owned()));
}
