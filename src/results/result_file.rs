//! One result file, read with suspicion.
//!
//! A result may carry arrays of every request (`--save-detailed`, a hundred times the size of the rest): they are
//! passed over while reading, never kept.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;

use crate::analyse::{EmptyAnswers, MetricValues, VllmMetrics};
use crate::bounded::{self, Plain, PythonJson};
use crate::load::drift::Drift;
use crate::model::VllmMetric;
use crate::record::{ResultMeta, SCHEMA};
use crate::results::fields::Values;
use crate::results::request_arrays::{IsError, Sum, drift_of, empty_answers};
use crate::results::scan::{Beginning, Keep, Member, Scanner, Stop, is_unescaped};

/// A result file beyond this size is not read.
const LARGEST: u64 = bounded::RESULT;
/// A file beyond this size is never held in memory whole.
pub(super) const LARGE: u64 = bounded::LARGE;
/// Members of a file beyond this size are not copied.
const MOST_COPIED: u64 = 16 << 10;
/// Arrays and objects up to this many bytes are kept.
const SHORT: usize = 1024;
/// The arrays of each request's tokens and TTFT up to this many bytes are looked into.
const MOST_ARRAY: usize = 16 << 20;
/// The key of our own part of a result.
pub(crate) const OURS: &str = "vllm_bench";
/// The key of what our own load generator adds.
pub(crate) const LOAD: &str = "vllm_bench_load";

/// What a result file says.
#[derive(Debug, Default)]
pub(super) struct ResultFile {
    /// vLLM's keys with a plain value, without arrays and objects.
    pub metrics: Values,
    /// Short arrays and objects, as text: settings may be such.
    pub short: Vec<(String, String)>,
    /// Ours: absent in files of other programs; `Err` where it is there and cannot be read.
    pub meta: Option<Result<Box<ResultMeta>, String>>,
    /// What our own load generator adds.
    pub load: Option<Value>,
    /// Answers without a token, where it has the arrays of each request.
    pub empty: Option<EmptyAnswers>,
    /// Whether the load became slower, where it has the arrays of each request with the times of sending.
    pub drift: Option<Drift>,
    /// Its members as they stand in the file, where they were asked for, and all of them are plain.
    pub members: Option<Box<[u8]>>,
}

/// What is wanted of the members of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Members {
    /// Their values.
    Parsed,
    /// Their text too.
    Copied,
}

/// Why a file was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In words that go after "the file is".
    pub reason: String,
    /// Whether a result may have been lost: it is broken, not merely something else.
    pub lost: bool,
}

impl Refusal {
    /// Something that should have been a result.
    pub fn broken(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), lost: true }
    }

    /// Something else than a result.
    pub fn foreign(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), lost: false }
    }
}

impl ResultFile {
    /// A metric, where it is a number.
    pub fn number(&self, key: &str) -> Option<f64> {
        let held = || self.metrics().get(VllmMetric::of(key)?);
        self.metrics.get(key).and_then(Value::as_f64).or_else(held)
    }

    /// Whether it is of SGLang's client: other latencies than vLLM's, and no rate of requests.
    pub fn is_sglang(&self) -> bool {
        self.number("median_e2el_ms").is_some() && self.number("mean_tpot_ms").is_none()
    }

    /// Puts in SGLang's rate of requests, which it does not write: requests over the duration.
    fn derive_rate(&mut self) {
        if self.is_sglang()
            && self.number("request_throughput").is_none()
            && let (Some(completed), Some(duration)) = (self.number("completed"), self.number("duration"))
            && duration > 0.0
        {
            self.metrics.push("request_throughput", (completed / duration).into());
        }
    }

    /// Clients write 0 for prompt tokens that nobody counted: then they are not known, and no total that holds them is either.
    fn forget_what_nobody_counted(&mut self) {
        let metrics = self.metrics();
        let known = |metric| metrics.get(metric);
        if known(VllmMetric::TotalInputTokens) == Some(0.0)
            && known(VllmMetric::Completed).is_some_and(|completed| completed > 0.0)
        {
            self.metrics.forget(VllmMetric::TotalInputTokens);
            self.metrics.forget(VllmMetric::TotalTokenThroughput);
        }
    }

    /// A value in the spelling of the command line.
    pub fn text(&self, key: &str) -> Option<String> {
        match self.metrics.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Metrics of vLLM's metrics beyond the fixed ones, such as `p95_ttft_ms`.
    pub fn percentiles(&self) -> MetricValues {
        let known = |key: &str| VllmMetric::of(key).is_some();
        let named = |key: &str| {
            key.starts_with("spec_decode_")
                || key == "request_goodput"
                || ["_ttft_ms", "_tpot_ms", "_itl_ms", "_e2el_ms"].iter().any(|end| key.ends_with(end))
        };
        let metrics = self.metrics.iter().filter(|(key, _)| named(key) && !known(key));
        metrics.filter_map(|(key, value)| Some((key.to_owned(), value.as_f64()?))).collect()
    }

    /// The metrics under vLLM's names.
    pub fn metrics(&self) -> VllmMetrics {
        self.metrics.metrics()
    }
}

/// Opens a result file; `None` where there is none.
///
/// # Errors
/// Why it cannot be taken.
pub(super) fn open(path: &Path) -> Result<Option<(File, u64)>, Refusal> {
    let (file, metadata) = match bounded::open_known(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            return Err(Refusal::foreign("not a regular file"));
        }
        Err(error) => return Err(unreadable(&error)),
    };
    let size = metadata.len();
    if size > LARGEST {
        return Err(Refusal::broken(format!("larger than {} MiB", LARGEST >> 20)));
    }
    if size == 0 {
        return Err(Refusal::broken("empty"));
    }
    Ok(Some((file, size)))
}

pub(super) fn unreadable(error: &std::io::Error) -> Refusal {
    Refusal::broken(format!("not readable: {error}"))
}

/// Reads the text of a result file; `None` where there is none.
///
/// # Errors
/// Why it cannot be taken, in words that go after "the file is".
pub(super) fn read_text(path: &Path) -> Result<Option<String>, Refusal> {
    let Some((file, size)) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
    file.take(LARGEST).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    String::from_utf8(bytes).map(Some).map_err(|error| Refusal::broken(format!("not text: {}", error.utf8_error())))
}

/// Reads a result file; `None` where there is none. `buffer` is for use again with the next one.
///
/// # Errors
/// When it cannot be read, or is not a JSON object.
pub(super) fn read(path: &Path, buffer: &mut Vec<u8>, members: Members) -> Result<Option<ResultFile>, Refusal> {
    let Some((file, size)) = open(path)? else { return Ok(None) };
    // Up to its size: the end is known without asking for more.
    let mut scanner = Scanner::new(file.take(size), buffer);
    let members = if size > MOST_COPIED { Members::Parsed } else { members };
    let mut one = || -> Result<ResultFile, Stop> {
        if scanner.beginning()? != Beginning::Object || !scanner.another()? {
            return Err(Stop::Odd);
        }
        let result = next(&mut scanner, members)?;
        if scanner.another()? { Err(Stop::Odd) } else { Ok(result) }
    };
    match one() {
        Ok(result) => Ok(Some(result)),
        Err(Stop::Read(error)) => Err(unreadable(&error)),
        Err(Stop::Odd) => strictly(path),
    }
}

/// The next object of a file.
///
/// # Errors
/// When it is none.
pub(super) fn next<R: Read>(scanner: &mut Scanner<'_, R>, members: Members) -> Result<ResultFile, Stop> {
    let mut result = ResultFile::default();
    let mut copied = match members {
        Members::Parsed => None,
        Members::Copied => Some(Vec::with_capacity(2048)),
    };
    let own = |key: &str| key == OURS || key == LOAD;
    let of_requests = |key: &str| ["output_lens", "ttfts", "itls", "start_times", "errors"].contains(&key);
    let (mut lengths, mut ttfts): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let (mut starts, mut further, mut failed): (Vec<f64>, Vec<Sum>, Vec<IsError>) = Default::default();
    scanner.object(
        |key| match key {
            _ if own(key) => Keep::Whole,
            _ if of_requests(key) => Keep::UpTo(MOST_ARRAY),
            _ => Keep::UpTo(SHORT),
        },
        |key, member| {
            let member = match member {
                Member::Plain(word) => Member::Plain(as_text(word)),
                member @ (Member::Compound(_) | Member::PassedOver) => member,
            };
            match member {
                Member::Plain(text) => copied.as_mut().map_or(Ok(()), |copied| put_member(copied, key, text))?,
                Member::Compound(_) | Member::PassedOver => copied = None,
            }
            match member {
                Member::Compound(text) if key == OURS => result.meta = Some(meta_of(text)?),
                Member::Compound(text) | Member::Plain(text) if key == LOAD => {
                    result.load = Some(serde_json::from_str(text).map_err(|_| Stop::Odd)?);
                }
                Member::Plain(text) if key == OURS => result.meta = Some(meta_of(text)?),
                Member::Plain(text) => {
                    let value = serde_json::from_str(text).map_err(|_| Stop::Odd)?;
                    result.metrics.push(vllm_key(key), value);
                }
                // Odd ones say nothing.
                Member::Compound(text) if key == "output_lens" => {
                    lengths = serde_json::from_str(text).unwrap_or_default()
                }
                Member::Compound(text) if key == "ttfts" => ttfts = serde_json::from_str(text).unwrap_or_default(),
                Member::Compound(text) if key == "start_times" => {
                    starts = serde_json::from_str(text).unwrap_or_default()
                }
                Member::Compound(text) if key == "itls" => further = serde_json::from_str(text).unwrap_or_default(),
                Member::Compound(text) if key == "errors" => failed = serde_json::from_str(text).unwrap_or_default(),
                Member::Compound(text) => result.short.push((key.to_owned(), text.to_owned())),
                Member::PassedOver => {}
            }
            Ok(())
        },
    )?;
    result.members = copied.map(Vec::into_boxed_slice);
    result.empty = empty_answers(&lengths, &ttfts, result.number("completed"));
    let most = result.number("max_concurrent_requests").or_else(|| result.number("max_concurrency"));
    result.drift = drift_of(&starts, &ttfts, &further, &failed, most);
    result.derive_rate();
    result.forget_what_nobody_counted();
    Ok(result)
}

/// A number that is none, as Python writes it, as a JSON text; all else as it is.
fn as_text(word: &str) -> &str {
    match word {
        "NaN" => "\"NaN\"",
        "Infinity" => "\"Infinity\"",
        "-Infinity" => "\"-Infinity\"",
        other => other,
    }
}

/// The key of newer releases of vLLM for what SGLang's client and older releases call otherwise.
fn vllm_key(key: &str) -> &str {
    match key {
        "mean_e2e_latency_ms" => "mean_e2el_ms",
        "median_e2e_latency_ms" => "median_e2el_ms",
        "std_e2e_latency_ms" => "std_e2el_ms",
        "p90_e2e_latency_ms" => "p90_e2el_ms",
        "p99_e2e_latency_ms" => "p99_e2el_ms",
        // Of vLLM's own client before 0.10.
        "request_goodput:" => "request_goodput",
        other => other,
    }
}

/// Writes a member behind others, its value as it stands in the file.
///
/// # Errors
/// Never in memory.
pub(crate) fn put_member(out: &mut Vec<u8>, key: &str, text: &str) -> Result<(), Stop> {
    out.extend_from_slice(if out.is_empty() { b"\n  " } else { b",\n  " });
    if is_unescaped(key) {
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\": ");
    } else {
        serde_json::to_writer(&mut *out, key).map_err(|_| Stop::Odd)?;
        out.extend_from_slice(b": ");
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Our own part of a result. What is not JSON is for the parser of the whole.
fn meta_of(text: &str) -> Result<Result<Box<ResultMeta>, String>, Stop> {
    match serde_json::from_str::<ResultMeta>(text) {
        Ok(meta) if meta.schema <= SCHEMA => Ok(Ok(Box::new(meta))),
        _ => serde_json::from_str(text).map(read_meta).map_err(|_| Stop::Odd),
    }
}

/// Reads a file again that is odd: by a parser, which says what is wrong.
fn strictly(path: &Path) -> Result<Option<ResultFile>, Refusal> {
    let Some((file, size)) = open(path)? else { return Ok(None) };
    let Fields { metrics, ours, load } = if size > LARGE {
        let reader = BufReader::with_capacity(1 << 16, PythonJson::new(file));
        serde_json::from_reader(reader).map_err(|error| json_refusal(&error))?
    } else {
        let Some(text) = read_text(path)? else { return Ok(None) };
        serde_json::from_str(&text)
            .or_else(|error| serde_json::from_reader(PythonJson::new(text.as_bytes())).map_err(|_| error))
            .map_err(|error| json_refusal(&error))?
    };
    let mut result = ResultFile { metrics, meta: ours.map(read_meta), load, ..ResultFile::default() };
    result.forget_what_nobody_counted();
    Ok(Some(result))
}

/// What a parser says, in our words.
pub(super) fn json_refusal(error: &serde_json::Error) -> Refusal {
    match error.classify() {
        Category::Eof => Refusal::broken(format!("cut off: {error}")),
        Category::Data => Refusal::foreign(format!("not a JSON object: {error}")),
        Category::Io => Refusal::broken(format!("not readable: {error}")),
        Category::Syntax => Refusal::broken(format!("not JSON: {error}")),
    }
}

fn read_meta(value: Value) -> Result<Box<ResultMeta>, String> {
    if let Some(schema) = value.get("schema").and_then(Value::as_u64).filter(|&schema| schema > u64::from(SCHEMA)) {
        return Err(format!("of format version {schema}; this vllm-bench reads up to {SCHEMA}"));
    }
    serde_json::from_value(value)
        .map(Box::new)
        .map_err(|error| format!("not readable in its `vllm_bench` part: {error}"))
}

/// The top level of a result file.
struct Fields {
    metrics: Values,
    ours: Option<Value>,
    load: Option<Value>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel;
        impl<'de> Visitor<'de> for TopLevel {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields { metrics: Values::default(), ours: None, load: None };
                while let Some(key) = map.next_key::<String>()? {
                    if key == OURS {
                        fields.ours = Some(map.next_value()?);
                    } else if key == LOAD {
                        fields.load = Some(map.next_value()?);
                    } else if let Plain(Some(value)) = map.next_value()? {
                        fields.metrics.push(&key, value);
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(TopLevel)
    }
}

#[cfg(test)]
mod tests {
    use crate::analyse::WarningKind;
    use crate::load::drift::tests::Shape;
    use crate::results::result_file::*;

    fn reason(content: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x_results.json");
        std::fs::write(&path, content).unwrap();
        read(&path, &mut Vec::new(), Members::Parsed).unwrap_err().reason
    }

    #[test]
    fn what_is_no_result_is_refused_with_the_reason() {
        assert_eq!(reason(b""), "empty");
        assert_eq!(reason(b"{\"a\": [1, 2"), "cut off: EOF while parsing a list at line 1 column 11");
        assert_eq!(reason(b"[]"), "not a JSON object: invalid type: sequence, expected an object at line 1 column 0");
        assert_eq!(reason(b"{\"a\": NaNs}"), "not JSON: expected value at line 1 column 7");
        assert_eq!(reason(b"{\"a\": 1e999}"), "not JSON: number out of range at line 1 column 11");
        assert_eq!(reason(b"\xff\xfe"), "not text: invalid utf-8 sequence of 1 bytes from index 0");
        assert!(reason("[".repeat(100_000).as_bytes()).starts_with("not a JSON object"));
        assert!(reason(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()).starts_with("cut off"));
    }

    #[test]
    fn a_pipe_under_the_name_of_a_result_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x_results.json");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&path, &mut Vec::new(), Members::Parsed).unwrap_err().reason, "not a regular file");
        assert!(read(&dir.path().join("absent"), &mut Vec::new(), Members::Parsed).unwrap().is_none());
    }

    #[test]
    fn a_number_that_is_none_is_not_known_and_the_others_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x_results.json");
        // Beside a key that is odd to the scanner too, and within an array.
        for text in [
            r#"{"completed": 2, "p99_tpot_ms": NaN, "request_rate": Infinity, "itls": [[NaN]], "duration": 4.0}"#,
            r#"{"completed": 2, "a\u0062": 1, "p99_tpot_ms": NaN, "x": {"y": [-Infinity]}, "duration": 4.0}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            let file = read(&path, &mut Vec::new(), Members::Parsed).unwrap().unwrap();
            let found = [VllmMetric::P99Tpot, VllmMetric::Duration].map(|metric| file.metrics().get(metric));
            assert_eq!((found, file.number("completed")), ([None, Some(4.0)], Some(2.0)), "{text}");
        }
        std::fs::write(&path, r#"{"completed": 2, "total_input_tokens": 0, "total_token_throughput": 9.0}"#).unwrap();
        let file = read(&path, &mut Vec::new(), Members::Copied).unwrap().unwrap();
        assert_eq!(file.metrics().get(VllmMetric::TotalInputTokens), None, "never 0 for what nobody counted");
        assert_eq!(file.metrics().get(VllmMetric::TotalTokenThroughput), None);
    }

    /// The share of loads of vLLM's own client that are called drifting; every tenth request fails.
    fn called(shape: &Shape, loads: u64, with_times: bool) -> f64 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x_results.json");
        let one = |seed: u64| {
            let (rows, _) = shape.run(seed);
            let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
            let failed = |at: usize| at % 10 == 9;
            let of = |number: &dyn Fn(usize, u64) -> serde_json::Value| -> Vec<serde_json::Value> {
                rows.iter().enumerate().map(|(at, (_, took))| number(at, *took)).collect()
            };
            let mut text = serde_json::json!({
                "completed": rows.len(), "max_concurrency": shape.servers,
                "start_times": rows.iter().map(|(start, _)| 1e5 + seconds(*start)).collect::<Vec<f64>>(),
                "ttfts": of(&|at, took| if failed(at) { 0.0.into() } else { (seconds(took) / 4.0).into() }),
                "itls": of(&|at, took| {
                    if failed(at) { serde_json::json!([]) } else { serde_json::json!([seconds(took) / 2.0, seconds(took) / 4.0]) }
                }),
                "errors": of(&|at, _| if failed(at) { "gone".into() } else { "".into() }),
            });
            if !with_times {
                text.as_object_mut().unwrap().remove("start_times");
            }
            std::fs::write(&path, text.to_string()).unwrap();
            let result = read(&path, &mut Vec::new(), Members::Parsed).unwrap().unwrap();
            let warnings = crate::analyse::warnings_from(&super::super::signs::signs(&result, None));
            warnings.iter().any(|warning| warning.kind == WarningKind::Drift)
        };
        (0..loads).filter(|seed| one(*seed)).count() as f64 / loads as f64
    }

    #[test]
    fn drift_is_seen_in_the_arrays_of_vllms_own_client_and_rarely_without_one() {
        let shape = |spread, rate, growth| Shape { requests: 100, servers: 8, spread, rate, growth };
        for with_times in [true, false] {
            for (spread, rate) in [(0.1, None), (0.8, None), (0.5, Some(0.8))] {
                let share = called(&shape(spread, rate, 0.0), 200, with_times);
                assert!(share <= 0.05, "{spread} {rate:?} {with_times}: {share}");
            }
            assert!(called(&shape(0.1, None, 1.0), 50, with_times) > 0.9);
        }
    }

    #[test]
    fn arrays_of_requests_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x_results.json");
        std::fs::write(&path, r#"{"completed": 2, "ttfts": [0.1, [2]], "x": {"a": {}}, "backend": "openai"}"#).unwrap();
        let file = read(&path, &mut Vec::new(), Members::Parsed).unwrap().unwrap();
        assert_eq!(file.metrics.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["completed", "backend"]);
        assert!(file.meta.is_none());
    }
}
