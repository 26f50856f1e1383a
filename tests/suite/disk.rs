//! A full or read-only disk is a clear error at once, and no server is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Scene, skipped};

/// A small file system of its own; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount.
    fn new(scene: &Scene, options: &str) -> Option<Self> {
        let path = scene.path("disk");
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "vb-it"]).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        skipped("a small file system cannot be mounted here: nothing is known about full and read-only disks");
        None
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Leaves so many bytes free.
    fn fill_up_to(&self, free: u64) {
        let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
        let available = stat.blocks_available() * stat.fragment_size();
        fs::write(self.0.join("filler"), vec![0; usize::try_from(available - free).unwrap()]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn assert_clear(ended: &crate::support::Ended<'_>, place: &Path) {
    ended.says("error: could not write `").says(&place.display().to_string());
    ended.says("because: ").says("hint: ");
}

#[test]
fn a_full_disk_before_the_start_is_a_clear_error() {
    let scene = Scene::new();
    let Some(disk) = Disk::new(&scene, "size=256k") else { return };
    disk.fill_up_to(8192);
    let ended = scene.sweep().set("--results-dir", [disk.path()]).exits(5);
    assert_clear(&ended, &disk.0);
    ended.says("No space left on device").says("free space on that disk");
}

/// The log grows until nothing fits any more.
#[test]
fn a_disk_that_fills_while_a_server_runs_ends_the_run_and_the_server() {
    let scene = Scene::new();
    let Some(disk) = Disk::new(&scene, "size=4m") else { return };
    let ended = scene.sweep().fault("server-floods;benchmark-hangs").set("--results-dir", [disk.path()]).exits(5);
    assert_clear(&ended, &disk.0);
    ended.says("No space left on device").says("free space on that disk");
    assert_eq!(scene.left(), [""; 0], "the server is gone");
    // With room again it goes on.
    let run = scene.runs_in(&disk.0).remove(0);
    for log in fs::read_dir(run.path("logs")).unwrap().flatten() {
        fs::remove_file(log.path()).unwrap();
    }
    run.journal();
}

/// The kernel's signal would end the program without a word.
#[test]
fn a_limit_of_file_sizes_is_a_clear_error() {
    let limited = |blocks: u32| format!("ulimit -f {blocks}; exec \"$@\"");
    let scene = Scene::new();
    let ended = scene.sweep().through(&["bash", "-c", &limited(2), "sh"]).exits(5);
    assert_clear(&ended, &scene.results());
    ended.says("File too large").says("`ulimit -f`");
    // The log of the server alone grows beyond it: its guard writes that.
    let scene = Scene::new();
    let call = scene.sweep().set("--enforce-eager", ["true"]).fault("server-floods;benchmark-hangs");
    call.through(&["bash", "-c", &limited(1 << 10), "sh"]).exits(1);
    let failure = scene.run().failure(crate::support::FIRST);
    let summary = failure["summary"].as_str().unwrap();
    assert!(
        summary.contains("the log of the server could not be written") && summary.contains("`ulimit -f`"),
        "{summary}"
    );
    assert_eq!(scene.left(), [""; 0], "the server is gone");
}

#[test]
fn a_full_disk_while_starting_is_noticed_before_the_limit() {
    let scene = Scene::new();
    let Some(disk) = Disk::new(&scene, "size=1m") else { return };
    // Room for the run directory, none for this log; then it would load for ever.
    let vllm = scene.program("fake/vllm", "#!/bin/bash\nhead -c 3000000 /dev/zero | tr '\\0' x\nexec sleep 600\n");
    let ended = scene.sweep_with(&vllm).set("--results-dir", [disk.path()]).exits(5);
    assert_clear(&ended, &disk.0);
    assert_eq!(scene.left(), [""; 0]);
}

#[test]
fn a_read_only_disk_is_a_clear_error() {
    let scene = Scene::new();
    let Some(disk) = Disk::new(&scene, "size=1m,ro") else { return };
    let ended = scene.sweep().set("--results-dir", [disk.path()]).exits(5);
    assert_clear(&ended, &disk.0);
    ended.says("Read-only file system").says("--results-dir DIR");
    let inside = disk.0.join("new");
    scene.sweep().set("--results-dir", [inside.to_str().unwrap()]).exits(5).says("Read-only file system");
}

#[test]
fn a_results_directory_that_is_a_file_is_a_clear_error() {
    let scene = Scene::new();
    let file = scene.path("file");
    fs::write(&file, "x").unwrap();
    let ended = scene.sweep().set("--results-dir", [file.to_str().unwrap()]).exits(5);
    ended.says("error: could not write `").says("because: ");
}

#[test]
fn what_is_no_regular_file_is_written_to_and_stays_what_it_is() {
    use std::os::unix::fs::FileTypeExt;
    let scene = Scene::new();
    scene.sweep().exits(0);
    let run = scene.run().0.display().to_string();
    let device = scene.path("null");
    let kind = nix::sys::stat::SFlag::S_IFCHR;
    if nix::sys::stat::mknod(&device, kind, nix::sys::stat::Mode::S_IRWXU, nix::sys::stat::makedev(1, 3)).is_err() {
        skipped("only root makes devices: whether `--output /dev/null` replaces it is not known");
        return;
    }
    let to = device.to_str().unwrap();
    let calls: [&[&str]; 6] = [
        &["analyze", &run, "--format", "json", "--output", to],
        &["analyze", &run, "--format", "html", "--output", to],
        &["report", &run, "--output", to],
        &["plot", "pareto", &run, "--output", to],
        &["plot", "ranking", &run, "--format", "png", "--output", to],
        &["prompts", "build", "--num-prompts", "2", "--output", to],
    ];
    for call in calls {
        let ended = scene.call(call).ends();
        let is_device = device.symlink_metadata().unwrap().file_type().is_char_device();
        ended.check(is_device, "the device was replaced by a file");
    }
    scene.call(calls[0]).exits(0);
    // Behind a link, the file that it leads to.
    let (link, file) = (scene.path("link"), scene.path("file"));
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    scene.call(&["analyze", &run, "--format", "json", "--output", link.to_str().unwrap()]).exits(0);
    assert!(link.symlink_metadata().unwrap().is_symlink() && fs::read(&file).unwrap().starts_with(b"{"));
}

/// Every file below a directory, with what it holds.
fn held(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    crate::support::files(folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap_or_default())).collect()
}

#[test]
fn a_run_directory_that_was_swapped_for_a_link_is_not_written_through() {
    let scene = Scene::new();
    scene.sweep().fault("network@eager=false").exits(1);
    let run = scene.run();
    let elsewhere = scene.path("elsewhere");
    fs::rename(&run.0, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &run.0).unwrap();
    let before = held(&elsewhere);
    let named = format!("results/{}", run.name());
    scene.call(&["run", "--resume", &named]).exits(5).says("is a link to").says("hint: ");
    scene.call(&["analyze", &named]).exits(5).says("is a link to");
    scene.call(&["report", &named]).exits(5).says("is a link to");
    assert_eq!(held(&elsewhere), before);
    // Amid a run: nothing more is written, the server is ended, and the exit code says it.
    fs::remove_file(&run.0).unwrap();
    let mut live = scene.sweep().fault("benchmark-hangs").start();
    live.event(&["benchmark-launched"]);
    let victim = scene.path("victim");
    fs::create_dir_all(victim.join("logs")).unwrap();
    let live_run = scene.run();
    fs::rename(&live_run.0, scene.path("moved")).unwrap();
    std::os::unix::fs::symlink(&victim, &live_run.0).unwrap();
    live.signal(nix::sys::signal::Signal::SIGTERM);
    live.ends().with_code(5).says("is a link to");
    assert!(held(&victim).is_empty(), "{:?}", held(&victim));
}

#[test]
fn no_file_is_world_writable_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    scene.sweep().through(&["sh", "-c", "umask 0; exec \"$@\"", "sh"]).exits(0);
    let run = scene.run().0.display().to_string();
    let out = scene.path("out.json").display().to_string();
    let umask = ["sh", "-c", "umask 0; exec \"$@\"", "sh"];
    scene.call(&["report", &run]).through(&umask).exits(0);
    scene.call(&["analyze", &run, "--format", "json", "--output", &out]).through(&umask).exits(0);
    let mut all = crate::support::files(&scene.results());
    all.extend([scene.results(), scene.run().0, scene.run().path("logs"), scene.path("out.json")]);
    assert!(all.len() > 10);
    for path in all {
        let mode = path.symlink_metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o002, 0, "{} has the mode {mode:o}", path.display());
    }
}

#[test]
fn output_that_does_not_arrive_is_an_error_of_every_command() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let run = scene.run();
    let dir = run.0.display().to_string();
    let results = scene.results().display().to_string();
    let log = run.path("logs").join(format!("{}_server.log", crate::support::FIRST)).display().to_string();
    let calls: [&[&str]; 39] = [
        &["--help"],
        &["--version"],
        &["run", "--help"],
        &["run", "--engine", "sim", "--dry-run"],
        &["sanity", "--engine", "sim", "--dry-run"],
        &["plan", "--engine", "sim"],
        &["plan", "--engine", "sim", "--json"],
        &["config", "show"],
        &["config", "schema"],
        &["status", &dir],
        &["status", "--json", &dir],
        &["list", "--results-dir", &results],
        &["list", "--json", "--results-dir", &results],
        &["logs", "--no-follow", "--run", &dir],
        &["check"],
        &["check", "--json"],
        &["analyze", &dir],
        &["analyze", &dir, "--format", "json"],
        &["analyze", &dir, "--format", "csv"],
        &["analyze", &dir, "--format", "markdown"],
        &["analyze", &dir, "--format", "html"],
        &["analyze", &dir, "--format", "datatrove"],
        &["compare", &dir, &dir],
        &["history", &results],
        &["history", &results, "--metric", "mean_ttft_ms", "--format", "html"],
        &["recommend", &dir],
        &["plot", "pareto", &dir, "-o", "-"],
        &["report", &dir, "-o", "-"],
        &["report", &dir],
        &["backup", "--results-dir", &results],
        &["clean", "--results-dir", &results, "--keep-last", "9"],
        &["diagnose", &log],
        &["completions", "bash"],
        &["man"],
        &["prompts", "inspect", "--num-prompts", "2"],
        &["stop", "--results-dir", &results],
        &["load", "--help"],
        &["export", "mlflow", "--help"],
        &["dashboard", "--help"],
    ];
    let full = ["sh", "-c", "exec \"$@\" > /dev/full", "sh"];
    let piped = ["bash", "-o", "pipefail", "-c", "\"$@\" | :", "bash"];
    for call in calls {
        let usual = scene.call(call).ends().status.code();
        let ended = scene.call(call).through(&full).ends();
        let code = ended.status.code();
        ended.check(code != Some(0), &format!("nothing of {call:?} arrived"));
        if usual == Some(0) {
            ended.check(code == Some(5), "a code of its own");
            ended.says("could not write standard output").says("No space left on device");
            // Whoever closes a pipe has seen enough.
            let closed = scene.call(call).through(&piped).ends();
            closed.check(closed.status.code() == Some(0), &format!("a closed pipe is no error of {call:?}"));
            closed.check(!closed.stderr.contains("standard output"), "and silent");
        }
    }
    // Each command is in the table.
    let help = scene.call(&["--help"]).exits(0).stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in listed.map(|line| line.split_whitespace().next().unwrap()) {
        assert!(calls.iter().any(|call| call[0] == command), "`{command}` is not tried with a full standard output");
    }
    // What a run measured is safe all the same.
    let elsewhere = scene.path("more").display().to_string();
    let measured = scene.sweep().set("--results-dir", [elsewhere.as_str()]).through(&full).exits(5);
    measured.says("could not write standard output");
    scene.runs_in(Path::new(&elsewhere))[0].assert_passed(crate::support::SECOND);
}
