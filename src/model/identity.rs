//! The identity of an experiment: a hash over all that defines it.
//!
//! Two experiments with the same identity may stand for each other when a run is resumed; so everything that can
//! change a number is inside, and everything that cannot (port, paths of results, position, name) is not.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Engine, Experiment, Flags, Repeat, ServerConfig, UntilDecided, Workload};

/// What an experiment takes for granted beyond its own settings: metrics of another vLLM or another kind of device
/// never stand for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Context {
    /// vLLM's version; `None` where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm_version: Option<String>,
    /// Kind of the devices (`xpu`, `cuda`, `rocm`, `cpu`); `None` where nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_kind: Option<String>,
    /// Which version of the weights each model is: the commit of its snapshot in the hub's cache, or a digest of a local
    /// directory; absent where it is not at hand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, String>,
}

impl Context {
    /// What is another here than it was in `then`, as far as both are known: (what, then, here).
    pub fn differences(&self, then: &Context) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        let mut look = |what: String, then: Option<&String>, here: Option<&String>| match (then, here) {
            (Some(then), Some(here)) if then != here => found.push((what, then.clone(), here.clone())),
            _ => {}
        };
        look("vLLM".to_owned(), then.vllm_version.as_ref(), self.vllm_version.as_ref());
        look("the kind of devices".to_owned(), then.device_kind.as_ref(), self.device_kind.as_ref());
        for (model, commit) in &then.models {
            look(format!("the model `{model}`"), Some(commit), self.models.get(model));
        }
        found
    }
}

/// SHA-256 over the canonical JSON of the settings, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

impl Identity {
    /// The identity of one server configuration under one workload. Repeats share it.
    pub fn of_experiment(engine: Engine, server: &ServerConfig, workload: &Workload, context: &Context) -> Self {
        let mut settings = server_settings(engine, server, context);
        settings["bench"] = json!(sorted(&workload.flags));
        if !workload.client.is_vllm() {
            settings["client"] = json!(workload.client);
        }
        Self::of(&settings)
    }

    /// The identity of a server configuration: experiments that share it can share its start.
    pub fn of_server(engine: Engine, server: &ServerConfig, context: &Context) -> Self {
        Self::of(&server_settings(engine, server, context))
    }

    /// The identity of a workload alone, whatever sends it.
    pub fn of_workload(workload: &Workload) -> Self {
        Self::of(&json!(sorted(&workload.flags)))
    }

    /// The identity of what another program's file says of its settings.
    pub fn of_stated(settings: &BTreeMap<String, String>) -> Self {
        Self::of(&json!({ "stated": settings }))
    }

    /// 64 bits from which the simulation draws how one start of a server varies. They follow from its settings and the number
    /// of the start; not from the settings of the simulation, so that another fault leaves the rest as it was, nor from what is
    /// known of this machine.
    pub fn draw_of_start(server: &ServerConfig, repeat: Repeat) -> u64 {
        Self::of(&without_simulation(server)).draw(&format!("start/{}", repeat.start))
    }

    /// The same of one measurement.
    pub fn draw_of_measurement(server: &ServerConfig, workload: &Workload, repeat: Repeat) -> u64 {
        let mut settings = without_simulation(server);
        settings["bench"] = json!(sorted(&workload.flags));
        settings["client"] = json!(workload.client);
        Self::of(&settings).draw(&format!("run/{}/{}", repeat.start, repeat.run))
    }

    /// A number of 32 bits that follows from the identity and `salt`: the same wherever it is asked for.
    pub fn number(&self, salt: u32) -> u64 {
        self.draw(&salt.to_string()) >> 32
    }

    /// 64 bits that follow from the identity and `salt`.
    pub(crate) fn draw(&self, salt: &str) -> u64 {
        let digest = Sha256::digest(format!("{}/{salt}", self.0).as_bytes());
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The identity of a plan: its experiments' identities and repeats, in order, and how it decides which of them to measure.
    pub fn of_plan(experiments: &[Experiment], until_decided: Option<UntilDecided>) -> Self {
        let of = |e: &Experiment| format!("{}/{}/{}", e.identity.0, e.repeat.start, e.repeat.run);
        let search = until_decided.map(|UntilDecided { first, max }| format!("until-decided/{first}/{max}"));
        Self::of(&json!(experiments.iter().map(of).chain(search).collect::<Vec<_>>()))
    }

    /// The first eight digits: enough for a file name or a table.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }

    /// Enough digits that no two of a million are alike.
    pub(crate) fn long(&self) -> &str {
        self.0.get(..24).unwrap_or(&self.0)
    }

    fn of(value: &Value) -> Self {
        let digest = Sha256::digest(value.to_string().as_bytes());
        Identity(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn server_settings(engine: Engine, server: &ServerConfig, context: &Context) -> Value {
    let mut settings = json!({
        "identity-version": 2,
        "engine": engine,
        "vllm-version": context.vllm_version,
        "device-kind": context.device_kind,
        "model": server.model,
        "serve": sorted(&server.flags),
        "env": environment(server),
        "secret-env": server.secret_env,
    });
    if let Some(commit) = context.models.get(&server.model) {
        settings["model-commit"] = json!(commit);
    }
    let others = server.all_models().into_iter().filter(|model| *model != server.model);
    let others: BTreeMap<String, &String> =
        others.filter_map(|model| context.models.get(&model).map(|commit| (model, commit))).collect();
    if !others.is_empty() {
        settings["other-commits"] = json!(others);
    }
    settings
}

/// The settings of a server that a real one would have too.
fn without_simulation(server: &ServerConfig) -> Value {
    let variables = server.env.iter().filter(|(name, _)| !name.starts_with("VLLM_BENCH_SIM_"));
    let env: BTreeMap<&str, &str> = variables.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    json!({"model": server.model, "serve": sorted(&server.flags), "env": env})
}

/// The speed of the simulation changes how long one waits and no metric: it works in virtual time.
const WITHOUT_EFFECT: &str = "VLLM_BENCH_SIM_SPEED";

fn environment(server: &ServerConfig) -> BTreeMap<&str, &str> {
    let variables = server.env.iter().filter(|(name, _)| *name != WITHOUT_EFFECT);
    variables.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// The order of flags means nothing to vLLM, so it means nothing to the identity.
fn sorted(flags: &Flags) -> BTreeMap<&str, Value> {
    flags.iter().map(|(name, value)| (name, json!(value))).collect()
}
