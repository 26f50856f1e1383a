//! What a result says of its settings: vLLM's own keys, the overrides that a sweep writes beside them, and what the user gave
//! with `--metadata`. What it does not say stays unknown.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use crate::analyse::{Load, LoadValue, Row, ShownAxes};
use crate::model::Identity;
use crate::results::predecessor::counted_load;
use crate::results::result_file::ResultFile;

/// What vLLM's client says of every request (`--save-detailed`): arrays with an item for each.
pub const OF_REQUESTS: [&str; 9] = [
    "input_lens",
    "output_lens",
    "ttfts",
    "itls",
    "latencies",
    "start_times",
    "queue_times",
    "generated_texts",
    "errors",
];

/// Keys of vLLM's client (0.14.1 to 0.32) that are no settings, beside those of requests and those that [`is_metric`] tells by their ends.
const METRICS: [&str; 38] = [
    "date",
    "endpoint_type",
    "label",
    "tokenizer_id",
    "duration",
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    "request_goodput",
    "request_goodput:",
    "max_output_tokens_per_s",
    "max_concurrent_requests",
    "rtfx",
    "run_number",
    "simulated",
    "error",
    "error_type",
    "serve_overrides",
    "bench_overrides",
    "client_queue_time",
    "total_audio_input_seconds",
    "total_input",
    "total_output",
    "total_duration",
    "vllm_bench",
    // SGLang's client: what it counted and measured.
    "concurrency",
    "total_output_tokens_retokenized",
    "total_input_text_tokens",
    "total_input_vision_tokens",
    "accept_length",
    "max_concurrency_reached",
    "input_throughput_retokenized",
    "output_throughput_retokenized",
    "total_throughput_retokenized",
    "tag",
    "server_info",
    "vllm_bench_load",
];

/// vLLM's own keys of a result that are settings of the load, with their flags.
const LOAD: [(&str, &str); 8] = [
    ("num_prompts", "num-prompts"),
    ("max_concurrency", "max-concurrency"),
    ("request_rate", "request-rate"),
    ("burstiness", "burstiness"),
    ("backend", "backend"),
    ("ramp_up_strategy", "ramp-up-strategy"),
    ("ramp_up_start_rps", "ramp-up-start-rps"),
    ("ramp_up_end_rps", "ramp-up-end-rps"),
];

/// Flags of `vllm bench serve` by which an override is known to be of the load; all others are the server's.
const BENCH: [&str; 34] = [
    "backend",
    "burstiness",
    "custom-output-len",
    "dataset-name",
    "dataset-path",
    "disable-shuffle",
    "endpoint",
    "extra-body",
    "frequency-penalty",
    "goodput",
    "hf-name",
    "hf-output-len",
    "hf-split",
    "hf-subset",
    "ignore-eos",
    "input-len",
    "logprobs",
    "max-concurrency",
    "min-p",
    "no-oversample",
    "num-prompts",
    "num-warmups",
    "output-len",
    "presence-penalty",
    "ramp-up-end-rps",
    "ramp-up-start-rps",
    "ramp-up-strategy",
    "repetition-penalty",
    "request-rate",
    "temperature",
    "top-k",
    "top-p",
    "use-beam-search",
    "request-id-prefix",
];
/// Beginnings of such flags.
const BENCH_BEGIN: [&str; 7] =
    ["random-", "prefix-repetition-", "sharegpt-", "sonnet-", "spec-bench-", "blazedit-", "timed-trace-"];

/// Whether a key is a metric.
fn is_metric(key: &str) -> bool {
    METRICS.contains(&key)
        || OF_REQUESTS.contains(&key)
        || key.ends_with("_ms")
        || key.ends_with("_throughput")
        || key.starts_with("spec_decode_")
        || key.starts_with("diffusion_")
        || key.starts_with("e2el_")
}

/// What a result states.
#[derive(Debug, Default)]
pub(super) struct Stated {
    pub model: Option<String>,
    /// Flags of the server.
    pub server: IndexMap<String, String>,
    /// Flags of the load.
    bench: IndexMap<String, String>,
    /// What was counted afterwards.
    counted: Vec<(String, LoadValue)>,
    /// The name that the user gave to the combination.
    pub group: Option<String>,
}

impl Stated {
    /// Reads them off a result; what is not vLLM's own is an override.
    pub fn of(result: &ResultFile, of_sweep: bool) -> Self {
        let mut stated = Self { model: result.text("model_id"), ..Self::default() };
        for (key, flag) in LOAD {
            if let Some(value) = result.text(key) {
                stated.bench.insert(flag.to_owned(), value);
            }
        }
        for (key, value) in result.metrics.iter() {
            let known = is_metric(key) || key == "model_id" || LOAD.iter().any(|(known, _)| *known == key);
            if !known && let Some(value) = word(value) {
                stated.put(key, value);
            }
        }
        for (key, text) in &result.short {
            match key.as_str() {
                "serve_overrides" | "bench_overrides" => {
                    let overrides = serde_json::from_str::<serde_json::Map<String, Value>>(text).unwrap_or_default();
                    overrides.iter().filter_map(|(key, value)| Some((key, word(value)?))).for_each(|(key, value)| {
                        stated.put(key, value);
                    });
                }
                key if !is_metric(key) && of_sweep => stated.put(key, text.clone()),
                _ => {}
            }
        }
        stated.counted = counted_load(result);
        stated
    }

    fn put(&mut self, key: &str, value: String) {
        if key == "_benchmark_name" {
            self.group = Some(value);
            return;
        }
        let flag = key.trim_start_matches('-').replace('_', "-");
        if flag == "model" {
            self.model = Some(value);
        } else if BENCH.contains(&flag.as_str()) || BENCH_BEGIN.iter().any(|begin| flag.starts_with(begin)) {
            self.bench.insert(flag, value);
        } else {
            self.server.insert(flag, value);
        }
    }

    /// A flag of the load.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.bench.get(name).map(String::as_str)
    }

    /// The load as far as it is known.
    pub fn load(&self) -> Load {
        let counted = self.counted.iter().filter(|(flag, _)| !self.bench.contains_key(flag));
        let mut load: IndexMap<String, LoadValue> = counted.cloned().collect();
        load.extend(self.bench.iter().map(|(flag, value)| (flag.clone(), LoadValue::Exact(value.clone()))));
        Load(load)
    }

    /// What it is by all that it states.
    pub fn identity(&self) -> Identity {
        let mut all: BTreeMap<String, String> =
            self.server.iter().map(|(flag, value)| (format!("serve.{flag}"), value.clone())).collect();
        all.extend(self.bench.iter().map(|(flag, value)| (format!("bench.{flag}"), value.clone())));
        all.extend(self.model.clone().map(|model| ("model".to_owned(), model)));
        all.extend(self.group.clone().map(|group| ("group".to_owned(), group)));
        Identity::of_stated(&all)
    }

    /// Devices, where all three sizes are stated: what is not may be part of the command that the sweep kept fixed.
    pub fn devices(&self) -> Option<u32> {
        ["tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"]
            .into_iter()
            .try_fold(1u32, |devices, flag| devices.checked_mul(self.server.get(flag)?.parse().ok()?))
    }
}

/// A value as the command line has it.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(switch) => Some(switch.to_string()),
        Value::Null => None,
        Value::Array(_) | Value::Object(_) => Some(value.to_string()),
    }
}

/// What stands where the model is not known.
pub(super) const NO_MODEL: &str = "model not stated";

/// The grid values; which others are shown, [`show_what_varies`] judges.
pub(super) fn axes(stated: &Stated) -> ShownAxes {
    let of = |flag: &str| stated.server.get(flag);
    ShownAxes {
        model: stated.model.clone().unwrap_or_else(|| NO_MODEL.to_owned()),
        tensor_parallel_size: of(SHOWN[0]).and_then(|size| size.parse().ok()),
        quantization: of(SHOWN[1]).cloned(),
        enforce_eager: of(SHOWN[2]).and_then(|eager| eager.parse().ok()),
        server: Vec::new(),
        workload: Vec::new(),
    }
}

/// Flags with a column of their own.
const SHOWN: [&str; 3] = ["tensor-parallel-size", "quantization", "enforce-eager"];

/// How often a key is there, its first value, and whether all others are the same.
type Seen = HashMap<String, (usize, String, bool)>;

fn note(seen: &mut Seen, key: &str, value: &str, rows: usize) {
    match seen.get_mut(key) {
        Some((times, first, same)) => {
            *times += rows;
            *same &= first == value;
        }
        None => drop(seen.insert(key.to_owned(), (rows, value.to_owned(), true))),
    }
}

/// The flags of a server that may be shown.
fn of_server(flags: &IndexMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    let all = flags.iter().map(|(flag, value)| (flag.as_str(), value.as_str()));
    all.filter(|(flag, _)| !SHOWN.contains(flag))
}

/// What of a load was asked for.
fn of_load(load: &Load) -> impl Iterator<Item = (&str, &str)> {
    load.0.iter().filter_map(|(flag, value)| match value {
        LoadValue::Exact(text) => Some((flag.as_str(), text.as_str())),
        LoadValue::About(_) => None,
    })
}

/// Shared values by their place, with how many rows have each.
type Counted<'a, T> = HashMap<*const T, (usize, &'a T)>;

/// Shows of every row the settings in which rows differ. `states`: whether a row says its settings in its flags and its load
/// alone; one that does not has axes already. Rows with the same load share it.
pub(super) fn show_what_varies(rows: &mut [Row], states: impl Fn(&Row) -> bool) {
    let count = rows.len();
    let mut loads: HashMap<String, Arc<Load>> = HashMap::new();
    let mut known: HashMap<*const Load, Arc<Load>> = HashMap::new();
    for row in rows.iter_mut() {
        let place = Arc::as_ptr(&row.load);
        let same = known.entry(place).or_insert_with(|| {
            let spelt = format!("{:?}", row.load.0);
            Arc::clone(loads.entry(spelt).or_insert_with(|| Arc::clone(&row.load)))
        });
        row.load = Arc::clone(same);
    }
    // Each load and each set of flags is looked at once, however many rows have it.
    let mut seen = Seen::new();
    let mut flags: Counted<'_, IndexMap<String, String>> = HashMap::new();
    let mut of_loads: Counted<'_, Load> = HashMap::new();
    for row in rows.iter() {
        if states(row) {
            flags.entry(Arc::as_ptr(&row.about.flags)).or_insert((0, &row.about.flags)).0 += 1;
            of_loads.entry(Arc::as_ptr(&row.load)).or_insert((0, &row.load)).0 += 1;
        }
        for (key, value) in row.axes.server.iter().chain(&row.axes.workload) {
            note(&mut seen, key, value, 1);
        }
    }
    for (rows, flags) in flags.into_values() {
        of_server(flags).for_each(|(key, value)| note(&mut seen, key, value, rows));
    }
    for (rows, load) in of_loads.into_values() {
        of_load(load).for_each(|(key, value)| note(&mut seen, key, value, rows));
    }
    let varies = |key: &str| seen.get(key).is_some_and(|(times, _, same)| !same || *times < count);
    let shown = |(key, value): (&str, &str)| varies(key).then(|| (key.to_owned(), value.to_owned()));
    for row in rows {
        row.axes.server.retain(|(key, _)| varies(key));
        row.axes.workload.retain(|(key, _)| varies(key));
        if states(row) {
            row.axes.server.extend(of_server(&row.about.flags).filter_map(shown));
            row.axes.workload.extend(of_load(&row.load).filter_map(shown));
        }
    }
}
