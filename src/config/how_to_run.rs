//! What says how to run, beside what is measured.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono_tz::Tz;

use super::duration::parse_start_limit;
use super::language::{Container, Document, policy};
use super::resolve::{slurm, words};
use super::tree::{Kind, Node, Raw};
use super::{Environment, Error, HIDDEN, Origin, parse_duration};
use crate::dashboard::Gateway;
use crate::execute::slurm::Request;
use crate::execute::{ContainerRequest, RuntimeKind, StartLimit};
use crate::plan::{FailureReason, OnFailure, RetryPolicy};
use crate::record::run_name;
use crate::{mlflow, notify, safe};

/// Which port the server gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChoice {
    /// This one, or none.
    Fixed(u16),
    /// The next free one.
    Auto,
}

/// Where experiments run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    Local,
    /// As jobs of a Slurm cluster.
    Slurm,
}

/// How many blocks run at once, each on devices of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallel {
    /// One after the other.
    Off,
    /// As many as the devices allow, where they are found to disturb each other no more than a threshold.
    Auto,
    /// At most so many, whatever it costs.
    Lanes(u32),
}

/// What is measured again alone, after lanes have measured all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalists {
    /// The set of the best.
    Alone,
    /// Nothing.
    Off,
}

/// What says how to run, beside the sweep.
pub(super) struct RunSettings {
    pub results_dir: PathBuf,
    pub start_limit: StartLimit,
    pub timeouts: [Duration; 2],
    pub stall: Option<Duration>,
    pub port: PortChoice,
    pub setvars: Option<PathBuf>,
    pub login: bool,
    pub vllm_bin: Option<PathBuf>,
    pub container: Option<ContainerRequest>,
    pub zone: Tz,
    pub keep_foreign: bool,
    pub device_locks: Option<PathBuf>,
    pub show_logs: bool,
    pub pushgateway: Option<Pushed>,
    pub warmup_prompts: u64,
    pub cooldown: Duration,
    pub telemetry: Option<Duration>,
    pub preflight: bool,
    pub retry: RetryPolicy,
    pub on_failure: OnFailure,
    pub skip_failure_reasons: Vec<FailureReason>,
    pub place: Place,
    pub slurm: Request,
    pub parallel: Parallel,
    /// As a part: 0.02 is 2 %.
    pub parallel_threshold: f64,
    pub finalists: Finalists,
    pub mlflow: mlflow::Choice,
    pub notify: Vec<notify::Target>,
}

impl RunSettings {
    /// Reads it.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn of(document: &Document, environment: &Environment, simulated: bool) -> Result<Self, Error> {
        let timeouts = document.timeouts.clone().unwrap_or_default();
        let duration = "a duration such as `300`, `300s` or `5m`";
        let limit = |raw: &Option<Raw>, key: &str| words::one(raw.as_ref(), key, duration, parse_duration);
        let switch = |raw: &Option<Raw>, key: &str| words::one(raw.as_ref(), key, "`true` or `false`", words::switch);
        let path = |raw: &Option<Raw>, key: &str, what: &str| words::one(raw.as_ref(), key, what, words::non_empty);
        let setvars = path(&document.setvars, "setvars", "a path, or `none`")?;
        let locks = path(&document.device_locks, "device-locks", "a directory, or `none`")?;
        let zone = "a name such as `Asia/Jerusalem` or `UTC`";
        Ok(Self {
            results_dir: environment.absolute(path(&document.results_dir, "results-dir", "a directory")?),
            start_limit: words::one(
                timeouts.startup.as_ref(),
                "timeouts.startup",
                "a duration such as `300`, `300s` or `5m`, with a `+` behind it where progress extends it",
                parse_start_limit,
            )?,
            timeouts: [limit(&timeouts.benchmark, "timeouts.benchmark")?, limit(&timeouts.grace, "timeouts.grace")?],
            stall: words::one(
                timeouts.stall.as_ref(),
                "timeouts.stall",
                "a duration such as `120s`, or `0` for none",
                policy::pause,
            )
            .map(|stall| Some(stall).filter(|stall: &Duration| !stall.is_zero()))?,
            port: words::one(document.port.as_ref(), "port", "a number from 1 to 65535, or `auto`", read_port)?,
            login: switch(&document.login, "login")?,
            setvars: (setvars != "none").then(|| environment.absolute(setvars)),
            vllm_bin: words::optional(document.vllm_bin.as_ref(), "a path", words::non_empty)?
                .map(|path| environment.absolute(path)),
            container: container(document.container.as_ref(), environment)?,
            zone: words::one(document.timezone.as_ref(), "timezone", zone, |text| Tz::from_str(text).ok())?,
            keep_foreign: switch(&document.keep_foreign, "keep-foreign")?,
            device_locks: (locks != "none").then(|| environment.absolute(locks)),
            show_logs: switch(&document.show_logs, "show-logs")?,
            pushgateway: pushgateway(document.pushgateway.as_ref())?,
            warmup_prompts: words::one(document.warmup.as_ref(), "warmup", "a whole number of prompts", words::whole)?,
            telemetry: document
                .telemetry
                .as_ref()
                .map(|raw| policy::telemetry(raw, simulated))
                .transpose()?
                .unwrap_or_default(),
            cooldown: words::one(document.cooldown.as_ref(), "cooldown", "a duration such as `10s`", policy::pause)?,
            preflight: switch(&document.preflight, "preflight")?,
            retry: document.retry.as_ref().map(policy::retry).transpose()?.unwrap_or_default(),
            on_failure: words::choice(
                document.on_failure.as_ref(),
                "on-failure",
                &[("continue", OnFailure::Continue), ("stop", OnFailure::Stop)],
            )?,
            skip_failure_reasons: document
                .skip_failure_reasons
                .as_ref()
                .map(policy::reasons)
                .transpose()?
                .unwrap_or_default(),
            place: words::choice(
                document.executor.as_ref(),
                "executor",
                &[("local", Place::Local), ("slurm", Place::Slurm)],
            )?,
            slurm: slurm::resolve(document.slurm.as_ref(), environment)?,
            parallel: words::one(
                document.parallel.as_ref(),
                "parallel",
                "`off`, `auto`, or a number of lanes",
                read_parallel,
            )?,
            parallel_threshold: words::one(
                document.parallel_threshold.as_ref(),
                "parallel-threshold",
                "a part from 0 to 100 %, such as `2%` or `0.02`",
                read_part,
            )?,
            finalists: words::choice(
                document.finalists.as_ref(),
                "finalists",
                &[("alone", Finalists::Alone), ("off", Finalists::Off)],
            )?,
            mlflow: mlflow_server(document.mlflow.as_ref())?,
            notify: document.notify.as_ref().map(targets).transpose()?.unwrap_or_default(),
        })
    }
}

/// The container in which servers run; `None` for none.
fn container(raw: Option<&Container>, environment: &Environment) -> Result<Option<ContainerRequest>, Error> {
    let Some(raw) = raw else { return Ok(None) };
    let image = words::optional(raw.image.as_ref(), "an image, or `none`", one_word)?;
    let runtime = words::optional(
        raw.runtime.as_ref(),
        "`docker`, `podman` or `apptainer`, or the path of one of them",
        |text| RuntimeKind::of(std::path::Path::new(text)).map(|_| text.to_owned()),
    )?;
    let shm_size = words::one(raw.shm_size.as_ref(), "container.shm-size", "a size such as `16g`", one_word)?;
    let mounts = several(raw.mounts.as_ref(), "absolute paths", |text| text.starts_with('/'))?;
    let args = several(raw.args.as_ref(), "arguments of `docker run`, each a text", |_| true)?;
    // The name that a YAML reader takes for no value is one here.
    let Some(image) = image.filter(|image| !["none", "off", "false"].contains(&image.as_str())) else {
        return Ok(None);
    };
    let mounts = mounts.iter().map(PathBuf::from).collect();
    // A file of an image is found from everywhere.
    let image = match environment.absolute(&image) {
        file if file.is_file() => file.to_string_lossy().into_owned(),
        _ => image,
    };
    Ok(Some(ContainerRequest { image, runtime, shm_size, mounts, args }))
}

fn one_word(text: &str) -> Option<String> {
    let text = text.trim();
    let is_one =
        !text.is_empty() && !text.starts_with('-') && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    is_one.then(|| text.to_owned())
}

/// A list of words, or one.
fn several(raw: Option<&Raw>, expected: &str, fits: fn(&str) -> bool) -> Result<Vec<String>, Error> {
    let Some(raw) = raw.filter(|raw| raw.node.kind != Kind::Null) else { return Ok(Vec::new()) };
    let nodes = raw.node.items().unwrap_or(std::slice::from_ref(&raw.node));
    let word = |node: &Node| {
        let text = node.scalar().filter(|text| fits(text) && !text.is_empty() && !text.contains(['\0', '\n']));
        text.ok_or_else(|| Error::wrong(node, &raw.path, expected, None))
    };
    nodes.iter().map(word).collect()
}

/// Where metrics are pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// This gateway.
    To(Gateway),
    /// One whose address has a password in it, which no record keeps: it must be said again.
    Forgotten,
}

fn pushgateway(raw: Option<&Raw>) -> Result<Option<Pushed>, Error> {
    let Some(raw) = raw.filter(|raw| raw.node.kind != Kind::Null) else { return Ok(None) };
    match raw.node.scalar().as_deref().map(str::trim) {
        Some("none" | "off" | "false") => Ok(None),
        Some(HIDDEN) => Ok(Some(Pushed::Forgotten)),
        text => Gateway::parse(text.unwrap_or_default()).map(|gateway| Some(Pushed::To(gateway))).map_err(|expected| {
            // Whatever was written may hold a password: it is not repeated.
            let node = Node::text(HIDDEN, &raw.node.origin);
            let hint = "as in `pushgateway: http://gateway:9091`, or `none`".to_owned();
            Error::wrong(&node, &raw.path, &expected, Some(hint))
        }),
    }
}

/// The name of the run.
pub(super) fn run_name(raw: Option<&Raw>) -> Result<Option<String>, Error> {
    let Some(raw) = raw.filter(|raw| raw.node.kind != Kind::Null) else { return Ok(None) };
    let name = raw.node.scalar();
    let expected = match &name {
        None => Some("a name".to_owned()),
        Some(name) => run_name::problem(name),
    };
    let hint = "letters, digits, blanks, `.`, `_` and `-` are fine, as in `--name baseline`";
    expected.map_or(Ok(name), |expected| Err(Error::wrong(&raw.node, &raw.path, &expected, Some(hint.to_owned()))))
}

/// The MLflow server. What stands in its URI is learnt before anything can be said of it.
fn mlflow_server(raw: Option<&Raw>) -> Result<mlflow::Choice, Error> {
    let text = raw.and_then(|raw| raw.node.scalar());
    safe::learn(text.iter().flat_map(|text| safe::within(text)));
    let is_file = |text: &String| ["yaml", "yml", "json", "toml"].iter().any(|end| text.ends_with(&format!(".{end}")));
    match raw.filter(|_| text.as_ref().is_some_and(is_file)) {
        Some(raw) => {
            let hint = "write sweep files before the flags, or `--mlflow=URI`".to_owned();
            Err(Error::wrong(&raw.node, &raw.path, mlflow::EXPECTED, Some(hint)))
        }
        None => words::one(raw, "mlflow", mlflow::EXPECTED, mlflow::Choice::parse),
    }
}

/// Who is told.
fn targets(raw: &Raw) -> Result<Vec<notify::Target>, Error> {
    let nodes: Vec<&Node> = match raw.node.items() {
        Some(items) => items.iter().collect(),
        None if raw.node.kind == Kind::Null => Vec::new(),
        None => vec![&raw.node],
    };
    // `--notify "$UNSET"` is no list of nobody.
    if nodes.is_empty() && matches!(raw.node.origin, Origin::Flag(_)) {
        return Err(Error::wrong(&raw.node, &raw.path, notify::EXPECTED, None));
    }
    let mut found = Vec::new();
    for node in nodes {
        let text = node.scalar();
        safe::learn(text.iter().flat_map(|text| safe::in_webhook(text)));
        // `none` in the place of a list is a list of none.
        if text.as_deref().is_some_and(|text| ["none", "off", "false"].contains(&text.trim())) {
            continue;
        }
        let target = text.and_then(|text| notify::Target::parse(&text));
        found.push(target.ok_or_else(|| Error::wrong(node, &raw.path, notify::EXPECTED, None))?);
    }
    Ok(found)
}

fn read_parallel(text: &str) -> Option<Parallel> {
    match text.trim() {
        // YAML reads `off` as a switch.
        "off" | "false" => Some(Parallel::Off),
        "auto" => Some(Parallel::Auto),
        number => number.parse().ok().filter(|lanes| *lanes > 0).map(Parallel::Lanes),
    }
}

/// `2%`, `0.02`.
fn read_part(text: &str) -> Option<f64> {
    let number = match text.trim().strip_suffix('%') {
        Some(number) => number.trim().parse::<f64>().ok()? / 100.0,
        None => text.trim().parse().ok()?,
    };
    (0.0..=1.0).contains(&number).then_some(number)
}

fn read_port(text: &str) -> Option<PortChoice> {
    match text.trim() {
        "auto" => Some(PortChoice::Auto),
        number => number.parse().ok().filter(|port| *port > 0).map(PortChoice::Fixed),
    }
}
