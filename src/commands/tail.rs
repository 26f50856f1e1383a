//! Reads files that others write to: logs that grow, are cut or replaced, and a journal that grows line by line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::bounded;
use crate::model::Stamped;
use crate::record::{RunDir, ShardTails, by_time};

/// How much is read at a time.
const PIECE: u64 = 256 << 10;
/// How far back the beginning of the last lines is looked for.
const FARTHEST: u64 = 64 << 20;

/// A log and how far it was read.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    open: Option<(File, (u64, u64))>,
    offset: u64,
}

/// What was new.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The bytes; none = nothing new.
    pub bytes: Vec<u8>,
    /// They are the beginning of a log that took the place of the one read so far.
    pub restarted: bool,
}

impl Tail {
    /// From the first byte; the file need not exist yet.
    pub fn whole(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None, offset: 0 }
    }

    /// From the last `lines` lines.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_lines(path: &Path, lines: usize) -> io::Result<Self> {
        let mut file = bounded::open(path)?;
        let offset = start_of_last_lines(&mut file, lines)?;
        let id = identity(&file.metadata()?);
        Ok(Self { path: path.to_owned(), open: Some((file, id)), offset })
    }

    /// Which file it reads.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is new; at most a piece of it.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn read(&mut self) -> io::Result<Piece> {
        let bytes = self.read_open()?;
        if !bytes.is_empty() {
            return Ok(Piece { bytes, restarted: false });
        }
        // The open file is at its end: perhaps the name means another one by now, or it was cut.
        let meta = match std::fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Piece::default()),
            Err(error) => return Err(error),
        };
        let known = self.open.as_ref().map(|(_, id)| *id);
        let replaced = known.is_some_and(|known| known != identity(&meta));
        let cut = known.is_some() && !replaced && meta.len() < self.offset;
        if known.is_none() || replaced {
            let file = bounded::open(&self.path)?;
            let id = identity(&file.metadata()?);
            self.open = Some((file, id));
        }
        if replaced || cut {
            self.offset = 0;
        }
        Ok(Piece { bytes: self.read_open()?, restarted: replaced || cut })
    }

    fn read_open(&mut self) -> io::Result<Vec<u8>> {
        let Some((file, _)) = &mut self.open else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset))?;
        file.take(PIECE).read_to_end(&mut bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }
}

fn identity(meta: &std::fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Where the last lines begin. A carriage return ends a line too: progress bars write nothing else.
fn start_of_last_lines(file: &mut File, lines: usize) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let (mut end, mut left) = (length, lines);
    let mut next: Option<u8> = None;
    while left > 0 && end > 0 && length - end < FARTHEST {
        let begin = end.saturating_sub(64 << 10);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        file.by_ref().take(end - begin).read_to_end(&mut block)?;
        if block.is_empty() {
            break;
        }
        for (at, &byte) in block.iter().enumerate().rev() {
            let ends_line = byte == b'\n' || (byte == b'\r' && next != Some(b'\n'));
            // The very last line end closes the last line and begins none.
            if ends_line && next.is_some() {
                left -= 1;
                if left == 0 {
                    return Ok(begin + at as u64 + 1);
                }
            }
            next = Some(byte);
        }
        end = begin;
    }
    Ok(if lines == 0 { length } else { end })
}

/// A journal and how far it was read.
#[derive(Debug)]
pub struct JournalTail {
    tail: Tail,
    /// The beginning of a line whose end has not been written.
    open: Vec<u8>,
    /// Bytes read.
    length: u64,
    /// The journals of the tasks of a cluster.
    shards: Option<ShardTails>,
}

impl JournalTail {
    /// The journal of a run, with those of its tasks.
    pub fn of_run(run: &RunDir) -> Self {
        Self { shards: Some(ShardTails::new(run.layout())), ..Self::new(&run.layout().journal()) }
    }

    /// From the first line.
    pub fn new(path: &Path) -> Self {
        Self { tail: Tail::whole(path), open: Vec::new(), length: 0, shards: None }
    }

    /// The entries that are new. Lines that cannot be read are passed over.
    ///
    /// # Errors
    /// When the journal exists and cannot be read, or is larger than what any command reads.
    pub fn read(&mut self) -> io::Result<Vec<Stamped>> {
        let own = self.read_own()?;
        match &mut self.shards {
            Some(shards) => Ok(by_time(vec![own, shards.read()?])),
            None => Ok(own),
        }
    }

    fn read_own(&mut self) -> io::Result<Vec<Stamped>> {
        let mut entries = Vec::new();
        loop {
            let piece = self.tail.read()?;
            if piece.bytes.is_empty() {
                return Ok(entries);
            }
            self.length += piece.bytes.len() as u64;
            if self.length > bounded::RECORD {
                return Err(bounded::too_large(bounded::RECORD));
            }
            let Some(end) = piece.bytes.iter().rposition(|&byte| byte == b'\n') else {
                self.open.extend_from_slice(&piece.bytes);
                continue;
            };
            let mut whole = std::mem::replace(&mut self.open, piece.bytes[end + 1..].to_vec());
            whole.extend_from_slice(&piece.bytes[..=end]);
            entries.extend(whole.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn last(bytes: &[u8], lines: usize) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        Tail::last_lines(&path, lines).unwrap().read().unwrap().bytes
    }

    #[test]
    fn the_last_lines_are_found() {
        assert_eq!(last(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last(b"a\nb\nc", 2), b"b\nc");
        assert_eq!(last(b"a\nb\n", 9), b"a\nb\n");
        assert_eq!(last(b"a\nb\n", 0), b"");
        assert_eq!(last(b"", 5), b"");
        assert_eq!(last(b"\n\n\n", 2), b"\n\n");
        assert_eq!(last(b"a\r\nb\r\nc\r\n", 2), b"b\r\nc\r\n");
        assert_eq!(last(b"10%\r20%\r30%\r", 2), b"20%\r30%\r");
        let long: Vec<u8> = (0..20_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        assert!(last(&long, 15_000).starts_with(b"line 5000\n"));
    }

    #[test]
    fn growth_replacement_and_a_cut_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut tail = Tail::whole(&path);
        assert_eq!(tail.read().unwrap(), Piece::default());
        std::fs::write(&path, "one").unwrap();
        assert_eq!(tail.read().unwrap(), Piece { bytes: b"one".into(), restarted: false });
        let mut old = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        old.write_all(b" last").unwrap();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(tail.read().unwrap(), Piece { bytes: b" last".into(), restarted: false });
        assert_eq!(tail.read().unwrap(), Piece { bytes: b"two".into(), restarted: true });
        std::fs::write(&path, "3").unwrap();
        assert_eq!(tail.read().unwrap(), Piece { bytes: b"3".into(), restarted: true });
        assert_eq!(tail.read().unwrap(), Piece::default());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tail.read().unwrap(), Piece::default());
    }

    #[test]
    fn a_torn_journal_line_waits_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let line = r#"{"v":1,"at":"2026-02-25T14:30:00+02:00","event":"notice","text":"x"}"#;
        let mut journal = JournalTail::new(&path);
        assert_eq!(journal.read().unwrap().len(), 0);
        std::fs::write(&path, format!("{line}\nnot json\n{}", &line[..9])).unwrap();
        assert_eq!(journal.read().unwrap().len(), 1);
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(format!("{}\n", &line[9..]).as_bytes())
            .unwrap();
        assert_eq!(journal.read().unwrap().len(), 1);
        assert_eq!(journal.read().unwrap().len(), 0);
        // A hole: a hundred gigabytes that take no room.
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100 << 30).unwrap();
        assert!(journal.read().unwrap_err().to_string().contains("larger than 256 MiB"));
    }
}
