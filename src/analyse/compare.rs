//! One run against another: configurations matched by their settings, each metric with its change and how sure that is. Pure.
//!
//! A verdict comes from the interval of the relative change: wholly beyond the threshold = better or worse, wholly within = the same,
//! else not decided. All intervals of a comparison hold together with a probability of 95 % (Bonferroni). The unit is the server start; variances
//! are moderated over all configurations and both runs, for each metric by itself ([`super::moderate`]).

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;

use super::choose::{Failures, failures};
use super::decide::FEWEST_STARTS;
use super::inference::{CONFIDENCE, Group, mean, pooled, starts_to_separate, t_quantile};
use super::moderate::{Moderated, moderated};
use super::{Better, Figure, Metric, Row, RunTable, comparable, settings, starts_by};

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
    /// Relative change of the geometric mean; where a value is zero, the difference as a part of the largest value.
    pub relative: f64,
    /// The interval of the true change, which holds together with all others of the comparison; `None` where nothing tells the noise.
    pub interval: Option<(f64, f64)>,
    /// Server starts on each side.
    pub n: (usize, usize),
    /// What became of it.
    pub outcome: Outcome,
    /// Starts of each side that would decide, with a power of 80 %; `None` where it is decided, or would take more than a thousand.
    pub starts_needed: Option<usize>,
}

/// A configuration that both runs measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Matched<'a> {
    /// Its first measurement in the second run.
    pub row: &'a Row,
    /// Its metrics.
    pub effects: Vec<Effect>,
    /// A warning of one of the runs that excludes a measurement from any ranking: then nothing is decided.
    pub not_comparable: Option<String>,
}

/// A configuration of which more server starts failed in the second run.
#[derive(Debug, Clone, PartialEq)]
pub struct Failing<'a> {
    /// Its first row in the second run.
    pub row: &'a Row,
    /// In the first run.
    pub before: Failures,
    /// In the second run.
    pub after: Failures,
    /// Why, in the second run.
    pub why: String,
    /// More than half of its starts fail now: that is worse, whatever the metrics are.
    pub is_worse: bool,
}

/// Two runs beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison<'a> {
    /// Why results of the two are not comparable, or not wholly: what changed between releases of vLLM.
    pub warnings: Vec<String>,
    /// What both measured.
    pub matched: Vec<Matched<'a>>,
    /// What fails more often now.
    pub failing: Vec<Failing<'a>>,
    /// Measured in the second run only.
    pub added: Vec<&'a Row>,
    /// Measured in the first run only.
    pub missing: Vec<&'a Row>,
}

/// The metrics that are compared where nobody names others.
pub const COMPARED: [Metric; 3] = [Metric::OutputThroughput, Metric::MeanTtft, Metric::MeanTpot];

/// The variance of the logarithm of a start, by metric.
pub type Noise = HashMap<String, Moderated>;

/// The noise between starts that a run says by itself (a noise check), for each of these metrics.
pub fn noise_of(table: &RunTable, figures: &[Figure]) -> Noise {
    let valid: Vec<&Row> = table.rows.iter().filter(|row| row.is_valid()).collect();
    let all = settings(&valid);
    let of = |figure: &Figure| {
        let logs = all.iter().filter_map(|rows| logs(&starts_by(rows, &figure.key)?));
        let groups: Vec<Group> = logs.filter_map(|logs| Group::of(&logs)).collect();
        let (variance, freedom) = pooled(&groups)?;
        Some((figure.key.clone(), Moderated { variance, freedom }))
    };
    figures.iter().filter_map(of).collect()
}

/// What a configuration is by its flags, variables and workload.
pub fn described(row: &Row) -> BTreeMap<String, String> {
    const WITHOUT_EFFECT: [&str; 2] = ["port", "host"];
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let flags = row.about.flags.iter().map(|(key, value)| (key.clone(), value.clone()));
    let variables = row.about.serve_environment.iter().map(|(key, value)| (format!("env.{key}"), value.clone()));
    let axes = row.axes.server.iter().chain(&row.axes.workload).cloned();
    let load = row.load.0.iter().map(|(key, value)| (key.clone(), value.to_string()));
    all.extend(load.chain(flags).chain(variables).chain(axes));
    for key in ["model", "tensor-parallel-size", "quantization", "enforce-eager"] {
        all.extend(row.setting(key).map(|value| (key.to_owned(), value.into_owned())));
    }
    all.retain(|key, _| !WITHOUT_EFFECT.contains(&key.as_str()));
    all
}

/// The settings in which the two most alike configurations of two runs differ, each with its two values.
pub fn nearest_difference(before: &RunTable, after: &RunTable) -> Vec<(String, [String; 2])> {
    let of = |table: &RunTable| -> Vec<BTreeMap<String, String>> {
        table.rows.iter().filter(|row| row.is_valid()).take(200).map(described).collect()
    };
    let value =
        |all: &BTreeMap<String, String>, key: &str| all.get(key).cloned().unwrap_or_else(|| "default".to_owned());
    let differ = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| -> Vec<(String, [String; 2])> {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let all = keys.into_iter().map(|key| (key.clone(), [value(a, key), value(b, key)]));
        all.filter(|(_, [a, b])| a != b).collect()
    };
    let (a, b) = (of(before), of(after));
    a.iter().flat_map(|a| b.iter().map(move |b| differ(a, b))).min_by_key(Vec::len).unwrap_or_default()
}

type Groups<'a> = IndexMap<String, Vec<&'a Row>>;

/// Planned rows by what they measured; repeats together.
fn groups<'a>(table: &'a RunTable, ignore: &[String]) -> Groups<'a> {
    let mut groups = Groups::new();
    for row in table.rows.iter().filter(|row| !row.is_skipped()) {
        let key = match (ignore.is_empty(), &row.about.settings) {
            (true, Some(settings)) => settings.to_string(),
            (true, None) => row.name.clone(),
            (false, _) => {
                let mut all = described(row);
                all.retain(|key, _| !ignore.contains(key));
                format!("{all:?}")
            }
        };
        groups.entry(key).or_default().push(row);
    }
    groups
}

fn valid<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.is_valid()).copied().collect()
}

/// Compares two runs by these metrics. `threshold`: relative change that matters (0.03 = 3 %). `noise`: of the metrics, where the runs
/// themselves say nothing of it. `ignore`: settings in which configurations may differ and be the same.
pub fn compare<'a>(
    before: &'a RunTable,
    after: &'a RunTable,
    figures: &[Figure],
    threshold: f64,
    noise: &Noise,
    ignore: &[String],
) -> Comparison<'a> {
    let (a, b) = (groups(before, ignore), groups(after, ignore));
    let mut pairs: Vec<(Vec<&'a Row>, Vec<&'a Row>)> = Vec::new();
    let mut warnings: Vec<String> = Vec::new();
    let mut failing = Vec::new();
    for (key, rows) in &b {
        let Some(then) = a.get(key) else { continue };
        failing.extend(failing_now(then, rows));
        let (then, now) = (valid(then), valid(rows));
        let (Some(first), Some(row)) = (then.first(), now.first()) else { continue };
        for text in comparable::differences(first, row) {
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
        pairs.push((then, now));
    }
    let mut matched: Vec<Matched<'a>> = pairs
        .iter()
        .filter_map(|(then, now)| {
            Some(Matched { row: now.first()?, effects: Vec::new(), not_comparable: excluded(then, now) })
        })
        .collect();
    let samples: Vec<Vec<Option<Sample>>> = figures.iter().map(|figure| samples(&pairs, &figure.key, noise)).collect();
    let count = samples.iter().flatten().flatten().filter(|sample| sample.error.is_some()).count();
    #[expect(clippy::cast_precision_loss, reason = "configurations are few")]
    let level = (1.0 - CONFIDENCE) / 2.0 / count.max(1) as f64;
    for (figure, samples) in figures.iter().zip(samples) {
        for (matched, sample) in matched.iter_mut().zip(samples) {
            matched.effects.extend(sample.map(|sample| sample.effect(figure, threshold, level)));
        }
    }
    for matched in matched.iter_mut().filter(|matched| matched.not_comparable.is_some()) {
        matched.effects.iter_mut().for_each(|effect| effect.outcome = Outcome::NotDecided);
    }
    let only = |these: &Groups<'a>, others: &Groups<'a>| -> Vec<&'a Row> {
        let alone = these.iter().filter(|(key, _)| !others.contains_key(*key));
        alone.filter_map(|(_, rows)| valid(rows).first().copied()).collect()
    };
    Comparison { warnings, matched, failing, added: only(&b, &a), missing: only(&a, &b) }
}

/// Whether more of the starts fail now.
fn failing_now<'a>(then: &[&'a Row], now: &[&'a Row]) -> Option<Failing<'a>> {
    let ((before, _), (after, why)) = (failures(then, |_| false), failures(now, |_| false));
    #[expect(clippy::cast_precision_loss, reason = "starts are few")]
    let share = |of: Failures| of.failed as f64 / of.of.max(1) as f64;
    let is_worse = share(after) > 0.5 && share(before) <= 0.5 && before.of > 0;
    let row = now.first().copied()?;
    (share(after) > share(before) && before.of > 0).then(|| Failing {
        row,
        before,
        after,
        why: why.unwrap_or_default(),
        is_worse,
    })
}

/// The first warning that excludes a measurement of either run.
fn excluded(then: &[&Row], now: &[&Row]) -> Option<String> {
    let first = |rows: &[&Row]| {
        let mut all = rows.iter().flat_map(|row| &row.about.doubts);
        all.find(|doubt| doubt.kind.bars()).map(|doubt| doubt.text.clone())
    };
    first(now).map(|text| format!("after: {text}")).or_else(|| first(then).map(|text| format!("before: {text}")))
}

/// Logarithms of the means of starts; `None` where a value is not positive.
fn logs(starts: &[Vec<f64>]) -> Option<Vec<f64>> {
    let log = |start: &Vec<f64>| {
        let is_good = !start.is_empty() && start.iter().all(|value| value.is_finite() && *value > 0.0);
        is_good.then(|| mean(&start.iter().map(|value| value.ln()).collect::<Vec<f64>>()))
    };
    starts.iter().map(log).collect()
}

/// One metric of one configuration in both runs.
struct Sample {
    before: f64,
    after: f64,
    /// Of logarithms, else a part of the largest value.
    change: f64,
    logarithms: bool,
    n: (usize, usize),
    /// Standard error of the change, its degrees of freedom, and the standard deviation of a start.
    error: Option<(f64, f64, f64)>,
}

/// Values of starts of both runs as they are compared, their means as measured, and whether the values are logarithms.
type Values = ([Vec<f64>; 2], [f64; 2], bool);

fn samples(pairs: &[(Vec<&Row>, Vec<&Row>)], key: &str, noise: &Noise) -> Vec<Option<Sample>> {
    let values: Vec<Option<Values>> = pairs
        .iter()
        .map(|(then, now)| {
            let starts = [starts_by(then, key)?, starts_by(now, key)?];
            let means = |starts: &Vec<Vec<f64>>| starts.iter().map(|start| mean(start)).collect::<Vec<f64>>();
            let [a, b] = [means(&starts[0]), means(&starts[1])];
            let overall = [mean(&a), mean(&b)];
            if let (Some(a), Some(b)) = (logs(&starts[0]), logs(&starts[1])) {
                return Some(([a, b], overall, true));
            }
            let largest = a.iter().chain(&b).fold(0.0f64, |most, value| most.max(value.abs()));
            let scaled =
                |values: Vec<f64>| values.into_iter().map(|value| value / largest.max(f64::MIN_POSITIVE)).collect();
            Some(([scaled(a), scaled(b)], overall, false))
        })
        .collect();
    let groups: Vec<Option<Group>> = values
        .iter()
        .flat_map(|values| {
            let of = |side: usize| {
                values.as_ref().filter(|(.., logs)| *logs).and_then(|(values, ..)| Group::of(&values[side]))
            };
            [of(0), of(1)]
        })
        .collect();
    let shared = moderated(&groups);
    let one = |(index, values): (usize, Option<Values>)| {
        let ([a, b], [before, after], logarithms) = values?;
        let of = |side: usize, values: &Vec<f64>| {
            let own = shared.get(2 * index + side).copied().flatten();
            own.or_else(|| {
                Group::of(values)
                    .map(|group| Moderated { variance: group.variance, freedom: (values.len() - 1) as f64 })
            })
        };
        let (va, vb) = (of(0, &a), of(1, &b));
        let (va, vb) = (va.or(vb), vb.or(va));
        let known = va.zip(vb).or_else(|| noise.get(key).filter(|_| logarithms).map(|noise| (*noise, *noise)));
        Some(Sample {
            before,
            after,
            change: mean(&b) - mean(&a),
            logarithms,
            n: (a.len(), b.len()),
            error: known.map(|(va, vb)| error(va, a.len(), vb, b.len())),
        })
    };
    values.into_iter().enumerate().map(one).collect()
}

/// Standard error of a difference (Welch, Satterthwaite), degrees of freedom, and the standard deviation of a start.
#[expect(clippy::cast_precision_loss, reason = "starts are few")]
fn error(a: Moderated, na: usize, b: Moderated, nb: usize) -> (f64, f64, f64) {
    let (va, vb) = (a.variance / na as f64, b.variance / nb as f64);
    let below = va * va / a.freedom + vb * vb / b.freedom;
    let freedom = if below > 0.0 { (va + vb).powi(2) / below } else { a.freedom + b.freedom };
    ((va + vb).sqrt(), freedom, f64::midpoint(a.variance, b.variance).sqrt())
}

impl Sample {
    fn effect(self, figure: &Figure, threshold: f64, level: f64) -> Effect {
        let back = |change: f64| if self.logarithms { change.exp_m1() } else { change };
        let half = self.error.and_then(|(error, freedom, _)| Some(t_quantile(1.0 - level, freedom)? * error));
        let interval = half.map(|half| (back(self.change - half), back(self.change + half)));
        let up = if figure.better == Some(Better::Higher) { Outcome::Better } else { Outcome::Worse };
        let down = if figure.better == Some(Better::Higher) { Outcome::Worse } else { Outcome::Better };
        let outcome = match interval {
            Some((low, _)) if low > threshold => up,
            Some((_, high)) if high < -threshold => down,
            Some((low, high)) if low > -threshold && high < threshold => Outcome::Same,
            Some(_) | None => Outcome::NotDecided,
        };
        let distance = (self.change.abs() - threshold.ln_1p()).abs();
        let needed = self
            .error
            .filter(|_| outcome == Outcome::NotDecided)
            .and_then(|(.., sd)| starts_to_separate(distance, sd, level));
        Effect {
            metric: figure.key.clone(),
            before: self.before,
            after: self.after,
            relative: back(self.change),
            interval,
            n: self.n,
            outcome,
            starts_needed: needed.map(|starts| starts.max(FEWEST_STARTS)),
        }
    }
}

impl Comparison<'_> {
    /// Whether anything became worse: a metric, or a configuration that fails now.
    pub fn has_worse(&self) -> bool {
        self.count(Outcome::Worse) > 0 || self.failing.iter().any(|failing| failing.is_worse)
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

    use super::super::table::tests::{row, table_of};
    use super::super::{DoubtKind, FailedAttempt, Status};
    use super::*;
    use crate::plan::Repeat;

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

    fn figures() -> Vec<Figure> {
        Figure::of("request_throughput").into_iter().collect()
    }

    fn outcomes(before: &RunTable, after: &RunTable) -> Vec<Outcome> {
        let comparison = compare(before, after, &figures(), 0.03, &Noise::new(), &[]);
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
        // One start each decides nothing, unless the noise is known.
        let (one, other) = (run(&[&[100.0]]), run(&[&[130.0]]));
        assert_eq!(outcomes(&one, &other), [Outcome::NotDecided]);
        let noise = noise_of(&run(&[&[100.0, 101.0, 99.0, 100.5, 99.5]]), &figures());
        let comparison = compare(&one, &other, &figures(), 0.03, &noise, &[]);
        assert_eq!(comparison.count(Outcome::Better), 1);
        // From nothing to something.
        assert_eq!(outcomes(&run(&[&[0.0, 0.0, 0.0]]), &run(&[&[5000.0, 5001.0, 4999.0]])), [Outcome::Better]);
    }

    #[test]
    fn of_a_thousand_comparisons_of_the_same_few_have_an_alarm() {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let mut normal = || {
            let (u, v): (f64, f64) = (random.random::<f64>().max(f64::MIN_POSITIVE), random.random());
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        };
        for (configurations, starts) in [(1, 3), (5, 3), (5, 5)] {
            let mut alarms = 0;
            for _ in 0..1000 {
                let mut one = |change: f64| {
                    let all: Vec<Vec<f64>> = (0..configurations)
                        .map(|_| (0..starts).map(|_| 100.0 * (change + 0.02 * normal()).exp()).collect())
                        .collect();
                    run(&all.iter().map(Vec::as_slice).collect::<Vec<_>>())
                };
                // The change is below the threshold.
                let (before, after) = (one(0.0), one(0.02));
                let called = |outcome: &Outcome| matches!(outcome, Outcome::Better | Outcome::Worse);
                alarms += usize::from(outcomes(&before, &after).iter().any(called));
            }
            eprintln!("{configurations} configurations, {starts} starts: an alarm in {alarms} of 1000");
            assert!(alarms <= 50, "{configurations}, {starts}: {alarms}");
        }
    }

    #[test]
    fn warnings_and_failures_of_the_second_run_count() {
        let before = run(&[&[100.0, 100.4, 99.8]]);
        let mut after = run(&[&[150.0, 150.5, 149.7]]);
        let doubt = super::super::Doubt { kind: DoubtKind::PrefixCacheHits, text: "60 % hits".into() };
        after.rows[0].about.doubts.push(doubt);
        let comparison = compare(&before, &after, &figures(), 0.03, &Noise::new(), &[]);
        assert_eq!(comparison.matched[0].effects[0].outcome, Outcome::NotDecided);
        assert_eq!(comparison.matched[0].not_comparable.as_deref(), Some("after: 60 % hits"));
        let mut after = run(&[&[100.0, 100.4, 99.8]]);
        for row in &mut after.rows[..2] {
            row.status = Status::Failed(Box::new(FailedAttempt {
                cause: Some(crate::diagnose::Cause::Crashed),
                summary: "it crashed".into(),
                phase: None,
                evidence: Vec::new(),
                advice: Vec::new(),
                log: None,
            }));
        }
        let comparison = compare(&before, &after, &figures(), 0.03, &Noise::new(), &[]);
        assert!(comparison.has_worse());
        assert_eq!(comparison.failing[0].after, Failures { failed: 2, of: 3 });
        assert!(!compare(&before, &before, &figures(), 0.03, &Noise::new(), &[]).has_worse());
    }

    #[test]
    fn configurations_that_differ_in_one_setting_are_paired_where_it_is_ignored() {
        let flag = |table: &mut RunTable, value: &str| {
            for row in &mut table.rows {
                row.about.settings = serde_json::from_value(format!("{value:0>64}").into()).ok();
                row.about.flags = std::sync::Arc::new([("max-num-batched-tokens".to_owned(), value.to_owned())].into());
            }
        };
        let (mut before, mut after) = (run(&[&[100.0, 100.4, 99.8]]), run(&[&[120.0, 120.5, 119.7]]));
        flag(&mut before, "1");
        flag(&mut after, "2");
        let compared =
            |ignore: &[String]| compare(&before, &after, &figures(), 0.03, &Noise::new(), ignore).matched.len();
        assert_eq!((compared(&[]), compared(&["max-num-batched-tokens".to_owned()])), (0, 1));
        let differ = nearest_difference(&before, &after);
        assert_eq!(differ, [("max-num-batched-tokens".to_owned(), ["1".to_owned(), "2".to_owned()])]);
    }
}
