//! The layers of settings: flags over environment variables over a preset.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

use super::Environment;
use crate::cli::RunArgs;
use crate::plan::{FlagValue, Flags};

/// A preset that is compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// `vllm-bench run`.
    Full,
    /// `vllm-bench sanity`.
    Sanity,
}

impl Preset {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Full => "full",
            Preset::Sanity => "sanity",
        }
    }

    fn table(self) -> Table {
        let text = match self {
            Preset::Full => include_str!("presets/full.toml"),
            Preset::Sanity => include_str!("presets/sanity.toml"),
        };
        #[expect(clippy::expect_used, reason = "compiled in, and parsed by a test")]
        text.parse().expect("a preset is valid TOML")
    }
}

/// Where a value came from, in the words with which a user can find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A key of a preset.
    Preset(&'static str, String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "`--{name}`"),
            Origin::Variable(name) => write!(f, "the environment variable `{name}`"),
            Origin::Preset(preset, key) => write!(f, "`{key}` of the preset `{preset}`"),
        }
    }
}

/// The layers, before any value is read.
#[derive(Debug)]
pub struct Layers {
    flags: BTreeMap<&'static str, Vec<String>>,
    variables: BTreeMap<String, String>,
    preset: Preset,
    table: Table,
}

/// Keys that are lists on the command line and in variables.
const LISTS: [&str; 8] =
    ["models", "tp", "quantization", "enforce-eager", "serve-arg", "bench-arg", "env", "sim-fault"];

/// Keys whose values may hold commas and spaces: each flag is one value, and variables split at line ends.
const WHOLE: [&str; 4] = ["serve-arg", "bench-arg", "env", "sim-fault"];

/// Variables of this prefix that are no settings.
const OTHER_VARIABLES: [&str; 3] = ["VLLM_BENCH_ATTEMPT", "VLLM_BENCH_REAL_DIR", "VLLM_BENCH_BIN"];

impl Layers {
    /// Puts the layers on each other.
    pub fn new(args: &RunArgs, environment: &Environment, preset: Preset) -> Self {
        let variables = environment
            .vars()
            .iter()
            .filter(|(name, value)| name.starts_with("VLLM_BENCH_") && !value.is_empty())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Self { flags: flags_of(args), variables, preset, table: preset.table() }
    }

    /// The values of a setting and where they stand; none where no layer has it.
    pub fn values(&self, key: &'static str) -> Option<(Vec<String>, Origin)> {
        if let Some(values) = self.flags.get(key) {
            let values = values.iter().flat_map(|value| split(key, value)).collect();
            return Some((values, Origin::Flag(key.to_owned())));
        }
        let variable = variable_name(key);
        if let Some(value) = self.variables.get(&variable) {
            return Some((split(key, value), Origin::Variable(variable)));
        }
        let value = self.table.get(key)?;
        Some((texts(value), Origin::Preset(self.preset.name(), key.to_owned())))
    }

    /// The flags in a table of the preset.
    pub fn preset_flags(&self, key: &str) -> Flags {
        let table = self.table.get(key).and_then(Value::as_table);
        table
            .into_iter()
            .flatten()
            .map(|(name, value)| match value {
                Value::Boolean(true) => (name.clone(), FlagValue::SWITCH),
                other => (name.clone(), FlagValue::Text(texts(other).concat())),
            })
            .collect()
    }

    /// Whether a flag or a variable has this setting.
    pub fn is_given(&self, key: &str) -> bool {
        self.flags.contains_key(key) || self.variables.contains_key(&variable_name(key))
    }

    /// The name-value pairs in a table of the preset.
    pub fn preset_pairs(&self, key: &str) -> BTreeMap<String, String> {
        let table = self.table.get(key).and_then(Value::as_table);
        table.into_iter().flatten().map(|(name, value)| (name.clone(), texts(value).concat())).collect()
    }

    /// Variables that look like settings and are none.
    pub fn unknown_variables(&self) -> Vec<String> {
        let known = |name: &&String| {
            let key = name.trim_start_matches("VLLM_BENCH_").to_ascii_lowercase().replace('_', "-");
            self.table.contains_key(&key)
                || LISTS.contains(&key.as_str())
                || key == "vllm-bin"
                || OTHER_VARIABLES.contains(&name.as_str())
        };
        self.variables.keys().filter(|name| !known(name)).cloned().collect()
    }
}

/// The environment variable of a setting.
pub fn variable_name(key: &str) -> String {
    format!("VLLM_BENCH_{}", key.to_ascii_uppercase().replace('-', "_"))
}

fn split(key: &str, value: &str) -> Vec<String> {
    if WHOLE.contains(&key) {
        return value.lines().map(str::to_owned).collect();
    }
    if !LISTS.contains(&key) {
        return vec![value.to_owned()];
    }
    let separator = |c: char| if key == "models" { c == ',' } else { c == ',' || c == ' ' };
    let parts: Vec<String> = value.split(separator).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if parts.is_empty() && !value.is_empty() { vec![value.to_owned()] } else { parts }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

fn flags_of(args: &RunArgs) -> BTreeMap<&'static str, Vec<String>> {
    let lists = [
        ("models", &args.models),
        ("tp", &args.tp),
        ("quantization", &args.quantization),
        ("enforce-eager", &args.enforce_eager),
        ("serve-arg", &args.serve_arg),
        ("bench-arg", &args.bench_arg),
        ("env", &args.env),
        ("sim-fault", &args.sim_fault),
    ];
    let singles = [
        ("input-len", &args.input_len),
        ("output-len", &args.output_len),
        ("concurrency", &args.concurrency),
        ("num-prompts", &args.num_prompts),
        ("max-model-len", &args.max_model_len),
        ("port", &args.port),
        ("setvars", &args.setvars),
        ("vllm-bin", &args.vllm_bin),
        ("timeout-startup", &args.timeout_startup),
        ("timeout-benchmark", &args.timeout_benchmark),
        ("grace", &args.grace),
        ("results-dir", &args.results_dir),
        ("timezone", &args.timezone),
        ("engine", &args.engine),
        ("sim-speed", &args.sim_speed),
        ("sim-seed", &args.sim_seed),
        ("sim-devices", &args.sim_devices),
        ("sim-device-memory", &args.sim_device_memory),
    ];
    let switches = [("keep-foreign", args.keep_foreign), ("show-logs", args.show_logs)];
    let mut flags = BTreeMap::new();
    flags.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key, list.clone())));
    flags.extend(singles.into_iter().filter_map(|(key, value)| Some((key, vec![value.clone()?]))));
    flags.extend(switches.into_iter().filter(|(_, on)| *on).map(|(key, _)| (key, vec!["true".to_owned()])));
    flags
}
