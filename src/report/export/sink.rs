//! Where an exporter writes to.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Exporter;
use crate::record::{self, atomic};
use crate::report::{Refusal, Style};

/// One stream, and a directory for the formats of several files.
pub struct Sink<'o> {
    stream: &'o mut dyn Write,
    style: Style,
    directory: Option<&'o Path>,
    written: Vec<PathBuf>,
}

impl<'o> Sink<'o> {
    /// A file, a screen, or memory.
    pub fn new(stream: &'o mut dyn Write, style: Style) -> Self {
        Self { stream, style, directory: None, written: Vec::new() }
    }

    /// With a directory, which is there.
    pub fn into_directory(self, directory: Option<&'o Path>) -> Self {
        Self { directory, ..self }
    }

    /// How text is shown.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Writes one of several files, whole or not at all; nothing where there is no directory.
    pub(super) fn file(
        &mut self,
        path: impl FnOnce(&Path) -> PathBuf,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), ExportError> {
        let Some(directory) = self.directory else { return Ok(()) };
        let path = path(directory);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(record::Error::write(folder))?;
        }
        atomic::write_with(&path, content)?;
        self.written.push(path);
        Ok(())
    }

    /// The files that were written into the directory.
    pub fn written(self) -> Vec<PathBuf> {
        self.written
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    /// The stream's own: JSON is written in pieces of a few bytes.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Why nothing was written.
#[derive(Debug)]
pub enum ExportError {
    /// The stream refuses.
    Write(io::Error),
    /// The disk refuses.
    File(record::Error),
    /// The answer does not hold what the format needs, or a flag is wrong.
    Refused(Refusal),
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<record::Error> for ExportError {
    fn from(error: record::Error) -> Self {
        Self::File(error)
    }
}

impl From<Refusal> for ExportError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A format in memory.
///
/// # Errors
/// Those of the format.
pub fn in_memory<A: ?Sized>(exporter: &dyn Exporter<A>, answer: &A, style: Style) -> Result<Vec<u8>, ExportError> {
    let mut bytes = Vec::new();
    exporter.write(answer, &mut Sink::new(&mut bytes, style))?;
    Ok(bytes)
}

/// Writes a format that is text as one file, without colour: `place` is what makes it whole or not at all (`record::atomic`).
///
/// # Errors
/// Those of the format and of `place`.
pub fn whole_file<A: ?Sized>(
    exporter: &dyn Exporter<A>,
    answer: &A,
    place: impl FnOnce(&mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), record::Error>,
) -> Result<(), ExportError> {
    let mut refused = None;
    let placed = place(&mut |out| match exporter.write(answer, &mut Sink::new(out, Style::PLAIN)) {
        Ok(()) => Ok(()),
        Err(ExportError::Write(error)) => Err(error),
        Err(other) => {
            refused = Some(other);
            Err(io::ErrorKind::Other.into())
        }
    });
    match refused {
        Some(refused) => Err(refused),
        None => Ok(placed?),
    }
}
