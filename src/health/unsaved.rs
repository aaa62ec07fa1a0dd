//! What agents have used and the journal does not have yet. Pure.

use std::collections::HashMap;

use crate::model::{AgentId, Spent};

/// The latest of each agent, until it is written.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    waiting: HashMap<AgentId, Waiting>,
    /// Whether something became urgent since the last look.
    news: bool,
}

#[derive(Debug)]
struct Waiting {
    spent: Spent,
    /// Its incarnation is over, or it is gone itself: nothing that comes later would make a loss good.
    urgent: bool,
}

impl Unsaved {
    /// It has used more, or something else.
    pub(super) fn note(&mut self, agent: &AgentId, spent: &Spent) {
        if let Some(waiting) = self.waiting.get_mut(agent) {
            waiting.spent = spent.clone();
        } else {
            self.waiting.insert(agent.clone(), Waiting { spent: spent.clone(), urgent: false });
        }
    }

    /// What is known of it is its last word.
    pub(super) fn hurry(&mut self, agent: &AgentId) {
        if let Some(waiting) = self.waiting.get_mut(agent)
            && !waiting.urgent
        {
            waiting.urgent = true;
            self.news = true;
        }
    }

    /// Whether something became urgent since the last call.
    pub(super) fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    pub(super) fn get(&self, agent: &AgentId) -> Option<&Spent> {
        self.waiting.get(agent).map(|waiting| &waiting.spent)
    }

    /// What is to be written; it waits on until it is. `urgent`: only what is.
    pub(super) fn list(&self, urgent: bool) -> Vec<(AgentId, Spent)> {
        let due = self.waiting.iter().filter(|(_, waiting)| waiting.urgent || !urgent);
        due.map(|(agent, waiting)| (agent.clone(), waiting.spent.clone())).collect()
    }

    /// These were written. What has changed since then waits on.
    pub(super) fn saved(&mut self, written: &[(AgentId, Spent)]) {
        for (agent, spent) in written {
            if self.get(agent) == Some(spent) {
                self.waiting.remove(agent);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::{Usage, UsageTally};

    fn spent(input: u64) -> Spent {
        let last = Usage { input_tokens: Some(input), ..Usage::default() };
        let tally = UsageTally { last, incarnation: 1, ..UsageTally::default() };
        Spent { tally, at: SystemTime::UNIX_EPOCH, model: None }
    }

    #[test]
    fn the_latest_waits_until_it_is_written_and_a_last_word_is_urgent() {
        let (a, b): (AgentId, AgentId) = ("s/a".parse().unwrap(), "s/b".parse().unwrap());
        let mut unsaved = Unsaved::default();
        unsaved.hurry(&a);
        assert!(!unsaved.has_news(), "there is nothing to write of it");
        unsaved.note(&a, &spent(1));
        unsaved.note(&a, &spent(2));
        unsaved.note(&b, &spent(9));
        assert_eq!((unsaved.has_news(), unsaved.list(true)), (false, Vec::new()));
        unsaved.hurry(&a);
        unsaved.hurry(&a);
        assert_eq!((unsaved.has_news(), unsaved.has_news()), (true, false), "told once");
        assert_eq!(unsaved.list(true), [(a.clone(), spent(2))]);
        let mut all = unsaved.list(false);
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        assert_eq!(all, [(a.clone(), spent(2)), (b.clone(), spent(9))]);
        unsaved.note(&b, &spent(10));
        unsaved.saved(&all);
        assert_eq!(unsaved.list(false), [(b, spent(10))], "it has changed since");
        assert_eq!(unsaved.get(&a), None);
    }
}
