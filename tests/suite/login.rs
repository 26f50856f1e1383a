//! Login shells: a profile is ended so that its traps run, one that takes long is named, and one can do without it.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Call, Scene, wait_for};

/// A profile like pyenv's: a script below it takes a lock, works, and gives the lock back when it ends, however it does.
/// `sleep` stands for a work that takes for ever.
fn profile(scene: &Scene) {
    let lock = scene.path("home/lock");
    let script = format!(
        "#!/usr/bin/env bash\nset -o noclobber\n: 2>/dev/null > '{0}' || exit 1\ntrap 'rm -f \"{0}\"' EXIT\n: >| '{0}.held'\nsleep 1000\n",
        lock.display()
    );
    let rehash = scene.program("home/rehash", &script);
    fs::write(scene.path("home/.bash_profile"), format!("'{}'\n", rehash.display())).unwrap();
}

fn locked(scene: &Scene) -> bool {
    scene.path("home/lock").exists()
}

/// Until the script would give its lock back; between taking it and the trap nobody can help it.
fn wait_until_locked(scene: &Scene) {
    wait_for("the profile has its lock", || scene.path("home/lock.held").exists().then_some(()));
}

fn sweep(scene: &Scene) -> Call<'_> {
    profile(scene);
    scene.sweep().set("--enforce-eager", ["true"])
}

/// Ends a run in the middle of the profile; no lock may be left.
fn ended(end: impl FnOnce(&Scene, i32)) {
    let scene = Scene::new();
    let live = sweep(&scene).start();
    wait_until_locked(&scene);
    end(&scene, live.pid());
    let _ = live.ends();
    scene.wait_until_nothing_is_left();
    assert!(!locked(&scene), "the profile's lock is left");
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[test]
fn an_interrupt_in_the_profile_leaves_no_lock() {
    ended(|_, pid| signal(pid, Signal::SIGINT));
}

#[test]
fn a_termination_in_the_profile_leaves_no_lock() {
    ended(|_, pid| signal(pid, Signal::SIGTERM));
}

#[test]
fn a_stop_in_a_hurry_in_the_profile_leaves_no_lock() {
    ended(|scene, _| {
        let results = scene.results();
        let _ = scene.call(&["stop", "--now"]).set("--results-dir", [results.to_str().unwrap()]).ends();
    });
}

#[test]
fn a_limit_that_ends_in_the_profile_leaves_no_lock() {
    let scene = Scene::new();
    let run = sweep(&scene).set("--timeout-startup", ["2s"]).exits(1);
    run.check(!locked(&scene), "the profile's lock is left");
}

#[test]
fn a_killed_orchestrator_leaves_no_lock() {
    let scene = Scene::new();
    let live = sweep(&scene).start();
    wait_until_locked(&scene);
    live.kill();
    scene.wait_until_nothing_is_left();
    assert!(!locked(&scene), "the profile's lock is left");
}

#[test]
fn a_killed_guard_leaves_no_lock() {
    ended(|scene, _| {
        let guard = scene.record("server")["guard"]["pid"].as_i64().unwrap();
        signal(i32::try_from(guard).unwrap(), Signal::SIGKILL);
    });
}

#[test]
fn a_profile_that_takes_long_is_named_with_what_it_waits_for_and_how_to_go_without() {
    let scene = Scene::new();
    let mut live = sweep(&scene).start();
    live.event(&["notice", "the login shell has run this user's profile for 5 s, now in `sleep 1000` (process "]);
    live.signal(Signal::SIGINT);
    let ended = live.ends();
    ended.says("`--login off` does without the profile");
    assert!(!locked(&scene));
}

#[test]
fn without_a_login_shell_no_profile_is_read() {
    let scene = Scene::new();
    fs::write(scene.path("home/.bash_profile"), format!("touch '{}'\n", scene.path("read").display())).unwrap();
    let run = scene.sweep().set("--enforce-eager", ["true"]).set("--login", ["off"]).exits(0);
    run.check(!scene.path("read").exists(), "the profile was read");
    let run = scene.sweep().set("--enforce-eager", ["true"]).flag("--fresh").exits(0);
    run.check(scene.path("read").exists(), "the profile was not read");
}
