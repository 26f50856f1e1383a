//! What a server could be given for itself here: address, memory, NUMA node and links, who holds its lock, and who uses it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::format;
use crate::execute::told_holders;
use crate::fold;
use crate::process::{DeviceHolder, DeviceLocks};
use crate::safe;
use crate::telemetry::check::{LockFacts, WatchedFacts, shown_argv};
use crate::telemetry::{DeviceKind, Inventory, Probe, Sampler, UnitUser, inventory, unit_users};
use crate::ui::Ui;
use crate::words::counted;

/// How far two samples lie apart.
const BETWEEN: Duration = Duration::from_millis(300);

/// The inventory with its holders and users.
#[derive(Debug)]
pub struct Units {
    inventory: Inventory,
    holders: Vec<DeviceHolder>,
    users: Vec<UnitUser>,
    locks: LockFacts,
}

impl Units {
    /// Looks at the machine. `folder`: where devices are locked; it is made where it is missing, as a run would.
    pub fn gather(probe: &Probe, kind: DeviceKind, folder: Option<&std::path::Path>) -> Self {
        // Cores are shown by NUMA node.
        let inventory = inventory(probe, kind, 0);
        let mut locks =
            LockFacts { folder: folder.map(Into::into), devices: inventory.units.len(), ..LockFacts::default() };
        let mut holders = Vec::new();
        match folder.map(DeviceLocks::at) {
            None => {}
            Some(Err(error)) => locks.problem = Some((error.to_string(), error.hints().swap_remove(0))),
            Some(Ok(folder)) => {
                holders.extend(inventory.units.iter().filter_map(|unit| folder.holder(&unit.address)));
                locks.held = told_holders(&holders);
            }
        }
        let users = unit_users(probe, kind, &inventory.units);
        Self { inventory, holders, users, locks }
    }

    /// What the line about the locks is made of.
    pub fn locks(&self) -> &LockFacts {
        &self.locks
    }

    /// What a run could sample of them: two samples, as counters tell by their differences.
    pub fn watched(&self, probe: &Probe) -> WatchedFacts {
        let Inventory { kind, units, .. } = &self.inventory;
        let units = if *kind == DeviceKind::Cpu { &[] } else { units.as_slice() };
        let mut sampler = Sampler::new(probe.clone(), *kind, units);
        sampler.sample(&[], &[]);
        std::thread::sleep(BETWEEN);
        let told = sampler.sample(&[], &[]).devices;
        WatchedFacts {
            kind: *kind,
            devices: units.len(),
            told,
            energy_from: sampler.energy_from(),
            tool: sampler.tool(),
            processors: sampler.counts_processors(),
        }
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        let users: Vec<Value> = self
            .users
            .iter()
            .map(|user| {
                let command = (!user.argv.is_empty()).then(|| shown_argv(&user.argv));
                json!({
                    "address": user.address, "pid": user.pid, "uid": user.uid, "command": command,
                    "memory_bytes": user.memory_bytes,
                })
            })
            .collect();
        let Inventory { kind, units, links, problems, .. } = &self.inventory;
        json!({
            "kind": kind, "units": units, "links": links, "problems": problems, "holders": self.holders, "users": users,
        })
    }

    /// A line for each unit.
    pub fn lines(&self, ui: &Ui) -> Vec<String> {
        let units = &self.inventory.units;
        if units.is_empty() {
            return Vec::new();
        }
        let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let rows: Vec<[String; 5]> = units
            .iter()
            .map(|unit| {
                [
                    unit.address.clone(),
                    unit.name.clone().unwrap_or_else(|| "unknown model".to_owned()),
                    unit.memory_bytes.map_or_else(|| "memory unknown".to_owned(), gib),
                    unit.numa.map_or_else(|| "NUMA unknown".to_owned(), |node| format!("NUMA {node}")),
                    unit.group.clone().unwrap_or_default(),
                ]
            })
            .collect();
        let columns = ui.display.columns_out.unwrap_or(usize::MAX);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..5).map(width).collect();
        let what = if self.inventory.kind == DeviceKind::Cpu { "core set" } else { "device" };
        let kind = self.inventory.kind.label();
        let mut shown = vec![format!("\n{} that a server can have for itself ({kind}):", counted(units.len(), what))];
        for (unit, row) in units.iter().zip(&rows) {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            let state = self.state(&unit.address);
            let line = format!("  {}  {state}", line.trim_end());
            if fold::width(&line) <= columns {
                shown.push(line);
                continue;
            }
            // No table on a narrow terminal.
            let parts = row.iter().map(String::as_str).filter(|cell| !cell.is_empty()).chain([state.as_str()]);
            let lines = format::packed(parts, "  ", columns.saturating_sub(4));
            shown.push(format!("  {}", lines.join("\n    ")));
        }
        for problem in &self.inventory.problems {
            let lines = format::packed([problem.as_str()], "", columns.saturating_sub(2));
            shown.extend(lines.iter().map(|line| format!("  {}", ui.dim(line))));
        }
        shown
    }

    /// Who holds it, and who uses it.
    fn state(&self, address: &str) -> String {
        let holder = self.holders.iter().find(|holder| holder.device == address);
        let held = holder.map(|holder| {
            let who = holder
                .pid
                .map_or_else(|| "a process that cannot be seen from here".to_owned(), |pid| format!("process {pid}"));
            let of = holder.user.as_ref().map(|user| format!(" of {user}")).unwrap_or_default();
            format!("locked by {who}{of}")
        });
        let used = self.users.iter().filter(|user| user.address == address).map(shown_user);
        let words: Vec<String> = held.into_iter().chain(used).collect();
        if words.is_empty() { "free".to_owned() } else { words.join("; ") }
    }
}

/// `used by process 77 (python3 train.py), 12.3 GiB`.
fn shown_user(user: &UnitUser) -> String {
    let who = match user.pid {
        Some(pid) if user.argv.is_empty() => format!("process {pid}"),
        Some(pid) => format!("process {pid} (`{}`)", safe::redact(&shown_argv(&user.argv))),
        None => "somebody who cannot be seen from here".to_owned(),
    };
    let memory = user.memory_bytes.map(|bytes| format!(", {:.1} GiB", bytes as f64 / f64::from(1 << 30)));
    format!("used by {who}{}", memory.unwrap_or_default())
}
