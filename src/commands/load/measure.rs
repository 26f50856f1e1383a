//! One workload: prompts, warm-up, the server's metrics, the requests.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::describe;
use super::files::{Requests, Sweep};
use super::progress::Progress;
use super::prompts::{Prompts, made_in_time, prompts};
use super::tally::Tally;
use super::telemetry::Telemetry;
use super::{Measured, Prepared, Whole};
use crate::analyse::{Signs, Warning, WarningKind, warnings_from};
use crate::config::{LoadSettings, Point};
use crate::error::Error;
use crate::load::arrival::Arrival;
use crate::load::dataset::Source;
use crate::load::output::{self, Subject};
use crate::load::request::Form;
use crate::load::sample::Sample;
use crate::load::server::{METADATA_LIMIT, Reading, Server, Watch};
use crate::load::session::{self, Ended, GaveUp, Live, Spec};
use crate::load::timing::{Machine, Timing};
use crate::safe;
use crate::sim::timing::{SimSession, SimTiming};
use crate::ui::{LoadScreen, Ui};

/// How often the server's metrics are read during a workload.
const METRICS_EVERY: Duration = Duration::from_secs(1);

/// Who may stop a workload, and who is told how it goes.
#[derive(Clone, Copy)]
pub(super) struct Watched<'a> {
    /// The wish to stop.
    pub of_sweep: &'a Arc<Live>,
    /// How it goes.
    pub progress: &'a Arc<Progress>,
}

/// Measures one workload.
pub(super) async fn one(
    settings: &LoadSettings,
    prepared: &Prepared,
    number: usize,
    watched: Watched<'_>,
    sweep: &mut Sweep,
    ui: &Ui,
) -> Result<Measured, Error> {
    let point = &settings.points[number];
    let live_of_sweep = watched.of_sweep;
    if prepared.is_simulated && settings.duration.is_some() {
        return Err(Error::Usage {
            message: "--duration: the simulated vLLM has a time of its own, which goes on with requests only".into(),
            hint: "say how many: --num-prompts".into(),
        });
    }
    let (prompts, mut over) = made_in_time(settings, prepared, number, live_of_sweep).await?;
    let plan = Plan { settings, prepared, point };
    let ahead = over.is_none().then(|| prompts.make_ahead(point));
    if let (Some(limit), 0, None) = (settings.ready_check, number, over) {
        plan.ready(&prompts.source, limit, live_of_sweep, ui).await?;
    }
    let warmups = settings.warmups(point);
    if over.is_none() && !live_of_sweep.is_stopped() {
        over = plan.warm_up(warmups, &prompts, live_of_sweep, ui).await?;
    }
    drop(ahead);
    if settings.profile {
        prepared.server.profile(true).await.map_err(|reason| profile_failed(&reason))?;
    }
    let before = if settings.server_metrics { metrics_before(&prepared.server, live_of_sweep, ui).await } else { None };
    let requests = point.num_prompts.unwrap_or(0);
    let spec = plan.spec(requests, prompts.first, false, true);
    let spec = Spec { requests: point.num_prompts, over, ..spec };
    let work = spec.form.work();
    let mut rows = sweep.requests_csv(settings, point, number)?;
    let telemetry = match &settings.telemetry {
        Some(probe) => {
            let path = sweep.telemetry_csv(settings, point, number, rows.as_ref());
            Telemetry::begin(probe, path, Arc::clone(watched.progress), ui).await?
        }
        None => None,
    };
    let sent = plan.send(spec, prompts.source.clone(), before, rows.as_mut(), watched, ui).await;
    if let Some(telemetry) = telemetry {
        telemetry.end(ui).await;
    }
    let (ended, tally, watch) = sent?;
    let requests_file = rows.map(Requests::finish).transpose()?;
    if settings.profile
        && let Err(reason) = prepared.server.profile(false).await
    {
        ui.warn(&format!("the profile of the server was not ended: {reason}"));
    }
    let after = if watch.is_possible() { prepared.server.metrics().await } else { None };
    let mut server = watch.end(after);
    server.insert("request".into(), work.into());
    server.insert("warmups".into(), warmups.into());
    server.insert("shares_prefixes".into(), settings.prompts.shares_prefixes().into());
    Ok(plan.conclude(ended, tally, server, requests_file, ui))
}

/// What the console block tells by itself.
const TOLD: [WarningKind; 7] = [
    WarningKind::FailedRequests,
    WarningKind::EndedEarly,
    WarningKind::ShortOutputs,
    WarningKind::LongOutputs,
    WarningKind::MiscountedTokens,
    WarningKind::EstimatedTokens,
    WarningKind::Simulated,
];

/// What says that a result may not be what it looks like.
fn warnings(result: &Map<String, Value>) -> Vec<Warning> {
    let number = |key: &str| result.get(key).and_then(Value::as_f64);
    warnings_from(&Signs::of_result(number, result.get("vllm_bench_load")))
}

/// The server's metrics before a workload; none where a signal comes first.
async fn metrics_before(server: &Server, live: &Live, ui: &Ui) -> Option<Reading> {
    let began = Instant::now();
    let reading = tokio::select! {
        reading = server.metrics() => reading,
        () = live.stopped() => None,
    };
    if reading.is_none() && began.elapsed() >= METADATA_LIMIT {
        ui.warn(&format!(
            "the server does not answer at /metrics within {} s: cache hits, preemptions and acceptance are not known",
            METADATA_LIMIT.as_secs()
        ));
    }
    reading
}

/// Reads the server's metrics now and then. One that does not answer keeps nobody waiting.
async fn follow(server: Server, mut last: Reading, live: Arc<Live>, watch: Arc<Mutex<Watch>>) {
    if last.counts_tokens() {
        live.server_counted(true);
    }
    loop {
        tokio::time::sleep(METRICS_EVERY).await;
        let Some(reading) = server.metrics().await else { continue };
        if reading.counts_tokens() {
            live.server_counted(reading.differs(&last));
        }
        last = reading.clone();
        watch.lock().unwrap_or_else(PoisonError::into_inner).during(reading);
    }
}

fn profile_failed(reason: &str) -> Error {
    Error::Usage {
        message: format!("the server does not profile: {reason}"),
        hint: "start it with --profiler-config, or leave --profile out".into(),
    }
}

/// What goes into the specification of a workload.
struct Plan<'a> {
    settings: &'a LoadSettings,
    prepared: &'a Prepared,
    point: &'a Point,
}

impl Plan<'_> {
    fn spec(&self, requests: u64, first_prompt: u64, warmup: bool, measured: bool) -> Spec {
        let Self { settings, prepared, point } = self;
        let form = Form {
            chat: settings.chat,
            model: prepared.model.clone(),
            lora_modules: settings.lora_modules.clone(),
            lora_seed: settings.seed,
            stream: settings.stream,
            n: if warmup { 1 } else { point.n },
            ignore_eos: settings.ignore_eos,
            logprobs: settings.logprobs,
            extra_body: settings.extra_body.clone(),
            headers: settings.headers.clone(),
            api_key: settings.api_key.clone(),
            request_id_prefix: settings.request_id_prefix.clone(),
        };
        let concurrency = point.max_concurrency.unwrap_or(requests).min(requests).max(1);
        let arrival = if warmup { Arrival::Closed } else { point.arrival };
        let timing: Arc<dyn Timing> = match prepared.is_simulated {
            true => Arc::new(SimTiming::new(SimSession {
                batch: (arrival == Arrival::Burst).then_some(concurrency),
                turn: settings.turn,
                ..SimSession::new(requests, concurrency, warmup)
            })),
            false => Arc::new(Machine),
        };
        Spec {
            target: prepared.target.clone(),
            form,
            arrival,
            max_concurrency: if prepared.is_simulated { Some(concurrency) } else { point.max_concurrency },
            requests: Some(requests),
            samples: if measured { point.completions } else { None },
            first_prompt,
            duration: if measured { settings.duration } else { None },
            seed: settings.seed,
            limits: settings.limits,
            max_failures: if measured { settings.max_failures } else { None },
            keep_text: measured && settings.save_detailed,
            keep_headers: true,
            threads: settings.threads,
            kernel_clock: settings.kernel_clock,
            timing,
            over: None,
        }
    }

    /// The requests before the workload. Returns that the server hangs, where it does: the workload itself would only wait as long again.
    async fn warm_up(
        &self,
        count: u64,
        prompts: &Prompts,
        of_sweep: &Arc<Live>,
        ui: &Ui,
    ) -> Result<Option<GaveUp>, Error> {
        if count == 0 {
            return Ok(None);
        }
        let own = if self.settings.num_warmups.is_none() { "; --num-warmups 0 for none" } else { "" };
        ui.say(&format!("warming up: {count} requests with prompts of their own, which are not measured{own}"));
        let spec = Spec { limits: self.settings.limits, ..self.spec(count, 0, true, false) };
        let mut failed = Vec::new();
        let live = Arc::new(Live::default());
        let ended = run(spec, prompts.warmup.clone(), live, of_sweep, &mut || {}, &mut |sample| {
            failed.extend(sample.failure.map(|failure| failure.detail));
        })
        .await?;
        if let Some(first) = failed.first() {
            ui.warn(&format!("{} of {count} warm-up requests failed: {first}", failed.len()));
        }
        Ok(ended.gave_up.filter(|why| *why == GaveUp::Hung))
    }

    /// Sends what is measured, and reads the server's metrics meanwhile. Requests go into `rows` as they end.
    async fn send(
        &self,
        spec: Spec,
        source: Source,
        before: Option<Reading>,
        mut rows: Option<&mut Requests>,
        watched: Watched<'_>,
        ui: &Ui,
    ) -> Result<(Ended, Tally, Watch), Error> {
        let Self { settings, prepared, point } = self;
        let of_sweep = watched.of_sweep;
        let watch = Arc::new(Mutex::new(Watch::begin(before.clone())));
        let live = Arc::new(Live::default());
        if let Some(signal) = of_sweep.stopped_by() {
            // It came before the workload began: nothing is sent.
            live.stop(signal);
        }
        // What a simulated server does at a moment is told by the real clock, which means nothing there.
        let watching = before
            .filter(|_| !prepared.is_simulated)
            .map(|before| tokio::spawn(follow(prepared.server.clone(), before, Arc::clone(&live), Arc::clone(&watch))));
        watched.progress.begin(describe(point), point.num_prompts, &live);
        let screen = LoadScreen::new(ui, point.num_prompts, settings.progress);
        let began = Instant::now();
        let mut tick = {
            let live = Arc::clone(&live);
            move || screen.show(&live, began.elapsed())
        };
        let (mut tally, mut write_failed) = (Tally::new(settings), None);
        let ended = run(spec, source, live, of_sweep, &mut tick, &mut |sample| {
            tally.add(&sample);
            if let Some(rows) = &mut rows
                && let Err(error) = rows.add(&sample)
            {
                write_failed.get_or_insert(error);
            }
        })
        .await;
        if let Some(watching) = watching {
            watching.abort();
        }
        let ended = ended?;
        let watch = std::mem::take(&mut *watch.lock().unwrap_or_else(PoisonError::into_inner));
        write_failed.map_or(Ok((ended, tally, watch)), Err)
    }

    /// The metrics and the result of what was sent; shown, with what speaks against them.
    fn conclude(
        &self,
        ended: Ended,
        mut tally: Tally,
        server: Map<String, Value>,
        requests: Option<(String, PathBuf)>,
        ui: &Ui,
    ) -> Measured {
        let Self { settings, prepared, point } = self;
        let metrics = tally.collector.finish(&ended, &settings.percentiles);
        let subject = self.subject(prepared.is_simulated || metrics.simulated);
        let date = chrono::Local::now().format("%Y%m%d-%H%M%S").to_string();
        let whole = Whole {
            latencies: std::mem::take(&mut tally.latencies),
            requests: point.num_prompts.unwrap_or(metrics.completed + metrics.failed),
            server: tally.server(),
        };
        let mut result = output::result(&subject, &metrics, &ended, tally.details.as_mut(), server, &date);
        let warnings = warnings(&result);
        if let Some(own) = result.get_mut("vllm_bench_load").and_then(Value::as_object_mut) {
            own.insert("warnings".into(), warnings.iter().map(|warning| Value::from(warning.text.clone())).collect());
        }
        ui.out_raw(output::console(&subject, &metrics, &ended, &result).as_bytes());
        // The block above tells the others.
        for warning in warnings.iter().filter(|warning| !TOLD.contains(&warning.kind)) {
            ui.warn(&warning.text);
        }
        Measured { point: (*point).clone(), metrics, ended, result, whole, requests }
    }

    fn subject(&self, simulated: bool) -> Subject {
        let Self { settings, prepared, point } = self;
        Subject {
            backend: settings.backend.clone(),
            label: settings.label.clone(),
            model_id: prepared.model_id.clone(),
            tokenizer_id: prepared.tokenizer_id.clone(),
            num_prompts: point.num_prompts.unwrap_or(0),
            metadata: settings.metadata.clone(),
            request_rate: point.request_rate,
            burstiness: settings.burstiness,
            max_concurrency: point.max_concurrency,
            ramp_up: settings.ramp_up,
            n: point.n,
            pattern: settings.pattern,
            percentile_metrics: settings.percentile_metrics.clone(),
            is_plain: false,
            simulated,
        }
    }

    /// Sends one request until it is answered, or a signal comes.
    async fn ready(&self, source: &Source, limit: Duration, of_sweep: &Arc<Live>, ui: &Ui) -> Result<(), Error> {
        ui.say(&format!("waiting for an answer of the server, {} s at most", limit.as_secs()));
        let until = Instant::now() + limit;
        loop {
            let mut failed = None;
            let spec = Spec { requests: Some(1), ..self.spec(1, 0, true, false) };
            let live = Arc::new(Live::default());
            run(spec, source.clone(), live, of_sweep, &mut || {}, &mut |sample| {
                failed = sample.failure.map(|failure| format!("{}: {}", failure.class, failure.detail));
            })
            .await?;
            let Some(last) = failed.filter(|_| !of_sweep.is_stopped()) else { return Ok(()) };
            if Instant::now() >= until {
                let seconds = limit.as_secs();
                return Err(Error::Load(crate::load::error::Error::NotReady { seconds, last }));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Runs a workload in a thread of its own, with `tick` a few times a second, and hands on requests as they end.
async fn run(
    spec: Spec,
    source: Source,
    live: Arc<Live>,
    of_sweep: &Arc<Live>,
    tick: &mut impl FnMut(),
    each: &mut impl FnMut(Sample),
) -> Result<Ended, Error> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<Sample>>(1024);
    let of_load = Arc::clone(&live);
    let load = tokio::task::spawn_blocking(move || {
        let mut batch = Vec::new();
        let ended = session::run(spec, &source, &of_load, &mut |sample| {
            batch.push(sample);
            if batch.len() >= 256 {
                let _ = sender.blocking_send(std::mem::take(&mut batch));
            }
        });
        let _ = sender.blocking_send(batch);
        ended
    });
    let mut every = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            batch = receiver.recv() => match batch {
                Some(batch) => batch.into_iter().map(without_secrets).for_each(&mut *each),
                None => break,
            },
            _ = every.tick() => {
                if let Some(signal) = of_sweep.stopped_by() {
                    live.stop(signal);
                }
                tick();
            }
        }
    }
    match load.await {
        Ok(ended) => ended.map_err(|error| Error::Load(error.into())),
        Err(_) => Err(Error::Load(session::Error::Died.into())),
    }
}

/// What a server answers to a request that it refuses may hold the key of that request, cut off anywhere.
fn without_secrets(mut sample: Sample) -> Sample {
    if let Some(failure) = &mut sample.failure {
        failure.detail = safe::shown(&safe::redact_cut(&failure.detail), safe::Sgr::None);
    }
    sample
}

/// Sends some prompts one after the other and keeps what the model says.
pub(super) async fn answers(
    settings: &LoadSettings,
    prepared: &Prepared,
    start: u64,
    count: u64,
    answers: super::Answers,
) -> Result<Vec<crate::load::prompt::Prompt>, Error> {
    let prompts = prompts(settings, prepared, 0).await?;
    let first = prompts.first + start;
    let plan = Plan { settings, prepared, point: &settings.points[0] };
    let spec = Spec { keep_text: true, ..plan.spec(count, first, true, false) };
    let live = Arc::new(Live::default());
    run(spec, prompts.source.clone(), Arc::clone(&live), &live, &mut || {}, &mut |sample| {
        let answer = match sample.failure {
            Some(failure) => Err(format!("{}: {}", failure.class, failure.detail)),
            None => Ok(sample.reply.text),
        };
        if let Ok(mut answers) = answers.lock() {
            answers.push((start + sample.index, answer));
        }
    })
    .await?;
    let all = (first..first + count).map(|index| prompts.source.prompt(index)).collect::<Result<_, _>>();
    all.map_err(|error| Error::Load(crate::load::error::Error::Dataset(error)))
}
