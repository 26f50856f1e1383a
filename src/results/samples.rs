//! The series of samples of a measurement: a line for each moment and device, as `execute` writes it.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use chrono::{DateTime, Utc};

use crate::analyse::Moment;
use crate::bounded;

/// A series of a day has a tenth of this.
const MOST: u64 = 256 << 20;

/// What one device said at one moment; the columns that are not its own are those of the moment.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Line {
    elapsed_ms: Option<f64>,
    gpu_utilization_pct: Option<f64>,
    temperature_c: Option<f64>,
    power_usage_w: Option<f64>,
    clock_mhz: Option<f64>,
    server_cpu_pct: Option<f64>,
    requests_running: Option<f64>,
    generation_tokens: Option<f64>,
}

/// Reads a series.
///
/// # Errors
/// Why the file cannot be taken.
pub(super) fn read(path: &Path) -> Result<Vec<Moment>, String> {
    let bytes = bounded::read(path, MOST).map_err(|error| error.to_string())?;
    let mut moments: Vec<Moment> = Vec::new();
    let mut devices: Vec<Line> = Vec::new();
    for line in csv::Reader::from_reader(bytes.as_slice()).deserialize::<Line>() {
        let line = line.map_err(|error| error.to_string())?;
        if devices.first().is_some_and(|first| first.elapsed_ms != line.elapsed_ms) {
            moments.extend(moment(&devices));
            devices.clear();
        }
        devices.push(line);
    }
    moments.extend(moment(&devices));
    Ok(moments)
}

/// Several devices at one moment; a sum or a mean needs all of them.
fn moment(devices: &[Line]) -> Option<Moment> {
    let first = devices.first()?;
    let sum = |of: fn(&Line) -> Option<f64>| devices.iter().map(of).sum::<Option<f64>>();
    #[expect(clippy::cast_precision_loss, reason = "devices are few")]
    let mean = |of: fn(&Line) -> Option<f64>| sum(of).map(|sum| sum / devices.len() as f64);
    Some(Moment {
        at: first.elapsed_ms.filter(|at| at.is_finite())? / 1e3,
        power_w: sum(|line| line.power_usage_w),
        utilization_pct: mean(|line| line.gpu_utilization_pct),
        temperature_c: devices.iter().filter_map(|line| line.temperature_c).reduce(f64::max),
        clock_mhz: mean(|line| line.clock_mhz),
        server_cpu_pct: first.server_cpu_pct,
        running: first.requests_running,
        generated: first.generation_tokens,
    })
}

/// The newest moment of a series that is still being written, device by device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Newest {
    /// When.
    pub at: DateTime<Utc>,
    /// Its devices.
    pub devices: Vec<DeviceNow>,
    /// Requests that the server works on.
    pub running: Option<f64>,
    /// Requests that wait in it.
    pub waiting: Option<f64>,
    /// How much of its KV cache is in use, percent.
    pub kv_cache_pct: Option<f64>,
}

/// What a device said at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceNow {
    /// Its address.
    pub address: String,
    /// Watts.
    pub power_w: Option<f64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Percent.
    pub utilization_pct: Option<f64>,
    /// MiB in use.
    pub memory_used_mib: Option<f64>,
    /// MHz.
    pub clock_mhz: Option<f64>,
    /// Why it is slower than it could be; empty where it is not, or does not say.
    pub throttle_reasons: String,
}

/// How much of the end of a series is read for its newest moment: that has a line for each device.
const END: u64 = 32 << 10;
/// The line with the names of the columns is shorter.
const HEADER: u64 = 2 << 10;

/// The newest moment of a series; `None` where there is none yet.
///
/// # Errors
/// Why the file cannot be taken.
pub fn newest_moment(path: &Path) -> Result<Option<Newest>, String> {
    let ends = || -> std::io::Result<(Vec<u8>, Vec<u8>)> {
        let mut file = bounded::open(path)?;
        let length = file.metadata()?.len();
        let begin = bounded::read_from((&mut file).take(HEADER), HEADER)?;
        file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
        Ok((begin, bounded::read_from(file.take(END), END)?))
    };
    let (begin, end) = ends().map_err(|error| error.to_string())?;
    let Some(names) = begin.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    // Whole lines alone; the first of the end may be cut, or be the names themselves.
    let last = end.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let first = end.iter().position(|&byte| byte == b'\n').map_or(last, |at| at + 1);
    let text = [&begin[..=names], end.get(first..last).unwrap_or_default()].concat();
    let mut reader = csv::Reader::from_reader(text.as_slice());
    let names = reader.headers().map_err(|error| error.to_string())?.clone();
    let mut newest: Option<Newest> = None;
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let of = |name: &str| names.iter().position(|known| known == name).and_then(|at| record.get(at));
        let Some(at) = of("timestamp").and_then(|text| text.parse::<DateTime<Utc>>().ok()) else { continue };
        let number = |name: &str| of(name).and_then(|text| text.parse::<f64>().ok()).filter(|value| value.is_finite());
        if newest.as_ref().is_none_or(|newest| newest.at != at) {
            newest = Some(Newest {
                at,
                devices: Vec::new(),
                running: number("requests_running"),
                waiting: number("requests_waiting"),
                kv_cache_pct: number("kv_cache_usage_pct"),
            });
        }
        let address = of("gpu_id").unwrap_or_default();
        if let Some(newest) = newest.as_mut().filter(|_| !address.is_empty()) {
            newest.devices.push(DeviceNow {
                address: address.to_owned(),
                power_w: number("power_usage_w"),
                temperature_c: number("temperature_c"),
                utilization_pct: number("gpu_utilization_pct"),
                memory_used_mib: number("vram_used_mb"),
                clock_mhz: number("clock_mhz"),
                throttle_reasons: of("throttle_reasons").unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::token_rate;

    #[test]
    fn devices_of_a_moment_are_one_line_and_tokens_become_a_rate() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.csv");
        let text = "timestamp,elapsed_ms,gpu_id,gpu_utilization_pct,temperature_c,power_usage_w,clock_mhz,generation_tokens\n\
                    t,0,a,50.0,60.0,100.0,,10\nt,0,b,70.0,61.0,150.0,,10\n\
                    t,2000,a,90.0,,120.0,2400.0,210\nt,2000,b,90.0,70.0,,2400.0,210\n";
        std::fs::write(&file, text).unwrap();
        let moments = read(&file).unwrap();
        assert_eq!(moments.len(), 2);
        let [first, second] = [moments[0], moments[1]];
        assert_eq!((first.power_w, first.utilization_pct, first.temperature_c), (Some(250.0), Some(60.0), Some(61.0)));
        assert_eq!((first.clock_mhz, second.clock_mhz), (None, Some(2400.0)));
        assert_eq!((second.power_w, second.temperature_c), (None, Some(70.0)), "the power of one is not known");
        assert_eq!(token_rate(&moments), [(2.0, 100.0)]);
        std::fs::write(&file, "elapsed_ms\nsoon\n").unwrap();
        assert!(read(&file).is_err());
    }

    #[test]
    fn the_newest_moment_is_read_while_the_next_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.csv");
        let names = "timestamp,gpu_id,power_usage_w,throttle_reasons,requests_running";
        let line = |second: u32, id: &str, watts: &str| {
            format!("2026-11-30T10:{:02}:{:02}.000Z,{id},{watts},,3\n", second / 60, second % 60)
        };
        std::fs::write(&file, "").unwrap();
        assert_eq!(newest_moment(&file).unwrap(), None);
        std::fs::write(&file, format!("{names}\n")).unwrap();
        assert_eq!(newest_moment(&file).unwrap(), None);
        std::fs::write(&file, format!("{names}\n{}", line(1, "", ""))).unwrap();
        assert_eq!(newest_moment(&file).unwrap().unwrap().devices, []);
        let mut text = format!("{names}\n");
        for second in 0..2000 {
            text += &line(second, "a", "100.0");
            text += &line(second, "b", "120.5");
        }
        text += "2026-11-30T11:00:00.000Z,a,9";
        std::fs::write(&file, text).unwrap();
        let newest = newest_moment(&file).unwrap().unwrap();
        let watts: Vec<_> = newest.devices.iter().map(|one| (one.address.as_str(), one.power_w)).collect();
        assert_eq!(watts, [("a", Some(100.0)), ("b", Some(120.5))]);
        assert_eq!((newest.at.to_rfc3339().as_str(), newest.running), ("2026-11-30T10:33:19+00:00", Some(3.0)));
        assert!(newest_moment(&dir.path().join("none")).is_err());
    }
}
