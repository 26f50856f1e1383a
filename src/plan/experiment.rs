//! The nouns of a plan.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Flags, Identity, Rule};

/// What plays the server and the benchmark client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The real vLLM.
    Vllm,
    /// The simulated vLLM inside this binary: every figure it yields is marked simulated.
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
        )
    }
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
}

/// Everything that defines one load, apart from where it is sent and where its result goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Flags of `vllm bench serve`, without host, port, model and result path.
    pub flags: Flags,
}

impl Workload {
    /// The number of prompts asked for; a valid result completes exactly so many.
    pub fn num_prompts(&self) -> Option<u64> {
        self.flags.get_text("num-prompts").and_then(|text| text.parse().ok())
    }
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
    /// What plays vLLM.
    pub engine: Engine,
    /// The server.
    pub server: ServerConfig,
    /// The load.
    pub workload: Workload,
}

/// A combination that a rule leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The combination.
    pub axes: Axes,
    /// Which rule.
    pub rule: Rule,
    /// Why, for the user.
    pub reason: String,
}

/// Experiments in the order in which they run, and the skipped combinations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Hash over the identities of all experiments.
    pub identity: Identity,
    /// In running order.
    pub experiments: Vec<Experiment>,
    /// In grid order.
    pub skips: Vec<Skip>,
}
