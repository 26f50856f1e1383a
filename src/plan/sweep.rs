//! What a sweep asks for, before it is expanded: groups of axes, conditions, rules, repeats. Every value is final here;
//! where it came from is the business of `config`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Condition;
use crate::model::{Client, Context, Engine, FlagValue, UntilDecided};

/// One value of an axis.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// The flag is left out (`none`).
    Omitted,
    /// A switch: `--x` or, where vLLM has it, `--no-x`.
    Switch(bool),
    /// A value as vLLM receives it.
    Text(String),
    /// Several values after one flag.
    List(Vec<String>),
}

impl Value {
    /// The value as tables, names and messages show it.
    pub fn shown(&self) -> String {
        match self {
            Value::Omitted => "default".to_owned(),
            Value::Switch(on) => on.to_string(),
            Value::Text(text) => text.clone(),
            Value::List(words) => words.join(" "),
        }
    }

    /// Whether two values mean the same to vLLM: numbers in any spelling, JSON in any layout, `false` where the flag is
    /// one that vLLM has off by itself.
    pub fn same(&self, other: &Value) -> bool {
        self.canonical() == other.canonical()
    }

    /// One spelling for all values that mean the same.
    pub fn canonical(&self) -> String {
        match self {
            Value::Omitted => "\u{0}".to_owned(),
            Value::Switch(on) => on.to_string(),
            Value::Text(text) => canonical_text(text),
            Value::List(words) => words.iter().map(|word| canonical_text(word)).collect::<Vec<_>>().join("\u{1f}"),
        }
    }

    /// The number it is; `None` where it is none.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            Value::Omitted | Value::Switch(_) | Value::List(_) => None,
        }
    }

    /// The flag as it is written, for a flag called `name`; `None` where none is written.
    pub fn flag(&self, name: &str, section: Section) -> Option<(String, FlagValue)> {
        match self {
            Value::Omitted => None,
            Value::Switch(true) => Some((name.to_owned(), FlagValue::SWITCH)),
            // The switches of `vllm bench serve` have no opposite; and eager is off in vLLM unless it is asked for.
            Value::Switch(false) if section == Section::Bench || name == ENFORCE_EAGER => None,
            Value::Switch(false) => {
                let opposite = name.strip_prefix("no-").map_or_else(|| format!("no-{name}"), str::to_owned);
                Some((opposite, FlagValue::SWITCH))
            }
            Value::Text(text) => Some((name.to_owned(), FlagValue::Text(text.clone()))),
            Value::List(words) => Some((name.to_owned(), FlagValue::List(words.clone()))),
        }
    }
}

/// `0.90` is `0.9`, and JSON has no layout.
fn canonical_text(text: &str) -> String {
    if text.starts_with(['{', '[']) {
        return serde_json::from_str::<serde_json::Value>(text)
            .map_or_else(|_| text.to_owned(), |json| json.to_string());
    }
    let is_number = text.bytes().any(|b| b.is_ascii_digit()) && text.bytes().all(|b| b"0123456789.eE+-".contains(&b));
    match text.parse::<f64>() {
        Ok(number) if is_number && number.is_finite() && text.len() < 16 => number.to_string(),
        Ok(_) | Err(_) => text.to_owned(),
    }
}

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// A flag of `vllm serve`.
    Serve,
    /// A variable of the server.
    Env,
    /// A flag of `vllm bench serve`.
    Bench,
}

/// The model, vLLM's positional argument.
pub(super) const MODEL: &str = "model";
pub(super) const TENSOR_PARALLEL: &str = "tensor-parallel-size";
pub(super) const QUANTIZATION: &str = "quantization";
pub(super) const ENFORCE_EAGER: &str = "enforce-eager";
/// `num-prompts` as a multiple of `max-concurrency`: a key of ours, not of vLLM.
pub const PROMPTS_PER_CONCURRENCY: &str = "num-prompts-per-concurrency";

/// A key and its values; one value = the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// vLLM's long flag name, or the variable's name.
    pub key: String,
    /// At least one, no two alike.
    pub values: Vec<Value>,
}

/// Axes that are multiplied with each other: the first is the slowest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// What the user calls it; several groups may share a name.
    pub name: Option<String>,
    /// Flags of `vllm serve`, `model` among them.
    pub serve: Vec<Axis>,
    /// Variables of the server.
    pub env: Vec<Axis>,
    /// Flags of `vllm bench serve`.
    pub bench: Vec<Axis>,
    /// Conditions of this group alone.
    pub exclude: Vec<Exclusion>,
}

/// Combinations that are left out, or (under `include`) the only ones that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// Its name, for `rules: {NAME: false}` and for messages.
    pub name: String,
    /// Which combinations.
    pub when: Condition,
    /// Why, for the user.
    pub reason: String,
    /// What stands behind it, in one sentence; `None` where the reason says it all.
    pub explanation: Option<String>,
}

/// A key of the server and one of the workload that have the same value in every combination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Flag of `vllm serve`.
    pub serve: String,
    /// Flag of `vllm bench serve`.
    pub bench: String,
}

/// What others are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Baseline {
    /// vLLM's own defaults: every axis of the server is left out.
    VllmDefaults,
    /// The one configuration of the group of this name.
    Named(String),
    /// These values. Where a key has several, the first that works counts.
    Values(Vec<Axis>),
}

/// How often the same settings are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// Measurements within one server start.
    pub runs: u32,
    /// Fresh starts of the server; with `auto` at most so many.
    pub starts: u32,
    /// Whether starts are added until the answer is decided.
    pub auto: bool,
}

/// With `starts: auto` each configuration is started so often before anything is decided.
const FIRST_STARTS: u32 = 3;

impl Repeats {
    /// How starts are added, where they are.
    pub fn until_decided(self) -> Option<UntilDecided> {
        self.auto.then_some(UntilDecided { first: FIRST_STARTS.min(self.starts), max: self.starts })
    }
}

impl Default for Repeats {
    fn default() -> Self {
        Self { runs: 1, starts: 1, auto: false }
    }
}

/// In which order server starts follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The same model together, repeats of a configuration one after the other: saves time.
    #[default]
    Grouped,
    /// First starts of all configurations, then second starts: a drift of the machine hits all alike.
    Interleaved,
    /// Shuffled with a seed.
    Random(u64),
}

/// What is known of a model without starting it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// Attention heads of its text part; each device gets the same number of them.
    pub attention_heads: Option<u64>,
    /// The longest context it was made for, tokens.
    pub max_position_embeddings: Option<u64>,
}

/// A whole sweep.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The server backend.
    pub engine: Engine,
    /// What sends the workload.
    pub client: Client,
    /// At least one.
    pub groups: Vec<Group>,
    /// Which combinations are left out.
    pub exclude: Vec<Exclusion>,
    /// Where there are any: which combinations are kept at all.
    pub include: Vec<Exclusion>,
    /// Names of rules that are switched off, built-in ones and those of presets.
    pub rules_off: Vec<String>,
    /// Keys that are tied to each other.
    pub links: Vec<Link>,
    /// What others are compared with.
    pub baseline: Option<Baseline>,
    /// How often.
    pub repeats: Repeats,
    /// In which order.
    pub order: Order,
    /// Whether experiments share server starts.
    pub reuse: bool,
    /// Devices of the machine; `None` = not known, nothing is left out for want of devices.
    pub devices: Option<u32>,
    /// By model as written.
    pub models: BTreeMap<String, ModelFacts>,
    /// Names of variables whose values are never written.
    pub secret_env: Vec<String>,
    /// What identities take for granted.
    pub context: Context,
}

impl Sweep {
    /// The tensor parallel sizes asked for anywhere, ascending.
    pub fn tensor_parallel_sizes(&self) -> Vec<u32> {
        let axes = self.groups.iter().flat_map(|group| &group.serve).filter(|axis| axis.key == TENSOR_PARALLEL);
        let sizes = axes.flat_map(|axis| &axis.values).filter_map(|value| value.shown().parse().ok());
        let sizes: std::collections::BTreeSet<u32> = sizes.collect();
        sizes.into_iter().collect()
    }

    /// All values of a key over all groups, as one text.
    pub fn shown(&self, section: Section, key: &str) -> String {
        let mut values: Vec<String> = Vec::new();
        for group in &self.groups {
            let axes = match section {
                Section::Serve => &group.serve,
                Section::Env => &group.env,
                Section::Bench => &group.bench,
            };
            let axis = axes.iter().find(|axis| axis.key == key);
            for value in axis.map_or(&[Value::Omitted][..], |axis| &axis.values) {
                let text = if *value == Value::Omitted { "vLLM's default".to_owned() } else { value.shown() };
                if !values.contains(&text) {
                    values.push(text);
                }
            }
        }
        values.join(", ")
    }

    /// A sweep with nothing in it yet.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            client: Client::Vllm,
            groups: Vec::new(),
            exclude: Vec::new(),
            include: Vec::new(),
            rules_off: Vec::new(),
            links: Vec::new(),
            baseline: None,
            repeats: Repeats::default(),
            order: Order::Grouped,
            reuse: true,
            devices: None,
            models: BTreeMap::new(),
            secret_env: Vec::new(),
            context: Context::default(),
        }
    }
}
