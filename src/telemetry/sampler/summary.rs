//! From a series of samples to what is said of it. Pure.

use std::time::Duration;

use super::{DeviceSample, Sample};
use crate::model::{DeviceTelemetry, HostTelemetry, Spread, Telemetry};

/// Samples from which on energy is known: with fewer a sample more or less is a large part of it.
const FEWEST: usize = 3;
/// Part of the samples in which a device may be throttled without a word.
const THROTTLED_PCT: f64 = 5.0;
/// Growth of swap that deserves a look: 64 MiB.
const SWAP_BYTES: f64 = 67_108_864.0;
/// How far a clock may fall below its highest, as a part of it, on a device that works.
const CLOCK_DROP: f64 = 0.25;
/// A device that works less than this, percent, may clock down as it likes.
const WORKS_PCT: f64 = 50.0;

/// What a measurement came to. `idle`: samples before its first request; `busy`: those between its first request and its last, whose
/// mean power is that of the `seconds` that the requests took; `dropped`: what readers had to leave out, in sentences.
///
/// Energy is mean power times seconds: the samples lie anywhere in between, and what lies before or after has another power. With fewer
/// than [`FEWEST`] samples none is known.
pub fn summarize(
    idle: &[Sample],
    busy: &[Sample],
    seconds: Option<f64>,
    energy_from: Option<String>,
    dropped: Vec<String>,
) -> Telemetry {
    let mut addresses: Vec<&str> = Vec::new();
    for sample in busy.iter().flat_map(|sample| &sample.devices) {
        if !addresses.contains(&sample.address.as_str()) {
            addresses.push(&sample.address);
        }
    }
    let seconds = seconds.filter(|_| busy.len() >= FEWEST);
    let devices: Vec<DeviceTelemetry> = addresses.iter().map(|address| device(address, busy, seconds)).collect();
    let counted = devices.iter().map(|device| device.energy_j).sum::<Option<f64>>().filter(|_| !devices.is_empty());
    let (energy_j, energy_from) = match counted {
        Some(joules) => (Some(joules), energy_from),
        None => {
            let power = Spread::of(busy.iter().filter_map(total_power));
            let joules = power.zip(seconds).map(|(power, seconds)| power.mean * seconds);
            (joules, joules.map(|_| "power times time".to_owned()))
        }
    };
    let mut warnings = dropped;
    warnings.extend(devices.iter().flat_map(device_warnings));
    warnings.extend(swap_warning(busy));
    Telemetry {
        interval: 0.0,
        samples: busy.len(),
        file: None,
        power_w: Spread::of(busy.iter().filter_map(total_power)),
        idle_power_w: Spread::of(idle.iter().filter_map(total_power)).map(|power| power.mean),
        energy_j,
        energy_from,
        host: host(busy, seconds),
        devices,
        warnings,
    }
}

/// What a counter said at a sample: when, joules so far, and whether the stretch before it is known (a reading that was dropped adds none).
type Counted = (Duration, f64, bool);

/// Joules in `seconds` by what a counter said at each sample: its mean power over the stretches that are known, times the seconds.
fn counted(readings: &[Counted], seconds: Option<f64>) -> Option<f64> {
    let (mut joules, mut passed) = (0.0, 0.0);
    for pair in readings.windows(2) {
        if let [(then, before, _), (at, now, true)] = pair {
            joules += now - before;
            passed += at.checked_sub(*then)?.as_secs_f64();
        }
    }
    (passed > 0.0).then_some(joules / passed * seconds?)
}

/// Power of all devices of a sample; `None` where one of them does not tell it.
fn total_power(sample: &Sample) -> Option<f64> {
    let all = sample.devices.iter().map(|device| device.power_w).sum::<Option<f64>>();
    all.filter(|_| !sample.devices.is_empty())
}

fn device(address: &str, samples: &[Sample], seconds: Option<f64>) -> DeviceTelemetry {
    let of = |sample: &'_ Sample| sample.devices.iter().find(|device| device.address == address).cloned();
    let timed: Vec<(Duration, DeviceSample)> =
        samples.iter().filter_map(|sample| Some((sample.at, of(sample)?))).collect();
    let all: Vec<&DeviceSample> = timed.iter().map(|(_, sample)| sample).collect();
    let spread = |of: fn(&DeviceSample) -> Option<f64>| Spread::of(all.iter().filter_map(|sample| of(sample)));
    let energy = |(at, sample): &(Duration, DeviceSample)| Some((*at, sample.energy_j?, sample.power_w.is_some()));
    let energy: Vec<Counted> = timed.iter().filter_map(energy).collect();
    let throttled = all.iter().filter(|sample| !sample.throttled.is_empty()).count();
    let mut throttle_reasons: Vec<String> = all.iter().flat_map(|sample| sample.throttled.clone()).collect();
    throttle_reasons.sort();
    throttle_reasons.dedup();
    DeviceTelemetry {
        address: address.to_owned(),
        utilization_pct: spread(|sample| sample.utilization_pct),
        power_w: spread(|sample| sample.power_w),
        energy_j: counted(&energy, seconds),
        memory_used_bytes: spread(|sample| sample.memory_used_bytes.map(|bytes| bytes as f64)),
        temperature_c: spread(|sample| sample.temperature_c),
        memory_temperature_c: spread(|sample| sample.memory_temperature_c),
        clock_mhz: spread(|sample| sample.clock_mhz),
        throttled_pct: (throttled > 0).then(|| 100.0 * throttled as f64 / all.len() as f64),
        throttle_reasons,
    }
}

fn host(samples: &[Sample], seconds: Option<f64>) -> HostTelemetry {
    let spread =
        |of: fn(&super::HostSample) -> Option<f64>| Spread::of(samples.iter().filter_map(|sample| of(&sample.host)));
    let energy = |sample: &Sample| Some((sample.at, sample.host.energy_j?, sample.host.power_w.is_some()));
    let energy: Vec<Counted> = samples.iter().filter_map(energy).collect();
    HostTelemetry {
        cpu_pct: spread(|host| host.cpu_pct),
        server_cpu_pct: spread(|host| host.server_cpu_pct),
        client_cpu_pct: spread(|host| host.client_cpu_pct),
        memory_used_bytes: spread(|host| host.memory_used_bytes.map(|bytes| bytes as f64)),
        swap_used_bytes: spread(|host| host.swap_used_bytes.map(|bytes| bytes as f64)),
        load: spread(|host| host.load),
        power_w: spread(|host| host.power_w),
        energy_j: counted(&energy, seconds),
    }
}

fn device_warnings(device: &DeviceTelemetry) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(share) = device.throttled_pct.filter(|share| *share >= THROTTLED_PCT) {
        warnings.push(format!(
            "device {} was throttled in {share:.0} % of the samples ({})",
            device.address,
            device.throttle_reasons.join(", ")
        ));
    }
    let works = device.utilization_pct.is_some_and(|used| used.mean >= WORKS_PCT);
    if let Some(clock) = device.clock_mhz.filter(|clock| works && clock.mean < clock.max * (1.0 - CLOCK_DROP)) {
        warnings.push(format!(
            "the clock of device {} fell: {:.0} MHz on average, {:.0} at its highest",
            device.address, clock.mean, clock.max
        ));
    }
    warnings
}

fn swap_warning(samples: &[Sample]) -> Option<String> {
    let used: Vec<f64> = samples.iter().filter_map(|sample| sample.host.swap_used_bytes).map(|b| b as f64).collect();
    let grown = used.iter().copied().fold(f64::NEG_INFINITY, f64::max) - used.first()?;
    (grown >= SWAP_BYTES)
        .then(|| format!("the host swapped while it was measured: {:.0} MiB more in use", grown / 1_048_576.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, devices: Vec<DeviceSample>) -> Sample {
        Sample { at: Duration::from_secs(at), devices, ..Sample::default() }
    }

    fn device(address: &str, power: f64, energy: Option<f64>) -> DeviceSample {
        DeviceSample { address: address.into(), power_w: Some(power), energy_j: energy, ..DeviceSample::default() }
    }

    fn summary(busy: &[Sample]) -> Telemetry {
        summarize(&[], busy, Some(4.0), Some("a counter".into()), Vec::new())
    }

    #[test]
    fn energy_of_counters_is_their_mean_power_times_the_seconds_of_the_requests() {
        let idle = [sample(0, vec![device("a", 40.0, Some(10.0)), device("b", 20.0, Some(5.0))])];
        let busy = [
            sample(1, vec![device("a", 100.0, Some(50.0)), device("b", 50.0, Some(25.0))]),
            sample(2, vec![device("a", 200.0, Some(250.0)), device("b", 100.0, Some(125.0))]),
            sample(3, vec![device("a", 300.0, Some(450.0)), device("b", 150.0, Some(225.0))]),
        ];
        let all = summarize(&idle, &busy, Some(4.0), Some("a counter".into()), Vec::new());
        assert_eq!((all.energy_j, all.energy_from.as_deref()), (Some(1200.0), Some("a counter")));
        assert_eq!(all.power_w, Some(Spread { mean: 300.0, min: 150.0, max: 450.0 }));
        assert_eq!((all.idle_power_w, all.samples), (Some(60.0), 3));
        let few = summarize(&idle, &busy[..2], Some(4.0), Some("a counter".into()), Vec::new());
        assert_eq!(few.energy_j, None, "two samples are too few");
    }

    #[test]
    fn without_counters_it_is_power_times_time_and_says_so() {
        let busy = [100.0, 200.0, 300.0].map(|power| sample(0, vec![device("a", power, None)]));
        let all = summary(&busy);
        assert_eq!((all.energy_j, all.energy_from.as_deref()), (Some(800.0), Some("power times time")));
    }

    #[test]
    fn one_device_that_does_not_tell_its_power_leaves_the_sum_unknown() {
        let silent = DeviceSample { address: "b".into(), ..DeviceSample::default() };
        let measured = [
            sample(0, vec![device("a", 100.0, None), silent.clone()]),
            sample(2, vec![device("a", 200.0, None), silent]),
        ];
        let all = summary(&measured);
        assert_eq!((all.power_w, all.energy_j, all.energy_from), (None, None, None));
        assert!(all.devices[0].power_w.is_some());
    }

    #[test]
    fn throttling_a_falling_clock_and_swap_are_warnings() {
        let busy = |clock: f64, throttled: &[&str]| DeviceSample {
            utilization_pct: Some(99.0),
            clock_mhz: Some(clock),
            throttled: throttled.iter().map(|why| (*why).to_owned()).collect(),
            ..device("a", 1.0, None)
        };
        let mut measured = [sample(0, vec![busy(2400.0, &[])]), sample(1, vec![busy(1000.0, &["thermal"])])];
        measured[1].host.swap_used_bytes = Some(200 << 20);
        measured[0].host.swap_used_bytes = Some(0);
        assert_eq!(
            summary(&measured).warnings,
            [
                "device a was throttled in 50 % of the samples (thermal)",
                "the clock of device a fell: 1700 MHz on average, 2400 at its highest",
                "the host swapped while it was measured: 200 MiB more in use",
            ]
        );
    }

    #[test]
    fn nothing_sampled_is_nothing_known() {
        assert_eq!(summary(&[]), Telemetry::default());
    }
}
