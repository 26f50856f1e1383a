//! What the benchmark prints and writes: vLLM's console block and result file, key by key.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Options;
use super::stats::{Metrics, Outcome, Summary};

/// The metrics with what vLLM calls them: (flag, header, name).
fn named(metrics: &Metrics) -> [(&'static str, &'static str, &'static str, &Summary); 4] {
    [
        ("ttft", "Time to First Token", "TTFT", &metrics.ttft),
        ("tpot", "Time per Output Token (excl. 1st token)", "TPOT", &metrics.tpot),
        ("itl", "Inter-token Latency", "ITL", &metrics.itl),
        ("e2el", "End-to-end Latency", "E2EL", &metrics.e2el),
    ]
}

fn percentile_name(which: f64) -> String {
    if which.fract() == 0.0 { format!("{}", which as i64) } else { format!("{which}") }
}

/// The console block.
pub fn console(options: &Options, metrics: &Metrics) -> String {
    let mut lines = vec![format!("{:=^50}", " Serving Benchmark Result ")];
    let mut whole = |name: &str, value: u64| lines.push(format!("{name:<40} {value:<10}"));
    whole("Successful requests:", metrics.completed as u64);
    whole("Failed requests:", metrics.failed as u64);
    if let Some(concurrency) = options.max_concurrency {
        whole("Maximum request concurrency:", concurrency as u64);
    }
    let decimal = |name: &str, value: f64| format!("{name:<40} {value:<10.2}");
    if options.request_rate.is_finite() {
        lines.push(decimal("Request rate configured (RPS):", options.request_rate));
    }
    lines.push(decimal("Benchmark duration (s):", metrics.duration));
    lines.push(format!("{:<40} {:<10}", "Total input tokens:", metrics.total_input));
    lines.push(format!("{:<40} {:<10}", "Total generated tokens:", metrics.total_output));
    lines.push(decimal("Request throughput (req/s):", metrics.request_throughput));
    if let Some(goodput) = metrics.request_goodput {
        lines.push(decimal("Request goodput (req/s):", goodput));
    }
    lines.push(decimal("Output token throughput (tok/s):", metrics.output_throughput));
    lines.push(decimal("Peak output token throughput (tok/s):", metrics.max_output_tokens_per_s));
    lines.push(decimal("Peak concurrent requests:", metrics.max_concurrent_requests as f64));
    lines.push(decimal("Total token throughput (tok/s):", metrics.total_token_throughput));
    for (flag, header, name, summary) in named(metrics) {
        if !options.percentile_metrics.iter().any(|metric| metric == flag) {
            continue;
        }
        lines.push(format!("{header:-^50}"));
        lines.push(decimal(&format!("Mean {name} (ms):"), summary.mean));
        lines.push(decimal(&format!("Median {name} (ms):"), summary.median));
        for (which, value) in &summary.percentiles {
            lines.push(decimal(&format!("P{} {name} (ms):", percentile_name(*which)), *value));
        }
    }
    lines.push("=".repeat(50));
    lines.push("SIMULATED by vllm-bench: no model ran, these numbers are made up by a timing model.".into());
    lines.join("\n") + "\n"
}

/// The result file's object.
pub fn result(options: &Options, metrics: &Metrics, outcomes: &[Outcome], date: &str) -> Value {
    let mut result = Map::new();
    let mut put = |key: &str, value: Value| {
        result.insert(key.to_string(), value);
    };
    put("date", date.into());
    put("endpoint_type", options.backend.clone().into());
    put("backend", options.backend.clone().into());
    put("label", options.label.clone().into());
    put("model_id", options.model.clone().into());
    put("tokenizer_id", options.tokenizer.clone().into());
    put("num_prompts", options.num_prompts.into());
    for (key, value) in &options.metadata {
        put(key, value.clone().into());
    }
    put("request_rate", if options.request_rate.is_finite() { options.request_rate.into() } else { "inf".into() });
    put("burstiness", options.burstiness.into());
    put("max_concurrency", options.max_concurrency.into());
    put("duration", metrics.duration.into());
    put("completed", metrics.completed.into());
    put("failed", metrics.failed.into());
    put("total_input_tokens", metrics.total_input.into());
    put("total_output_tokens", metrics.total_output.into());
    put("request_throughput", metrics.request_throughput.into());
    put("request_goodput", metrics.request_goodput.into());
    put("output_throughput", metrics.output_throughput.into());
    put("total_token_throughput", metrics.total_token_throughput.into());
    if options.save_detailed {
        put("input_lens", outcomes.iter().map(|o| o.prompt_tokens).collect());
        put("output_lens", outcomes.iter().map(|o| if o.error.is_none() { o.times.len() } else { 0 }).collect());
        put("ttfts", outcomes.iter().map(Outcome::ttft).collect());
        put("itls", outcomes.iter().map(|o| json!(o.itls())).collect());
        put("generated_texts", outcomes.iter().map(|o| o.text.clone()).collect());
        put("errors", outcomes.iter().map(|o| o.error.clone().unwrap_or_default()).collect());
    }
    put("max_output_tokens_per_s", metrics.max_output_tokens_per_s.into());
    put("max_concurrent_requests", metrics.max_concurrent_requests.into());
    for (flag, _, _, summary) in named(metrics) {
        if !options.percentile_metrics.iter().any(|metric| metric == flag) {
            continue;
        }
        put(&format!("mean_{flag}_ms"), summary.mean.into());
        put(&format!("median_{flag}_ms"), summary.median.into());
        put(&format!("std_{flag}_ms"), summary.std.into());
        for (which, value) in &summary.percentiles {
            put(&format!("p{}_{flag}_ms", percentile_name(*which)), (*value).into());
        }
    }
    put("simulated", true.into());
    result.into()
}

/// JSON with Python's spaces: `{"a": 1, "b": [1, 2]}`.
pub fn python_json(value: &Value) -> io::Result<Vec<u8>> {
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
    use crate::sim::client::stats;

    #[test]
    fn the_result_has_the_keys_of_the_real_one_in_its_order() {
        // The keys of a real result of vLLM 0.14.1.
        const REAL: &str = "date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness \
            max_concurrency duration completed failed total_input_tokens total_output_tokens request_throughput \
            request_goodput output_throughput total_token_throughput max_output_tokens_per_s max_concurrent_requests \
            mean_ttft_ms median_ttft_ms std_ttft_ms p99_ttft_ms mean_tpot_ms median_tpot_ms std_tpot_ms p99_tpot_ms \
            mean_itl_ms median_itl_ms std_itl_ms p99_itl_ms simulated";
        let options = Options::parse(&["--model".into(), "m".into()]).expect("options");
        let outcome = Outcome { times: vec![1_000_000, 2_000_000], prompt_tokens: 3, ..Outcome::default() };
        let metrics = stats::metrics(std::slice::from_ref(&outcome), &options.percentiles, &[]);
        let result = result(&options, &metrics, &[outcome], "20261122-061239");
        let keys: Vec<&str> = result.as_object().expect("object").keys().map(String::as_str).collect();
        assert_eq!(keys, REAL.split_whitespace().collect::<Vec<_>>());
        let text = String::from_utf8(python_json(&result).expect("json")).expect("utf-8");
        assert!(text.starts_with("{\"date\": \"20261122-061239\", \"endpoint_type\": \"openai\""), "{text}");
        assert!(text.contains("\"request_rate\": \"inf\", \"burstiness\": 1.0, \"max_concurrency\": null"), "{text}");
        let console = console(&options, &metrics);
        assert!(console.starts_with("============ Serving Benchmark Result ============\n"), "{console}");
        assert!(console.contains("SIMULATED"));
    }
}
