//! What a sweep must know of this machine before it is planned: vLLM's version, the devices, the models. Nothing is run
//! for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::bounded;
use crate::config::{Environment, Place, Settings};
use crate::model::{Context, named_models};
use crate::plan::{ModelFacts, Section};
use crate::preflight::installed_version;
use crate::process::DeviceLocks;
use crate::telemetry::{DeviceKind, Probe, check, devices};

/// Fills in what a sweep takes for granted: identities and the rules of good sense rest on it. `program` is the vLLM
/// that will be run, where there is one.
pub fn gather(settings: &mut Settings, environment: &Environment, program: Option<&Path>) {
    settings.sweep.models = models(settings, environment);
    if settings.simulated() {
        // The simulated vLLM is part of this program, and says itself when it has too few devices.
        return;
    }
    if settings.place == Place::Slurm {
        // Nodes have other devices than the machine from which they are asked for, and perhaps another vLLM.
        let version = program.filter(|_| settings.slurm.runs_what_is_here()).and_then(installed_version);
        let models = known_commits(settings, environment);
        settings.sweep.context = Context { vllm_version: version, device_kind: None, models };
        return;
    }
    let report = devices::detect(&probe(settings, environment));
    if report.kind != DeviceKind::Cpu && report.slots > 0 {
        settings.sweep.devices = settings.sweep.devices.or(Some(report.slots));
    }
    tell_other_devices(settings, report.kind);
    settings.sweep.context = Context {
        vllm_version: program.and_then(installed_version),
        device_kind: Some(report.kind.label().to_ascii_lowercase()),
        models: known_commits(settings, environment),
    };
}

/// This machine, looked at without disturbing who measures on its devices.
pub fn probe(settings: &Settings, environment: &Environment) -> Probe {
    let quiet = settings.device_locks.as_deref().is_some_and(DeviceLocks::any_held);
    Probe { quiet, ..Probe::of_machine(environment.vars().clone()) }
}

/// The rule of the presets that is due to a failure of vLLM's XPU build.
const OF_XPU: &str = "fp8-needs-eager";

/// Says of the rule that is due to a failure of the XPU build that the devices of this machine are others, and how to measure what it
/// leaves out.
fn tell_other_devices(settings: &mut Settings, kind: DeviceKind) {
    if !matches!(kind, DeviceKind::Cuda | DeviceKind::Rocm) || !is_preset(settings, OF_XPU) {
        return;
    }
    let device = kind.label();
    for rule in settings.sweep.exclude.iter_mut().filter(|rule| rule.name == OF_XPU) {
        rule.reason = format!("known failure of the XPU build; on {device}: `--no-rule {OF_XPU}`");
        rule.explanation = Some(format!(
            "the failure of fp8 without eager execution is known of vLLM's XPU build, and this machine has {device} devices: these \
             combinations may work here, and may be the fastest; `--no-rule {OF_XPU}` measures them"
        ));
    }
}

/// The versions of the weights of a sweep. Where vLLM is told which revision to take, or to look elsewhere, its flags say so in
/// every identity, and what lies in the hub's cache says nothing.
fn known_commits(settings: &Settings, environment: &Environment) -> BTreeMap<String, String> {
    let mut axes = settings.sweep.groups.iter().flat_map(|group| &group.serve);
    if axes.any(|axis| ["revision", "download-dir"].contains(&axis.key.as_str())) {
        return BTreeMap::new();
    }
    let axes = settings.sweep.groups.iter().flat_map(|group| &group.serve);
    let flags = axes.flat_map(|axis| axis.values.iter().filter_map(|value| value.flag(&axis.key, Section::Serve)));
    let named = flags.flat_map(|(flag, value)| named_models(&flag, value.words()));
    let models: BTreeSet<String> = named.chain(model_names(settings)).collect();
    commits(&models, environment)
}

/// Which version of its weights each model is, where they are at hand: the commit that the hub's cache has as `main`, or a digest
/// of a local directory.
pub fn commits(models: &BTreeSet<String>, environment: &Environment) -> BTreeMap<String, String> {
    let cache = check::hf_hub_cache(environment.vars());
    let commit = |name: &String| {
        let local = environment.absolute(name);
        let commit = if local.is_dir() { digest_of(&local) } else { commit_of(name, cache.as_deref()?) };
        Some((name.clone(), commit?))
    };
    models.iter().filter_map(commit).collect()
}

/// The largest file that is read for a commit or digest; an index of weights has a few hundred kilobytes.
const LARGEST_READ: u64 = 64 << 20;

/// What a regular file of reasonable size holds.
fn small_file(path: &Path) -> Option<Vec<u8>> {
    let meta = path.metadata().ok()?;
    (meta.is_file() && meta.len() <= LARGEST_READ).then(|| std::fs::read(path).ok())?
}

/// The commit of `main`, if its snapshot is there.
fn commit_of(name: &str, cache: &Path) -> Option<String> {
    let folder = cache.join(format!("models--{}", name.replace('/', "--")));
    let commit = String::from_utf8(small_file(&folder.join("refs/main"))?).ok()?.trim().to_owned();
    let is_commit = (7..=64).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_commit && folder.join("snapshots").join(&commit).is_dir()).then_some(commit)
}

/// A digest over the configuration and the index of the weights, and over names and sizes of the weights themselves: reading
/// those would take minutes.
fn digest_of(folder: &Path) -> Option<String> {
    use sha2::{Digest, Sha256};
    let config = small_file(&folder.join("config.json"))?;
    let mut digest = Sha256::new();
    digest.update(&config);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for path in files {
        let name = path.file_name()?.to_string_lossy().into_owned();
        if name.ends_with(".index.json") {
            digest.update(small_file(&path).unwrap_or_default());
        }
        let weights =
            [".safetensors", ".bin", ".pt", ".gguf", ".index.json"].iter().any(|ending| name.ends_with(ending));
        if let Some(meta) = path.metadata().ok().filter(|meta| weights && meta.is_file()) {
            digest.update(format!("\n{name} {}\n", meta.len()));
        }
    }
    Some(format!("sha256:{}", digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>()))
}

fn model_names(settings: &Settings) -> BTreeSet<String> {
    let axes = settings.sweep.groups.iter().flat_map(|group| &group.serve).filter(|axis| axis.key == "model");
    axes.flat_map(|axis| &axis.values).map(|value| value.shown()).collect()
}

/// What the configurations of the models say, where they are at hand.
fn models(settings: &Settings, environment: &Environment) -> BTreeMap<String, ModelFacts> {
    let names = model_names(settings);
    let cache = check::hf_hub_cache(environment.vars());
    let facts = |name: String| {
        let path = model_config(&name, environment, cache.as_deref())?;
        let config: Json = serde_json::from_slice(&bounded::read(&path, bounded::TEXT).ok()?).ok()?;
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
    fn on_other_devices_the_rule_of_the_xpu_build_says_how_to_measure_what_it_leaves_out() {
        let environment = Environment::of(&[], Path::new("/"));
        let told = |kind| {
            let args = crate::cli::RunArgs::default();
            let mut settings = Settings::resolve(&args, &environment, crate::config::Preset::Full).unwrap();
            tell_other_devices(&mut settings, kind);
            let skip = settings.plan().unwrap().skips.remove(0);
            (skip.reason, skip.explanation.unwrap())
        };
        for kind in [DeviceKind::Cuda, DeviceKind::Rocm] {
            let (reason, explanation) = told(kind);
            assert!(reason.contains("XPU build") && reason.contains("`--no-rule fp8-needs-eager`"), "{reason}");
            assert!(explanation.contains(kind.label()) && explanation.contains("may be the fastest"), "{explanation}");
        }
        for kind in [DeviceKind::Xpu, DeviceKind::Cpu] {
            assert!(told(kind).0.ends_with("(known failure)"), "{}", told(kind).0);
        }
    }

    #[test]
    fn the_text_part_of_a_multimodal_model_counts() {
        let plain = read_config(&json!({"num_attention_heads": 32, "max_position_embeddings": 4096}));
        assert_eq!((plain.attention_heads, plain.max_position_embeddings), (Some(32), Some(4096)));
        let text = read_config(&json!({"num_attention_heads": 1, "text_config": {"num_attention_heads": 8}}));
        assert_eq!((text.attention_heads, text.max_position_embeddings), (Some(8), None));
    }
}
