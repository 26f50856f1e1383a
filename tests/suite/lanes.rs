//! `--parallel`: several server configurations at once, each on devices of its own. What holds for one lane holds for each.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Call, Live, RunFiles, Scene};

/// Six experiments on 1 to 4 of four devices.
fn sweep(scene: &Scene) -> Call<'_> {
    scene
        .sweep()
        .set("--tp", ["1", "2", "4"])
        .set("--sim-devices", ["4"])
        .set("--parallel", ["4"])
        .set("--finalists", ["off"])
}

fn name(tp: u32, eager: bool) -> String {
    format!("org_tiny_tp{tp}_quant-none_eager-{eager}")
}

const ALL: [(u32, bool); 6] = [(1, true), (1, false), (2, true), (2, false), (4, true), (4, false)];

fn devices(event: &Value) -> Vec<String> {
    serde_json::from_value(event["placement"]["devices"].clone()).unwrap()
}

/// Looks along the journal: each attempt has as many devices as it needs, and no two at a time share one. Returns the most attempts
/// that were under way at once.
fn assert_disjoint(run: &RunFiles) -> usize {
    let mut taken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut most = 0;
    for event in run.journal() {
        let name = event["name"].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str().unwrap() {
            "run-started" => taken.clear(),
            "experiment-started" => {
                let devices = devices(&event);
                let tp: usize = name.split("_tp").nth(1).unwrap().split('_').next().unwrap().parse().unwrap();
                assert_eq!(devices.len(), tp, "{event}");
                taken.insert(name, devices);
                let all: Vec<&String> = taken.values().flatten().collect();
                assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{taken:?}");
                most = most.max(taken.len());
            }
            "experiment-finished" => {
                taken.remove(&name);
            }
            _ => {}
        }
    }
    most
}

fn resume<'s>(scene: &'s Scene, run: &RunFiles) -> Call<'s> {
    let results = scene.results();
    scene.call(&["run"]).set("--resume", [run.name().as_str()]).set("--results-dir", [results.to_str().unwrap()])
}

#[test]
fn several_run_at_once_on_devices_of_their_own_and_the_record_says_so() {
    let scene = Scene::new();
    sweep(&scene).exits(0).says("lanes: up to 4 server configurations at once on 4 devices; about 0.67 of the time");
    let run = scene.run();
    assert!(assert_disjoint(&run) > 1);
    let mut ports = BTreeSet::new();
    for (tp, eager) in ALL {
        run.assert_passed(&name(tp, eager));
        let ours = run.result(&name(tp, eager))["vllm_bench"].clone();
        assert_eq!(devices(&ours).len(), tp as usize, "{ours}");
        assert!(ours["placement"]["lane"].as_u64().is_some_and(|lane| (1..=4).contains(&lane)), "{ours}");
        assert!(ours["neighbours"].is_u64() && (tp < 4 || ours["neighbours"] == 0), "{ours}");
        ports.insert(ours["serve_command"].to_string());
    }
    assert_eq!(run.events("torn-down").len(), 6);
    assert!(run.events("torn-down").iter().all(|event| event["proof"]["group_empty"] == true));
    scene.call(&["analyze", run.path(".").to_str().unwrap(), "--format", "csv"]).exits(0).prints("neighbours,replaced");
    // Without lanes nothing is said of them.
    let scene = Scene::new();
    scene.sweep().exits(0);
    assert!(!scene.run().journal_text().contains("placement"));
}

#[test]
fn what_lanes_cannot_do_is_refused_before_anything_starts() {
    let scene = Scene::new();
    let refused = |call: Call<'_>, words: &[&str]| {
        let ended = call.exits(2);
        for words in words {
            ended.says(words);
        }
        assert!(scene.runs().is_empty());
    };
    let many = sweep(&scene).set("--tp", ["1", "8"]).flag("--no-preflight");
    refused(many, &["_tp8_", "needs 8 devices", "there are 4", "leave it out of the sweep"]);
    refused(sweep(&scene).set("--parallel", ["0"]), &["`off`, `auto`, or a number of lanes"]);
    refused(sweep(&scene).set("--parallel-threshold", ["-1"]), &["a part from 0 to 100 %"]);
    scene.sweep().exits(0);
    let first = scene.run().name();
    let against = scene.sweep().set("--against", [first.as_str()]).set("--parallel", ["2"]);
    against.exits(2).says("`--against` measures two sides in turn");
}

#[test]
fn a_port_is_the_first_of_those_that_lanes_try() {
    let scene = Scene::new();
    let port = crate::support::free_port();
    sweep(&scene).set("--port", [port.to_string().as_str()]).exits(0);
    let ports: BTreeSet<u64> =
        scene.run().events("server-launched").iter().map(|event| event["port"].as_u64().unwrap()).collect();
    assert!(ports.len() > 1 && ports.iter().all(|used| *used >= u64::from(port)), "{ports:?}");
}

#[test]
fn the_failure_of_one_lane_is_that_of_its_experiment_alone() {
    let scene = Scene::new();
    let ended = sweep(&scene).set("--tp", ["1", "2"]).fault("die-in-benchmark@tp=2").exits(1);
    let run = scene.run();
    for eager in [true, false] {
        run.assert_passed(&name(1, eager));
        assert_eq!(run.failure(&name(2, eager))["cause"], "server-died");
        assert_eq!(run.failure(&name(2, eager))["teardown"]["group_empty"], true);
    }
    ended.check(assert_disjoint(&run) > 1, "several at once");
}

#[test]
fn kill_9_of_an_engine_leaves_the_measurement_beside_it_as_it_is() {
    let scene = Scene::new();
    let mut live = sweep(&scene).set("--tp", ["1"]).fault("benchmark-hangs").set("--stall-timeout", ["0"]).start();
    for eager in [true, false] {
        live.event(&["benchmark-launched", &name(1, eager)]);
    }
    let servers = live.event(&["server-launched", &name(1, true)]);
    let victim = servers["process"]["pid"].as_i64().unwrap();
    kill(Pid::from_raw(victim.try_into().unwrap()), Signal::SIGKILL).unwrap();
    live.event(&["experiment-finished", &name(1, true)]);
    assert!(scene.run().outcomes(&name(1, false)).is_empty(), "the other one goes on");
    live.signal(Signal::SIGINT);
    live.ends().with_code(130);
    let run = scene.run();
    assert_eq!(run.failure(&name(1, true))["cause"], "server-died");
    assert_eq!(run.outcomes(&name(1, false)), [(1, "interrupted".to_owned())]);
}

/// Four experiments at once, none of whose first attempts ends by itself.
fn all_hang(scene: &Scene) -> Live<'_> {
    let call = sweep(scene).set("--tp", ["1", "2"]).set("--sim-devices", ["8"]).set("--stall-timeout", ["0"]);
    let mut live = call.fault("benchmark-hangs#1").start();
    for (tp, eager) in &ALL[..4] {
        live.event(&["benchmark-launched", &name(*tp, *eager)]);
    }
    live
}

#[test]
fn a_stop_drains_all_lanes_and_the_run_goes_on() {
    let scene = Scene::new();
    let live = all_hang(&scene);
    live.signal(Signal::SIGTERM);
    let ended = live.ends().with_code(143);
    let run = scene.run();
    let begun = run.events("experiment-started").len();
    ended.check(begun == run.events("experiment-finished").len(), "each that was begun has ended");
    ended.check(run.events("torn-down").iter().all(|event| event["proof"]["group_empty"] == true), "all are proven");
    resume(&scene, &run).exits(0);
    assert!(assert_disjoint(&run) > 1);
    ALL[..4].iter().for_each(|(tp, eager)| run.assert_passed(&name(*tp, *eager)));
}

#[test]
fn kill_9_of_the_run_leaves_nothing_and_it_resumes() {
    let scene = Scene::new();
    all_hang(&scene).kill();
    scene.wait_until_nothing_is_left();
    let run = scene.run();
    resume(&scene, &run).exits(0);
    ALL[..4].iter().for_each(|(tp, eager)| run.assert_passed(&name(*tp, *eager)));
    assert_disjoint(&run);
}

#[test]
fn starts_that_are_added_until_it_is_decided_run_at_once() {
    let scene = Scene::new();
    let call = sweep(&scene).set("--tp", ["1", "2"]).set("--starts", ["auto"]).set("--max-starts", ["4"]);
    call.exits(0).says("no further starts");
    assert!(assert_disjoint(&scene.run()) > 1);
}

/// Two configurations whose measurement takes long enough that neighbours meet.
fn checked(scene: &Scene) -> Call<'_> {
    sweep(scene)
        .set("--parallel", ["auto"])
        .set("--tp", ["2"])
        .set("--sim-speed", ["12"])
        .set("--num-prompts", ["4"])
        .set("--output-len", ["500"])
        .set("--sim-noise-within", ["0.1%"])
}

fn verdict(run: &RunFiles) -> Value {
    let found = run.events("neighbours-checked");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn lanes_that_disturb_each_other_no_more_than_the_threshold_are_used() {
    let scene = Scene::new();
    let ended = checked(&scene).exits(0);
    ended.says("neighbours cost 0.").says("within 2.0 %, so several run at once");
    let run = scene.run();
    let found = verdict(&run);
    assert_eq!((&found["within"], &found["lanes"]), (&true.into(), &2.into()), "{found}");
    assert!(found["pairs"].as_array().unwrap().len() >= 3, "{found}");
    assert_eq!(assert_disjoint(&run), 2);
    assert!(!run.path(".unchecked").exists() || run.path(".unchecked").read_dir().unwrap().next().is_none());
    // Nothing of the check is a result.
    scene.call(&["analyze", run.path(".").to_str().unwrap()]).exits(0);
    let status = scene.call(&["status", "--json"]).set("--results-dir", [scene.results().to_str().unwrap()]).exits(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["run"]["counts"]["planned"], 2);
    assert!(status["run"]["neighbours"].as_str().unwrap().contains("within"), "{status}");
}

#[test]
fn lanes_that_disturb_each_other_more_are_given_up() {
    let scene = Scene::new();
    let ended = checked(&scene).set("--sim-interference", ["10%"]).exits(0);
    ended.says("more than 2.0 %, so one runs at a time");
    let run = scene.run();
    let found = verdict(&run);
    let cost = found["cost"].as_f64().unwrap();
    assert!(found["within"] == false && (0.03..0.11).contains(&cost), "{found}");
    assert!(!run.journal_text().contains("placement"));
    for eager in [true, false] {
        run.assert_passed(&name(2, eager));
        assert!(run.result(&name(2, eager))["vllm_bench"]["neighbours"].is_null());
    }
    // Who allows as much has them.
    let scene = Scene::new();
    let allowed = checked(&scene).set("--sim-interference", ["10%"]).set("--parallel-threshold", ["25%"]).exits(0);
    allowed.says("within 25.0 %");
    assert_eq!(assert_disjoint(&scene.run()), 2);
}

#[test]
fn a_limit_that_only_neighbours_break_excludes_nobody() {
    // A fixed rate: neighbours cost hardly any throughput, and each token takes a fifth longer.
    let scene = Scene::new();
    let text = "serve: {model: org/tiny, tensor-parallel-size: [1, 2], max-num-seqs: [16]}\n\
                bench: {request-rate: 2, burstiness: 10000, num-prompts: 40, random-input-len: 64, random-output-len: 64, ignore-eos: true}\n\
                slo: 'tpot.mean<1000'\n";
    std::fs::write(scene.path("rate.yaml"), text).unwrap();
    let call = scene.sweep_of(&scene.path("rate.yaml"));
    let call = call.set("--sim-devices", ["4"]).set("--parallel", ["auto"]).set("--sim-interference", ["20%"]);
    call.set("--sim-noise-within", ["0.1%"]).set("--sim-speed", ["50"]).exits(0);
    let found = verdict(&scene.run());
    assert_eq!((&found["metric"], &found["within"]), (&"mean_tpot_ms".into(), &false.into()), "{found}");
}

#[test]
fn prompts_of_many_lengths_do_not_hide_that_neighbours_cost_nothing() {
    let scene = Scene::new();
    checked(&scene).also("--bench-arg", "random-range-ratio=0.5").set("--sim-interference", ["0"]).exits(0);
    let found = verdict(&scene.run());
    assert_eq!(found["within"], true, "{found}");
}

#[test]
fn a_check_that_was_killed_is_made_anew_and_one_that_was_made_counts_for_a_resume() {
    let scene = Scene::new();
    let mut live = checked(&scene).start();
    live.event(&["benchmark-launched", "neighbour-check_lane"]);
    live.kill();
    scene.wait_until_nothing_is_left();
    let run = scene.run();
    let mut live = resume(&scene, &run).start();
    live.event(&["neighbours-checked"]);
    live.event(&["benchmark-launched", "org_tiny"]);
    live.kill();
    scene.wait_until_nothing_is_left();
    resume(&scene, &run).exits(0).says("an earlier session measured what neighbours cost");
    assert_eq!(run.events("neighbours-checked").len(), 1);
    [true, false].iter().for_each(|eager| run.assert_passed(&name(2, *eager)));
}

#[test]
fn a_check_that_cannot_be_made_gives_lanes_up() {
    let scene = Scene::new();
    let ended = checked(&scene).fault("out-of-memory").exits(1);
    ended.says("could not be measured").says("one at a time");
    assert!(!scene.run().journal_text().contains("placement"));
}

/// The experiments of the manifest that are measured again alone.
fn again(run: &RunFiles) -> Vec<String> {
    let plan = run.json("manifest.json")["plan"]["experiments"].clone();
    let alone = plan.as_array().unwrap().iter().filter(|experiment| experiment["alone"] == true);
    alone.map(|experiment| experiment["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_best_are_measured_again_alone_and_count_in_the_place_of_what_had_neighbours() {
    let scene = Scene::new();
    let call = sweep(&scene).set("--tp", ["1", "2"]).set("--finalists", ["alone"]);
    call.exits(0).says("what may be the best is measured again alone");
    let run = scene.run();
    let again = again(&run);
    assert!(!again.is_empty(), "nothing was measured again");
    for name in &again {
        let result = run.result(name);
        assert_eq!(result["vllm_bench"]["neighbours"], 0, "{result}");
        run.assert_passed(name);
    }
    let analysis = scene.call(&["analyze", run.path(".").to_str().unwrap(), "--format", "json"]).exits(0);
    let analysis: Value = serde_json::from_str(&analysis.stdout).unwrap();
    let rows = analysis["rows"].as_array().unwrap();
    let replaced = rows.iter().filter(|row| row["replaced"] == true).count();
    assert_eq!(replaced, again.len(), "each replaces one");
    let best = analysis["ranking"].to_string();
    assert!(again.iter().any(|name| best.contains(name.as_str())), "{best}");
    // Nothing is left to do, and a damaged resume adds nothing.
    resume(&scene, &run).exits(3).says("has a valid result already");
    assert_eq!(self::again(&run), again);
}

/// Three configurations, two of which run beside each other; the third, a little slower, runs last and has no neighbour.
fn uneven(scene: &Scene) -> Call<'_> {
    let text = "serve: {model: org/tiny, max-num-seqs: [16, 15, 14]}\nbench: {num-prompts: 64, max-concurrency: 16, random-output-len: 40}\n";
    std::fs::write(scene.path("uneven.yaml"), text).unwrap();
    scene
        .sweep_of(&scene.path("uneven.yaml"))
        .set("--sim-devices", ["2"])
        .set("--parallel", ["2"])
        .set("--sim-interference", ["30%"])
        .set("--sim-noise", ["0.1%"])
        .set("--sim-speed", ["50"])
}

fn chosen(scene: &Scene, run: &RunFiles) -> Value {
    let told = scene.call(&["recommend", run.path(".").to_str().unwrap(), "--format", "json"]).exits(0);
    serde_json::from_str::<Value>(&told.stdout).unwrap()["answers"][0].clone()
}

#[test]
fn one_that_had_no_neighbour_does_not_win_by_that() {
    let scene = Scene::new();
    uneven(&scene).set("--finalists", ["off"]).exits(0);
    let run = scene.run();
    let found = chosen(&scene, &run);
    assert!(found["beside_others"]["cost"].is_null(), "{found}");
    assert!(found["sentences"].to_string().contains("what that costs is not known"), "{found}");
    // A later session has no lanes, and measures what may be the best.
    resume(&scene, &run).set("--finalists", ["alone"]).set("--parallel", ["off"]).exits(0);
    let found = chosen(&scene, &run);
    assert!(found["choice"]["name"].as_str().unwrap().contains("mns-16"), "{found}");
    assert_eq!(found["choice"]["neighbours"], 0, "{found}");
}

#[test]
fn a_run_that_was_killed_among_its_finalists_goes_on_with_them() {
    let scene = Scene::new();
    let call = sweep(&scene).set("--tp", ["1"]).set("--finalists", ["alone"]);
    let mut live = call.set("--sim-speed", ["40"]).set("--output-len", ["200"]).start();
    live.event(&["experiments-planned"]);
    live.event(&["server-launched", "_start101"]);
    live.kill();
    scene.wait_until_nothing_is_left();
    let run = scene.run();
    let before = again(&run);
    assert!(!before.is_empty());
    resume(&scene, &run).exits(0);
    assert!(again(&run).starts_with(&before));
    again(&run).iter().for_each(|name| run.assert_passed(name));
}
