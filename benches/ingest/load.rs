//! What is sent to everybody, and by whom: one thread, in blocks.

use std::{io::Write, net::TcpStream};

use anyhow::ensure;
use serde_json::json;

use crate::support::clock;

/// A message of the size, without its newline.
const MESSAGE_BYTES: usize = 150;
/// What a writer that has much to say hands to the kernel at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// The notifications that are sent, one kind a run.
pub(crate) const KINDS: [&str; 3] = ["log", "heartbeat", "metric"];

/// Messages of one kind, each of the size, as many as make a block of lines.
pub(crate) struct Load(Vec<String>);

impl Load {
    pub(crate) fn of(kind: &str) -> anyhow::Result<Self> {
        let made = |n: usize, padding: usize| {
            let padding = "x".repeat(padding);
            let params = match kind {
                "log" => json!({"level": "info", "line": format!("step {n:05} {padding}")}),
                "heartbeat" => json!({"progress": {"done": n, "of": 100_000, "step": padding}, "busy": true}),
                _ => json!({"name": format!("queue.{padding}"), "value": n, "unit": "{task}"}),
            };
            // By hand, so that the members stand in the order in which everybody writes them.
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"hive/{kind}\",\"params\":{params}}}")
        };
        let messages = (0..BLOCK_BYTES / (MESSAGE_BYTES + 1))
            .map(|n| made(n, MESSAGE_BYTES.saturating_sub(made(n, 0).len())))
            .collect::<Vec<_>>();
        ensure!(messages.iter().all(|message| message.len() == MESSAGE_BYTES), "messages of {kind} differ in length");
        Ok(Self(messages))
    }

    /// A block as line-based JSON-RPC has it.
    pub(crate) fn lines(&self) -> Block {
        self.framed(|bytes, message| {
            bytes.extend_from_slice(message.as_bytes());
            bytes.push(b'\n');
        })
    }

    /// A block in somebody else's framing.
    pub(crate) fn framed(&self, frame: impl Fn(&mut Vec<u8>, &str)) -> Block {
        let mut bytes = Vec::new();
        for message in &self.0 {
            frame(&mut bytes, message);
        }
        Block { bytes, messages: self.0.len() }
    }
}

/// What is written at once.
pub(crate) struct Block {
    bytes: Vec<u8>,
    messages: usize,
}

/// Some thousand messages over some connections: each gets the same number of blocks.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    connections: usize,
    blocks: usize,
    messages: usize,
}

impl Plan {
    /// At least so many messages.
    pub(crate) fn new(load: &Load, connections: usize, at_least: usize) -> Self {
        let messages = load.0.len();
        let blocks = (at_least / messages).div_ceil(connections);
        Self { connections, blocks, messages: blocks * messages }
    }

    /// Of each connection.
    pub(crate) fn each(&self) -> u64 {
        self.messages as u64
    }

    pub(crate) fn all(&self) -> u64 {
        self.each() * self.connections as u64
    }

    /// Writes all of them, in turn to each connection: the one block, or each connection's own.
    pub(crate) fn send(&self, peers: &mut [TcpStream], blocks: &[Block]) -> anyhow::Result<()> {
        ensure!(peers.len() == self.connections, "{} connections for {}", peers.len(), self.connections);
        ensure!(blocks.iter().all(|block| block.messages * self.blocks == self.messages), "a block of others");
        for _ in 0..self.blocks {
            for (peer, block) in peers.iter_mut().zip(blocks.iter().cycle()) {
                peer.write_all(&block.bytes)?;
            }
        }
        Ok(())
    }

    /// Messages a second, when all are done with since then.
    #[expect(clippy::cast_precision_loss, reason = "millions")]
    pub(crate) fn rate(&self, began: std::time::Duration) -> f64 {
        self.all() as f64 / (clock::now() - began).as_secs_f64()
    }
}
