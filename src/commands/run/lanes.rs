//! Which lanes a run has, and what blocks are estimated to take on them.

use std::sync::Arc;

use super::prepare::Prepared;
use crate::config::{Environment, Finalists, Parallel, PortChoice, Settings};
use crate::error::Error;
use crate::execute::{self, LaneDevices, Lease, Leases, LockedPort};
use crate::model::{ComputeUnit, Experiment, Identity, Outcome, Plan};
use crate::plan::blocks;
use crate::record::{Holder, RunDir, RunState, list_runs};
use crate::search::{Estimates, Packing};
use crate::sim::settings::SimSettings;
use crate::telemetry::{DEVICE_MASKS, DeviceKind, Probe, devices, inventory, masks_of};

/// So many of the newest runs of a results directory are asked for what experiments take.
const EARLIER_RUNS: usize = 20;
/// The first port that is tried where the run chooses.
const FIRST_PORT: u16 = 8000;
/// Where vLLM's CPU backend reads the cores of its workers.
const CPU_BINDING: &str = "VLLM_CPU_OMP_THREADS_BIND";
/// Core sets for `--parallel auto` on a machine without devices.
const AUTO_CORE_SETS: u32 = 2;

/// The lanes that a run is to have.
#[derive(Debug, Clone, PartialEq)]
pub struct Lanes {
    /// So many blocks at once, at most.
    pub count: u32,
    /// The devices that they share.
    pub units: Vec<ComputeUnit>,
    /// What these are; `None`: simulated.
    devices: Option<LaneDevices>,
    /// Whether it is measured first what they cost.
    pub checked: bool,
    /// So many lanes the user asks for; `None` = as many as there can be.
    asked: Option<u32>,
}

impl Lanes {
    /// What the settings ask for; `None` = one block at a time. Where only one fits it is one lane, which is [none](Self::several).
    ///
    /// # Errors
    /// When an experiment needs more than there is, or the plan and lanes contradict each other.
    pub fn of(settings: &Settings, plan: &Plan, environment: &Environment) -> Result<Option<Self>, Error> {
        let most = match settings.parallel {
            Parallel::Off => return Ok(None),
            Parallel::Auto => None,
            Parallel::Lanes(count) => Some(count),
        };
        if plan.before.is_some() {
            return Err(refused(
                "`--against` measures two sides in turn, and lanes would measure them at once".into(),
                "leave `--parallel` out, or say `--parallel off`",
            ));
        }
        let (units, devices) = units(settings, plan, most, environment)?;
        let all = u32::try_from(units.len()).unwrap_or(u32::MAX);
        let needs = |experiment: &Experiment| experiment.server.devices().unwrap_or(all).max(1);
        if let Some(experiment) = plan.experiments.iter().find(|experiment| needs(experiment) > all) {
            return Err(refused(
                format!(
                    "`{}` needs {} devices (tensor x pipeline x data parallel size), and there are {all}",
                    experiment.name,
                    needs(experiment)
                ),
                "leave it out of the sweep: one server cannot have more than there are",
            ));
        }
        let fewest = plan.experiments.iter().map(needs).min().unwrap_or(1);
        // More lanes than blocks would stay empty, and be checked for nothing.
        let blocks = blocks(plan.experiments.iter().cloned().map(Arc::new), settings.sweep.reuse).len();
        let count = most.unwrap_or(u32::MAX).min(all / fewest).min(u32::try_from(blocks).unwrap_or(u32::MAX));
        Ok(Some(Self { count, units, devices, checked: most.is_none(), asked: most }))
    }

    /// Locks a port for each lane, from the one that the settings name.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn ports(&self, settings: &Settings) -> Result<Vec<LockedPort>, Error> {
        let first = match settings.port {
            PortChoice::Fixed(port) => port,
            PortChoice::Auto => FIRST_PORT,
        };
        let mut from = first;
        let mut next = || -> Result<LockedPort, Error> {
            let locked = LockedPort::take_from(from)?;
            from = locked.port().saturating_add(1);
            Ok(locked)
        };
        (0..self.count).map(|_| next()).collect()
    }

    /// What blocks run on: the lanes of this run.
    pub fn leases(&self, leases: Vec<Lease>, run: &RunDir) -> Leases {
        let devices = self.devices.clone().unwrap_or_else(|| {
            let run = run.path().to_string_lossy().into_owned();
            let name = Identity::of_stated(&[("run".to_owned(), run)].into());
            LaneDevices::Simulated(name.short().to_owned())
        });
        Leases::lanes(leases, self.units.clone(), devices)
    }

    /// How blocks are packed onto them.
    pub fn packing(&self, estimates: Estimates) -> Packing {
        Packing { lanes: self.count, units: u32::try_from(self.units.len()).unwrap_or(u32::MAX), estimates }
    }

    /// Itself, where there is more than one.
    pub fn several(self) -> Option<Self> {
        Some(self).filter(|lanes| lanes.count > 1)
    }

    /// What a run with them does, in a sentence: before it begins.
    pub fn outline(&self, settings: &Settings) -> String {
        if self.count <= 1 {
            let devices = crate::commands::format::count(self.units.len(), "device");
            return format!(
                "lanes: one server configuration at a time: no two fit on {devices}, or there is only one server start"
            );
        }
        let check = match self.checked {
            true => format!(
                ", where neighbours are shown to cost at most {} % (measured first)",
                (settings.parallel_threshold * 1e4).round() / 1e2
            ),
            false => String::new(),
        };
        let again = match settings.finalists {
            Finalists::Alone => "; what may be the best is measured again alone",
            Finalists::Off => "; nothing is measured again alone",
        };
        format!("{}{check}{again}", self.size())
    }

    /// How many there are, and on what.
    fn size(&self) -> String {
        let devices = crate::commands::format::count(self.units.len(), "device");
        let fewer = match self.asked {
            Some(asked) if asked > self.count => {
                format!(" ({asked} are asked for: there are no more devices or server starts)")
            }
            Some(_) | None => String::new(),
        };
        format!("lanes: up to {} server configurations at once on {devices}{fewer}", self.count)
    }

    /// What they are, and what they are estimated to save, in a sentence.
    pub fn told(&self, packing: &Packing, pending: &[Arc<Experiment>], settings: &Settings) -> String {
        let (alone, lanes) = packing.seconds(blocks(pending.iter().cloned(), settings.sweep.reuse));
        let time = |seconds: f64| crate::commands::format::seconds(seconds);
        let estimate = match packing.estimates.are_known() {
            _ if alone <= 0.0 => String::new(),
            true => format!("; about {} where one after the other takes {}", time(lanes), time(alone)),
            false => format!("; about {:.2} of the time of one after the other, if all take alike", lanes / alone),
        };
        let again = match settings.finalists {
            Finalists::Alone if estimate.is_empty() => "",
            Finalists::Alone => ", without what is measured again alone",
            Finalists::Off => "; nothing is measured again alone (`finalists: off`)",
        };
        format!("{}{estimate}{again}", self.size())
    }
}

fn refused(message: String, hint: &str) -> Error {
    Error::Usage { message, hint: hint.to_owned() }
}

/// The devices that lanes may share, and what they are.
fn units(
    settings: &Settings,
    plan: &Plan,
    most: Option<u32>,
    environment: &Environment,
) -> Result<(Vec<ComputeUnit>, Option<LaneDevices>), Error> {
    if settings.simulated() {
        let lookup =
            |name: &str| settings.simulation.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let devices = SimSettings::from_lookup(lookup).map(|sim| sim.devices).unwrap_or(1);
        let unit = |number: u32| ComputeUnit {
            address: format!("sim:{number}"),
            mask: number.to_string(),
            ..ComputeUnit::default()
        };
        return Ok(((0..devices).map(unit).collect(), None));
    }
    require_free_hands(plan)?;
    let probe = Probe::of_machine(environment.vars().clone());
    let kind = devices::detect(&probe).kind;
    let sets = most.unwrap_or(AUTO_CORE_SETS) as usize;
    let mut found = inventory(&probe, kind, sets);
    if kind == DeviceKind::Cpu && most.is_none() {
        // One for each NUMA node, where there are several.
        let nodes = inventory(&probe, kind, 0);
        found = if nodes.units.len() > 1 { nodes } else { found };
    }
    if found.units.len() < sets && kind == DeviceKind::Cpu && most.is_some() {
        let message = format!("{sets} lanes need {sets} sets of cores, and this program may use {}", found.units.len());
        return Err(refused(
            message,
            "ask for fewer lanes with `--parallel N`, or measure one at a time with `--parallel off`",
        ));
    }
    if found.units.is_empty() && kind != DeviceKind::Cpu {
        let masks = masks_of(&probe, kind);
        return Err(execute::Error::NoDeviceLeft { kind: kind.label(), masks }.into());
    }
    let nodes = if kind == DeviceKind::Cpu { Vec::new() } else { inventory(&probe, DeviceKind::Cpu, 0).units };
    Ok((found.units.clone(), Some(LaneDevices::Real { inventory: Box::new(found), nodes })))
}

/// Refuses plans that say themselves on which devices their servers run: all lanes would be on the same ones.
fn require_free_hands(plan: &Plan) -> Result<(), Error> {
    let set = |experiment: &Experiment| {
        let names = experiment.server.env.keys().map(String::as_str);
        let binds = |name: &&str| DEVICE_MASKS.contains(name) || *name == CPU_BINDING;
        names.into_iter().find(binds).map(str::to_owned)
    };
    match plan.experiments.iter().find_map(set) {
        None => Ok(()),
        Some(name) => Err(refused(
            format!("the sweep sets `{name}` for its servers, and with lanes each server gets devices of its own"),
            "leave the variable out of the sweep (one in the environment narrows what the lanes share), or say `--parallel off`",
        )),
    }
}

/// What experiments took in this run, and in earlier ones of its results directory.
pub fn estimates(prepared: &Prepared) -> Estimates {
    let Prepared { run, manifest, state, .. } = prepared;
    let mut estimates = Estimates::default();
    let dir = run.path().parent().map(std::path::Path::to_owned).unwrap_or_default();
    let runs = list_runs(&dir).unwrap_or_default();
    let newest = runs.len().saturating_sub(EARLIER_RUNS);
    for earlier in runs.iter().skip(newest).filter(|earlier| earlier.path() != run.path()) {
        let Ok(of) = earlier.manifest() else { continue };
        if of.simulated == manifest.simulated
            && let Ok(state) = earlier.state()
        {
            learn(&mut estimates, &of.plan, &state);
        }
    }
    learn(&mut estimates, &manifest.plan, state);
    estimates
}

fn learn(estimates: &mut Estimates, plan: &Plan, state: &RunState) {
    for experiment in &plan.experiments {
        let passed = state.attempts.get(&experiment.name).into_iter().flatten();
        let passed = passed.filter(|attempt| matches!(attempt.outcome, Some(Outcome::Passed { .. })));
        for timings in passed.filter_map(|attempt| attempt.timings.as_ref()) {
            let start = timings.startup.map(|startup| startup + timings.teardown.unwrap_or_default());
            estimates.learn(experiment, start, (timings.total - start.unwrap_or_default()).max(0.0));
        }
    }
}

/// Ports that are signed with their holder.
///
/// # Errors
/// When the file of a lock cannot be written.
pub fn signed(ports: Vec<LockedPort>, holder: &Holder) -> Result<Vec<Lease>, Error> {
    ports.into_iter().map(|port| port.signed(holder.clone()).map_err(Error::from)).collect()
}
