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
