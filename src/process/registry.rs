//! Where live process groups are registered, so that any later command finds what a crash left behind.
//!
//! One file per group in a directory of this user. A record names the boot, the guard and the leader with their start
//! times, so that a recycled process number is never mistaken for ours.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::container::{self, Runtime};
use super::guard_watch::{end_guard, wake, wake_lost_guards};
use super::{Emptied, Error, Members, Owner, Stop, boot_id, end_members, pid_namespace, reap_adopted};
use crate::bounded;
use crate::model::ProcessId;

/// A live group, as registered by its guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// The boot in which the numbers below mean something.
    pub boot_id: String,
    /// The PID namespace in which they do: containers may share `/tmp`.
    pub pid_namespace: String,
    /// Unique name of the group.
    pub token: String,
    /// The run that started it.
    pub orchestrator: ProcessId,
    /// The group's parent, and leader of its session.
    pub guard: ProcessId,
    /// The group's leader, once started.
    pub leader: Option<ProcessId>,
    /// What it is for.
    pub owner: Owner,
    /// The directory of the cgroup that holds its members; absent where none could be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// Where no cgroup holds them: every member that was seen and has not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<ProcessId>,
    /// The runtime of its container; absent where the command runs in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Runtime>,
}

impl Record {
    /// Whether a living run takes care of it.
    pub fn is_cared_for(&self) -> bool {
        self.boot_id == boot_id() && self.orchestrator.is_alive()
    }
}

/// The environment variable that marks every process of a group.
pub fn marker(token: &str) -> String {
    format!("{MARKER}={token}")
}

/// The name of the cgroup of a group.
pub fn cgroup_name(token: &str) -> String {
    format!("vllm-bench-{token}")
}

/// Name of the environment variable that marks every process of a group.
///
/// Not `VLLM_…`: current vLLM warns of variables of that prefix that it does not know, or refuses to start.
pub const MARKER: &str = "GUARDED_BY_VLLM_BENCH";

/// This user's directory for locks and the registry; made where it is missing. It must belong to this user and be no
/// link, because `/tmp` is everybody's.
///
/// # Errors
/// When it cannot be made, or is somebody else's.
pub fn home() -> Result<PathBuf, Error> {
    let path = PathBuf::from(format!("/tmp/vllm-bench-{}", nix::unistd::geteuid()));
    let make = || -> io::Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let meta = std::fs::symlink_metadata(&path)?;
        if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it belongs to somebody else, or others may write to it",
            ));
        }
        std::fs::create_dir_all(path.join("groups"))
    };
    make().map_err(|source| Error::Registry { path: path.clone(), source })?;
    Ok(path)
}

/// Beginning of the name of a record that is being written.
const UNFINISHED: &str = ".tmp-";
/// A record that is still unfinished after so long was left by a crash.
const UNFINISHED_FOR: Duration = Duration::from_secs(1);

/// Removes what a crash in the middle of registering a group left.
fn remove_unfinished(groups: &Path) {
    let Ok(entries) = std::fs::read_dir(groups) else { return };
    for entry in entries.flatten() {
        let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if unfinished && age().is_some_and(|age| age > UNFINISHED_FOR) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn path_of(home: &Path, token: &str) -> PathBuf {
    home.join("groups").join(format!("{token}.json"))
}

/// Registers a group, or updates its record; atomic, so that a reader never sees half of it.
///
/// # Errors
/// When the directory cannot be used.
pub fn register(record: &Record) -> Result<(), Error> {
    let home = home()?;
    let write = || -> io::Result<()> {
        let file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(home.join("groups"))?;
        serde_json::to_writer(file.as_file(), record)?;
        file.persist(path_of(&home, &record.token)).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| Error::Registry { path: home.clone(), source })
}

/// The record of a group; `None` where it is not registered, or not any more.
pub fn find(token: &str) -> Option<Record> {
    records().ok()?.into_iter().find(|record| record.token == token)
}

/// Forgets a group that is proven empty.
pub fn forget(token: &str) {
    if let Ok(home) = home() {
        let _ = std::fs::remove_file(path_of(&home, token));
        let _ = std::fs::remove_file(container::id_file(&home, token));
    }
}

/// Every registered group of this boot and this PID namespace. Records of earlier boots are removed; those of another
/// namespace (a container that shares `/tmp`) are left alone: their process numbers mean nothing here.
///
/// # Errors
/// When the directory cannot be used.
pub fn records() -> Result<Vec<Record>, Error> {
    let home = home()?;
    let groups = home.join("groups");
    let entries = std::fs::read_dir(&groups).map_err(|source| Error::Registry { path: groups.clone(), source })?;
    let (boot, namespace) = (boot_id(), pid_namespace());
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"))
    {
        let Ok(bytes) = bounded::read(&path, bounded::NOTE) else { continue };
        match serde_json::from_slice::<Record>(&bytes) {
            Ok(record) if record.boot_id == boot && record.pid_namespace == namespace => found.push(record),
            Ok(record) if record.boot_id == boot => {}
            Ok(_) | Err(_) => drop(std::fs::remove_file(&path)),
        }
    }
    Ok(found)
}

/// A group that a crash had left, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reaped {
    /// What it was.
    pub record: Record,
    /// How many processes were still there.
    pub processes: usize,
    /// What was seen after they had been ended.
    pub emptied: Emptied,
}

/// Ends every registered group that no living run takes care of. A guard that is still ending its group does the same
/// meanwhile; one that is stopped is woken, and killed where that does not help.
///
/// # Errors
/// When the registry cannot be used.
pub async fn reap_orphans(grace: Duration, stop: &mut Stop) -> Result<Vec<Reaped>, Error> {
    let mut reaped = Vec::new();
    remove_unfinished(&home()?.join("groups"));
    wake_lost_guards().await;
    for record in records()?.into_iter().filter(|record| !record.is_cared_for()) {
        let mut members = Members::of(record.clone());
        let processes = members.find_all().len();
        wake(record.guard);
        let mut emptied = end_members(&mut members, grace, stop, reap_adopted).await;
        end_guard(record.guard).await;
        if emptied.empty.is_none() && find(&record.token).is_none() {
            // Its guard lived longer than our look, and forgot the group when it had proven it empty.
            emptied.empty = Some(true);
        }
        if emptied.empty != Some(false) {
            forget(&record.token);
        }
        if processes > 0 || emptied.empty != Some(true) {
            reaped.push(Reaped { record, processes, emptied });
        }
    }
    Ok(reaped)
}
