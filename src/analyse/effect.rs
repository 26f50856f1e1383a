//! The change of one metric of one configuration between two runs, and how sure it is. Pure.

use super::decide::FEWEST_STARTS;
use super::inference::{Group, NO_NOISE, mean, pooled, starts_to_separate, t_quantile};
use super::moderate::{Moderated, moderated};
use super::{Row, starts_by};
use crate::model::{Better, Metric};

/// What both runs measured of a configuration.
pub(super) type Pair<'a> = (Vec<&'a Row>, Vec<&'a Row>);

/// What became of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The whole interval lies beyond the threshold, on the better side.
    Better,
    /// The whole interval lies beyond the threshold, on the worse side.
    Worse,
    /// The whole interval lies within the threshold.
    Same,
    /// None of these.
    NotDecided,
}

/// The change of one metric.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Effect {
    /// Its key.
    pub metric: String,
    /// Mean over starts of the first run.
    pub before: f64,
    /// Mean over starts of the second run.
    pub after: f64,
    /// Relative change of the geometric mean.
    pub relative: f64,
    /// A value is zero: `relative` and `interval` are differences as parts of the largest value.
    pub of_largest: bool,
    /// The interval of the true change, which holds together with all others of the comparison; `None` where nothing tells the noise.
    pub interval: Option<(f64, f64)>,
    /// Server starts on each side.
    pub n: (usize, usize),
    /// What became of it.
    pub outcome: Outcome,
    /// Starts of each side that would decide, with a power of 80 %; `None` where it is decided, or would take more than a thousand.
    pub starts_needed: Option<usize>,
}

/// Logarithms of the means of starts; `None` where a value is not positive.
pub(super) fn logs(starts: &[Vec<f64>]) -> Option<Vec<f64>> {
    let log = |start: &Vec<f64>| {
        let is_good = !start.is_empty() && start.iter().all(|value| value.is_finite() && *value > 0.0);
        is_good.then(|| mean(&start.iter().map(|value| value.ln()).collect::<Vec<f64>>()))
    };
    starts.iter().map(log).collect()
}

/// One metric of one configuration in both runs.
pub(super) struct Sample {
    before: f64,
    after: f64,
    /// Of logarithms, else a part of the largest value.
    change: f64,
    logarithms: bool,
    n: (usize, usize),
    error: Option<StandardError>,
}

/// How sure a change is.
#[derive(Clone, Copy)]
pub(super) struct StandardError {
    /// Of the change.
    error: f64,
    freedom: f64,
    /// Standard deviation of a start.
    sd: f64,
}

/// Values of starts of both runs as they are compared, their means as measured, and whether the values are logarithms.
type Values = ([Vec<f64>; 2], [f64; 2], bool);

fn values((then, now): &Pair<'_>, key: &str) -> Option<Values> {
    let starts = [starts_by(then, key)?, starts_by(now, key)?];
    let [a, b] = [0, 1].map(|side: usize| starts[side].iter().map(|start| mean(start)).collect::<Vec<f64>>());
    let overall = [mean(&a), mean(&b)];
    if let (Some(a), Some(b)) = (logs(&starts[0]), logs(&starts[1])) {
        return Some(([a, b], overall, true));
    }
    let largest = a.iter().chain(&b).fold(0.0f64, |most, value| most.max(value.abs())).max(f64::MIN_POSITIVE);
    let scaled = |values: Vec<f64>| values.into_iter().map(|value| value / largest).collect();
    Some(([scaled(a), scaled(b)], overall, false))
}

#[expect(clippy::cast_precision_loss, reason = "starts are few")]
pub(super) fn samples(pairs: &[Pair<'_>], key: &str, noise: &[Group]) -> Vec<Option<Sample>> {
    let values: Vec<Option<Values>> = pairs.iter().map(|pair| values(pair, key)).collect();
    let group = |values: &Option<Values>, side: usize| {
        values.as_ref().filter(|(.., logarithms)| *logarithms).and_then(|(values, ..)| Group::of(&values[side]))
    };
    let mut groups: Vec<Option<Group>> = values.iter().flat_map(|of| [group(of, 0), group(of, 1)]).collect();
    groups.extend(noise.iter().copied().map(Some));
    let total: f64 = groups.iter().flatten().map(|group| (group.n - 1) as f64).sum();
    let shared = moderated(&groups);
    let of_noise = pooled(noise).map(|(variance, freedom)| Moderated { variance, freedom });
    let one = |(index, values): (usize, Option<Values>)| {
        let ([a, b], [before, after], logarithms) = values?;
        let of = |side: usize, values: &[f64]| match logarithms {
            true => shared.get(2 * index + side).copied().flatten(),
            false => Group::of(values)
                .map(|group| Moderated { variance: group.variance, freedom: (values.len() - 1) as f64 }),
        };
        let error = match (of(0, &a), of(1, &b)) {
            (Some(first), Some(second)) => {
                let known = error(first, a.len(), second, b.len(), total);
                // It stands alone against its verdict: never with less than its own noise.
                let own = |values: &[f64]| Group::of(values).map_or(0.0, |group| group.variance / values.len() as f64);
                Some(StandardError { error: known.error.max((own(&a) + own(&b)).sqrt()), ..known })
            }
            // What one side says is taken for both, and counts once.
            (Some(one), None) | (None, Some(one)) => Some(error_of_one(one, a.len(), b.len())),
            (None, None) => of_noise.filter(|_| logarithms).map(|noise| error_of_one(noise, a.len(), b.len())),
        };
        Some(Sample { before, after, change: mean(&b) - mean(&a), logarithms, n: (a.len(), b.len()), error })
    };
    values.into_iter().enumerate().map(one).collect()
}

/// Of a difference with a variance of each side (Welch, Satterthwaite). Two moderated variances share what they rest on: together they have no
/// more degrees of freedom than one of them, and never more than all samples have (`total`).
#[expect(clippy::cast_precision_loss, reason = "starts are few")]
fn error(a: Moderated, na: usize, b: Moderated, nb: usize, total: f64) -> StandardError {
    let (va, vb) = (a.variance / na as f64, b.variance / nb as f64);
    let below = va * va / a.freedom + vb * vb / b.freedom;
    let freedom = if below > 0.0 { (va + vb).powi(2) / below } else { a.freedom + b.freedom };
    let is_shared = |of: Moderated, n: usize| of.freedom > (n - 1) as f64;
    let most = if is_shared(a, na) && is_shared(b, nb) { a.freedom.max(b.freedom) } else { f64::INFINITY };
    let freedom = if total > 0.0 { freedom.min(most).min(total) } else { freedom };
    StandardError { error: (va + vb).sqrt(), freedom, sd: f64::midpoint(a.variance, b.variance).sqrt() }
}

/// Of a difference with one variance for both sides.
#[expect(clippy::cast_precision_loss, reason = "starts are few")]
fn error_of_one(of: Moderated, na: usize, nb: usize) -> StandardError {
    let error = (of.variance * (1.0 / na as f64 + 1.0 / nb as f64)).sqrt();
    StandardError { error, freedom: of.freedom, sd: of.variance.sqrt() }
}

impl Sample {
    /// The error, where repeats differ at all: equal ones say nothing of how far others would differ.
    pub(super) fn noise(&self) -> Option<StandardError> {
        self.error.filter(|of| of.error > NO_NOISE)
    }

    pub(super) fn effect(self, metric: &Metric, threshold: f64, level: f64) -> Effect {
        let back = |change: f64| if self.logarithms { change.exp_m1() } else { change };
        let half = self.noise().and_then(|of| Some(t_quantile(1.0 - level, of.freedom)? * of.error));
        let interval = half.map(|half| (back(self.change - half), back(self.change + half)));
        let up = if metric.better == Some(Better::Higher) { Outcome::Better } else { Outcome::Worse };
        let down = if metric.better == Some(Better::Higher) { Outcome::Worse } else { Outcome::Better };
        let fewest = self.n.0.min(self.n.1);
        #[expect(clippy::float_cmp, reason = "the very same values on every start of both runs")]
        let all_equal = self.error.is_some() && self.before == self.after && fewest >= FEWEST_STARTS;
        let outcome = match interval {
            Some((low, _)) if low > threshold => up,
            Some((_, high)) if high < -threshold => down,
            Some((low, high)) if low > -threshold && high < threshold => Outcome::Same,
            None if all_equal => Outcome::Same,
            Some(_) | None => Outcome::NotDecided,
        };
        let limit = if self.logarithms { threshold.ln_1p() } else { threshold };
        let needed = self
            .noise()
            .filter(|_| outcome == Outcome::NotDecided)
            .and_then(|of| starts_to_separate((self.change.abs() - limit).abs(), of.sd, level));
        Effect {
            metric: metric.key.clone(),
            before: self.before,
            after: self.after,
            relative: back(self.change),
            of_largest: !self.logarithms,
            interval,
            n: self.n,
            outcome,
            // What was measured did not decide: more than that is needed.
            starts_needed: needed.map(|starts| starts.max(FEWEST_STARTS).max(fewest + 1)),
        }
    }
}
