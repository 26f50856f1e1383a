//! Every way an experiment can fail, as one closed set of words.
//!
//! The words are what `*_failure.json`, the journal and the reports carry, so they are stable: a word may be added,
//! never renamed. What a cause means, what a reader is told and what to do about it stand here and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The table of all causes: name, stable word, a few human words, who shows it, and what to do next.
macro_rules! causes {
    ($($(#[$about:meta])* $name:ident = $word:literal, $title:literal, $side:ident, [$($advice:literal),+ $(,)?];)+) => {
        /// Why an experiment has no valid result. Serialised and displayed as a kebab-case word (`out-of-device-memory`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Cause {
            $($(#[$about])* $name,)+
        }

        impl Cause {
            /// All causes, in the order of declaration: first the server's, then the benchmark's.
            pub const ALL: [Cause; [$($word),+].len()] = [$(Cause::$name),+];

            const fn row(self) -> &'static About {
                match self {
                    $(Cause::$name => {
                        &About { word: $word, title: $title, side: Side::$side, advice: &[$($advice),+] }
                    })+
                }
            }
        }
    };
}

/// Who shows a cause.
#[derive(Clone, Copy)]
enum Side {
    /// A server: its start, its log, its end.
    Server,
    /// The benchmark, or the run.
    Other,
}

/// What is said of a cause.
struct About {
    word: &'static str,
    title: &'static str,
    side: Side,
    advice: &'static [&'static str],
}

causes! {
    /// An allocation on the device failed, or less memory was free than `--gpu-memory-utilization` asks for.
    OutOfDeviceMemory = "out-of-device-memory", "out of device memory", Server, [
        "raise `--tensor-parallel-size`, quantize the weights, or take a smaller model",
        "lower `--max-model-len`, `--max-num-seqs` or `--gpu-memory-utilization`; `--enforce-eager` saves what captured graphs take",
        "look whether another process holds device memory (`xpu-smi ps`, `nvidia-smi`, `rocm-smi`)",
    ];
    /// The weights fit, but what is left does not hold the KV cache of one request of `--max-model-len` tokens.
    KvCacheTooSmall = "kv-cache-too-small", "no room for the KV cache", Server, [
        "lower `--max-model-len`",
        "raise `--gpu-memory-utilization` or `--tensor-parallel-size`, or quantize the weights",
    ];
    /// The address of the API (or of one of vLLM's inner sockets) is held by another process.
    PortInUse = "port-in-use", "port in use", Server, [
        "find who holds the port with `ss -ltnp`, or use `--port auto`",
    ];
    /// No such model: neither a local directory with a configuration nor a repository of the hub.
    ModelNotFound = "model-not-found", "model not found", Server, [
        "check the model's name or path; a local path must exist inside the container and hold a `config.json`",
    ];
    /// The model's files are there, and one of them is missing or damaged: weights cut short, no tokenizer.
    ModelIncomplete = "model-incomplete", "model files missing or damaged", Server, [
        "fetch the model again (a download that was cut short leaves such files), and compare the sizes of its files with those on the hub",
    ];
    /// The repository exists and wants a licence accepted, or a token with access.
    ModelGated = "model-gated", "model is gated", Server, [
        "accept the model's licence on its page on the hub, and set `HF_TOKEN` to a token that may read it",
    ];
    /// The hub could not be reached: no network, name resolution, proxy, certificate, offline mode.
    Network = "network", "network or proxy", Server, [
        "check the connection and the proxy variables (`https_proxy`, `no_proxy`) as the launch script sees them",
        "or fetch the model beforehand and set `HF_HUB_OFFLINE=1`; if its name was meant as a local directory, that does not exist here",
    ];
    /// A flag that this vLLM does not know, or a value that it refuses.
    InvalidFlag = "invalid-flag", "unknown or invalid flag", Server, [
        "compare the flag and its value with `vllm serve --help=all` of this vLLM",
    ];
    /// This quantization does not exist, does not fit the checkpoint, or is not there for this device.
    UnsupportedQuantization = "unsupported-quantization", "unsupported quantization", Server, [
        "use a quantization that this device and checkpoint support, or `none` (the flag is left out)",
    ];
    /// This data type is not there for this device, model or quantization.
    UnsupportedDtype = "unsupported-dtype", "unsupported data type", Server, [
        "choose another `--dtype` (`bfloat16`, `half`, `float32` or `auto`)",
    ];
    /// vLLM has no implementation of the model's architecture (or its transformers is too old for it).
    UnsupportedModel = "unsupported-model", "unsupported model", Server, [
        "use a newer vLLM (and transformers), or another model",
    ];
    /// More ranks asked for than devices are visible, or none is visible at all.
    NotEnoughDevices = "not-enough-devices", "not enough devices", Server, [
        "lower `--tensor-parallel-size`, or make more devices visible (`ZE_AFFINITY_MASK`, `CUDA_VISIBLE_DEVICES`, `HIP_VISIBLE_DEVICES`, the container's `--device`)",
    ];
    /// The engine process failed and nothing in the log says more.
    EngineCoreFailed = "engine-core-failed", "engine core failed", Server, [
        "read the traceback above the quoted lines; `VLLM_LOGGING_LEVEL=DEBUG` (`--env`) says more",
    ];
    /// Intel's stack failed: Level Zero, SYCL, Unified Runtime or oneCCL.
    LevelZero = "level-zero", "oneAPI or Level Zero error", Server, [
        "source oneAPI's `setvars.sh`, and see that `/dev/dri` is in the container and its driver matches",
        "a device left wedged by a hard kill needs a reset (`xpu-smi config --reset`) or a reboot",
    ];
    /// `/dev/shm` is too small, or a segment of it could not be made.
    SharedMemory = "shared-memory", "shared memory", Server, [
        "give the container more shared memory (`--shm-size 10g` or `--ipc=host`) and remove stale files in `/dev/shm`",
    ];
    /// A file system is full: weights, compile cache or temporary files could not be written.
    DiskFull = "disk-full", "disk full", Server, [
        "free space where the model cache (`HF_HOME`), the compile cache (`~/.cache/vllm`) and `/tmp` lie",
    ];
    /// SIGKILL from outside: the kernel's OOM killer, a container's or a scheduler's limit.
    KilledBySystem = "killed-by-system", "killed by the system", Server, [
        "most likely the memory of the host or of the container was used up: look into `dmesg` for the OOM killer, give it more memory, or load less (`--max-model-len`, fewer ranks)",
    ];
    /// The server ended by itself, with an exit code or a signal, and no known line says why.
    Crashed = "crashed", "crashed", Server, [
        "read the end of the server's log; try once with `--enforce-eager`",
    ];
    /// Not ready within the limit, while it still seemed to work.
    StartupTimeout = "startup-timeout", "not ready in time", Server, [
        "raise `--timeout-startup`",
    ];
    /// Nothing moves any more: silent for too long, or vLLM itself reports a call that never came back.
    Hung = "hung", "hung", Server, [
        "run it once alone with `VLLM_LOGGING_LEVEL=DEBUG` to see which rank waits; a lower `--tensor-parallel-size` tells a device from the link between devices",
    ];
    /// `vllm` is not there, or the installation cannot be loaded.
    VllmMissing = "vllm-missing", "vLLM missing or broken", Server, [
        "name the binary with `--vllm-bin`; `vllm-bench check` shows what the launch script sees",
    ];
    /// The server died while the benchmark ran.
    ServerDied = "server-died", "server died", Other, [
        "see the server's own diagnosis",
    ];
    /// The benchmark did not end within its limit.
    BenchmarkTimeout = "benchmark-timeout", "benchmark took too long", Other, [
        "raise `--timeout-benchmark`, or ask for fewer prompts",
    ];
    /// The benchmark client stopped making progress.
    BenchmarkHung = "benchmark-hung", "benchmark hung", Other, [
        "look into the server's log whether it still answers requests",
    ];
    /// The benchmark client ended with a failure of its own.
    BenchmarkFailed = "benchmark-failed", "benchmark failed", Other, [
        "read the benchmark's log",
    ];
    /// The benchmark ended, but requests failed.
    RequestsFailed = "requests-failed", "requests failed", Other, [
        "read the benchmark's log for the errors, and the server's log at that time",
    ];
    /// The result file is missing, does not parse, or is incomplete.
    ResultInvalid = "result-invalid", "no valid result", Other, [
        "read the benchmark's log",
    ];
    /// Something answered on the port, but not our process or not our model.
    ForeignServer = "foreign-server", "foreign server on the port", Other, [
        "end the other server, or use `--port auto`",
    ];
    /// Another process listened on the server's port too, and may have answered a part of the requests.
    ForeignListener = "foreign-listener", "port shared with another process", Other, [
        "give the other server a port of its own: vLLM sets SO_REUSEPORT, so two servers of one user share a port without a word",
        "or use `--port auto`",
    ];
    /// The script could not be started, or its guard was lost.
    LaunchFailed = "launch-failed", "could not be launched", Other, [
        "check that `bash` is there and that `/tmp` may hold executable files",
    ];
    /// The run was ended from outside before this experiment was over.
    Interrupted = "interrupted", "interrupted", Other, [
        "run again with `--resume`",
    ];
    /// The scheduler's time limit, or the signal before it, ended the job while it was measured.
    TimeLimit = "time-limit", "time limit of the job", Other, [
        "raise the limit (`slurm: {time: …}`), or measure less in each task: fewer prompts, fewer measurements on one server start",
    ];
    /// The job used more main memory than it was given.
    JobOutOfMemory = "job-out-of-memory", "main memory of the job used up", Other, [
        "ask for more main memory (`slurm: {mem-per-cpu: …}`, or `sbatch: {mem: …}`)",
    ];
    /// A node of the job failed.
    NodeFailed = "node-failed", "node failed", Other, [
        "run again: the same command continues; `slurm: {sbatch: {exclude: NODE}}` avoids a node that fails again and again",
    ];
    /// The scheduler gave the job's nodes to another job.
    Preempted = "preempted", "preempted", Other, [
        "run again: the same command continues; another `qos` or `partition` may not be preempted",
    ];
    /// The job was cancelled before this experiment was over.
    JobCancelled = "job-cancelled", "job cancelled", Other, [
        "run again: the same command continues",
    ];
    /// The job waits for another one that ended otherwise than it has to.
    DependencyNeverSatisfied = "dependency-never-satisfied", "dependency never satisfied", Other, [
        "look at the dependency that the sweep file gives (`slurm: {sbatch: {dependency: …}}`)",
    ];
    /// The scheduler did not take the job.
    SubmissionRefused = "submission-refused", "submission refused", Other, [
        "correct what the scheduler refuses (`slurm:` in the sweep file, `--slurm KEY=VALUE`); `--dry-run` shows the command",
    ];
    /// The scheduler does not know the job any more, and it left no word of its end.
    LostByScheduler = "lost-by-scheduler", "lost by the scheduler", Other, [
        "run again: the same command continues; `sacct -j JOB` may know more by now",
    ];
}

impl Cause {
    /// The stable word, as in files and on the command line.
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    /// A few human words, lower case, to stand before a colon or in a table.
    pub const fn title(self) -> &'static str {
        self.row().title
    }

    /// Whether a server (its start, its log, its end) shows this, rather than the benchmark or the run.
    pub const fn is_server(self) -> bool {
        matches!(self.row().side, Side::Server)
    }

    /// What to do next, when the evidence tells nothing more exact.
    pub const fn advice(self) -> &'static [&'static str] {
        self.row().advice
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
        ) && !self.is_of_scheduler()
    }

    /// Whether a cluster did it, or whoever rules there, and the same experiment may well succeed in another job.
    pub const fn is_of_scheduler(self) -> bool {
        matches!(
            self,
            Cause::NodeFailed
                | Cause::Preempted
                | Cause::JobCancelled
                | Cause::DependencyNeverSatisfied
                | Cause::SubmissionRefused
                | Cause::LostByScheduler
        )
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
