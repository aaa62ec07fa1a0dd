//! A real browser with a page of somebody who means ill, before a daemon that asks for no token and before one that does: whatever the page tries, it reads
//! nothing and changes nothing. It needs Chromium, so it runs with `tests/run --long`; the same rules have tests without it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    harness::{
        outside::long,
        web_page::{Asked, Browser, Gateway},
    },
    hive::Hive,
};

/// The page gives up on each try after five seconds; the start of a browser on a busy machine takes some more.
const PAGE_WAIT: Duration = Duration::from_secs(120);
const TOKEN: &str = "the-first-token-of-all";
const SWARM: &str = "[[swarm]]\nname = \"demo\"\n[[swarm.agent]]\nname = \"sleeps\"\ncommand = [\"sleep\", \"1000\"]\n";

struct Stage {
    hive: Hive,
    token: Option<&'static str>,
    /// Serves the page and takes its reports. Its origin is foreign.
    stranger: Gateway,
    /// Serves the page, and the daemon at the same address.
    front: Gateway,
}

impl Stage {
    fn set(token: Option<&'static str>) -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/hostile.html");
        let page = fs::read_to_string(page).unwrap();
        let (stranger, front) = (Gateway::new(page.clone()), Gateway::new(page));
        let mut hive = Hive::prepare(SWARM);
        let mut http = "[http]\nhosts = [\"hive.example\"]\n".to_owned();
        if let Some(token) = token {
            fs::write(hive.file("token"), token).unwrap();
            http += "token_file = \"token\"\n";
        }
        let config = fs::read_to_string(hive.config()).unwrap();
        fs::write(hive.config(), config.replace("[http]\n", &http)).unwrap();
        hive.boot();
        front.forward_to(hive.http.trim_start_matches("http://").parse().unwrap());
        Self { hive, token, stranger, front }
    }

    fn ask(&self, method: &str, path: &str) -> Value {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).build().into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.hive.http.trim_start_matches("http://")))
            .header("authorization", format!("Bearer {}", self.token.unwrap_or_default()))
            .header("content-type", "application/json");
        let text = agent.run(request.body("").unwrap()).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// What a page can't change without leaving a trace here.
    fn state(&self) -> Value {
        let agent = self.ask("GET", "/api/v1/swarms/demo/agents/sleeps");
        let [operations, tokens] = ["/api/v1/operations", "/api/v1/tokens"].map(|path| self.ask("GET", path));
        let swarms = self.ask("GET", "/api/v1/swarms");
        let desired = swarms["swarms"].as_array().unwrap().iter().map(|swarm| [&swarm["name"], &swarm["desired"]]);
        json!({
            "swarms": desired.collect::<Vec<_>>(), "agent": [agent["pid"], agent["incarnation"], agent["state"]],
            "operations": operations["operations"], "tokens": tokens["tokens"].as_array().unwrap().len(),
        })
    }

    /// Opens the page at `origin` in a browser that takes our addresses for these names; how much it has tried on the daemon as `at`, and what it got.
    fn play(&self, origin: &str, at: &str) -> (u64, Vec<String>) {
        let port = self.hive.http.rsplit(':').next().unwrap();
        let map = |name: &str| format!("MAP {name}:{port} {}", self.front.address);
        let names = [map("hive.example"), map("evil.example")].join(", ");
        let ticket = self.ask("POST", "/api/v1/tickets")["ticket"].as_str().unwrap().to_owned();
        let (to, token) = (self.stranger.address, self.token.unwrap_or("none"));
        let url = format!("http://{origin}/page?at={at}&to={to}&token={token}&ticket={ticket}");
        let _browser = Browser::open(&url, &names);
        let Asked::Report(report) = self.stranger.asked(PAGE_WAIT) else { panic!("the page asks for something else") };
        let got = report["got"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned());
        (report["tried"].as_u64().unwrap(), got.collect())
    }
}

#[test]
fn a_hostile_page_reads_nothing_and_changes_nothing() {
    /// How much the page tries.
    const ALL: u64 = 24;
    if !long() || !Browser::is_there() {
        return;
    }
    for token in [None, Some(TOKEN)] {
        let stage = Stage::set(token);
        let port = stage.hive.http.rsplit(':').next().unwrap().to_owned();
        crate::hive::until("the agent runs", || (stage.state()["agent"][2] == "running").then_some(()));
        let before = stage.state();
        assert_eq!(before["operations"], json!([]), "{before}");

        // From another port, which is another origin; the daemon under both of its names.
        for name in ["127.0.0.1", "hive.example"] {
            let (tried, got) = stage.play(&stage.stranger.address.to_string(), &format!("{name}:{port}"));
            assert_eq!((tried, got), (ALL, vec![]), "{name}");
        }
        // Under a name of its own that leads to the daemon's address by now. It reads the refusals, for they are of its own origin.
        let rebound = format!("evil.example:{port}");
        let (tried, got) = stage.play(&rebound, &rebound);
        assert_eq!(tried, ALL);
        let refusals = got.iter().filter(|one| one.contains("\"code\":\"host_refused\"")).count();
        assert!(refusals == got.len() && refusals > 5, "{got:#?}");
        assert_eq!(stage.state(), before);

        // The same page where it may: so it does try, and would have been seen to succeed.
        let own = format!("hive.example:{port}");
        let (_, got) = stage.play(&own, &own);
        let does = |what: &str, told: &str| {
            assert!(got.iter().any(|one| one.starts_with(&format!("{what}: {told}"))), "{what}: {got:#?}");
        };
        does("read with a token", "200");
        does("post JSON with a token", "202");
        does("a socket with a ticket", "open");
        does("events with a ticket", "open");
        assert_ne!(stage.state(), before);
    }
}
