//! The machine of a run and its settings, as the manifest says them (secrets were cut out when it was written).

use serde::Serialize;

use super::super::display::clean;
use crate::analyse::{Facts, RunTable};
use crate::record::{Manifest, RunDir};
use crate::telemetry::Device;

/// One run's machine and settings, as shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Machine {
    /// Name of the run.
    pub run: String,
    /// What it is, and its value.
    pub fields: Vec<(String, String)>,
    /// Setting, value, origin.
    pub settings: Vec<(String, String, String)>,
    /// Names of the devices, for the head of the page.
    pub devices: String,
    /// Name of the host.
    pub host: String,
}

/// The machines of all runs of a table, in its order.
pub(super) fn of(table: &RunTable) -> Vec<Machine> {
    std::iter::once(&table.facts).chain(&table.more).filter_map(read).collect()
}

fn read(facts: &Facts) -> Option<Machine> {
    let manifest = RunDir::open(&facts.directory).ok()?.manifest().ok()?;
    Some(Machine::from(&manifest))
}

impl From<&Manifest> for Machine {
    fn from(manifest: &Manifest) -> Self {
        let host = &manifest.host;
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        let devices = devices(&manifest.devices.devices);
        let fields = [
            ("Host", host.hostname.clone()),
            ("System", host.os.clone()),
            ("Kernel", host.kernel.clone()),
            ("Container", host.container.clone()),
            ("Processor", host.cpu_model.clone()),
            ("Sockets", number(host.cpu_sockets)),
            ("Logical processors", number(host.logical_cpus)),
            ("Processors allowed", host.cgroup_cpus.map(|cpus| format!("{cpus:.1}"))),
            ("Memory", host.memory_total_bytes.map(gigabytes)),
            ("Memory allowed", host.cgroup_memory_bytes.map(gigabytes)),
            ("Device kind", word(&manifest.devices.kind)),
            ("Devices", (!devices.is_empty()).then(|| devices.clone())),
            ("Device drivers", drivers(&manifest.devices.devices)),
            ("Found by", (!manifest.devices.sources.is_empty()).then(|| manifest.devices.sources.join(", "))),
            ("Engine", word(&manifest.engine)),
            ("vLLM", manifest.vllm.as_ref().map(|vllm| vllm.path.display().to_string())),
            ("vLLM version", manifest.vllm.as_ref().and_then(|vllm| vllm.version.clone())),
            ("vllm-bench", Some(manifest.vllm_bench.clone())),
            ("Time limits", Some(limits(manifest))),
        ];
        let settings = manifest
            .settings
            .iter()
            .map(|(key, setting)| (clean(key), value(&setting.value), clean(&setting.origin)))
            .collect();
        Self {
            run: clean(&manifest.run),
            fields: fields
                .into_iter()
                .filter_map(|(label, value)| Some((label.to_owned(), clean(&value?))))
                .chain(manifest.devices.problems.iter().map(|problem| ("Device problem".to_owned(), clean(problem))))
                .collect(),
            settings,
            devices: clean(&devices),
            host: clean(host.hostname.as_deref().unwrap_or_default()),
        }
    }
}

fn limits(manifest: &Manifest) -> String {
    let limits = manifest.limits;
    format!("start {} s, benchmark {} s, grace {} s", limits.startup, limits.benchmark, limits.grace)
}

/// `4 x Intel Arc Pro B60 (24 GB)`.
fn devices(devices: &[Device]) -> String {
    let mut kinds: indexmap::IndexMap<(&str, Option<u64>), usize> = indexmap::IndexMap::new();
    for device in devices {
        *kinds.entry((device.name.as_deref().unwrap_or("unnamed device"), device.memory_total_bytes)).or_default() += 1;
    }
    let named = kinds.into_iter().map(|((name, memory), count)| {
        let memory = memory.map(|bytes| format!(" ({})", gigabytes(bytes))).unwrap_or_default();
        format!("{count} x {name}{memory}")
    });
    named.collect::<Vec<String>>().join(", ")
}

fn drivers(devices: &[Device]) -> Option<String> {
    let mut drivers: Vec<String> = Vec::new();
    for device in devices {
        let Some(driver) = &device.driver else { continue };
        let version = device.driver_version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        let text = format!("{driver}{version}");
        if !drivers.contains(&text) {
            drivers.push(text);
        }
    }
    (!drivers.is_empty()).then(|| drivers.join(", "))
}

/// A value of a closed set as files have it.
fn word(value: &impl Serialize) -> Option<String> {
    Some(serde_json::to_value(value).ok()?.as_str()?.to_owned())
}

/// A setting's value: texts as they are, lists with commas, the rest as JSON.
fn value(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => clean(text),
        serde_json::Value::Array(items) => items.iter().map(self::value).collect::<Vec<String>>().join(", "),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Object(_) => clean(&value.to_string()),
    }
}

fn gigabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
    let gigabytes = bytes as f64 / f64::from(1 << 30);
    format!("{gigabytes:.1} GiB")
}
