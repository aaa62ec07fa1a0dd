//! What only `process` can show: its launchers, files and signals.

use std::{
    fs,
    io::Write,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use hivekeeper::{
    model::{AgentId, DuplexStream, Epoch, ExitCause, ExitRecord, RelaySink},
    runtime::{
        AgentEvent, LaunchError, LaunchOrder, Launched, RecoverError, Recovered, Runtime,
        process::{ProcessError, ProcessOptions, ProcessRuntime},
        suite::{Bench, Program},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

use super::process::{Closes, ProcessBench, RING_BYTES, kill, launcher_of, processes};

const PATIENCE: Duration = Duration::from_secs(20);

async fn next(launched: &mut Launched) -> Option<AgentEvent> {
    timeout(PATIENCE, launched.events.recv()).await.expect("an event in time")
}

async fn alive(launched: &mut Launched) -> u32 {
    match next(launched).await {
        Some(AgentEvent::Alive { pid, .. }) => pid,
        other => panic!("instead of alive: {other:?}"),
    }
}

/// All lines until the end, what was lost, and the end.
async fn rest(launched: &mut Launched) -> (Vec<(u64, String)>, u64, ExitRecord) {
    let (mut lines, mut lost) = (Vec::new(), 0);
    loop {
        match next(launched).await {
            Some(AgentEvent::Output(more)) => lines.extend(more.into_iter().map(|line| (line.seq, line.text))),
            Some(AgentEvent::Lost { lines, .. }) => lost += lines,
            Some(AgentEvent::Exited(record)) => return (lines, lost, record),
            Some(AgentEvent::Sample { .. } | AgentEvent::Paused(_) | AgentEvent::Alive { .. }) => {}
            other => panic!("instead of the end: {other:?}"),
        }
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn options(run_dir: PathBuf, exe: PathBuf) -> ProcessOptions {
    ProcessOptions {
        exe,
        run_dir,
        epoch: Epoch(1),
        env: Vec::new(),
        ring_bytes: RING_BYTES,
        open_files: None,
        relay: Arc::new(Closes),
        tasks: Handle::current(),
    }
}

pub(super) fn executable() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_hivekeeper"))
}

#[tokio::test]
async fn the_agent_has_the_documents_environment_and_its_own_variables() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path().join("run"), executable());
    for (key, value) in
        [("PATH", "/usr/bin:/bin"), ("A", "daemon"), ("B", "daemon"), ("HIVEKEEPER_API_TOKEN", "secret")]
    {
        options.env.push((key.to_owned(), value.to_owned()));
    }
    let runtime = ProcessRuntime::new(options).unwrap();
    let mut order = super::order();
    order.argv = vec!["env".to_owned()];
    order.env.insert("B".to_owned(), "document".to_owned());
    order.workdir = Some(dir.path().join("made/when/missing"));
    let mut launched = runtime.launch(order.clone()).await.unwrap();
    let (lines, _, _) = rest(&mut launched).await;
    let mut lines: Vec<_> = lines.into_iter().map(|(_, line)| line).collect();
    lines.retain(|line| !line.starts_with("HIVEKEEPER_ADDR=127.0.0.1:"));
    lines.sort();
    let wanted = [
        "A=daemon".to_owned(),
        "B=document".to_owned(),
        format!("HIVEKEEPER_AGENT={}", order.agent),
        "HIVEKEEPER_INCARNATION=7".to_owned(),
        format!("HIVEKEEPER_LAUNCH={}", order.launch_id),
        "HIVEKEEPER_TOKEN=token".to_owned(),
        "PATH=/usr/bin:/bin".to_owned(),
    ];
    assert_eq!(lines, wanted);
    assert!(order.workdir.unwrap().is_dir());
    assert_eq!(runtime.finish(PATIENCE).await, 0);
}

#[tokio::test]
async fn a_launcher_has_nothing_secret_in_its_environment_or_on_its_command_line() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let order = bench.order(Program::Runs);
    let mut launched = bench.runtime().launch(order.clone()).await.unwrap();
    let launcher = launcher_of(alive(&mut launched).await);
    let read = |what| String::from_utf8(fs::read(format!("/proc/{launcher}/{what}")).unwrap()).unwrap();
    assert_eq!(read("environ"), format!("HIVEKEEPER_LAUNCH={}\0", order.launch_id));
    assert_eq!(read("cmdline"), "hivekeeper\0agent\0--stdio\0");
    launched.control.kill();
    rest(&mut launched).await;
    until("processes were left", || processes(&order).is_empty()).await;
    bench.finish().await;
}

#[tokio::test]
async fn the_record_that_follows_the_last_frame_is_forgotten_too() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let runtime = bench.runtime();
    for _ in 0..20 {
        let order = bench.shell("exit 3");
        let mut launched = runtime.launch(order.clone()).await.unwrap();
        assert_eq!(rest(&mut launched).await.2.code, Some(3));
        runtime.forget(order.launch_id).await;
        until("processes were left", || processes(&order).is_empty()).await;
        let name = order.launch_id.to_string();
        let left =
            fs::read_dir(bench.run_dir()).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        assert_eq!(left.filter(|file| file.contains(&name)).collect::<Vec<_>>(), Vec::<String>::new());
    }
    bench.finish().await;
}

#[tokio::test]
async fn what_is_no_launcher_is_ended_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (name, says) in [("true", "channel closed"), ("echo", "not a launcher")] {
        let exe = ["/bin", "/usr/bin"].iter().map(|dir| PathBuf::from(dir).join(name)).find(|path| path.exists());
        let runtime = ProcessRuntime::new(options(dir.path().join("run"), exe.unwrap())).unwrap();
        let order = super::order();
        match runtime.launch(order.clone()).await {
            Err(LaunchError::Launcher(why)) => assert!(why.contains(says), "{why}"),
            other => panic!("{:?}", other.err()),
        }
        assert!(processes(&order).is_empty());
    }
    let missing = ProcessRuntime::new(options(dir.path().join("run"), "/no/such/file".into()));
    assert!(matches!(missing, Err(ProcessError::Exe { .. })));
    let unusable = ProcessRuntime::new(options("/proc/no/such".into(), executable()));
    assert!(matches!(unusable, Err(ProcessError::RunDir { .. })));
}

#[tokio::test]
async fn a_workdir_that_cannot_be_made_fails_the_start() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let order = LaunchOrder { workdir: Some("/dev/null/sub".into()), ..bench.order(Program::Runs) };
    let mut launched = bench.runtime().launch(order.clone()).await.unwrap();
    let ExitCause::StartFailed { message } = rest(&mut launched).await.2.cause else { panic!("it started") };
    assert_eq!(
        message,
        "the working directory /dev/null/sub is not there and cannot be made: Not a directory (os error 20)"
    );
    until("processes were left", || processes(&order).is_empty()).await;
    bench.finish().await;
}

#[tokio::test]
async fn launches_go_on_when_the_executable_is_removed_and_the_path_is_long() {
    let dir = tempfile::tempdir().unwrap();
    let exe = dir.path().join("hivekeeper");
    fs::copy(executable(), &exe).unwrap();
    let run_dir = dir.path().join("d".repeat(120)).join("run");
    let runtime = ProcessRuntime::new(options(run_dir.clone(), exe.clone())).unwrap();
    fs::remove_file(&exe).unwrap();
    let mut order = super::order();
    order.argv = vec!["/bin/sleep".to_owned(), "600".to_owned()];
    let mut launched = runtime.launch(order.clone()).await.unwrap();
    let pid = alive(&mut launched).await;
    launched.control.detach();
    let recovered = runtime.recover(order.launch_id, order.agent.clone(), order.incarnation, 0).await;
    let Ok(Recovered::Running(mut again)) = recovered else { panic!("{:?}", recovered.err()) };
    assert_eq!(alive(&mut again).await, pid);
    again.control.kill();
    rest(&mut again).await;
    assert_eq!(runtime.finish(PATIENCE).await, 0);
    until("processes were left", || processes(&order).is_empty()).await;
}

/// The lease is short, nobody takes the events and the agent floods: it must still live, obey, and every line must be accounted for.
#[tokio::test]
async fn a_caller_that_takes_nothing_delays_neither_renewals_nor_orders() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let lease = Duration::from_millis(600);
    let order = LaunchOrder { lease, ..bench.shell("trap 'echo bye; exit 3' TERM; while :; do echo flood; done") };
    let mut launched = bench.runtime().launch(order.clone()).await.unwrap();
    let pid = alive(&mut launched).await;
    sleep(4 * lease).await;
    assert!(processes(&order).contains(&pid), "the lease was not renewed");
    launched.control.stop(PATIENCE);
    let stopping = std::time::Instant::now();
    until("the order did not get through", || !processes(&order).contains(&pid)).await;
    assert!(stopping.elapsed() < PATIENCE);
    let (lines, lost, record) = rest(&mut launched).await;
    assert_eq!((record.cause, record.code), (ExitCause::Stopped, Some(3)));
    let last = lines.last().unwrap().clone();
    assert_eq!(lines.len() as u64 + lost, last.0, "lines that are neither shown nor counted as lost");
    assert!(lines.is_sorted_by(|a, b| a.0 < b.0));
    assert!(lost > 0, "the flood was too small to prove anything");
    until("processes were left", || processes(&order).is_empty()).await;
    bench.finish().await;
}

#[tokio::test]
async fn a_detached_agent_ends_with_its_lease_and_the_record_says_so() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let lease = Duration::from_millis(400);
    let order = LaunchOrder { lease, ..bench.order(Program::Family) };
    let mut launched = bench.runtime().launch(order.clone()).await.unwrap();
    alive(&mut launched).await;
    launched.control.detach();
    until("the lease did not end it", || processes(&order).is_empty()).await;
    let found = bench.successor().recover(order.launch_id, order.agent, order.incarnation, 0).await;
    let Ok(Recovered::Exited { record, .. }) = found else { panic!("{:?}", found.err()) };
    assert_eq!(record.cause, ExitCause::LeaseLost);
    bench.finish().await;
}

/// The next daemon knows the lease from the launcher alone, and renews by it.
#[tokio::test]
async fn an_adopted_lease_is_renewed_in_time() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let lease = Duration::from_millis(500);
    let order = LaunchOrder { lease, ..bench.order(Program::Runs) };
    let mut launched = bench.runtime().launch(order.clone()).await.unwrap();
    let pid = alive(&mut launched).await;
    launched.control.detach();
    let found = bench.successor().recover(order.launch_id, order.agent.clone(), order.incarnation, 0).await;
    let Ok(Recovered::Running(mut adopted)) = found else { panic!("{:?}", found.err()) };
    sleep(4 * lease).await;
    assert_eq!(alive(&mut adopted).await, pid);
    assert!(processes(&order).contains(&pid), "the lease was not renewed");
    adopted.control.stop(PATIENCE);
    assert_eq!(rest(&mut adopted).await.2.cause, ExitCause::Stopped);
    until("processes were left", || processes(&order).is_empty()).await;
    bench.finish().await;
}

/// The socket through which a launcher speaks to this process: the connected one that it has of its own.
fn socket_to_us(launcher: u32) -> UnixStream {
    // SAFETY: the system calls take numbers, and each result that is not negative is a descriptor that nobody else owns.
    let own = |raw: i64| i32::try_from(raw).ok().filter(|fd| *fd >= 0).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: as above.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, launcher, 0) }).unwrap();
    let fds = fs::read_dir(format!("/proc/{launcher}/fd")).unwrap().filter_map(Result::ok);
    let sockets = fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")));
    let copies = sockets.filter_map(|fd| {
        let fd: i32 = fd.file_name().to_str()?.parse().ok()?;
        // SAFETY: as above.
        own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })
    });
    copies.map(UnixStream::from).find(|socket| socket.peer_addr().is_ok()).unwrap()
}

/// Bytes that are no frame make the channel useless; the launcher is well and is taken over again, with nothing lost or shown twice.
#[tokio::test]
async fn a_broken_channel_is_replaced_and_nothing_is_lost() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let fifo = bench.run_dir().join("go");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let order = bench.shell(&format!("echo one; read go < {}; echo two; exec sleep 600", fifo.display()));
    let mut launched = bench.runtime().launch(order.clone()).await.unwrap();
    let pid = alive(&mut launched).await;
    loop {
        if let Some(AgentEvent::Output(lines)) = next(&mut launched).await {
            assert_eq!(lines[0].text, "one");
            break;
        }
    }
    let mut stdout = socket_to_us(launcher_of(pid));
    stdout.write_all(&[0xff; 64]).unwrap();
    drop(stdout);
    fs::write(&fifo, "go\n").unwrap();
    loop {
        match next(&mut launched).await {
            Some(AgentEvent::Output(lines)) => {
                assert_eq!(lines.iter().map(|line| (line.seq, line.text.as_str())).collect::<Vec<_>>(), [(2, "two")]);
                break;
            }
            Some(AgentEvent::Sample { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(processes(&order).contains(&pid));
    launched.control.stop(PATIENCE);
    assert_eq!(rest(&mut launched).await.2.signal, Some(libc::SIGTERM));
    until("processes were left", || processes(&order).is_empty()).await;
    fs::remove_file(fifo).unwrap();
    bench.finish().await;
}

/// A launcher that is stopped can neither answer nor obey. It is not taken for dead, and a kill does not wait for it for ever.
#[tokio::test]
async fn a_stopped_launcher_is_unproven_and_a_kill_ends_it_all_the_same() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let order = bench.order(Program::Family);
    let mut launched = bench.runtime().launch(order.clone()).await.unwrap();
    let pid = alive(&mut launched).await;
    let launcher = launcher_of(pid);
    kill("STOP", launcher);
    let ours = bench.successor();
    let found = ours.recover(order.launch_id, order.agent.clone(), order.incarnation, 0).await;
    assert!(matches!(found, Err(RecoverError::Unproven(_))));
    assert!(processes(&order).contains(&pid));
    launched.control.kill();
    let (_, _, record) = rest(&mut launched).await;
    assert_eq!(record.cause, ExitCause::LauncherLost);
    assert_eq!(processes(&order), Vec::<u32>::new(), "reported before it was proven");
    bench.runtime().forget(order.launch_id).await;
    bench.finish().await;
}

#[tokio::test]
async fn a_runtime_that_is_dropped_leaves_its_agents_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let first = ProcessRuntime::new(options(dir.path().join("run"), executable())).unwrap();
    let mut order = super::order();
    order.argv = vec!["/bin/sleep".to_owned(), "600".to_owned()];
    let mut launched = first.launch(order.clone()).await.unwrap();
    let pid = alive(&mut launched).await;
    drop(first);
    while next(&mut launched).await.is_some() {}
    drop(launched);
    let second = ProcessRuntime::new(options(dir.path().join("run"), executable())).unwrap();
    let found = second.recover(order.launch_id, order.agent.clone(), order.incarnation, 0).await;
    let Ok(Recovered::Running(mut again)) = found else { panic!("{:?}", found.err()) };
    assert_eq!(alive(&mut again).await, pid);
    again.control.kill();
    rest(&mut again).await;
    assert_eq!(second.finish(PATIENCE).await, 0);
    until("processes were left", || processes(&order).is_empty()).await;
}

#[tokio::test]
async fn a_launch_that_nobody_waits_for_any_more_leaves_nothing() {
    let bench = ProcessBench::new(Arc::new(Closes));
    for patience_us in [0, 200, 1_000, 5_000] {
        let order = bench.order(Program::Runs);
        let _ = timeout(Duration::from_micros(patience_us), bench.runtime().launch(order.clone())).await;
        // Whatever had been begun is over when the tasks are.
        assert_eq!(bench.process().finish(PATIENCE).await, 0);
        until("processes were left", || processes(&order).is_empty()).await;
    }
    bench.finish().await;
}

#[tokio::test]
async fn many_launches_at_once_all_come_alive() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let runtime = bench.runtime();
    let orders: Vec<_> = (0..40).map(|_| bench.order(Program::Runs)).collect();
    let launches = orders.iter().map(|order| runtime.launch(order.clone()));
    let mut all = Vec::new();
    for launched in futures_util::future::join_all(launches).await {
        let mut launched = launched.unwrap();
        alive(&mut launched).await;
        all.push(launched);
    }
    for launched in &mut all {
        launched.control.kill();
        assert_eq!(rest(launched).await.2.cause, ExitCause::Stopped);
    }
    for order in &orders {
        until("processes were left", || processes(order).is_empty()).await;
    }
    bench.finish().await;
}

/// Sends back what it gets.
struct Echo;

impl RelaySink for Echo {
    fn serve(&self, agent: AgentId, incarnation: u64, stream: Box<dyn DuplexStream>) {
        assert_eq!((agent.swarm.as_str(), incarnation), ("suite", 7));
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = read.read(&mut buffer).await {
                write.write_all(&buffer[..n]).await.unwrap();
            }
        });
    }
}

/// More than a window each way, through the agent's loopback port.
#[tokio::test]
async fn connections_of_the_agent_are_relayed_beyond_the_window() {
    let bench = ProcessBench::new(Arc::new(Echo));
    let script = "exec 3<>/dev/tcp/${HIVEKEEPER_ADDR%:*}/${HIVEKEEPER_ADDR#*:}\n\
                  head -c 300000 /dev/zero >&3 &\n\
                  head -c 300000 <&3 | wc -c; wait; exec 3>&-; echo over";
    let order = bench.command(&["bash", "-c", script]);
    let mut launched = bench.runtime().launch(order.clone()).await.unwrap();
    let (lines, _, record) = rest(&mut launched).await;
    assert_eq!(lines.iter().map(|(_, line)| line.trim()).collect::<Vec<_>>(), ["300000", "over"]);
    assert_eq!(record.code, Some(0));
    until("processes were left", || processes(&order).is_empty()).await;
    bench.finish().await;
}
