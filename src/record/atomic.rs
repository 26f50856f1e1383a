//! Whole files or none.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use super::{Error, layout};
use crate::safe::{self, SafeWriter};

/// Writes a file so that a reader, or a crash at any moment, sees the old one or the new one: a temporary file in the
/// same directory, `fsync`, rename, `fsync` of the directory.
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

/// The temporary file, its content, and its way to its place.
fn place(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let attempt = || {
        let file = temporary(path, content)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(directory(path))?.sync_all()
    };
    attempt().map_err(Error::write(path))
}

/// As [`write_with`], without waiting for the disk: for reports, which are made from the results again at any time. A reader sees
/// the old one or the new one; only after the machine itself went down it may be another than that.
///
/// # Errors
/// As [`write_with`].
pub fn write_again_with(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let attempt =
        || temporary(path, |file| safely(file, content))?.persist(path).map(drop).map_err(|error| error.error);
    attempt().map_err(Error::write(path))
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
    let mut file = tempfile::Builder::new().prefix(layout::TEMPORARY_PREFIX).tempfile_in(directory(path))?;
    content(file.as_file_mut())?;
    set_readable(file.as_file())?;
    Ok(file)
}

/// Writes indented JSON with a final newline, atomically.
///
/// # Errors
/// As [`write`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::write(path)(e.into()))?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// Reads a JSON file.
///
/// # Errors
/// When it cannot be read or is not a `what`.
pub fn read_json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, Error> {
    let bytes = std::fs::read(path).map_err(Error::read(path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Parse { path: path.to_owned(), what, source })
}

/// Results are for the whole team: `tempfile` makes files that only their owner may read.
fn set_readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}
