//! `repeats: {starts: auto}`: starts are added to what may be the best, until it is decided.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Call, RunFiles, Scene};

/// Three configurations that do the same, and one that is slower by much.
const SWEEP: &str = "
serve:
  model: a/model
  enforce-eager: true
  tensor-parallel-size: [1, 2]
  max-num-seqs: [64, 65, 66]
exclude: [{when: {tensor-parallel-size: 2, max-num-seqs: [65, 66]}}]
bench: {dataset-name: random, random-input-len: 8, random-output-len: 8, num-prompts: 4, max-concurrency: 2, ignore-eos: true}
repeats: {starts: auto, max: 5}
";

fn scene() -> Scene {
    let scene = Scene::new();
    fs::write(scene.path("sweep.yaml"), SWEEP).unwrap();
    scene
}

/// Names that were asked for, in order, and how many each time.
fn planned(run: &RunFiles) -> (Vec<String>, Vec<usize>) {
    let events = run.events("experiments-planned");
    let names = |event: &Value| -> Vec<String> { serde_json::from_value(event["names"].clone()).unwrap() };
    (events.iter().flat_map(names).collect(), events.iter().map(|event| names(event).len()).collect())
}

fn measured(run: &RunFiles) -> BTreeSet<String> {
    run.events("experiment-finished").iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect()
}

const NOTHING: i32 = 3;

fn resume<'s>(scene: &'s Scene, run: &RunFiles) -> Call<'s> {
    let results = scene.results();
    scene.call(&["run"]).set("--resume", [run.name().as_str()]).set("--results-dir", [results.to_str().unwrap()])
}

/// What is asked for is measured and nothing else, no configuration twice at the same start, the slow one three times.
fn assert_whole(run: &RunFiles) {
    let (names, rounds) = planned(run);
    assert_eq!(rounds[0], 12, "three starts of four configurations: {rounds:?}");
    assert!(rounds[1..].iter().all(|round| (2..=4).contains(round)), "{rounds:?}");
    assert!(rounds.len() <= 3, "at most five starts: {rounds:?}");
    assert_eq!(names.iter().cloned().collect::<BTreeSet<_>>(), measured(run));
    assert_eq!(names.len(), measured(run).len());
    names.iter().for_each(|name| run.assert_passed(name));
    let last = run.events("notice").last().unwrap()["text"].as_str().unwrap().to_owned();
    assert!(last.starts_with("no further starts: "), "{last}");
}

#[test]
fn starts_are_added_to_what_may_be_the_best() {
    let scene = scene();
    let ended = scene.sweep_of(&scene.path("sweep.yaml")).exits(0);
    ended.says("planned: 12 experiments: 3 starts of each configuration come first");
    let run = scene.run();
    assert_whole(&run);
    let (names, _) = planned(&run);
    let slow = names.iter().filter(|name| name.contains("_tp2_")).count();
    assert!((3..=5).contains(&slow), "{slow}");
    // A plan that measures all of it would measure what was never asked for.
    let extend = scene.sweep_of(&scene.path("sweep.yaml")).set("--extend", [run.name().as_str()]);
    extend.set("--starts", ["2"]).exits(2).says("cannot be extended").says("do not add starts in the same way");
    // What was not asked for is nowhere missing.
    let status = scene.call(&["status", "--json"]).set("--results-dir", [scene.results().to_str().unwrap()]).exits(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let counts = &status["run"]["counts"];
    assert_eq!((&counts["planned"], &counts["to_do"]), (&names.len().into(), &0.into()), "{status:#}");
    scene.call(&["analyze", run.path(".").to_str().unwrap()]).exits(0);
    resume(&scene, &run).exits(NOTHING).says("has a valid result already");
}

#[test]
fn a_resume_goes_on_with_what_was_asked_for() {
    let scene = scene();
    let mut live = scene.sweep_of(&scene.path("sweep.yaml")).start();
    live.event(&["experiment-started", "_start2"]);
    live.signal(Signal::SIGUSR1);
    live.ends().with_code(128 + 10);
    let run = scene.run();
    let before = planned(&run).0;
    resume(&scene, &run).exits(0);
    let run = scene.run();
    assert_whole(&run);
    assert_eq!(planned(&run).0[..before.len()], before[..]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let scene = scene();
    let call = |flag, value| scene.sweep_of(&scene.path("sweep.yaml")).set(flag, [value]).exits(2);
    call("--order", "grouped").says("no grouped order");
    call("--max-starts", "2").says("expected a whole number from 3 to 100");
    call("--starts", "many").says("or `auto`");
    assert!(scene.runs().is_empty());
    let plan = scene.call(&["plan", scene.path("sweep.yaml").to_str().unwrap(), "--engine", "sim"]).exits(0);
    plan.prints("at most 20 experiments").prints("4 settings x 3 to 5 fresh starts, until it is decided");
    let one = scene.sweep().set("--max-starts", ["4"]).set("--dry-run", []);
    one.exits(0).says("`--max-starts`: the most starts have no effect without `starts: auto`");
    fs::write(scene.path("few.yaml"), SWEEP.replace("auto, max: 5", "2, max: 5")).unwrap();
    let few = scene.call(&["plan", scene.path("few.yaml").to_str().unwrap(), "--engine", "sim"]).exits(0);
    few.says("few.yaml:9:").says("have no effect without `starts: auto`");
    fs::write(scene.path("few.yaml"), SWEEP.replace("max: 5", "max: 2")).unwrap();
    let few = scene.call(&["plan", scene.path("few.yaml").to_str().unwrap(), "--engine", "sim"]).exits(2);
    few.says("expected a whole number from 3 to 100").says("write `max: 3`");
}
