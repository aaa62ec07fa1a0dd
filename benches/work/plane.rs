//! Ours as agents meet it: the real daemon, its data plane's TCP port, a session for each client, and one line of JSON-RPC for each call.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    lane::{Client, Lane, PAYLOAD, RESULT, Work},
    locks::Locker,
    messages::{Reader, Writer},
};
use crate::support::{hive::Hive, processes};

/// Agents of the swarm: as many as the largest crowd, and two who are never in it.
const AGENTS: usize = 66;
/// How long starting all of them may take.
const START_WAIT: Duration = Duration::from_secs(120);
/// The one who puts tasks there.
pub(crate) const FOREMAN: usize = 66;

pub(crate) struct Ours {
    hive: Hive,
    dir: PathBuf,
    address: String,
    foreman: Session,
}

impl Ours {
    pub(crate) fn start(scratch: &Path) -> anyhow::Result<Self> {
        let dir = scratch.join("hive");
        fs::create_dir(&dir)?;
        let program = "env > $HIVEKEEPER_INCARNATION.new; mv $HIVEKEEPER_INCARNATION.new ${HIVEKEEPER_AGENT#*/}; exec sleep 10000";
        let mut text = String::from("[[swarm]]\nname = \"bench\"\n");
        for n in 1..=AGENTS {
            let program = program.replace(".new", &format!(".{n}.new"));
            writeln!(text, "[[swarm.agent]]\nname = \"w-{n}\"\ncommand = [\"sh\", \"-c\", {program:?}]")?;
        }
        let hive = Hive::start(&dir, &text)?;
        let work = dir.join("data/work/bench");
        processes::until("every agent has its token", START_WAIT, || {
            Ok((1..=AGENTS).all(|n| work.join(format!("w-{n}")).exists()).then_some(()))
        })?;
        let endpoints: Value = serde_json::from_str(&fs::read_to_string(dir.join("data/endpoints.json"))?)?;
        let address = endpoints["data_plane"].as_str().context("no address of the data plane")?.to_owned();
        let foreman = Session::open(&work, &address, FOREMAN)?;
        Ok(Self { hive, dir: work, address, foreman })
    }

    pub(crate) fn session(&self, n: usize) -> anyhow::Result<Session> {
        Session::open(&self.dir, &self.address, n)
    }

    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.hive.stop()
    }
}

impl Lane for Ours {
    fn name(&self) -> String {
        "hivekeeper (TCP)".to_owned()
    }

    fn fill(&mut self, tasks: usize) -> anyhow::Result<()> {
        let payload: &RawValue = serde_json::from_str(PAYLOAD)?;
        let mut left = tasks;
        while left > 0 {
            let some = left.min(1_000);
            let task = json!({"title": "say what it does", "category": "code", "payload": payload});
            self.foreman.ask("task_create", &json!({"tasks": vec![task; some]}).to_string())?;
            left -= some;
        }
        Ok(())
    }

    fn client(&self, n: usize) -> anyhow::Result<Box<dyn Client>> {
        Ok(Box::new(self.session(n)?))
    }
}

/// A session of an agent.
pub(crate) struct Session {
    line: BufReader<TcpStream>,
    text: String,
    /// What was received last and is not acknowledged.
    taken: Option<(String, u64)>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Claimed<'a> {
    #[serde(borrow)]
    tasks: Vec<ClaimedTask<'a>>,
}

#[derive(Deserialize)]
struct ClaimedTask<'a> {
    id: &'a str,
    claim: Fenced,
}

#[derive(Deserialize)]
struct Fenced {
    fence: u64,
}

#[derive(Deserialize)]
struct Locked<'a> {
    id: &'a str,
    fence: u64,
}

#[derive(Deserialize)]
struct Received {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    id: String,
    fence: u64,
    body: String,
}

impl Session {
    fn open(dir: &Path, address: &str, n: usize) -> anyhow::Result<Self> {
        let text = fs::read_to_string(dir.join(format!("w-{n}")))?;
        let given: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut session = Self { line: BufReader::new(stream), text: String::new(), taken: None };
        let opening = json!({
            "token": given.get("HIVEKEEPER_TOKEN"), "agent": format!("bench/w-{n}"), "incarnation": 1, "protocol": 1
        });
        session.ask("open", &opening.to_string())?;
        Ok(session)
    }

    fn ask(&mut self, tool: &str, arguments: &str) -> anyhow::Result<&RawValue> {
        let request = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hive/{tool}\",\"params\":{arguments}}}\n");
        self.line.get_mut().write_all(request.as_bytes())?;
        loop {
            self.text.clear();
            self.line.read_line(&mut self.text)?;
            // Words of the daemon's own, that a call waits, have a method.
            if !self.text.contains("\"method\"") {
                break;
            }
        }
        let reply: Reply<'_> = serde_json::from_str(&self.text)?;
        match reply.result {
            Some(result) => Ok(result),
            None => bail!("{tool} is answered with {}", self.text),
        }
    }
}

impl Client for Session {
    fn turn(&mut self, work: &Work) -> anyhow::Result<bool> {
        let claimed: Claimed<'_> =
            serde_json::from_str(self.ask("task_claim", r#"{"max":1,"lease_ms":60000}"#)?.get())?;
        let Some(task) = claimed.tasks.first() else { return Ok(false) };
        let done = format!("{{\"id\":{:?},\"fence\":{},\"result\":{RESULT}}}", task.id, task.claim.fence);
        work()?;
        self.ask("task_complete", &done)?;
        Ok(true)
    }
}

impl Locker for Session {
    fn turn(&mut self) -> anyhow::Result<()> {
        let wanted = r#"{"resources":["src/coordination/"],"mode":"write","lease_ms":60000}"#;
        let lock: Locked<'_> = serde_json::from_str(self.ask("lock_acquire", wanted)?.get())?;
        let release = format!("{{\"id\":{:?},\"fence\":{}}}", lock.id, lock.fence);
        self.ask("lock_release", &release)?;
        Ok(())
    }
}

impl Writer for Session {
    fn send(&mut self, to: &str, body: &str) -> anyhow::Result<()> {
        self.ask("message_send", &json!({"to": to, "body": body}).to_string())?;
        Ok(())
    }
}

impl Reader for Session {
    fn receive(&mut self) -> anyhow::Result<String> {
        let received: Received =
            serde_json::from_str(self.ask("message_receive", r#"{"max":1,"wait_ms":30000}"#)?.get())?;
        let message = received.messages.into_iter().next().context("no message in time")?;
        self.taken = Some((message.id, message.fence));
        Ok(message.body)
    }

    fn acknowledge(&mut self) -> anyhow::Result<()> {
        let (id, fence) = self.taken.take().context("nothing was received")?;
        self.ask("message_ack", &format!("{{\"id\":{id:?},\"fence\":{fence}}}"))?;
        Ok(())
    }
}
