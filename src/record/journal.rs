//! The journal of a run: one JSON object per line, only ever appended to.
//!
//! A crash can cut the last line at any byte. A writer that goes on begins with a newline where the last one is
//! missing; a reader passes over what it cannot read and says how much that was.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::Error;
use crate::bounded;
use crate::model::{Event, Stamped};
use crate::safe;

impl Stamped {
    /// The moment, as a point in time.
    pub fn time(&self) -> Option<DateTime<Utc>> {
        DateTime::parse_from_rfc3339(&self.at).ok().map(|at| at.with_timezone(&Utc))
    }
}

/// How far back the last line is looked for.
const LAST: u64 = 1 << 20;

/// The open journal of a live run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal for appending, making it where it is missing.
    ///
    /// # Errors
    /// When it cannot be opened or its torn last line cannot be closed.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let open = || {
            // A named pipe under this name would never take a line, and a link leads into another run.
            let waits = (nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOFOLLOW).bits();
            let mut file = OpenOptions::new().read(true).append(true).create(true).custom_flags(waits).open(path)?;
            bounded::require_regular(&file.metadata()?)?;
            if file.seek(SeekFrom::End(0))? > 0 {
                file.seek(SeekFrom::End(-1))?;
                let mut last = [0];
                file.read_exact(&mut last)?;
                if last != *b"\n" {
                    file.write_all(b"\n")?;
                }
            }
            Ok(file)
        };
        let file = open().map_err(Error::write(path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The number of the next event: one more than that of the last line that can be read.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn next_seq(&self) -> Result<u64, Error> {
        let read = || {
            let mut file = bounded::open(&self.path)?;
            let length = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(length.saturating_sub(LAST)))?;
            bounded::read_from(file, LAST)
        };
        let bytes = read().map_err(Error::read(&self.path))?;
        let last = bytes.rsplit(|&byte| byte == b'\n').find_map(|line| serde_json::from_slice::<Stamped>(line).ok());
        Ok(last.map_or(1, |last| last.seq.saturating_add(1)))
    }

    /// Appends an event. What must survive a power cut is on the disk when this returns.
    ///
    /// # Errors
    /// When the line cannot be written whole.
    pub fn append(&mut self, stamped: &Stamped) -> Result<(), Error> {
        let mut line = serde_json::to_vec(stamped).map_err(|e| Error::write(&self.path)(e.into()))?;
        line.push(b'\n');
        let line = safe::file_bytes(&line);
        self.file.write_all(&line).map_err(Error::write(&self.path))?;
        if is_milestone(&stamped.event) {
            self.file.sync_data().map_err(Error::write(&self.path))?;
        }
        Ok(())
    }
}

/// Events that a resume builds on. The others only inform.
fn is_milestone(event: &Event) -> bool {
    match event {
        Event::RunStarted { .. }
        | Event::ServerLaunched { .. }
        | Event::ServerReused { .. }
        | Event::ExperimentsPlanned { .. }
        | Event::NeighboursChecked { .. }
        | Event::ExperimentStarted { .. }
        | Event::ExperimentFinished { .. }
        | Event::JobSubmitting { .. }
        | Event::JobSubmitted { .. }
        | Event::JobRefused { .. }
        | Event::TaskStarted { .. }
        | Event::TaskEnded { .. }
        | Event::TaskLost { .. }
        | Event::FrontLeft { .. }
        | Event::RunFinished { .. } => true,
        Event::Notice { .. }
        | Event::ForeignEnded { .. }
        | Event::NeighboursBeingChecked { .. }
        | Event::ExperimentReused { .. }
        | Event::PhaseChanged { .. }
        | Event::Progress { .. }
        | Event::ServerReady { .. }
        | Event::BenchmarkLaunched { .. }
        | Event::TornDown { .. }
        | Event::StopRequested { .. } => false,
    }
}

/// A journal as read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JournalText {
    /// What could be read, in order.
    pub entries: Vec<Stamped>,
    /// Lines that could not: torn by a crash, or written by a newer version.
    pub unreadable: usize,
    /// Of these, lines that no crash explains: they are not the last of a session.
    pub damaged: usize,
}

/// Reads a journal; a missing one is empty.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn read_journal(path: &Path) -> Result<JournalText, Error> {
    match bounded::read(path, bounded::RECORD) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(JournalText::default()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

fn parse(bytes: &[u8]) -> JournalText {
    let mut text = JournalText::default();
    // Whether the line before could not be read.
    let mut torn = false;
    for line in bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Stamped>(line) {
            Ok(entry) => {
                let begins = matches!(entry.event, Event::RunStarted { .. });
                text.damaged += usize::from(torn && !begins);
                torn = false;
                text.entries.push(entry);
            }
            Err(_) => {
                text.unreadable += 1;
                text.damaged += usize::from(torn);
                torn = true;
            }
        }
    }
    // One torn line alone is no journal at all.
    text.damaged += usize::from(torn && text.entries.is_empty());
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notice(seq: u64, text: String) -> Stamped {
        let at = "2026-02-25T14:30:00.000+02:00".to_owned();
        Stamped { v: crate::record::SCHEMA, seq, at, event: Event::Notice { text } }
    }

    fn journal_of(events: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        for i in 0..events {
            journal.append(&notice(i as u64 + 1, format!("event {i} with ünïcode"))).unwrap();
        }
        (dir, path)
    }

    proptest! {
        #[test]
        fn a_journal_cut_at_any_byte_loads_and_grows(events in 1usize..6, cut in 0.0f64..1.0) {
            let (_dir, path) = journal_of(events);
            let whole = std::fs::read(&path).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a test position")]
            let at = (whole.len() as f64 * cut) as usize;
            std::fs::write(&path, &whole[..at]).unwrap();
            let before = read_journal(&path).unwrap();
            prop_assert!(before.unreadable <= 1);
            let mut journal = Journal::open(&path).unwrap();
            let next = journal.next_seq().unwrap();
            prop_assert_eq!(next, before.entries.last().map_or(1, |last| last.seq + 1));
            journal.append(&notice(next, "after".into())).unwrap();
            let after = read_journal(&path).unwrap();
            prop_assert_eq!(after.entries.len(), before.entries.len() + 1);
            prop_assert_eq!(&after.entries[..before.entries.len()], &before.entries[..]);
        }
    }
}
