//! What keeps a run from starting or going on. (A failed experiment is an outcome, not an error.)

use std::path::PathBuf;
use std::time::Duration;

use crate::process::{DeviceHolder, LockError};
use crate::words::quoted;
use crate::{exit, process, record};

/// The environment does not let a run start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No `vllm` program.
    #[error("`vllm` was not found on PATH, nor by a login shell")]
    NoVllm,
    /// The `vllm` the user named is no program.
    #[error("`{}` is not a program that can be run", .0.display())]
    NotExecutable(PathBuf),
    /// The port is held by somebody else.
    #[error("port {port} is taken by {holder}")]
    PortTaken {
        /// The port.
        port: u16,
        /// Who holds it.
        holder: String,
    },
    /// No free port.
    #[error("no free port was found from {from} on")]
    NoFreePort {
        /// Where the search began.
        from: u16,
    },
    /// A lock or another file of the record.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// The registry of live groups.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// Devices of this run are locked by others.
    #[error("{}{}", shown_holders(holders), waited.map(|waited| format!(" (waited {} s)", waited.as_secs())).unwrap_or_default())]
    DevicesHeld {
        /// Who holds which.
        holders: Vec<DeviceHolder>,
        /// How long this run has waited for them.
        waited: Option<Duration>,
    },
    /// Devices could not be locked.
    #[error(transparent)]
    DeviceLocks(#[from] LockError),
    /// A launch script could not be written.
    #[error("could not write the launch script `{}`", path.display())]
    Script {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Record(error) => error.exit_code(),
            Error::Process(_)
            | Error::NoVllm
            | Error::NotExecutable(_)
            | Error::PortTaken { .. }
            | Error::NoFreePort { .. }
            | Error::DevicesHeld { .. }
            | Error::DeviceLocks(_)
            | Error::Script { .. } => exit::ENVIRONMENT,
        }
    }

    /// The next steps.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Error::Record(error) => error.hints(),
            Error::Process(error) => error.hints(),
            Error::NoVllm => vec![
                "run inside the vLLM container, or name the program with `--vllm-bin PATH`".into(),
                "`--engine sim` tries everything on the built-in simulated vLLM".into(),
            ],
            Error::NotExecutable(_) => vec!["name the `vllm` program itself with `--vllm-bin PATH`".into()],
            Error::PortTaken { .. } => vec!["end that process, or use `--port N` or `--port auto`".into()],
            Error::NoFreePort { .. } => vec!["name one with `--port N`".into()],
            Error::DevicesHeld { holders, waited: None } => {
                let mut hints = vec![
                    "`--wait` waits until they are free; `vllm-bench check` shows all devices with their holders".to_owned(),
                    "or leave them out: ZE_AFFINITY_MASK, CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES, on a CPU `taskset -c`".to_owned(),
                ];
                let mine = holders.iter().find(|holder| holder.is_mine && !holder.is_gone);
                if let Some(run) = mine.and_then(|holder| holder.run.as_ref()) {
                    let run = quoted(&run.to_string_lossy());
                    hints.push(format!(
                        "it is yours: `vllm-bench stop {run}` ends it, `vllm-bench status {run}` shows it"
                    ));
                }
                hints
            }
            Error::DevicesHeld { waited: Some(_), .. } => {
                vec![
                    "`--wait` without a duration waits as long as it takes; `vllm-bench check` shows the holders"
                        .into(),
                ]
            }
            Error::DeviceLocks(error) => error.hints(),
            Error::Script { .. } => vec!["make room in `/tmp`, and see that it is writable".into()],
        }
    }
}

/// The devices in one sentence: a core set has one holder for each core, and a run often holds several devices.
pub fn shown_holders(holders: &[DeviceHolder]) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<String> = holders.iter().take(SHOWN).map(ToString::to_string).collect();
    if let Some(more @ 1..) = holders.len().checked_sub(SHOWN) {
        shown.push(format!("and {more} more"));
    }
    shown.join("; ")
}
