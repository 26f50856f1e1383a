//! A load as OpenMetrics text: what it counts anyway, added up over its workloads.

use std::collections::BTreeMap;

use prometheus_client::registry::Unit;
use serde::Serialize;

use super::registry::{Metrics, unit, written};
use super::{last, seen, whole};
use crate::dashboard::source::Seen;

/// What a workload has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counted {
    /// Requests sent.
    pub sent: u64,
    /// Requests that are over.
    pub done: u64,
    /// Failed ones among them.
    pub failed: u64,
    /// Output tokens of requests that are over.
    pub tokens: u64,
    /// Sum of their times to first token, seconds.
    pub ttft_seconds: f64,
    /// Number of these.
    pub first_tokens: u64,
}

impl Counted {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            done: self.done + other.done,
            failed: self.failed + other.failed,
            tokens: self.tokens + other.tokens,
            ttft_seconds: self.ttft_seconds + other.ttft_seconds,
            first_tokens: self.first_tokens + other.first_tokens,
        }
    }
}

/// How a load stands at a moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LoadNow {
    /// What it is called.
    pub name: String,
    /// The server that gets it.
    pub server: String,
    /// Whether the server is the simulated vLLM, whose time is none of this machine's.
    pub simulated: bool,
    /// Whether it goes on.
    pub live: bool,
    /// The workload under way or last, from 1; 0 before the first.
    pub workload: u64,
    /// Workloads of the load.
    pub workloads: u64,
    /// That workload in words.
    pub description: String,
    /// Its requests, where their number is known.
    pub planned: Option<u64>,
    /// What it has counted.
    pub counted: Counted,
    /// Its requests under way.
    pub active: u64,
    /// The most of these at once.
    pub peak: u64,
    /// Seconds since it began.
    pub seconds: Option<f64>,
    /// What the workloads before it have counted.
    pub before: Counted,
    /// The metrics of the newest workload that is over, by vLLM's keys.
    pub last: BTreeMap<String, f64>,
    /// What the devices do, where they are asked.
    pub seen: Option<Seen>,
}

impl LoadNow {
    /// Output tokens per second of the workload so far. The simulated server has a time of its own: there it is not known.
    pub fn tokens_per_second(&self) -> Option<f64> {
        self.rate(self.counted.tokens)
    }

    /// Requests per second of the workload so far.
    pub fn requests_per_second(&self) -> Option<f64> {
        self.rate(self.counted.done)
    }

    fn rate(&self, number: u64) -> Option<f64> {
        let seconds = self.seconds.filter(|seconds| *seconds > 0.0 && !self.simulated && number > 0)?;
        Some(whole(number) / seconds)
    }

    /// Mean time to first token of the workload so far, seconds.
    pub fn mean_ttft(&self) -> Option<f64> {
        let Counted { ttft_seconds, first_tokens, .. } = self.counted;
        (first_tokens > 0).then(|| ttft_seconds / whole(first_tokens))
    }
}

/// A load.
pub fn of_load(now: &LoadNow) -> String {
    written(Some(&now.name), |to| {
        let simulated = now.simulated.to_string();
        to.info("load", "The load that is shown", &[("server", now.server.as_str()), ("simulated", &simulated)]);
        progress(to, now);
        totals(to, &now.before.and(now.counted));
        seen(to, now.seen.as_slice());
        last(to, &now.last);
    })
}

fn progress(to: &mut Metrics<'_>, now: &LoadNow) {
    to.gauge("load_live", None, "Whether the load goes on", Some(f64::from(u8::from(now.live))));
    to.gauge("load_workloads_planned", None, "Workloads of the load", Some(whole(now.workloads)));
    to.gauge("load_workload", None, "Number of the workload under way, from 1", Some(whole(now.workload)));
    to.gauge("load_requests_planned", None, "Requests of the workload under way", now.planned.map(whole));
    to.gauge(
        "load_requests_over",
        None,
        "Requests of the workload under way that are over",
        Some(whole(now.counted.done)),
    );
    to.gauge("load_requests_in_flight", None, "Requests under way", Some(whole(now.active)));
    to.gauge("load_requests_in_flight_peak", None, "Most requests of the workload at once", Some(whole(now.peak)));
    to.gauge("load_elapsed", Some(Unit::Seconds), "Time of the workload under way", now.seconds);
    to.gauge(
        "load_output",
        unit("tokens_per_second"),
        "Output tokens per second of the workload so far, by requests that are over",
        now.tokens_per_second(),
    );
    to.gauge("load_requests", unit("per_second"), "Requests per second of the workload", now.requests_per_second());
    to.gauge("load_mean_ttft", Some(Unit::Seconds), "Mean time to first token of the workload so far", now.mean_ttft());
}

/// What all workloads have counted together.
fn totals(to: &mut Metrics<'_>, all: &Counted) {
    let mut counter = |name: &str, unit, help: &str, value| to.counters(name, unit, help, [(Vec::new(), value)]);
    counter("load_requests_sent", None, "Requests that were sent", whole(all.sent));
    counter("load_requests_done", None, "Requests that are over", whole(all.done));
    counter("load_requests_failed", None, "Requests that failed", whole(all.failed));
    counter("load_output_tokens", None, "Output tokens of requests that are over", whole(all.tokens));
    counter("load_first_tokens", None, "Requests that had a first token", whole(all.first_tokens));
    counter("load_ttft", Some(Unit::Seconds), "Sum of the times to first token", all.ttft_seconds);
}
