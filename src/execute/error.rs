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
    /// A server is to run in a container, and cannot.
    #[error("{problem}")]
    NoContainer {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// Programs of Slurm that are not there.
    #[error("{} not found on PATH: jobs cannot be submitted from here", quoted_list(.0))]
    NoSlurm(Vec<&'static str>),
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
    /// The machine has devices, and none of them may be used.
    #[error("{} no {kind} device of this machine", hiding(masks))]
    NoDeviceLeft {
        /// As people write it: `XPU`, `CUDA` …
        kind: &'static str,
        /// The variables that narrow them, as they are set.
        masks: Vec<(&'static str, String)>,
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
            | Error::NoContainer { .. }
            | Error::NoSlurm(_)
            | Error::PortTaken { .. }
            | Error::NoFreePort { .. }
            | Error::DevicesHeld { .. }
            | Error::NoDeviceLeft { .. }
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
            Error::NoContainer { hint, .. } => vec![hint.clone()],
            Error::NoSlurm(_) => vec![
                "run it where jobs are submitted (a login node), or load Slurm's module before".into(),
                "`--dry-run` shows what would be submitted; `--executor local` measures on this machine".into(),
            ],
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
            Error::NoDeviceLeft { masks, .. } => {
                let first = match masks.first() {
                    Some((name, _)) => format!("name devices that there are in `{name}`, or unset it"),
                    None => "see whether this user may open their nodes".to_owned(),
                };
                vec![first, "`vllm-bench check` shows the devices of this machine".into()]
            }
            Error::DeviceLocks(error) => error.hints(),
            Error::Script { .. } => vec!["make room in `/tmp`, and see that it is writable".into()],
        }
    }
}

/// `` `a` was ``, `` `a` and `b` were ``.
fn quoted_list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last} were", rest.join(", ")),
        _ => format!("{} was", quoted.concat()),
    }
}

/// What hides devices: `` `ZE_AFFINITY_MASK=9` leaves ``.
fn hiding(masks: &[(&'static str, String)]) -> String {
    let set: Vec<String> = masks
        .iter()
        .map(|(name, value)| if value.is_empty() { format!("`{name}=\"\"`") } else { format!("`{name}={value}`") })
        .collect();
    match set.as_slice() {
        [] => "there is".to_owned(),
        [one] => format!("{one} leaves"),
        several => format!("{} leave", several.join(" and ")),
    }
}

/// The devices in one sentence: each holder once.
pub fn shown_holders(holders: &[DeviceHolder]) -> String {
    const SHOWN: usize = 4;
    let told = told_holders(holders);
    let more = told.len().checked_sub(SHOWN).filter(|more| *more > 0).map(|more| format!("and {more} more"));
    told.into_iter().take(SHOWN).chain(more).collect::<Vec<_>>().join("; ")
}

/// A sentence for each holder, with all that it holds. A core set has one holder for each core.
pub fn told_holders(holders: &[DeviceHolder]) -> Vec<String> {
    let mut by_holder: Vec<(String, Vec<&str>)> = Vec::new();
    for holder in holders {
        let who = holder.who().to_string();
        match by_holder.iter_mut().find(|(known, _)| *known == who) {
            Some((_, devices)) => devices.push(&holder.device),
            None => by_holder.push((who, vec![&holder.device])),
        }
    }
    let sentence = |(who, devices): &(String, Vec<&str>)| match devices.as_slice() {
        [one] => format!("{one} is held by {who}"),
        several => format!("{} are held by {who}", listed(several)),
    };
    by_holder.iter().map(sentence).collect()
}

/// `a and b`, `a, b and c`; of many the first, and how many more.
fn listed(words: &[&str]) -> String {
    const SHOWN: usize = 8;
    let more = words.len().saturating_sub(SHOWN);
    match words {
        _ if more > 1 => format!("{} and {more} more", words[..SHOWN].join(", ")),
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(device: &str, pid: i32) -> DeviceHolder {
        DeviceHolder {
            device: device.to_owned(),
            pid: Some(pid),
            user: None,
            since: None,
            command: Some("vllm-bench run".into()),
            run: None,
            is_gone: false,
            is_mine: false,
        }
    }

    #[test]
    fn each_holder_is_told_once_with_its_devices() {
        let holders = [held("a", 1), held("b", 2), held("c", 1), held("d", 1)];
        assert_eq!(
            shown_holders(&holders),
            "a, c and d are held by process 1: `vllm-bench run`; b is held by process 2: `vllm-bench run`"
        );
        assert_eq!(shown_holders(&holders[..1]), holders[0].to_string());
        assert_eq!(listed(&["x"; 10]), "x, x, x, x, x, x, x, x and 2 more");
        assert_eq!(listed(&["x"; 9]), "x, x, x, x, x, x, x, x and x");
    }

    #[test]
    fn what_hides_devices_is_named_with_its_value() {
        let left = |masks: &[(&'static str, &str)]| {
            let masks = masks.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Error::NoDeviceLeft { kind: "CUDA", masks }
        };
        let empty = left(&[("CUDA_VISIBLE_DEVICES", "")]);
        assert_eq!(empty.to_string(), "`CUDA_VISIBLE_DEVICES=\"\"` leaves no CUDA device of this machine");
        assert_eq!(empty.exit_code(), exit::ENVIRONMENT);
        assert!(empty.hints()[0].contains("in `CUDA_VISIBLE_DEVICES`, or unset it"));
        let two = left(&[("A", "9"), ("B", "7")]);
        assert_eq!(two.to_string(), "`A=9` and `B=7` leave no CUDA device of this machine");
    }
}
