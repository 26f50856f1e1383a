//! `--show-logs`: the server's and the client's output, live on the terminal.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use crate::diagnose::clean_line;
use crate::record::RunDir;
use crate::ui::Reporter;

const EVERY: Duration = Duration::from_millis(100);

/// Shows what is written to any log of this run from now on.
pub async fn show(run: RunDir, reporter: Reporter) {
    let mut newest: Option<Followed> = None;
    let begin = std::time::SystemTime::now();
    loop {
        tokio::time::sleep(EVERY).await;
        if let Some(path) = newer_logs(&run, begin) {
            if newest.as_ref().is_none_or(|followed| followed.path != path || followed.was_replaced()) {
                if let Some(followed) = &mut newest {
                    followed.drain(&reporter);
                }
                newest = Followed::open(path);
            }
            if let Some(followed) = &mut newest {
                followed.drain(&reporter);
            }
        }
    }
}

/// The log that was written to last, if it was since `begin`.
fn newer_logs(run: &RunDir, begin: std::time::SystemTime) -> Option<PathBuf> {
    let entries = std::fs::read_dir(run.layout().logs()).ok()?;
    let dated = entries.flatten().filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())));
    dated.filter(|(at, _)| *at >= begin).max().map(|(_, path)| path)
}

struct Followed {
    path: PathBuf,
    file: std::fs::File,
    label: &'static str,
    partial: Vec<u8>,
}

impl Followed {
    fn open(path: PathBuf) -> Option<Self> {
        let file = crate::bounded::open(&path).ok()?;
        // `{name}_{role}.log` or `{name}_{role}.2.log`: what stands before the role is anybody's words.
        let name = path.file_name()?.to_string_lossy().into_owned();
        let stem = name.trim_end_matches(".log").trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('.');
        let label = if stem.ends_with("_server") { "server" } else { "client" };
        Some(Self { path, file, label, partial: Vec::new() })
    }

    /// A new attempt has set the file aside and begun another under its name.
    fn was_replaced(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let (Ok(there), Ok(mine)) = (std::fs::metadata(&self.path), self.file.metadata()) else { return true };
        there.ino() != mine.ino()
    }

    fn drain(&mut self, reporter: &Reporter) {
        let mut bytes = Vec::new();
        // A flood is shown from its end: a terminal that lags behind shows nothing live.
        const MOST: u64 = 64 << 10;
        if let (Ok(meta), Ok(at)) = (self.file.metadata(), self.file.stream_position())
            && meta.len() > at + MOST
        {
            let _ = self.file.seek(SeekFrom::Start(meta.len() - MOST));
            self.partial.clear();
        }
        let _ = (&mut self.file).take(MOST).read_to_end(&mut bytes);
        self.partial.extend_from_slice(&bytes);
        while let Some(end) = self.partial.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            reporter.print(&format!("        {} | {}", self.label, clean_line(&line)));
        }
    }
}
