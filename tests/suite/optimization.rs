//! The published optimization table of the cluster sweep (its README, "Optimization Results"), fed in as results, comes out again.

use std::path::Path;
use std::sync::Arc;

use vllm_bench::analyse::{
    About, Assumptions, Facts, Limit, Load, Origin, RankingSpec, Row, RunTable, ShownAxes, Status, VllmMetrics, derive,
};
use vllm_bench::model::{Better, VllmMetric};
use vllm_bench::report::Style;
use vllm_bench::report::export::{ANALYZE, Analysis, Sink};

/// Model, tp of the baseline, its tokens per second and device, those of the best, the speed-up, the best parameters.
const PUBLISHED: [(&str, u32, f64, f64, &str, &str); 18] = [
    ("SmolLM2-135M-Instruct", 1, 28391.0, 45540.0, "1.60x", "mns=512, mnbt=32768, spec=ngram_6"),
    ("SmolLM2-360M-Instruct", 1, 17887.0, 23996.0, "1.34x", "mns=512, spec=ngram_6"),
    ("Qwen3-0.6B", 1, 13527.0, 14069.0, "1.04x", "mns=512"),
    ("gemma-3-270m-it", 1, 22996.0, 23585.0, "1.03x", "mnbt=32768"),
    ("gemma-3-1b-it", 1, 14838.0, 16762.0, "1.13x", "mns=4096, mnbt=32768"),
    ("SmolLM2-1.7B-Instruct", 1, 5255.0, 9220.0, "1.75x", "mns=2048, mnbt=32768, gmu=95, spec=suffix_32"),
    ("Qwen3-1.7B", 1, 11710.0, 12313.0, "1.05x", "mnbt=32768"),
    ("Qwen3-4B", 1, 7919.0, 8086.0, "1.02x", "mnbt=32768"),
    ("gemma-3-4b-it", 1, 8501.0, 9253.0, "1.09x", "mns=1024, mnbt=32768"),
    ("Qwen3-8B", 1, 6338.0, 6443.0, "1.02x", "gmu=95"),
    ("gemma-3-12b-it", 1, 2999.0, 3046.0, "1.02x", "gmu=95"),
    ("Qwen3-14B", 1, 4414.0, 4549.0, "1.03x", "tp=2"),
    ("gpt-oss-20b", 1, 12432.0, 14671.0, "1.18x", "mns=512, mnbt=16384"),
    ("gemma-3-27b-it", 2, 1724.0, 1724.0, "1.00x", "(baseline is optimal)"),
    ("Qwen3-30B-A3B-Thinking-2507", 1, 2977.0, 5310.0, "1.78x", "tp=2, mns=512, mnbt=32768"),
    ("Qwen3-32B", 4, 1987.0, 2078.0, "1.05x", "mns=512, mnbt=16384, gmu=95"),
    ("Qwen3-Next-80B-A3B-Thinking", 4, 2034.0, 2678.0, "1.32x", "mns=512"),
    ("gpt-oss-120b", 1, 3138.0, 6117.0, "1.95x", "tp=2, mns=1024, mnbt=32768"),
];

/// A configuration: `changes` are words of the table (`mns=512`).
fn row(model: &str, base_tp: u32, tps: f64, changes: &str, group: &str) -> Row {
    let change = |word: &str| {
        changes
            .split(", ")
            .find_map(|part| part.split_once('=').filter(|(key, _)| *key == word))
            .map(|(_, value)| value)
    };
    let tp = change("tp").map_or(base_tp, |tp| tp.parse().unwrap());
    let gmu = change("gmu").map_or(0.9, |gmu| gmu.parse::<f64>().unwrap() / 100.0);
    let mut flags = vec![
        ("model", model.to_owned()),
        ("tensor-parallel-size", tp.to_string()),
        ("max-num-seqs", change("mns").unwrap_or("256").to_owned()),
        ("max-num-batched-tokens", change("mnbt").unwrap_or("8192").to_owned()),
        ("gpu-memory-utilization", gmu.to_string()),
        ("block-size", "16".to_owned()),
        ("kv-cache-dtype", "auto".to_owned()),
    ];
    if let Some((method, tokens)) = change("spec").and_then(|spec| spec.split_once('_')) {
        flags.push(("speculative-config", format!(r#"{{"method":"{method}","num_speculative_tokens":{tokens}}}"#)));
    }
    let mut metrics = VllmMetrics::none();
    for (metric, value) in [
        (VllmMetric::Completed, 10_000.0),
        (VllmMetric::Failed, 0.0),
        (VllmMetric::Duration, 100.0),
        (VllmMetric::OutputThroughput, tps * f64::from(tp)),
    ] {
        metrics.set(metric, Some(value));
    }
    Row {
        name: format!("{model} {changes}"),
        axes: ShownAxes {
            model: model.to_owned(),
            tensor_parallel_size: Some(tp),
            quantization: Some("none".into()),
            enforce_eager: Some(false),
            server: Vec::new(),
            workload: Vec::new(),
        },
        status: Status::Valid,
        metrics,
        simulated: false,
        identity: None,
        attempt: Some(1),
        timings: None,
        load: Arc::new(Load::default()),
        repeat: None,
        groups: vec![group.to_owned()],
        baseline: false,
        side: None,
        alone: false,
        replaced: false,
        server_name: String::new(),
        source: None,
        about: About {
            run: "published".into(),
            devices: Some(tp),
            flags: Arc::new(flags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ..About::default()
        },
    }
}

fn table() -> RunTable {
    let mut rows = Vec::new();
    for (model, tp, base, best, _, parameters) in PUBLISHED {
        // Smaller sizes did not fit: no result.
        for smaller in [1, 2].into_iter().filter(|size| *size < tp) {
            let mut failed = row(model, smaller, 0.0, "", "tier0-x");
            (failed.status, failed.metrics) = (Status::NotRun, VllmMetrics::none());
            rows.push(failed);
        }
        rows.push(row(model, tp, base, "", "tier0-x"));
        // Slower ones, that must not come out.
        rows.push(row(model, tp, base * 0.7, "mns=2048", "tier0-x"));
        rows.push(row(model, tp * 2, base * 0.6, "", "tier0-x"));
        if parameters.contains('=') {
            rows.push(row(model, tp, best, parameters, "tier1-x"));
        }
    }
    let facts = Facts::bare("published".into(), "published".into(), Origin::Predecessor);
    let mut table = RunTable { facts, more: Vec::new(), rows, unreadable: Vec::new(), simulated: false };
    derive(&mut table, &Assumptions::default());
    table
}

/// The tables as shown; the files in a directory.
fn datatrove(table: &RunTable, wanted: &RankingSpec, directory: Option<&Path>) -> String {
    let exporter = ANALYZE.into_iter().find(|exporter| exporter.format().name == "datatrove").unwrap();
    let mut shown = Vec::new();
    let mut sink = Sink::new(&mut shown, Style::PLAIN).into_directory(directory);
    exporter.write(&Analysis::by(table, Vec::new(), wanted.clone()), &mut sink).unwrap();
    String::from_utf8(shown).unwrap()
}

#[test]
fn the_published_optimization_table_comes_out_again() {
    let table = table();
    let text = datatrove(&table, &RankingSpec::default(), None);
    let (_, summary) = text.split_once("Optimization results").unwrap();
    for (model, tp, base, best, speedup, parameters) in PUBLISHED {
        let line = summary.lines().find(|line| line.trim_start().starts_with(&format!("{model} "))).unwrap();
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let expected = [
            model.to_owned(),
            tp.to_string(),
            format!("{base:.0}"),
            format!("{best:.0}"),
            speedup.into(),
            parameters.into(),
        ];
        assert_eq!(cells, expected);
    }
}

#[test]
fn an_axis_value_that_leaves_the_flag_out_is_the_clusters_none() {
    // As a plan shows `speculative-config: [None, …]`: no flag, and `default` on the axis.
    let mut table = table();
    for row in &mut table.rows {
        let spec = row.about.flags.get("speculative-config").cloned().unwrap_or_else(|| "default".into());
        row.axes.server = vec![("speculative-config".into(), spec)];
    }
    derive(&mut table, &Assumptions::default());
    let dir = tempfile::tempdir().unwrap();
    datatrove(&table, &RankingSpec::default(), Some(dir.path()));
    let summary = std::fs::read_to_string(dir.path().join("optimization_summary.csv")).unwrap();
    let first = summary.lines().nth(1).unwrap();
    assert!(
        first.starts_with("SmolLM2-135M-Instruct,1,28391.000000,28391.000000,1.000000,(baseline is optimal),45540"),
        "{first}"
    );
    assert!(first.contains(",1.604029,\"mns=512, mnbt=32768, spec=ngram_6\","), "{first}");
    let tier0 = std::fs::read_to_string(dir.path().join("tier0-x.csv")).unwrap();
    assert!(tier0.lines().nth(1).unwrap().contains(",16,auto,none,none,"), "{tier0}");
}

#[test]
fn the_best_of_the_cluster_sweep_is_by_the_objective_and_within_the_limits() {
    let mut table = table();
    for row in table.rows.iter_mut().filter(|row| row.is_valid()) {
        // The plain ones answer at once.
        let ttft = if row.name.ends_with(' ') { 10.0 } else { 900.0 };
        row.metrics.set(VllmMetric::MeanTtft, Some(ttft));
    }
    let mut wanted = RankingSpec {
        rank_by: "mean_ttft_ms".into(),
        better: Better::Lower,
        per_device: false,
        ..RankingSpec::default()
    };
    let text = datatrove(&table, &wanted, None);
    let line = |text: &str| text.lines().rfind(|line| line.contains("Qwen3-8B  ")).unwrap().to_owned();
    assert!(text.contains("Best by Mean TTFT (ms).") && line(&text).contains("(baseline is optimal)"), "{text}");
    wanted = RankingSpec { limits: vec![Limit::parse("ttft.mean<100").unwrap()], ..RankingSpec::default() };
    let text = datatrove(&table, &wanted, None);
    assert!(text.contains("mean_ttft_ms < 100") && line(&text).contains("1.00x"), "{text}");
}

#[test]
fn the_summary_file_has_the_cluster_sweeps_columns() {
    let dir = tempfile::tempdir().unwrap();
    let table = table();
    datatrove(&table, &RankingSpec::default(), Some(dir.path()));
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let summary = read("optimization_summary.csv");
    let mut lines = summary.lines();
    assert_eq!(
        lines.next(),
        Some(
            "model,baseline_tp,baseline_tps,tier0_tps,tier0_speedup,tier0_params,tier1_tps,tier1_speedup,tier1_params,\
             overall_tps,overall_speedup,overall_params"
        )
    );
    assert_eq!(
        lines.next(),
        Some(
            "SmolLM2-135M-Instruct,1,28391.000000,28391.000000,1.000000,(baseline is optimal),45540.000000,1.604029,\
             \"mns=512, mnbt=32768, spec=ngram_6\",45540.000000,1.604029,\"mns=512, mnbt=32768, spec=ngram_6\""
        )
    );
    assert_eq!(summary.lines().count(), 19);
    let all = read("benchmarking_results.csv");
    assert!(all.starts_with(
        "experiment,prompt_template_name,model,tp,pp,dp,mns,mnbt,gmu,bs,kvc,spec,quant,gpus_for_1b_tokens_per_hour,\
         node_days_to_process_1b_tokens,gpu_days_to_process_1b_tokens,input_tps_per_gpu,output_tps_per_gpu,"
    ));
    let tier1 = read("tier1-x.csv");
    let first = tier1.lines().nth(1).unwrap();
    assert!(
        first.starts_with("tier1-x,default,SmolLM2-135M-Instruct,1,1,1,512,32768,90,16,auto,ngram_6,none,6.099644,"),
        "{first}"
    );
}
