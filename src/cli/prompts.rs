//! Flags of `prompts`, and those of `load` that say where prompts come from.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::choice::JsonArgs;
use super::load::LoadArgs;
use crate::load::dataset;

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
