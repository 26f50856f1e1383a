//! One file, whatever it is: results in it, or the reason why there is none.

use std::fs::File;
use std::io::{Read, Take};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::analyse::{About, FailedAttempt, Row, Signs, Status, VllmMetrics, warnings_from};
use crate::model::Repeat;
use crate::record::validate_with;
use crate::results::files::foreign_settings::{Stated, axes};
use crate::results::files::requests_csv;
use crate::results::intern::Shared;
use crate::results::parallel;
use crate::results::predecessor::without_result;
use crate::results::result_file;
use crate::results::result_file::{Members, Refusal, ResultFile, json_refusal, unreadable};
use crate::results::scan::{Beginning, Scanner, Stop};
use crate::results::signs::{asked_tokens, signs};

/// What a result was found as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A result of a client.
    Client,
    /// A run of a sweep, in a file of its own.
    Run,
    /// A run of a sweep, in a list of them.
    Summary,
    /// A run of a sweep, in a table of them.
    Table,
    /// A run or a server of a sweep that failed.
    Failure,
    /// Requests one by one.
    Requests,
}

/// A row and what decides whether it counts.
#[derive(Debug)]
pub(super) struct Taken {
    pub row: Row,
    pub kind: Kind,
    /// When it was measured, as the file says.
    pub date: Option<String>,
    /// Of requests one by one: how many there are.
    pub requests: u64,
    /// Whether its file holds nothing else.
    pub alone: bool,
}

impl Taken {
    pub fn file(&self) -> &Path {
        self.row.source.as_deref().unwrap_or(Path::new(""))
    }
}

/// What is in a file.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub taken: Vec<Taken>,
    pub refusal: Option<Refusal>,
}

impl Content {
    fn refused(refusal: Refusal) -> Self {
        Self { taken: Vec::new(), refusal: Some(refusal) }
    }
}

/// Reads a file below `root`.
pub(super) fn file(root: &Path, file: &Path, buffer: &mut Vec<u8>) -> Content {
    let path = root.join(file);
    let opened = match result_file::open(&path) {
        Ok(Some((opened, size))) => opened.take(size),
        Ok(None) => return Content::default(),
        Err(refusal) => return Content::refused(refusal),
    };
    let mut scanner = Scanner::new(opened, buffer);
    match scanner.beginning() {
        Ok(Beginning::Other) => table(&path, file),
        Ok(beginning) => objects(&path, file, &mut scanner, beginning),
        Err(Stop::Read(error)) => Content::refused(unreadable(&error)),
        Err(Stop::Odd) => Content::default(),
    }
}

/// JSON: one result, several one after the other, or a list of them.
fn objects(path: &Path, file: &Path, scanner: &mut Scanner<'_, Take<File>>, beginning: Beginning) -> Content {
    let mut stopped = None;
    let next = || {
        let next = match scanner.another() {
            Ok(false) => return None,
            Ok(true) => result_file::next(scanner, Members::Parsed),
            Err(stop) => Err(stop),
        };
        next.map_err(|stop| stopped = Some(stop)).ok()
    };
    // Each result becomes a row at once: a file may hold very many.
    let found = parallel::in_portions(next, Found::default(), |found, result| found.add(file, beginning, &result));
    let Found { mut taken, count, warmups, odd: is_odd, .. } = found;
    let mut refusal = match stopped {
        Some(Stop::Read(error)) => Some(unreadable(&error)),
        Some(Stop::Odd) => Some(odd(path, taken.is_empty())),
        None if is_odd => Some(Refusal::foreign("not a benchmark result: it has no `completed`")),
        None if count == 0 => Some(Refusal::foreign("an empty list")),
        None => None,
    };
    if warmups > 0 && taken.is_empty() {
        refusal = None;
    }
    if let (1, Beginning::Object, [only]) = (count, beginning, taken.as_mut_slice()) {
        only.row.name = name_of(file, None);
        only.row.about.part = None;
        only.alone = true;
    }
    Content { taken, refusal }
}

/// What the objects of a file are.
#[derive(Default)]
struct Found {
    taken: Vec<Taken>,
    shared: Shared,
    /// How many objects there are.
    count: usize,
    /// Of them: warm-ups of a sweep.
    warmups: usize,
    /// Whether one of them is no result.
    odd: bool,
}

impl Found {
    fn add(&mut self, file: &Path, beginning: Beginning, result: &ResultFile) {
        self.count += 1;
        match kind_of(result, beginning) {
            Some(kind) if result.number("run_number") != Some(-1.0) => {
                let (mut row, date) = (row(file, Some(self.taken.len()), kind, result), result.text("date"));
                self.shared.share(&mut row);
                self.taken.push(Taken { row, kind, date, requests: 0, alone: false });
            }
            Some(_) => self.warmups += 1,
            None => self.odd = true,
        }
    }
}

/// What a parser says is wrong with a file that is odd. A list of anything else than objects is something else.
fn odd(path: &Path, nothing: bool) -> Refusal {
    let wrong = match result_file::open(path) {
        Ok(Some((file, size))) if size > result_file::LARGE => {
            let reader = std::io::BufReader::with_capacity(1 << 16, file);
            serde_json::Deserializer::from_reader(reader).into_iter::<IgnoredAny>().find_map(Result::err)
        }
        Ok(Some(_)) => match result_file::read_text(path) {
            Ok(text) => {
                let text = text.unwrap_or_default();
                serde_json::Deserializer::from_str(&text).into_iter::<IgnoredAny>().find_map(Result::err)
            }
            Err(refusal) => return refusal,
        },
        Ok(None) => return Refusal::foreign("gone"),
        Err(refusal) => return refusal,
    };
    match wrong {
        Some(error) => json_refusal(&error),
        None if nothing => Refusal::foreign("not a benchmark result: it has no `completed`"),
        None => Refusal::broken("something else than results in a part of it"),
    }
}

fn kind_of(result: &ResultFile, beginning: Beginning) -> Option<Kind> {
    let has = |key: &str| result.metrics.contains_key(key);
    let of_sweep = has("run_number");
    match (has("completed"), of_sweep, beginning) {
        (true, true, Beginning::List) => Some(Kind::Summary),
        (true, true, _) => Some(Kind::Run),
        (true, false, _) => Some(Kind::Client),
        (false, _, _) => {
            let overrides = result.short.iter().any(|(key, _)| key == "serve_overrides");
            (has("error_type") && has("error") && overrides).then_some(Kind::Failure)
        }
    }
}

/// CSV: requests one by one, or the table that a sweep makes of its results.
fn table(path: &Path, file: &Path) -> Content {
    let neither = || Content::refused(odd(path, true));
    let Ok(reader) = crate::bounded::open(path) else { return neither() };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(reader);
    let Ok(columns) = reader.headers().cloned() else { return neither() };
    let has = |name: &str| columns.iter().any(|column| column == name);
    if requests_csv::COLUMNS.iter().all(|name| has(name)) {
        return requests_csv::content(file, &columns, reader);
    }
    if !(has("completed") && has("request_throughput")) {
        // A broken JSON file has no such first line either: a parser says what it is.
        return match begins_like_text(path) {
            true if file.extension().is_some_and(|end| end == "csv") => {
                Content::refused(Refusal::foreign("a table with none of the columns of requests or results"))
            }
            _ => neither(),
        };
    }
    let mut content = Content::default();
    let mut shared = Shared::default();
    for (i, record) in reader.records().enumerate() {
        let Ok(record) = record else {
            content.refusal = Some(Refusal::broken(format!("not a table in line {}", i + 2)));
            break;
        };
        let cells = columns.iter().zip(&record).filter(|(name, cell)| !name.is_empty() && !cell.is_empty());
        let metrics = cells.map(|(name, cell)| (name.to_owned(), value_of(cell))).collect();
        let result = ResultFile { metrics, ..ResultFile::default() };
        let date = result.text("date");
        let mut row = row(file, Some(i), Kind::Table, &result);
        shared.share(&mut row);
        content.taken.push(Taken { row, kind: Kind::Table, date, requests: 0, alone: false });
    }
    content
}

fn begins_like_text(path: &Path) -> bool {
    let mut bytes = [0; 512];
    let read = crate::bounded::open(path).and_then(|mut file| file.read(&mut bytes));
    read.is_ok_and(|read| !bytes[..read].contains(&0))
}

/// A cell as pandas wrote it: counts in a column with gaps have `.0`.
fn value_of(cell: &str) -> Value {
    match cell {
        "True" => return true.into(),
        "False" => return false.into(),
        _ => {}
    }
    let whole = cell.strip_suffix(".0").unwrap_or(cell);
    if let Ok(number) = whole.parse::<i64>() {
        return number.into();
    }
    cell.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map_or_else(|| cell.into(), Value::Number)
}

/// The row of one result.
fn row(file: &Path, part: Option<usize>, kind: Kind, result: &ResultFile) -> Row {
    let name = name_of(file, part);
    if let Some(Ok(_)) = &result.meta
        && let Ok(row) = crate::results::predecessor::row(file, result)
    {
        let about = About { part, ..row.about };
        return Row { name, about, ..row };
    }
    let of_sweep = kind != Kind::Client;
    let stated = Stated::of(result, of_sweep);
    let status = match kind {
        Kind::Failure => failure(result),
        Kind::Client | Kind::Run | Kind::Summary | Kind::Table | Kind::Requests => {
            let asked = result.metrics.get("num_prompts").and_then(Value::as_u64);
            validate_with(&result.metrics, asked, needed(result))
                .map_or_else(|invalid| without_result(&invalid), |()| Status::Valid)
        }
    };
    let valid = matches!(status, Status::Valid);
    let metrics = if valid { result.metrics() } else { result.metrics().counts_only() };
    let run = result.metrics.get("run_number").and_then(Value::as_u64).and_then(|run| u32::try_from(run).ok());
    let identity = of_sweep.then(|| stated.identity());
    let axes = axes(&stated);
    Row {
        metrics,
        simulated: result.metrics.get("simulated").and_then(Value::as_bool) == Some(true),
        load: Arc::new(stated.load()),
        repeat: run.map(|run| Repeat { start: 1, run: run.saturating_add(1) }),
        groups: stated.group.clone().into_iter().collect(),
        source: Some(file.to_owned()),
        about: About {
            devices: stated.devices(),
            overrides: stated.server.len(),
            settings: identity.clone(),
            warnings: if valid { warnings_from(&stated_signs(result, &stated)) } else { Vec::new() },
            further: if valid { result.percentiles() } else { Default::default() },
            flags: Arc::new(stated.server),
            part,
            ..About::default()
        },
        identity,
        ..Row::bare(name, axes, status)
    }
}

/// What a result must have.
fn needed(result: &ResultFile) -> &'static [&'static str] {
    const VLLM: [&str; 4] = ["request_throughput", "output_throughput", "mean_ttft_ms", "mean_tpot_ms"];
    if result.is_sglang() {
        return &["request_throughput", "output_throughput", "median_ttft_ms"];
    }
    &VLLM
}

/// The signs of another program's result, with what it states of its workload.
fn stated_signs(result: &ResultFile, stated: &Stated) -> Signs {
    let ignores = stated.flag("ignore-eos").is_some_and(|value| value != "false");
    Signs { asked_tokens: asked_tokens(|flag| stated.flag(flag).map(str::to_owned), ignores), ..signs(result, None) }
}

/// What a sweep noted of a failure.
fn failure(result: &ResultFile) -> Status {
    let text = |key: &str| result.text(key).unwrap_or_default();
    Status::Failed(Box::new(FailedAttempt::of(format!("{}: {}", text("error_type"), text("error")))))
}

/// The row's name: the file without its end, and which of its results it is.
pub(super) fn name_of(file: &Path, part: Option<usize>) -> String {
    let stem: PathBuf = file.with_extension("");
    let name = stem.to_string_lossy();
    part.map_or_else(|| name.clone().into_owned(), |part| format!("{name}#{}", part + 1))
}

/// Metrics of no result.
pub(super) fn no_metrics() -> VllmMetrics {
    VllmMetrics::none()
}
