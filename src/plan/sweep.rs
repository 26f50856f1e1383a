//! What a sweep asks for, before it is expanded: groups of axes, conditions, rules, repeats. Every value is final here;
//! where it came from is the business of `config`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Condition, Context, Engine};

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
    /// Fresh starts of the server.
    pub starts: u32,
}

impl Default for Repeats {
    fn default() -> Self {
        Self { runs: 1, starts: 1 }
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
    /// What plays vLLM.
    pub engine: Engine,
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
