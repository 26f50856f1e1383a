//! Devices are never shared by two runs, whoever started them. Here the device is the machine's set of cores: the fake `vllm` of these
//! tests is no simulated run, which would lock nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{BIN, Call, DEVICE_LOCKS, FIRST, Scene, free_port, skipped, wait_for};

/// A `vllm` whose client waits until there is a file `go`.
fn gated(scene: &Scene) -> PathBuf {
    let go = scene.path("go");
    scene.vllm_that(&format!("if [ \"$1\" = bench ]; then until [ -e '{}' ]; do sleep 0.02; done; fi", go.display()))
}

/// The user of these tests, as messages have it.
fn me() -> String {
    let uid = nix::unistd::geteuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

fn open_gate(scene: &Scene) {
    fs::write(scene.path("go"), "").unwrap();
}

/// A sweep of one experiment into a results directory of its own.
fn sweep<'s>(scene: &'s Scene, vllm: &Path, results: &str) -> Call<'s> {
    let results = scene.path(results);
    scene
        .sweep_with(vllm)
        .set("--enforce-eager", ["true"])
        .set("--grace", ["2"])
        .set("--results-dir", [results.to_str().unwrap()])
}

#[test]
fn the_second_run_on_a_device_is_refused_and_told_who_holds_it() {
    let scene = Scene::new();
    let vllm = gated(&scene);
    let mut first = sweep(&scene, &vllm, "results").start();
    first.event(&["benchmark-launched"]);
    let run = scene.run();
    let refused = sweep(&scene, &vllm, "other").exits(4);
    refused.says(&format!("is held by process {}", first.pid())).says(&format!(" of {}", me())).says(&run.name());
    refused.says("cores:").says("`--wait` waits until they are free");
    refused.says(&format!("it is yours: `vllm-bench stop {}` ends it", run.0.display()));
    assert!(scene.runs_in(&scene.path("other")).is_empty(), "nothing was begun");
    let checked = scene.call(&["check", "--port", "auto"]).set("--vllm-bin", [vllm.to_str().unwrap()]).ends();
    checked.prints("a run would be refused: cores:").prints(&format!("locked by process {}", first.pid()));
    let json = scene.call(&["check", "--json", "--port", "auto"]).set("--vllm-bin", [vllm.to_str().unwrap()]).ends();
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    let holder = &report["inventory"]["holders"][0];
    assert_eq!(
        (holder["pid"].as_i64(), holder["run"].as_str()),
        (Some(first.pid().into()), run.0.to_str()),
        "{report}"
    );
    assert_eq!(report["inventory"]["kind"], "cpu");
    assert!(report["inventory"]["units"][0]["address"].as_str().unwrap().starts_with("cores:"));
    open_gate(&scene);
    first.ends().with_code(0);
    run.assert_passed(FIRST);
    sweep(&scene, &vllm, "other").exits(0);
    let left: Vec<_> = fs::read_dir(scene.path("devices")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".lock")), "no note is left: {left:?}");
}

#[test]
fn a_run_that_waits_begins_when_the_device_is_free() {
    let scene = Scene::new();
    let vllm = gated(&scene);
    let mut first = sweep(&scene, &vllm, "results").start();
    first.event(&["benchmark-launched"]);
    let second = sweep(&scene, &vllm, "other").flag("--wait").start();
    let waits = || {
        fs::read_dir(scene.path("calls"))
            .unwrap()
            .flatten()
            .any(|file| fs::read_to_string(file.path()).is_ok_and(|text| text.contains("waiting for devices: cores:")))
    };
    wait_for("the second run says whom it waits for", || waits().then_some(()));
    assert!(scene.runs_in(&scene.path("other")).is_empty());
    let pid = first.pid();
    open_gate(&scene);
    first.ends().with_code(0);
    let second = second.ends().with_code(0);
    second.says(&format!("is held by process {pid}")).says("the devices are free after");
    assert_eq!(second.stderr.matches("waiting for devices: ").count(), 1, "it is said once");
    let run = scene.runs_in(&scene.path("other")).remove(0);
    run.assert_passed(FIRST);
    assert!(run.journal_text().contains("until the devices were free: cores:"), "{}", run.journal_text());
}

#[test]
fn a_wait_has_an_end() {
    let scene = Scene::new();
    let vllm = gated(&scene);
    let mut first = sweep(&scene, &vllm, "results").start();
    first.event(&["benchmark-launched"]);
    let over = sweep(&scene, &vllm, "other").set("--wait", ["1s"]).exits(4);
    over.says(&format!("is held by process {}", first.pid())).says("(waited ");
    let second = sweep(&scene, &vllm, "other").flag("--wait").start();
    wait_for("the second run waits", || {
        let waits = |file: &fs::DirEntry| {
            fs::read_to_string(file.path()).is_ok_and(|text| text.contains("(Ctrl-C ends the wait)"))
        };
        (fs::read_dir(scene.path("calls")).unwrap().flatten().filter(waits).count() == 2).then_some(())
    });
    second.signal(Signal::SIGINT);
    second.ends().with_code(130).says("the wait for devices was ended: nothing was begun");
    assert!(scene.runs_in(&scene.path("other")).is_empty());
    sweep(&scene, &vllm, "other").set("--wait", ["soon"]).exits(2).says("expected a duration").says("before the flags");
    open_gate(&scene);
    first.ends().with_code(0);
}

#[test]
fn a_killed_run_holds_its_device_until_its_servers_have_ended_and_no_longer() {
    let scene = Scene::new();
    let vllm = gated(&scene);
    let mut first = sweep(&scene, &vllm, "results").start();
    first.event(&["benchmark-launched"]);
    let pid = first.pid();
    first.kill();
    // The next command of this user ends what is left, and takes the device then; nobody has to clean up.
    open_gate(&scene);
    sweep(&scene, &vllm, "results").flag("--resume").exits(0);
    scene.run().assert_passed(FIRST);
    let left: Vec<_> = fs::read_dir(scene.path("devices")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(
        left.iter().all(|name| name.to_string_lossy().ends_with(".lock")),
        "the killed run's note is gone: {left:?}"
    );
    let check = scene.call(&["check", "--port", "auto"]).set("--vllm-bin", [vllm.to_str().unwrap()]).ends();
    check.check(!check.stdout.contains(&format!("process {pid}")), "the killed run is not named any more");
    check.prints("no other run holds a device");
}

#[test]
fn a_folder_that_cannot_be_trusted_is_refused_and_locks_can_be_left_out() {
    let scene = Scene::new();
    let vllm = scene.vllm_that("");
    let with = |folder: &Path| sweep(&scene, &vllm, "results").env(DEVICE_LOCKS, folder.to_str().unwrap());
    let (link, file, open) = (scene.path("link"), scene.path("file"), scene.path("open"));
    let read_only = scene.path("read-only");
    fs::create_dir(&read_only).unwrap();
    std::os::unix::fs::symlink(scene.root(), &link).unwrap();
    fs::write(&file, "").unwrap();
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    for (folder, words) in [
        (link.as_path(), "it is a link"),
        (&file, "it is no folder"),
        (&open, "its mode is 0777"),
        (Path::new("/proc/locks-of-nobody"), "No such file"),
    ] {
        with(folder).exits(4).says("where devices are locked").says(words).says("--device-locks DIR");
        scene.call(&["check", "--port", "auto", "--device-locks", folder.to_str().unwrap()]).exits(4).prints(words);
    }
    let mounted = format!("mount -t tmpfs -o ro none '{}' && exec \"$@\"", read_only.display());
    let through = ["unshare", "--mount", "sh", "-c", &mounted, "sh"];
    if std::process::Command::new(through[0]).args(&through[1..]).arg("true").output().is_ok_and(|o| o.status.success())
    {
        for folder in [read_only.join("devices"), read_only.clone()] {
            with(&folder).through(&through).exits(4).says("Read-only file system").says("--device-locks DIR");
        }
    } else {
        skipped("a read-only folder of locks: `unshare --mount` is not to be had here");
    }
    assert!(scene.runs().is_empty(), "nothing was begun");
    with(&scene.path("unused")).set("--device-locks", ["none"]).exits(0).says("devices are not locked");
    assert!(!scene.path("unused").exists());
}

#[test]
fn a_simulated_run_locks_nothing() {
    let scene = Scene::new();
    scene.sweep().set("--enforce-eager", ["true"]).exits(0);
    assert!(!scene.path("devices").exists());
}

#[test]
fn runs_on_other_cores_go_on_side_by_side() {
    let scene = Scene::new();
    let vllm = gated(&scene);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let bound = |core: usize| std::process::Command::new("taskset").args(["-c", &core.to_string(), "true"]).output();
    if cores < 2 || !(0..2).all(|core| bound(core).is_ok_and(|output| output.status.success())) {
        skipped("runs on other cores: this machine has one core, or no `taskset`");
        return;
    }
    let mut first = sweep(&scene, &vllm, "results").through(&["taskset", "-c", "0"]).start();
    first.event(&["benchmark-launched"]);
    sweep(&scene, &vllm, "other").exits(4).says("is held by process");
    let second = sweep(&scene, &vllm, "other").through(&["taskset", "-c", "1"]).start();
    wait_for("the second run has begun", || {
        scene
            .runs_in(&scene.path("other"))
            .first()
            .filter(|run| run.journal_text().contains("benchmark-launched"))
            .map(drop)
    });
    open_gate(&scene);
    first.ends().with_code(0);
    second.ends().with_code(0);
}

/// Acceptance 3 of the lanes: two sweeps of two users on one device.
#[test]
fn two_users_never_share_a_device() {
    const OTHER: &str = "4321";
    let as_other = ["setpriv", "--reuid", OTHER, "--regid", OTHER, "--clear-groups"];
    let works = std::process::Command::new(as_other[0]).args(&as_other[1..]).arg("true").output();
    if !nix::unistd::geteuid().is_root() || !works.is_ok_and(|output| output.status.success()) {
        skipped("two users on one device: needs root and `setpriv`");
        return;
    }
    let scene = Scene::new();
    // What the other user runs and writes to.
    let program = scene.path("vllm-bench");
    fs::copy(BIN, &program).unwrap();
    fs::set_permissions(scene.root(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["theirs", "their-home"] {
        fs::create_dir(scene.path(name)).unwrap();
        std::os::unix::fs::chown(scene.path(name), Some(4321), Some(4321)).unwrap();
    }
    let go = scene.path("go");
    let text = format!(
        "#!/bin/bash\nif [ \"$1\" = bench ]; then until [ -e '{}' ]; do sleep 0.02; done; fi\nexec '{}' sim-vllm \"$@\"\n",
        go.display(),
        program.display()
    );
    let vllm = scene.program("fake/vllm", &text);
    let script = format!("shift; exec '{}' \"$@\"", program.display());
    let through: Vec<&str> = as_other.into_iter().chain(["sh", "-c", &script, "sh"]).collect();
    let theirs = || {
        let home = scene.path("their-home");
        // Users do not see each other's locks on ports, and this one's other tests take the first ones.
        let port = free_port().to_string();
        sweep(&scene, &vllm, "theirs").set("--port", [&*port]).env("HOME", home.to_str().unwrap()).through(&through)
    };

    let mut mine = sweep(&scene, &vllm, "results").start();
    mine.event(&["benchmark-launched"]);
    let refused = theirs().exits(4);
    refused.says(&format!("is held by process {} of root", mine.pid())).says(&scene.run().name());
    let waiting = theirs().flag("--wait").start();
    let says = |words: &str| {
        let files = fs::read_dir(scene.path("calls")).unwrap().flatten();
        files.filter(|file| fs::read_to_string(file.path()).is_ok_and(|text| text.contains(words))).count()
    };
    wait_for("the other user's run waits", || (says("waiting for devices: cores:") == 1).then_some(()));
    fs::write(&go, "").unwrap();
    mine.ends().with_code(0);
    waiting.ends().with_code(0).says("the devices are free after");

    // A folder that only its owner can write to.
    let narrow = scene.path("narrow");
    fs::create_dir(&narrow).unwrap();
    let refused = theirs().env(DEVICE_LOCKS, narrow.to_str().unwrap()).exits(4);
    refused.says("Permission denied").says(&format!("belongs to {}, who can say `chmod 1777", me()));

    // And the other way round: what the other user made can be locked by this one.
    fs::remove_file(&go).unwrap();
    let holder = theirs().start();
    let run = wait_for("the other user measures", || {
        let runs = scene.runs_in(&scene.path("theirs"));
        runs.into_iter().find(|run| {
            run.journal_text().contains("benchmark-launched") && !run.journal_text().contains("run-finished")
        })
    });
    let refused = sweep(&scene, &vllm, "results").exits(4);
    refused.says(&format!("is held by process {} of user {OTHER}", holder.pid())).says(&run.name());
    fs::write(&go, "").unwrap();
    holder.ends().with_code(0);
    sweep(&scene, &vllm, "results").exits(0);
    let _ = fs::remove_dir_all(format!("/tmp/vllm-bench-{OTHER}"));
}

/// A machine with Intel cards, in a mount namespace of its own: `machine(scene, 4)` goes before a command.
fn machine(scene: &Scene, cards: u32) -> Option<Vec<String>> {
    let script = scene.program(
        "machine.sh",
        "#!/bin/bash\nset -e\ncards=$1; shift\n\
         mount -t tmpfs -o mode=755 none /sys\nmkdir -p /sys/class/drm /sys/bus/pci/devices\n\
         mkdir /tmp/.dev.$$; mount --rbind /dev /tmp/.dev.$$; mount -t tmpfs -o mode=755 none /dev\n\
         for name in null zero full random urandom tty; do cp -a /tmp/.dev.$$/$name /dev/$name; done\n\
         umount -l /tmp/.dev.$$; rmdir /tmp/.dev.$$\n\
         ln -s /proc/self/fd /dev/fd; mkdir -p /dev/shm /dev/dri\n\
         for ((i = 0; i < cards; i++)); do\n\
           a=$(printf '0000:%02x:00.0' $((3 + i * 16))); d=/sys/devices/pci0000:00/0000:00:0$((i / 2 + 1)).0/0000:f$((i / 2)):00.0/0000:e$i:00.0/$a\n\
           mkdir -p $d; echo 0x8086 > $d/vendor; echo 0xe211 > $d/device; echo $((i / 2)) > $d/numa_node\n\
           printf 'DRIVER=xe\\nPCI_SLOT_NAME=%s\\n' $a > $d/uevent\n\
           mkdir -p /sys/class/drm/renderD$((128 + i)); ln -s $d /sys/class/drm/renderD$((128 + i))/device; ln -s $d /sys/bus/pci/devices/$a\n\
           cp -a /dev/null /dev/dri/renderD$((128 + i))\n\
         done\n\
         if [ -n \"$HOLD\" ]; then exec 3< /dev/dri/$HOLD; sleep 600 & holder=$!; exec 3<&-; trap 'kill $holder; wait $holder || true' EXIT; fi\n\
         \"$@\"\n",
    );
    let through: Vec<String> =
        ["unshare", "--mount", script.to_str().unwrap(), &cards.to_string()].map(str::to_owned).into();
    let works = std::process::Command::new(&through[0])
        .args(&through[1..])
        .args(["test", "-e", "/dev/dri/renderD128"])
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        skipped("a machine with Intel cards: `unshare --mount` and `mknod` as root are not to be had here");
        return None;
    }
    Some(through)
}

#[test]
fn cards_are_locked_by_their_addresses_and_strangers_on_them_are_recorded() {
    let scene = Scene::new();
    let Some(through) = machine(&scene, 4) else { return };
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    let vllm = gated(&scene);
    let on = |mask: &str, results: &str| sweep(&scene, &vllm, results).through(&through).env("ZE_AFFINITY_MASK", mask);
    let mut first = on("0,1", "results").start();
    let script = first.event(&["benchmark-launched"]);
    assert!(script.is_object());
    on("1,2", "other").exits(4).says("0000:13:00.0 is held by process ");
    let both = on("0,1", "other").exits(4);
    both.says("0000:03:00.0 and 0000:13:00.0 are held by process ");
    both.check(both.stderr.matches("are held by").count() == 1, "the holder is told once");
    // Lanes on no device at all.
    let none = on("9", "other").set("--parallel", ["auto"]).exits(4);
    none.says("`ZE_AFFINITY_MASK=9` leaves no XPU device").says("in `ZE_AFFINITY_MASK`, or unset it");
    // What the plan tells the servers counts, not what this shell sees.
    let by_plan = sweep(&scene, &vllm, "other").through(&through).also("--env", "ZE_AFFINITY_MASK=0");
    by_plan.exits(4).says("0000:03:00.0 is held by process ");
    let check = scene.call(&["check", "--json", "--port", "auto"]).through(&through).ends();
    let report = &serde_json::from_str::<Value>(&check.stdout).unwrap();
    let line = report["lines"].as_array().unwrap().iter().find(|line| line["name"] == "device-locks").unwrap();
    let told = line["data"]["held"].as_array().unwrap();
    assert_eq!(told.len(), 1, "the holder is told once: {line}");
    assert!(told[0].as_str().unwrap().starts_with("0000:03:00.0 and 0000:13:00.0 are held by process "), "{line}");
    let inventory = &report["inventory"];
    let units = inventory["units"].as_array().unwrap();
    let seen: Vec<_> =
        units.iter().map(|unit| (unit["address"].as_str().unwrap(), unit["numa"].as_u64().unwrap())).collect();
    assert_eq!(seen, [("0000:03:00.0", 0), ("0000:13:00.0", 0), ("0000:23:00.0", 1), ("0000:33:00.0", 1)]);
    assert_eq!(units[3]["group"], "pcie-switch:0000:23:00.0", "{inventory}");
    let held: Vec<_> =
        inventory["holders"].as_array().unwrap().iter().map(|holder| holder["device"].as_str().unwrap()).collect();
    assert_eq!(held, ["0000:03:00.0", "0000:13:00.0"]);

    open_gate(&scene);
    let second = on("2,3", "other").env("HOLD", "renderD131").exits(0);
    second.says("0000:33:00.0 is also used by process ").says("`sleep 600`");
    first.ends().with_code(0);
    let of = |results: &str| {
        scene.runs_in(&scene.path(results)).remove(0).result(FIRST)["vllm_bench"]["shared_with"].clone()
    };
    assert!(of("other")[0].as_str().unwrap().contains("0000:33:00.0 is also used by process "), "{}", of("other"));
    assert_eq!(of("results"), Value::Null, "nobody was on the cards of the first");
    second.prints("is also used by process");
}

/// Nobody reads what a detached run has to say before it begins, once the call that started it is gone.
#[test]
fn a_detached_run_does_not_wait_for_devices_alone() {
    let scene = Scene::new();
    let vllm = gated(&scene);
    let mut first = sweep(&scene, &vllm, "results").start();
    first.event(&["benchmark-launched"]);
    let detached = sweep(&scene, &vllm, "other").flag("--detach").flag("--wait").stays().start();
    let waits = || {
        fs::read_dir(scene.path("calls"))
            .unwrap()
            .flatten()
            .any(|file| fs::read_to_string(file.path()).is_ok_and(|text| text.contains("waiting for devices: cores:")))
    };
    wait_for("the detached run waits", || waits().then_some(()));
    let of_detached = || scene.processes().into_iter().filter(|(_, line)| line.contains("--detached-child")).count();
    assert_eq!(of_detached(), 1);
    detached.kill();
    wait_for("the detached run gives up", || (of_detached() == 0).then_some(()));
    assert!(scene.runs_in(&scene.path("other")).is_empty());
    let detached = sweep(&scene, &vllm, "other").flag("--detach").flag("--wait").stays().start();
    wait_for("the detached run waits", || (of_detached() == 1).then_some(()));
    open_gate(&scene);
    first.ends().with_code(0);
    detached.ends().with_code(0).prints("a new run has begun");
    wait_for("the detached run ends", || (of_detached() == 0).then_some(()));
    scene.runs_in(&scene.path("other")).remove(0).assert_passed(FIRST);
}

/// A container that shares the folder of the locks, but not the processes.
#[test]
fn a_holder_in_another_pid_namespace_is_named_by_its_note() {
    let wrapper = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let works = std::process::Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        skipped("a holder in another PID namespace: `unshare --pid --mount` is not to be had here");
        return;
    }
    let scene = Scene::new();
    let vllm = gated(&scene);
    let mut first = sweep(&scene, &vllm, "results").start();
    first.event(&["benchmark-launched"]);
    let refused = sweep(&scene, &vllm, "other").through(&wrapper).exits(4);
    let who = format!("is held by a process that cannot be seen from here (of another container) of {}", me());
    refused.says(&who).says(&scene.run().name());
    open_gate(&scene);
    first.ends().with_code(0);
    sweep(&scene, &vllm, "other").through(&wrapper).exits(0);
}
