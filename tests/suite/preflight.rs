//! Flags that vLLM would refuse are named before anything is started.

use std::fs;

use crate::support::Scene;

const HELP: &str = "usage: vllm serve [options]

options:
  --max-num-seqs MAX_NUM_SEQS
                        Sequences per step. (default: None)
  --kv-cache-dtype {auto,fp8_e4m3}
                        Type of the cache.
  --enforce-eager, --no-enforce-eager
  --max-model-len N
  --tensor-parallel-size N, -tp N
  --dataset-name {random,sharegpt}
  --num-prompts N
";

/// A vLLM that knows a few flags, counts how often it is asked, and serves nobody.
fn scene() -> (Scene, std::path::PathBuf) {
    let scene = Scene::new();
    let calls = scene.path("asked");
    let text = format!("#!/bin/bash\necho \"$*\" >> '{}'\ncat <<'END'\n{HELP}END\n", calls.display());
    let vllm = scene.program("fake/vllm", &text);
    (scene, vllm)
}

fn sweep(scene: &Scene, text: &str) -> String {
    let file = scene.path("sweep.yaml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_misspelt_flag_is_named_before_any_start_and_vllm_is_asked_once() {
    let (scene, vllm) = scene();
    let file = sweep(
        &scene,
        "serve: {model: m, max-nun-seqs: [8, 16], kv-cache-dtype: fp8_e4m4}\nbench: {dataset-name: random, num-prompts: 4}\n",
    );
    let vllm = vllm.to_str().unwrap();
    let cache = scene.path("cache");
    let call = |command: &str| {
        let call = scene
            .call(&[command, file.as_str()])
            .set("--vllm-bin", [vllm])
            .set("--results-dir", [scene.results().to_str().unwrap()])
            .set("--port", ["auto"])
            .flag("--keep-foreign")
            .env("XDG_CACHE_HOME", cache.to_str().unwrap());
        let ended = call.exits(2);
        ended.says("sweep.yaml:1:").says("`--max-nun-seqs` of `vllm serve` is not known; there is `--max-num-seqs`");
        ended.says("does not take `fp8_e4m4`; most likely `fp8_e4m3` is meant").says("--no-preflight");
    };
    call("run");
    let asked = || fs::read_to_string(scene.path("asked")).unwrap();
    let mut lines: Vec<String> = asked().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["bench serve --help=all", "serve --help=all"]);
    call("run");
    call("plan");
    assert_eq!(asked().lines().count(), 2, "the second call is served from the cache");
    assert!(scene.runs().is_empty(), "nothing was started");
}

#[test]
fn a_sweep_whose_flags_are_known_goes_on_and_no_preflight_asks_nobody() {
    let (scene, vllm) = scene();
    let file = sweep(&scene, "serve: {model: m, max-num-seqs: 8, enforce-eager: false}\nbench: {num-prompts: 4}\n");
    let cache = scene.path("cache");
    let call = || {
        scene
            .call(&["plan", file.as_str()])
            .set("--vllm-bin", [vllm.to_str().unwrap()])
            .set("--results-dir", [scene.results().to_str().unwrap()])
            .env("XDG_CACHE_HOME", cache.to_str().unwrap())
    };
    call().flag("--no-preflight").exits(0);
    assert!(!scene.path("asked").exists());
    call().exits(0).prints("1 experiment,");
}
