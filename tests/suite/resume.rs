//! Nothing is lost: a run that was killed, interrupted or damaged at any point leaves no process, and resumes.

use std::fs;
use std::process::Command;

use crate::support::{FIRST, RunFiles, SECOND, Scene};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The second experiment stays in loading, in its first attempt.
const STAYS_LOADING: &str = "hang-loading@eager=false#1";
/// The second experiment stays in the benchmark, in its first attempt.
const STAYS_MEASURING: &str = "benchmark-hangs@eager=false#1";

fn pid(value: &serde_json::Value) -> i32 {
    i32::try_from(value.as_i64().unwrap()).unwrap()
}

fn kill9(number: i32) {
    kill(Pid::from_raw(number), Signal::SIGKILL).unwrap();
}

/// Resumes, and looks whether all is well then.
fn resume(scene: &Scene, fault: &str) -> RunFiles {
    let ended = scene.sweep().fault(fault).flag("--resume").exits(0);
    ended.says("going on: 1 of 2 experiments").says("has a valid result");
    let run = scene.run();
    run.assert_passed(FIRST);
    run.assert_passed(SECOND);
    assert_eq!(run.result(SECOND)["vllm_bench"]["attempt"], 2);
    assert_eq!(run.outcomes(FIRST), [(1, "passed".to_owned())], "what was valid is not measured again");
    run
}

#[test]
fn kill_9_while_starting_leaves_no_process_and_resumes() {
    let scene = Scene::new();
    let mut live = scene.sweep().fault(STAYS_LOADING).start();
    live.event(&["phase-changed", SECOND, "\"loading\""]);
    live.kill();
    scene.wait_until_nothing_is_left();
    let run = resume(&scene, STAYS_LOADING);
    assert!(run.has(&format!("logs/{SECOND}_server.2.log")), "the log of the first attempt is kept");
}

#[test]
fn kill_9_while_measuring_leaves_no_process_and_resumes() {
    let scene = Scene::new();
    let mut live = scene.sweep().fault(STAYS_MEASURING).start();
    live.event(&["benchmark-launched", SECOND]);
    live.kill();
    scene.wait_until_nothing_is_left();
    let run = resume(&scene, STAYS_MEASURING);
    assert!(run.has(&format!("logs/{SECOND}_benchmark.2.log")));
    // Whether the whole tree was there or not: an earlier attempt has no outcome, and the journal says so.
    assert_eq!(run.outcomes(SECOND), [(2, "passed".to_owned())]);
}

#[test]
fn kill_9_of_a_guard_fails_its_experiment_and_the_sweep_goes_on() {
    for role in ["server", "benchmark"] {
        let scene = Scene::new();
        let hangs = "benchmark-hangs@eager=true";
        let mut live = scene.sweep().fault(hangs).start();
        live.event(&["benchmark-launched", FIRST]);
        kill9(pid(&scene.record(role)["guard"]["pid"]));
        let ended = live.ends().with_code(1);
        let run = scene.run();
        let failure = run.failure(FIRST);
        ended.check(failure["cause"] == "launch-failed", &format!("{role}: {failure:#}"));
        ended.check(failure["phase"]["phase"] == "measuring", &format!("{role}: {failure:#}"));
        ended.check(failure["summary"].as_str().unwrap().contains(role), &format!("{role}: {failure:#}"));
        run.assert_journal_complete();
        run.assert_passed(SECOND);
        scene.wait_until_nothing_is_left();
    }
}

#[test]
fn kill_9_of_a_server_or_its_engine_is_noticed_and_the_sweep_goes_on() {
    for title in ["sim-vllm serve", "VLLM::EngineCore"] {
        let scene = Scene::new();
        let mut live = scene.sweep().fault("benchmark-hangs@eager=true").start();
        live.event(&["benchmark-launched", FIRST]);
        let (victim, _) = scene.processes().into_iter().find(|(_, line)| line.contains(title)).unwrap();
        kill9(victim);
        let ended = live.ends().with_code(1);
        let run = scene.run();
        let failure = run.failure(FIRST);
        ended.check(failure["cause"] == "server-died", &format!("{title}: {failure:#}"));
        run.assert_journal_complete();
        run.assert_passed(SECOND);
    }
}

#[test]
fn a_journal_cut_at_any_byte_resumes() {
    let scene = Scene::new();
    let mut live = scene.sweep().fault(STAYS_MEASURING).start();
    live.event(&["benchmark-launched", SECOND]);
    live.kill();
    scene.wait_until_nothing_is_left();
    let whole = fs::read(scene.run().path("journal.jsonl")).unwrap();
    for (i, cut) in [0, 1, whole.len() / 3, whole.len() * 2 / 3 + 7, whole.len() - 3].into_iter().enumerate() {
        let copy = scene.path(&format!("copy-{i}"));
        assert!(Command::new("cp").arg("-a").arg(scene.results()).arg(&copy).status().unwrap().success());
        let run = scene.runs_in(&copy).remove(0);
        fs::write(run.path("journal.jsonl"), &whole[..cut]).unwrap();
        // Without its journal the first attempt is forgotten, and the fault would strike again: it is restricted to
        // an attempt, so it is the identity that must stay, not the number.
        let ended = scene
            .sweep()
            .fault(STAYS_MEASURING)
            .set("--results-dir", [copy.to_str().unwrap()])
            .set("--timeout-benchmark", ["4"])
            .flag("--resume")
            .ends();
        ended.check(matches!(ended.status.code(), Some(0 | 1)), &format!("cut at {cut}"));
        let runs = scene.runs_in(&copy);
        assert_eq!(runs.len(), 1);
        let kept = runs[0].result(FIRST);
        assert_eq!(kept["vllm_bench"]["attempt"], 1, "the valid result stays as it was");
        let knows = String::from_utf8_lossy(&whole[..cut])
            .lines()
            .any(|line| line.contains("experiment-started") && line.contains(SECOND) && line.ends_with('}'));
        ended.check(ended.status.success() == knows, &format!("cut at {cut}: attempts are numbered by the journal"));
        if !knows {
            assert_eq!(runs[0].failure(SECOND)["cause"], "benchmark-hung");
        }
    }
}

#[test]
fn a_damaged_or_foreign_result_is_set_aside_and_measured_again() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let run = scene.run();
    let path = |name: &str| run.path(&format!("{name}_results.json"));
    let [first, second] = [FIRST, SECOND].map(|name| fs::read(path(name)).unwrap());
    for (n, bad) in [&first[..first.len() / 2], &second[..], b""].into_iter().enumerate() {
        fs::write(path(FIRST), bad).unwrap();
        scene.sweep().flag("--resume").exits(0);
        run.assert_passed(FIRST);
        run.assert_passed(SECOND);
        let attempt = n + 2;
        assert_eq!(run.result(FIRST)["vllm_bench"]["attempt"], attempt);
        let aside = run.path(&format!("{FIRST}_invalid.{}.json", attempt - 1));
        assert_eq!(fs::read(&aside).unwrap(), bad, "set aside, not lost");
    }
    assert_eq!(fs::read(path(SECOND)).unwrap(), second, "untouched");
    let nothing = scene.sweep().flag("--resume").exits(3);
    nothing.says("no unfinished run of this plan");
    let nothing = scene.sweep().set("--resume", [run.name().as_str()]).exits(3);
    nothing.says("every experiment of").says("has a valid result already");
}

#[test]
fn the_only_valid_result_of_another_experiment_is_never_set_aside() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let run = scene.run();
    let path = |name: &str| run.path(&format!("{name}_results.json"));
    fs::rename(path(SECOND), path(FIRST)).unwrap();
    let held = fs::read(path(FIRST)).unwrap();
    scene.sweep().flag("--resume").exits(5).says("is a valid result of another experiment").says(SECOND);
    assert_eq!(fs::read(path(FIRST)).unwrap(), held, "neither renamed nor overwritten");
    assert!(!run.has(&format!("{FIRST}_invalid.1.json")));
}

#[test]
fn a_failed_experiment_is_redone_by_resume_and_its_failure_kept() {
    let scene = Scene::new();
    let fault = "out-of-memory@eager=false#1";
    scene.sweep().fault(fault).exits(1);
    assert_eq!(scene.run().failure(SECOND)["attempt"], 1);
    let run = resume(&scene, fault);
    assert_eq!(run.json(&format!("{SECOND}_failure.1.json"))["cause"], "out-of-device-memory");
}

#[test]
fn resume_never_mixes_settings() {
    let scene = Scene::new();
    let fault = "network@eager=false";
    scene.sweep().fault(fault).exits(1);
    let name = scene.run().name();
    let before = fs::read(scene.run().path("journal.jsonl")).unwrap();
    let other = || scene.sweep().fault(fault).set("--output-len", ["9"]);
    other().flag("--resume").exits(3).says("no unfinished run of this plan");
    let refused = other().set("--resume", [name.as_str()]).exits(2);
    refused.says("is another one: nothing of it may be mixed").says("leave out the flags that shape the plan");
    scene.sweep().set("--resume", ["20200101_0000"]).exits(3).says("there is: ");
    assert_eq!(fs::read(scene.run().path("journal.jsonl")).unwrap(), before, "nothing was written");
}

/// Sends a signal while the second experiment is measured, and says how the run ends.
fn signalled(signals: &[Signal], fault: &str, code: i32, by: &str) {
    let scene = Scene::new();
    let mut live = scene.sweep().fault(fault).start();
    live.event(&["benchmark-launched", SECOND]);
    for signal in signals {
        live.signal(*signal);
        // Two signals of one kind that come at once are one to the kernel.
        live.event(&["stop-requested"]);
    }
    let ended = live.ends().with_code(code);
    ended.says("interrupted").says("--resume");
    let run = scene.run();
    run.assert_journal_complete();
    run.assert_passed(FIRST);
    assert_eq!(run.outcomes(SECOND), [(1, "interrupted".to_owned())]);
    assert_eq!(run.events("run-finished")[0]["interrupted"], true);
    assert!(run.events("stop-requested")[0]["by"].as_str().unwrap().contains(by));
    let killed = run.events("torn-down")[1]["proof"]["killed"] == true;
    ended.check(killed == (signals.len() > 1), "SIGKILL comes with the second signal, not before");
    assert!(!run.has(&format!("{SECOND}_results.json")) && !run.has(&format!("{SECOND}_failure.json")));
    resume(&scene, fault);
}

#[test]
fn sigint_ends_in_order_with_130() {
    signalled(&[Signal::SIGINT], STAYS_MEASURING, 130, "SIGINT");
}

#[test]
fn sigterm_ends_in_order_with_143() {
    signalled(&[Signal::SIGTERM], STAYS_MEASURING, 143, "SIGTERM");
}

#[test]
fn sighup_ends_in_order_with_129() {
    signalled(&[Signal::SIGHUP], STAYS_MEASURING, 129, "SIGHUP");
    signalled(&[Signal::SIGQUIT], STAYS_MEASURING, 131, "SIGQUIT");
}

#[test]
fn sigint_while_starting_ends_in_order() {
    let scene = Scene::new();
    let mut live = scene.sweep().fault(STAYS_LOADING).start();
    live.event(&["phase-changed", SECOND, "\"loading\""]);
    live.signal(Signal::SIGINT);
    live.ends().with_code(130);
    resume(&scene, STAYS_LOADING);
}

#[test]
fn a_second_sigint_kills_at_once() {
    let fault = format!("{STAYS_MEASURING};ignores-sigterm@eager=false#1");
    signalled(&[Signal::SIGINT, Signal::SIGINT], &fault, 130, "SIGINT");
}

#[test]
fn sigusr1_lets_the_current_experiment_finish() {
    let scene = Scene::new();
    // Slow enough that the signal comes while the first experiment runs.
    let mut live = scene.sweep().set("--sim-speed", ["60"]).start();
    live.event(&["server-launched", FIRST]);
    live.signal(Signal::SIGUSR1);
    let ended = live.ends();
    ended.check(ended.status.code() == Some(138), "128 + SIGUSR1");
    let run = scene.run();
    run.assert_passed(FIRST);
    assert!(run.outcomes(SECOND).is_empty());
    assert_eq!(run.events("run-finished")[0]["interrupted"], true);
    scene.sweep().set("--sim-speed", ["60"]).flag("--resume").exits(0);
    run.assert_passed(SECOND);
}

#[test]
fn a_detached_run_goes_on_without_the_terminal() {
    let scene = Scene::new();
    let started = scene.sweep().fault(STAYS_MEASURING).flag("--detach").stays().exits(0);
    started.prints("vllm-bench status --watch").prints("vllm-bench stop");
    let number: i32 =
        started.stdout.lines().next().unwrap().rsplit(' ').next().unwrap().parse().expect("the process is named");
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!(fields[3], number.to_string(), "a session of its own");
    assert_eq!(fields[4], "0", "no terminal");
    let journal = |words: &[&str]| {
        crate::support::wait_for("an event of the detached run", || {
            let text = scene.run().journal_text();
            text.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
        });
    };
    journal(&["benchmark-launched", SECOND]);
    for detach in [true, false] {
        let mut second = scene.sweep().fault(STAYS_MEASURING);
        if detach {
            second = second.flag("--detach");
        }
        second.exits(5).says(&format!("process {number} of "));
    }
    kill(Pid::from_raw(number), Signal::SIGTERM).unwrap();
    journal(&["run-finished"]);
    scene.wait_until_nothing_is_left();
    let log = fs::read_to_string(scene.run().path("run.log")).unwrap();
    assert!(log.contains("[2/2]") && !log.contains('\u{1b}'), "{log}");

    // The same plan again: it goes on where it was.
    let again = scene.sweep().fault(STAYS_MEASURING).flag("--detach").stays().exits(0);
    again.prints("the run goes on without the terminal");
    scene.wait_until_nothing_is_left();
    let run = scene.run();
    run.assert_passed(FIRST);
    run.assert_passed(SECOND);
    assert_eq!(run.result(SECOND)["vllm_bench"]["attempt"], 2);
}

#[test]
fn detach_fresh_begins_a_new_run() {
    let scene = Scene::new();
    let fault = "network@eager=false";
    scene.sweep().fault(fault).exits(1);
    scene
        .sweep()
        .fault(fault)
        .flag("--detach")
        .flag("--fresh")
        .stays()
        .exits(0)
        .prints("a new run has begun without the terminal");
    scene.wait_until_nothing_is_left();
    assert_eq!(scene.runs().len(), 2);
    for run in scene.runs() {
        assert_eq!(run.outcomes(FIRST), [(1, "passed".to_owned())]);
    }
}

#[test]
fn a_detached_run_that_cannot_begin_says_so_at_once() {
    let scene = Scene::new();
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    scene.sweep().set("--port", [port.as_str()]).flag("--detach").exits(4).says("is taken by process");
}

/// What the manifest says of a setting now.
fn setting(run: &RunFiles, key: &str) -> serde_json::Value {
    run.json("manifest.json")["settings"][key]["value"].clone()
}

/// The command in the hint of an interrupted run, as words after the program.
fn hinted(stderr: &str) -> Vec<String> {
    let command = stderr.rsplit("`vllm-bench ").next().unwrap().split('`').next().unwrap();
    shlex::split(command).unwrap()
}

#[test]
fn a_run_brings_every_setting_back_and_says_how_to_go_on() {
    let scene = Scene::new();
    fs::write(scene.path("sweep.yaml"), "timeouts: {grace: 7s}\nslo: {ttft: {p99: 500}}\nwarmup: 2\n").unwrap();
    let begin = || {
        let mut call = scene.sweep().fault(STAYS_MEASURING);
        call = call.set("--retry", ["crash=2"]).set("--timezone", ["UTC"]).set("--skip-failure-reasons", ["oom"]);
        call.set("--on-failure", ["stop"]).set("--preset", ["none"])
    };
    let mut live = begin().env("VLLM_BENCH_TIMEOUT_STARTUP", "77").also("sweep.yaml", "--show-logs").start();
    // The warm-up hangs as well.
    live.event(&["server-ready", SECOND]);
    live.signal(Signal::SIGINT);
    let ended = live.ends().with_code(130);
    let run = scene.run();
    let before = run.json("manifest.json");
    let words = hinted(&ended.stderr);
    assert_eq!(words, ["run", "--resume", &format!("results/{}", run.name())], "short, and as one types it here");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let resumed = scene.call(&words).exits(0);
    resumed.says("going on: 1 of 2 experiments");
    run.assert_passed(FIRST);
    run.assert_passed(SECOND);
    let after = run.json("manifest.json");
    assert_eq!(after, before, "nothing of it is another one");
    let show = |key: &str| after["settings"][key]["value"].to_string();
    let expected = [
        ("retry.crash", "\"2\""),
        ("timezone", "\"UTC\""),
        ("on-failure", "\"stop\""),
        ("timeouts.grace", "\"7s\""),
        ("timeouts.startup", "77"),
        ("warmup", "2"),
        ("show-logs", "true"),
        ("port", "\"auto\""),
    ];
    for (key, value) in expected {
        assert_eq!(show(key), value, "{key}");
    }
    assert!(run.has(&format!("logs/{SECOND}_warmup.2.log")), "the warm-up came back too");
    resumed.check(resumed.stderr.contains("client | "), "and the logs are shown");
}

#[test]
fn flags_that_say_the_same_are_no_contradiction_and_others_are_named_with_both_values() {
    let scene = Scene::new();
    let fault = "network@eager=false";
    scene.sweep().fault(fault).exits(1);
    let run = scene.run();
    let name = run.name();
    let again = |words: &[&str]| {
        let call = scene.call(&["run", "--resume", &name]).set("--results-dir", [scene.results().to_str().unwrap()]);
        words.iter().fold(call, |call, word| call.flag(word)).ends()
    };
    for same in [
        &["--engine", "sim"][..],
        &["--engine=sim", "--tp=1", "--num-prompts=4"],
        &["--enforce-eager", "true", "false", "--models", "org/tiny"],
        &["--bench-arg=num-warmups=0", "--bench-arg=no:num-warmups"],
    ] {
        let ended = again(same);
        ended.check(ended.status.code() == Some(1) || same[0].contains("warmups"), "the same is no contradiction");
    }
    let journal = run.journal_text();
    for (other, key, was, is) in [
        (&["--output-len", "9"][..], "bench.random-output-len", "`8`", "`9`"),
        (&["--tp=1,2"], "serve.tensor-parallel-size", "`1`", "`1 2`"),
        (&["--serve-arg=max-num-seqs=7"], "serve.max-num-seqs", "has none", "`7`"),
        (&["--warmup", "3"], "warmup", "`0`", "`3`"),
        (&["--engine", "vllm"], "engine", "`sim`", "`vllm`"),
        (&["--preset", "sanity"], "preset", "`full`", "`sanity`"),
    ] {
        let refused = again(other).with_code(2);
        refused
            .says(&format!("`{key}`: the run {}", if was == "has none" { was.into() } else { format!("has {was}") }));
        refused.says(&format!("says {is}")).says("begin a new run");
    }
    assert_eq!(run.journal_text(), journal, "nothing was written");
    // What only says how to run may change, is recorded, and stays so.
    again(&["--grace", "3", "--retry", "network=1"]).with_code(1);
    assert_eq!((setting(&run, "timeouts.grace"), setting(&run, "retry.network")), (3.into(), "1".into()));
    assert!(run.journal_text().contains("`timeouts.grace` is `3` (flag --grace)"), "{}", run.journal_text());
    assert_eq!(run.json("manifest.json")["limits"]["grace"], 3.0);
    again(&[]).with_code(1);
    assert_eq!(setting(&run, "timeouts.grace"), 3);
    let elsewhere = scene.call(&["run", "--resume", &format!("results/{name}"), "--results-dir", "calls"]).exits(2);
    elsewhere.says("`--results-dir` is `calls`, and the run is in ");
}

#[test]
fn resume_alone_takes_the_one_unfinished_run_or_lists_them() {
    let scene = Scene::new();
    let results = scene.results();
    let alone = || scene.call(&["run", "--resume"]).set("--results-dir", [results.to_str().unwrap()]).ends();
    alone().with_code(3).says("no unfinished run");
    let interrupt = |words: [&str; 1]| {
        let before: Vec<String> = scene.runs().iter().map(RunFiles::name).collect();
        let live = scene.sweep().fault(STAYS_MEASURING).set("--output-len", words).start();
        crate::support::wait_for("the client of a new run", || {
            let run = scene.runs().into_iter().find(|run| !before.contains(&run.name()))?;
            run.journal_text().lines().any(|l| l.contains("benchmark-launched") && l.contains(SECOND)).then_some(())
        });
        live.kill();
        scene.wait_until_nothing_is_left();
    };
    interrupt(["8"]);
    let first = scene.run();
    interrupt(["9"]);
    let second = scene.runs().into_iter().find(|run| run.name() != first.name()).unwrap();
    let listed = alone().with_code(2);
    listed.says("2 runs in ").says(&format!("{} (1 of 2 experiments measured)", first.name()));
    listed.says(&second.name()).says("vllm-bench run --resume ");
    scene.call(&["run", "--resume", &format!("results/{}", first.name())]).exits(0);
    alone().with_code(0);
    second.assert_passed(SECOND);
    alone().with_code(3);
    // One flag is enough to tell them apart, where it is said again.
    interrupt(["10"]);
    interrupt(["11"]);
    let told = scene.call(&["run", "--resume", "--output-len", "10"]);
    told.set("--results-dir", [results.to_str().unwrap()]).exits(0);
    alone().with_code(0);
    // One that cannot be read is not passed over in silence.
    fs::write(second.path("manifest.json"), "{").unwrap();
    alone().with_code(3).says(&format!("{} cannot be resumed and is left out", second.name()));
}

#[test]
fn a_manifest_that_was_edited_by_hand_is_not_measured() {
    let scene = Scene::new();
    scene.sweep().fault("network@eager=false").exits(1);
    let run = scene.run();
    let path = run.path("manifest.json");
    let whole = fs::read_to_string(&path).unwrap();
    let outside = scene.path("evil");
    for (at, (pointer, value)) in [
        ("/plan/experiments/1/workload/flags/random-output-len", "4096"),
        ("/plan/experiments/1/server/env/VLLM_X", "1"),
        ("/plan/experiments/1/name", "../../evil"),
        ("/plan/experiments/1/server_name", "../evil"),
        ("/plan/experiments/1/name", FIRST),
        ("/plan/experiments/0/repeat", "{\"start\":2,\"run\":1}"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut manifest: serde_json::Value = serde_json::from_str(&whole).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let value =
            serde_json::from_str(value).ok().filter(serde_json::Value::is_object).unwrap_or_else(|| value.into());
        let parent = manifest.pointer_mut(parent).unwrap();
        assert!(at == 1 || !parent[key].is_null(), "{pointer} is in the manifest: {parent}");
        parent[key] = value;
        fs::write(&path, manifest.to_string()).unwrap();
        let refused = scene.call(&["run", "--resume", &format!("results/{}", run.name())]).exits(5);
        refused.says("contradicts itself").says("hint: ");
        let extend = scene.sweep().set("--output-len", ["9"]).set("--extend", [run.name().as_str()]).exits(5);
        extend.says("contradicts itself");
    }
    assert!(!outside.exists() && crate::support::files(scene.root()).iter().all(|path| !path.ends_with("evil")));
    fs::write(&path, &whole).unwrap();
    scene.call(&["run", "--resume", &format!("results/{}", run.name())]).exits(1);
}

#[test]
fn a_folder_where_clients_write_does_not_block_a_resume() {
    let scene = Scene::new();
    scene.sweep().fault("network@eager=false#1").exits(1);
    let run = scene.run();
    for folder in [format!(".unchecked/{SECOND}.json/deeper"), ".tmp-folder/x".to_owned()] {
        fs::create_dir_all(run.path(&folder)).unwrap();
    }
    scene.sweep().fault("network@eager=false#1").flag("--resume").exits(0);
    run.assert_passed(SECOND);
    assert_eq!(fs::read_dir(run.path(".unchecked")).unwrap().count(), 0);
}

#[test]
fn another_snapshot_of_the_model_is_another_identity_and_never_joins_a_run() {
    let scene = Scene::new();
    let cache = scene.path("home/.cache/huggingface/hub/models--org--tiny");
    let commits = ["a".repeat(40), "b".repeat(40)];
    for commit in &commits {
        fs::create_dir_all(cache.join("snapshots").join(commit)).unwrap();
    }
    fs::create_dir_all(cache.join("refs")).unwrap();
    let checked_out = |commit: &str| fs::write(cache.join("refs/main"), commit).unwrap();
    checked_out(&commits[0]);
    let vllm = scene.vllm_that("");
    let sweep = || scene.sweep_with(&vllm).also("--env", "VLLM_BENCH_SIM_FAULT=network@eager=false");
    sweep().exits(1);
    let run = scene.run();
    let plan = &run.json("manifest.json")["plan"];
    assert_eq!(plan["context"]["models"]["org/tiny"], commits[0]);
    checked_out(&commits[1]);
    let refused = scene.call(&["run", "--resume", &format!("results/{}", run.name())]).exits(2);
    refused.says(&format!("the model `org/tiny` {}, and here is {}", commits[0], commits[1]));
    sweep().exits(1);
    let other = scene.runs().into_iter().find(|other| other.name() != run.name()).unwrap();
    assert_ne!(other.json("manifest.json")["plan"]["experiments"][0]["identity"], plan["experiments"][0]["identity"]);
    let compared = scene.call(&["compare", run.0.to_str().unwrap(), other.0.to_str().unwrap()]).ends();
    compared.prints(&commits[0]).prints(&commits[1]);
    checked_out(&commits[0]);
    scene.call(&["run", "--resume", &format!("results/{}", run.name())]).exits(1);
    // Not at hand: nothing is known against it, and that is said.
    fs::remove_dir_all(&cache).unwrap();
    let unknown = scene.call(&["run", "--resume", &format!("results/{}", run.name())]).exits(1);
    unknown.says("whether the weights are the same is not known");
}

#[test]
fn secrets_of_a_resumed_run_come_from_the_environment() {
    let scene = Scene::new();
    let seen = scene.path("seen");
    let vllm = scene.vllm_that(&format!("echo \"$MY_TOKEN\" >> '{}'", seen.display()));
    let fault = "VLLM_BENCH_SIM_FAULT=network@eager=false";
    scene.sweep_with(&vllm).also("--env", fault).also("--env", "MY_TOKEN=tok-planted").exits(1);
    let run = scene.run();
    assert!(!fs::read_to_string(run.path("manifest.json")).unwrap().contains("tok-planted"));
    fs::remove_file(&seen).unwrap();
    let resumed =
        scene.call(&["run", "--resume", &format!("results/{}", run.name())]).env("MY_TOKEN", "tok-again").exits(1);
    resumed.check(!resumed.stderr.contains("export it"), "it is set");
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("tok-again") && !seen.contains("redacted"), "{seen}");
}

/// Printed hint and all: the neighbour's server is there before, between and after.
#[test]
fn the_neighbours_server_survives_ctrl_c_and_the_printed_resume() {
    let wrapper =
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let works = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        crate::support::skipped(
            "a neighbour's server over a resume: `unshare --user --pid --mount` is not to be had here",
        );
        return;
    }
    // Not below /tmp: there the namespace has its own.
    let scene = Scene::below(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")));
    fs::create_dir(scene.path("tmp")).unwrap();
    let inside = scene.program(
        "inside.sh",
        &format!(
            "#!/bin/bash\n\
             mount --bind '{root}/tmp' /tmp || exit 90\n\
             (exec -a VLLM::EngineCore sleep 600) & engine=$!\n\
             alive() {{ grep -qE '^State:[[:space:]]+[^ZX]' /proc/$engine/status 2>/dev/null && echo \"$1 alive\" || echo \"$1 ended\"; }}\n\
             until tr '\\0' ' ' < /proc/$engine/cmdline | grep -q VLLM; do :; done\n\
             \"$@\" 2> '{root}/first.err' & run=$!\n\
             until [ -e '{root}/hung' ]; do sleep 0.02; kill -0 $run || break; done\n\
             alive started\n\
             kill -TERM $run; wait $run; alive interrupted\n\
             hint=$(sed -n 's/.*`vllm-bench \\(run --resume [^`]*\\)`.*/\\1/p' '{root}/first.err' | tail -n 1)\n\
             cat '{root}/first.err' >&2\n\
             {bin} $hint; code=$?; alive resumed\n\
             kill -9 $engine\n\
             exit $code\n",
            root = scene.root().display(),
            bin = crate::support::BIN,
        ),
    );
    let through: Vec<&str> = wrapper.into_iter().chain([inside.to_str().unwrap()]).collect();
    let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port().to_string();
    // Not `--engine sim`, which leaves others alone: the simulated vLLM as somebody's `vllm`.
    let hung = scene.path("hung").display().to_string();
    let vllm = scene.vllm_that(&format!("[ \"$1\" = bench ] && [ ! -e '{hung}' ] && touch '{hung}' && exec sleep 600"));
    let ended = scene
        .sweep_with(&vllm)
        .set("--enforce-eager", ["true"])
        .set("--grace", ["2"])
        .set("--port", [port.as_str()])
        .through(&through)
        .exits(0);
    ended.prints("started alive\n").prints("interrupted alive\n").prints("resumed alive\n");
    ended.check(!ended.stderr.contains("ended another vLLM process"), "nobody else was ended");
    let launched = scene.run().events("server-launched");
    assert!(
        launched.len() == 2 && launched.iter().all(|event| event["port"].as_u64() == port.parse().ok()),
        "{launched:?}"
    );
    scene.run().assert_passed(FIRST);
}
