//! The nouns of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Context, Flags, Identity};

/// The backend of server and client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The real vLLM.
    Vllm,
    /// The simulated vLLM inside this binary: every metric it yields is marked simulated.
    Sim,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Vllm => "vllm",
            Engine::Sim => "sim",
        })
    }
}

/// What sends the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// `vllm bench serve` (of the simulated vLLM, where that plays the server).
    #[default]
    Vllm,
    /// `vllm-bench load`.
    Builtin,
}

impl Client {
    /// Whether it is vLLM's own.
    pub fn is_vllm(&self) -> bool {
        *self == Self::Vllm
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Client::Vllm => "vllm",
            Client::Builtin => "builtin",
        })
    }
}

/// The values of the grid's axes for one combination; what names and tables show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Axes {
    /// Hugging Face id or path of the model.
    pub model: String,
    /// Devices over which each layer is split.
    pub tensor_parallel_size: u32,
    /// Quantization method; `None` = vLLM's flag is left out.
    pub quantization: Option<String>,
    /// Whether vLLM runs without compiled graphs.
    pub enforce_eager: bool,
    /// The other keys of the server that vary in this sweep, with the value as shown: `max-num-seqs` -> `512`,
    /// `env.VLLM_USE_V1` -> `1`; `default` where the flag is left out.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub server: IndexMap<String, String>,
    /// The keys of the workload that vary in this sweep: `max-concurrency` -> `32`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub workload: IndexMap<String, String>,
}

impl Axes {
    /// The quantization as names and tables show it: `none` where the flag is left out.
    pub fn quantization_label(&self) -> &str {
        self.quantization.as_deref().unwrap_or("none")
    }
}

impl fmt::Display for Axes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tp={} quant={} eager={}",
            self.model,
            self.tensor_parallel_size,
            self.quantization_label(),
            self.enforce_eager
        )?;
        for (key, value) in self.server.iter().chain(&self.workload) {
            write!(f, " {key}={value}")?;
        }
        Ok(())
    }
}

/// Which measurement of the same settings this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repeat {
    /// Which fresh start of the server, from 1.
    pub start: u32,
    /// Which measurement within that start, from 1.
    pub run: u32,
}

impl Repeat {
    /// The only measurement, or the first of several.
    pub const FIRST: Repeat = Repeat { start: 1, run: 1 };
}

/// ` start=2 run=3`; nothing of what is the first.
impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start > 1 {
            write!(f, " start={}", self.start)?;
        }
        if self.run > 1 {
            write!(f, " run={}", self.run)?;
        }
        Ok(())
    }
}

impl Default for Repeat {
    fn default() -> Self {
        Self::FIRST
    }
}

/// What keeps measurements on one server start from finding each other's prompts in the prefix cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Every measurement has a server of its own.
    #[default]
    FreshServer,
    /// The server was told to cache no prefixes.
    CacheOff,
    /// The cache is reset before each measurement, through vLLM's development endpoints.
    Reset,
    /// Each measurement has a seed of its own, so that no prompt comes twice.
    Seed(u64),
    /// Nothing does: the user fixed the prompts, and the cache cannot be reset.
    None,
}

/// Everything that defines one server start, apart from the port it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerConfig {
    /// The model, `vllm serve`'s positional argument.
    pub model: String,
    /// Flags of `vllm serve`, without `--port`.
    pub flags: Flags,
    /// Environment of the server that the plan sets. Secrets are in `secret_env`.
    pub env: BTreeMap<String, String>,
    /// Names of environment variables whose values must never be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<String>,
}

impl ServerConfig {
    /// The name under which the server offers the model.
    pub fn served_model(&self) -> &str {
        self.flags.get_text("served-model-name").unwrap_or(&self.model)
    }

    /// Devices that it takes: tensor x pipeline x data parallel size; `None` where one of these is no number.
    pub fn devices(&self) -> Option<u32> {
        let size = |flag: &str| self.flags.get_text(flag).map_or(Some(1), |text| text.parse::<u32>().ok());
        ["tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"]
            .into_iter()
            .try_fold(1u32, |devices, flag| devices.checked_mul(size(flag)?))
    }

    /// Every model that a start reads: its own, and those that its flags name.
    pub fn all_models(&self) -> BTreeSet<String> {
        let named = self.flags.iter().flat_map(|(flag, value)| named_models(flag, value.words()));
        std::iter::once(self.model.clone()).chain(named).collect()
    }
}

/// The models that a flag of `vllm serve` names by these values: a draft model of speculative decoding, the tokenizer, adapters.
pub fn named_models<'a>(flag: &str, values: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let of_json = |text: &str, key: &str| -> Option<String> {
        let map: serde_json::Value = serde_json::from_str(text).ok()?;
        Some(map.get(key)?.as_str()?.to_owned())
    };
    let one = |text: &str| match flag {
        "tokenizer" | "speculative-config.model" => Some(text.to_owned()),
        "speculative-config" => of_json(text, "model"),
        "lora-modules" => of_json(text, "path").or_else(|| Some(text.split_once('=')?.1.to_owned())),
        _ => None,
    };
    values.into_iter().filter_map(one).collect()
}

/// Everything that defines one load, apart from where it is sent and where its result goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Flags of `vllm bench serve`, without host, port, model and result path.
    pub flags: Flags,
    /// What sends it.
    #[serde(default, skip_serializing_if = "Client::is_vllm")]
    pub client: Client,
}

impl Workload {
    /// The number of prompts asked for; a valid result completes exactly so many.
    pub fn num_prompts(&self) -> Option<u64> {
        self.flags.get_text("num-prompts").and_then(|text| text.parse().ok())
    }
}

/// Which side of a comparison within one run an experiment is on (`run --against`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// As the run before had it.
    Before,
    /// As this run has it.
    After,
}

/// What a run is measured against, within it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Before {
    /// Name of the run whose settings they are.
    pub run: String,
    /// Its vLLM; `None` where that is the simulated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm: Option<PathBuf>,
    /// What identities of that side take for granted.
    #[serde(default)]
    pub context: Context,
}

/// One server configuration under one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// Position in the plan, from 1.
    pub index: usize,
    /// Unique within the plan, safe as a file name; for humans, never parsed back.
    pub name: String,
    /// Hash of all that defines the experiment.
    pub identity: Identity,
    /// The grid values behind the name.
    pub axes: Axes,
    /// The server backend.
    pub engine: Engine,
    /// The server.
    pub server: ServerConfig,
    /// The load.
    pub workload: Workload,
    /// Name of the server configuration: what its logs and scripts are called; shared by all that share its start.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_name: String,
    /// Which measurement of these settings.
    #[serde(default)]
    pub repeat: Repeat,
    /// What keeps the prefix cache out of the metrics.
    #[serde(default)]
    pub isolation: Isolation,
    /// The named groups (`experiments`) that ask for it; none for a sweep without groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Whether it is what others are compared with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
    /// On which side it is, where two are measured in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// It was measured beside others, and is measured again alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
}

impl Experiment {
    /// What the server's logs and scripts are called.
    pub fn server_name(&self) -> &str {
        if self.server_name.is_empty() { &self.name } else { &self.server_name }
    }
}

/// A combination that a rule leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The combination.
    pub axes: Axes,
    /// Name of the rule.
    pub rule: String,
    /// Why, for the user.
    pub reason: String,
    /// What stands behind the rule, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

impl Skip {
    /// The reason without the combination: the same for all that a rule leaves out for it.
    pub fn why(&self) -> &str {
        let inner = self.reason.strip_prefix("Skipping ").and_then(|rest| rest.strip_prefix(&self.axes.to_string()));
        inner.and_then(|rest| rest.strip_prefix(" (")?.strip_suffix(')')).unwrap_or(&self.reason)
    }
}

/// Starts are added to configurations that may still be the best, until the answer is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UntilDecided {
    /// So many starts of each come first.
    pub first: u32,
    /// At most so many of each.
    pub max: u32,
}

/// Experiments in the order in which they run, and the skipped combinations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Hash over the identities of all experiments.
    pub identity: Identity,
    /// In running order.
    pub experiments: Vec<Experiment>,
    /// In the order of the axes; of a very large plan only the first of them.
    pub skips: Vec<Skip>,
    /// How many combinations were left out.
    #[serde(default)]
    pub skipped: usize,
    /// What the identities take for granted.
    #[serde(default)]
    pub context: Context,
    /// Where not all of it is measured: the experiments are those that may be, and the journal says which are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_decided: Option<UntilDecided>,
    /// What the other experiments are measured against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
}

impl Plan {
    /// What the identity of an experiment takes for granted.
    pub fn context_of(&self, experiment: &Experiment) -> &Context {
        match (&self.before, experiment.side) {
            (Some(before), Some(Side::Before)) => &before.context,
            (Some(_) | None, _) => &self.context,
        }
    }

    /// How many combinations were left out.
    pub fn skipped(&self) -> usize {
        self.skipped.max(self.skips.len())
    }

    /// What experiments that join this plan take for granted: what this one does, and of models that are new to it what is
    /// known `here`.
    pub fn context_for(&self, here: &Context) -> Context {
        let known: BTreeSet<String> =
            self.experiments.iter().flat_map(|experiment| experiment.server.all_models()).collect();
        let new = here.models.iter().filter(|(model, _)| !known.contains(*model));
        let mut context = self.context.clone();
        context.models.extend(new.map(|(model, commit)| (model.clone(), commit.clone())));
        context
    }
}
