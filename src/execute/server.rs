//! One server start, from launch to proof: everything that measurements on it share.

use std::time::Duration;

use tokio::time::Instant;

use super::compile_lock::CompileLock;
use super::evidence::{self, Kept, Scene};
use super::failure::FailureClassifier;
use super::hang::ENGINE_TITLE;
use super::launch::launch_server;
use super::memory::DeviceMemory;
use super::port::PortWatch;
use super::profile::Profile;
use super::ranks::{Gone, Meeting, Ranks, together};
use super::readiness::{Question, Sign, StartLog, Started, wait_ready};
use super::script::client_host;
use super::start_limit::{SILENCE, StartWatch, silence_beyond};
use super::{Emitter, Job, UnitContext, port};
use crate::load::server::Reading;
use crate::model::{Cause, Ending, Event, Experiment, Failure, Outcome, Phase, StartPhase, StartStep, TeardownProof};
use crate::process::{Emptied, Group, Role, Stop, StopLevel, Verdict, Waited, supervise};
use crate::record::Lock;

/// How long a server that lost its engine may take to say why.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(300);
/// How long a server that said that it failed may take to end by itself: to tell vLLM to end while it does so makes it
/// hang, and a hard kill is what devices suffer from.
const OWN_END: Duration = Duration::from_secs(5);
/// How long a healthy server may take to say so between two measurements.
const HEALTH_LIMIT: Duration = Duration::from_secs(10);

/// How often an emptying of the caches is asked for, and the pause in between.
const RESETS: u32 = 5;
const RESET_PAUSE: Duration = Duration::from_millis(200);

/// A server that is ready.
pub(super) struct Server {
    pub group: Group,
    /// Its ranks on other nodes.
    pub ranks: Option<Ranks>,
    memory: DeviceMemory,
    /// Who listens on its port.
    pub watch: PortWatch,
    port: u16,
    host: String,
    /// Name of the experiment for which it was started: events about it carry it.
    started_for: String,
    /// vLLM's version as the server tells it.
    pub version: Option<String>,
    /// From launch to ready, seconds.
    pub startup: f64,
    /// The same by phase.
    pub steps: Vec<StartStep>,
    /// Who else used the devices when it was last looked.
    pub shared_with: Vec<String>,
}

/// A start that came to nothing.
pub(super) struct NotStarted {
    pub outcome: Outcome,
    /// From launch to the end of the wait, seconds; `None` where nothing was launched.
    pub startup: Option<f64>,
    pub steps: Vec<StartStep>,
    pub teardown: Option<TeardownProof>,
}

impl NotStarted {
    fn before_launch(failure: Failure) -> Self {
        Self { outcome: Outcome::Failed(failure), ..Self::interrupted() }
    }

    fn interrupted() -> Self {
        Self { outcome: Outcome::Interrupted, startup: None, steps: Vec::new(), teardown: None }
    }
}

/// What was seen of a server until it was to be ended. What it says after that shows nothing of why it had to be.
struct Seen {
    phase: StartPhase,
    /// How long its log had not grown.
    silent: Duration,
    /// Bytes in its log.
    log_length: u64,
    /// A rank on another node that had ended.
    rank: Option<Gone>,
    /// How long nothing at all had shown progress.
    no_progress: Duration,
    /// What was kept of a start that was too slow or stood still.
    kept: Option<Kept>,
}

impl Server {
    /// Starts the server of a job and waits until it is ready. A server that does not become ready is ended.
    pub async fn start(
        job: &Job,
        context: &UnitContext,
        emit: &Emitter,
        stop: &mut Stop,
        (compiling, claimed): (Option<CompileLock>, Option<Lock>),
    ) -> Result<Self, Box<NotStarted>> {
        if stop.level() >= StopLevel::Drain {
            return Err(Box::new(NotStarted::interrupted()));
        }
        if let Some(holder) = port::is_taken(job.port).then(|| port::holder(job.port)).flatten() {
            let text = format!("port {} is taken by {holder}", job.port);
            let failure = Failure::plain(Cause::PortInUse, Phase::Launching, text);
            return Err(Box::new(NotStarted::before_launch(failure)));
        }
        let memory = DeviceMemory::read(context, context.units_of(&job.binding)).await;
        let shared_with = stop.cuts_short(context.strangers.look(context, emit)).await.unwrap_or_default();
        let launched = Instant::now();
        let (mut group, ranks) = match launch_all(job, context, stop).await {
            Ok(launched) => launched,
            Err(_) if stop.level() >= StopLevel::Drain => return Err(Box::new(NotStarted::interrupted())),
            Err(failure) => return Err(Box::new(NotStarted::before_launch(failure))),
        };
        // The log is there: its name is nobody else's.
        drop(claimed);
        let name = job.experiment.name.clone();
        let log_file = context.relative(&job.places.server_log);
        emit.event(Event::ServerLaunched { name: name.clone(), process: group.leader, port: job.port, log: log_file });
        let mut log = StartLog::new(&job.places.server_log);
        let mut watch = PortWatch::new(job.port, group.members());
        let rank_gone = gone_of(ranks.as_ref());
        // What ranks on other nodes do is not seen here.
        let silent = context.stall.filter(|_| ranks.is_none());
        let progress = StartWatch::new(context.start_limit, silent, group.members(), &job.places.server_log);
        let watching = Watching { watch: &mut watch, log: &mut log, progress: &progress };
        let verdict = until_ready(job, context, (&mut group, rank_gone), watching, emit, stop).await;
        let (ready, version) = match &verdict {
            Verdict::Watched(Started::Ready(version)) => (true, version.clone()),
            _ => (false, None),
        };
        log.finish();
        let startup = launched.elapsed().as_secs_f64();
        let steps = std::mem::take(&mut log.steps);
        if ready {
            emit.event(Event::ServerReady { name: name.clone(), seconds: startup });
            if let Some(compiling) = compiling {
                compiling.filled();
            }
        }
        let host = reachable(client_host(&job.experiment));
        let mut server = Self {
            group,
            ranks,
            memory,
            watch,
            port: job.port,
            host,
            started_for: name,
            version,
            startup,
            steps,
            shared_with,
        };
        if ready {
            return Ok(server);
        }
        let mut seen = Seen {
            phase: log.phase(),
            silent: log.last_growth.elapsed(),
            no_progress: progress.silence(),
            kept: None,
            log_length: std::fs::metadata(&job.places.server_log).map_or(0, |meta| meta.len()),
            // A head that loses a rank says less than the rank.
            rank: server.ranks.as_ref().and_then(Ranks::first_gone),
        };
        if matches!(verdict, Verdict::Watched(Started::Silent(_)) | Verdict::Deadline) {
            let still = if let Verdict::Watched(Started::Silent(silence)) = &verdict { Some(*silence) } else { None };
            emit.is_looked_at(&job.experiment.name, still);
            let scene = Scene {
                folder: job.places.evidence.clone(),
                server: (server.group.members(), server.group.leader),
                client: None,
                starting: Some(seen.phase),
                base: server.base(),
                was_asked: None,
            };
            seen.kept = Some(evidence::keep(scene, job, context, stop).await);
        }
        emit.phase(&job.experiment, Phase::Draining);
        let own_end = match &verdict {
            Verdict::Watched(Started::Fatal(_) | Started::EngineGone) => end_by_itself(&mut server.group, stop).await,
            _ => None,
        };
        let steps = std::mem::take(&mut server.steps);
        let teardown = Some(server.drain(context, emit, stop).await);
        let outcome = match context.was_told(stop).await {
            true => Outcome::Interrupted,
            false => not_ready(job, context, verdict, own_end, seen),
        };
        Err(Box::new(NotStarted { outcome, startup: Some(startup), steps, teardown }))
    }

    /// Whether it lives and answers; a dead or silent server is no place for another measurement.
    pub async fn is_healthy(&mut self, context: &UnitContext, stop: &mut Stop) -> bool {
        let url = format!("http://{}:{}/health", self.host, self.port);
        let request = context.http.get(url).timeout(HEALTH_LIMIT).send();
        tokio::select! {
            _ = self.group.changed() => false,
            () = stop.reached(StopLevel::Drain) => false,
            answer = request => answer.is_ok_and(|answer| answer.status().is_success()),
        }
    }

    /// Waits until a rank on another node has ended; for ever where there is none.
    pub fn rank_gone(&self) -> impl Future<Output = Gone> + use<> {
        gone_of(self.ranks.as_ref())
    }

    /// Where it is asked, `http://HOST:PORT`.
    pub fn base(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// What it counts; `None` where it counts nothing or does not answer.
    pub async fn counters(&self, context: &UnitContext) -> Option<Reading> {
        let request = context.http.get(format!("{}/metrics", self.base())).timeout(HEALTH_LIMIT);
        let answer = request.send().await.ok().filter(|answer| answer.status().is_success())?;
        Some(Reading::parse(&answer.text().await.ok()?)).filter(Reading::counts_tokens)
    }

    /// Empties vLLM's caches through its development endpoints. Returns whether it did. `tiers`: the server keeps prefixes
    /// outside of the device, too.
    pub async fn reset_caches(&self, context: &UnitContext, tiers: bool) -> bool {
        let reset = async |path: &str| {
            let request = context.http.post(format!("{}/{path}", self.base()));
            let request = match &context.api_key {
                Some(key) => request.bearer_auth(key),
                None => request,
            };
            let answer = request.timeout(HEALTH_LIMIT).send().await.ok()?;
            let done = answer.status().is_success();
            let text = answer.text().await.ok()?;
            // vLLM answers with an empty body, and from 0.26 on with `{"success": …}`.
            let refused = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|body| body["success"] == false);
            Some(done && !refused)
        };
        // A model without images has no second cache to empty; an older vLLM does not know the endpoint.
        let _ = reset("reset_mm_cache").await;
        // A server without such tiers refuses to empty them.
        let path = if tiers { "reset_prefix_cache?reset_external=true" } else { "reset_prefix_cache" };
        for _ in 0..RESETS {
            match reset(path).await {
                Some(true) => return true,
                // Blocks of a request that has just ended are held for a moment.
                Some(false) => tokio::time::sleep(RESET_PAUSE).await,
                None => return false,
            }
        }
        false
    }

    /// Ends the server and proves that nothing is left.
    pub async fn drain(self, context: &UnitContext, emit: &Emitter, stop: &mut Stop) -> TeardownProof {
        let began = Instant::now();
        let members = self.group.members();
        let mut heard = stop.clone();
        let (own, others) = tokio::join!(self.group.end(stop), async {
            match self.ranks {
                Some(ranks) => Some(ranks.end(&mut heard).await),
                None => None,
            }
        });
        let Emptied { empty, held_by, killed, strays, .. } = match others {
            Some(others) => together(own, others),
            None => own,
        };
        let left: Vec<i32> = members.find().iter().map(|stat| stat.pid).collect();
        let (port_closed, port_held_by) = self.watch.after_the_end(&left);
        let proof = TeardownProof {
            group_empty: if left.is_empty() { empty } else { Some(false) },
            held_by: Some(held_by),
            port_closed,
            port_held_by,
            device_memory_back: self.memory.is_back(context, stop).await,
            killed,
            strays_ended: strays,
            seconds: began.elapsed().as_secs_f64(),
        };
        emit.event(Event::TornDown { name: self.started_for, proof: proof.clone() });
        proof
    }
}

/// Waits for a failed server to end by itself; `None` where it does not, or the user is in a hurry.
async fn end_by_itself(server: &mut Group, stop: &mut Stop) -> Option<Ending> {
    tokio::select! {
        ending = server.exited() => ending,
        () = tokio::time::sleep(OWN_END) => None,
        () = stop.reached(StopLevel::Drain) => None,
    }
}

fn gone_of(ranks: Option<&Ranks>) -> impl Future<Output = Gone> + use<> {
    let gone = ranks.map(Ranks::gone);
    async move {
        match gone {
            Some(gone) => gone.await,
            None => std::future::pending().await,
        }
    }
}

/// Starts the server, and its ranks on other nodes where it has some.
async fn launch_all(job: &Job, context: &UnitContext, stop: &mut Stop) -> Result<(Group, Option<Ranks>), Failure> {
    let Some(nodes) = context.nodes.as_ref().filter(|nodes| nodes.are_for(&job.experiment)) else {
        return Ok((launch_server(job, context, None, stop).await?, None));
    };
    if context.container.is_some() {
        let text = "a server in a `container` runs on one node: this one is to run on several";
        return Err(Failure::plain(Cause::LaunchFailed, Phase::Launching, text.to_owned()));
    }
    let meeting = Meeting::arrange(&job.experiment, nodes)
        .map_err(|error| Failure::plain(Cause::LaunchFailed, Phase::Launching, error.to_string()))?;
    let head = launch_server(job, context, Some(&meeting), stop).await?;
    match Ranks::start(job, context, meeting, stop).await {
        Ok(ranks) => Ok((head, Some(ranks))),
        Err(failure) => {
            head.end(stop).await;
            Err(failure)
        }
    }
}

/// What a start is watched with.
struct Watching<'w> {
    watch: &'w mut PortWatch,
    log: &'w mut StartLog,
    progress: &'w StartWatch,
}

async fn until_ready(
    job: &Job,
    context: &UnitContext,
    (server, rank_gone): (&mut Group, impl Future<Output = Gone>),
    Watching { watch, log, progress }: Watching<'_>,
    emit: &Emitter,
    stop: &mut Stop,
) -> Verdict<Started> {
    let experiment: &Experiment = &job.experiment;
    emit.phase(experiment, Phase::Starting(StartPhase::Launching));
    let question = Question {
        host: reachable(client_host(experiment)),
        port: job.port,
        model: experiment.server.served_model().to_owned(),
        api_key: context.api_key.clone(),
    };
    let deadline = Instant::now() + context.start_limit.most();
    let silent = progress.silent(|| {
        emit.say(format!(
            "`{}` is not ready after {} s and makes progress: it is waited for up to {} s (`--timeout-startup` sets a limit)",
            experiment.name,
            context.start_limit.limit.as_secs(),
            context.start_limit.most().as_secs()
        ));
    });
    let mut profile = Profile::new(server.leader, context.login);
    let watched = wait_ready(&context.http, &question, watch, &mut profile, log, |sign| match sign {
        Sign::SlowShell(text) => emit.event(Event::Notice { text }),
        Sign::Entered(phase) => emit.phase(experiment, Phase::Starting(phase)),
        Sign::Line(line) => emit.event(Event::Progress { name: experiment.name.clone(), line }),
    });
    let engine_gone = server.titled_gone(ENGINE_TITLE);
    let watched = async {
        tokio::select! {
            started = watched => started,
            gone = rank_gone => Started::RankGone(gone),
            silence = silent => Started::Silent(silence),
            _ = engine_gone => {
                // A server that fails by itself says why, and ends, within this moment.
                tokio::time::sleep(LAST_WORDS).await;
                Started::EngineGone
            }
        }
    };
    let Waited { verdict, stopped } = supervise(server, deadline, stop, watched).await;
    emit.was_stopped(stopped, "the limit of the start does not count that time");
    verdict
}

/// Why a server did not become ready.
fn not_ready(
    job: &Job,
    context: &UnitContext,
    started: Verdict<Started>,
    own_end: Option<Ending>,
    seen: Seen,
) -> Outcome {
    let blame = FailureClassifier { places: &job.places, context };
    let Seen { phase, silent, log_length, rank, no_progress, kept } = seen;
    let kept = kept.as_ref();
    if let (Some(gone), false) = (rank, matches!(started, Verdict::Stopped)) {
        return Outcome::Failed(blame.rank_gone(gone, phase));
    }
    let failure = match started {
        Verdict::Watched(Started::RankGone(gone)) => blame.rank_gone(gone, phase),
        Verdict::Watched(Started::Ready(_)) | Verdict::Stopped => return Outcome::Interrupted,
        Verdict::Watched(Started::EngineGone) => blame.server_fatal(Cause::EngineCoreFailed, own_end, phase),
        Verdict::Watched(Started::Fatal(cause)) => blame.server_fatal(cause, own_end, phase),
        Verdict::Watched(Started::Foreign(text)) => blame.foreign(text, phase, log_length),
        Verdict::Watched(Started::Shared(who)) => blame.foreign_listener(job.port, &who, Phase::Starting(phase)),
        Verdict::Watched(Started::OtherModel(text)) => blame.other_model(text, phase, log_length),
        Verdict::Exited(ending) => blame.server_exited(ending, phase),
        Verdict::Watched(Started::Silent(silence)) => blame.server_silent(phase, silence, log_length, kept),
        Verdict::Deadline => {
            let hung = silence_beyond(context.start_limit.limit, Some(SILENCE));
            match silent.min(no_progress) >= hung {
                true => blame.server_silent(phase, silent.min(no_progress), log_length, kept),
                false => blame.server_too_slow(phase, log_length, kept),
            }
        }
        Verdict::GuardLost => blame.guard_lost(Role::Server, Phase::Starting(phase)),
        Verdict::LogFailed(reason) => blame.log_failed(Role::Server, &reason),
    };
    Outcome::Failed(failure)
}

/// The address at which a server that listens on `host` is asked.
fn reachable(host: &str) -> String {
    match host {
        "0.0.0.0" | "::" | "" => "127.0.0.1".to_owned(),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    }
}
