//! The series of samples of a measurement, line by line: each device at each moment, for those who pass them on.

use std::path::Path;

use crate::bounded;

/// A series of a day has a tenth of this.
const MOST: u64 = 256 << 20;

/// What one device said at one moment, and the host. Columns that are not its own are those of the moment.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each is the column of the same name")]
pub struct SeriesLine {
    pub timestamp: String,
    pub elapsed_ms: Option<f64>,
    pub gpu_id: String,
    pub gpu_utilization_pct: Option<f64>,
    pub vram_used_mb: Option<f64>,
    pub vram_utilization_pct: Option<f64>,
    pub temperature_c: Option<f64>,
    pub power_usage_w: Option<f64>,
    pub clock_mhz: Option<f64>,
    pub cpu_pct: Option<f64>,
    pub server_cpu_pct: Option<f64>,
    pub client_cpu_pct: Option<f64>,
    pub memory_used_mb: Option<f64>,
    pub swap_used_mb: Option<f64>,
    pub requests_running: Option<f64>,
    pub requests_waiting: Option<f64>,
    pub kv_cache_usage_pct: Option<f64>,
    pub generation_tokens: Option<f64>,
}

/// Reads a series.
///
/// # Errors
/// Why the file cannot be taken.
pub fn read_series(path: &Path) -> Result<Vec<SeriesLine>, String> {
    let bytes = bounded::read(path, MOST).map_err(|error| error.to_string())?;
    let lines = csv::Reader::from_reader(bytes.as_slice()).into_deserialize().collect::<Result<Vec<_>, _>>();
    lines.map_err(|error| error.to_string())
}
