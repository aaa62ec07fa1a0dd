//! The daemon's way in, as `support/plane.rs` puts it together.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::ensure;
use hivekeeper::data_plane::PlaneLimits;

use super::{
    lane::{Lane, Pass},
    load::{Load, Plan},
};
use crate::support::{clock, plane::Plane, processes};

/// Two seconds' worth of the floor.
pub(crate) const MESSAGES: usize = 2_000_000;

pub(crate) struct Ours(Plane);

impl Ours {
    pub(crate) fn start(dir: &Path, connections: usize) -> anyhow::Result<Self> {
        let unlimited = u32::MAX;
        let limits = PlaneLimits {
            notifications_per_second: unlimited,
            notifications_burst: unlimited,
            total_per_second: unlimited,
            total_burst: unlimited,
            ..PlaneLimits::default()
        };
        Ok(Self(Plane::start(dir, connections, limits)?))
    }
}

impl Lane for Ours {
    fn name(&self) -> String {
        "hivekeeper".to_owned()
    }

    fn run(&mut self, load: &Load, connections: usize) -> anyhow::Result<Pass> {
        let plane = &mut self.0;
        let mut peers = Vec::new();
        for n in 1..=connections {
            let mut peer = TcpStream::connect(plane.addr)?;
            peer.write_all(Plane::open(n).as_bytes())?;
            let mut answer = String::new();
            BufReader::new(&peer).read_line(&mut answer)?;
            ensure!(answer.contains("session"), "not opened: {answer}");
            peers.push(peer);
        }
        let plan = Plan::new(load, connections, MESSAGES);
        let blocks = [load.lines()];
        let (received, dropped) = (plane.received(), plane.logs.status().dropped_records);
        let began = clock::now();
        plan.send(&mut peers, &blocks)?;
        for peer in &mut peers {
            peer.write_all(Plane::last().as_bytes())?;
        }
        plane.folded(connections)?;
        let rate = plan.rate(began);
        // The last words are messages, too. Documents are shown once a second.
        let all = received + plan.all() + connections as u64;
        processes::until("every message is counted", Duration::from_secs(5), || {
            Ok((plane.received() == all).then_some(()))
        })?;
        let dropped = plane.logs.status().dropped_records - dropped;
        #[expect(clippy::cast_precision_loss, reason = "millions")]
        let kept = 1.0 - dropped as f64 / plan.all() as f64;
        Ok(Pass { rate, kept: Some(kept) })
    }
}
