//! The launcher's channel, both ways.
#![no_main]

use hivekeeper_fuzz::{
    pieces, split,
    wire::channel::{ChannelError, Decoder, Frame, FromLauncher, ToLauncher, encode},
};
use libfuzzer_sys::fuzz_target;
use std::mem::{Discriminant, discriminant};

fn frames<T: Frame>(mut decoder: Decoder<T>, stream: &[&[u8]]) -> (Vec<T>, Option<Discriminant<ChannelError>>) {
    let mut all = Vec::new();
    for piece in stream {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => all.push(frame),
                Ok(None) => break,
                Err(error) => {
                    decoder.push(piece);
                    assert_eq!(decoder.next().err(), Some(error.clone()), "an error is final");
                    // What it quotes is what had come by then.
                    return (all, Some(discriminant(&error)));
                }
            }
        }
    }
    (all, None)
}

fn judge<T: Frame + PartialEq + std::fmt::Debug>(make: impl Fn() -> Decoder<T>, cuts: &[u8], stream: &[u8]) {
    let whole = frames(make(), &[stream]);
    assert_eq!(whole, frames(make(), &pieces(stream, cuts)), "where the stream was cut makes no difference");
    let mut again = Vec::new();
    for frame in &whole.0 {
        encode(frame, &mut again).expect("what was read can be written");
    }
    assert_eq!(frames(Decoder::new(), &[&again]), (whole.0, None), "and is read back as it was");
}

fuzz_target!(|data: &[u8]| {
    let (cuts, stream) = split(data);
    judge(Decoder::<ToLauncher>::new, cuts, stream);
    judge(Decoder::<FromLauncher>::new, cuts, stream);
    judge(Decoder::<FromLauncher>::expecting_magic, cuts, stream);
});
