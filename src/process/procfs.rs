//! What the kernel says of processes, read from `/proc`. A process that ends meanwhile is simply absent.

use std::fs;
use std::os::unix::fs::MetadataExt;

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
    /// Start time in clock ticks after boot.
    pub start_time: u64,
}

impl Stat {
    /// A zombie, or on its way out: it holds no memory, socket or device.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
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
    // state is field 3, so session is field 6 and the start time, field 22, is the 16th after it.
    let start_time = fields.nth(15)?.parse().ok()?;
    Some(Stat { pid, state, parent, group, session, start_time })
}

/// Every process of this machine (this PID namespace).
pub fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

/// The argument vector; empty for kernel threads, zombies and processes that are gone.
pub fn argv(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
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

/// Whether the environment with which a process was started holds this exact `NAME=value`. `None` where it cannot be
/// read, or was overwritten by a process that renames itself.
pub fn environ_has(pid: i32, entry: &str) -> Option<bool> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    if bytes.is_empty() {
        return None;
    }
    Some(bytes.split(|&b| b == 0).any(|var| var == entry.as_bytes()))
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
            Some(Stat { pid: 42, state: 'S', parent: 1, group: 42, session: 40, start_time: 987_654 })
        );
        assert_eq!(parse_stat(b"42 (a"), None);
    }

    #[test]
    fn this_process_is_found_with_its_arguments() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(all().iter().any(|stat| stat.pid == me));
        assert!(!argv(me).is_empty());
    }
}
