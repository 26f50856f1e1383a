//! Result files of other programs: `vllm bench serve`, `vllm bench sweep serve`, and requests one by one as CSV. Each file is
//! known by its content; its name only names the row.

mod find;
mod foreign_settings;
mod read;
mod requests_csv;

pub(crate) use foreign_settings::OF_REQUESTS;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::analyse::{Facts, Origin, Program, Row, RunTable, Unreadable};
use crate::model::VllmMetric;
use crate::record::Error;
use crate::results::parallel;
use read::{Content, Kind, Taken};

pub(super) use find::{files as candidates, folders};
pub(super) use requests_csv::requests;

/// Loads single files, as one table.
///
/// # Errors
/// When one of them is no result.
pub(super) fn load_files(paths: &[PathBuf]) -> Result<RunTable, Error> {
    let named = |path: &PathBuf| (parent(path), PathBuf::from(path.file_name().unwrap_or_default()));
    let files: Vec<(PathBuf, PathBuf)> = paths.iter().map(named).collect();
    let contents = parallel::map(&files, |(root, file), buffer| read::file(root, file, buffer));
    let mut all = Collected::default();
    for (((root, file), content), path) in files.iter().zip(contents).zip(paths) {
        if let (true, Some(refusal)) = (content.taken.is_empty(), &content.refusal) {
            return Err(Error::NotAResult { path: path.clone(), reason: refusal.reason.clone() });
        }
        all.add(root, file, content);
    }
    let name = match files.as_slice() {
        [(_, only)] => only.to_string_lossy().into_owned(),
        several => format!("{} files", several.len()),
    };
    let directory = files.first().map(|(root, _)| root.clone()).unwrap_or_default();
    all.settle();
    Ok(all.table(directory, name, true))
}

/// One file below a folder, with the date of its newest result as that of the table; `None` where it is no result and nothing is lost.
pub(super) fn dated_file(folder: &Path, file: &Path, buffer: &mut Vec<u8>) -> Option<Result<RunTable, String>> {
    let mut content = read::file(folder, file, buffer);
    // Tables and requests one by one say again what results say.
    let had = content.taken.len();
    content.taken.retain(|taken| matches!(taken.kind, Kind::Client | Kind::Run));
    if content.taken.is_empty() {
        if had > 0 {
            return None;
        }
        let refusal = content.refusal.filter(|refusal| refusal.lost && find::promises(file))?;
        return Some(Err(refusal.reason));
    }
    let created = content.taken.iter().filter_map(|taken| taken.date.clone()).max();
    let mut all = Collected::default();
    all.add(folder, file, content);
    all.settle();
    let mut table = all.table(folder.to_owned(), file.to_string_lossy().into_owned(), true);
    table.facts.created = created;
    let mut versions: Vec<String> =
        table.rows.iter().filter_map(|row| row.about.vllm_version.as_deref().map(str::to_owned)).collect();
    versions.sort();
    versions.dedup();
    table.facts.vllm_versions = versions;
    Some(Ok(table))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Loads the results in a directory and in the folders of a sweep below it.
///
/// # Errors
/// When a directory cannot be read, or there is no result.
pub(super) fn load_directory(directory: &Path) -> Result<RunTable, Error> {
    let mut all = read_all(directory, find::files(directory)?);
    if !all.measured() {
        for folder in find::folders(directory)? {
            let mut files = find::files(&directory.join(&folder))?;
            files.iter_mut().for_each(|file| *file = folder.join(&file));
            all.extend(read_all(directory, files));
        }
    }
    all.settle();
    let itself = |all: Collected| all.table(directory.to_owned(), name_of(directory), false);
    if all.measured() {
        return Ok(itself(all));
    }
    // A folder of sweeps: the newest stands for it.
    let mut newest: Option<(Option<String>, RunTable)> = None;
    for folder in find::folders(directory)? {
        let Ok((date, table)) = sweep(&directory.join(&folder)) else { continue };
        if newest.as_ref().is_none_or(|(known, _)| *known <= date) {
            newest = Some((date, table));
        }
    }
    if let Some((_, table)) = newest {
        return Ok(table);
    }
    if !all.rows.is_empty() {
        return Ok(itself(all));
    }
    let seen = all.unreadable.into_iter().map(|file| format!("`{}`: {}", file.file, file.reason)).collect();
    Err(Error::NoResults { path: directory.to_owned(), seen })
}

/// The sweep in a directory, with the date of its newest result.
fn sweep(directory: &Path) -> Result<(Option<String>, RunTable), Error> {
    let mut all = Collected::default();
    for folder in find::folders(directory)? {
        let mut files = find::files(&directory.join(&folder))?;
        files.iter_mut().for_each(|file| *file = folder.join(&file));
        all.extend(read_all(directory, files));
    }
    all.settle();
    let date = all.rows.iter().filter_map(|taken| taken.date.clone()).max();
    let nothing = all.rows.is_empty();
    let table = all.table(directory.to_owned(), name_of(directory), false);
    if nothing { Err(Error::NoRuns(directory.to_owned())) } else { Ok((date, table)) }
}

fn name_of(directory: &Path) -> String {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read_all(root: &Path, files: Vec<PathBuf>) -> Collected {
    let contents = parallel::map(&files, |file, buffer| read::file(root, file, buffer));
    let mut all = Collected::default();
    for (file, mut content) in files.iter().zip(contents) {
        // A file whose name promises no result is not told where it is none.
        content.refusal = content.refusal.filter(|_| !content.taken.is_empty() || find::promises(file));
        all.add(root, file, content);
    }
    all
}

/// Which run a file of requests holds: its name, how many requests, and their metrics.
fn run(taken: &Taken) -> String {
    format!("{} {} {}", taken.row.name, taken.requests, digits(&taken.row))
}

/// The metrics of a result, where it has some.
fn metrics(taken: &Taken) -> Option<String> {
    let known = taken.row.is_valid() && taken.row.metrics.get(VllmMetric::MeanTtft).is_some();
    known.then(|| digits(&taken.row))
}

/// All that a result says: when, of what, how much.
fn content(taken: &Taken) -> Option<String> {
    let row = &taken.row;
    Some(format!("{:?} {:?} {:?} {}", taken.date.as_ref()?, row.load.0, row.about.flags, metrics(taken)?))
}

fn digits(row: &Row) -> String {
    let digits =
        |metric: &VllmMetric| row.metrics.get(*metric).map_or_else(|| "-".to_owned(), |value| format!("{value:.5e}"));
    SAME.iter().map(digits).collect::<Vec<_>>().join(" ")
}

/// Metrics that are never all alike for two measurements.
const SAME: [VllmMetric; 7] = [
    VllmMetric::Completed,
    VllmMetric::Failed,
    VllmMetric::RequestThroughput,
    VllmMetric::OutputThroughput,
    VllmMetric::MeanTtft,
    VllmMetric::P99Ttft,
    VllmMetric::MeanTpot,
];

/// What has been read so far.
#[derive(Default)]
struct Collected {
    rows: Vec<Taken>,
    unreadable: Vec<Unreadable>,
}

impl Collected {
    fn add(&mut self, root: &Path, file: &Path, content: Content) {
        let directory: std::sync::Arc<Path> = root.into();
        let mut taken = content.taken;
        taken.iter_mut().for_each(|taken| taken.row.about.directory = std::sync::Arc::clone(&directory));
        if self.rows.is_empty() {
            // A file may hold very many: they stay where they are.
            self.rows = taken;
        } else {
            self.rows.extend(taken);
        }
        if let Some(refusal) = content.refusal {
            self.refuse(file, refusal.reason, refusal.lost);
        }
    }

    fn refuse(&mut self, file: &Path, reason: String, lost: bool) {
        self.unreadable.push(Unreadable { file: file.to_string_lossy().into_owned(), reason, lost });
    }

    fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.unreadable.extend(other.unreadable);
    }

    /// Whether there is a measurement, not merely a note of a failure or a summary of what lies elsewhere.
    fn measured(&self) -> bool {
        self.rows.iter().any(|taken| match taken.kind {
            Kind::Client | Kind::Run | Kind::Requests => true,
            Kind::Failure | Kind::Summary | Kind::Table => false,
        })
    }

    /// Counts once what several files say: runs of a sweep and their summaries, results and their requests.
    fn settle(&mut self) {
        let folder = |taken: &Taken| taken.file().parent().map(Path::to_owned);
        let runs: HashSet<Option<PathBuf>> =
            self.rows.iter().filter(|taken| taken.kind == Kind::Run).map(folder).collect();
        self.rows.retain(|taken| taken.kind != Kind::Summary || !runs.contains(&folder(taken)));
        let results = self.rows.iter().any(|taken| matches!(taken.kind, Kind::Run | Kind::Summary));
        self.rows.retain(|taken| taken.kind != Kind::Table || !results);
        self.count_once();
        let json = self.rows.iter().any(|taken| matches!(taken.kind, Kind::Client | Kind::Run | Kind::Summary));
        if json {
            let requests: Vec<PathBuf> = self
                .rows
                .iter()
                .filter(|taken| taken.kind == Kind::Requests)
                .map(|taken| taken.file().to_owned())
                .collect();
            self.rows.retain(|taken| taken.kind != Kind::Requests);
            for file in requests {
                let reason = "requests one by one, beside results: name the file itself to analyse it";
                self.refuse(&file, reason.into(), false);
            }
        }
        self.unreadable.sort();
        self.unreadable.dedup();
    }

    /// Keeps each measurement once that several files hold: a file of all runs beside the file of each, a table beside the results
    /// that it lists.
    fn count_once(&mut self) {
        let mut again = self.requests_again();
        // What nothing is held against need not be known: a file alone may hold a hundred thousand results.
        let is_list = |taken: &Taken| taken.kind == Kind::Client && !taken.alone;
        let lists = self.rows.iter().any(is_list);
        let alone = |taken: &&Taken| lists && taken.kind == Kind::Client && taken.alone;
        let singles: HashSet<String> = self.rows.iter().filter(alone).filter_map(content).collect();
        let tables = self.rows.iter().any(|taken| taken.kind == Kind::Table);
        let results = self.rows.iter().filter(|taken| tables && !matches!(taken.kind, Kind::Table | Kind::Requests));
        let results: HashSet<String> = results.filter_map(metrics).collect();
        let mut files: HashMap<&Path, bool> = HashMap::new();
        for taken in &self.rows {
            let held = match taken.kind {
                Kind::Table => !results.is_empty() && metrics(taken).is_some_and(|key| results.contains(&key)),
                Kind::Client if is_list(taken) => {
                    !singles.is_empty() && content(taken).is_some_and(|key| singles.contains(&key))
                }
                Kind::Client | Kind::Run | Kind::Summary | Kind::Failure | Kind::Requests => false,
            };
            *files.entry(taken.file()).or_insert(true) &= held;
        }
        again.extend(files.into_iter().filter(|(_, held)| *held).map(|(file, _)| file.to_owned()));
        again.sort();
        self.rows.retain(|taken| !again.iter().any(|file| file == taken.file()));
        for file in again {
            self.refuse(&file, "a collection: what it holds is in other files too".into(), false);
        }
    }

    /// Files of requests all of whose runs are in other files too. The file of one run that is called like it goes before others.
    fn requests_again(&self) -> Vec<PathBuf> {
        let rank = |taken: &Taken| {
            let named = taken.file().file_stem().is_some_and(|stem| stem.to_string_lossy() == taken.row.name);
            (!(taken.alone && named), !taken.alone, taken.file().to_owned())
        };
        let of_requests = || self.rows.iter().filter(|taken| taken.kind == Kind::Requests);
        let mut best: HashMap<String, (bool, bool, PathBuf)> = HashMap::new();
        for taken in of_requests() {
            let rank = rank(taken);
            match best.get_mut(&run(taken)) {
                Some(known) if *known <= rank => {}
                Some(known) => *known = rank,
                None => drop(best.insert(run(taken), rank)),
            }
        }
        let mut files: HashMap<&Path, bool> = HashMap::new();
        for taken in of_requests() {
            let held = best.get(&run(taken)).is_some_and(|(.., file)| file != taken.file());
            *files.entry(taken.file()).or_insert(true) &= held;
        }
        files.into_iter().filter(|(_, held)| *held).map(|(file, _)| file.to_owned()).collect()
    }

    /// The table of what is settled.
    fn table(self, directory: PathBuf, name: String, by_file: bool) -> RunTable {
        let program = self.program();
        let of_requests = self.rows.iter().filter(|taken| taken.kind == Kind::Requests);
        let one_by_one: HashSet<PathBuf> = of_requests.map(|taken| taken.file().to_owned()).collect();
        let mut rows: Vec<Row> = self.rows.into_iter().map(|taken| taken.row).collect();
        // A copy of our own results names its attempt, and its axes.
        let states =
            |row: &Row| row.attempt.is_none() && !one_by_one.contains(row.source.as_deref().unwrap_or(Path::new("")));
        foreign_settings::show_what_varies(&mut rows, states);
        let run: std::sync::Arc<str> = name.as_str().into();
        for row in &mut rows {
            row.about.run = match row.source.as_ref().filter(|_| by_file) {
                Some(file) => file.to_string_lossy().as_ref().into(),
                None => std::sync::Arc::clone(&run),
            };
        }
        RunTable {
            more: Vec::new(),
            simulated: rows.iter().any(|row| row.simulated),
            facts: Facts::bare(directory, name, Origin::Files(program)),
            rows,
            unreadable: self.unreadable,
        }
    }

    fn program(&self) -> Program {
        let of = |kind: Kind| match kind {
            Kind::Client => Program::Client,
            Kind::Run | Kind::Summary | Kind::Table | Kind::Failure => Program::Sweep,
            Kind::Requests => Program::Requests,
        };
        let mut programs = self.rows.iter().map(|taken| of(taken.kind));
        let first = programs.next().unwrap_or(Program::Client);
        if programs.all(|program| program == first) { first } else { Program::Several }
    }
}
