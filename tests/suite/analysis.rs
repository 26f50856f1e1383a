//! `analyze` as a user calls it: formats, several runs, prices, the cluster sweep's files.

use std::path::Path;

use crate::support::Scene;
use crate::support::results::Results;
use serde_json::Value;

fn json(ended: &crate::support::Ended<'_>) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}\n{}", ended.stdout))
}

/// A sweep with two starts of each configuration; returns the run's path.
fn swept(scene: &Scene, directory: &str) -> String {
    scene.sweep().set("--starts", ["2"]).set("--results-dir", [directory]).flag("--bench-arg=save-detailed").exits(0);
    scene.runs_in(&scene.path(directory))[0].0.to_str().unwrap().to_owned()
}

#[test]
fn every_format_says_the_same_and_several_runs_are_left_as_they_are() {
    let scene = Scene::new();
    let (first, second) = (swept(&scene, "one"), swept(&scene, "two"));
    let before = names(Path::new(&first));
    let found = json(&scene.call(&["analyze", &first, &second, "--format", "json"]).exits(0));
    assert_eq!((&found["schema"], &found["simulated"]), (&1.into(), &true.into()));
    assert_eq!(found["rows"].as_array().unwrap().len(), 8);
    assert_eq!(found["runs"].as_array().unwrap().len(), 2);
    let row = &found["rows"][0];
    let metric = |key: &str| row["metrics"][key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
    let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} is not {b}");
    near(metric("output_tps_per_gpu"), metric("output_throughput") / metric("devices"));
    near(metric("gpu_days_to_process_1b_tokens"), 1e9 / metric("output_tps_per_gpu") / 86_400.0);
    near(metric("output_tps_per_user"), 1000.0 / metric("mean_tpot_ms"));
    assert!(metric("startup_s") > 0.0);
    assert_eq!(row["samples_beyond"]["p99_ttft_ms"], 1, "four requests");
    // Each configuration: two runs with two starts.
    for configuration in found["configurations"].as_array().unwrap() {
        let of = &configuration["metrics"]["output_throughput"];
        assert_eq!((&configuration["starts"], &of["n"]), (&4.into(), &4.into()));
        // Starts that do not differ say nothing of how far others would.
        assert_eq!(of["interval"].is_null(), of["sd"].as_f64().unwrap() < 1e-7 * of["mean"].as_f64().unwrap(), "{of}");
    }
    assert_eq!(names(Path::new(&first)), before, "nothing is written into a run beside others");
    let csv = scene.call(&["analyze", &first, &second, "--format", "csv"]).exits(0).stdout;
    assert_eq!(csv.lines().count(), 9);
    assert!(csv.lines().next().unwrap().contains("p99_ttft_ms_samples_beyond"), "{csv}");
    let markdown = scene.call(&["analyze", &first, &second, "--format", "markdown"]).exits(0);
    markdown.prints("SIMULATED").prints("| requests beyond |");
    // Named twice, its measurements would be repeats of themselves.
    scene.call(&["analyze", &first, &first]).exits(2).says("is named twice");
    // Requests of one measurement are not independent: no percentile has an interval over them.
    let found = json(&scene.call(&["analyze", &first, "--format", "json", "--detail"]).exits(0));
    assert!(!found.to_string().contains("quantile_intervals"), "{found}");
}

/// Prompts other than those that were planned are other work, whichever client sent them.
#[test]
fn prompts_other_than_planned_are_a_warning_with_either_client() {
    for client in ["vllm", "builtin"] {
        let scene = Scene::new();
        scene.sweep().set("--client", [client]).exits(0);
        let run = scene.runs()[0].0.clone();
        let warned = || {
            let found = json(&scene.call(&["analyze", run.to_str().unwrap(), "--format", "json"]).exits(0));
            found["rows"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|row| row["warnings"].to_string().contains("prompts have"))
                .count()
        };
        assert_eq!(warned(), 0, "{client}");
        let is_result = |name: &&String| name.ends_with("_results.json") && !name.starts_with("raw");
        let file = run.join(names(&run).iter().find(is_result).unwrap());
        let mut result: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let (input, output) =
            (result["total_input_tokens"].as_f64().unwrap(), result["total_output_tokens"].as_f64().unwrap());
        let fewer = (input * 0.37).floor();
        result["total_input_tokens"] = (fewer as u64).into();
        result["total_token_throughput"] = ((fewer + output) / result["duration"].as_f64().unwrap()).into();
        std::fs::write(&file, result.to_string()).unwrap();
        assert_eq!(warned(), 1, "{client}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn prices_files_and_rankings_come_from_flags() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let results = scene.results().to_str().unwrap().to_owned();
    let call = |words: &[&str]| scene.call(words).set("--results-dir", [results.as_str()]);
    // The example of the documentation is a price file.
    let document = include_str!("../../docs/analysis.md");
    let example = document.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let prices = scene.path("prices.yaml");
    std::fs::write(&prices, example).unwrap();
    let prices = prices.to_str().unwrap().to_owned();
    let found = json(&call(&["analyze", "--format", "json", "--prices", &prices]).exits(0));
    assert_eq!(found["currency"], "EUR");
    let metrics = &found["rows"][0]["metrics"];
    let cost = metrics["cost_per_1m_output_tokens"].as_f64().unwrap();
    let expected = 1.2e6 / (metrics["output_tps_per_gpu"].as_f64().unwrap() * 3600.0);
    assert!((cost - expected).abs() < 1e-9, "{cost} is not {expected}");
    call(&["analyze", "--prices", &prices]).exits(0).prints("cost/1e6").prints("Per device and user (SIMULATED)");
    call(&["recommend", "--objective", "cost_per_1m_output_tokens", "--prices", &prices]).exits(0);
    let ranked = call(&["analyze", "--objective", "mean_ttft_ms", "--group-by", "enforce-eager"]).exits(0);
    ranked.prints("Recommendation by Mean TTFT (ms)").prints("enforce-eager true").prints("one start");
    call(&["analyze", "--slo", "ttft.p99<0.0001"]).exits(0).prints("No configuration keeps the limits");
    // The cluster sweep's files.
    let out = scene.path("files");
    call(&["analyze", "--format", "datatrove", "--output", out.to_str().unwrap()])
        .exits(0)
        .prints("Optimization results");
    assert_eq!(names(&out), ["benchmarking_results.csv", "experiment.csv", "optimization_summary.csv"]);
    let lines = std::fs::read_to_string(out.join("benchmarking_results.csv")).unwrap();
    assert!(lines.lines().nth(1).unwrap().ends_with("simulated"), "{lines}");
    // A file, and the same bytes again.
    let file = scene.path("a.json");
    call(&["analyze", "--format", "json", "--output", file.to_str().unwrap()]).exits(0);
    let once = std::fs::read(&file).unwrap();
    call(&["analyze", "--format", "json", "--output", file.to_str().unwrap()]).exits(0);
    assert_eq!(once, std::fs::read(&file).unwrap());
}

/// Speed-ups of the two configurations of [`Scene::sweep`], eager first.
fn speedups(found: &Value) -> [Option<f64>; 2] {
    [crate::support::FIRST, crate::support::SECOND].map(|name| {
        let rows = found["rows"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap()["metrics"]["speedup"].as_f64()
    })
}

#[test]
fn a_baseline_that_is_excluded_is_told_wherever_speed_ups_are_shown() {
    let scene = Scene::new();
    let results = Results::new(scene.path("results"));
    let one = |name: &str, tp: u32, output_throughput: f64, failed: u32| {
        let more = serde_json::json!({
            "tensor-parallel-size": tp.to_string(), "pipeline-parallel-size": "1", "data-parallel-size": "1", "max_num_seqs": 256,
            "output_throughput": output_throughput, "completed": 16 - failed, "failed": failed,
        });
        results.result(name, more);
    };
    // Not what its tokens and seconds say: barred by a warning.
    one("a.json", 1, 300.0, 0);
    one("b.json", 2, 256.0, 0);
    let path = results.path().to_str().unwrap();
    let dense = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let told_everywhere = |told: &str| {
        for format in ["text", "markdown", "json", "csv", "html", "datatrove"] {
            let shown = dense(&scene.call(&["analyze", path, "--format", format]).ends().stdout);
            let lines = if format == "csv" { 2 } else { 1 };
            assert_eq!(shown.matches(told).count(), lines, "{format}: {shown}");
        }
        scene.call(&["recommend", path, "--objective", "speedup"]).ends().says(told);
        scene.call(&["plot", "ranking", path, "--metric", "speedup", "--output", "-"]).ends().says(told);
    };
    told_everywhere("do not rely on the speed-ups: their baseline a is excluded: `output_throughput` is 300.00");
    one("a.json", 1, 256.0, 3);
    told_everywhere("speed-ups are over b, as a, which would be the baseline, is excluded: 1 of 1 start failed");
    // What nothing speaks against needs no word.
    one("a.json", 1, 256.0, 0);
    let shown = scene.call(&["analyze", path]).exits(0);
    assert!(!shown.stdout.contains("is excluded"), "{}", shown.stdout);
}

#[test]
fn a_simulated_run_and_a_measured_one_get_no_verdict() {
    let scene = Scene::new();
    let simulated = swept(&scene, "one");
    let results = Results::new(scene.path("results"));
    results.result("a.json", serde_json::json!({}));
    let real = results.path().to_str().unwrap();
    let by = ["--match", "max-concurrency"];
    for (words, told) in [
        ([simulated.as_str(), real], "no verdict: the run before, `"),
        ([real, simulated.as_str()], "no verdict: the run after, `"),
    ] {
        for format in ["text", "markdown", "json"] {
            let ended = scene.call(&[&["compare"], &words[..], &by, &["--format", format]].concat()).exits(3);
            ended.says(told).says("is simulated, and the run").says("two runs on real vLLM");
            assert_eq!(ended.stdout, "", "no metrics under any banner");
        }
    }
    let noise = scene.call(&["compare", real, real, "--noise", &simulated]).exits(3);
    noise.says("no verdict: the run of `--noise`");
}

#[test]
fn the_user_says_what_others_are_compared_with() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let run = scene.run().0.to_str().unwrap().to_owned();
    let with = |baseline: &str| {
        speedups(&json(&scene.call(&["analyze", &run, "--format", "json", "--baseline", baseline]).exits(0)))
    };
    // Each is 1 where it is the baseline itself, and they are each other's reciprocals.
    let [eager, graphs] = with("enforce-eager=true,tp=1");
    let [eager_again, graphs_again] = with(&format!("name={}", crate::support::SECOND));
    assert_eq!((eager, graphs_again), (Some(1.0), Some(1.0)));
    let product = graphs.unwrap() * eager_again.unwrap();
    assert!((product - 1.0).abs() < 1e-9 && graphs.unwrap() > 1.0, "{graphs:?} {eager_again:?}");
    let text = scene.call(&["analyze", &run, "--baseline", "enforce-eager=false"]).exits(0);
    text.prints("as `--baseline` says").prints("baseline: eager false").prints(", baseline");
    let by = ["recommend", &run, "--objective", "speedup", "--format", "json", "--baseline"];
    let found = json(&scene.call(&[&by[..], &["enforce_eager=false"]].concat()).exits(0));
    assert_eq!(found["answers"][0]["choice"]["value"].as_f64(), Some(1.0));
    let page = scene.call(&["report", &run, "--output", "-", "--baseline", "enforce-eager=false"]).exits(0);
    page.prints("\"base\":1");
    scene
        .call(&["plot", "ranking", &run, "--metric", "speedup", "--output", "-", "--baseline", "enforce-eager=false"])
        .exits(0);
    for command in ["analyze", "recommend", "report", "plot"] {
        for (words, told) in [
            (
                "tp=1",
                &[
                    "--baseline",
                    crate::support::FIRST,
                    crate::support::SECOND,
                    "add `enforce-eager=true` or `enforce-eager=false`",
                ][..],
            ),
            ("enforce-eager", &["`enforce-eager` for `--baseline`: expected KEY=VALUE"]),
            ("enforce-eagre=true", &["`enforce-eagre` is no setting", "did you mean `enforce-eager`?"]),
            ("tp=2", &["no configuration has tensor-parallel-size 2", "there is: 1"]),
            ("name=org_tiny_tp1_quant-none_eager-tru", &["no experiment is called", "did you mean `org_tiny_tp1"]),
            (
                "enforce-eager=true,name=org_tiny_tp1_quant-none_eager-false",
                &["no configuration has all of these", "the nearest"],
            ),
            ("", &["names nothing"]),
        ] {
            let kind: &[&str] = if command == "plot" { &["ranking"] } else { &[] };
            let ended = scene.call(&[&[command], kind, &[run.as_str(), "--baseline", words]].concat()).exits(2);
            for told in told {
                ended.says(told);
            }
        }
    }
}

#[test]
fn wrong_words_are_named_with_the_flag_and_the_nearest() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let results = scene.results().to_str().unwrap().to_owned();
    std::fs::write(scene.path("wrong.yaml"), "currency: EUR\nH100: dear\n").unwrap();
    for (words, told) in [
        (&["analyze", "--format", "jsn"][..], &["--format", "a similar value exists: 'json'"][..]),
        (
            &["analyze", "--format", "batch-sizes", "--objective", "mean_ttft_ms"],
            &["`--objective` has no effect with `--format batch-sizes`", "take another format"],
        ),
        (
            &["analyze", "--format", "datatrove", "--group-by", "model,quantization"],
            &["groups by one key", "`quantization` is the second"],
        ),
        (
            &["analyze", "--format", "batch-sizes", "--baseline", "enforce-eager=true"],
            &["`--baseline` has no effect with `--format batch-sizes`"],
        ),
        (&["analyze", "--objective", "output_troughput"], &["--objective", "did you mean `output_throughput`?"]),
        (&["analyze", "--objective", "completed"], &["--objective", "direction"]),
        (&["analyze", "--group-by", "max-num-seq,modle"], &["--group-by", "did you mean"]),
        (&["analyze", "--slo", "output_tps_per_gpo>5"], &["--slo", "did you mean `output_tps_per_gpu`?"]),
        (&["analyze", "--devices-per-node", "0"], &["--devices-per-node", "at least 1"]),
        (&["analyze", "--prices", "wrong.yaml"], &["wrong.yaml:2", "H100", "the price of one device for one hour"]),
        (&["analyze", "--prices", "none.yaml"], &["none.yaml", "there is no such file"]),
        (&["recommend", "--group-by", "modle"], &["--group-by", "did you mean `model`?"]),
        (&["compare", "a", "b", "--metrics", "speed"], &["--metrics"]),
    ] {
        let call = scene.call(words);
        let call = if words[0] == "compare" { call } else { call.set("--results-dir", [results.as_str()]) };
        let ended = call.exits(2);
        for told in told {
            ended.says(told);
        }
    }
}

#[test]
fn batch_sizes_are_written_as_the_plots_of_that_sweep_read_them() {
    let scene = Scene::new();
    let results = Results::new(scene.path("measured"));
    let on = |tp: u32, more: Value| -> Value {
        let mut all = serde_json::json!({
            "tensor-parallel-size": tp.to_string(), "pipeline-parallel-size": "1", "data-parallel-size": "1",
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    results
        // 32 tokens each; 20 ms to the first and 2 ms for each of the 31 others: 32 / 0.082 s.
        .result("a.json", on(1, serde_json::json!({"max_concurrency": 4})))
        // The latency is told: 32 / 0.1 s.
        .result("b.json", on(1, serde_json::json!({
            "max_concurrency": 16, "num_prompts": 64, "completed": 64, "total_input_tokens": 4096, "total_output_tokens": 2048,
            "mean_e2el_ms": 100.0, "output_throughput": 400.5,
        })))
        // Each request is told: 32 / 0.5 s and 32 / 2 s, 40 on average, where the means would say 25.6.
        .result("c.json", on(1, serde_json::json!({
            "max_concurrency": 2, "num_prompts": 2, "completed": 2, "total_input_tokens": 128, "total_output_tokens": 64,
            "output_throughput": 15.25, "input_lens": [64, 64], "output_lens": [32, 32], "ttfts": [0.05, 0.1],
            "errors": ["", ""], "itls": [vec![0.45 / 31.0; 31], vec![1.9 / 31.0; 31]],
        })))
        .result("d.json", on(2, serde_json::json!({"max_concurrency": 4, "output_throughput": 500.0})))
        // As many as there is room for: no batch size.
        .result("e.json", on(2, serde_json::json!({"max_concurrency": null})))
        .result("f.json", on(2, serde_json::json!({"max_concurrency": 4, "completed": 0, "failed": 16})));
    let out = scene.path("out");
    let measured = results.path().to_str().unwrap().to_owned();
    let call = || scene.call(&["analyze", &measured, "--format", "batch-sizes"]);
    let ended = call().set("--output", [out.to_str().unwrap()]).exits(1);
    ended.prints("org/m on 1 device").prints("org/m on 2 devices").prints("390.24").prints("400.50");
    ended.prints("left out: 1 row with no max-concurrency").prints("left out: 1 experiment with no valid result");
    assert_eq!(names(&out), ["org_m"]);
    let folder = out.join("org_m");
    assert_eq!(names(&folder), ["batch_size_throughput_1_GPU.csv", "batch_size_throughput_2_GPU.csv"]);
    let file = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(
        file("batch_size_throughput_1_GPU.csv"),
        "batch_size,per_request_throughput,total_system_throughput\n2,40.0000,15.2500\n4,390.2439,256.0000\n16,320.0000,400.5000\n"
    );
    assert_eq!(
        file("batch_size_throughput_2_GPU.csv"),
        "batch_size,per_request_throughput,total_system_throughput\n4,390.2439,500.0000\n"
    );
    // A configuration of its own has a folder of its own, and the same batch size twice is no line that goes back.
    results
        .result("g.json", on(1, serde_json::json!({"max_concurrency": 4, "quantization": "fp8"})))
        .result("h.json", on(1, serde_json::json!({"max_concurrency": 4, "output_throughput": 9.0})));
    let out = scene.path("again");
    call().set("--output", [out.to_str().unwrap()]).exits(1);
    assert_eq!(names(&out), ["org_m_quant-fp8", "org_m_quant-none", "org_m_quant-none_2"]);
    let twice = out.join("org_m_quant-none_2/batch_size_throughput_1_GPU.csv");
    assert!(std::fs::read_to_string(twice).unwrap().ends_with("\n4,390.2439,9.0000\n"));
    // A run of ours, and a run that has no batch sizes.
    scene.sweep().exits(0);
    let run = scene.run().0.to_str().unwrap().to_owned();
    scene.call(&["analyze", &run, "--format", "batch-sizes"]).exits(0).prints("SIMULATED").says("--output DIR");
    let single = results.path().join("e.json").to_str().unwrap().to_owned();
    scene
        .call(&["analyze", &single, "--format", "batch-sizes"])
        .exits(3)
        .says("none of 1 valid result says its max-concurrency");
    call().set("--output", [single.as_str()]).exits(2).says("`--format batch-sizes` writes several");
}
