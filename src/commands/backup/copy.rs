//! Writes a backup, as a directory or as an archive, and proves it by reading it back.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::inventory::{Inventory, Item, Source};

/// How many files with how many bytes, and how many links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
}

/// What is copied, from where, and how it is called.
#[derive(Debug)]
pub struct Job<'a> {
    /// Where the items are.
    pub from: &'a Path,
    /// The items.
    pub inventory: &'a Inventory,
    /// The folder inside the backup; empty for the whole results directory.
    pub below: &'a Path,
    /// Whether a run writes to it meanwhile.
    pub live: bool,
    /// Set when the user wants to end.
    pub cancelled: &'a AtomicBool,
}

/// Where a copy went wrong.
#[derive(Debug)]
pub enum Failed {
    /// While reading this file.
    Reading(PathBuf, io::Error),
    /// While writing.
    Writing(io::Error),
    /// What was read back is not what was written.
    Different {
        /// What was written.
        written: Sum,
        /// What was read back.
        read: Sum,
    },
    /// The user ended it.
    Cancelled,
}

/// The receiving end.
enum Sink<'a> {
    Tree(&'a Path),
    Archive(Box<tar::Builder<GzEncoder<BufWriter<&'a File>>>>, PathBuf),
}

/// Copies into an empty directory.
///
/// # Errors
/// When reading or writing fails, or what is there afterwards is not what was written.
pub fn to_tree(job: &Job<'_>, root: &Path) -> Result<Sum, Failed> {
    if !job.below.as_os_str().is_empty() {
        std::fs::create_dir_all(root.join(job.below)).map_err(Failed::Writing)?;
    }
    let written = copy(job, &mut Sink::Tree(root))?;
    // One sync for all files.
    File::open(root).and_then(|dir| Ok(nix::unistd::syncfs(&dir)?)).map_err(Failed::Writing)?;
    let found = Inventory::of(&root.join(job.below)).map_err(|error| Failed::Writing(io::Error::other(error)))?;
    let mut read = Sum::default();
    for item in &found.items {
        match item {
            Item::Folder(_) => {}
            Item::File(_, length) => read.file(*length),
            Item::Link(..) => read.links += 1,
        }
    }
    compare(written, read)
}

/// Copies into an archive; all names in it begin with `name`.
///
/// # Errors
/// As [`to_tree`].
pub fn to_archive(job: &Job<'_>, archive: &File, path: &Path, name: &str) -> Result<Sum, Failed> {
    let encoder = GzEncoder::new(BufWriter::with_capacity(256 << 10, archive), Compression::default());
    let mut builder = Box::new(tar::Builder::new(encoder));
    builder.follow_symlinks(false);
    let mut sink = Sink::Archive(builder, PathBuf::from(name));
    let written = copy(job, &mut sink)?;
    let Sink::Archive(builder, _) = sink else { return Ok(written) };
    let finish = || builder.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all();
    finish().map_err(Failed::Writing)?;
    compare(written, read_back(path).map_err(Failed::Writing)?)
}

fn compare(written: Sum, read: Sum) -> Result<Sum, Failed> {
    if written == read { Ok(written) } else { Err(Failed::Different { written, read }) }
}

fn read_back(path: &Path) -> io::Result<Sum> {
    let mut archive = tar::Archive::new(GzDecoder::new(io::BufReader::with_capacity(256 << 10, File::open(path)?)));
    let mut sum = Sum::default();
    for entry in archive.entries()? {
        let mut entry = entry?;
        match entry.header().entry_type() {
            tar::EntryType::Regular => sum.file(io::copy(&mut entry, &mut io::sink())?),
            tar::EntryType::Symlink => sum.links += 1,
            _ => {}
        }
    }
    Ok(sum)
}

impl Sum {
    fn file(&mut self, length: u64) {
        self.files += 1;
        self.bytes += length;
    }
}

fn copy(job: &Job<'_>, sink: &mut Sink<'_>) -> Result<Sum, Failed> {
    let mut sum = Sum::default();
    for item in &job.inventory.items {
        if job.cancelled.load(Ordering::Relaxed) {
            return Err(Failed::Cancelled);
        }
        match item {
            Item::Folder(path) => sink.folder(&job.below.join(path)).map_err(Failed::Writing)?,
            Item::Link(path, target) => {
                sink.link(&job.below.join(path), target).map_err(Failed::Writing)?;
                sum.links += 1;
            }
            Item::File(path, _) => {
                let full = job.from.join(path);
                let reading = |error| Failed::Reading(full.clone(), error);
                let Some(source) = Source::open(&full, job.live).map_err(reading)? else { continue };
                let length = source.length;
                let mut reader = Watched { inner: source.file.take(length), error: None, cancelled: job.cancelled };
                match sink.file(&job.below.join(path), &source.meta, length, &mut reader) {
                    _ if reader.cancelled.load(Ordering::Relaxed) => return Err(Failed::Cancelled),
                    Err(error) => {
                        return Err(reader.error.take().map_or(Failed::Writing(error), reading));
                    }
                    Ok(()) => sum.file(length),
                }
            }
        }
    }
    Ok(sum)
}

/// Tells errors of reading from errors of writing, and ends early.
struct Watched<'a> {
    inner: io::Take<File>,
    error: Option<io::Error>,
    cancelled: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was copied");
        let result = match self.inner.read(buffer) {
            Ok(0) if self.inner.limit() > 0 && !buffer.is_empty() => Err(short()),
            result => result,
        };
        result.map_err(|error| {
            let told = io::Error::new(error.kind(), error.to_string());
            // `Interrupted` is tried again by the caller.
            if error.kind() != io::ErrorKind::Interrupted {
                self.error = Some(error);
            }
            told
        })
    }
}

impl Sink<'_> {
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        match self {
            Sink::Tree(root) => std::fs::create_dir(root.join(path)),
            Sink::Archive(builder, name) => {
                let mut header = header(tar::EntryType::Directory, 0o755, 0);
                builder.append_data(&mut header, name.join(path), io::empty())
            }
        }
    }

    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        match self {
            Sink::Tree(root) => std::os::unix::fs::symlink(target, root.join(path)),
            Sink::Archive(builder, name) => {
                let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                builder.append_link(&mut header, name.join(path), target)
            }
        }
    }

    fn file(&mut self, path: &Path, meta: &std::fs::Metadata, length: u64, reader: &mut impl Read) -> io::Result<()> {
        let mode = meta.permissions().mode() & 0o777;
        match self {
            Sink::Tree(root) => {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(root.join(path))?;
                io::copy(reader, &mut file)?;
                file.flush()?;
                if let Ok(time) = meta.modified() {
                    file.set_modified(time)?;
                }
                file.set_permissions(Permissions::from_mode(mode))
            }
            Sink::Archive(builder, name) => {
                let mut header = header(tar::EntryType::Regular, mode, length);
                header.set_mtime(
                    meta.modified()
                        .ok()
                        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
                        .map_or(0, |since| since.as_secs()),
                );
                builder.append_data(&mut header, name.join(path), reader)
            }
        }
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}
