//! `load --dashboard` and `load --pushgateway`: how the load stands, read off the counters of its session when somebody asks. The
//! session itself does nothing for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value};

use crate::cli::LoadArgs;
use crate::commands::{dashboard, query_args};
use crate::config::LoadSettings;
use crate::dashboard::{Counted, LoadNow, LoadSource, Pusher, Seen, SeenDevice, Server};
use crate::error::Error;
use crate::load::session::Live;
use crate::telemetry::DeviceSample;
use crate::ui::Ui;

/// Who watches a load.
pub(super) struct Watched {
    progress: Arc<Progress>,
    server: Option<Server>,
    pusher: Option<Pusher>,
}

impl Watched {
    /// Serves and pushes what is asked for. What goes wrong with either is a warning: the load goes on.
    ///
    /// # Errors
    /// When an address cannot be read.
    pub fn begin(args: &LoadArgs, ui: &Ui) -> Result<Self, Error> {
        let gateway = args.pushgateway.as_deref().map(query_args::gateway).transpose()?;
        let now = chrono::Local::now().format("load-%Y%m%d-%H%M%S");
        let name =
            args.label.clone().or_else(|| args.name.clone()).unwrap_or_else(|| format!("{now}-{}", std::process::id()));
        let now = LoadNow { name, live: true, ..LoadNow::default() };
        let progress = Arc::new(Progress { state: Mutex::new(State { now, under_way: None, devices: Vec::new() }) });
        let source: Arc<dyn LoadSource> = Arc::<Progress>::clone(&progress);
        let server = dashboard::beside_load(args, Arc::clone(&source), ui)?;
        let warned = ui.clone();
        if let Some(gateway) = &gateway {
            let labels = dashboard::push::labels_of_load(&source.now().name);
            ui.say(&format!("metrics are pushed to {}", gateway.group(&labels)));
        }
        let pusher =
            gateway.and_then(|gateway| dashboard::push::load(&gateway, source, move |text| warned.warn(&text)));
        Ok(Self { progress, server, pusher })
    }

    /// What is told how the load stands.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Lets those who watch see the end.
    pub fn end(self) {
        self.progress.lock().now.live = false;
        if let Some(server) = &self.server {
            server.farewell();
        }
        if let Some(pusher) = self.pusher {
            pusher.end();
        }
    }
}

/// How a load stands.
pub(super) struct Progress {
    state: Mutex<State>,
}

struct State {
    now: LoadNow,
    /// The counters of the workload under way, and since when.
    under_way: Option<(Arc<Live>, Instant)>,
    devices: Vec<SeenDevice>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A load, or a scenario of one, is about to begin.
    pub fn load(&self, settings: &LoadSettings, simulated: bool) {
        let mut state = self.lock();
        let now = &mut state.now;
        now.server = crate::safe::redact(&settings.base_url).into_owned();
        now.simulated = simulated;
        now.workloads += settings.points.len() as u64;
    }

    /// A workload begins.
    pub fn begin(&self, description: String, planned: Option<u64>, live: &Arc<Live>) {
        let mut state = self.lock();
        let now = &mut state.now;
        now.before = now.before.and(std::mem::take(&mut now.counted));
        now.workload += 1;
        (now.description, now.planned) = (description, planned);
        state.under_way = Some((Arc::clone(live), Instant::now()));
    }

    /// It is over; its result has these metrics.
    pub fn over(&self, result: &Map<String, Value>) {
        let mut state = self.lock();
        state.read();
        state.under_way = None;
        state.devices.clear();
        state.now.active = 0;
        let number = |key: String| result.get(&key).and_then(Value::as_f64).map(|value| (key, value));
        let latencies = ["ttft", "tpot", "itl", "e2el"]
            .iter()
            .flat_map(|of| ["mean", "median", "p99"].iter().map(move |statistic| format!("{statistic}_{of}_ms")));
        let rates =
            ["duration", "completed", "failed", "request_throughput", "output_throughput", "total_token_throughput"];
        let last: BTreeMap<String, f64> =
            rates.map(str::to_owned).into_iter().chain(latencies).filter_map(number).collect();
        state.now.last = last;
    }

    /// What the devices say now.
    pub fn devices(&self, devices: &[DeviceSample]) {
        self.lock().devices = devices.iter().map(device).collect();
    }
}

impl State {
    /// Takes in what the workload under way has counted.
    fn read(&mut self) {
        let Some((live, began)) = &self.under_way else { return };
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let now = &mut self.now;
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a load fit")]
        let ttft_seconds = count(&live.ttft_sum_us) as f64 / 1e6;
        now.counted = Counted {
            sent: count(&live.sent),
            done: count(&live.done),
            failed: count(&live.failed),
            tokens: count(&live.tokens),
            ttft_seconds,
            first_tokens: count(&live.ttft_count),
        };
        (now.active, now.peak) = (count(&live.active), count(&live.peak));
        now.seconds = Some(began.elapsed().as_secs_f64());
    }
}

impl LoadSource for Progress {
    fn now(&self) -> LoadNow {
        let mut state = self.lock();
        state.read();
        let seen = Seen { lane: 1, devices: state.devices.clone(), ..Seen::default() };
        LoadNow { seen: (!state.devices.is_empty()).then_some(seen), ..state.now.clone() }
    }
}

fn device(of: &DeviceSample) -> SeenDevice {
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory fit")]
    let memory_gib = of.memory_used_bytes.map(|bytes| bytes as f64 / 1_073_741_824.0);
    SeenDevice {
        device: of.address.clone(),
        power_w: of.power_w,
        temperature_c: of.temperature_c,
        utilization_pct: of.utilization_pct,
        memory_gib,
        clock_mhz: of.clock_mhz,
        throttled: of.throttled.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_one_workload_are_added_to_those_before() {
        let now = LoadNow { name: "l".into(), live: true, ..LoadNow::default() };
        let progress = Progress { state: Mutex::new(State { now, under_way: None, devices: Vec::new() }) };
        assert_eq!(progress.now().seconds, None);
        for (done, tokens) in [(5, 50), (7, 70)] {
            let live = Arc::new(Live::default());
            progress.begin("8 at a time".into(), Some(10), &live);
            live.sent.store(done + 1, Ordering::Relaxed);
            live.done.store(done, Ordering::Relaxed);
            live.tokens.store(tokens, Ordering::Relaxed);
            live.ttft_sum_us.store(500_000, Ordering::Relaxed);
            live.ttft_count.store(2, Ordering::Relaxed);
            let now = progress.now();
            assert_eq!((now.counted.done, now.counted.tokens, now.mean_ttft()), (done, tokens, Some(0.25)));
            assert!(now.tokens_per_second().is_some());
            let result = serde_json::json!({ "output_throughput": 9.0, "p99_ttft_ms": 3.0, "backend": "x" });
            progress.over(result.as_object().unwrap());
        }
        let now = progress.now();
        let all = now.before.and(now.counted);
        assert_eq!((all.sent, all.done, all.tokens, all.first_tokens), (14, 12, 120, 4));
        assert_eq!((now.workload, now.active, now.last["p99_ttft_ms"]), (2, 0, 3.0));
        assert_eq!(now.last.len(), 2);
    }
}
