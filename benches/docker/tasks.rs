//! What the agent does in its container after its sign of life, if more than to live.

use std::{
    env,
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::support::{agent, clock};

/// Names the task; without it the agent rests.
pub const TASK: &str = "HKB_TASK";
/// How many round trips.
pub const ROUNDS: &str = "HKB_ROUNDS";
/// A message that goes there and back: about a telemetry line.
pub const PING_LEN: usize = 64;
/// Bytes that go one way.
pub const POUR_LEN: usize = 256 << 20;
/// Written and read at once.
pub const PIECE_LEN: usize = 64 * 1024;

/// First byte of a connection: what the other side is to do with it.
pub const ECHO: u8 = b'e';
/// Take all there is and then say one byte.
pub const SINK: u8 = b's';
/// Give [`POUR_LEN`] bytes and close.
pub const POUR: u8 = b'p';

/// What is told of a task, behind the agent's name.
pub const ROUND_TRIP: &str = ".round-trip";
pub const UPWARD: &str = ".upward";
pub const DOWNWARD: &str = ".downward";

/// Does not return.
pub fn perform() -> ! {
    let done = match env::var(TASK).as_deref() {
        Ok("relay") => relay(),
        Ok("echo") => copy(io::stdin(), io::stdout()),
        Ok("pour") => pour(&mut io::stdout().lock()),
        Ok("sink") => drain(&mut io::stdin().lock()).and_then(|_| io::stdout().write_all(b"!")),
        _ => Ok(()),
    };
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(1);
    }
    match env::var_os(TASK) {
        // Whoever watches the exec's stream waits for its end.
        Some(task) if task != "relay" => std::process::exit(0),
        _ => agent::rest(),
    }
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut piece = [0; PIECE_LEN];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            len => {
                to.write_all(&piece[..len])?;
                to.flush()?;
            }
        }
    }
}

fn pour(to: &mut impl Write) -> io::Result<()> {
    let piece = [7; PIECE_LEN];
    for _ in 0..POUR_LEN / PIECE_LEN {
        to.write_all(&piece)?;
    }
    to.flush()
}

/// Takes [`POUR_LEN`] bytes, or fewer when the other side ends before.
fn drain(from: &mut impl Read) -> io::Result<usize> {
    let (mut piece, mut taken) = (vec![0; PIECE_LEN], 0);
    while taken < POUR_LEN {
        match from.read(&mut piece)? {
            0 => break,
            len => taken += len,
        }
    }
    Ok(taken)
}

/// Measures the way from the agent's loopback port to the other side and back, and tells.
fn relay() -> io::Result<()> {
    let rounds: usize = env::var(ROUNDS).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut stream = connect(ECHO)?;
    let mut message = [7; PING_LEN];
    let mut trips = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let sent = clock::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        trips.push(clock::now() - sent);
    }
    drop(stream);
    for trip in trips {
        agent::tell(ROUND_TRIP, trip);
    }
    agent::tell(UPWARD, upward()?);
    agent::tell(DOWNWARD, downward()?);
    Ok(())
}

fn upward() -> io::Result<Duration> {
    let mut stream = connect(SINK)?;
    let began = clock::now();
    pour(&mut stream)?;
    // Said once everything has arrived.
    stream.read_exact(&mut [0])?;
    Ok(clock::now() - began)
}

fn downward() -> io::Result<Duration> {
    let mut stream = connect(POUR)?;
    let began = clock::now();
    match drain(&mut stream)? {
        POUR_LEN => Ok(clock::now() - began),
        less => Err(io::Error::other(format!("{less} bytes came"))),
    }
}

fn connect(wish: u8) -> io::Result<TcpStream> {
    let address = env::var("HIVEKEEPER_ADDR").map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[wish])?;
    Ok(stream)
}
