//! Every experiment of the plan: in its order, or packed onto devices.

use std::sync::Arc;

use super::queue::{Packing, Queue};
use super::{Ask, Observation, Strategy};
use crate::model::{Capacity, Experiment};
use crate::plan::blocks;

/// The first strategy: all that is planned and has no valid result yet.
#[derive(Debug)]
pub struct Grid {
    queue: Queue,
}

impl Grid {
    /// For experiments in running order. `reuse`: those with the same server configuration share its start. `packing`: where several
    /// run at once.
    pub fn new(pending: impl IntoIterator<Item = Arc<Experiment>>, reuse: bool, packing: Option<Packing>) -> Self {
        let mut queue = Queue::new(packing);
        queue.fill(blocks(pending, reuse));
        Self { queue }
    }
}

impl Strategy for Grid {
    fn ask(&mut self, free: Capacity) -> Ask {
        match self.queue.next(free) {
            Some(block) => Ask::Run(block),
            None if self.queue.is_empty() => Ask::Done,
            None => Ask::Wait,
        }
    }

    fn tell(&mut self, seen: &Observation) {
        self.queue.ended(&seen.experiment);
    }
}
