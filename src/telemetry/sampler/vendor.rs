//! Vendors' tools, where the kernel says nothing of a card: what they print, as samples by PCI address. Numbers of metrics and devices are
//! never assumed: columns are known by their headers, cards by what the tool itself lists.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::super::drm::normal_pci;
use super::super::gpu::{json_in, xpu};
use super::super::probe::Probe;
use super::DeviceSample;

const MIB: f64 = 1_048_576.0;

/// A tool that is asked for samples.
#[derive(Debug)]
pub(super) enum Tool {
    /// `xpu-smi` 1.x: `dump`.
    XpuDump { path: PathBuf, cards: BTreeMap<u32, String> },
    /// `xpu-smi` 2.x: `--query-gpu`, with the fields that it knows.
    XpuQuery { path: PathBuf, cards: BTreeMap<u32, String>, fields: String },
    /// `amd-smi`.
    Amd { path: PathBuf, cards: BTreeMap<u32, String> },
    /// `rocm-smi`, the older one.
    Rocm { path: PathBuf },
}

/// Fields of `xpu-smi --query-gpu` that a sample has.
const FIELDS: [&str; 8] = [
    "index",
    "pci.bus_id",
    "utilization.gpu",
    "memory.used",
    "memory.total",
    "temperature.gpu",
    "power.draw",
    "clocks.current.graphics",
];

impl Tool {
    /// Intel's, in the form that is installed. `xpu-smi stats` disturbs a card that works; `dump` and queries do not.
    pub fn of_intel(probe: &Probe) -> Option<Self> {
        let path = probe.find_tool("xpu-smi")?;
        let cards = xpu::addresses(probe, &path);
        // Without a field the newer one lists those that it has; the older one does not know the flag.
        if let Ok(listed) = probe.answer(&path, &["--query-gpu"]) {
            let words: Vec<&str> = listed.split(|sign: char| sign.is_whitespace() || sign == ',').collect();
            let fields: Vec<&str> = FIELDS.into_iter().filter(|field| words.contains(field)).collect();
            if fields.contains(&"power.draw") {
                return Some(Self::XpuQuery { path, cards, fields: fields.join(",") });
            }
        }
        (!cards.is_empty()).then_some(Self::XpuDump { path, cards })
    }

    /// AMD's: the newer one, else the older.
    pub fn of_amd(probe: &Probe) -> Option<Self> {
        if let Some(path) = probe.find_tool("amd-smi")
            && let Ok(listed) = probe.answer(&path, &["list", "--json"])
        {
            return Some(Self::Amd { path, cards: amd_cards(&listed) });
        }
        Some(Self::Rocm { path: probe.find_tool("rocm-smi")? })
    }

    /// The name of the program, and how it is asked.
    pub fn name(&self) -> &'static str {
        match self {
            Self::XpuDump { .. } => "xpu-smi dump",
            Self::XpuQuery { .. } => "xpu-smi --query-gpu",
            Self::Amd { .. } => "amd-smi metric",
            Self::Rocm { .. } => "rocm-smi",
        }
    }

    /// What it says now, by PCI address; nothing where it fails.
    pub fn samples(&self, probe: &Probe) -> BTreeMap<String, DeviceSample> {
        let ask = |path: &PathBuf, words: &[&str]| probe.answer(path, words).unwrap_or_default();
        match self {
            Self::XpuDump { path, cards } => {
                // The numbers of these metrics have moved between releases: what each column is, its header says.
                of_table(&ask(path, &["dump", "-d", "-1", "-m", "0,1,2,3,18", "-n", "1"]), cards)
            }
            Self::XpuQuery { path, cards, fields } => {
                of_table(&ask(path, &[&format!("--query-gpu={fields}"), "--format=csv"]), cards)
            }
            Self::Amd { path, cards } => of_amd_smi(&ask(path, &["metric", "--json"]), cards),
            Self::Rocm { path } => {
                let words = ["--showbus", "--showuse", "--showpower", "--showtemp", "--showmeminfo", "vram", "--json"];
                of_rocm_smi(&ask(path, &words))
            }
        }
    }
}

/// Adds to a sample what is absent in it.
pub(super) fn fill(sample: &mut DeviceSample, told: &DeviceSample) {
    let take = |ours: &mut Option<f64>, theirs: Option<f64>| *ours = ours.or(theirs);
    take(&mut sample.utilization_pct, told.utilization_pct);
    take(&mut sample.power_w, told.power_w);
    take(&mut sample.temperature_c, told.temperature_c);
    take(&mut sample.memory_temperature_c, told.memory_temperature_c);
    take(&mut sample.clock_mhz, told.clock_mhz);
    sample.memory_used_bytes = sample.memory_used_bytes.or(told.memory_used_bytes);
    sample.memory_total_bytes = sample.memory_total_bytes.or(told.memory_total_bytes);
}

/// A table with a header line: `Timestamp, DeviceId, GPU Utilization (%), GPU Power (W)`, or `index, power.draw [W]`. Lines that are no
/// rows of it, and words such as `N/A`, are nothing.
fn of_table(text: &str, cards: &BTreeMap<u32, String>) -> BTreeMap<String, DeviceSample> {
    let mut rows = text.lines().map(|line| line.split(',').map(str::trim).collect::<Vec<_>>());
    let is_header = |words: &Vec<&str>| words.len() > 1 && words.iter().any(|word| is_power(&word.to_lowercase()));
    let Some(header) = rows.find(is_header) else { return BTreeMap::new() };
    let header: Vec<String> = header.iter().map(|word| word.to_lowercase()).collect();
    let mut found = BTreeMap::new();
    for (place, row) in rows.filter(|row| row.len() == header.len()).enumerate() {
        let number = |is: &dyn Fn(&str) -> bool| {
            let column = header.iter().position(|name| is(name))?;
            // A unit may stand behind it.
            row.get(column)?.split_whitespace().next()?.parse::<f64>().ok().filter(|number| number.is_finite())
        };
        let whole = |number: f64| (number >= 0.0).then_some(number as u32);
        let id = number(&|name| name == "deviceid" || name == "index").and_then(whole);
        let bus = header.iter().position(|name| name.starts_with("pci.bus_id")).and_then(|column| row.get(column));
        let listed = cards.get(&id.unwrap_or_else(|| u32::try_from(place).unwrap_or(u32::MAX))).cloned();
        let Some(address) = bus.map(|bus| normal_pci(bus)).or(listed) else { continue };
        let memory = |number: Option<f64>| number.filter(|mib| *mib >= 0.0).map(|mib| (mib * MIB) as u64);
        let temperature = |name: &str| name.contains("temperature") && !name.contains("memory");
        let sample = DeviceSample {
            address: address.clone(),
            utilization_pct: number(&|name| is_named(name, &["gpu utilization (%)", "utilization.gpu"])),
            memory_used_bytes: memory(number(&|name| is_named(name, &["gpu memory used (mib)", "memory.used"]))),
            memory_total_bytes: memory(number(&|name| is_named(name, &["memory.total"]))),
            power_w: number(&is_power),
            temperature_c: number(&temperature),
            memory_temperature_c: number(&|name| name.contains("memory temperature")),
            clock_mhz: number(&|name| is_named(name, &["gpu frequency (mhz)", "clocks.current.graphics"])),
            ..DeviceSample::default()
        };
        found.insert(address, sample);
    }
    found
}

fn is_named(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| name == *known || name.strip_prefix(known).is_some_and(|rest| rest.starts_with(" [")))
}

fn is_power(name: &str) -> bool {
    is_named(name, &["gpu power (w)", "power.draw"])
}

/// The entries of a list, or of `gpu_data` in an object.
fn entries(document: &Value) -> &[Value] {
    let listed = document.get("gpu_data").unwrap_or(document);
    listed.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn amd_cards(text: &str) -> BTreeMap<u32, String> {
    let document = json_in(text).unwrap_or_default();
    let card = |entry: &Value| {
        let number = u32::try_from(entry.get("gpu")?.as_u64()?).ok()?;
        Some((number, normal_pci(entry.get("bdf")?.as_str()?)))
    };
    entries(&document).iter().filter_map(card).collect()
}

/// `{"gpu": 0, "power": {"socket_power": {"value": 20, "unit": "W"}}, "usage": "N/A"}`.
fn of_amd_smi(text: &str, cards: &BTreeMap<u32, String>) -> BTreeMap<String, DeviceSample> {
    let document = json_in(text).unwrap_or_default();
    let sample = |entry: &Value| {
        let address = cards.get(&u32::try_from(entry.get("gpu")?.as_u64()?).ok()?)?.clone();
        let value = |group: &str, keys: &[&str]| {
            let group = entry.get(group)?;
            let told = keys.iter().find_map(|key| group.get(*key).filter(|told| !told.is_string()))?;
            told.get("value").unwrap_or(told).as_f64()
        };
        let memory = |key: &str| value("mem_usage", &[key]).filter(|mb| *mb >= 0.0).map(|mb| (mb * MIB) as u64);
        let clock = entry.get("clock").and_then(|clocks| clocks.get("gfx_0")?.get("clk")?.get("value")?.as_f64());
        let sample = DeviceSample {
            address: address.clone(),
            utilization_pct: value("usage", &["gfx_activity"]),
            memory_used_bytes: memory("used_vram"),
            memory_total_bytes: memory("total_vram"),
            power_w: value("power", &["socket_power", "current_socket_power", "average_socket_power"]),
            temperature_c: value("temperature", &["hotspot", "junction", "edge"]),
            memory_temperature_c: value("temperature", &["mem"]),
            clock_mhz: clock,
            ..DeviceSample::default()
        };
        Some((address, sample))
    };
    entries(&document).iter().filter_map(sample).collect()
}

/// `{"card0": {"PCI Bus": "0000:C9:00.0", "Average Graphics Package Power (W)": "128.0"}}`: all values are text.
fn of_rocm_smi(text: &str) -> BTreeMap<String, DeviceSample> {
    let document = json_in(text).unwrap_or_default();
    let cards = document.as_object().into_iter().flatten();
    let sample = |(_, card): (&String, &Value)| {
        let address = normal_pci(card.get("PCI Bus")?.as_str()?);
        let value = |keys: &[&str]| keys.iter().find_map(|key| card.get(*key)?.as_str()?.trim().parse::<f64>().ok());
        let bytes = |key: &str| value(&[key]).filter(|bytes| *bytes >= 0.0).map(|bytes| bytes as u64);
        let sample = DeviceSample {
            address: address.clone(),
            utilization_pct: value(&["GPU use (%)"]),
            memory_used_bytes: bytes("VRAM Total Used Memory (B)"),
            memory_total_bytes: bytes("VRAM Total Memory (B)"),
            power_w: value(&["Average Graphics Package Power (W)", "Current Socket Graphics Package Power (W)"]),
            temperature_c: value(&["Temperature (Sensor junction) (C)", "Temperature (Sensor edge) (C)"]),
            memory_temperature_c: value(&["Temperature (Sensor memory) (C)"]),
            ..DeviceSample::default()
        };
        Some((address, sample))
    };
    cards.filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Tree;
    use super::*;

    const FIRST: &str = "0000:03:00.0";

    fn cards() -> BTreeMap<u32, String> {
        BTreeMap::from([(0, FIRST.to_owned()), (1, "0000:13:00.0".to_owned())])
    }

    #[test]
    fn columns_are_known_by_their_headers_whatever_their_order() {
        let told = of_table(
            "note: metrics are experimental\nTimestamp, DeviceId, GPU Power (W), GPU Utilization (%), GPU Core Temperature (Celsius Degree), GPU Memory Used (MiB)\n\
             06:14:46.000, 1, 151.50, N/A, 61.00, 2048\n06:14:46.000,    0, N/A, N/A, N/A, N/A\n",
            &cards(),
        );
        let second = &told["0000:13:00.0"];
        assert_eq!((second.power_w, second.utilization_pct, second.temperature_c), (Some(151.5), None, Some(61.0)));
        assert_eq!(second.memory_used_bytes, Some(2 << 30));
        assert_eq!(told[FIRST], DeviceSample { address: FIRST.into(), ..DeviceSample::default() });
        assert!(of_table("no devices", &cards()).is_empty());
        let queried = of_table("index, power.draw [W], memory.used [MiB]\n0, 98.20 W, 512 MiB\n", &cards());
        assert_eq!((queried[FIRST].power_w, queried[FIRST].memory_used_bytes), (Some(98.2), Some(512 << 20)));
    }

    #[test]
    fn groups_that_are_not_available_are_nothing() {
        let text = r#"WARNING: odd
            {"gpu_data": [{"gpu": 1, "usage": "N/A", "power": {"socket_power": "N/A", "average_socket_power": {"value": 20, "unit": "W"}},
             "clock": {"gfx_0": {"clk": {"value": 14, "unit": "MHz"}}}, "temperature": {"hotspot": {"value": 42, "unit": "C"}, "mem": "N/A"}},
             {"gpu": 9, "power": {"socket_power": {"value": 1}}}]}"#;
        let told = of_amd_smi(text, &cards());
        let card = &told["0000:13:00.0"];
        assert_eq!(told.len(), 1, "a card that nothing lists is left out");
        assert_eq!((card.power_w, card.utilization_pct, card.clock_mhz), (Some(20.0), None, Some(14.0)));
        assert_eq!((card.temperature_c, card.memory_temperature_c), (Some(42.0), None));
        let old = r#"{"card0": {"PCI Bus": "0000:C9:00.0", "Average Graphics Package Power (W)": "128.0", "GPU use (%)": "100"},
            "card1": {"PCI Bus": "0000:CA:00.0", "Average Graphics Package Power (W)": "N/A"}, "system": {"Driver version": "6.7"}}"#;
        let told = of_rocm_smi(old);
        assert_eq!(told["0000:c9:00.0"].power_w, Some(128.0));
        assert_eq!(told["0000:ca:00.0"].power_w, None);
    }

    #[test]
    fn the_form_of_xpu_smi_that_is_installed_is_asked() {
        let discovery = r#"{"device_list": [{"device_id": 0, "pci_bdf_address": "0000:03:00.0"}]}"#;
        let tree = Tree::new();
        let old = format!(
            "case \"$1\" in discovery) echo '{discovery}';; dump) printf 'Timestamp, DeviceId, GPU Power (W)\\n1, 0, 88.0\\n';; *) exit 1;; esac"
        );
        tree.tool("xpu-smi", &old);
        let tool = Tool::of_intel(&tree.probe()).unwrap();
        assert_eq!(tool.name(), "xpu-smi dump");
        assert_eq!(tool.samples(&tree.probe())[FIRST].power_w, Some(88.0));
        let new = format!(
            "case \"$1\" in discovery) echo '{discovery}';; --query-gpu) echo 'index power.draw energy.consumed';; \
             --query-gpu=index,power.draw) printf 'index, power.draw [W]\\n0, 77.0\\n';; *) exit 1;; esac"
        );
        tree.tool("xpu-smi", &new);
        let tool = Tool::of_intel(&tree.probe()).unwrap();
        assert_eq!(tool.name(), "xpu-smi --query-gpu");
        assert_eq!(tool.samples(&tree.probe())[FIRST].power_w, Some(77.0));
    }
}
