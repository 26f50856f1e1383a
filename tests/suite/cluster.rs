//! What the cluster sweep (system 5) asks for beyond a sweep on one machine: its prompts, its directory tree, servers on several nodes.

use std::path::Path;

use vllm_bench::cli::RunArgs;
use vllm_bench::config::{Environment, Preset, Settings};
use vllm_bench::model::Experiment;
use vllm_bench::plan::expand;

use crate::support::{BIN, Call, FIRST, SECOND, Scene, assert_proof};

fn planned(file: &Path, client: &str) -> Vec<Experiment> {
    let args = RunArgs { files: vec![file.to_owned()], client: Some(client.into()), ..RunArgs::default() };
    let settings = Settings::resolve(&args, &Environment::of(&[], Path::new("/")), Preset::Full).unwrap();
    expand(&settings.sweep).experiments
}

fn bench<'e>(experiment: &'e Experiment, flag: &str) -> Option<&'e str> {
    experiment.workload.flags.get_text(flag)
}

#[test]
fn the_builtin_client_sends_the_cluster_sweeps_prompts_and_vllms_random_ones() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps/examples/cluster-sweep.yaml");
    let ours = planned(&file, "builtin");
    assert_eq!(ours.len(), 741, "the same settings");
    let first = &ours[0];
    for (flag, value) in [
        ("dataset-name", "hf"),
        ("dataset-path", "HuggingFaceFW/fineweb-edu"),
        ("hf-subset", "sample-10BT"),
        ("hf-split", "train"),
        ("prompt-column", "text"),
        ("prompt-template", "Turn this into a tutorial: [[DOCUMENT]]"),
        ("metadata", "prompt_template_name=tutorial"),
        ("backend", "openai-chat"),
        ("output-len", "4096"),
        ("max-tokens-filter", "4096"),
        ("num-prompts", "10000"),
        ("max-concurrency", "5000"),
        ("seed", "42"),
        ("temperature", "0.0"),
    ] {
        assert_eq!(bench(first, flag), Some(value), "{flag}");
    }
    assert!(!first.workload.flags.contains("random-input-len") && !first.workload.flags.contains("ignore-eos"));
    assert_eq!(bench(&planned(&file, "vllm")[0], "dataset-name"), Some("random"));
}

#[test]
fn several_templates_are_several_loads_and_an_fp8_cache_has_its_scales() {
    let scene = Scene::new();
    let file = scene.path("sweep.yaml");
    let text = "fixed_args:\n  model-max-context: 2048\n  max-tokens: 1024\n  prompt-template:\n  - [math, 'Solve: [[DOCUMENT]]']\n  \
                - [table, 'Tabulate: [[DOCUMENT]]']\nexperiments:\n- name: kv\n  args: {kv-cache-dtype: [auto, fp8_e4m3], system-prompt: Be brief.}\n";
    std::fs::write(&file, text).unwrap();
    let plan = planned(&file, "builtin");
    let said: Vec<String> = plan
        .iter()
        .map(|experiment| {
            let flags = &experiment.server.flags;
            let cache = flags.get_text("kv-cache-dtype").unwrap();
            let scales = flags.contains("calculate-kv-scales");
            format!(
                "{cache} {scales} {} {}",
                bench(experiment, "metadata").unwrap(),
                bench(experiment, "system-prompt").unwrap()
            )
        })
        .collect();
    for expected in ["auto false", "fp8_e4m3 true"] {
        for template in ["math", "table"] {
            let line = format!("{expected} prompt_template_name={template} Be brief.");
            assert_eq!(said.iter().filter(|said| **said == line).count(), 1, "{line}: {said:#?}");
        }
    }
    assert_eq!(said.len(), 4);
}

#[test]
fn its_prompts_are_measured_and_its_files_and_its_tree_are_written() {
    let scene = Scene::new();
    let prompts: String = (0..256).map(|n| format!("{{\"text\": \"A document about the number {n}.\"}}\n")).collect();
    let data = scene.path("data.jsonl");
    std::fs::write(&data, prompts).unwrap();
    let file = scene.path("sweep.yaml");
    let text = format!(
        "fixed_args:\n  input-dataset-name: {}\n  prompt-column: text\n  prompt-template: [tutorial, 'A tutorial on: [[DOCUMENT]]']\n  \
         max-examples: 256\n  model-max-context: 2048\n  max-tokens: 64\n  max-concurrent-generations: 2\n  temperature: 0.0\n\
         experiments:\n- name: tier0-tiny\n  args: {{model-name-or-path: org/tiny, max-num-seqs: [256, 512]}}\n",
        data.display()
    );
    std::fs::write(&file, text).unwrap();
    scene.sweep_of(&file).set("--sim-speed", ["100"]).set("--client", ["builtin"]).exits(0);
    let out = scene.path("out");
    scene
        .call(&["analyze", "--results-dir", scene.results().to_str().unwrap(), "--format", "datatrove"])
        .set("--layout", ["datatrove"])
        .set("--output", [out.to_str().unwrap()])
        .exits(0)
        .prints("Optimization results");
    let table = std::fs::read_to_string(out.join("benchmarking_results.csv")).unwrap();
    let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let columns = lines.next().unwrap();
    let of = |row: &[&str], column: &str| row[columns.iter().position(|known| *known == column).unwrap()].to_owned();
    let rows: Vec<_> = lines.collect();
    assert_eq!(rows.len(), 2, "{table}");
    for row in &rows {
        assert_eq!(of(row, "prompt_template_name"), "tutorial");
        for column in ["avg_running_reqs", "avg_waiting_reqs", "avg_gpu_kvc_usage", "avg_prefix_cache_hit_rate"] {
            assert!(of(row, column).parse::<f64>().is_ok(), "{column} of {row:?}");
        }
    }
    let way = "tier0-tiny/tutorial/tiny/tp1-pp1-dp1/mns_512/mnbt_8192/gmu_90/bs_16/kvc_auto/spec_none/quant_none/inference_logs";
    let stats: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join(way).join("stats.json")).unwrap()).unwrap();
    assert!(stats[0]["name"].as_str().unwrap().contains("Model call"));
    assert_eq!(stats[0]["stats"]["successful_requests"], 256.0);
    assert!(stats[0]["stats"]["inference_time"]["total"].as_f64().unwrap() > 0.0);
    assert!(out.join(way).join("slurm_logs/0_0.out").is_file());
    let log = std::fs::read_to_string(out.join(way).join("server_logs/server_rank_00000_node_0.log")).unwrap();
    assert!(log.contains("POST /v1/chat/completions") || log.contains("Avg generation throughput"), "{log}");
    scene
        .call(&["analyze", "--layout", "datatrove", "--results-dir", scene.results().to_str().unwrap()])
        .exits(2)
        .says("add `--format datatrove --output DIR`");
}

/// Stands for `srun`: runs the command as often as there are other nodes, here; passes signals on.
const SRUN: &str = r#"#!/bin/bash
while [[ $1 == --* ]]; do
  case $1 in --nodes | --ntasks) count=$2; shift 2 ;; *) shift ;; esac
done
children=()
trap 'kill -USR1 "${children[@]}" 2>/dev/null' USR1
trap 'kill -KILL "${children[@]}" 2>/dev/null' TERM
for ((rank = 0; rank < count; rank++)); do SLURM_PROCID=$rank "$@" & children+=("$!"); done
for child in "${children[@]}"; do while kill -0 "$child" 2>/dev/null; do wait "$child"; done; done
"#;

/// A sweep whose servers have two nodes, as within a job of Slurm.
fn on_two_nodes(scene: &Scene) -> Call<'_> {
    scene.program("bin/srun", SRUN);
    scene.program("bin/scontrol", "#!/bin/bash\necho 'NodeName=n1 NodeAddr=127.0.0.1 State=IDLE'\n");
    let path = format!("{}:{}", scene.path("bin").display(), std::env::var("PATH").unwrap());
    scene
        .sweep()
        .set("--tp", ["2"])
        .set("--sim-devices", ["1"])
        .set("--login", ["false"])
        .env("PATH", &path)
        .env("SLURM_JOB_NUM_NODES", "2")
        .env("SLURMD_NODENAME", "n1")
}

#[test]
fn a_server_on_two_nodes_is_ready_when_its_ranks_joined_and_its_end_is_proven_on_both() {
    let scene = Scene::new();
    on_two_nodes(&scene).exits(0);
    let run = scene.run();
    for name in [FIRST, SECOND].map(|name| name.replace("tp1", "tp2")) {
        run.assert_passed(&name);
        assert_proof(&run.result(&name)["vllm_bench"]["teardown"]);
        let log = |end: &str| std::fs::read_to_string(run.path(&format!("logs/{name}_server.{end}"))).unwrap();
        assert!(log("log").contains("'nnodes': 2"), "{}", log("log"));
        assert!(log("rank1.log").contains("headless multiproc executor"), "{}", log("rank1.log"));
        let seen: serde_json::Value = serde_json::from_str(&log("rank1.json")).unwrap();
        assert_eq!(seen["emptied"]["empty"], true, "{seen}");
    }
    scene.wait_until_nothing_is_left();
}

#[test]
fn a_rank_that_dies_is_the_failure_that_its_own_log_shows() {
    for (fault, cause, phase) in
        [("rank-dies", "engine-core-failed", "starting"), ("rank-dies:60s", "server-died", "measuring")]
    {
        let scene = Scene::new();
        let sweep = on_two_nodes(&scene).fault(&format!("{fault}@eager=true"));
        // The second strikes while the workload is sent.
        let sweep = if phase == "measuring" {
            sweep.set("--sim-speed", ["60"]).set("--num-prompts", ["4000"]).set("--concurrency", ["2"])
        } else {
            sweep
        };
        sweep.set("--enforce-eager", ["true"]).exits(1);
        let failure = scene.run().failure(&FIRST.replace("tp1", "tp2"));
        assert_eq!(
            (failure["cause"].as_str(), failure["phase"]["phase"].as_str()),
            (Some(cause), Some(phase)),
            "{failure:#}"
        );
        let summary = failure["summary"].as_str().unwrap();
        assert!(summary.contains("rank 1 ended") && summary.contains("rank1.log"), "{summary}");
        assert_proof(&failure["teardown"]);
        scene.wait_until_nothing_is_left();
    }
}

#[test]
fn ray_joins_the_nodes_where_the_backend_says_so_and_nothing_of_it_stays() {
    let scene = Scene::new();
    on_two_nodes(&scene).set("--serve-arg", ["distributed-executor-backend=ray"]).exits(0);
    let run = scene.run();
    let name = FIRST.replace("tp1", "tp2");
    run.assert_passed(&name);
    assert_proof(&run.result(&name)["vllm_bench"]["teardown"]);
    let log = |end: &str| std::fs::read_to_string(run.path(&format!("logs/{name}_server.{end}"))).unwrap();
    assert!(log("log").contains("Ray runtime started (head"), "{}", log("log"));
    assert!(log("rank1.log").contains("Ray runtime started (1 devices"), "{}", log("rank1.log"));
    scene.wait_until_nothing_is_left();
}

#[test]
fn a_rank_that_never_joins_keeps_the_head_from_being_ready() {
    let scene = Scene::new();
    on_two_nodes(&scene).fault("rank-hangs").set("--enforce-eager", ["true"]).set("--timeout-startup", ["6"]).exits(1);
    let failure = scene.run().failure(&FIRST.replace("tp1", "tp2"));
    assert_eq!(failure["phase"]["phase"], "starting", "{failure:#}");
    assert_proof(&failure["teardown"]);
    scene.wait_until_nothing_is_left();
}

#[test]
fn a_headless_rank_needs_no_model_and_says_that_it_is_simulated() {
    let child = std::process::Command::new(BIN)
        .args(["sim-vllm", "serve", "m", "--headless", "--nnodes", "2", "--node-rank", "1"])
        .envs([("VLLM_BENCH_SIM_SPEED", "inf"), ("VLLM_BENCH_SIM_FAULT", "rank-dies@node-rank=1")])
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&child.stdout).contains("SIMULATED"));
}
