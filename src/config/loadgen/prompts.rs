//! The prompts that are asked for.

use std::path::PathBuf;

use super::numbers::{argument, number, whole, whole_numbers};
use crate::cli::{PromptArgs, PromptFormat, TokenizerMode};
use crate::config::{Environment, Error};
use crate::load::dataset;
use crate::load::target::Secret;
use crate::load::tokenizer::{Cache, Rules};

/// Where the tokenizer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// That of the model, else the server's.
    Auto,
    /// A folder or name.
    Named(String),
    /// None: the server's usage counts.
    Absent,
}

/// The prompts that are asked for.
#[derive(Debug, Clone)]
pub struct PromptSettings {
    /// The data set; count, seed and lengths are those of each load.
    pub spec: dataset::Spec,
    /// Where the tokenizer comes from.
    pub tokenizer: TokenizerChoice,
    /// Whose reading of the tokenizer's files counts; `None` = as the server's release of vLLM.
    pub rules: Option<Rules>,
    /// Where models and data sets lie.
    pub cache: Cache,
    /// Tokens of prompts.
    pub input_lens: Vec<u64>,
    /// Tokens of answers.
    pub output_lens: Vec<Option<u64>>,
    /// A system message before each prompt.
    pub system_prompt: Option<String>,
    /// Whether the form of random prompts was chosen.
    pub token_ids: Option<bool>,
}

impl PromptSettings {
    /// Whether prompts begin alike on purpose: what is in the prefix cache then is no surprise.
    pub fn shares_prefixes(&self) -> bool {
        use dataset::Name as N;
        match self.spec.name {
            N::PrefixRepetition | N::Sonnet | N::Rag | N::Text => true,
            N::Random => self.spec.prefix_len > 0,
            _ => self.spec.again,
        }
    }
}

/// Resolves the flags of `prompts` and the prompt flags of `load`.
///
/// # Errors
/// When a value is none.
pub fn resolve_prompts(args: &PromptArgs, seed: u64, environment: &Environment) -> Result<PromptSettings, Error> {
    let name = match (&args.dataset_name, &args.dataset_path, &args.prompt) {
        (Some(name), _, _) => *name,
        (None, None, None) => dataset::Name::Random,
        (None, _, Some(_)) => dataset::Name::Text,
        (None, Some(path), None) => dataset::Name::of_path(path),
    };
    if args.trust_remote_code {
        let hint = "leave it out: a model that needs code of its own is served by vLLM, and `--tokenizer` names its tokenizer.json";
        return Err(argument(
            "--trust-remote-code",
            "allows what is never done: no code of a model or data set is run",
            hint,
        ));
    }
    if args.no_stream {
        let hint = "leave it out; for answers in one piece there is --non-streaming";
        return Err(argument("--no-stream", "is about data sets, and those are always read whole here", hint));
    }
    let rules = match args.tokenizer_mode {
        Some(TokenizerMode::Transformers4) => Some(Rules::Transformers4),
        Some(TokenizerMode::Transformers5) => Some(Rules::Transformers5),
        Some(TokenizerMode::Auto | TokenizerMode::Hf) | None => None,
    };
    let ratio = |ratio: f64| (0.0..1.0).contains(&ratio);
    let range_ratio =
        number("--random-range-ratio", args.random_range_ratio.as_ref(), ratio, "0 or more and less than 1")?;
    let token_ids = args.prompt_format.map(|format| format == PromptFormat::TokenIds);
    use dataset::Name as N;
    // vLLM: the general lengths win over those of a data set.
    let (input_flag, input_text, input_default) = match name {
        N::Sonnet => ("--sonnet-input-len", &args.sonnet_input_len, 550),
        _ => ("--random-input-len", &args.random_input_len, 1024),
    };
    let lens =
        |flag, text: &Option<String>, least| text.as_ref().map(|text| whole_numbers(flag, text, least)).transpose();
    let input_lens = match lens("--input-len", &args.input_len, 1)? {
        Some(lens) => lens,
        None => lens(input_flag, input_text, 1)?.unwrap_or(vec![input_default]),
    };
    let (output_flag, output_text, output_default) = match name {
        N::Random => ("--random-output-len", &args.random_output_len, Some(128)),
        N::ShareGpt => ("--sharegpt-output-len", &args.sharegpt_output_len, None),
        N::Sonnet => ("--sonnet-output-len", &args.sonnet_output_len, Some(150)),
        N::PrefixRepetition => ("--prefix-repetition-output-len", &args.prefix_repetition_output_len, Some(128)),
        N::Custom => ("--custom-output-len", &args.custom_output_len, Some(256)),
        _ => ("--hf-output-len", &args.hf_output_len, Some(256)),
    };
    let own = match output_text.as_deref() {
        // vLLM: as the file says.
        Some("-1") if name == N::Custom => Some(vec![None]),
        _ => lens(output_flag, output_text, 1)?.map(|lens| lens.into_iter().map(Some).collect()),
    };
    let output_lens = match lens("--output-len", &args.output_len, 1)? {
        Some(lens) => lens.into_iter().map(Some).collect(),
        None => own.unwrap_or(vec![output_default]),
    };
    let prefix = match name {
        N::Sonnet => whole("--sonnet-prefix-len", args.sonnet_prefix_len.as_ref(), 0)?.unwrap_or(200),
        N::PrefixRepetition => {
            whole("--prefix-repetition-prefix-len", args.prefix_repetition_prefix_len.as_ref(), 1)?.unwrap_or(256)
        }
        _ => whole("--random-prefix-len", args.random_prefix_len.as_ref(), 0)?.unwrap_or(0),
    };
    let cache_home = environment.get("HF_HOME").map(PathBuf::from).or_else(|| {
        let cache = environment.get("XDG_CACHE_HOME").map(PathBuf::from);
        cache
            .or_else(|| environment.get("HOME").map(|home| PathBuf::from(home).join(".cache")))
            .map(|path| path.join("huggingface"))
    });
    let hub = environment.get("HF_HUB_CACHE").map(PathBuf::from).or_else(|| cache_home.map(|home| home.join("hub")));
    let offline = ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"].iter().any(|name| {
        environment
            .get(name)
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off"))
    });
    let cache = Cache { hub };
    let spec = dataset::Spec {
        name,
        path: args.dataset_path.as_ref().map(|path| {
            let absolute = environment.absolute(path);
            if absolute.exists() { absolute.display().to_string() } else { path.clone() }
        }),
        text: args.prompt.clone(),
        count: 0,
        seed,
        input_len: input_lens[0],
        output_len: output_lens[0],
        range_ratio: range_ratio.unwrap_or(0.0),
        prefix_len: prefix,
        token_ids: token_ids.unwrap_or(false),
        suffix_len: whole("--prefix-repetition-suffix-len", args.prefix_repetition_suffix_len.as_ref(), 1)?
            .unwrap_or(256),
        prefixes: whole("--prefix-repetition-num-prefixes", args.prefix_repetition_num_prefixes.as_ref(), 1)?
            .unwrap_or(10),
        column: args.prompt_column.clone(),
        template: args.prompt_template.clone(),
        subset: args.hf_subset.clone(),
        split: args.hf_split.clone(),
        hub_name: args.hf_name.clone(),
        min_tokens: whole("--min-tokens", args.min_tokens.as_ref(), 0)?,
        max_tokens: whole("--max-tokens-filter", args.max_tokens_filter.as_ref(), 1)?,
        history_turns: whole("--history-turns", args.history_turns.as_ref(), 0)?.unwrap_or(2),
        shuffle: !args.disable_shuffle,
        again: args.oversample,
        chat_template: !args.skip_chat_template,
        chat: false,
        hub: dataset::Hub {
            cache: cache.clone(),
            endpoint: environment
                .get("HF_ENDPOINT")
                .unwrap_or("https://huggingface.co")
                .trim_end_matches('/')
                .to_owned(),
            token: environment.get("HF_TOKEN").map(Secret::new),
            offline,
        },
    };
    let tokenizer = match args.tokenizer.as_deref() {
        None => TokenizerChoice::Auto,
        Some("none") => TokenizerChoice::Absent,
        Some(name) => {
            let absolute = environment.absolute(name);
            let name = if absolute.exists() { absolute.display().to_string() } else { name.to_owned() };
            TokenizerChoice::Named(name)
        }
    };
    Ok(PromptSettings {
        spec,
        tokenizer,
        rules,
        cache,
        input_lens,
        output_lens,
        system_prompt: args.system_prompt.clone(),
        token_ids,
    })
}
