//! One connection to a server: moves bytes, waits, and leaves every decision to the talk. A call that is dropped half way leaves the connection
//! usable: what was not written yet is kept and goes first.

use std::{cell::Cell, io, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};

use super::{
    ask,
    era::{self, Era, Found},
    limits::{READ_BYTES, REPLY_BYTES_HELD},
    reply::Answer,
    talk::{Flooded, Heard, Talk},
};

/// Why a connection brought no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Nobody takes the connection.
    #[error("can't connect")]
    Connect(#[source] io::Error),
    /// The address stands for nothing.
    #[error("the address stands for no machine")]
    NoAddress,
    /// Connecting took too long.
    #[error("no connection within {0:?}")]
    ConnectLate(Duration),
    /// It took too long to write the question.
    #[error("the server has not read for {0:?}")]
    WriteLate(Duration),
    /// The peer has ended the connection.
    #[error("the server ended the connection{}", said(.0.as_deref()))]
    Cut(Option<String>),
    /// No answer in time.
    #[error("no answer within {after:?}{}", if *.too_long { ", but a line longer than 1 MiB" } else { "" })]
    Late {
        /// What was waited.
        after: Duration,
        /// A line that could not be read may have been it.
        too_long: bool,
    },
    /// More than any answer is long.
    #[error("the server sends more than it is asked for")]
    Flooded,
    /// By a line that names no question.
    #[error("refused: {0}")]
    Refused(String),
    /// No version in common.
    #[error("no protocol version in common: {0}")]
    Foreign(String),
}

fn said(words: Option<&str>) -> String {
    words.map(|words| format!(": {words}")).unwrap_or_default()
}

impl Trouble {
    /// Counts it where it is the peer's end of a connection.
    pub(super) fn count(&self, cut: &Cell<u64>) {
        if matches!(self, Self::Cut(_)) {
            cut.set(cut.get() + 1);
        }
    }

    /// The whole of it in one line.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Connect(source) => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }
}

/// A greeted connection.
pub(super) struct Link {
    stream: TcpStream,
    talk: Talk,
    /// What is read goes here first.
    chunk: Vec<u8>,
    /// Not yet written.
    out: Vec<u8>,
    timeout: Duration,
    /// Up to when what came unasked is forgiven.
    forgiven: Instant,
    era: Era,
    /// What was agreed to.
    pub(super) protocol: String,
}

impl Link {
    /// Connects and greets. `known` is the era that the server was found to be of; connections that the peer ends on the way are counted in `cut`.
    pub(super) async fn open(
        address: &str,
        limit: Duration,
        known: Option<Era>,
        cut: &Cell<u64>,
    ) -> Result<Self, Trouble> {
        let opened = match known {
            Some(Era::Modern) => Self::connect(address, limit).await,
            Some(Era::Legacy) => Self::greet(address, limit).await,
            None => match Self::probe(address, limit).await {
                // It answers nothing that it does not know, or ends the connection: an old one, to be greeted anew.
                Err(trouble @ (Trouble::Late { .. } | Trouble::Cut(_) | Trouble::Refused(_))) => {
                    trouble.count(cut);
                    Self::greet(address, limit).await
                }
                other => other,
            },
        };
        opened.inspect_err(|trouble| trouble.count(cut))
    }

    /// Finds out which era a server is of, and greets an old one on the same connection.
    async fn probe(address: &str, limit: Duration) -> Result<Self, Trouble> {
        let mut link = Self::connect(address, limit).await?;
        if link.discover().await? == Era::Legacy {
            link.initialize().await?;
        }
        Ok(link)
    }

    async fn greet(address: &str, limit: Duration) -> Result<Self, Trouble> {
        let mut link = Self::connect(address, limit).await?;
        link.initialize().await?;
        Ok(link)
    }

    /// Which era its server is of.
    pub(super) fn era(&self) -> Era {
        self.era
    }

    /// Calls a tool.
    pub(super) async fn call(&mut self, tool: &str, arguments: &str) -> Result<Answer, Trouble> {
        let params = ask::call(tool, arguments, self.era == Era::Modern);
        self.question("tools/call", &params).await
    }

    /// Reads what a server sends unasked, until it ends the connection or floods it. Can be dropped at any time.
    pub(super) async fn rest(&mut self) -> Trouble {
        loop {
            if let Err(trouble) = self.turn().await {
                return trouble;
            }
            self.forgiven += self.talk.forgive(self.forgiven.elapsed());
        }
    }

    async fn connect(address: &str, limit: Duration) -> Result<Self, Trouble> {
        let connecting = async {
            let mut last = Trouble::NoAddress;
            for at in lookup_host(address).await.map_err(Trouble::Connect)? {
                match TcpStream::connect(at).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = Trouble::Connect(error),
                }
            }
            Err(last)
        };
        let stream = timeout(limit, connecting).await.map_err(|_| Trouble::ConnectLate(limit))??;
        // Questions are small and each is waited for.
        let _best_effort = stream.set_nodelay(true);
        Ok(Self {
            stream,
            talk: Talk::new(),
            chunk: vec![0; READ_BYTES],
            out: Vec::new(),
            timeout: limit,
            forgiven: Instant::now(),
            era: Era::Modern,
            protocol: ask::MODERN.to_owned(),
        })
    }

    async fn discover(&mut self) -> Result<Era, Trouble> {
        let answer = self.question("server/discover", &ask::bare(true)).await?;
        match era::found(&answer) {
            Found::Era(era) => Ok(era),
            Found::Foreign(why) => Err(Trouble::Foreign(why)),
        }
    }

    async fn initialize(&mut self) -> Result<(), Trouble> {
        self.era = Era::Legacy;
        match self.question("initialize", &ask::initialize()).await? {
            Answer::Result(result) => {
                self.protocol = era::agreed(&result);
                ask::notification(&mut self.out, "notifications/initialized", &ask::bare(false));
                Ok(())
            }
            Answer::Error { message, .. } => Err(Trouble::Refused(message)),
        }
    }

    /// Asks and waits. A question that gets no answer in time is given up; the connection stays good if it has shown any sign of life since.
    async fn question(&mut self, method: &str, params: &Value) -> Result<Answer, Trouble> {
        self.talk.ask(&mut self.out, method, params);
        let begun = Instant::now();
        loop {
            match self.talk.heard() {
                Some(Heard::Answer(answer)) => return Ok(answer),
                Some(Heard::Refusal(why)) => return Err(Trouble::Refused(why)),
                None => {}
            }
            match timeout_at(begun + self.timeout, self.turn()).await {
                Ok(turned) => turned?,
                Err(_) if !self.out.is_empty() => return Err(Trouble::WriteLate(self.timeout)),
                Err(_) => {
                    let too_long = self.talk.was_too_long();
                    self.talk.give_up(&mut self.out);
                    return Err(Trouble::Late { after: self.timeout, too_long });
                }
            }
        }
    }

    /// Whether a connection whose last question was given up may be asked again.
    pub(super) fn lives(&self) -> bool {
        !self.talk.is_silent()
    }

    /// Writes what waits or reads what is there, whichever is possible first. While many replies wait for the peer nothing is read from it.
    async fn turn(&mut self) -> Result<(), Trouble> {
        let (mut reader, mut writer) = self.stream.split();
        let held = !self.out.is_empty();
        let cut = |talk: &Talk| Err(Trouble::Cut(talk.turned_away().map(str::to_owned)));
        tokio::select! {
            // What the server had to say comes before the news that it has gone.
            biased;
            read = reader.read(&mut self.chunk), if self.out.len() < REPLY_BYTES_HELD => match read {
                Ok(0) | Err(_) => cut(&self.talk),
                Ok(n) => self.talk.take(&self.chunk[..n], &mut self.out).map_err(|Flooded| Trouble::Flooded),
            },
            written = writer.write(&self.out), if held => match written {
                Ok(0) | Err(_) => cut(&self.talk),
                Ok(n) => {
                    self.out.drain(..n);
                    Ok(())
                }
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    /// A peer that asks without end and never reads: what we owe it stays bounded, because it is no longer listened to.
    #[tokio::test]
    async fn replies_that_nobody_reads_are_bounded() {
        let socket = TcpSocket::new_v4().unwrap();
        // So that little is taken off our hands by the systems in between.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asking = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let pings = b"{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}\n".repeat(1000);
            while stream.write_all(&pings).await.is_ok() {}
        };
        let mut link = Link::connect(&address, Duration::from_secs(10)).await.unwrap();
        let listening = async {
            loop {
                let turned = timeout(Duration::from_millis(200), link.turn()).await;
                let owed = link.out.len();
                // A chunk read at the edge may owe as much as it holds.
                assert!(owed <= REPLY_BYTES_HELD + READ_BYTES, "{owed} bytes");
                match turned {
                    Ok(turned) => turned.unwrap(),
                    Err(_) if owed >= REPLY_BYTES_HELD => break,
                    Err(_) => {}
                }
            }
        };
        let stands_still = async {
            tokio::select! {
                () = asking => panic!("the connection has ended"),
                () = listening => {}
            }
        };
        timeout(Duration::from_secs(30), stands_still).await.unwrap();
    }
}
