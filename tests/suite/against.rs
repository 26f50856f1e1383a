//! `run --against RUN`: before and after, measured in turn in one run.

use serde_json::Value;

use crate::support::{Call, RunFiles, Scene};

/// A scene with a run called `base` of two configurations.
fn measured() -> Scene {
    let scene = Scene::new();
    base(&scene).exits(0);
    scene
}

fn base(scene: &Scene) -> Call<'_> {
    // Noise far below the change that matters: nothing is called by chance.
    scene.sweep().set("--sim-noise", ["0.1%"]).set("--name", ["base"])
}

/// `run --against base`, which brings the settings of that run with it.
fn against<'s>(scene: &'s Scene) -> Call<'s> {
    scene
        .call(&["run"])
        .set("--against", ["base"])
        .set("--results-dir", [scene.results().to_str().unwrap()])
        .set("--engine", ["sim"])
}

fn newest(scene: &Scene) -> RunFiles {
    scene.runs().pop().unwrap()
}

/// Sides in the order in which they were started: `ABBA…`.
fn order(run: &RunFiles) -> String {
    let side = |event: Value| if event["name"].as_str().unwrap().starts_with("before_") { 'A' } else { 'B' };
    run.events("server-launched").into_iter().map(side).collect()
}

#[test]
fn the_same_settings_are_started_in_turn_and_nothing_is_called_worse() {
    let scene = measured();
    let ended = against(&scene).exits(0);
    ended.prints("(before) -> ").prints("Both were started in turn in one run");
    let run = newest(&scene);
    assert_eq!(order(&run), "ABABBABAABABBABA", "two configurations, four starts of each side");
    let names: Vec<String> =
        run.events("experiment-finished").iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect();
    names.iter().for_each(|name| run.assert_passed(name));
    // Each side varies by itself.
    let value = |name: &str| run.result(name)["output_throughput"].as_f64().unwrap();
    let after = names.iter().find(|name| !name.starts_with("before_")).unwrap();
    let apart = value(after) / value(&format!("before_{after}")) - 1.0;
    assert!(apart.abs() > 1e-9, "{apart}");
    // The answer is of what is asked for now, and the comparison is there again.
    let said = scene.call(&["recommend", run.path(".").to_str().unwrap(), "--format", "json"]).exits(0);
    assert!(!said.stdout.contains("before_"), "{}", said.stdout);
    let said = scene.call(&["compare", run.path(".").to_str().unwrap(), "--json"]).exits(0);
    let said: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&said["simulated"], said["outcome"] == "worse"), (&Value::Bool(true), false), "{said:#}");
}

#[test]
fn another_flag_is_measured_beside_what_was_and_worse_is_exit_1() {
    let scene = measured();
    let ended = against(&scene).set("--serve-arg", ["max-num-seqs=1"]).exits(1);
    ended.prints("WORSE: ").prints("max-num-seqs differs: `not set` before, `1` now");
    let run = newest(&scene);
    scene.call(&["compare", run.path(".").to_str().unwrap()]).exits(1).prints("WORSE: ");
    let extend = scene.sweep().set("--tp", ["2"]).set("--extend", [run.name().as_str()]);
    extend.exits(2).says("cannot be extended: it measures two sides in turn");
}

#[test]
fn an_interrupted_comparison_goes_on() {
    let scene = measured();
    let mut live = against(&scene).start();
    live.event(&["experiment-finished", "_start2"]);
    live.signal(nix::sys::signal::Signal::SIGUSR1);
    live.ends().with_code(128 + 10);
    let results = scene.results();
    let resumed = scene.call(&["run", "--resume", &newest(&scene).name()]);
    resumed.set("--results-dir", [results.to_str().unwrap()]).exits(0).prints("(before) -> ");
    assert_eq!(order(&newest(&scene)).len(), 16);
}

#[test]
fn what_cannot_be_measured_again_is_refused_before_anything_starts() {
    let scene = measured();
    let words = |call: Call<'_>, words: &str| {
        call.exits(2).says(words);
    };
    words(against(&scene).set("--tp", ["1", "2"]), "another number of server starts");
    words(against(&scene).set("--starts", ["2"]), "2 starts of each side decide nothing");
    words(against(&scene).set("--starts", ["auto"]), "starts both sides in turn");
    words(against(&scene).set("--noise-check", ["3"]), "cannot be used with");
    against(&scene).set("--against", ["nobody"]).exits(3).says("nobody");
    let file = scene.results().join(scene.runs()[0].name()).join("manifest.json");
    let edited = std::fs::read_to_string(&file).unwrap().replace("\"num-prompts\": \"4\"", "\"num-prompts\": \"9\"");
    std::fs::write(&file, edited).unwrap();
    assert!(matches!(against(&scene).ends().status.code(), Some(2 | 5)), "a manifest that was edited is refused");
    assert_eq!(scene.runs().len(), 1);
    scene.call(&["compare", scene.runs()[0].path(".").to_str().unwrap()]).exits(2).says("has one side alone");
}

#[test]
fn what_shows_a_sweep_alone_refuses_other_runs() {
    let scene = Scene::new();
    for command in [&["plan"][..], &["config", "show"]] {
        for (flag, value) in [("--against", "base"), ("--extend", "base"), ("--noise-check", "3"), ("--resume", "base")]
        {
            let ended = scene.call(command).set("--engine", ["sim"]).set(flag, [value]).exits(2);
            ended.says(&format!("`{flag}` has no effect with `{}`", command.join(" "))).says("run --dry-run");
        }
    }
}
