//! Metrics that follow from others: per device, per user, what a billion tokens take, money, speed-up. Pure.
//!
//! Formulas and names are those of the cluster sweep (huggingface/datatrove, `examples/inference/benchmark`), corrected: devices are
//! tensor x pipeline x data parallel size, and the throughput is that of the measurement, into which no server start ever goes.
//! What an input is missing for is absent.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::optimize::baselines;
use super::{MetricValues, Row, RunTable};
use crate::model::{VllmMetric, phase_key};

/// Devices in a node where nobody says otherwise.
pub const DEVICES_PER_NODE: u32 = 8;

const BILLION: f64 = 1e9;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;
const JOULES_PER_KWH: f64 = 3.6e6;

/// What a device costs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices {
    /// The currency, as the user writes it.
    pub currency: Arc<str>,
    /// Price of one hour of any other device.
    pub default: Option<f64>,
    /// Price of a kilowatt-hour of energy.
    pub kwh: Option<f64>,
    /// Price of one hour, by the name of the device.
    pub devices: IndexMap<String, f64>,
}

impl Prices {
    /// The price of one hour of a device: of its whole name, else of the longest name in the file that is a part of its name (`H100`
    /// in `NVIDIA H100 80GB HBM3`), else the default.
    pub fn of(&self, device: Option<&str>) -> Option<f64> {
        let device = device.map(str::to_lowercase);
        let named = |device: &String| {
            let mut known: Vec<(String, f64)> = self.devices.iter().map(|(k, v)| (k.to_lowercase(), *v)).collect();
            known.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
            let whole = known.iter().find(|(name, _)| name == device);
            whole.or_else(|| known.iter().find(|(name, _)| device.contains(name))).map(|(_, price)| *price)
        };
        device.as_ref().and_then(named).or(self.default)
    }
}

/// What the user says beside the measurements.
#[derive(Debug, Clone, PartialEq)]
pub struct Assumptions {
    /// Devices in a node.
    pub devices_per_node: u32,
    /// What devices cost.
    pub prices: Option<Prices>,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self { devices_per_node: DEVICES_PER_NODE, prices: None }
    }
}

/// Puts the derived metrics into `about.further` of every row; done again, the newer assumptions count.
pub fn derive(table: &mut RunTable, assumed: &Assumptions) {
    for row in &mut table.rows {
        row.about.currency = assumed.prices.as_ref().map(|prices| Arc::clone(&prices.currency));
        let mut metrics = std::mem::take(&mut row.about.further);
        metrics.remove(|key| key == "speedup" || key.contains("cost_"));
        put(row, assumed, &mut metrics);
        row.about.further = metrics;
    }
    let speedups: Vec<(usize, f64)> = {
        let measured = table.rows.iter().any(|row| row.is_valid() && !row.simulated);
        let alike = table.rows.iter().enumerate().filter(|(_, row)| row.counts(measured));
        let (places, rows): (Vec<usize>, Vec<&Row>) = alike.unzip();
        let of = |row: &Row, base: Option<f64>| Some(row.metric("output_tps_per_gpu")? / base?);
        let all = places.into_iter().zip(&rows).zip(baselines(&rows));
        all.filter_map(|((place, row), base)| Some((place, of(row, base)?))).collect()
    };
    for (index, speedup) in speedups {
        if let Some(row) = table.rows.get_mut(index).filter(|_| speedup.is_finite()) {
            row.about.further.insert("speedup", speedup);
        }
    }
}

/// Puts in all that one row says by itself.
fn put(row: &Row, assumed: &Assumptions, metrics: &mut MetricValues) {
    let [energy, power] = ["energy_j", "mean_power_w"].map(|key| metrics.get(key).filter(|value| *value > 0.0));
    let mut put = |key: &'static str, value: Option<f64>| {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            metrics.insert(key, value);
        }
    };
    let metric = |metric: VllmMetric| row.metrics.get(metric);
    let positive = |value: Option<f64>| value.filter(|value| *value > 0.0);
    let duration = positive(metric(VllmMetric::Duration));
    let completed = positive(metric(VllmMetric::Completed));
    let devices = row.about.devices.filter(|devices| *devices > 0).map(f64::from);
    let per_device = |value: Option<f64>| Some(value? / devices?);
    let output = metric(VllmMetric::OutputThroughput);
    let input = metric(VllmMetric::TotalInputTokens).zip(duration).map(|(tokens, seconds)| tokens / seconds);
    let total = metric(VllmMetric::TotalTokenThroughput).or_else(|| Some(output? + input?));
    put("devices", devices);
    put("output_tps_per_gpu", per_device(output));
    put("input_tps_per_gpu", per_device(input));
    put("total_tps_per_gpu", per_device(total));
    put("output_tps_per_user", positive(metric(VllmMetric::MeanTpot)).map(|tpot| 1e3 / tpot));
    let own = positive(per_device(output));
    put("gpu_days_to_process_1b_tokens", own.map(|tps| BILLION / tps / DAY));
    let node = f64::from(assumed.devices_per_node.max(1));
    put("node_days_to_process_1b_tokens", own.map(|tps| BILLION / tps / DAY / node));
    put("gpus_for_1b_tokens_per_hour", own.map(|tps| BILLION / (tps * HOUR)));
    if let Some(price) = assumed.prices.as_ref().and_then(|prices| prices.of(row.about.device.as_deref())) {
        let cost = |tps: f64| price * 1e6 / (tps * HOUR);
        put("cost_per_1m_output_tokens", own.map(cost));
        put("cost_per_1m_tokens", positive(per_device(total)).map(cost));
    }
    let kwh = assumed.prices.as_ref().and_then(|prices| prices.kwh);
    let joules = energy.zip(positive(metric(VllmMetric::TotalOutputTokens))).map(|(j, tokens)| j / tokens);
    put("joules_per_output_token", joules);
    put(
        "energy_cost_per_1m_output_tokens",
        joules.zip(kwh).map(|(joules, price)| joules * 1e6 / JOULES_PER_KWH * price),
    );
    put("output_tokens_per_joule", output.zip(power).map(|(tps, watts)| tps / watts));
    put("mean_input_tokens", metric(VllmMetric::TotalInputTokens).zip(completed).map(|(tokens, n)| tokens / n));
    put("mean_output_tokens", metric(VllmMetric::TotalOutputTokens).zip(completed).map(|(tokens, n)| tokens / n));
    let per_1k = |seconds: Option<f64>| Some(seconds? / completed? * 1e3 * devices?);
    put("inference_per_1k_per_gpu", per_1k(duration));
    if let Some(timings) = &row.timings {
        put("startup_s", timings.startup);
        put("e2e_s", positive(Some(timings.total)));
        put("e2e_per_1k_per_gpu", per_1k(positive(Some(timings.total))));
        let mut phases: BTreeMap<String, f64> = BTreeMap::new();
        for step in &timings.startup_phases {
            *phases.entry(phase_key(step.phase)).or_default() += step.seconds;
        }
        let finite = phases.into_iter().filter(|(_, seconds)| seconds.is_finite());
        metrics.extend(finite.map(|(key, seconds)| (key.into(), seconds)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{row, table_of};
    use super::*;
    use crate::model::{StartPhase, StartStep, Timings};

    fn near(found: Option<f64>, expected: f64) {
        let found = found.unwrap_or(f64::NAN);
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    /// 10,000 output tokens per second and device, on `devices`, for 100 s.
    fn fast(devices: u32) -> Row {
        let mut row = row("m", devices, 20.0, 100.0);
        let tokens = 10_000.0 * f64::from(devices) * 100.0;
        for (metric, value) in [
            (VllmMetric::Duration, 100.0),
            (VllmMetric::Completed, 2000.0),
            (VllmMetric::TotalInputTokens, 2.0 * tokens),
            (VllmMetric::TotalOutputTokens, tokens),
            (VllmMetric::OutputThroughput, tokens / 100.0),
            (VllmMetric::TotalTokenThroughput, 3.0 * tokens / 100.0),
            (VllmMetric::MeanTpot, 20.0),
        ] {
            row.metrics.set(metric, Some(value));
        }
        row.about.devices = Some(devices);
        row
    }

    fn derived(row: Row, assumed: &Assumptions) -> Row {
        let mut table = table_of(vec![row]);
        derive(&mut table, assumed);
        table.rows.remove(0)
    }

    #[test]
    fn energy_is_told_per_token_and_what_was_replaced_has_no_speed_up() {
        let mut of = fast(1);
        of.about.further.insert("energy_j", 500_000.0);
        of.about.further.insert("mean_power_w", 5000.0);
        let found = derived(of, &Assumptions::default());
        near(found.metric("joules_per_output_token"), 0.5);
        near(found.metric("output_tokens_per_joule"), 2.0);
        let mut table = table_of(vec![Row { baseline: true, ..fast(1) }, Row { replaced: true, ..fast(2) }]);
        derive(&mut table, &Assumptions::default());
        assert_eq!((table.rows[0].metric("speedup"), table.rows[1].metric("speedup")), (Some(1.0), None));
    }

    #[test]
    fn the_cluster_sweeps_own_check_holds() {
        // five-systems 5.5: 10,000 tok/s per device -> 1.157407 GPU-days, 27.777778 devices.
        let found = derived(fast(1), &Assumptions::default());
        near(found.metric("gpu_days_to_process_1b_tokens"), 1.157_407_407);
        near(found.metric("gpus_for_1b_tokens_per_hour"), 27.777_777_778);
        near(found.metric("node_days_to_process_1b_tokens"), 1.157_407_407 / 8.0);
        near(found.metric("output_tps_per_user"), 50.0);
        near(found.metric("inference_per_1k_per_gpu"), 50.0);
        near(found.metric("mean_output_tokens"), 500.0);
    }

    #[test]
    fn s5_1b_every_kind_of_parallelism_counts_as_devices() {
        // The same tokens in the same time on four devices is a quarter of it per device.
        let mut four = fast(1);
        four.about.devices = Some(4);
        let found = derived(four, &Assumptions { devices_per_node: 4, prices: None });
        near(found.metric("output_tps_per_gpu"), 2500.0);
        near(found.metric("input_tps_per_gpu"), 5000.0);
        near(found.metric("total_tps_per_gpu"), 7500.0);
        near(found.metric("gpu_days_to_process_1b_tokens"), 4.629_629_63);
        near(found.metric("node_days_to_process_1b_tokens"), 1.157_407_407);
        near(found.metric("inference_per_1k_per_gpu"), 200.0);
    }

    #[test]
    fn s5_1_a_slow_server_start_changes_no_throughput() {
        let mut slow = fast(2);
        slow.timings = Some(Timings {
            startup: Some(600.0),
            startup_phases: [(StartPhase::Loading, 100.0), (StartPhase::Compiling, 40.0), (StartPhase::Loading, 20.0)]
                .map(|(phase, seconds)| StartStep { phase, seconds })
                .into(),
            benchmark: Some(101.0),
            teardown: None,
            total: 701.0,
        });
        let (fast, slow) = (derived(fast(2), &Assumptions::default()), derived(slow, &Assumptions::default()));
        for key in ["output_tps_per_gpu", "gpu_days_to_process_1b_tokens", "inference_per_1k_per_gpu"] {
            assert_eq!(fast.metric(key), slow.metric(key), "{key}");
        }
        assert_eq!(slow.metric("startup_s"), Some(600.0));
        assert_eq!(slow.metric("startup_loading_s"), Some(120.0));
        near(slow.metric("e2e_per_1k_per_gpu"), 701.0);
        assert_eq!(fast.metric("startup_s"), None);
    }

    #[test]
    fn money_is_price_by_time_and_devices() {
        let prices = Prices {
            currency: "EUR".into(),
            default: Some(1.0),
            kwh: Some(0.36),
            devices: [("H100".to_owned(), 3.6), ("NVIDIA H100 80GB HBM3".to_owned(), 7.2)].into_iter().collect(),
        };
        assert_eq!(prices.of(Some("nvidia h100 80gb hbm3")), Some(7.2));
        assert_eq!(prices.of(Some("NVIDIA H100 PCIe")), Some(3.6));
        assert_eq!((prices.of(Some("Arc B60")), prices.of(None)), (Some(1.0), Some(1.0)));
        let mut row = fast(2);
        row.about.device = Some("NVIDIA H100 PCIe".into());
        // 1.25 J for each of two million tokens.
        row.about.further.insert("energy_j", 2.5e6);
        let found = derived(row, &Assumptions { prices: Some(prices), ..Assumptions::default() });
        // 2 devices x 3.6 an hour, 20,000 tokens a second = 72e6 an hour: 7.2 / 72.
        near(found.metric("cost_per_1m_output_tokens"), 0.1);
        near(found.metric("cost_per_1m_tokens"), 0.1 / 3.0);
        // 1.25 MJ for a million tokens, at 0.1 for each MJ.
        near(found.metric("energy_cost_per_1m_output_tokens"), 0.125);
        assert_eq!(found.about.currency.as_deref(), Some("EUR"));
        let without = derived(found, &Assumptions::default());
        assert_eq!((without.metric("cost_per_1m_output_tokens"), without.about.currency), (None, None));
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let found = derived(row("m", 2, 1.0, 1.0), &Assumptions::default());
        assert_eq!(found.about.further, super::super::MetricValues::default());
        let mut zero = fast(1);
        zero.metrics.set(VllmMetric::OutputThroughput, Some(0.0));
        zero.metrics.set(VllmMetric::MeanTpot, Some(0.0));
        let found = derived(zero, &Assumptions::default());
        assert_eq!(found.metric("output_tps_per_gpu"), Some(0.0));
        for key in ["gpu_days_to_process_1b_tokens", "gpus_for_1b_tokens_per_hour", "output_tps_per_user", "speedup"] {
            assert_eq!(found.metric(key), None, "{key}");
        }
    }
}
