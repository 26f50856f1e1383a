//! Flags of `load`: those of `vllm bench serve`, spelled as there, and ours.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, ValueEnum};

use super::prompts::PromptArgs;

/// What speaks at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Completions.
    Vllm,
    /// Completions, too.
    Openai,
    /// Chats.
    OpenaiChat,
}

impl Backend {
    /// Its name, as vLLM's client has it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Vllm => "vllm",
            Backend::Openai => "openai",
            Backend::OpenaiChat => "openai-chat",
        }
    }
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoadPattern {
    /// The next request when one ends.
    Closed,
    /// As many together as --max-concurrency, then the next ones.
    Burst,
    /// By the clock.
    Open,
}

impl LoadPattern {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            LoadPattern::Closed => "closed",
            LoadPattern::Burst => "burst",
            LoadPattern::Open => "open",
        }
    }
}

/// How a rate grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RampUpStrategy {
    /// By the same amount each second.
    Linear,
    /// By the same factor each second.
    Exponential,
}

/// Which instant counts as an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArrivalInstant {
    /// When the packet came.
    Kernel,
    /// When it was read.
    Read,
}

/// Flags of `load`. Where `vllm bench serve` takes a number, several (commas, or `pow2:1..256`) make a sweep.
#[derive(Debug, Clone, Default, Args)]
pub struct LoadArgs {
    /// Flags and their values as written: what files and variables say lies below them.
    #[arg(skip)]
    pub written: Written,

    /// Sweep files (YAML, JSON or TOML) whose section `bench` has flags of the load, merged; later files win
    #[arg(value_name = "FILES")]
    pub files: Vec<PathBuf>,

    /// Take MODEL, PORT, HOST and HF_TOKEN from this file (a directory: from its `.env`), over files and scenarios
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub env_file: Option<PathBuf>,

    /// Address of the server, in place of --host and --port
    #[arg(long, value_name = "URL", visible_alias = "url", help_heading = "Target")]
    pub base_url: Option<String>,

    /// Host of the server (default 127.0.0.1)
    #[arg(long, value_name = "HOST", help_heading = "Target")]
    pub host: Option<String>,

    /// Port of the server (default 8000)
    #[arg(long, value_name = "PORT", help_heading = "Target")]
    pub port: Option<String>,

    /// Endpoint (default: /v1/completions, or /v1/chat/completions for --backend openai-chat)
    #[arg(long, value_name = "PATH", help_heading = "Target")]
    pub endpoint: Option<String>,

    /// What speaks at the other end (default: openai, or what --endpoint says)
    #[arg(long, value_name = "NAME", visible_alias = "endpoint-type", help_heading = "Target")]
    pub backend: Option<Backend>,

    /// Model; without it the server is asked for its first one
    #[arg(long, value_name = "MODEL", help_heading = "Target")]
    pub model: Option<String>,

    /// The model's name in requests, if it is not --model
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub served_model_name: Option<String>,

    /// Names of LoRA modules of the server; each request takes one of them at random
    #[arg(long, num_args = 1.., value_name = "NAME", help_heading = "Target")]
    pub lora_modules: Vec<String>,

    /// Headers of every request
    #[arg(long, num_args = 0.., value_name = "KEY=VALUE", help_heading = "Target")]
    pub header: Vec<String>,

    /// Variable with the key that the server asks for (default OPENAI_API_KEY, else VLLM_API_KEY)
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub api_key_env: Option<String>,

    /// File with the key that the server asks for
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub api_key_file: Option<PathBuf>,

    /// Accept any certificate
    #[arg(long, help_heading = "Target")]
    pub insecure: bool,

    /// Wait so long for the server to answer a first request (default 0: do not ask)
    #[arg(long, value_name = "SECONDS", help_heading = "Target")]
    pub ready_check_timeout_sec: Option<String>,

    /// Requests in all (default 1000)
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub num_prompts: Option<String>,

    /// Requests per stream, in place of --num-prompts
    #[arg(long, value_name = "N", visible_alias = "requests-per-user", help_heading = "Workload")]
    pub num_prompts_per_concurrency: Option<String>,

    /// Requests under way at most (default: no limit)
    #[arg(long, value_name = "N", visible_aliases = ["concurrent", "batch-size"], help_heading = "Workload")]
    pub max_concurrency: Option<String>,

    /// Requests per second (default inf: as fast as --max-concurrency allows)
    #[arg(long, value_name = "RPS", help_heading = "Workload")]
    pub request_rate: Option<String>,

    /// Shape of the gaps at --request-rate: 1 = Poisson process, below it in bursts, inf = equal gaps
    #[arg(long, value_name = "FACTOR", help_heading = "Workload")]
    pub burstiness: Option<String>,

    /// When requests are sent (default: open with --request-rate, else closed)
    #[arg(long, value_name = "PATTERN", help_heading = "Workload")]
    pub load_pattern: Option<LoadPattern>,

    /// Growth of the rate
    #[arg(long, value_name = "STRATEGY", help_heading = "Workload")]
    pub ramp_up_strategy: Option<RampUpStrategy>,

    /// Requests per second at the beginning of the ramp
    #[arg(long, value_name = "RPS", help_heading = "Workload")]
    pub ramp_up_start_rps: Option<String>,

    /// Requests per second at its end
    #[arg(long, value_name = "RPS", help_heading = "Workload")]
    pub ramp_up_end_rps: Option<String>,

    /// Send requests for so long; those under way then are waited for
    #[arg(long, value_name = "DURATION", help_heading = "Workload")]
    pub duration: Option<String>,

    /// Samples per request
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub n: Option<String>,

    /// Requests before the workload that are not measured, with prompts of their own (default: as many as streams, at most 32; 0: none)
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub num_warmups: Option<String>,

    /// Pause between the workloads of a sweep: 10s, 1m
    #[arg(long, value_name = "DURATION", help_heading = "Workload")]
    pub cool_down: Option<String>,

    /// Measurements of each workload, with prompts of their own
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub num_runs: Option<String>,

    /// For prompts and gaps (default 0)
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub seed: Option<String>,

    /// Limit of one request (default 6h, as vLLM's client)
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub request_timeout: Option<String>,

    /// Ends a workload without a token of any request for so long, and without a movement of the server's counters where it has some (default 120s; 0: never)
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub stall_timeout: Option<String>,

    /// Limit of a workload: what is under way then is given up
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub total_timeout: Option<String>,

    /// End a workload after so many failed requests
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_failures: Option<String>,

    /// Where the prompts come from
    #[command(flatten)]
    pub prompts: PromptArgs,

    /// Generate to the last token asked for (always with random prompts, as vLLM's client)
    #[arg(long, help_heading = "Requests")]
    pub ignore_eos: bool,

    /// Answers in one piece: no times to tokens
    #[arg(long, help_heading = "Requests")]
    pub non_streaming: bool,

    /// Log probabilities per token
    #[arg(long, value_name = "N", help_heading = "Requests")]
    pub logprobs: Option<String>,

    /// Sampling temperature (default 0)
    #[arg(long, value_name = "X", help_heading = "Requests")]
    pub temperature: Option<String>,

    /// Nucleus sampling
    #[arg(long, value_name = "X", help_heading = "Requests")]
    pub top_p: Option<String>,

    /// Sample among so many tokens
    #[arg(long, value_name = "N", help_heading = "Requests")]
    pub top_k: Option<String>,

    /// Least probability, relative to the best token
    #[arg(long, value_name = "X", help_heading = "Requests")]
    pub min_p: Option<String>,

    /// Frequency penalty
    #[arg(long, value_name = "X", allow_hyphen_values = true, help_heading = "Requests")]
    pub frequency_penalty: Option<String>,

    /// Presence penalty
    #[arg(long, value_name = "X", allow_hyphen_values = true, help_heading = "Requests")]
    pub presence_penalty: Option<String>,

    /// Repetition penalty
    #[arg(long, value_name = "X", help_heading = "Requests")]
    pub repetition_penalty: Option<String>,

    /// More of the body, as JSON; wins over every other flag
    #[arg(long, value_name = "JSON", help_heading = "Requests")]
    pub extra_body: Option<String>,

    /// What request ids begin with
    #[arg(long, value_name = "TEXT", help_heading = "Requests")]
    pub request_id_prefix: Option<String>,

    /// Profile the server meanwhile (its --profiler-config must be set)
    #[arg(long, help_heading = "Requests")]
    pub profile: bool,

    /// Write the result as JSON
    #[arg(long, visible_aliases = ["save", "save-results"], help_heading = "Results")]
    pub save_result: bool,

    /// With times and text of every request in it
    #[arg(long, help_heading = "Results")]
    pub save_detailed: bool,

    /// Append to the file, one JSON object per line
    #[arg(long, help_heading = "Results")]
    pub append_result: bool,

    /// Folder of results (default: the current one)
    #[arg(long, value_name = "DIR", visible_alias = "output-dir", help_heading = "Results")]
    pub result_dir: Option<PathBuf>,

    /// Name of the result file
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub result_filename: Option<PathBuf>,

    /// One line per request, as CSV
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub requests_csv: Option<PathBuf>,

    /// One line per workload of a sweep, as CSV
    #[arg(long, value_name = "FILE", visible_alias = "output", help_heading = "Results")]
    pub csv: Option<PathBuf>,

    /// Leave out the CSV report of scenarios
    #[arg(long, help_heading = "Results")]
    pub no_csv: bool,

    /// Begin of the name of the result file (default: the backend)
    #[arg(long, value_name = "TEXT", help_heading = "Results")]
    pub label: Option<String>,

    /// More keys of the result
    #[arg(long, num_args = 0.., value_name = "KEY=VALUE", help_heading = "Results")]
    pub metadata: Vec<String>,

    /// Metrics with percentiles (default ttft,tpot,itl)
    #[arg(long, value_name = "LIST", help_heading = "Results")]
    pub percentile_metrics: Option<String>,

    /// Which percentiles (default 99)
    #[arg(long, value_name = "LIST", help_heading = "Results")]
    pub metric_percentiles: Option<String>,

    /// Count requests within these limits: ttft:200 tpot:50 e2el:3000 (milliseconds)
    #[arg(long, num_args = 1.., value_name = "METRIC:MS", help_heading = "Results")]
    pub goodput: Vec<String>,

    /// No progress
    #[arg(long, help_heading = "Results")]
    pub disable_tqdm: bool,

    /// Show the load as a page in the browser while it goes on, at a port or ADDRESS:PORT (127.0.0.1:8765; port 0: a free one)
    #[arg(long, num_args = 0..=1, value_name = "ADDR", help_heading = "Dashboard")]
    pub dashboard: Option<Option<String>>,

    /// Answer /metrics there without the token
    #[arg(long, help_heading = "Dashboard", requires = "dashboard")]
    pub metrics_open: bool,

    /// Push what /metrics says to this Prometheus Pushgateway each 15 s and at the end (http://[USER:PASSWORD@]HOST:9091)
    #[arg(long, value_name = "URL", help_heading = "Dashboard")]
    pub pushgateway: Option<String>,

    /// Which instant counts as an arrival (default: kernel where there is one)
    #[arg(long, value_name = "CLOCK", help_heading = "Results")]
    pub arrival_clock: Option<ArrivalInstant>,

    /// Threads that send and read (default: by streams and cores)
    #[arg(long, value_name = "N", help_heading = "Results")]
    pub threads: Option<String>,

    /// Record what the devices of this machine report, in the folder telemetry of the results
    #[arg(long, help_heading = "Results")]
    pub telemetry: bool,

    /// Send the result file to an MLflow server; env: to that of $MLFLOW_TRACKING_URI
    #[arg(long, value_name = "URI", help_heading = "Results")]
    pub mlflow: Option<String>,

    /// Do not ask the server for its metrics
    #[arg(long, help_heading = "Results")]
    pub no_server_metrics: bool,

    /// Scenario files (YAML), or completions configurations (JSON)
    #[arg(long, value_name = "FILE", visible_alias = "config", help_heading = "Scenarios")]
    pub scenarios: Option<PathBuf>,

    /// Only this scenario
    #[arg(long, value_name = "NAME", help_heading = "Scenarios")]
    pub name: Option<String>,

    /// Samples to collect in all, spread over requests (n = samples / concurrency)
    #[arg(long, value_name = "N", help_heading = "Scenarios")]
    pub completions: Option<String>,

    /// Compare several numbers of samples
    #[arg(long, num_args = 1.., value_name = "N", help_heading = "Scenarios")]
    pub compare: Vec<String>,

    /// Compare several concurrencies
    #[arg(long, num_args = 1.., value_name = "N", help_heading = "Scenarios")]
    pub concurrent_tests: Vec<String>,

    /// The simulated vLLM is at the other end (used by `run --engine sim`)
    #[arg(long, hide = true)]
    pub simulated: bool,
}

/// Flags as written: name -> values, in their order.
pub type Written = BTreeMap<String, Vec<String>>;

/// The flags of `load` by themselves.
#[derive(Debug, clap::Parser)]
#[command(infer_long_args = true)]
pub struct LoadLine {
    /// They.
    #[command(flatten)]
    pub args: LoadArgs,
}

impl LoadLine {
    /// Reads flags.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(words: impl IntoIterator<Item = String>) -> Result<LoadArgs, clap::Error> {
        let words = std::iter::once("load".to_owned()).chain(words);
        let matches = super::numbers(Self::command()).try_get_matches_from(words)?;
        let mut args = Self::from_arg_matches(&matches)?.args;
        args.written = written(&matches);
        Ok(args)
    }
}

/// Every flag: clap's id, and its name.
static FLAGS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let flag = |arg: &clap::Arg| Some((arg.get_id().to_string(), arg.get_long()?.to_owned()));
    LoadLine::command().get_arguments().filter_map(flag).collect()
});

/// The flags of `load` that the command line has.
pub(super) fn written(matches: &ArgMatches) -> Written {
    let given = |(id, name): &(String, String)| {
        let is_written = matches.value_source(id) == Some(ValueSource::CommandLine);
        let values = matches.get_raw(id).filter(|_| is_written)?;
        Some((name.clone(), values.map(|value| value.to_string_lossy().into_owned()).collect()))
    };
    FLAGS.iter().filter_map(given).collect()
}
