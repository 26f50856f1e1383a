//! What an executor has free.

/// What is free now, as a search may count on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// So many blocks can begin now.
    pub blocks: usize,
}
