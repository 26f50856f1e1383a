//! One error over the stages' errors: what is shown, with which hints, and which exit code it means.

use std::path::PathBuf;

use crate::report::Refusal;
use crate::report::export::ExportError;
use crate::{config, execute, exit, load, process, record};

/// The tool failed. (A failed experiment is no error but an [`crate::model::Outcome`].)
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag, variable or file is wrong; nothing was started.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A run's files could not be read, written or locked.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// The environment does not let a run start, or go on.
    #[error(transparent)]
    Execute(#[from] execute::Error),
    /// A process could not be started or found.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A load could not be made or run.
    #[error(transparent)]
    Load(#[from] load::error::Error),
    /// A file that the user named could not be read.
    #[error("could not read `{}`", path.display())]
    Input {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Standard input or output failed.
    #[error("could not use the terminal")]
    Terminal(#[from] std::io::Error),
    /// What a command had to say did not reach standard output.
    #[error("could not write standard output")]
    Output(#[source] std::io::Error),
    /// No experiment, run or log of this name.
    #[error("{what} `{name}` was not found in `{}`", place.display())]
    NotFound {
        /// Run, experiment, log …
        what: &'static str,
        /// As the user wrote it.
        name: String,
        /// Where it was looked for.
        place: PathBuf,
        /// The nearest names there are.
        nearest: Vec<String>,
    },
    /// Two flags contradict each other, or one needs another.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// The next step.
        hint: String,
    },
    /// vLLM would refuse flags of the sweep.
    #[error("`{}` would refuse {}", program.display(), if problems.len() == 1 { "a flag".to_owned() } else { format!("{} flags", problems.len()) })]
    Preflight {
        /// Which vLLM.
        program: PathBuf,
        /// Each flag with its place, and what is wrong with it.
        problems: Vec<String>,
    },
    /// A signal came before there was a load.
    #[error("stopped before the load: nothing was sent, and nothing is written")]
    StoppedEarly {
        /// Its number.
        signal: u8,
    },
    /// A second signal came while the first was obeyed.
    #[error("stopped at once by a second signal: what was under way is not written")]
    StoppedTwice {
        /// Its number.
        signal: u8,
    },
    /// A server to which results are sent does not take them.
    #[error("{message}")]
    Elsewhere {
        /// Which, and why.
        message: String,
        /// The next step.
        hint: String,
    },
    /// There is nothing to do.
    #[error("{message}")]
    Nothing {
        /// What was looked for.
        message: String,
        /// The next step.
        hint: String,
    },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing { message, hint } => Error::Nothing { message, hint },
            Refusal::Wrong { message, hint } => Error::Usage { message, hint },
        }
    }
}

impl From<ExportError> for Error {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Write(error) => Error::Terminal(error),
            ExportError::File(error) => Error::Record(error),
            ExportError::Refused(refusal) => refusal.into(),
        }
    }
}

impl Error {
    /// The documented exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Config(_) | Error::Usage { .. } | Error::Preflight { .. } => exit::USAGE,
            Error::Record(error) => error.exit_code(),
            Error::Execute(error) => error.exit_code(),
            Error::Load(error) if !error.is_environment() => exit::USAGE,
            Error::Load(_) | Error::Process(_) | Error::Elsewhere { .. } => exit::ENVIRONMENT,
            Error::Input { .. } => exit::USAGE,
            Error::Terminal(_) | Error::Output(_) => exit::RECORD,
            Error::NotFound { .. } | Error::Nothing { .. } => exit::NOTHING,
            Error::StoppedEarly { signal } | Error::StoppedTwice { signal } => exit::SIGNAL + signal,
        }
    }

    /// The next steps, one sentence each.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Error::Config(error) => error.hints(),
            Error::Record(error) => error.hints(),
            Error::Execute(error) => error.hints(),
            Error::Load(error) => error.hints(),
            Error::Process(error) => error.hints(),
            Error::Input { .. } => vec!["name a file that exists, or `-` for standard input".into()],
            Error::Terminal(_) | Error::StoppedEarly { .. } | Error::StoppedTwice { .. } => Vec::new(),
            Error::Output(_) => {
                vec!["what was printed is incomplete: send it to a place with room, and call the command again".into()]
            }
            Error::NotFound { nearest, what, .. } if nearest.is_empty() => match *what {
                "run" => vec!["there is no run at all there: start one with `vllm-bench run`, name the place with `--results-dir DIR`, or the run by its path".into()],
                _ => Vec::new(),
            },
            Error::NotFound { nearest, .. } => vec![format!("there is: {}", nearest.join(", "))],
            Error::Preflight { problems, .. } => {
                let last = "`--no-preflight` starts the servers all the same".to_owned();
                problems.iter().cloned().chain([last]).collect()
            }
            Error::Usage { hint, .. } | Error::Nothing { hint, .. } | Error::Elsewhere { hint, .. } => vec![hint.clone()],
        }
    }
}
