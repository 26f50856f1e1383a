//! The block that vLLM's client prints at its end, and below it what it does not know.

use serde_json::{Map, Value};

use super::result::Subject;
use super::{Metrics, named, percentile_name};
use crate::load::sample::FailureClass;
use crate::load::session::{Ended, GaveUp};

/// A server that sends more tokens than this in a chunk sends several at once.
const SEVERAL: f64 = 1.05;

/// The console block. `result` is the result file's object.
pub fn console(subject: &Subject, metrics: &Metrics, ended: &Ended, result: &Map<String, Value>) -> String {
    let mut lines = vec![format!("{:=^50}", " Serving Benchmark Result ")];
    let whole = |name: &str, value: u64| format!("{name:<40} {value:<10}");
    let decimal = |name: &str, value: f64| format!("{name:<40} {value:<10.2}");
    lines.push(whole("Successful requests:", metrics.completed));
    lines.push(whole("Failed requests:", metrics.failed));
    if let Some(concurrency) = subject.max_concurrency {
        lines.push(whole("Maximum request concurrency:", concurrency));
    }
    if subject.request_rate.is_finite() {
        lines.push(decimal("Request rate configured (RPS):", subject.request_rate));
    }
    lines.push(decimal("Benchmark duration (s):", metrics.duration));
    let not_known = |name: &str| format!("{name:<40} {:<10}", "not known");
    let name = "Total input tokens:";
    lines.push(metrics.total_input.map_or_else(|| not_known(name), |tokens| whole(name, tokens)));
    lines.push(whole("Total generated tokens:", metrics.total_output));
    lines.push(decimal("Request throughput (req/s):", metrics.request_throughput));
    if let Some(goodput) = metrics.request_goodput {
        lines.push(decimal("Request goodput (req/s):", goodput));
    }
    lines.push(decimal("Output token throughput (tok/s):", metrics.output_throughput));
    lines.push(decimal("Peak output token throughput (tok/s):", metrics.max_output_tokens_per_s));
    lines.push(decimal("Peak concurrent requests:", metrics.max_concurrent_requests as f64));
    let name = "Total token throughput (tok/s):";
    lines.push(metrics.total_token_throughput.map_or_else(|| not_known(name), |rate| decimal(name, rate)));
    for (flag, header, name, summary) in named(metrics) {
        if !subject.percentile_metrics.iter().any(|metric| metric == flag) {
            continue;
        }
        if !metrics.has_ttft && flag != "e2el" && metrics.completed > 0 {
            continue;
        }
        lines.push(format!("{header:-^50}"));
        lines.push(decimal(&format!("Mean {name} (ms):"), summary.mean));
        lines.push(decimal(&format!("Median {name} (ms):"), summary.median));
        for (which, value) in &summary.percentiles {
            lines.push(decimal(&format!("P{} {name} (ms):", percentile_name(*which)), *value));
        }
    }
    speculative_decoding(result, &mut lines);
    if !subject.is_plain {
        beyond(subject, metrics, ended, &mut lines);
    }
    lines.push("=".repeat(50));
    if subject.simulated {
        lines.push("SIMULATED by vllm-bench: no model ran, these numbers are made up by a timing model.".into());
    }
    lines.join("\n") + "\n"
}

/// As vLLM's client prints it: the server's counters over the workload.
fn speculative_decoding(result: &Map<String, Value>, lines: &mut Vec<String>) {
    let number = |key: &str| result.get(&format!("spec_decode_{key}")).and_then(Value::as_f64);
    let Some(rate) = number("acceptance_rate") else { return };
    lines.push(format!("{:-^50}", "Speculative Decoding"));
    lines.push(format!("{:<40} {rate:<10.2}", "Acceptance rate (%):"));
    if let Some(length) = number("acceptance_length") {
        lines.push(format!("{:<40} {length:<10.2}", "Acceptance length:"));
    }
    for (name, key) in
        [("Drafts:", "num_drafts"), ("Draft tokens:", "draft_tokens"), ("Accepted tokens:", "accepted_tokens")]
    {
        if let Some(count) = number(key) {
            lines.push(format!("{name:<40} {count:<10.0}"));
        }
    }
}

/// What vLLM's client does not tell.
fn beyond(subject: &Subject, metrics: &Metrics, ended: &Ended, lines: &mut Vec<String>) {
    let decimal = |name: &str, value: f64| format!("{name:<40} {value:<10.2}");
    lines.push(format!("{:-^50}", "Workload"));
    lines.push(decimal("Mean concurrency:", metrics.mean_concurrency));
    lines.push(format!("{:<40} {:<10}", "Most requests at once:", ended.peak_concurrency));
    lines.push(decimal("Mean tokens/s per user:", metrics.tokens_per_second_per_user.mean));
    if subject.request_rate.is_finite()
        && let Some(rate) = metrics.achieved_rate
    {
        lines.push(decimal("Request rate achieved (RPS):", rate));
    }
    if let Some(queue) = &metrics.queue_time {
        lines.push(decimal("Mean client queue time (ms):", queue.mean));
    }
    if subject.n > 1 {
        lines.push(format!("{:<40} {:<10}", "Samples that came back:", metrics.sequences));
    }
    if let Some(window) = &metrics.steady_state {
        lines.push(format!("{:-^50}", "Steady state (without ramp-up and drain)"));
        lines.push(format!("{:<40} {:.2} to {:.2} s", "Window:", window.from_s, window.to_s));
        lines.push(format!("{:<40} {:<10}", "Requests within:", window.requests));
        lines.push(decimal("Output token throughput (tok/s):", window.output_throughput));
        lines.push(decimal("Mean TTFT (ms):", window.ttft_ms.mean));
        lines.push(decimal("Mean TPOT (ms):", window.tpot_ms.mean));
    }
    if !metrics.failures.is_empty() {
        lines.push(format!("{:-^50}", "Failures"));
        for class in FailureClass::ALL {
            let Some(failures) = metrics.failures.get(&class) else { continue };
            lines.push(format!("{:<40} {:<10}", format!("{class}:"), failures.count));
            for (text, count) in failures.examples.iter().take(3) {
                lines.push(format!("  {count} x {text}"));
            }
        }
    }
    let mut notes = Vec::new();
    if metrics.estimated > 0 {
        notes.push(format!(
            "{} answers without usage: their tokens are counted as events, an estimate",
            metrics.estimated
        ));
    }
    if metrics.input_unknown > 0 {
        notes.push(format!("{} prompts whose tokens nothing counted", metrics.input_unknown));
    }
    if ended.late > 0 {
        notes.push(format!(
            "{} requests were sent more than 1 ms late, the latest by {:.1} ms: the workload was not what was asked for",
            ended.late,
            ended.latest * 1e3
        ));
    }
    if ended.starved > 0 {
        notes.push(format!(
            "{} of them waited for their prompts, which were made more slowly than the server took them: token ids \
             (--prompt-format token-ids) or one text (--prompt) are made faster",
            ended.starved
        ));
    }
    if let Some(tokens) = metrics.tokens_per_chunk.filter(|tokens| *tokens > SEVERAL) {
        notes.push(format!(
            "ITL is the time between chunks, which hold {tokens:.2} tokens each on average; TPOT is the time per token"
        ));
    }
    if metrics.itl_in_classes {
        notes.push("percentiles of ITL are exact to 0.05 %: there were too many to keep one by one".into());
    }
    match ended.gave_up {
        Some(GaveUp::ServerGone) => notes.push("ended early: the server takes no connections any more".into()),
        Some(GaveUp::TooManyFailures) => notes.push("ended early: --max-failures".into()),
        Some(GaveUp::TimeIsUp) => notes.push("ended early: --total-timeout".into()),
        Some(GaveUp::Hung) => notes.push("ended early: no token of any request any more: --stall-timeout".into()),
        None if ended.stopped.is_some() => notes.push("ended early: interrupted".into()),
        None => {}
    }
    if !notes.is_empty() {
        lines.push(format!("{:-^50}", "Notes"));
        lines.extend(notes);
    }
}
