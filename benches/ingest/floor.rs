//! The barest loop that could read the messages.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::ensure;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::codec::{Framed, LinesCodec};

use super::{
    lane::{Lane, Pass},
    load::{Load, Plan},
    ours::MESSAGES,
};
use crate::support::clock;

pub(crate) struct Floor;

/// What the floor reads of a message.
#[derive(Deserialize)]
struct Envelope<'a> {
    jsonrpc: std::borrow::Cow<'a, str>,
    method: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

impl Lane for Floor {
    fn name(&self) -> String {
        "floor".to_owned()
    }

    fn run(&mut self, load: &Load, connections: usize) -> anyhow::Result<Pass> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr: SocketAddr = listener.local_addr()?;
        let mut peers = Vec::new();
        let mut served = Vec::new();
        for _ in 0..connections {
            peers.push(TcpStream::connect(addr)?);
            served.push(listener.accept()?.0);
        }
        let plan = Plan::new(load, connections, MESSAGES);
        let blocks = [load.lines()];
        let reader = std::thread::spawn(move || read_all(served));
        let began = clock::now();
        plan.send(&mut peers, &blocks)?;
        drop(peers);
        let counted = reader.join().map_err(|_| anyhow::anyhow!("the floor panicked"))??;
        let rate = plan.rate(began);
        ensure!(counted == plan.all(), "{counted} of {} were read", plan.all());
        Ok(Pass { rate, kept: None })
    }
}

fn read_all(served: Vec<TcpStream>) -> anyhow::Result<u64> {
    static COUNTED: AtomicU64 = AtomicU64::new(0);
    COUNTED.store(0, Ordering::Relaxed);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut tasks = Vec::new();
        for stream in served {
            stream.set_nonblocking(true)?;
            let stream = tokio::net::TcpStream::from_std(stream)?;
            tasks.push(tokio::spawn(async move {
                let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(1024 * 1024));
                while let Some(Ok(line)) = lines.next().await {
                    if let Ok(message) = serde_json::from_str::<Envelope<'_>>(&line)
                        && message.jsonrpc == "2.0"
                        && message.method.starts_with("hive/")
                        && message.id.is_none()
                        && message.params.is_some()
                    {
                        COUNTED.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        Ok(COUNTED.load(Ordering::Relaxed))
    })
}
