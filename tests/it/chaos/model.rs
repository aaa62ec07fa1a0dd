//! What must be true of the hive, kept by the test beside it.

use std::collections::BTreeMap;

use super::program;
use crate::hive::Hive;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Desired {
    Running,
    Paused,
    Stopped,
}

impl Desired {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }

    pub(super) fn of(word: &str) -> Self {
        match word {
            "running" => Self::Running,
            "paused" => Self::Paused,
            "stopped" => Self::Stopped,
            other => panic!("desired {other:?}"),
        }
    }
}

/// One agent. It is kept when the configuration drops it: its numbers go on when it comes back.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub(super) desired: Desired,
    /// Exits that nobody asked for.
    pub(super) restarts: u64,
    pub(super) incarnation: u64,
    /// Of the living incarnation as the last round left it.
    pub(super) pid: Option<i32>,
    pub(super) listed: bool,
    /// The last fault may have replaced it.
    pub(super) touched: bool,
}

/// The configuration, as the faults change it.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) version: u64,
    pub(super) replicas: u64,
    pub(super) extra: bool,
    /// Name of the second swarm.
    pub(super) second: &'static str,
}

impl Config {
    pub(super) fn agents(&self) -> Vec<String> {
        let mut all = vec!["s/a".to_owned()];
        all.extend((1..=self.replicas).map(|n| format!("s/r-{n}")));
        if self.extra {
            all.push("s/x".to_owned());
        }
        all.push(format!("{}/c", self.second));
        all
    }

    pub(super) fn toml(&self, hive: &Hive) -> String {
        let rules = "intensity = 1000\nperiod = \"60s\"\n\
                     backoff = { initial = \"0s\", then = \"20ms\", factor = 1.0, max = \"20ms\", jitter = 0.0, reset_after = \"10m\" }";
        let agent = |name: &str, more: &str, version| {
            let program = program(hive, version);
            format!(
                "[[swarm.agent]]\nname = \"{name}\"\n{more}stop_grace = \"300ms\"\nlease = \"60s\"\ncommand = [\"sh\", \"-c\", '{program}']\n"
            )
        };
        let mut text = format!("[[swarm]]\nname = \"s\"\n{rules}\n{}", agent("a", "", self.version));
        text += &agent("r", &format!("replicas = {}\n", self.replicas), 0);
        if self.extra {
            text += &agent("x", "", 0);
        }
        text += &format!("[[swarm]]\nname = \"{}\"\n{rules}\n{}", self.second, agent("c", "", 0));
        text
    }
}

/// All agents that there ever were.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) agents: BTreeMap<String, Agent>,
}

impl Model {
    /// Follows a configuration at a boot. Returns the agents that were not there before.
    pub(super) fn follow(&mut self, config: &Config) {
        let listed = config.agents();
        for (id, agent) in &mut self.agents {
            let now = listed.contains(id);
            // What comes, goes or comes back has no process id to keep.
            agent.touched |= now != agent.listed;
            agent.listed = now;
        }
        for id in listed {
            self.agents.entry(id).or_insert(Agent {
                desired: Desired::Running,
                restarts: 0,
                incarnation: 0,
                pid: None,
                listed: true,
                touched: true,
            });
        }
    }

    pub(super) fn listed(&self) -> Vec<String> {
        self.agents.iter().filter(|(_, agent)| agent.listed).map(|(id, _)| id.clone()).collect()
    }

    /// Agents with a living process.
    pub(super) fn living(&self) -> Vec<String> {
        self.agents.iter().filter(|(_, agent)| agent.listed && agent.pid.is_some()).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn touch(&mut self, fits: impl Fn(&str) -> bool) {
        for (id, agent) in &mut self.agents {
            agent.touched |= fits(id);
        }
    }

    pub(super) fn pid(&self, id: &str) -> i32 {
        self.agents[id].pid.unwrap()
    }

    /// Its process was killed, which nobody had asked for.
    pub(super) fn killed(&mut self, id: &str) {
        let agent = self.agents.get_mut(id).unwrap();
        agent.restarts += 1;
        agent.touched = true;
    }
}
