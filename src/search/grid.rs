//! Every experiment of the plan, in its order.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Ask, Observation, Strategy};
use crate::model::{Capacity, Experiment};
use crate::plan::{Block, blocks};

/// The first strategy: all that is planned and has no valid result yet.
#[derive(Debug)]
pub struct Grid {
    pending: VecDeque<Block>,
}

impl Grid {
    /// For experiments in running order. `reuse`: those with the same server configuration share its start.
    pub fn new(pending: impl IntoIterator<Item = Arc<Experiment>>, reuse: bool) -> Self {
        Self { pending: blocks(pending, reuse).into() }
    }
}

impl Strategy for Grid {
    fn ask(&mut self, free: Capacity) -> Ask {
        if free.blocks == 0 && !self.pending.is_empty() {
            return Ask::Wait;
        }
        self.pending.pop_front().map_or(Ask::Done, Ask::Run)
    }

    fn tell(&mut self, _: &Observation) {}
}
