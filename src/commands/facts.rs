//! What a sweep must know of this machine before it is planned: vLLM's version, the devices, the models. Nothing is run
//! for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::config::{Environment, Settings};
use crate::plan::{Context, ModelFacts, Section};
use crate::preflight::installed_version;
use crate::telemetry::{DeviceKind, Probe, check, devices};

/// Fills in what a sweep takes for granted: identities and the rules of good sense rest on it. `program` is the vLLM
/// that will be run, where there is one.
pub fn gather(settings: &mut Settings, environment: &Environment, program: Option<&Path>) {
    settings.sweep.models = models(settings, environment);
    if settings.simulated() {
        // The simulated vLLM is part of this program, and says itself when it has too few devices.
        return;
    }
    let report = devices::detect(&Probe::of_machine(environment.vars().clone()));
    if report.kind != DeviceKind::Cpu && report.slots > 0 {
        settings.sweep.devices = settings.sweep.devices.or(Some(report.slots));
    }
    settings.sweep.context = Context {
        vllm_version: program.and_then(installed_version),
        device_kind: Some(report.kind.label().to_ascii_lowercase()),
    };
}

/// What the configurations of the models say, where they are at hand.
fn models(settings: &Settings, environment: &Environment) -> BTreeMap<String, ModelFacts> {
    let axes = settings.sweep.groups.iter().flat_map(|group| &group.serve).filter(|axis| axis.key == "model");
    let names: BTreeSet<String> = axes.flat_map(|axis| &axis.values).map(|value| value.shown()).collect();
    let cache = check::hf_hub_cache(environment.vars());
    let facts = |name: String| {
        let path = model_config(&name, environment, cache.as_deref())?;
        let config: Json = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        Some((name, read_config(&config)))
    };
    names.into_iter().filter_map(facts).collect()
}

/// `config.json` of a local directory, or of the newest snapshot in the hub's cache.
fn model_config(name: &str, environment: &Environment, cache: Option<&Path>) -> Option<PathBuf> {
    let local = environment.absolute(name).join("config.json");
    if local.is_file() {
        return Some(local);
    }
    let snapshots = cache?.join(format!("models--{}", name.replace('/', "--"))).join("snapshots");
    let dated = std::fs::read_dir(snapshots).ok()?.flatten().filter_map(|entry| {
        let config = entry.path().join("config.json");
        Some((config.metadata().ok()?.modified().ok()?, config))
    });
    dated.max().map(|(_, config)| config)
}

/// A multimodal model has its text part in `text_config`.
fn read_config(config: &Json) -> ModelFacts {
    let text = config.get("text_config").filter(|text| text.is_object()).unwrap_or(config);
    let number = |key: &str| text.get(key).and_then(Json::as_u64);
    ModelFacts {
        attention_heads: number("num_attention_heads"),
        max_position_embeddings: number("max_position_embeddings"),
    }
}

/// Warnings about rules that match nothing, each with its place.
pub fn idle_rules(settings: &Settings, idle: &[String]) -> Vec<String> {
    let warning = |name: &String| {
        let place = settings.places.rule(name).filter(|_| !is_preset(settings, name))?;
        Some(format!("{place}: the rule `{name}` matches no combination"))
    };
    idle.iter().filter_map(warning).collect()
}

/// A preset's rule may well match nothing of what the user made of it.
fn is_preset(settings: &Settings, name: &str) -> bool {
    matches!(settings.places.rule(name), Some(crate::config::Origin::Preset { .. }))
}

/// Where a flag or variable of the sweep stands, for messages.
pub fn place(settings: &Settings, section: Section, key: &str, value: &str) -> Option<String> {
    settings.places.value(section, key, value).map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_text_part_of_a_multimodal_model_counts() {
        let plain = read_config(&json!({"num_attention_heads": 32, "max_position_embeddings": 4096}));
        assert_eq!((plain.attention_heads, plain.max_position_embeddings), (Some(32), Some(4096)));
        let text = read_config(&json!({"num_attention_heads": 1, "text_config": {"num_attention_heads": 8}}));
        assert_eq!((text.attention_heads, text.max_position_embeddings), (Some(8), None));
    }
}
