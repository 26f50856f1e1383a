//! A cgroup for each process group, where this machine lets us make one.
//!
//! A process inherits the cgroup of its parent and cannot leave it by forking, by a session of its own, by overwriting its
//! environment or by losing its parents. The kernel lists its members, and removes it only when it is empty: that is a proof.
//! Hierarchies without a resource controller come first, so that what is measured is not slowed down by accounting.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

/// Hierarchies of version 1 that hold processes and do nothing to them as long as nobody sets a limit.
const HARMLESS: [&str; 2] = ["freezer", "pids"];
/// The file that lists the processes of a cgroup, and takes the number of one that is to enter.
const PROCS: &str = "cgroup.procs";

/// What became of a cgroup that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone: nobody was in it.
    Gone,
    /// Somebody is in it.
    Busy,
    /// It cannot be removed from here.
    Refused,
}

/// Directories of this process's own cgroups in which it may make another one, the best first.
pub fn parents() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let writable = |dir: &PathBuf| access(dir, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    candidates(&own, &mounts).into_iter().filter(writable).collect()
}

/// The same by the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn candidates(own: &str, mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<(usize, PathBuf)> = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let Some(rank) = rank(controllers) else { continue };
        for mount in mounts.lines().filter_map(Mount::parse).filter(|mount| mount.is_of(controllers)) {
            // Outside of the mounted part, or of the cgroup namespace.
            let Ok(below) = Path::new(path).strip_prefix(&mount.root) else { continue };
            if !path.contains("/..") {
                found.push((rank, mount.at.join(below)));
            }
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// How well a hierarchy serves, the best first; `None` where being moved in it changes what a process gets.
fn rank(controllers: &str) -> Option<usize> {
    match controllers {
        "" => Some(0),
        named if named.starts_with("name=") => Some(1),
        other => HARMLESS.iter().position(|name| *name == other).map(|position| position + 2),
    }
}

/// A mounted hierarchy.
struct Mount<'a> {
    root: PathBuf,
    at: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `id parent major:minor root at options [optional…] - kind source super-options`.
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        let kind = after.next().filter(|kind| kind.starts_with("cgroup"))?;
        Some(Self { root: unescaped(before.next()?), at: unescaped(before.next()?), kind, options: after.nth(1)? })
    }

    fn is_of(&self, controllers: &str) -> bool {
        match controllers {
            "" => self.kind == "cgroup2",
            some => self.kind == "cgroup" && self.options.split(',').any(|option| option == some),
        }
    }
}

/// Blanks and backslashes stand as octal numbers there.
fn unescaped(text: &str) -> PathBuf {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into()
}

/// Makes a cgroup and puts this process into it: what it starts is born there.
///
/// # Errors
/// When the system refuses; nothing is left then.
pub fn make_and_enter(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(dir)?;
    enter(dir).inspect_err(|_| drop(fs::remove_dir(dir)))
}

/// Puts this process into a cgroup.
///
/// # Errors
/// When it is none, or the system refuses.
pub fn enter(dir: &Path) -> io::Result<()> {
    // The kernel makes this file: where it is missing, the directory is no cgroup.
    let file = fs::OpenOptions::new().write(true).open(dir.join(PROCS))?;
    io::Write::write_all(&mut &file, std::process::id().to_string().as_bytes())
}

/// The processes of a cgroup and of those below it; `None` where it cannot be read.
pub fn members(dir: &Path) -> Option<Vec<i32>> {
    let text = fs::read_to_string(dir.join(PROCS)).ok()?;
    // Zero stands for a process of another PID namespace.
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect();
    for below in folders(dir) {
        found.extend(members(&below).unwrap_or_default());
    }
    Some(found)
}

/// Removes a cgroup with those below it. The kernel does that only where nobody is in them.
pub fn remove(dir: &Path) -> Removed {
    for below in folders(dir) {
        match remove(&below) {
            Removed::Gone => {}
            other => return other,
        }
    }
    match fs::remove_dir(dir).map_err(|error| error.raw_os_error().map(Errno::from_raw)) {
        Ok(()) | Err(Some(Errno::ENOENT)) => Removed::Gone,
        Err(Some(Errno::EBUSY | Errno::ENOTEMPTY)) => Removed::Busy,
        Err(_) => Removed::Refused,
    }
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(own: &str, mounts: &str) -> Vec<String> {
        candidates(own, mounts).iter().map(|dir| dir.display().to_string()).collect()
    }

    #[test]
    fn version_2_comes_first_and_hierarchies_that_limit_are_never_used() {
        let own = "9:name=systemd:/a\n8:pids:/b\n6:freezer:/c\n4:memory:/d\n1:cpu,cpuacct:/e\n0::/f\n";
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            37 31 0:34 / /sys/fs/cgroup/freezer rw shared:7 - cgroup cgroup rw,freezer\n\
            39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            found(own, mounts),
            [
                "/sys/fs/cgroup/unified/f",
                "/sys/fs/cgroup/systemd/a",
                "/sys/fs/cgroup/freezer/c",
                "/sys/fs/cgroup/pids/b"
            ]
        );
    }

    #[test]
    fn only_what_is_mounted_of_a_hierarchy_is_used() {
        let mount = |root: &str, at: &str| format!("41 31 0:38 {root} {at} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
        assert_eq!(found("0::/docker/1/x", &mount("/docker/1", "/sys/fs/cgroup")), ["/sys/fs/cgroup/x"]);
        assert_eq!(found("0::/", &mount("/", "/mnt/a\\040b")), ["/mnt/a b/"]);
        assert!(found("0::/user", &mount("/docker/1", "/sys/fs/cgroup")).is_empty());
        assert!(found("0::/../x", &mount("/", "/sys/fs/cgroup")).is_empty());
        assert!(found("0::/", "torn - cgroup2").is_empty() && found("torn", "").is_empty());
    }

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused_and_left_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("group");
        assert!(make_and_enter(&dir).is_err());
        assert!(!dir.exists());
        assert_eq!(members(&dir), None);
        assert_eq!(remove(&dir), Removed::Gone);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("file"), "").unwrap();
        assert_eq!(remove(&dir), Removed::Busy, "what is not empty stays");
    }
}
