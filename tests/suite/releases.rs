//! Several releases of vLLM: what is recorded of them, what is the same with all, and what is said where they meet.

use std::fs;
use std::path::PathBuf;

use crate::support::{Ended, FIRST, Scene};

/// A run of one experiment with that vLLM; more flags may follow.
fn measured(scene: &Scene, results: &str) -> PathBuf {
    let vllm = scene.vllm_that("");
    let results = scene.path(results);
    let call = scene.sweep_with(&vllm).set("--enforce-eager", ["true"]);
    call.set("--results-dir", [results.to_str().unwrap()]).exits(0);
    scene.runs_in(&results).remove(0).0
}

/// As if that release had measured the run, and its client had been told these words and no temperature.
fn as_if(run: &std::path::Path, version: &str) {
    let path = run.join(format!("{FIRST}_results.json"));
    let mut result: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let ours = &mut result["vllm_bench"];
    ours["vllm_version"] = version.into();
    let words = ours["bench_command"].as_array_mut().unwrap();
    let at = words.iter().position(|word| word == "--temperature").unwrap();
    words.drain(at..at + 2);
    fs::write(&path, serde_json::to_vec(&result).unwrap()).unwrap();
}

#[test]
fn the_version_is_what_the_server_answers_where_its_log_says_none() {
    let scene = Scene::new();
    // 0.32 has other words in its log; here there are none at all.
    let vllm = scene.vllm_that("exec > >(sed -u 's/[Vv]ersion/-/g') 2>&1");
    scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).exits(0);
    let run = scene.run();
    let log = fs::read_to_string(run.0.join(format!("logs/{FIRST}_server.log"))).unwrap();
    assert!(!log.contains("version"), "{log}");
    assert_eq!(run.result(FIRST)["vllm_bench"]["vllm_version"], "0.14.1+sim");
}

#[test]
fn both_clients_are_told_what_decides_the_work_and_the_user_has_the_last_word() {
    let scene = Scene::new();
    fs::write(scene.path("plain.yaml"), "serve: {model: m}\nbench: {num-prompts: 4}\n").unwrap();
    for client in ["vllm", "builtin"] {
        let shown = scene.call(&["run", "plain.yaml", "--engine", "sim", "--dry-run", "--client", client]).exits(0);
        for words in ["--dataset-name random", "--temperature 0", "--ignore-eos"] {
            shown.prints(words);
        }
    }
    let text = "serve: {model: m}\nbench: {temperature: [0.7, none], ignore-eos: false, num-prompts: 4}\n";
    fs::write(scene.path("sweep.yaml"), text).unwrap();
    let shown: Ended = scene.call(&["run", "sweep.yaml", "--engine", "sim", "--dry-run"]).exits(0);
    shown.check(shown.stdout.matches("--temperature 0.7").count() == 1, "the user's temperature once");
    shown.check(
        !shown.stdout.contains("--temperature 0 ")
            && !shown.stdout.contains("--temperature 0\n")
            && !shown.stdout.contains("--ignore-eos"),
        "nothing else",
    );
}

#[test]
fn compare_and_analyze_say_why_two_releases_are_not_comparable() {
    let scene = Scene::new();
    let (old, new) = (measured(&scene, "old"), measured(&scene, "new"));
    as_if(&old, "0.14.1");
    as_if(&new, "0.32.0");
    let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
    let words = "not the same work, so not comparable: `--temperature` is `0` with vLLM 0.14.1";
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for format in ["text", "markdown", "json"] {
        let compared = scene.call(&["compare", old, new, "--format", format]).ends();
        compared.check(flat(&compared.stdout).contains(words), &format!("{format} should say why"));
    }
    let analyzed = scene.call(&["analyze", old, new]).ends();
    analyzed.check(flat(&analyzed.stdout).contains(words), "analyze should say why");
    let same = scene.call(&["compare", old, old]).ends();
    same.check(!same.stdout.contains("not comparable"), "one release is comparable with itself");
}

#[test]
fn a_flag_that_a_release_dropped_is_named_with_what_replaced_it() {
    let scene = Scene::new();
    let text = "serve: {model: m, task: generate}\nbench: {num-prompts: 4}\n";
    fs::write(scene.path("sweep.yaml"), text).unwrap();
    let refused = scene.call(&["plan", "sweep.yaml", "--engine", "sim"]).exits(2);
    refused.says("`--task` of `vllm serve` is not known: it was replaced by `--runner and --convert` after 0.10.2");
}

#[test]
fn check_shows_the_last_line_of_a_vllm_that_crashes() {
    let scene = Scene::new();
    let vllm =
        scene.program("fake/vllm", "#!/bin/bash\necho 'PackageNotFoundError: No package metadata' >&2\nexit 1\n");
    let results = scene.results();
    let args = ["--vllm-bin", vllm.to_str().unwrap(), "--results-dir", results.to_str().unwrap(), "--setvars", "none"];
    let checked = scene.call(&["check", "--port", "auto"]).set(args[0], [args[1]]).set(args[2], [args[3]]);
    let checked = checked.set(args[4], [args[5]]).ends();
    checked.prints("did not tell a version: it ended with exit status: 1: PackageNotFoundError: No package metadata");
}
