//! The few forms of a tar archive that a backup needs: plain files with a path of at most 155 and 100 bytes. `tar` lists and unpacks it.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
};

use sha2::{Digest, Sha256};

use super::manifest::Entry;

const BLOCK: usize = 512;
/// Eleven octal digits hold it.
const BYTES_MAX: u64 = (1 << 33) - 1;
/// Read at once.
const CHUNK: usize = 64 * 1024;

/// Appends a file: `bytes` of what `from` gives.
pub(super) fn append(
    to: &mut impl Write,
    path: &str,
    bytes: u64,
    modified_s: u64,
    from: &mut impl Read,
) -> io::Result<Entry> {
    to.write_all(&head(path, bytes, modified_s)?)?;
    let sha256 = pump(from, to, bytes)?;
    let rest = (BLOCK - (bytes % BLOCK as u64) as usize) % BLOCK;
    to.write_all(&[0; BLOCK][..rest])?;
    Ok(Entry { path: path.to_owned(), bytes, sha256 })
}

/// Two empty blocks are the end of an archive.
pub(super) fn finish(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&[0; 2 * BLOCK])
}

/// Path and length of the next file; `None` at the end. Its content must be read by [`content`] before the next call.
pub(super) fn next(from: &mut impl Read) -> io::Result<Option<(String, u64)>> {
    let mut head = [0; BLOCK];
    from.read_exact(&mut head)?;
    if head.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let sum = octal(&head[148..156])?;
    if sum != checksum(&head) || &head[257..262] != b"ustar" || head[156] != b'0' {
        return Err(invalid("its table of contents is damaged"));
    }
    let (name, prefix) = (text(&head[..100])?, text(&head[345..500])?);
    let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    Ok(Some((path, octal(&head[124..136])?)))
}

/// Copies the content of the file that [`next`] has named; its checksum.
pub(super) fn content(from: &mut impl Read, to: &mut impl Write, bytes: u64) -> io::Result<String> {
    let sha256 = pump(from, to, bytes)?;
    let rest = (BLOCK - (bytes % BLOCK as u64) as usize) % BLOCK;
    from.read_exact(&mut [0; BLOCK][..rest])?;
    Ok(sha256)
}

fn head(path: &str, bytes: u64, modified_s: u64) -> io::Result<[u8; BLOCK]> {
    let (prefix, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name.len() > 100 || prefix.len() > 155 || bytes > BYTES_MAX {
        return Err(invalid("a file of more than 8 GiB, or with a longer path than an archive takes"));
    }
    let mut head = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000600");
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{bytes:011o}").as_bytes());
    put(136, format!("{modified_s:011o}").as_bytes());
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let sum = checksum(&head);
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(head)
}

/// The sum of all bytes, its own field counted as spaces.
fn checksum(head: &[u8; BLOCK]) -> u64 {
    let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = head[148..156].iter().map(|byte| u64::from(*byte)).sum();
    sum - own + 8 * u64::from(b' ')
}

fn octal(field: &[u8]) -> io::Result<u64> {
    let digits = text(field)?;
    u64::from_str_radix(digits.trim(), 8).map_err(|_| invalid("its table of contents is damaged"))
}

fn text(field: &[u8]) -> io::Result<String> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8(field[..end].to_vec()).map_err(|_| invalid("its table of contents is damaged"))
}

/// Copies exactly so many bytes; their checksum.
fn pump(from: &mut impl Read, to: &mut impl Write, bytes: u64) -> io::Result<String> {
    let mut buffer = vec![0; CHUNK];
    let (mut hash, mut left) = (Sha256::new(), bytes);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let chunk = &mut buffer[..want];
        from.read_exact(chunk)?;
        hash.update(&*chunk);
        to.write_all(chunk)?;
        left -= want as u64;
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
