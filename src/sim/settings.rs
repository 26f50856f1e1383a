//! Settings of the simulation: environment variables that the orchestrator exports in the launch script.
//!
//! | variable | default | meaning |
//! | --- | --- | --- |
//! | `VLLM_BENCH_SIM_SPEED` | 1 | simulated seconds per real second; `inf`: no waiting at all |
//! | `VLLM_BENCH_SIM_SEED` | 0 | seed of every random number |
//! | `VLLM_BENCH_SIM_DEVICES` | 8 | devices of the simulated machine |
//! | `VLLM_BENCH_SIM_DEVICE_MEMORY_GIB` | 24 | memory of each of them |
//! | `VLLM_BENCH_SIM_NOISE` | 2% | standard deviation between server starts, see [`super::noise`] |
//! | `VLLM_BENCH_SIM_NOISE_WITHIN` | 0.5% | standard deviation between measurements on one start |
//! | `VLLM_BENCH_SIM_DRIFT` | 0 | by how much each experiment is slower than the one before it in the plan |
//! | `VLLM_BENCH_SIM_OUTLIERS` | 0 | the share of starts that take 1.25 times as long |
//! | `VLLM_BENCH_SIM_INTERFERENCE` | 0 | by how much a server is slower while another one of its run is busy, see [`super::neighbours`] |
//! | `VLLM_BENCH_SIM_NEIGHBOURS` | none | what the servers of a run have in common, by which they find each other |
//! | `VLLM_BENCH_SIM_FAULT` | none | faults, see [`super::fault`] |
//! | `VLLM_BENCH_SIM_START` | none | the draw of this server start, in hexadecimal; without it a start does not vary |
//! | `VLLM_BENCH_SIM_RUN`, `VLLM_BENCH_SIM_POSITION` | none | the same of a measurement, for the client, and its place in the plan |
//! | `VLLM_BENCH_ATTEMPT` | 1 | number of the attempt, for `#N` of a fault |

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::fault::{self, Fault, FaultError, FaultSpec};
use super::noise::{Noise, parse_drift, parse_interference, parse_noise, parse_outliers};
use super::timing::Turn;

/// Simulated seconds per real second: more than 0, or infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// As fast as the machine computes.
    pub const INFINITE: Speed = Speed(f64::INFINITY);

    /// The real time that a simulated time takes.
    pub fn real(self, simulated_seconds: f64) -> Duration {
        Duration::try_from_secs_f64(simulated_seconds / self.0).unwrap_or(Duration::MAX)
    }

    /// Is there no waiting at all?
    pub fn is_infinite(self) -> bool {
        self.0.is_infinite()
    }

    /// Simulated seconds per real second.
    pub fn factor(self) -> f64 {
        self.0
    }
}

impl FromStr for Speed {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text.trim().trim_end_matches('x').parse::<f64>() {
            Ok(speed) if speed > 0.0 => Ok(Speed(speed)),
            _ => Err(SettingError::Value { value: text.into(), expected: "a number greater than 0, or `inf`" }),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum SettingError {
    #[error("`{value}` is not {expected}")]
    Value { value: String, expected: &'static str },
    #[error(transparent)]
    Fault(#[from] FaultError),
    #[error("{variable}: {source}")]
    Variable { variable: &'static str, source: Box<SettingError> },
}

/// What the simulated machine is and does.
#[derive(Clone, Debug, PartialEq)]
pub struct SimSettings {
    /// Simulated seconds per real second.
    pub speed: Speed,
    /// Seed of every random number.
    pub seed: u64,
    /// Devices of the machine.
    pub devices: u32,
    /// Memory of each device.
    pub device_memory_gib: f64,
    /// How much measurements vary.
    pub noise: Noise,
    /// By how much a server is slower while another one of its run is busy, as a part.
    pub interference: f64,
    /// What the servers of a run have in common; `None`: there are no others.
    pub neighbours: Option<String>,
    /// The draw of this server start; `None` for one that no plan has.
    pub start: Option<u64>,
    /// Which measurement of a plan this client makes.
    pub turn: Option<Turn>,
    /// What goes wrong.
    pub faults: Vec<FaultSpec>,
    /// Number of this attempt at the experiment, from 1.
    pub attempt: u32,
}

impl Default for SimSettings {
    fn default() -> Self {
        SimSettings {
            speed: Speed(1.0),
            seed: 0,
            devices: 8,
            device_memory_gib: 24.0,
            noise: Noise::default(),
            interference: 0.0,
            neighbours: None,
            start: None,
            turn: None,
            faults: Vec::new(),
            attempt: 1,
        }
    }
}

/// Simulated seconds per real second: the one setting that changes no metric.
pub const SPEED: &str = "VLLM_BENCH_SIM_SPEED";
const SEED: &str = "VLLM_BENCH_SIM_SEED";
const DEVICES: &str = "VLLM_BENCH_SIM_DEVICES";
const MEMORY: &str = "VLLM_BENCH_SIM_DEVICE_MEMORY_GIB";
const NOISE: &str = "VLLM_BENCH_SIM_NOISE";
const NOISE_WITHIN: &str = "VLLM_BENCH_SIM_NOISE_WITHIN";
const DRIFT: &str = "VLLM_BENCH_SIM_DRIFT";
const OUTLIERS: &str = "VLLM_BENCH_SIM_OUTLIERS";
/// By how much a server is slower while another one of its run is busy.
pub const INTERFERENCE: &str = "VLLM_BENCH_SIM_INTERFERENCE";
/// The variable of a server's script that carries what the servers of its run have in common.
pub const NEIGHBOURS: &str = "VLLM_BENCH_SIM_NEIGHBOURS";
const FAULT: &str = "VLLM_BENCH_SIM_FAULT";
/// The variable of a server's script that carries the draw of its start, in hexadecimal.
pub const START: &str = "VLLM_BENCH_SIM_START";
const ATTEMPT: &str = "VLLM_BENCH_ATTEMPT";

impl SimSettings {
    /// The settings in this process's environment.
    pub fn from_env() -> Result<Self, SettingError> {
        Self::from_lookup(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// The settings that `lookup` knows; absent and empty variables have their default.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        fn read<T>(
            lookup: &impl Fn(&str) -> Option<String>,
            variable: &'static str,
            default: T,
            parse: impl Fn(&str) -> Result<T, SettingError>,
        ) -> Result<T, SettingError> {
            match lookup(variable).filter(|value| !value.trim().is_empty()) {
                None => Ok(default),
                Some(value) => {
                    parse(value.trim()).map_err(|source| SettingError::Variable { variable, source: Box::new(source) })
                }
            }
        }
        let default = Self::default();
        let noise = Noise {
            between: read(&lookup, NOISE, default.noise.between, parse_noise)?,
            within: read(&lookup, NOISE_WITHIN, default.noise.within, parse_noise)?,
            drift: read(&lookup, DRIFT, default.noise.drift, parse_drift)?,
            outliers: read(&lookup, OUTLIERS, default.noise.outliers, parse_outliers)?,
        };
        let said = [Turn::DRAW, Turn::POSITION].map(&lookup);
        Ok(SimSettings {
            noise,
            interference: read(&lookup, INTERFERENCE, default.interference, parse_interference)?,
            neighbours: lookup(NEIGHBOURS).filter(|name| !name.is_empty()),
            start: read(&lookup, START, None, |text| hexadecimal(text).map(Some))?,
            turn: Turn::of(|name| said[usize::from(name != Turn::DRAW)].as_deref()),
            speed: read(&lookup, SPEED, default.speed, str::parse)?,
            seed: read(&lookup, SEED, default.seed, |text| whole(text, 0))?,
            devices: read(&lookup, DEVICES, default.devices, parse_devices)?,
            device_memory_gib: read(&lookup, MEMORY, default.device_memory_gib, parse_memory)?,
            faults: read(&lookup, FAULT, default.faults, |text| Ok(fault::parse_list(text)?))?,
            attempt: read(&lookup, ATTEMPT, default.attempt, |text| whole(text, 1))?,
        })
    }

    /// The variables that give these settings to a simulated vLLM; of noise and faults only what is not as usual. Not the attempt: the orchestrator exports
    /// `VLLM_BENCH_ATTEMPT` for every engine, and it is no part of an experiment's identity.
    pub fn to_env(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            (SPEED.into(), self.speed.to_string()),
            (SEED.into(), self.seed.to_string()),
            (DEVICES.into(), self.devices.to_string()),
            (MEMORY.into(), self.device_memory_gib.to_string()),
        ];
        let (noise, usual) = (self.noise, Noise::default());
        for (name, value, usual) in [
            (NOISE, noise.between, usual.between),
            (NOISE_WITHIN, noise.within, usual.within),
            (DRIFT, noise.drift, usual.drift),
            (OUTLIERS, noise.outliers, usual.outliers),
        ] {
            if value != usual {
                variables.push((name.into(), value.to_string()));
            }
        }
        if self.interference > 0.0 {
            variables.push((INTERFERENCE.into(), self.interference.to_string()));
        }
        if !self.faults.is_empty() {
            let faults: Vec<String> = self.faults.iter().map(FaultSpec::to_string).collect();
            variables.push((FAULT.into(), faults.join(";")));
        }
        variables
    }

    /// The faults of this attempt at a run whose flags `flag` knows.
    pub fn active_faults(&self, flag: impl Fn(&str) -> Option<String>) -> Vec<Fault> {
        self.faults.iter().filter(|spec| spec.applies(self.attempt, &flag)).map(|spec| spec.fault.clone()).collect()
    }

    /// The same for a client that is the n-th on its server's start; `None` where no server said.
    pub fn faults_of_load(&self, load: Option<u64>, flag: impl Fn(&str) -> Option<String>) -> Vec<Fault> {
        let of_load = |spec: &&FaultSpec| spec.load.is_none() || spec.load == load;
        let active = self.faults.iter().filter(of_load).filter(|spec| spec.applies(self.attempt, &flag));
        active.map(|spec| spec.fault.clone()).collect()
    }

    /// The only benchmark of a server start in which a fault strikes; `None` = in any.
    pub fn load_of(&self, fault: &Fault) -> Option<u64> {
        self.faults.iter().find(|spec| spec.fault == *fault).and_then(|spec| spec.load)
    }
}

fn whole<T: FromStr + PartialOrd>(text: &str, least: T) -> Result<T, SettingError> {
    text.parse()
        .ok()
        .filter(|value| *value >= least)
        .ok_or(SettingError::Value { value: text.into(), expected: "a whole number in range" })
}

fn hexadecimal(text: &str) -> Result<u64, SettingError> {
    u64::from_str_radix(text, 16)
        .map_err(|_| SettingError::Value { value: text.into(), expected: "up to 16 hexadecimal digits" })
}

/// `--sim-devices`: a whole number of devices, at least one.
pub fn parse_devices(text: &str) -> Result<u32, SettingError> {
    whole(text, 1)
}

/// `--sim-device-memory`: GiB, more than 0; `24`, `24GiB` or `24G`.
pub fn parse_memory(text: &str) -> Result<f64, SettingError> {
    let number = text.trim().trim_end_matches(['B', 'b', 'i', 'G', 'g']);
    match number.trim().parse::<f64>() {
        Ok(gib) if gib > 0.0 && gib.is_finite() => Ok(gib),
        _ => Err(SettingError::Value { value: text.into(), expected: "an amount of memory in GiB, such as `24`" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_environment() {
        let settings = SimSettings {
            speed: "inf".parse().expect("speed"),
            seed: 7,
            devices: 4,
            device_memory_gib: 12.5,
            noise: Noise { between: 0.031, within: 0.0, drift: -0.002, outliers: 0.1 },
            interference: 0.05,
            neighbours: None,
            start: None,
            turn: None,
            faults: fault::parse_list("oom-killed@tp=2#1;network").expect("faults"),
            attempt: 1,
        };
        let env = settings.to_env();
        let back =
            SimSettings::from_lookup(|name| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()));
        assert_eq!(back, Ok(settings));
        assert_eq!(SimSettings::from_lookup(|_| None), Ok(SimSettings::default()));
    }

    #[test]
    fn bad_values_name_their_variable() {
        for (variable, value) in [
            (SPEED, "0"),
            (SPEED, "fast"),
            (SEED, "-1"),
            (DEVICES, "0"),
            (MEMORY, "-3"),
            (NOISE, "2"),
            (NOISE_WITHIN, "-1%"),
            (DRIFT, "20%"),
            (OUTLIERS, "x"),
            (INTERFERENCE, "101%"),
            (START, "0x"),
            (FAULT, "netwrk"),
            (ATTEMPT, "0"),
        ] {
            let error = SimSettings::from_lookup(|name| (name == variable).then(|| value.into())).unwrap_err();
            assert!(error.to_string().starts_with(variable), "{error}");
        }
    }

    #[test]
    fn speed_turns_simulated_into_real_time() {
        assert_eq!("100".parse::<Speed>().expect("speed").real(5.0), Duration::from_millis(50));
        assert_eq!(Speed::INFINITE.real(5.0), Duration::ZERO);
    }
}
