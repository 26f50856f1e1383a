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
    scene.sweep().set("--resume", ["20200101_0000"]).exits(5).says("is not a run directory");
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
