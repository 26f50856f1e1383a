//! From the files of a run to its outline.

use std::path::{Path, PathBuf};

use chrono::DateTime;

use super::limits::Pair;
use super::outline::{self, Known, Outline};
use crate::analyse::RunTable;
use crate::record::{Error, RunDir, RunState};
use crate::results::read_run;
use crate::{bounded, safe};

/// What is sent: a run of ours, or a result file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A run directory.
    Run(RunDir),
    /// A result file, such as `load` writes.
    File(PathBuf),
}

/// A source as it stands now.
#[derive(Debug)]
pub struct Taken {
    /// Its results.
    pub table: RunTable,
    /// The same as MLflow has it.
    pub outline: Outline,
}

impl Source {
    /// The directory that its files are in.
    pub fn root(&self) -> &Path {
        match self {
            Self::Run(run) => run.path(),
            Self::File(file) => file.parent().unwrap_or(Path::new(".")),
        }
    }

    /// The run directory.
    pub fn run(&self) -> Option<&RunDir> {
        match self {
            Self::Run(run) => Some(run),
            Self::File(_) => None,
        }
    }

    /// Reads it. The journal comes first: whose result is read later may be newer, and is then sent by the next pass.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn take(&self) -> Result<Taken, Error> {
        match self {
            Self::Run(run) => {
                let manifest = run.manifest()?;
                let journal = run.journal()?;
                let mut table = read_run(run.path())?;
                // Jobs of a cluster go on without anybody here.
                table.facts.live |= RunState::replay(&journal.entries).open_tasks() > 0;
                let host = manifest.host.hostname.clone().unwrap_or_default();
                let told = [&manifest.run, &manifest.created, &host, &manifest.working_directory.display().to_string()];
                let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let settings = manifest.settings.iter().map(|(key, setting)| (key.clone(), text(&setting.value)));
                let begun = DateTime::parse_from_rfc3339(&manifest.created).map_or(0, |at| at.timestamp_millis());
                let known = Known {
                    run: super::digest(told.map(String::as_str).join("\n").as_bytes())[..32].to_owned(),
                    begun,
                    settings: settings.filter(|(_, value)| value != "null").collect(),
                    tags: tags(&manifest),
                    journal: &journal.entries,
                };
                let outline = outline::of_run(&table, &known);
                Ok(Taken { table, outline })
            }
            Self::File(file) => {
                let table = read_run(file)?;
                let bytes = bounded::read(file, bounded::RESULT)
                    .map_err(|source| Error::Read { path: file.clone(), source })?;
                let meta =
                    std::fs::metadata(file).and_then(|meta| meta.modified()).map(chrono::DateTime::<chrono::Utc>::from);
                let at = meta.map_or(0, |at| at.timestamp_millis());
                let outline = outline::of_results(&table, &super::digest(&bytes)[..32], at);
                Ok(Taken { table, outline })
            }
        }
    }
}

fn tags(manifest: &crate::record::Manifest) -> Vec<Pair> {
    let command = crate::words::shell_line(manifest.command_line.iter().map(String::as_str));
    [
        ("vllm_bench.version", Some(manifest.vllm_bench.clone())),
        ("vllm_bench.host", manifest.host.hostname.clone()),
        ("vllm_bench.engine", Some(manifest.engine.to_string())),
        ("mlflow.user", manifest.host.user.clone()),
        ("mlflow.source.name", Some("vllm-bench".to_owned())),
        ("vllm_bench.command_line", Some(safe::redact(&command).into_owned())),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value.filter(|value| !value.is_empty())?)))
    .collect()
}
