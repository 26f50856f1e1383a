//! From a directory to the table behind every report.
//!
//! Read are our run directories and those of the Python predecessor. No content of any file stops an analysis: what
//! cannot be read is listed with the reason. Only a directory that is no run at all is an error.

mod predecessor;
mod quantiles;
mod requests;
mod result_file;
mod run;
mod server_log;

use std::path::{Path, PathBuf};

pub use quantiles::add_quantiles;
pub(super) use result_file::read_text;
pub use server_log::add_server_logs;

use crate::analyse::{Assumptions, Requests, Row, RunTable, derive};
use crate::plan::Repeat;
use crate::record::{Error, RunDir, layout, list_runs};

/// Loads the run at `path`: a run directory of ours, one of the Python predecessor, or a results directory, of which
/// the newest run is taken (ours before the predecessor's).
///
/// # Errors
/// When there is no run, or the manifest or the directory cannot be read.
pub fn load_run(path: &Path) -> Result<RunTable, Error> {
    let mut table = load_one(path)?;
    derive(&mut table, &Assumptions::default());
    Ok(table)
}

fn load_one(path: &Path) -> Result<RunTable, Error> {
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

/// Loads several sources as one table: the settings that several of them measured are repeats of each other, on different
/// server starts.
///
/// # Errors
/// As [`load_run`], for each of them.
pub fn load_runs(paths: &[PathBuf]) -> Result<RunTable, Error> {
    let mut tables = paths.iter().map(|path| load_one(path)).collect::<Result<Vec<_>, _>>()?.into_iter();
    let Some(mut all) = tables.next() else { return Err(Error::NoRuns(PathBuf::new())) };
    let mut starts = last_start(&all);
    for table in tables {
        let offset = starts;
        starts += last_start(&table);
        all.rows.extend(table.rows.into_iter().map(|mut row| {
            let repeat = row.repeat.unwrap_or(Repeat::FIRST);
            row.repeat = Some(Repeat { start: repeat.start + offset, ..repeat });
            row
        }));
        all.unreadable.extend(table.unreadable.into_iter().map(|mut bad| {
            bad.file = format!("{}/{}", table.facts.run, bad.file);
            bad
        }));
        all.simulated |= table.simulated;
        all.more.push(table.facts);
    }
    if !all.more.is_empty() {
        for row in all.rows.iter_mut().filter(|row| row.repeat.is_none()) {
            row.repeat = Some(Repeat::FIRST);
        }
    }
    derive(&mut all, &Assumptions::default());
    Ok(all)
}

/// The highest number of a server start in a table; 1 where nothing was repeated.
fn last_start(table: &RunTable) -> u32 {
    table.rows.iter().filter_map(|row| row.repeat).map(|repeat| repeat.start).max().unwrap_or(1)
}

/// What a row's result says of each request; `None` where it does not (it was measured without `--save-detailed`).
///
/// # Errors
/// Why its file cannot be taken.
pub fn load_requests(row: &Row) -> Result<Option<Requests>, String> {
    match &row.source {
        Some(source) => requests::read(&row.about.directory.join(source)),
        None => Ok(None),
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
