//! A session of an agent whose program only writes down what it was given; the test speaks for it.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use serde_json::{Value, json};

use super::{Hive, PATIENCE, until};

pub(crate) struct Session(BufReader<TcpStream>);

impl Session {
    /// Opens one for an agent of the swarm `s` as the incarnation that has written its environment to `NAME.INCARNATION`.
    pub(crate) fn open(hive: &Hive, agent: &str, incarnation: u64, capabilities: &Value) -> Self {
        let file = hive.data().join(format!("work/s/{agent}.{incarnation}"));
        let text = until("what the agent was given", || std::fs::read_to_string(&file).ok());
        let given: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let stream = TcpStream::connect(given["HIVEKEEPER_ADDR"]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = Self(BufReader::new(stream));
        let params = json!({
            "token": given["HIVEKEEPER_TOKEN"], "agent": format!("s/{agent}"), "incarnation": incarnation,
            "protocol": 1, "capabilities": capabilities
        });
        let opened = session.ask("hive/open", &params);
        let result = &opened["result"];
        assert!(result["session"].is_string() && result["heartbeat_interval_ms"].is_u64(), "{opened}");
        session
    }

    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.write(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}));
        self.line()
    }

    pub(crate) fn tell(&mut self, method: &str, params: &Value) {
        self.write(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// The next line of the daemon.
    pub(crate) fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn write(&mut self, message: &Value) {
        writeln!(self.0.get_mut(), "{message}").unwrap();
    }
}
