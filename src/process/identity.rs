//! A process that can be told from a later one with the same number.

use crate::model::ProcessId;
use std::fs;

impl ProcessId {
    /// The process that runs this code.
    pub fn current() -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        Self::of(pid).unwrap_or(ProcessId { pid, start_time: 0 })
    }

    /// The process that has this number now; `None` where there is none.
    pub fn of(pid: i32) -> Option<Self> {
        super::procfs::stat(pid).map(|stat| ProcessId { pid, start_time: stat.start_time })
    }

    /// Whether this very process still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        super::procfs::stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !stat.is_dead())
    }
}

/// The kernel's identity of this boot; empty where it cannot be read.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// The kernel's identity of the PID namespace of this process; empty where it cannot be read.
pub fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Takes from this process, and from all that it starts, the right to make files that everybody may write to, whatever umask it
/// was given. To be called before there is a second thread.
pub fn keep_files_ours() {
    use nix::sys::stat::{Mode, umask};
    let given = umask(Mode::S_IWGRP | Mode::S_IWOTH);
    umask(given | Mode::S_IWOTH);
}
