//! Names of runs: given once, kept in the manifest, and taken wherever a run is asked for.

use clap::CommandFactory;
use serde_json::Value;

use crate::support::{Call, Scene};

/// The commands that take a run, as clap knows them: (command, flag or nothing).
fn takers() -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for command in vllm_bench::cli::Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        for arg in command.get_arguments() {
            let names = arg.get_value_names().unwrap_or_default();
            if names.iter().any(|name| ["RUN", "BEFORE", "AFTER"].contains(&name.as_str())) {
                found.push((command.get_name().to_owned(), arg.get_long().map(str::to_owned)));
            }
        }
    }
    found
}

impl Scene {
    /// A command over the results of this scene.
    fn over(&self, words: &[&str]) -> Call<'_> {
        self.call(words).set("--results-dir", [self.results().to_str().unwrap()])
    }
}

#[test]
fn a_named_run_is_found_by_its_name_by_every_command() {
    let scene = Scene::new();
    scene.sweep().set("--name", ["baseline"]).exits(0);
    let manifest = scene.run().json("manifest.json");
    assert_eq!(manifest["name"], "baseline");
    let stamp = manifest["run"].as_str().unwrap().to_owned();
    assert!(stamp.len() >= 13 && stamp != "baseline", "the directory keeps its stamp: {stamp}");

    let mut called = Vec::new();
    let mut call = |words: &[&str], flag: Option<&str>, code: i32, says: &str| {
        let ended = scene.over(words).exits(code);
        ended.check(format!("{}{}", ended.stdout, ended.stderr).contains(says), says);
        called.push((words[0].to_owned(), flag.map(str::to_owned)));
    };
    for name in ["baseline", "latest"] {
        call(&["status", name], None, 0, "(baseline)");
        call(&["stop", name], None, 3, "is not live");
        call(&["logs", "1", "--no-follow", "--run", name], Some("run"), 0, "Serving Benchmark Result");
        call(&["analyze", name], None, 0, &format!("baseline ({stamp})"));
        call(&["recommend", name], None, 0, "Use");
        call(&["report", name], None, 0, "report.html");
        call(&["plot", "ranking", name], None, 0, "");
        call(&["compare", name, "baseline"], None, 0, &format!("baseline ({stamp})"));
        call(&["compare", name, name, "--noise", name], Some("noise"), 3, "says nothing of noise");
        call(&["backup", name], None, 0, "verified");
        call(&["run", "--resume", name], Some("resume"), 3, "has a valid result already");
        let extended = scene.sweep().set("--extend", [name]).exits(3);
        extended.check(extended.stderr.contains("has every experiment of this sweep already"), "the run was found");
        let against = scene.over(&["run", "--starts", "2", "--engine", "sim"]).set("--against", [name]).exits(2);
        against.check(against.stderr.contains("decide nothing"), "the run was found");
    }
    call(&["clean", "baseline", "--yes"], None, 0, "removed 1 run");
    called.extend(["extend", "against"].map(|flag| ("run".to_owned(), Some(flag.to_owned()))));
    // They read the same flags.
    let like_run = ["sanity", "plan"].map(str::to_owned);
    for taker in takers().into_iter().filter(|(command, _)| !like_run.contains(command)) {
        assert!(called.contains(&taker), "{taker:?} takes a run: try it with a name here");
    }
    assert!(scene.runs().is_empty());
}

#[test]
fn a_name_is_given_once_and_the_way_out_is_told() {
    let scene = Scene::new();
    scene.sweep().set("--name", ["baseline"]).exits(0);
    let again = scene.sweep().set("--name", ["baseline"]).exits(2);
    let stamp = scene.run().json("manifest.json")["run"].as_str().unwrap().to_owned();
    for words in ["the name `baseline` is taken", &stamp, "--name", "vllm-bench run --resume baseline"] {
        again.check(again.stderr.contains(words), words);
    }
    let unknown = scene.over(&["status", "baselin"]).exits(3);
    unknown.check(unknown.stderr.contains("there is: baseline"), "the near name is told");
    for name in ["latest", "20260225_1430", "a/b", "", "--x"] {
        let refused = scene.sweep().set(&format!("--name={name}"), []).exits(2);
        refused.check(refused.stderr.contains("`--name`"), "the flag is named");
    }
    assert_eq!(scene.runs().len(), 1, "nothing else was begun");
}

#[test]
fn a_near_name_is_told_wherever_a_run_is_asked_for() {
    let scene = Scene::new();
    scene.sweep().set("--name", ["first"]).exits(0);
    for command in ["analyze", "recommend", "report"] {
        scene.over(&[command, "frst"]).exits(3).says("did you mean the run `first`?");
    }
    for words in [&["status", "frst"][..], &["logs", "--run", "frst"], &["logs", "frst"]] {
        scene.over(words).exits(3).says("there is: first");
    }
    // A word that is no experiment names a run, as everywhere.
    let stamp = scene.run().name();
    for name in ["first", "latest", &stamp, scene.run().0.to_str().unwrap()] {
        scene.over(&["logs", name, "--no-follow"]).exits(0).prints("Serving Benchmark Result");
    }
    scene.over(&["logs", "1", "--server", "--no-follow"]).exits(0);
    scene.over(&["logs", "nothing-like-it"]).exits(3).says("experiment or run `nothing-like-it` was not found");
}

#[test]
fn a_run_that_goes_on_keeps_its_name_and_one_without_gets_one() {
    let scene = Scene::new();
    let fault = "out-of-memory@eager=false#1";
    scene.sweep().set("--sim-fault", [fault]).set("--name", ["first"]).exits(1);
    let refused = scene.over(&["run", "--resume", "first", "--name", "second"]).exits(2);
    refused.check(refused.stderr.contains("a run keeps its name"), "it says why");
    scene.over(&["run", "--resume", "first"]).exits(0);
    assert_eq!(scene.run().json("manifest.json")["name"], "first");

    let other = Scene::new();
    other.sweep().set("--sim-fault", [fault]).exits(1);
    other.over(&["run", "--resume", "--name", "later"]).exits(0);
    assert_eq!(other.run().json("manifest.json")["name"], "later");
    let listed = other.over(&["list", "--json"]).exits(0).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["runs"][0]["name"], "later");
}

#[test]
fn the_list_has_every_run_and_names_what_is_damaged() {
    let scene = Scene::new();
    let nothing = scene.over(&["list"]).exits(3);
    nothing.check(nothing.stderr.contains("there is no run in"), "it says where it looked");
    scene.sweep().set("--name", ["baseline"]).exits(0);
    let text = scene.over(&["list"]).exits(0).stdout;
    for words in ["baseline", "finished (sim)", "2 of 2", "org/tiny", "eager false"] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    let whole = scene.over(&["list", "--json"]).exits(0).stdout;
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let run = &whole["runs"][0];
    assert_eq!((&run["state"], &run["passed"], &run["simulated"]), (&"finished".into(), &2.into(), &true.into()));
    assert_eq!(run["recommends"].as_array().unwrap().len(), 1);

    std::fs::write(scene.run().path("manifest.json"), "{").unwrap();
    let damaged = scene.over(&["list"]).exits(5);
    damaged
        .check(damaged.stdout.contains("damaged") && damaged.stderr.contains("manifest.json"), "a row and a warning");
}

#[test]
fn a_sweep_file_and_a_variable_name_a_run_too() {
    let scene = Scene::new();
    let file = scene.path("sweep.yaml");
    std::fs::write(
        &file,
        "name: of the file\nserve: {model: org/tiny, enforce-eager: true}\nbench: {num-prompts: 4, random-input-len: 8, random-output-len: 8}\n",
    )
    .unwrap();
    scene.sweep_of(&file).exits(0);
    scene.sweep_of(&file).env("VLLM_BENCH_NAME", "of the variable").exits(0);
    let mut names: Vec<String> =
        scene.runs().iter().map(|run| run.json("manifest.json")["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["of the file", "of the variable"]);
}
