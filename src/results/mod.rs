//! From files to the table behind every report.
//!
//! Read are our run directories, those of the Python predecessor, and result files of other programs (docs/sources.md). No
//! content of any file stops an analysis: what cannot be read is listed with the reason. Only a path at which there is
//! nothing to analyse is an error.

mod dated;
mod fields;
mod files;
mod intern;
mod parallel;
mod predecessor;
mod remains;
mod request_arrays;
mod requests;
mod result_file;
mod run;
mod run_facts;
mod samples;
mod scan;
mod series;
mod server_log;
mod signs;
mod spans;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

pub use dated::{Dated, dated, read_dated};
pub(crate) use files::OF_REQUESTS;
pub(crate) use parallel::map as in_parallel;
pub(crate) use result_file::put_member;
pub use samples::{DeviceNow, Newest, newest_moment};
pub(crate) use scan::{Keep, Member, Scanner, Stop};
pub use series::{SeriesLine, read_series};
pub use server_log::add_server_logs;

use crate::analyse::{Assumptions, LoadValue, Moment, Origin, Requests, Row, RunTable, derive};
use crate::model::{Identity, Repeat};
use crate::record::{Error, RunDir, layout, list_runs};

/// A path as text; what is no text in it is replaced.
pub(crate) fn shown(path: &Path) -> Cow<'_, str> {
    // Nearly all are text, which is quickly seen.
    path.to_str().map_or_else(|| path.to_string_lossy(), Cow::Borrowed)
}

/// Loads what is at `path`: a run directory of ours, one of the Python predecessor, a results directory, of which the
/// newest run is taken (ours before the predecessor's), output of `vllm bench sweep serve`, a result file of
/// `vllm bench serve` or a directory of them, or requests one by one (CSV).
///
/// # Errors
/// When there is none of these, or the manifest or the directory cannot be read.
pub fn read_run(path: &Path) -> Result<RunTable, Error> {
    let mut table = load_one(path)?;
    table.label();
    derive(&mut table, &Assumptions::default());
    Ok(table)
}

fn load_one(path: &Path) -> Result<RunTable, Error> {
    if let Some(dir) = RunDir::at(path) {
        return run::load(&dir);
    }
    if path.is_file() {
        return files::load_files(&[path.to_owned()]);
    }
    if !path.is_dir() {
        return Err(if path.exists() {
            Error::NotAResult { path: path.to_owned(), reason: "not a regular file".into() }
        } else {
            Error::NoRuns(path.to_owned())
        });
    }
    let files = predecessor::result_files(path)?;
    if files.iter().any(|file| predecessor::is_named(file)) {
        return Ok(predecessor::load(path, &files));
    }
    if let Some(newest) = list_runs(path)?.pop() {
        return run::load(&newest);
    }
    match newest_predecessor(path)? {
        Some(newest) => {
            let files = predecessor::result_files(&newest)?;
            Ok(predecessor::load(&newest, &files))
        }
        None => files::load_directory(path),
    }
}

/// Loads several sources as one table. The settings that several of them measured are repeats of each other, on different
/// server starts. A source that is named twice counts once. Each row's `about.run` names its own: where two have the same
/// name, with the directory that holds them.
///
/// # Errors
/// As [`read_run`], for each of them.
pub fn read_runs(paths: &[PathBuf]) -> Result<RunTable, Error> {
    let mut seen: HashSet<PathBuf> = HashSet::new();
    let mut is_new = |path: &Path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    let (single, others): (Vec<&PathBuf>, Vec<&PathBuf>) = paths.iter().partition(|path| path.is_file());
    let mut tables = Vec::new();
    for path in others {
        let table = load_one(path)?;
        // Two paths may lead to the same run: a results directory stands for its newest.
        if is_new(&table.facts.directory) {
            tables.push(table);
        }
    }
    let single: Vec<PathBuf> = single.into_iter().filter(|path| is_new(path)).cloned().collect();
    if !single.is_empty() {
        tables.push(files::load_files(&single)?);
    }
    if tables.len() > 1 {
        tell_apart(&mut tables);
    }
    let mut tables = tables.into_iter();
    let Some(mut all) = tables.next() else { return Err(Error::NoRuns(PathBuf::new())) };
    let mut starts = last_start(&all);
    for table in tables {
        let offset = starts;
        starts += last_start(&table);
        let rows = table.rows.into_iter().map(|mut row| {
            let repeat = row.repeat.unwrap_or(Repeat::FIRST);
            row.repeat = Some(Repeat { start: repeat.start + offset, ..repeat });
            row
        });
        // What a rule left out of several runs is told once.
        let skipped: HashSet<_> = all.rows.iter().filter(|row| row.is_skipped()).map(|row| row.axes.clone()).collect();
        all.rows.extend(rows.filter(|row| !(row.is_skipped() && skipped.contains(&row.axes))));
        all.unreadable.extend(table.unreadable);
        all.simulated |= table.simulated;
        all.more.push(table.facts);
    }
    if !all.more.is_empty() {
        for row in all.rows.iter_mut().filter(|row| row.repeat.is_none() && !row.is_skipped()) {
            row.repeat = Some(Repeat::FIRST);
        }
        for row in all.rows.iter_mut().filter(|row| row.is_skipped()) {
            row.repeat = None;
        }
    }
    all.label();
    derive(&mut all, &Assumptions::default());
    Ok(all)
}

/// Gives the runs names that differ, puts them before the names of unreadable files, and gives rows of the predecessor, which
/// have no identity, one by all that their name and their result say.
fn tell_apart(tables: &mut [RunTable]) {
    let mut names: HashSet<String> = HashSet::new();
    for table in tables {
        let directory = table.facts.directory.canonicalize().unwrap_or_else(|_| table.facts.directory.clone());
        let above = directory.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let plain = table.facts.run.clone();
        let longer = above.map_or_else(|| plain.clone(), |above| format!("{above}/{plain}"));
        let numbered = (2..).map(|n| format!("{longer} ({n})"));
        let name = [plain.clone(), longer.clone()].into_iter().chain(numbered).find(|name| !names.contains(name));
        let name = name.unwrap_or(plain);
        if name != table.facts.run {
            let shared: std::sync::Arc<str> = name.as_str().into();
            table.rows.iter_mut().for_each(|row| row.about.run = std::sync::Arc::clone(&shared));
            table.facts.run.clone_from(&name);
        }
        table.unreadable.iter_mut().for_each(|bad| bad.file = format!("{name}/{}", bad.file));
        names.insert(name);
        if table.facts.origin == Origin::Predecessor {
            for row in table.rows.iter_mut().filter(|row| row.identity.is_none()) {
                row.identity = Some(stated_identity(row));
                row.about.settings = row.identity.clone();
            }
        }
    }
}

/// What a row of the predecessor is by its name and its load; counted tokens to a twentieth.
fn stated_identity(row: &Row) -> Identity {
    let mut stated: BTreeMap<String, String> = BTreeMap::from([("name".to_owned(), row.name.clone())]);
    for (flag, value) in &row.load.0 {
        let text = match value {
            LoadValue::Exact(text) => text.clone(),
            LoadValue::About(count) => format!("{:.0}", count.max(1.0).log(1.05)),
        };
        stated.insert(format!("bench.{flag}"), text);
    }
    Identity::of_stated(&stated)
}

/// The highest number of a server start in a table; 1 where nothing was repeated.
fn last_start(table: &RunTable) -> u32 {
    table.rows.iter().filter_map(|row| row.repeat).map(|repeat| repeat.start).max().unwrap_or(1)
}

/// What a row's result says of each request; `None` where it does not (it was measured without `--save-detailed`).
///
/// # Errors
/// Why its file cannot be taken.
pub fn read_requests(row: &Row) -> Result<Option<Requests>, String> {
    match &row.source {
        Some(source) => requests::read(&row.about.directory.join(source), row.about.part),
        None => Ok(None),
    }
}

/// The samples of devices, host and server during a measurement; `None` where none were taken.
///
/// # Errors
/// Why their file cannot be taken.
pub fn read_samples(row: &Row) -> Result<Option<Vec<Moment>>, String> {
    let file = row.about.samples.as_ref().filter(|file| file.is_relative());
    file.map(|file| samples::read(&row.about.directory.join(file))).transpose()
}

/// The newest dated directory (`YYYYMMDD_HHMM`) that holds results and no manifest.
fn newest_predecessor(results_dir: &Path) -> Result<Option<PathBuf>, Error> {
    let mut dated: Vec<PathBuf> = std::fs::read_dir(results_dir)
        .map_err(Error::read(results_dir))?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| entry.file_name().to_str().is_some_and(layout::is_stamp))
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
