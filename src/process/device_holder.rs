//! Who holds a device, and what a holder says of itself.

use std::fmt;
use std::path::PathBuf;

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

use super::{pid_namespace, procfs};
use crate::model::ProcessId;
use crate::safe;

/// Characters of a command line that are shown.
const COMMAND: usize = 200;

/// Who holds a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceHolder {
    /// Address of the device, as it was asked for.
    pub device: String,
    /// The process; absent where it cannot be seen from here.
    pub pid: Option<i32>,
    /// Name or number of its user; absent where nothing tells.
    pub user: Option<String>,
    /// When it took the lock, or began.
    pub since: Option<String>,
    /// Its command line, without secrets.
    pub command: Option<String>,
    /// The run directory that it writes to.
    pub run: Option<PathBuf>,
    /// Whether the process that took the lock is gone, and what it had started still holds it.
    pub is_gone: bool,
    /// Whether it is a run of the user who asks.
    pub is_mine: bool,
}

impl fmt::Display for DeviceHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is held by {}", self.device, self.who())
    }
}

impl DeviceHolder {
    /// Who it is, in words.
    pub fn who(&self) -> impl fmt::Display {
        Who(self)
    }
}

/// A holder without its device.
struct Who<'h>(&'h DeviceHolder);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(holder) = self;
        match (holder.pid, holder.is_gone) {
            (Some(pid), false) => write!(f, "process {pid}")?,
            (Some(pid), true) => write!(f, "what process {pid} had started (it is gone itself)")?,
            (None, _) => f.write_str("a process that cannot be seen from here (of another container)")?,
        }
        if let Some(user) = &holder.user {
            write!(f, " of {user}")?;
        }
        if let Some(since) = &holder.since {
            write!(f, ", since {since}")?;
        }
        if let Some(run) = &holder.run {
            write!(f, ", run `{}`", run.display())?;
        }
        match &holder.command {
            Some(command) => write!(f, ": `{command}`"),
            None => Ok(()),
        }
    }
}

/// What a holder says of itself, in a file of its own beside the locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Signature {
    /// The holder.
    pub process: ProcessId,
    /// The PID namespace in which its number counts.
    pub pid_namespace: String,
    /// When it took its locks, as shown.
    pub since: String,
    /// Its command line, without secrets.
    pub command: String,
    /// Its run directory, as soon as there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<PathBuf>,
    /// Addresses of its devices.
    #[serde(default)]
    pub devices: Vec<String>,
}

impl Signature {
    /// That of this process.
    pub fn new(since: String) -> Self {
        let process = ProcessId::current();
        let command = command_of(process.pid).unwrap_or_default();
        Self { process, pid_namespace: pid_namespace(), since, command, run: None, devices: Vec::new() }
    }
}

/// The command line of a process, as one line without secrets; `None` where there is none.
pub(super) fn command_of(pid: i32) -> Option<String> {
    let line = safe::without_secrets(&procfs::argv(pid)).join(" ");
    let line: String = line.trim().chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
    (!line.is_empty()).then(|| shortened(line))
}

/// A command line of at most so many characters; one that is cut says so.
fn shortened(line: String) -> String {
    match line.char_indices().nth(COMMAND) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

/// Whether there is no such process any more. Processes of others may be hidden (`hidepid`), and are no less there.
pub(super) fn is_gone(pid: i32) -> bool {
    match procfs::stat(pid) {
        Some(stat) => stat.is_dead(),
        None => nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH),
    }
}

/// Name or number of a user.
pub(super) fn user_of(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_reads_as_a_sentence() {
        let seen = DeviceHolder {
            device: "0000:03:00.0".into(),
            pid: Some(4711),
            user: Some("ana".into()),
            since: Some("2026-02-25 14:30".into()),
            command: Some("vllm-bench run".into()),
            run: Some("/r".into()),
            is_gone: false,
            is_mine: false,
        };
        assert_eq!(
            seen.to_string(),
            "0000:03:00.0 is held by process 4711 of ana, since 2026-02-25 14:30, run `/r`: `vllm-bench run`"
        );
        let unseen = DeviceHolder { pid: None, user: None, since: None, command: None, run: None, ..seen.clone() };
        assert!(unseen.to_string().ends_with("a process that cannot be seen from here (of another container)"));
        assert!(DeviceHolder { is_gone: true, ..seen }.to_string().contains("it is gone itself"));
        assert_eq!(shortened("x".repeat(COMMAND)).chars().count(), COMMAND);
        assert_eq!(shortened("x".repeat(COMMAND + 1)), format!("{}…", "x".repeat(COMMAND)));
    }
}
