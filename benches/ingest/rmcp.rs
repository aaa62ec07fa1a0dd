//! rmcp, the official SDK of MCP for Rust, in the program of `benches/peers`, which is built here and never with anything else.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::json;

use super::{
    lane::{Lane, Pass},
    load::{Load, Plan},
};
use crate::support::{clock, server::Server};

/// Two seconds' worth.
const MESSAGES: usize = 200_000;
/// Where programs are built, beside everything else that cargo makes.
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");

pub(crate) struct Rmcp {
    server: Server,
    threads: u16,
}

impl Rmcp {
    /// Starts what was built. It has one thread, or more: tokio's multi_thread runtime.
    pub(crate) fn start(program: &Path, scratch: &Path, threads: u16) -> anyhow::Result<Self> {
        let server = Server::start(&format!("rmcp-{threads}"), scratch, |port, _| {
            let mut command = Command::new(program);
            command.args([port.to_string(), threads.to_string()]);
            command
        })?;
        Ok(Self { server: server.with_context(|| format!("no program {}", program.display()))?, threads })
    }
}

impl Lane for Rmcp {
    fn name(&self) -> String {
        match self.threads {
            1 => "rmcp, 1 thread".to_owned(),
            more => format!("rmcp, {more} threads"),
        }
    }

    fn run(&mut self, load: &Load, connections: usize) -> anyhow::Result<Pass> {
        let mut peers = self.server.connections(connections)?;
        let info = json!({"name": "bench", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info});
        for peer in &mut peers {
            let answer = ask(peer, "initialize", &params)?;
            ensure!(answer.contains("serverInfo"), "not initialised: {answer}");
            peer.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n")?;
        }
        let plan = Plan::new(load, connections, MESSAGES);
        let blocks = [load.lines()];
        let began = clock::now();
        plan.send(&mut peers, &blocks)?;
        for peer in &mut peers {
            write(peer, "bench/handled", &json!({"count": plan.each()}))?;
        }
        for peer in &mut peers {
            let answer = read(peer)?;
            ensure!(answer.contains(&format!("\"handled\":{}", plan.each())), "not handled: {answer}");
        }
        Ok(Pass { rate: plan.rate(began), kept: None })
    }
}

/// Builds the program of `benches/peers`, and says where it is.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    // The target is named so that the flags of the environment, if any, are for it alone, as they are for this executable.
    let target =
        format!("{}-unknown-linux-{}", std::env::consts::ARCH, if cfg!(target_env = "musl") { "musl" } else { "gnu" });
    let place = Path::new(SCRATCH).join("ingest-peers");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--quiet", "--target", &target]);
    command.current_dir(PEERS).env("CARGO_TARGET_DIR", &place);
    let status = command.status().context("cargo does not start")?;
    ensure!(status.success(), "benches/peers does not build: cargo ended with {status}");
    Ok(place.join(target).join("release/hivekeeper-ingest-peers"))
}

/// The version that the lock file names.
pub(crate) fn version() -> String {
    let lock = std::fs::read_to_string(Path::new(PEERS).join("Cargo.lock")).unwrap_or_default();
    let version = lock.find("name = \"rmcp\"\n").and_then(|at| lock[at..].lines().nth(1)?.split('"').nth(1));
    format!("rmcp {}", version.unwrap_or("of no known version"))
}

fn ask(peer: &mut TcpStream, method: &str, params: &serde_json::Value) -> anyhow::Result<String> {
    write(peer, method, params)?;
    read(peer)
}

fn write(peer: &mut TcpStream, method: &str, params: &serde_json::Value) -> anyhow::Result<()> {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    Ok(peer.write_all(format!("{request}\n").as_bytes())?)
}

/// The answer: nothing follows it that nobody has asked for.
fn read(peer: &TcpStream) -> anyhow::Result<String> {
    let mut answer = String::new();
    BufReader::new(peer).read_line(&mut answer).context("rmcp does not answer")?;
    Ok(answer)
}
