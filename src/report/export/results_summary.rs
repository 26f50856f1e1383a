//! `results_summary.csv`: one line per experiment, the predecessor's columns first, then ours.
//!
//! The data stay exact: a model whose name begins with `=`, `+`, `-` or `@` is written as it is, though a spreadsheet
//! may take it for a formula. Whoever joins this table with another needs the true name, a path may well begin with
//! such a character, and the prefix that would defuse it (`'`) is data for every other reader of CSV. Import the file
//! as text where names come from unplanned.

use std::io::{self, Write};

use super::cells::{cause, put_number, reason, status};
use super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::analyse::{Row, RunTable};
use crate::model::{Unit, VllmMetric};
use crate::results::shown;

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

/// Ours, before the remaining metrics of vLLM.
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

/// Rows whose lines are held at once.
const PART: usize = 256;

/// The metrics that the predecessor's columns hold.
const THEIR_METRICS: [VllmMetric; 4] =
    [VllmMetric::RequestThroughput, VllmMetric::OutputThroughput, VllmMetric::MeanTtft, VllmMetric::MeanTpot];

/// The table beside a run.
pub struct ResultsSummary;

impl Exporter<Analysis<'_>> for ResultsSummary {
    fn format(&self) -> Format {
        Format::one("results-summary", "One line per experiment", "csv")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(write(analysis.table, out)?)
    }
}

fn write(table: &RunTable, out: &mut dyn Write) -> io::Result<()> {
    let others: Vec<VllmMetric> =
        VllmMetric::ALL.into_iter().filter(|metric| !THEIR_METRICS.contains(metric)).collect();
    let mut csv = csv::Writer::from_writer(out);
    let keys = others.iter().map(|metric| metric.key());
    let further = Further::of(table);
    csv.write_record(THEIRS.into_iter().chain(OURS).chain(keys).map(str::to_owned).chain(further.names()))?;
    csv.flush()?;
    let out = csv.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    for rows in table.rows.chunks(PART) {
        out.write_all(&lines(rows, &others, &further)?)?;
    }
    out.flush()
}

/// The lines of some rows.
fn lines(rows: &[Row], others: &[VllmMetric], further: &Further) -> io::Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::with_capacity(rows.len() * 512));
    let mut scratch = String::new();
    for row in rows {
        record(&mut csv, row, others, &mut scratch)?;
        for field in further.fields(row) {
            csv.write_field(field)?;
        }
        csv.write_record(None::<&[u8]>)?;
    }
    csv.into_inner().map_err(|error| io::Error::other(error.to_string()))
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
    warnings: bool,
    /// Whether anything was measured beside others.
    lanes: bool,
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
            warnings: table.rows.iter().any(|row| row.warnings().next().is_some()),
            lanes: table.rows.iter().any(|row| row.about.neighbours > Some(0)),
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.server.iter().map(|key| format!("serve.{key}")).collect();
        names.extend(self.workload.iter().map(|key| format!("bench.{key}")));
        let more = [
            (self.repeats, "Start"),
            (self.repeats, "Run"),
            (self.groups, "Groups"),
            (self.baseline, "Baseline"),
            (self.warnings, "Warnings"),
            (self.lanes, "Neighbours"),
            (self.lanes, "Replaced"),
        ];
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
        let warnings = || row.warnings().map(|warning| warning.text.clone()).collect::<Vec<_>>().join("; ");
        fields.extend(self.warnings.then(warnings));
        if self.lanes {
            fields.push(row.about.neighbours.map(|neighbours| neighbours.to_string()).unwrap_or_default());
            fields.push(row.replaced.to_string());
        }
        fields
    }
}

/// The fields of one line that every line has. What is not known is an empty field, never 0.
fn record(csv: &mut csv::Writer<Vec<u8>>, row: &Row, others: &[VllmMetric], scratch: &mut String) -> io::Result<()> {
    let mut put = |csv: &mut csv::Writer<Vec<u8>>, value: Option<f64>, unit: Unit| {
        scratch.clear();
        put_number(scratch, value, unit);
        csv.write_field(scratch.as_bytes())
    };
    let axes = &row.axes;
    csv.write_field(&axes.model)?;
    csv.write_field(axes.tensor_parallel_size.map(|tp| tp.to_string()).unwrap_or_default())?;
    csv.write_field(axes.quantization.as_deref().unwrap_or_default())?;
    csv.write_field(axes.enforce_eager.map_or("", word))?;
    for metric in THEIR_METRICS {
        put(csv, row.metrics.get(metric), metric.unit())?;
    }
    csv.write_field(row.source.as_deref().map(shown).unwrap_or_default().as_bytes())?;
    csv.write_field(status(&row.status))?;
    csv.write_field(cause(&row.status))?;
    csv.write_field(reason(&row.status))?;
    csv.write_field(word(row.simulated))?;
    csv.write_field(row.attempt.map(|attempt| attempt.to_string()).unwrap_or_default())?;
    let timings = row.timings.as_ref();
    for seconds in [
        timings.and_then(|timings| timings.startup),
        timings.and_then(|timings| timings.benchmark),
        timings.map(|timings| timings.total),
    ] {
        put(csv, seconds, Unit::Seconds)?;
    }
    csv.write_field(&row.name)?;
    csv.write_field(row.identity.as_ref().map(ToString::to_string).unwrap_or_default())?;
    for metric in others {
        put(csv, row.metrics.get(*metric), metric.unit())?;
    }
    Ok(())
}

fn word(yes: bool) -> &'static str {
    if yes { "true" } else { "false" }
}
