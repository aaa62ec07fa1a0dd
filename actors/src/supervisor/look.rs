//! What a supervisor shows of itself and its children.

use std::sync::Arc;

use super::mind::{Mind, now};
use crate::admin::{ChildInfo, Presence};
use crate::snapshot::{ChildKind, ChildState, Counts, Supervision, TreeNode};
use crate::spec::{ChildId, ChildSpec, RestartType};
use crate::supervisor_ref::SupervisorRef;
use crate::tree::Key;

/// What one supervisor shows of itself and its children.
pub(crate) struct View {
    /// The supervisor above and the key under which it knows this one.
    pub(crate) parent: Option<(SupervisorRef, Key)>,
    /// The supervisor itself, as far as it knows.
    pub(crate) own: TreeNode,
    /// Its children, with the handles of those that are supervisors.
    pub(crate) children: Vec<(TreeNode, Option<SupervisorRef>)>,
}

impl Mind {
    pub(crate) fn view(&self) -> View {
        let now = now();
        let (seat, flags) = (self.child.seat(), self.tree.flags());
        View {
            parent: seat.watcher.supervisor().map(|parent| (parent, seat.key)),
            own: TreeNode {
                id: seat.spec.id.clone(),
                path: Arc::clone(&seat.path),
                kind: ChildKind::Supervisor,
                strategy: Some(flags.strategy),
                supervision: Some(Supervision {
                    intensity: flags.intensity,
                    restarts_in_window: self.tree.shared_restarts(now),
                    meltdown: flags.meltdown,
                    auto_shutdown: flags.auto_shutdown,
                }),
                restart: RestartType::Temporary,
                significant: false,
                state: self.state,
                in_state_for: now.saturating_duration_since(self.since),
                incarnation: seat.incarnation,
                restarts: 0,
                restarts_in_window: 0,
                retry_in: None,
                last_exit: None,
                children: Vec::new(),
            },
            children: self.tree.nodes(now).map(|(key, node)| (node, self.nested(key))).collect(),
        }
    }

    /// One child as a node.
    pub(crate) fn node_of(&self, key: Key) -> Option<TreeNode> {
        self.tree.node(now(), key)
    }

    pub(crate) fn which(&self) -> Vec<ChildInfo> {
        let info =
            |(key, node): (Key, TreeNode)| ChildInfo { state: self.presence(key, &node), id: node.id, kind: node.kind };
        self.tree.nodes(now()).map(info).collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.tree.counts()
    }

    /// OTP's word for the state of a child. Its `restarting` begins with the exit and ends when the next incarnation is ready.
    fn presence(&self, key: Key, node: &TreeNode) -> Presence {
        match node.state {
            _ if self.tree.is_restarting(key) => Presence::Restarting,
            ChildState::Starting | ChildState::Running | ChildState::Stopping => Presence::Running(node.incarnation),
            _ => Presence::Undefined,
        }
    }

    pub(crate) fn spec_of(&self, id: &ChildId) -> Option<ChildSpec> {
        self.tree.child(self.tree.key_of(id)?).map(|(_, spec)| spec.to_spec())
    }

    fn nested(&self, key: Key) -> Option<SupervisorRef> {
        self.tree.payload(key).and_then(|bench| bench.blueprint.nested().cloned())
    }
}
