//! `vllm bench serve`, simulated: real HTTP requests against the simulated server, times from the simulation.

pub mod load;
pub mod report;
pub mod stats;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::argparse::Refusal;
use super::fault::Fault;
use super::flags::{BENCH, python};
use super::log::Log;
use super::server::{flood, refuse};
use super::settings::SimSettings;
use load::{Prompt, Session, Target};
use stats::{Metrics, Outcome};

/// Simulated seconds that the Python client takes to import.
const IMPORT_SECONDS: f64 = 8.0;

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
    pub num_prompts: usize,
    pub num_warmups: usize,
    pub max_concurrency: Option<usize>,
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
    pub goodput: Vec<(String, f64)>,
    pub metadata: Vec<(String, String)>,
    pub save_result: bool,
    pub save_detailed: bool,
    pub append_result: bool,
    pub result_dir: Option<PathBuf>,
    pub result_filename: Option<PathBuf>,
    pub disable_tqdm: bool,
    pub ready_check_seconds: u64,
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
            goodput: pairs("goodput", ':').into_iter().filter_map(|(k, v)| Some((k, v.parse().ok()?))).collect(),
            metadata: pairs("metadata", '='),
            save_result: parsed.on("save-result", false) || parsed.on("append-result", false),
            save_detailed: parsed.on("save-detailed", false),
            append_result: parsed.on("append-result", false),
            result_dir: parsed.get("result-dir").map(PathBuf::from),
            result_filename: parsed.get("result-filename").map(PathBuf::from),
            disable_tqdm: parsed.on("disable-tqdm", false),
            ready_check_seconds: parsed.number("ready-check-timeout-sec", 0),
            shown: shown.collect::<Vec<_>>().join(", "),
            model,
            backend,
        })
    }

    fn target(&self, settings: &SimSettings) -> Target {
        Target {
            url: format!("{}{}", self.base_url, self.endpoint),
            chat: self.backend == "openai-chat",
            model: self.served_model_name.clone(),
            ignore_eos: self.ignore_eos,
            temperature: self.temperature,
            speed: settings.speed,
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
        Ok(options) => options,
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
    let http = match reqwest::Client::builder().no_proxy().tcp_nodelay(true).build() {
        Ok(http) => http,
        Err(error) => return traceback(&format!("ValueError: {error}"), 1),
    };
    let faults = faults(options, settings, &http).await;
    say(&format!("Namespace({})", options.shown));
    for fault in &faults {
        if let Fault::BenchmarkExits { code } = fault {
            return traceback("ValueError: SIMULATED fault `benchmark-exits`", *code);
        }
    }
    let (metrics, outcomes) = match benchmark(options, settings, &http, &faults, &say).await {
        Ok(measured) => measured,
        Err(error) => return traceback(&error, 1),
    };
    let _ = io::stdout().write_all(report::console(options, &metrics).as_bytes());
    if !options.save_result || faults.contains(&Fault::BenchmarkNoResult) {
        return ExitCode::SUCCESS;
    }
    let date = chrono::Local::now().format("%Y%m%d-%H%M%S").to_string();
    let result = report::result(options, &metrics, &outcomes, &date);
    match save(options, &date, &result, faults.contains(&Fault::BenchmarkBadJson)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => traceback(&format!("OSError: {error}: {}", options.result_path(&date).display()), 1),
    }
}

fn save(options: &Options, date: &str, result: &Value, cut: bool) -> io::Result<()> {
    let mut bytes = report::python_json(result)?;
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

/// The client's faults. The server knows the flags that conditions name; without one, only the model is known.
async fn faults(options: &Options, settings: &SimSettings, http: &reqwest::Client) -> Vec<Fault> {
    let asked = http.post(format!("{}/vllm_bench_sim", options.base_url)).timeout(Duration::from_secs(2)).send().await;
    let flags: Value = match asked {
        Ok(response) => {
            response.bytes().await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
        }
        Err(_) => Value::Null,
    };
    let load = flags.get("load").and_then(Value::as_u64);
    settings.faults_of_load(load, |key| match flags.pointer("/flags").and_then(|flags| flags.get(key)) {
        Some(value) => value.as_str().map(str::to_string),
        None => (key == "model").then(|| options.model.clone()),
    })
}

/// Where the client's words go.
pub type Talk<'a> = &'a (dyn Fn(&str) + Sync);

/// Everything between the arguments and the numbers.
pub async fn benchmark(
    options: &Options,
    settings: &SimSettings,
    http: &reqwest::Client,
    faults: &[Fault],
    say: Talk<'_>,
) -> Result<(Metrics, Vec<Outcome>), String> {
    let (input, output, range) = (options.input_len, options.output_len, options.range_ratio);
    let prompts = load::random_prompts(options.num_prompts, input, output, range, options.seed);
    let target = options.target(settings);
    say("Starting initial single prompt test run...");
    match prompts.first() {
        Some(prompt) if options.ready_check_seconds > 0 => ready_check(options, &target, http, prompt, say).await?,
        _ => say("Skipping endpoint ready check."),
    }
    if let (Some(prompt), 1..) = (prompts.first(), options.num_warmups) {
        say(&format!("Warming up with {} requests...", options.num_warmups));
        let (prompts, due) = (vec![prompt.clone(); options.num_warmups], vec![0.0; options.num_warmups]);
        Session::new(target.clone(), http.clone(), prompts, due, options.max_concurrency, true).run(|_| {}).await;
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
    if faults.contains(&Fault::BenchmarkHangs) {
        std::future::pending::<()>().await;
    }
    if faults.contains(&Fault::BenchmarkFloods) {
        flood(&Log::stdout());
    }
    let due = load::schedule(prompts.len(), options.request_rate, options.burstiness, options.seed);
    let (total, quiet) = (prompts.len(), options.disable_tqdm);
    let session = Session::new(target, http.clone(), prompts, due, options.max_concurrency, false);
    let outcomes = session
        .run(move |done| {
            if !quiet {
                progress(done, total)
            }
        })
        .await;
    if outcomes.iter().all(|outcome| outcome.error.is_some()) {
        let _ = io::stderr().write_all(
            b"UserWarning: All requests failed. This is likely due to a misconfiguration on the benchmark arguments.\n",
        );
    }
    let errors: Vec<&String> = outcomes.iter().filter_map(|outcome| outcome.error.as_ref()).collect();
    if !errors.is_empty() {
        say("Failed requests during benchmark run detected (capping to 10):");
        errors.iter().take(10).enumerate().for_each(|(index, error)| say(&format!("Error {index}: {error}")));
    }
    let metrics = stats::metrics(&outcomes, &options.percentiles, &options.goodput);
    Ok((metrics, outcomes))
}

/// One request, again and again until it works or the time is up.
async fn ready_check(
    options: &Options,
    target: &Target,
    http: &reqwest::Client,
    prompt: &Prompt,
    say: Talk<'_>,
) -> Result<(), String> {
    say(&format!("Waiting for endpoint to become up in {} seconds", options.ready_check_seconds));
    let until = tokio::time::Instant::now() + Duration::from_secs(options.ready_check_seconds);
    loop {
        let session = Session::new(target.clone(), http.clone(), vec![prompt.clone()], vec![0.0], Some(1), true);
        let error = session.run(|_| {}).await.into_iter().find_map(|outcome| outcome.error);
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
fn progress(done: usize, total: usize) {
    if done.is_multiple_of(total.div_ceil(10).max(1)) || done == total {
        let percent = 100 * done / total.max(1);
        let bar = "#".repeat(percent / 10);
        let end = if done == total { "\n" } else { "" };
        let _ = io::stderr().write_all(format!("\r{percent:>3}%|{bar:<10}| {done}/{total}{end}").as_bytes());
    }
}
