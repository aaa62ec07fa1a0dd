//! Viewers by the thousand in one thread: each a task that reads its socket as bytes and hands out whole messages. It knows as much of the
//! protocol as that takes, so that it costs little beside the server whose speed is looked at. The benchmark of fan-out uses it, too.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// How a viewer's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A close frame with this code.
    Closed(u16),
    /// The end of the stream, without one.
    Over,
    /// A reset.
    Reset,
}

/// A connection of which the server has accepted the upgrade, and what it has sent behind that.
pub(crate) struct Open {
    stream: TcpStream,
    rest: Vec<u8>,
}

/// Asks for a WebSocket. `receive_bytes` is how much the kernel may take for a viewer that does not read, when it is not to be the usual.
pub(crate) async fn open(address: SocketAddr, path: &str, receive_bytes: Option<u32>) -> io::Result<Open> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    let mut stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            if !head.starts_with(b"HTTP/1.1 101") {
                return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
            }
            return Ok(Open { stream, rest: head.split_off(end + 4) });
        }
        match stream.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => head.extend_from_slice(&chunk[..n]),
        }
    }
}

impl Open {
    /// Reads to the end, answers pings, and hands out every text message.
    pub(crate) async fn read(mut self, mut each: impl FnMut(&[u8])) -> End {
        let mut held = std::mem::take(&mut self.rest);
        let mut chunk = vec![0; READ_BYTES];
        loop {
            let mut used = 0;
            while let Some((opcode, payload, length)) = frame(&held[used..]) {
                match opcode {
                    1 => each(payload),
                    8 => return End::Closed(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))),
                    9 => {
                        let mut pong = vec![0x8a, 0x80 | u8::try_from(payload.len()).unwrap_or(0), 0, 0, 0, 0];
                        pong.extend_from_slice(payload);
                        if self.stream.write_all(&pong).await.is_err() {
                            return End::Reset;
                        }
                    }
                    _ => {}
                }
                used += length;
            }
            held.drain(..used);
            match self.stream.read(&mut chunk).await {
                Ok(0) => return End::Over,
                Ok(n) => held.extend_from_slice(&chunk[..n]),
                Err(_) => return End::Reset,
            }
        }
    }
}

/// The first whole frame: its opcode, its payload and its length.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (length, begin) = match second {
        126 => (u16::from_be_bytes(*rest.first_chunk()?).into(), 4),
        127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 10),
        short => (usize::from(*short), 2),
    };
    Some((first & 0x0f, bytes.get(begin..begin + length)?, begin + length))
}

/// A number that stands behind this text in the head of a frame, which is `{"type":"...","epoch":N,"seq":N,"prev_seq":N,...`.
pub(crate) fn number(message: &[u8], behind: &str) -> Option<u64> {
    let head = &message[..message.len().min(200)];
    let at = head.windows(behind.len()).position(|window| window == behind.as_bytes())? + behind.len();
    let digits = head[at..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number, digit| Some(number.unwrap_or(0) * 10 + u64::from(digit - b'0')))
}

/// `seq` and `prev_seq` of a frame.
pub(crate) fn numbers(message: &[u8]) -> Option<(u64, u64)> {
    Some((number(message, "\"seq\":")?, number(message, "\"prev_seq\":")?))
}
