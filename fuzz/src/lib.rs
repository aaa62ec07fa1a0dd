//! The pure rooms that take bytes of strangers, compiled from the daemon's own files, and what must hold of them whatever the bytes are. Only these
//! rooms: with the whole daemon a build would take minutes, and the session is private there.

#![allow(dead_code, unused_imports, missing_docs, reason = "each target uses a part of rooms that were written for more")]

#[path = "../../src/model/mod.rs"]
pub mod model;
#[path = "../../src/wire/mod.rs"]
pub mod wire;

pub mod data_plane;

/// Feeds a stream in two ways, whole and in pieces of the sizes that `cuts` names in turn: where it was cut must make no difference.
pub fn pieces<'a>(mut bytes: &'a [u8], cuts: &'a [u8]) -> Vec<&'a [u8]> {
    let mut sizes = cuts.iter().map(|size| usize::from(*size).max(1)).cycle();
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(sizes.next().unwrap_or(usize::MAX).min(bytes.len()));
        all.push(piece);
        bytes = rest;
    }
    all
}

/// The first byte says how many bytes behind it are sizes of pieces; the rest is the stream.
pub fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((n, rest)) = data.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(n % 16).min(rest.len()))
}
