//! Every way an experiment can fail, as one closed set of words.
//!
//! The words are what `*_failure.json`, the journal and the reports carry, so they are stable: a word may be added,
//! never renamed. What a cause means, what a reader is told and what to do about it stand here and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why an experiment has no valid result. Serialised and displayed as a kebab-case word (`out-of-device-memory`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// An allocation on the device failed, or less memory was free than `--gpu-memory-utilization` asks for.
    OutOfDeviceMemory,
    /// The weights fit, but what is left does not hold the KV cache of one request of `--max-model-len` tokens.
    KvCacheTooSmall,
    /// The address of the API (or of one of vLLM's inner sockets) is held by another process.
    PortInUse,
    /// No such model: neither a local directory with a configuration nor a repository of the hub.
    ModelNotFound,
    /// The model's files are there, and one of them is missing or damaged: weights cut short, no tokenizer.
    ModelIncomplete,
    /// The repository exists and wants a licence accepted, or a token with access.
    ModelGated,
    /// The hub could not be reached: no network, name resolution, proxy, certificate, offline mode.
    Network,
    /// A flag that this vLLM does not know, or a value that it refuses.
    InvalidFlag,
    /// This quantization does not exist, does not fit the checkpoint, or is not there for this device.
    UnsupportedQuantization,
    /// This data type is not there for this device, model or quantization.
    UnsupportedDtype,
    /// vLLM has no implementation of the model's architecture (or its transformers is too old for it).
    UnsupportedModel,
    /// More ranks asked for than devices are visible, or none is visible at all.
    NotEnoughDevices,
    /// The engine process failed and nothing in the log says more.
    EngineCoreFailed,
    /// Intel's stack failed: Level Zero, SYCL, Unified Runtime or oneCCL.
    LevelZero,
    /// `/dev/shm` is too small, or a segment of it could not be made.
    SharedMemory,
    /// A file system is full: weights, compile cache or temporary files could not be written.
    DiskFull,
    /// SIGKILL from outside: the kernel's OOM killer, a container's or a scheduler's limit.
    KilledBySystem,
    /// The server ended by itself, with an exit code or a signal, and no known line says why.
    Crashed,
    /// Not ready within the limit, while it still seemed to work.
    StartupTimeout,
    /// Nothing moves any more: silent for too long, or vLLM itself reports a call that never came back.
    Hung,
    /// `vllm` is not there, or the installation cannot be loaded.
    VllmMissing,
    /// The server died while the benchmark ran.
    ServerDied,
    /// The benchmark did not end within its limit.
    BenchmarkTimeout,
    /// The benchmark client stopped making progress.
    BenchmarkHung,
    /// The benchmark client ended with a failure of its own.
    BenchmarkFailed,
    /// The benchmark ended, but requests failed.
    RequestsFailed,
    /// The result file is missing, does not parse, or is incomplete.
    ResultInvalid,
    /// Something answered on the port, but not our process or not our model.
    ForeignServer,
    /// Another process listened on the server's port too, and may have answered a part of the requests.
    ForeignListener,
    /// The script could not be started, or its guard was lost.
    LaunchFailed,
    /// The run was ended from outside before this experiment was over.
    Interrupted,
}

impl Cause {
    /// All causes, in the order of declaration: first the server's, then the benchmark's.
    pub const ALL: [Cause; 31] = [
        Cause::OutOfDeviceMemory,
        Cause::KvCacheTooSmall,
        Cause::PortInUse,
        Cause::ModelNotFound,
        Cause::ModelIncomplete,
        Cause::ModelGated,
        Cause::Network,
        Cause::InvalidFlag,
        Cause::UnsupportedQuantization,
        Cause::UnsupportedDtype,
        Cause::UnsupportedModel,
        Cause::NotEnoughDevices,
        Cause::EngineCoreFailed,
        Cause::LevelZero,
        Cause::SharedMemory,
        Cause::DiskFull,
        Cause::KilledBySystem,
        Cause::Crashed,
        Cause::StartupTimeout,
        Cause::Hung,
        Cause::VllmMissing,
        Cause::ServerDied,
        Cause::BenchmarkTimeout,
        Cause::BenchmarkHung,
        Cause::BenchmarkFailed,
        Cause::RequestsFailed,
        Cause::ResultInvalid,
        Cause::ForeignServer,
        Cause::ForeignListener,
        Cause::LaunchFailed,
        Cause::Interrupted,
    ];

    /// The stable word, as in files and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Cause::OutOfDeviceMemory => "out-of-device-memory",
            Cause::KvCacheTooSmall => "kv-cache-too-small",
            Cause::PortInUse => "port-in-use",
            Cause::ModelNotFound => "model-not-found",
            Cause::ModelIncomplete => "model-incomplete",
            Cause::ModelGated => "model-gated",
            Cause::Network => "network",
            Cause::InvalidFlag => "invalid-flag",
            Cause::UnsupportedQuantization => "unsupported-quantization",
            Cause::UnsupportedDtype => "unsupported-dtype",
            Cause::UnsupportedModel => "unsupported-model",
            Cause::NotEnoughDevices => "not-enough-devices",
            Cause::EngineCoreFailed => "engine-core-failed",
            Cause::LevelZero => "level-zero",
            Cause::SharedMemory => "shared-memory",
            Cause::DiskFull => "disk-full",
            Cause::KilledBySystem => "killed-by-system",
            Cause::Crashed => "crashed",
            Cause::StartupTimeout => "startup-timeout",
            Cause::Hung => "hung",
            Cause::VllmMissing => "vllm-missing",
            Cause::ServerDied => "server-died",
            Cause::BenchmarkTimeout => "benchmark-timeout",
            Cause::BenchmarkHung => "benchmark-hung",
            Cause::BenchmarkFailed => "benchmark-failed",
            Cause::RequestsFailed => "requests-failed",
            Cause::ResultInvalid => "result-invalid",
            Cause::ForeignServer => "foreign-server",
            Cause::ForeignListener => "foreign-listener",
            Cause::LaunchFailed => "launch-failed",
            Cause::Interrupted => "interrupted",
        }
    }

    /// A few human words, lower case, to stand before a colon or in a table.
    pub const fn title(self) -> &'static str {
        match self {
            Cause::OutOfDeviceMemory => "out of device memory",
            Cause::KvCacheTooSmall => "no room for the KV cache",
            Cause::PortInUse => "port in use",
            Cause::ModelNotFound => "model not found",
            Cause::ModelIncomplete => "model files missing or damaged",
            Cause::ModelGated => "model is gated",
            Cause::Network => "network or proxy",
            Cause::InvalidFlag => "unknown or invalid flag",
            Cause::UnsupportedQuantization => "unsupported quantization",
            Cause::UnsupportedDtype => "unsupported data type",
            Cause::UnsupportedModel => "unsupported model",
            Cause::NotEnoughDevices => "not enough devices",
            Cause::EngineCoreFailed => "engine core failed",
            Cause::LevelZero => "oneAPI or Level Zero error",
            Cause::SharedMemory => "shared memory",
            Cause::DiskFull => "disk full",
            Cause::KilledBySystem => "killed by the system",
            Cause::Crashed => "crashed",
            Cause::StartupTimeout => "not ready in time",
            Cause::Hung => "hung",
            Cause::VllmMissing => "vLLM missing or broken",
            Cause::ServerDied => "server died",
            Cause::BenchmarkTimeout => "benchmark took too long",
            Cause::BenchmarkHung => "benchmark hung",
            Cause::BenchmarkFailed => "benchmark failed",
            Cause::RequestsFailed => "requests failed",
            Cause::ResultInvalid => "no valid result",
            Cause::ForeignServer => "foreign server on the port",
            Cause::ForeignListener => "port shared with another process",
            Cause::LaunchFailed => "could not be launched",
            Cause::Interrupted => "interrupted",
        }
    }

    /// Whether a server (its start, its log, its end) shows this, rather than the benchmark or the run.
    pub const fn is_server(self) -> bool {
        match self {
            Cause::OutOfDeviceMemory
            | Cause::KvCacheTooSmall
            | Cause::PortInUse
            | Cause::ModelNotFound
            | Cause::ModelIncomplete
            | Cause::ModelGated
            | Cause::Network
            | Cause::InvalidFlag
            | Cause::UnsupportedQuantization
            | Cause::UnsupportedDtype
            | Cause::UnsupportedModel
            | Cause::NotEnoughDevices
            | Cause::EngineCoreFailed
            | Cause::LevelZero
            | Cause::SharedMemory
            | Cause::DiskFull
            | Cause::KilledBySystem
            | Cause::Crashed
            | Cause::StartupTimeout
            | Cause::Hung
            | Cause::VllmMissing => true,
            Cause::ServerDied
            | Cause::BenchmarkTimeout
            | Cause::BenchmarkHung
            | Cause::BenchmarkFailed
            | Cause::RequestsFailed
            | Cause::ResultInvalid
            | Cause::ForeignServer
            | Cause::ForeignListener
            | Cause::LaunchFailed
            | Cause::Interrupted => false,
        }
    }

    /// Whether a server that has been ready can still come to this. A line about a port or a flag in the log of a running
    /// server belongs to a request, not to the server.
    pub(crate) const fn strikes_running_server(self) -> bool {
        matches!(
            self,
            Cause::OutOfDeviceMemory
                | Cause::EngineCoreFailed
                | Cause::LevelZero
                | Cause::SharedMemory
                | Cause::DiskFull
                | Cause::KilledBySystem
                | Cause::Crashed
                | Cause::Hung
        )
    }

    /// Whether the configuration itself may have caused it, so that it counts against the configuration: not what anybody else on the
    /// machine, the network or the user did.
    pub const fn is_of_configuration(self) -> bool {
        !matches!(
            self,
            Cause::PortInUse
                | Cause::Network
                | Cause::DiskFull
                | Cause::ForeignServer
                | Cause::ForeignListener
                | Cause::LaunchFailed
                | Cause::Interrupted
        )
    }

    /// What to do next, when the evidence tells nothing more exact.
    pub const fn advice(self) -> &'static [&'static str] {
        match self {
            Cause::OutOfDeviceMemory => &[
                "raise `--tensor-parallel-size`, quantize the weights, or take a smaller model",
                "lower `--max-model-len`, `--max-num-seqs` or `--gpu-memory-utilization`; `--enforce-eager` saves what captured graphs take",
                "look whether another process holds device memory (`xpu-smi ps`, `nvidia-smi`, `rocm-smi`)",
            ],
            Cause::KvCacheTooSmall => &[
                "lower `--max-model-len`",
                "raise `--gpu-memory-utilization` or `--tensor-parallel-size`, or quantize the weights",
            ],
            Cause::PortInUse => &["find who holds the port with `ss -ltnp`, or use `--port auto`"],
            Cause::ModelNotFound => &[
                "check the model's name or path; a local path must exist inside the container and hold a `config.json`",
            ],
            Cause::ModelIncomplete => &[
                "fetch the model again (a download that was cut short leaves such files), and compare the sizes of its files with those on the hub",
            ],
            Cause::ModelGated => {
                &["accept the model's licence on its page on the hub, and set `HF_TOKEN` to a token that may read it"]
            }
            Cause::Network => &[
                "check the connection and the proxy variables (`https_proxy`, `no_proxy`) as the launch script sees them",
                "or fetch the model beforehand and set `HF_HUB_OFFLINE=1`; if its name was meant as a local directory, that does not exist here",
            ],
            Cause::InvalidFlag => &["compare the flag and its value with `vllm serve --help=all` of this vLLM"],
            Cause::UnsupportedQuantization => {
                &["use a quantization that this device and checkpoint support, or `none` (the flag is left out)"]
            }
            Cause::UnsupportedDtype => &["choose another `--dtype` (`bfloat16`, `half`, `float32` or `auto`)"],
            Cause::UnsupportedModel => &["use a newer vLLM (and transformers), or another model"],
            Cause::NotEnoughDevices => &[
                "lower `--tensor-parallel-size`, or make more devices visible (`ZE_AFFINITY_MASK`, `CUDA_VISIBLE_DEVICES`, `HIP_VISIBLE_DEVICES`, the container's `--device`)",
            ],
            Cause::EngineCoreFailed => {
                &["read the traceback above the quoted lines; `VLLM_LOGGING_LEVEL=DEBUG` (`--env`) says more"]
            }
            Cause::LevelZero => &[
                "source oneAPI's `setvars.sh`, and see that `/dev/dri` is in the container and its driver matches",
                "a device left wedged by a hard kill needs a reset (`xpu-smi config --reset`) or a reboot",
            ],
            Cause::SharedMemory => &[
                "give the container more shared memory (`--shm-size 10g` or `--ipc=host`) and remove stale files in `/dev/shm`",
            ],
            Cause::DiskFull => {
                &["free space where the model cache (`HF_HOME`), the compile cache (`~/.cache/vllm`) and `/tmp` lie"]
            }
            Cause::KilledBySystem => &[
                "most likely the memory of the host or of the container was used up: look into `dmesg` for the OOM killer, give it more memory, or load less (`--max-model-len`, fewer ranks)",
            ],
            Cause::Crashed => &["read the end of the server's log; try once with `--enforce-eager`"],
            Cause::StartupTimeout => &["raise `--timeout-startup`"],
            Cause::Hung => &[
                "run it once alone with `VLLM_LOGGING_LEVEL=DEBUG` to see which rank waits; a lower `--tensor-parallel-size` tells a device from the link between devices",
            ],
            Cause::VllmMissing => {
                &["name the binary with `--vllm-bin`; `vllm-bench check` shows what the launch script sees"]
            }
            Cause::ServerDied => &["see the server's own diagnosis"],
            Cause::BenchmarkTimeout => &["raise `--timeout-benchmark`, or ask for fewer prompts"],
            Cause::BenchmarkHung => &["look into the server's log whether it still answers requests"],
            Cause::BenchmarkFailed => &["read the benchmark's log"],
            Cause::RequestsFailed => &["read the benchmark's log for the errors, and the server's log at that time"],
            Cause::ResultInvalid => &["read the benchmark's log"],
            Cause::ForeignServer => &["end the other server, or use `--port auto`"],
            Cause::ForeignListener => &[
                "give the other server a port of its own: vLLM sets SO_REUSEPORT, so two servers of one user share a port without a word",
                "or use `--port auto`",
            ],
            Cause::LaunchFailed => &["check that `bash` is there and that `/tmp` may hold executable files"],
            Cause::Interrupted => &["run again with `--resume`"],
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word that names no cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a cause of failure")]
pub struct UnknownCause(pub String);

impl FromStr for Cause {
    type Err = UnknownCause;

    /// Reads the word of a cause; case and `_` for `-` do not matter.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = text.trim().to_ascii_lowercase().replace('_', "-");
        Cause::ALL.into_iter().find(|cause| cause.word() == word).ok_or_else(|| UnknownCause(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn word_display_serde_and_from_str_agree_for_every_cause() {
        let words: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.word()).collect();
        assert_eq!(words.len(), Cause::ALL.len());
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index, "ALL is in the order of declaration");
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("\"{cause}\""));
            assert_eq!(cause.to_string().parse(), Ok(cause));
            assert_eq!(cause.to_string().to_uppercase().replace('-', "_").parse(), Ok(cause));
            assert!(!cause.advice().is_empty() && !cause.title().is_empty());
        }
        assert_eq!("oops".parse::<Cause>().unwrap_err().to_string(), "`oops` is not a cause of failure");
    }

    #[test]
    fn server_causes_come_first() {
        let first_other = Cause::ALL.iter().position(|cause| !cause.is_server()).unwrap();
        assert_eq!(Cause::ALL[first_other], Cause::ServerDied);
        assert!(Cause::ALL[first_other..].iter().all(|cause| !cause.is_server()));
    }
}
