//! The few bytes of the tar format (POSIX.1-1988, `ustar`) that sending one file takes.

/// Everything in an archive is a multiple of it.
const BLOCK: usize = 512;

/// The head of a regular file of root's; the content follows, then [`padding`].
pub(super) fn head(name: &str, mode: u32, size: u64) -> Vec<u8> {
    entry("0", name, mode, size)
}

/// A directory of root's. The name ends with a slash and is no longer than 100 bytes, which holds for all names here.
pub(super) fn directory(name: &str, mode: u32) -> Vec<u8> {
    entry("5", name, mode, 0)
}

fn entry(kind: &str, name: &str, mode: u32, size: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The checksum is counted with blanks in its place.
    put(148, "        ");
    put(156, kind);
    put(257, "ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// What fills the last block of a content of so many bytes.
pub(super) fn padding(size: u64) -> Vec<u8> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    vec![0; (BLOCK - over) % BLOCK]
}

/// The end of an archive.
pub(super) fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn tar_itself_reads_it() {
        let content = b"x".repeat(700);
        let mut archive = directory("home/", 0o1777);
        archive.extend(head("home/launcher", 0o555, content.len() as u64));
        archive.extend(&content);
        archive.extend(padding(content.len() as u64));
        archive.extend(head("complete", 0o444, 0));
        archive.extend(padding(0));
        archive.extend(end());
        assert_eq!(archive.len() % BLOCK, 0);
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar")
            .args(["-x", "-p", "-f", "-", "--no-same-owner", "-C"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(tar.wait().unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("home/launcher")).unwrap(), content);
        assert_eq!(std::fs::read(dir.path().join("complete")).unwrap(), b"");
        let mode = |file: &str| {
            let found = std::fs::metadata(dir.path().join(file)).unwrap();
            std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777
        };
        assert_eq!((mode("home"), mode("home/launcher")), (0o1777, 0o555));
    }
}
