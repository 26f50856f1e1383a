//! When a server is truly ready: `/health` is 2xx, `/v1/models` offers the model asked for, and every socket that
//! listens on its port belongs to the group that was started.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::port::PortWatch;
use super::profile::{self, Profile};
use super::ranks::Gone;
use crate::bounded;
use crate::diagnose::PhaseTracker;
use crate::model::{Cause, StartPhase, StartStep};
use crate::telemetry::netport;

/// How often `/health` is asked.
const HEALTH_EVERY: Duration = Duration::from_millis(250);
/// How often the log is read.
const LOG_EVERY: Duration = Duration::from_millis(50);
/// How long one answer may take; a server under load answers late, one that never answers is not ready.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// No answer that tells a version is longer.
const VERSION_BYTES: u64 = 4096;
/// How much of the log is read at once.
const CHUNK: usize = 256 << 10;
/// How many such pieces are read when waiting is over.
const LAST_CHUNKS: usize = 4;

/// How waiting for a server ended, where the server itself did not end it.
#[derive(Debug, Clone, PartialEq)]
pub enum Started {
    /// It is ready; vLLM's version, where it tells.
    Ready(Option<String>),
    /// The log says that it never will be.
    Fatal(Cause),
    /// An engine process is gone while the API server lives on.
    EngineGone,
    /// No progress has been seen for so long.
    Silent(Duration),
    /// A rank on another node has ended.
    RankGone(Gone),
    /// Something else answers on the port.
    Foreign(String),
    /// It is the server that was started, and another process listens on its port too.
    Shared(String),
    /// It is the server that was started, and it serves another model.
    OtherModel(String),
}

/// What is asked of a server.
#[derive(Debug, Clone)]
pub struct Question {
    /// The address at which the server is asked.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The model it should offer.
    pub model: String,
    /// `Authorization: Bearer …`, where the server wants a key.
    pub api_key: Option<String>,
}

/// Follows a server's log and its phases while it starts.
#[derive(Debug)]
pub struct StartLog {
    path: PathBuf,
    file: Option<File>,
    tracker: PhaseTracker,
    entered: Instant,
    /// Finished phases with their seconds.
    pub steps: Vec<StartStep>,
    /// When the log last grew.
    pub last_growth: Instant,
}

impl StartLog {
    /// Follows the log at this path, from its beginning.
    pub fn new(path: &Path) -> Self {
        let now = Instant::now();
        Self {
            path: path.to_owned(),
            file: None,
            tracker: PhaseTracker::new(),
            entered: now,
            steps: Vec::new(),
            last_growth: now,
        }
    }

    /// The shell handed over to vLLM: a release that logs nothing while it imports is importing all the same.
    fn handed_over(&mut self) -> Option<StartPhase> {
        let before = self.tracker.phase();
        let entered = self.tracker.handed_over()?;
        self.close(before);
        Some(entered)
    }

    /// The phase now.
    pub fn phase(&self) -> StartPhase {
        self.tracker.phase()
    }

    /// Reads what is new, up to `CHUNK` bytes, and tells which phases were entered.
    fn read(&mut self) -> Vec<StartPhase> {
        if self.file.is_none() {
            self.file = crate::bounded::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Vec::new() };
        let mut chunk = Vec::new();
        let _ = file.take(CHUNK as u64).read_to_end(&mut chunk);
        if chunk.is_empty() {
            return Vec::new();
        }
        self.last_growth = Instant::now();
        let mut before = self.tracker.phase();
        let entered = self.tracker.feed(&chunk);
        for phase in &entered {
            self.close(before);
            before = *phase;
        }
        entered
    }

    /// Ends the phase under way, for the record. What a server wrote since the last look counts too, up to a few chunks:
    /// one that failed at once is else said to have been where it was long before.
    pub fn finish(&mut self) {
        for _ in 0..LAST_CHUNKS {
            if self.tracker.phase() == StartPhase::Ready {
                break;
            }
            self.read();
        }
        let phase = self.tracker.phase();
        if phase != StartPhase::Ready {
            self.close(phase);
        }
    }

    fn close(&mut self, phase: StartPhase) {
        let now = Instant::now();
        let seconds = (now - self.entered).as_secs_f64();
        self.entered = now;
        // A phase may be entered again: weights of several shards are downloaded and loaded in turn.
        match self.steps.iter_mut().find(|step| step.phase == phase) {
            Some(step) => step.seconds += seconds,
            None => self.steps.push(StartStep { phase, seconds }),
        }
    }
}

/// What is seen while waiting.
#[derive(Debug, Clone, PartialEq)]
pub enum Sign {
    /// A phase was entered.
    Entered(StartPhase),
    /// The newest line worth showing.
    Line(String),
    /// The login shell takes long.
    SlowShell(String),
}

/// Waits until the server is ready or can never be. The caller watches the process and the clock.
pub async fn wait_ready(
    http: &reqwest::Client,
    question: &Question,
    watch: &mut PortWatch,
    profile: &mut Profile,
    log: &mut StartLog,
    mut tell: impl FnMut(Sign),
) -> Started {
    let mut look = interval(LOG_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ask_at = Instant::now() + HEALTH_EVERY;
    let mut hinted = false;
    let mut shown: Option<String> = None;
    let mut asking = None;
    loop {
        tokio::select! {
            answer = async { asking.as_mut().expect("guarded").await }, if asking.is_some() => {
                asking = None;
                ask_at = Instant::now() + HEALTH_EVERY;
                match judge(answer, question, watch) {
                    Some(Started::Ready(_)) => return Started::Ready(version(http, question).await),
                    Some(started) => return started,
                    None => {}
                }
            }
            () = tokio::time::sleep_until(ask_at), if asking.is_none() => {
                asking = Some(Box::pin(ask(http, question)));
            }
            _ = look.tick() => {
                match profile.look() {
                    Some(profile::Sign::Over) => {
                        if let Some(phase) = log.handed_over() {
                            tell(Sign::Entered(phase));
                        }
                    }
                    Some(profile::Sign::Slow(text)) => tell(Sign::SlowShell(text)),
                    None => {}
                }
                for phase in log.read() {
                    tell(Sign::Entered(phase));
                }
                if let Some(fatal) = log.tracker.fatal() {
                    return Started::Fatal(fatal.cause);
                }
                if log.tracker.ready_hint() && !hinted {
                    hinted = true;
                    ask_at = Instant::now();
                }
                let line = log.tracker.newest_line();
                if line != shown && let Some(line) = &line {
                    tell(Sign::Line(line.clone()));
                }
                shown = line;
            }
        }
    }
}

/// What the server said.
enum Answer {
    /// Nothing yet, or not 2xx.
    NotYet,
    /// Healthy; the models it offers.
    Models(Vec<String>),
}

async fn ask(http: &reqwest::Client, question: &Question) -> Answer {
    let base = format!("http://{}:{}", question.host, question.port);
    // Rule 10: 2xx is enough, the body is empty.
    match http.get(format!("{base}/health")).timeout(ANSWER_LIMIT).send().await {
        Ok(response) if response.status().is_success() => {}
        Ok(_) | Err(_) => return Answer::NotYet,
    }
    let mut request = http.get(format!("{base}/v1/models")).timeout(ANSWER_LIMIT);
    if let Some(key) = &question.api_key {
        request = request.bearer_auth(key);
    }
    let Ok(response) = request.send().await else { return Answer::NotYet };
    if !response.status().is_success() {
        return Answer::NotYet;
    }
    let Ok(body) = bounded::json_body(response, bounded::TEXT).await else { return Answer::Models(Vec::new()) };
    let data = body.get("data").and_then(Value::as_array);
    let ids = data.into_iter().flatten().filter_map(|model| model.get("id")?.as_str().map(str::to_owned));
    Answer::Models(ids.collect())
}

/// The version that the server tells under `/version`; every release since 0.4 does.
async fn version(http: &reqwest::Client, question: &Question) -> Option<String> {
    let mut request = http.get(format!("http://{}:{}/version", question.host, question.port)).timeout(ANSWER_LIMIT);
    if let Some(key) = &question.api_key {
        request = request.bearer_auth(key);
    }
    let response = request.send().await.ok()?;
    if !response.status().is_success() || response.content_length().is_some_and(|length| length > VERSION_BYTES) {
        return None;
    }
    let body: Value = response.json().await.ok()?;
    let version = body.get("version")?.as_str()?.trim();
    let plain = version.len() < 80 && version.starts_with(|c: char| c.is_ascii_digit());
    (plain && !version.contains(|c: char| c.is_control() || c.is_whitespace())).then(|| version.to_owned())
}

fn judge(answer: Answer, question: &Question, watch: &mut PortWatch) -> Option<Started> {
    let models = match answer {
        Answer::NotYet => return None,
        Answer::Models(models) => models,
    };
    let foreign = watch.foreign();
    if !watch.is_open() {
        // It answered and is gone: the server ends, which is seen in a moment.
        if netport::listeners(Path::new("/"), question.port).is_empty() {
            return None;
        }
        let who = super::port::holder(question.port).unwrap_or_else(|| "nobody that can be seen".into());
        return Some(Started::Foreign(format!(
            "port {} answers, but the socket is not of the server that was started: it is held by {who}",
            question.port
        )));
    }
    if let Some(who) = foreign {
        return Some(Started::Shared(who));
    }
    if !models.contains(&question.model) {
        let offered = if models.is_empty() { "none".to_owned() } else { models.join(", ") };
        return Some(Started::OtherModel(format!(
            "the server on port {} does not offer `{}`; it offers: {offered}",
            question.port, question.model
        )));
    }
    Some(Started::Ready(None))
}
