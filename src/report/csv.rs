//! `results_summary.csv`: one line per experiment, the predecessor's columns first, then ours.
//!
//! The data stay exact: a model whose name begins with `=`, `+`, `-` or `@` is written as it is, though a spreadsheet
//! may take it for a formula. Whoever joins this table with another needs the true name, a path may well begin with
//! such a character, and the prefix that would defuse it (`'`) is data for every other reader of CSV. Import the file
//! as text where names come from strangers.

use std::io::{self, Write};

use crate::analyse::{Metric, Row, RunTable, Status, Unit};

/// The predecessor's columns, in its order.
const THEIRS: [&str; 9] = [
    "Model",
    "TP",
    "Quantization",
    "EnforceEager",
    "ReqThroughput_req_s",
    "OutThroughput_tok_s",
    "TTFT_ms",
    "TPOT_ms",
    "Filename",
];

/// Ours, before the remaining figures of vLLM.
const OURS: [&str; 10] = [
    "Status",
    "Cause",
    "Reason",
    "Simulated",
    "Attempt",
    "StartupSeconds",
    "BenchmarkSeconds",
    "TotalSeconds",
    "Experiment",
    "Identity",
];

/// The figures that the predecessor's columns hold.
const THEIR_METRICS: [Metric; 4] =
    [Metric::RequestThroughput, Metric::OutputThroughput, Metric::MeanTtft, Metric::MeanTpot];

/// Writes the table.
///
/// # Errors
/// When the writer refuses.
pub(super) fn write(table: &RunTable, out: &mut dyn Write) -> io::Result<()> {
    let others: Vec<Metric> = Metric::ALL.into_iter().filter(|metric| !THEIR_METRICS.contains(metric)).collect();
    let mut csv = csv::Writer::from_writer(out);
    let keys = others.iter().map(|metric| metric.key());
    let further = Further::of(table);
    csv.write_record(THEIRS.into_iter().chain(OURS).chain(keys).map(str::to_owned).chain(further.names()))?;
    for row in &table.rows {
        let mut fields = record(row, &others);
        fields.extend(further.fields(row));
        csv.write_record(fields)?;
    }
    csv.flush()
}

/// What only some sweeps have: further keys that vary, repeats, groups, a baseline. They come last, so that the columns
/// before them stay where they are.
struct Further {
    /// Keys of the server.
    server: Vec<String>,
    /// Keys of the workload.
    workload: Vec<String>,
    repeats: bool,
    groups: bool,
    baseline: bool,
}

impl Further {
    fn of(table: &RunTable) -> Self {
        let keys = |of: fn(&Row) -> &Vec<(String, String)>| {
            let mut keys: Vec<String> = Vec::new();
            for (key, _) in table.rows.iter().flat_map(of) {
                if !keys.contains(key) {
                    keys.push(key.clone());
                }
            }
            keys
        };
        Self {
            server: keys(|row| &row.axes.server),
            workload: keys(|row| &row.axes.workload),
            repeats: table.rows.iter().any(|row| row.repeat.is_some()),
            groups: table.rows.iter().any(|row| !row.groups.is_empty()),
            baseline: table.rows.iter().any(|row| row.baseline),
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.server.iter().map(|key| format!("serve.{key}")).collect();
        names.extend(self.workload.iter().map(|key| format!("bench.{key}")));
        let more =
            [(self.repeats, "Start"), (self.repeats, "Run"), (self.groups, "Groups"), (self.baseline, "Baseline")];
        names.extend(more.into_iter().filter(|(there, _)| *there).map(|(_, name)| name.to_owned()));
        names
    }

    fn fields(&self, row: &Row) -> Vec<String> {
        let value = |all: &[(String, String)], key: &String| {
            all.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let mut fields: Vec<String> = self.server.iter().map(|key| value(&row.axes.server, key)).collect();
        fields.extend(self.workload.iter().map(|key| value(&row.axes.workload, key)));
        if self.repeats {
            let numbers = row.repeat.map(|repeat| [repeat.start, repeat.run].map(|n| n.to_string()));
            fields.extend(numbers.unwrap_or_default());
        }
        fields.extend(self.groups.then(|| row.groups.join(", ")));
        fields.extend(self.baseline.then(|| row.baseline.to_string()));
        fields
    }
}

/// One line. What is not known is an empty field, never 0.
fn record(row: &Row, others: &[Metric]) -> Vec<String> {
    let axes = &row.axes;
    let metric = |metric: Metric| number(row.metrics.get(metric), metric.unit());
    let seconds = |value: Option<f64>| number(value, Unit::Seconds);
    let timings = row.timings.as_ref();
    let mut fields = vec![
        axes.model.clone(),
        axes.tensor_parallel_size.map(|tp| tp.to_string()).unwrap_or_default(),
        axes.quantization.clone().unwrap_or_default(),
        axes.enforce_eager.map(|eager| eager.to_string()).unwrap_or_default(),
    ];
    fields.extend(THEIR_METRICS.map(metric));
    fields.push(row.source.as_ref().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default());
    fields.extend([
        status(&row.status).to_owned(),
        cause(&row.status),
        reason(&row.status),
        row.simulated.to_string(),
        row.attempt.map(|attempt| attempt.to_string()).unwrap_or_default(),
        seconds(timings.and_then(|timings| timings.startup)),
        seconds(timings.and_then(|timings| timings.benchmark)),
        seconds(timings.map(|timings| timings.total)),
        row.name.clone(),
        row.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
    ]);
    fields.extend(others.iter().map(|&other| metric(other)));
    fields
}

/// A number in full precision: counts as integers, very large and very small ones with an exponent.
pub(super) fn number(value: Option<f64>, unit: Unit) -> String {
    match (value, unit) {
        (None, _) => String::new(),
        (Some(value), Unit::Requests | Unit::Tokens) if value.fract() == 0.0 && value.abs() < 1e15 => {
            format!("{value:.0}")
        }
        (Some(value), _) => format!("{value:?}"),
    }
}

/// The status in a word that stays the same.
pub(super) fn status(status: &Status) -> &'static str {
    match status {
        Status::Valid => "valid",
        Status::Invalid(_) => "invalid",
        Status::Failed(_) => "failed",
        Status::Skipped { .. } => "skipped",
        Status::Interrupted => "interrupted",
        Status::Running => "running",
        Status::NotRun => "not-run",
    }
}

pub(super) fn cause(status: &Status) -> String {
    match status {
        Status::Failed(failed) => failed.cause.map(|cause| cause.to_string()).unwrap_or_default(),
        Status::Valid
        | Status::Invalid(_)
        | Status::Skipped { .. }
        | Status::Interrupted
        | Status::Running
        | Status::NotRun => String::new(),
    }
}

pub(super) fn reason(status: &Status) -> String {
    match status {
        Status::Failed(failed) => failed.summary.clone(),
        Status::Invalid(reason) | Status::Skipped { reason, .. } => reason.clone(),
        Status::Valid | Status::Interrupted | Status::Running | Status::NotRun => String::new(),
    }
}
