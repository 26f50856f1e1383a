//! In which order settings are measured, and which measurements share a server start.

use std::sync::Arc;

use indexmap::IndexMap;

use super::matrix::{Setting, experiment};
use super::{Order, Sweep};
use crate::model::{Experiment, Failure, Identity, Repeat, ServerConfig, Side};

/// Arranges settings with their repeats. Experiments that share a server start stand together.
pub(super) fn arrange(sweep: &Sweep, settings: Vec<Setting>) -> Vec<Experiment> {
    let servers = by_server(settings, sweep.order);
    let (starts, runs) = (sweep.repeats.starts.max(1), sweep.repeats.runs.max(1));
    let mut blocks: Vec<Vec<Experiment>> = Vec::new();
    let block = |settings: &Vec<Setting>, start: u32| {
        let shared = sweep.reuse && settings.len() * runs as usize > 1;
        let one = |setting, run| experiment(sweep, setting, Repeat { start, run }, shared);
        let mut experiments: Vec<Experiment> = match sweep.order {
            Order::Grouped => settings.iter().flat_map(|s| (1..=runs).map(move |run| one(s, run))).collect(),
            Order::Interleaved | Order::Random(_) => {
                (1..=runs).flat_map(|run| settings.iter().map(move |s| one(s, run))).collect()
            }
        };
        if let Order::Random(seed) = sweep.order {
            experiments.sort_by_cached_key(|e| chance(seed, e));
        }
        experiments
    };
    match sweep.order {
        Order::Grouped => {
            blocks.extend(servers.iter().flat_map(|s| (1..=starts).map(move |start| block(s, start))));
        }
        Order::Interleaved | Order::Random(_) => {
            blocks.extend((1..=starts).flat_map(|start| servers.iter().map(move |s| block(s, start))));
        }
    }
    if !sweep.reuse {
        blocks = blocks.into_iter().flatten().map(|experiment| vec![experiment]).collect();
    }
    if let Order::Random(seed) = sweep.order {
        blocks.sort_by_cached_key(|block| block.iter().map(|e| chance(seed, e)).min());
    }
    blocks.into_iter().flatten().collect()
}

/// A place in a random order that follows from the seed and the experiment, and from nothing else: what is added to a
/// sweep does not shuffle the rest.
fn chance(seed: u64, experiment: &Experiment) -> u64 {
    let Repeat { start, run } = experiment.repeat;
    experiment.identity.draw(&format!("{seed}/{start}/{run}"))
}

/// Settings by server configuration; in grouped order those of the same model together, so that the weights stay in the
/// page cache and compiled graphs are found again.
fn by_server(settings: Vec<Setting>, order: Order) -> Vec<Vec<Setting>> {
    let mut servers: IndexMap<Identity, Vec<Setting>> = IndexMap::new();
    for setting in settings {
        servers.entry(setting.server_identity.clone()).or_default().push(setting);
    }
    let mut servers: Vec<Vec<Setting>> = servers.into_values().collect();
    if order == Order::Grouped {
        let mut models: Vec<String> = Vec::new();
        for server in &servers {
            if let Some(setting) = server.first()
                && !models.contains(&setting.axes.model)
            {
                models.push(setting.axes.model.clone());
            }
        }
        let place =
            |server: &Vec<Setting>| models.iter().position(|m| server.first().is_some_and(|s| s.axes.model == *m));
        servers.sort_by_key(place);
    }
    servers
}

/// Experiments that share a server start, in the order in which they are measured. All have the same server configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Block {
    /// At least one.
    pub experiments: Vec<Arc<Experiment>>,
    /// What a start of this server configuration came to before, where it will never start.
    pub known_failure: Option<Failure>,
}

impl Block {
    /// A block of these experiments.
    pub fn new(experiments: Vec<Arc<Experiment>>) -> Self {
        Self { experiments, known_failure: None }
    }

    /// The server configuration that they share, on its side of a comparison.
    pub fn server(&self) -> Option<(&ServerConfig, Option<Side>)> {
        self.experiments.first().map(|experiment| (&experiment.server, experiment.side))
    }
}

/// Splits experiments, in running order, into those that share a server start.
pub fn blocks(experiments: impl IntoIterator<Item = Arc<Experiment>>, reuse: bool) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for experiment in experiments {
        let same = |last: &Arc<Experiment>| {
            reuse
                && last.repeat.start == experiment.repeat.start
                && last.side == experiment.side
                && last.engine == experiment.engine
                && last.server == experiment.server
        };
        match blocks.last_mut() {
            Some(block) if block.experiments.last().is_some_and(same) => block.experiments.push(experiment),
            _ => blocks.push(Block::new(vec![experiment])),
        }
    }
    blocks
}
