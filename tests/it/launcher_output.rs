//! The launcher and output: lines, pieces, floods.

use std::time::Duration;

use hivekeeper::wire::channel::{ExitWhy, FromLauncher, LINE_PIECE_MAX, Output, Stream, ToLauncher};

use crate::harness::{
    launcher::Launcher,
    processes::{allocated_kib, signal, state, wait_for},
};

/// Every line of a run to its end.
fn all(launcher: &mut Launcher) -> Vec<Output> {
    let mut lines = Vec::new();
    let last_seq = launcher.channel.until(|frame| match frame {
        FromLauncher::Output(output) => {
            lines.push(output);
            None
        }
        FromLauncher::Exit(exit) => Some(exit.last_seq),
        FromLauncher::Lost { .. } => panic!("{frame:?}"),
        _ => None,
    });
    let seqs: Vec<u64> = lines.iter().map(|line| line.seq).collect();
    assert_eq!(seqs, (1..=last_seq).collect::<Vec<_>>());
    lines
}

#[test]
fn both_streams_are_numbered_together() {
    let mut launcher = Launcher::run("for i in 1 2 3; do echo out $i; sleep 0.02; echo err $i >&2; sleep 0.02; done");
    let lines = all(&mut launcher);
    let texts: Vec<_> = lines.iter().map(|line| (line.stream, str::from_utf8(&line.bytes).unwrap())).collect();
    let wanted = [
        (Stream::Stdout, "out 1"),
        (Stream::Stderr, "err 1"),
        (Stream::Stdout, "out 2"),
        (Stream::Stderr, "err 2"),
        (Stream::Stdout, "out 3"),
        (Stream::Stderr, "err 3"),
    ];
    assert_eq!(texts, wanted);
    assert!(lines.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
}

#[test]
fn a_line_of_a_megabyte_comes_in_pieces() {
    let script = "head -c 1000000 /dev/zero | tr '\\0' a; echo; echo next";
    let mut launcher = Launcher::run_with(script, |launch| launch.ring_bytes = 4 << 20);
    let lines = all(&mut launcher);
    let (next, pieces) = lines.split_last().unwrap();
    assert_eq!(next.bytes, b"next");
    let (last, first) = pieces.split_last().unwrap();
    assert!(first.iter().all(|piece| piece.partial && piece.bytes.len() == LINE_PIECE_MAX));
    assert!(!last.partial);
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.clone()).collect();
    assert_eq!(bytes, vec![b'a'; 1_000_000]);
}

#[test]
fn bytes_that_are_no_text_and_a_line_without_an_end_come_as_they_are() {
    let mut launcher = Launcher::run("printf 'a\\377\\000b\\n\\nrest'; printf 'err' >&2");
    let lines = all(&mut launcher);
    let of = |stream| lines.iter().filter(|line| line.stream == stream).map(|line| line.bytes.as_slice()).collect();
    let (out, err): (Vec<&[u8]>, Vec<&[u8]>) = (of(Stream::Stdout), of(Stream::Stderr));
    assert_eq!(out, [&b"a\xff\0b"[..], b"", b"rest"]);
    assert_eq!(err, [b"err"]);
    assert!(lines.iter().all(|line| !line.partial));
}

#[test]
fn what_swept_descendants_wrote_last_is_not_lost() {
    let mut launcher = Launcher::run("setsid sh -c 'echo from below; exec sleep 300' & sleep 0.3; echo last");
    let texts: Vec<_> = all(&mut launcher).into_iter().map(|line| line.bytes).collect();
    assert_eq!(texts, [&b"from below"[..], b"last"]);
}

#[test]
fn what_is_left_in_a_large_pipe_is_read_after_the_end() {
    // F_SETPIPE_SZ is 1031: the pipe holds far more than one read takes.
    let script = "exec perl -e '$| = 1; fcntl(STDOUT, 1031, 1 << 20) or die; print \"ready\\n\"; <STDIN>; sleep 1; \
                  syswrite(STDOUT, \"line\\n\" x 100000)'";
    let mut launcher = Launcher::run_with(script, |launch| launch.ring_bytes = 8 << 20);
    let agent = launcher.channel.started();
    assert_eq!(launcher.channel.line(), "ready");
    signal(launcher.pid(), libc::SIGSTOP);
    wait_for("the agent's end", || (state(agent) == Some('Z')).then_some(()));
    signal(launcher.pid(), libc::SIGCONT);
    let mut got = 0;
    let exit = launcher.channel.until(|frame| match frame {
        FromLauncher::Output(_) => {
            got += 1;
            None
        }
        FromLauncher::Exit(exit) => Some(exit),
        _ => None,
    });
    assert_eq!((exit.code, exit.last_seq, got), (Some(0), 100_001, 100_000));
}

#[test]
fn an_agent_is_never_blocked_by_a_daemon_that_does_not_read() {
    let mut launcher = Launcher::run_with("seq 1 200000", |launch| launch.ring_bytes = 65_536);
    // Nothing is read until the agent is through: 1.3 MB, far more than pipes and ring hold.
    wait_for("the agent's end", || launcher.record_path().exists().then_some(()));
    let (mut got, mut lost, mut bytes) = (0, 0, 0);
    let exit = launcher.channel.until(|frame| match frame {
        FromLauncher::Output(output) => {
            got += 1;
            bytes += output.bytes.len() as u64;
            assert_eq!(output.seq, got + lost);
            assert_eq!(output.bytes, output.seq.to_string().into_bytes());
            None
        }
        FromLauncher::Lost { lines, bytes: lost_bytes, next_seq } => {
            lost += lines;
            bytes += lost_bytes;
            assert_eq!(next_seq, got + lost + 1);
            None
        }
        FromLauncher::Exit(exit) => Some(exit),
        _ => None,
    });
    assert_eq!((exit.code, exit.last_seq), (Some(0), 200_000));
    assert_eq!(got + lost, 200_000);
    assert!(lost > 100_000, "{lost}");
    let written: usize = (1..=200_000).map(|number: u32| number.to_string().len()).sum();
    assert_eq!(bytes, written as u64, "every byte is got or counted");
}

#[test]
fn a_flood_leaves_memory_bounded_and_orders_obeyed() {
    let mut launcher = Launcher::run_with("yes & yes >&2", |launch| {
        launch.ring_bytes = 1 << 20;
        launch.lease_ms = 3000;
    });
    launcher.channel.started();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(50));
        launcher.channel.renew();
        let allocated = allocated_kib(launcher.pid());
        assert!(allocated < 4 * 1024, "{allocated} KiB");
    }
    launcher.channel.send(&ToLauncher::Stop { grace_ms: 10_000 });
    assert_eq!(launcher.channel.exit().why, ExitWhy::Asked);
}

#[test]
fn a_flood_does_not_hide_the_end_of_the_lease() {
    let mut launcher = Launcher::run_with("yes & yes >&2", |launch| launch.lease_ms = 500);
    assert_eq!(launcher.channel.exit().why, ExitWhy::LeaseLost);
}

#[test]
fn a_reader_that_keeps_up_and_acknowledges_loses_nothing() {
    let mut launcher = Launcher::run_with("seq 1 50000", |launch| launch.ring_bytes = 4 << 20);
    let mut got = 0;
    loop {
        match launcher.channel.next().unwrap() {
            FromLauncher::Output(output) => {
                got += 1;
                assert_eq!(output.seq, got);
                if got % 1000 == 0 {
                    // The launcher may have ended behind the last line.
                    let _ = launcher.channel.try_send(&ToLauncher::Ack { seq: got });
                }
            }
            FromLauncher::Exit(exit) => break assert_eq!(exit.last_seq, 50_000),
            FromLauncher::Lost { .. } => panic!("lost although there was room"),
            _ => {}
        }
    }
    assert_eq!(got, 50_000);
}
