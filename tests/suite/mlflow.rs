//! Runs in MLflow, against a strict fake of its server: what is there, that twice is once, and that no server costs a run anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::mlflow::{Mlflow, Mood, Run};
use crate::support::{Call, FIRST, RunFiles, SECOND, Scene, files};

/// 27 experiments on three server starts.
const TWENTY_SEVEN: &str = "serve: {model: org/tiny, tp: 1, max-num-seqs: [8, 16, 32]}\n\
    bench: {dataset-name: random, random-input-len: 8, random-output-len: 8, num-prompts: 4, max-concurrency: [1, 2, 3, 4, 5, 6, 7, 8, 9]}\n";

fn file(scene: &Scene, text: &str) -> PathBuf {
    let path = scene.path("sweep.yaml");
    fs::write(&path, text).unwrap();
    path
}

fn export<'s>(scene: &'s Scene, run: &RunFiles, server: &Mlflow) -> Call<'s> {
    scene.call(&["export", "mlflow", run.0.to_str().unwrap()]).set("--mlflow", [server.uri().as_str()])
}

/// All children by the name of their experiment; there is one of each, and nothing was refused.
fn children(server: &Mlflow) -> BTreeMap<String, Run> {
    let store = server.store();
    assert_eq!(store.refused, Vec::<String>::new());
    let parents: Vec<&Run> = store.living().filter(|run| run.tag("vllm_bench.key") == "sweep").collect();
    assert_eq!(parents.len(), 1, "one run stands for the sweep");
    let id = store.runs.iter().position(|run| !run.deleted && run.tag("vllm_bench.key") == "sweep").unwrap();
    let all: BTreeMap<String, Run> =
        store.children().into_iter().map(|run| (run.tag("vllm_bench.experiment").to_owned(), run.clone())).collect();
    assert_eq!(all.len(), store.children().len(), "no experiment is there twice");
    for child in all.values() {
        assert_eq!(child.tag("mlflow.parentRunId"), format!("run{id}"));
    }
    all
}

#[test]
fn a_sweep_is_one_run_with_one_below_for_each_of_27_experiments_and_twice_is_once() {
    let (scene, server) = (Scene::new(), Mlflow::start(Mood::Good));
    let sweep = file(&scene, TWENTY_SEVEN);
    let ended = scene
        .sweep_of(&sweep)
        .set("--mlflow", [server.uri().as_str()])
        .set("--telemetry", ["100ms"])
        .set("--name", ["tracked"])
        .exits(0);
    ended.says(&format!("mlflow: {} (experiment `vllm-bench`)", server.uri()));
    let run = scene.run();
    // The end of a run waits 30 s at most; what is left then is for this.
    export(&scene, &run, &server).exits(0).says("27 of 27 measurements there").prints("/#/experiments/0/runs/");
    let all = children(&server);
    assert_eq!(all.len(), 27);
    for (name, child) in &all {
        let result = run.result(name);
        assert_eq!((child.status.as_str(), child.tag("vllm_bench.outcome")), ("FINISHED", "passed"), "{name}");
        assert_eq!(child.steps("output_throughput"), [(1, result["output_throughput"].as_f64().unwrap())], "{name}");
        assert_eq!(child.tag("vllm_bench.identity"), result["vllm_bench"]["identity"]);
        assert_eq!(child.tag("vllm_bench.simulated"), "true");
        let max = result["vllm_bench"]["bench"]["max-concurrency"].to_string();
        assert_eq!(child.params["bench.max-concurrency"], max.trim_matches('"'));
        assert_eq!(child.params["model"], "org/tiny");
        // A result as it is on disk, and the client's log.
        let bytes = fs::read(run.path(&format!("{name}_results.json"))).unwrap();
        assert_eq!(child.artifacts[&format!("{name}_results.json")], bytes);
        assert!(child.artifacts.contains_key(&format!("{name}_benchmark.log")), "{:?}", child.artifacts.keys());
    }
    let sampled = |child: &&Run| child.metrics.keys().any(|(key, ..)| key == "system/cpu_utilization_percentage");
    assert!(all.values().any(|child| sampled(&child)), "samples are there as system metrics");
    let writes = {
        let store = server.store();
        let parent = store.parent().unwrap();
        assert_eq!((parent.name.as_str(), parent.status.as_str()), ("tracked", "FINISHED"));
        assert!(parent.end_time.is_some());
        let counts = ["planned", "passed", "failed"].map(|what| parent.tag(&format!("vllm_bench.{what}")).to_owned());
        assert_eq!(counts, ["27", "27", "0"]);
        assert_eq!(parent.params["serve.max-num-seqs"], "[8,16,32]");
        for file in ["report.html", "recommend.json", "manifest.json", "plots/ranking.svg"] {
            assert!(parent.artifacts.contains_key(file), "{file}: {:?}", parent.artifacts.keys());
        }
        assert!(parent.artifacts.keys().any(|file| file.starts_with("logs/") && file.ends_with("_server.log")));
        store.writes()
    };
    export(&scene, &run, &server).exits(0).says("27 of 27 measurements there");
    assert_eq!(server.store().writes(), writes, "what is there is not sent twice");
    export(&scene, &run, &server).flag("--dry-run").exits(0).prints("0 of 27 measurements missing there");
    assert_eq!(children(&server).len(), 27);
    let note = run.json("mlflow.json");
    assert_eq!(note["sent"][0]["there"], json!([27, 27]));
    // The server is known by now.
    scene.call(&["export", "mlflow", run.0.to_str().unwrap()]).exits(0).says(&server.uri());
}

#[test]
fn repeats_are_steps_and_a_failure_says_why() {
    let (scene, server) = (Scene::new(), Mlflow::start(Mood::Good));
    scene.sweep().set("--runs", ["3"]).fault("out-of-memory@eager=false").exits(1);
    let run = scene.run();
    export(&scene, &run, &server).exits(0);
    let all = children(&server);
    assert_eq!(all.len(), 2);
    let good = all.values().find(|child| child.status == "FINISHED").unwrap();
    assert_eq!(good.steps("output_throughput").iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 2, 3]);
    let bad = all.values().find(|child| child.status == "FAILED").unwrap();
    assert!(bad.metrics.is_empty() || bad.steps("output_throughput").is_empty());
    assert_eq!(bad.tag("vllm_bench.cause"), "out-of-device-memory");
    assert!(bad.tag("mlflow.note.content").contains("line "), "{}", bad.tag("mlflow.note.content"));
    assert!(bad.artifacts.keys().any(|file| file.ends_with("_failure.json")), "{:?}", bad.artifacts.keys());
    assert!(bad.artifacts.keys().any(|file| file.ends_with("_server.log")), "{:?}", bad.artifacts.keys());
    assert_eq!(server.store().parent().unwrap().tag("vllm_bench.failed"), "3");
}

#[test]
fn killed_after_any_request_nothing_is_lost_and_nothing_is_there_twice() {
    let scene = Scene::new();
    scene.sweep().set("--telemetry", ["100ms"]).exits(0);
    let run = scene.run();
    // Each request takes two exports: on every commit each third one, with this variable all.
    let step = if std::env::var_os("VLLM_BENCH_TEST_ALL").is_some() { 1 } else { 3 };
    let mut reached = 0;
    for after in (1..).step_by(step) {
        reached = after;
        let server = Mlflow::start(Mood::Good);
        server.store().hold_after = Some(after);
        let call = export(&scene, &run, &server).start();
        let pid = call.pid();
        let over = || !Path::new(&format!("/proc/{pid}")).exists() || is_over(pid);
        if !server.wait_until_held(over) {
            call.ends().with_code(0);
            break;
        }
        call.kill();
        server.store().hold_after = None;
        export(&scene, &run, &server).exits(0).says("2 of 2 measurements there");
        let all = children(&server);
        assert_eq!(all.keys().collect::<Vec<_>>(), [SECOND, FIRST], "killed after request {after}");
        for child in all.values() {
            assert_eq!((child.status.as_str(), child.steps("output_throughput").len()), ("FINISHED", 1), "{after}");
        }
    }
    assert!(reached > 12, "all of it took {reached} requests");
}

/// Whether a child that nobody has waited for has ended.
fn is_over(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

#[test]
fn no_server_costs_a_run_its_results_and_what_is_missing_is_sent_later() {
    for mood in [Mood::Status(500), Mood::Silent, Mood::Page, Mood::Status(403)] {
        let (scene, server) = (Scene::new(), Mlflow::start(mood));
        let ended = scene.sweep().set("--mlflow", [server.uri().as_str()]).exits(0);
        ended.says("export mlflow").says("sends the rest");
        let run = scene.run();
        run.assert_passed(FIRST);
        run.assert_journal_complete();
        server.mood(Mood::Good);
        export(&scene, &run, &server).exits(0);
        assert_eq!(children(&server).len(), 2, "{mood:?}");
    }
    // Nobody listens there.
    let (scene, server) = (Scene::new(), Mlflow::start(Mood::Good));
    let dead = format!("http://127.0.0.1:{}", crate::support::free_port());
    scene.sweep().set("--mlflow", [dead.as_str()]).exits(0).says(&format!("not all is at {dead}"));
    let run = scene.run();
    scene.call(&["export", "mlflow", run.0.to_str().unwrap()]).exits(4).says(&dead);
    export(&scene, &run, &server).exits(0);
    assert_eq!(children(&server).len(), 2);
}

#[test]
fn a_busy_server_is_asked_again_and_one_that_loses_answers_makes_nothing_double() {
    for mood in [Mood::Busy, Mood::Lossy] {
        let (scene, server) = (Scene::new(), Mlflow::start(mood));
        scene.sweep().exits(0);
        let run = scene.run();
        // A call may end with what it could not know; the next one goes on.
        let mut calls = 0;
        while export(&scene, &run, &server).ends().status.code() != Some(0) {
            calls += 1;
            assert!(calls < 20, "{mood:?}");
        }
        assert_eq!(children(&server).len(), 2, "{mood:?}");
    }
}

#[test]
fn a_server_that_says_yes_and_keeps_nothing_is_found_out() {
    let (scene, server) = (Scene::new(), Mlflow::start(Mood::Forgetful));
    scene.sweep().exits(0);
    let run = scene.run();
    export(&scene, &run, &server).exits(4).says("did not take or keep");
    server.mood(Mood::Elsewhere);
    let ended = export(&scene, &run, &server).exits(0);
    ended.says("`s3:`");
    server.mood(Mood::Good);
    assert_eq!(children(&server).len(), 2);
}

#[test]
fn a_run_that_was_killed_is_sent_as_it_stands_and_goes_on_where_it_was() {
    let (scene, server) = (Scene::new(), Mlflow::start(Mood::Good));
    let mut live = scene
        .sweep()
        .set("--mlflow", [server.uri().as_str()])
        .set("--runs", ["2"])
        .fault("hang-loading@eager=false#1")
        .stays()
        .start();
    live.event(&["experiment-started", "eager-false"]);
    let run = scene.run();
    // While it is live.
    export(&scene, &run, &server).exits(0);
    assert_eq!(server.store().parent().unwrap().status, "RUNNING");
    live.kill();
    scene.call(&["stop", "--results-dir", scene.results().to_str().unwrap()]).ends();
    export(&scene, &run, &server).exits(0).says("2 of 2 measurements there");
    {
        let store = server.store();
        assert_eq!((store.parent().unwrap().status.as_str(), store.children().len()), ("KILLED", 1));
    }
    // Where it is sent is kept with the run.
    let resumed =
        scene.call(&["run", "--resume", run.0.to_str().unwrap()]).set("--port", ["auto"]).flag("--keep-foreign");
    let ended = resumed.ends();
    ended.says(&server.uri());
    export(&scene, &run, &server).exits(0);
    let all = children(&server);
    assert_eq!(all.len(), 2);
    let steps: BTreeSet<usize> = all.values().map(|child| child.steps("output_throughput").len()).collect();
    assert_eq!(steps, BTreeSet::from([2]));
    assert_eq!(server.store().parent().unwrap().status, "FINISHED");
}

#[test]
fn who_signs_in_is_written_nowhere() {
    const TOKEN: &str = "tok-planted-0123456789";
    const PASSWORD: &str = "pw-planted-0123456789";
    let (scene, server) = (Scene::new(), Mlflow::start(Mood::Good));
    let with_user = format!("http://someone:{PASSWORD}@127.0.0.1:{}", server.port);
    let first = scene.sweep().set("--mlflow", [with_user.as_str()]).exits(0);
    let run = scene.run();
    let second = scene
        .call(&["export", "mlflow", run.0.to_str().unwrap()])
        .set("--mlflow", [server.uri().as_str()])
        .env("MLFLOW_TRACKING_TOKEN", TOKEN)
        .exits(0);
    let logins = server.store().logins.clone();
    assert!(logins.contains(&format!("Bearer {TOKEN}")), "{logins:?}");
    assert!(logins.iter().any(|login| login.starts_with("Basic ")), "{logins:?}");
    for path in files(scene.root()) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains(TOKEN) && !text.contains(PASSWORD), "{}", path.display());
    }
    for text in [first.stdout, first.stderr, second.stdout, second.stderr] {
        assert!(!text.contains(TOKEN) && !text.contains(PASSWORD), "{text}");
    }
    let store = server.store();
    let sent = store.runs.iter().flat_map(|run| run.params.values().chain(run.tags.values()));
    assert!(sent.clone().count() > 10 && sent.into_iter().all(|text| !text.contains("planted")));
    assert_eq!(run.json("manifest.json")["sweep"].to_string().matches("planted").count(), 0);
}

#[test]
fn a_variable_alone_sends_nothing_and_says_so() {
    let (scene, server) = (Scene::new(), Mlflow::start(Mood::Good));
    let uri = server.uri();
    scene.sweep().env("MLFLOW_TRACKING_URI", &uri).exits(0).says("nothing is sent there without `--mlflow`");
    assert!(server.store().asked.is_empty());
    scene
        .sweep()
        .env("MLFLOW_TRACKING_URI", &uri)
        .env("MLFLOW_EXPERIMENT_NAME", "mine")
        .flag("--mlflow")
        .exits(0)
        .says("experiment `mine`");
    assert_eq!(server.store().experiments, ["mine"]);
    let run = scene.runs().pop().unwrap();
    // The experiment in which it is, is known.
    scene.call(&["export", "mlflow", run.0.to_str().unwrap()]).exits(0).says("experiment `mine`");
    assert_eq!(server.store().experiments, ["mine"]);
}

#[test]
fn what_is_no_server_is_told_before_anything_begins() {
    let scene = Scene::new();
    for bad in ["file:///mlruns", "host:5000", "http://h?x=1"] {
        scene.sweep().set("--mlflow", [bad]).exits(2).says("the URI of an MLflow server");
    }
    scene.sweep().flag("--mlflow").exits(2).says("`MLFLOW_TRACKING_URI` is not set");
    scene
        .sweep()
        .flag("--mlflow")
        .env("MLFLOW_TRACKING_URI", "sqlite:///m.db")
        .exits(2)
        .says("not the URI of a tracking server");
    let sweep = file(&scene, TWENTY_SEVEN);
    scene.call(&["run", "--mlflow", sweep.to_str().unwrap()]).exits(2).says("write sweep files before the flags");
    assert!(scene.runs().is_empty());
    scene.call(&["export", "mlflow", "--results-dir", scene.results().to_str().unwrap()]).exits(3);
    scene.sweep().exits(0);
    let run = scene.run();
    let path = run.0.to_str().unwrap();
    scene.call(&["export", "mlflow", path]).exits(2).says("no MLflow server is named for ");
    scene.call(&["export", "mlflow", path, "--mlflow", "off"]).exits(2).says("expected the URI of an MLflow server");
    scene.call(&["export", "mlflow", path, "--dry-run", "--mlflow", "http://127.0.0.1:1"]).exits(4);
}

#[test]
fn the_result_of_a_load_is_a_run_of_its_own() {
    let (scene, server) = (Scene::new(), Mlflow::start(Mood::Good));
    scene.sweep().exits(0);
    let result = scene.path("load.json");
    fs::copy(scene.run().path(&format!("{FIRST}_results.json")), &result).unwrap();
    let call = || scene.call(&["export", "mlflow", result.to_str().unwrap(), "--mlflow", &server.uri()]);
    call().exits(0).says("1 of 1 measurement there");
    call().exits(0);
    let store = server.store();
    assert_eq!((store.runs.len(), store.refused.len()), (1, 0));
    assert_eq!(store.runs[0].steps("output_throughput").len(), 1);
    assert!(store.runs[0].artifacts.contains_key("load.json"));
}

#[test]
fn the_fake_refuses_what_mlflow_refuses() {
    let server = Mlflow::start(Mood::Good);
    let post = |call: &str, body: &Value| server.ask(&format!("POST /api/2.0/mlflow/{call}"), body);
    assert_eq!(post("experiments/create", &json!({"name": "x"})).0, 200);
    assert_eq!(post("experiments/create", &json!({"name": "x"})).1["error_code"], "RESOURCE_ALREADY_EXISTS");
    let run = post("runs/create", &json!({"experiment_id": "0", "start_time": 1, "run_name": "r"})).1;
    let id = run["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    let metrics = |n: usize, key: &str| -> Vec<Value> {
        (0..n).map(|step| json!({"key": key, "value": 1.0, "timestamp": 1, "step": step})).collect()
    };
    let pairs = |n: usize, value: &str| -> Vec<Value> {
        (0..n).map(|k| json!({"key": format!("k{k}"), "value": value})).collect()
    };
    let batch = |metrics: Vec<Value>, params: Vec<Value>, tags: Vec<Value>| {
        post("runs/log-batch", &json!({"run_id": id, "metrics": metrics, "params": params, "tags": tags})).0
    };
    assert_eq!(batch(metrics(800, "m"), pairs(100, "x"), pairs(100, "x")), 200);
    assert_eq!(batch(metrics(1001, "m"), vec![], vec![]), 400);
    assert_eq!(batch(metrics(900, "m"), pairs(100, "x"), pairs(1, "x")), 400);
    assert_eq!(batch(vec![], pairs(101, "x"), vec![]), 400);
    assert_eq!(batch(vec![], vec![], pairs(101, "x")), 400);
    assert_eq!(batch(vec![], pairs(1, "y"), vec![]), 400, "a param does not change");
    for name in ["../x", "a//b", "a%", "", &"x".repeat(251)] {
        assert_eq!(batch(metrics(1, name), vec![], vec![]), 400, "{name}");
    }
    assert_eq!(batch(vec![], vec![json!({"key": "long", "value": "x".repeat(6001)})], vec![]), 400);
    assert_eq!(batch(vec![json!({"key": "m", "value": null, "timestamp": 1, "step": 0})], vec![], vec![]), 400);
    assert_eq!(post("runs/log-batch", &json!({"run_id": "run9"})).0, 404);
    assert_eq!(post("runs/nonsense", &json!({})).0, 404);
    assert!(server.store().refused.len() >= 11);
}

#[test]
fn a_signal_ends_the_wait_for_a_slow_server() {
    let (scene, server) = (Scene::new(), Mlflow::start(Mood::Good));
    // It answers until the run is about to end, and then no more.
    let live = scene.sweep().set("--mlflow", [server.uri().as_str()]).start();
    crate::support::wait_for("the first answer", || (!server.store().runs.is_empty()).then_some(()));
    server.mood(Mood::Silent);
    crate::support::wait_for("the wait", || live.stderr().contains("for 30 s at most").then_some(()));
    live.signal(Signal::SIGINT);
    let ended = live.ends();
    ended.says("it was ended early");
}
