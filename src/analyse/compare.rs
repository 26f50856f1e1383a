//! One run against another: configurations matched by their settings, each metric with its change and how sure that is. Pure.
//!
//! A verdict comes from the interval of the relative change: wholly beyond the threshold = better or worse, wholly within = the same,
//! else not decided. All intervals of a comparison hold together with a probability of 95 % (Bonferroni). The unit is the server start; variances
//! are moderated over all configurations and both runs, for each metric by itself ([`super::moderate`]).

use std::collections::HashMap;

use super::choose::{Failures, failures};
use super::effect::{Effect, Outcome, Pair, Sample, logs, samples};
use super::inference::{CONFIDENCE, Group, mean};
use super::pairing::{Groups, Pairing, groups};
use super::{Row, RunTable, comparable, settings, starts_by};
use crate::model::{Metric, VllmMetric};

/// A configuration that both runs measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Matched<'a> {
    /// Its first measurement in the second run.
    pub row: &'a Row,
    /// Its metrics.
    pub effects: Vec<Effect>,
    /// Metrics that one of the runs has not: the key, whether the first has it, whether the second has it.
    pub unmeasured: Vec<(String, bool, bool)>,
    /// Why nothing of it is decided: a warning of one of the runs that excludes a measurement from any ranking, or other work.
    pub not_comparable: Option<String>,
}

/// A configuration of which server starts failed in one of the runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Failing<'a> {
    /// Its first row in the second run.
    pub row: &'a Row,
    /// In the first run.
    pub before: Failures,
    /// In the second run.
    pub after: Failures,
    /// Why: in the second run, else in the first.
    pub why: String,
    /// More than half of its starts fail now, and did not before: that is worse, whatever the metrics are.
    pub is_worse: bool,
}

/// A configuration of which more requests fail now, by more than the threshold: that is worse.
#[derive(Debug, Clone, PartialEq)]
pub struct LostRequests<'a> {
    /// Its first measurement in the second run.
    pub row: &'a Row,
    /// Share of the requests that failed in the first run (0 to 1).
    pub before: f64,
    /// In the second run.
    pub after: f64,
}

/// Two runs beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison<'a> {
    /// Why results of the two are not comparable, or not wholly: what changed between releases of vLLM.
    pub warnings: Vec<String>,
    /// What both measured.
    pub matched: Vec<Matched<'a>>,
    /// What fails, in one of them or both.
    pub failing: Vec<Failing<'a>>,
    /// Whose requests fail now.
    pub lost: Vec<LostRequests<'a>>,
    /// Measured in the second run only.
    pub added: Vec<&'a Row>,
    /// Measured in the first run only.
    pub missing: Vec<&'a Row>,
}

/// The metrics that are compared where nobody names others.
pub const COMPARED: [VllmMetric; 3] = [VllmMetric::OutputThroughput, VllmMetric::MeanTtft, VllmMetric::MeanTpot];

/// Logarithms of starts of the same configurations, by metric: what a run says of noise.
pub type Noise = HashMap<String, Vec<Group>>;

/// The noise between starts that a run says by itself (a noise check), for each of these metrics; empty where nothing was started twice.
pub fn noise_of(table: &RunTable, metrics: &[Metric]) -> Noise {
    let valid: Vec<&Row> = table.rows.iter().filter(|row| row.is_valid()).collect();
    let all = settings(&valid);
    let of = |metric: &Metric| {
        let logs = all.iter().filter_map(|rows| logs(&starts_by(rows, &metric.key)?));
        let groups: Vec<Group> = logs.filter_map(|logs| Group::of(&logs)).collect();
        (!groups.is_empty()).then(|| (metric.key.clone(), groups))
    };
    metrics.iter().filter_map(of).collect()
}

fn valid<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.is_valid()).copied().collect()
}

/// Compares two runs by these metrics. `threshold`: relative change that matters (0.03 = 3 %). `noise`: what another run says of it.
pub fn compare<'a>(
    before: &'a RunTable,
    after: &'a RunTable,
    metrics: &[Metric],
    threshold: f64,
    noise: &Noise,
    pairing: &Pairing,
) -> Comparison<'a> {
    let (a, b) = (groups(before, pairing), groups(after, pairing));
    let mut found = Comparison {
        warnings: Vec::new(),
        matched: Vec::new(),
        failing: Vec::new(),
        lost: Vec::new(),
        added: only(&b, &a),
        missing: only(&a, &b),
    };
    let mut pairs: Vec<Pair<'a>> = Vec::new();
    for (key, rows) in &b {
        let Some(then) = a.get(key) else { continue };
        let (failing, [before, after]) = failing(then, rows);
        found.failing.extend(failing);
        let pair = (valid(then), valid(rows));
        match (pair.0.first().copied(), pair.1.first().copied()) {
            (Some(first), Some(row)) => found.pair(first, row, &pair, threshold),
            (Some(row), None) if after.of == 0 => found.missing.push(row),
            (None, Some(row)) if before.of == 0 => found.added.push(row),
            (Some(_), None) | (None, Some(_) | None) => {}
        }
        if !pair.0.is_empty() && !pair.1.is_empty() {
            pairs.push(pair);
        }
    }
    found.measure(&pairs, metrics, threshold, noise);
    found
}

/// The first valid row of what only one run has.
fn only<'a>(these: &Groups<'a>, others: &Groups<'a>) -> Vec<&'a Row> {
    let alone = these.iter().filter(|(key, _)| !others.contains_key(*key));
    alone.filter_map(|(_, rows)| valid(rows).first().copied()).collect()
}

/// Whether starts failed, in which of the runs, and why; with their numbers.
fn failing<'a>(then: &[&'a Row], now: &[&'a Row]) -> (Option<Failing<'a>>, [Failures; 2]) {
    let ((before, was), (after, why)) = (failures(then, |_| false), failures(now, |_| false));
    #[expect(clippy::cast_precision_loss, reason = "starts are few")]
    let most = |of: Failures| of.failed as f64 > 0.5 * of.of as f64;
    let is_worse = most(after) && !most(before) && before.of > 0;
    let why = why.or(was).unwrap_or_default();
    let any = before.failed + after.failed > 0;
    let failing = now.first().filter(|_| any).map(|row| Failing { row, before, after, why, is_worse });
    (failing, [before, after])
}

/// The mean share of requests that failed, where it is known.
fn lost_requests(rows: &[&Row]) -> Option<f64> {
    let share = |row: &&Row| {
        let (completed, failed) = (row.metrics.get(VllmMetric::Completed)?, row.metrics.get(VllmMetric::Failed)?);
        (completed + failed > 0.0).then(|| failed / (completed + failed))
    };
    let shares: Vec<f64> = rows.iter().filter_map(share).collect();
    (!shares.is_empty()).then(|| mean(&shares))
}

/// Whether one run measured it beside others and the other one did not: the difference may be that of the neighbours.
fn neighbours_differ(then: &[&Row], now: &[&Row]) -> Option<String> {
    let beside = |rows: &[&Row]| rows.iter().any(|row| row.about.neighbours > Some(0));
    let text = |with, without| format!("{with}: others ran beside it, and not {without}, so not comparable");
    match (beside(then), beside(now)) {
        (true, false) => Some(text("before", "after")),
        (false, true) => Some(text("after", "before")),
        (true, true) | (false, false) => None,
    }
}

/// The first warning that excludes a measurement of either run.
fn excluded(then: &[&Row], now: &[&Row]) -> Option<String> {
    let first = |rows: &[&Row]| {
        let mut all = rows.iter().flat_map(|row| &row.about.warnings);
        all.find(|warning| warning.kind.excludes()).map(|warning| warning.text.clone())
    };
    first(now).map(|text| format!("after: {text}")).or_else(|| first(then).map(|text| format!("before: {text}")))
}

impl<'a> Comparison<'a> {
    /// Takes in a configuration that both runs measured, with what speaks against comparing it.
    fn pair(&mut self, first: &'a Row, row: &'a Row, (then, now): &Pair<'a>, threshold: f64) {
        let texts = comparable::differences(first, row);
        let other_work = texts.iter().find(|text| comparable::is_other_work(text)).cloned();
        for text in texts {
            if !self.warnings.contains(&text) {
                self.warnings.push(text);
            }
        }
        if let Some((before, after)) = lost_requests(then).zip(lost_requests(now))
            && after - before > threshold
        {
            self.lost.push(LostRequests { row, before, after });
        }
        let neighbours = neighbours_differ(then, now);
        if let Some(text) = &neighbours
            && !self.warnings.contains(text)
        {
            self.warnings.push(text.clone());
        }
        let not_comparable = excluded(then, now).or(other_work).or(neighbours);
        self.matched.push(Matched { row, effects: Vec::new(), unmeasured: Vec::new(), not_comparable });
    }

    /// Adds the metrics of what both measured, at a level for all of them together.
    fn measure(&mut self, pairs: &[Pair<'a>], metrics: &[Metric], threshold: f64, noise: &Noise) {
        let of_noise = |metric: &Metric| noise.get(&metric.key).map(Vec::as_slice).unwrap_or_default();
        let all: Vec<Vec<Option<Sample>>> =
            metrics.iter().map(|metric| samples(pairs, &metric.key, of_noise(metric))).collect();
        let count = all.iter().flatten().flatten().filter(|sample| sample.noise().is_some()).count();
        #[expect(clippy::cast_precision_loss, reason = "configurations are few")]
        let level = (1.0 - CONFIDENCE) / 2.0 / count.max(1) as f64;
        for (metric, samples) in metrics.iter().zip(all) {
            for ((matched, pair), sample) in self.matched.iter_mut().zip(pairs).zip(samples) {
                match sample {
                    Some(sample) => matched.effects.push(sample.effect(metric, threshold, level)),
                    None => {
                        let has = |rows: &[&Row]| starts_by(rows, &metric.key).is_some();
                        matched.unmeasured.push((metric.key.clone(), has(&pair.0), has(&pair.1)));
                    }
                }
            }
        }
        for matched in self.matched.iter_mut().filter(|matched| matched.not_comparable.is_some()) {
            for effect in &mut matched.effects {
                (effect.outcome, effect.starts_needed) = (Outcome::NotDecided, None);
            }
        }
    }

    /// What it came to: worse where anything became worse, a metric or a configuration that fails now; the same only where all is.
    pub fn outcome(&self) -> Outcome {
        let fails = self.failing.iter().any(|failing| failing.is_worse) || !self.lost.is_empty();
        let nothing = self.matched.iter().all(|matched| matched.effects.is_empty());
        match (self.count(Outcome::Better), self.count(Outcome::NotDecided)) {
            _ if fails || self.count(Outcome::Worse) > 0 => Outcome::Worse,
            (1.., _) => Outcome::Better,
            (0, 0) if !nothing => Outcome::Same,
            (0, _) => Outcome::NotDecided,
        }
    }

    /// Whether anything became worse.
    pub fn has_worse(&self) -> bool {
        self.outcome() == Outcome::Worse
    }

    /// How many metrics came to this.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.matched.iter().flat_map(|matched| &matched.effects).filter(|effect| effect.outcome == outcome).count()
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::inference::t_quantile;
    use super::super::table::tests::{row, table_of};
    use super::super::{FailedAttempt, Status, WarningKind};
    use super::*;
    use crate::model::Repeat;

    /// Starts of configurations with these rates.
    fn run(all: &[&[f64]]) -> RunTable {
        let mut rows = Vec::new();
        for (tp, rates) in (1u32..).zip(all) {
            for (start, rate) in (1u32..).zip(*rates) {
                let mut row = row("m", tp, *rate, 100.0);
                row.repeat = Some(Repeat { start, run: 1 });
                row.identity = serde_json::from_value(format!("{tp:064}").into()).ok();
                row.about.settings.clone_from(&row.identity);
                rows.push(row);
            }
        }
        table_of(rows)
    }

    fn metrics() -> Vec<Metric> {
        Metric::of("request_throughput").into_iter().collect()
    }

    /// Compared by all settings, with no other noise.
    fn compared<'a>(before: &'a RunTable, after: &'a RunTable) -> Comparison<'a> {
        compare(before, after, &metrics(), 0.03, &Noise::new(), &Pairing::All)
    }

    fn outcomes(before: &RunTable, after: &RunTable) -> Vec<Outcome> {
        let comparison = compared(before, after);
        comparison.matched.iter().flat_map(|matched| &matched.effects).map(|effect| effect.outcome).collect()
    }

    #[test]
    fn a_verdict_is_the_place_of_the_interval() {
        let before = run(&[&[100.0, 100.4, 99.8]]);
        assert_eq!(outcomes(&before, &run(&[&[120.0, 120.5, 119.7]])), [Outcome::Better]);
        assert_eq!(outcomes(&before, &run(&[&[80.0, 80.5, 79.7]])), [Outcome::Worse]);
        assert_eq!(outcomes(&before, &run(&[&[100.1, 100.3, 99.9]])), [Outcome::Same]);
        // A true change below the threshold is never called one, and noise is not decided.
        assert_eq!(outcomes(&before, &run(&[&[102.0, 102.2, 101.9]])), [Outcome::Same]);
        assert_eq!(outcomes(&before, &run(&[&[110.0, 90.0, 104.0]])), [Outcome::NotDecided]);
        // One start each decides nothing, however often it was measured.
        assert_eq!(outcomes(&run(&[&[100.0]]), &run(&[&[130.0]])), [Outcome::NotDecided]);
        // From nothing to something.
        let (nothing, something) = (run(&[&[0.0, 0.0, 0.0]]), run(&[&[5000.0, 5001.0, 4999.0]]));
        let found = compared(&nothing, &something);
        assert_eq!((found.count(Outcome::Better), found.matched[0].effects[0].of_largest), (1, true));
    }

    #[test]
    fn starts_that_do_not_differ_say_nothing_of_how_far_others_would() {
        let before = run(&[&[100.0; 3]]);
        let found = compared(&before, &before);
        assert_eq!((found.outcome(), found.matched[0].effects[0].interval), (Outcome::Same, None));
        let other = run(&[&[110.0; 3]]);
        let found = compared(&before, &other);
        assert_eq!((found.outcome(), found.matched[0].effects[0].interval), (Outcome::NotDecided, None));
    }

    #[test]
    fn the_noise_of_a_noise_check_has_its_own_degrees_of_freedom_once() {
        let noise = noise_of(&run(&[&[100.0, 101.0, 99.0, 100.5, 99.5]]), &metrics());
        let (one, other) = (run(&[&[100.0]]), run(&[&[130.0]]));
        let found = compare(&one, &other, &metrics(), 0.03, &noise, &Pairing::All);
        assert_eq!(found.outcome(), Outcome::Better);
        let (low, high) = found.matched[0].effects[0].interval.unwrap();
        let sd = noise["request_throughput"][0].variance.sqrt();
        let half = t_quantile(0.975, 4.0).unwrap() * sd * 2.0f64.sqrt();
        assert!(((high.ln_1p() - low.ln_1p()) / 2.0 - half).abs() < 1e-9, "{low} {high} {half}");
        assert!(noise_of(&run(&[&[100.0], &[50.0]]), &metrics()).is_empty());
        // One start on one side alone: the other's degrees of freedom count once.
        let several = run(&[&[100.0, 101.0, 99.5]]);
        let found = compared(&several, &other);
        let (low, high) = found.matched[0].effects[0].interval.unwrap();
        let variance = Group::of(&[100.0f64, 101.0, 99.5].map(f64::ln)).unwrap().variance;
        let half = t_quantile(0.975, 2.0).unwrap() * (variance * (1.0 + 1.0 / 3.0)).sqrt();
        assert!(((high.ln_1p() - low.ln_1p()) / 2.0 - half).abs() < 1e-9, "{low} {high} {half}");
    }

    #[test]
    fn of_hundreds_of_comparisons_of_the_same_few_have_an_alarm() {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let mut normal = || {
            let (u, v): (f64, f64) = (random.random::<f64>().max(f64::MIN_POSITIVE), random.random());
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        };
        // scripts/check_compare.py has thousands of each.
        for (configurations, starts) in [(1, 3), (5, 3), (5, 5)] {
            let mut alarms = 0;
            for _ in 0..300 {
                let mut one = |change: f64| {
                    let all: Vec<Vec<f64>> = (0..configurations)
                        .map(|_| (0..starts).map(|_| 100.0 * (change + 0.02 * normal()).exp()).collect())
                        .collect();
                    run(&all.iter().map(Vec::as_slice).collect::<Vec<_>>())
                };
                // The change is as large as the threshold: the hardest of those that are none.
                let (before, after) = (one(0.0), one(0.03f64.ln_1p()));
                let called = |outcome: &Outcome| matches!(outcome, Outcome::Better | Outcome::Worse);
                alarms += usize::from(outcomes(&before, &after).iter().any(called));
            }
            // Expected are 2.5 %; more than 5 % of 300 would be seen by chance in less than one of a hundred.
            assert!(alarms <= 15, "{configurations} configurations, {starts} starts: {alarms}");
        }
    }

    fn fail(row: &mut Row, cause: crate::model::Cause) {
        row.status =
            Status::Failed(Box::new(FailedAttempt { cause: Some(cause), ..FailedAttempt::of("it crashed".into()) }));
    }

    #[test]
    fn warnings_of_either_run_keep_it_from_being_decided() {
        let before = run(&[&[100.0, 100.4, 99.8]]);
        let mut after = run(&[&[150.0, 150.5, 149.7]]);
        let warning = super::super::Warning { kind: WarningKind::PrefixCacheHits, text: "60 % hits".into() };
        after.rows[0].about.warnings.push(warning);
        let found = compared(&before, &after);
        assert_eq!(found.outcome(), Outcome::NotDecided);
        assert_eq!(found.matched[0].not_comparable.as_deref(), Some("after: 60 % hits"));
        assert_eq!(compared(&after, &before).matched[0].not_comparable.as_deref(), Some("before: 60 % hits"));
        // Requests that fail now are worse, whatever the metrics of the others are.
        let counts = |table: &mut RunTable, failed: f64| {
            for row in &mut table.rows {
                row.metrics.set(VllmMetric::Completed, Some(100.0 - failed));
                row.metrics.set(VllmMetric::Failed, Some(failed));
            }
        };
        let (mut before, mut after) = (run(&[&[100.0, 100.4, 99.8]]), run(&[&[150.0, 150.5, 149.7]]));
        counts(&mut before, 0.0);
        counts(&mut after, 40.0);
        let found = compared(&before, &after);
        let lost = &found.lost[0];
        assert!(lost.before == 0.0 && (lost.after - 0.4).abs() < 1e-9, "{lost:?}");
        assert_eq!(found.outcome(), Outcome::Worse);
        assert!(compared(&after, &before).lost.is_empty());
    }

    #[test]
    fn failures_of_either_run_count_and_nothing_vanishes() {
        use crate::model::Cause::{Crashed, PortInUse};
        let before = run(&[&[100.0, 100.4, 99.8]]);
        let failing = |cause, starts: usize| {
            let mut after = run(&[&[100.0, 100.4, 99.8]]);
            after.rows[..starts].iter_mut().for_each(|row| fail(row, cause));
            after
        };
        for starts in 1..=3 {
            let after = failing(Crashed, starts);
            let found = compared(&before, &after);
            assert_eq!(found.has_worse(), starts > 1, "{starts} of 3");
            assert_eq!(
                (found.failing[0].after, found.failing[0].before.failed),
                (Failures { failed: starts, of: 3 }, 0)
            );
            // The other way round it is told, and no worse.
            let back = compared(&after, &before);
            assert_eq!((back.failing.len(), back.has_worse()), (1, false), "{starts} of 3");
        }
        assert!(compared(&before, &before).failing.is_empty());
        // What was not measured, by no fault of its own, is missing.
        let after = failing(PortInUse, 3);
        let found = compared(&before, &after);
        assert_eq!((found.missing.len(), found.failing.len(), found.outcome()), (1, 0, Outcome::NotDecided));
        assert_eq!(compared(&after, &before).added.len(), 1);
        // A metric that only one of them has.
        let mut after = run(&[&[100.0, 100.4, 99.8]]);
        after.rows.iter_mut().for_each(|row| row.metrics.set(VllmMetric::RequestThroughput, None));
        let found = compared(&before, &after);
        assert_eq!(found.matched[0].unmeasured, [("request_throughput".to_owned(), true, false)]);
        assert_eq!(found.outcome(), Outcome::NotDecided, "nothing was compared");
    }

    #[test]
    fn more_starts_than_were_measured_are_needed_where_those_did_not_decide() {
        let (before, after) = (run(&[&[100.0, 104.0, 97.0]]), run(&[&[106.0, 103.0, 111.0]]));
        let found = compared(&before, &after);
        let effect = &found.matched[0].effects[0];
        assert_eq!(effect.outcome, Outcome::NotDecided);
        assert!(effect.starts_needed.is_some_and(|starts| starts > 3), "{effect:?}");
    }
}
