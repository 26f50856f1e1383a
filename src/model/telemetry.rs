//! What devices and host did while something was measured, in short.

use serde::{Deserialize, Serialize};

/// Mean and extremes of what was sampled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean over the samples.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (mut n, mut sum) = (0_u32, 0.0);
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            n += 1;
            sum += value;
            min = min.min(value);
            max = max.max(value);
        }
        (n > 0).then(|| Self { mean: sum / f64::from(n), min, max })
    }
}

/// A measurement, as devices and host saw it. What was not told is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Seconds between two samples, as asked for.
    pub interval: f64,
    /// Samples taken.
    pub samples: usize,
    /// The series, relative to the run directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Power of all devices together, watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_w: Option<Spread>,
    /// The same before the first request, watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_power_w: Option<f64>,
    /// Energy of all devices from the client's start to its end, joules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_j: Option<f64>,
    /// How the energy is known: a counter, or power times time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_from: Option<String>,
    /// Each device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceTelemetry>,
    /// The host.
    #[serde(default)]
    pub host: HostTelemetry,
    /// What deserves a look; sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceTelemetry {
    /// As [`super::ComputeUnit::address`].
    pub address: String,
    /// Share of the time in which it worked, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_pct: Option<Spread>,
    /// Watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_w: Option<Spread>,
    /// Joules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_j: Option<f64>,
    /// Bytes of memory in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<Spread>,
    /// Degrees Celsius of the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<Spread>,
    /// Degrees Celsius of its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_temperature_c: Option<Spread>,
    /// Clock of its cores, MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_mhz: Option<Spread>,
    /// Share of the samples in which it was throttled, percent; absent where nothing says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_pct: Option<f64>,
    /// Why, in the driver's words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttle_reasons: Vec<String>,
}

/// The host. Shares of the processors are percent of one core.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostTelemetry {
    /// All that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<Spread>,
    /// The server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_cpu_pct: Option<Spread>,
    /// The client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cpu_pct: Option<Spread>,
    /// Bytes of memory in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<Spread>,
    /// Bytes of swap in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_used_bytes: Option<Spread>,
    /// Load of the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Spread>,
    /// Watts of the processors' packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_w: Option<Spread>,
    /// Joules of the processors' packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_j: Option<f64>,
}
