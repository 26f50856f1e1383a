//! What can go wrong when a process group is started.

use std::io;
use std::path::PathBuf;

/// A process group could not be started or lost its guard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guard could not be started.
    #[error("could not start the process guard")]
    Guard(#[source] io::Error),
    /// The guard ended before it had started the command.
    #[error("the process guard ended before it had started `{program}`")]
    GuardLost {
        /// What it should have started.
        program: String,
    },
    /// The guard did not start the command in time, and was ended.
    #[error("the process guard did not start `{program}` and was ended: it was stopped (SIGSTOP), or hung")]
    GuardStuck {
        /// What it should have started.
        program: String,
    },
    /// The guard could not start the command.
    #[error("could not start `{program}`: {reason}")]
    Spawn {
        /// What it should have started.
        program: String,
        /// The system's words.
        reason: String,
    },
    /// The log of the command could not be opened.
    #[error("could not write the log `{}`: {reason}", path.display())]
    Log {
        /// Which log.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The registry of live groups could not be used.
    #[error("could not use `{}`, where live process groups are registered", path.display())]
    Registry {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// The next steps.
    pub fn hints(&self) -> Vec<String> {
        vec!["`vllm-bench check` shows whether this machine can run a sweep".into()]
    }
}
