//! The traps of the Python predecessor (`requirements/five-systems.md`, 1.7), one test each.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::fixture::{Fixture, SAMPLE, result};
use super::{outputs, read_run, text};
use crate::analyse::{RunTable, Status, overall};
use crate::model::{Engine, VllmMetric};
use crate::record::layout;

struct Old {
    _temporary: tempfile::TempDir,
    path: PathBuf,
}

impl Old {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("20250930_0915");
        std::fs::create_dir(&path).unwrap();
        Self { _temporary: temporary, path }
    }

    fn put(&self, stem: &str, content: &Map<String, Value>) -> &Self {
        self.raw(stem, &serde_json::to_string_pretty(content).unwrap())
    }

    fn raw(&self, stem: &str, content: &str) -> &Self {
        std::fs::write(self.path.join(format!("{stem}_results.json")), content).unwrap();
        self
    }

    fn table(&self) -> RunTable {
        read_run(&self.path).unwrap()
    }
}

fn with(mut result: Map<String, Value>, key: &str, value: Value) -> Map<String, Value> {
    result.insert(key.into(), value);
    result
}

fn none_completed() -> Map<String, Value> {
    with(with(result("org/m", 0.0, 0.0), "completed", json!(0)), "failed", json!(16))
}

/// All traps in one directory.
fn trapped() -> Old {
    let old = Old::new();
    old.put("org_m_tp16_quant-none_eager-true", &result("org/m", 8.0, 100.0))
        .put("org_m_tp2_quant-none_eager-true", &result("org/m", 2.0, 400.0))
        .put("org_m_tp2_quant-gptq_marlin_eager-false", &result("org/m", 3.0, 300.0))
        .put("org_m_tp4_quant-none_eager-true", &none_completed())
        .put("org_tp5-mini_tp2_quant-fp8_eager-true", &result("org/tp5-mini", 4.0, 90.0))
        .put("unnamed", &with(result("x/plain", 1.0, 500.0), "max_concurrency", json!(8)))
        .raw("org_m_tp8_quant-none_eager-true", "{\"completed\": 16, \"fai")
        .raw("org_m_tp8_quant-fp8_eager-true", "")
        .raw("list", "[1, 2]")
        .raw("other", "{\"hello\": \"world\"}");
    std::fs::write(old.path.join("summary.txt"), "the runner's own words").unwrap();
    old
}

#[test]
fn a_predecessors_directory() {
    let old = trapped();
    insta::assert_snapshot!("predecessor_analysis", text(&old.path));
    insta::assert_snapshot!("predecessor_csv", outputs(&old.path)[layout::SUMMARY_CSV]);
    let kept = std::fs::read_to_string(old.path.join("summary.txt")).unwrap();
    assert_eq!(kept, "the runner's own words", "its failures are recorded nowhere else");
    assert_eq!(read_run(old.path.parent().unwrap()).unwrap().facts.run, "20250930_0915");
}

#[test]
fn the_real_file_of_vllm_is_read() {
    let old = Old::new();
    old.raw("tiny-qwen3_tp1_quant-none_eager-false", SAMPLE);
    let row = &old.table().rows[0];
    assert!(row.is_valid());
    assert_eq!(row.metrics.get(VllmMetric::OutputThroughput), Some(1_471.090_056_326_302_4));
    assert_eq!(row.metrics.get(VllmMetric::P99Itl), Some(9.871_355_920_049_61));
    assert_eq!(row.metrics.get(VllmMetric::MeanE2el), None, "absent, not 0");
}

#[test]
fn trap_2_completed_0_is_a_failure() {
    let old = Old::new();
    old.put("org_m_tp2_quant-none_eager-true", &none_completed());
    let some_failed = with(result("org/m", 1.0, 1.0), "failed", json!(1));
    old.put("org_m_tp4_quant-none_eager-true", &some_failed);
    let table = old.table();
    for (row, summary) in table.rows.iter().zip(["no request was completed (16 failed)", "1 of 17 requests failed"]) {
        assert!(matches!(&row.status, Status::Failed(failed) if failed.summary == summary), "{:?}", row.status);
        assert_eq!(row.metrics.get(VllmMetric::RequestThroughput), None);
    }
    assert!(table.comparable().is_empty());
}

#[test]
fn trap_3_raw_results_json_is_no_input() {
    let old = trapped();
    let first = outputs(&old.path);
    assert!(first.contains_key("raw_results.json"));
    assert_eq!(outputs(&old.path), first);
    assert_eq!(outputs(&old.path), first);
}

#[test]
fn trap_4_gptq_marlin_and_tp5_mini_keep_their_names() {
    let table = trapped().table();
    let shown: Vec<_> =
        table.rows.iter().map(|row| (row.axes.model.as_str(), row.axes.quantization.as_deref())).collect();
    assert!(shown.contains(&("org/m", Some("gptq_marlin"))), "{shown:?}");
    assert!(shown.contains(&("org/tp5-mini", Some("fp8"))), "{shown:?}");
}

#[test]
fn trap_4_a_name_without_settings_stops_nothing() {
    let table = trapped().table();
    let row = table.rows.iter().find(|row| row.axes.model == "x/plain").unwrap();
    assert!(row.is_valid());
    assert_eq!((row.axes.tensor_parallel_size, row.axes.enforce_eager), (None, None));
}

#[test]
fn trap_5_tp_16_stands_after_2() {
    let table = trapped().table();
    let groups = table.by_model();
    let tps: Vec<_> = groups[0].1.iter().filter_map(|row| row.axes.tensor_parallel_size).collect();
    assert_eq!((groups[0].0, tps), ("org/m", vec![2, 2, 4, 16]));
}

#[test]
fn trap_5_the_median_of_an_even_count() {
    let old = Old::new();
    for (tp, throughput) in [(1, 1.0), (2, 2.0), (4, 4.0), (8, 8.0)] {
        old.put(&format!("m_tp{tp}_quant-none_eager-true"), &result("m", throughput, 1.0));
    }
    let table = old.table();
    assert_eq!(overall(&table.comparable())[0].1.map(|stats| stats.median), Some(3.0));
}

#[test]
fn trap_5_output_throughput_has_its_own_unit() {
    let text = text(&trapped().path);
    let statistics = text.split("Overall statistics").nth(1).unwrap();
    let line = |label: &str| statistics.lines().find(|line| line.contains(label)).unwrap().to_owned();
    let has = |label: &str, value: &str, unit: &str| {
        let line = line(label);
        assert!(line.contains(value) && line.ends_with(unit), "{line}");
    };
    has("Output throughput", "256.0", "tok/s");
    has("Request throughput", "8.000", "req/s");
}

#[test]
fn trap_6_csv_is_quoted() {
    let old = Old::new();
    let model = "org/m, the \"best\"";
    old.put("org_m, the \"best\"_tp2_quant-none_eager-true", &result(model, 1.0, 1.0));
    let csv = &outputs(&old.path)[layout::SUMMARY_CSV];
    assert!(
        csv.lines().nth(1).unwrap().starts_with("\"org/m, the \"\"best\"\"\",2,none,true,1.0,32.0,1.0,0.1,"),
        "{csv}"
    );
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(&reader.records().next().unwrap().unwrap()[0], model);
}

#[test]
fn trap_12_rows_of_different_loads_are_said_to_be_so() {
    let text = text(&trapped().path);
    assert!(text.contains("Max. concurrency    4 | 8 (differs)"), "{text}");
    assert!(text.contains("measured under different loads"));
}

#[test]
fn broken_files_are_listed_with_their_reasons() {
    let listed: Vec<_> = trapped().table().unreadable.into_iter().map(|file| file.file).collect();
    assert_eq!(
        listed,
        [
            "list_results.json",
            "org_m_tp8_quant-fp8_eager-true_results.json",
            "org_m_tp8_quant-none_eager-true_results.json",
            "other_results.json"
        ]
    );
}

#[test]
fn copies_of_our_results_without_their_manifest_say_themselves_what_they_are() {
    let old = Old::new();
    let mut run = Fixture::new(&["org/m"], &[2], Engine::Sim);
    run.pass(0, 1.0, 1.0);
    std::fs::copy(run.result_path(0), old.path.join("renamed_results.json")).unwrap();
    let table = old.table();
    assert!(table.simulated && table.rows[0].is_valid());
    assert_eq!(table.rows[0].axes, (&run.experiment(0).axes).into());
    assert!(text(&old.path).contains("SIMULATED"));
}
