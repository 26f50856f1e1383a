//! The result file: vLLM's keys in vLLM's order, and what is ours under one key of our own.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Metrics, Summary, named, percentile_name, rate_name};
use crate::load::arrival::RampUp;
use crate::load::sample::Sample;
use crate::load::session::Ended;

/// What was measured, and how.
#[derive(Debug, Clone)]
pub struct Subject {
    /// `--backend`.
    pub backend: String,
    /// `--label`.
    pub label: Option<String>,
    /// The model, as named to the client.
    pub model_id: String,
    /// The tokenizer.
    pub tokenizer_id: String,
    /// Requests asked for.
    pub num_prompts: u64,
    /// `--metadata`.
    pub metadata: Vec<(String, String)>,
    /// Requests per second; infinite = as fast as the concurrency allows.
    pub request_rate: f64,
    /// `--burstiness`.
    pub burstiness: f64,
    /// `--max-concurrency`.
    pub max_concurrency: Option<u64>,
    /// `--ramp-up-…`.
    pub ramp_up: Option<RampUp>,
    /// `--n`.
    pub n: u32,
    /// `--load-pattern`.
    pub pattern: &'static str,
    /// Which metrics are reported (`--percentile-metrics`).
    pub percentile_metrics: Vec<String>,
    /// Nothing but what vLLM's client knows: the simulated `vllm bench serve`.
    pub is_plain: bool,
    /// A simulation made the numbers.
    pub simulated: bool,
}

/// The arrays of `--save-detailed`, by request.
#[derive(Debug, Default)]
pub struct Details {
    rows: Vec<Detail>,
}

#[derive(Debug)]
struct Detail {
    index: u64,
    input: Option<u64>,
    output: u64,
    ttft: f64,
    start: f64,
    gaps: Vec<u32>,
    text: String,
    error: String,
}

impl Details {
    /// Keeps a request.
    pub fn add(&mut self, sample: &Sample) {
        let failed = sample.failure.is_some();
        self.rows.push(Detail {
            index: sample.index,
            input: sample.prompt_tokens(),
            output: if failed { 0 } else { sample.output_tokens().0 },
            ttft: sample.ttft().unwrap_or(0.0),
            start: sample.started as f64 / 1e9,
            gaps: sample.reply.gaps.clone(),
            text: sample.reply.text.clone(),
            error: sample.failure.as_ref().map(|failure| failure.detail.clone()).unwrap_or_default(),
        });
    }

    fn put(&mut self, result: &mut Map<String, Value>) {
        self.rows.sort_by_key(|row| row.index);
        let rows = &self.rows;
        let mut put = |key: &str, values: Vec<Value>| {
            result.insert(key.to_owned(), values.into());
        };
        put("input_lens", rows.iter().map(|row| row.input.into()).collect());
        put("output_lens", rows.iter().map(|row| row.output.into()).collect());
        put("ttfts", rows.iter().map(|row| row.ttft.into()).collect());
        // A gap is kept in units of 100 ns, a whole number of seventh decimals.
        let itls = |row: &Detail| row.gaps.iter().map(|gap| f64::from(*gap) / 1e7).collect::<Vec<f64>>();
        put("itls", rows.iter().map(|row| itls(row).into()).collect());
        put("generated_texts", rows.iter().map(|row| row.text.clone().into()).collect());
        put("errors", rows.iter().map(|row| row.error.clone().into()).collect());
    }

    fn starts(&self) -> Vec<f64> {
        self.rows.iter().map(|row| row.start).collect()
    }
}

/// The result file's object. `more` is what else is known (the server's side, the environment).
pub fn result(
    subject: &Subject,
    metrics: &Metrics,
    ended: &Ended,
    details: Option<&mut Details>,
    more: Map<String, Value>,
    date: &str,
) -> Map<String, Value> {
    let mut result = Map::new();
    let mut put = |key: &str, value: Value| {
        result.insert(key.to_string(), value);
    };
    put("date", date.into());
    put("endpoint_type", subject.backend.clone().into());
    put("backend", subject.backend.clone().into());
    put("label", subject.label.clone().into());
    put("model_id", subject.model_id.clone().into());
    put("tokenizer_id", subject.tokenizer_id.clone().into());
    put("num_prompts", subject.num_prompts.into());
    for (key, value) in &subject.metadata {
        put(key, value.clone().into());
    }
    put("request_rate", if subject.request_rate.is_finite() { subject.request_rate.into() } else { "inf".into() });
    put("burstiness", if subject.burstiness.is_finite() { subject.burstiness.into() } else { "inf".into() });
    put("max_concurrency", subject.max_concurrency.into());
    if let Some(ramp_up) = subject.ramp_up {
        let (strategy, start, end) = match ramp_up {
            RampUp::Linear { start, end } => ("linear", start, end),
            RampUp::Exponential { start, end } => ("exponential", start, end),
        };
        put("ramp_up_strategy", strategy.into());
        put("ramp_up_start_rps", start.into());
        put("ramp_up_end_rps", end.into());
    }
    put("duration", metrics.duration.into());
    put("completed", metrics.completed.into());
    put("failed", metrics.failed.into());
    put("total_input_tokens", metrics.total_input.into());
    put("total_output_tokens", metrics.total_output.into());
    put("request_throughput", metrics.request_throughput.into());
    put("request_goodput", metrics.request_goodput.into());
    put("output_throughput", metrics.output_throughput.into());
    put("total_token_throughput", metrics.total_token_throughput.into());
    let starts = details.map(|details| {
        details.put(&mut result);
        details.starts()
    });
    let mut put = |key: &str, value: Value| {
        result.insert(key.to_string(), value);
    };
    put("max_output_tokens_per_s", metrics.max_output_tokens_per_s.into());
    put("max_concurrent_requests", metrics.max_concurrent_requests.into());
    for (key, value) in more.iter().filter(|(key, _)| key.starts_with("spec_decode_")) {
        put(key, value.clone());
    }
    for (flag, _, _, summary) in named(metrics) {
        if subject.percentile_metrics.iter().any(|metric| metric == flag) {
            put(&format!("mean_{flag}_ms"), summary.mean.into());
            put(&format!("median_{flag}_ms"), summary.median.into());
            put(&format!("std_{flag}_ms"), summary.std.into());
            for (which, value) in &summary.percentiles {
                put(&format!("p{}_{flag}_ms", percentile_name(*which)), (*value).into());
            }
        }
    }
    if subject.simulated {
        put("simulated", true.into());
    }
    if !subject.is_plain {
        put("vllm_bench_load", ours(subject, metrics, ended, starts, more));
    }
    result
}

/// What vLLM's client does not know.
fn ours(
    subject: &Subject,
    metrics: &Metrics,
    ended: &Ended,
    starts: Option<Vec<f64>>,
    more: Map<String, Value>,
) -> Value {
    let mut own = Map::new();
    let mut put = |key: &str, value: Value| {
        own.insert(key.to_string(), value);
    };
    put("version", env!("CARGO_PKG_VERSION").into());
    put("client", "builtin".into());
    put("load_pattern", subject.pattern.into());
    put("n", subject.n.into());
    put("sequences", metrics.sequences.into());
    put("sequences_asked", metrics.sequences_asked.into());
    put("offered_rate", json!(rate_name(subject.request_rate)));
    put("achieved_rate", metrics.achieved_rate.into());
    put("late_requests", ended.late.into());
    put("late_for_prompts", ended.starved.into());
    put("latest_request_ms", (ended.latest * 1e3).into());
    put("client_queue_time_ms", metrics.queue_time.as_ref().map_or(Value::Null, summary));
    put("connect_time_ms", metrics.connect_time.as_ref().map_or(Value::Null, summary));
    put("mean_concurrency", metrics.mean_concurrency.into());
    put("peak_concurrency", ended.peak_concurrency.into());
    put("tokens_per_second_per_user", summary(&metrics.tokens_per_second_per_user));
    let window = metrics.steady_state.as_ref().map(|window| {
        json!({
            "from_s": window.from_s, "to_s": window.to_s, "requests": window.requests,
            "request_throughput": window.request_throughput, "output_throughput": window.output_throughput,
            "ttft_ms": summary(&window.ttft_ms), "tpot_ms": summary(&window.tpot_ms), "e2el_ms": summary(&window.e2el_ms),
        })
    });
    put("steady_state", window.into());
    put("scheduled_rate", metrics.scheduled_rate.into());
    put("drift", metrics.drift.map(|drift| drift.ratio).into());
    put("drift_interval", metrics.drift.map(|drift| json!([drift.low, drift.high])).into());
    let failures: Map<String, Value> = metrics
        .failures
        .iter()
        .map(|(class, failures)| {
            let examples: Vec<Value> =
                failures.examples.iter().map(|(text, count)| json!({"text": text, "count": count})).collect();
            (class.name().to_owned(), json!({"count": failures.count, "examples": examples}))
        })
        .collect();
    put("failures", failures.into());
    put("gave_up", json!(ended.gave_up));
    put("interrupted", ended.stopped.is_some().into());
    put("estimated_token_counts", metrics.estimated.into());
    put("itl_per", "chunk".into());
    put("tokens_per_chunk", metrics.tokens_per_chunk.into());
    put("prompts_not_counted", metrics.input_unknown.into());
    put("cached_prompt_tokens", metrics.cached_tokens.into());
    put(
        "prompt_tokens",
        metrics.prompts_of_both.map(|(ours, server)| json!({"counted": ours, "server": server})).into(),
    );
    put("first_request", metrics.first_request.map(|(ms, ratio)| json!({"ms": ms, "times_the_median": ratio})).into());
    put("itl_percentiles", if metrics.itl_in_classes { "within 0.05 %".into() } else { "exact".into() });
    let clock = if metrics.simulated { "simulated".into() } else { json!(ended.arrival_clock) };
    put("arrival_clock", clock);
    put("threads", ended.threads.into());
    if let Some(starts) = starts {
        put("start_times", starts.into());
    }
    for (key, value) in more {
        if !key.starts_with("spec_decode_") {
            put(&key, value);
        }
    }
    own.into()
}

fn summary(summary: &Summary) -> Value {
    let mut map = Map::new();
    map.insert("mean".into(), summary.mean.into());
    map.insert("median".into(), summary.median.into());
    map.insert("std".into(), summary.std.into());
    for (which, value) in &summary.percentiles {
        map.insert(format!("p{}", percentile_name(*which)), (*value).into());
    }
    map.into()
}

/// JSON with Python's spaces: `{"a": 1, "b": [1, 2]}`.
///
/// # Errors
/// Never, for values of `serde_json`.
pub fn python_json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    struct Python;
    impl serde_json::ser::Formatter for Python {
        fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
            writer.write_all(b": ")
        }
    }
    let mut bytes = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Python))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::clock::ArrivalClock;
    use crate::load::metrics::Collector;

    pub(super) fn subject(is_plain: bool) -> Subject {
        Subject {
            backend: "openai".into(),
            label: None,
            model_id: "m".into(),
            tokenizer_id: "m".into(),
            num_prompts: 1,
            metadata: vec![],
            request_rate: f64::INFINITY,
            burstiness: 1.0,
            max_concurrency: None,
            ramp_up: None,
            n: 1,
            pattern: "closed",
            percentile_metrics: ["ttft", "tpot", "itl"].map(str::to_owned).to_vec(),
            is_plain,
            simulated: is_plain,
        }
    }

    fn ended() -> Ended {
        Ended {
            duration: 1.0,
            first_start: 0,
            last_start: 0,
            full_at: 0,
            peak_concurrency: 1,
            not_sent: 0,
            late: 0,
            latest: 0.0,
            starved: 0,
            arrival_clock: ArrivalClock::Kernel,
            threads: 1,
            stopped: None,
            gave_up: None,
        }
    }

    #[test]
    fn the_result_has_the_keys_of_the_real_one_in_its_order() {
        // The keys of a real result of vLLM 0.14.1.
        const REAL: &str = "date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness \
            max_concurrency duration completed failed total_input_tokens total_output_tokens request_throughput \
            request_goodput output_throughput total_token_throughput max_output_tokens_per_s max_concurrent_requests \
            mean_ttft_ms median_ttft_ms std_ttft_ms p99_ttft_ms mean_tpot_ms median_tpot_ms std_tpot_ms p99_tpot_ms \
            mean_itl_ms median_itl_ms std_itl_ms p99_itl_ms";
        let metrics = Collector::new(false, vec![]).finish(&ended(), &[99.0]);
        let keys = |subject: &Subject| -> Vec<String> {
            result(subject, &metrics, &ended(), None, Map::new(), "20261122-061239").keys().cloned().collect()
        };
        let real: Vec<&str> = REAL.split_whitespace().collect();
        assert_eq!(keys(&subject(true)), [&real[..], &["simulated"]].concat());
        assert_eq!(keys(&subject(false)), [&real[..], &["vllm_bench_load"]].concat());
        let plain = result(&subject(true), &metrics, &ended(), None, Map::new(), "20261122-061239");
        let text = String::from_utf8(python_json(&plain).unwrap()).unwrap();
        assert!(text.starts_with("{\"date\": \"20261122-061239\", \"endpoint_type\": \"openai\""), "{text}");
        assert!(text.contains("\"request_rate\": \"inf\", \"burstiness\": 1.0, \"max_concurrency\": null"), "{text}");
        let console = super::super::console(&subject(true), &metrics, &ended(), &plain);
        assert!(console.starts_with("============ Serving Benchmark Result ============\n"), "{console}");
        assert!(console.contains("SIMULATED"));
    }
}
