//! Sensors of a PCI device as the kernel shows them under `hwmon/hwmon*`: energy in microjoules, power in microwatts, temperatures in
//! thousandths of a degree, each with a label where the driver has several
//! (<https://docs.kernel.org/hwmon/sysfs-interface.html>).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::probe::{read_number, read_text};
use super::counter::EnergyCounter;

/// The sensors of one device.
#[derive(Debug, Clone, Default)]
pub(super) struct Sensors {
    folder: Option<PathBuf>,
    /// Counters of energy with their labels, in the order in which they are preferred.
    energy: Vec<Energy>,
}

#[derive(Debug, Clone)]
struct Energy {
    label: String,
    path: PathBuf,
    counter: EnergyCounter,
    /// It has grown since the first look: a counter that stands still is of another part, or not supported.
    moved: bool,
    first: Option<u64>,
}

impl Sensors {
    /// The sensors of the device with this sysfs folder. A counter of the whole card is preferred to one of the package.
    pub fn of(sysfs: &Path) -> Self {
        let Some(folder) = first_folder(&sysfs.join("hwmon")) else { return Self::default() };
        let mut energy: Vec<Energy> = (1..=4)
            .map(|n| (n, folder.join(format!("energy{n}_input"))))
            .filter(|(_, path)| path.exists())
            .map(|(n, path)| Energy {
                label: label(&folder, &format!("energy{n}_label"))
                    .unwrap_or_else(|| if n == 1 { "card" } else { "pkg" }.to_owned()),
                path,
                counter: EnergyCounter::default(),
                moved: false,
                first: None,
            })
            .collect();
        energy.sort_by_key(|energy| energy.label != "card");
        Self { folder: Some(folder), energy }
    }

    /// Power and energy: of the first counter that moves, else the driver's own power sensor. Watts, joules since the first reading.
    pub fn power(&mut self, at: Duration) -> (Option<f64>, Option<f64>) {
        for energy in &mut self.energy {
            let Some(value) = read_number(&energy.path) else { continue };
            let first = *energy.first.get_or_insert(value);
            energy.moved |= value != first;
            let watts = energy.counter.read(value, at, None);
            if energy.moved {
                // The others go on counting: this one may vanish.
                let joules = energy.counter.joules();
                self.read_others(at);
                return (watts, joules);
            }
        }
        let sensor = |name: &str| {
            self.folder.as_ref().and_then(|folder| read_number(&folder.join(name))).map(|micro| micro as f64 / 1e6)
        };
        (sensor("power1_average").or_else(|| sensor("power1_input")), None)
    }

    /// Whether there is a sensor of power or energy.
    pub fn tell_power(&self) -> bool {
        let there = |name: &str| self.folder.as_ref().is_some_and(|folder| folder.join(name).exists());
        !self.energy.is_empty() || there("power1_average") || there("power1_input")
    }

    fn read_others(&mut self, at: Duration) {
        let used = self.energy.iter().position(|energy| energy.moved);
        for energy in self.energy.iter_mut().skip(used.map_or(usize::MAX, |used| used + 1)) {
            if let Some(value) = read_number(&energy.path) {
                energy.first.get_or_insert(value);
                energy.counter.read(value, at, None);
            }
        }
    }

    /// Temperature by label, degrees Celsius: the first sensor with one of these labels, else of these numbers.
    pub fn temperature(&self, labels: &[&str], numbers: &[u32]) -> Option<f64> {
        let folder = self.folder.as_ref()?;
        let named = (1..=8)
            .find(|n| label(folder, &format!("temp{n}_label")).is_some_and(|label| labels.contains(&label.as_str())));
        let number =
            named.or_else(|| numbers.iter().copied().find(|n| folder.join(format!("temp{n}_input")).exists()))?;
        read_number(&folder.join(format!("temp{number}_input"))).map(|milli| milli as f64 / 1000.0)
    }

    /// Which counter tells the energy, in words.
    pub fn energy_from(&self) -> Option<&str> {
        self.energy.iter().find(|energy| energy.moved).map(|energy| energy.label.as_str())
    }

    /// Readings that were dropped.
    pub fn dropped(&self) -> u32 {
        self.energy.iter().map(|energy| energy.counter.dropped()).sum()
    }

    /// A clock in MHz from a sensor in Hz.
    pub fn clock(&self) -> Option<f64> {
        let hertz = read_number(&self.folder.as_ref()?.join("freq1_input"))?;
        Some(hertz as f64 / 1e6)
    }
}

fn first_folder(parent: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(parent).ok()?.flatten().map(|entry| entry.path()).collect();
    found.sort();
    found.into_iter().find(|path| path.is_dir())
}

fn label(folder: &Path, name: &str) -> Option<String> {
    read_text(&folder.join(name))
}
