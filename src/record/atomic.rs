//! Whole files or none.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use super::{Error, layout};
use crate::bounded;
use crate::safe::{self, SafeWriter};

/// Writes a file that the user named, so that a reader, or a crash at any moment, sees the old one or the new one: a temporary
/// file in the same directory, `fsync`, rename, `fsync` of the directory. Behind a link, the file that it leads to. What is no
/// regular file (`/dev/null`, `/dev/stdout`, a pipe) is written to, never replaced.
///
/// # Errors
/// When any of these steps fails; the temporary file is removed.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let bytes = safe::file_bytes(bytes);
    place(path, |file| file.write_all(&bytes))
}

/// As [`write`], for text that is too large to be built in memory first: `content` writes it.
///
/// # Errors
/// As [`write`], and when `content` fails.
pub fn write_with(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    place(path, |file| safely(file, content))
}

/// The temporary file, its content, and its way to its place; or straight into what is no regular file.
fn place(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let attempt = || match Target::of(path)? {
        Target::File(path) => onto(&path, content),
        Target::Through(mut file) => content(&mut file),
    };
    attempt().map_err(Error::write(path))
}

/// Makes a file anew, and waits for the disk.
fn onto(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let file = temporary(path, content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory(path))?.sync_all()
}

/// Writes indented JSON with a final newline into a file that the user named.
///
/// # Errors
/// As [`write`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    write(path, &pretty(path, value)?)
}

/// As [`write_json`], for a file of a run: only its own directory is written to. A link in its place is replaced, not followed; a
/// directory that is a link, or anything else than a file, is an error.
///
/// # Errors
/// As [`write`], and [`Error::Swapped`].
pub fn keep_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = pretty(path, value)?;
    let bytes = safe::file_bytes(&bytes);
    require_own(path)?;
    onto(path, |file| file.write_all(&bytes)).map_err(Error::write(path))
}

/// As [`keep_json`] for what `content` writes, without waiting for the disk: for reports, which are made from the results again
/// at any time. A reader sees the old one or the new one; only after the machine itself went down it may be another than that.
///
/// # Errors
/// As [`keep_json`], and when `content` fails.
pub fn keep_again_with(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    require_own(path)?;
    let attempt =
        || temporary(path, |file| safely(file, content))?.persist(path).map(drop).map_err(|error| error.error);
    attempt().map_err(Error::write(path))
}

/// Refuses a path that is no folder, or a link to one.
///
/// # Errors
/// [`Error::Swapped`]; what cannot be looked at is left to the step that needs it.
pub fn require_folder(path: &Path) -> Result<(), Error> {
    let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
    let found = if meta.is_symlink() {
        let target = std::fs::read_link(path).unwrap_or_default();
        format!("a link to `{}`", target.display())
    } else if meta.is_dir() {
        return Ok(());
    } else {
        "no directory".to_owned()
    };
    Err(Error::Swapped { path: path.to_owned(), found })
}

/// A file of a run stands in a real folder, and where something has its name, that is a file or a link.
fn require_own(path: &Path) -> Result<(), Error> {
    require_folder(directory(path))?;
    match path.symlink_metadata() {
        Ok(meta) if !meta.is_file() && !meta.is_symlink() => {
            let source =
                io::Error::new(io::ErrorKind::AlreadyExists, "something that is no regular file has this name");
            Err(Error::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Where the bytes of a file that the user named go.
enum Target {
    /// A regular file, or none yet.
    File(PathBuf),
    /// A device, a pipe: opened.
    Through(File),
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = match path.metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match path.symlink_metadata() {
                    Ok(_) => Err(io::Error::new(error.kind(), "it is a link that leads to nothing")),
                    Err(_) => Ok(Target::File(path.to_owned())),
                };
            }
            Err(error) => return Err(error),
        };
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if meta.is_file() {
            // `/dev/stdout` that leads to a file: there is no name to replace.
            let named = std::fs::canonicalize(path)?;
            let same = named.metadata().is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()));
            if same {
                return Ok(Target::File(named));
            }
        }
        // A pipe that nobody reads is an error at once: nothing waits for a reader.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new().write(true).custom_flags(flags.bits()).open(path)?;
        nix::fcntl::fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(Target::Through(file))
    }
}

fn pretty<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::write(path)(e.into()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Text without what may not be written.
fn safely(file: &mut File, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, SafeWriter::new(file));
    content(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.finish().map(drop)
}

/// The content, in a file beside the one that it is for.
fn temporary(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<NamedTempFile> {
    let made = tempfile::Builder::new().prefix(layout::TEMPORARY_PREFIX).tempfile_in(directory(path));
    let mut file = made.map_err(without_its_name)?;
    content(file.as_file_mut())?;
    set_readable(file.as_file())?;
    Ok(file)
}

/// What the system said, without the temporary name that nobody asked for.
fn without_its_name(error: io::Error) -> io::Error {
    let text = error.to_string();
    let code = || text.rsplit_once("(os error ")?.1.split(')').next()?.parse().ok();
    if !text.contains(layout::TEMPORARY_PREFIX) {
        return error;
    }
    code().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Reads a JSON file.
///
/// # Errors
/// When it cannot be read, is larger than [`bounded::RECORD`], or is not a `what`.
pub fn read_json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, Error> {
    let bytes = bounded::read(path, bounded::RECORD).map_err(Error::read(path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Parse { path: path.to_owned(), what, source })
}

/// Results are for the whole team: `tempfile` makes files that only their owner may read.
fn set_readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_written_to_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("null");
        symlink("/dev/null", &device).unwrap();
        write(&device, b"x").unwrap();
        assert!(Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());
        write(Path::new("/dev/full"), b"x").unwrap_err();
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        std::fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink() && std::fs::read(&file).unwrap() == b"new");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        write(&pipe, b"nobody reads").unwrap_err();
        let reader = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&pipe).unwrap();
        write(&pipe, b"read").unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut &reader, &mut text).unwrap();
        assert_eq!(text, "read");
        symlink(dir.path().join("nothing"), dir.path().join("dangling")).unwrap();
        write(&dir.path().join("dangling"), b"x").unwrap_err();
        write(dir.path(), b"x").unwrap_err();
    }

    #[test]
    fn a_file_of_a_run_is_never_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let [precious, folder, link] = ["precious", "elsewhere", "run"].map(|name| dir.path().join(name));
        std::fs::write(&precious, "x").unwrap();
        std::fs::create_dir(&folder).unwrap();
        symlink(&folder, &link).unwrap();
        assert!(matches!(keep_json(&link.join("a.json"), &1).unwrap_err(), Error::Swapped { .. }));
        assert!(matches!(keep_again_with(&link.join("a"), |_| Ok(())).unwrap_err(), Error::Swapped { .. }));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        symlink(&precious, folder.join("a.json")).unwrap();
        keep_json(&folder.join("a.json"), &1).unwrap();
        assert_eq!(std::fs::read(&precious).unwrap(), b"x");
        nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        keep_json(&folder.join("pipe"), &1).unwrap_err();
    }
}
