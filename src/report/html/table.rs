//! The columns of the table of experiments, and its rows for a reader without the script.

use serde::Serialize;

use super::super::display::{ABSENT, clean, cut, in_unit};
use super::super::export::{Analysis, status as status_key};
use super::super::text::status;
use crate::analyse::RankingSpec;
use crate::analyse::{RANKED, Row, RunTable, Warning, WarningKind};
use crate::model::{Metric, VllmMetric};

/// A setting over all rows.
pub(super) struct Setting {
    /// vLLM's flag name, or what else it is called.
    pub key: String,
    /// Its distinct values, in order of appearance.
    pub values: Vec<String>,
    /// For each row, which of them; `None` where it is not set or not known.
    pub of_row: Vec<Option<usize>>,
    /// Part of the load.
    pub load: bool,
    /// Whether rows differ in it. Of a combination that a rule left out only what varies in the plan is known: that it has no more
    /// is no difference.
    pub varies: bool,
}

/// What the table can show.
pub(super) struct Columns {
    /// Settings, those of the grid first.
    pub settings: Vec<Setting>,
    /// Metrics that some row has.
    pub metrics: Vec<Metric>,
    /// Which of them stand in the table from the start.
    pub shown: Vec<usize>,
}

impl Columns {
    /// Of a table.
    pub fn of(analysis: &Analysis<'_>) -> Self {
        let table = analysis.table;
        let metrics = metrics(table);
        Self { settings: settings(table), shown: shown(&metrics, &analysis.wanted), metrics }
    }
}

/// The grid's own keys, which every row has.
const GRID: [&str; 4] = ["model", "tensor-parallel-size", "quantization", "enforce-eager"];

/// All settings of all rows.
fn settings(table: &RunTable) -> Vec<Setting> {
    let mut keys: indexmap::IndexMap<&str, bool> = GRID.iter().map(|key| (*key, false)).collect();
    for row in &table.rows {
        let server = row.axes.server.iter().map(|(key, _)| key).chain(row.about.flags.keys());
        for key in server {
            keys.entry(key).or_insert(false);
        }
        for key in row.axes.workload.iter().map(|(key, _)| key).chain(row.load.0.keys()) {
            keys.entry(key).or_insert(true);
        }
    }
    let read = |(key, load): (&str, bool)| collect(table, key, load, |row| row.setting(key).map(|value| clean(&value)));
    let mut all: Vec<Setting> = keys.into_iter().map(read).filter(|setting| !setting.values.is_empty()).collect();
    if !table.more.is_empty() {
        all.insert(0, collect(table, "run", false, |row| Some(clean(&row.about.run)).filter(|run| !run.is_empty())));
    }
    all
}

fn collect(table: &RunTable, key: &str, load: bool, read: impl Fn(&Row) -> Option<String>) -> Setting {
    let mut values: indexmap::IndexSet<String> = indexmap::IndexSet::new();
    let mut missing = false;
    let of_row = table.rows.iter().map(|row| {
        let value = read(row);
        missing |= value.is_none() && !row.is_skipped();
        value.map(|value| values.insert_full(value).0)
    });
    let of_row = of_row.collect();
    let varies = values.len() + usize::from(missing) > 1;
    Setting { key: key.to_owned(), values: values.into_iter().collect(), of_row, load, varies }
}

/// Every metric that some row has.
fn metrics(table: &RunTable) -> Vec<Metric> {
    let mut keys: Vec<&str> = VllmMetric::ALL.iter().map(|metric| metric.key()).collect();
    let derived: std::collections::BTreeSet<&str> =
        table.rows.iter().flat_map(|row| row.about.further.keys()).collect();
    keys.extend(derived.into_iter().filter(|key| VllmMetric::ALL.iter().all(|metric| metric.key() != *key)));
    keys.into_iter()
        .filter(|key| table.rows.iter().any(|row| row.metric(key).is_some()))
        .filter_map(Metric::of)
        .collect()
}

/// The metrics that stand in the table from the start: the ranked ones, and what the recommendation is based on.
fn shown(metrics: &[Metric], wanted: &RankingSpec) -> Vec<usize> {
    let mut keys: Vec<&str> = RANKED.iter().map(|metric| metric.key()).collect();
    for key in [wanted.rank_by.as_str(), wanted.latency.as_str()] {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().filter_map(|key| metrics.iter().position(|metric| metric.key == key)).collect()
}

/// The warnings of a row but the one that stands at the head of the page.
pub(super) fn told(row: &Row) -> impl Iterator<Item = &Warning> {
    row.about.warnings.iter().filter(|warning| warning.kind != WarningKind::Simulated)
}

/// One cell for a reader without the script.
#[derive(Serialize)]
pub(super) struct Cell {
    text: String,
    number: bool,
}

/// One row for a reader without the script.
#[derive(Serialize)]
pub(super) struct Line {
    name: String,
    class: &'static str,
    status: String,
    cells: Vec<Cell>,
}

/// The table for a reader without the script: its headings, then its rows.
pub(super) fn lines(table: &RunTable, columns: &Columns) -> (Vec<Cell>, Vec<Line>) {
    let Columns { settings, metrics, shown } = columns;
    let varying: Vec<&Setting> = settings.iter().filter(|setting| setting.varies).collect();
    let repeats = table.rows.iter().any(|row| row.repeat.is_some());
    let heading = |text: String, number: bool| Cell { text, number };
    let mut head: Vec<Cell> = varying.iter().map(|setting| heading(setting.key.clone(), false)).collect();
    if repeats {
        head.push(heading("start.run".into(), false));
    }
    head.extend(
        shown.iter().map(|&at| heading(format!("{} ({})", metrics[at].label, metrics[at].unit.symbol()), true)),
    );
    let line = |(index, row): (usize, &Row)| {
        let value = |setting: &&Setting| setting.of_row[index].map_or(String::new(), |at| cut(&setting.values[at], 60));
        let mut cells: Vec<Cell> = varying.iter().map(|setting| heading(value(setting), false)).collect();
        if repeats {
            let repeat = row.repeat.map_or(String::new(), |repeat| format!("{}.{}", repeat.start, repeat.run));
            cells.push(heading(repeat, false));
        }
        cells.extend(shown.iter().map(|&at| {
            let value = row.metric(&metrics[at].key).map(|value| in_unit(value, metrics[at].unit));
            heading(value.unwrap_or_else(|| ABSENT.to_owned()), true)
        }));
        let suspect = if told(row).next().is_some() { ", warnings" } else { "" };
        let status = clean(&format!("{}{suspect}", status(row)));
        Line { name: cut(&row.name, 120), class: status_key(&row.status), status, cells }
    };
    (head, table.rows.iter().enumerate().map(line).collect())
}
