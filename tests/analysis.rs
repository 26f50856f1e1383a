//! `analyze` as a user calls it: formats, several runs, prices, the cluster sweep's files.

mod support;

use std::path::Path;

use serde_json::Value;
use support::Scene;

fn json(ended: &support::Ended<'_>) -> Value {
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
    let figure = |key: &str| row["figures"][key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
    let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} is not {b}");
    near(figure("output_tps_per_gpu"), figure("output_throughput") / figure("devices"));
    near(figure("gpu_days_to_process_1b_tokens"), 1e9 / figure("output_tps_per_gpu") / 86_400.0);
    near(figure("output_tps_per_user"), 1000.0 / figure("mean_tpot_ms"));
    assert!(figure("startup_s") > 0.0);
    assert_eq!(row["rests_on"]["p99_ttft_ms"], 1, "four requests");
    // Each configuration: two runs with two starts.
    for configuration in found["configurations"].as_array().unwrap() {
        let of = &configuration["figures"]["output_throughput"];
        assert_eq!((&configuration["starts"], &of["n"]), (&4.into(), &4.into()));
        assert!(of["interval"]["low"].as_f64().unwrap() <= of["mean"].as_f64().unwrap());
    }
    assert_eq!(names(Path::new(&first)), before, "nothing is written into a run beside others");
    let csv = scene.call(&["analyze", &first, &second, "--format", "csv"]).exits(0).stdout;
    assert_eq!(csv.lines().count(), 9);
    assert!(csv.lines().next().unwrap().contains("p99_ttft_ms_rests_on"), "{csv}");
    let markdown = scene.call(&["analyze", &first, &second, "--format", "markdown"]).exits(0);
    markdown.prints("SIMULATED").prints("| rests on |").prints("1 request |");
    // Named twice, its measurements would be repeats of themselves.
    scene.call(&["analyze", &first, &first]).exits(2).says("is named twice");
    // Percentiles with their own interval, where each request is known.
    let found = json(&scene.call(&["analyze", &first, "--format", "json", "--detail"]).exits(0));
    assert_eq!(found["rows"][0]["quantile_intervals"]["p99_ttft_ms"]["n"], 4);
    assert_eq!(found["rows"][0]["quantile_intervals"]["p99_ttft_ms"]["high"], Value::Null);
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
    let document = include_str!("../docs/analysis.md");
    let example = document.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let prices = scene.path("prices.yaml");
    std::fs::write(&prices, example).unwrap();
    let prices = prices.to_str().unwrap().to_owned();
    let found = json(&call(&["analyze", "--format", "json", "--prices", &prices]).exits(0));
    assert_eq!(found["currency"], "EUR");
    let figures = &found["rows"][0]["figures"];
    let cost = figures["cost_per_1m_output_tokens"].as_f64().unwrap();
    let expected = 1.2e6 / (figures["output_tps_per_gpu"].as_f64().unwrap() * 3600.0);
    assert!((cost - expected).abs() < 1e-9, "{cost} is not {expected}");
    call(&["analyze", "--prices", &prices]).exits(0).prints("cost/1e6").prints("Per device and user (SIMULATED)");
    call(&["recommend", "--rank-by", "cost_per_1m_output_tokens", "--prices", &prices]).exits(0);
    let ranked = call(&["analyze", "--rank-by", "mean_ttft_ms", "--group-by", "enforce-eager"]).exits(0);
    ranked.prints("Ranking by Mean TTFT (ms)").prints("enforce-eager true").prints("one sample");
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
    [support::FIRST, support::SECOND].map(|name| {
        let rows = found["rows"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap()["figures"]["speedup"].as_f64()
    })
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
    let [eager_again, graphs_again] = with(&format!("name={}", support::SECOND));
    assert_eq!((eager, graphs_again), (Some(1.0), Some(1.0)));
    let product = graphs.unwrap() * eager_again.unwrap();
    assert!((product - 1.0).abs() < 1e-9 && graphs.unwrap() > 1.0, "{graphs:?} {eager_again:?}");
    let text = scene.call(&["analyze", &run, "--baseline", "enforce-eager=false"]).exits(0);
    text.prints("as `--baseline` says").prints("baseline: tp 1").prints(", baseline");
    let by = ["recommend", &run, "--rank-by", "speedup", "--format", "json", "--baseline"];
    let found = json(&scene.call(&[&by[..], &["enforce_eager=false"]].concat()).exits(0));
    assert_eq!(found["answers"][0]["choice"]["value"].as_f64(), Some(1.0));
    let page = scene.call(&["report", &run, "--output", "-", "--baseline", "enforce-eager=false"]).exits(0);
    page.prints("\"base\":1");
    scene
        .call(&["plot", "ranking", &run, "--figure", "speedup", "--output", "-", "--baseline", "enforce-eager=false"])
        .exits(0);
    for command in ["analyze", "recommend", "report", "plot"] {
        for (words, told) in [
            (
                "tp=1",
                &["--baseline", support::FIRST, support::SECOND, "add `enforce-eager=true` or `enforce-eager=false`"][..],
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
        (&["analyze", "--format", "jsn"][..], &["--format", "did you mean `json`?"][..]),
        (&["analyze", "--rank-by", "output_troughput"], &["--rank-by", "did you mean `output_throughput`?"]),
        (&["analyze", "--rank-by", "completed"], &["--rank-by", "better or worse"]),
        (&["analyze", "--group-by", "max-num-seq,modle"], &["--group-by", "did you mean"]),
        (&["analyze", "--slo", "output_tps_per_gpo>5"], &["--slo", "did you mean `output_tps_per_gpu`?"]),
        (&["analyze", "--devices-per-node", "0"], &["--devices-per-node", "at least 1"]),
        (&["analyze", "--prices", "wrong.yaml"], &["wrong.yaml:2", "H100", "the price of one device for one hour"]),
        (&["analyze", "--prices", "none.yaml"], &["none.yaml", "there is no such file"]),
        (&["recommend", "--group-by", "modle"], &["--group-by", "did you mean `model`?"]),
        (&["compare", "a", "b", "--figures", "speed"], &["--figures"]),
    ] {
        let call = scene.call(words);
        let call = if words[0] == "compare" { call } else { call.set("--results-dir", [results.as_str()]) };
        let ended = call.exits(2);
        for told in told {
            ended.says(told);
        }
    }
}
