//! What `load` and `prompts` are asked for: flags over variables over files over defaults (`layers.rs`), each value with its origin,
//! then resolved into [`LoadSettings`].

mod layers;
mod numbers;
mod points;
mod prompts;
mod request;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use self::numbers::{always, argument, duration, invalid, number, pairs, pause_of, whole};
use self::points::{points, ramp_up};
use super::{Environment, Error, Origin};
use crate::cli::{ArrivalInstant, Backend, LoadArgs};
use crate::load::arrival::RampUp;
use crate::load::dataset;
use crate::load::metrics::Goal;
use crate::load::session::Limits;
use crate::load::target::Secret;
use crate::sim::timing::Turn;
use crate::telemetry::Probe;
use crate::{mlflow, safe};

pub use layers::LoadLayers;
pub use numbers::whole_numbers;
pub use points::{Point, spread};
pub use prompts::{PromptSettings, TokenizerChoice, resolve_prompts};

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
    /// Where its result files are sent.
    pub mlflow: Option<mlflow::Server>,
    pub simulated: bool,
    /// Which measurement of a simulated sweep it is, if it is one.
    pub turn: Option<Turn>,
}

/// Requests of a warm-up that nobody asked for.
const MOST_WARMUPS: u64 = 32;

impl LoadSettings {
    /// Requests before a load that are not measured.
    pub fn warmups(&self, point: &Point) -> u64 {
        let streams = point.max_concurrency.or(point.num_prompts).unwrap_or(MOST_WARMUPS);
        self.num_warmups.unwrap_or(streams.min(point.num_prompts.unwrap_or(u64::MAX)).min(MOST_WARMUPS))
    }
}

/// Resolves the flags of `load`.
///
/// # Errors
/// When a value is none, or two contradict each other.
fn resolve(args: &LoadArgs, environment: &Environment) -> Result<LoadSettings, Error> {
    let seed = always("--seed", whole("--seed", args.seed.as_ref(), 0)?)?;
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
            let port = always("--port", whole("--port", args.port.as_ref(), 1)?)?;
            if port > u64::from(u16::MAX) {
                return Err(invalid("--port", &port.to_string(), "a port from 1 to 65535"));
            }
            let host = always("--host", args.host.as_deref())?;
            let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
            format!("http://{host}:{port}")
        }
    };
    let ramp_up = ramp_up(args)?;
    let burstiness = number("--burstiness", args.burstiness.as_ref(), |value| value > 0.0, "a number above 0, or inf")?;
    let burstiness = always("--burstiness", burstiness)?;
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
        headers: request::headers(&args.header, environment)?,
        api_key: request::api_key(args, environment)?,
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
            request: Some(always("--request-timeout", duration("--request-timeout", args.request_timeout.as_ref())?)?),
            stall: pause_of("--stall-timeout", always("--stall-timeout", args.stall_timeout.as_deref())?)?,
            total: duration("--total-timeout", args.total_timeout.as_ref())?,
        },
        max_failures: whole("--max-failures", args.max_failures.as_ref(), 1)?,
        prompts,
        // vLLM: random prompts always run to the length asked for.
        ignore_eos: args.ignore_eos || random,
        stream: !args.non_streaming,
        logprobs: whole("--logprobs", args.logprobs.as_ref(), 0)?
            .map(|number| u32::try_from(number).unwrap_or(u32::MAX)),
        extra_body: request::extra_body(args, environment)?,
        request_id_prefix: args.request_id_prefix.clone(),
        profile: args.profile,
        save_result: args.save_result || args.append_result,
        save_detailed: args.save_detailed,
        append_result: args.append_result,
        result_dir: environment.absolute(always("--result-dir", args.result_dir.as_deref())?),
        result_filename: args.result_filename.clone(),
        scenario: None,
        requests_csv: args.requests_csv.as_ref().map(|path| environment.absolute(path)),
        csv: args.csv.as_ref().map(|path| environment.absolute(path)),
        label: args.label.clone(),
        metadata: pairs("--metadata", &args.metadata, '=', "`KEY=VALUE`")?,
        percentile_metrics: request::metrics(args)?,
        percentiles: request::percentiles(args)?,
        goodput: request::goodput(args)?,
        progress: !args.disable_tqdm,
        kernel_clock: args.arrival_clock != Some(ArrivalInstant::Read),
        threads: usize::try_from(whole("--threads", args.threads.as_ref(), 1)?.unwrap_or(0)).unwrap_or(0),
        server_metrics: !args.no_server_metrics,
        telemetry: args.telemetry.then(|| Probe::of_machine(of_devices(environment))),
        mlflow: args.mlflow.as_deref().map_or(Ok(None), |text| mlflow_server(text, environment))?,
        simulated: args.simulated,
        turn: Turn::of(|name| environment.get(name)),
    })
}

/// The server that is meant; `None` for `off`.
fn mlflow_server(text: &str, environment: &Environment) -> Result<Option<mlflow::Server>, Error> {
    safe::learn(safe::within(text));
    let place = match mlflow::Choice::parse(text) {
        Some(mlflow::Choice::Off) => return Ok(None),
        Some(mlflow::Choice::At(place)) => Some(place),
        Some(mlflow::Choice::Environment) => environment.get(mlflow::URI_VARIABLE).and_then(mlflow::Place::parse),
        None => None,
    };
    let server = place.map(|place| mlflow::Server::of(place, |name| environment.get(name)));
    server.map(Some).ok_or_else(|| Error::Invalid {
        origin: Origin::flag("mlflow"),
        value: text.escape_debug().to_string(),
        expected: mlflow::EXPECTED.to_owned(),
        hint: Some("`env` is what MLFLOW_TRACKING_URI names: `export MLFLOW_TRACKING_URI=http://HOST:5000`".to_owned()),
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
        (args.mlflow.is_some() && !saved, "--mlflow", "has no result file to send", "add --save-result"),
        (
            args.mlflow.is_some() && args.append_result,
            "--mlflow",
            "contradicts --append-result: what was in the file before would be sent once more",
            "give each result a file of its own",
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
