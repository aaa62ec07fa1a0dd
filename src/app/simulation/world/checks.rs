//! What is remembered of what was reported, and what is held against it.

use super::*;

impl World {
    pub(super) fn remember(&mut self, report: &Report) {
        let mut add = |agent: &AgentId, incarnation, what, at, hash| {
            self.reported.insert((agent.clone(), incarnation, what, at, hash));
        };
        match report {
            Report::Runtime { agent, incarnation, event } => match event {
                Observation::Sample { at, cpu_cores, memory_bytes, .. } => {
                    add(agent, *incarnation, "memory", *at, *memory_bytes);
                    add(agent, *incarnation, "launcher_beat", *at, 0);
                    if let Some(cores) = cpu_cores {
                        add(agent, *incarnation, "cpu", *at, cores.to_bits());
                    }
                }
                Observation::Alive { .. } => _ = self.signs.insert((agent.clone(), *incarnation)),
                _ => {}
            },
            Report::Telemetry(batch) => {
                for Telemetry { agent, incarnation, at, kind } in batch {
                    match kind {
                        TelemetryKind::Heartbeat { progress, .. } => {
                            add(agent, *incarnation, "beat", *at, 0);
                            if let Some(progress) = progress {
                                add(agent, *incarnation, "progress", *at, hash_of(progress));
                            }
                        }
                        TelemetryKind::SessionOpened => _ = self.signs.insert((agent.clone(), *incarnation)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn values_were_reported(&self, doc: &AgentHealth) -> Ended {
        let was =
            |what, at: SystemTime, hash| self.reported.contains(&(doc.id.clone(), doc.incarnation, what, at, hash));
        let good = |what: &'static str, is: bool| {
            if is { Ok(()) } else { Err((Rule::ValuesWereReported, format!("{what} of {}: {doc:?}", doc.id))) }
        };
        if let Measured::Value { value, observed_at, source } = &doc.memory {
            good("memory", *source == Source::Launcher && was("memory", *observed_at, *value))?;
        }
        if let Measured::Value { value, observed_at, source } = &doc.last_heartbeat {
            let what = if *source == Source::Agent { "beat" } else { "launcher_beat" };
            good("heartbeat", value == observed_at && was(what, *observed_at, 0))?;
        }
        if let Measured::Value { value, observed_at, source } = &doc.progress {
            good("progress", *source == Source::Agent && was("progress", *observed_at, hash_of(value)))?;
        }
        if let Measured::Value { value, source, .. } = &doc.cpu {
            let bits = value.to_bits();
            let any = self.reported.iter().any(|(id, n, what, _, hash)| {
                *id == doc.id && *n == doc.incarnation && *what == "cpu" && *hash == bits
            });
            good("cpu", *source == Source::Launcher && any)?;
        }
        Ok(())
    }

    /// Each agent that became stuck is to be restarted once, if its document asks for it.
    pub(super) fn stuck(&mut self) -> Ended {
        let told = std::mem::take(&mut *self.house.stuck.lock());
        for (agent, incarnation) in told {
            let wanted = &mut self.house.model.to_be_restarted;
            let Some(at) = wanted.iter().position(|one| *one == (agent.clone(), incarnation)) else {
                let detail = format!("{agent} {incarnation} is to be restarted and was not found stuck");
                return Err((Rule::StuckRestartsAsAsked, detail));
            };
            wanted.remove(at);
            self.restarted.push((agent, incarnation));
        }
        Ok(())
    }

    /// Reads what the feed has got.
    pub(super) fn follow(&mut self) -> Ended {
        let head = self.house.feed.head().0;
        let from = self.last_seq;
        let events = match self.house.feed.read(Seq(from), usize::MAX) {
            Ok(events) => events,
            Err(gap) => {
                self.seen.gaps += 1;
                self.house.feed.read(Seq(gap.first_kept.0 - 1), usize::MAX).unwrap_or_default()
            }
        };
        if events.len() > RING {
            return Err((Rule::QueuesAreBounded, format!("the ring holds {} events", events.len())));
        }
        for event in events {
            let is_next = event.seq.0 == self.last_seq + 1 || (event.seq.0 > self.last_seq && self.seen.gaps > 0);
            if !is_next || event.epoch.0 != self.epoch {
                let last = self.last_seq;
                return Err((Rule::NumbersGrow, format!("{} of epoch {} follows {last}", event.seq, event.epoch)));
            }
            self.last_seq = event.seq.0;
            self.seen.events += 1;
            self.trace.note(self.ms, format_args!("event {event:?}"));
            if let EventKind::AgentChanged { from, agent } = &event.kind {
                self.seen.degraded += u64::from(agent.state == AgentState::Degraded);
                self.seen.stuck += u64::from(agent.state == AgentState::Stuck);
                // One that was stuck may have been overdue as well when it was judged last, which shows once it moves again; and one that was
                // degraded time and again is flapping still once it is thawed or within reach again.
                let was_hidden = agent.state == AgentState::Degraded
                    && match from {
                        Some(AgentState::Stuck) => true,
                        Some(AgentState::Paused | AgentState::Unknown) => {
                            agent.reasons.iter().any(|reason| reason.code == "flapping")
                                && self.stood.iter().any(|(id, stood, _)| (id, *stood) == (&agent.id, 0))
                        }
                        _ => false,
                    };
                if was_hidden {
                    // More may be told of it in the same turn.
                    self.stood.insert((agent.id.clone(), 0, agent.since));
                }
                if let Some(state) = silent(agent.state)
                    && !self.stood.contains(&(agent.id.clone(), state, agent.since))
                {
                    let detail = format!("{} is told to be {:?} since {:?}", agent.id, agent.state, agent.since);
                    return Err((Rule::EventsAreTrue, detail));
                }
            }
        }
        if self.last_seq != head {
            return Err((Rule::NumbersGrow, format!("the head is {head}, the last event {}", self.last_seq)));
        }
        while self.house.reserved < head + SEQS_AHEAD / 2 {
            self.house.reserved += SEQS_AHEAD;
        }
        Ok(())
    }

    /// What everybody is shown is what is folded, to the last viewer.
    pub(super) fn shown(&mut self) -> Ended {
        let (documents, hive) = (actor::documents(&self.house.health), self.house.health.hive());
        if documents.agents != hive.agents || documents.swarms != hive.swarms || documents.level != hive.level {
            return Err((Rule::ShownIsFolded, format!("shown is {hive:?}, folded {documents:?}")));
        }
        for doc in &documents.agents {
            let shown = self.house.health.agent(&doc.id);
            if shown.as_ref() != Some(doc) {
                return Err((Rule::ShownIsFolded, format!("shown is {shown:?}, folded {doc:?}")));
            }
        }
        let truth = Known {
            agents: hive.agents.iter().map(|doc| (doc.id.to_string(), json(&view::agent(doc)))).collect(),
            swarms: hive.swarms.iter().map(|doc| (doc.name.to_string(), json(&view::swarm(doc)))).collect(),
            level: Some(json(&view::hive(&hive)).split('"').nth(7).unwrap_or_default().to_owned()),
        };
        for client in &self.clients {
            client.agrees(&truth)?;
        }
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a document is JSON")
}

pub(super) fn silent(state: AgentState) -> Option<u8> {
    match state {
        AgentState::Degraded => Some(0),
        AgentState::Stuck => Some(1),
        _ => None,
    }
}
