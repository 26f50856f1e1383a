//! A run as MLflow has it: a run for the sweep, and below it one for each experiment, whose repeats are steps. Pure.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use indexmap::IndexMap;

use super::limits::{Pair, Point, name, named, param, tag};
use crate::analyse::{Row, RunTable, Status};
use crate::model::{Event, Outcome, Side, Stamped, VllmMetric};
use crate::safe;
use crate::words::counted;

/// The tag that says of which run of ours something is.
pub const RUN: &str = "vllm_bench.run_id";
/// The tag that says what of it: [`PARENT`], or an experiment.
pub const KEY: &str = "vllm_bench.key";
/// The key of the run that stands for the sweep.
pub const PARENT: &str = "sweep";
/// The tag that says which reports were sent.
pub const REPORTS: &str = "vllm_bench.reports";
/// MLflow's tag of the run above.
pub const ABOVE: &str = "mlflow.parentRunId";
/// What its tags begin with that say which measurement was sent whole.
const MARK: &str = "vllm_bench.measured.";
/// The same of a part of a series of samples.
pub const SERIES: &str = "vllm_bench.series.";
/// MLflow's tag of the text under a run's name.
const NOTE: &str = "mlflow.note.content";

/// How a run of MLflow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It goes on.
    Running,
    /// It is over, and nothing failed.
    Finished,
    /// Something failed.
    Failed,
    /// It was ended before it was over.
    Killed,
}

impl Stands {
    /// MLflow's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
        }
    }
}

/// A run of MLflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Among those of one run of ours.
    pub key: String,
    /// What it is called.
    pub name: String,
    /// When it began, in milliseconds since 1970.
    pub begun: i64,
    /// When it ended; `None` while it goes on.
    pub ended: Option<i64>,
    /// How it stands.
    pub stands: Stands,
    /// Settings.
    pub params: Vec<Pair>,
    /// Tags, [`RUN`] and [`KEY`] among them.
    pub tags: Vec<Pair>,
    /// What was measured, or failed.
    pub measurements: Vec<Measurement>,
}

/// One measurement of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The experiment's name in the plan.
    pub name: String,
    /// The tag that says that all of it was sent.
    pub mark: Pair,
    /// Which of the experiment's measurements, from 1.
    pub step: i64,
    /// Its metrics.
    pub points: Vec<Point>,
    /// The series of samples, relative to the run directory.
    pub samples: Option<PathBuf>,
    /// Its result file, relative to the run directory.
    pub result: Option<PathBuf>,
    /// The log that shows its failure, relative to the run directory.
    pub log: Option<PathBuf>,
    /// Whether there is no valid result.
    pub failed: bool,
}

/// A run as MLflow has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// By which it is known.
    pub run: String,
    /// The run that stands for the sweep; `None` for a single result file.
    pub parent: Option<Entry>,
    /// One for each experiment of which something was measured.
    pub children: Vec<Entry>,
}

impl Outline {
    /// How many measurements there are.
    pub fn measurements(&self) -> usize {
        self.children.iter().map(|child| child.measurements.len()).sum()
    }
}

/// What is known of a run beside its table.
#[derive(Debug, Default)]
pub struct Known<'a> {
    /// By which MLflow knows it.
    pub run: String,
    /// When it began, in milliseconds since 1970.
    pub begun: i64,
    /// Settings of the sweep.
    pub settings: Vec<Pair>,
    /// Tags of the sweep.
    pub tags: Vec<Pair>,
    /// What happened.
    pub journal: &'a [Stamped],
}

/// When the newest attempt at each experiment began and ended.
type Times<'j> = HashMap<&'j str, (i64, Option<i64>)>;

/// The times of a journal in milliseconds since 1970, and the last moment of all.
fn times(journal: &[Stamped]) -> (Times<'_>, Option<i64>) {
    let mut times = Times::new();
    let mut last = None;
    for stamped in journal {
        let Some(at) = stamped.time().map(|at| at.timestamp_millis()) else { continue };
        last = last.max(Some(at));
        match &stamped.event {
            Event::ExperimentStarted { name, .. } => drop(times.insert(name, (at, None))),
            Event::ExperimentFinished { name, outcome, .. } if !matches!(outcome, Outcome::Interrupted) => {
                times.entry(name).or_insert((at, None)).1 = Some(at);
            }
            _ => {}
        }
    }
    (times, last)
}

/// A run with all its experiments.
pub fn of_run(table: &RunTable, known: &Known<'_>) -> Outline {
    let (times, last) = times(known.journal);
    let mut groups: IndexMap<String, Vec<&Row>> = IndexMap::new();
    for row in table.rows.iter().filter(|row| !row.is_skipped()) {
        let Some(identity) = &row.identity else { continue };
        let side = if row.side == Some(Side::Before) { "-before" } else { "" };
        groups.entry(format!("{identity}{side}")).or_default().push(row);
    }
    let when = |row: &Row| times.get(row.name.as_str()).map(|(begun, ended)| (*begun, ended.unwrap_or(*begun)));
    let children = groups.iter().filter_map(|(key, rows)| {
        let of = Of { run: &known.run, key, begun: known.begun, live: table.facts.live };
        entry(&of, rows, when)
    });
    let children = children.collect();
    let parent = Some(sweep(table, known, last));
    Outline { run: known.run.clone(), parent, children }
}

/// Result files without a run: an entry for each result, and one above them where they are several. `at`: their time.
pub fn of_results(table: &RunTable, run: &str, at: i64) -> Outline {
    let many = table.rows.len() > 1;
    let known = Known { run: run.to_owned(), begun: at, ..Known::default() };
    let child = |(number, row): (usize, &Row)| {
        let key = format!("result-{}", number + 1);
        entry(&Of { run, key: &key, begun: at, live: false }, &[row], |_| Some((at, at)))
    };
    let children = table.rows.iter().enumerate().filter_map(child).collect();
    Outline { run: run.to_owned(), parent: many.then(|| sweep(table, &known, Some(at))), children }
}

/// What the measurements of an experiment have in common.
struct Of<'a> {
    run: &'a str,
    key: &'a str,
    begun: i64,
    live: bool,
}

fn sweep(table: &RunTable, known: &Known<'_>, last: Option<i64>) -> Entry {
    let facts = &table.facts;
    let planned: Vec<&Row> = table.rows.iter().filter(|row| !row.is_skipped()).collect();
    let is = |of: fn(&Row) -> bool| planned.iter().filter(|row| of(row)).count();
    let [valid, bad] = [is(Row::is_valid), is(failed)];
    let open = planned.len() - valid - bad;
    let stands = match (facts.live, open) {
        (true, _) => Stands::Running,
        (false, 0) => Stands::Finished,
        (false, _) => Stands::Killed,
    };
    let title = facts.name.clone().unwrap_or_else(|| facts.run.clone());
    let mut tags: Vec<Pair> = vec![
        (RUN.into(), known.run.clone()),
        (KEY.into(), PARENT.into()),
        ("vllm_bench.run".into(), facts.run.clone()),
        ("vllm_bench.simulated".into(), table.is_all_simulated().to_string()),
        ("vllm_bench.planned".into(), planned.len().to_string()),
        ("vllm_bench.passed".into(), valid.to_string()),
        ("vllm_bench.failed".into(), bad.to_string()),
        ("vllm_bench.skipped".into(), (table.rows.len() - planned.len()).to_string()),
    ];
    let listed = |values: &[String]| Some(values.join(", ")).filter(|text| !text.is_empty());
    let more = [
        ("vllm_bench.name", facts.name.clone()),
        ("vllm_bench.vllm_version", listed(&facts.vllm_versions)),
        ("vllm_bench.device", table.rows.iter().find_map(|row| row.about.device.as_deref().map(str::to_owned))),
        ("vllm_bench.damaged", listed(&facts.damaged)),
        (NOTE, Some(told(table, planned.len(), valid, bad))),
    ];
    tags.extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    tags.extend(known.tags.iter().cloned());
    Entry {
        key: PARENT.into(),
        name: tag(&title),
        begun: known.begun,
        ended: if stands == Stands::Running { None } else { last.or(Some(known.begun)) },
        stands,
        params: fit(known.settings.clone(), param),
        tags: fit(tags, tag),
        measurements: Vec::new(),
    }
}

fn told(table: &RunTable, planned: usize, valid: usize, bad: usize) -> String {
    let mark = if table.is_all_simulated() { "SIMULATED: no metric was measured on a real server. " } else { "" };
    format!(
        "{mark}vllm-bench run {}: {} planned, {valid} passed, {bad} failed",
        table.facts.run,
        counted(planned, "experiment")
    )
}

fn failed(row: &Row) -> bool {
    matches!(row.status, Status::Failed(_) | Status::Invalid(_))
}

/// An experiment, by its measurements in the order of the plan; `None` where there is none yet.
fn entry(of: &Of<'_>, rows: &[&Row], when: impl Fn(&Row) -> Option<(i64, i64)>) -> Option<Entry> {
    let first = rows.first()?;
    let mut measurements = Vec::new();
    for (row, step) in rows.iter().zip(1..) {
        if row.is_valid() || failed(row) {
            measurements.push(measurement(row, step, when(row).map_or(of.begun, |(_, ended)| ended)));
        }
    }
    if measurements.is_empty() {
        return None;
    }
    let done = measurements.len() == rows.len();
    let stands = match (of.live && !done, rows.iter().any(|row| failed(row)), done) {
        (true, ..) => Stands::Running,
        (false, true, _) => Stands::Failed,
        (false, false, true) => Stands::Finished,
        (false, false, false) => Stands::Killed,
    };
    let moments: Vec<(i64, i64)> = rows.iter().filter_map(|row| when(row)).collect();
    let mut tags = vec![(RUN.to_owned(), of.run.to_owned()), (KEY.to_owned(), of.key.to_owned())];
    tags.extend(tags_of(rows));
    Some(Entry {
        key: of.key.to_owned(),
        name: tag(&first.name),
        begun: moments.iter().map(|(begun, _)| *begun).min().unwrap_or(of.begun),
        ended: if stands == Stands::Running {
            None
        } else {
            moments.iter().map(|(_, ended)| *ended).max().or(Some(of.begun))
        },
        stands,
        params: fit(settings(first), param),
        tags: fit(tags, tag),
        measurements,
    })
}

/// The word for what came of a row.
fn outcome(row: &Row) -> &'static str {
    match row.status {
        Status::Valid => "passed",
        Status::Failed(_) => "failed",
        Status::Invalid(_) => "invalid",
        Status::Skipped { .. } => "skipped",
        Status::Interrupted => "interrupted",
        Status::Running => "running",
        Status::NotRun => "not-run",
    }
}

fn measurement(row: &Row, step: i64, at: i64) -> Measurement {
    let fixed =
        VllmMetric::ALL.into_iter().filter_map(|metric| Some((metric.key().to_owned(), row.metrics.get(metric)?)));
    let further = row.about.further.iter().map(|(key, value)| (key.to_owned(), value));
    let timings = row.timings.iter().flat_map(|timings| {
        let parts = [
            ("time_startup_s", timings.startup),
            ("time_benchmark_s", timings.benchmark),
            ("time_teardown_s", timings.teardown),
        ];
        parts.into_iter().chain([("time_total_s", Some(timings.total))])
    });
    let timings = timings.filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let mut metrics: BTreeMap<String, f64> = BTreeMap::new();
    for (key, value) in fixed.chain(further).chain(timings).filter(|(_, value)| value.is_finite()) {
        metrics.entry(name(&key)).or_insert(value);
    }
    let log = match &row.status {
        Status::Failed(failed) => failed.log.clone(),
        _ => None,
    };
    Measurement {
        name: row.name.clone(),
        mark: (format!("{MARK}{step}"), format!("{} attempt {}", outcome(row), row.attempt.unwrap_or(1))),
        step,
        points: metrics.into_iter().map(|(key, value)| Point { key, value, at, step }).collect(),
        samples: row.about.samples.clone(),
        result: row.source.clone(),
        log,
        failed: failed(row),
    }
}

fn settings(row: &Row) -> Vec<Pair> {
    let mut params: IndexMap<String, String> = IndexMap::new();
    params.insert("model".into(), row.axes.model.clone());
    for (key, value) in row.about.flags.iter() {
        params.insert(format!("serve.{key}"), value.clone());
    }
    let axes = &row.axes;
    let fixed = [
        ("tensor-parallel-size", axes.tensor_parallel_size.map(|size| size.to_string())),
        ("quantization", axes.quantization.clone()),
        ("enforce-eager", axes.enforce_eager.map(|eager| eager.to_string())),
    ];
    for (key, value) in fixed {
        if let Some(value) = value {
            params.entry(format!("serve.{key}")).or_insert(value);
        }
    }
    for (key, value) in &axes.server {
        let key = if key.starts_with("env.") { key.clone() } else { format!("serve.{key}") };
        params.entry(key).or_insert_with(|| value.clone());
    }
    for (key, value) in &row.about.serve_environment {
        params.entry(format!("env.{key}")).or_insert_with(|| value.clone());
    }
    // The length of the context stands among the flags of the server.
    for (key, value) in row.load.0.iter().filter(|(key, _)| *key != "max-model-len") {
        params.insert(format!("bench.{key}"), value.to_string());
    }
    for (key, value) in &axes.workload {
        params.entry(format!("bench.{key}")).or_insert_with(|| value.clone());
    }
    params.into_iter().collect()
}

fn tags_of(rows: &[&Row]) -> Vec<Pair> {
    let first = rows[0];
    let mut outcomes: IndexMap<&str, usize> = IndexMap::new();
    rows.iter().for_each(|row| *outcomes.entry(outcome(row)).or_default() += 1);
    let outcomes = match outcomes.keys().collect::<Vec<_>>().as_slice() {
        [one] => (**one).to_owned(),
        _ => outcomes.iter().map(|(word, n)| format!("{n} {word}")).collect::<Vec<_>>().join(", "),
    };
    let causes = each(rows, |row| match &row.status {
        Status::Failed(failed) => failed.cause.map(|cause| cause.to_string()).into_iter().collect(),
        Status::Invalid(_) => vec!["invalid-result".to_owned()],
        _ => Vec::new(),
    });
    let note = rows.iter().find_map(|row| match &row.status {
        Status::Failed(failed) => {
            let evidence =
                failed.evidence.iter().take(3).map(|line| format!("\n    line {}: {}", line.line, line.text));
            Some(format!("{}\n{}", failed.summary, evidence.collect::<String>()))
        }
        Status::Invalid(reason) => Some(reason.clone()),
        _ => None,
    });
    let attempts = rows.iter().filter_map(|row| row.attempt).max();
    let words = |list: Vec<String>, with: &str| Some(list.join(with)).filter(|text| !text.is_empty());
    let command = crate::words::shell_line(first.about.serve_command.iter().map(String::as_str));
    let tags = [
        ("vllm_bench.experiment", Some(first.name.clone())),
        ("vllm_bench.identity", first.identity.as_ref().map(|identity| identity.to_string())),
        ("vllm_bench.simulated", Some(first.simulated.to_string())),
        ("vllm_bench.outcome", Some(outcomes)),
        ("vllm_bench.cause", words(causes, ", ")),
        ("vllm_bench.attempts", attempts.map(|n| n.to_string())),
        (
            "vllm_bench.warnings",
            words(each(rows, |row| row.warnings().map(|warning| warning.text.clone()).collect()), " · "),
        ),
        (
            "vllm_bench.vllm_version",
            words(each(rows, |row| row.about.vllm_version.iter().map(ToString::to_string).collect()), ", "),
        ),
        ("vllm_bench.device", first.about.device.as_deref().map(str::to_owned)),
        ("vllm_bench.devices", first.about.devices.map(|n| n.to_string())),
        ("vllm_bench.groups", words(first.groups.clone(), ", ")),
        ("vllm_bench.baseline", first.baseline.then(|| "true".to_owned())),
        ("vllm_bench.side", first.side.map(|side| if side == Side::Before { "before" } else { "after" }.to_owned())),
        ("vllm_bench.client", first.about.client.map(|client| client.to_string())),
        ("vllm_bench.serve_command", Some(command).filter(|command| !command.is_empty())),
        ("vllm_bench.server_log", first.about.server_log.as_ref().map(|log| log.display().to_string())),
        (NOTE, note),
    ];
    tags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// What the rows say, each once.
fn each(rows: &[&Row], of: impl Fn(&Row) -> Vec<String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for text in rows.iter().flat_map(|row| of(row)) {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

fn fit(pairs: Vec<Pair>, value: fn(&str) -> String) -> Vec<Pair> {
    named(pairs).into_iter().map(|(key, text)| (key, value(&safe::redact(&text)))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::analyse::{Facts, FailedAttempt, Origin, ShownAxes};
    use crate::model::{Cause, Evidence, Headline, Identity, Phase, Timings};

    fn row(name: &str, of: &str, status: Status) -> Row {
        let mut row = Row::bare(name.to_owned(), ShownAxes::of_model("org/m".into()), status);
        row.identity = Some(Identity::of_stated(&BTreeMap::from([("of".to_owned(), of.to_owned())])));
        row.attempt = Some(2);
        row
    }

    fn measured(name: &str, of: &str, throughput: f64) -> Row {
        let mut row = row(name, of, Status::Valid);
        row.metrics.set(VllmMetric::OutputThroughput, Some(throughput));
        row.about.further.insert("p95_ttft_ms", 7.0);
        row.about.further.insert("p50_ttft_ms", f64::NAN);
        row.timings = Some(Timings { total: 9.0, ..Timings::default() });
        row
    }

    fn broken(name: &str, of: &str) -> Row {
        let failed = FailedAttempt {
            cause: Some(Cause::OutOfDeviceMemory),
            phase: Some(Phase::Launching),
            evidence: vec![Evidence { line: 7, text: "no memory".into() }],
            ..FailedAttempt::of("it ran out".into())
        };
        row(name, of, Status::Failed(Box::new(failed)))
    }

    fn table(rows: Vec<Row>, live: bool) -> RunTable {
        let facts = Facts::bare(PathBuf::new(), "20260225_1430".into(), Origin::Predecessor);
        RunTable { facts: Facts { live, ..facts }, more: Vec::new(), rows, unreadable: Vec::new(), simulated: false }
    }

    fn known(journal: &[Stamped]) -> Known<'_> {
        Known { run: "ours".into(), begun: 1000, journal, ..Known::default() }
    }

    fn tag<'e>(entry: &'e Entry, key: &str) -> Option<&'e str> {
        entry.tags.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn repeats_are_steps_of_one_run_and_what_is_not_measured_is_no_run() {
        let rows = vec![measured("a", "x", 1.0), measured("a_2", "x", 2.0), row("b", "y", Status::NotRun)];
        let outline = of_run(&table(rows, false), &known(&[]));
        assert_eq!((outline.children.len(), outline.measurements()), (1, 2));
        let child = &outline.children[0];
        let points: Vec<(&str, f64, i64)> =
            child.measurements.iter().flat_map(|one| &one.points).map(|p| (p.key.as_str(), p.value, p.step)).collect();
        for expected in [
            ("output_throughput", 1.0, 1),
            ("output_throughput", 2.0, 2),
            ("p95_ttft_ms", 7.0, 1),
            ("time_total_s", 9.0, 2),
        ] {
            assert!(points.contains(&expected), "{expected:?}: {points:?}");
        }
        assert!(points.iter().all(|(_, value, _)| value.is_finite()));
        assert_eq!((child.name.as_str(), child.stands, child.ended), ("a", Stands::Finished, Some(1000)));
        assert_eq!(child.measurements[1].mark, ("vllm_bench.measured.2".into(), "passed attempt 2".into()));
        assert_eq!((tag(child, RUN), tag(child, "vllm_bench.outcome")), (Some("ours"), Some("passed")));
        let parent = outline.parent.unwrap();
        assert_eq!((parent.stands, tag(&parent, "vllm_bench.planned")), (Stands::Killed, Some("3")), "one is missing");
    }

    #[test]
    fn a_failure_says_why_and_a_live_run_is_not_over() {
        let rows = || vec![broken("a", "x"), measured("a_2", "x", 2.0), row("a_3", "x", Status::NotRun)];
        let outline = of_run(&table(rows(), true), &known(&[]));
        let child = &outline.children[0];
        assert_eq!((child.stands, child.ended), (Stands::Running, None));
        assert_eq!(tag(child, "vllm_bench.outcome"), Some("1 failed, 1 passed, 1 not-run"));
        assert_eq!(tag(child, "vllm_bench.cause"), Some("out-of-device-memory"));
        assert_eq!(tag(child, NOTE), Some("it ran out\n\n    line 7: no memory"));
        assert!(child.measurements[0].failed && child.measurements[0].points.is_empty());
        assert_eq!(of_run(&table(rows(), false), &known(&[])).children[0].stands, Stands::Failed);
    }

    #[test]
    fn times_are_those_of_the_newest_attempt() {
        let stamped =
            |second: u32, event: Event| Stamped { v: 1, seq: 1, at: format!("1970-01-01T00:00:{second:02}Z"), event };
        let begins =
            |attempt| Event::ExperimentStarted { index: 1, name: "a".into(), attempt, axes: None, placement: None };
        let ends = |outcome| Event::ExperimentFinished {
            index: 1,
            name: "a".into(),
            attempt: 1,
            outcome,
            timings: Timings::default(),
            metrics: BTreeMap::new(),
        };
        let passed = Outcome::Passed { headline: Headline::default() };
        let journal = [
            stamped(1, begins(1)),
            stamped(2, ends(Outcome::Interrupted)),
            stamped(5, begins(2)),
            stamped(8, ends(passed)),
            stamped(9, Event::Notice { text: String::new() }),
        ];
        let outline = of_run(&table(vec![measured("a", "x", 1.0)], false), &known(&journal));
        let child = &outline.children[0];
        assert_eq!((child.begun, child.ended, child.measurements[0].points[0].at), (5000, Some(8000), 8000));
        assert_eq!(outline.parent.unwrap().ended, Some(9000));
    }

    #[test]
    fn the_two_sides_of_a_comparison_are_two_runs_and_every_name_is_fit() {
        let mut rows = vec![measured("before_a", "x", 1.0), measured("a", "x", 2.0)];
        (rows[0].side, rows[1].side) = (Some(Side::Before), Some(Side::After));
        std::sync::Arc::make_mut(&mut rows[1].about.flags).insert("odd flag!".into(), "x".repeat(9000));
        let outline = of_run(&table(rows, false), &known(&[]));
        let keys: HashSet<&str> = outline.children.iter().map(|child| child.key.as_str()).collect();
        assert_eq!(keys.len(), 2);
        let all =
            outline.children.iter().chain(&outline.parent).flat_map(|entry| entry.params.iter().chain(&entry.tags));
        for (key, value) in all {
            assert_eq!(name(key), *key);
            assert!(value.chars().count() <= 6000, "{key}");
        }
    }
}
