//! What the command line says: help, refusals with their next step, exit codes, colour, quiet.
//!
//! The texts are snapshots (`snapshots`): a change of wording shows up in review.

use std::fmt::Write as _;
use std::fs;

use clap::CommandFactory;

use crate::support::{Scene, files};

/// Every command that help shows, as words: `prompts inspect` too.
fn all_commands() -> Vec<Vec<String>> {
    fn below(command: &clap::Command, before: &[String], found: &mut Vec<Vec<String>>) {
        for one in command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help") {
            let words = [before, &[one.get_name().to_owned()]].concat();
            found.push(words.clone());
            below(one, &words, found);
        }
    }
    let mut found = Vec::new();
    below(&vllm_bench::cli::Cli::command(), &[], &mut found);
    found
}

/// Takes out of a text what differs from run to run.
fn steady(text: &str, scene: &Scene) -> String {
    let text = text.replace(&scene.root().display().to_string(), "[SCENE]");
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_help_of_every_command() {
    let scene = Scene::new();
    let mut text = String::new();
    for words in std::iter::once(Vec::new()).chain(all_commands()) {
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = scene.call(&words).exits(0);
        help.check(help.stderr.is_empty(), "help goes to stdout");
        let _ = writeln!(text, "$ vllm-bench {}\n{}\n", words.join(" "), steady(&help.stdout, &scene));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_help_lists_every_command_and_hides_our_own() {
    let scene = Scene::new();
    let help = scene.call(&["--help"]).exits(0).stdout;
    for words in all_commands().iter().filter(|words| words.len() == 1) {
        assert!(help.contains(&format!("\n  {} ", words[0])), "{words:?} is missing:\n{help}");
    }
    assert!(!help.contains("sim-vllm") && !help.contains("__guard"), "{help}");
}

/// Every refusal, as shown: what is wrong, where it stands, what to do.
#[test]
fn refusals() {
    const CASES: &[&[&str]] = &[
        // clap's own
        &[],
        &["rum"],
        &["run", "--modles", "x"],
        &["run", "--fresh", "--resume"],
        &["run", "--detach", "--dry-run"],
        &["run", "--tp"],
        &["status", "--watch", "--json"],
        &["completions", "tcsh"],
        &["--color", "sometimes", "check"],
        &["diagnose"],
        // the grid
        &["run", "--tp", "0"],
        &["run", "--tp", "two"],
        &["run", "--tp", "2,-4"],
        &["run", "--tp", ""],
        &["run", "--models", ""],
        &["run", "--models", "  "],
        &["run", "--models", "a\nb"],
        &["run", "--quantization", "off"],
        &["run", "--quantization", "fp8;rm"],
        &["run", "--enforce-eager", "maybe"],
        &["run", "--quantization", "fp8", "--enforce-eager", "false"],
        // the load
        &["run", "--input-len", "-1"],
        &["run", "--num-prompts", "0"],
        &["run", "--concurrency", "1.5"],
        &["run", "--bench-arg=num-prompts=4"],
        &["run", "--bench-arg==4"],
        &["run", "--bench-arg=no:nonsense"],
        // the server
        &["run", "--max-model-len", "10k"],
        &["run", "--port", "0"],
        &["run", "--port", "70000"],
        &["run", "--port", "any"],
        &["run", "--serve-arg=tp=4"],
        &["run", "--serve-arg=api-key=x"],
        &["run", "--serve-arg=hf-token=x"],
        &["run", "--serve-arg=a$(b)=c"],
        &["run", "--env", "NAME"],
        &["run", "--env", "1A=b"],
        &["run", "--vllm-bin", ""],
        // the limits
        &["run", "--timeout-startup", "0"],
        &["run", "--timeout-startup", "5 minutes"],
        &["run", "--timeout-benchmark", "-3"],
        &["run", "--grace", "inf"],
        // the run
        &["run", "--timezone", "Mars/Olympus"],
        &["run", "--results-dir", ""],
        &["run", "--name", "latest"],
        &["run", "--name", "a/b"],
        &["run", "--name", "20260225_1430"],
        &["run", "--dry-run", "nonsense"],
        &["run", "--dry-run", "99"],
        &["run", "--dry-run", "1", "2"],
        &["run", "--dry-run", "absent.yaml"],
        // the simulated vLLM
        &["run", "--engine", "trtllm"],
        &["run", "--engine", "sim", "--sim-fault", "out-off-memory"],
        &["run", "--engine", "sim", "--sim-fault", "exit-at-start:x"],
        &["run", "--engine", "sim", "--sim-fault", "network@tp"],
        &["run", "--engine", "sim", "--sim-fault", "network#0"],
        &["run", "--engine", "sim", "--sim-speed", "0"],
        &["run", "--engine", "sim", "--sim-devices", "none"],
        &["run", "--engine", "sim", "--sim-device-memory", "-3"],
        // other commands
        &["diagnose", "nothing-here.log"],
        &["diagnose", "."],
        // With a results directory: without one these commands find live runs wherever they are.
        &["analyze", "--results-dir", "nothing-here"],
        &["analyze", "nothing-here", "--results-dir", "nothing-here"],
        &["backup", "--results-dir", "nothing-here"],
        &["logs", "--no-follow", "--results-dir", "nothing-here"],
        &["clean", "--yes", "--results-dir", "nothing-here"],
        &["compare", "a", "b", "--results-dir", "nothing-here"],
        // words that are nearly right, closed sets, places that cannot be written
        &["run", "--num-prompts", "99999999999999999999999"],
        &["run", "--order", "groupd"],
        &["run", "--engine", "sim", "--models", "m", "--results-dir", "/proc/x"],
        &["analyze", "--format", "xls"],
        &["analyze", "--slo", "ttft.p9<5"],
        &["analyze", "--slo", "tttft.p99<5"],
        &["compare", "a", "b", "--format", "jsn"],
        &["recommend", "--objective", "thruput"],
        &["plot", "pareto", "-o", "x.pdf"],
        &["plot", "heatmap", "--over", "bests"],
        &["plot", "paretto"],
    ];
    let scene = Scene::new();
    let mut text = String::new();
    for words in CASES {
        let refused = scene.call(words).ends();
        let code = refused.status.code().unwrap();
        refused.check(code != 0 && code != 70, "a refusal has a code of its own");
        refused.check(!refused.stderr.contains("panicked"), "no panic");
        let shown = shlex::try_join(words.iter().copied()).unwrap().replace('\n', "\\n");
        let _ = writeln!(text, "$ vllm-bench {shown}");
        let _ = writeln!(text, "{}", steady(&refused.stderr, &scene));
        refused.check(refused.stdout.is_empty(), "talk goes to stderr");
        let _ = writeln!(text, "-> exit code {code}\n");
    }
    insta::assert_snapshot!(text);
    let made: Vec<_> = files(scene.root()).into_iter().filter(|path| !path.starts_with(scene.path("calls"))).collect();
    assert!(made.is_empty(), "nothing was started, nothing made: {made:?}");
}

#[test]
fn refusals_of_environment_variables_name_the_variable() {
    let scene = Scene::new();
    for (name, value) in [
        ("VLLM_BENCH_TP", "x"),
        ("VLLM_BENCH_PORT", "70000"),
        ("VLLM_BENCH_TIMEOUT_STARTUP", "soon"),
        ("VLLM_BENCH_ENGINE", "trtllm"),
        ("VLLM_BENCH_QUANTIZATION", "off"),
    ] {
        scene.call(&["run", "--dry-run"]).env(name, value).exits(2).says(&format!("the environment variable `{name}`"));
    }
    let warned = scene.call(&["run", "--dry-run"]).env("VLLM_BENCH_MODLES", "x").exits(0);
    warned.says("warning: the environment variable `VLLM_BENCH_MODLES` is no setting of vllm-bench");
}

#[test]
fn a_sweep_file_is_never_taken_for_a_value_of_a_flag() {
    let scene = Scene::new();
    fs::write(scene.path("s.yaml"), "serve: {model: m}\n").unwrap();
    for [flag, value] in [["--models", "my/8B"], ["--quantization", "none"]] {
        let refused = scene.call(&["run", flag, value, "s.yaml"]).exits(2);
        refused.says(flag).says("`s.yaml` is a file").says("write sweep files before the flags");
    }
    scene.call(&["run", "--dry-run", "s.yaml"]).exits(2).says("`s.yaml` is a file");
}

#[test]
fn a_vllm_that_is_not_there_is_exit_code_4() {
    let scene = Scene::new();
    let missing = scene.sweep_with(&scene.path("nowhere/vllm")).exits(4);
    missing.says("is not a program that can be run").says("hint: ");
    let none = scene.sweep().set("--engine", ["vllm"]).without("--sim-speed");
    // A PATH with a shell and nothing else.
    fs::create_dir(scene.path("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/bash", scene.path("bin/bash")).unwrap();
    let none = none.env("PATH", scene.path("bin").to_str().unwrap()).ends();
    none.check(none.status.code() == Some(4), "no vllm on PATH");
    none.says("`vllm` was not found on PATH").says("--engine sim");
}

#[test]
fn colour_is_for_terminals_unless_asked_for() {
    let scene = Scene::new();
    let sweep = || scene.sweep().set("--enforce-eager", ["true"]);
    let plain = sweep().exits(0);
    plain.check(!plain.stderr.contains('\u{1b}') && !plain.stdout.contains('\u{1b}'), "no colour in a pipe");
    let always = sweep().set("--color", ["always"]).exits(0);
    always.check(always.stderr.contains('\u{1b}'), "colour when asked for");
    let never = sweep().set("--color", ["never"]).exits(0);
    never.check(!never.stderr.contains('\u{1b}'), "none when not wanted");
    let no_color = sweep().env("NO_COLOR", "1").exits(0);
    no_color.check(!no_color.stderr.contains('\u{1b}'), "NO_COLOR");
}

#[test]
fn quiet_leaves_results_and_errors() {
    let scene = Scene::new();
    let quiet = scene.sweep().flag("-q").exits(0);
    quiet.check(quiet.stderr.is_empty(), "no talk");
    let failing = scene.sweep().fault("network").flag("-q").exits(1);
    failing.check(!failing.stderr.contains("advice"), "no talk");
    let refused = scene.sweep().set("--tp", ["0"]).flag("-q").exits(2);
    refused.says("error: invalid value `0` for `--tp`");
}

#[test]
fn a_dry_run_starts_nothing_and_needs_nothing() {
    let scene = Scene::new();
    let dry = scene.call(&["run", "--dry-run", "1", "--setvars", "none", "--vllm-bin", "/opt/vllm/bin/vllm"]).exits(0);
    insta::assert_snapshot!(steady(&dry.stdout, &scene));
    assert!(files(scene.root()).iter().all(|path| path.starts_with(scene.path("calls"))));
    let all = scene.call(&["sanity", "--dry-run", "--engine", "sim"]).exits(0);
    all.prints("4 combinations, 3 experiments, 1 skipped (SIMULATED");
    all.check(all.stdout.matches("--- server script").count() == 3, "every script");
}

#[test]
fn version_completions_and_manual() {
    let scene = Scene::new();
    assert_eq!(scene.call(&["--version"]).exits(0).stdout, format!("vllm-bench {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let completions = scene.call(&["completions", shell]).exits(0);
        completions.prints("vllm-bench").prints("enforce-eager");
        completions.check(!completions.stdout.contains("__guard"), "our own subcommands stay hidden");
    }
    scene.call(&["man"]).exits(0).prints(".TH vllm-bench");
}

/// A baseline is part of the sweep: its names are checked, and what it adds is counted.
#[test]
fn a_baseline_is_checked_and_counted() {
    let scene = Scene::new();
    let plan = |baseline: &str| {
        let file = scene.path("sweep.yaml");
        std::fs::write(&file, format!("serve: {{model: m, tensor-parallel-size: 1}}\nbaseline: {{{baseline}}}\n"))
            .unwrap();
        scene.call(&["plan", file.to_str().unwrap(), "--engine", "sim"])
    };
    plan("tensor-parallel-size: 2").exits(0).prints("1 combination, 2 experiments").prints("2 server starts");
    plan("tensor-parallel-size: 1").exits(0).prints("1 combination, 1 experiment,");
    plan("tensor-paralel-size: 2").ends().says("tensor-paralel-size").says("`--tensor-parallel-size`");
}

#[test]
fn a_misspelt_model_and_a_fault_that_never_strikes_are_told() {
    let scene = Scene::new();
    let file = scene.path("sweep.yaml");
    std::fs::write(&file, "serve: {modle: m}\n").unwrap();
    let file = file.to_str().unwrap();
    scene.call(&["plan", file, "--engine", "sim"]).exits(2).says("did you mean `model` in place of `modle`?");
    let plan =
        |fault: &str| scene.call(&["plan", "--engine", "sim", "--sim-devices", "8", "--sim-fault", fault]).exits(0);
    plan("level-zero@modle=x").says("no server of this sweep has `modle=x`: the fault never strikes");
    let strikes = plan("level-zero@tp=4,quantization=fp8,eager=true");
    strikes.check(!strikes.stderr.contains("never strikes"), "it does");
}

#[test]
fn a_negative_percentage_is_told_what_is_expected() {
    let scene = Scene::new();
    for flag in ["--parallel-threshold", "--sim-noise", "--sim-interference", "--cooldown", "--grace"] {
        let refused = scene.sweep().set(flag, ["-5%"]).exits(2);
        refused.says(&format!("`-5%` for `{flag}`")).says("expected");
    }
}
