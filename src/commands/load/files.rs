//! The files of a workload: vLLM's result, one line per request, one line per workload.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::Measured;
use crate::config::{LoadSettings, Point};
use crate::error::Error;
use crate::load::output::{REQUEST_COLUMNS, RequestRow, python_json};
use crate::load::sample::Sample;
use crate::record;
use crate::report;
use crate::safe::{self, SafeWriter};
use crate::ui::Ui;

/// What is written over a sweep.
#[derive(Debug)]
pub(super) struct Sweep {
    folder: PathBuf,
    /// One file of requests for all workloads of the sweep.
    requests: Option<PathBuf>,
}

pub(super) fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Record(record::Error::write(path)(source))
}

/// A name that a file can have: what is none of letters, digits, dots and dashes becomes `_`.
pub(super) fn file_name(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    if clean.trim_matches('.').is_empty() { "_".into() } else { clean }
}

impl Sweep {
    /// Sees to it that files can be written before anything is measured.
    pub fn begin(settings: &LoadSettings) -> Result<Self, Error> {
        let folder = settings.result_dir.clone();
        std::fs::create_dir_all(&folder).map_err(|source| failed(&folder, source))?;
        for path in [&settings.requests_csv, &settings.csv].into_iter().flatten() {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
            }
        }
        if let Some(path) = &settings.requests_csv {
            let mut file = File::create(path).map_err(|source| failed(path, source))?;
            writeln!(file, "{}", REQUEST_COLUMNS.join(",")).map_err(|source| failed(path, source))?;
        }
        Ok(Self { folder, requests: settings.requests_csv.clone() })
    }

    /// Where the requests of a workload go, if they are asked for.
    pub fn requests_csv(
        &self,
        settings: &LoadSettings,
        point: &Point,
        number: usize,
    ) -> Result<Option<Requests>, Error> {
        let run_id = run_id(settings, point, number);
        let own = self.folder.join(format!("{run_id}.csv"));
        let path = match (&settings.scenario, &self.requests) {
            (Some(_), _) => &own,
            (None, Some(path)) => path,
            (None, None) => return Ok(None),
        };
        Requests::append(path, run_id, Some(point.input_len)).map(Some)
    }

    /// Where the telemetry of a workload goes: by the name of its table of requests, where there is one.
    pub fn telemetry_csv(
        &self,
        settings: &LoadSettings,
        point: &Point,
        number: usize,
        rows: Option<&Requests>,
    ) -> PathBuf {
        let name = rows.map_or_else(|| run_id(settings, point, number), |rows| rows.run_id.clone());
        self.folder.join("telemetry").join(format!("{name}.csv"))
    }

    /// Writes the result of a workload; where it is, if it is asked for.
    pub fn add(
        &self,
        settings: &LoadSettings,
        number: usize,
        measured: &Measured,
        ui: &Ui,
    ) -> Result<Option<PathBuf>, Error> {
        if !settings.save_result {
            return Ok(None);
        }
        let path = self.folder.join(name(settings, number, measured));
        let mut bytes = python_json(&measured.result).map_err(|source| failed(&path, source))?;
        if settings.append_result {
            let mut file = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .map_err(|source| failed(&path, source))?;
            let begun = file.metadata().is_ok_and(|meta| meta.len() > 0);
            if begun {
                bytes.insert(0, b'\n');
            }
            file.write_all(&safe::file_bytes(&bytes))
                .and_then(|()| file.sync_all())
                .map_err(|source| failed(&path, source))?;
        } else {
            record::atomic::write(&path, &bytes)?;
        }
        ui.say(&format!("result: {}", path.display()));
        Ok(Some(path))
    }

    /// Writes what compares the workloads: S2's columns, and more.
    pub fn finish(&self, settings: &LoadSettings, loads: &[Measured], ui: &Ui) -> Result<(), Error> {
        if loads.len() > 1 {
            ui.out(&table(loads));
        }
        if let Some(path) = &settings.csv {
            write_csv(path, loads)?;
            ui.say(&format!("comparison: {}", path.display()));
        }
        if let Some(path) = &settings.requests_csv {
            ui.say(&format!("requests: {}", path.display()));
        }
        Ok(())
    }
}

/// The columns of the comparison of workloads.
pub(super) const SWEEP_COLUMNS: [&str; 17] = [
    // S2's.
    "batch_size",
    "per_request_throughput",
    "total_system_throughput",
    // Ours.
    "request_rate",
    "num_prompts",
    "input_len",
    "output_len",
    "n",
    "run",
    "completed",
    "failed",
    "duration",
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_tpot_ms",
    "request_throughput",
    "simulated",
];

/// Writes the comparison as CSV. `batch_size` is the concurrency; the system's throughput is tokens over time (S2 multiplied a
/// rate of one request, which no system has).
pub(super) fn write_csv(path: &Path, loads: &[Measured]) -> Result<(), Error> {
    let mut rows = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| failed(path, std::io::Error::other(error));
    rows.write_record(SWEEP_COLUMNS).map_err(wrong)?;
    for load in loads {
        let (point, metrics) = (&load.point, &load.metrics);
        let number = |value: f64| format!("{value:.4}");
        let known = metrics.completed > 0;
        let some = |value: f64| if known { number(value) } else { String::new() };
        let p99 = metrics.ttft.percentiles.iter().find(|(which, _)| *which == 99.0).map(|(_, value)| some(*value));
        rows.write_record([
            point.max_concurrency.map(|value| value.to_string()).unwrap_or_default(),
            some(metrics.tokens_per_second_per_user.mean),
            some(metrics.output_throughput),
            if point.request_rate.is_finite() { point.request_rate.to_string() } else { "inf".into() },
            point.num_prompts.map(|value| value.to_string()).unwrap_or_default(),
            point.input_len.to_string(),
            point.output_len.map(|value| value.to_string()).unwrap_or_default(),
            point.n.to_string(),
            point.run.to_string(),
            metrics.completed.to_string(),
            metrics.failed.to_string(),
            number(metrics.duration),
            if metrics.has_ttft { some(metrics.ttft.mean) } else { String::new() },
            p99.filter(|_| metrics.has_ttft).unwrap_or_default(),
            if metrics.has_ttft { some(metrics.tpot.mean) } else { String::new() },
            some(metrics.request_throughput),
            load.result.contains_key("simulated").to_string(),
        ])
        .map_err(wrong)?;
    }
    let bytes = rows.into_inner().map_err(|error| failed(path, error.into_error()))?;
    Ok(record::atomic::write(path, &bytes)?)
}

/// The comparison as text.
fn table(loads: &[Measured]) -> String {
    const HEADINGS: [&str; 11] =
        ["concurrency", "rate", "in", "out", "run", "ok", "failed", "tok/s", "tok/s per user", "TTFT ms", "TPOT ms"];
    let row = |load: &Measured| {
        let (point, metrics) = (&load.point, &load.metrics);
        let some = |value: f64| if metrics.completed > 0 { format!("{value:.2}") } else { "-".into() };
        let timed = |value: f64| if metrics.has_ttft { some(value) } else { "-".into() };
        vec![
            point.max_concurrency.map_or("-".into(), |value| value.to_string()),
            if point.request_rate.is_finite() { point.request_rate.to_string() } else { "inf".into() },
            point.input_len.to_string(),
            point.output_len.map_or("-".into(), |value| value.to_string()),
            point.run.to_string(),
            metrics.completed.to_string(),
            metrics.failed.to_string(),
            some(metrics.output_throughput),
            some(metrics.tokens_per_second_per_user.mean),
            timed(metrics.ttft.mean),
            timed(metrics.tpot.mean),
        ]
    };
    let table = report::table(&HEADINGS, loads.iter().map(row));
    let simulated = loads.iter().any(|load| load.result.contains_key("simulated"));
    format!("{}{table}", if simulated { "SIMULATED\n" } else { "" })
}

/// How a property of a workload is written.
type Shown<'a> = &'a dyn Fn(&Point) -> String;

/// What tells this workload's files from those of others of the sweep.
fn suffix(settings: &LoadSettings, point: &Point, number: usize) -> String {
    if settings.points.len() < 2 {
        return String::new();
    }
    let differs = |value: &dyn Fn(&Point) -> String| settings.points.iter().any(|other| value(other) != value(point));
    let mut text = String::new();
    let fields: [(&str, Shown<'_>); 7] = [
        ("concurrency", &|point| point.max_concurrency.map_or("all".into(), |value| value.to_string())),
        ("qps", &|point| point.request_rate.to_string()),
        ("prompts", &|point| point.num_prompts.map_or("all".into(), |value| value.to_string())),
        ("in", &|point| point.input_len.to_string()),
        ("out", &|point| point.output_len.map_or("any".into(), |value| value.to_string())),
        ("n", &|point| point.n.to_string()),
        ("run", &|point| point.run.to_string()),
    ];
    for (name, value) in fields {
        if differs(value) {
            text.push_str(&format!("-{name}{}", value(point)));
        }
    }
    if text.is_empty() { format!("-{number}") } else { text }
}

/// The name of a result file, as vLLM's client names it.
fn name(settings: &LoadSettings, number: usize, measured: &Measured) -> PathBuf {
    let point = &measured.point;
    let more = suffix(settings, point, number);
    if let Some(name) = &settings.result_filename {
        if more.is_empty() || settings.append_result {
            return name.clone();
        }
        let stem = name.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let ending = name.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
        return name.with_file_name(format!("{stem}{more}{ending}"));
    }
    let text = |key: &str| measured.result.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let label = settings.label.clone().unwrap_or_else(|| settings.backend.clone());
    let rate = if point.request_rate.is_finite() { format!("{:?}", point.request_rate) } else { "inf".into() };
    let concurrency = point.max_concurrency.map(|most| format!("-concurrency{most}")).unwrap_or_default();
    let model = text("model_id");
    // The server may call its model anything.
    let base = model.rsplit('/').next().unwrap_or_default().replace(safe::is_harmful, "_");
    PathBuf::from(format!("{label}-{rate}qps{concurrency}{more}-{base}-{}.json", text("date")))
}

/// The name of a workload in tables of requests.
fn run_id(settings: &LoadSettings, point: &Point, number: usize) -> String {
    let label = settings.scenario.clone().or(settings.label.clone()).unwrap_or_else(|| "load".to_owned());
    let concurrency = point.max_concurrency.map_or(String::new(), |value| format!("-cc{value}"));
    let length = point.output_len.map_or(String::new(), |value| format!("-max{value}"));
    let when = chrono::Utc::now().format("%Y%m%d_%H%M%S");
    let several = settings.scenario.is_none() && settings.points.len() > 1;
    let more = if several { format!("-{number}") } else { String::new() };
    format!("{label}{concurrency}-pref{}{length}{more}-{when}", point.input_len)
}

/// A table of requests.
#[derive(Debug)]
pub(super) struct Requests {
    path: PathBuf,
    run_id: String,
    prefill: Option<u64>,
    rows: csv::Writer<BufWriter<SafeWriter<File>>>,
    began: chrono::DateTime<chrono::Utc>,
}

impl Requests {
    /// Appends to a file that has its header.
    pub fn append(path: &Path, run_id: String, prefill: Option<u64>) -> Result<Self, Error> {
        let file =
            std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(|source| failed(path, source))?;
        let is_new = file.metadata().is_ok_and(|meta| meta.len() == 0);
        let mut rows = csv::Writer::from_writer(BufWriter::new(SafeWriter::new(file)));
        if is_new {
            rows.write_record(REQUEST_COLUMNS).map_err(|error| failed(path, std::io::Error::other(error)))?;
        }
        Ok(Self { path: path.to_owned(), run_id, prefill, rows, began: chrono::Utc::now() })
    }

    /// Adds a request.
    pub fn add(&mut self, sample: &Sample) -> Result<(), Error> {
        let at = self.began + chrono::Duration::nanoseconds(i64::try_from(sample.started).unwrap_or(0));
        let row = RequestRow {
            run_id: &self.run_id,
            sample,
            prefill_tokens: self.prefill,
            timestamp: at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
        };
        self.rows.write_record(row.fields()).map_err(|error| failed(&self.path, std::io::Error::other(error)))
    }

    /// Puts all of it on disk.
    pub fn finish(mut self) -> Result<(String, PathBuf), Error> {
        self.rows.flush().map_err(|source| failed(&self.path, source))?;
        let file =
            self.rows.into_inner().map_err(|error| failed(&self.path, std::io::Error::other(error.to_string())))?;
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(SafeWriter::finish);
        file.and_then(|file| file.sync_all()).map_err(|source| failed(&self.path, source))?;
        Ok((self.run_id, self.path))
    }
}
