//! Intel GPUs under xe or i915: energy and temperatures from hwmon, clocks and reasons of throttling from sysfs, use from the counters
//! of their users (`/proc/PID/fdinfo`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::devices::{DeviceKind, memory_readings};
use super::super::drm::{self, RenderNode};
use super::super::probe::{Probe, read_number, read_text};
use super::super::procfs;
use super::counter::dropped_warning;
use super::hwmon::Sensors;
use super::{DeviceSample, Source};
use crate::model::ComputeUnit;

/// Users of the devices are looked for anew after so many samples; in between their known descriptors are read.
const LOOK_AGAIN: u32 = 10;

/// The Intel GPUs of a sampler.
#[derive(Debug)]
pub(super) struct Intel {
    cards: Vec<Card>,
    users: Users,
    /// Whether the kernel shows every one of them.
    all_found: bool,
}

#[derive(Debug)]
struct Card {
    address: String,
    pci: String,
    sysfs: PathBuf,
    memory_total_bytes: Option<u64>,
    sensors: Sensors,
    /// Per engine class: time worked and time passed at the last sample.
    worked: BTreeMap<String, Engine>,
}

impl Intel {
    /// The cards to which these units belong.
    pub fn new(probe: &Probe, units: &[ComputeUnit]) -> Self {
        let nodes = drm::render_nodes(probe, drm::INTEL);
        let card = |unit: &ComputeUnit| {
            let pci = unit.address.clone();
            let node: &RenderNode = nodes.iter().find(|node| node.pci_address.as_deref() == Some(&pci))?;
            Some(Card {
                address: unit.address.clone(),
                sensors: Sensors::of(&node.sysfs),
                sysfs: node.sysfs.clone(),
                memory_total_bytes: unit.memory_bytes,
                worked: BTreeMap::new(),
                pci,
            })
        };
        let cards: Vec<Card> = units.iter().filter_map(card).collect();
        Self { all_found: cards.len() == units.len(), cards, users: Users::default() }
    }
}

impl Source for Intel {
    fn tells_power(&self) -> bool {
        self.all_found && self.cards.iter().all(|card| card.sensors.tell_power())
    }

    fn read(&mut self, probe: &Probe, at: Duration) -> Vec<DeviceSample> {
        let memory = memory_readings(probe, DeviceKind::Xpu);
        let busy = self.users.read(probe);
        let sample = |card: &mut Card| {
            let (power_w, energy_j) = card.sensors.power(at);
            let used = memory.iter().find(|reading| reading.pci_address.as_deref() == Some(&card.pci));
            DeviceSample {
                address: card.address.clone(),
                utilization_pct: card.utilization(busy.get(&card.pci), at),
                memory_used_bytes: used.and_then(|reading| reading.used_bytes),
                memory_total_bytes: card.memory_total_bytes,
                power_w,
                energy_j,
                temperature_c: card.sensors.temperature(&["pkg"], &[2, 1]),
                memory_temperature_c: card.sensors.temperature(&["vram"], &[3]),
                clock_mhz: clock(&card.sysfs),
                throttled: throttle_reasons(&card.sysfs),
            }
        };
        self.cards.iter_mut().map(sample).collect()
    }

    fn energy_from(&self) -> Option<String> {
        let labels: Vec<&str> = self.cards.iter().filter_map(|card| card.sensors.energy_from()).collect();
        let first = labels.first()?;
        Some(match *first {
            "card" => "the energy counter of the whole card".to_owned(),
            label => format!("the energy counter of the {}", if label == "pkg" { "package" } else { label }),
        })
    }

    fn warnings(&self) -> Vec<String> {
        self.cards.iter().filter_map(|card| dropped_warning(card.sensors.dropped(), &card.address)).collect()
    }
}

/// Work of one engine class of a card: summed over its users.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Engine {
    /// Cycles (xe) or nanoseconds (i915) in which it worked for them.
    worked: u64,
    /// Cycles that passed; `None` where the driver counts nanoseconds.
    passed: Option<u64>,
    /// Engines of the class.
    capacity: u64,
    /// When it was read.
    at: Duration,
}

impl Card {
    /// The share of the busiest engine class since the last sample. A user that left takes its counters away: a class that went
    /// backwards says nothing this time.
    fn utilization(&mut self, now: Option<&BTreeMap<String, Engine>>, at: Duration) -> Option<f64> {
        let now: BTreeMap<String, Engine> =
            now?.iter().map(|(class, engine)| (class.clone(), Engine { at, ..*engine })).collect();
        let share = |class: &String, engine: &Engine| {
            let before = self.worked.get(class)?;
            let worked = engine.worked.checked_sub(before.worked)? as f64;
            let passed = match engine.passed.zip(before.passed) {
                Some((now, then)) => now.checked_sub(then)? as f64,
                None => at.checked_sub(before.at)?.as_nanos() as f64,
            };
            let passed = passed * engine.capacity.max(1) as f64;
            (passed > 0.0).then(|| (100.0 * worked / passed).min(100.0))
        };
        let busiest = now.iter().filter_map(|(class, engine)| share(class, engine)).reduce(f64::max);
        self.worked = now;
        busiest
    }
}

/// Who has the devices open, remembered between samples.
#[derive(Debug, Default)]
struct Users {
    descriptors: Vec<(i32, String)>,
    samples: u32,
}

impl Users {
    /// Work by card and engine class.
    fn read(&mut self, probe: &Probe) -> BTreeMap<String, BTreeMap<String, Engine>> {
        if self.samples.is_multiple_of(LOOK_AGAIN) {
            self.descriptors = descriptors(probe);
        }
        self.samples += 1;
        let mut counted = Vec::new();
        let mut cards: BTreeMap<String, BTreeMap<String, Engine>> = BTreeMap::new();
        for (pid, number) in &self.descriptors {
            let Some(text) = procfs::fdinfo(&probe.root, *pid, number) else { continue };
            let client = drm::parse_fdinfo(&text);
            let Some(card) = client.pci_address else { continue };
            let key = (card.clone(), client.id);
            if client.id.is_some() && counted.contains(&key) {
                continue;
            }
            counted.push(key);
            add_work(&text, cards.entry(card).or_default());
        }
        cards
    }
}

/// The descriptors of render nodes that can be looked into.
fn descriptors(probe: &Probe) -> Vec<(i32, String)> {
    let of = |pid: i32| {
        let found = procfs::descriptors(&probe.root, pid).unwrap_or_default();
        let nodes = found.into_iter().filter(|(_, target)| target.starts_with("/dev/dri"));
        nodes.map(|(number, _)| (pid, number)).collect::<Vec<_>>()
    };
    procfs::pids(&probe.root).into_iter().flat_map(of).collect()
}

/// Adds what a user's fdinfo says of engines: `drm-cycles-ccs: N` beside `drm-total-cycles-ccs: N` (xe), `drm-engine-compute: N ns`
/// (i915), `drm-engine-capacity-ccs: N` (both).
fn add_work(text: &str, engines: &mut BTreeMap<String, Engine>) {
    let number = |value: &str| value.split_whitespace().next()?.parse::<u64>().ok();
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let Some(value) = number(value) else { continue };
        if let Some(class) = key.strip_prefix("drm-total-cycles-") {
            let engine = engines.entry(class.to_owned()).or_default();
            engine.passed = Some(engine.passed.unwrap_or_default().max(value));
        } else if let Some(class) = key.strip_prefix("drm-engine-capacity-") {
            engines.entry(class.to_owned()).or_default().capacity = value;
        } else if let Some(class) = key.strip_prefix("drm-cycles-").or_else(|| key.strip_prefix("drm-engine-")) {
            let engine = engines.entry(class.to_owned()).or_default();
            engine.worked = engine.worked.saturating_add(value);
        }
    }
}

/// The clock of the main engines, MHz: xe's `tile0/gt0/freq0/act_freq`, i915's `gt/gt0/rps_act_freq_mhz`.
fn clock(sysfs: &Path) -> Option<f64> {
    let i915 = || {
        let card = first_card(sysfs)?;
        ["gt/gt0/rps_act_freq_mhz", "gt_act_freq_mhz"].iter().find_map(|name| read_number(&card.join(name)))
    };
    let mhz = read_number(&sysfs.join("tile0/gt0/freq0/act_freq")).or_else(i915)?;
    // A card that sleeps has no clock.
    (mhz > 0).then_some(mhz as f64)
}

fn first_card(sysfs: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(sysfs.join("drm")).ok()?;
    let mut cards: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("card"))
        .map(|entry| entry.path())
        .collect();
    cards.sort();
    cards.into_iter().next()
}

/// The files whose value is not 0 in xe's `tile*/gt*/freq0/throttle/reason_*` or i915's `gt/gt*/throttle_reason_*`.
fn throttle_reasons(sysfs: &Path) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    let mut look = |folder: &Path, prefix: &str| {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(reason) = name.strip_prefix(prefix).filter(|reason| *reason != "status") else { continue };
            if read_text(&entry.path()).is_some_and(|value| value != "0")
                && !reasons.iter().any(|known| known == reason)
            {
                reasons.push(reason.to_owned());
            }
        }
    };
    for tile in 0..4 {
        for gt in 0..4 {
            look(&sysfs.join(format!("tile{tile}/gt{gt}/freq0/throttle")), "reason_");
        }
    }
    if let Some(card) = first_card(sysfs) {
        for gt in 0..4 {
            look(&card.join(format!("gt/gt{gt}")), "throttle_reason_");
        }
    }
    reasons.sort();
    reasons
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Tree;
    use super::super::Sampler;
    use super::*;

    const CARD: &str = "sys/class/drm/renderD128/device";

    fn arc() -> Tree {
        let tree = Tree::new();
        tree.render_node(128, ("0x8086", "0xe211"), "xe", "0000:03:00.0");
        for (name, value) in [
            ("energy1_label", "card"),
            ("energy2_label", "pkg"),
            ("energy1_input", "1000000"),
            ("energy2_input", "800000"),
            ("temp2_label", "pkg"),
            ("temp2_input", "61000"),
            ("temp3_label", "vram"),
            ("temp3_input", "70000"),
        ] {
            tree.file(&format!("{CARD}/hwmon/hwmon5/{name}"), value);
        }
        tree.file(&format!("{CARD}/tile0/gt0/freq0/act_freq"), "2400");
        tree.file(&format!("{CARD}/tile0/gt0/freq0/throttle/status"), "1");
        tree.file(&format!("{CARD}/tile0/gt0/freq0/throttle/reason_pl1"), "1");
        tree.file(&format!("{CARD}/tile0/gt0/freq0/throttle/reason_thermal"), "0");
        tree
    }

    fn sampler(tree: &Tree) -> Sampler {
        let unit =
            ComputeUnit { address: "0000:03:00.0".to_owned(), memory_bytes: Some(24 << 30), ..ComputeUnit::default() };
        Sampler::new(tree.probe(), DeviceKind::Xpu, &[unit])
    }

    fn energy(tree: &Tree, number: u32, microjoules: u64) {
        tree.file(&format!("{CARD}/hwmon/hwmon5/energy{number}_input"), &microjoules.to_string());
    }

    fn at(sampler: &mut Sampler, seconds: u64) -> DeviceSample {
        sampler.sample_at(Duration::from_secs(seconds), &[], &[]).devices.remove(0)
    }

    #[test]
    fn a_card_tells_energy_temperatures_clock_and_why_it_is_throttled() {
        let tree = arc();
        let mut sampler = sampler(&tree);
        at(&mut sampler, 0);
        energy(&tree, 1, 201_000_000);
        energy(&tree, 2, 160_800_000);
        let sample = at(&mut sampler, 1);
        assert_eq!((sample.power_w, sample.energy_j), (Some(200.0), Some(200.0)));
        assert_eq!((sample.temperature_c, sample.memory_temperature_c), (Some(61.0), Some(70.0)));
        assert_eq!((sample.clock_mhz, sample.throttled), (Some(2400.0), vec!["pl1".to_owned()]));
        assert_eq!(sampler.energy_from().as_deref(), Some("the energy counter of the whole card"));
    }

    #[test]
    fn where_the_card_s_counter_stands_still_the_package_s_is_taken_and_named() {
        let tree = arc();
        let mut sampler = sampler(&tree);
        at(&mut sampler, 0);
        energy(&tree, 2, 160_800_000);
        let sample = at(&mut sampler, 2);
        assert_eq!((sample.power_w, sample.energy_j), (Some(80.0), Some(160.0)));
        assert_eq!(sampler.energy_from().as_deref(), Some("the energy counter of the package"));
    }

    #[test]
    fn a_counter_that_runs_backwards_is_dropped_with_a_warning() {
        let tree = arc();
        let mut sampler = sampler(&tree);
        at(&mut sampler, 0);
        energy(&tree, 1, 201_000_000);
        at(&mut sampler, 1);
        energy(&tree, 1, 1_000_000);
        let sample = at(&mut sampler, 2);
        assert_eq!((sample.power_w, sample.energy_j), (None, Some(200.0)));
        assert_eq!(sampler.warnings().len(), 1, "{:?}", sampler.warnings());
    }

    #[test]
    fn use_is_the_share_of_the_busiest_engine_over_all_users() {
        let tree = arc();
        let fdinfo = |pid: i32, id: u32, worked: u64, passed: u64| {
            let text = format!(
                "drm-driver:\txe\ndrm-client-id:\t{id}\ndrm-pdev:\t0000:03:00.0\ndrm-cycles-ccs:\t{worked}\ndrm-total-cycles-ccs:\t{passed}\n\
                 drm-cycles-bcs:\t0\ndrm-total-cycles-bcs:\t{passed}\ndrm-engine-capacity-bcs:\t9\n"
            );
            tree.file(&format!("proc/{pid}/fdinfo/3"), &text);
        };
        for pid in [10, 11] {
            tree.process(pid, "VLLM::EngineCor", &["VLLM::EngineCore"], 0, 1);
            tree.descriptor(pid, 3, "/dev/dri/renderD128", "");
        }
        fdinfo(10, 1, 100, 1000);
        fdinfo(11, 2, 0, 1000);
        let mut sampler = sampler(&tree);
        assert_eq!(at(&mut sampler, 0).utilization_pct, None);
        fdinfo(10, 1, 400, 2000);
        fdinfo(11, 2, 200, 2000);
        assert_eq!(at(&mut sampler, 1).utilization_pct, Some(50.0));
    }

    #[test]
    fn i915_counts_nanoseconds() {
        let mut engines = BTreeMap::new();
        add_work("drm-engine-compute:\t500000000 ns\ndrm-engine-capacity-video:\t2\n", &mut engines);
        assert_eq!(engines["compute"], Engine { worked: 500_000_000, ..Engine::default() });
        assert_eq!(engines["video"].capacity, 2);
    }

    #[test]
    fn a_card_that_vanishes_tells_nothing_more_and_disturbs_nobody() {
        let tree = arc();
        let mut sampler = sampler(&tree);
        at(&mut sampler, 0);
        std::fs::remove_dir_all(tree.path().join("sys/class/drm/renderD128")).unwrap();
        let sample = at(&mut sampler, 1);
        assert_eq!((sample.power_w, sample.energy_j, sample.clock_mhz), (None, None, None));
    }
}
