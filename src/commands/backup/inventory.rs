//! What a results directory holds, without following a link.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::record::{Error, layout};

/// One thing to copy, with its path below the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A directory.
    Folder(PathBuf),
    /// A regular file and its length when it was seen.
    File(PathBuf, u64),
    /// A symbolic link and where it points; never followed.
    Link(PathBuf, PathBuf),
}

/// Everything to copy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Folders before what is in them; journals before all other files, so that everything a copied journal tells of
    /// had been written when the rest was copied.
    pub items: Vec<Item>,
    /// Sockets, pipes and devices, which are no data.
    pub left_out: Vec<PathBuf>,
}

impl Inventory {
    /// Lists a directory.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn of(root: &Path) -> Result<Self, Error> {
        let mut inventory = Self::default();
        inventory.add(root, Path::new(""))?;
        inventory.items.sort_by_key(|item| match item {
            Item::Folder(_) => 0,
            Item::File(path, _) if is_journal(path) => 1,
            Item::File(..) => 2,
            Item::Link(..) => 3,
        });
        Ok(inventory)
    }

    fn add(&mut self, root: &Path, below: &Path) -> Result<(), Error> {
        let folder = root.join(below);
        let entries = std::fs::read_dir(&folder).map_err(Error::read(&folder))?;
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names.into_iter().filter(|name| !is_passing(name)) {
            let path = below.join(name);
            let full = root.join(&path);
            let meta = match std::fs::symlink_metadata(&full) {
                Ok(meta) => meta,
                // A live run has renamed or removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(Error::Read { path: full, source }),
            };
            let kind = meta.file_type();
            if kind.is_dir() {
                self.items.push(Item::Folder(path.clone()));
                self.add(root, &path)?;
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&full).map_err(Error::read(&full))?;
                self.items.push(Item::Link(path, target));
            } else if kind.is_file() {
                self.items.push(Item::File(path, meta.len()));
            } else {
                self.left_out.push(path);
            }
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| if let Item::File(_, length) = item { *length } else { 0 }).sum()
    }
}

/// A regular file opened for copying: never through a link.
pub struct Source {
    /// Positioned at its beginning.
    pub file: File,
    /// What the system says of it now.
    pub meta: Metadata,
    /// How much of it to copy.
    pub length: u64,
}

impl Source {
    /// Opens it; `None` where a live run has removed it meanwhile. A log that grows is copied up to its length now; so
    /// is a journal of a `live` run, cut at its last line end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path, live: bool) -> io::Result<Option<Self>> {
        let flags = (nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits();
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && live => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        let mut length = meta.len();
        if live && is_journal(path) {
            length = last_line_end(&mut file, length)?;
        }
        file.rewind()?;
        Ok(Some(Self { file, meta, length }))
    }
}

/// Where the last whole line ends.
fn last_line_end(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        let begin = end.saturating_sub(64 << 10);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        file.by_ref().take(end - begin).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

fn is_journal(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new(layout::JOURNAL))
}

/// Unfinished files and the lock mean nothing outside this moment.
fn is_passing(name: &OsStr) -> bool {
    name == OsStr::new(layout::RESULTS_LOCK) || name.as_encoded_bytes().starts_with(layout::TEMPORARY_PREFIX.as_bytes())
}
