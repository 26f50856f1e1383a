//! What the kernel says of processes, read from `/proc`. A process that ends meanwhile is simply absent.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;

use crate::model::{ProcessId, parse_cores};

/// The fields of `/proc/PID/stat` that identity and teardown need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// One letter: `R`, `S`, `D`, `Z`, `X` …
    pub state: char,
    /// Parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// Threads.
    pub threads: u32,
    /// Start time in clock ticks after boot.
    pub start_time: u64,
}

impl Stat {
    /// A zombie, or on its way out: it holds no memory, socket or device. One whose first thread has ended while others
    /// run is shown as a zombie too, and is none.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'X' | 'x') || self.state == 'Z' && self.threads <= 1
    }

    /// Stopped by SIGSTOP or its like (not by a debugger).
    pub fn is_stopped(&self) -> bool {
        self.state == 'T'
    }

    /// The process, told from a later one with the same number.
    pub fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.start_time }
    }
}

/// One process, or `None` where there is none with this number.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name may hold spaces and parentheses: everything of interest stands after the last `)`.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let pid = std::str::from_utf8(bytes.get(..bytes.iter().position(|&b| b == b' ')?)?).ok()?.parse().ok()?;
    let mut fields = std::str::from_utf8(bytes.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    // state is field 3, so session is field 6; the number of threads is field 20, the start time field 22.
    let threads = fields.nth(13)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    Some(Stat { pid, state, parent, group, session, threads, start_time })
}

/// Processor time that a process has used, all threads together, in clock ticks.
pub fn cpu_ticks(pid: i32) -> Option<u64> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let mut fields = std::str::from_utf8(bytes.get(close + 1..)?).ok()?.split_ascii_whitespace();
    // Fields 14 and 15: in user mode and in the kernel.
    let (user, kernel): (u64, u64) = (fields.nth(11)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + kernel)
}

/// Every process of this machine (this PID namespace). One whose parent ended while this was read is read again: its
/// new parent is what tells whose it is.
pub fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut all: Vec<Stat> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(stat).collect();
    let known: HashSet<i32> = all.iter().map(|stat| stat.pid).collect();
    for orphan in all.iter_mut().filter(|stat| stat.parent != 0 && !known.contains(&stat.parent)) {
        if let Some(now) = stat(orphan.pid) {
            *orphan = now;
        }
    }
    all
}

/// The children of this process, as its threads have them; `None` where the kernel does not list children. One that appears or ends while
/// the list is read may be missing from it.
pub fn own_children() -> Option<Vec<Stat>> {
    let mut children = Vec::new();
    for thread in fs::read_dir("/proc/self/task").ok()?.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => children.extend(list.split_ascii_whitespace().filter_map(|pid| stat(pid.parse().ok()?))),
            // The thread has ended.
            Err(_) if !thread.path().exists() => {}
            Err(_) => return None,
        }
    }
    Some(children)
}

/// A file of `/proc` that shows memory of the process, which decides itself how much it says there is: at most 8 MiB of it.
pub fn memory(pid: i32, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(format!("/proc/{pid}/{name}")).ok()?.take(8 << 20).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The argument vector; empty for kernel threads, zombies and processes that are gone.
pub fn argv(pid: i32) -> Vec<String> {
    let bytes = memory(pid, "cmdline").unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let mut argv: Vec<String> = bytes.split(|&b| b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    // A process that wrote a title over its arguments (`VLLM::EngineCore`) leaves the rest of the room empty.
    if argv[1..].iter().all(String::is_empty) {
        argv.truncate(1);
    }
    argv
}

/// The command line as one line of at most `limit` characters, for showing.
pub fn command_line(pid: i32, limit: usize) -> String {
    let line = argv(pid).join(" ");
    let line: String = line.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(limit).collect();
    line
}

/// The owner of a process.
pub fn uid(pid: i32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|meta| meta.uid())
}

/// Whether a process runs this program: the same file, or one of the same name (another version of it, or one that was replaced
/// while it ran). `None` where it cannot be looked at.
pub fn is_this_program(pid: i32) -> Option<bool> {
    let theirs = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let own = fs::read_link("/proc/self/exe").ok()?;
    let name = |path: &std::path::Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.trim_end_matches(" (deleted)").to_owned()
    };
    Some(theirs == own || name(&theirs) == name(&own))
}

/// Whether a process holds a kernel lock (`flock`) on a file, by the kernel's table of locks. `None` where that says nothing of
/// this file.
pub fn holds_lock(pid: i32, path: &std::path::Path) -> Option<bool> {
    let holders = lock_holders(path);
    (!holders.is_empty()).then(|| holders.contains(&pid))
}

/// Who has taken kernel locks (`flock`) on a file, by the kernel's table. Those of another PID namespace are missing, or are 0 or -1.
/// The number is that of the process which took it; what it started may hold it still.
pub fn lock_holders(path: &std::path::Path) -> Vec<i32> {
    let Ok(meta) = fs::metadata(path) else { return Vec::new() };
    holders_in(&fs::read_to_string("/proc/locks").unwrap_or_default(), meta.dev(), meta.ino())
}

fn holders_in(table: &str, device: u64, inode: u64) -> Vec<i32> {
    // `1: FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF`; one that waits has an arrow: `1: -> FLOCK …`.
    let holders = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, holder, place, ..] = words.as_slice() else { return None };
        let mut place = place.split(':');
        let mut number = |radix| u64::from_str_radix(place.next()?, radix).ok();
        let (major, minor, of) = (number(16)?, number(16)?, number(10)?);
        // Some file systems (btrfs, overlayfs) show another device there than for the file.
        let known = (nix::sys::stat::major(device), nix::sys::stat::minor(device)) == (major, minor);
        (of == inode).then(|| Some((known, holder.parse::<i32>().ok()?)))?
    });
    let found: Vec<(bool, i32)> = holders.collect();
    let exact = found.iter().any(|(known, _)| *known);
    found.into_iter().filter(|(known, _)| *known || !exact).map(|(_, holder)| holder).collect()
}

/// Whether the environment with which a process was started holds this exact `NAME=value`. `None` where it cannot be
/// read or is gone: a process that renames itself (`setproctitle`, as vLLM's) overwrites it with zeros.
pub fn environ_has(pid: i32, entry: &str) -> Option<bool> {
    let bytes = memory(pid, "environ")?;
    if bytes.iter().all(|&b| b == 0) {
        return None;
    }
    Some(bytes.split(|&b| b == 0).any(|var| var == entry.as_bytes()))
}

/// Whether a process is in a cgroup of this name, or below one, in any hierarchy. It cannot hide that.
pub fn is_in_cgroup(pid: i32, name: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .any(|path| path.split('/').any(|component| component == name))
}

/// Whether a process is in the container of this number: runtimes call the container's cgroup after it (`docker-ID.scope`, `libpod-ID`,
/// `ID`). The process that watches a container of podman has a cgroup of its own, and is not in it.
pub fn is_in_container(pid: i32, id: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .flat_map(|path| path.split('/'))
        .any(|component| component.contains(id) && !component.starts_with("libpod-conmon-"))
}

/// Whether a process does not show which files it has open: it is another user's, in a container say.
pub fn hides_files(pid: i32) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Whether a process ignores a signal.
pub fn ignores(pid: i32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

/// Whether a process runs a shell, by its program: a script, or a login shell with its profile.
pub fn is_shell(pid: i32) -> bool {
    const SHELLS: [&str; 6] = ["bash", "sh", "dash", "zsh", "ksh", "busybox"];
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    program.file_name().and_then(|name| name.to_str()).is_some_and(|name| SHELLS.contains(&name))
}

/// Whether a process has a device node of an accelerator open. One whose descriptors cannot be read is taken to have.
pub fn holds_device(pid: i32) -> bool {
    const NODES: [&str; 4] = ["/dev/dri/", "/dev/nvidia", "/dev/kfd", "/dev/accel/"];
    let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries,
        // Gone meanwhile, or a zombie.
        Err(error) => return error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| NODES.iter().any(|node| target.starts_with(node))))
}

/// The cores that are online.
pub fn online_cores() -> Vec<u32> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    parse_cores(&text).unwrap_or_default()
}

/// The cores to which threads of a process are bound; none where all its threads may use every core. vLLM binds threads, not itself.
pub fn bound_cores(pid: i32) -> Vec<u32> {
    const MOST_THREADS: usize = 4096;
    let online = online_cores();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let allowed = tasks.flatten().take(MOST_THREADS).filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        status.lines().find_map(|line| parse_cores(line.strip_prefix("Cpus_allowed_list:")?))
    });
    let bound = allowed.filter(|cores| online.iter().any(|core| !cores.contains(core)));
    let cores: BTreeSet<u32> = bound.flatten().collect();
    cores.into_iter().collect()
}

/// All descendants of a process, by the parent links of one reading of `/proc`.
pub fn descendants(root: i32, all: &[Stat]) -> Vec<Stat> {
    let mut found: Vec<Stat> = Vec::new();
    let mut frontier = vec![root];
    while let Some(parent) = frontier.pop() {
        for stat in all.iter().filter(|stat| stat.parent == parent && stat.pid != root) {
            if !found.iter().any(|seen| seen.pid == stat.pid) {
                found.push(*stat);
                frontier.push(stat.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_reader() {
        let line = b"42 (a) b (c)) S 1 42 40 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1";
        assert_eq!(
            parse_stat(line),
            Some(Stat { pid: 42, state: 'S', parent: 1, group: 42, session: 40, threads: 1, start_time: 987_654 })
        );
        let exiting = Stat { state: 'Z', threads: 3, ..parse_stat(line).unwrap() };
        assert!(!exiting.is_dead(), "other threads still run");
        assert!(Stat { threads: 1, ..exiting }.is_dead());
        assert_eq!(parse_stat(b"42 (a"), None);
    }

    #[test]
    fn holders_of_locks_are_read_off_the_kernels_table() {
        let table = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 22 08:01:77 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 33 08:01:77 0 EOF\n3: FLOCK  ADVISORY  READ  44 fe:00:77 0 EOF\n\
            4: FLOCK  ADVISORY  WRITE 0 08:01:78 0 EOF\n5: FLOCK  ADVISORY  WRITE -1 08:01:78 0 EOF\nnonsense\n";
        let device = nix::sys::stat::makedev(8, 1);
        assert_eq!(holders_in(table, device, 77), [22], "not those who wait, nor of another disk");
        assert_eq!(holders_in(table, device, 78), [0, -1]);
        assert_eq!(
            holders_in(table, nix::sys::stat::makedev(0, 50), 77),
            [22, 44],
            "a disk that the table shows otherwise"
        );
        assert_eq!(holders_in("", device, 77), [0; 0]);
    }

    #[test]
    fn this_process_is_found_with_its_arguments() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(all().iter().any(|stat| stat.pid == me));
        assert!(!argv(me).is_empty());
        assert!(cpu_ticks(me).is_some() && cpu_ticks(-1).is_none());
    }

    #[test]
    fn children_are_listed_without_a_look_at_all_processes() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let listed = (0..100).any(|_| own_children().is_none_or(|all| all.iter().any(|stat| stat.pid == pid)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(listed);
        assert!(own_children().is_none_or(|all| all.iter().all(|stat| stat.pid != pid)));
    }
}
