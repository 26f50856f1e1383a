//! Blocks that wait: in the order of the plan, or packed onto devices.

use std::collections::VecDeque;

use super::estimate::Estimates;
use super::pack::{self, Need, Room, Running};
use crate::model::{Capacity, Experiment};
use crate::plan::Block;

/// What blocks are packed onto, and by which estimates.
#[derive(Debug, Clone, PartialEq)]
pub struct Packing {
    /// So many blocks run at once, at most.
    pub lanes: u32,
    /// Devices in all.
    pub units: u32,
    /// What blocks take.
    pub estimates: Estimates,
}

impl Packing {
    fn need(&self, block: &Block) -> Need {
        let devices = block.server().map_or(Some(1), |(server, _)| server.devices());
        // What is not known takes the whole machine.
        Need { units: devices.unwrap_or(self.units), seconds: self.estimates.of(block) }
    }

    /// The order in which blocks end first. First starts come before second ones, so that what drifts meets all alike.
    fn arranged(&self, blocks: Vec<Block>) -> Vec<(Need, Block)> {
        let start = |block: &Block| block.experiments.first().map_or(0, |experiment| experiment.repeat.start);
        let mut rounds: std::collections::BTreeMap<u32, Vec<Block>> = std::collections::BTreeMap::new();
        for block in blocks {
            rounds.entry(start(&block)).or_default().push(block);
        }
        let round = |blocks: Vec<Block>| {
            let needs: Vec<Need> = blocks.iter().map(|block| self.need(block)).collect();
            let order = pack::arrange(&needs, self.lanes as usize, self.units);
            let mut blocks: Vec<Option<(Need, Block)>> = needs.into_iter().zip(blocks).map(Some).collect();
            order.into_iter().filter_map(move |place| blocks.get_mut(place)?.take()).collect::<Vec<_>>()
        };
        rounds.into_values().flat_map(round).collect()
    }

    /// Estimated seconds one block after the other, and on the lanes.
    pub fn seconds(&self, blocks: Vec<Block>) -> (f64, f64) {
        let needs: Vec<Need> = self.arranged(blocks).into_iter().map(|(need, _)| need).collect();
        (needs.iter().map(|need| need.seconds).sum(), pack::makespan(&needs, self.lanes as usize, self.units))
    }
}

/// Blocks that wait, and those that were taken from it and are not over.
#[derive(Debug, Default)]
pub struct Queue {
    packing: Option<Packing>,
    waiting: VecDeque<(Need, Block)>,
    /// What runs, with the names of what it still measures.
    running: Vec<(Running, Vec<String>)>,
}

impl Queue {
    /// An empty queue that packs its blocks, or takes them in order.
    pub fn new(packing: Option<Packing>) -> Self {
        Self { packing, ..Self::default() }
    }

    /// Puts blocks in the place of those that wait.
    pub fn fill(&mut self, blocks: Vec<Block>) {
        self.waiting = match &self.packing {
            Some(packing) => packing.arranged(blocks).into(),
            None => blocks.into_iter().map(|block| (Need { units: 0, seconds: 0.0 }, block)).collect(),
        };
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The block that begins now; `None` where none fits, or none waits.
    pub fn next(&mut self, free: Capacity) -> Option<Block> {
        if free.blocks == 0 {
            return None;
        }
        if self.packing.is_none() {
            return self.waiting.pop_front().map(|(_, block)| block);
        }
        let needs: Vec<Need> = self.waiting.iter().map(|(need, _)| *need).collect();
        let running: Vec<Running> = self.running.iter().map(|(running, _)| *running).collect();
        let now = free.at.as_secs_f64();
        let place = pack::next(&needs, &running, Room { blocks: free.blocks, units: free.free }, now)?;
        let (need, block) = self.waiting.remove(place)?;
        let names = block.experiments.iter().map(|experiment| experiment.name.clone()).collect();
        self.running.push((Running { units: need.units, until: now + need.seconds }, names));
        Some(block)
    }

    /// An experiment is over.
    pub fn ended(&mut self, experiment: &Experiment) {
        for (_, names) in &mut self.running {
            names.retain(|name| *name != experiment.name);
        }
        self.running.retain(|(_, names)| !names.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::Engine;
    use crate::plan::fixture::grid;
    use crate::plan::{Repeats, Sweep, blocks, expand};

    fn all(starts: u32) -> Vec<Block> {
        let sweep = Sweep { repeats: Repeats { runs: 1, starts, auto: false }, ..grid(&["m"], "2,4,8", Engine::Sim) };
        blocks(expand(&sweep).experiments.into_iter().map(Arc::new), true)
    }

    fn tp(block: &Block) -> u32 {
        block.experiments[0].axes.tensor_parallel_size
    }

    fn packing(lanes: u32) -> Option<Packing> {
        Some(Packing { lanes, units: 8, estimates: Estimates::default() })
    }

    #[test]
    fn blocks_are_taken_while_devices_are_free_and_again_when_one_is_over() {
        let mut queue = Queue::new(packing(4));
        queue.fill(all(1));
        let free = |free, blocks| Capacity { blocks, free, at: Duration::ZERO };
        let first = queue.next(free(8, 4)).unwrap();
        let taken = tp(&first);
        assert!(queue.next(free(8 - taken, 3)).is_none_or(|second| tp(&second) + taken <= 8));
        first.experiments.iter().for_each(|experiment| queue.ended(experiment));
        assert!(queue.next(free(8, 4)).is_some());
        assert_eq!(queue.next(free(8, 0)), None);
    }

    #[test]
    fn first_starts_come_before_second_ones_and_nothing_is_lost() {
        let packing = packing(4).unwrap();
        let arranged = packing.arranged(all(3));
        let starts: Vec<u32> = arranged.iter().map(|(_, block)| block.experiments[0].repeat.start).collect();
        assert!(starts.is_sorted());
        assert_eq!(starts.len(), all(3).len());
        let (alone, lanes) = packing.seconds(all(1));
        assert!(alone / lanes >= 1.5, "{alone} {lanes}");
    }

    #[test]
    fn without_packing_the_order_of_the_plan_holds() {
        let mut queue = Queue::new(None);
        queue.fill(all(1));
        let mut taken = Vec::new();
        while let Some(block) = queue.next(Capacity::blocks(1)) {
            taken.push(block);
        }
        assert_eq!(taken, all(1));
    }
}
