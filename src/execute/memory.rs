//! Device memory before a start and after an end: the last part of the proof that nothing is left.

use std::time::Duration;

use tokio::time::Instant;

use super::UnitContext;
use crate::model::ComputeUnit;
use crate::process::{Stop, StopLevel};
use crate::telemetry::{DeviceKind, unit_memory};

/// Device memory in use before a start, to be compared with what is in use after the end.
pub(super) struct DeviceMemory {
    units: Vec<ComputeUnit>,
    used: Vec<(String, u64)>,
}

/// What may stay in use on a device: contexts of other processes come and go.
const MEMORY_SLACK: u64 = 256 << 20;
/// How long memory may take to come back.
const MEMORY_LIMIT: Duration = Duration::from_secs(10);

impl DeviceMemory {
    /// Of the units that a server is given.
    pub async fn read(context: &UnitContext, units: Vec<ComputeUnit>) -> Self {
        let used = Self::now(context, &units).await;
        Self { units, used }
    }

    /// Of the units that the server may use alone: what others hold elsewhere is not ours. Memory of the host moves for many reasons.
    async fn now(context: &UnitContext, units: &[ComputeUnit]) -> Vec<(String, u64)> {
        if context.devices == DeviceKind::Cpu {
            return Vec::new();
        }
        let (probe, kind, units) = (context.probe.clone(), context.devices, units.to_vec());
        tokio::task::spawn_blocking(move || unit_memory(&probe, kind, &units)).await.unwrap_or_default()
    }

    /// Whether memory came back to its level before the start; `None` where it cannot be read. A stop of level
    /// [`StopLevel::Kill`] does not wait for it.
    pub async fn is_back(&self, context: &UnitContext, stop: &Stop) -> Option<bool> {
        if self.used.is_empty() {
            return None;
        }
        let deadline = Instant::now() + MEMORY_LIMIT;
        loop {
            let now = Self::now(context, &self.units).await;
            if now.is_empty() {
                return None;
            }
            let back = now.iter().all(|(address, used)| {
                self.used
                    .iter()
                    .find(|(known, _)| known == address)
                    .is_none_or(|(_, before)| *used <= before + MEMORY_SLACK)
            });
            if back || Instant::now() >= deadline || stop.level() >= StopLevel::Kill {
                return Some(back);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
