//! `requests.csv`: one line per request, S3's columns first.

use crate::load::sample::Sample;
use crate::stats;

/// The columns.
pub const REQUEST_COLUMNS: [&str; 24] = [
    // S3's.
    "run_id",
    "qid",
    "prefill_tokens",
    "max_new_tokens",
    "ttft_ms",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
    "actual_prefill_tokens",
    "error",
    "timestamp",
    // Ours.
    "failure_class",
    "http_status",
    "start_s",
    "end_s",
    "due_s",
    "client_queue_ms",
    "connect_ms",
    "tpot_ms",
    "itl_mean_ms",
    "itl_max_ms",
    "samples",
    "cached_tokens",
    "tokens_estimated",
];

/// One line.
#[derive(Debug)]
pub struct RequestRow<'a> {
    /// Name of the run.
    pub run_id: &'a str,
    /// The request.
    pub sample: &'a Sample,
    /// Tokens that the prompt was to have.
    pub prefill_tokens: Option<u64>,
    /// When it began, as shown.
    pub timestamp: String,
}

impl RequestRow<'_> {
    /// The fields, in the order of the columns. What is not known is empty; S3 writes -1 for a TTFT that never came, and
    /// so do we.
    pub fn fields(&self) -> Vec<String> {
        let sample = self.sample;
        let reply = &sample.reply;
        let whole = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let ms = |value: Option<f64>| value.map(|value| format!("{:.4}", value * 1e3)).unwrap_or_default();
        let secs = |value: u64| format!("{:.6}", value as f64 / 1e9);
        let failed = sample.failure.as_ref();
        let ttft = match (failed, sample.ttft()) {
            (Some(_), None) => "-1".to_owned(),
            (_, ttft) => ms(ttft),
        };
        let gap = |gap: f64| format!("{:.4}", gap * 1e-4);
        let gaps = &reply.gaps;
        let mean = stats::mean(gaps.iter().map(|gap| f64::from(*gap))).unwrap_or_default();
        let usage = reply.usage;
        let (tokens, estimate) = sample.output_tokens();
        vec![
            self.run_id.to_owned(),
            sample.index.to_string(),
            whole(self.prefill_tokens.or(sample.prompt_len)),
            whole(sample.output_len),
            ttft,
            ms(Some(sample.latency())),
            whole(usage.and_then(|usage| usage.prompt_tokens)),
            if failed.is_some() && tokens == 0 { String::new() } else { tokens.to_string() },
            whole(sample.prompt_len),
            failed.map(|failure| failure.detail.clone()).unwrap_or_default(),
            self.timestamp.clone(),
            failed.map(|failure| failure.class.name().to_owned()).unwrap_or_default(),
            whole(reply.status.map(u64::from)),
            secs(sample.started),
            secs(sample.end()),
            sample.due.map(secs).unwrap_or_default(),
            ms(sample.queue_time()),
            sample
                .connected
                .map(|connected| ms(Some(connected.saturating_sub(sample.started) as f64 / 1e9)))
                .unwrap_or_default(),
            ms(sample.tpot()),
            if gaps.is_empty() { String::new() } else { gap(mean) },
            gaps.iter().max().map(|most| gap(f64::from(*most))).unwrap_or_default(),
            reply.samples.to_string(),
            whole(usage.and_then(|usage| usage.cached_tokens())),
            if failed.is_none() { estimate.to_string() } else { String::new() },
        ]
    }
}
