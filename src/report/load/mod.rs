//! From a directory to the table behind every report.
//!
//! Read are our run directories and those of the Python predecessor. No content of any file stops an analysis: what
//! cannot be read is listed with the reason. Only a directory that is no run at all is an error.

mod predecessor;
mod result_file;
mod run;

use std::path::{Path, PathBuf};

pub(super) use result_file::read_text;

use crate::analyse::RunTable;
use crate::record::{Error, RunDir, layout, list_runs};

/// Loads the run at `path`: a run directory of ours, one of the Python predecessor, or a results directory, of which
/// the newest run is taken (ours before the predecessor's).
///
/// # Errors
/// When there is no run, or the manifest or the directory cannot be read.
pub fn load_run(path: &Path) -> Result<RunTable, Error> {
    if let Ok(dir) = RunDir::open(path) {
        return run::load(&dir);
    }
    if path.is_file() {
        return Err(Error::NotARun(path.to_owned()));
    }
    if !path.is_dir() {
        return Err(Error::NoRuns(path.to_owned()));
    }
    if !predecessor::result_files(path)?.is_empty() {
        return predecessor::load(path);
    }
    if let Some(newest) = list_runs(path)?.pop() {
        return run::load(&newest);
    }
    match newest_predecessor(path)? {
        Some(newest) => predecessor::load(&newest),
        None => Err(Error::NoRuns(path.to_owned())),
    }
}

/// The newest dated directory (`YYYYMMDD_HHMM`) that holds results and no manifest.
fn newest_predecessor(results_dir: &Path) -> Result<Option<PathBuf>, Error> {
    let mut dated: Vec<PathBuf> = std::fs::read_dir(results_dir)
        .map_err(Error::read(results_dir))?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| entry.file_name().to_str().is_some_and(is_stamp))
        .map(|entry| entry.path())
        .filter(|path| !path.join(layout::MANIFEST).exists())
        .collect();
    dated.sort();
    while let Some(path) = dated.pop() {
        if !predecessor::result_files(&path)?.is_empty() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a directory is named as rule 15 says.
fn is_stamp(name: &str) -> bool {
    name.len() == 13 && name.bytes().enumerate().all(|(i, b)| if i == 8 { b == b'_' } else { b.is_ascii_digit() })
}
