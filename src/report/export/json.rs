//! The analysis as JSON (schema 1, docs/analysis.md). Rows are written one by one. What is not known is `null` or left out.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::analysis::{metric_keys, metrics, requests_under};
use super::cells::{cause, reason, status};
use super::{Analysis, ExportError, Exporter, Format, Sink, recommend};
use crate::analyse::{
    Base, Counts, Facts, Origin, Row, RunTable, all_settings, bases, components, load_labels, over_starts, settings,
    starts_by,
};
use crate::model::Metric;

/// The version of the format: a number that grows when a key changes its meaning or goes.
const SCHEMA: u32 = 1;

/// Everything, for programs.
pub struct Json;

impl Exporter<Analysis<'_>> for Json {
    fn format(&self) -> Format {
        Format::one("json", "Everything, for programs", "json")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(write(analysis, out)?)
    }
}

fn write(analysis: &Analysis<'_>, out: &mut dyn Write) -> io::Result<()> {
    let table = analysis.table;
    let counts = Counts::of(&table.rows);
    let facts: Vec<&Facts> = std::iter::once(&table.facts).chain(&table.more).collect();
    let bases = bases(table, &analysis.wanted);
    let document = Document {
        schema: SCHEMA,
        simulated: table.simulated,
        runs: facts.into_iter().map(run).collect(),
        counts: json!({
            "planned": counts.planned, "passed": counts.passed, "failed": counts.failed, "interrupted": counts.interrupted,
            "running": counts.running, "not_run": counts.not_run, "skipped": counts.skipped,
        }),
        currency: table.rows.iter().find_map(|row| row.about.currency.clone()).map(|currency| currency.to_string()),
        units: units(table),
        rows: Rows(table),
        configurations: configurations(table, &bases),
        speedups: bases.iter().map(over).collect(),
        warnings: crate::analyse::incomparable(&table.rows),
        ranking: recommend::json(analysis),
        unreadable: table.unreadable.iter().map(|bad| json!({"file": bad.file, "reason": bad.reason})).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    simulated: bool,
    runs: Vec<Value>,
    counts: Value,
    currency: Option<String>,
    units: Value,
    rows: Rows<'a>,
    configurations: Vec<Value>,
    speedups: Vec<Value>,
    /// Why rows of different releases of vLLM are not comparable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    ranking: Value,
    unreadable: Vec<Value>,
}

struct Rows<'a>(&'a RunTable);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<&Row> = self.0.rows.iter().collect();
        serializer.collect_seq(rows.iter().zip(load_labels(&rows)).map(|(row, load)| of_row(row, &load)))
    }
}

fn run(facts: &Facts) -> Value {
    json!({
        "run": facts.run,
        "name": facts.name,
        "written_by": match &facts.origin {
            Origin::VllmBench { version } => format!("vllm-bench {version}"),
            Origin::Predecessor => "another program".to_owned(),
            Origin::Files(program) => program.words().to_owned(),
        },
        "created": facts.created,
        "timezone": facts.timezone,
        "engine": facts.engine.map(|engine| engine.to_string()),
        "vllm_versions": facts.vllm_versions,
        "live": facts.live,
    })
}

/// Label, unit and direction of every metric that is in the document.
fn units(table: &RunTable) -> Value {
    let known = metric_keys(&table.rows).into_iter().filter_map(|key| {
        let metric = Metric::of(&key)?;
        let better = metric.better.map(|better| format!("{better:?}").to_lowercase());
        Some((key, json!({"label": metric.label, "unit": metric.unit.symbol(), "better": better})))
    });
    Value::Object(known.collect())
}

fn of_row(row: &Row, load: &str) -> Value {
    let texts = |all: Vec<(String, String)>| -> Map<String, Value> {
        all.into_iter().map(|(key, value)| (key, Value::String(value))).collect()
    };
    let known = |text: String| (!text.is_empty()).then_some(text);
    let under: Map<String, Value> =
        metrics(row).filter_map(|(key, _)| Some((key.to_owned(), requests_under(row, key)?.into()))).collect();
    json!({
        "name": row.name,
        "run": &*row.about.run,
        "source": row.source.as_ref().map(|file| file.to_string_lossy()),
        "model": row.axes.model,
        "workload": load,
        "status": status(&row.status),
        "cause": known(cause(&row.status)),
        "reason": known(reason(&row.status)),
        "simulated": row.simulated,
        "warnings": row.about.warnings,
        "may_be_best": row.may_be_best(),
        "baseline": row.baseline,
        "groups": row.groups,
        "start": row.repeat.map(|repeat| repeat.start),
        "repeat": row.repeat.map(|repeat| repeat.run),
        "attempt": row.attempt,
        "identity": row.identity,
        "devices": row.about.devices,
        "neighbours": row.about.neighbours,
        "replaced": row.replaced,
        "device": row.about.device.as_deref(),
        "settings": texts(all_settings(row)),
        "load": texts(row.load.0.iter().map(|(key, value)| (key.clone(), value.to_string())).collect()),
        "metrics": metrics(row).map(|(key, value)| (key.to_owned(), json!(value))).collect::<Map<String, Value>>(),
        "samples_beyond": under,
    })
}

/// What the speed-ups of a model and workload are over.
fn over(base: &Base<'_>) -> Value {
    let used = base.used.as_ref();
    json!({
        "model": base.model, "workload": base.workload, "baseline": used.map(|used| &used.row.name),
        "rule": used.map(|used| used.rule), "warning": base.warning(),
    })
}

/// What the repeats of each configuration say: one sample is one sample, without an interval.
fn configurations(table: &RunTable, bases: &[Base<'_>]) -> Vec<Value> {
    let valid: Vec<&Row> = table.rows.iter().filter(|row| row.stands()).collect();
    let keys = metric_keys(&table.rows);
    let directed: Vec<&String> =
        keys.iter().filter(|key| Metric::of(key).is_some_and(|metric| metric.better.is_some())).collect();
    let one = |rows: Vec<&Row>| {
        let first = *rows.first()?;
        let metrics: Map<String, Value> = directed
            .iter()
            .filter_map(|key| {
                let starts = starts_by(&rows, key)?;
                let mut value = serde_json::to_value(over_starts(&starts)?).ok()?;
                if let Some(parts) = components(&starts) {
                    value["between_starts"] = json!(parts.between_starts);
                    value["within_start"] = json!(parts.within_start);
                }
                Some(((*key).clone(), value))
            })
            .collect();
        let starts: std::collections::BTreeSet<u32> =
            rows.iter().map(|row| row.repeat.map_or(1, |repeat| repeat.start)).collect();
        let base =
            bases.iter().flat_map(|base| &base.used).any(|used| rows.iter().any(|row| std::ptr::eq(*row, used.row)));
        Some(json!({
            "name": first.name, "model": first.axes.model, "is_baseline": base,
            "measurements": rows.len(), "starts": starts.len(), "metrics": metrics,
        }))
    };
    settings(&valid).into_iter().filter_map(one).collect()
}
