//! One server start for many measurements: what shares it, what a failure costs, and what is measured again.

use std::fs;

use crate::support::{RunFiles, Scene};

/// Two server configurations, two loads, two runs: eight measurements on two starts.
const SWEEP: &str = "
serve: {model: a/model, enforce-eager: true, max-model-len: 2048, max-num-seqs: [8, 16], no-enable-prefix-caching: true}
bench: {dataset-name: random, random-input-len: 8, random-output-len: 8, num-prompts: 4, max-concurrency: [1, 2], ignore-eos: true}
repeats: {runs: 2}
";

fn name(seqs: u32, concurrency: u32, run: u32) -> String {
    let run = if run > 1 { format!("_run{run}") } else { String::new() };
    format!("a_model_tp1_quant-none_eager-true_mns-{seqs}_cc-{concurrency}{run}")
}

fn all() -> Vec<String> {
    let of = |seqs| [(1, 1), (1, 2), (2, 1), (2, 2)].map(|(concurrency, run)| name(seqs, concurrency, run));
    [of(8), of(16)].concat()
}

/// A scene with a sweep file, and the call that runs it.
fn scene(extra: &str) -> Scene {
    let scene = Scene::new();
    fs::write(scene.path("sweep.yaml"), format!("{SWEEP}{extra}")).unwrap();
    scene
}

fn call(scene: &Scene) -> crate::support::Call<'_> {
    scene.sweep_of(&scene.path("sweep.yaml"))
}

fn starts(run: &RunFiles) -> usize {
    run.events("server-launched").len()
}

#[test]
fn a_server_start_serves_all_loads_and_runs() {
    let scene = scene("");
    call(&scene).exits(0);
    let run = scene.run();
    all().iter().for_each(|name| run.assert_passed(name));
    assert_eq!((starts(&run), run.events("torn-down").len(), run.events("server-reused").len()), (2, 2, 6));
    let places: Vec<_> =
        all().iter().map(|name| run.result(name)["vllm_bench"]["on_start"].as_u64().unwrap()).collect();
    assert_eq!(places, [1, 2, 3, 4, 1, 2, 3, 4]);
    for name in all() {
        let meta = &run.result(&name)["vllm_bench"];
        assert_eq!(meta["isolation"], "cache-off");
        assert!(run.has(meta["server_log"].as_str().unwrap()), "{meta}");
    }
    assert_eq!(fs::read_dir(run.path("logs")).unwrap().count(), 10, "8 clients, 2 servers");
}

#[test]
fn repeats_with_long_names_each_have_a_result_and_a_row() {
    let long = |c: &str| format!("A_VARIABLE_OF_A_LONG_NAME_{}", c.repeat(80));
    let axis = |c: &str| format!("{}: [some-value-that-is-long, another-value-that-is-long]", long(c));
    let scene = Scene::new();
    let text = format!("{}env: {{{}, {}}}\n", SWEEP.replace("runs: 2", "runs: 3"), axis("B"), axis("C"));
    let text = text.replace("[8, 16]", "8").replace("[1, 2]", "1");
    fs::write(scene.path("sweep.yaml"), text).unwrap();
    call(&scene).exits(0);
    let run = scene.run();
    let results: Vec<_> = fs::read_dir(run.path("."))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|file| file.ends_with("_results.json") && file != "raw_results.json")
        .collect();
    assert_eq!(results.len(), 12, "{results:#?}");
    assert!(results.iter().all(|file| !file.contains("_invalid.")), "{results:#?}");
    // One row, one file: the CSV names each source once.
    let raw: serde_json::Value = run.json("raw_results.json");
    let named: std::collections::HashSet<_> =
        raw.as_array().unwrap().iter().filter_map(|entry| entry["filename"].as_str()).collect();
    assert_eq!(named.len(), 12);
}

#[test]
fn without_reuse_every_measurement_has_its_own_start() {
    let scene = scene("");
    call(&scene).flag("--no-reuse").exits(0);
    assert_eq!(starts(&scene.run()), 8);
}

#[test]
fn what_kills_the_server_loses_only_itself() {
    let scene = scene("retry: none\n");
    let fault = "die-in-benchmark:kill@max-num-seqs=8,load=3";
    call(&scene).fault(fault).exits(1);
    let run = scene.run();
    for name in all() {
        if name == self::name(8, 2, 1) {
            assert_eq!(run.failure(&name)["cause"], "server-died");
        } else {
            run.assert_passed(&name);
        }
    }
    assert_eq!(starts(&run), 3);
}

#[test]
fn what_is_tried_again_never_finds_its_own_prompts_in_the_cache() {
    let scene = scene("retry: {bench-fail: 1}\n");
    let cached =
        SWEEP.replace(", no-enable-prefix-caching: true", "").replace("random-input-len: 8", "random-input-len: 64");
    fs::write(scene.path("sweep.yaml"), format!("{cached}retry: {{bench-fail: 1}}\n")).unwrap();
    // Its prompts were sent; only its result is cut.
    call(&scene).fault("benchmark-bad-json@max-num-seqs=8,load=1#1").exits(0);
    let run = scene.run();
    let again = run.result(&name(8, 1, 1));
    assert_eq!((&again["vllm_bench"]["attempt"], &again["vllm_bench"]["on_start"]), (&2.into(), &1.into()), "{again}");
    for name in all() {
        run.assert_passed(&name);
        let hits = run.result(&name)["vllm_bench"]["prefix_cache"]["hits"].as_f64();
        assert!(hits.is_none_or(|hits| hits <= 0.0), "{name}: {hits:?}");
    }
}

#[test]
fn what_killed_the_server_is_tried_again_last() {
    let scene = scene("");
    call(&scene).fault("die-in-benchmark:kill@max-num-seqs=8,load=2#1").exits(0);
    let run = scene.run();
    all().iter().for_each(|name| run.assert_passed(name));
    let order: Vec<String> = run
        .events("experiment-started")
        .iter()
        .filter_map(|event| event["name"].as_str().map(str::to_owned))
        .filter(|name| name.contains("mns-8_"))
        .collect();
    let killer = name(8, 1, 2);
    assert_eq!(order.get(1), Some(&killer));
    assert!(order.iter().rposition(|name| *name == killer).unwrap() >= 3, "{order:?}");
}

#[test]
fn kill_9_amid_the_measurements_of_a_server_and_resume_measures_only_what_is_missing() {
    let scene = scene("");
    let mut live = call(&scene).fault("benchmark-hangs@max-num-seqs=8,load=3#1").start();
    live.event(&["benchmark-launched", "mns-8_cc-2"]);
    live.kill();
    scene.wait_until_nothing_is_left();
    let before: Vec<_> = all().into_iter().filter(|n| scene.run().has(&format!("{n}_results.json"))).collect();
    assert_eq!(before, [name(8, 1, 1), name(8, 1, 2)]);
    call(&scene).fault("benchmark-hangs@max-num-seqs=8,load=3#1").flag("--resume").exits(0);
    let run = scene.run();
    all().iter().for_each(|name| run.assert_passed(name));
    for name in all() {
        let passed = run.outcomes(&name).iter().filter(|(_, outcome)| outcome == "passed").count();
        assert_eq!(passed, 1, "{name} was measured {passed} times");
    }
    assert_eq!(run.events("experiment-reused").len(), 2);
}

#[test]
fn a_run_grows_with_its_file() {
    let scene = scene("");
    call(&scene).set("--sim-seed", ["7"]).exits(0);
    let larger = SWEEP.replace("max-num-seqs: [8, 16]", "max-num-seqs: [8, 16, 32]");
    fs::write(scene.path("sweep.yaml"), larger).unwrap();
    let name_of_run = scene.run().name();
    call(&scene).set("--extend", [name_of_run.as_str()]).exits(0);
    let run = scene.run();
    assert_eq!(starts(&run), 3, "only the new configuration is started, with the seed of the run");
    (1..=2).for_each(|run_number| run.assert_passed(&name(32, 2, run_number)));
    all().iter().for_each(|name| run.assert_passed(name));
    call(&scene).set("--extend", [name_of_run.as_str()]).exits(3);
}

#[test]
fn on_failure_stop_ends_the_run_and_skip_failure_reasons_leaves_it_alone() {
    let scene = scene("on-failure: stop\nretry: none\n");
    let fault = "out-of-memory@max-num-seqs=8";
    call(&scene).fault(fault).exits(1);
    assert_eq!(scene.run().events("experiment-finished").len(), 1);
    call(&scene)
        .fault(fault)
        .flag("--resume")
        .set("--on-failure", ["continue"])
        .set("--skip-failure-reasons", ["OOM"])
        .exits(1);
    let run = scene.run();
    assert_eq!(run.outcomes(&name(8, 1, 1)).len(), 1, "left alone");
    (1..=2).for_each(|run_number| run.assert_passed(&name(16, 1, run_number)));
    call(&scene).set("--skip-failure-reasons", ["omm"]).exits(2);
}

#[test]
fn a_configuration_that_does_not_start_fails_all_that_needs_it_after_one_start() {
    let scene = scene("");
    call(&scene).set("--starts", ["2"]).fault("out-of-memory@max-num-seqs=8").exits(1);
    let run = scene.run();
    assert_eq!(starts(&run), 3, "out of memory is not tried again, nor is the second start of the same configuration");
    let failed = run.events("experiment-finished").iter().filter(|e| e["outcome"] == "failed").count();
    assert_eq!(failed, 8);
}

#[test]
fn the_cache_is_reset_or_prompts_differ_where_prefixes_are_cached() {
    let scene = scene("");
    let cached = SWEEP.replace(", no-enable-prefix-caching: true", "");
    fs::write(scene.path("sweep.yaml"), &cached).unwrap();
    call(&scene).exits(0);
    let seeds: Vec<String> =
        all().iter().map(|name| scene.run().result(name)["vllm_bench"]["isolation"]["seed"].to_string()).collect();
    assert_eq!(seeds[..4], seeds[4..], "the same prompts for every configuration");
    assert_eq!(seeds[..4].iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    fs::write(scene.path("sweep.yaml"), format!("{cached}env: {{VLLM_SERVER_DEV_MODE: 1}}\n")).unwrap();
    call(&scene).exits(0);
    let run = scene.runs().pop().unwrap();
    let meta = run.result(&name(8, 2, 2))["vllm_bench"].clone();
    assert_eq!((&meta["isolation"], &meta["prefix_cache"]["hits"]), (&"reset".into(), &0.0.into()));
    assert!(meta["prefix_cache"]["queries"].as_f64().unwrap() > 0.0, "{meta}");
    // HTTP 200 alone is no reset.
    call(&scene).fault("reset-refused").exits(0).says("did not empty its prefix cache");
    let run = scene.runs().pop().unwrap();
    assert_eq!(run.result(&name(8, 2, 2))["vllm_bench"]["isolation"], "none");
}

#[test]
fn ten_thousand_experiments_want_to_be_meant() {
    let scene = scene("");
    let large = SWEEP.replace("[8, 16]", "1..3000");
    fs::write(scene.path("sweep.yaml"), large).unwrap();
    call(&scene).exits(2).says("12000 experiments").says("--yes");
    assert!(!scene.results().exists() || scene.runs().is_empty());
}

#[test]
fn an_unrecorded_load_warms_up_each_workload_on_each_start() {
    let scene = scene("warmup: 2\ncooldown: 10ms\n");
    call(&scene).exits(0);
    let run = scene.run();
    all().iter().for_each(|name| run.assert_passed(name));
    let logs = fs::read_dir(run.path("logs")).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let mut warm: Vec<String> = logs.filter(|name| name.contains("_warmup")).collect();
    warm.sort();
    let expected: Vec<String> =
        [(16, 1), (16, 2), (8, 1), (8, 2)].map(|(seqs, load)| format!("{}_warmup.log", name(seqs, load, 1))).into();
    assert_eq!(warm, expected);
    let log = fs::read_to_string(run.path("logs").join(&warm[0])).unwrap();
    assert!(log.contains("num_prompts='2'"), "{log}");
    assert_eq!(fs::read_dir(run.path(".unchecked")).unwrap().count(), 0, "a warm-up leaves no result");
}

#[test]
fn the_analysis_ranks_each_load_by_itself_and_repeats_by_their_mean() {
    let scene = scene("baseline: {max-num-seqs: 8}\n");
    call(&scene).exits(0);
    let run = scene.run();
    let text = fs::read_to_string(run.path("detailed_analysis.txt")).unwrap();
    for words in [
        "at max-concurrency 1",
        "at max-concurrency 2",
        "1 start, 2 runs",
        "Against the baseline",
        "baseline: max-num-seqs 8\n",
        "  max-num-seqs   max-concurrency",
    ] {
        assert!(text.contains(words), "`{words}` is missing:\n{text}");
    }
    let table = fs::read_to_string(run.path("results_summary.csv")).unwrap();
    let header = table.lines().next().unwrap();
    assert!(header.starts_with("Model,TP,Quantization,EnforceEager,ReqThroughput_req_s"), "{header}");
    assert!(header.ends_with("serve.max-num-seqs,bench.max-concurrency,Start,Run,Baseline"), "{header}");
}
