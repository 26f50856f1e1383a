//! What stands still: who is named for it, in which phase, what is kept before it is ended, and that nothing that is merely slow is.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Call, Ended, FIRST, Live, Scene, wait_for};

/// Files that every folder of evidence has.
const ALWAYS: [&str; 4] = ["summary.txt", "processes.txt", "metrics.txt", "server_log.txt"];

/// A sweep of one experiment whose measurement takes some seconds, and that is not tried again.
fn slow(scene: &Scene) -> Call<'_> {
    let one = scene.sweep().set("--enforce-eager", ["true"]).set("--retry", ["none"]).set("--grace", ["1"]);
    let limits = one.set("--stall-timeout", ["1500ms"]).set("--timeout-startup", ["120s"]);
    limits.set("--sim-speed", ["20"]).set("--output-len", ["1200"]).set("--max-model-len", ["2048"])
}

/// The failure of the only experiment, which has this cause, phase, and who stands still how; and what was kept is there.
fn check(ended: &Ended, scene: &Scene, cause: &str, phase: &str, who: &str, does: &str) -> Value {
    let run = scene.run();
    run.assert_journal_complete();
    let failure = run.failure(FIRST);
    let shown = serde_json::to_string_pretty(&failure).unwrap();
    ended.check(failure["cause"] == cause, &format!("cause {cause}:\n{shown}"));
    ended.check(failure["phase"]["phase"] == phase, &format!("phase {phase}:\n{shown}"));
    let hang = &failure["hang"];
    ended.check(hang["who"] == who && hang["does"] == does, &format!("{who} {does}:\n{shown}"));
    let kept = failure["kept"].as_str().unwrap_or_else(|| panic!("nothing was kept:\n{shown}"));
    for file in ALWAYS {
        let path = run.path(&format!("{kept}/{file}"));
        ended.check(std::fs::metadata(&path).is_ok_and(|meta| meta.len() > 0), &format!("{}", path.display()));
    }
    ended.check(ended.stderr.contains(kept), "the end of the screen names the folder");
    failure
}

/// Stops a process of the first experiment as soon as its requests run.
fn stop(live: &mut Live<'_>, which: &str) -> i32 {
    let server = live.event(&["server-launched", FIRST])["process"]["pid"].as_i64().unwrap();
    let client = live.event(&["benchmark-launched", FIRST])["process"]["pid"].as_i64().unwrap();
    let pid = match which {
        "api" => i32::try_from(server).unwrap(),
        "client" => i32::try_from(client).unwrap(),
        _ => wait_for("the engine", || child_titled(i32::try_from(server).unwrap(), "VLLM::EngineCore")),
    };
    // Not before it has begun: a client that is stopped while bash starts it is none yet.
    std::thread::sleep(Duration::from_millis(1500));
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    pid
}

fn child_titled(parent: i32, title: &str) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let is =
        |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(title.as_bytes()));
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is)
}

#[test]
fn a_stopped_engine_is_named_with_either_client() {
    for client in ["vllm", "builtin"] {
        let scene = Scene::new();
        let mut live = slow(&scene).set("--client", [client]).start();
        let pid = stop(&mut live, "engine");
        let ended = live.ends().with_code(1);
        let failure = check(&ended, &scene, "hung", "measuring", "engine", "stopped");
        assert_eq!(failure["hang"]["process"]["pid"].as_i64(), Some(pid.into()), "{client}");
        let summary = failure["summary"].as_str().unwrap();
        ended.check(summary.contains("is stopped") && summary.contains("VLLM::EngineCore"), summary);
    }
}

#[test]
fn a_stopped_api_server_and_a_stopped_client_are_told_apart() {
    for (which, client, cause, who) in
        [("api", "builtin", "hung", "api-server"), ("client", "vllm", "benchmark-hung", "client")]
    {
        let scene = Scene::new();
        let mut live = slow(&scene).set("--client", [client]).start();
        stop(&mut live, which);
        let ended = live.ends().with_code(1);
        let failure = check(&ended, &scene, cause, "measuring", who, "stopped");
        assert_eq!(failure["hang"]["health-answers"], which == "client", "{failure}");
    }
}

/// Takes each hang of the simulated server, or of its client, to its failure.
fn tell_apart(cases: [(&str, &str, &str, &str, &str); 3]) {
    for (fault, client, cause, who, does) in cases {
        let scene = Scene::new();
        let ended = slow(&scene).fault(fault).set("--client", [client]).exits(1);
        let failure = check(&ended, &scene, cause, "measuring", who, does);
        ended.check(!failure["advice"].as_array().unwrap().is_empty(), fault);
    }
}

#[test]
fn an_engine_that_waits_one_that_computes_for_ever_and_lost_requests_are_told_apart() {
    tell_apart([
        ("hang-in-benchmark:deadlock+0.2s", "vllm", "hung", "engine", "waits"),
        ("hang-in-benchmark:busy+0.2s", "builtin", "hung", "engine", "busy"),
        ("streams-fail:silent+all", "vllm", "hung", "requests", "waits"),
    ]);
}

#[test]
fn a_deaf_server_and_a_stuck_client_are_told_apart() {
    tell_apart([
        ("hang-in-benchmark:deaf+0.2s", "vllm", "hung", "api-server", "waits"),
        // Lines are no token, and `/health` is silent.
        ("hang-in-benchmark:babble+0.2s", "vllm", "hung", "api-server", "waits"),
        ("benchmark-hangs:connected", "vllm", "benchmark-hung", "client", "waits"),
    ]);
}

#[test]
fn a_start_that_is_silent_ends_early_though_its_limit_is_far() {
    for (fault, who) in [("hang-loading", "engine"), ("hang-accept", "api-server"), ("never-healthy", "api-server")] {
        let scene = Scene::new();
        let ended = slow(&scene).fault(fault).set("--timeout-startup", ["1h"]).exits(1);
        let failure = check(&ended, &scene, "hung", "starting", who, "waits");
        let summary = failure["summary"].as_str().unwrap();
        ended.check(summary.starts_with("no progress for"), summary);
    }
}

/// An explicit limit is hard; one with a `+` lets a start that computes go on, to three times as much.
#[test]
fn a_start_that_makes_progress_outlives_a_limit_that_extends_and_no_other() {
    for (limit, seconds, told) in [("2s", "within 2 s", false), ("2s+", "within 6 s", true)] {
        let scene = Scene::new();
        let ended = slow(&scene).fault("hang-loading:busy").set("--timeout-startup", [limit]).exits(1);
        let failure = scene.run().failure(FIRST);
        let summary = failure["summary"].as_str().unwrap();
        ended.check(failure["cause"] == "startup-timeout" && summary.contains(seconds), summary);
        ended.check(ended.stderr.contains("makes progress") == told, limit);
        ended.check(failure["kept"].is_string() && failure["hang"].is_null(), &failure.to_string());
    }
    // A start of some seconds becomes ready under a limit of one.
    let scene = Scene::new();
    let ended = slow(&scene).set("--sim-speed", ["15"]).set("--timeout-startup", ["1s+"]).exits(0);
    ended.says("makes progress");
    scene.run().assert_passed(FIRST);
}

#[test]
fn a_silent_health_while_tokens_come_is_a_warning() {
    let scene = Scene::new();
    let ended = slow(&scene).fault("silent-health").set("--stall-timeout", ["1s"]).exits(0);
    ended.says("`/health` of the server has not answered");
    scene.run().assert_passed(FIRST);
}

/// A server with two processes that may be Python, which hangs in its benchmark; `py-spy` on PATH does this.
fn with_py_spy<'s>(scene: &'s Scene, py_spy: &str) -> Call<'s> {
    let tool = scene.program("tools/py-spy", &format!("#!/bin/sh\n{py_spy}\n"));
    let path = format!("{}:{}", tool.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let first = "export VLLM_BENCH_SIM_SPEED=20\nif [ \"$1\" = serve ]; then\nexport VLLM_BENCH_SIM_FAULT=hang-in-benchmark:deadlock+0.2s\n\
                 sleep 600 &\nsleep 600 &\nfi";
    let call = scene.sweep_with(&scene.vllm_that(first)).env("PATH", &path).set("--enforce-eager", ["true"]);
    let limits = call.set("--stall-timeout", ["1500ms"]).set("--grace", ["1"]).set("--telemetry", ["off"]);
    limits.set("--output-len", ["1200"]).set("--max-model-len", ["2048"])
}

/// A py-spy that never comes back, and secrets and escapes in what it says: evidence is kept all the same, without them.
#[test]
fn evidence_is_bounded_in_time_and_free_of_secrets_and_escapes() {
    const SECRET: &str = "hf_watchdogwatchdogwatchdog1";
    let scene = Scene::new();
    // One process is answered for, the other never.
    let once = format!(
        "mkdir {}/once 2>/dev/null && printf 'Thread 1 {SECRET} \\033[31mred\\n' && exit 0",
        scene.root().display()
    );
    let call = with_py_spy(&scene, &format!("{once}\nexec sleep 600"));
    let ended = call.env("HF_TOKEN", SECRET).exits(1);
    let failure = check(&ended, &scene, "hung", "measuring", "engine", "waits");
    let folder = scene.run().path(failure["kept"].as_str().unwrap());
    let stacks = std::fs::read_to_string(folder.join("python_stacks.txt")).unwrap();
    ended.check(stacks.contains("Thread 1 [redacted] \\u001b[31mred") && stacks.contains("gave no answer"), &stacks);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        ended.check(!bytes.windows(SECRET.len()).any(|piece| piece == SECRET.as_bytes()), "a secret was kept");
    }
}

/// Whoever stops the run does not wait for what is looked at, and no tool is left.
#[test]
fn a_stop_ends_the_evidence() {
    let scene = Scene::new();
    let asked = scene.path("asked");
    let live = with_py_spy(&scene, &format!("touch {}\nexec sleep 600", asked.display())).start();
    wait_for("py-spy", || asked.exists().then_some(()));
    live.signal(Signal::SIGTERM);
    let ended = live.ends();
    let summary = scene.run().path(scene.run().failure(FIRST)["kept"].as_str().unwrap()).join("summary.txt");
    let summary = std::fs::read_to_string(summary).unwrap();
    ended.check(summary.contains("cut short by the user's stop"), &summary);
}

/// `status`, the report and its page cite the folder.
#[test]
fn the_folder_is_cited_wherever_the_failure_is_told() {
    let scene = Scene::new();
    slow(&scene).fault("hang-in-benchmark:deadlock+0.2s").exits(1);
    let run = scene.run();
    let kept = run.failure(FIRST)["kept"].as_str().unwrap().to_owned();
    let name = kept.rsplit('/').next().unwrap();
    let path = run.0.to_str().unwrap();
    scene.call(&["status", path]).ends().prints(name);
    scene.call(&["status", path, "--json"]).ends().prints(&kept);
    scene.call(&["analyze", run.0.to_str().unwrap()]).ends().prints(name);
    scene.call(&["report", run.0.to_str().unwrap()]).ends();
    assert!(std::fs::read_to_string(run.path("report.html")).unwrap().contains(name));
}
