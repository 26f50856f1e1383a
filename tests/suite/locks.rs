//! One run per results directory and per port: the second says who holds it, and a crash frees both.

use std::net::TcpListener;

use crate::support::{FIRST, SECOND, Scene, free_port, skipped};

/// A run that stays in its first experiment, but only in the first attempt.
const HANGS: &str = "benchmark-hangs@eager=true#1";

#[test]
fn a_second_run_on_the_same_results_directory_is_told_who_holds_it() {
    let scene = Scene::new();
    let mut first = scene.sweep().fault(HANGS).start();
    first.event(&["benchmark-launched"]);
    let second = scene.sweep().exits(5);
    second.says(&format!("another run holds `{}`", scene.results().display()));
    second.says(&format!("process {} of ", first.pid())).says(&scene.run().name());
    second.says("vllm-bench stop");
    assert_eq!(scene.runs().len(), 1, "the second run leaves nothing behind");
    first.kill();
    scene.wait_until_nothing_is_left();
    scene.sweep().fault(HANGS).flag("--resume").exits(0);
    let run = scene.run();
    run.assert_passed(FIRST);
    run.assert_passed(SECOND);
}

#[test]
fn a_run_that_lives_is_not_resumed_although_the_file_of_its_lock_was_removed() {
    let scene = Scene::new();
    let mut first = scene.sweep().fault(HANGS).start();
    first.event(&["benchmark-launched"]);
    let journal = scene.run().path("journal.jsonl");
    let refused = |why: &str| {
        let _ = std::fs::remove_file(scene.results().join(".vllm-bench.lock"));
        let lines = std::fs::read_to_string(&journal).unwrap();
        let ended = scene.sweep().fault(HANGS).set("--resume", [scene.run().name().as_str()]).exits(5);
        ended.says("another run holds `").says(&format!("process {} of ", first.pid())).says("vllm-bench stop");
        assert_eq!(std::fs::read_to_string(&journal).unwrap(), lines, "{why}: nothing was written into the run");
    };
    refused("its journal names it");
    let lines = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, "").unwrap();
    refused("its process groups name it");
    first.kill();
    scene.wait_until_nothing_is_left();
    std::fs::write(&journal, lines).unwrap();
    scene.sweep().fault(HANGS).flag("--resume").exits(0);
}

#[test]
fn a_second_run_on_the_same_port_is_told_who_holds_it() {
    let scene = Scene::new();
    // None of those that other tests take by themselves.
    let port = free_port().to_string();
    let mut first = scene.sweep().set("--port", [port.as_str()]).fault(HANGS).start();
    first.event(&["benchmark-launched"]);
    let elsewhere = scene.path("elsewhere");
    let second = || scene.sweep().set("--results-dir", [elsewhere.to_str().unwrap()]).set("--port", [port.as_str()]);
    let refused = second().exits(4);
    refused.says(&format!("another run of vllm-bench holds port {port}: process {}", first.pid()));
    assert!(scene.runs_in(&elsewhere).is_empty());
    first.kill();
    scene.wait_until_nothing_is_left();
    second().exits(0);
    scene.runs_in(&elsewhere)[0].assert_passed(SECOND);
}

#[test]
fn a_foreign_listener_on_the_port_is_named() {
    let scene = Scene::new();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let refused = scene.sweep().set("--port", [port.to_string().as_str()]).exits(4);
    refused.says(&format!("port {port} is taken by process {}", std::process::id())).says("--port auto");
    assert!(scene.runs().is_empty(), "nothing was begun");
}

#[test]
fn port_auto_passes_over_a_taken_port() {
    let scene = Scene::new();
    // The first port that no run has claimed, as a run would find it. Bound under its lock, so that no other test can
    // have chosen it meanwhile.
    let locks = std::path::PathBuf::from(format!("/tmp/vllm-bench-{}", nix::unistd::geteuid()));
    std::fs::create_dir_all(&locks).unwrap();
    let taken = (8000..8100).find_map(|port| {
        let file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(locks.join(format!("port-{port}.lock")))
            .unwrap();
        file.try_lock().ok()?;
        TcpListener::bind(("0.0.0.0", port)).ok()
    });
    let taken = taken.expect("a port that nobody has");
    scene.sweep().set("--enforce-eager", ["true"]).exits(0);
    let port = scene.run().events("server-launched")[0]["port"].as_u64().unwrap();
    assert_ne!(port, u64::from(taken.local_addr().unwrap().port()));
    drop(taken);
}

#[test]
fn two_runs_at_once_choose_different_ports() {
    let scene = Scene::new();
    let other = scene.path("other");
    let mut first = scene.sweep().fault(HANGS).start();
    let port = first.event(&["server-launched"])["port"].clone();
    scene.sweep().set("--results-dir", [other.to_str().unwrap()]).set("--enforce-eager", ["true"]).exits(0);
    assert_ne!(scene.runs_in(&other)[0].events("server-launched")[0]["port"], port);
    first.kill();
    scene.wait_until_nothing_is_left();
}

/// Two containers that share `/tmp` see each other's records and locks, but not each other's processes.
#[test]
fn a_run_in_another_pid_namespace_is_left_alone() {
    let wrapper =
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let works = std::process::Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) || !nix::unistd::geteuid().is_root() {
        skipped("two PID namespaces with one /tmp: `unshare --user --pid --mount` as root is not to be had here");
        return;
    }
    let scene = Scene::new();
    let other = scene.path("other");
    let mut first = scene.sweep().fault(HANGS).start();
    first.event(&["benchmark-launched"]);
    let before = scene.records().len();
    scene.sweep().set("--results-dir", [other.to_str().unwrap()]).through(&wrapper).exits(0);
    assert_eq!(scene.records().len(), before, "its records are still there");
    let refused = scene.sweep().through(&wrapper).exits(5);
    refused.says("another run holds");
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.ends().with_code(143);
}

/// Between the look at a port and the server's bind somebody else takes it.
#[test]
fn a_stolen_port_costs_one_start_and_no_experiment() {
    let scene = Scene::new();
    let (wanted, stolen) = (scene.path("wanted"), scene.path("stolen"));
    let vllm = scene.vllm_that(&format!(
        "if [ \"$1\" = serve ] && [ ! -e '{stolen}' ]; then\n\
         while [ $# -gt 0 ] && [ \"$1\" != --port ]; do args+=(\"$1\"); shift; done\n\
         echo \"$2\" > '{wanted}.new'; mv '{wanted}.new' '{wanted}'\n\
         until [ -e '{stolen}' ]; do sleep 0.02; done\n\
         set -- \"${{args[@]}}\" \"$@\"\n\
         fi",
        stolen = stolen.display(),
        wanted = wanted.display(),
    ));
    // Two workloads on each start: both would be lost with it.
    let live = scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).set("--runs", ["2"]).start();
    let port: u16 = crate::support::wait_for("a server that is about to bind", || {
        std::fs::read_to_string(&wanted).ok()?.trim().parse().ok()
    });
    let thief = TcpListener::bind(("0.0.0.0", port)).unwrap();
    std::fs::write(&stolen, "").unwrap();
    let ended = live.ends().with_code(0);
    ended.says(&format!("port {port} was taken by somebody else meanwhile: the next one is tried at once"));
    let run = scene.run();
    run.assert_passed(FIRST);
    run.assert_passed(&format!("{FIRST}_run2"));
    let ports: Vec<u64> = run.events("server-launched").iter().map(|event| event["port"].as_u64().unwrap()).collect();
    assert!(ports[0] == u64::from(port) && ports.len() == 2 && ports[1] != ports[0], "{ports:?}");
    drop(thief);
}

#[test]
fn stop_ends_no_run_of_another_place_unasked() {
    let scene = Scene::new();
    let mut live = scene.sweep().fault(HANGS).start();
    live.event(&["benchmark-launched"]);
    let place = scene.results().display().to_string();
    // The scene's results directory is none of the usual ones.
    let refused = scene.call(&["stop"]).exits(3);
    refused.says("nothing to stop").says("./results").says("--all");
    assert!(!scene.run().journal_text().contains("stop-requested"));
    scene.call(&["stop", "--results-dir", &place]).exits(0).prints("has ended");
    live.ends().with_code(143);
}

/// In a namespace of its own: `--all` would end the runs of other tests.
#[test]
fn stop_all_ends_every_run_of_this_user() {
    let wrapper =
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let works = std::process::Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        skipped("`stop --all`: `unshare --user --pid --mount` is not to be had here");
        return;
    }
    let scene = Scene::below(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")));
    std::fs::create_dir(scene.path("tmp")).unwrap();
    let inside = scene.program(
        "inside.sh",
        &format!(
            "#!/bin/bash\n\
             mount --bind '{root}/tmp' /tmp || exit 90\n\
             \"$@\" & run=$!\n\
             until grep -qs benchmark-launched '{root}'/results/*/journal.jsonl; do sleep 0.02; kill -0 $run || exit 91; done\n\
             cd /; {bin} stop; echo \"unasked $?\"; kill -0 $run && echo alive\n\
             {bin} stop --all; echo \"all $?\"; wait $run; exit $?\n",
            root = scene.root().display(),
            bin = crate::support::BIN,
        ),
    );
    let through: Vec<&str> = wrapper.into_iter().chain([inside.to_str().unwrap()]).collect();
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port().to_string();
    let ended = scene.sweep().fault(HANGS).set("--port", [port.as_str()]).through(&through).exits(143);
    ended.prints("unasked 3\nalive\n").prints("has ended").prints("all 0\n");
}

#[test]
fn a_forged_lock_makes_stop_end_nobody() {
    let scene = Scene::new();
    scene.sweep().set("--enforce-eager", ["true"]).exits(0);
    let mut innocent = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = innocent.id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start: u64 = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
    let path = scene.results().join(".vllm-bench.lock");
    let lock = std::fs::File::options().write(true).truncate(true).open(&path).unwrap();
    lock.lock().unwrap();
    let forged = serde_json::json!({
        "process": {"pid": pid, "start-time": start}, "user": "root", "since": "now", "run": scene.run().0,
    });
    std::fs::write(&path, forged.to_string()).unwrap();
    let refused = scene.call(&["stop", "--results-dir", scene.results().to_str().unwrap()]).exits(4);
    refused.says(&format!("its lock names process {pid}, which is no vllm-bench"));
    scene.call(&["stop", "--now", "--results-dir", scene.results().to_str().unwrap()]).exits(4);
    assert!(innocent.try_wait().unwrap().is_none(), "an innocent process was ended");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}
