//! A benchmark in which nothing moves is ended within the stall limit, with any client; one that is slow is not.

use std::time::{Duration, Instant};

use crate::support::{FIRST, Live, SECOND, Scene, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A sweep whose measurements take some seconds of real time, and whose server may be stopped.
fn slow(scene: &Scene) -> crate::support::Call<'_> {
    let limits = scene.sweep().set("--stall-timeout", ["1"]).set("--grace", ["1"]);
    limits.set("--sim-speed", ["20"]).set("--output-len", ["1200"]).set("--max-model-len", ["2048"])
}

/// Stops the server of the first experiment as soon as its benchmark begins.
fn stop_the_server(live: &mut Live<'_>) {
    let pid = live.event(&["server-launched", FIRST])["process"]["pid"].as_i64().unwrap();
    live.event(&["benchmark-launched", FIRST]);
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGSTOP).unwrap();
}

#[test]
fn a_stopped_server_is_hung_with_any_client() {
    for client in ["vllm", "builtin"] {
        let scene = Scene::new();
        let mut live = slow(&scene).set("--client", [client]).start();
        stop_the_server(&mut live);
        let ended = live.ends().with_code(1);
        let run = scene.run();
        let failure = run.failure(FIRST);
        let shown = serde_json::to_string_pretty(&failure).unwrap();
        ended.check(failure["cause"] == "hung" && failure["phase"]["phase"] == "measuring", &shown);
        ended.check(shown.contains("--stall-timeout") && !shown.contains("--timeout-benchmark"), &shown);
        ended.check(failure["timings"]["benchmark"].as_f64().unwrap() < 60.0, "long before its limit of 300 s");
        run.assert_passed(SECOND);
    }
}

/// Its counters move though no line is logged, and an answer in one piece shows no token.
#[test]
fn a_slow_server_and_answers_in_one_piece_are_not_ended() {
    for (client, flags) in [("vllm", "num-warmups=0"), ("builtin", "non-streaming")] {
        let scene = Scene::new();
        slow(&scene).set("--client", [client]).also("--bench-arg", flags).exits(0);
        let run = scene.run();
        let took = run.result(FIRST)["vllm_bench"]["timings"]["benchmark"].as_f64().unwrap();
        assert!(took > 1.5, "{client}: the benchmark took {took} s, no more than the stall limit");
        run.assert_passed(SECOND);
    }
}

/// Requests that nobody answers, by a server that is otherwise well.
#[test]
fn a_benchmark_that_waits_for_nothing_is_ended_within_the_limit_each_time() {
    for client in ["vllm", "builtin"] {
        let scene = Scene::new();
        let sweep = scene.sweep().fault("streams-fail:silent+all@eager=true").set("--stall-timeout", ["1"]);
        sweep.set("--client", [client]).set("--retry", ["timeout=1"]).exits(1);
        let run = scene.run();
        assert_eq!(run.failure(FIRST)["cause"], "hung", "{client}");
        assert_eq!(run.outcomes(FIRST).len(), 2, "{client}: tried again once");
        run.assert_passed(SECOND);
    }
}

/// Stops the program itself until `done`, and longer than the limit of three seconds.
fn stopped_until<T>(live: &Live<'_>, what: &str, done: impl FnMut() -> Option<T>) {
    let since = Instant::now();
    live.signal(Signal::SIGSTOP);
    wait_for(what, done);
    std::thread::sleep(Duration::from_secs(5).saturating_sub(since.elapsed()));
    live.signal(Signal::SIGCONT);
}

#[test]
fn what_was_finished_while_the_program_itself_was_stopped_counts_after_its_limits_too() {
    for limit in ["--timeout-benchmark", "--stall-timeout"] {
        let scene = Scene::new();
        let sweep = slow(&scene).without("--stall-timeout").set("--enforce-eager", ["true"]);
        let mut live = sweep.set(limit, ["3"]).start();
        live.event(&["benchmark-launched", FIRST]);
        let role = |record: &serde_json::Value| record["owner"]["role"] == "benchmark";
        stopped_until(&live, "the end of the client", || (!scene.records().iter().any(role)).then_some(()));
        // Whether it is said depends on what the program sees first when it goes on: the time that it lost, or the client's end.
        live.ends().with_code(0);
        scene.run().assert_passed(FIRST);
    }
}

#[test]
fn a_server_that_became_ready_while_the_program_itself_was_stopped_is_ready() {
    let scene = Scene::new();
    let mut live = scene.sweep().set("--enforce-eager", ["true"]).set("--timeout-startup", ["3"]).start();
    let launched = live.event(&["server-launched", FIRST]);
    let address = ("127.0.0.1", u16::try_from(launched["port"].as_u64().unwrap()).unwrap());
    stopped_until(&live, "the server's port", || std::net::TcpStream::connect(address).ok());
    live.ends().with_code(0);
    scene.run().assert_passed(FIRST);
}
