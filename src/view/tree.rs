//! The supervision tree.

use hivekeeper_actors::TreeNode;
use serde::Serialize;

/// One child as its supervisor sees it.
#[derive(Debug, Clone, Serialize)]
pub struct TreeView {}

/// Shows a tree.
pub fn tree(_: &TreeNode) -> TreeView {
    TreeView {}
}
