//! `load`: sends a workload to a server and writes what came of it.

mod completions;
mod files;
mod load_target;
mod measure;
mod progress;
mod prompts;
mod scenarios;
mod tally;
mod telemetry;

use std::sync::Arc;

use nix::sys::signal::Signal;
use serde_json::{Map, Value};

use super::tracking;
use crate::cli::LoadArgs;
use crate::config::{Environment, LoadLayers, LoadSettings, Point};
use crate::error::Error;
use crate::exit;
use crate::load;
use crate::load::metrics::Metrics;
use crate::load::sample::FailureClass;
use crate::load::session::{Ended, Live};
use crate::process::signals::Signals;
use crate::ui::Ui;
pub use load_target::Prepared;
use progress::Watched;

/// What one workload gave.
#[derive(Debug)]
pub struct Measured {
    /// Which workload.
    pub point: Point,
    /// Its numbers.
    pub metrics: Metrics,
    /// How it ended.
    pub ended: Ended,
    /// The result file's object.
    pub result: Map<String, Value>,
    /// What S4 reports.
    pub whole: Whole,
    /// Name of the workload in its table of requests, and where that is.
    pub requests: Option<(String, std::path::PathBuf)>,
}

/// What S4 reports: requests as wholes.
#[derive(Debug, Default, Clone)]
pub struct Whole {
    /// Seconds of each completed request.
    pub latencies: Vec<f64>,
    /// Requests that were to be sent.
    pub requests: u64,
    /// Means of what the server tells of itself: usage, and headers that tell of time.
    pub server: Map<String, Value>,
}

/// Runs `load`. Exit code 0 when every request was answered with all that it asked for, 1 when one was not.
///
/// # Errors
/// When a flag is wrong, the server cannot be asked, or there are no prompts.
pub async fn run(args: &LoadArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let layers = LoadLayers::read(&args.written, &args.files, environment)?;
    layers.notes.iter().for_each(|note| ui.warn(note));
    let args = &layers.args()?;
    let watched = Watched::begin(args, ui)?;
    let code = measured(&layers, args, &watched, environment, ui).await;
    watched.end();
    code
}

async fn measured(
    layers: &LoadLayers,
    args: &LoadArgs,
    watched: &Watched,
    environment: &Environment,
    ui: &Ui,
) -> Result<u8, Error> {
    if let Some(file) = &args.scenarios {
        return scenarios::run(layers, args, file, watched, environment, ui).await;
    }
    if args.name.is_some() {
        return Err(Error::Usage {
            message: "--name names a scenario, and there is no file of them".into(),
            hint: "add --scenarios FILE".into(),
        });
    }
    let settings = layers.settings(environment)?;
    let completions = args.completions.is_some() || !args.compare.is_empty();
    let loads = all(&settings, watched, ui).await?;
    if completions || !args.concurrent_tests.is_empty() {
        completions::reports(args, &settings, &loads, ui)?;
    }
    Ok(exit_code(&loads))
}

/// Measures every workload of the settings, one after the other, and writes its files. The first of the signals that end a run in order (Ctrl-C,
/// SIGTERM, SIGHUP, SIGQUIT) ends it in order: what was measured is written. The second ends it at once.
async fn all(settings: &LoadSettings, watched: &Watched, ui: &Ui) -> Result<Vec<Measured>, Error> {
    let live = Arc::new(Live::default());
    let twice = stopped_twice(Arc::clone(&live));
    tokio::select! {
        loads = each(settings, &live, watched, ui) => loads,
        signal = twice => Err(Error::StoppedTwice { signal }),
    }
}

async fn each(settings: &LoadSettings, live: &Arc<Live>, watched: &Watched, ui: &Ui) -> Result<Vec<Measured>, Error> {
    let prepared = tokio::select! {
        prepared = load_target::prepare(settings, ui) => prepared?,
        () = live.stopped() => return Err(Error::StoppedEarly { signal: live.stopped_by().unwrap_or_default() }),
    };
    let mut sweep = files::Sweep::begin(settings)?;
    let progress = watched.progress();
    progress.load(settings, prepared.is_simulated);
    let (mut loads, mut written) = (Vec::new(), Vec::new());
    for (number, point) in settings.points.iter().enumerate() {
        if number > 0 && !settings.cool_down.is_zero() && !live.is_stopped() {
            ui.say(&format!("pause of {} s", settings.cool_down.as_secs_f64()));
            tokio::time::sleep(settings.cool_down).await;
        }
        if live.is_stopped() {
            break;
        }
        if settings.points.len() > 1 {
            ui.say(&format!("workload {} of {}: {}", number + 1, settings.points.len(), describe(point)));
        }
        let watched = measure::Watched { of_sweep: live, progress };
        let measured = measure::one(settings, &prepared, number, watched, &mut sweep, ui).await?;
        progress.over(&measured.result);
        written.extend(sweep.add(settings, number, &measured, ui)?);
        loads.push(measured);
        if prepared.is_simulated && number == 0 {
            ui.say("SIMULATED: the server is the simulated vLLM; its numbers are made up by a timing model");
        }
    }
    sweep.finish(settings, &loads, ui)?;
    if !live.is_stopped() {
        tracking::send_files(settings.mlflow.as_ref(), written, ui).await;
    }
    Ok(loads)
}

/// 0, 1, or what a signal means.
pub(super) fn exit_code(loads: &[Measured]) -> u8 {
    if let Some(signal) = loads.iter().find_map(|load| load.ended.stopped) {
        return exit::SIGNAL + signal;
    }
    let failed = |load: &Measured| {
        let fewer = load.metrics.failures.contains_key(&FailureClass::FewerSamples);
        load.metrics.failed > 0 || load.metrics.completed == 0 || fewer
    };
    if loads.is_empty() || loads.iter().any(failed) { exit::EXPERIMENT_FAILED } else { exit::OK }
}

/// What tells a workload from the others of its sweep.
pub(super) fn describe(point: &Point) -> String {
    let mut parts = Vec::new();
    if let Some(concurrency) = point.max_concurrency {
        parts.push(format!("{concurrency} at a time"));
    }
    if point.request_rate.is_finite() {
        parts.push(format!("{} requests/s", point.request_rate));
    }
    if let Some(requests) = point.num_prompts {
        parts.push(format!("{requests} requests"));
    }
    if point.n > 1 {
        parts.push(format!("{} samples each", point.n));
    }
    let output = point.output_len.map_or("as many".to_owned(), |length| length.to_string());
    parts.push(format!("{} to {output} tokens", point.input_len));
    if point.run > 1 {
        parts.push(format!("run {}", point.run));
    }
    parts.join(", ")
}

/// Ends the workload in order at the first of the signals that end a run in order, and comes back with the second.
async fn stopped_twice(live: Arc<Live>) -> u8 {
    let of = Signals::of;
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hang_up), Ok(mut quit)) =
        (of(Signal::SIGINT), of(Signal::SIGTERM), of(Signal::SIGHUP), of(Signal::SIGQUIT))
    else {
        return std::future::pending().await;
    };
    let mut next = async || {
        tokio::select! {
            () = interrupt.next() => Signal::SIGINT as u8,
            () = terminate.next() => Signal::SIGTERM as u8,
            () = hang_up.next() => Signal::SIGHUP as u8,
            () = quit.next() => Signal::SIGQUIT as u8,
        }
    };
    live.stop(next().await);
    next().await
}

impl From<load::target::Error> for Error {
    fn from(error: load::target::Error) -> Self {
        Error::Load(error.into())
    }
}

pub use load_target::named;

/// What a model answered, by the number of the prompt.
pub type Answers = Arc<std::sync::Mutex<Vec<(u64, Result<String, String>)>>>;

/// Sends some prompts one after the other and hands back them and what came (`prompts answers`).
///
/// # Errors
/// As [`run`].
pub async fn one_by_one(
    settings: &LoadSettings,
    start: u64,
    count: u64,
    answers: Answers,
    ui: &Ui,
) -> Result<Vec<load::prompt::Prompt>, Error> {
    let prepared = load_target::prepare(settings, ui).await?;
    measure::answers(settings, &prepared, start, count, answers).await
}
