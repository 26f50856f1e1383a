//! One file that is locked by `flock`, of whichever user it is.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::device_holder::user_of;
use crate::bounded;

/// A look whether a lock is free holds it for an instant: so often a held one is tried, with this pause.
const ATTEMPTS: u32 = 10;
pub(super) const BETWEEN: Duration = Duration::from_millis(10);

/// The locks could not be used.
#[derive(Debug, thiserror::Error)]
#[error("could not use `{}`, where devices are locked: {problem}", path.display())]
pub struct LockError {
    /// The folder, or a file in it.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl LockError {
    pub(super) fn new(path: &Path, problem: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), problem: problem.to_string() }
    }

    /// The next steps.
    pub fn hints(&self) -> Vec<String> {
        vec![
            "name a folder of this machine that all its users can write to with `--device-locks DIR` (`mkdir -m 1777 DIR`), the same for all"
                .into(),
            "`--device-locks none` runs without: then nobody is kept off the devices of this run".into(),
        ]
    }
}

/// How a file is locked: a tile shares the lock of its card with other tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    Alone,
    WithOthers,
}

/// Locks a file; `None` where somebody else holds it.
pub(super) fn take(path: &Path, share: Share) -> Result<Option<File>, LockError> {
    for attempt in 1..=ATTEMPTS {
        let file = open(path)?;
        let locked = match share {
            Share::Alone => file.try_lock(),
            Share::WithOthers => file.try_lock_shared(),
        };
        match locked {
            // One that was removed meanwhile keeps nobody off.
            Ok(()) if is_at(&file, path) => return Ok(Some(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if attempt == ATTEMPTS => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN),
            Err(TryLockError::Error(error)) => return Err(LockError::new(path, no_lock(&error))),
        }
    }
    Err(LockError::new(path, "it is replaced again and again"))
}

/// A network file system that makes locks of `flock` into others wants files that are open for writing.
fn no_lock(error: &io::Error) -> String {
    use nix::errno::Errno;
    let unable = [Errno::EBADF, Errno::ENOLCK, Errno::ENOSYS, Errno::EOPNOTSUPP].map(|errno| errno as i32);
    match error.raw_os_error() {
        Some(code) if unable.contains(&code) => {
            format!("this file system (NFS?) does not lock files that are open for reading: {error}")
        }
        _ => error.to_string(),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let there = std::fs::symlink_metadata(path).map(place).ok();
    there.is_some() && there == file.metadata().map(place).ok()
}

/// Opens the file of a lock, which is made where it is missing. It is never opened to be made where it is there: of other users' files
/// in such a folder the kernel does not allow that (`fs.protected_regular`).
fn open(path: &Path) -> Result<File, LockError> {
    let mut denied = 0;
    loop {
        match open_existing(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Its maker is about to let others read it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && denied < ATTEMPTS => {
                denied += 1;
                std::thread::sleep(BETWEEN);
                continue;
            }
            other => return other.map_err(|error| LockError::new(path, told(&error, path))),
        }
        let flags = OFlag::O_NOFOLLOW.bits();
        match OpenOptions::new().write(true).create_new(true).mode(0o644).custom_flags(flags).open(path) {
            // Whatever umask says: the other users must be able to open it.
            Ok(file) => {
                file.set_permissions(Permissions::from_mode(0o644)).map_err(|error| LockError::new(path, error))?
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(LockError::new(path, told(&error, path.parent().unwrap_or(Path::new("/")))));
            }
        }
    }
}

/// An error with whose the file or folder is, where that is the matter.
fn told(error: &io::Error, of: &Path) -> String {
    let meta = std::fs::symlink_metadata(of).ok().filter(|_| error.kind() == io::ErrorKind::PermissionDenied);
    let Some(meta) = meta else { return error.to_string() };
    let (owner, mode) = (user_of(meta.uid()), meta.mode() & 0o7777);
    let right = if meta.is_dir() { "1777" } else { "0644" };
    let place = of.display();
    format!("{error}: `{place}` has mode {mode:04o} and belongs to {owner}, who can say `chmod {right} {place}`")
}

pub(super) fn open_existing(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    bounded::require_regular(&file.metadata()?)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_do_not_lock_are_named() {
        use nix::errno::Errno;
        for (errno, words) in [(Errno::EBADF, "NFS"), (Errno::ENOLCK, "NFS"), (Errno::EIO, "Input/output error")] {
            let problem = no_lock(&io::Error::from(errno));
            assert!(problem.contains(words), "{problem}");
        }
        let hints = LockError::new(Path::new("/x"), "y").hints().join(" ");
        assert!(hints.contains("--device-locks DIR") && hints.contains("--device-locks none"), "{hints}");
    }
}
