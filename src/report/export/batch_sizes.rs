//! The files and the table of the batch-size sweep: throughput against the number of requests in flight, one file per configuration
//! and number of devices, under the names and columns that its plots read.
//!
//! `batch_size` is `max-concurrency`. The throughput of the system is tokens over the time of the measurement; that program
//! multiplied the rate of one request by the batch, which no system has. Repeats count with their mean.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

use super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::analyse::{LoadValue, Row, RunTable, all_settings, settings};
use crate::model::VllmMetric;
use crate::plan::{abbreviation, sanitize};
use crate::record::layout;
use crate::report::columns::{self, Column};
use crate::report::display::{ABSENT, counted, cut};
use crate::report::page::{Page, Style, Tone};
use crate::report::plot::tokens_per_second_of_a_request;
use crate::report::{Refusal, text};
use crate::results::read_requests;
use crate::stats::mean;

/// The files of the batch-size sweep.
pub struct BatchSizes;

impl Exporter<Analysis<'_>> for BatchSizes {
    fn format(&self) -> Format {
        Format { ignores: &IGNORES, ..Format::several("batch-sizes", "The files of the batch-size sweep") }
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        let found = Sweep::new(analysis.table);
        if found.series.is_empty() {
            return Err(ExportError::Refused(Refusal::missing(
                format!("no throughput by batch size: {}", found.why_empty()),
                "measure with an axis of it: `bench: {max-concurrency: [1, 2, 4, 8]}`".into(),
            )));
        }
        out.write_all(found.render().as_bytes())?;
        for series in &found.series {
            let path = |directory: &Path| layout::batch_sizes_csv(directory, &series.folder, series.devices);
            out.file(path, |file| series.write(file))?;
        }
        Ok(())
    }
}

/// What follows the batch size, or changes nothing of what a measurement is.
const NO_SERIES: [&str; 9] = [
    "max-concurrency",
    "num-prompts",
    "num-prompts-per-concurrency",
    "num-warmups",
    "seed",
    "max-model-len",
    "percentile-metrics",
    "metric-percentiles",
    "save-detailed",
];

/// The columns.
const COLUMNS: [&str; 3] = ["batch_size", "per_request_throughput", "total_system_throughput"];

/// Flags of `analyze` that are about a choice, which is not in it, or about other metrics.
const IGNORES: [&str; 11] = [
    "--objective",
    "--slo",
    "--total",
    "--margin",
    "--max-failure-rate",
    "--latency",
    "--detail",
    "--group-by",
    "--baseline",
    "--prices",
    "--devices-per-node",
];

/// What was measured at one batch size.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    per_request: Option<f64>,
    total: f64,
    n: usize,
}

/// One configuration on one number of devices.
#[derive(Debug)]
struct Series {
    /// The folder of its file: its model, and what it has of its own.
    folder: String,
    devices: Option<u32>,
    /// Which of several that have the same name, from 0.
    copy: usize,
    title: String,
    points: BTreeMap<u64, Point>,
}

/// What is written and shown.
#[derive(Debug)]
struct Sweep {
    series: Vec<Series>,
    simulated: bool,
    /// Valid rows that do not say how many requests were in flight.
    without_batch: usize,
    /// Valid rows without a throughput.
    without_throughput: usize,
    /// Planned rows without a valid result.
    without_result: usize,
}

/// What tells a configuration's files from those of others: word and value.
type Words = BTreeMap<String, String>;

fn batch(row: &Row) -> Option<u64> {
    row.setting("max-concurrency")?.parse().ok().filter(|batch| *batch > 0)
}

/// Counted tokens of a model's rows, by key: they differ a little from run to run.
type Counted = BTreeMap<String, Vec<f64>>;

/// Counts within a twentieth of each other are the same.
fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= a.abs().max(b.abs()) / 20.0
}

fn counted_loads(rows: &[&Row]) -> Counted {
    let mut all = Counted::new();
    for (key, value) in rows.iter().flat_map(|row| &row.load.0) {
        if let LoadValue::About(count) = value {
            let known = all.entry(key.clone()).or_default();
            if !known.iter().any(|known| is_close(*known, *count)) {
                known.push(*count);
            }
        }
    }
    all
}

/// Everything about a row but its model and its batch size.
fn words(row: &Row, drop: &BTreeSet<&str>, counted: &Counted) -> Words {
    let value = |key: &String, value: &LoadValue| match value {
        LoadValue::Exact(text) => text.clone(),
        LoadValue::About(count) => {
            let first = counted.get(key).and_then(|known| known.iter().find(|known| is_close(**known, *count)));
            format!("about {:.0}", first.unwrap_or(count))
        }
    };
    let load = row.load.0.iter().filter(|(key, _)| !NO_SERIES.contains(&key.as_str()));
    let load = load.map(|(key, found)| (key.clone(), value(key, found)));
    // A row of another program's file may say what it was measured under among its settings only.
    let axes = row.axes.workload.iter().filter(|(key, _)| !NO_SERIES.contains(&key.as_str())).cloned();
    let server = all_settings(row).into_iter().filter(|(key, _)| !NO_SERIES.contains(&key.as_str()));
    server.chain(load).chain(axes).filter(|(key, _)| !drop.contains(key.as_str())).collect()
}

/// What the number of devices says, or the batch size, for all of these rows of a model.
fn told_otherwise(rows: &[&Row]) -> BTreeSet<&'static str> {
    let mut drop = BTreeSet::new();
    // With equal pipeline and data parallel sizes, devices stand for the tensor parallel size.
    if rows.iter().all(|row| row.about.devices.is_some()) {
        drop.insert("tp");
    }
    let sequences = |row: &&Row| row.setting("max-num-seqs").and_then(|text| text.parse::<u64>().ok());
    if rows.len() > 1 && rows.iter().all(|row| sequences(row).is_some() && sequences(row) == batch(row)) {
        drop.insert("mns");
    }
    drop
}

fn point(rows: &[&Row]) -> Option<Point> {
    let total: Vec<f64> = rows.iter().filter_map(|row| row.metrics.get(VllmMetric::OutputThroughput)).collect();
    let each = |row: &&Row| tokens_per_second_of_a_request(row, read_requests(row).ok().flatten().as_ref());
    let per_request: Vec<f64> = rows.iter().filter_map(each).collect();
    Some(Point { n: total.len(), per_request: mean(per_request), total: mean(total)? })
}

impl Sweep {
    /// Of a table; where some rows were measured, simulated ones are left out.
    fn new(table: &RunTable) -> Self {
        let comparable = table.comparable();
        let (known, unknown): (Vec<&Row>, Vec<&Row>) = comparable.iter().partition(|row| batch(row).is_some());
        let mut found = Self {
            series: Vec::new(),
            simulated: table.is_all_simulated(),
            without_batch: unknown.len(),
            without_throughput: 0,
            without_result: table.rows.iter().filter(|row| !row.is_valid() && !row.is_skipped()).count(),
        };
        let mut models: indexmap::IndexMap<&str, Vec<&Row>> = indexmap::IndexMap::new();
        for row in known {
            models.entry(row.axes.model.as_str()).or_default().push(row);
        }
        for (model, rows) in models {
            found.add(model, &rows);
        }
        found.name_apart();
        found
    }

    /// The series of a model.
    fn add(&mut self, model: &str, rows: &[&Row]) {
        let drop = told_otherwise(rows);
        let counted = counted_loads(rows);
        let all: Vec<Words> = rows.iter().map(|row| words(row, &drop, &counted)).collect();
        let keys: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
        let varying: Vec<&String> =
            keys.into_iter().filter(|key| all.iter().any(|own| own.get(*key) != all[0].get(*key))).collect();
        let from = self.series.len();
        for measured in settings(rows) {
            let Some((row, size)) = measured.first().and_then(|row| Some((*row, batch(row)?))) else { continue };
            let Some(point) = point(&measured) else {
                self.without_throughput += measured.len();
                continue;
            };
            let own = words(row, &drop, &counted);
            let value = |key: &String| own.get(key).map_or("default", String::as_str);
            let (mut folder, mut title) = (model.to_owned(), cut(model, 60));
            for key in &varying {
                folder.push_str(&format!("_{}-{}", abbreviation(key), value(key)));
                title.push_str(&format!(", {} {}", cut(key, 40), cut(value(key), 40)));
            }
            let devices = row.about.devices;
            // What differs in nothing that has a name is a series of its own: two lines of one size would be a zigzag.
            let same = |series: &&mut Series| {
                series.folder == folder && series.devices == devices && !series.points.contains_key(&size)
            };
            if let Some(series) = self.series.iter_mut().skip(from).find(same) {
                series.points.insert(size, point);
                continue;
            }
            let alike = |series: &&Series| series.folder == folder && series.devices == devices;
            let copy = self.series.iter().skip(from).filter(alike).count();
            self.series.push(Series { folder, devices, copy, title, points: BTreeMap::from([(size, point)]) });
        }
    }

    /// Folders as they can be on disk: what has different names shares none.
    fn name_apart(&mut self) {
        let mut taken: HashSet<String> = HashSet::new();
        let mut names: HashMap<(String, usize), String> = HashMap::new();
        for series in &mut self.series {
            let plain: String = sanitize(&series.folder).chars().take(160).collect();
            let fresh = || {
                let numbered = (2..).map(|n| format!("{plain}_{n}"));
                let mut all = std::iter::once(plain.clone()).chain(numbered);
                all.find(|name| taken.insert(name.to_lowercase())).unwrap_or_default()
            };
            let key = (std::mem::take(&mut series.folder), series.copy);
            series.folder.clone_from(names.entry(key).or_insert_with(fresh));
        }
    }

    /// The tables, as text.
    fn render(&self) -> String {
        let mut page = Page::new(Style::PLAIN);
        if self.simulated {
            page.paragraph(1, "!! ", Tone::Warning, text::SIMULATED);
        }
        for series in &self.series {
            let devices = series.devices.map_or(String::new(), |n| format!(" on {}", counted(n as usize, "device")));
            page.heading(&cut(&format!("{}{devices}", series.title), 110));
            let shape = [
                Column::metrics("Batch size"),
                Column::metrics("Per request (tok/s)"),
                Column::metrics("System (tok/s)"),
                Column::metrics("n"),
            ];
            let lines = series.points.iter().map(|(batch, point)| {
                let each = point.per_request.map_or(ABSENT.to_owned(), |value| format!("{value:.2}"));
                let cells = vec![batch.to_string(), each, format!("{:.2}", point.total), point.n.to_string()];
                (Tone::Plain, cells)
            });
            columns::put(&mut page, &shape, lines.collect());
        }
        page.gap();
        let left_out = [
            (self.without_batch, "row", "no max-concurrency"),
            (self.without_throughput, "row", "no throughput"),
            (self.without_result, "experiment", "no valid result"),
        ];
        for (count, noun, why) in left_out.into_iter().filter(|(count, ..)| *count > 0) {
            page.paragraph(2, "! ", Tone::Warning, &format!("left out: {} with {why}", counted(count, noun)));
        }
        page.finish()
    }

    /// Why there is nothing, in words.
    fn why_empty(&self) -> String {
        match (self.without_batch, self.without_throughput) {
            (0, 0) => "there is no valid result".to_owned(),
            (0, rows) => format!("none of {} has a throughput", counted(rows, "valid result")),
            (rows, _) => format!("none of {} says its max-concurrency", counted(rows, "valid result")),
        }
    }
}

impl Series {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = ::csv::Writer::from_writer(out);
        csv.write_record(COLUMNS)?;
        for (batch, point) in &self.points {
            csv.write_record([
                batch.to_string(),
                point.per_request.map(|value| format!("{value:.4}")).unwrap_or_default(),
                format!("{:.4}", point.total),
            ])?;
        }
        csv.flush()
    }
}
