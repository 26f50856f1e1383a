//! The journal of a run: one JSON object per line, only ever appended to.
//!
//! A crash can cut the last line at any byte. A writer that goes on begins with a newline where the last one is
//! missing; a reader passes over what it cannot read and says how much that was.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{Error, SCHEMA};
use crate::bounded;
use crate::model::Event;
use crate::safe;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Format version.
    pub v: u32,
    /// When, in the run's time zone (RFC 3339 with offset).
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Entry {
    /// The moment, as a point in time.
    pub fn time(&self) -> Option<DateTime<Utc>> {
        DateTime::parse_from_rfc3339(&self.at).ok().map(|at| at.with_timezone(&Utc))
    }
}

/// The open journal of a live run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    zone: Tz,
}

impl Journal {
    /// Opens the journal for appending, making it where it is missing.
    ///
    /// # Errors
    /// When it cannot be opened or its torn last line cannot be closed.
    pub fn open(path: &Path, zone: Tz) -> Result<Self, Error> {
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
        Ok(Self { path: path.to_owned(), file, zone })
    }

    /// Appends an event. What must survive a power cut is on the disk when this returns.
    ///
    /// # Errors
    /// When the line cannot be written whole.
    pub fn append(&mut self, event: &Event) -> Result<Entry, Error> {
        let entry = Entry {
            v: SCHEMA,
            at: Utc::now().with_timezone(&self.zone).to_rfc3339_opts(SecondsFormat::Millis, false),
            event: event.clone(),
        };
        let mut line = serde_json::to_vec(&entry).map_err(|e| Error::write(&self.path)(e.into()))?;
        line.push(b'\n');
        let line = safe::file_bytes(&line);
        self.file.write_all(&line).map_err(Error::write(&self.path))?;
        if is_milestone(event) {
            self.file.sync_data().map_err(Error::write(&self.path))?;
        }
        Ok(entry)
    }
}

/// Events that a resume builds on. The others only inform.
fn is_milestone(event: &Event) -> bool {
    match event {
        Event::RunStarted { .. }
        | Event::ServerLaunched { .. }
        | Event::ServerReused { .. }
        | Event::ExperimentStarted { .. }
        | Event::ExperimentFinished { .. }
        | Event::RunFinished { .. } => true,
        Event::Notice { .. }
        | Event::ForeignEnded { .. }
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
    pub entries: Vec<Entry>,
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
        match serde_json::from_slice::<Entry>(line) {
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

    fn journal_of(events: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path, chrono_tz::Asia::Jerusalem).unwrap();
        for i in 0..events {
            journal.append(&Event::Notice { text: format!("event {i} with ünïcode") }).unwrap();
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
            let mut journal = Journal::open(&path, chrono_tz::UTC).unwrap();
            journal.append(&Event::Notice { text: "after".into() }).unwrap();
            let after = read_journal(&path).unwrap();
            prop_assert_eq!(after.entries.len(), before.entries.len() + 1);
            prop_assert_eq!(&after.entries[..before.entries.len()], &before.entries[..]);
        }
    }
}
