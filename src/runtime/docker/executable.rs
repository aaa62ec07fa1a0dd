//! Our own executable, as it is put into containers.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::OnceCell,
    task::spawn_blocking,
};

/// Bytes that are read at once.
const READ_LEN: usize = 256 * 1024;

/// The executable, held open: containers get the same program when the file is replaced or removed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Launcher {
    exe: Arc<File>,
    /// SHA-256, once somebody has needed it.
    digest: Arc<OnceCell<String>>,
}

impl Launcher {
    /// Opens it.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { exe: Arc::new(File::open(path)?), digest: Arc::default() })
    }

    /// The file and its digest, hexadecimal. The error says why it can't be read.
    pub(super) async fn read(&self) -> Result<(&Arc<File>, &str), String> {
        let digest = self.digest.get_or_try_init(|| async {
            let exe = Arc::clone(&self.exe);
            let read = spawn_blocking(move || digest(&exe)).await.map_err(|error| error.to_string())?;
            read.map_err(|error| format!("the executable cannot be read: {error}"))
        });
        Ok((&self.exe, digest.await?))
    }

    /// Its size in bytes. The error says why it can't be read.
    pub(super) fn size(&self) -> Result<u64, String> {
        let found = self.exe.metadata().map_err(|error| format!("the executable cannot be read: {error}"))?;
        Ok(found.len())
    }

    /// Writes it out, and ends the output.
    pub(super) async fn write_to(&self, mut out: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut at = 0;
        loop {
            let exe = Arc::clone(&self.exe);
            let read = spawn_blocking(move || {
                let mut piece = vec![0; READ_LEN];
                let len = exe.read_at(&mut piece, at)?;
                piece.truncate(len);
                Ok::<_, io::Error>(piece)
            });
            let piece = read.await.map_err(io::Error::other)??;
            if piece.is_empty() {
                return out.shutdown().await;
            }
            out.write_all(&piece).await?;
            at += piece.len() as u64;
        }
    }
}

fn digest(exe: &File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; READ_LEN];
    let mut at = 0;
    // By position: others read the same file.
    loop {
        match exe.read_at(&mut buffer, at)? {
            0 => break,
            len => {
                digest.update(&buffer[..len]);
                at += len as u64;
            }
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
