//! Sweep files of other tools, translated into ours.

use super::tree::Node;

/// What a foreign file says, in our language.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// The sweep.
    pub tree: Node,
    /// Whose format it is.
    pub format: &'static str,
    /// What was not taken over, and what was taken for granted.
    pub notes: Vec<String>,
}

/// Translates a foreign file; `None` where it is one of ours.
pub fn translate(_tree: &Node) -> Option<Translated> {
    None
}
