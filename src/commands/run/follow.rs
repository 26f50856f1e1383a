//! `--show-logs`: the server's and the client's output, live on the terminal.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::diagnose::clean_line;
use crate::record::RunDir;
use crate::ui::Reporter;

const EVERY: Duration = Duration::from_millis(100);

/// Shows what is written to any log of this run from now on, until `over` is sent or dropped; then once more what came last.
pub async fn show(run: RunDir, reporter: Reporter, mut over: oneshot::Receiver<()>) {
    let begin = SystemTime::now();
    let mut followed = HashMap::new();
    loop {
        let is_last = tokio::time::timeout(EVERY, &mut over).await.is_ok();
        for (file, path, length) in logs_since(&run, begin) {
            let known: &mut Followed = followed.entry(file).or_default();
            known.drain(&path, length, |line| reporter.print(line));
        }
        if is_last {
            return;
        }
    }
}

/// The logs that were written to since `begin`, the newest last: number of the file, which stays when a new attempt sets it aside under
/// another name, path, and length.
fn logs_since(run: &RunDir, begin: SystemTime) -> Vec<(u64, PathBuf, u64)> {
    let Ok(entries) = std::fs::read_dir(run.layout().logs()) else { return Vec::new() };
    let mut logs: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?, entry.path())))
        .filter_map(|(meta, path)| Some((meta.modified().ok()?, meta, path)))
        .filter(|(at, meta, _)| *at >= begin && meta.is_file())
        .collect();
    logs.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
    logs.into_iter().map(|(_, meta, path)| (meta.ino(), path, meta.len())).collect()
}

/// How far a log was shown.
#[derive(Default)]
struct Followed {
    at: u64,
    partial: Vec<u8>,
}

impl Followed {
    fn drain(&mut self, path: &Path, length: u64, mut print: impl FnMut(&str)) {
        // A flood is shown from its end: a terminal that lags behind shows nothing live.
        const MOST: u64 = 64 << 10;
        if length <= self.at {
            return;
        }
        if length > self.at + MOST {
            self.at = length - MOST;
            self.partial.clear();
        }
        let Ok(mut file) = crate::bounded::open(path) else { return };
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.at)).is_ok() {
            let _ = file.take(MOST).read_to_end(&mut bytes);
        }
        self.at += bytes.len() as u64;
        self.partial.extend_from_slice(&bytes);
        let label = label(path);
        while let Some(end) = self.partial.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            print(&format!("        {label} | {}", clean_line(&line)));
        }
    }
}

/// Whose log it is: `{name}_{role}.log` or `{name}_{role}.2.log`, where what stands before the role is anybody's words.
fn label(path: &Path) -> &'static str {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.trim_end_matches(".log").trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('.');
    if stem.ends_with("_server") { "server" } else { "client" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_shown_once_and_of_a_flood_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a_server.2.log");
        let mut followed = Followed::default();
        let mut look = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let mut shown = Vec::new();
            followed.drain(&path, text.len() as u64, |line| shown.push(line.trim_start().to_owned()));
            shown
        };
        assert_eq!(look("one\ntw"), ["server | one"]);
        assert_eq!(look("one\ntw"), [""; 0]);
        assert_eq!(look("one\ntwo\n"), ["server | two"]);
        let flood = format!("one\ntwo\n{}the end\n", "x\n".repeat(100_000));
        assert_eq!(look(&flood).last().unwrap(), "server | the end");
        assert_eq!(label(Path::new("a_server_benchmark.log")), "client");
    }
}
