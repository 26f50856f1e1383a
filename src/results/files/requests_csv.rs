//! Requests one by one: `requests.csv` of `vllm-bench load`, and the same columns of other load generators. The metrics are
//! computed from them, with vLLM's definitions and numpy's percentiles.

use std::path::Path;
use std::sync::Arc;

use csv::{Reader, StringRecord};
use indexmap::IndexMap;

use crate::analyse::{
    About, EmptyAnswers, FailedAttempt, Load, LoadValue, Requests, Row, ShownAxes, Signs, Status, VllmMetrics,
    warnings_from,
};
use crate::model::VllmMetric;
use crate::record::{Invalid, ResultValues, plausible};
use crate::results::files::foreign_settings::NO_MODEL;
use crate::results::files::read::{Content, Kind, Taken, no_metrics};
use crate::results::result_file::Refusal;
use crate::stats::{Sample, Stats};

/// Columns that every such file has.
pub(super) const COLUMNS: [&str; 3] = ["ttft_ms", "latency_ms", "error"];
/// Percentiles that are computed beside p99, which has its own place.
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95)];

/// The columns that are read, by their places.
struct Columns {
    run: Option<usize>,
    ttft: Option<usize>,
    latency: Option<usize>,
    error: Option<usize>,
    input: [Option<usize>; 2],
    output: Option<usize>,
    start: Option<usize>,
    end: Option<usize>,
    tpot: Option<usize>,
}

impl Columns {
    fn of(names: &StringRecord) -> Self {
        let of = |name: &str| names.iter().position(|column| column == name);
        Self {
            run: of("run_id"),
            ttft: of("ttft_ms"),
            latency: of("latency_ms"),
            error: of("error"),
            input: [of("prompt_tokens"), of("actual_prefill_tokens")],
            output: of("completion_tokens"),
            start: of("start_s"),
            end: of("end_s"),
            tpot: of("tpot_ms"),
        }
    }
}

/// No request takes eleven days, in milliseconds, or has as many tokens.
const MOST: f64 = 1e9;

/// Metrics that were computed here.
struct Computed<'m>(&'m VllmMetrics);

impl ResultValues for Computed<'_> {
    fn value(&self, _: &str) -> Option<&serde_json::Value> {
        None
    }
    fn number(&self, key: &str) -> Option<f64> {
        self.0.get(VllmMetric::of(key)?)
    }
    fn each_time(&self, _: &mut dyn FnMut(&str, f64)) {}
}

/// The requests of one run.
#[derive(Debug, Default)]
struct Run {
    completed: u64,
    failed: u64,
    first_error: Option<String>,
    /// Tokens of prompts and answers that are known.
    input: f64,
    output: f64,
    inputs: u64,
    outputs: u64,
    first_start: Option<f64>,
    last_end: Option<f64>,
    /// Requests whose times are not told.
    untimed: u64,
    /// The first value that cannot be.
    impossible: Option<String>,
    /// Requests that count as completed without a token.
    empty: usize,
    /// TTFT of the others.
    ttft_of_others: (f64, u32),
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    start_s: Option<f64>,
    ttft_ms: Option<f64>,
    tpot_ms: Option<f64>,
    e2el_ms: f64,
    input: Option<f64>,
    output: Option<f64>,
}

impl Run {
    fn add(&mut self, columns: &Columns, record: &StringRecord) {
        let cell = |at: Option<usize>| at.and_then(|at| record.get(at)).filter(|cell| !cell.is_empty());
        let number = |at: Option<usize>| {
            cell(at).and_then(|cell| cell.parse::<f64>().ok()).filter(|number| number.is_finite() && *number >= 0.0)
        };
        let error = cell(columns.error).filter(|error| *error != "None");
        if error.is_none() {
            self.look_for_impossible(columns, record);
        }
        let Some(latency) = number(columns.latency).filter(|_| error.is_none()) else {
            self.failed += 1;
            if let (None, Some(error)) = (&self.first_error, error) {
                self.first_error = Some(error.to_owned());
            }
            return;
        };
        self.completed += 1;
        // A load generator that is not told the tokens writes 0.
        let tokens = |at| number(at).filter(|tokens| *tokens > 0.0);
        let input = columns.input.iter().find_map(|at| tokens(*at));
        let output = tokens(columns.output);
        let ttft = number(columns.ttft);
        if number(columns.output) == Some(0.0) {
            self.empty += 1;
        } else if let Some(ttft) = ttft {
            self.ttft_of_others = (self.ttft_of_others.0 + ttft, self.ttft_of_others.1 + 1);
        }
        let further = output.filter(|tokens| *tokens > 1.0).zip(ttft);
        let tpot =
            number(columns.tpot).or_else(|| further.map(|(tokens, ttft)| (latency - ttft).max(0.0) / (tokens - 1.0)));
        let (start, end) = (number(columns.start), number(columns.end));
        match (start, end) {
            (Some(start), Some(end)) => {
                self.first_start = Some(self.first_start.map_or(start, |first| first.min(start)));
                self.last_end = Some(self.last_end.map_or(end, |last| last.max(end)));
            }
            _ => self.untimed += 1,
        }
        self.input += input.unwrap_or(0.0);
        self.output += output.unwrap_or(0.0);
        self.inputs += u64::from(input.is_some());
        self.outputs += u64::from(output.is_some());
        self.requests.push(Request { start_s: start, ttft_ms: ttft, tpot_ms: tpot, e2el_ms: latency, input, output });
    }

    /// Notes a number that no request has.
    fn look_for_impossible(&mut self, columns: &Columns, record: &StringRecord) {
        let named = [
            ("ttft_ms", columns.ttft),
            ("latency_ms", columns.latency),
            ("tpot_ms", columns.tpot),
            ("prompt_tokens", columns.input[0]),
            ("completion_tokens", columns.output),
        ];
        for (name, at) in named {
            let number = at.and_then(|at| record.get(at)).and_then(|cell| cell.parse::<f64>().ok());
            // A program that never saw a first token writes -1.
            let absent = name == "ttft_ms" && number == Some(-1.0);
            if let Some(number) = number.filter(|number| !absent && (*number < 0.0 || *number > MOST)) {
                self.impossible.get_or_insert_with(|| format!("a request has a `{name}` of {number}"));
            }
        }
    }

    /// Answers without a token. Where no answer has one, the program was not told.
    fn empty_answers(&self) -> Option<EmptyAnswers> {
        let (sum, others) = self.ttft_of_others;
        (self.outputs > 0).then(|| EmptyAnswers {
            count: self.empty,
            of: usize::try_from(self.completed).unwrap_or(usize::MAX),
            mean_ttft_ms_of_others: (others > 0).then(|| sum / f64::from(others)),
        })
    }

    /// Seconds from the first start to the last end, where every request tells its own.
    fn duration(&self) -> Option<f64> {
        let (first, last) = self.first_start.zip(self.last_end)?;
        Some(last - first).filter(|seconds| *seconds > 0.0 && self.untimed == 0)
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 requests")]
    fn row(&self, name: String, file: &Path, part: Option<usize>) -> Row {
        let valid = self.completed > 0 && self.failed == 0 && self.impossible.is_none();
        let mut metrics = no_metrics();
        let mut further = std::collections::BTreeMap::new();
        let mut put = |metric, value| metrics.set(metric, value);
        put(VllmMetric::Completed, Some(self.completed as f64));
        put(VllmMetric::Failed, Some(self.failed as f64));
        let completed = self.completed as f64;
        let input = Some(self.input).filter(|_| self.inputs == self.completed);
        let output = Some(self.output).filter(|_| self.outputs == self.completed);
        if valid {
            let per_second = |value: Option<f64>| Some(value? / self.duration()?);
            put(VllmMetric::Duration, self.duration());
            put(VllmMetric::TotalInputTokens, input);
            put(VllmMetric::TotalOutputTokens, output);
            put(VllmMetric::RequestThroughput, per_second(Some(completed)));
            put(VllmMetric::OutputThroughput, per_second(output));
            put(VllmMetric::TotalTokenThroughput, per_second(input.zip(output).map(|(a, b)| a + b)));
            let of = |value: fn(&Request) -> Option<f64>| Sample::new(self.requests.iter().filter_map(value));
            for (latency, sample, [mean, median, std, p99]) in [
                (
                    "ttft",
                    of(|request| request.ttft_ms),
                    [VllmMetric::MeanTtft, VllmMetric::MedianTtft, VllmMetric::StdTtft, VllmMetric::P99Ttft],
                ),
                (
                    "tpot",
                    of(|request| request.tpot_ms),
                    [VllmMetric::MeanTpot, VllmMetric::MedianTpot, VllmMetric::StdTpot, VllmMetric::P99Tpot],
                ),
                (
                    "e2el",
                    of(|request| Some(request.e2el_ms)),
                    [VllmMetric::MeanE2el, VllmMetric::MedianE2el, VllmMetric::StdE2el, VllmMetric::P99E2el],
                ),
            ] {
                let Some(sample) = sample else { continue };
                let Stats { mean: average, median: middle, .. } = sample.stats();
                put(mean, Some(average));
                put(median, Some(middle));
                let squares = sample.sorted().iter().map(|value| (value - average).powi(2)).sum::<f64>();
                put(std, Some((squares / sample.sorted().len() as f64).sqrt()));
                put(p99, sample.quantile(0.99));
                for (which, q) in PERCENTILES {
                    further.extend(sample.quantile(q).map(|value| (format!("{which}_{latency}_ms"), value)));
                }
            }
        }
        let signs = Signs {
            empty: self.empty_answers(),
            mean_ttft_ms: metrics.get(VllmMetric::MeanTtft),
            implausible: plausible::suspicious(&Computed(&metrics)),
            ..Signs::default()
        };
        let mut load = IndexMap::new();
        let mean =
            |total: Option<f64>| total.filter(|_| completed > 0.0).map(|total| LoadValue::About(total / completed));
        for (flag, value) in [
            ("random-input-len", mean(input)),
            ("random-output-len", mean(output)),
            ("num-prompts", Some(LoadValue::Exact((self.completed + self.failed).to_string()))),
        ] {
            load.extend(value.map(|value| (flag.to_owned(), value)));
        }
        let status = match &self.impossible {
            Some(what) => Status::Invalid(Invalid::Impossible(what.clone()).to_string()),
            None if valid => Status::Valid,
            None => self.failure(),
        };
        Row {
            metrics,
            load: Arc::new(Load(load)),
            source: Some(file.to_owned()),
            about: About {
                part,
                further: further.into_iter().collect(),
                warnings: if valid { warnings_from(&signs) } else { Vec::new() },
                ..About::default()
            },
            ..Row::bare(name, ShownAxes::of_model(NO_MODEL.to_owned()), status)
        }
    }

    fn failure(&self) -> Status {
        let all = self.completed + self.failed;
        let error = self.first_error.as_ref().map(|error| format!(", the first with: {error}")).unwrap_or_default();
        let summary = format!("{} of {all} requests failed{error}", self.failed);
        Status::Failed(Box::new(FailedAttempt::of(summary)))
    }
}

/// The runs of a file by their `run_id`, and what is wrong with it.
fn runs<R: std::io::Read>(columns: &StringRecord, mut reader: Reader<R>) -> (IndexMap<String, Run>, Option<Refusal>) {
    let places = Columns::of(columns);
    let mut runs: IndexMap<String, Run> = IndexMap::new();
    let mut record = StringRecord::new();
    let mut last = (String::new(), None);
    loop {
        match reader.read_record(&mut record) {
            Ok(true) if record.len() == columns.len() => {}
            Ok(true) => {
                let line = record.position().map_or(0, csv::Position::line);
                return (
                    runs,
                    Some(Refusal::broken(format!(
                        "cut off in line {line}: {} of {} fields",
                        record.len(),
                        columns.len()
                    ))),
                );
            }
            Ok(false) => return (runs, None),
            Err(error) => return (runs, Some(Refusal::broken(format!("not a table: {error}")))),
        }
        let id = places.run.and_then(|at| record.get(at)).unwrap_or_default();
        if last.1.is_none() || last.0 != id {
            last = (id.to_owned(), Some(runs.entry(id.to_owned()).or_default()));
        }
        if let (_, Some(run)) = &mut last {
            run.add(&places, &record);
        }
    }
}

/// The rows of a file: one for each `run_id`.
pub(super) fn content<R: std::io::Read>(file: &Path, columns: &StringRecord, reader: Reader<R>) -> Content {
    let (runs, mut refusal) = runs(columns, reader);
    if runs.is_empty() {
        refusal.get_or_insert_with(|| Refusal::broken("without requests"));
    }
    let alone = runs.len() == 1;
    let taken = runs.iter().enumerate().map(|(i, (id, run))| {
        let name = if id.is_empty() { crate::results::files::read::name_of(file, None) } else { id.clone() };
        let row = run.row(name, file, (!alone).then_some(i));
        Taken { row, kind: Kind::Requests, date: None, requests: run.completed + run.failed, alone }
    });
    Content { taken: taken.collect(), refusal }
}

/// The completed requests of a run of such a file; `None` where the file is none.
pub(crate) fn requests(path: &Path, part: Option<usize>) -> Option<Requests> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(path).ok()?;
    let columns = reader.headers().cloned().ok()?;
    if !COLUMNS.iter().all(|name| columns.iter().any(|column| column == *name)) {
        return None;
    }
    let (mut runs, _) = runs(&columns, reader);
    let (_, mut run) = runs.swap_remove_index(part.unwrap_or(0))?;
    // In the order in which they were begun; where nobody says when, in that of the file.
    run.requests.sort_by(|a, b| a.start_s.partial_cmp(&b.start_s).unwrap_or(std::cmp::Ordering::Equal));
    let first = run.first_start.unwrap_or(0.0);
    let all = |of: fn(&Request) -> Option<f64>| -> Vec<f64> {
        let values: Vec<f64> = run.requests.iter().filter_map(of).collect();
        if values.len() == run.requests.len() { values } else { Vec::new() }
    };
    Some(Requests {
        start_s: all(|request| request.start_s).into_iter().map(|start| start - first).collect(),
        ttft_ms: all(|request| request.ttft_ms),
        tpot_ms: run.requests.iter().filter_map(|request| request.tpot_ms).collect(),
        e2el_ms: all(|request| Some(request.e2el_ms)),
        itl_ms: Vec::new(),
        input_tokens: all(|request| request.input),
        output_tokens: all(|request| request.output),
    })
}
