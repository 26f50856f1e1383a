//! The samples of devices and host as MLflow's system metrics. Pure.

use chrono::DateTime;

use super::limits::{Point, name};
use crate::results::SeriesLine;

/// Moments of one measurement that are sent at most; of a longer series every n-th.
pub const MOMENTS: i64 = 300;

/// One of the columns, and what it is called after `system/`.
type Column = (&'static str, fn(&SeriesLine) -> Option<f64>);

/// What each device has, after `system/gpu_N_`.
const OF_DEVICE: [Column; 6] = [
    ("utilization_percentage", |line| line.gpu_utilization_pct),
    ("memory_usage_megabytes", |line| line.vram_used_mb),
    ("memory_usage_percentage", |line| line.vram_utilization_pct),
    ("power_usage_watts", |line| line.power_usage_w),
    ("temperature_celsius", |line| line.temperature_c),
    ("clock_megahertz", |line| line.clock_mhz),
];

/// What the host and the server have. Shares of processors are percent of one core.
const OF_HOST: [Column; 9] = [
    ("cpu_utilization_percentage", |line| line.cpu_pct),
    ("system_memory_usage_megabytes", |line| line.memory_used_mb),
    ("swap_usage_megabytes", |line| line.swap_used_mb),
    ("vllm_server_cpu_percentage", |line| line.server_cpu_pct),
    ("vllm_client_cpu_percentage", |line| line.client_cpu_pct),
    ("vllm_requests_running", |line| line.requests_running),
    ("vllm_requests_waiting", |line| line.requests_waiting),
    ("vllm_kv_cache_usage_percentage", |line| line.kv_cache_usage_pct),
    ("vllm_generation_tokens", |line| line.generation_tokens),
];

/// The points of a series; `first`: the step of its first moment.
pub fn points(lines: &[SeriesLine], first: i64) -> Vec<Point> {
    let mut devices: Vec<&str> = Vec::new();
    let mut moments: Vec<Vec<&SeriesLine>> = Vec::new();
    for line in lines {
        if !devices.contains(&line.gpu_id.as_str()) {
            devices.push(&line.gpu_id);
        }
        match moments.last_mut() {
            Some(last) if last[0].elapsed_ms == line.elapsed_ms => last.push(line),
            _ => moments.push(vec![line]),
        }
    }
    let every = moments.len().div_ceil(usize::try_from(MOMENTS).unwrap_or(1)).max(1);
    let mut points = Vec::new();
    for (moment, step) in moments.iter().step_by(every).zip(first..) {
        let Ok(at) = DateTime::parse_from_rfc3339(&moment[0].timestamp) else { continue };
        let mut add = |key: String, value: Option<f64>| {
            if let Some(value) = value.filter(|value| value.is_finite()) {
                points.push(Point { key: name(&key), value, at: at.timestamp_millis(), step });
            }
        };
        for (key, of) in OF_HOST {
            add(format!("system/{key}"), of(moment[0]));
        }
        for line in moment.iter().filter(|line| !line.gpu_id.is_empty()) {
            let number = devices.iter().position(|known| *known == line.gpu_id).unwrap_or_default();
            for (key, of) in OF_DEVICE {
                add(format!("system/gpu_{number}_{key}"), of(line));
            }
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_numbers_and_a_long_series_is_thinned() {
        let line = |second: u32, device: &str| SeriesLine {
            timestamp: format!("2026-02-25T12:{:02}:{:02}.500Z", second / 60, second % 60),
            elapsed_ms: Some(f64::from(second) * 1e3),
            gpu_id: device.to_owned(),
            power_usage_w: Some(f64::from(second)),
            cpu_pct: Some(50.0),
            ..SeriesLine::default()
        };
        let lines: Vec<SeriesLine> =
            (0..2).flat_map(|second| [line(second, "0000:03"), line(second, "0000:04")]).collect();
        let points = points(&lines, 1);
        let told: Vec<(&str, f64, i64)> = points.iter().map(|p| (p.key.as_str(), p.value, p.step)).collect();
        let [cpu, first, second] =
            ["system/cpu_utilization_percentage", "system/gpu_0_power_usage_watts", "system/gpu_1_power_usage_watts"];
        assert_eq!(
            told,
            [(cpu, 50.0, 1), (first, 0.0, 1), (second, 0.0, 1), (cpu, 50.0, 2), (first, 1.0, 2), (second, 1.0, 2)]
        );
        assert_eq!(points[3].at - points[0].at, 1000);
        let long: Vec<SeriesLine> = (0..3000).map(|second| line(second, "")).collect();
        assert_eq!(super::points(&long, 1).len(), 300);
        assert!(super::points(&[SeriesLine::default()], 1).is_empty(), "a moment without a time");
    }
}
