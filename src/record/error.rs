//! What can go wrong with a run's files.

use std::io;
use std::path::{Path, PathBuf};

use super::Holder;
use crate::{bounded, exit};

/// A file of a run could not be read, written or locked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("could not read `{}`", path.display())]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed (a full or read-only disk, most often).
    #[error("could not write `{}`", path.display())]
    Write {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` is not a {what}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// Line and column, and what was expected there.
        source: serde_json::Error,
    },
    /// A file was written by a newer vllm-bench.
    #[error("`{}` has format version {found}; this vllm-bench reads up to {known}", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// A manifest that contradicts itself: nothing can be built on it.
    #[error("`{}` contradicts itself: {problem}", path.display())]
    Contradictory {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// A directory of a run is a link, or another one than before: it is not written through.
    #[error("`{}` is {found}: nothing is written there", path.display())]
    Swapped {
        /// Which directory.
        path: PathBuf,
        /// In words that go after "is".
        found: String,
    },
    /// Another process holds the results directory.
    #[error("another run holds `{}`: {holder}", path.display())]
    Locked {
        /// What is locked.
        path: PathBuf,
        /// Who holds it.
        holder: Box<Holder>,
    },
    /// Another run of vllm-bench holds the port.
    #[error("another run of vllm-bench holds port {port}: {holder}")]
    PortLocked {
        /// The port.
        port: u16,
        /// Who holds it.
        holder: Box<Holder>,
    },
    /// The valid result of another experiment lies where a result is to be written.
    #[error("`{}` is a valid result of another experiment: `{owner}`", path.display())]
    Occupied {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// There is no run where one was named.
    #[error("`{}` is not a run directory: it has no file `manifest.json`", .0.display())]
    NotARun(PathBuf),
    /// A file was named that is no result.
    #[error("`{}` is no result: it is {reason}", path.display())]
    NotAResult {
        /// Which.
        path: PathBuf,
        /// In words that go after "it is".
        reason: String,
    },
    /// A directory was named in which there is no result of any kind.
    #[error("no results in `{}`", path.display())]
    NoResults {
        /// Which.
        path: PathBuf,
        /// Files that were looked at, with the reason why they do not count.
        seen: Vec<String>,
    },
    /// There is no run at all.
    #[error("no run in `{}`", .0.display())]
    NoRuns(PathBuf),
}

/// What can be analysed.
const READ: &str = "read are: runs of vllm-bench and of its Python predecessor, output of `vllm bench sweep serve`, results of \
                    `vllm bench serve` (JSON, JSONL), and `requests.csv` of `vllm-bench load` (docs/sources.md)";

impl Error {
    /// Wraps the failure to read a path.
    pub fn read(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    }

    /// Wraps the failure to write a path.
    pub fn write(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Read { .. }
            | Error::Write { .. }
            | Error::Parse { .. }
            | Error::Newer { .. }
            | Error::Contradictory { .. }
            | Error::Swapped { .. }
            | Error::Locked { .. }
            | Error::NotAResult { .. }
            | Error::Occupied { .. }
            | Error::NotARun(_) => exit::RECORD,
            Error::PortLocked { .. } => exit::ENVIRONMENT,
            Error::NoRuns(_) | Error::NoResults { .. } => exit::NOTHING,
        }
    }

    /// What to do next.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Error::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                vec!["free space on that disk, then resume with `vllm-bench run --resume`".into()]
            }
            Error::Write { source, .. } if bounded::is_file_size_limit(source) => {
                vec![
                    "raise the limit of file sizes (`ulimit -f`, or of the service or batch system), then resume with \
                     `vllm-bench run --resume`"
                        .into(),
                ]
            }
            Error::Write { source, .. }
                if matches!(source.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) =>
            {
                vec!["choose a writable place with `--results-dir DIR`".into()]
            }
            Error::Read { .. } => vec!["name one that exists and may be read".into()],
            Error::Write { .. } => vec!["choose a place that exists and can be written: `--results-dir DIR`, or `--output` where the command has it".into()],
            Error::Contradictory { .. } => {
                vec![
                    "the file was changed after the run began: restore it, or begin a new run without `--resume`"
                        .into(),
                ]
            }
            Error::Swapped { .. } => vec!["name the directory itself, or put it back".into()],
            Error::Parse { .. } => {
                vec!["the file was changed by hand or by another program; restore it from a backup".into()]
            }
            Error::Newer { .. } => vec!["use the vllm-bench that wrote it, or a newer one".into()],
            Error::Locked { .. } => vec![
                "follow it with `vllm-bench status`, end it with `vllm-bench stop`, or choose another `--results-dir`"
                    .into(),
            ],
            Error::PortLocked { .. } => vec!["choose another port with `--port N` or `--port auto`".into()],
            Error::NotAResult { .. } => vec![READ.into()],
            Error::Occupied { .. } => vec![
                "nothing was overwritten: move that file out of the run directory, then resume with `vllm-bench run --resume`".into(),
            ],
            Error::NoResults { seen, .. } => {
                const SHOWN: usize = 5;
                let mut hints: Vec<String> = seen.iter().take(SHOWN).map(|seen| format!("looked at {seen}")).collect();
                if seen.len() > SHOWN {
                    hints.push(format!("and at {} more files", seen.len() - SHOWN));
                }
                hints.push(READ.into());
                hints
            }
            Error::NotARun(_) => vec!["name a directory that `vllm-bench run` made".into()],
            Error::NoRuns(_) => {
                vec!["start one with `vllm-bench run`, or name the place with `--results-dir DIR`".into()]
            }
        }
    }
}
