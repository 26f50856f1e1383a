//! A file of a run that grows while something is measured: whole lines, each readable as soon as it is written.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::{Error, atomic};
use crate::safe;

/// A file that grows.
#[derive(Debug)]
pub struct Growing {
    path: PathBuf,
    file: File,
}

impl Growing {
    /// Makes it; its folder too, where that is missing. Nothing may have its name: what is there stays as it is.
    ///
    /// # Errors
    /// When it cannot be made, or its folder is a link.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let folder = path.parent().unwrap_or(Path::new("."));
        // It is there from the first file on; what else stands in the way is named by the next step.
        let _ = std::fs::create_dir(folder);
        atomic::require_folder(folder)?;
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o644).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(path).map_err(Error::write(path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends whole lines, without what may not be written. They are not forced to the disk: a file like this can do without its end.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(&mut self, lines: &[u8]) -> Result<(), Error> {
        self.file.write_all(&safe::file_bytes(lines)).map_err(Error::write(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_there_as_soon_as_they_are_written_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("series/a.csv");
        let mut file = Growing::create(&path).unwrap();
        file.append(b"one\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
        file.append(b"two\x1b[31m\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("one\ntwo") && !text.contains('\x1b'), "{text}");
        assert!(Growing::create(&path).is_err(), "another file of this name is not touched");
        std::os::unix::fs::symlink("/tmp", dir.path().join("link")).unwrap();
        assert!(Growing::create(&dir.path().join("link/a.csv")).is_err());
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("series/b.csv")).unwrap();
        assert!(Growing::create(&dir.path().join("series/b.csv")).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}
