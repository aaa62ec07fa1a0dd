//! The whole document: what it is made of is taken in one go, and it is made of that later, so that who reads it holds up nobody who folds.

use std::{collections::HashMap, sync::Arc};

use super::{agent::Part, fold::Fold};
use crate::model::{AgentHealth, AgentId, HiveHealth};

/// What the whole document is made of, as of one moment.
#[derive(Debug)]
pub struct Parts {
    /// All of it but the agents.
    hive: HiveHealth,
    /// The agents in the order of the document, swarm by swarm.
    orders: Vec<Arc<[AgentId]>>,
    agents: Vec<Part>,
}

impl Parts {
    /// Makes the document.
    pub fn into_hive(self) -> HiveHealth {
        let Self { mut hive, orders, agents } = self;
        let made: Vec<Arc<AgentHealth>> = agents.into_iter().map(Part::made).collect();
        let by_id: HashMap<&AgentId, &Arc<AgentHealth>> = made.iter().map(|doc| (&doc.id, doc)).collect();
        let in_order = orders.iter().flat_map(|order| order.iter());
        hive.agents = in_order.filter_map(|id| by_id.get(id).map(|doc| Arc::clone(doc))).collect();
        hive
    }
}

impl Fold {
    /// What the whole document is made of. Of an agent it copies what was measured, and makes no document: that is most of the work, and needs
    /// nothing of the fold any more.
    pub fn parts(&self) -> Parts {
        Parts {
            hive: self.without_agents(),
            orders: self.swarms.values().map(|swarm| Arc::clone(&swarm.order)).collect(),
            agents: self.agents.values().map(|agent| agent.part()).collect(),
        }
    }

    /// The whole document.
    pub fn hive(&self) -> HiveHealth {
        self.parts().into_hive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        health::tests::{Bench, agent_spec, id},
        model::Measured,
    };

    /// A reader pays for the documents of thousands; whoever folds waits only for their parts.
    #[test]
    fn no_document_is_made_while_the_parts_are_taken() {
        let mut bench = Bench::running(vec![agent_spec("coder"), agent_spec("tester")]);
        let coder = id("review/coder");
        bench.beat(&coder, 1, Some("7"));
        let parts = bench.fold.parts();
        let agents = &bench.fold.agents;
        assert!(agents[&coder].is_ahead(), "it is still to be shown");
        assert!(parts.agents.iter().all(|part| Arc::ptr_eq(&part.doc, &agents[&part.doc.id].doc)));
        let hive = parts.into_hive();
        let shown: Vec<_> = hive.agents.iter().map(|doc| (doc.id.name.as_str(), doc.progress.value())).collect();
        assert_eq!(shown, [("coder", Some(&Arc::from("7"))), ("tester", None)]);
        assert!(matches!(hive.agents[0].last_heartbeat, Measured::Value { .. }));
    }

    #[test]
    fn agents_are_in_the_order_of_their_document() {
        let names = ["c", "a", "d", "b"];
        let bench = Bench::running(names.map(agent_spec).into());
        let shown: Vec<_> = bench.fold.hive().agents.iter().map(|doc| doc.id.name.as_str().to_owned()).collect();
        assert_eq!(shown, names);
    }
}
