//! Device memory before a start and after an end: the last part of the proof that nothing is left.

use std::time::Duration;

use tokio::time::Instant;

use super::UnitContext;
use crate::process::{Stop, StopLevel};
use crate::telemetry::{DeviceKind, MemorySource};

/// Device memory in use before a start, to be compared with what is in use after the end.
pub(super) struct DeviceMemory(Vec<(u32, u64)>);

/// What may stay in use on a device: contexts of other processes come and go.
const MEMORY_SLACK: u64 = 256 << 20;
/// How long memory may take to come back.
const MEMORY_LIMIT: Duration = Duration::from_secs(10);

impl DeviceMemory {
    pub async fn read(context: &UnitContext) -> Self {
        Self(Self::now(context).await)
    }

    /// Only a driver's metric for the whole device proves anything: memory of the host moves for many reasons.
    async fn now(context: &UnitContext) -> Vec<(u32, u64)> {
        if context.devices == DeviceKind::Cpu {
            return Vec::new();
        }
        let (probe, kind) = (context.probe.clone(), context.devices);
        let readings = tokio::task::spawn_blocking(move || crate::telemetry::devices::memory_readings(&probe, kind));
        let readings = readings.await.unwrap_or_default();
        readings
            .into_iter()
            .filter(|reading| reading.source != Some(MemorySource::Host))
            .filter_map(|reading| Some((reading.index, reading.used_bytes?)))
            .collect()
    }

    /// Whether memory came back to its level before the start; `None` where it cannot be read. A stop of level
    /// [`StopLevel::Kill`] does not wait for it.
    pub async fn is_back(&self, context: &UnitContext, stop: &Stop) -> Option<bool> {
        if self.0.is_empty() {
            return None;
        }
        let deadline = Instant::now() + MEMORY_LIMIT;
        loop {
            let now = Self::now(context).await;
            if now.is_empty() {
                return None;
            }
            let back = now.iter().all(|(index, used)| {
                self.0.iter().find(|(i, _)| i == index).is_none_or(|(_, before)| *used <= before + MEMORY_SLACK)
            });
            if back || Instant::now() >= deadline || stop.level() >= StopLevel::Kill {
                return Some(back);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
