#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

struct Bench {
    null: [File; 2],
    pair: (UnixStream, UnixStream),
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
        Self { null: [null(), null()], pair: UnixStream::pair().unwrap(), start: Instant::now() }
    }

    fn bridge(&mut self) -> Bridge<'_> {
        let [stdin, stdout] = &mut self.null;
        Bridge::new(stdin, stdout, &self.pair.0)
    }
}

/// Bytes that have been read and not been written.
fn holding(flow: &mut Flow) {
    assert_eq!(flow.fill(&b"bytes"[..]), 5);
}

#[test]
fn as_long_as_both_sides_live_there_is_no_end() {
    let mut bench = Bench::new();
    let start = bench.start;
    let mut bridge = bench.bridge();
    holding(&mut bridge.up);
    holding(&mut bridge.down);
    assert_eq!(bridge.next(start + Duration::from_secs(3600)), Next::Wait(Duration::MAX));
}

#[test]
fn the_end_of_the_daemon_is_told_once_its_last_bytes_are_through() {
    let mut bench = Bench::new();
    let start = bench.start;
    let mut bridge = bench.bridge();
    holding(&mut bridge.down);
    bridge.down.gives = false;
    assert_eq!(bridge.next(start), Next::Wait(FLUSH_STALL_MAX));
    let mut sink = Vec::new();
    assert_eq!(bridge.down.drain(&mut sink), 5);
    assert_eq!(sink, b"bytes");
    assert_eq!(bridge.next(start), Next::Tell);
    bridge.told = true;
    assert_eq!(bridge.next(start), Next::Wait(FLUSH_STALL_MAX));
}

#[test]
fn a_launcher_that_takes_and_says_nothing_is_left_behind() {
    let mut bench = Bench::new();
    let start = bench.start;
    let mut bridge = bench.bridge();
    holding(&mut bridge.down);
    bridge.down.gives = false;
    assert_eq!(bridge.next(start), Next::Wait(FLUSH_STALL_MAX));
    assert_eq!(bridge.next(start + FLUSH_STALL_MAX), Next::Over);
}

#[test]
fn whoever_goes_on_moving_gets_more_time_and_not_for_ever() {
    let mut bench = Bench::new();
    let start = bench.start;
    let mut bridge = bench.bridge();
    bridge.down.gives = false;
    bridge.told = true;
    assert_eq!(bridge.next(start), Next::Wait(FLUSH_STALL_MAX));
    let later = start + Duration::from_secs(1);
    bridge.moved = later;
    assert_eq!(bridge.next(later), Next::Wait(FLUSH_STALL_MAX));
    let late = start + FLUSH_MAX;
    bridge.moved = late;
    assert_eq!(bridge.next(late), Next::Over);
}

#[test]
fn a_daemon_that_leaves_behind_a_launcher_that_takes_nothing_ends_it() {
    let mut bench = Bench::new();
    let start = bench.start;
    let mut bridge = bench.bridge();
    holding(&mut bridge.down);
    bridge.left = true;
    assert_eq!(bridge.next(start), Next::Wait(FLUSH_STALL_MAX), "what waits in the pipe is not given up at once");
    assert_eq!(bridge.next(start + FLUSH_STALL_MAX), Next::Over);
}

#[test]
fn the_end_of_the_launcher_is_the_end_once_its_last_bytes_are_through() {
    let mut bench = Bench::new();
    let start = bench.start;
    let mut bridge = bench.bridge();
    holding(&mut bridge.up);
    bridge.up.gives = false;
    assert_eq!(bridge.next(start), Next::Wait(FLUSH_STALL_MAX));
    bridge.up.drain(Vec::new());
    assert_eq!(bridge.next(start), Next::Over);
}

#[test]
fn a_launcher_that_hangs_up_behind_a_daemon_that_does_not_read_ends_it() {
    let mut bench = Bench::new();
    let start = bench.start;
    let mut bridge = bench.bridge();
    holding(&mut bridge.up);
    bridge.hung_up = true;
    assert_eq!(bridge.next(start), Next::Wait(FLUSH_STALL_MAX));
    assert_eq!(bridge.next(start + FLUSH_STALL_MAX), Next::Over);
}

#[test]
fn a_daemon_that_does_not_listen_any_more_has_ended() {
    let mut bench = Bench::new();
    let start = bench.start;
    let mut bridge = bench.bridge();
    bridge.up.takes = false;
    assert_eq!(bridge.next(start), Next::Tell);
}

#[test]
fn what_nobody_takes_is_dropped_and_reading_goes_on() {
    let mut flow = Flow::new();
    holding(&mut flow);
    flow.drain(&mut [][..]);
    assert!(!flow.takes && flow.wants());
    holding(&mut flow);
    flow.drain(Vec::new());
    assert!(flow.wants());
}

#[test]
fn no_more_is_read_before_the_last_has_been_written() {
    let mut flow = Flow::new();
    assert_eq!(flow.fill(&vec![7; 10 * BUFFER_LEN][..]), BUFFER_LEN);
    assert!(!flow.wants());
}
