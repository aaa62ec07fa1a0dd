#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::wire::channel::{Decoder, Output};

/// Everything that the present channel has not been given.
fn take(ring: &mut Ring) -> Vec<FromLauncher> {
    let mut frames: Vec<FromLauncher> = ring.take_loss().into_iter().collect();
    let mut out = Vec::new();
    ring.take_unsent(&mut out, usize::MAX);
    let mut decoder = Decoder::<FromLauncher>::new();
    decoder.push(&out);
    while let Some(frame) = decoder.next().unwrap() {
        frames.push(frame);
    }
    frames
}

fn outputs(ring: &mut Ring) -> Vec<Output> {
    take(ring)
        .into_iter()
        .map(|frame| match frame {
            FromLauncher::Output(output) => output,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn seqs(ring: &mut Ring) -> Vec<u64> {
    outputs(ring).iter().map(|output| output.seq).collect()
}

fn fed(pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
    let mut ring = Ring::new(1 << 20);
    let mut lines = Lines::new(Stream::Stdout);
    for piece in pieces {
        lines.feed(piece, 9, &mut ring);
    }
    lines.finish(9, &mut ring);
    outputs(&mut ring).into_iter().map(|output| (output.partial, output.bytes)).collect()
}

#[test]
fn a_long_line_is_not_cut_within_a_character() {
    for character in ["\u{e9}", "\u{20ac}", "\u{1f41d}"] {
        for shift in 0..4 {
            let line = "x".repeat(shift) + &character.repeat(3 * LINE_PIECE_MAX / character.len());
            // In reads of odd lengths, so that a read ends within a character, too.
            let reads: Vec<&[u8]> = line.as_bytes().chunks(10_007).collect();
            let pieces = fed(&reads);
            assert!(pieces.iter().all(|(_, piece)| piece.len() <= LINE_PIECE_MAX && str::from_utf8(piece).is_ok()));
            assert_eq!(joined(&pieces), line.as_bytes());
        }
    }
    // What is no text anyway is cut at the limit, whatever it looks like at the end.
    for noise in [0x80, 0xff, 0xf0] {
        let pieces = fed(&[&vec![noise; 2 * LINE_PIECE_MAX + 1]]);
        assert_eq!(joined(&pieces), vec![noise; 2 * LINE_PIECE_MAX + 1]);
        assert!(pieces.len() <= 4);
    }
}

fn joined(pieces: &[(bool, Vec<u8>)]) -> Vec<u8> {
    pieces.iter().flat_map(|(_, piece)| piece.clone()).collect()
}

/// A ring of the smallest size with `count` lines of 1 000 bytes: 64 of them fit.
fn filled(count: usize) -> Ring {
    let mut ring = Ring::new(0);
    for _ in 0..count {
        ring.push(Stream::Stderr, false, &[b'x'; 1000], 1);
    }
    ring
}

#[test]
fn lines_are_cut_at_newlines_wherever_the_reads_end() {
    let whole = vec![(false, b"one".to_vec()), (false, Vec::new()), (false, b"two".to_vec())];
    assert_eq!(fed(&[b"one\n\ntwo\n"]), whole);
    assert_eq!(fed(&[b"o", b"ne", b"\n", b"\ntw", b"o"]), whole);
}

#[test]
fn a_line_of_exactly_the_limit_is_one_piece() {
    let line = vec![b'a'; LINE_PIECE_MAX];
    assert_eq!(fed(&[&line, b"\n"]), vec![(false, line.clone())]);
    assert_eq!(fed(&[&line]), vec![(false, line)]);
}

#[test]
fn a_longer_line_comes_in_pieces_and_only_the_last_is_whole() {
    let line = vec![b'a'; 2 * LINE_PIECE_MAX + 1];
    let pieces = fed(&[&line, b"\nb\n"]);
    let lens: Vec<_> = pieces.iter().map(|(partial, bytes)| (*partial, bytes.len())).collect();
    assert_eq!(lens, [(true, LINE_PIECE_MAX), (true, LINE_PIECE_MAX), (false, 1), (false, 1)]);
}

#[test]
fn numbers_go_on_across_both_streams() {
    let mut ring = Ring::new(0);
    let (mut out, mut err) = (Lines::new(Stream::Stdout), Lines::new(Stream::Stderr));
    out.feed(b"a\nhalf", 1, &mut ring);
    err.feed(b"b\n", 2, &mut ring);
    out.feed(b"\n", 3, &mut ring);
    let seen: Vec<_> = outputs(&mut ring).into_iter().map(|it| (it.seq, it.stream, it.at_ms)).collect();
    assert_eq!(seen, [(1, Stream::Stdout, 1), (2, Stream::Stderr, 2), (3, Stream::Stdout, 3)]);
}

#[test]
fn a_channel_gets_each_line_once_and_a_new_one_what_is_not_safe() {
    let mut ring = filled(5);
    assert_eq!(seqs(&mut ring), [1, 2, 3, 4, 5]);
    assert!(!ring.has_unsent());
    ring.ack(2);
    assert_eq!(seqs(&mut ring), [] as [u64; 0]);
    ring.attach(3);
    assert_eq!(ring.first_seq(), 4);
    assert_eq!(seqs(&mut ring), [4, 5]);
}

#[test]
fn an_acknowledgement_before_the_sending_removes_only_what_it_names() {
    let mut ring = filled(5);
    ring.ack(3);
    assert_eq!(seqs(&mut ring), [4, 5]);
    ring.ack(u64::MAX);
    assert_eq!((ring.first_seq(), ring.next_seq()), (6, 6));
}

#[test]
fn a_full_ring_drops_the_oldest_and_tells_it_once() {
    let mut ring = filled(70);
    assert_eq!(ring.first_seq(), 7);
    let frames = take(&mut ring);
    assert_eq!(frames[0], FromLauncher::Lost { lines: 6, bytes: 6000, next_seq: 7 });
    assert_eq!(frames.len(), 1 + 64);
    assert_eq!(take(&mut ring), []);
}

#[test]
fn dropping_what_was_sent_is_no_loss_for_this_channel_but_for_the_next() {
    let mut ring = filled(64);
    assert_eq!(seqs(&mut ring).len(), 64);
    ring.push(Stream::Stdout, false, &[b'x'; 1000], 1);
    assert_eq!(seqs(&mut ring), [65]);
    ring.attach(0);
    assert_eq!(take(&mut ring)[0], FromLauncher::Lost { lines: 1, bytes: 1000, next_seq: 2 });
}

#[test]
fn what_the_new_daemon_has_is_no_loss() {
    let mut ring = filled(70);
    ring.attach(6);
    assert_eq!(take(&mut ring).len(), 64);
    let mut ring = filled(70);
    ring.attach(4);
    assert!(matches!(take(&mut ring)[0], FromLauncher::Lost { lines: 2, next_seq: 7, .. }));
}

#[test]
fn an_empty_ring_gives_its_memory_back() {
    let mut ring = Ring::new(1 << 20);
    for _ in 0..500 {
        ring.push(Stream::Stderr, false, &[b'x'; 1000], 1);
    }
    assert!(ring.frames.capacity() > CAPACITY_KEPT_MAX);
    ring.ack(500);
    ring.relax();
    assert_eq!(ring.frames.capacity(), 0);
}

#[derive(Debug, Clone)]
enum Op {
    Push(usize),
    Take,
    Ack(u64),
    Attach,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0usize..LINE_PIECE_MAX).prop_map(Op::Push),
        2 => Just(Op::Take),
        2 => (0u64..100).prop_map(Op::Ack),
        1 => Just(Op::Attach),
    ]
}

proptest! {
    /// Whatever happens, a daemon that notes what it got can account for every number: got or told lost, in order, and the ring keeps its bound.
    #[test]
    fn every_number_is_got_or_told_lost(ops in vec(op(), 1..120)) {
        let mut ring = Ring::new(0);
        let mut known = 0;
        let mut acked = 0;
        for op in ops {
            match op {
                Op::Push(len) => ring.push(Stream::Stdout, false, &vec![b'y'; len], 1),
                Op::Ack(back) => {
                    acked = acked.max(known - known.min(back));
                    ring.ack(acked);
                }
                Op::Attach => {
                    known = acked;
                    ring.attach(known);
                }
                Op::Take => {
                    for frame in take(&mut ring) {
                        match frame {
                            FromLauncher::Output(output) => {
                                prop_assert_eq!(output.seq, known + 1);
                                known += 1;
                            }
                            FromLauncher::Lost { lines, next_seq, .. } => {
                                known += lines;
                                prop_assert_eq!(next_seq, known + 1);
                            }
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                    prop_assert_eq!(known + 1, ring.next_seq());
                }
            }
            prop_assert!(ring.frames.len() <= RING_BYTES_MIN);
            prop_assert!(ring.frames.capacity() <= RING_BYTES_MIN);
        }
    }
}
