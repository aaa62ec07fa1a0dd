//! Lines out of any bytes, and messages out of any line.
#![no_main]

use hivekeeper_fuzz::{
    pieces, split,
    wire::{
        lines::{Line, Lines},
        rpc::{Batch, EventKind, Heartbeat, Log, Message, Metric, Open, Usage, object, parse},
    },
};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 64;

fn lines(stream: &[&[u8]], limit: usize) -> (Vec<Option<Vec<u8>>>, bool) {
    let mut reader = Lines::new(limit);
    let mut all = Vec::new();
    for piece in stream {
        let mut rest = *piece;
        while let Some(line) = reader.next(&mut rest) {
            all.push(match line {
                Line::Whole(line) => Some(line.to_vec()),
                Line::TooLong => None,
            });
        }
        assert!(rest.is_empty());
    }
    (all, reader.unfinished())
}

fuzz_target!(|data: &[u8]| {
    let (cuts, stream) = split(data);
    let whole = lines(&[stream], LIMIT);
    assert_eq!(whole, lines(&pieces(stream, cuts), LIMIT), "where the stream was cut makes no difference");
    for line in whole.0.iter().flatten() {
        assert!(line.len() <= LIMIT && !line.contains(&b'\n') && !line.iter().all(u8::is_ascii_whitespace));
    }
    for line in lines(&[stream], 1 << 20).0.iter().flatten() {
        if let Ok(Message::Request { params, .. } | Message::Notification { params, .. }) = parse(line) {
            let _ = (object::<Open>(params), object::<Heartbeat>(params), object::<Log>(params));
            let _ = (object::<Metric>(params), object::<Usage>(params), object::<EventKind>(params));
            let _ = object::<Batch>(params);
        }
    }
});
