//! The text by a strict reader of OpenMetrics, and what is said of it elsewhere: documents, rules and panels name what is exported.

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
                assert!(family.is_empty() || samples > 0, "no sample of {family}");
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
    Outcome::Failed(Failure::plain(cause, Phase::Measuring, "x".into()))
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

fn look() -> Look {
    let device = SeenDevice {
        device: "0000:03:00.0".into(),
        power_w: Some(200.0),
        temperature_c: Some(61.0),
        utilization_pct: Some(90.0),
        memory_gib: Some(2.0),
        clock_mhz: Some(2400.0),
        throttled: "thermal".into(),
    };
    let silent = SeenDevice { device: "0000:04:00.0 \"\\".into(), ..SeenDevice::default() };
    let seen = Seen {
        name: "c".into(),
        lane: 1,
        requests_done: Some(7),
        requests: Some(10),
        running: Some(3.0),
        waiting: Some(0.0),
        kv_cache_pct: Some(50.0),
        devices: vec![device, silent],
    };
    Look { status: serde_json::Value::Null, facts: facts(), rows: Vec::new(), seen: vec![seen] }
}

/// A run of which nothing is known yet.
fn nowhere() -> Look {
    Look { status: serde_json::Value::Null, facts: Facts::default(), rows: Vec::new(), seen: Vec::new() }
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
        finished(2, "a", passed(), &[("output_throughput", 100.0), ("mean_ttft_ms", 250.0), ("p99_ttft_ms", 500.0)]),
        finished(3, "b", failed(Cause::BenchmarkHung), &[]),
        finished(4, "b", failed(Cause::OutOfDeviceMemory), &[]),
    ];
    let readings = [("a".to_owned(), vec![("mean_power_w", 300.0), ("throttled_pct", 50.0)])].into();
    let answer = Answer { readings, ..Answer::default() };
    let series = parsed(&text(&look(), &entries, &answer));
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
    assert_eq!(value(&["vllm_bench_device_power_watts", "0000:03:00.0"]), Some(200.0));
    assert_eq!(value(&["vllm_bench_device_memory_bytes"]), Some(2_147_483_648.0));
    assert_eq!(value(&["vllm_bench_device_clock_hertz"]), Some(2.4e9));
    assert_eq!(value(&["vllm_bench_device_throttled"]), Some(1.0), "one that says nothing is not said to be well");
    assert_eq!(value(&["vllm_bench_current_requests_done", "lane"]), Some(7.0));
    assert_eq!(value(&["vllm_bench_server_kv_cache_ratio"]), Some(0.5));
    assert!(series.keys().filter(|key| !key.contains("build")).all(|key| key.contains("hostile")), "{series:?}");
    parsed(&nothing());
    parsed(&text(&nowhere(), &[], &Answer::default()));
}

#[test]
fn counters_go_on_after_a_resume() {
    let first = vec![begun(1), finished(2, "a", passed(), &[]), finished(3, "b", failed(Cause::Hung), &[])];
    let second = [first.clone(), vec![begun(4), finished(5, "b", passed(), &[])]].concat();
    let [before, after] = [first, second].map(|entries| parsed(&text(&look(), &entries, &Answer::default())));
    for (key, value) in before.iter().filter(|(key, _)| key.contains("_total")) {
        assert!(after[key] >= *value, "{key}");
    }
    assert_eq!(find(&after, &["vllm_bench_sessions_total"]), Some(2.0));
    assert_eq!(find(&after, &["vllm_bench_attempts_total", "passed"]), Some(2.0));
}

fn change() -> Change {
    Change {
        before: "be\"fore".into(),
        worse: true,
        outcomes: vec![("output_throughput".into(), "worse", 2), ("output_throughput".into(), "same", 1)],
        failing: 1,
        lost_requests: 0,
    }
}

fn load() -> LoadNow {
    LoadNow {
        name: "load \"x\"".into(),
        server: "http://127.0.0.1:8000".into(),
        live: true,
        workload: 2,
        workloads: 3,
        planned: Some(100),
        counted: Counted { sent: 12, done: 10, failed: 1, tokens: 500, ttft_seconds: 2.0, first_tokens: 8 },
        active: 2,
        peak: 4,
        seconds: Some(5.0),
        before: Counted { sent: 100, done: 100, tokens: 1000, ..Counted::default() },
        last: [("output_throughput".to_owned(), 50.0), ("mean_ttft_ms".to_owned(), 20.0)].into(),
        seen: look().seen.pop(),
        ..LoadNow::default()
    }
}

/// All that may be exported.
fn everything() -> [String; 3] {
    let statistics = STATISTICS
        .iter()
        .flat_map(|statistic| LATENCIES.iter().map(move |(key, _)| (format!("{statistic}_{key}_ms"), 5.0)));
    let metrics: BTreeMap<String, f64> =
        RATES.iter().map(|(key, ..)| ((*key).to_owned(), 7.0)).chain(statistics).collect();
    let metrics: Vec<(&str, f64)> = metrics.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let entries = [begun(1), finished(2, "b", failed(Cause::Hung), &[]), finished(3, "a", passed(), &metrics)];
    let readings = [
        "mean_power_w",
        "max_power_w",
        "idle_power_w",
        "energy_j",
        "max_temperature_c",
        "mean_utilization_pct",
        "throttled_pct",
        "max_device_memory_gib",
    ];
    let readings = [("a".to_owned(), readings.map(|key| (key, 1.0)).to_vec())].into();
    let answer = Answer { readings, change: Some(change()), ..Answer::default() };
    let look = Look { facts: Facts { elapsed: Some(3.0), ..facts() }, ..look() };
    [text(&look, &entries, &answer), of_load(&load()), of_change("r", &change())]
}

/// The names of the samples of some texts, and of their labels.
fn exported() -> (BTreeSet<String>, BTreeSet<String>) {
    let all: Vec<String> = everything().iter().flat_map(|text| parsed(text).into_keys()).collect();
    let names = all.iter().filter_map(|key| Some(key.split_once('{')?.0.to_owned())).collect();
    let labels = everything().into_iter().flat_map(|text| {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(|line| sample(line).1.into_keys())
            .collect::<Vec<_>>()
    });
    (names, labels.collect())
}

/// Words of an expression that look like our metrics.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("vllm_bench_")).map(str::to_owned).collect()
}

#[test]
fn a_load_counts_on_over_its_workloads_and_a_simulated_one_has_no_rates() {
    let series = parsed(&of_load(&load()));
    let value = |name: &str| find(&series, &[&format!("{name}{{")]);
    assert_eq!(value("vllm_bench_load_requests_sent_total"), Some(112.0));
    assert_eq!(value("vllm_bench_load_requests_over"), Some(10.0));
    assert_eq!(value("vllm_bench_load_output_tokens_per_second"), Some(100.0));
    assert_eq!(value("vllm_bench_load_mean_ttft_seconds"), Some(0.25));
    assert_eq!(value("vllm_bench_last_output_tokens_per_second"), Some(50.0));
    let simulated = parsed(&of_load(&LoadNow { simulated: true, ..load() }));
    assert_eq!(find(&simulated, &["vllm_bench_load_output_tokens_per_second"]), None);
    parsed(&of_load(&LoadNow::default()));
}

#[test]
fn how_many_series_there_are_does_not_depend_on_how_many_experiments() {
    let many: Vec<Stamped> = std::iter::once(begun(1))
        .chain((2..1002).map(|seq| {
            let outcome = if seq % 3 == 0 { failed(Cause::Hung) } else { passed() };
            finished(seq, &format!("e{seq}"), outcome, &[("output_throughput", 1.0)])
        }))
        .collect();
    let series = |entries: &[Stamped]| parsed(&text(&look(), entries, &Answer::default())).len();
    assert_eq!(series(&many), series(&many[..4]));
}

#[test]
fn rules_panels_and_documents_name_what_is_exported() {
    let (names, labels) = exported();
    let rules = include_str!("../../../deploy/rules.yml");
    let of_rules: BTreeSet<String> = named(rules);
    assert!(of_rules.len() > 8, "{of_rules:?}");
    assert_eq!(of_rules.difference(&names).collect::<Vec<_>>(), [""; 0], "rules.yml names what nobody exports");
    let panels: serde_json::Value = serde_json::from_str(include_str!("../../../deploy/grafana.json")).unwrap();
    let targets: Vec<&serde_json::Value> =
        panels["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array()).flatten().collect();
    assert!(targets.len() > 50);
    let mut shown = BTreeSet::new();
    for target in targets {
        let (expr, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
        let of = named(expr);
        assert!(!of.is_empty() && of.is_subset(&names), "{expr}");
        for label in legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")) {
            assert!(labels.contains(label.0), "{legend}");
        }
        shown.extend(of);
    }
    let hidden: Vec<&String> =
        names.difference(&shown).filter(|name| !name.ends_with("_info") && !name.ends_with("_last_event")).collect();
    assert_eq!(hidden, [""; 0], "no panel shows it");
    let document = named(include_str!("../../../docs/dashboard.md"));
    assert_eq!(names.difference(&document).collect::<Vec<_>>(), [""; 0], "docs/dashboard.md lacks it");
    assert_eq!(document.difference(&names).collect::<Vec<_>>(), [""; 0], "docs/dashboard.md names what nobody exports");
}

#[test]
fn the_older_text_has_the_same_series() {
    for text in everything() {
        let older = classic(&text);
        let samples = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        assert_eq!(samples(&older), samples(&text));
        // Each sample stands below its own TYPE.
        let mut family = String::new();
        for line in older.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => rest.split(' ').next().unwrap().clone_into(&mut family),
                None if line.starts_with("# HELP ") => {}
                None => assert_eq!(sample(line).0, family, "{line}"),
            }
        }
        assert!(!older.contains("# EOF\n\n") && !older.contains("\n# UNIT"));
    }
}
