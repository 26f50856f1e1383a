//! `/metrics`: Prometheus text with vLLM's names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

use super::scheduler::Nanos;
use super::speculation::Drafts;

const TTFT_BOUNDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const ITL_BOUNDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
const LATENCY_BOUNDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];

#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len()], sum: 0.0, count: 0 }
    }

    fn observe(&mut self, nanos: Nanos) {
        let value = nanos as f64 / 1e9;
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum += value;
        self.count += 1;
    }

    fn write(&self, text: &mut String, name: &str, help: &str, labels: &str) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut total = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            total += count;
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound:?}\"}} {total}");
        }
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(text, "{name}_count{{{labels}}} {}\n{name}_sum{{{labels}}} {}", self.count, self.sum);
    }
}

/// What one group of requests does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Sequences in the batch.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// Part of the KV cache in use.
    pub kv_usage: f64,
}

/// The counters behind the text.
#[derive(Debug)]
pub struct Counters {
    gauges: BTreeMap<String, Gauges>,
    /// Prompt tokens of requests.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub generation_tokens: u64,
    /// Requests that ended by `length`.
    pub by_length: u64,
    /// Requests that ended by `stop`.
    pub by_stop: u64,
    /// Requests whose client went away.
    pub by_abort: u64,
    /// Preempted sequences.
    pub preemptions: u64,
    /// Tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Tokens found there.
    pub prefix_hits: u64,
    /// Speculative decoding; `None` where it is off.
    pub drafts: Option<Drafts>,
    ttft: Histogram,
    itl: Histogram,
    latency: Histogram,
}

/// Metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    counters: Mutex<Counters>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            counters: Mutex::new(Counters {
                gauges: BTreeMap::new(),
                prompt_tokens: 0,
                generation_tokens: 0,
                by_length: 0,
                by_stop: 0,
                by_abort: 0,
                preemptions: 0,
                prefix_queries: 0,
                prefix_hits: 0,
                drafts: None,
                ttft: Histogram::new(TTFT_BOUNDS),
                itl: Histogram::new(ITL_BOUNDS),
                latency: Histogram::new(LATENCY_BOUNDS),
            }),
        }
    }
}

impl Counters {
    /// Tokens came `since` after those before them (or after the arrival, when they are the first).
    pub fn tokens(&mut self, count: u64, first: bool, since: Nanos) {
        self.generation_tokens += count;
        if first { &mut self.ttft } else { &mut self.itl }.observe(since);
    }

    /// A request ended, so long after its arrival.
    pub fn finished(&mut self, by_length: bool, latency: Nanos) {
        *(if by_length { &mut self.by_length } else { &mut self.by_stop }) += 1;
        self.latency.observe(latency);
    }

    /// The part of looked-up tokens that the prefix cache had, in percent.
    pub fn prefix_hit_rate(&self) -> f64 {
        self.prefix_hits as f64 / self.prefix_queries.max(1) as f64 * 100.0
    }

    /// What all groups do at the moment.
    pub fn now(&self) -> Gauges {
        self.gauges.values().fold(Gauges::default(), |sum, gauges| Gauges {
            running: sum.running + gauges.running,
            waiting: sum.waiting + gauges.waiting,
            kv_usage: (sum.kv_usage + gauges.kv_usage).min(1.0),
        })
    }
}

impl Metrics {
    /// Reads or changes the counters.
    pub fn with<T>(&self, use_counters: impl FnOnce(&mut Counters) -> T) -> T {
        use_counters(&mut self.counters.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Says what a group of requests does; `None` when it has ended.
    pub fn gauges(&self, group: &str, gauges: Option<Gauges>) {
        self.with(|counters| match gauges {
            Some(gauges) => {
                counters.gauges.insert(group.to_string(), gauges);
            }
            None => {
                counters.gauges.remove(group);
            }
        });
    }

    /// The Prometheus text.
    pub fn text(&self, model: &str) -> String {
        let model = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels = format!("engine=\"0\",model_name=\"{model}\"");
        let mut text = String::new();
        self.with(|counters| {
            let now = counters.now();
            let mut plain = |kind: &str, name: &str, help: &str, more: &str, value: f64| {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}{more}}} {value:?}");
            };
            plain("gauge", "vllm:num_requests_running", "Number of requests in model execution batches.", "", now.running as f64);
            plain("gauge", "vllm:num_requests_waiting", "Number of requests waiting to be processed.", "", now.waiting as f64);
            plain("gauge", "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", "", now.kv_usage);
            plain("counter", "vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens.", "", counters.prefix_queries as f64);
            plain("counter", "vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.", "", counters.prefix_hits as f64);
            plain("counter", "vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", "", counters.preemptions as f64);
            plain("counter", "vllm:prompt_tokens_total", "Number of prefill tokens processed.", "", counters.prompt_tokens as f64);
            plain("counter", "vllm:generation_tokens_total", "Number of generation tokens processed.", "", counters.generation_tokens as f64);
            if let Some(drafts) = &counters.drafts {
                plain("counter", "vllm:spec_decode_num_drafts_total", "Number of spec decoding drafts.", "", drafts.drafts as f64);
                plain("counter", "vllm:spec_decode_num_draft_tokens_total", "Number of draft tokens.", "", drafts.tokens as f64);
                plain("counter", "vllm:spec_decode_num_accepted_tokens_total", "Number of accepted tokens.", "", drafts.all_accepted() as f64);
                let name = "vllm:spec_decode_num_accepted_tokens_per_pos_total";
                let _ = writeln!(text, "# HELP {name} Accepted tokens per draft position.\n# TYPE {name} counter");
                for (position, accepted) in drafts.accepted.iter().enumerate() {
                    let _ = writeln!(text, "{name}{{{labels},position=\"{position}\"}} {:?}", *accepted as f64);
                }
            }
            let _ = writeln!(text, "# HELP vllm:request_success_total Count of successfully processed requests.\n# TYPE vllm:request_success_total counter");
            for (reason, count) in [("stop", counters.by_stop), ("length", counters.by_length), ("abort", counters.by_abort), ("error", 0)] {
                let _ = writeln!(text, "vllm:request_success_total{{engine=\"0\",finished_reason=\"{reason}\",model_name=\"{model}\"}} {:?}", count as f64);
            }
            counters.ttft.write(&mut text, "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", &labels);
            counters.itl.write(&mut text, "vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", &labels);
            counters.latency.write(&mut text, "vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", &labels);
        });
        text.push_str("# HELP vllm_bench_simulated These metrics are simulated.\n# TYPE vllm_bench_simulated gauge\nvllm_bench_simulated 1\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative_and_say_simulated() {
        let metrics = Metrics::default();
        metrics.with(|counters| {
            counters.tokens(1, true, 30_000_000);
            counters.tokens(3, false, 20_000_000);
            (counters.prefix_queries, counters.prefix_hits) = (200, 64);
            counters.drafts = Some(Drafts { drafts: 9, tokens: 18, accepted: vec![6, 2] });
            counters.finished(true, 50_000_000);
        });
        metrics.gauges("a", Some(Gauges { running: 2, waiting: 1, kv_usage: 0.25 }));
        let text = metrics.text("a\"b");
        for line in [
            "vllm:num_requests_running{engine=\"0\",model_name=\"a\\\"b\"} 2.0",
            "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"a\\\"b\",le=\"0.02\"} 0",
            "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"a\\\"b\",le=\"0.04\"} 1",
            "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"a\\\"b\",le=\"+Inf\"} 1",
            "vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"a\\\"b\"} 1.0",
            "vllm:generation_tokens_total{engine=\"0\",model_name=\"a\\\"b\"} 4.0",
            "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"a\\\"b\"} 64.0",
            "vllm:spec_decode_num_accepted_tokens_total{engine=\"0\",model_name=\"a\\\"b\"} 8.0",
            "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\",model_name=\"a\\\"b\",position=\"1\"} 2.0",
            "vllm_bench_simulated 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
