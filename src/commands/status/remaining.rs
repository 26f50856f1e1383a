//! How long a live run will go on: what is left, at the prices that were measured so far.
//!
//! A start costs what starts of the same configuration cost, else of the same model, else of all; a measurement what
//! measurements under the same load cost, else all. So the estimate gets better with every experiment.

use crate::commands::find_run::ExperimentHead;
use crate::stats;

/// What one attempt took, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Of which experiment.
    pub experiment: &'a ExperimentHead,
    /// Starting its server and ending it; `None` where it found one running.
    pub start: Option<f64>,
    /// The rest.
    pub measurement: f64,
}

/// Seconds still to go; `None` while nothing was measured. `pending`: what is not begun; `live`: what is under way, and
/// the seconds it has had.
pub fn remaining(
    pending: &[&ExperimentHead],
    live: Option<(&ExperimentHead, f64)>,
    samples: &[Sample<'_>],
) -> Option<f64> {
    if samples.is_empty() {
        return None;
    }
    // Where every attempt had a start of its own, so will the rest.
    let reuse = samples.len() < 2 || samples.iter().any(|sample| sample.start.is_none());
    let measuring: f64 = pending.iter().map(|experiment| measurement(experiment, samples)).sum();
    // The live one's server is running or being started: it is no start to come.
    let mut last = live.map(|(experiment, _)| experiment);
    let mut starting = 0.0;
    for experiment in pending {
        if !(reuse && last.is_some_and(|last| share_start(last, experiment))) {
            starting += start(experiment, samples);
        }
        last = Some(experiment);
    }
    let current = live.map_or(0.0, |(experiment, spent)| {
        let price = measurement(experiment, samples) + start(experiment, samples);
        (price - spent).max(0.0)
    });
    Some(measuring + starting + current)
}

fn share_start(a: &ExperimentHead, b: &ExperimentHead) -> bool {
    a.server_name() == b.server_name() && a.repeat.start == b.repeat.start
}

fn start(experiment: &ExperimentHead, samples: &[Sample<'_>]) -> f64 {
    let same = |s: &Sample<'_>| s.experiment.server_name() == experiment.server_name();
    let model = |s: &Sample<'_>| s.experiment.axes.model == experiment.axes.model;
    let price = |s: &Sample<'_>| s.start;
    [mean(samples, same, price), mean(samples, model, price), mean(samples, |_| true, price)]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(0.0)
}

fn measurement(experiment: &ExperimentHead, samples: &[Sample<'_>]) -> f64 {
    let same = |s: &Sample<'_>| s.experiment.axes.workload == experiment.axes.workload;
    let price = |s: &Sample<'_>| Some(s.measurement);
    mean(samples, same, price).or_else(|| mean(samples, |_| true, price)).unwrap_or(0.0)
}

fn mean<'s>(
    samples: &[Sample<'s>],
    take: impl Fn(&Sample<'s>) -> bool,
    price: impl Fn(&Sample<'s>) -> Option<f64>,
) -> Option<f64> {
    stats::mean(samples.iter().filter(|s| take(s)).filter_map(price).filter(|price| price.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::find_run::PlanHead;
    use crate::model::Engine;
    use crate::plan::fixture::axis;
    use crate::plan::{Group, Sweep, expand};

    #[test]
    fn starts_and_measurements_are_counted_apart() {
        let group = Group {
            serve: vec![axis("model", "m"), axis("max-num-seqs", "8,16,32")],
            bench: vec![axis("max-concurrency", "1,2")],
            ..Group::default()
        };
        let plan = expand(&Sweep { groups: vec![group], ..Sweep::new(Engine::Vllm) });
        let head: PlanHead = serde_json::from_value(serde_json::to_value(&plan).unwrap()).unwrap();
        let e: Vec<&ExperimentHead> = head.experiments.iter().collect();
        let sample = |i: usize, start, measurement| Sample { experiment: e[i], start, measurement };
        assert_eq!(remaining(&e, None, &[]), None);
        let samples = [sample(0, Some(30.0), 10.0), sample(1, None, 20.0)];
        // Two starts of 30 s, and twice each load.
        assert_eq!(remaining(&e[2..], None, &samples), Some(2.0 * 30.0 + 2.0 * (10.0 + 20.0)));
        // The third is under way since 35 s: five seconds of it are left; one more start.
        assert_eq!(remaining(&e[3..], Some((e[2], 35.0)), &samples), Some(5.0 + 20.0 + 30.0 + 10.0 + 20.0));
        assert_eq!(remaining(&e[3..], Some((e[2], 900.0)), &samples), Some(20.0 + 30.0 + 10.0 + 20.0));
    }
}
