//! What devices, host and server do while something is measured: sampled beside it, kept as a series, and summed up. It neither ends
//! nor slows a measurement: whatever fails here is a sentence in the record.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Emitter, Job, UnitContext};
use crate::diagnose::requests_done;
use crate::load::server::{Reading, ServerState};
use crate::model::{Event, Telemetry};
use crate::process::Members;
use crate::record::Growing;
use crate::sim::settings::SPEED as SIMULATED_SPEED;
use crate::telemetry::{DEVICE_COLUMNS, DeviceSample, Sample, Sampler, cell, mebibytes, summarize};

/// How long the last sample may take: no measurement waits longer for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A sample with what the server said at that moment.
#[derive(Debug, Clone, Default)]
struct Moment {
    sample: Sample,
    server: Option<ServerState>,
    /// As people read it, in UTC.
    clock: String,
}

/// What the sampler is told.
enum Told {
    /// The client begins; these are its processes.
    Client(Members),
    /// The client has ended.
    End,
}

/// Sampling that is under way.
pub(super) struct Sampling {
    tell: mpsc::UnboundedSender<Told>,
    task: JoinHandle<Series>,
    interval: Duration,
}

/// All moments of a measurement.
#[derive(Debug, Default)]
struct Series {
    moments: Vec<Moment>,
    /// How many of them lie before the client.
    before: usize,
    energy_from: Option<String>,
    warnings: Vec<String>,
    /// Why they are not all in the file.
    not_kept: Option<String>,
}

impl Sampling {
    /// Begins to sample the devices of a job, where it is asked for, into the file that its places name. `base`: where the server is
    /// asked for its metrics.
    pub fn begin(context: &UnitContext, job: &Job, server: Members, base: &str, emit: &Emitter) -> Option<Self> {
        let interval = context.telemetry?;
        // Without lanes vLLM takes the first of those that it sees.
        let most = job.experiment.server.devices().and_then(|devices| usize::try_from(devices).ok());
        let first = || context.units.get(..most.unwrap_or(usize::MAX)).unwrap_or(&context.units);
        let units = if job.binding.units.is_empty() { first() } else { &job.binding.units };
        let sampler = Sampler::new(context.probe.clone(), context.devices, units);
        let (tell, told) = mpsc::unbounded_channel();
        let asked = Asked { http: context.http.clone(), url: format!("{base}/metrics"), interval };
        let file = File { path: job.places.telemetry.clone(), out: None, failed: None };
        let client = Follow::of(job, emit);
        let task = tokio::spawn(sample_until_told(sampler, asked, server, told, (file, client)));
        Some(Self { tell, task, interval })
    }

    /// The client begins.
    pub fn client_began(&self, client: Members) {
        let _ = self.tell.send(Told::Client(client));
    }

    /// Ends it. `shown`: the file of the series as the record names it. `seconds`: what the requests took, where it is known.
    pub async fn end(self, shown: Option<PathBuf>, seconds: Option<f64>) -> Option<Telemetry> {
        let _ = self.tell.send(Told::End);
        let Ok(series) = tokio::time::timeout(PATIENCE, self.task).await else {
            let late = format!("the devices did not answer within {} s: their samples are lost", PATIENCE.as_secs());
            return Some(Telemetry {
                interval: self.interval.as_secs_f64(),
                warnings: vec![late],
                ..Telemetry::default()
            });
        };
        let series = series.ok()?;
        let mut telemetry = series.summary(seconds);
        telemetry.interval = self.interval.as_secs_f64();
        match series.not_kept {
            None => telemetry.file = shown.map(|path| path.to_string_lossy().into_owned()),
            Some(error) => telemetry.warnings.push(format!("the series of samples could not be kept: {error}")),
        }
        Some(telemetry)
    }
}

/// The file of a series, which has each moment as soon as it is over: whoever watches the run reads its end.
struct File {
    path: PathBuf,
    out: Option<Growing>,
    failed: Option<String>,
}

impl File {
    /// Appends a moment. After the first failure there is no further try.
    fn add(&mut self, moment: &Moment, phase: &str) {
        if self.failed.is_some() {
            return;
        }
        let mut append = || -> Result<(), String> {
            let mut lines = Vec::new();
            let out = match &mut self.out {
                Some(out) => out,
                None => {
                    lines = header().map_err(|error| error.to_string())?;
                    self.out.insert(Growing::create(&self.path).map_err(in_words)?)
                }
            };
            lines.extend(moment.lines(phase).map_err(|error| error.to_string())?);
            out.append(&lines).map_err(in_words)
        };
        self.failed = append().err();
    }
}

fn in_words(error: crate::record::Error) -> String {
    match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Who is told how far the client is.
struct Follow {
    emit: Emitter,
    /// The experiment.
    name: String,
    /// The client's log.
    log: PathBuf,
    /// Seconds of the server in one of this machine: of a simulated one more than one.
    speed: f64,
}

/// Tells how far a client is where nothing is sampled beside it; ends when it is dropped.
pub(super) struct Following(JoinHandle<()>);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Following {
    /// Begins, at the begin of the client. `base`: where the server is asked for its metrics.
    pub fn begin(context: &UnitContext, job: &Job, base: &str, emit: &Emitter) -> Self {
        let asked = Asked { http: context.http.clone(), url: format!("{base}/metrics"), interval: LOOK_EVERY };
        let mut follow = Follow::of(job, emit);
        Self(tokio::spawn(async move {
            let began = Instant::now();
            let mut moments: Vec<Moment> = Vec::new();
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let server = asked.state().await;
                let sample = Sample { at: began.elapsed(), ..Sample::default() };
                moments.push(Moment { sample, server, clock: String::new() });
                if moments.len() > 2 * RATE_OVER {
                    // The first says where counters began.
                    moments.remove(1);
                }
                let read = tokio::task::spawn_blocking(move || (follow.requests_done(), follow));
                let Ok((done, back)) = read.await else { return };
                follow = back;
                follow.tell(done, &moments);
            }
        }))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How much of the end of a client's log is read: a progress bar has less.
const END_OF_LOG: u64 = 4 << 10;
/// Tokens per second are those of so many samples.
const RATE_OVER: usize = 5;

impl Follow {
    fn of(job: &Job, emit: &Emitter) -> Self {
        let speed = job.experiment.server.env.get(SIMULATED_SPEED).and_then(|speed| speed.parse().ok());
        let (name, log) = (job.experiment.name.clone(), job.places.benchmark_log.clone());
        Self { emit: emit.clone(), name, log, speed: speed.unwrap_or(1.0) }
    }

    /// Requests that are over, and all of them, as the client says.
    fn requests_done(&self) -> Option<(u64, u64)> {
        let mut file = crate::bounded::open(&self.log).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END_OF_LOG))).ok()?;
        requests_done(&crate::bounded::read_from(file.take(END_OF_LOG), END_OF_LOG).ok()?)
    }

    /// Tells how far it is, in a line; nothing where nothing is known.
    fn tell(&self, done: Option<(u64, u64)>, measured: &[Moment]) {
        let line = progress(done, measured, self.speed);
        if !line.is_empty() {
            self.emit.event(Event::Progress { name: self.name.clone(), line });
        }
    }
}

/// `120/400 requests, 5312 tok/s, TTFT 43.1 ms`: as far as the client's log and the server's counters since its begin say.
fn progress(done: Option<(u64, u64)>, measured: &[Moment], speed: f64) -> String {
    let tokens = |moment: &Moment| Some((moment.sample.at.as_secs_f64(), moment.server?.generation_tokens?));
    let recent = measured.get(measured.len().saturating_sub(RATE_OVER + 1)..).unwrap_or_default();
    let rate =
        recent.first().and_then(tokens).zip(recent.last().and_then(tokens)).and_then(|((from, before), (at, now))| {
            let rate = (now - before) / (at - from) / speed;
            (rate.is_finite() && rate >= 0.0 && speed.is_finite()).then(|| format!("{rate:.0} tok/s"))
        });
    let first_tokens = |moment: &Moment| moment.server.and_then(|server| server.ttft_sum.zip(server.ttft_count));
    let begin_and_end = measured.first().and_then(first_tokens).zip(measured.last().and_then(first_tokens));
    let ttft = begin_and_end.and_then(|((sum, count), (sum_now, count_now))| {
        let mean = (sum_now - sum) / (count_now - count) * 1e3;
        (mean.is_finite() && mean >= 0.0).then(|| format!("TTFT {mean:.1} ms"))
    });
    let done = done.map(|(done, of)| format!("{done}/{of} requests"));
    [done, rate, ttft].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// How the server is asked.
struct Asked {
    http: reqwest::Client,
    url: String,
    interval: Duration,
}

impl Asked {
    /// What the server counts now; a server that is slow to say so is not waited for.
    async fn state(&self) -> Option<ServerState> {
        let answer = self.http.get(&self.url).timeout(self.interval.min(Duration::from_secs(2))).send().await.ok()?;
        Some(Reading::parse(&answer.text().await.ok()?).state())
    }
}

async fn sample_until_told(
    mut sampler: Sampler,
    asked: Asked,
    server: Members,
    mut told: mpsc::UnboundedReceiver<Told>,
    (mut file, mut follow): (File, Follow),
) -> Series {
    let mut ticks = tokio::time::interval_at(Instant::now(), asked.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut series = Series::default();
    let mut client: Option<Members> = None;
    loop {
        let over = tokio::select! {
            biased;
            told = told.recv() => match told {
                Some(Told::Client(members)) => {
                    series.before = series.moments.len();
                    client = Some(members);
                    false
                }
                Some(Told::End) | None => true,
            },
            _ = ticks.tick() => false,
        };
        let (server, of_client) = (server.clone(), client.clone());
        let read = tokio::task::spawn_blocking(move || {
            let pids = |members: Option<&Members>| -> Vec<i32> {
                members.map(|members| members.find().iter().map(|stat| stat.pid).collect()).unwrap_or_default()
            };
            let (server, client) = (pids(Some(&server)), pids(of_client.as_ref()));
            let clock = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            let sample = sampler.sample(&server, &client);
            (sampler, sample, clock)
        });
        let (state, read) = tokio::join!(asked.state(), read);
        // A reader that panics ends the sampling, and nothing else.
        let Ok((back, sample, clock)) = read else { return series };
        sampler = back;
        let moment = Moment { sample, server: state, clock };
        let is_before = client.is_none();
        let written = tokio::task::spawn_blocking(move || {
            file.add(&moment, if is_before { "before" } else { "measuring" });
            let done = if is_before { None } else { follow.requests_done() };
            (file, follow, moment, done)
        });
        let Ok((back, follows, moment, done)) = written.await else { return series };
        (file, follow) = (back, follows);
        series.moments.push(moment);
        if !(is_before || over) {
            follow.tell(done, series.moments.get(series.before..).unwrap_or_default());
        }
        if over {
            series.energy_from = sampler.energy_from();
            series.warnings = sampler.warnings();
            series.not_kept = file.failed;
            return series;
        }
    }
}

impl Series {
    fn summary(&self, seconds: Option<f64>) -> Telemetry {
        let samples = |moments: &[Moment]| moments.iter().map(|moment| moment.sample.clone()).collect::<Vec<_>>();
        let (idle, measured) = self.moments.split_at(self.before.min(self.moments.len()));
        summarize(&samples(idle), &samples(busy(measured)), seconds, self.energy_from.clone(), self.warnings.clone())
    }
}

/// The names of the columns.
fn header() -> Result<Vec<u8>, csv::Error> {
    let mut row = csv::Writer::from_writer(Vec::new());
    row.write_record(DEVICE_COLUMNS.iter().chain(&FURTHER_COLUMNS))?;
    row.into_inner().map_err(|error| error.into_error().into())
}

impl Moment {
    /// A line for each device; one where there is none.
    fn lines(&self, phase: &str) -> Result<Vec<u8>, csv::Error> {
        let mut rows = csv::Writer::from_writer(Vec::new());
        let nothing = [DeviceSample::default()];
        let devices = if self.sample.devices.is_empty() { &nothing[..] } else { &self.sample.devices };
        for device in devices {
            let cells = device.cells(&device.address, &self.clock, self.sample.at);
            rows.write_record(cells.into_iter().chain(further_cells(self, device, phase)))?;
        }
        rows.into_inner().map_err(|error| error.into_error().into())
    }
}

/// The moments in which requests were worked on: from the first at which the server's tokens have grown to the last at which they still
/// do. Where the server counts none, all of them.
fn busy(moments: &[Moment]) -> &[Moment] {
    let tokens: Vec<Option<f64>> = moments
        .iter()
        .map(|moment| moment.server.and_then(|server| Some(server.prompt_tokens? + server.generation_tokens?)))
        .collect();
    let grows = |pair: &[Option<f64>]| matches!(pair, [Some(before), Some(after)] if after > before);
    let first = tokens.windows(2).position(grows);
    let last = tokens.windows(2).rposition(grows);
    match first.zip(last) {
        // It grows between `first` and the next; the moment after the last growth may lie behind the last request.
        Some((first, last)) if last > first => &moments[first + 1..=last],
        Some(_) => &[],
        None => moments,
    }
}

/// What follows the columns of a device.
const FURTHER_COLUMNS: [&str; 20] = [
    "energy_j",
    "vram_temperature_c",
    "clock_mhz",
    "throttle_reasons",
    "phase",
    "cpu_pct",
    "server_cpu_pct",
    "client_cpu_pct",
    "memory_used_mb",
    "swap_used_mb",
    "load_1m",
    "cpu_power_w",
    "requests_running",
    "requests_waiting",
    "kv_cache_usage_pct",
    "prompt_tokens",
    "generation_tokens",
    "preemptions",
    "prefix_cache_queries",
    "prefix_cache_hits",
];

fn further_cells(moment: &Moment, device: &DeviceSample, phase: &str) -> [String; 20] {
    let whole = |value: Option<f64>| value.map(|value| format!("{value:.0}")).unwrap_or_default();
    let host = &moment.sample.host;
    let server = moment.server.unwrap_or_default();
    [
        cell(device.energy_j),
        cell(device.memory_temperature_c),
        cell(device.clock_mhz),
        device.throttled.join(" "),
        phase.to_owned(),
        cell(host.cpu_pct),
        cell(host.server_cpu_pct),
        cell(host.client_cpu_pct),
        cell(mebibytes(host.memory_used_bytes)),
        cell(mebibytes(host.swap_used_bytes)),
        cell(host.load),
        cell(host.power_w),
        whole(server.running),
        whole(server.waiting),
        cell(server.kv_cache_usage.map(|part| part * 100.0)),
        whole(server.prompt_tokens),
        whole(server.generation_tokens),
        whole(server.preemptions),
        whole(server.prefix_queries),
        whole(server.prefix_hits),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(tokens: &[Option<f64>]) -> Vec<Moment> {
        let one = |tokens: &Option<f64>| Moment {
            server: tokens.map(|tokens| ServerState {
                prompt_tokens: Some(0.0),
                generation_tokens: Some(tokens),
                ..ServerState::default()
            }),
            ..Moment::default()
        };
        tokens.iter().map(one).collect()
    }

    #[test]
    fn how_far_a_client_is_is_said_as_far_as_it_is_known() {
        let at = |seconds: u64, tokens: f64, ttft: (f64, f64)| Moment {
            sample: Sample { at: Duration::from_secs(seconds), ..Sample::default() },
            server: Some(ServerState {
                generation_tokens: Some(tokens),
                ttft_sum: Some(ttft.0),
                ttft_count: Some(ttft.1),
                ..ServerState::default()
            }),
            ..Moment::default()
        };
        let moments = [at(3, 100.0, (1.0, 10.0)), at(4, 150.0, (1.0, 10.0)), at(5, 300.0, (1.5, 30.0))];
        assert_eq!(progress(Some((7, 9)), &moments, 1.0), "7/9 requests, 100 tok/s, TTFT 25.0 ms");
        assert_eq!(progress(Some((0, 9)), &moments[..2], 2.0), "0/9 requests, 25 tok/s", "no first token yet");
        assert_eq!(progress(None, &[Moment::default(), Moment::default()], 1.0), "");
        assert_eq!(progress(None, &[], 1.0), "");
    }

    #[test]
    fn busy_is_what_lies_between_the_first_token_and_the_last() {
        for (tokens, expected) in [
            (&[Some(5.0), Some(5.0), Some(9.0), Some(12.0), Some(15.0), Some(15.0)][..], 2),
            (&[Some(5.0), Some(9.0), Some(12.0)], 1),
            // All in between two samples.
            (&[Some(5.0), Some(9.0), Some(9.0)], 0),
            (&[None, None, None], 3),
            // A server that was slow to answer once.
            (&[Some(1.0), Some(2.0), None, Some(3.0), Some(4.0), Some(5.0)], 4),
            (&[], 0),
        ] {
            assert_eq!(busy(&moments(tokens)).len(), expected, "{tokens:?}");
        }
    }

    #[test]
    fn a_series_has_a_line_for_each_moment_and_device_as_soon_as_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("telemetry/a.csv");
        let device = DeviceSample { address: "0000:03:00.0".into(), power_w: Some(200.0), ..DeviceSample::default() };
        let with = Moment { sample: Sample { devices: vec![device], ..Sample::default() }, ..Moment::default() };
        let mut file = File { path: path.clone(), out: None, failed: None };
        file.add(&Moment::default(), "before");
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        file.add(&with, "measuring");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), &file.failed), (3, &None));
        assert!(lines[0].starts_with("timestamp,elapsed_ms,gpu_id,gpu_utilization_pct,vram_used_mb"));
        assert!(lines[1].contains(",before,") && lines[2].contains("0000:03:00.0") && lines[2].contains(",measuring,"));
        let mut nowhere = File { path: "/proc/none/a.csv".into(), out: None, failed: None };
        nowhere.add(&with, "measuring");
        assert!(nowhere.failed.is_some_and(|why| why.contains("/proc/none")));
    }
}
