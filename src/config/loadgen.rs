//! What `load` and `prompts` are asked for: flags over variables over vLLM's defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::handover::expanded;
use super::language::policy::pause;
use super::{Environment, Error, Origin, parse_duration};
use crate::cli::{
    ArrivalInstant, Backend, LoadArgs, LoadPattern, PromptArgs, PromptFormat, RampUpStrategy, TokenizerMode,
};
use crate::load::arrival::{Arrival, RampUp};
use crate::load::dataset;
use crate::load::metrics::Goal;
use crate::load::session::Limits;
use crate::load::target::Secret;
use crate::load::tokenizer::{Cache, Rules};
use crate::safe;
use crate::sim::timing::Turn;
use crate::telemetry::Probe;

/// One load of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Requests under way at most.
    pub max_concurrency: Option<u64>,
    /// Requests per second.
    pub request_rate: f64,
    /// Requests in all; `None` = as many as fit into the duration.
    pub num_prompts: Option<u64>,
    /// Tokens of prompts.
    pub input_len: u64,
    /// Tokens of answers; `None` = as the data set says.
    pub output_len: Option<u64>,
    /// When requests come.
    pub arrival: Arrival,
    /// Samples per request.
    pub n: u32,
    /// Samples in all, where the last request asks for the rest.
    pub completions: Option<u64>,
    /// Which measurement of the same load, from 1.
    pub run: u32,
}

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

/// A load, or a sweep of them.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Named as the flags.
pub struct LoadSettings {
    pub base_url: String,
    pub endpoint: String,
    pub backend: String,
    pub chat: bool,
    pub model: Option<String>,
    pub served_model_name: Option<String>,
    pub lora_modules: Vec<String>,
    pub headers: Vec<(String, String)>,
    pub api_key: Option<Secret>,
    pub insecure: bool,
    pub ready_check: Option<Duration>,
    /// The loads, one after the other.
    pub points: Vec<Point>,
    pub pattern: &'static str,
    pub burstiness: f64,
    pub ramp_up: Option<RampUp>,
    pub duration: Option<Duration>,
    /// `None`: as many as the load has streams, at most [`MOST_WARMUPS`].
    pub num_warmups: Option<u64>,
    pub cool_down: Duration,
    pub seed: u64,
    pub limits: Limits,
    pub max_failures: Option<u64>,
    pub prompts: PromptSettings,
    pub ignore_eos: bool,
    pub stream: bool,
    pub logprobs: Option<u32>,
    pub extra_body: Map<String, Value>,
    pub request_id_prefix: Option<String>,
    pub profile: bool,
    pub save_result: bool,
    pub save_detailed: bool,
    pub append_result: bool,
    pub result_dir: PathBuf,
    pub result_filename: Option<PathBuf>,
    /// The scenario whose files are written as S3 writes them.
    pub scenario: Option<String>,
    pub requests_csv: Option<PathBuf>,
    pub csv: Option<PathBuf>,
    pub label: Option<String>,
    pub metadata: Vec<(String, String)>,
    pub percentile_metrics: Vec<String>,
    pub percentiles: Vec<f64>,
    pub goodput: Vec<(Goal, f64)>,
    pub progress: bool,
    pub kernel_clock: bool,
    pub threads: usize,
    pub server_metrics: bool,
    /// Where devices are asked what they do, if they are to be asked.
    pub telemetry: Option<Probe>,
    pub simulated: bool,
    /// Which measurement of a simulated sweep it is, if it is one.
    pub turn: Option<Turn>,
}

/// Without a token for so long a load is ended.
const STALL: Duration = Duration::from_secs(120);

/// Requests of a warm-up that nobody asked for.
const MOST_WARMUPS: u64 = 32;

impl LoadSettings {
    /// Requests before a load that are not measured.
    pub fn warmups(&self, point: &Point) -> u64 {
        let streams = point.max_concurrency.or(point.num_prompts).unwrap_or(MOST_WARMUPS);
        self.num_warmups.unwrap_or(streams.min(point.num_prompts.unwrap_or(u64::MAX)).min(MOST_WARMUPS))
    }
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

fn invalid(flag: &'static str, value: &str, expected: &str) -> Error {
    let value = value.escape_debug().to_string();
    Error::Invalid {
        origin: Origin::flag(flag.trim_start_matches('-')),
        value,
        expected: expected.to_owned(),
        hint: None,
    }
}

fn argument(flag: &'static str, problem: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Argument {
        origin: Origin::flag(flag.trim_start_matches('-')),
        problem: problem.into(),
        hints: vec![hint.into()],
    }
}

/// What a load may be asked for at most: more would be held in memory, or have no end.
const MOST: [(&[&str], u64, &str); 4] = [
    (
        &["num-prompts", "num-warmups", "completions", "compare"],
        100_000_000,
        "up to 100000000 (the requests of one load)",
    ),
    (
        &[
            "input-len",
            "random-input-len",
            "random-prefix-len",
            "sonnet-input-len",
            "sonnet-prefix-len",
            "prefix-repetition-prefix-len",
            "prefix-repetition-suffix-len",
        ],
        16_000_000,
        "up to 16000000 (the tokens of one prompt)",
    ),
    (&["max-concurrency", "concurrent-tests"], 1_000_000, "up to 1000000 (each request under way is a socket)"),
    (&["num-runs"], MOST_POINTS, "up to 100000 (the loads of one call)"),
];

/// Loads of one call.
const MOST_POINTS: u64 = 100_000;

/// What is expected of a flag of `load` instead of a number that is beyond its limit.
fn beyond_limit(flag: &str, number: u64) -> Option<&'static str> {
    let flag = flag.trim_start_matches('-');
    MOST.iter().find(|(flags, most, _)| flags.contains(&flag) && number > *most).map(|(_, _, expected)| *expected)
}

/// A number that is not beyond the limit of its flag.
fn limited(flag: &'static str, number: u64) -> Result<u64, Error> {
    beyond_limit(flag, number)
        .map_or(Ok(number), |expected| Err(invalid(flag, &number.to_string(), &format!("a number {expected}"))))
}

/// A whole number within limits.
fn whole(flag: &'static str, text: Option<&String>, least: u64) -> Result<Option<u64>, Error> {
    text.map(|text| {
        let number = text.trim().replace('_', "").parse::<u64>().ok().filter(|number| *number >= least);
        limited(flag, number.ok_or_else(|| invalid(flag, text, &format!("a whole number from {least}")))?)
    })
    .transpose()
}

fn number(
    flag: &'static str,
    text: Option<&String>,
    valid: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<Option<f64>, Error> {
    text.map(|text| {
        let number = text.trim().parse::<f64>().ok().filter(|number| !number.is_nan() && valid(*number));
        number.ok_or_else(|| invalid(flag, text, expected))
    })
    .transpose()
}

fn duration(flag: &'static str, text: Option<&String>) -> Result<Option<Duration>, Error> {
    text.map(|text| {
        parse_duration(text).ok_or_else(|| invalid(flag, text, "a duration such as `300`, `90s`, `5m` or `2h`"))
    })
    .transpose()
}

/// `8`, `1,2,4`, `pow2:1..256`.
pub fn whole_numbers(flag: &'static str, text: &str, least: u64) -> Result<Vec<u64>, Error> {
    let expected = format!("whole numbers from {least}: `8`, `1,2,4` or `pow2:1..256`");
    let wrong = || invalid(flag, text, &expected);
    let mut numbers = Vec::new();
    for item in text.split(',').map(str::trim) {
        if let Some(range) = item.strip_prefix("pow2:") {
            let (from, to) = range.split_once("..").ok_or_else(wrong)?;
            let (from, to): (u64, u64) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
            let powers = (0..63).map(|power| 1u64 << power).filter(|number| (from..=to).contains(number));
            let before = numbers.len();
            numbers.extend(powers);
            if numbers.len() == before {
                return Err(wrong());
            }
        } else {
            numbers.push(item.replace('_', "").parse().map_err(|_| wrong())?);
        }
    }
    if numbers.is_empty() || numbers.iter().any(|number| *number < least) {
        return Err(wrong());
    }
    numbers.into_iter().map(|number| limited(flag, number)).collect()
}

fn pairs(
    flag: &'static str,
    items: &[String],
    separator: char,
    expected: &str,
) -> Result<Vec<(String, String)>, Error> {
    items
        .iter()
        .map(|item| {
            let (key, value) = item.split_once(separator).ok_or_else(|| invalid(flag, item, expected))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
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

/// Resolves the flags of `load`.
///
/// # Errors
/// When a value is none, or two contradict each other.
pub fn resolve_load(args: &LoadArgs, environment: &Environment) -> Result<LoadSettings, Error> {
    let seed = whole("--seed", args.seed.as_ref(), 0)?.unwrap_or(0);
    let prompts = resolve_prompts(&args.prompts, seed, environment)?;
    let endpoint = args.endpoint.clone().or_else(|| s2_endpoint(args.base_url.as_deref()));
    let by_endpoint =
        endpoint.as_deref().is_some_and(|endpoint| endpoint.trim_end_matches('/').ends_with("chat/completions"));
    let backend = match args.backend {
        None if by_endpoint => Backend::OpenaiChat,
        asked => asked.unwrap_or(Backend::Openai),
    };
    let chat = backend == Backend::OpenaiChat || by_endpoint;
    if chat && endpoint.as_deref().is_some_and(|endpoint| !endpoint.contains("chat")) {
        let problem = format!("`{}` is not an endpoint of chats", endpoint.unwrap_or_default());
        return Err(argument("--endpoint", problem, "leave --endpoint out, or use --backend openai"));
    }
    if chat && prompts.token_ids == Some(true) {
        return Err(argument(
            "--prompt-format",
            "token-ids is for completions",
            "leave it out, or use --backend openai",
        ));
    }
    if !chat && prompts.system_prompt.is_some() {
        let hint = "add `--backend openai-chat`, or write it into the prompts";
        return Err(argument("--system-prompt", "is a message of a chat, and these are completions", hint));
    }
    contradictions(args)?;
    let default = if chat { "/v1/chat/completions" } else { "/v1/completions" };
    let base_url = match &args.base_url {
        Some(url) => s2_base(url),
        None => {
            let port = whole("--port", args.port.as_ref(), 1)?.unwrap_or(8000);
            if port > u64::from(u16::MAX) {
                return Err(invalid("--port", &port.to_string(), "a port from 1 to 65535"));
            }
            let host = args.host.as_deref().unwrap_or("127.0.0.1");
            let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
            format!("http://{host}:{port}")
        }
    };
    let ramp_up = ramp_up(args)?;
    let burstiness = number("--burstiness", args.burstiness.as_ref(), |value| value > 0.0, "a number above 0, or inf")?
        .unwrap_or(1.0);
    let run_duration = duration("--duration", args.duration.as_ref())?;
    let (pattern, points) = points(args, &prompts, ramp_up, burstiness, run_duration)?;
    let random = prompts.spec.name == dataset::Name::Random;
    Ok(LoadSettings {
        base_url,
        endpoint: endpoint.unwrap_or_else(|| default.to_owned()),
        backend: backend.name().to_owned(),
        chat,
        model: args.model.clone(),
        served_model_name: args.served_model_name.clone(),
        lora_modules: args.lora_modules.clone(),
        headers: headers(&args.header, environment)?,
        api_key: api_key(args, environment)?,
        insecure: args.insecure,
        ready_check: whole("--ready-check-timeout-sec", args.ready_check_timeout_sec.as_ref(), 0)?
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
        points,
        pattern,
        burstiness,
        ramp_up,
        duration: run_duration,
        num_warmups: whole("--num-warmups", args.num_warmups.as_ref(), 0)?,
        cool_down: duration("--cool-down", args.cool_down.as_ref())?.unwrap_or_default(),
        seed,
        limits: Limits {
            request: Some(
                duration("--request-timeout", args.request_timeout.as_ref())?.unwrap_or(Duration::from_secs(6 * 3600)),
            ),
            stall: stall(args.stall_timeout.as_deref())?,
            total: duration("--total-timeout", args.total_timeout.as_ref())?,
        },
        max_failures: whole("--max-failures", args.max_failures.as_ref(), 1)?,
        prompts,
        // vLLM: random prompts always run to the length asked for.
        ignore_eos: args.ignore_eos || random,
        stream: !args.non_streaming,
        logprobs: whole("--logprobs", args.logprobs.as_ref(), 0)?
            .map(|number| u32::try_from(number).unwrap_or(u32::MAX)),
        extra_body: extra_body(args, environment)?,
        request_id_prefix: args.request_id_prefix.clone(),
        profile: args.profile,
        save_result: args.save_result || args.append_result,
        save_detailed: args.save_detailed,
        append_result: args.append_result,
        result_dir: environment.absolute(args.result_dir.as_deref().unwrap_or(Path::new("."))),
        result_filename: args.result_filename.clone(),
        scenario: None,
        requests_csv: args.requests_csv.as_ref().map(|path| environment.absolute(path)),
        csv: args.csv.as_ref().map(|path| environment.absolute(path)),
        label: args.label.clone(),
        metadata: pairs("--metadata", &args.metadata, '=', "`KEY=VALUE`")?,
        percentile_metrics: metrics(args)?,
        percentiles: percentiles(args)?,
        goodput: goodput(args)?,
        progress: !args.disable_tqdm,
        kernel_clock: args.arrival_clock != Some(ArrivalInstant::Read),
        threads: usize::try_from(whole("--threads", args.threads.as_ref(), 1)?.unwrap_or(0)).unwrap_or(0),
        server_metrics: !args.no_server_metrics,
        telemetry: args.telemetry.then(|| Probe::of_machine(of_devices(environment))),
        simulated: args.simulated,
        turn: Turn::of(|name| environment.get(name)),
    })
}

/// Flags of which one would be left out of account without a word.
fn contradictions(args: &LoadArgs) -> Result<(), Error> {
    let saved = args.save_result || args.append_result || args.scenarios.is_some();
    let samples = args.completions.is_some() || !args.compare.is_empty();
    for (both, flag, problem, hint) in [
        (args.save_detailed && !saved, "--save-detailed", "has no file to go into", "add --save-result"),
        (
            args.result_filename.is_some() && !saved,
            "--result-filename",
            "names a file that is not written",
            "add --save-result",
        ),
        (
            args.completions.is_some() && !args.compare.is_empty(),
            "--compare",
            "contradicts --completions",
            "leave one of the two out",
        ),
        (samples && args.n.is_some(), "--n", "follows from --completions or --compare", "leave it out"),
        (
            args.num_prompts.is_some() && args.num_prompts_per_concurrency.is_some(),
            "--num-prompts-per-concurrency",
            "contradicts --num-prompts",
            "leave one of the two out",
        ),
        (
            args.max_concurrency.is_some() && !args.concurrent_tests.is_empty(),
            "--concurrent-tests",
            "contradicts --max-concurrency",
            "leave one of the two out",
        ),
    ] {
        if both {
            return Err(argument(flag, problem, hint));
        }
    }
    Ok(())
}

/// `--stall-timeout`: 0 for no limit.
fn stall(text: Option<&str>) -> Result<Option<Duration>, Error> {
    let Some(text) = text else { return Ok(Some(STALL)) };
    let expected = "a duration such as `120`, `90s` or `5m`, or `0` for no limit";
    let limit = pause(text).ok_or_else(|| invalid("--stall-timeout", text, expected))?;
    Ok((!limit.is_zero()).then_some(limit))
}

/// S2 and S4 give the whole address of the endpoint as `--url`: its endpoint.
fn s2_endpoint(url: Option<&str>) -> Option<String> {
    let url = url?;
    ["/v1/chat/completions", "/v1/completions"].iter().find(|end| url.ends_with(**end)).map(|end| (*end).to_owned())
}

/// The rest of it.
fn s2_base(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let end = ["/v1/chat/completions", "/v1/completions"].iter().find_map(|end| url.strip_suffix(*end));
    end.unwrap_or(url.strip_suffix("/v1").unwrap_or(url)).to_owned()
}

fn ramp_up(args: &LoadArgs) -> Result<Option<RampUp>, Error> {
    let rate = |flag, text: &Option<String>| {
        number(flag, text.as_ref(), |rate| rate >= 0.0 && rate.is_finite(), "a number from 0")
    };
    let start = rate("--ramp-up-start-rps", &args.ramp_up_start_rps)?;
    let end = rate("--ramp-up-end-rps", &args.ramp_up_end_rps)?;
    let Some(strategy) = args.ramp_up_strategy else {
        if start.is_some() || end.is_some() {
            return Err(argument(
                "--ramp-up-strategy",
                "is missing",
                "add `--ramp-up-strategy linear` or `exponential`",
            ));
        }
        return Ok(None);
    };
    if args.request_rate.is_some() {
        let hint = "leave --request-rate out: the ramp sets the rate";
        return Err(argument("--request-rate", "contradicts --ramp-up-strategy", hint));
    }
    let (Some(start), Some(end)) = (start, end) else {
        return Err(argument("--ramp-up-strategy", "needs both ends", "add --ramp-up-start-rps and --ramp-up-end-rps"));
    };
    if start > end || end == 0.0 {
        return Err(argument("--ramp-up-end-rps", "is below --ramp-up-start-rps, or 0", "a ramp goes up"));
    }
    match strategy {
        RampUpStrategy::Linear => Ok(Some(RampUp::Linear { start: start.max(1e-6), end })),
        RampUpStrategy::Exponential if start > 0.0 => Ok(Some(RampUp::Exponential { start, end })),
        RampUpStrategy::Exponential => {
            Err(argument("--ramp-up-start-rps", "is 0, which never grows", "begin with 1 or more"))
        }
    }
}

/// The loads of a sweep: every combination of what has several values, the concurrency innermost.
fn points(
    args: &LoadArgs,
    prompts: &PromptSettings,
    ramp_up: Option<RampUp>,
    burstiness: f64,
    limit: Option<Duration>,
) -> Result<(&'static str, Vec<Point>), Error> {
    let n = whole("--n", args.n.as_ref(), 1)?.unwrap_or(1);
    let n = u32::try_from(n).map_err(|_| invalid("--n", &n.to_string(), "a smaller number"))?;
    let runs = whole("--num-runs", args.num_runs.as_ref(), 1)?.unwrap_or(1);
    let mut concurrencies: Vec<Option<u64>> = match &args.max_concurrency {
        Some(text) => whole_numbers("--max-concurrency", text, 1)?.into_iter().map(Some).collect(),
        None => vec![None],
    };
    if !args.concurrent_tests.is_empty() {
        let texts = args.concurrent_tests.join(",");
        concurrencies = whole_numbers("--concurrent-tests", &texts, 1)?.into_iter().map(Some).collect();
    }
    let rates: Vec<f64> = match &args.request_rate {
        None => vec![f64::INFINITY],
        Some(text) => text
            .split(',')
            .map(|item| {
                let rate = item.trim().parse::<f64>().ok().filter(|rate| *rate > 0.0);
                rate.ok_or_else(|| invalid("--request-rate", text, "requests per second above 0, or inf"))
            })
            .collect::<Result<_, _>>()?,
    };
    let pattern = match args.load_pattern {
        None if ramp_up.is_some() || rates.iter().any(|rate| rate.is_finite()) => "open",
        asked => asked.unwrap_or(LoadPattern::Closed).name(),
    };
    let by_clock = ramp_up.is_some() || rates.iter().all(|rate| rate.is_finite());
    if pattern == "open" && !by_clock {
        return Err(argument("--load-pattern", "open needs a rate", "add --request-rate, or use `closed`"));
    }
    if pattern != "open" && rates.iter().any(|rate| rate.is_finite()) {
        let problem = format!("a rate contradicts --load-pattern {pattern}");
        return Err(argument("--request-rate", problem, "leave one of the two out"));
    }
    if pattern == "burst" && concurrencies.contains(&None) {
        return Err(argument("--load-pattern", "burst needs the size of a batch", "add --max-concurrency"));
    }
    let per_stream = whole("--num-prompts-per-concurrency", args.num_prompts_per_concurrency.as_ref(), 1)?;
    let completions: Vec<u64> = match (&args.completions, args.compare.as_slice()) {
        (_, [_, ..]) => whole_numbers("--compare", &args.compare.join(","), 1)?,
        (Some(text), []) => whole_numbers("--completions", text, 1)?,
        (None, []) => Vec::new(),
    };
    let requests: Vec<Option<u64>> = match &args.num_prompts {
        Some(text) => whole_numbers("--num-prompts", text, 1)?.into_iter().map(Some).collect(),
        // S2: one batch for each size.
        None if pattern == "burst" && limit.is_none() => vec![None],
        None if limit.is_some() => vec![None],
        None => vec![Some(1000)],
    };
    if per_stream.is_some() && concurrencies.contains(&None) {
        return Err(argument(
            "--num-prompts-per-concurrency",
            "needs --max-concurrency",
            "add it, or use --num-prompts",
        ));
    }
    let lists = [prompts.input_lens.len(), prompts.output_lens.len(), rates.len(), requests.len(), concurrencies.len()];
    let all = lists.iter().chain([&completions.len().max(1)]).fold(runs, |all, list| all.saturating_mul(*list as u64));
    if all > MOST_POINTS {
        let problem =
            format!("makes {all} loads with what has several values: at most {MOST_POINTS} are made by one call");
        return Err(argument("--num-runs", problem, "ask for fewer at once"));
    }
    let mut points = Vec::new();
    for input_len in &prompts.input_lens {
        for output_len in &prompts.output_lens {
            for rate in &rates {
                for requests in &requests {
                    for concurrency in &concurrencies {
                        let num_prompts = match (per_stream, concurrency) {
                            (Some(each), Some(streams)) => {
                                let all = each.saturating_mul(*streams);
                                limited("--num-prompts", all).map_err(|_| over_per_stream(each, *streams)).map(Some)?
                            }
                            _ if pattern == "burst" && limit.is_none() => requests.or(*concurrency),
                            _ => *requests,
                        };
                        let arrival = match pattern {
                            "closed" => Arrival::Closed,
                            "burst" => Arrival::Burst,
                            _ => Arrival::Open { rate: *rate, burstiness, ramp_up },
                        };
                        let point = Point {
                            max_concurrency: *concurrency,
                            request_rate: *rate,
                            num_prompts,
                            input_len: *input_len,
                            output_len: *output_len,
                            arrival,
                            n,
                            completions: None,
                            run: 1,
                        };
                        let made = match completions.is_empty() {
                            true => vec![point],
                            false => completions.iter().map(|all| spread(&point, *all)).collect(),
                        };
                        for point in made {
                            points.extend(
                                (1..=u32::try_from(runs).unwrap_or(u32::MAX)).map(|run| Point { run, ..point.clone() }),
                            );
                        }
                    }
                }
            }
        }
    }
    Ok((pattern, points))
}

fn over_per_stream(each: u64, streams: u64) -> Error {
    let expected = beyond_limit("num-prompts", u64::MAX).unwrap_or_default();
    let problem = format!(
        "makes {} requests of {each} for each of {streams}: expected a number {expected}",
        each.saturating_mul(streams)
    );
    argument("--num-prompts-per-concurrency", problem, "ask for fewer")
}

/// S4: so many samples over so many streams; every request asks for as many as make one round (n = N / C), and the rest comes
/// from one more request.
pub fn spread(point: &Point, completions: u64) -> Point {
    let streams = point.max_concurrency.unwrap_or(10).min(completions).max(1);
    let n = (completions / streams).max(1);
    Point {
        max_concurrency: Some(streams),
        num_prompts: Some(completions.div_ceil(n)),
        n: u32::try_from(n).unwrap_or(u32::MAX),
        completions: Some(completions),
        ..point.clone()
    }
}

/// The variables that vendors' tools need, and no other: none of them is a secret.
fn of_devices(environment: &Environment) -> std::collections::BTreeMap<String, String> {
    const PARTS: [&str; 5] = ["VISIBLE_DEVICES", "AFFINITY_MASK", "DEVICE_SELECTOR", "DEVICE_ORDINAL", "DEVICE_FILTER"];
    let wanted =
        |name: &str| ["PATH", "LD_LIBRARY_PATH"].contains(&name) || PARTS.iter().any(|part| name.contains(part));
    environment
        .vars()
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The value with what `${NAME}` stands for: a secret that is in the environment needs not stand on a command line.
fn with_variables(flag: &'static str, text: &str, environment: &Environment) -> Result<String, Error> {
    expanded(text, environment).map_err(|name| {
        argument(
            flag,
            format!("the variable `{name}` is not set"),
            format!("export {name}=…; `${{{name}}}` stands for its value"),
        )
    })
}

fn headers(items: &[String], environment: &Environment) -> Result<Vec<(String, String)>, Error> {
    let mut headers = pairs("--header", items, '=', "`KEY=VALUE`")?;
    for (name, value) in &mut headers {
        *value = with_variables("--header", value, environment)?;
        safe::learn(safe::in_header(&format!("{name}={value}")));
    }
    for (name, value) in &headers {
        let token = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!~*'+^`|#$%&".contains(&byte));
        // The value may be a secret: it is not shown.
        if !token || value.chars().any(char::is_control) {
            return Err(invalid(
                "--header",
                name,
                "a name of letters, digits and dashes, and a value without line breaks",
            ));
        }
        let own = ["content-length", "transfer-encoding", "host", "connection"];
        if own.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(argument("--header", format!("`{name}` is set by the client itself"), "leave it out"));
        }
    }
    Ok(headers)
}

fn api_key(args: &LoadArgs, environment: &Environment) -> Result<Option<Secret>, Error> {
    let key = match (&args.api_key_file, &args.api_key_env) {
        (Some(_), Some(_)) => {
            return Err(argument("--api-key-file", "contradicts --api-key-env", "leave one of the two out"));
        }
        (Some(path), None) => {
            let path = environment.absolute(path);
            let text = crate::bounded::read_named(&path, crate::bounded::NOTE).map_err(|error| {
                argument(
                    "--api-key-file",
                    format!("cannot read `{}`: {error}", path.display()),
                    "name a file with the key alone in it",
                )
            })?;
            Some(text.trim().to_owned())
        }
        (None, Some(name)) => {
            let value = environment.get(name).map(str::to_owned);
            if value.is_none() {
                return Err(argument(
                    "--api-key-env",
                    format!("the variable `{name}` is not set"),
                    format!("export {name}=…"),
                ));
            }
            value
        }
        (None, None) => environment.get("OPENAI_API_KEY").or(environment.get("VLLM_API_KEY")).map(str::to_owned),
    };
    let key = key.filter(|key| !key.is_empty());
    if key.as_ref().is_some_and(|key| key.chars().any(|c| c.is_control() || !c.is_ascii())) {
        return Err(argument(
            "--api-key-file",
            "the key has characters that no header can carry",
            "check the file or variable",
        ));
    }
    Ok(key.map(Secret::new))
}

/// The sampling parameters and `--extra-body`, which wins.
fn extra_body(args: &LoadArgs, environment: &Environment) -> Result<Map<String, Value>, Error> {
    let mut body = Map::new();
    let any = |_: f64| true;
    for (flag, key, text) in [
        ("--top-p", "top_p", &args.top_p),
        ("--top-k", "top_k", &args.top_k),
        ("--min-p", "min_p", &args.min_p),
        ("--temperature", "temperature", &args.temperature),
        ("--frequency-penalty", "frequency_penalty", &args.frequency_penalty),
        ("--presence-penalty", "presence_penalty", &args.presence_penalty),
        ("--repetition-penalty", "repetition_penalty", &args.repetition_penalty),
    ] {
        if let Some(value) = number(flag, text.as_ref(), any, "a number")? {
            let whole = key == "top_k" && value.fract() == 0.0;
            body.insert(key.to_owned(), if whole { (value as i64).into() } else { value.into() });
        }
    }
    if let Some(text) = &args.extra_body {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            argument("--extra-body", format!("is not JSON: {error}"), "write an object: --extra-body '{\"top_k\": 5}'")
        })?;
        let Value::Object(more) = value else {
            return Err(invalid("--extra-body", text, "a JSON object"));
        };
        let mut more = Value::Object(more);
        in_leaves(&mut more, environment)?;
        safe::learn(safe::json_secrets(&more.to_string()));
        if let Value::Object(more) = more {
            body.extend(more);
        }
    }
    Ok(body)
}

/// Texts that are `${NAME}` and nothing else become what that stands for; others may mean the signs.
fn in_leaves(value: &mut Value, environment: &Environment) -> Result<(), Error> {
    match value {
        Value::Object(map) => map.values_mut().try_for_each(|value| in_leaves(value, environment)),
        Value::Array(items) => items.iter_mut().try_for_each(|value| in_leaves(value, environment)),
        Value::String(text) if text.starts_with("${") && safe::is_reference(text) => {
            *text = with_variables("--extra-body", text, environment)?;
            safe::learn([text.as_str()]);
            Ok(())
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn metrics(args: &LoadArgs) -> Result<Vec<String>, Error> {
    let text = args.percentile_metrics.as_deref().unwrap_or("ttft,tpot,itl");
    text.split(',')
        .map(|metric| match metric.trim() {
            metric @ ("ttft" | "tpot" | "itl" | "e2el") => Ok(metric.to_owned()),
            other => Err(invalid("--percentile-metrics", other, "ttft, tpot, itl or e2el")),
        })
        .collect()
}

fn percentiles(args: &LoadArgs) -> Result<Vec<f64>, Error> {
    let text = args.metric_percentiles.as_deref().unwrap_or("99");
    text.split(',')
        .map(|item| {
            let which = item.trim().parse::<f64>().ok().filter(|which| (0.0..=100.0).contains(which));
            which.ok_or_else(|| invalid("--metric-percentiles", item, "numbers from 0 to 100"))
        })
        .collect()
}

fn goodput(args: &LoadArgs) -> Result<Vec<(Goal, f64)>, Error> {
    let expected = "`ttft:MS`, `tpot:MS` or `e2el:MS`";
    pairs("--goodput", &args.goodput, ':', expected)?
        .into_iter()
        .map(|(name, value)| {
            let goal = match name.as_str() {
                "ttft" => Goal::Ttft,
                "tpot" => Goal::Tpot,
                "e2el" => Goal::E2el,
                _ => return Err(invalid("--goodput", &name, expected)),
            };
            let most = value.parse::<f64>().ok().filter(|most| *most >= 0.0);
            Ok((goal, most.ok_or_else(|| invalid("--goodput", &value, "milliseconds"))?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: LoadArgs,
    }

    fn load(line: &str) -> Result<LoadSettings, Error> {
        let args = Line::try_parse_from(std::iter::once("load").chain(line.split_whitespace())).unwrap().args;
        resolve_load(&args, &Environment::of(&[("OPENAI_API_KEY", "sk-x")], Path::new("/")))
    }

    #[test]
    fn the_defaults_are_those_of_vllm_s_client() {
        let settings = load("").unwrap();
        assert_eq!(
            (settings.base_url.as_str(), settings.endpoint.as_str()),
            ("http://127.0.0.1:8000", "/v1/completions")
        );
        let point = Point {
            max_concurrency: None,
            request_rate: f64::INFINITY,
            num_prompts: Some(1000),
            input_len: 1024,
            output_len: Some(128),
            arrival: Arrival::Closed,
            n: 1,
            completions: None,
            run: 1,
        };
        assert_eq!(settings.points, [point]);
        assert!(settings.ignore_eos && settings.stream && settings.api_key.is_some());
        let warmups = |line: &str| {
            let settings = load(line).unwrap();
            settings.warmups(&settings.points[0])
        };
        assert_eq!((warmups(""), warmups("--max-concurrency 4"), warmups("--num-prompts 3")), (32, 4, 3));
        assert_eq!((warmups("--num-warmups 0"), warmups("--num-warmups 50")), (0, 50));
        let stall = |line: &str| load(line).unwrap().limits.stall;
        assert_eq!((stall(""), stall("--stall-timeout 0")), (Some(Duration::from_secs(120)), None));
        assert!(!format!("{settings:?}").contains("sk-x"));
    }

    #[test]
    fn lists_sweep() {
        let settings = load("--max-concurrency pow2:1..256 --load-pattern burst --input-len 10,20").unwrap();
        assert_eq!(settings.points.len(), 18);
        assert_eq!(settings.points[8].max_concurrency, Some(256));
        assert_eq!(settings.points[8].num_prompts, Some(256), "S2: one batch of each size");
        let settings = load("--compare 10 50 100 --max-concurrency 20").unwrap();
        let seen: Vec<_> = settings.points.iter().map(|p| (p.num_prompts, p.max_concurrency, p.n)).collect();
        assert_eq!(seen, [(Some(10), Some(10), 1), (Some(25), Some(20), 2), (Some(20), Some(20), 5)]);
        let settings = load("--max-concurrency 4 --num-prompts-per-concurrency 5 --num-runs 2").unwrap();
        assert_eq!(
            settings.points.iter().map(|p| (p.num_prompts, p.run)).collect::<Vec<_>>(),
            [(Some(20), 1), (Some(20), 2)]
        );
    }

    #[test]
    fn whole_addresses_of_s2_and_s4_are_understood() {
        let settings = load("--url http://h:1/v1/chat/completions").unwrap();
        assert_eq!((settings.base_url.as_str(), settings.endpoint.as_str()), ("http://h:1", "/v1/chat/completions"));
        assert!(settings.chat);
        assert_eq!(load("--base-url http://h:1/v1").unwrap().base_url, "http://h:1");
    }

    #[test]
    fn wrong_values_are_refused_by_the_name_of_their_flag() {
        for (line, flag) in [
            ("--max-concurrency 0", "--max-concurrency"),
            ("--max-concurrency pow2:5..7", "--max-concurrency"),
            ("--request-rate 0", "--request-rate"),
            ("--request-rate 5 --load-pattern burst", "--request-rate"),
            ("--load-pattern burst", "--load-pattern"),
            ("--load-pattern open", "--load-pattern"),
            ("--backend openai-chat --endpoint /v1/completions", "--endpoint"),
            ("--port 70000", "--port"),
            ("--ramp-up-strategy linear", "--ramp-up-strategy"),
            ("--ramp-up-strategy linear --request-rate 4", "--request-rate"),
            ("--ramp-up-start-rps 1", "--ramp-up-strategy"),
            ("--goodput ttfb:3", "--goodput"),
            ("--extra-body [1]", "--extra-body"),
            ("--extra-body {", "--extra-body"),
            ("--header a", "--header"),
            ("--header content-length=3", "--header"),
            ("--metric-percentiles 101", "--metric-percentiles"),
            ("--percentile-metrics x", "--percentile-metrics"),
            ("--random-range-ratio 1", "--random-range-ratio"),
            ("--api-key-env NOWHERE", "--api-key-env"),
            ("--request-timeout soon", "--request-timeout"),
            ("--trust-remote-code", "--trust-remote-code"),
            ("--no-stream", "--no-stream"),
            ("--save-detailed", "--save-detailed"),
            ("--result-filename x", "--result-filename"),
            ("--completions 5 --compare 1 2", "--compare"),
            ("--completions 5 --n 2", "--n"),
            ("--num-prompts 5 --num-prompts-per-concurrency 2 --max-concurrency 2", "--num-prompts-per-concurrency"),
            ("--max-concurrency 5 --concurrent-tests 1 2", "--concurrent-tests"),
            ("--system-prompt x", "--system-prompt"),
            ("--backend openai-chat --prompt-format token-ids", "--prompt-format"),
            ("--stall-timeout soon", "--stall-timeout"),
            ("--burstiness 0", "--burstiness"),
            ("--num-prompts 1000000000000", "--num-prompts"),
            ("--num-warmups 1000000000000", "--num-warmups"),
            ("--completions 1000000000000", "--completions"),
            ("--random-input-len 10000000000", "--random-input-len"),
            ("--input-len 16000001", "up to 16000000 (the tokens of one prompt)"),
            ("--random-prefix-len 10000000000", "--random-prefix-len"),
            ("--max-concurrency 1000000000", "--max-concurrency"),
            ("--num-runs 4000000000", "--num-runs"),
            ("--num-runs 100000 --max-concurrency 1,2", "--num-runs"),
            ("--num-prompts-per-concurrency 100000000 --max-concurrency 9", "--num-prompts-per-concurrency"),
        ] {
            let error = load(line).unwrap_err().to_string();
            assert!(error.contains(flag), "{line}: {error}");
        }
    }

    #[test]
    fn closed_sets_are_told_with_their_values() {
        for (flag, wrong, right) in [
            ("--load-pattern", "wavy", "closed, burst, open"),
            ("--backend", "tgi", "vllm, openai, openai-chat"),
            ("--dataset-name", "random-mm", "random, prefix_repetition, sharegpt"),
            ("--arrival-clock", "sun", "kernel, read"),
            ("--tokenizer-mode", "slow", "auto, hf, transformers4, transformers5"),
            ("--prompt-format", "words", "text, token-ids"),
            ("--ramp-up-strategy", "steep", "linear, exponential"),
        ] {
            let error = Line::try_parse_from(["load", flag, wrong]).unwrap_err().to_string();
            assert!(error.contains(flag) && error.contains(&format!("[possible values: {right}")), "{error}");
        }
        let settings = load("--dataset-name PREFIX-Repetition").unwrap();
        assert_eq!(settings.prompts.spec.name, dataset::Name::PrefixRepetition);
    }
}
