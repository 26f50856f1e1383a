//! What is measured next: strategies, pure. A strategy is asked when there is room for a block, and told what came of every
//! experiment; it does not know where or how they run. After a resume it is told again what earlier sessions came to.

mod estimate;
mod grid;
mod pack;
mod queue;
mod until_decided;

pub use estimate::Estimates;
pub use grid::Grid;
pub use queue::Packing;
pub use until_decided::{AddStarts, Judge, Verdict};

use std::sync::Arc;

use crate::model::{Capacity, Experiment, Outcome};
use crate::plan::Block;

/// What a strategy wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Measure this.
    Run(Block),
    /// Nothing now; after the next outcome perhaps.
    Wait,
    /// Nothing any more.
    Done,
}

/// What is known of an experiment that is over for good.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// What was measured.
    pub experiment: Arc<Experiment>,
    /// How it ended, after retries.
    pub outcome: Outcome,
}

/// Decides what to measure.
pub trait Strategy: Send {
    /// What to measure next. Where nothing is free a strategy waits, or is done.
    fn ask(&mut self, free: Capacity) -> Ask;

    /// An experiment is over.
    fn tell(&mut self, seen: &Observation);
}
