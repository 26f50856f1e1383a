//! Flags of `run`, `sanity`, `plan` and `config`.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Subcommand};

use super::choice::JsonArgs;
use super::load::LoadArgs;

/// `on` or `off`, and what else means it in files and variables.
fn on_or_off() -> PossibleValuesParser {
    PossibleValuesParser::new([
        PossibleValue::new("on").aliases(["true", "yes", "1"]),
        PossibleValue::new("off").aliases(["false", "no", "0"]),
    ])
}

/// Flags of `run` and `sanity`. List-valued flags take several values after one flag, commas, or repetition.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// Sweep files (YAML, JSON or TOML), merged; later files win
    #[arg(value_name = "FILES")]
    pub files: Vec<PathBuf>,

    /// The base preset: full, sanity or none (default: the one a file names, else none; without files: full)
    #[arg(long, value_name = "PRESET", help_heading = "Grid", value_parser = ["full", "sanity", "none"])]
    pub preset: Option<String>,

    /// Models: Hugging Face ids or local paths
    #[arg(long, num_args = 1.., value_name = "MODEL", help_heading = "Grid")]
    pub models: Vec<String>,

    /// Tensor parallel sizes
    #[arg(long, num_args = 1.., value_name = "N", help_heading = "Grid", visible_alias = "tensor-parallel-size")]
    pub tp: Vec<String>,

    /// Quantization methods; `none` leaves vLLM's flag out
    #[arg(long, num_args = 1.., value_name = "METHOD", help_heading = "Grid")]
    pub quantization: Vec<String>,

    /// Whether to run without compiled graphs: true, false or both
    #[arg(long, num_args = 1.., value_name = "BOOL", help_heading = "Grid")]
    pub enforce_eager: Vec<String>,

    /// Switch off a rule that leaves combinations out: fp8-needs-eager, devices, attention-heads, …, or one of a sweep file
    #[arg(long, value_name = "NAME", help_heading = "Grid")]
    pub no_rule: Vec<String>,

    /// Prompt length in tokens
    #[arg(long, value_name = "TOKENS", help_heading = "Load")]
    pub input_len: Option<String>,

    /// Output length in tokens
    #[arg(long, value_name = "TOKENS", help_heading = "Load")]
    pub output_len: Option<String>,

    /// Requests in flight (`--max-concurrency` of `vllm bench serve`)
    #[arg(long, value_name = "N", help_heading = "Load", visible_alias = "max-concurrency")]
    pub concurrency: Option<String>,

    /// Requests per experiment
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub num_prompts: Option<String>,

    /// The metric by which the answer is chosen, kept with the run (default output_throughput, per device; total:KEY for all)
    #[arg(long, value_name = "KEY", help_heading = "Measuring")]
    pub objective: Option<String>,

    /// Measurements of the same settings within one server start
    #[arg(long, value_name = "N", help_heading = "Measuring")]
    pub runs: Option<String>,

    /// Fresh starts of each server configuration; auto: as many as decide which is the best
    #[arg(long, value_name = "N|auto", help_heading = "Measuring")]
    pub starts: Option<String>,

    /// With --starts auto, the most starts of each server configuration (8)
    #[arg(long, value_name = "N", help_heading = "Measuring")]
    pub max_starts: Option<String>,

    /// Order of server starts: auto, grouped, interleaved or random
    #[arg(long, value_name = "ORDER", help_heading = "Measuring", value_parser = ["auto", "grouped", "interleaved", "random"])]
    pub order: Option<String>,

    /// Seed of `--order random`
    #[arg(long, value_name = "N", help_heading = "Measuring")]
    pub order_seed: Option<String>,

    /// Start the server anew for every measurement
    #[arg(long, help_heading = "Measuring")]
    pub no_reuse: bool,

    /// Warm-up prompts before the first measurement of each workload on a server
    #[arg(long, value_name = "PROMPTS", help_heading = "Measuring")]
    pub warmup: Option<String>,

    /// Pause after each measurement: 10, 10s, 1m
    #[arg(long, value_name = "DURATION", help_heading = "Measuring")]
    pub cooldown: Option<String>,

    /// How often devices, host and server are sampled meanwhile (auto: each second, never on a simulated server; off)
    #[arg(long, value_name = "INTERVAL", help_heading = "Measuring")]
    pub telemetry: Option<String>,

    /// Context length of the server, in tokens
    #[arg(long, value_name = "TOKENS", help_heading = "Server")]
    pub max_model_len: Option<String>,

    /// Port of the server, or `auto` for a free one
    #[arg(long, value_name = "PORT", help_heading = "Server")]
    pub port: Option<String>,

    /// Add or override a flag of `vllm serve`: `--serve-arg=max-num-seqs=256`; `--serve-arg=no:FLAG` drops one
    #[arg(long, value_name = "FLAG[=VALUE]", allow_hyphen_values = true, help_heading = "Server")]
    pub serve_arg: Vec<String>,

    /// Add or override a flag of `vllm bench serve`; `--bench-arg=no:FLAG` drops one
    #[arg(long, value_name = "FLAG[=VALUE]", allow_hyphen_values = true, help_heading = "Load")]
    pub bench_arg: Vec<String>,

    /// Set an environment variable of the server and the client
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Server")]
    pub env: Vec<String>,

    /// Take MODEL, PORT, HOST, GPU_MEM_UTIL, MAX_MODEL_LEN, KV_CACHE_DTYPE, MAX_NUM_SEQS, MAX_NUM_BATCHED_TOKENS and HF_TOKEN from this
    /// file (a directory: from its `.env`), over sweep files; variables that are set win over it
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub env_file: Option<String>,

    /// Run each server, and vLLM's own client, in a container of this image
    #[arg(long, value_name = "IMAGE", help_heading = "Server")]
    pub container: Option<String>,

    /// What runs it: docker, podman or apptainer, or the path of one (default: the first of them on PATH)
    #[arg(long, value_name = "PROGRAM", help_heading = "Server")]
    pub container_runtime: Option<String>,

    /// A further argument of `docker run`: `--container-arg=--privileged`
    #[arg(long, value_name = "ARG", allow_hyphen_values = true, help_heading = "Server")]
    pub container_arg: Vec<String>,

    /// oneAPI's environment script, or `none`
    #[arg(long, value_name = "PATH", help_heading = "Server")]
    pub setvars: Option<String>,

    /// Run the launch scripts in a login shell, which reads your profile (default on)
    #[arg(long, value_name = "BOOL", help_heading = "Server", value_parser = on_or_off())]
    pub login: Option<String>,

    /// The `vllm` program (default: the one on PATH)
    #[arg(long, value_name = "PATH", help_heading = "Server")]
    pub vllm_bin: Option<String>,

    /// Limit from launch to ready: 300, 300s, 5m; with a `+` behind it (300s+, the default), a start that makes progress may take three times as long
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub timeout_startup: Option<String>,

    /// Limit of the benchmark client
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub timeout_benchmark: Option<String>,

    /// Ends a benchmark in which for so long no token came, no counter of the server moved and no line was logged, and a start without any progress (0: never)
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub stall_timeout: Option<String>,

    /// From SIGTERM to SIGKILL (a hard kill can wedge a device)
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub grace: Option<String>,

    /// Further attempts after a failure: `--retry crash=2`; `none` for none at all
    #[arg(long, value_name = "REASON=N", help_heading = "Failures")]
    pub retry: Vec<String>,

    /// What a failed experiment means for the others: continue or stop
    #[arg(long, value_name = "WHAT", help_heading = "Failures", value_parser = ["continue", "stop"])]
    pub on_failure: Option<String>,

    /// When a run goes on, leave experiments alone that failed for these reasons
    #[arg(long, num_args = 1.., value_name = "REASON", help_heading = "Failures")]
    pub skip_failure_reasons: Vec<String>,

    /// Start without checking flags, memory and devices first
    #[arg(long, help_heading = "Failures")]
    pub no_preflight: bool,

    /// Name of the run: every command finds it by this name, as by its directory
    #[arg(long, value_name = "NAME", help_heading = "Run")]
    pub name: Option<String>,

    /// Where run directories are made
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub results_dir: Option<String>,

    /// Time zone of run directories and times shown
    #[arg(long, value_name = "ZONE", help_heading = "Run")]
    pub timezone: Option<String>,

    /// Resume the newest unfinished run of the same plan; with RUN: that one, its plan and its limits
    #[arg(long, num_args = 0..=1, value_name = "RUN", help_heading = "Run", conflicts_with = "fresh")]
    pub resume: Option<Option<PathBuf>>,

    /// Print the plan and the scripts; start nothing. With a name or number: only that experiment's scripts
    #[arg(long, num_args = 0..=1, value_name = "EXPERIMENT", help_heading = "Run")]
    pub dry_run: Option<Option<String>>,

    /// Run in the background; resumes an unfinished run of the same plan
    #[arg(long, help_heading = "Run", conflicts_with = "dry_run")]
    pub detach: bool,

    /// Begin a new run even where an unfinished one has the same plan (with --detach)
    #[arg(long, help_heading = "Run")]
    pub fresh: bool,

    /// Measure what RUN has not measured yet, with its results at hand
    #[arg(long, value_name = "RUN", help_heading = "Run", conflicts_with_all = ["resume", "fresh"])]
    pub extend: Option<PathBuf>,

    /// Measure what this run measured in turn with what is asked for now, in one run, and compare the two
    #[arg(long, value_name = "RUN", help_heading = "Measuring", conflicts_with_all = ["resume", "extend", "noise_check"])]
    pub against: Option<PathBuf>,

    /// Ask nothing
    #[arg(short, long, help_heading = "Run")]
    pub yes: bool,

    /// Do not end other vLLM processes of this user before a start (a simulated run never does)
    #[arg(long, help_heading = "Run")]
    pub keep_foreign: bool,

    /// Wait until the devices are free, for so long at most, instead of refusing to start
    #[arg(long, num_args = 0..=1, value_name = "DURATION", help_heading = "Run", conflicts_with = "dry_run")]
    pub wait: Option<Option<String>>,

    /// Folder of the locks on devices, the same for all users of the machine; none: lock nothing
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub device_locks: Option<String>,

    /// Show the server's and the client's output live
    #[arg(long, help_heading = "Run")]
    pub show_logs: bool,

    /// Push what /metrics says to this Prometheus Pushgateway each 15 s and at the end (http://[USER:PASSWORD@]HOST:9091)
    #[arg(long, value_name = "URL", help_heading = "Dashboard")]
    pub pushgateway: Option<String>,

    /// Show the run as a page in the browser while it goes on, at a port or ADDRESS:PORT (127.0.0.1:8765; port 0: a free one)
    #[arg(long, num_args = 0..=1, value_name = "ADDR", help_heading = "Dashboard", conflicts_with = "dry_run")]
    pub dashboard: Option<Option<String>>,

    /// Let that page stop the run
    #[arg(long, help_heading = "Dashboard", requires = "dashboard")]
    pub allow_control: bool,

    /// Answer /metrics there without the token
    #[arg(long, help_heading = "Dashboard", requires = "dashboard")]
    pub metrics_open: bool,

    /// Send the run to an MLflow server (without a URI: to that of $MLFLOW_TRACKING_URI); off: to none
    #[arg(long, num_args = 0..=1, value_name = "URI", help_heading = "Tracking")]
    pub mlflow: Option<Option<String>>,

    /// Tell somebody of the end, the first failure, what hangs, and what became worse: a webhook's URL, or a command
    #[arg(long, value_name = "URL|COMMAND", help_heading = "Tracking")]
    pub notify: Vec<String>,

    /// Measure several server configurations at once, each on devices of its own: off, auto (as many as fit, where they are found not
    /// to disturb each other) or a number
    #[arg(long, value_name = "off|auto|N", help_heading = "Measuring")]
    pub parallel: Option<String>,

    /// With --parallel auto, what neighbours may cost (2%); above it one is measured at a time
    #[arg(long, value_name = "PERCENT", help_heading = "Measuring")]
    pub parallel_threshold: Option<String>,

    /// What is measured again alone after several at once: alone (the set of the best) or off
    #[arg(long, value_name = "WHAT", help_heading = "Measuring", value_parser = ["alone", "off"])]
    pub finalists: Option<String>,

    /// Measure one configuration on so many fresh starts, and say what difference this machine can resolve
    #[arg(long, value_name = "N", help_heading = "Measuring", conflicts_with = "extend")]
    pub noise_check: Option<String>,

    /// What sends the workload: `vllm` for `vllm bench serve`, or `builtin` for `vllm-bench load`
    #[arg(long, value_name = "CLIENT", help_heading = "Run", value_parser = ["vllm", "builtin"])]
    pub client: Option<String>,

    /// Where experiments run: on this machine, or as jobs of a Slurm cluster
    #[arg(long, value_name = "WHERE", help_heading = "Slurm", value_parser = ["local", "slurm"])]
    pub executor: Option<String>,

    /// A key of `slurm` in sweep files: `--slurm partition=main`, `--slurm time=2:00:00`, `--slurm sbatch.constraint=h100`
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Slurm")]
    pub slurm: Vec<String>,

    /// The server backend: `vllm`, or `sim` for the simulated one
    #[arg(long, value_name = "ENGINE", help_heading = "Simulated vLLM", value_parser = ["vllm", "sim"])]
    pub engine: Option<String>,

    /// Virtual seconds per real second (100 = a hundred times faster)
    #[arg(long, value_name = "FACTOR", help_heading = "Simulated vLLM")]
    pub sim_speed: Option<String>,

    /// Seed of the simulation
    #[arg(long, value_name = "N", help_heading = "Simulated vLLM")]
    pub sim_seed: Option<String>,

    /// Number of simulated devices
    #[arg(long, value_name = "N", help_heading = "Simulated vLLM")]
    pub sim_devices: Option<String>,

    /// Memory of each simulated device, in GiB
    #[arg(long, value_name = "GIB", help_heading = "Simulated vLLM")]
    pub sim_device_memory: Option<String>,

    /// Standard deviation between simulated server starts (2%; 0: they are all alike)
    #[arg(long, value_name = "PERCENT", help_heading = "Simulated vLLM")]
    pub sim_noise: Option<String>,

    /// Standard deviation between measurements on one simulated start (0.5%)
    #[arg(long, value_name = "PERCENT", help_heading = "Simulated vLLM")]
    pub sim_noise_within: Option<String>,

    /// By how much each simulated experiment is slower than the one before it in the plan (0)
    #[arg(long, value_name = "PERCENT", help_heading = "Simulated vLLM", allow_hyphen_values = true)]
    pub sim_drift: Option<String>,

    /// Share of simulated server starts that take 1.25 times as long (0)
    #[arg(long, value_name = "PERCENT", help_heading = "Simulated vLLM")]
    pub sim_outliers: Option<String>,

    /// By how much a simulated server is slower while another one of the same run is busy (0)
    #[arg(long, value_name = "PERCENT", help_heading = "Simulated vLLM")]
    pub sim_interference: Option<String>,

    /// A fault to simulate: `NAME[:PARAM][@key=value][#ATTEMPTS]`
    #[arg(long, value_name = "FAULT", help_heading = "Simulated vLLM")]
    pub sim_fault: Vec<String>,

    /// This process is the detached one (internal)
    #[arg(long, hide = true)]
    pub detached_child: bool,
}

/// Flags of `task`, as a batch script has them.
#[derive(Debug, Clone, Args)]
pub struct TaskArgs {
    /// The run directory
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Which submission of the run
    #[arg(long, value_name = "N")]
    pub submission: u32,
    /// Which task of it (default: SLURM_ARRAY_TASK_ID)
    #[arg(long, value_name = "INDEX")]
    pub task: Option<u32>,
}

/// Flags of `plan`.
#[derive(Debug, Clone, Default, Args)]
pub struct PlanArgs {
    /// What is planned.
    #[command(flatten)]
    pub run: RunArgs,
    /// List every experiment, and every combination that a rule leaves out
    #[arg(long, help_heading = "Plan")]
    pub all: bool,
    /// For whom.
    #[command(flatten, next_help_heading = "Plan")]
    pub output: JsonArgs,
}

/// Flags of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to print.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// The subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the sweep that files, preset, variables and flags add up to, each value with its origin
    Show(Box<RunArgs>),
    /// Print the settings that files, variables and flags of `load` add up to, each value with its origin
    #[command(infer_long_args = true)]
    Load(Box<LoadArgs>),
    /// Print the JSON Schema of sweep files
    Schema,
}
