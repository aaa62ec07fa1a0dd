//! What the container engine says of itself. Two questions over its socket need no client of it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, de::DeserializeOwned};

/// An engine answers these from memory; one that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer: some kilobytes are usual.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// What it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EngineFacts {
    pub(super) version: String,
    /// `1` or `2`; an old engine does not say.
    pub(super) cgroup: String,
    /// `overlay2` ...
    pub(super) storage: String,
    /// Where it keeps images and containers.
    pub(super) root: String,
    /// What it complains about itself.
    pub(super) warnings: Vec<String>,
    /// How far its clock is ahead of ours, in milliseconds; unknown where it tells no time.
    pub(super) ahead_ms: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    server_version: String,
    #[serde(default)]
    cgroup_version: String,
    #[serde(default)]
    driver: String,
    #[serde(default)]
    docker_root_dir: String,
    #[serde(default)]
    system_time: String,
    warnings: Option<Vec<String>>,
}

/// Asks it, or says in which step that failed.
pub(super) fn ask(socket: &Path) -> Result<EngineFacts, String> {
    let before = SystemTime::now();
    let info: Info = get(socket, "/info")?;
    let ours = before + before.elapsed().unwrap_or_default() / 2;
    let ahead_ms = humantime::parse_rfc3339_weak(info.system_time.trim_end_matches('Z')).ok().and_then(|theirs| {
        let ms = |span: Duration| i64::try_from(span.as_millis()).ok();
        match theirs.duration_since(ours) {
            Ok(ahead) => ms(ahead),
            Err(behind) => ms(behind.duration()).map(|ms| -ms),
        }
    });
    Ok(EngineFacts {
        version: info.server_version,
        cgroup: info.cgroup_version,
        storage: info.driver,
        root: info.docker_root_dir,
        warnings: info.warnings.unwrap_or_default(),
        ahead_ms,
    })
}

fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, String> {
    let mut stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    let timeouts = stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
    timeouts.map_err(|error| error.to_string())?;
    // HTTP/1.0: the answer is not chunked, and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => format!("no answer within {}", humantime::format_duration(TIMEOUT)),
        _ => error.to_string(),
    })?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer in HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("HTTP status {status}"));
    }
    serde_json::from_str(body).map_err(|error| format!("an answer that can't be understood: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    fn engine(answer: &'static str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        });
        (dir, socket)
    }

    #[test]
    fn what_an_engine_says_is_read() {
        let (_dir, socket) = engine(
            "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{\"ServerVersion\":\"20.10.24\",\"CgroupVersion\":\"2\",\
             \"Driver\":\"overlay2\",\"SystemTime\":\"2026-11-21T04:00:00.123456789Z\",\"Warnings\":null,\"More\":1}",
        );
        let facts = ask(&socket).unwrap();
        assert_eq!(
            (facts.version.as_str(), facts.cgroup.as_str(), facts.storage.as_str()),
            ("20.10.24", "2", "overlay2")
        );
        assert!(facts.ahead_ms.is_some() && facts.warnings.is_empty());
    }

    #[test]
    fn an_engine_that_is_none_is_told_with_the_step() {
        assert!(ask(Path::new("/nowhere/docker.sock")).unwrap_err().contains("No such file"));
        let (_dir, socket) = engine("HTTP/1.0 500 Oops\r\n\r\n");
        assert_eq!(ask(&socket).unwrap_err(), "HTTP status 500");
        let (_dir, socket) = engine("hello");
        assert_eq!(ask(&socket).unwrap_err(), "no answer in HTTP");
    }
}
