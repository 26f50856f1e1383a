//! Locks that the kernel frees when their holder dies, however it dies.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::bounded;
use crate::model::ProcessId;

/// Who holds a lock, as written into it by the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holder {
    /// The orchestrator.
    pub process: ProcessId,
    /// The user's name or number.
    pub user: String,
    /// When it took the lock, in the run's time zone.
    pub since: String,
    /// The run directory it writes to.
    pub run: std::path::PathBuf,
}

impl Holder {
    /// The holder of a lock that is not signed yet.
    pub fn unknown() -> Self {
        let process = ProcessId { pid: 0, start_time: 0 };
        Self { process, user: "unknown".into(), since: "just now".into(), run: std::path::PathBuf::new() }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.process.pid == 0 {
            return f.write_str("it is just starting, and has not said yet who it is");
        }
        write!(f, "process {} of {}, since {}, run `{}`", self.process.pid, self.user, self.since, self.run.display())
    }
}

/// How often a held lock is tried, and how long one waits between.
const ATTEMPTS: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(10);

/// A held lock; dropped = freed. The file stays, because removing it would let two processes hold "the" lock.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock, or says who holds it (`Ok(Err(holder))`; a holder that has not yet signed is `None`).
    ///
    /// # Errors
    /// When the file cannot be made or locked for another reason.
    pub fn take(path: &Path) -> Result<Result<Lock, Option<Holder>>, Error> {
        for _ in 0..ATTEMPTS {
            match Self::take_once(path)? {
                Ok(lock) if !lock.is_at(path) => {}
                taken => return Ok(taken),
            }
        }
        Err(Error::write(path)(io::Error::other("it is replaced again and again")))
    }

    /// Whether the file at this path is still the one that is locked: one that was removed meanwhile keeps nobody off.
    fn is_at(&self, path: &Path) -> bool {
        let place = |meta: Metadata| (meta.dev(), meta.ino());
        let there = std::fs::symlink_metadata(path).map(place).ok();
        there.is_some() && there == self.file.metadata().map(place).ok()
    }

    fn take_once(path: &Path) -> Result<Result<Lock, Option<Holder>>, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(path)
            .and_then(|file| bounded::require_regular(&file.metadata()?).map(|()| file))
            .map_err(Error::write(path))?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => {
                    // Until it is signed anew, whoever held it before must not be taken for its holder.
                    let _ = file.set_len(0);
                    return Ok(Ok(Lock { file }));
                }
                // A reader (`status`) holds it for an instant to see whether it is free.
                Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => std::thread::sleep(BETWEEN),
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(source)) => return Err(Error::Write { path: path.to_owned(), source }),
            }
        }
        Ok(Err(read_holder(file)))
    }

    /// Writes the holder into the lock.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn sign(&mut self, path: &Path, holder: &Holder) -> Result<(), Error> {
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(serde_json::to_string(holder)?.as_bytes())?;
            self.file.sync_data()
        };
        write().map_err(Error::write(path))
    }

    /// Who holds the lock at this path now; `None` where nobody does.
    pub fn holder(path: &Path) -> Option<Holder> {
        let file = bounded::open(path).ok()?;
        match file.try_lock_shared() {
            Ok(()) => None,
            Err(_) => read_holder(file),
        }
    }
}

fn read_holder(file: File) -> Option<Holder> {
    serde_json::from_slice(&bounded::read_from(file, bounded::NOTE).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut lock = Lock::take(&path).unwrap().unwrap();
        let holder = Holder {
            process: ProcessId::current(),
            user: "ana".into(),
            since: "2026-02-25 14:30".into(),
            run: "/r".into(),
        };
        lock.sign(&path, &holder).unwrap();
        assert_eq!(Lock::take(&path).unwrap().unwrap_err(), Some(holder.clone()));
        assert_eq!(Lock::holder(&path), Some(holder));
        drop(lock);
        assert_eq!(Lock::holder(&path), None);
        assert!(Lock::take(&path).unwrap().is_ok());
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = Lock::take(&path).unwrap().unwrap();
        assert!(lock.is_at(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!lock.is_at(&path));
        let next = Lock::take(&path).unwrap().unwrap();
        assert!(next.is_at(&path) && !lock.is_at(&path));
    }

    #[test]
    fn a_lock_is_never_taken_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("precious");
        std::fs::write(&target, "x").unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(Lock::take(&path).is_err());
    }
}
