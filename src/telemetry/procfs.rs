//! The few things of `/proc/PID` that this module needs, below a given root.

use std::io;
use std::path::{Path, PathBuf};

use super::probe::read_text;

/// Every process number below `root`, ascending.
pub(super) fn pids(root: &Path) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir(root.join("proc")) else { return Vec::new() };
    let mut pids: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| *pid > 0).collect();
    pids.sort_unstable();
    pids
}

/// The open descriptors of a process and what they point at. An error of kind `PermissionDenied` means another user's
/// process; one that has just ended has none.
pub(super) fn descriptors(root: &Path, pid: i32) -> io::Result<Vec<(String, PathBuf)>> {
    let folder = folder(root, pid).join("fd");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        Err(_) => return Ok(Vec::new()),
    };
    let found = entries.flatten().filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().into_string().ok()?, target))
    });
    Ok(found.collect())
}

/// The user of a process that does not show what it has open; `None` for one that does, or is gone.
pub(super) fn hidden_owner(root: &Path, pid: i32) -> Option<u32> {
    descriptors(root, pid).is_err().then(|| uid(root, pid)).flatten()
}

/// The name that the process goes by (15 bytes at most; vLLM's children call themselves `VLLM::EngineCore`).
pub(super) fn comm(root: &Path, pid: i32) -> Option<String> {
    read_text(&folder(root, pid).join("comm"))
}

/// The arguments; `None` for kernel threads, zombies and processes that are gone.
pub(super) fn argv(root: &Path, pid: i32) -> Option<Vec<String>> {
    let bytes = std::fs::read(folder(root, pid).join("cmdline")).ok()?;
    let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if text.is_empty() {
        return None;
    }
    Some(text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// The number of the parent.
pub(super) fn parent(root: &Path, pid: i32) -> Option<i32> {
    let status = read_text(&folder(root, pid).join("status"))?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// The number of its user.
pub(super) fn uid(root: &Path, pid: i32) -> Option<u32> {
    let status = read_text(&folder(root, pid).join("status"))?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

/// The text of one fdinfo file.
pub(super) fn fdinfo(root: &Path, pid: i32, descriptor: &str) -> Option<String> {
    read_text(&folder(root, pid).join("fdinfo").join(descriptor))
}

fn folder(root: &Path, pid: i32) -> PathBuf {
    root.join("proc").join(pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    #[test]
    fn a_process_is_read() {
        let tree = Tree::new();
        tree.process(42, "vllm", &["vllm", "serve", "a b", ""], 1000, 7);
        tree.file("proc/self/comm", "not a number");
        assert_eq!(pids(tree.path()), [42]);
        assert_eq!(comm(tree.path(), 42).as_deref(), Some("vllm"));
        assert_eq!(argv(tree.path(), 42).unwrap(), ["vllm", "serve", "a b", ""]);
        assert_eq!(parent(tree.path(), 42), Some(7));
        assert_eq!(uid(tree.path(), 42), Some(1000));
    }

    #[test]
    fn a_process_that_is_gone_has_nothing() {
        let tree = Tree::new();
        assert!(descriptors(tree.path(), 42).unwrap().is_empty());
        assert_eq!(argv(tree.path(), 42), None);
    }
}
