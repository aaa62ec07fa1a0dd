//! From an agent's line to a viewer's frame, while the daemon takes many others.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::support::{
    clock,
    figures::{Samples, ms, table, verdict},
    hive::Hive,
    processes,
    viewer::Viewer,
};

/// Connections that share the load.
const CONNECTIONS: usize = 10;
/// The issue's number.
const MESSAGES_PER_SECOND: u64 = 50_000;
/// Writes a second on each connection.
const WRITES_PER_SECOND: u64 = 100;
/// Agents that change.
const PROBES: usize = 5;
/// Changes that are timed in a round.
const SAMPLES: usize = 300;
const ROUND_WAIT: Duration = Duration::from_secs(60);
/// The issue's limits.
const P50_MAX: Duration = Duration::from_millis(2);
const P99_MAX: Duration = Duration::from_millis(20);

pub(crate) fn run(scratch: &Path, rounds: usize) -> anyhow::Result<()> {
    let dir = scratch.join("latency");
    fs::create_dir(&dir)?;
    let program = format!(
        "echo $HIVEKEEPER_TOKEN $HIVEKEEPER_INCARNATION > {}/$(basename $HIVEKEEPER_AGENT).token; exec sleep 1000000",
        dir.display()
    );
    let command = serde_json::to_string(&["/bin/sh", "-c", &program])?;
    let swarm = format!(
        "[[swarm]]\nname = \"load\"\n[[swarm.agent]]\nname = \"load\"\nreplicas = {CONNECTIONS}\ncommand = {command}\n\
         heartbeat_timeout = \"10m\"\n\
         [[swarm]]\nname = \"probe\"\n[[swarm.agent]]\nname = \"probe\"\nreplicas = {PROBES}\ncommand = {command}\n\
         heartbeat_timeout = \"10m\"\nprogress_timeout = \"40ms\"\n"
    );
    let mut hive = Hive::start(&dir, &swarm)?;
    let data_plane = data_plane(&dir)?;
    let mut rows = Vec::new();
    for loaded in [false, true] {
        let load = loaded.then(|| Load::start(&dir, &data_plane)).transpose()?;
        let mut probes = (1..=PROBES)
            .map(|n| Agent::open(&dir, &data_plane, "probe", &format!("probe-{n}")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut viewer = Viewer::connect(hive.address())?;
        let mut samples = Samples::default();
        let (begun, sent) = (clock::now(), load.as_ref().map_or(0, Load::sent));
        for _ in 0..rounds {
            round(&mut probes, &mut viewer, &mut samples)?;
        }
        let took = (clock::now() - begun).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = load.as_ref().map_or(0, |load| load.sent() - sent) as f64 / took;
        let mut row = vec![format!("{rate:.0} messages/s")];
        row.extend(samples.cells());
        rows.push(row);
        if let (true, Some(p50), Some(p99)) = (loaded, samples.median(), samples.percentile(99)) {
            println!(
                "under load: p50 {} ms (at most 2: {}), p99 {} ms (at most 20: {})",
                ms(p50),
                verdict(p50 <= P50_MAX),
                ms(p99),
                verdict(p99 <= P99_MAX)
            );
        }
        if let Some(load) = load {
            let shown = hive.health()?["data_plane"].clone();
            println!("the daemon's own count: {shown}");
            load.stop()?;
        }
    }
    hive.stop()?;
    table("from an agent's line to a viewer's frame, ms", &["load", "n", "least", "p50", "p99", "longest"], &rows);
    Ok(())
}

/// Sends a heartbeat for each probe that has become stuck, some ms later, and times the frame that shows it running.
fn round(probes: &mut [Agent], viewer: &mut Viewer, samples: &mut Samples) -> anyhow::Result<()> {
    let deadline = clock::now() + ROUND_WAIT;
    let wanted = samples.len() + SAMPLES;
    let mut sent: Vec<Option<Duration>> = vec![None; probes.len()];
    for probe in probes.iter_mut() {
        probe.beat()?;
    }
    while samples.len() < wanted {
        ensure!(clock::now() < deadline, "{} of {wanted} changes were seen", samples.len());
        let Some(frame) = viewer.next(Duration::from_secs(5))? else { bail!("no frame within 5 s") };
        for (n, probe) in probes.iter_mut().enumerate() {
            let Some(agent) = frame.agent("probe", &probe.name) else { continue };
            match (agent["state"].as_str(), sent[n]) {
                (Some("running"), Some(at)) if agent["progress"]["value"] == probe.progress() => {
                    samples.add(frame.at.saturating_sub(at));
                    sent[n] = None;
                }
                (Some("stuck"), None) => {
                    // Not in step with anything of the daemon's.
                    std::thread::sleep(Duration::from_micros(probe.beats * 37 % 3000));
                    sent[n] = Some(probe.beat()?);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn data_plane(dir: &Path) -> anyhow::Result<String> {
    let endpoints: Value = serde_json::from_str(&fs::read_to_string(dir.join("data/endpoints.json"))?)?;
    Ok(endpoints["data_plane"].as_str().context("no data plane")?.to_owned())
}

/// A session of an agent, held by us.
struct Agent {
    name: String,
    stream: TcpStream,
    beats: u64,
}

impl Agent {
    fn open(dir: &Path, address: &str, swarm: &str, name: &str) -> anyhow::Result<Self> {
        let path = dir.join(format!("{name}.token"));
        let (token, incarnation) = processes::until("the agent tells its token", Duration::from_secs(30), || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            Ok(text.trim_end().split_once(' ').map(|(token, n)| (token.to_owned(), n.to_owned())))
        })?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        writeln!(
            stream,
            r#"{{"jsonrpc":"2.0","id":1,"method":"hive/open","params":{{"token":"{token}","agent":"{swarm}/{name}","incarnation":{incarnation},"protocol":1,"capabilities":{{}}}}}}"#
        )?;
        let mut answer = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut answer)?;
        ensure!(answer.contains("\"session\""), "{answer}");
        Ok(Self { name: name.to_owned(), stream, beats: 0 })
    }

    fn progress(&self) -> Value {
        format!("step {}", self.beats).into()
    }

    /// Tells new progress, and when.
    fn beat(&mut self) -> anyhow::Result<Duration> {
        self.beats += 1;
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"hive/heartbeat\",\"params\":{{\"progress\":\"step {}\"}}}}\n",
            self.beats
        );
        let at = clock::now();
        self.stream.write_all(line.as_bytes())?;
        Ok(at)
    }
}

/// The others' messages.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Load {
    fn start(dir: &Path, address: &str) -> anyhow::Result<Self> {
        let mut agents = (1..=CONNECTIONS)
            .map(|n| Agent::open(dir, address, "load", &format!("load-{n}")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let per_write = MESSAGES_PER_SECOND / WRITES_PER_SECOND / CONNECTIONS as u64;
        let line = "{\"jsonrpc\":\"2.0\",\"method\":\"hive/log\",\"params\":{\"level\":\"info\",\"stream\":\"stdout\",\
                    \"line\":\"0123456789 0123456789 0123456789 0123456789 0123456789\"}}\n";
        let block = line.repeat(usize::try_from(per_write)?);
        let thread = std::thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || {
                let (begun, mut written) = (clock::now(), 0);
                let every = Duration::from_secs(1) / u32::try_from(WRITES_PER_SECOND * CONNECTIONS as u64)?;
                while !stop.load(Ordering::Relaxed) {
                    // Connections take turns, so that the load is even.
                    let agent = written % CONNECTIONS;
                    agents[agent].stream.write_all(block.as_bytes())?;
                    written += 1;
                    sent.fetch_add(per_write, Ordering::Relaxed);
                    let due = begun + every * u32::try_from(written)?;
                    std::thread::sleep(due.saturating_sub(clock::now()));
                }
                Ok(())
            }
        });
        std::thread::sleep(Duration::from_secs(1));
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        thread.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
    }
}
