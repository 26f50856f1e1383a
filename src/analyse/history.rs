//! Runs of a results directory in the order of time, and what became of one configuration's metric over them. Pure.
//!
//! A trend is of one configuration: the same settings of server and workload, by the same engine. Never in one trend: other work (a release
//! of vLLM whose defaults make it send other requests), simulated beside measured, and measured beside others beside measured alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change_point::{Levels, Search};
use super::effect::{Outcome, logs};
use super::inference::{Estimate, Interval, mean, over_starts};
use super::pairing::{Described, Pairing, described, groups};
use super::{BY_MODEL, Counts, Facts, RankingSpec, Row, RunTable, ShownAxes, answers, comparable, starts_by};
use crate::model::{Better, Metric, Unit};

/// One run, as far as its history is told.
#[derive(Debug, Clone)]
pub struct Past {
    /// The run as a whole.
    pub facts: Facts,
    /// Whether all that it measured is simulated.
    pub simulated: bool,
    /// What came of its experiments.
    pub counts: Counts,
    /// What it asked for: the models, then each setting of which it has several values.
    pub plan: Vec<(String, Vec<String>)>,
    /// Its answers: one for each model and workload.
    pub best: Vec<Best>,
    /// The configurations that it measured.
    pub measured: Vec<Measured>,
    /// What it ran on: what, and its value; empty where that is not known.
    pub machine: Vec<(String, String)>,
    /// Why it takes part in no trend.
    pub skipped: Option<String>,
}

/// The configuration to use for one model and workload, as that run says it.
#[derive(Debug, Clone)]
pub struct Best {
    /// Model and workload.
    pub group: String,
    /// The configuration.
    pub axes: ShownAxes,
    /// What it was chosen by, in words, without the unit.
    pub objective: String,
    /// What that counts.
    pub unit: Unit,
    /// Its mean over starts.
    pub value: f64,
    /// Its interval.
    pub interval: Option<Interval>,
}

/// What one run measured of one configuration.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What makes it the same configuration as that of another run.
    key: String,
    /// Its settings by name.
    pub settings: Arc<Described>,
    /// Its first measurement.
    pub row: Row,
    /// What its measurements are called.
    pub names: Vec<String>,
    /// The metric on each start; `None` where it has none.
    starts: Option<Vec<Vec<f64>>>,
    /// Whether others ran beside it.
    beside: bool,
    /// Why it does not count: a warning that excludes a measurement from every ranking.
    pub excluded: Option<String>,
}

impl Past {
    /// A run of which nothing is known but that it is there.
    pub fn unreadable(facts: Facts, why: String) -> Self {
        Self {
            facts,
            simulated: false,
            counts: Counts::default(),
            plan: Vec::new(),
            best: Vec::new(),
            measured: Vec::new(),
            machine: Vec::new(),
            skipped: Some(why),
        }
    }

    /// Of a table, for the trend of this metric. A run whose record is damaged takes part in none.
    pub fn of(mut table: RunTable, metric: &Metric) -> Self {
        table.facts.spans.clear();
        let measured = if table.facts.damaged.is_empty() { measured(&table, metric) } else { Vec::new() };
        let skipped = match table.facts.damaged.first() {
            Some(what) => Some(what.clone()),
            None if measured.is_empty() => Some("it has no valid result".to_owned()),
            None => None,
        };
        Self {
            simulated: table.is_all_simulated(),
            counts: Counts::of(&table.rows),
            plan: plan(&table),
            best: best(&table),
            measured,
            machine: Vec::new(),
            skipped,
            facts: table.facts,
        }
    }
}

/// The configurations that a run measured with a valid result.
fn measured(table: &RunTable, metric: &Metric) -> Vec<Measured> {
    let one = |(key, rows): (String, Vec<&Row>)| {
        let valid: Vec<&Row> = rows.into_iter().filter(|row| row.is_valid()).collect();
        let first = *valid.first()?;
        let believed: Vec<&Row> = valid.iter().copied().filter(|row| row.may_be_best()).collect();
        let mut warnings = valid.iter().flat_map(|row| &row.about.warnings).filter(|warning| warning.kind.excludes());
        let mut row = believed.first().map_or_else(|| first.clone(), |row| (*row).clone());
        // Nothing here asks for it, and it may be long.
        row.about.members = None;
        Some(Measured {
            key,
            settings: Arc::new(described(first)),
            starts: starts_by(&believed, &metric.key),
            names: valid.iter().map(|row| row.name.clone()).collect(),
            beside: believed.iter().any(|row| row.about.neighbours > Some(0)),
            excluded: warnings.next().filter(|_| believed.is_empty()).map(|warning| warning.text.clone()),
            row,
        })
    };
    groups(table, &Pairing::All).into_iter().filter_map(one).collect()
}

/// What a run asks for: its models, and what varies.
fn plan(table: &RunTable) -> Vec<(String, Vec<String>)> {
    let mut keys: indexmap::IndexMap<String, Vec<String>> = indexmap::IndexMap::new();
    let mut put = |key: &str, value: String| {
        let values = keys.entry(key.to_owned()).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    };
    for row in table.rows.iter().filter(|row| !row.is_skipped()) {
        for key in [BY_MODEL, "tensor-parallel-size", "quantization", "enforce-eager"] {
            if let Some(value) = row.setting(key) {
                put(key, value.into_owned());
            }
        }
        let varying = row.axes.server.iter().chain(&row.axes.workload);
        varying.for_each(|(key, value)| put(key, value.clone()));
        if let Some(repeat) = row.repeat {
            put(STARTS, repeat.start.to_string());
        }
    }
    keys.into_iter().filter(|(key, values)| key == BY_MODEL || values.len() > 1).collect()
}

/// What a plan calls the number of server starts of each configuration.
pub const STARTS: &str = "starts";

/// The answers of a run by its own objective and limits.
fn best(table: &RunTable) -> Vec<Best> {
    let wanted = RankingSpec::of(table);
    let Some(metric) = Metric::of(&wanted.rank_by) else { return Vec::new() };
    let one = |answer: &super::Answer<'_>| {
        let found = answer.choice.as_ref().ok()?;
        let chosen = found.chosen()?;
        let per = if found.per_device { " per device" } else { "" };
        Some(Best {
            group: answer.title(),
            axes: chosen.row.axes.clone(),
            objective: format!("{}{per}", metric.label),
            unit: metric.unit,
            value: chosen.value,
            interval: chosen.estimate.as_ref().and_then(|estimate| estimate.interval),
        })
    };
    answers(table, &[BY_MODEL.to_owned()], &wanted).iter().filter_map(one).collect()
}

/// What one run says of the metric of a trend.
#[derive(Debug)]
pub struct Point<'a> {
    /// The run.
    pub run: &'a Past,
    /// What it measured.
    pub measured: &'a Measured,
    /// Over its starts.
    pub estimate: Estimate,
    /// What is another here than in the run before it on the trend.
    pub changed: Vec<Changed>,
}

/// What differs between two runs that stand beside each other on a trend.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// What.
    pub what: String,
    /// In the run before.
    pub before: String,
    /// In this one.
    pub after: String,
}

/// A metric of one configuration over the runs that measured it.
#[derive(Debug)]
pub struct Trend<'a> {
    /// Of which metric.
    pub metric: &'a Metric,
    /// The runs, the oldest first.
    pub points: Vec<Point<'a>>,
    /// Levels and changes: of logarithms, else of parts of the largest value ([`Trend::is_relative`]).
    pub levels: Levels,
    /// The largest value, where values are not all positive and are compared as parts of it.
    largest: Option<f64>,
    /// Why these runs are no part of another trend of the same settings.
    pub apart: Option<String>,
    /// Settings, beside those that its row shows, in which the trends of these runs differ, with its values.
    pub told_by: Vec<(String, String)>,
}

impl Trend<'_> {
    /// The newest measurement, whose settings stand for all.
    pub fn row(&self) -> Option<&Row> {
        self.points.last().map(|point| &point.measured.row)
    }

    /// Whether changes are relative; else they are parts of the largest value.
    pub fn is_relative(&self) -> bool {
        self.largest.is_none()
    }

    /// A difference of what levels are made of as a part: 0.05 is 5 % more.
    pub fn part(&self, difference: f64) -> f64 {
        if self.is_relative() { difference.exp_m1() } else { difference }
    }

    /// The mean of a level in the unit of the metric: the geometric one, where values are positive.
    pub fn level(&self, index: usize) -> f64 {
        let mean = self.levels.means.get(index).copied().unwrap_or(f64::NAN);
        self.largest.map_or_else(|| mean.exp(), |largest| mean * largest)
    }

    /// Whether a difference is for the better.
    pub fn outcome(&self, difference: f64) -> Outcome {
        let up = self.metric.better == Some(Better::Higher);
        if (difference > 0.0) == up { Outcome::Better } else { Outcome::Worse }
    }

    /// What changed between the last run of one level and the first of the next.
    pub fn changed_at(&self, step: usize) -> &[Changed] {
        let at = self.levels.steps.get(step).and_then(|step| self.points.get(step.at));
        at.map_or(&[], |point| &point.changed)
    }
}

/// The first run of which two of these configurations become the same when these settings are ignored, with what both are called.
pub fn ambiguous_in<'a>(
    runs: &'a [Past],
    ignore: &[String],
    wanted: impl Fn(&Measured) -> bool,
) -> Option<(&'a Past, [&'a str; 2])> {
    runs.iter().find_map(|run| {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        let twice = run.measured.iter().filter(|of| wanted(of)).find_map(|of| {
            let first = seen.insert(key(of, ignore), &of.row.name)?;
            Some([first, of.row.name.as_str()])
        })?;
        Some((run, twice))
    })
}

/// What makes two measurements the same configuration.
fn key(of: &Measured, ignore: &[String]) -> String {
    if ignore.is_empty() {
        return of.key.clone();
    }
    let all: Vec<_> = of.settings.iter().filter(|(key, _)| !ignore.contains(key)).collect();
    format!("{all:?}")
}

/// A trend under construction.
struct Open<'a> {
    key: (String, bool, bool),
    points: Vec<(&'a Past, &'a Measured, Estimate)>,
    apart: Option<String>,
}

/// The trends of a metric over runs in the order of time: those of most runs first, of as many the one that was measured last. `wanted`
/// says which configurations are asked for, `ignore` names settings in which the runs of one trend may differ.
pub fn trends<'a>(
    runs: &'a [Past],
    metric: &'a Metric,
    ignore: &[String],
    wanted: impl Fn(&Measured) -> bool,
    search: &mut Search,
) -> Vec<Trend<'a>> {
    let mut open: Vec<Open<'a>> = Vec::new();
    let mut by_key: std::collections::HashMap<(String, bool, bool), Vec<usize>> = std::collections::HashMap::new();
    for run in runs.iter().filter(|run| run.skipped.is_none()) {
        for measured in run.measured.iter().filter(|measured| wanted(measured)) {
            let Some(estimate) = measured.starts.as_deref().and_then(over_starts) else { continue };
            let key = (key(measured, ignore), measured.row.simulated, measured.beside);
            let known = by_key.entry(key.clone()).or_default();
            let other_work = |index: &usize| {
                let first = open[*index].points.first().map(|(_, first, _)| &first.row)?;
                comparable::differences(first, &measured.row).into_iter().find(|text| comparable::is_other_work(text))
            };
            let apart: Vec<Option<String>> = known.iter().map(other_work).collect();
            let same = known.iter().zip(&apart).find(|(_, apart)| apart.is_none()).map(|(index, _)| *index);
            match same {
                Some(index) => open[index].points.push((run, measured, estimate)),
                None => {
                    known.push(open.len());
                    let apart = apart.into_iter().flatten().next();
                    open.push(Open { key, points: vec![(run, measured, estimate)], apart });
                }
            }
        }
    }
    let last =
        |of: &Open<'_>| of.points.last().and_then(|(last, ..)| runs.iter().position(|run| std::ptr::eq(run, *last)));
    open.sort_by_cached_key(|of| std::cmp::Reverse((of.points.len(), last(of))));
    let mut all: Vec<Trend<'a>> = open.into_iter().map(|of| trend(of, metric, search)).collect();
    tell_apart(&mut all);
    all
}

/// Says of each trend by which settings it is another one than the others.
fn tell_apart(all: &mut [Trend<'_>]) {
    let settings: Vec<Arc<Described>> =
        all.iter().filter_map(|of| Some(Arc::clone(&of.points.last()?.measured.settings))).collect();
    let keys: std::collections::BTreeSet<&String> = settings.iter().flat_map(|of| of.keys()).collect();
    let differs = |key: &&&String| settings.iter().any(|of| of.get(**key) != settings[0].get(**key));
    let keys: Vec<&String> = keys.iter().filter(differs).copied().collect();
    for (of, settings) in all.iter_mut().zip(&settings) {
        let Some(row) = of.points.last().map(|point| &point.measured.row) else { continue };
        let shown = |key: &str| {
            let axes = row.axes.server.iter().chain(&row.axes.workload);
            [BY_MODEL, "tensor-parallel-size", "quantization", "enforce-eager"].contains(&key)
                || axes.into_iter().any(|(axis, _)| axis == key)
        };
        let told = keys.iter().filter(|key| !shown(key));
        of.told_by = told.map(|key| ((*key).clone(), value(settings, key))).collect();
    }
}

/// A setting, or that it is not set.
fn value(of: &Described, key: &str) -> String {
    of.get(key).cloned().unwrap_or_else(|| "not set".to_owned())
}

fn trend<'a>(of: Open<'a>, metric: &'a Metric, search: &mut Search) -> Trend<'a> {
    let starts = || of.points.iter().map(|(_, measured, _)| measured.starts.as_deref().unwrap_or_default());
    let all: Option<Vec<f64>> = starts().map(|starts| logs(starts).map(|logs| mean(&logs))).collect();
    let (values, largest) = match all {
        Some(logs) => (logs, None),
        None => {
            let means = || of.points.iter().map(|(.., estimate)| estimate.mean);
            let largest = means().fold(0.0f64, |most, value| most.max(value.abs())).max(f64::MIN_POSITIVE);
            (means().map(|value| value / largest).collect(), Some(largest))
        }
    };
    let mut points: Vec<Point<'a>> = Vec::with_capacity(of.points.len());
    for (run, measured, estimate) in of.points {
        let changed = points.last().map(|before| changed(before, run, measured)).unwrap_or_default();
        points.push(Point { run, measured, estimate, changed });
    }
    let apart = match of.key {
        (_, _, true) => Some("others ran beside it".to_owned()),
        (_, _, false) => of.apart,
    };
    Trend { metric, levels: search.levels(&values), points, largest, apart, told_by: Vec::new() }
}

/// What is another in a run than in the one before it on its trend, as far as both say it.
fn changed(before: &Point<'_>, run: &Past, measured: &Measured) -> Vec<Changed> {
    let mut found = Vec::new();
    let mut look = |what: &str, before: &str, after: &str| {
        if before != after && !before.is_empty() && !after.is_empty() {
            found.push(Changed { what: what.to_owned(), before: before.to_owned(), after: after.to_owned() });
        }
    };
    let version = |of: &Measured| of.row.about.vllm_version.as_deref().unwrap_or_default().to_owned();
    look("vLLM", &version(before.measured), &version(measured));
    let (then, now) = (&before.measured.settings, &measured.settings);
    let keys: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    keys.into_iter().for_each(|key| look(key, &value(then, key), &value(now, key)));
    for (what, now) in &run.machine {
        // What stands for another model says nothing of this one.
        let other_model = what.strip_prefix(SNAPSHOT_OF).is_some_and(|model| *model != measured.row.axes.model);
        if let Some((_, then)) = before.run.machine.iter().find(|(known, _)| known == what).filter(|_| !other_model) {
            look(what, then, now);
        }
    }
    found
}

/// Before the name of a model: its snapshot, among what a run ran on.
pub const SNAPSHOT_OF: &str = "snapshot of ";

#[cfg(test)]
mod tests {
    use super::super::table::tests::{row, table_of};
    use super::*;
    use crate::model::Repeat;

    fn metric() -> Metric {
        Metric::of("request_throughput").unwrap()
    }

    /// A run of one configuration with these rates of its starts, by this vLLM.
    fn run(name: &str, version: &str, rates: &[f64], change: impl Fn(&mut Row)) -> Past {
        let start = |(start, rate): (u32, &f64)| {
            let mut row = row("m", 2, *rate, 100.0);
            row.repeat = Some(Repeat { start, run: 1 });
            row.about.vllm_version = Some(version.into());
            row.about.settings = serde_json::from_value(format!("{:064}", 2).into()).ok();
            row.identity.clone_from(&row.about.settings);
            change(&mut row);
            row
        };
        let mut table = table_of((1..).zip(rates).map(start).collect());
        table.facts.run = name.to_owned();
        Past::of(table, &metric())
    }

    fn all<'a>(runs: &'a [Past], metric: &'a Metric) -> Vec<Trend<'a>> {
        trends(runs, metric, &[], |_| true, &mut Search::default())
    }

    fn nightly(of: &[(&str, f64)]) -> Vec<Past> {
        let noise = [0.1, -0.2, 0.3, 0.0, -0.3, 0.2, -0.1];
        let one = |(i, (version, rate)): (usize, &(&str, f64))| {
            let rate = rate + noise[i % noise.len()];
            run(&format!("r{i}"), version, &[rate - 0.2, rate, rate + 0.2], |_| ())
        };
        of.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_change_is_told_with_its_size_its_side_and_what_changed_there() {
        let runs = nightly(&[("0.14.1", 100.0); 8].into_iter().chain([("0.15.0", 94.0); 5]).collect::<Vec<_>>());
        let metric = metric();
        let all = all(&runs, &metric);
        let [trend] = all.as_slice() else { panic!("{all:?}") };
        let [step] = trend.levels.steps.as_slice() else { panic!("{:?}", trend.levels) };
        assert_eq!((step.at, trend.points.len(), trend.points[0].estimate.n), (8, 13, 3));
        let (low, high) = step.interval.unwrap();
        assert!((trend.part(step.change) + 0.06).abs() < 0.003, "{step:?}");
        assert!(trend.part(low) < -0.06 && trend.part(high) > -0.065, "{step:?}");
        assert_eq!(trend.outcome(step.change), Outcome::Worse);
        assert!((trend.level(1) - 94.0).abs() < 0.3);
        let changed = Changed { what: "vLLM".into(), before: "0.14.1".into(), after: "0.15.0".into() };
        assert_eq!(trend.changed_at(0), [changed]);
        assert!(trend.points[1].changed.is_empty());
    }

    #[test]
    fn a_latency_that_rises_is_worse() {
        let runs = nightly(&[("1", 100.0); 6].into_iter().chain([("1", 120.0); 4]).collect::<Vec<_>>());
        let metric = Metric { better: Some(Better::Lower), ..metric() };
        let all = all(&runs, &metric);
        assert_eq!(all[0].outcome(all[0].levels.steps[0].change), Outcome::Worse);
    }

    #[test]
    fn simulated_and_measured_other_work_and_neighbours_are_trends_of_their_own() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let serve = "vllm serve m --gpu-memory-utilization 0.9 --disable-cascade-attn --seed 0";
        let of = |name: &str, version: &str, simulated: bool, neighbours: u32| {
            run(name, version, &[100.0], |row| {
                row.simulated = simulated;
                row.about.neighbours = Some(neighbours);
                row.about.serve_command = words(serve);
                row.about.bench_command = words("vllm bench serve --ignore-eos");
            })
        };
        let runs = [
            of("a", "0.14.1", false, 0),
            of("b", "0.14.1", true, 0),
            // Its client sends another temperature.
            of("c", "0.32.0", false, 0),
            of("d", "0.14.1", false, 2),
            of("e", "0.14.1", false, 0),
            of("f", "0.32.0", false, 0),
        ];
        let metric = metric();
        let all = all(&runs, &metric);
        let names: Vec<String> =
            all.iter().map(|trend| trend.points.iter().map(|point| point.run.facts.run.as_str()).collect()).collect();
        assert_eq!(names, ["cf", "ae", "d", "b"]);
        assert!(all[0].apart.as_ref().unwrap().starts_with("not the same work"), "{:?}", all[0].apart);
        assert_eq!((all[1].apart.as_deref(), all[2].apart.as_deref()), (None, Some("others ran beside it")));
    }

    #[test]
    fn settings_that_are_ignored_may_change_on_a_trend_and_are_said() {
        let of = |name: &str, seqs: &str| {
            run(name, "1", &[100.0], |row| {
                row.about.flags = Arc::new([("max-num-seqs".to_owned(), seqs.to_owned())].into());
                row.about.settings = serde_json::from_value(format!("{seqs:0>64}").into()).ok();
            })
        };
        let runs = [of("a", "64"), of("b", "64"), of("c", "256")];
        let metric = metric();
        let apart: Vec<String> = all(&runs, &metric)
            .iter()
            .flat_map(|of| &of.told_by)
            .map(|(key, value)| format!("{key} {value}"))
            .collect();
        assert_eq!(apart, ["max-num-seqs 64", "max-num-seqs 256"]);
        let ignore = ["max-num-seqs".to_owned()];
        let merged = trends(&runs, &metric, &ignore, |_| true, &mut Search::default());
        assert_eq!((merged.len(), merged[0].points.len()), (1, 3));
        assert_eq!(merged[0].points[2].changed[0].after, "256");
        assert!(ambiguous_in(&runs, &ignore, |_| true).is_none());
    }

    #[test]
    fn runs_that_are_damaged_failed_or_not_believed_take_no_part() {
        let mut damaged = run("a", "1", &[100.0], |_| ());
        damaged.skipped = Some("its journal is damaged".into());
        let failed = run("b", "1", &[100.0], |row| row.status = super::super::Status::Invalid("no".into()));
        assert_eq!(failed.skipped.as_deref(), Some("it has no valid result"));
        let suspect = run("c", "1", &[100.0], |row| {
            let kind = super::super::WarningKind::ShortOutputs;
            row.about.warnings.push(super::super::Warning { kind, text: "shortened".into() });
        });
        assert_eq!(suspect.measured[0].excluded.as_deref(), Some("shortened"));
        let runs = [damaged, failed, suspect];
        assert!(all(&runs, &metric()).is_empty());
    }

    #[test]
    fn values_that_are_not_positive_are_compared_as_parts_of_the_largest() {
        let runs: Vec<Past> = [0.0, 0.1, 0.0, 0.1, 8.0, 8.1, 8.0, 8.1]
            .iter()
            .enumerate()
            .map(|(i, rate)| run(&format!("r{i}"), "1", &[*rate], |_| ()))
            .collect();
        let metric = metric();
        let all = all(&runs, &metric);
        assert!(!all[0].is_relative() && all[0].levels.steps.len() == 1, "{:?}", all[0].levels);
        assert!(
            (all[0].part(all[0].levels.steps[0].change) - 0.99).abs() < 0.01 && (all[0].level(1) - 8.05).abs() < 1e-9
        );
    }

    #[test]
    fn a_plan_is_its_models_and_what_varies() {
        let past = run("a", "1", &[100.0, 101.0], |_| ());
        let text: Vec<String> = past.plan.iter().map(|(key, values)| format!("{key} {}", values.join("/"))).collect();
        assert_eq!(text, ["model m", "starts 1/2"]);
        assert_eq!((past.counts.passed, past.simulated), (2, false));
    }
}
