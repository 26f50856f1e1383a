//! `/metrics`: a run as OpenMetrics text. Counters are computed from the journal, which has all sessions, so that they go on after a
//! resume. Each series has the run as a label; all other labels are from closed sets, or lanes and devices: how many series there are
//! does not depend on how many experiments there are.

mod load;
mod registry;

use std::collections::BTreeMap;

use prometheus_client::registry::Unit;

use self::registry::{Metrics, of, unit, written};
use super::source::{Answer, Change, Facts, Look, Seen, SeenDevice};
use crate::model::{Cause, Event, Outcome, Stamped, Timings};

pub use load::{Counted, LoadNow, of_load};
pub use registry::classic;

/// Where there is no run yet.
pub(super) fn nothing() -> String {
    written(None, |_| {})
}

/// A run.
pub(super) fn text(look: &Look, entries: &[Stamped], answer: &Answer) -> String {
    written(Some(&look.facts.run), |to| {
        let history = History::of(entries);
        standing(to, &look.facts, &history);
        counted(to, &history);
        seen(to, &look.seen);
        if let Some((name, metrics)) = &history.last {
            last(to, metrics);
            devices(to, answer.readings.get(*name).map(Vec::as_slice).unwrap_or_default());
        }
        if let Some(change) = &answer.change {
            compared(to, change);
        }
    })
}

/// A comparison of two runs by itself: of which run, and what it says.
pub fn of_change(run: &str, change: &Change) -> String {
    written(Some(run), |to| compared(to, change))
}

/// What the journal adds up to over all sessions.
#[derive(Default)]
struct History<'e> {
    sessions: f64,
    /// Attempts by outcome.
    attempts: BTreeMap<&'static str, f64>,
    failures: BTreeMap<Cause, f64>,
    phases: BTreeMap<&'static str, f64>,
    /// Failures in a row up to now.
    in_a_row: f64,
    last_event: Option<f64>,
    /// The newest experiment with a result.
    last: Option<(&'e str, &'e BTreeMap<String, f64>)>,
}

impl<'e> History<'e> {
    fn of(entries: &'e [Stamped]) -> Self {
        let mut history = Self::default();
        for word in ["passed", "failed", "interrupted"] {
            history.attempts.insert(word, 0.0);
        }
        for phase in ["startup", "benchmark", "teardown", "own"] {
            history.phases.insert(phase, 0.0);
        }
        for entry in entries {
            match &entry.event {
                Event::RunStarted { .. } => history.sessions += 1.0,
                Event::ExperimentFinished { name, outcome, timings, metrics, .. } => {
                    history.outcome(outcome);
                    history.spent(timings);
                    if !metrics.is_empty() {
                        history.last = Some((name, metrics));
                    }
                }
                _ => {}
            }
        }
        let at = entries.last().and_then(Stamped::time);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
        let seconds = at.map(|at| at.timestamp_millis() as f64 / 1000.0);
        history.last_event = seconds;
        history
    }

    fn outcome(&mut self, outcome: &Outcome) {
        let word = match outcome {
            Outcome::Passed { .. } => "passed",
            Outcome::Failed(failure) => {
                *self.failures.entry(failure.cause).or_default() += 1.0;
                "failed"
            }
            Outcome::Interrupted => "interrupted",
        };
        *self.attempts.entry(word).or_default() += 1.0;
        match outcome {
            Outcome::Passed { .. } => self.in_a_row = 0.0,
            Outcome::Failed(_) => self.in_a_row += 1.0,
            Outcome::Interrupted => {}
        }
    }

    fn spent(&mut self, timings: &Timings) {
        let parts = [
            ("startup", timings.startup),
            ("benchmark", timings.benchmark),
            ("teardown", timings.teardown),
            ("own", Some(timings.own())),
        ];
        for (phase, seconds) in parts {
            *self.phases.entry(phase).or_default() += seconds.filter(|seconds| seconds.is_finite()).unwrap_or_default();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a plan has fewer experiments than 2^52")]
fn count(count: usize) -> f64 {
    count as f64
}

/// How the run stands.
fn standing(to: &mut Metrics<'_>, facts: &Facts, history: &History<'_>) {
    let (name, simulated) = (facts.name.as_deref().unwrap_or_default(), facts.simulated.to_string());
    to.info("run", "The run that is shown", &[("name", name), ("simulated", &simulated)]);
    to.gauge("run_live", None, "Whether somebody works on the run", Some(f64::from(u8::from(facts.live))));
    let counts = facts.counts;
    to.gauge("experiments_planned", None, "Experiments in the plan", Some(count(counts.planned)));
    let states = [
        ("passed", counts.passed),
        ("failed", counts.failed),
        ("running", counts.running),
        ("to_do", counts.to_do),
        ("skipped", counts.skipped),
    ];
    let states = states.map(|(state, number)| (of("state", state), count(number)));
    to.gauges(
        "experiments",
        None,
        "Experiments by how they stand; skipped: combinations that a rule leaves out",
        states,
    );
    to.gauge("run_elapsed", Some(Unit::Seconds), "Length of the newest session", facts.elapsed);
    to.gauge("run_remaining", Some(Unit::Seconds), "What is still to come, at the prices so far", facts.remaining);
    to.gauge("last_event_timestamp", Some(Unit::Seconds), "When the journal got its last event", history.last_event);
    let in_a_row = Some(history.in_a_row);
    to.gauge("consecutive_failures", None, "Attempts that failed since the last one that did not", in_a_row);
    to.gauge("lanes_busy", None, "Experiments under way", Some(count(facts.under_way.len())));
    let phases = facts
        .under_way
        .iter()
        .filter_map(|one| Some((vec![("lane", one.lane.to_string()), ("phase", one.phase.to_owned())], one.seconds?)));
    to.gauges("current_phase", Some(Unit::Seconds), "How long each lane has been in its phase", phases);
}

/// What has happened, over all sessions.
fn counted(to: &mut Metrics<'_>, history: &History<'_>) {
    to.counters("sessions", None, "How often the run was begun or resumed", [(Vec::new(), history.sessions)]);
    let attempts = history.attempts.iter().map(|(outcome, number)| (of("outcome", outcome), *number));
    to.counters("attempts", None, "Attempts that ended, by outcome", attempts);
    let failures = history.failures.iter().map(|(cause, number)| (of("cause", cause), *number));
    to.counters("failures", None, "Attempts that failed, by cause", failures);
    let stalls = [Cause::Hung, Cause::BenchmarkHung].iter().filter_map(|cause| history.failures.get(cause)).sum();
    to.counters("stalls", None, "Attempts that were ended because nothing moved", [(Vec::new(), stalls)]);
    let phases = history.phases.iter().map(|(phase, seconds)| (of("phase", phase), *seconds));
    to.counters("phase", Some(Unit::Seconds), "Time of all attempts; own: what vllm-bench itself took", phases);
}

/// Latencies of a result: key, name here, statistic.
const LATENCIES: [(&str, &str); 4] = [
    ("ttft", "Time to first token"),
    ("tpot", "Time per output token after the first"),
    ("itl", "Time between tokens"),
    ("e2el", "Time of a request"),
];
const STATISTICS: [&str; 3] = ["mean", "median", "p99"];
/// Rates of a result, and their units.
const RATES: [(&str, &str, &str, &str); 3] = [
    (
        "output_throughput",
        "last_output",
        "tokens_per_second",
        "Output tokens per second of the last experiment with a result",
    ),
    (
        "total_token_throughput",
        "last_total",
        "tokens_per_second",
        "All tokens per second of the last experiment with a result",
    ),
    ("request_throughput", "last_requests", "per_second", "Requests per second of the last experiment with a result"),
];

/// The newest result.
fn last(to: &mut Metrics<'_>, metrics: &BTreeMap<String, f64>) {
    for (key, name, word, help) in RATES {
        to.gauge(name, unit(word), help, metrics.get(key).copied());
    }
    for (key, help) in LATENCIES {
        let values = STATISTICS.iter().filter_map(|statistic| {
            Some((of("statistic", statistic), metrics.get(&format!("{statistic}_{key}_ms"))? / 1000.0))
        });
        let help = format!("{help} in the last experiment with a result");
        to.gauges(&format!("last_{key}"), Some(Unit::Seconds), &help, values);
    }
}

/// What is seen while something is measured.
fn seen(to: &mut Metrics<'_>, seen: &[Seen]) {
    type OfDevice = fn(&SeenDevice) -> Option<f64>;
    let devices = || seen.iter().flat_map(|one| one.devices.iter().map(|device| (one.lane, device)));
    let labels = |lane: u32, device: &SeenDevice| {
        vec![("lane", lane.to_string()), ("device", registry::escaped(&device.device))]
    };
    let gauges: [(&str, Option<Unit>, &str, OfDevice); 6] = [
        ("device_power", unit("watts"), "Power of a device now, while it is measured", |of| of.power_w),
        ("device_temperature", Some(Unit::Celsius), "Temperature of a device now", |of| of.temperature_c),
        ("device_utilization", unit("ratio"), "Use of a device now", |of| Some(of.utilization_pct? / 100.0)),
        ("device_memory", Some(Unit::Bytes), "Device memory in use now", |of| Some(of.memory_gib? * GIB)),
        ("device_clock", unit("hertz"), "Clock of a device now", |of| Some(of.clock_mhz? * 1e6)),
        // Not every device would say so: that one does not is no sign that it is not.
        ("device_throttled", None, "1 while a device says that it is slower than it could be", |of| {
            (!of.throttled.is_empty()).then_some(1.0)
        }),
    ];
    for (name, unit, help, value) in gauges {
        let values = devices().filter_map(|(lane, device)| Some((labels(lane, device), value(device)?)));
        to.gauges(name, unit, help, values);
    }
    type OfLane = fn(&Seen) -> Option<f64>;
    let gauges: [(&str, Option<Unit>, &str, OfLane); 5] = [
        ("current_requests_done", None, "Requests of the workload under way that are over", |of| {
            of.requests_done.map(whole)
        }),
        ("current_requests_planned", None, "Requests of the workload under way", |of| of.requests.map(whole)),
        ("server_requests_running", None, "Requests that the server works on", |of| of.running),
        ("server_requests_waiting", None, "Requests that wait in the server", |of| of.waiting),
        ("server_kv_cache", unit("ratio"), "Use of the server's KV cache", |of| Some(of.kv_cache_pct? / 100.0)),
    ];
    for (name, unit, help, value) in gauges {
        let values = seen.iter().filter_map(|one| Some((self::of("lane", one.lane), value(one)?)));
        to.gauges(name, unit, help, values);
    }
}

const GIB: f64 = 1_073_741_824.0;

#[expect(clippy::cast_precision_loss, reason = "requests are fewer than 2^52")]
fn whole(number: u64) -> f64 {
    number as f64
}

/// What a comparison says.
fn compared(to: &mut Metrics<'_>, change: &Change) {
    let before = || ("before", registry::escaped(&change.before));
    let one = |value| Some((vec![before()], value));
    to.gauges(
        "compare_worse",
        None,
        "Whether anything became worse beyond the threshold and noise",
        one(f64::from(u8::from(change.worse))),
    );
    let outcomes = change.outcomes.iter().map(|(metric, outcome, number)| {
        let labels = vec![before(), ("metric", registry::escaped(metric)), ("outcome", (*outcome).to_owned())];
        (labels, count(*number))
    });
    to.gauges("compare_configurations", None, "Configurations by what became of a metric", outcomes);
    to.gauges("compare_failing", None, "Configurations that fail now and did not before", one(count(change.failing)));
    to.gauges(
        "compare_lost_requests",
        None,
        "Configurations of which more requests fail now",
        one(count(change.lost_requests)),
    );
}

/// What the devices did during the newest result.
fn devices(to: &mut Metrics<'_>, readings: &[(&'static str, f64)]) {
    let reading = |key: &str| readings.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
    let watts = [("mean", "mean_power_w"), ("max", "max_power_w"), ("idle", "idle_power_w")];
    let watts = watts.into_iter().filter_map(|(statistic, key)| Some((of("statistic", statistic), reading(key)?)));
    to.gauges("last_device_power", unit("watts"), "Power of the devices in the last experiment", watts);
    let single = [
        ("energy_j", "last_device_energy", Unit::Joules, 1.0, "Energy of the devices in the last experiment"),
        (
            "max_temperature_c",
            "last_device_temperature",
            Unit::Celsius,
            1.0,
            "The hottest device at most in the last experiment",
        ),
        (
            "mean_utilization_pct",
            "last_device_utilization",
            Unit::Other("ratio".into()),
            0.01,
            "Use of the devices in the last experiment",
        ),
        (
            "throttled_pct",
            "last_device_throttled",
            Unit::Other("ratio".into()),
            0.01,
            "Share of samples in which a device was throttled",
        ),
        (
            "max_device_memory_gib",
            "last_device_memory",
            Unit::Bytes,
            GIB,
            "Device memory at most in the last experiment",
        ),
    ];
    for (key, name, unit, factor, help) in single {
        to.gauge(name, Some(unit), help, reading(key).map(|value| value * factor));
    }
}

#[cfg(test)]
mod tests;
