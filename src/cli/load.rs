//! Flags of `load` and `prompts`: those of `vllm bench serve`, spelled as there, and ours.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::choice::JsonArgs;
use crate::load::dataset;

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

/// What random prompts are sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PromptFormat {
    /// Text.
    Text,
    /// Token ids, for completions only.
    TokenIds,
}

/// Whose reading of a tokenizer's files counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenizerMode {
    /// That of the server's release of vLLM.
    Auto,
    /// As auto: tokenizer.json.
    Hf,
    /// transformers 4.
    Transformers4,
    /// transformers 5.
    Transformers5,
}

/// Flags of `load`. Where `vllm bench serve` takes a number, several (commas, or `pow2:1..256`) make a sweep.
#[derive(Debug, Clone, Default, Args)]
pub struct LoadArgs {
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

    /// Which instant counts as an arrival (default: kernel where there is one)
    #[arg(long, value_name = "CLOCK", help_heading = "Results")]
    pub arrival_clock: Option<ArrivalInstant>,

    /// Threads that send and read (default: by streams and cores)
    #[arg(long, value_name = "N", help_heading = "Results")]
    pub threads: Option<String>,

    /// Record what the devices of this machine report, in the folder telemetry of the results
    #[arg(long, help_heading = "Results")]
    pub telemetry: bool,

    /// Do not ask the server for its metrics
    #[arg(long, help_heading = "Results")]
    pub no_server_metrics: bool,

    /// Scenarios of S3 (YAML) or S4 (JSON)
    #[arg(long, value_name = "FILE", visible_alias = "config", help_heading = "Scenarios")]
    pub scenarios: Option<PathBuf>,

    /// Only this scenario
    #[arg(long, value_name = "NAME", help_heading = "Scenarios")]
    pub name: Option<String>,

    /// Samples to collect in all, spread over requests as S4 does (n = samples / concurrency)
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

/// The flags of `load` by themselves.
#[derive(Debug, clap::Parser)]
#[command(infer_long_args = true)]
pub struct LoadLine {
    /// They.
    #[command(flatten)]
    pub args: LoadArgs,
}

/// Where prompts come from: flags of `load` and `prompts`.
#[derive(Debug, Clone, Default, Args)]
pub struct PromptArgs {
    /// Data set (default: random, or what --dataset-path or --prompt says)
    #[arg(long, value_name = "NAME", visible_alias = "dataset", help_heading = "Prompts", ignore_case = true)]
    pub dataset_name: Option<dataset::Name>,

    /// File of the data set, or its name on the hub
    #[arg(long, value_name = "PATH", visible_alias = "prompt-file", help_heading = "Prompts")]
    pub dataset_path: Option<String>,

    /// One prompt for all requests
    #[arg(long, value_name = "TEXT", help_heading = "Prompts")]
    pub prompt: Option<String>,

    /// A system message before each prompt (chat)
    #[arg(long, value_name = "TEXT", help_heading = "Prompts")]
    pub system_prompt: Option<String>,

    /// Tokens of prompts
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub input_len: Option<String>,

    /// Tokens of answers
    #[arg(long, value_name = "TOKENS", visible_alias = "max-tokens", help_heading = "Prompts")]
    pub output_len: Option<String>,

    /// Tokens of random prompts (default 1024)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub random_input_len: Option<String>,

    /// Tokens of answers to random prompts (default 128)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub random_output_len: Option<String>,

    /// Lengths vary by this part around the mean: 0 to below 1 (default 0)
    #[arg(long, value_name = "RATIO", help_heading = "Prompts")]
    pub random_range_ratio: Option<String>,

    /// Tokens that all random prompts begin with (default 0)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub random_prefix_len: Option<String>,

    /// What random prompts are sent as (default: text where there is a tokenizer)
    #[arg(long, value_name = "FORMAT", help_heading = "Prompts")]
    pub prompt_format: Option<PromptFormat>,

    /// Tokens of answers to ShareGPT's prompts (default: as in the data set)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub sharegpt_output_len: Option<String>,

    /// Tokens of sonnet prompts (default 550)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub sonnet_input_len: Option<String>,

    /// Tokens of answers to sonnet prompts (default 150)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub sonnet_output_len: Option<String>,

    /// Tokens that sonnet prompts share (default 200)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub sonnet_prefix_len: Option<String>,

    /// Tokens of answers to custom prompts; -1 = as in the file (default 256)
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true, help_heading = "Prompts")]
    pub custom_output_len: Option<String>,

    /// Tokens of answers to prompts of a Hugging Face data set
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub hf_output_len: Option<String>,

    /// Subset of a Hugging Face data set
    #[arg(long, value_name = "NAME", help_heading = "Prompts")]
    pub hf_subset: Option<String>,

    /// Split of a Hugging Face data set (default train)
    #[arg(long, value_name = "NAME", help_heading = "Prompts")]
    pub hf_split: Option<String>,

    /// Name of a Hugging Face data set whose files --dataset-path has
    #[arg(long, value_name = "NAME", help_heading = "Prompts")]
    pub hf_name: Option<String>,

    /// Column with the prompt
    #[arg(long, value_name = "NAME", help_heading = "Prompts")]
    pub prompt_column: Option<String>,

    /// Text around the prompt: {column}, or [[DOCUMENT]]
    #[arg(long, value_name = "TEXT", help_heading = "Prompts")]
    pub prompt_template: Option<String>,

    /// Leave out prompts with fewer tokens
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub min_tokens: Option<String>,

    /// Leave out prompts with more tokens
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub max_tokens_filter: Option<String>,

    /// Prefix tokens of prefix_repetition (default 256)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub prefix_repetition_prefix_len: Option<String>,

    /// Suffix tokens of prefix_repetition (default 256)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub prefix_repetition_suffix_len: Option<String>,

    /// Different prefixes of prefix_repetition (default 10)
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    pub prefix_repetition_num_prefixes: Option<String>,

    /// Tokens of answers of prefix_repetition (default 128)
    #[arg(long, value_name = "TOKENS", help_heading = "Prompts")]
    pub prefix_repetition_output_len: Option<String>,

    /// Turns of earlier conversation in RAG prompts (default 2)
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    pub history_turns: Option<String>,

    /// Keep the order of the data set
    #[arg(long, help_heading = "Prompts")]
    pub disable_shuffle: bool,

    /// Use prompts again when there are too few
    #[arg(long, help_heading = "Prompts")]
    pub oversample: bool,

    /// Never use a prompt twice (the default; vLLM's clients take it)
    #[arg(long, conflicts_with = "oversample", help_heading = "Prompts")]
    pub no_oversample: bool,

    /// Send custom prompts as they are, without the model's chat template
    #[arg(long, help_heading = "Prompts")]
    pub skip_chat_template: bool,

    /// Folder or name of the tokenizer (default: that of the model; none = let the server count)
    #[arg(long, value_name = "NAME", help_heading = "Prompts")]
    pub tokenizer: Option<String>,

    /// Whose reading of the tokenizer's files counts (default auto)
    #[arg(long, value_name = "MODE", help_heading = "Prompts")]
    pub tokenizer_mode: Option<TokenizerMode>,

    /// Refused: code of a model is never run
    #[arg(long, hide = true)]
    pub trust_remote_code: bool,

    /// Refused: data sets are always read whole
    #[arg(long, hide = true)]
    pub no_stream: bool,
}

/// Flags of `prompts`.
#[derive(Debug, Clone, Args)]
pub struct PromptsArgs {
    /// What to do with the prompts.
    #[command(subcommand)]
    pub command: PromptsCommand,
}

/// The subcommands of `prompts`.
#[derive(Debug, Clone, Subcommand)]
pub enum PromptsCommand {
    /// List the data sets that there are names for
    List,
    /// Show what a workload would send
    Inspect(PromptsInspectArgs),
    /// Show the text that a chat template makes of messages
    Render(PromptsRenderArgs),
    /// Write what a workload would send to a file
    Build(PromptsBuildArgs),
    /// Send prompts and show what the model answers
    Answers(Box<PromptsAnswersArgs>),
}

/// Flags of `prompts inspect`.
#[derive(Debug, Clone, Args)]
pub struct PromptsInspectArgs {
    /// How many to show
    #[arg(long, value_name = "N", default_value = "5")]
    pub show: usize,

    /// How many to look at (default: 500, or as many as there are)
    #[arg(long, value_name = "N", visible_alias = "num-requests")]
    pub num_prompts: Option<u64>,

    /// Only the statistics
    #[arg(long)]
    pub stats_only: bool,

    /// Write them as JSON
    #[arg(long, value_name = "FILE")]
    pub save_json: Option<PathBuf>,

    /// Write them as text
    #[arg(long, value_name = "FILE")]
    pub save_text: Option<PathBuf>,

    /// For the choice of prompts (default 0)
    #[arg(long, value_name = "N")]
    pub seed: Option<String>,

    /// Which prompts.
    #[command(flatten)]
    pub prompts: PromptArgs,
}

/// Flags of `prompts render`.
#[derive(Debug, Clone, Args)]
pub struct PromptsRenderArgs {
    /// Conversations: JSON (a list of messages, or an object with `messages`, `tools` and other variables of the template),
    /// or JSONL with one on each line
    #[arg(long, value_name = "FILE")]
    pub messages: PathBuf,

    /// The chat template, in place of the model's
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,

    /// Folder or name of the model's tokenizer: its template, its special tokens, and counts
    #[arg(long, value_name = "NAME", required_unless_present = "chat_template")]
    pub tokenizer: Option<String>,

    /// Whose reading of the tokenizer's files counts (default auto)
    #[arg(long, value_name = "MODE")]
    pub tokenizer_mode: Option<TokenizerMode>,

    /// Count the special tokens that the tokenizer adds as well, as for a completion
    #[arg(long, requires = "tokenizer")]
    pub special_tokens: bool,

    /// JSON: one object per conversation, `text` and `tokens`, or `error`.
    #[command(flatten)]
    pub output: JsonArgs,
}

/// Flags of `prompts build`.
#[derive(Debug, Clone, Args)]
pub struct PromptsBuildArgs {
    /// Where to write them, as JSONL
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// How many
    #[arg(short, long, value_name = "N", default_value = "500")]
    pub num_prompts: u64,

    /// For the choice of prompts (default 0)
    #[arg(long, value_name = "N")]
    pub seed: Option<String>,

    /// Which prompts.
    #[command(flatten)]
    pub prompts: PromptArgs,
}

/// Flags of `prompts answers`.
#[derive(Debug, Clone, Args)]
pub struct PromptsAnswersArgs {
    /// How many
    #[arg(long, value_name = "N", default_value = "5")]
    pub show: u64,

    /// The first one, from 0
    #[arg(long, value_name = "N", default_value = "0")]
    pub start: u64,

    /// Where to send them, and what.
    #[command(flatten)]
    pub load: LoadArgs,
}
