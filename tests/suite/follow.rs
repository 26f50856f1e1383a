//! `status --follow --json`: the events of a run for anyone who listens.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::Scene;

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Whoever listens from the middle of a run gets it whole, in order, with what it needs to know of each experiment.
#[test]
fn the_whole_run_is_streamed_to_who_listens_and_the_stream_ends_with_it() {
    let scene = Scene::new();
    let run = scene.sweep().start();
    while scene.runs().first().is_none_or(|run| run.events("experiment-started").is_empty()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let path = scene.runs()[0].0.to_str().unwrap().to_owned();
    let listener = scene.call(&["status", &path, "--follow", "--json"]).exits(0);
    run.ends().with_code(0);
    let seen = events(&listener.stdout);
    assert_eq!(seen, scene.runs()[0].journal());
    let numbers: Vec<u64> = seen.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers[0] == 1 && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let kind = |kind: &str| seen.iter().filter(move |event| event["event"] == kind).cloned().collect::<Vec<_>>();
    assert_eq!(seen.last().unwrap()["event"], "run-finished");
    for (started, finished) in kind("experiment-started").iter().zip(kind("experiment-finished")) {
        assert!(started["axes"]["model"].is_string(), "{started}");
        assert!(finished["metrics"]["output_throughput"].as_f64().unwrap() > 0.0, "{finished}");
    }
    // The run is over: a listener gets what was, and its end.
    assert_eq!(scene.call(&["status", &path, "--follow", "--json"]).exits(0).stdout, listener.stdout);
    scene.call(&["status", &path, "--follow"]).exits(2).says("--follow prints events as JSON");
}

/// Ctrl-C ends the listener, and not the run; the numbers of a resumed run go on.
#[test]
fn a_listener_may_leave_and_numbers_go_on_after_a_resume() {
    let scene = Scene::new();
    let run = scene.sweep().start();
    while scene.runs().first().is_none_or(|run| run.events("experiment-started").is_empty()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let path = scene.runs()[0].0.to_str().unwrap().to_owned();
    let listener = scene.call(&["status", &path, "--follow", "--json"]).start();
    run.signal(Signal::SIGINT);
    run.ends().with_code(130);
    listener.ends().with_code(0);
    scene.call(&["run", "--resume", &path]).exits(0);
    let numbers: Vec<u64> = scene.runs()[0].journal().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}
