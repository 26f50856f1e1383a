//! One run per results directory and per port: the second says who holds it, and a crash frees both.

use std::net::TcpListener;

use crate::support::{FIRST, SECOND, Scene, skipped};

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
fn a_second_run_on_the_same_port_is_told_who_holds_it() {
    let scene = Scene::new();
    let mut first = scene.sweep().fault(HANGS).start();
    let port = first.event(&["server-launched"])["port"].as_u64().unwrap().to_string();
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
