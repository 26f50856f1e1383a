//! What vLLM needs: itself, oneAPI's variables, enough devices for the grid, a token and a cache for models.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{CheckLine, listed, shown_bytes};
use crate::telemetry::devices::{DeviceKind, DeviceReport};
use crate::telemetry::host::FolderState;
use crate::telemetry::probe::Environment;
use crate::words::counted;

/// The oldest vLLM whose flags and result keys are known to fit.
const OLDEST_VLLM: (u32, u32) = (0, 14);

/// vLLM as the launch script will see it.
#[derive(Debug, Clone, Default)]
pub struct VllmFacts {
    /// Absolute path of the program; absent when it was not found.
    pub path: Option<PathBuf>,
    /// Its version; absent when it did not tell.
    pub version: Option<String>,
    /// Why it did not tell: how it ended, and its last line.
    pub refusal: Option<String>,
    /// The path that the user asked for (`--vllm-bin`), if any.
    pub asked: Option<PathBuf>,
}

/// Whether vLLM is there, and which.
pub fn vllm(facts: &VllmFacts) -> CheckLine {
    const NAME: &str = "vllm";
    let data = json!({ "path": facts.path, "version": facts.version });
    let Some(path) = &facts.path else {
        return match &facts.asked {
            Some(asked) => CheckLine::failure(
                NAME,
                format!("`{}` is not a program that can be run", asked.display()),
                "correct --vllm-bin",
                data,
            ),
            None => CheckLine::failure(
                NAME,
                "`vllm` is not on PATH",
                "activate the environment that has it, or name it with --vllm-bin PATH; `--engine sim` runs without vLLM",
                data,
            ),
        };
    };
    let path = path.display();
    if let (None, Some(refusal)) = (&facts.version, &facts.refusal) {
        let next = format!("run `{path} --version`: this installation does not load, or its package record is broken");
        return CheckLine::warning(NAME, format!("`{path} --version` did not tell a version: {refusal}"), next, data);
    }
    let Some(version) = &facts.version else {
        let next = format!("run `{path} --version` and see what it says");
        return CheckLine::warning(NAME, format!("{path} does not tell its version"), next, data);
    };
    if release(version).is_some_and(|release| release < OLDEST_VLLM) {
        let next =
            format!("use vLLM {}.{} or newer: flags and results of older ones differ", OLDEST_VLLM.0, OLDEST_VLLM.1);
        return CheckLine::warning(NAME, format!("vLLM {version} at {path} is old"), next, data);
    }
    CheckLine::ok(NAME, format!("vLLM {version} at {path}"), data)
}

/// `0.14.1rc2+cpu` -> (0, 14).
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().trim_start_matches('v').split('.');
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    let release = (digits(parts.next()?)?, digits(parts.next()?)?);
    // Development builds call themselves 0.1.dev123: that says nothing about age.
    (!version.contains(".dev") || release > (0, 1)).then_some(release)
}

/// oneAPI's `setvars.sh`.
#[derive(Debug, Clone)]
pub struct SetvarsFacts {
    /// The devices here.
    pub kind: DeviceKind,
    /// The script; absent with `--setvars none`.
    pub path: Option<PathBuf>,
    /// Whether it is there.
    pub exists: bool,
    /// Whether the user named it (it is not the default).
    pub explicit: bool,
}

/// Whether oneAPI's variables will be set for a server. They are also there when `environment` already has them.
pub fn setvars(facts: &SetvarsFacts, environment: &Environment) -> CheckLine {
    const NAME: &str = "setvars";
    let loaded = ["SETVARS_COMPLETED", "ONEAPI_ROOT"]
        .iter()
        .any(|name| environment.get(*name).is_some_and(|value| !value.is_empty()));
    let data = json!({ "path": facts.path, "exists": facts.exists, "already_loaded": loaded });
    let place = facts.path.as_deref().unwrap_or(Path::new("setvars.sh")).display();
    match (&facts.path, facts.kind) {
        (Some(_), _) if facts.exists => CheckLine::ok(NAME, format!("{place} will be sourced"), data),
        (Some(_), _) if facts.explicit => {
            CheckLine::failure(NAME, format!("{place} is not there"), "correct --setvars, or use --setvars none", data)
        }
        (_, DeviceKind::Xpu) if loaded => CheckLine::ok(NAME, "oneAPI's variables are already set", data),
        (None, DeviceKind::Xpu) => CheckLine::ok(NAME, "oneAPI's setvars.sh is not wanted (--setvars none)", data),
        (Some(_), DeviceKind::Xpu) => CheckLine::warning(
            NAME,
            format!("{place} is not there, and oneAPI's variables are not set"),
            "if a server fails with oneAPI or Level Zero errors, name the script with --setvars PATH; \
             images that bring oneAPI in Python packages need none",
            data,
        ),
        (_, DeviceKind::Cuda | DeviceKind::Rocm | DeviceKind::Cpu) => {
            CheckLine::ok(NAME, format!("not needed on {}", facts.kind.label()), data)
        }
    }
}

/// The visible devices against the tp values of the grid.
pub fn devices(report: &DeviceReport, tps: &[u32]) -> CheckLine {
    const NAME: &str = "devices";
    let data = json!({ "report": report, "tp": tps });
    let mut tps = tps.to_vec();
    tps.sort_unstable();
    tps.dedup();
    let kind = report.kind.label();
    if report.kind == DeviceKind::Cpu {
        return cpu(report, &tps, data);
    }
    let too_many: Vec<String> = tps.iter().filter(|tp| **tp > report.slots).map(u32::to_string).collect();
    let fits = tps.iter().rev().find(|tp| **tp <= report.slots);
    let found = describe(report);
    if report.slots == 0 {
        let next = report.problems.first().cloned().unwrap_or_else(|| hint_for_none(report.kind).to_owned());
        return CheckLine::failure(NAME, format!("no {kind} device is visible"), next, data);
    }
    if !too_many.is_empty() {
        let smaller =
            fits.map_or_else(|| format!("use --tp {}", report.slots), |tp| format!("use --tp values up to {tp}"));
        let next = format!("{smaller}, or make more devices visible ({})", masks(report.kind));
        let message = format!("{found}: tp {} will fail", listed(&too_many));
        return CheckLine::failure(NAME, message, next, data);
    }
    match report.problems.as_slice() {
        [] => CheckLine::ok(NAME, found, data),
        [first, ..] => {
            CheckLine::warning(NAME, format!("{found}; {}", report.problems.join("; ")), next_of(first), data)
        }
    }
}

/// The locks on the devices that a run would use.
#[derive(Debug, Clone, Default)]
pub struct LockFacts {
    /// Their folder; absent with `--device-locks none`.
    pub folder: Option<PathBuf>,
    /// Why it cannot be used, with the next step.
    pub problem: Option<(String, String)>,
    /// Who holds which device, in words.
    pub held: Vec<String>,
    /// How many devices there are.
    pub devices: usize,
}

/// Whether a run could lock its devices now.
pub fn device_locks(facts: &LockFacts) -> CheckLine {
    const NAME: &str = "device-locks";
    let data = json!({ "folder": facts.folder, "held": facts.held, "devices": facts.devices });
    let Some(folder) = &facts.folder else {
        let next = "leave out `--device-locks none`, unless nobody else uses this machine";
        return CheckLine::warning(NAME, "devices are not locked: other runs may take them", next, data);
    };
    if let Some((problem, next)) = &facts.problem {
        return CheckLine::failure(NAME, problem, next, data);
    }
    let folder = folder.display();
    if facts.held.is_empty() {
        return CheckLine::ok(NAME, format!("no other run holds a device (locks in {folder})"), data);
    }
    let message = format!("a run would be refused: {}", facts.held.join("; "));
    CheckLine::failure(NAME, message, "`run --wait` waits until they are free; a mask leaves them out", data)
}

/// The simulated vLLM and its devices against the grid.
pub fn simulated(devices: u32, memory_gib: f64, tps: &[u32]) -> CheckLine {
    const NAME: &str = "devices";
    let data = json!({ "simulated": true, "devices": devices, "memory_gib": memory_gib, "tp": tps });
    let found =
        format!("SIMULATED: {devices} devices, {memory_gib} GiB each; the vLLM inside this program plays the server");
    let too_many: Vec<String> = tps.iter().filter(|tp| **tp > devices).map(u32::to_string).collect();
    if too_many.is_empty() {
        return CheckLine::ok(NAME, found, data);
    }
    let message = format!("{found}: tp {} will fail", listed(&too_many));
    CheckLine::warning(NAME, message, "use smaller --tp values, or more --sim-devices", data)
}

fn cpu(report: &DeviceReport, tps: &[u32], data: serde_json::Value) -> CheckLine {
    const NAME: &str = "devices";
    let model = report.devices.first().and_then(|device| device.name.as_deref()).unwrap_or("unknown model");
    let problems: String = report.problems.iter().map(|problem| format!("; {problem}")).collect();
    let message = format!("no accelerator: vLLM would run on the CPU ({model}){problems}");
    let split: Vec<String> = tps.iter().filter(|tp| **tp > 1).map(u32::to_string).collect();
    if !split.is_empty() {
        let message = format!("{message}; tp {} would split the CPU's cores and memory", listed(&split));
        return CheckLine::warning(NAME, message, "use --tp 1, or `--engine sim` to try things out", data);
    }
    match report.problems.first() {
        Some(first) => CheckLine::warning(NAME, message, next_of(first), data),
        None => CheckLine::ok(NAME, message, data),
    }
}

/// Problems carry their next step after a colon ("…: start the container with …").
fn next_of(problem: &str) -> String {
    let step = problem.rsplit_once(": ").map(|(_, step)| step).filter(|step| step.starts_with("start "));
    step.map_or_else(|| "see that these devices are the ones you mean to measure".to_owned(), str::to_owned)
}

fn describe(report: &DeviceReport) -> String {
    let count = report.devices.len();
    let kind = report.kind.label();
    let name = report.devices.first().and_then(|device| device.name.clone());
    let alike = report.devices.windows(2).all(|pair| pair[0].name == pair[1].name);
    let name = name
        .map_or_else(String::new, |name| if alike { format!(" ({name})") } else { format!(" ({name} and others)") });
    let smallest = report.devices.iter().map(|device| device.memory_total_bytes).min().flatten();
    let memory = smallest.map_or_else(String::new, |bytes| format!(", {} each", shown_bytes(bytes)));
    let tiles = if usize::try_from(report.slots) == Ok(count) {
        String::new()
    } else {
        format!(", counted as {}", report.slots)
    };
    format!("{}{name}{memory}{tiles}", counted(count, &format!("{kind} device")))
}

fn masks(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Xpu => "ZE_AFFINITY_MASK, ONEAPI_DEVICE_SELECTOR, docker run --device /dev/dri",
        DeviceKind::Cuda => "CUDA_VISIBLE_DEVICES, docker run --gpus all",
        DeviceKind::Rocm => "HIP_VISIBLE_DEVICES, docker run --device /dev/kfd --device /dev/dri",
        DeviceKind::Cpu => "none on a CPU",
    }
}

fn hint_for_none(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Xpu => "start the container with --device /dev/dri, and look at ZE_AFFINITY_MASK",
        DeviceKind::Cuda => "start the container with --gpus all, and look at CUDA_VISIBLE_DEVICES",
        DeviceKind::Rocm => {
            "start the container with --device /dev/kfd --device /dev/dri, and look at HIP_VISIBLE_DEVICES"
        }
        DeviceKind::Cpu => "nothing is needed",
    }
}

fn set<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
    environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// Hugging Face's home: `HF_HOME`, else below `XDG_CACHE_HOME` or `~/.cache`.
pub fn hf_home(environment: &Environment) -> Option<PathBuf> {
    if let Some(home) = set(environment, "HF_HOME") {
        return Some(PathBuf::from(home));
    }
    let cache = set(environment, "XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(set(environment, "HOME")?).join(".cache")))?;
    Some(cache.join("huggingface"))
}

/// Where a login leaves the token: `HF_TOKEN_PATH`, else `token` in [`hf_home`].
pub fn hf_token_file(environment: &Environment) -> Option<PathBuf> {
    set(environment, "HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hf_home(environment)?.join("token")))
}

/// Where models are kept: `HF_HUB_CACHE` or `HUGGINGFACE_HUB_CACHE`, else `hub` in [`hf_home`].
pub fn hf_hub_cache(environment: &Environment) -> Option<PathBuf> {
    let named =
        ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].iter().find_map(|name| set(environment, name)).map(PathBuf::from);
    named.or_else(|| Some(hf_home(environment)?.join("hub")))
}

/// Where a Hugging Face token comes from. The token itself is never kept.
#[derive(Clone, Copy)]
enum HfToken {
    /// From this environment variable.
    Variable(&'static str),
    /// From the file that `hf auth login` writes.
    File,
    /// There is none.
    Absent,
}

/// Whether gated models can be fetched. `token_file_exists` speaks of [`hf_token_file`].
pub fn hf_token(environment: &Environment, token_file_exists: bool) -> CheckLine {
    const NAME: &str = "hf-token";
    let variable = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find(|name| set(environment, name).is_some());
    let token = match variable {
        Some(name) => HfToken::Variable(name),
        None if token_file_exists => HfToken::File,
        None => HfToken::Absent,
    };
    let source = match token {
        HfToken::Variable(name) => Some(name),
        HfToken::File => Some("file"),
        HfToken::Absent => None,
    };
    let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| {
        set(environment, name)
            .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()))
    });
    let data = json!({ "set": source.is_some(), "source": source, "offline": offline });
    match token {
        HfToken::Variable(name) if set(environment, name).is_some_and(|value| value.contains(char::is_whitespace)) => {
            let message = format!("{name} is set, but has white space in it");
            CheckLine::warning(NAME, message, format!("set {name} again, without quotes or line ends in it"), data)
        }
        HfToken::Variable(name) => CheckLine::ok(NAME, format!("{name} is set"), data),
        HfToken::File => CheckLine::ok(NAME, "a token file of `hf auth login` is there", data),
        HfToken::Absent if offline => {
            CheckLine::ok(NAME, "no token, and none needed: the hub is offline (HF_HUB_OFFLINE)", data)
        }
        HfToken::Absent => CheckLine::warning(
            NAME,
            "no Hugging Face token: gated models cannot be fetched",
            "export HF_TOKEN=… (docker run -e HF_TOKEN), or run `hf auth login`",
            data,
        ),
    }
}

/// The folder in which models are kept; its size is not computed. Absent when no home folder is known.
pub fn hf_cache(state: Option<&FolderState>) -> CheckLine {
    const NAME: &str = "hf-cache";
    let Some(state) = state else {
        let next = "set HF_HOME to a folder with room for the models";
        return CheckLine::warning(NAME, "no place for models is known: HOME and HF_HOME are not set", next, json!({}));
    };
    let data = json!({ "path": state.path, "exists": state.exists, "writable": state.refusal.is_none() });
    let place = state.path.display();
    match (&state.refusal, state.exists) {
        (None, true) => CheckLine::ok(NAME, format!("models are kept in {place}"), data),
        (None, false) => CheckLine::warning(
            NAME,
            format!("{place} does not exist yet: every model will be fetched first"),
            "to keep models between containers, mount it: docker run -v ~/.cache/huggingface:/root/.cache/huggingface",
            data,
        ),
        (Some(why), true) => CheckLine::warning(
            NAME,
            format!("{place} cannot be written to ({why}): only models that are in it will load"),
            "give this user the folder, or set HF_HOME to another",
            data,
        ),
        (Some(why), false) => {
            let message = format!("{place} does not exist and cannot be made: {why}");
            CheckLine::failure(NAME, message, "set HF_HOME to a folder that this user can write to", data)
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
