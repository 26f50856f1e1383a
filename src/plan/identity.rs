//! The identity of an experiment: a hash over all that defines it.
//!
//! Two experiments with the same identity may stand for each other when a run is resumed; so everything that can
//! change a number is inside, and everything that cannot (port, paths of results, position, name) is not.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Engine, Flags, ServerConfig, Workload};

/// SHA-256 over the canonical JSON of the settings, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

impl Identity {
    /// The identity of one server configuration under one workload.
    pub fn of_experiment(engine: Engine, server: &ServerConfig, workload: &Workload) -> Self {
        Self::of(&json!({
            "identity-version": 1,
            "engine": engine,
            "model": server.model,
            "serve": sorted(&server.flags),
            "env": environment(server),
            "secret-env": server.secret_env,
            "bench": sorted(&workload.flags),
        }))
    }

    /// The identity of a plan: its experiments' identities, in order.
    pub fn of_plan<'a>(experiments: impl Iterator<Item = &'a Identity>) -> Self {
        Self::of(&json!(experiments.map(|identity| &identity.0).collect::<Vec<_>>()))
    }

    /// The first eight digits: enough for a file name or a table.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
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

/// The speed of the simulation changes how long one waits and no figure: it works in virtual time.
const WITHOUT_EFFECT: &str = "VLLM_BENCH_SIM_SPEED";

fn environment(server: &ServerConfig) -> BTreeMap<&str, &str> {
    let variables = server.env.iter().filter(|(name, _)| *name != WITHOUT_EFFECT);
    variables.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// The order of flags means nothing to vLLM, so it means nothing to the identity.
fn sorted(flags: &Flags) -> BTreeMap<&str, Value> {
    flags.iter().map(|(name, value)| (name, json!(value))).collect()
}
