//! The devices of a run: locked before anything is begun, so that no other run of this machine, of whichever user, shares them.

use std::time::{Duration, Instant};

use chrono::Utc;

use crate::commands::format;
use crate::config::{Environment, Settings, parse_duration};
use crate::error::Error;
use crate::execute;
use crate::model::{ComputeUnit, Plan};
use crate::process::{DeviceHolder, DeviceLocks, HeldDevices, Signature, Stop, StopLevel};
use crate::telemetry::{DEVICE_MASKS, Probe, visible_units};
use crate::ui::Ui;

use super::detach;

/// How often a held device is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// What it takes, beyond its grace period, until nothing of a killed run holds its devices any more.
const AFTER_GRACE: Duration = Duration::from_secs(15);
/// How often the screen says that it still waits.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// How long a run waits for devices that others hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// So long at most.
    Within(Duration),
    /// As long as it takes.
    Endless,
}

impl Patience {
    /// What `--wait [DURATION]` means.
    ///
    /// # Errors
    /// When it is no duration.
    pub fn of(flag: Option<&Option<String>>) -> Result<Self, Error> {
        match flag {
            None => Ok(Self::None),
            Some(None) => Ok(Self::Endless),
            Some(Some(text)) => parse_duration(text).map(Self::Within).ok_or_else(|| Error::Usage {
                message: format!(
                    "invalid value `{}` for `--wait`: expected a duration such as `10m`, or nothing",
                    text.escape_debug()
                ),
                hint: "write sweep files before the flags: `vllm-bench run FILES --wait`".to_owned(),
            }),
        }
    }
}

/// Devices that a run holds.
#[derive(Debug, Default)]
pub struct Devices {
    /// What its servers may use.
    pub units: Vec<ComputeUnit>,
    /// The locks; `None` where nothing is locked.
    pub held: Option<HeldDevices>,
    /// Whom it waited for, and how long.
    pub waited: Option<String>,
    /// Whether another run measures on other devices of this machine: nothing may be asked that disturbs it.
    pub quiet: bool,
}

/// What else says which devices a list of numbers means.
const BESIDE_MASKS: [&str; 2] = ["ZE_FLAT_DEVICE_HIERARCHY", "CUDA_DEVICE_ORDER"];

/// All that the servers of a plan may use, by the masks of this environment and those that the plan sets for them.
fn units_of(plan: &Plan, environment: &Environment, quiet: bool) -> Vec<ComputeUnit> {
    let is_mask = |name: &str| DEVICE_MASKS.contains(&name) || BESIDE_MASKS.contains(&name);
    let mut masks: Vec<Vec<(String, String)>> = Vec::new();
    for experiment in &plan.experiments {
        let set = experiment.server.env.iter().filter(|(name, _)| is_mask(name));
        let mask: Vec<(String, String)> = set.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !masks.contains(&mask) {
            masks.push(mask);
        }
    }
    let mut units: Vec<ComputeUnit> = Vec::new();
    for mask in masks {
        let probe = Probe { quiet, ..Probe::of_machine(environment.with(&mask).vars().clone()) };
        for unit in visible_units(&probe) {
            if !units.iter().any(|known| known.address == unit.address) {
                units.push(unit);
            }
        }
    }
    units
}

/// Whether Slurm has given this process fewer cores than it may use: Slurm counts them then and binds to none, so that no core is this task's
/// rather than its neighbour's. `allowed`: the cores that it may use.
fn is_counted_only(allowed: usize, environment: &Environment) -> bool {
    let given = environment.get("SLURM_CPUS_ON_NODE").and_then(|count| count.trim().parse::<usize>().ok());
    environment.get("SLURM_JOB_ID").is_some() && given.is_some_and(|given| given < allowed)
}

/// Whether all of these are cores that Slurm only counts.
fn are_counted_only(units: &[ComputeUnit], environment: &Environment) -> bool {
    let cores: Vec<Vec<u32>> = units.iter().filter_map(ComputeUnit::cores).collect();
    !cores.is_empty() && cores.len() == units.len() && is_counted_only(cores.iter().map(Vec::len).sum(), environment)
}

/// What it takes to lock the devices of a run.
pub struct Locking<'a> {
    /// How to run.
    pub settings: &'a Settings,
    /// What its servers are told of devices.
    pub plan: &'a Plan,
    /// What they inherit.
    pub environment: &'a Environment,
    /// How long it waits.
    pub patience: Patience,
    /// Whether another process waits for this one to begin.
    pub is_detached: bool,
    /// Where it says whom it waits for.
    pub ui: &'a Ui,
}

impl Locking<'_> {
    /// Locks what the servers of the run may use; a simulated one uses nothing of this machine. `None`: the user ended the wait.
    ///
    /// # Errors
    /// When others hold a device and it is not waited for, or locks cannot be used.
    pub async fn lock(&self, stop: &mut Stop) -> Result<Option<Devices>, Error> {
        if self.settings.simulated() {
            return Ok(Some(Devices::default()));
        }
        let quiet = self.settings.device_locks.as_deref().is_some_and(DeviceLocks::any_held);
        let (plan, environment) = (self.plan.clone(), self.environment.clone());
        let units = tokio::task::spawn_blocking(move || units_of(&plan, &environment, quiet)).await;
        let units = units.map_err(std::io::Error::other)?;
        let Some(dir) = &self.settings.device_locks else {
            self.ui.warn("devices are not locked (`device-locks: none`): nobody is kept off those of this run");
            return Ok(Some(Devices { units, quiet, ..Devices::default() }));
        };
        if are_counted_only(&units, self.environment) {
            // Slurm keeps the tasks of a node apart by their number of cores: locks on all of them would let only one run.
            return Ok(Some(Devices { units, quiet, ..Devices::default() }));
        }
        let locks = DeviceLocks::at(dir).map_err(execute::Error::from)?;
        let addresses: Vec<String> = units.iter().map(|unit| unit.address.clone()).collect();
        self.wait_for(&locks, &addresses, stop)
            .await
            .map(|held| held.map(|(held, waited)| Devices { units, held: Some(held), waited, quiet }))
    }

    async fn wait_for(
        &self,
        locks: &DeviceLocks,
        addresses: &[String],
        stop: &mut Stop,
    ) -> Result<Option<(HeldDevices, Option<String>)>, Error> {
        let began = Instant::now();
        let mut told: Option<Told> = None;
        loop {
            let now = format::moment(Utc::now(), self.settings.zone);
            let holders = match locks.take(addresses, Signature::new(now)).map_err(execute::Error::from)? {
                Ok(held) => {
                    held.pass_on().map_err(execute::Error::from)?;
                    let seconds = began.elapsed().as_secs();
                    let waited = told.map(|told| {
                        let whom = execute::shown_holders(&told.holders);
                        format!("waited {seconds} s until the devices were free: {whom}")
                    });
                    waited.iter().for_each(|_| self.ui.say(&format!("the devices are free after {seconds} s")));
                    return Ok(Some((held, waited)));
                }
                Err(holders) => holders,
            };
            let is_over = match self.patience {
                // A run was killed, and its guards end its servers: that takes its grace period.
                Patience::None if holders.iter().all(|holder| holder.is_gone) => {
                    began.elapsed() >= self.settings.grace + AFTER_GRACE
                }
                Patience::None => true,
                Patience::Within(limit) => began.elapsed() >= limit,
                Patience::Endless => false,
            };
            if is_over {
                let waited = (self.patience != Patience::None).then(|| began.elapsed());
                return Err(execute::Error::DevicesHeld { holders, waited }.into());
            }
            told = Some(self.tell(told, holders, began));
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.reached(StopLevel::AfterCurrent) => return Ok(None),
            }
            if self.is_detached && detach::nobody_waits() {
                return Ok(None);
            }
        }
    }

    /// Says whom the run waits for: once, again when it is somebody else, and seldom that it still does.
    fn tell(&self, told: Option<Told>, holders: Vec<DeviceHolder>, began: Instant) -> Told {
        let who = |holders: &[DeviceHolder]| holders.iter().map(|holder| holder.pid).collect::<Vec<_>>();
        match told {
            Some(told) if who(&told.holders) == who(&holders) => {
                if told.at.elapsed() < TOLD_EVERY {
                    return told;
                }
                self.ui.say(&format!("still waiting for devices ({} s)", began.elapsed().as_secs()));
            }
            Some(_) | None => {
                let whom = execute::shown_holders(&holders);
                self.ui.say(&format!("waiting for devices: {whom} (Ctrl-C ends the wait)"));
            }
        }
        Told { holders, at: Instant::now() }
    }
}

/// What was said last.
struct Told {
    holders: Vec<DeviceHolder>,
    at: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_that_slurm_only_counts_are_nobodys() {
        let at = std::path::Path::new("/");
        let of = |vars: &[(&str, &str)], units: &[&str]| {
            let unit = |address: &&str| ComputeUnit { address: (*address).to_owned(), ..ComputeUnit::default() };
            are_counted_only(&units.iter().map(unit).collect::<Vec<_>>(), &Environment::of(vars, at))
        };
        let job = [("SLURM_JOB_ID", "7"), ("SLURM_CPUS_ON_NODE", "2")];
        assert!(of(&job, &["cores:0-7"]), "2 of 8, and bound to none");
        assert!(!of(&job, &["cores:4-5"]), "bound to its own: locked by their addresses");
        assert!(!of(&job, &["0000:03:00.0"]) && !of(&job, &[]), "devices are what the variables name");
        assert!(!of(&job[1..], &["cores:0-7"]) && !of(&job[..1], &["cores:0-7"]), "no job, or nothing is said");
    }

    #[test]
    fn waiting_has_a_limit_or_none() {
        let of = |flag: Option<Option<&str>>| Patience::of(flag.map(|text| text.map(str::to_owned)).as_ref());
        assert_eq!(of(None).unwrap(), Patience::None);
        assert_eq!(of(Some(None)).unwrap(), Patience::Endless);
        assert_eq!(of(Some(Some("10m"))).unwrap(), Patience::Within(Duration::from_secs(600)));
        let refused = of(Some(Some("sweep.yaml"))).unwrap_err();
        assert!(refused.to_string().contains("expected a duration") && refused.hints()[0].contains("before the flags"));
    }
}
