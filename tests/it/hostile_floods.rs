//! Programs that flood, against the whole daemon: never blocked for ever, memory bounded, every loss counted, siblings and viewers not disturbed.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    harness::processes::{allocated_kib, stat},
    hive::{Hive, kill, until},
};

/// What any flood here may add to the daemon's resident memory, KiB: 12 to 16 MiB measured, of 80 MB that the agents write. By its bounds a flooding
/// agent may add 2 MiB of events on their way and all of them together 12 MiB of lines on their way to disk.
const DAEMON_GROWTH_KIB_MAX: u64 = 28 * 1024;

/// What a launcher may allocate, KiB: 0.6 MiB measured under any flood: the ring of 256 KiB, the buffers of two pipes and of the channel, the stack.
const LAUNCHER_KIB_MAX: u64 = 2 * 1024;

/// Waits for the test's word, floods, leaves a file that proves that it was not blocked, and lives on.
fn flood(name: &str, what: &str) -> String {
    format!(
        r#"
[[swarm.agent]]
name = "{name}"
command = ["bash", "-c", "until [ -e go ]; do sleep 0.02; done; {what}; touch {name}.done; exec sleep 1000"]
"#
    )
}

fn talker() -> String {
    format!(
        "\n[[swarm]]\nname = \"q\"\n[[swarm.agent]]\nname = \"talks\"\ncommand = [\"bash\", \"{}/examples/agents/agent.sh\"]\n",
        env!("CARGO_MANIFEST_DIR")
    )
}

fn hive(agents: &[String]) -> Hive {
    Hive::start(&format!("[log]\nagent_max = \"64MiB\"\n[[swarm]]\nname = \"f\"\n{}{}", agents.concat(), talker()))
}

fn go(hive: &Hive) {
    std::fs::write(hive.data().join("work/f/go"), "").unwrap();
}

fn done(hive: &Hive, name: &str) -> bool {
    hive.data().join(format!("work/f/{name}.done")).exists()
}

/// Peak of the daemon's resident memory, KiB.
fn daemon_peak_kib(hive: &Hive) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", hive.pid)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[track_caller]
fn assert_grew_little(hive: &Hive, at_rest_kib: u64) {
    let grown_kib = daemon_peak_kib(hive) - at_rest_kib;
    eprintln!("the daemon grew by {grown_kib} KiB over {at_rest_kib}");
    assert!(grown_kib < DAEMON_GROWTH_KIB_MAX, "{grown_kib} KiB over {at_rest_kib}");
}

fn launcher_of(agent: i32) -> i32 {
    stat(agent).unwrap()[1].parse().unwrap()
}

/// What became of an agent's output.
struct Book {
    /// Lines and pieces that it wrote and that are kept, in order.
    kept: Vec<Value>,
    /// Lines that the notes in the book say are lost.
    lost: u64,
}

impl Book {
    fn read(hive: &Hive, id: &str) -> Self {
        let mut book = Self { kept: Vec::new(), lost: 0 };
        for line in hive.lines(id) {
            if line["stream"] == "hivekeeper" {
                let text = line["text"].as_str().unwrap();
                assert!(text.contains("were lost here"), "{text}");
                book.lost += text.split(' ').next().unwrap().parse::<u64>().unwrap();
            } else {
                book.kept.push(line);
            }
        }
        book
    }

    /// Nothing twice, nothing out of order, nothing gone without a word.
    #[track_caller]
    fn adds_up(&self, agent: &Value, pieces: u64) {
        let seqs: Vec<u64> = self.kept.iter().filter_map(|line| line["seq"].as_u64()).collect();
        assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(seqs.len() as u64 + self.lost, pieces, "kept {} and lost {} of {pieces}", seqs.len(), self.lost);
        assert_eq!(agent["dropped"], self.lost, "{agent:#}");
    }
}

#[track_caller]
fn still_talks(hive: &Hive) {
    let before = hive.agent("q/talks")["progress"]["value"]["done"].as_u64();
    let agent = hive.agent_until("q/talks", "goes on over its session", |agent| {
        agent["last_heartbeat"]["source"] == "agent" && agent["progress"]["value"]["done"].as_u64() > before
    });
    assert_eq!((&agent["incarnation"], &agent["state"], &agent["dropped"]), (&json!(1), &json!("running"), &json!(0)));
}

#[test]
fn output_floods_of_every_kind_end_and_add_up() {
    const MIB: u64 = 1024 * 1024;
    let floods = [
        // 100 lines of 240 bytes are 24 kB.
        ("lines", format!("yes {} | head -n 100000", "x".repeat(239)), 100_000),
        // Each a megabyte: 61 pieces of 16 KiB and a rest.
        ("long", "for i in $(seq 24); do head -c 1000000 /dev/zero | tr '\\\\0' a; echo; done".to_owned(), 24 * 62),
        ("noise", "yes $(printf '\\\\377\\\\376%.0s' $(seq 120)) | head -n 30000".to_owned(), 30_000),
        ("endless", "head -c 24M /dev/zero | tr '\\\\0' b".to_owned(), 24 * MIB / (16 * 1024)),
    ];
    let hive = hive(&floods.clone().map(|(name, what, _)| flood(name, &what)));
    let launchers = floods.clone().map(|(name, ..)| launcher_of(hive.agent_pid(&format!("f/{name}"))));
    still_talks(&hive);
    let mut viewer = hive.viewer();
    let mut seen = viewer.next_that("is the first status", |frame| frame["type"] == "status_update")["seq"].clone();
    let at_rest_kib = daemon_peak_kib(&hive);
    go(&hive);
    let mut launcher_peak_kib = 0;
    until("every flood has passed", || {
        launcher_peak_kib = launchers.iter().map(|pid| allocated_kib(*pid)).max().unwrap().max(launcher_peak_kib);
        assert_eq!(hive.get("/livez").status, 200);
        floods.iter().all(|(name, ..)| done(&hive, name)).then_some(())
    });
    // Before the test reads the books, in pages of up to 4 MiB of text.
    assert_grew_little(&hive, at_rest_kib);
    still_talks(&hive);
    // A viewer that reads has missed nothing.
    viewer.send(json!({"type": "ping"}));
    loop {
        let frame = viewer.next();
        assert_eq!(frame["prev_seq"], seen, "{frame:#}");
        seen = frame["seq"].clone();
        if frame["type"] == "pong" {
            break;
        }
    }
    // The end brings what has no newline.
    hive.command("/swarms/f/stop");
    for (name, _, pieces) in &floods {
        let id = format!("f/{name}");
        let book = Book::read(&hive, &id);
        eprintln!("{id}: kept {}, lost {}", book.kept.len(), book.lost);
        book.adds_up(&hive.agent(&id), *pieces);
        let last = book.kept.last().unwrap()["text"].as_str().unwrap();
        let wants = match *name {
            "lines" => "x".repeat(239),
            "long" => "a".repeat(1_000_000 % (16 * 1024)),
            "noise" => "\u{fffd}".repeat(240),
            _ => "b".repeat(16 * 1024),
        };
        assert_eq!(last, wants, "{name}");
    }
    eprintln!("peak of a launcher {launcher_peak_kib} KiB");
    assert!(launcher_peak_kib < LAUNCHER_KIB_MAX, "{launcher_peak_kib} KiB");
}

#[test]
fn a_flood_while_the_daemon_does_not_run_blocks_nobody_and_its_loss_is_told() {
    let hive = hive(&[flood("lines", &format!("yes {} | head -n 40000", "x".repeat(99)))]);
    let pid = hive.agent_pid("f/lines");
    hive.signal_daemon(libc::SIGSTOP);
    go(&hive);
    until("the flood has passed although nobody takes it", || done(&hive, "lines").then_some(()));
    hive.signal_daemon(libc::SIGCONT);
    let last = |hive: &Hive| hive.get("/api/v1/swarms/f/agents/lines/logs?tail=1").body["lines"][0]["seq"].clone();
    until("the last line arrives", || (last(&hive) == 40_000).then_some(()));
    hive.agent_until("f/lines", "shows the loss", |agent| agent["dropped"].as_u64() > Some(0));
    let book = Book::read(&hive, "f/lines");
    assert!(book.lost > 30_000, "4 MB in a ring of 256 KiB, and {} are lost", book.lost);
    book.adds_up(&hive.agent("f/lines"), 40_000);
    let hive_dropped = hive.get("/api/v1/health").body["data_plane"]["dropped"].clone();
    assert_eq!(hive_dropped, book.lost);
    assert_eq!(hive.agent_pid("f/lines"), pid);
    still_talks(&hive);
}

#[test]
fn a_long_line_of_characters_is_whole_once_its_pieces_are_joined() {
    // 60 000 characters of three bytes: less than the ring, so nothing of it is ever lost.
    let hive = hive(&[flood("chars", "printf '\\u20ac%.0s' $(seq 60000); echo")]);
    hive.running("f/chars");
    go(&hive);
    until("it has written", || done(&hive, "chars").then_some(()));
    let kept = until("the line is kept", || {
        let book = Book::read(&hive, "f/chars");
        book.kept.last().is_some_and(|line| line["partial"] == false).then_some(book.kept)
    });
    assert!(kept.len() >= 11, "{}", kept.len());
    let joined: String = kept.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert!(joined == "\u{20ac}".repeat(60_000), "{} characters", joined.chars().count());
}

#[test]
fn agents_that_flood_without_end_are_stopped_and_restarted_in_time() {
    let endless = |name: &str, command: &str| {
        format!("[[swarm.agent]]\nname = \"{name}\"\nstop_grace = \"1s\"\ncommand = {command}\n")
    };
    let hive = hive(&[
        endless("yes", r#"["yes"]"#),
        endless("zeros", r#"["cat", "/dev/zero"]"#),
        endless("deaf", r#"["sh", "-c", "trap '' TERM; while :; do yes | head -c 1000000; done"]"#),
    ]);
    let ids = ["f/yes", "f/zeros", "f/deaf"];
    let at_rest_kib = daemon_peak_kib(&hive);
    for id in ids {
        hive.running(id);
        hive.agent_until(id, "floods faster than it can be kept", |agent| agent["dropped"].as_u64() > Some(0));
    }
    still_talks(&hive);
    let mut viewer = hive.viewer();
    viewer.send(json!({"type": "ping"}));
    viewer.next_that("answers in the middle of it", |frame| frame["type"] == "pong");

    let old = hive.agent_pid("f/yes");
    hive.command("/swarms/f/agents/yes/restart");
    assert_ne!(hive.agent_pid("f/yes"), old);
    // The one that is deaf to SIGTERM has its second and no more; nobody waits for the output that is on its way.
    let asked = Instant::now();
    for id in ids {
        let (swarm, name) = id.split_once('/').unwrap();
        hive.command(&format!("/swarms/{swarm}/agents/{name}/stop"));
        let agent = hive.agent(id);
        assert_eq!((&agent["state"], &agent["last_exit"]["cause"]), (&json!("stopped"), &json!("stopped")));
    }
    assert_eq!(hive.agent("f/deaf")["last_exit"]["signal"], libc::SIGKILL);
    // One grace of a second; the rest is for a loaded machine. Without the kill it would be the supervisor's own deadline of ten more.
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    still_talks(&hive);
    eprintln!("three stops in {:?}", asked.elapsed());
    assert_grew_little(&hive, at_rest_kib);
}

#[test]
fn telemetry_floods_over_a_session_are_bounded_counted_and_lose_no_heartbeat() {
    let open = r#"exec 3<>/dev/tcp/${HIVEKEEPER_ADDR%:*}/${HIVEKEEPER_ADDR##*:}
printf '{"jsonrpc":"2.0","id":1,"method":"hive/open","params":{"token":"%s","agent":"%s","incarnation":%s,"protocol":1}}\n' \
    $HIVEKEEPER_TOKEN $HIVEKEEPER_AGENT $HIVEKEEPER_INCARNATION >&3
read -r answer <&3
until [ -e go ]; do sleep 0.02; done
for i in $(seq 100); do
    yes "$WHAT" | head -n $TIMES >&3
    printf '{"jsonrpc":"2.0","method":"hive/heartbeat","params":{"progress":{"done":%s}}}\n' $i >&3
done
exec sleep 1000
"#;
    let note = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string();
    let member = json!({"method": "hive/metric", "params": {"name": "tokens", "value": 7}});
    let floods = [
        ("log", note("hive/log", json!({"level": "info", "line": "x".repeat(80)})), 1000),
        ("metric", note("hive/metric", json!({"name": "tokens", "value": 1.5, "attributes": {"a": "b"}})), 1000),
        ("batch", note("hive/batch", json!({"notifications": vec![member; 100]})), 10),
        ("event", note("hive/event", json!({"kind": "thought", "text": "y".repeat(3000)})), 100),
        ("huge", note("hive/event", json!({"kind": "novel", "text": "z".repeat(60_000)})), 10),
    ];
    let agents = floods.clone().map(|(name, what, times)| {
        format!(
            "[[swarm.agent]]\nname = \"{name}\"\ncommand = [\"bash\", \"flood.sh\"]\nenv = {{ WHAT = '{what}', TIMES = \"{times}\" }}\n"
        )
    });
    let mut hive = Hive::prepare(&format!("[[swarm]]\nname = \"f\"\n{}{}", agents.concat(), talker()));
    let work = hive.data().join("work/f");
    std::fs::create_dir_all(&work).unwrap();
    std::fs::write(work.join("flood.sh"), open).unwrap();
    hive.boot();
    until("six sessions", || (hive.get("/api/v1/health").body["data_plane"]["sessions"] == 6).then_some(()));
    still_talks(&hive);
    let at_rest_kib = daemon_peak_kib(&hive);
    go(&hive);
    for (name, ..) in &floods {
        // The last of a hundred heartbeats, behind 100 000 messages.
        hive.agent_until(&format!("f/{name}"), "tells its last progress", |agent| {
            let through = agent["progress"]["value"]["done"] == 100;
            // Behind its last heartbeat it is silent, and may be found so while the others are looked at.
            assert!(through || agent["state"] == "running", "{agent:#}");
            through
        });
    }
    still_talks(&hive);
    // Each message is kept, or counted as dropped on its agent, or counted as refused.
    let health = hive.get("/api/v1/health");
    assert_eq!(health.status, 200);
    let refused = health.body["data_plane"]["refused"].as_u64().unwrap();
    let dropped = |id: &str| hive.agent(id)["dropped"].as_u64().unwrap();
    // Of three times 100 000 a second's burst and rate are taken; how many the rate adds depends on how long it takes.
    assert!(refused > 0 && refused < 241_000 + 1000, "{refused}");
    let logged = hive.lines("f/log").iter().filter(|line| line["stream"] == "log").count() as u64;
    assert!(logged > 0 && logged + dropped("f/log") <= 100_000, "{logged}");
    let said = |id: &str| 10_000 - dropped(id);
    assert!((500..1000).contains(&said("f/event")), "its share of events is kept: {}", said("f/event"));
    assert_eq!(dropped("f/huge"), 0, "what is too long is refused");
    // What comes too fast is refused and, because nobody hears of a refused notification, counted as dropped on its agent.
    for id in ["f/log", "f/metric", "f/batch"] {
        assert_eq!(
            hive.agent(id)["telemetry"]["received"],
            100_000 + 100,
            "every message of {id} and its heartbeats are counted"
        );
    }
    let by_rate = dropped("f/log") + dropped("f/metric") + dropped("f/batch");
    assert!(refused <= by_rate + 1000, "{refused} refused, {by_rate} dropped");
    let db: u64 = ["hive.db", "hive.db-wal"]
        .iter()
        .filter_map(|name| std::fs::metadata(hive.data().join(name)).ok())
        .map(|meta| meta.len())
        .sum();
    eprintln!("refused {refused}, logged {logged}, dropped {}, journal {db} bytes", dropped("f/log"));
    assert_grew_little(&hive, at_rest_kib);
    // 30 MB of events were sent; a thousand of 3 kB may be kept, twice: in the journal and in its log of changes.
    assert!(db < 12 * 1024 * 1024, "{db} bytes of journal");
}

#[test]
fn a_viewer_that_never_reads_keeps_nobody_from_reading() {
    let hive = hive(&[flood("lines", &format!("while :; do yes {} | head -n 1000; sleep 0.01; done", "x".repeat(99)))]);
    hive.running("f/lines");
    let at_rest_kib = daemon_peak_kib(&hive);
    go(&hive);
    let mut deaf: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(&hive.http).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let request = format!(
                "GET /ws/hybrid-health HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                hive.http
            );
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut viewer = hive.viewer();
    viewer.send(json!({"type": "subscribe", "subscriptions": ["performance"]}));
    let viewers = |frame: &Value| frame["type"] == "performance_update" && frame["stream"]["viewers"] == 9;
    viewer.next_that("counts nine viewers", viewers);
    // Masked pings in text, without a mask's disguise: each asks for an answer that nobody reads.
    let text = br#"{"type":"request_status"}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text);
    let frames = frame.repeat(2000);
    let written = deaf.iter_mut().filter_map(|stream| stream.write_all(&frames).ok()).count();
    assert!(written <= 8);
    for _ in 0..3 {
        viewer.next_that("goes on", |frame| frame["type"] == "performance_update");
        assert_eq!(hive.get("/api/v1/health").status, 200);
    }
    viewer.send(json!({"type": "ping"}));
    viewer.next_that("answers", |frame| frame["type"] == "pong");
    still_talks(&hive);
    assert_grew_little(&hive, at_rest_kib);
    kill(hive.agent_pid("f/lines"), libc::SIGKILL);
    viewer.next_that("shows a restart at once", |frame| frame.to_string().contains("\"incarnation\":2"));
}
