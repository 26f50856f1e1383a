//! What is ours ends and what is not ours stays, whatever is killed or stopped, and the proof says what was seen. Engines of
//! the simulated vLLM overwrite their environment as the real ones do, and the worker of two ranks leads its own session.

use std::io::{Read, Write};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{BIN, Call, FIRST, Live, MODEL, SECOND, Scene, has_variable, skipped, wait_for};

/// How the members of a group are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Cgroup,
    Descent,
}

impl Hold {
    const ALL: [Self; 2] = [Self::Cgroup, Self::Descent];

    fn word(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Descent => "descent",
        }
    }

    /// Runs a call where groups are held so, and no other run ends what it leaves; `None` where that cannot be had here.
    fn around<'s>(self, call: Call<'s>) -> Option<Call<'s>> {
        // Whether a cgroup can be made shows in the record.
        call.alone(self == Self::Descent)
    }

    /// Whether the server's group is held so; says loudly where no cgroup can be made.
    fn is_had(self, record: &Value) -> bool {
        let has = record["cgroup"].is_string();
        if self == Self::Cgroup && !has {
            skipped("groups held by a cgroup: none can be made here");
            return false;
        }
        assert_eq!(has, self == Self::Cgroup, "{record}");
        true
    }
}

fn pid(value: &Value) -> i32 {
    i32::try_from(value["pid"].as_i64().unwrap()).unwrap()
}

fn signal(number: i32, signal: Signal) {
    kill(Pid::from_raw(number), signal).unwrap();
}

/// Two ranks, so that there is a worker.
fn sweep(scene: &Scene) -> Call<'_> {
    scene.sweep().set("--tp", ["2"]).set("--grace", ["2"])
}

fn tp2(name: &str) -> String {
    name.replace("tp1", "tp2")
}

/// The first experiment stays in the benchmark, in its first attempt.
const STAYS: &str = "benchmark-hangs@eager=true#1";

/// A sweep of which the first server is measured; with the record of its group.
fn measuring<'s>(call: Call<'s>, scene: &'s Scene) -> (Live<'s>, Value) {
    let mut live = call.start();
    live.event(&["benchmark-launched", &tp2(FIRST)]);
    let record = scene.record("server");
    (live, record)
}

/// The processes that no marker tells any more.
fn renamed(scene: &Scene) -> Vec<(i32, String)> {
    let mark = scene.mark();
    scene.processes().into_iter().filter(|(pid, _)| has_variable(*pid, &mark).is_none()).collect()
}

#[test]
fn engines_of_the_simulation_overwrite_their_environment_and_workers_leave_the_session() {
    let scene = Scene::new();
    let (live, record) = measuring(sweep(&scene).fault(STAYS), &scene);
    let titles: Vec<String> = renamed(&scene).into_iter().map(|(_, line)| line.trim().to_owned()).collect();
    assert!(titles.iter().any(|title| title == "VLLM::EngineCore"), "{titles:?}");
    assert!(titles.iter().any(|title| title == "VLLM::Worker_TP0"), "{titles:?}");
    let (worker, _) = renamed(&scene).into_iter().find(|(_, line)| line.contains("Worker")).unwrap();
    let session = nix::unistd::getsid(Some(Pid::from_raw(worker))).unwrap();
    assert_eq!(session.as_raw(), worker);
    assert_ne!(session.as_raw(), pid(&record["guard"]));
    live.signal(Signal::SIGTERM);
    live.ends().with_code(143);
}

#[test]
fn kill_9_of_a_guard_leaves_no_process_and_the_proof_is_true() {
    for hold in Hold::ALL {
        let scene = Scene::new();
        // One more that leads its own session, has no environment and does not end when it is told to.
        let fault = format!("{STAYS};grandchild-out-of-group@eager=true");
        let Some(call) = hold.around(sweep(&scene).fault(&fault)) else { continue };
        let (live, record) = measuring(call, &scene);
        if hold.is_had(&record) {
            assert!(renamed(&scene).len() >= 3, "{:?}", renamed(&scene));
            signal(pid(&record["guard"]), Signal::SIGKILL);
        }
        live.signal(Signal::SIGUSR1);
        let ended = live.ends();
        scene.wait_until_nothing_is_left();
        let torn = scene.run().events("torn-down").remove(0);
        let proof = &torn["proof"];
        ended.check(proof["group_empty"] == true && proof["port_closed"] == true, &format!("{proof}"));
        assert!(proof["held_by"] == hold.word() || hold == Hold::Cgroup, "{proof}");
    }
}

#[test]
fn a_cgroup_below_that_of_the_group_is_emptied_and_removed_too() {
    let scene = Scene::new();
    let (live, record) = measuring(sweep(&scene).fault(STAYS), &scene);
    if Hold::Cgroup.is_had(&record) {
        let dir = Path::new(record["cgroup"].as_str().unwrap());
        let below = dir.join("below/it");
        std::fs::create_dir_all(&below).unwrap();
        let (worker, _) = renamed(&scene).into_iter().find(|(_, line)| line.contains("Worker")).unwrap();
        std::fs::write(below.join("cgroup.procs"), worker.to_string()).unwrap();
        signal(pid(&record["guard"]), Signal::SIGKILL);
        live.signal(Signal::SIGTERM);
        live.ends();
        assert!(!dir.exists(), "{}", dir.display());
    } else {
        live.kill();
    }
    scene.wait_until_nothing_is_left();
}

#[test]
fn a_daemon_that_is_born_when_the_guard_dies_is_found() {
    for hold in Hold::ALL {
        let scene = Scene::new();
        // It waits for the death of its guard, does not end when it is told to, and then leaves by a double fork into a
        // session of its own, and overwrites its environment.
        let born = scene.path("born");
        let daemon = format!(
            "guard=$PPID\n\
             (trap '' TERM; while [ -e /proc/$guard/exe ]; do sleep 0.01; done\n\
             setsid --fork {BIN} sim-vllm __grandchild setsid; touch '{}') &",
            born.display()
        );
        let vllm = scene.vllm_that(&format!("if [ \"$1\" = serve ]; then\n{daemon}\nfi"));
        let fault = format!("VLLM_BENCH_SIM_FAULT={STAYS}");
        let call = scene.sweep_with(&vllm).set("--grace", ["2"]).also("--env", &fault);
        let Some(call) = hold.around(call) else { continue };
        let mut live = call.start();
        live.event(&["benchmark-launched", FIRST]);
        let record = scene.record("server");
        if hold.is_had(&record) {
            signal(pid(&record["guard"]), Signal::SIGKILL);
        }
        live.signal(Signal::SIGUSR1);
        let ended = live.ends();
        ended.check(born.exists() || hold == Hold::Cgroup, "the daemon was born");
        scene.wait_until_nothing_is_left();
        let proof = scene.run().events("torn-down").remove(0)["proof"].clone();
        ended.check(proof["group_empty"] == true && proof["killed"] == true, &format!("{proof}"));
    }
}

#[test]
fn what_a_double_kill_leaves_is_found_although_nothing_marks_it() {
    for (hold, stop) in [(Hold::Cgroup, false), (Hold::Descent, false), (Hold::Descent, true)] {
        let scene = Scene::new();
        let Some(call) = hold.around(sweep(&scene).fault(STAYS)) else { continue };
        let (live, record) = measuring(call, &scene);
        if !hold.is_had(&record) {
            live.kill();
            continue;
        }
        if hold == Hold::Descent {
            let workers = renamed(&scene).len();
            wait_for("every member is recorded", || {
                (scene.record("server")["seen"].as_array()?.len() > workers).then_some(())
            });
        }
        let guards = ["server", "benchmark"].map(|role| pid(&scene.record(role)["guard"]));
        live.signal(Signal::SIGSTOP);
        guards.into_iter().for_each(|guard| signal(guard, Signal::SIGKILL));
        live.kill();
        assert!(!renamed(&scene).is_empty(), "engines are still there");
        let proven = "is not proven";
        if stop {
            let results = scene.results();
            let call = scene.call(&["stop"]).set("--results-dir", [results.to_str().unwrap()]);
            let ended = hold.around(call).unwrap().without("--port").exits(0);
            ended.prints("ended what was left of the server").says(proven);
        } else {
            let call = sweep(&scene).fault(STAYS).flag("--resume");
            let ended = hold.around(call).unwrap().exits(0);
            ended.says("had left behind");
            ended.check(ended.stderr.contains(proven) == (hold == Hold::Descent), "what is not proven is said");
            scene.run().assert_passed(&tp2(FIRST));
            scene.run().assert_passed(&tp2(SECOND));
        }
        scene.wait_until_nothing_is_left();
    }
}

#[test]
fn a_stopped_guard_is_woken_and_the_run_ends_in_order() {
    let scene = Scene::new();
    let (live, record) = measuring(sweep(&scene).fault(STAYS), &scene);
    signal(pid(&record["guard"]), Signal::SIGSTOP);
    live.signal(Signal::SIGTERM);
    live.ends().with_code(143);
    let proof = scene.run().events("torn-down").remove(0)["proof"].clone();
    assert_eq!((&proof["group_empty"], &proof["killed"]), (&true.into(), &false.into()), "{proof}");
    scene.wait_until_nothing_is_left();
}

#[test]
fn a_guard_that_stays_stopped_is_replaced_and_members_are_still_told_to_end() {
    for by in [Signal::SIGINT, Signal::SIGUSR2] {
        let scene = Scene::new();
        let (live, record) = measuring(sweep(&scene).fault(STAYS), &scene);
        let guard = Pid::from_raw(pid(&record["guard"]));
        signal(guard.as_raw(), Signal::SIGSTOP);
        // Whoever wakes it has it stopped again at once.
        let stopping = std::thread::spawn(move || {
            while kill(guard, Signal::SIGSTOP).is_ok() {
                std::thread::yield_now();
            }
        });
        live.signal(by);
        let ended = live.ends();
        stopping.join().unwrap();
        ended.says("interrupted");
        let proof = scene.run().events("torn-down").remove(0)["proof"].clone();
        assert_eq!(proof["group_empty"], true, "{proof}");
        scene.wait_until_nothing_is_left();
    }
}

#[test]
fn a_stopped_guard_whose_run_was_killed_is_taken_over_by_the_next_command() {
    for hold in Hold::ALL {
        let scene = Scene::new();
        let Some(call) = hold.around(sweep(&scene).fault(STAYS)) else { continue };
        let (live, _) = measuring(call, &scene);
        let guards = ["server", "benchmark"].map(|role| pid(&scene.record(role)["guard"]));
        for guard in guards {
            signal(guard, Signal::SIGSTOP);
        }
        live.kill();
        let ended = hold.around(sweep(&scene).fault(STAYS).flag("--resume")).unwrap().exits(0);
        ended.check(!ended.stderr.contains("is not proven"), "their guards lived: nobody was lost from sight");
        scene.run().assert_passed(&tp2(FIRST));
        scene.wait_until_nothing_is_left();
    }
}

/// Listens on a port beside whoever listens there already.
fn beside(port: u16) -> std::net::TcpListener {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(([0, 0, 0, 0], port).into()).unwrap();
        socket.listen(64).unwrap().into_std().unwrap()
    });
    listener.set_nonblocking(false).unwrap();
    listener
}

/// Joins a port and answers like a vLLM, until the tests are over.
fn join(port: u16) {
    let listener = beside(port);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 2048]);
            let body = format!("{{\"object\":\"list\",\"data\":[{{\"id\":\"{MODEL}\",\"object\":\"model\"}}]}}");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
            let _ = write!(stream, "{head} {}\r\n\r\n{body}", body.len());
        }
    });
}

#[test]
fn a_connection_that_another_process_serves_makes_the_measurement_invalid_although_it_listens_no_more() {
    let scene = Scene::new();
    // Nothing is answered, and a new connection is opened for each request.
    let sweep = scene.sweep().fault("streams-fail:silent+all@eager=true").set("--num-prompts", ["2000"]);
    let sweep = sweep
        .set("--enforce-eager", ["true"])
        .set("--concurrency", ["2000"])
        .also("--bench-arg", "request-rate=50")
        .set("--client", ["builtin"]);
    let mut live = sweep.start();
    let port = live.event(&["server-launched", FIRST])["port"].as_u64().unwrap();
    live.event(&["benchmark-launched", FIRST]);
    let listener = beside(u16::try_from(port).unwrap());
    // The run may have seen the listener, and have ended, before a connection comes to it.
    listener.set_nonblocking(true).unwrap();
    let served = (0..500).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        listener.accept().ok()
    });
    drop(listener);
    let ended = live.ends().with_code(1);
    drop(served);
    let failure = scene.run().failure(FIRST);
    ended.check(failure["cause"] == "foreign-listener", &format!("{failure:#}"));
    // Whose socket it was can be told only while it is there.
    let said = failure["summary"].as_str().unwrap();
    let named = [format!("process {}", std::process::id()), "gone by now".to_owned()];
    ended.check(named.iter().any(|name| said.contains(name)), &format!("it is named: {failure:#}"));
}

#[test]
fn a_server_that_joins_the_port_makes_the_measurement_invalid_and_the_sweep_goes_on() {
    for client in ["vllm", "builtin"] {
        let scene = Scene::new();
        // Requests are never answered: the measurement lasts until it is ended.
        let fault = "streams-fail:silent+all@eager=true";
        let mut live = scene.sweep().fault(fault).set("--client", [client]).start();
        let port = live.event(&["server-launched", FIRST])["port"].as_u64().unwrap();
        live.event(&["benchmark-launched", FIRST]);
        join(u16::try_from(port).unwrap());
        let ended = live.ends().with_code(1);
        let run = scene.run();
        let failure = run.failure(FIRST);
        ended.check(failure["cause"] == "foreign-listener", &format!("{client}: {failure:#}"));
        let me = format!("process {}", std::process::id());
        ended.check(failure["summary"].as_str().unwrap().contains(&me), &format!("it is named: {failure:#}"));
        let proof = &failure["teardown"];
        assert_eq!(proof["port_closed"], true, "the server's own socket is closed: {proof}");
        ended.check(proof["port_held_by"].as_str().is_some_and(|who| who.contains(&me)), &format!("{proof}"));
        run.assert_passed(SECOND);
        let next = run.events("server-launched")[1]["port"].as_u64().unwrap();
        assert_ne!(next, port, "the next server has a port of its own");
    }
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let scene = Scene::new();
    // As `nohup` and the shell's `&` in a script do.
    let call = scene.sweep().fault(STAYS).through(&["env", "--ignore-signal=HUP,INT"]);
    let mut live = call.start();
    live.event(&["benchmark-launched", FIRST]);
    live.signal(Signal::SIGHUP);
    live.signal(Signal::SIGINT);
    live.signal(Signal::SIGTERM);
    let ended = live.ends().with_code(143);
    let run = scene.run();
    let heard: Vec<Value> = run.events("stop-requested").into_iter().map(|event| event["by"].clone()).collect();
    ended.check(heard == ["SIGTERM"], &format!("{heard:?}"));
    let status = scene.sweep().fault(STAYS).flag("--resume").exits(0);
    status.says("passed");
}

#[test]
fn the_marker_of_processes_is_not_the_users_to_set() {
    let scene = Scene::new();
    let refused = scene.sweep().also("--env", "GUARDED_BY_VLLM_BENCH=x").exits(2);
    refused.says("GUARDED_BY_VLLM_BENCH").says("vllm-bench sets it itself");
    let file = scene.path("sweep.yaml");
    std::fs::write(&file, "serve: {model: org/tiny}\nenv:\n  GUARDED_BY_VLLM_BENCH: x\n").unwrap();
    let refused = scene.call(&["run", file.to_str().unwrap()]).set("--engine", ["sim"]).exits(2);
    refused.says("sweep.yaml:3:3").says("env.GUARDED_BY_VLLM_BENCH").says("vllm-bench sets it itself");
    assert!(scene.runs().is_empty());
}
