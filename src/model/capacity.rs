//! What an executor has free.

use std::time::Duration;

/// What is free now, as a search may count on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// So many blocks can begin now.
    pub blocks: usize,
    /// So many devices are free for them; as many as anybody can ask for where a block has all of them to itself.
    pub free: u32,
    /// Since the executor began: the clock by which a search knows how long its blocks have run.
    pub at: Duration,
}

impl Capacity {
    /// Room for so many blocks, whatever they need.
    pub fn blocks(blocks: usize) -> Self {
        Self { blocks, free: u32::MAX, at: Duration::ZERO }
    }
}
