//! `--notify`: who is told what, that a webhook's address is a secret, and that no run depends on it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{FIRST, Scene, files};

const SECRET: &str = "T0001/B0002/aZq9planted0123456789";

/// A webhook that keeps what it is told; `silent`: it never answers.
fn webhook(silent: bool) -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/services/{SECRET}", listener.local_addr().unwrap().port());
    let told: Arc<Mutex<Vec<Value>>> = Arc::default();
    let keep = Arc::clone(&told);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() == 0 || line.trim().is_empty() {
                    break;
                }
                if let Some(("content-length", value)) = line.trim_end().to_ascii_lowercase().split_once(": ") {
                    length = value.parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            if silent {
                open.push(stream);
                continue;
            }
            keep.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        }
    });
    (url, told)
}

#[test]
fn the_first_failure_and_the_end_are_told_and_the_address_is_a_secret() {
    let scene = Scene::new();
    let (url, told) = webhook(false);
    let log = scene.path("told.log");
    let script = scene.program(
        "tell",
        &format!("#!/bin/sh\necho \"$NOTIFY_EVENT|$1\" >> '{}'\necho noise\necho noise >&2\n", log.display()),
    );
    let ended = scene
        .sweep()
        .set("--name", ["nightly"])
        .set("--runs", ["2"])
        .fault("out-of-memory@eager=false")
        .also("--notify", &url)
        .also("--notify", script.to_str().unwrap())
        .exits(1);
    let told = told.lock().unwrap();
    let events: Vec<&str> = told.iter().map(|one| one["vllm_bench"]["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["first-failure", "end"], "{told:?}");
    let texts: Vec<&str> = told.iter().map(|one| one["text"].as_str().unwrap()).collect();
    assert!(
        texts[0].starts_with("vllm-bench run nightly (SIMULATED) on ") && texts[0].contains("has its first failure"),
        "{texts:?}"
    );
    assert!(texts[1].contains("is over, with failures: 2 of 4 experiments passed"), "{texts:?}");
    assert_eq!(told[1]["vllm_bench"]["details"]["passed"], 2);
    let lines = fs::read_to_string(log).unwrap();
    assert_eq!(lines.lines().map(|line| line.split('|').next().unwrap()).collect::<Vec<_>>(), ["first-failure", "end"]);
    assert!(!ended.stderr.contains("noise") && !ended.stdout.contains("noise"));
    for path in files(scene.root()) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains("planted"), "{}", path.display());
    }
    assert!(!ended.stderr.contains("planted") && !ended.stdout.contains("planted"));
    let manifest = scene.run().json("manifest.json");
    assert!(manifest["sweep"].to_string().contains("[redacted]"), "the run knows that there was one");
}

#[test]
fn nobody_who_is_told_ends_or_keeps_a_run() {
    let scene = Scene::new();
    let (silent, _) = webhook(true);
    let dead = format!("http://127.0.0.1:{}/services/{SECRET}", crate::support::free_port());
    let ended = scene
        .sweep()
        .set("--enforce-eager", ["true"])
        .also("--notify", &silent)
        .also("--notify", &dead)
        .also("--notify", "/nonexistent/program")
        .also("--notify", "sh -c 'echo why >&2; exit 3'")
        .exits(0);
    scene.run().assert_passed(FIRST);
    ended.says("notify: http://127.0.0.1:").says("it does not answer in time");
    ended.says("`/nonexistent/program` could not be started").says("exit status: 3: why");
    ended.check(!ended.stderr.contains("planted"), "the address is a secret");
}

#[test]
fn a_resume_says_that_the_address_was_not_kept_and_a_variable_is_looked_up_again() {
    let scene = Scene::new();
    let (url, told) = webhook(false);
    let sweep = scene.path("sweep.yaml");
    let text = "serve: {model: org/tiny, tp: 1}\nbench: {dataset-name: random, random-input-len: 8, random-output-len: 8, num-prompts: 4}\n";
    fs::write(&sweep, format!("{text}notify: ['${{HOOK}}']\nretry: none\nsim: {{fault: network#1}}\n")).unwrap();
    scene.sweep_of(&sweep).exits(1).says("nobody is told by `${HOOK}`");
    let run = scene.run();
    let resume = |words: &[&str]| {
        let words: Vec<&str> =
            ["run", "--resume", run.0.to_str().unwrap()].into_iter().chain(words.iter().copied()).collect();
        scene.call(&words).set("--port", ["auto"]).flag("--keep-foreign")
    };
    resume(&[]).env("HOOK", &url).exits(0);
    assert_eq!(told.lock().unwrap().len(), 1);
    // An address that stood in a flag is not kept.
    scene.sweep_of(&sweep).also("--notify", &url).exits(1);
    let run = scene.runs().pop().unwrap();
    let ended = scene
        .call(&["run", "--resume", run.0.to_str().unwrap()])
        .set("--port", ["auto"])
        .flag("--keep-foreign")
        .exits(0);
    ended.says("is told nothing: the address of a webhook is not kept");
}

#[test]
fn a_comparison_that_finds_it_worse_is_told() {
    let scene = Scene::new();
    let (url, told) = webhook(false);
    scene.sweep().set("--sim-noise", ["0.1%"]).set("--name", ["base"]).exits(0);
    scene
        .call(&["run"])
        .set("--against", ["base"])
        .set("--results-dir", [scene.results().to_str().unwrap()])
        .set("--engine", ["sim"])
        .set("--serve-arg", ["max-num-seqs=1"])
        .also("--notify", &url)
        .exits(1);
    let told = told.lock().unwrap();
    let events: Vec<&str> = told.iter().map(|one| one["vllm_bench"]["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["regression", "end"]);
    assert!(told[0]["text"].as_str().unwrap().contains("is worse than"), "{told:?}");
}

#[test]
fn what_nobody_can_be_told_by_is_refused() {
    let scene = Scene::new();
    for bad in ["", "ftp://h/x", "'open", "${a b}"] {
        scene.sweep().set("--notify", [bad]).exits(2).says("the URL of a webhook");
    }
    assert!(scene.runs().is_empty());
}
