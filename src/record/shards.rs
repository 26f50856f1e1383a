//! The journals that the tasks of a cluster write, each its own: no file has two writers. Read together with the run's own journal,
//! by time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::layout::Layout;
use super::{Error, JournalText, read_journal};
use crate::bounded;
use crate::model::{Event, Stamped};

/// The journal of a run with those of its tasks.
///
/// # Errors
/// When one exists and cannot be read.
pub(super) fn with_shards(own: JournalText, layout: &Layout) -> Result<JournalText, Error> {
    let files = files(&layout.shards()).map_err(Error::read(&layout.shards()))?;
    if files.is_empty() {
        return Ok(own);
    }
    let JournalText { entries, mut unreadable, mut damaged } = own;
    let mut all = vec![entries];
    for file in files {
        let shard = read_journal(&file)?;
        unreadable += shard.unreadable;
        // A line that was cut off with its task is no damage, even where it is the only one.
        damaged += if shard.entries.is_empty() { 0 } else { shard.damaged };
        all.push(shard.entries);
    }
    Ok(JournalText { entries: by_time(all), unreadable, damaged })
}

/// Journals as one, by time; within each, the order of its lines stays, whatever its clock did.
pub fn by_time(journals: Vec<Vec<Stamped>>) -> Vec<Stamped> {
    let mut keyed: Vec<(Option<DateTime<Utc>>, Stamped)> = Vec::with_capacity(journals.iter().map(Vec::len).sum());
    for journal in journals {
        let mut last = None;
        for entry in journal {
            last = entry.time().max(last);
            keyed.push((last, entry));
        }
    }
    // Stable: what happened at the same moment stays in the order of the files.
    keyed.sort_by_key(|(at, _)| *at);
    keyed.into_iter().map(|(_, entry)| entry).collect()
}

/// The files in the folder of shards, by name; none where there is no folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    files.sort();
    Ok(files)
}

/// Reads the journals of the tasks as they grow.
#[derive(Debug)]
pub struct ShardTails {
    folder: PathBuf,
    files: BTreeMap<OsString, Tail>,
}

/// One of them, and how far it was read.
#[derive(Debug, Default)]
struct Tail {
    offset: u64,
    /// The beginning of a line that is not whole yet.
    partial: Vec<u8>,
    /// Its task has said that it is over: nothing comes any more.
    over: bool,
}

impl ShardTails {
    /// From the first line of each.
    pub fn new(layout: &Layout) -> Self {
        Self { folder: layout.shards(), files: BTreeMap::new() }
    }

    /// What is new, by time.
    ///
    /// # Errors
    /// When the folder or a file exists and cannot be read.
    pub fn read(&mut self) -> io::Result<Vec<Stamped>> {
        let mut news = Vec::new();
        for path in files(&self.folder)? {
            let Some(name) = path.file_name() else { continue };
            let tail = self.files.entry(name.to_owned()).or_default();
            if !tail.over {
                news.push(tail.read(&path)?);
            }
        }
        Ok(by_time(news))
    }
}

impl Tail {
    fn read(&mut self, path: &Path) -> io::Result<Vec<Stamped>> {
        let mut file = match bounded::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() <= self.offset {
            return Ok(Vec::new());
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(bounded::RECORD).read_to_end(&mut bytes)?;
        self.offset += bytes.len() as u64;
        self.partial.extend_from_slice(&bytes);
        let whole = self.partial.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        let read = |line: &[u8]| serde_json::from_slice::<Stamped>(line).ok();
        let entries: Vec<Stamped> = lines.split(|&byte| byte == b'\n').filter_map(read).collect();
        self.over |= entries.iter().any(|entry| matches!(entry.event, Event::TaskEnded { .. }));
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Journal, SCHEMA};

    fn notice(second: u32, text: &str) -> Stamped {
        let at = format!("2026-02-25T14:30:{second:02}.000+02:00");
        Stamped { v: SCHEMA, seq: 1, at, event: Event::Notice { text: text.into() } }
    }

    fn texts(entries: &[Stamped]) -> Vec<&str> {
        let text = |entry: &Stamped| match &entry.event {
            Event::Notice { text } => text.clone(),
            other => panic!("{other:?}"),
        };
        entries.iter().map(|entry| &*Box::leak(text(entry).into_boxed_str())).collect()
    }

    fn layout(dir: &Path) -> Layout {
        let layout = Layout::new(dir);
        std::fs::create_dir_all(layout.shards()).unwrap();
        layout
    }

    #[test]
    fn journals_are_read_as_one_by_time_and_each_keeps_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let write = |path: PathBuf, lines: &[(u32, &str)]| {
            let mut journal = Journal::open(&path).unwrap();
            lines.iter().for_each(|(second, text)| journal.append(&notice(*second, text)).unwrap());
        };
        write(layout.journal(), &[(1, "begun"), (9, "over")]);
        write(layout.shard(1, 0, 1), &[(3, "a1"), (7, "a2")]);
        // Its clock was set back: what came later stays later.
        write(layout.shard(1, 1, 1), &[(5, "b1"), (2, "b2")]);
        std::fs::write(layout.shard(1, 2, 1), "{\"torn").unwrap();
        let read = with_shards(read_journal(&layout.journal()).unwrap(), &layout).unwrap();
        assert_eq!(texts(&read.entries), ["begun", "a1", "b1", "b2", "a2", "over"]);
        assert_eq!((read.unreadable, read.damaged), (1, 0));
    }

    #[test]
    fn what_grows_is_read_once_and_only_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let mut tails = ShardTails::new(&layout);
        assert!(tails.read().unwrap().is_empty());
        let whole = serde_json::to_string(&notice(1, "one")).unwrap() + "\n";
        std::fs::write(layout.shard(1, 0, 1), format!("{whole}{}", &whole[..9])).unwrap();
        assert_eq!(texts(&tails.read().unwrap()), ["one"]);
        assert!(tails.read().unwrap().is_empty());
        std::fs::write(layout.shard(1, 0, 1), format!("{whole}{whole}")).unwrap();
        assert_eq!(texts(&tails.read().unwrap()), ["one"]);
    }
}
