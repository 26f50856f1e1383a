//! `/metrics`: a run as OpenMetrics text. Counters are computed from the journal, which has all sessions, so that they go on after a
//! resume. Each series has the run as a label; all other labels are from closed sets, or lanes.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::source::{Answer, Facts};
use crate::model::{Cause, Event, Outcome, Stamped, Timings};

/// What all names begin with.
const PREFIX: &str = "vllm_bench";

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter<f64, AtomicU64>>;

/// Where there is no run yet.
pub(super) fn nothing() -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    program(&mut registry);
    written(&registry)
}

/// A run.
pub(super) fn text(facts: &Facts, entries: &[Stamped], answer: &Answer) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    program(&mut registry);
    let run = vec![("run".into(), escaped(&facts.run).into())];
    let mut of_run = Metrics { registry: registry.sub_registry_with_labels(run.into_iter()) };
    let history = History::of(entries);
    standing(&mut of_run, facts, &history);
    counted(&mut of_run, &history);
    if let Some((name, metrics)) = &history.last {
        last(&mut of_run, metrics, answer.readings.get(*name).map(Vec::as_slice).unwrap_or_default());
    }
    written(&registry)
}

fn program(registry: &mut Registry) {
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The program that says this", version);
}

fn written(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to memory does not fail.
    let _ = encode(&mut text, registry);
    text
}

/// Registers one metric after the other.
struct Metrics<'r> {
    registry: &'r mut Registry,
}

impl Metrics<'_> {
    fn gauges(&mut self, name: &str, unit: Option<Unit>, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Gauges::default();
        let mut some = false;
        for (labels, value) in values.into_iter().filter(|(_, value)| value.is_finite()) {
            family.get_or_create(&labels).set(value);
            some = true;
        }
        match unit {
            _ if !some => {}
            Some(unit) => self.registry.register_with_unit(name, help, unit, family),
            None => self.registry.register(name, help, family),
        }
    }

    fn gauge(&mut self, name: &str, unit: Option<Unit>, help: &str, value: Option<f64>) {
        self.gauges(name, unit, help, value.map(|value| (Vec::new(), value)));
    }

    fn counters(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Counters::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value.max(0.0));
        }
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, family),
            None => self.registry.register(name, help, family),
        }
    }
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

/// A text as the value of a label: the crate writes it as it is.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn of(label: &'static str, value: impl ToString) -> Labels {
    vec![(label, value.to_string())]
}

#[expect(clippy::cast_precision_loss, reason = "a plan has fewer experiments than 2^52")]
fn count(count: usize) -> f64 {
    count as f64
}

/// How the run stands.
fn standing(to: &mut Metrics<'_>, facts: &Facts, history: &History<'_>) {
    let name = escaped(facts.name.as_deref().unwrap_or_default());
    let about = [("name", name), ("simulated", facts.simulated.to_string())];
    to.registry.register("run", "The run that is shown", Info::new(about.to_vec()));
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

/// The newest result, and what the devices did meanwhile.
fn last(to: &mut Metrics<'_>, metrics: &BTreeMap<String, f64>, readings: &[(&'static str, f64)]) {
    for (key, name, unit, help) in RATES {
        to.gauge(name, Some(Unit::Other(unit.to_owned())), help, metrics.get(key).copied());
    }
    for (key, help) in LATENCIES {
        let values = STATISTICS.iter().filter_map(|statistic| {
            Some((of("statistic", statistic), metrics.get(&format!("{statistic}_{key}_ms"))? / 1000.0))
        });
        let help = format!("{help} in the last experiment with a result");
        to.gauges(&format!("last_{key}"), Some(Unit::Seconds), &help, values);
    }
    let reading = |key: &str| readings.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
    let watts = [("mean", "mean_power_w"), ("max", "max_power_w"), ("idle", "idle_power_w")];
    let watts = watts.into_iter().filter_map(|(statistic, key)| Some((of("statistic", statistic), reading(key)?)));
    to.gauges(
        "last_device_power",
        Some(Unit::Other("watts".into())),
        "Power of the devices in the last experiment",
        watts,
    );
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
            1_073_741_824.0,
            "Device memory at most in the last experiment",
        ),
    ];
    for (key, name, unit, factor, help) in single {
        to.gauge(name, Some(unit), help, reading(key).map(|value| value * factor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::source::{Counts, UnderWay};
    use crate::model::{Failure, Headline, Phase, ProcessId};
    use std::collections::{BTreeSet, HashMap};

    /// Reads OpenMetrics text as the specification has it, and refuses everything else; the series with their values.
    fn parsed(text: &str) -> HashMap<String, f64> {
        assert!(text.ends_with("# EOF\n"), "no end");
        let lines: Vec<&str> = text.lines().collect();
        let (last, lines) = lines.split_last().unwrap();
        assert_eq!(*last, "# EOF");
        let name_ok = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let (mut series, mut families) = (HashMap::new(), BTreeSet::new());
        let (mut family, mut kind, mut unit, mut help, mut samples) = ("", "", "", false, 0);
        for line in lines {
            if let Some(rest) = line.strip_prefix("# ") {
                let (word, rest) = rest.split_once(' ').unwrap();
                let (name, value) = rest.split_once(' ').unwrap();
                assert!(name_ok(name), "{line}");
                if name != family {
                    assert!(families.insert(name), "twice, or torn apart: {line}");
                    assert!(family.is_empty() || samples > 0 || kind == "counter", "no sample of {family}");
                    (family, kind, unit, help, samples) = (name, "", "", false, 0);
                }
                assert_eq!(samples, 0, "after its samples: {line}");
                match word {
                    "HELP" => {
                        assert!(!help && !value.is_empty(), "{line}");
                        help = true;
                    }
                    "TYPE" => {
                        assert!(kind.is_empty() && ["gauge", "counter", "info"].contains(&value), "{line}");
                        kind = value;
                    }
                    "UNIT" => {
                        assert!(unit.is_empty() && family.ends_with(&format!("_{value}")), "{line}");
                        unit = value;
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (name, labels, value) = sample(line);
            let expected = match kind {
                "gauge" => family.to_owned(),
                "counter" => format!("{family}_total"),
                "info" => format!("{family}_info"),
                _ => panic!("no TYPE before {line}"),
            };
            assert!(help, "no HELP before {line}");
            assert_eq!(name, expected, "{line}");
            assert!(kind != "info" || value == 1.0, "{line}");
            let mut names: Vec<&String> = labels.keys().collect();
            names.sort();
            assert!(names.iter().all(|name| name_ok(name)), "{line}");
            let key = format!("{name}{labels:?}");
            assert!(series.insert(key, value).is_none(), "twice: {line}");
            samples += 1;
        }
        series
    }

    /// Name, labels and value of a sample.
    fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
        let end = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(end);
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while let Some((label, after)) = rest.split_once("=\"") {
                let mut value = String::new();
                let mut chars = after.char_indices();
                let end = loop {
                    match chars.next().unwrap_or_else(|| panic!("a value without an end: {line}")) {
                        (at, '"') => break at,
                        (_, '\\') => value.push(match chars.next().unwrap().1 {
                            'n' => '\n',
                            c @ ('"' | '\\') => c,
                            c => panic!("\\{c} in {line}"),
                        }),
                        (_, c) => value.push(c),
                    }
                };
                assert!(labels.insert(label.to_owned(), value).is_none(), "a label twice: {line}");
                rest = &after[end + 1..];
                match rest.strip_prefix(',') {
                    Some(more) => rest = more,
                    None => break,
                }
            }
            rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("labels without an end: {line}"));
        }
        let value = rest.strip_prefix(' ').unwrap();
        (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
    }

    fn entry(seq: u64, event: Event) -> Stamped {
        Stamped { v: 1, seq, at: format!("2026-02-25T14:30:{:02}.000+02:00", seq % 60), event }
    }

    fn begun(seq: u64) -> Stamped {
        let process = ProcessId::current();
        entry(seq, Event::RunStarted { process, simulated: true, resumed: seq > 1, planned: 3, pending: 3 })
    }

    fn finished(seq: u64, name: &str, outcome: Outcome, metrics: &[(&str, f64)]) -> Stamped {
        let timings = Timings { startup: Some(2.0), benchmark: Some(3.0), total: 6.0, ..Timings::default() };
        let metrics = metrics.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        entry(seq, Event::ExperimentFinished { index: 1, name: name.into(), attempt: 1, outcome, timings, metrics })
    }

    fn failed(cause: Cause) -> Outcome {
        Outcome::Failed(Failure {
            cause,
            summary: "x".into(),
            phase: Phase::Measuring,
            evidence: Vec::new(),
            advice: Vec::new(),
            also: Vec::new(),
            ending: None,
            log_tail: Vec::new(),
            hang: None,
            kept: None,
        })
    }

    fn passed() -> Outcome {
        Outcome::Passed { headline: Headline::default() }
    }

    fn facts() -> Facts {
        Facts {
            run: "a \"hostile\" \\ name\nof a run".into(),
            name: Some("n \" }\n# EOF\n".into()),
            simulated: true,
            live: true,
            counts: Counts { planned: 3, passed: 1, failed: 1, running: 1, to_do: 0, skipped: 2 },
            remaining: Some(12.5),
            elapsed: None,
            under_way: vec![UnderWay { lane: 1, phase: "measuring", seconds: Some(1.5) }],
        }
    }

    fn find(series: &HashMap<String, f64>, parts: &[&str]) -> Option<f64> {
        let found: Vec<_> = series.iter().filter(|(key, _)| parts.iter().all(|part| key.contains(part))).collect();
        assert!(found.len() < 2, "{parts:?}: {found:?}");
        found.first().map(|(_, value)| **value)
    }

    #[test]
    fn the_text_is_openmetrics_and_says_what_the_journal_says() {
        let entries = [
            begun(1),
            finished(
                2,
                "a",
                passed(),
                &[("output_throughput", 100.0), ("mean_ttft_ms", 250.0), ("p99_ttft_ms", 500.0)],
            ),
            finished(3, "b", failed(Cause::BenchmarkHung), &[]),
            finished(4, "b", failed(Cause::OutOfDeviceMemory), &[]),
        ];
        let readings = [("a".to_owned(), vec![("mean_power_w", 300.0), ("throttled_pct", 50.0)])].into();
        let answer = Answer { readings, ..Answer::default() };
        let series = parsed(&text(&facts(), &entries, &answer));
        let value = |parts: &[&str]| find(&series, parts);
        assert_eq!(value(&["vllm_bench_experiments{", "passed"]), Some(1.0));
        assert_eq!(value(&["vllm_bench_failures_total", "out-of-device-memory"]), Some(1.0));
        assert_eq!(value(&["vllm_bench_stalls_total"]), Some(1.0));
        assert_eq!(value(&["vllm_bench_consecutive_failures"]), Some(2.0));
        assert_eq!(value(&["vllm_bench_attempts_total", "failed"]), Some(2.0));
        assert_eq!(value(&["vllm_bench_phase_seconds_total", "benchmark"]), Some(9.0));
        assert_eq!(value(&["vllm_bench_last_output_tokens_per_second"]), Some(100.0));
        assert_eq!(value(&["vllm_bench_last_ttft_seconds", "p99"]), Some(0.5));
        assert_eq!(value(&["vllm_bench_last_device_power_watts", "mean"]), Some(300.0));
        assert_eq!(value(&["vllm_bench_last_device_throttled_ratio"]), Some(0.5));
        assert_eq!(value(&["vllm_bench_run_remaining_seconds"]), Some(12.5));
        assert_eq!(value(&["vllm_bench_run_elapsed_seconds"]), None, "what is not known is absent");
        assert_eq!(value(&["vllm_bench_current_phase_seconds", "measuring"]), Some(1.5));
        assert!(series.keys().filter(|key| !key.contains("build")).all(|key| key.contains("hostile")), "{series:?}");
        parsed(&nothing());
        parsed(&text(&Facts::default(), &[], &Answer::default()));
    }

    #[test]
    fn counters_go_on_after_a_resume() {
        let first = vec![begun(1), finished(2, "a", passed(), &[]), finished(3, "b", failed(Cause::Hung), &[])];
        let second = [first.clone(), vec![begun(4), finished(5, "b", passed(), &[])]].concat();
        let [before, after] = [first, second].map(|entries| parsed(&text(&facts(), &entries, &Answer::default())));
        for (key, value) in before.iter().filter(|(key, _)| key.contains("_total")) {
            assert!(after[key] >= *value, "{key}");
        }
        assert_eq!(find(&after, &["vllm_bench_sessions_total"]), Some(2.0));
        assert_eq!(find(&after, &["vllm_bench_attempts_total", "passed"]), Some(2.0));
    }
}
