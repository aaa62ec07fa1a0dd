//! Redis: a list of tasks and a list of those that somebody works on. `LMOVE` claims, `LREM` completes. There is no lease, no token, no priority.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
};

use anyhow::{Context, bail, ensure};

use super::lane::{Client, Lane, PAYLOAD, Work};
use crate::support::server::Server;

pub(crate) const PROGRAM: &str = "redis-server";
pub(crate) const INSTALL: &str = "apt-get install redis-server";

pub(crate) struct Redis {
    server: Server,
    fsync: &'static str,
}

impl Redis {
    /// `None` if it is not installed. What it was told is in a file that is brought to the disk each second (`everysec`) or before each answer (`always`).
    pub(crate) fn start(scratch: &Path, fsync: &'static str) -> anyhow::Result<Option<Self>> {
        let server = Server::start(&format!("redis-{fsync}"), scratch, |port, dir| {
            let mut command = Command::new(PROGRAM);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--save", "", "--appendonly", "yes", "--appendfsync", fsync]).arg("--dir").arg(dir);
            command
        })?;
        Ok(server.map(|server| Self { server, fsync }))
    }
}

impl Lane for Redis {
    fn name(&self) -> String {
        format!("redis ({})", self.fsync)
    }

    fn fill(&mut self, tasks: usize) -> anyhow::Result<()> {
        let mut talk = Talk::new(self.server.connect()?);
        talk.ask(&["FLUSHALL", "SYNC"])?;
        for at in 0..tasks {
            talk.ask(&["RPUSH", "ready", &format!("{at} {PAYLOAD}")])?;
        }
        Ok(())
    }

    fn client(&self, _: usize) -> anyhow::Result<Box<dyn Client>> {
        Ok(Box::new(Talk::new(self.server.connect()?)))
    }
}

impl Client for Talk {
    fn turn(&mut self, work: &Work) -> anyhow::Result<bool> {
        let Some(task) = self.ask(&["LMOVE", "ready", "working", "LEFT", "RIGHT"])? else { return Ok(false) };
        work()?;
        let removed = self.ask(&["LREM", "working", "1", &task])?;
        ensure!(removed.as_deref() == Some("1"), "a task was completed that nobody had: {removed:?}");
        Ok(true)
    }
}

/// A connection that speaks RESP.
struct Talk(BufReader<TcpStream>);

impl Talk {
    fn new(stream: TcpStream) -> Self {
        // What is asked goes out in one write.
        let _ = stream.set_nodelay(true);
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, words: &[&str]) -> anyhow::Result<Option<String>> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.get_mut().write_all(command.as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.trim_end();
        match line.split_at_checked(1).context("redis has closed")? {
            ("+" | ":", rest) => Ok(Some(rest.to_owned())),
            ("$", "-1") => Ok(None),
            ("$", length) => {
                let mut text = vec![0; length.parse::<usize>()? + 2];
                self.0.read_exact(&mut text)?;
                text.truncate(text.len() - 2);
                Ok(Some(String::from_utf8(text)?))
            }
            _ => bail!("redis answers {line}"),
        }
    }
}
