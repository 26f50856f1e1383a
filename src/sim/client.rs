//! `vllm bench serve`, simulated: the flags, words and faults of vLLM's client around our own load generator, against the
//! simulated server, with times from the simulation.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use super::argparse::Refusal;
use super::fault::Fault;
use super::flags::{BENCH, python};
use super::log::Log;
use super::server::{flood, refuse};
use super::settings::SimSettings;
use super::timing::{SimSession, SimTiming, Turn};
use super::tokens::push_word;
use crate::load::arrival::Arrival;
use crate::load::dataset;
use crate::load::metrics::{Collector, Goal, Metrics};
use crate::load::output::{self, Details, Subject};
use crate::load::prompt::{Content, Prompt, PromptSource};
use crate::load::request::Form;
use crate::load::sample::Sample;
use crate::load::server::{Reading, Watch};
use crate::load::session::{self, Ended, Limits, Live, Spec};
use crate::load::target::Target;
use crate::load::timing::{Machine, Timing};

/// Simulated seconds that the Python client takes to import.
const IMPORT_SECONDS: f64 = 8.0;
/// vLLM's client gives up a request after six hours.
const REQUEST_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// The flags of the client.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // Named as the flags.
pub struct Options {
    pub backend: String,
    pub base_url: String,
    pub endpoint: String,
    pub model: String,
    pub served_model_name: String,
    pub tokenizer: String,
    pub label: Option<String>,
    pub num_prompts: u64,
    pub num_warmups: u64,
    pub max_concurrency: Option<u64>,
    pub request_rate: f64,
    pub burstiness: f64,
    pub input_len: u64,
    pub output_len: u64,
    pub range_ratio: f64,
    pub ignore_eos: bool,
    pub temperature: Option<f64>,
    pub seed: u64,
    pub percentile_metrics: Vec<String>,
    pub percentiles: Vec<f64>,
    pub goodput: Vec<(Goal, f64)>,
    pub metadata: Vec<(String, String)>,
    pub save_result: bool,
    pub save_detailed: bool,
    pub append_result: bool,
    pub result_dir: Option<PathBuf>,
    pub result_filename: Option<PathBuf>,
    pub disable_tqdm: bool,
    pub ready_check_seconds: u64,
    /// Which measurement of a plan it is; no flag.
    pub turn: Option<Turn>,
    shown: String,
}

impl Options {
    /// Parses the words after `bench serve`.
    pub fn parse(words: &[String]) -> Result<Options, Refusal> {
        let parsed = BENCH.parse(words)?;
        let text = |name: &str, default: &str| parsed.get(name).unwrap_or(default).to_string();
        let pairs = |name: &str, separator: char| -> Vec<(String, String)> {
            let items = parsed.all(name).iter();
            items.filter_map(|item| item.split_once(separator)).map(|(k, v)| (k.to_string(), v.to_string())).collect()
        };
        let host = text("host", "127.0.0.1");
        let model = text("model", "");
        let backend = text("backend", &text("endpoint-type", "openai"));
        let metrics = text("percentile-metrics", "ttft,tpot,itl");
        let percentiles = text("metric-percentiles", "99");
        let shown =
            parsed.iter().map(|(name, values)| format!("{}={}", name.replace('-', "_"), python(&values.join(" "))));
        Ok(Options {
            base_url: parsed.get("base-url").map_or_else(
                || format!("http://{host}:{}", parsed.number::<u16>("port", 8000)),
                |url| url.trim_end_matches('/').to_string(),
            ),
            endpoint: text(
                "endpoint",
                if backend == "openai-chat" { "/v1/chat/completions" } else { "/v1/completions" },
            ),
            served_model_name: text("served-model-name", &model),
            tokenizer: text("tokenizer", &model),
            label: parsed.get("label").map(str::to_string),
            num_prompts: parsed.number("num-prompts", 1000),
            num_warmups: parsed.number("num-warmups", 0),
            max_concurrency: parsed.get("max-concurrency").and_then(|text| text.parse().ok()),
            request_rate: parsed.number("request-rate", f64::INFINITY),
            burstiness: parsed.number("burstiness", 1.0),
            input_len: parsed.number("input-len", parsed.number("random-input-len", 1024)),
            output_len: parsed.number("output-len", parsed.number("random-output-len", 128)),
            range_ratio: parsed.number("random-range-ratio", 0.0),
            ignore_eos: parsed.on("ignore-eos", false),
            temperature: parsed.get("temperature").and_then(|text| text.parse().ok()),
            seed: parsed.number("seed", 0),
            percentile_metrics: metrics.split(',').map(|metric| metric.trim().to_string()).collect(),
            percentiles: percentiles.split(',').filter_map(|which| which.trim().parse().ok()).collect(),
            goodput: pairs("goodput", ':')
                .into_iter()
                .filter_map(|(k, v)| Some((goal(&k)?, v.parse().ok()?)))
                .collect(),
            metadata: pairs("metadata", '='),
            save_result: parsed.on("save-result", false) || parsed.on("append-result", false),
            save_detailed: parsed.on("save-detailed", false),
            append_result: parsed.on("append-result", false),
            result_dir: parsed.get("result-dir").map(PathBuf::from),
            result_filename: parsed.get("result-filename").map(PathBuf::from),
            disable_tqdm: parsed.on("disable-tqdm", false),
            ready_check_seconds: parsed.number("ready-check-timeout-sec", 0),
            turn: None,
            shown: shown.collect::<Vec<_>>().join(", "),
            model,
            backend,
        })
    }

    /// One workload of `requests` requests.
    fn spec(&self, requests: u64, is_ours: bool, warmup: bool) -> Result<Spec, String> {
        let concurrency = self.max_concurrency.map_or(requests, |most| most.min(requests)).max(1);
        let mut extra_body = Map::new();
        if let Some(temperature) = self.temperature {
            extra_body.insert("temperature".into(), temperature.into());
        }
        let arrival = match self.request_rate.is_finite() && !warmup {
            true => Arrival::Open { rate: self.request_rate, burstiness: self.burstiness, ramp_up: None },
            false => Arrival::Closed,
        };
        let timing: Arc<dyn Timing> = match is_ours {
            true => {
                let session = SimSession::new(requests, concurrency, warmup);
                Arc::new(SimTiming::new(SimSession { turn: self.turn, ..session }))
            }
            false => Arc::new(Machine),
        };
        Ok(Spec {
            target: Target::new(&self.base_url, &self.endpoint, false)
                .map_err(|error| format!("ValueError: {error}"))?,
            form: Form {
                chat: self.backend == "openai-chat",
                model: self.served_model_name.clone(),
                lora_modules: Vec::new(),
                lora_seed: 0,
                stream: true,
                n: 1,
                ignore_eos: self.ignore_eos,
                logprobs: None,
                extra_body,
                headers: Vec::new(),
                api_key: None,
                request_id_prefix: None,
            },
            arrival,
            max_concurrency: if is_ours { Some(concurrency) } else { self.max_concurrency },
            requests: Some(requests),
            samples: None,
            first_prompt: 0,
            duration: None,
            seed: self.seed,
            limits: Limits { request: Some(REQUEST_LIMIT), stall: None, total: None },
            max_failures: None,
            keep_text: self.save_detailed,
            keep_headers: false,
            threads: 1,
            kernel_clock: false,
            timing,
            over: None,
        })
    }

    fn subject(&self) -> Subject {
        Subject {
            backend: self.backend.clone(),
            label: self.label.clone(),
            model_id: self.model.clone(),
            tokenizer_id: self.tokenizer.clone(),
            num_prompts: self.num_prompts,
            metadata: self.metadata.clone(),
            request_rate: self.request_rate,
            burstiness: self.burstiness,
            max_concurrency: self.max_concurrency,
            ramp_up: None,
            n: 1,
            pattern: "closed",
            percentile_metrics: self.percentile_metrics.clone(),
            is_plain: true,
            simulated: true,
        }
    }

    fn result_path(&self, date: &str) -> PathBuf {
        let rate = if self.request_rate.is_finite() { self.request_rate.to_string() } else { "inf".into() };
        let concurrency = self.max_concurrency.map(|most| format!("-concurrency{most}")).unwrap_or_default();
        let base = self.model.rsplit('/').next().unwrap_or_default();
        let label = self.label.as_ref().unwrap_or(&self.backend);
        let name = self
            .result_filename
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("{label}-{rate}qps{concurrency}-{base}-{date}.json")));
        self.result_dir.as_ref().map_or(name.clone(), |dir| dir.join(name))
    }
}

fn say(text: &str) {
    let mut out = io::stdout();
    // Whoever read this may have gone: no reason to stop measuring.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// `vllm bench serve`.
pub fn main(words: &[String], settings: SimSettings) -> ExitCode {
    let options = match Options::parse(words) {
        Ok(options) => Options { turn: settings.turn, ..options },
        Err(refusal) => return refuse(&refusal),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return traceback(&format!("OSError: {error}"), 1),
    };
    runtime.block_on(run(&options, &settings))
}

fn traceback(error: &str, code: u8) -> ExitCode {
    let text = format!(
        "Traceback (most recent call last):\n  File \"/usr/local/bin/vllm\", line 8, in <module>\n    sys.exit(main())\n\
         \x20            ^^^^^^\n{error}\n"
    );
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}

async fn run(options: &Options, settings: &SimSettings) -> ExitCode {
    say("SIMULATED vllm bench serve by vllm-bench: no model runs, times come from a timing model.");
    if !settings.speed.is_infinite() {
        tokio::time::sleep(settings.speed.real(IMPORT_SECONDS)).await;
    }
    let http = match crate::http::client(false).tcp_nodelay(true).build() {
        Ok(http) => http,
        Err(error) => return traceback(&format!("ValueError: {error}"), 1),
    };
    let flags = flags_of_server(options, &http).await;
    let faults = faults(options, settings, &flags);
    say(&format!("Namespace({})", options.shown));
    for fault in &faults {
        if let Fault::BenchmarkExits { code } = fault {
            return traceback("ValueError: SIMULATED fault `benchmark-exits`", *code);
        }
    }
    let mut measured = match benchmark(options, &faults, !flags.is_null(), &say).await {
        Ok(measured) => measured,
        Err(error) => return traceback(&error, 1),
    };
    let console = output::console(&options.subject(), &measured.metrics, &measured.ended, &measured.speculation);
    let _ = io::stdout().write_all(console.as_bytes());
    if !options.save_result || faults.contains(&Fault::BenchmarkNoResult) {
        return ExitCode::SUCCESS;
    }
    let date = chrono::Local::now().format("%Y%m%d-%H%M%S").to_string();
    let result = result(options, &mut measured, options.save_detailed, &date);
    match save(options, &date, &result, faults.contains(&Fault::BenchmarkBadJson)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => traceback(&format!("OSError: {error}: {}", options.result_path(&date).display()), 1),
    }
}

/// The result file's object, with or without the arrays.
pub fn result(options: &Options, measured: &mut Measured, detailed: bool, date: &str) -> Map<String, Value> {
    let Measured { metrics, ended, details, speculation } = measured;
    output::result(&options.subject(), metrics, ended, Some(details).filter(|_| detailed), speculation.clone(), date)
}

fn save(options: &Options, date: &str, result: &Map<String, Value>, cut: bool) -> io::Result<()> {
    let mut bytes = output::python_json(result)?;
    if cut {
        bytes.truncate(bytes.len() / 2);
    }
    let path = options.result_path(date);
    if let Some(dir) = &options.result_dir {
        std::fs::create_dir_all(dir)?;
    }
    let mut file = match options.append_result {
        true => std::fs::OpenOptions::new().append(true).create(true).open(path)?,
        false => std::fs::File::create(path)?,
    };
    if options.append_result && file.metadata()?.len() > 0 {
        file.write_all(b"\n")?;
    }
    file.write_all(&bytes)
}

/// What the server says of its flags; `null` where it is none of ours.
async fn flags_of_server(options: &Options, http: &reqwest::Client) -> Value {
    let asked = http.post(format!("{}/vllm_bench_sim", options.base_url)).timeout(Duration::from_secs(2)).send().await;
    match asked {
        Ok(response) => {
            response.bytes().await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
        }
        Err(_) => Value::Null,
    }
}

/// The client's faults. The server knows the flags that conditions name; without one, only the model is known.
fn faults(options: &Options, settings: &SimSettings, flags: &Value) -> Vec<Fault> {
    let load = flags.get("load").and_then(Value::as_u64);
    settings.faults_of_load(load, |key| match flags.pointer("/flags").and_then(|flags| flags.get(key)) {
        Some(value) => value.as_str().map(str::to_string),
        None => (key == "model").then(|| options.model.clone()),
    })
}

/// `--goodput` names its metrics.
fn goal(name: &str) -> Option<Goal> {
    match name {
        "ttft" => Some(Goal::Ttft),
        "tpot" => Some(Goal::Tpot),
        "e2el" => Some(Goal::E2el),
        _ => None,
    }
}

/// `--dataset-name random`: prompts of random words of the simulated model's language, each one token.
#[derive(Debug)]
pub struct RandomWords {
    count: u64,
    input_len: u64,
    output_len: u64,
    range_ratio: f64,
    seed: u64,
    /// All are the first one.
    same: bool,
}

impl PromptSource for RandomWords {
    fn available(&self) -> Option<u64> {
        Some(self.count)
    }

    fn prompt(&self, index: u64) -> Result<Prompt, dataset::Error> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(if self.same { 1 } else { index + 1 });
        let mut length = |middle: u64| {
            let low = ((middle as f64 * (1.0 - self.range_ratio)).floor() as u64).max(1);
            let high = ((middle as f64 * (1.0 + self.range_ratio)).ceil() as u64).max(low);
            random.random_range(low..=high)
        };
        let (tokens, output_tokens) = (length(self.input_len), length(self.output_len));
        let mut text = String::with_capacity(usize::try_from(tokens).unwrap_or(0) * 5);
        (0..tokens).for_each(|_| push_word(&mut text, random.random()));
        Ok(Prompt { content: Content::Text(text), prompt_len: Some(tokens), output_len: Some(output_tokens), id: None })
    }
}

/// What a benchmark gave.
#[derive(Debug)]
pub struct Measured {
    /// Its numbers.
    pub metrics: Metrics,
    /// How it ended.
    pub ended: Ended,
    /// What became of each request.
    pub details: Details,
    /// vLLM's keys on speculative decoding, where the server does it.
    pub speculation: Map<String, Value>,
}

/// What the server counts now.
async fn counted(options: &Options) -> Option<Reading> {
    let http = crate::http::client(false).build().ok()?;
    let asked = http.get(format!("{}/metrics", options.base_url)).timeout(Duration::from_secs(10));
    Some(Reading::parse(&asked.send().await.ok()?.error_for_status().ok()?.text().await.ok()?))
}

/// Where the client's words go.
pub type Talk<'a> = &'a (dyn Fn(&str) + Sync);

/// Everything between the arguments and the numbers. `is_ours`: the server is a simulated one, and tells the times.
pub async fn benchmark(options: &Options, faults: &[Fault], is_ours: bool, say: Talk<'_>) -> Result<Measured, String> {
    let prompts = |count: u64, same: bool| {
        Arc::new(RandomWords {
            count,
            input_len: options.input_len,
            output_len: options.output_len,
            range_ratio: options.range_ratio,
            seed: options.seed,
            same,
        })
    };
    say("Starting initial single prompt test run...");
    match options.ready_check_seconds {
        0 => say("Skipping endpoint ready check."),
        limit => ready_check(options, limit, &prompts(1, true), is_ours, say).await?,
    }
    if options.num_warmups > 0 {
        say(&format!("Warming up with {} requests...", options.num_warmups));
        let warmups = prompts(options.num_warmups, true);
        run_load(options.spec(options.num_warmups, is_ours, true)?, warmups, (), |(), _| {}).await?;
        say("Warmup run completed.");
    }
    say("Starting main benchmark run...");
    let rate = if options.request_rate.is_finite() { options.request_rate.to_string() } else { "inf".into() };
    let process = if options.burstiness == 1.0 { "Poisson process" } else { "Gamma distribution" };
    let concurrency = options.max_concurrency.map_or("None".to_string(), |most| most.to_string());
    say(&format!(
        "Traffic request rate: {rate}\nBurstiness factor: {:?} ({process})\nMaximum request concurrency: {concurrency}",
        options.burstiness
    ));
    if faults.contains(&Fault::BenchmarkHangs { connected: false }) {
        std::future::pending::<()>().await;
    }
    if faults.contains(&Fault::BenchmarkHangs { connected: true }) {
        let address = options.base_url.trim_start_matches("http://").to_owned();
        let _connection = std::net::TcpStream::connect(address);
        // Not even its signals are looked at: it waits for a lock that nobody gives back.
        loop {
            std::thread::park();
        }
    }
    if faults.contains(&Fault::BenchmarkFloods) {
        flood(&Log::stdout());
    }
    let (total, quiet) = (options.num_prompts, options.disable_tqdm);
    let gathered = Gathered::new(options);
    let watch = Watch::begin(counted(options).await);
    let spec = options.spec(total, is_ours, false)?;
    let (ended, gathered) = run_load(spec, prompts(total, false), gathered, move |gathered, sample| {
        gathered.add(&sample);
        if !quiet {
            progress(gathered.done, total);
        }
    })
    .await?;
    let Gathered { mut collector, details, errors, .. } = gathered;
    let metrics = collector.finish(&ended, &options.percentiles);
    if metrics.completed == 0 {
        let _ = io::stderr().write_all(
            b"UserWarning: All requests failed. This is likely due to a misconfiguration on the benchmark arguments.\n",
        );
    }
    if !errors.is_empty() {
        say("Failed requests during benchmark run detected (capping to 10):");
        errors.values().take(10).enumerate().for_each(|(index, error)| say(&format!("Error {index}: {error}")));
    }
    let mut speculation = watch.end(counted(options).await);
    speculation.retain(|key, _| key.starts_with("spec_decode_"));
    Ok(Measured { metrics, ended, details, speculation })
}

/// What is kept of the requests.
#[derive(Debug)]
struct Gathered {
    collector: Collector,
    details: Details,
    /// What failed requests said, by their number.
    errors: std::collections::BTreeMap<u64, String>,
    done: u64,
}

impl Gathered {
    fn new(options: &Options) -> Self {
        let collector = Collector::new(options.ignore_eos, options.goodput.clone());
        Self { collector, details: Details::default(), errors: Default::default(), done: 0 }
    }

    fn add(&mut self, sample: &Sample) {
        self.done += 1;
        self.collector.add(sample);
        self.details.add(sample);
        if let Some(failure) = &sample.failure {
            self.errors.insert(sample.index, failure.detail.clone());
        }
    }
}

/// Runs a workload on a thread of its own and hands every request to `each`.
async fn run_load<S: Send + 'static>(
    spec: Spec,
    source: Arc<RandomWords>,
    mut state: S,
    each: impl Fn(&mut S, Sample) + Send + 'static,
) -> Result<(Ended, S), String> {
    let source: Arc<dyn PromptSource> = source;
    let load = move || {
        let ended = session::run(spec, &source, &Arc::new(Live::default()), &mut |sample| each(&mut state, sample));
        ended.map(|ended| (ended, state))
    };
    match tokio::task::spawn_blocking(load).await {
        Ok(ended) => ended.map_err(|error| format!("ValueError: {error}")),
        Err(_) => Err("RuntimeError: the load generator died".into()),
    }
}

/// One request, again and again until it works or the time is up.
async fn ready_check(
    options: &Options,
    limit: u64,
    prompts: &Arc<RandomWords>,
    is_ours: bool,
    say: Talk<'_>,
) -> Result<(), String> {
    say(&format!("Waiting for endpoint to become up in {limit} seconds"));
    let until = tokio::time::Instant::now() + Duration::from_secs(limit);
    loop {
        let (spec, first) = (options.spec(1, is_ours, true)?, Arc::clone(prompts));
        let failed = |error: &mut Option<String>, sample: Sample| *error = sample.failure.map(|failure| failure.detail);
        let (_, error) = run_load(spec, first, None, failed).await?;
        let Some(error) = error else {
            say("Initial test run completed.");
            return Ok(());
        };
        if tokio::time::Instant::now() >= until {
            return Err(format!(
                "ValueError: Initial test run failed - Please make sure benchmark arguments are correctly specified. Error: {error}"
            ));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A progress bar in the manner of tqdm, at every tenth of the way.
fn progress(done: u64, total: u64) {
    if done.is_multiple_of(total.div_ceil(10).max(1)) || done == total {
        let percent = 100 * done / total.max(1);
        let bar = "#".repeat(usize::try_from(percent / 10).unwrap_or(10));
        let end = if done == total { "\n" } else { "" };
        let _ = io::stderr().write_all(format!("\r{percent:>3}%|{bar:<10}| {done}/{total}{end}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::tokens;

    #[test]
    fn prompts_have_the_tokens_that_they_say() {
        let words = |same| RandomWords { count: 20, input_len: 100, output_len: 10, range_ratio: 0.3, seed: 5, same };
        let source = words(false);
        for index in 0..20 {
            let prompt = source.prompt(index).unwrap();
            let Content::Text(text) = &prompt.content else { panic!("{prompt:?}") };
            assert_eq!(Some(tokens::count(text)), prompt.prompt_len);
            let (input, output) = (prompt.prompt_len.unwrap(), prompt.output_len.unwrap());
            assert!((70..=130).contains(&input) && (7..=13).contains(&output));
            assert_eq!(words(false).prompt(index).unwrap(), prompt, "again");
        }
        assert_ne!(source.prompt(1).unwrap(), source.prompt(2).unwrap());
        assert_eq!(words(true).prompt(7).unwrap(), source.prompt(0).unwrap(), "the warm-up's prompt");
    }
}
