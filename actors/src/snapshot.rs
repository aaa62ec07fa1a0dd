//! The tree as data.
/// Node.
#[derive(Debug, Clone)]
pub struct TreeNode {}
