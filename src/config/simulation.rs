//! The settings of the simulated vLLM: checked before anything starts, and carried into the scripts as variables.

use indexmap::IndexMap;

use super::Error;
use super::language::Document;
use super::tree::{Kind, Node, Raw};
use crate::sim::settings::{SettingError, SimSettings};

/// The variables that carry the simulation's settings into the scripts, checked before anything starts.
pub(super) fn simulation(document: &Document) -> Result<Vec<(String, String)>, Error> {
    let sim = document.sim.clone().unwrap_or_default();
    let keys = [
        (&sim.speed, "VLLM_BENCH_SIM_SPEED"),
        (&sim.seed, "VLLM_BENCH_SIM_SEED"),
        (&sim.devices, "VLLM_BENCH_SIM_DEVICES"),
        (&sim.device_memory, "VLLM_BENCH_SIM_DEVICE_MEMORY_GIB"),
        (&sim.noise, "VLLM_BENCH_SIM_NOISE"),
        (&sim.noise_within, "VLLM_BENCH_SIM_NOISE_WITHIN"),
        (&sim.drift, "VLLM_BENCH_SIM_DRIFT"),
        (&sim.outliers, "VLLM_BENCH_SIM_OUTLIERS"),
        (&sim.interference, "VLLM_BENCH_SIM_INTERFERENCE"),
        (&sim.fault, "VLLM_BENCH_SIM_FAULT"),
    ];
    let mut settings = None;
    let mut given: IndexMap<&str, String> = IndexMap::new();
    for (raw, variable) in keys {
        let Some(raw) = raw.as_ref().filter(|raw| raw.node.kind != Kind::Null) else { continue };
        let texts: Option<Vec<String>> = match &raw.node.kind {
            Kind::List(items) => items.iter().map(Node::scalar).collect(),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => {
                raw.node.scalar().map(|text| vec![text])
            }
        };
        let text = texts.ok_or_else(|| Error::wrong(&raw.node, &raw.path, "a word or a number", None))?.join(";");
        given.insert(variable, text.clone());
        let read = SimSettings::from_lookup(|name| given.get(name).cloned());
        settings = Some(read.map_err(|error| not_simulated(raw, &text, error))?);
    }
    Ok(settings.map(|settings| settings.to_env()).unwrap_or_default())
}

/// The simulated vLLM's own client has faults; ours has none of them.
pub(super) fn no_faults_of_the_other_client(document: &Document) -> Result<(), Error> {
    let Some(raw) = document.sim.as_ref().and_then(|sim| sim.fault.as_ref()) else { return Ok(()) };
    let texts = match &raw.node.kind {
        Kind::List(items) => items.iter().filter_map(Node::scalar).collect(),
        _ => raw.node.scalar().unwrap_or_default(),
    };
    match texts.contains("benchmark-") {
        false => Ok(()),
        true => {
            let hint = "leave it out, or use `client: vllm`".to_owned();
            let expected =
                "a fault of the server: `benchmark-…` are faults of vLLM's client, which `client: builtin` replaces";
            Err(Error::wrong(&raw.node, &raw.path, expected, Some(hint)))
        }
    }
}

/// A setting of the simulation that cannot be used: its own error, without the variable that would carry it.
fn not_simulated(raw: &Raw, text: &str, error: SettingError) -> Error {
    let (expected, hint) = match error {
        SettingError::Variable { source, .. } => return not_simulated(raw, text, *source),
        SettingError::Value { expected, .. } => (expected, None),
        SettingError::Fault(fault) => ("`NAME[:PARAM][@key=value][#ATTEMPTS]`", Some(fault.to_string())),
    };
    Error::wrong(&Node::text(text, &raw.node.origin), &raw.path, expected, hint)
}
