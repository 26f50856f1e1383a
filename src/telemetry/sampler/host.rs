//! The host: how busy its processors are and with whom, memory, swap, load, and energy where RAPL counts it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::super::host::memory_facts;
use super::super::probe::{Probe, read_number};
use super::counter::{EnergyCounter, dropped_warning};

/// The host at one moment. Shares of the processors are percent of one core: 800 is eight whole cores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostSample {
    /// All that ran since the last sample.
    pub cpu_pct: Option<f64>,
    /// The server's processes.
    pub server_cpu_pct: Option<f64>,
    /// The client's processes.
    pub client_cpu_pct: Option<f64>,
    /// Bytes of memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Bytes of swap in use.
    pub swap_used_bytes: Option<u64>,
    /// Runnable processes, mean of the last minute.
    pub load: Option<f64>,
    /// Watts of the processors' packages since the last sample.
    pub power_w: Option<f64>,
    /// Joules of the processors' packages since the sampler began.
    pub energy_j: Option<f64>,
}

/// Clock ticks per second in `/proc`: 100 on every architecture on which Linux runs vLLM.
const TICKS: f64 = 100.0;

/// What is remembered of the host between samples.
#[derive(Debug, Default)]
pub(super) struct HostSource {
    /// When and how many ticks all processors had worked.
    all: Option<(Duration, u64)>,
    /// Ticks of every process that was asked for.
    ticks: BTreeMap<i32, u64>,
    last: Option<Duration>,
    packages: Vec<Package>,
}

/// Whether a counter can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It can.
    Yes,
    /// It is there, and this user may not read it.
    NotReadable,
    /// There is none.
    NotThere,
}

/// A package that RAPL counts: `/sys/class/powercap/intel-rapl:N` (AMD's processors too).
#[derive(Debug)]
struct Package {
    folder: PathBuf,
    range: Option<u64>,
    counter: EnergyCounter,
}

impl HostSource {
    pub fn new(probe: &Probe) -> Self {
        let entries = std::fs::read_dir(probe.at("/sys/class/powercap")).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = entries
            .filter(|entry| {
                // `intel-rapl:0` is a package; `intel-rapl:0:1` is a part of one.
                let name = entry.file_name().to_string_lossy().into_owned();
                name.strip_prefix("intel-rapl:").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
            })
            .map(|entry| entry.path())
            .collect();
        folders.sort();
        let package = |folder: PathBuf| Package {
            range: read_number(&folder.join("max_energy_range_uj")),
            counter: EnergyCounter::default(),
            folder,
        };
        Self { packages: folders.into_iter().map(package).collect(), ..Self::default() }
    }

    pub fn read(&mut self, probe: &Probe, at: Duration, server: &[i32], client: &[i32]) -> HostSample {
        let memory = memory_facts(probe);
        let (power_w, energy_j) = self.energy(at);
        let server_cpu_pct = self.share(probe, at, server);
        let client_cpu_pct = self.share(probe, at, client);
        self.ticks.retain(|pid, _| server.contains(pid) || client.contains(pid));
        self.last = Some(at);
        HostSample {
            cpu_pct: self.all(probe, at),
            server_cpu_pct,
            client_cpu_pct,
            memory_used_bytes: memory.used_bytes(),
            swap_used_bytes: swap_used(probe),
            load: probe.text("/proc/loadavg").and_then(|text| text.split_whitespace().next()?.parse().ok()),
            power_w,
            energy_j,
        }
    }

    fn energy(&mut self, at: Duration) -> (Option<f64>, Option<f64>) {
        let mut watts = None;
        for package in &mut self.packages {
            // Only root may read it on most machines.
            let Some(value) = read_number(&package.folder.join("energy_uj")) else { continue };
            if let Some(of_package) = package.counter.read(value, at, package.range) {
                *watts.get_or_insert(0.0) += of_package;
            }
        }
        let joules = self.packages.iter().filter_map(|package| package.counter.joules()).reduce(|a, b| a + b);
        (watts, joules)
    }

    /// What these processes used since the last sample.
    fn share(&mut self, probe: &Probe, at: Duration, pids: &[i32]) -> Option<f64> {
        let mut used = 0;
        for &pid in pids {
            let Some(now) = process_ticks(probe, pid) else { continue };
            // What a process used before it was first seen belongs to no sample.
            used += self.ticks.insert(pid, now).and_then(|before| now.checked_sub(before)).unwrap_or_default();
        }
        let passed = at.checked_sub(self.last?)?.as_secs_f64();
        (passed > 0.0 && !pids.is_empty()).then(|| 100.0 * used as f64 / TICKS / passed)
    }

    fn all(&mut self, probe: &Probe, at: Duration) -> Option<f64> {
        let text = probe.text("/proc/stat")?;
        // `cpu  user nice system idle iowait irq softirq steal …`: all but idle and iowait.
        let fields: Vec<u64> =
            text.lines().next()?.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
        let worked =
            fields.iter().take(8).enumerate().filter(|(n, _)| !matches!(n, 3 | 4)).map(|(_, ticks)| ticks).sum();
        let (then, before) = self.all.replace((at, worked))?;
        let passed = at.checked_sub(then)?.as_secs_f64();
        let used = worked.checked_sub(before)?;
        (passed > 0.0).then(|| 100.0 * used as f64 / TICKS / passed)
    }

    /// Whether the energy of the processors can be read.
    pub fn counted(&self) -> Counted {
        match self.packages.first() {
            None => Counted::NotThere,
            Some(package) if read_number(&package.folder.join("energy_uj")).is_some() => Counted::Yes,
            Some(_) => Counted::NotReadable,
        }
    }

    pub fn warnings(&self) -> Vec<String> {
        let dropped: u32 = self.packages.iter().map(|package| package.counter.dropped()).sum();
        dropped_warning(dropped, "the processors").into_iter().collect()
    }
}

fn process_ticks(probe: &Probe, pid: i32) -> Option<u64> {
    let text = probe.text(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15, counted after the name, which may hold spaces and parentheses.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let (user, kernel): (u64, u64) = (fields.nth(11)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + kernel)
}

fn swap_used(probe: &Probe) -> Option<u64> {
    let text = probe.text("/proc/meminfo")?;
    let kib = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    Some(kib("SwapTotal:")?.checked_sub(kib("SwapFree:")?)? << 10)
}

#[cfg(test)]
mod tests {
    use super::super::super::devices::DeviceKind;
    use super::super::super::fixture::Tree;
    use super::super::Sampler;
    use super::*;

    fn machine(cpu: &str, ticks: u64, energy: &str) -> Tree {
        let tree = Tree::new();
        change(&tree, cpu, ticks, energy);
        tree.file("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 100 kB\nSwapFree: 90 kB\n");
        tree.file("proc/loadavg", "3.50 1.0 0.5 2/300 4711\n");
        tree.file("sys/class/powercap/intel-rapl:0/max_energy_range_uj", "100000000");
        tree.file("sys/class/powercap/intel-rapl:0:0/energy_uj", "1");
        tree
    }

    fn change(tree: &Tree, cpu: &str, ticks: u64, energy: &str) {
        tree.file("proc/stat", &format!("cpu  {cpu}\ncpu0 1 2 3\n"));
        tree.file("proc/7/stat", &format!("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 {ticks} 50 0 0 20 0 1 0 99 1 1\n"));
        tree.file("sys/class/powercap/intel-rapl:0/energy_uj", energy);
    }

    #[test]
    fn shares_of_the_processors_memory_swap_load_and_energy() {
        let tree = machine("100 0 100 5000 7 0 0 0 0 0", 100, "90000000");
        let mut sampler = Sampler::new(tree.probe(), DeviceKind::Cpu, &[]);
        let first = sampler.sample_at(Duration::ZERO, &[7], &[]).host;
        assert_eq!((first.cpu_pct, first.server_cpu_pct, first.power_w), (None, None, None));
        change(&tree, "300 0 200 5100 7 0 0 0 0 0", 250, "30000000");
        let host = sampler.sample_at(Duration::from_secs(2), &[7], &[8]).host;
        let expected = HostSample {
            cpu_pct: Some(150.0),
            server_cpu_pct: Some(75.0),
            client_cpu_pct: Some(0.0),
            memory_used_bytes: Some(600 << 10),
            swap_used_bytes: Some(10 << 10),
            load: Some(3.5),
            power_w: Some(20.0),
            energy_j: Some(40.0),
        };
        assert_eq!(host, expected, "the counter wrapped at 100 J");
    }
}
