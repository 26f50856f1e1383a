//! The sweep language: its keys as types. From these the reader knows which keys there are, and the JSON Schema is made.
//! What a key's value means is read in the files beside this one.

pub mod condition;
pub mod policy;
pub mod schema;
pub mod slo;
mod slurm;
pub mod spelling;
pub mod value;

use schemars::JsonSchema;
use serde::Deserialize;

use super::tree::{At, Raw};
pub use slurm::Slurm;

/// A sweep of vllm-bench: server configurations and loads, and how to run them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(title = "vllm-bench sweep", rename_all = "kebab-case")]
pub struct Document {
    /// Where this schema is; for editors.
    #[serde(rename = "$schema")]
    #[schemars(with = "Option<String>", rename = "$schema")]
    pub schema: Option<Raw>,
    /// The base preset of this file: `full`, `sanity`, or `none` (the default).
    #[schemars(with = "Option<schema::PresetName>")]
    pub preset: Option<Raw>,
    /// Flags of `vllm serve`, `model` among them. A list of values is an axis of the sweep.
    #[schemars(with = "Option<schema::Axes>")]
    pub serve: Option<Raw>,
    /// Environment variables of the server and its client. Secrets have one value and are never recorded.
    #[schemars(with = "Option<schema::Axes>")]
    pub env: Option<Raw>,
    /// Flags of `vllm bench serve`. `num-prompts-per-concurrency: N` sets num-prompts to max-concurrency x N.
    #[schemars(with = "Option<schema::Axes>")]
    pub bench: Option<Raw>,
    /// Groups of experiments: each overrides the keys above, key by key.
    #[schemars(with = "Option<Vec<Group>>")]
    pub experiments: Option<At<Vec<At<Group>>>>,
    /// Combinations that are left out.
    #[schemars(with = "Option<Vec<Rule>>")]
    pub exclude: Option<Vec<At<Rule>>>,
    /// Where given: only combinations that meet at least one of these are kept.
    #[schemars(with = "Option<Vec<Rule>>")]
    pub include: Option<Vec<At<Rule>>>,
    /// Rules by name; `false` switches one off: devices, attention-heads, context-length, batched-tokens, or the name of
    /// an entry of `exclude`.
    #[schemars(with = "Option<schema::Switches>")]
    pub rules: Option<Raw>,
    /// Flags of `vllm serve` and of `vllm bench serve` that have the same value: `{max-num-seqs: max-concurrency}`.
    #[schemars(with = "Option<schema::Links>")]
    pub link: Option<Raw>,
    /// What others are compared with: `vllm-defaults`, the name of a group, or flags of `vllm serve`.
    #[schemars(with = "Option<schema::Baseline>")]
    pub baseline: Option<Raw>,
    /// How often the same settings are measured.
    pub repeats: Option<Repeats>,
    /// In which order servers are started.
    #[schemars(with = "Option<schema::OrderName>")]
    pub order: Option<Raw>,
    /// Seed of `order: random`.
    #[schemars(with = "Option<u64>")]
    pub order_seed: Option<Raw>,
    /// Whether experiments share server starts; `false` = one start per measurement.
    #[schemars(with = "Option<bool>")]
    pub reuse: Option<Raw>,
    /// Warm-up prompts before the first measurement of each workload on a server start.
    #[schemars(with = "Option<u64>")]
    pub warmup: Option<Raw>,
    /// Pause after each measurement.
    #[schemars(with = "Option<schema::DurationText>")]
    pub cooldown: Option<Raw>,
    /// Limits.
    pub timeouts: Option<Timeouts>,
    /// How often which failure is tried again: `{crash: 1, timeout: {attempts: 2, back-off: 30s}}`, or `none`.
    #[schemars(with = "Option<schema::RetryPolicy>")]
    pub retry: Option<Raw>,
    /// What a failed experiment means for the others.
    #[schemars(with = "Option<schema::OnFailure>")]
    pub on_failure: Option<Raw>,
    /// When a run goes on, experiments whose last failure is one of these are left alone.
    #[schemars(with = "Option<schema::Reasons>")]
    pub skip_failure_reasons: Option<Raw>,
    /// Whether flags, memory and devices are checked before anything starts.
    #[schemars(with = "Option<bool>")]
    pub preflight: Option<Raw>,
    /// The name of the run: by it every command finds it again. Unique in its results directory.
    #[schemars(with = "Option<String>")]
    pub name: Option<Raw>,
    /// Where run directories are made.
    #[schemars(with = "Option<String>")]
    pub results_dir: Option<Raw>,
    /// Port of the server, or `auto` for a free one.
    #[schemars(with = "Option<schema::Port>")]
    pub port: Option<Raw>,
    /// Time zone of run directories and times shown, such as `Asia/Jerusalem`.
    #[schemars(with = "Option<String>")]
    pub timezone: Option<Raw>,
    /// oneAPI's environment script, or `none`.
    #[schemars(with = "Option<String>")]
    pub setvars: Option<Raw>,
    /// Whether launch scripts run in a login shell, which reads the user's profile (the XPU container's sets paths).
    #[schemars(with = "Option<bool>")]
    pub login: Option<Raw>,
    /// The `vllm` program; without it, the one on PATH.
    #[schemars(with = "Option<String>")]
    pub vllm_bin: Option<Raw>,
    /// The server backend: `vllm`, or `sim` for the simulated one.
    #[schemars(with = "Option<schema::EngineName>")]
    pub engine: Option<Raw>,
    /// What sends the workload: `vllm` for `vllm bench serve`, or `builtin` for `vllm-bench load`.
    #[schemars(with = "Option<schema::ClientName>")]
    pub client: Option<Raw>,
    /// Leave other vLLM processes of this user alone.
    #[schemars(with = "Option<bool>")]
    pub keep_foreign: Option<Raw>,
    /// Folder of the locks that keep runs off each other's devices, the same for all users of a machine; or `none`.
    #[schemars(with = "Option<String>")]
    pub device_locks: Option<Raw>,
    /// Show the server's and the client's output live.
    #[schemars(with = "Option<bool>")]
    pub show_logs: Option<Raw>,
    /// The Pushgateway that gets what `/metrics` says of the run, such as `http://gateway:9091`; `none` for none.
    #[schemars(with = "Option<String>")]
    pub pushgateway: Option<Raw>,
    /// How many server configurations are measured at once, each on devices of its own: `off`, `auto`, or a number.
    #[schemars(with = "Option<schema::Parallel>")]
    pub parallel: Option<Raw>,
    /// With `parallel: auto`: what neighbours may cost, such as `2%`; above it one is measured at a time.
    #[schemars(with = "Option<schema::Word>")]
    pub parallel_threshold: Option<Raw>,
    /// What is measured again alone after several were measured at once: `alone` (the set of the best) or `off`.
    #[schemars(with = "Option<schema::Finalists>")]
    pub finalists: Option<Raw>,
    /// The simulated vLLM.
    pub sim: Option<Sim>,
    /// Number of devices the rules count on; without it, those of the machine.
    #[schemars(with = "Option<u32>")]
    pub devices: Option<Raw>,
    /// Limits that `recommend`, `report` and the rankings of `analyze` keep where no `--slo` is given:
    /// `{ttft: {p99: 500}, tpot: {mean: 50}}` (milliseconds), or the words of `--slo`.
    #[schemars(with = "Option<schema::Slo>")]
    pub slo: Option<Raw>,
    /// The metric by which configurations are chosen, wherever an answer is given (default `output_throughput`, per device);
    /// `total:output_throughput` counts the whole server.
    #[schemars(with = "Option<String>")]
    pub objective: Option<Raw>,
    /// How often devices, host and server are sampled while something is measured: a duration, `auto` (each second on a real server,
    /// never on a simulated one) or `off`; or `{enable: auto, interval-ms: 500}`.
    #[schemars(with = "Option<schema::Anything>")]
    pub telemetry: Option<Raw>,
    /// The MLflow server to which the run is sent: its URI, `env` for that of `MLFLOW_TRACKING_URI`, or `off`.
    #[schemars(with = "Option<schema::Anything>")]
    pub mlflow: Option<Raw>,
    /// Who is told of the end of the run, its first failure, what hangs, and what became worse: URLs of webhooks (secrets: better
    /// `${VARIABLE}`), commands.
    #[schemars(with = "Option<schema::Words>")]
    pub notify: Option<Raw>,
    /// Where experiments run: `local` on this machine, or `slurm` as jobs of a cluster.
    #[schemars(with = "Option<schema::ExecutorName>")]
    pub executor: Option<Raw>,
    /// How Slurm runs them.
    pub slurm: Option<Slurm>,
    /// Arguments of the data pipeline of a Slurm sweep of datatrove; kept in the manifest.
    #[schemars(with = "Option<schema::Anything>")]
    pub pipeline: Option<Raw>,
    /// The image in which each server, and vLLM's own client, runs: its name, or a map. Also spelled `docker`.
    #[schemars(with = "Option<schema::ContainerOrImage>")]
    pub container: Option<Container>,
}

/// The container in which servers run. A word instead is its image; `none` is no container.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Container {
    /// The image, such as `vllm/vllm-openai:v0.14.1`; `none` for no container.
    #[schemars(with = "Option<String>")]
    pub image: Option<Raw>,
    /// `docker`, `podman` or `apptainer`, or the path of one; without it, the first of them on PATH.
    #[schemars(with = "Option<String>")]
    pub runtime: Option<Raw>,
    /// Size of `/dev/shm`, as the runtime writes it (`16g`).
    #[schemars(with = "Option<schema::Word>")]
    pub shm_size: Option<Raw>,
    /// Files and directories that it sees under the same path, beside the caches and the paths among vLLM's flags.
    #[schemars(with = "Option<schema::Words>")]
    pub mounts: Option<Raw>,
    /// Further arguments of `docker run`, after all others.
    #[schemars(with = "Option<schema::Words>")]
    pub args: Option<Raw>,
}

/// A group of experiments.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Group {
    /// Its name; several groups may share one.
    #[schemars(with = "Option<String>")]
    pub name: Option<Raw>,
    /// Flags of `vllm serve` that differ from the sweep's.
    #[schemars(with = "Option<schema::Axes>")]
    pub serve: Option<Raw>,
    /// Variables that differ from the sweep's.
    #[schemars(with = "Option<schema::Axes>")]
    pub env: Option<Raw>,
    /// Flags of `vllm bench serve` that differ from the sweep's.
    #[schemars(with = "Option<schema::Axes>")]
    pub bench: Option<Raw>,
    /// Combinations of this group that are left out.
    #[schemars(with = "Option<Vec<Rule>>")]
    pub exclude: Option<Vec<At<Rule>>>,
}

/// Combinations that are left out, or kept.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Key by key: a value, a list of values, or `"!= x"`, `"< 4"`, `"<= 4"`, `"> 4"`, `">= bench.max-concurrency"`.
    #[schemars(with = "schema::When")]
    pub when: Raw,
    /// Why, in a few words.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub reason: Option<Raw>,
    /// Its name, for `rules: {NAME: false}`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub name: Option<Raw>,
    /// What stands behind it, in one sentence.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub explanation: Option<Raw>,
}

/// How often the same settings are measured.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Repeats {
    /// Measurements within one server start.
    #[schemars(with = "Option<schema::AtLeastOne>")]
    pub runs: Option<Raw>,
    /// Fresh starts of the server; `auto`: as many as decide which configuration is the best.
    #[schemars(with = "Option<schema::StartsOrAuto>")]
    pub starts: Option<Raw>,
    /// With `starts: auto`, the most of each configuration.
    #[schemars(with = "Option<schema::AtLeastOne>")]
    pub max: Option<Raw>,
}

/// Limits.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Timeouts {
    /// From launch to ready; with a `+` behind it, a start that makes progress may take up to three times as long.
    #[schemars(with = "Option<schema::StartLimitText>")]
    pub startup: Option<Raw>,
    /// Of the benchmark client.
    #[schemars(with = "Option<schema::DurationText>")]
    pub benchmark: Option<Raw>,
    /// Of a benchmark in which no token comes, no counter of the server moves and no line is logged, and of a start that makes no progress; `0` for none.
    #[schemars(with = "Option<schema::DurationText>")]
    pub stall: Option<Raw>,
    /// From SIGTERM to SIGKILL.
    #[schemars(with = "Option<schema::DurationText>")]
    pub grace: Option<Raw>,
}

/// The simulated vLLM.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Sim {
    /// Virtual seconds per real second.
    #[schemars(with = "Option<schema::Word>")]
    pub speed: Option<Raw>,
    /// Seed.
    #[schemars(with = "Option<schema::Word>")]
    pub seed: Option<Raw>,
    /// Number of devices.
    #[schemars(with = "Option<schema::Word>")]
    pub devices: Option<Raw>,
    /// Memory of each device, in GiB.
    #[schemars(with = "Option<schema::Word>")]
    pub device_memory: Option<Raw>,
    /// Standard deviation between server starts, such as `2%`.
    #[schemars(with = "Option<schema::Word>")]
    pub noise: Option<Raw>,
    /// Standard deviation between measurements on one start.
    #[schemars(with = "Option<schema::Word>")]
    pub noise_within: Option<Raw>,
    /// By how much each experiment is slower than the one before it in the plan.
    #[schemars(with = "Option<schema::Word>")]
    pub drift: Option<Raw>,
    /// Share of server starts that take 1.25 times as long.
    #[schemars(with = "Option<schema::Word>")]
    pub outliers: Option<Raw>,
    /// By how much a server is slower while another one of the same run is busy, such as `5%`.
    #[schemars(with = "Option<schema::Word>")]
    pub interference: Option<Raw>,
    /// Faults: `NAME[:PARAM][@key=value][#ATTEMPTS]`.
    #[schemars(with = "Option<schema::Words>")]
    pub fault: Option<Raw>,
}
