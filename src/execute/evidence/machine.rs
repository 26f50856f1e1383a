//! What the machine still says: the ends of logs, devices and host, the kernel's log.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::bounded;
use crate::diagnose::tail_lines;
use crate::model::ComputeUnit;
use crate::process::Members;
use crate::telemetry::{DeviceKind, Probe, Sample, Sampler, mebibytes, run_limited};

/// Between two samples of the devices.
const APART: Duration = Duration::from_secs(1);
/// For the kernel's log, and for the logs.
pub(super) const KERNEL: Duration = Duration::from_secs(3);
/// Lines of a log, and of the kernel's.
const LOG_LINES: usize = 400;
/// Bytes of a log's end that are read for them.
const LOG_BYTES: u64 = 512 << 10;

/// The last lines of a log.
pub(super) fn end_of(log: &Path) -> std::io::Result<Vec<String>> {
    use std::io::Seek;
    let mut file = bounded::open(log)?;
    let start = file.metadata()?.len().saturating_sub(LOG_BYTES);
    file.seek(std::io::SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(tail_lines(&bytes, LOG_LINES))
}

pub(super) fn sample(probe: Probe, kind: DeviceKind, units: &[ComputeUnit], groups: [Option<Members>; 2]) -> String {
    let [server, client] = groups.map(|members| -> Vec<i32> {
        members.map(|members| members.find().iter().map(|stat| stat.pid).collect()).unwrap_or_default()
    });
    let mut sampler = Sampler::new(probe, kind, units);
    sampler.sample(&server, &client);
    std::thread::sleep(APART);
    let Sample { devices, host, .. } = sampler.sample(&server, &client);
    let number = |value: Option<f64>, unit: &str| value.map_or("?".to_owned(), |value| format!("{value:.1} {unit}"));
    let mut text = String::new();
    for device in &devices {
        let memory = |bytes: Option<u64>| number(mebibytes(bytes), "MiB");
        let throttled = if device.throttled.is_empty() { "no".to_owned() } else { device.throttled.join(", ") };
        let _ = writeln!(
            text,
            "device {}: utilisation {}, memory {} of {}, power {}, temperature {}, clock {}, throttled: {throttled}",
            device.address,
            number(device.utilization_pct, "%"),
            memory(device.memory_used_bytes),
            memory(device.memory_total_bytes),
            number(device.power_w, "W"),
            number(device.temperature_c, "°C"),
            number(device.clock_mhz, "MHz"),
        );
    }
    if devices.is_empty() {
        text.push_str("no device tells anything\n");
    }
    let _ = writeln!(
        text,
        "host: processors {} of one core (server {}, client {}), memory {}, swap {}, load {}",
        number(host.cpu_pct, "%"),
        number(host.server_cpu_pct, "%"),
        number(host.client_cpu_pct, "%"),
        number(mebibytes(host.memory_used_bytes), "MiB"),
        number(mebibytes(host.swap_used_bytes), "MiB"),
        number(host.load, ""),
    );
    for warning in sampler.warnings() {
        let _ = writeln!(text, "{warning}");
    }
    text
}

/// The end of the kernel's log: from `/dev/kmsg`, else from `dmesg`.
pub(super) fn kernel_log(probe: &Probe) -> Result<String, String> {
    let own = kmsg(&probe.at("/dev/kmsg"));
    let lines = match own {
        Ok(lines) => lines,
        Err(error) => {
            let dmesg = probe.find_tool("dmesg").ok_or_else(|| format!("/dev/kmsg: {error}; no `dmesg`"))?;
            let output = run_limited(Command::new(dmesg), KERNEL / 2)
                .map_err(|failed| format!("/dev/kmsg: {error}; {failed}"))?;
            if !output.status.success() {
                return Err(output.complaint().unwrap_or_else(|| "dmesg failed".into()));
            }
            output
                .text()
                .lines()
                .rev()
                .take(LOG_LINES)
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect()
        }
    };
    Ok(Vec::from(lines).join("\n") + "\n")
}

/// The last records of the kernel's ring buffer. Reading it takes nothing from other readers.
fn kmsg(path: &Path) -> std::io::Result<VecDeque<String>> {
    const MOST: usize = 1 << 20;
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let mut lines = VecDeque::new();
    let mut record = [0; 8192];
    for _ in 0..MOST {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                lines.push_back(kernel_line(&String::from_utf8_lossy(&record[..length])));
                if lines.len() > LOG_LINES {
                    lines.pop_front();
                }
            }
            // Read to the end; or a record was overwritten meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EPIPE as i32) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}

/// `6,339,5140900,-;the text` and lines of facts, as `[    5.140900] the text`.
fn kernel_line(record: &str) -> String {
    let line = record.lines().next().unwrap_or_default();
    let Some((head, text)) = line.split_once(';') else { return line.to_owned() };
    match head.split(',').nth(2).and_then(|micros| micros.parse::<u64>().ok()) {
        Some(micros) => format!("[{:5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_kernel_become_lines() {
        assert_eq!(
            kernel_line("6,339,5140900,-;xe 0000:03:00.0: reset\n SUBSYSTEM=pci\n"),
            "[    5.140900] xe 0000:03:00.0: reset"
        );
        assert_eq!(kernel_line("no record"), "no record");
        assert_eq!(kernel_line("6,x;text"), "text");
    }

    #[test]
    fn the_end_of_a_log_is_read_and_no_device() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "a\nb\n").unwrap();
        assert_eq!(end_of(&path).unwrap(), ["a", "b"]);
        assert!(end_of(Path::new("/dev/zero")).is_err());
    }
}
