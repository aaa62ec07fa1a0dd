//! Redis: the same messages as one field of stream entries, pipelined.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
    path::Path,
    process::Command,
    thread,
};

use anyhow::{bail, ensure};

use super::{
    lane::{Lane, Pass},
    load::{Block, Load, Plan},
};
use crate::support::{
    clock,
    server::{Server, WAIT},
};

pub(crate) const PROGRAM: &str = "redis-server";
pub(crate) const INSTALL: &str = "apt-get install redis-server";

/// A second or two.
const MESSAGES: usize = 500_000;

pub(crate) struct Redis(Server);

impl Redis {
    /// `None` if it is not installed. It writes nothing to the disk, which is its fastest.
    pub(crate) fn start(scratch: &Path) -> anyhow::Result<Option<Self>> {
        let server = Server::start("redis", scratch, |port, dir| {
            let mut command = Command::new(PROGRAM);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(dir);
            command
        })?;
        Ok(server.map(Self))
    }
}

impl Lane for Redis {
    fn name(&self) -> String {
        "redis".to_owned()
    }

    fn run(&mut self, load: &Load, connections: usize) -> anyhow::Result<Pass> {
        let mut peers = self.0.connections(connections)?;
        let plan = Plan::new(load, connections, MESSAGES);
        let blocks: Vec<Block> = (1..=connections).map(|connection| block(load, connection)).collect();
        let readers = peers.iter().map(TcpStream::try_clone).collect::<Result<Vec<_>, _>>()?;
        // An identifier is two lines: its length and itself.
        let lines = usize::try_from(plan.all())? * 2;
        let reader = thread::spawn(move || read_lines(readers, lines));
        let began = clock::now();
        plan.send(&mut peers, &blocks)?;
        reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        let rate = plan.rate(began);
        for (connection, peer) in (1..).zip(&mut peers) {
            ask(peer, &format!("XLEN {}", key(connection)), &format!(":{}", plan.each()))?;
        }
        // Nothing of a round is left for the next.
        ask(&mut peers[0], "FLUSHALL SYNC", "+OK")?;
        Ok(Pass { rate, kept: None })
    }
}

/// Each connection writes a stream of its own. `MAXLEN ~ 100000` would cost Redis a sixth of its rate, so its streams grow, for a round.
fn block(load: &Load, connection: usize) -> Block {
    let key = key(connection);
    let words = ["XADD", key.as_str(), "*", "m"];
    load.framed(|bytes, message| {
        bytes.extend_from_slice(format!("*{}\r\n", words.len() + 1).as_bytes());
        for word in words.iter().chain([&message]) {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    })
}

fn key(connection: usize) -> String {
    format!("hive:{connection:03}")
}

/// Asks, and insists on the answer.
fn ask(peer: &mut TcpStream, command: &str, wanted: &str) -> anyhow::Result<()> {
    peer.write_all(format!("{command}\r\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(peer).read_line(&mut answer)?;
    ensure!(answer.trim_end() == wanted, "redis answers {command} with {answer}");
    Ok(())
}

/// Reads whoever has something to say until so many lines have come. A refusal would be one line too few.
fn read_lines(mut peers: Vec<TcpStream>, lines: usize) -> anyhow::Result<()> {
    let mut polls: Vec<libc::pollfd> =
        peers.iter().map(|peer| libc::pollfd { fd: peer.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let mut buffer = vec![0; 64 * 1024];
    let (mut read, mut last) = (0, 0);
    while read < lines {
        // SAFETY: the entries outlive the call, and are as many as it is told.
        let ready =
            unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, WAIT.as_millis() as libc::c_int) };
        if ready < 1 {
            bail!("{read} of {lines} lines came, the last: {}", String::from_utf8_lossy(&buffer[..last]));
        }
        for (peer, poll) in peers.iter_mut().zip(&polls).filter(|(_, poll)| poll.revents != 0) {
            last = peer.read(&mut buffer)?;
            ensure!(last > 0, "redis has closed connection {}", poll.fd);
            read += memchr::memchr_iter(b'\n', &buffer[..last]).count();
        }
    }
    Ok(())
}
