//! A run whose manifest is damaged or gone: its results, its failures and its journal say what they still know. What was planned
//! and left no trace is not known, and the table says so.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::analyse::{Facts, Origin, Row, RunTable, ShownAxes, Status, Unreadable};
use crate::model::{Event, Outcome, Phase};
use crate::record::{Error, RunDir, RunState, layout};
use crate::results::intern::Shared;
use crate::results::predecessor;
use crate::results::result_file;
use crate::results::result_file::Members;
use crate::results::run::{failed, read_failure};
use crate::results::run_facts::{broken, duration, journal_of};

/// Loads what is left of a run. `error`: why its manifest cannot be read.
///
/// # Errors
/// That error, where nothing else is there either.
pub(super) fn load(dir: &RunDir, error: Error) -> Result<RunTable, Error> {
    let (journal, mut damaged) = journal_of(dir);
    let state = RunState::replay(&journal.entries);
    let mut found = Found {
        run: dir.name().as_str().into(),
        directory: dir.path().into(),
        rows: Vec::new(),
        names: HashSet::new(),
        unreadable: Vec::new(),
        versions: Vec::new(),
    };
    found.results(dir)?;
    found.failures(dir)?;
    found.journal(&state);
    if found.rows.is_empty() && journal.entries.is_empty() {
        return Err(error);
    }
    let planned = journal.entries.iter().rev().find_map(|entry| match &entry.event {
        Event::RunStarted { planned, .. } => Some(planned),
        _ => None,
    });
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let plan = match planned {
        Some(planned) => format!("{planned} experiments were planned, {} left a trace", found.rows.len()),
        None => "how many experiments were planned is not known".to_owned(),
    };
    damaged.insert(0, format!("`{}` is damaged or gone{cause}; {plan}", layout::MANIFEST));
    let simulated =
        journal.entries.iter().any(|entry| matches!(entry.event, Event::RunStarted { simulated: true, .. }));
    for row in &mut found.rows {
        row.about.run = Arc::clone(&found.run);
        row.about.directory = Arc::clone(&found.directory);
        row.simulated |= simulated;
    }
    found.unreadable.extend(damaged.iter().map(|what| broken(layout::MANIFEST, what)));
    found.unreadable.sort();
    Ok(RunTable {
        more: Vec::new(),
        simulated: simulated || found.rows.iter().any(|row| row.simulated),
        facts: Facts {
            created: journal.entries.first().map(|entry| entry.at.clone()),
            vllm_versions: found.versions,
            duration: duration(&journal.entries),
            sessions: state.sessions,
            live: dir.live().is_some(),
            unreadable_journal_lines: journal.unreadable,
            damaged,
            ..Facts::bare(dir.path().to_owned(), dir.name(), Origin::VllmBench { version: "unknown".into() })
        },
        rows: found.rows,
        unreadable: found.unreadable,
    })
}

/// What is left.
struct Found {
    run: Arc<str>,
    directory: Arc<Path>,
    rows: Vec<Row>,
    names: HashSet<String>,
    unreadable: Vec<Unreadable>,
    versions: Vec<String>,
}

impl Found {
    fn put(&mut self, row: Row) {
        if self.names.insert(row.name.clone()) {
            self.rows.push(row);
        }
    }

    /// Every result, valid or not.
    fn results(&mut self, dir: &RunDir) -> Result<(), Error> {
        let mut shared = Shared::default();
        let mut buffer = Vec::new();
        for file in predecessor::result_files(dir.path())? {
            let name = file.to_string_lossy().into_owned();
            let stem = name.strip_suffix(layout::RESULT_SUFFIX).unwrap_or(&name).to_owned();
            let read = result_file::read(&dir.path().join(&file), &mut buffer, Members::Parsed);
            let row = read.and_then(|result| {
                let Some(result) = result else { return Ok(None) };
                let row = predecessor::row(&file, &result)?;
                Ok(Some((row, result.meta.and_then(Result::ok))))
            });
            match row {
                Ok(Some((mut row, meta))) => {
                    if let Some(meta) = meta {
                        row.repeat = Some(meta.repeat);
                        row.groups.clone_from(&meta.groups);
                        row.about.server_log.clone_from(&meta.server_log);
                        if let Some(version) = meta.vllm_version.filter(|version| !self.versions.contains(version)) {
                            self.versions.push(version);
                        }
                    }
                    shared.share(&mut row);
                    self.put(row);
                }
                Ok(None) => {}
                Err(refusal) => {
                    let status = Status::Invalid(format!("the result file is {}", refusal.reason));
                    self.put(bare(&stem, None, status));
                    self.unreadable.push(Unreadable { file: name, reason: refusal.reason, lost: refusal.lost });
                }
            }
        }
        Ok(())
    }

    /// Every failure of an experiment that has no valid result.
    fn failures(&mut self, dir: &RunDir) -> Result<(), Error> {
        let entries = std::fs::read_dir(dir.path()).map_err(Error::read(dir.path()))?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| layout::is_failure(name)).collect();
        names.sort();
        for name in names {
            match read_failure(&dir.path().join(&name)) {
                Ok(Some(record)) => {
                    let log = record.benchmark_log.filter(|_| record.failure.phase == Phase::Measuring);
                    let status = failed(record.failure, log.or(Some(record.server_log)));
                    let mut row = bare(&record.name, Some((&record.axes).into()), status);
                    (row.identity, row.attempt) = (Some(record.identity), Some(record.attempt));
                    (row.timings, row.simulated) = (Some(record.timings), record.simulated);
                    self.put(row);
                }
                Ok(None) => {}
                Err(reason) => self.unreadable.push(Unreadable { file: name, reason, lost: true }),
            }
        }
        Ok(())
    }

    /// What only the journal knows.
    fn journal(&mut self, state: &RunState) {
        for (name, attempts) in &state.attempts {
            let Some(newest) = attempts.last() else { continue };
            let status = match &newest.outcome {
                Some(Outcome::Failed(failure)) => failed(failure.clone(), None),
                Some(Outcome::Passed { .. }) => {
                    Status::Invalid("the journal says that it passed, but its result file is gone".into())
                }
                Some(Outcome::Interrupted) | None => Status::Interrupted,
            };
            let mut row = bare(name, None, status);
            (row.attempt, row.timings) = (Some(newest.number), newest.timings.clone());
            self.put(row);
        }
    }
}

/// A row of which no result tells.
fn bare(name: &str, axes: Option<ShownAxes>, status: Status) -> Row {
    let axes = axes.unwrap_or_else(|| predecessor::axes(name, predecessor::parse_name(name), None));
    Row { server_name: name.to_owned(), ..Row::bare(name.to_owned(), axes, status) }
}
