//! What blocks cost, from what was measured before: for packing and for what is said of it. Pure.

use std::collections::HashMap;

use crate::model::{Experiment, Identity};
use crate::plan::Block;

/// Seconds of one experiment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Price {
    /// Starting its server and ending it.
    start: f64,
    /// The rest.
    measurement: f64,
}

/// What is known of the seconds that experiments take.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estimates {
    known: HashMap<Identity, Price>,
    /// The same of all that take so many devices, and how many measurements and starts there were.
    by_devices: HashMap<Option<u32>, (Price, u32, u32)>,
}

impl Estimates {
    /// An attempt at an experiment took so long. `start`: starting its server and ending it; `None` where it found one running.
    pub fn learn(&mut self, experiment: &Experiment, start: Option<f64>, measurement: f64) {
        if !measurement.is_finite() || start.is_some_and(|start| !start.is_finite()) {
            return;
        }
        let known = self.known.entry(experiment.identity.clone()).or_default();
        known.measurement = measurement;
        known.start = start.unwrap_or(known.start);
        let (sum, count, starts) = self.by_devices.entry(experiment.server.devices()).or_default();
        sum.measurement += measurement;
        sum.start += start.unwrap_or_default();
        *count += 1;
        *starts += u32::from(start.is_some());
    }

    /// Whether anything is known: otherwise estimates are no seconds, and only tell that blocks are alike.
    pub fn are_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// Seconds of a block: what its experiments took before, else what others on as many devices did, else all others.
    pub fn of(&self, block: &Block) -> f64 {
        let prices: Vec<Price> = block.experiments.iter().map(|experiment| self.price(experiment)).collect();
        let start = prices.iter().map(|price| price.start).fold(0.0, f64::max);
        start + prices.iter().map(|price| price.measurement).sum::<f64>()
    }

    fn price(&self, experiment: &Experiment) -> Price {
        if let Some(known) = self.known.get(&experiment.identity) {
            return *known;
        }
        mean(self.by_devices.get(&experiment.server.devices()).into_iter())
            .or_else(|| mean(self.by_devices.values()))
            .unwrap_or(Price { start: 0.0, measurement: 1.0 })
    }
}

/// The mean price of sums with their counts; `None` of nothing. A start is paid by one of several measurements.
fn mean<'p>(sums: impl Iterator<Item = &'p (Price, u32, u32)>) -> Option<Price> {
    let (mut all, mut count, mut starts) = (Price::default(), 0u32, 0u32);
    for (sum, n, of_start) in sums {
        all.start += sum.start;
        all.measurement += sum.measurement;
        count += n;
        starts += of_start;
    }
    let (start, measurement) = (all.start / f64::from(starts.max(1)), all.measurement / f64::from(count.max(1)));
    (count > 0).then_some(Price { start, measurement })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Engine;
    use crate::plan::expand;
    use crate::plan::fixture::grid;

    #[test]
    fn what_was_measured_before_is_the_price_else_what_is_like_it() {
        let all: Vec<Arc<Experiment>> =
            expand(&grid(&["m"], "1,2,4", Engine::Sim)).experiments.into_iter().map(Arc::new).collect();
        let of = |tp: u32| all.iter().filter(|e| e.axes.tensor_parallel_size == tp).cloned().collect::<Vec<_>>();
        let block = |e: &Arc<Experiment>| Block::new(vec![Arc::clone(e)]);
        let mut estimates = Estimates::default();
        assert!(!estimates.are_known());
        assert_eq!(estimates.of(&block(&all[0])), 1.0);
        estimates.learn(&of(1)[0], Some(10.0), 5.0);
        estimates.learn(&of(2)[0], Some(20.0), 4.0);
        assert_eq!(estimates.of(&block(&of(1)[0])), 15.0);
        assert_eq!(estimates.of(&block(&of(2)[1])), 24.0, "as another one on as many devices");
        assert_eq!(estimates.of(&block(&of(4)[0])), 19.5, "as all that are known");
        // A start is paid once for all that share it.
        assert_eq!(estimates.of(&Block::new(of(1)[..1].iter().cloned().cycle().take(3).collect())), 25.0);
        estimates.learn(&of(2)[1], None, 6.0);
        assert_eq!(estimates.of(&block(&of(2)[2])), 25.0, "one start for two measurements");
        estimates.learn(&of(1)[0], None, f64::NAN);
        assert_eq!(estimates.of(&block(&of(1)[0])), 15.0);
    }
}
