//! The series of samples of a measurement: a line for each moment and device, as `execute` writes it.

use std::path::Path;

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
}
