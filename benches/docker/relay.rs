//! Bytes between an agent in a container without a network and this process.

use std::time::Duration;

use anyhow::ensure;
use hivekeeper::model::{AgentId, DuplexStream, RelaySink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    bare::Running,
    lanes::Lanes,
    stage::{Stage, Swarm},
    tasks::{self, DOWNWARD, PIECE_LEN, PING_LEN, POUR_LEN, ROUND_TRIP, UPWARD},
};
use crate::support::{
    clock,
    figures::{median_of, table, verdict},
};

/// Round trips.
const ROUNDS: usize = 1000;
/// Each way, in turn with the floor's.
const POURS: usize = 3;
/// The issue's.
const LIMIT: Duration = Duration::from_micros(500);
const RATE_LIMIT: f64 = 200.0;

const BARE: usize = 0;
const RUNTIME: usize = 1;

/// The daemon's side of the connections: the first byte says what is wished.
pub struct Echo;

impl RelaySink for Echo {
    fn serve(&self, _: AgentId, _: u64, mut stream: Box<dyn DuplexStream>) {
        tokio::spawn(async move {
            let served = async {
                match stream.read_u8().await? {
                    tasks::ECHO => echo(&mut stream).await,
                    tasks::SINK => sink(&mut stream).await,
                    _ => pour(&mut stream).await,
                }
            };
            // The agent's own side fails with it, and tells nothing.
            let _ = served.await;
        });
    }
}

async fn echo(stream: &mut Box<dyn DuplexStream>) -> std::io::Result<()> {
    let mut piece = [0; PIECE_LEN / 16];
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            len => {
                stream.write_all(&piece[..len]).await?;
                stream.flush().await?;
            }
        }
    }
}

async fn sink(stream: &mut Box<dyn DuplexStream>) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE_LEN];
    let mut taken = 0;
    while taken < POUR_LEN {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            len => taken += len,
        }
    }
    stream.write_u8(b'!').await?;
    stream.flush().await
}

async fn pour(stream: &mut Box<dyn DuplexStream>) -> std::io::Result<()> {
    let piece = vec![7; PIECE_LEN];
    for _ in 0..POUR_LEN / PIECE_LEN {
        stream.write_all(&piece).await?;
    }
    stream.shutdown().await
}

pub async fn run(stage: &Stage, rounds: Option<usize>) -> anyhow::Result<()> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let swarm = stage.declare("relay").await?;
    let mut trips = Lanes::new(["bare stdin/stdout", "runtime"]);
    // Upward, downward; of each the floor's and ours.
    let mut rates = [(); 4].map(|()| Vec::new());
    for _ in 0..POURS {
        bare_trips(stage, &swarm, rounds, &mut trips).await?;
        rates[0].push(bare_upward(stage, &swarm).await?);
        rates[2].push(bare_downward(stage, &swarm).await?);
        let (upward, downward) = ours(stage, &swarm, rounds, &mut trips).await?;
        rates[1].push(upward);
        rates[3].push(downward);
    }
    trips.table(&format!("relay: round trip of {PING_LEN} bytes, ms"));
    trips.within(LIMIT, &[RUNTIME]);
    let [up_bare, up, down_bare, down] = rates.map(|rates| median_of(rates).unwrap_or_default());
    let row = |way: &str, bare: f64, ours: f64| {
        vec![way.to_owned(), format!("{bare:.0}"), format!("{ours:.0}"), format!("{:.2}", ours / bare)]
    };
    let rows = [row("agent to daemon", up_bare, up), row("daemon to agent", down_bare, down)];
    let title = format!("relay: {} MiB one way, MB/s, median of {POURS}", POUR_LEN >> 20);
    table(&title, &["way", "bare", "runtime", "/bare"], &rows);
    for (way, rate) in [("agent to daemon", up), ("daemon to agent", down)] {
        println!("goal: at least {RATE_LIMIT} MB/s: {way} {} ({rate:.0} MB/s)", verdict(rate >= RATE_LIMIT));
    }
    Ok(())
}

async fn ours(stage: &Stage, swarm: &Swarm<'_>, rounds: usize, trips: &mut Lanes<2>) -> anyhow::Result<(f64, f64)> {
    let began = clock::now();
    let rounds_text = rounds.to_string();
    let ours = swarm.launch("ours", &[(tasks::TASK, "relay"), (tasks::ROUNDS, &rounds_text)]).await?;
    stage.sign("ours", began).await?;
    let told = |of| format!("ours{of}");
    for _ in 0..rounds {
        trips.add(RUNTIME, stage.sign(&told(ROUND_TRIP), Duration::ZERO).await?.at);
    }
    let upward = rate(stage.sign(&told(UPWARD), Duration::ZERO).await?.at);
    let downward = rate(stage.sign(&told(DOWNWARD), Duration::ZERO).await?.at);
    ours.end().await?;
    Ok((upward, downward))
}

async fn bare(stage: &Stage, swarm: &Swarm<'_>, task: &str) -> anyhow::Result<Running> {
    let began = clock::now();
    let running = swarm.bare("bare", Some(task)).await?;
    stage.sign("bare", began).await?;
    Ok(running)
}

async fn bare_trips(stage: &Stage, swarm: &Swarm<'_>, rounds: usize, trips: &mut Lanes<2>) -> anyhow::Result<()> {
    let mut running = bare(stage, swarm, "echo").await?;
    for _ in 0..rounds {
        let sent = clock::now();
        running.input.write_all(&[7; PING_LEN]).await?;
        running.input.flush().await?;
        take(&mut running, PING_LEN).await?;
        trips.add(BARE, clock::now() - sent);
    }
    running.input.shutdown().await?;
    running.ended().await.map(drop)
}

/// The agent's sign starts the clock, because it pours at once behind it.
async fn bare_upward(stage: &Stage, swarm: &Swarm<'_>) -> anyhow::Result<f64> {
    let began = clock::now();
    let mut running = swarm.bare("bare", Some("pour")).await?;
    let sign = stage.sign("bare", began).await?;
    take(&mut running, POUR_LEN).await?;
    let took = clock::now() - sign.at;
    running.ended().await?;
    Ok(rate(took))
}

async fn bare_downward(stage: &Stage, swarm: &Swarm<'_>) -> anyhow::Result<f64> {
    let mut running = bare(stage, swarm, "sink").await?;
    let piece = vec![7; PIECE_LEN];
    let began = clock::now();
    for _ in 0..POUR_LEN / PIECE_LEN {
        running.input.write_all(&piece).await?;
    }
    running.input.flush().await?;
    take(&mut running, 1).await?;
    let took = clock::now() - began;
    running.input.shutdown().await?;
    running.ended().await?;
    Ok(rate(took))
}

async fn take(running: &mut Running, len: usize) -> anyhow::Result<()> {
    let mut taken = 0;
    while taken < len {
        let Some(piece) = running.next().await? else { break };
        taken += piece.as_ref().len();
    }
    ensure!(taken == len, "{taken} of {len} bytes came");
    Ok(())
}

fn rate(took: Duration) -> f64 {
    POUR_LEN as f64 / 1e6 / took.as_secs_f64()
}
