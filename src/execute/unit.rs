//! One measurement on a server that is ready: caches, warm-up, the client, and what its result is worth.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::evidence::{self, Kept, Scene};
use super::failure::{self, FailureClassifier};
use super::hang::ENGINE_TITLE;
use super::launch::{command, launch_client, launch_warmup};
use super::profile::Profile;
use super::ranks::{Gone, Ranks};
use super::sampling::{Following, Sampling};
use super::script::EngineCommand;
use super::server::{LAST_WORDS, NotStarted, Server};
use super::stall::{Stalled, Watched, until_stalled};
use super::start_limit::StartLimit;
use super::{Binding, Container, Emitter, Job, Nodes, Scope, Strangers, Turn};
use crate::load::server::Reading;
use crate::model::{
    Cause, Client, ComputeUnit, Ending, Engine, Event, Failure, Headline, Isolation, Outcome, Phase, PrefixCache,
    TeardownProof, Telemetry, Timings, VllmMetric,
};
use crate::process::{Change, Group, Role, Stop, StopLevel, Verdict, Waited, supervise};
use crate::telemetry::{DeviceKind, Probe};

/// What every experiment of a run shares.
#[derive(Debug, Clone)]
pub struct UnitContext {
    /// The server backend, and that of vLLM's client on either side.
    pub engine: EngineCommand,
    /// The server backend of experiments that others are measured against, where it is another one.
    pub before: Option<EngineCommand>,
    /// The container in which the server and vLLM's client run; `None` = in none.
    pub container: Option<Container>,
    /// oneAPI's environment script, where it exists.
    pub setvars: Option<PathBuf>,
    /// Whether launch scripts run in a login shell.
    pub login: bool,
    /// vLLM's version as its installation says, where the server does not tell its own.
    pub vllm_version: Option<String>,
    /// Limit from launch to ready.
    pub start_limit: StartLimit,
    /// Limit of the benchmark client.
    pub timeout_benchmark: Duration,
    /// Limit of a measurement in which nothing moves; `None` = none.
    pub stall: Option<Duration>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// Variables that go through the process environment, never into a script.
    pub secret_env: Vec<(String, String)>,
    /// Inherited variables that servers and clients do not get.
    pub unset: Vec<String>,
    /// Values that must not reach a log.
    pub secrets: Vec<String>,
    /// The key the server asks for, if any.
    pub api_key: Option<String>,
    /// The run directory, for the registry of live groups.
    pub run: PathBuf,
    /// The nodes that each server is spread over; `None` = this one alone.
    pub nodes: Option<Nodes>,
    /// The folder of locks for the compile cache, where other starts share it at the same time.
    pub compile_locks: Option<PathBuf>,
    /// Where device memory is read.
    pub probe: Probe,
    /// Which devices the machine has.
    pub devices: DeviceKind,
    /// What servers may use of it; empty for a simulated one.
    pub units: Vec<ComputeUnit>,
    /// Who else uses these was told already.
    pub strangers: Strangers,
    /// For `/health` and `/v1/models`: never through a proxy.
    pub http: reqwest::Client,
    /// Prompts of the warm-up before the first measurement of each workload; 0 = none.
    pub warmup_prompts: u64,
    /// How often devices, host and server are sampled during a measurement; `None` = never.
    pub telemetry: Option<Duration>,
}

/// How much later than a server's end the signal may come that a scheduler sent to both.
const SIGNAL_BEHIND: Duration = Duration::from_millis(500);

impl UnitContext {
    /// The devices of a server: those of its lane, else all of the run.
    pub(super) fn units_of(&self, binding: &Binding) -> Vec<ComputeUnit> {
        if binding.units.is_empty() { self.units.clone() } else { binding.units.clone() }
    }

    /// Where other vLLM processes are in the way of a server.
    pub(super) fn scope_of(&self, binding: &Binding) -> Scope {
        match binding.units.as_slice() {
            [] => Scope::User,
            units => Scope::Units { probe: Box::new(self.probe.clone()), kind: self.devices, units: units.to_vec() },
        }
    }

    /// Whether what has just ended was told to, together with this process: then it has not failed.
    pub(super) async fn was_told(&self, stop: &mut Stop) -> bool {
        let in_job = self.probe.environment.contains_key("SLURM_JOB_ID");
        in_job && tokio::time::timeout(SIGNAL_BEHIND, stop.reached(StopLevel::Drain)).await.is_ok()
    }

    /// A path as the journal has it: relative to the run directory.
    pub(super) fn relative(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.run).ok().map(Path::to_owned)
    }
}

/// Where the files of one attempt go.
#[derive(Debug, Clone)]
pub struct Places {
    /// The server's output; must not exist when the server is started.
    pub server_log: PathBuf,
    /// The client's output; must not exist.
    pub benchmark_log: PathBuf,
    /// Output of the warm-up; must not exist.
    pub warmup_log: PathBuf,
    /// The server's script as run.
    pub server_script: PathBuf,
    /// The client's script as run.
    pub benchmark_script: PathBuf,
    /// Where the client writes its result; must not exist.
    pub result: PathBuf,
    /// Where the warm-up writes one.
    pub warmup_result: PathBuf,
    /// Where the series of samples goes.
    pub telemetry: PathBuf,
    /// The folder of what is kept before an attempt that stands still is ended; must not exist.
    pub evidence: PathBuf,
}

/// What came of one attempt.
#[derive(Debug, Clone)]
pub struct Attempted {
    /// How it ended.
    pub outcome: Outcome,
    /// Where the time went.
    pub timings: Timings,
    /// What was seen after the server had been ended; `None` where none was started, or it goes on.
    pub teardown: Option<TeardownProof>,
    /// The client's result, where there is one (valid only if the outcome is `Passed`).
    pub result: Option<Map<String, Value>>,
    /// The server's command line.
    pub serve_command: Vec<String>,
    /// The client's command line.
    pub bench_command: Vec<String>,
    /// vLLM's version: as the server answers, else as its log says, else as its installation does.
    pub vllm_version: Option<String>,
    /// Whether the client was started.
    pub benchmarked: bool,
    /// What kept the prefix cache out of the metrics, in fact.
    pub isolation: Isolation,
    /// What the server's counters say of its prefix cache; `None` where it does not count.
    pub prefix_cache: Option<PrefixCache>,
    /// Requests that the server began again, by its counter.
    pub preemptions: Option<f64>,
    /// The ordinal of the measurement on its server start, from 1.
    pub on_start: u32,
    /// Who else used the devices, in words.
    pub shared_with: Vec<String>,
    /// Which bytes of the server's log were written while the client ran.
    pub server_log_span: Option<[u64; 2]>,
    /// What devices and host did meanwhile.
    pub telemetry: Option<Telemetry>,
    /// Other blocks of this run that were under way while it was measured, the most at a time; `None` in a run without lanes.
    pub neighbours: Option<u32>,
}

impl Attempted {
    /// An attempt that got no further than its server's start.
    pub(super) fn not_started(not: NotStarted, job: &Job, context: &UnitContext, began: Instant) -> Self {
        let NotStarted { outcome, startup, steps, teardown } = not;
        let timings = Timings {
            startup,
            startup_phases: steps,
            benchmark: None,
            teardown: teardown.as_ref().map(|proof| proof.seconds),
            total: began.elapsed().as_secs_f64(),
        };
        Self {
            outcome,
            timings,
            teardown,
            result: None,
            serve_command: command(Role::Server, job, context),
            bench_command: command(Role::Benchmark, job, context),
            vllm_version: failure::vllm_version(&job.places.server_log).or_else(|| context.vllm_version.clone()),
            benchmarked: false,
            isolation: job.experiment.isolation,
            prefix_cache: None,
            preemptions: None,
            shared_with: Vec::new(),
            telemetry: None,
            on_start: 1,
            server_log_span: None,
            neighbours: None,
        }
    }

    /// Adds what was seen when the server was ended after it.
    pub(super) fn drained(&mut self, proof: TeardownProof) {
        self.timings.teardown = Some(proof.seconds);
        self.timings.total += proof.seconds;
        self.teardown = Some(proof);
    }
}

/// What died while the client ran.
enum Died {
    /// The server's leader; `None` = its guard.
    Server(Option<Ending>),
    /// An engine or worker process, while the API server lived on.
    Engine,
    /// A rank on another node.
    Rank(Gone),
    /// Nobody, but the server's log cannot be written any more.
    LogFailed(String),
    /// Nobody, but another process listens on the server's port.
    Shared(String),
    /// Nobody, but nothing moves any more.
    Stalled(Stalled),
}

impl Died {
    fn of(change: Change) -> Self {
        match change {
            Change::Exited(ending) => Died::Server(Some(ending)),
            Change::GuardLost => Died::Server(None),
            Change::LogFailed(reason) => Died::LogFailed(reason),
        }
    }

    fn failure(self, port: u16, blame: &FailureClassifier<'_>) -> Failure {
        match self {
            Died::Shared(who) => blame.foreign_listener(port, &who, Phase::Measuring),
            Died::Server(ending) => blame.server_died(ending),
            Died::Engine => blame.engine_died(),
            Died::Rank(gone) => blame.rank_died(gone),
            Died::LogFailed(reason) => blame.log_failed(Role::Server, &reason),
            Died::Stalled(stalled) => blame.stalled(&stalled, &Kept::nothing()),
        }
    }
}

/// How a client's run ended.
enum Ran {
    Ended(Ending),
    Failed(Failure),
    Interrupted,
}

/// Measures one experiment on a ready server. A failure of the experiment is in the outcome; the emitter holds a
/// failure of the record, which ends the run.
pub(super) async fn measure(
    job: &Job,
    server: &mut Server,
    turn: Turn,
    context: &UnitContext,
    emit: &Emitter,
    stop: &mut Stop,
) -> Attempted {
    let began = Instant::now();
    emit.phase(&job.experiment, Phase::Measuring);
    let sampling = Sampling::begin(context, job, server.group.members(), &server.base(), emit);
    let mut unit = Unit { job, context, result: None, benchmarked: false, sampling, before: None };
    // Before anything is sent to the port.
    let mut outcome = unit.sharer(server).map(Outcome::Failed);
    let isolation = match &outcome {
        None => stop.cuts_short(unit.isolate(server, turn, emit)).await.unwrap_or(job.experiment.isolation),
        Some(_) => job.experiment.isolation,
    };
    if outcome.is_none() && context.warmup_prompts > 0 && turn.new_workload {
        outcome = unit.warm_up(server, emit, stop).await;
    }
    let before = stop.cuts_short(server.counters(context)).await.flatten();
    unit.before.clone_from(&before);
    if outcome.is_none() && stop.level() >= StopLevel::Drain {
        outcome = Some(Outcome::Interrupted);
    }
    let client = Instant::now();
    let log_length = || std::fs::metadata(&job.places.server_log).map_or(0, |meta| meta.len());
    let log_before = log_length();
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => unit.benchmark(server, emit, stop).await,
    };
    let benchmark = unit.benchmarked.then(|| client.elapsed().as_secs_f64());
    let server_log_span = unit.benchmarked.then(|| [log_before, log_length()]);
    let telemetry = unit.end_sampling().await;
    let (mut prefix_cache, mut preemptions) = (None, None);
    if let (Outcome::Passed { .. }, Some(before)) = (&outcome, before) {
        let after = stop.cuts_short(server.counters(context)).await.flatten();
        prefix_cache = after.as_ref().and_then(|after| prefix_cache_between(&before, after));
        preemptions = after.and_then(|after| after.preemptions_since(&before));
    }
    let mut shared_with = std::mem::take(&mut server.shared_with);
    if let Outcome::Passed { .. } = outcome {
        let now = stop.cuts_short(context.strangers.look(context, emit)).await.unwrap_or_default();
        server.shared_with.clone_from(&now);
        shared_with.extend(now.into_iter().filter(|who| !shared_with.contains(who)).collect::<Vec<_>>());
    }
    let first = turn.on_start == 1;
    let startup = first.then_some(server.startup);
    let timings = Timings {
        startup,
        startup_phases: if first { std::mem::take(&mut server.steps) } else { Vec::new() },
        benchmark,
        teardown: None,
        total: startup.unwrap_or_default() + began.elapsed().as_secs_f64(),
    };
    Attempted {
        outcome,
        timings,
        teardown: None,
        result: unit.result,
        serve_command: command(Role::Server, job, context),
        bench_command: command(Role::Benchmark, job, context),
        vllm_version: server
            .version
            .clone()
            .or_else(|| failure::vllm_version(&job.places.server_log))
            .or_else(|| context.vllm_version.clone()),
        benchmarked: unit.benchmarked,
        isolation,
        prefix_cache,
        preemptions,
        on_start: turn.on_start,
        shared_with,
        server_log_span,
        telemetry,
        neighbours: None,
    }
}

struct Unit<'a> {
    job: &'a Job,
    context: &'a UnitContext,
    result: Option<Map<String, Value>>,
    benchmarked: bool,
    sampling: Option<Sampling>,
    /// What the server counted before the client began.
    before: Option<Reading>,
}

impl Unit<'_> {
    /// Ends the sampling; `None` where nothing was measured.
    async fn end_sampling(&mut self) -> Option<Telemetry> {
        let sampling = self.sampling.take()?;
        // The seconds of a simulated server are none of this machine.
        let real = self.job.experiment.engine != Engine::Sim;
        let seconds = self.result.as_ref().and_then(|result| result.get(VllmMetric::Duration.key())?.as_f64());
        let seconds = seconds.filter(|_| real);
        let file = &self.job.places.telemetry;
        let telemetry = sampling.end(self.context.relative(file), seconds).await;
        telemetry.filter(|_| self.benchmarked)
    }

    /// Does what the plan says about the prefix cache, and tells what was achieved.
    async fn isolate(&self, server: &Server, turn: Turn, emit: &Emitter) -> Isolation {
        let planned = self.job.experiment.isolation;
        if planned != Isolation::Reset
            || turn.on_start == 1
            || server.reset_caches(self.context, keeps_prefixes_elsewhere(self.job)).await
        {
            return planned;
        }
        let text = format!(
            "the server did not empty its prefix cache before `{}`: its metrics may profit from earlier prompts",
            self.job.experiment.name
        );
        emit.event(Event::Notice { text });
        Isolation::None
    }

    /// The failure that another process on the server's port is.
    fn sharer(&self, server: &mut Server) -> Option<Failure> {
        let blame = FailureClassifier { places: &self.job.places, context: self.context };
        let who = server.watch.foreign()?;
        Some(blame.foreign_listener(self.job.port, &who, Phase::Measuring))
    }

    /// The warm-up; `None` where it went well.
    async fn warm_up(&self, server: &mut Server, emit: &Emitter, stop: &mut Stop) -> Option<Outcome> {
        let client = match launch_warmup(self.job, self.context, stop).await {
            Ok(client) => client,
            Err(_) if stop.level() >= StopLevel::Drain => return Some(Outcome::Interrupted),
            Err(failure) => return Some(Outcome::Failed(failure)),
        };
        let blame = FailureClassifier { places: &self.job.places, context: self.context };
        let ran = self.supervise(client, server, &self.job.places.warmup_log, emit, stop).await;
        let _ = std::fs::remove_file(&self.job.places.warmup_result);
        match ran {
            Ran::Ended(Ending::Exited(0)) => None,
            Ran::Ended(ending) => {
                let mut failure = blame.client_failed(ending);
                failure.summary = format!("in the warm-up: {}", failure.summary);
                Some(Outcome::Failed(failure))
            }
            Ran::Failed(failure) => Some(Outcome::Failed(failure)),
            Ran::Interrupted => Some(Outcome::Interrupted),
        }
    }

    /// Runs the client against a ready server.
    async fn benchmark(&mut self, server: &mut Server, emit: &Emitter, stop: &mut Stop) -> Outcome {
        let client = match launch_client(self.job, self.context, stop).await {
            Ok(client) => client,
            Err(_) if stop.level() >= StopLevel::Drain => return Outcome::Interrupted,
            Err(failure) => return Outcome::Failed(failure),
        };
        self.benchmarked = true;
        let _following = match &self.sampling {
            Some(sampling) => {
                sampling.client_began(client.members());
                None
            }
            None => Some(Following::begin(self.context, self.job, &server.base(), emit)),
        };
        emit.event(Event::BenchmarkLaunched {
            name: self.job.experiment.name.clone(),
            process: client.leader,
            log: self.context.relative(&self.job.places.benchmark_log),
        });
        let blame = FailureClassifier { places: &self.job.places, context: self.context };
        match self.supervise(client, server, &self.job.places.benchmark_log, emit, stop).await {
            Ran::Ended(ending) => match (self.judge_client(ending, &blame, emit), self.sharer(server)) {
                (_, Some(shared)) => Outcome::Failed(shared),
                (Ok(result), None) => {
                    let headline = Headline::of(&result);
                    self.result = Some(result);
                    Outcome::Passed { headline }
                }
                (Err(_), None) if self.context.was_told(stop).await => Outcome::Interrupted,
                (Err(failure), None) if failure.cause == Cause::Hung => {
                    let kept = self.keep(server, None, None, stop).await;
                    Outcome::Failed(blame.client_saw_no_token(&kept))
                }
                (Err(failure), None) => Outcome::Failed(match end_of_server(&mut server.group, &blame).await {
                    Some(died) => or_rank(died, server.ranks.as_ref()).await.failure(self.job.port, &blame),
                    None => failure,
                }),
            },
            Ran::Failed(_) if self.context.was_told(stop).await => Outcome::Interrupted,
            Ran::Failed(failure) => Outcome::Failed(failure),
            Ran::Interrupted => Outcome::Interrupted,
        }
    }

    /// Waits for a client, and watches the server meanwhile.
    async fn supervise(
        &self,
        mut client: Group,
        server: &mut Server,
        log: &Path,
        emit: &Emitter,
        stop: &mut Stop,
    ) -> Ran {
        let deadline = Instant::now() + self.context.timeout_benchmark;
        let slow = Profile::new(client.leader, self.context.login).slow();
        let stalled = self.until_stalled(server, &client, log, emit);
        let rank_gone = server.rank_gone();
        let Server { group, watch, .. } = server;
        let engine_gone = group.titled_gone(ENGINE_TITLE);
        let died = async {
            let first = tokio::select! {
                change = group.changed() => Ok(change),
                _ = engine_gone => Err(()),
                gone = rank_gone => return Died::Rank(gone),
                who = watch.foreign_appears() => return Died::Shared(who),
                stalled = stalled => return Died::Stalled(stalled),
            };
            match first {
                Ok(change) => Died::of(change),
                // A server that loses its engine says so, and ends, within this moment.
                Err(()) => tokio::time::timeout(LAST_WORDS, group.changed()).await.map_or(Died::Engine, Died::of),
            }
        };
        let watched = async {
            tokio::pin!(died);
            tokio::select! {
                died = &mut died => return died,
                text = slow => emit.event(Event::Notice { text }),
            }
            died.await
        };
        let Waited { verdict, stopped } = supervise(&mut client, deadline, stop, watched).await;
        emit.was_stopped(stopped, "limits do not count that time, and nobody watched the server's port");
        let silent = failure::silence_of(log);
        let kept = match &verdict {
            Verdict::Watched(Died::Stalled(stalled)) => {
                emit.is_looked_at(&self.job.experiment.name, Some(Duration::from_secs(stalled.seconds)));
                Some(self.keep(server, Some(&client), stalled.was_asked, stop).await)
            }
            Verdict::Deadline => {
                emit.is_looked_at(&self.job.experiment.name, None);
                Some(self.keep(server, Some(&client), None, stop).await)
            }
            Verdict::Watched(_)
            | Verdict::Exited(_)
            | Verdict::GuardLost
            | Verdict::LogFailed(_)
            | Verdict::Stopped => None,
        };
        // A client that has ended leaves at once; one that has not gets the grace period like a server.
        client.end(stop).await;
        let blame = FailureClassifier { places: &self.job.places, context: self.context };
        match verdict {
            Verdict::Exited(ending) => Ran::Ended(ending),
            Verdict::Watched(died @ (Died::Server(_) | Died::Engine)) => {
                Ran::Failed(or_rank(died, server.ranks.as_ref()).await.failure(self.job.port, &blame))
            }
            Verdict::Watched(Died::Stalled(stalled)) => {
                Ran::Failed(blame.stalled(&stalled, &kept.unwrap_or_else(Kept::nothing)))
            }
            Verdict::Watched(died) => Ran::Failed(died.failure(self.job.port, &blame)),
            Verdict::Deadline => Ran::Failed(blame.client_too_slow(silent, kept.as_ref())),
            Verdict::Stopped => Ran::Interrupted,
            Verdict::GuardLost => Ran::Failed(blame.guard_lost(Role::Benchmark, Phase::Measuring)),
            Verdict::LogFailed(reason) => Ran::Failed(blame.log_failed(Role::Benchmark, &reason)),
        }
    }

    /// Keeps what can be seen of server and client before either is ended.
    async fn keep(&self, server: &Server, client: Option<&Group>, was_asked: Option<bool>, stop: &mut Stop) -> Kept {
        let scene = Scene {
            folder: self.job.places.evidence.clone(),
            server: (server.group.members(), server.group.leader),
            client: client.map(|client| (client.members(), client.leader)),
            starting: None,
            base: server.base(),
            was_asked,
        };
        evidence::keep(scene, self.job, self.context, stop).await
    }

    /// Looks until nothing moves any more; for ever where there is no such limit. Our own client writes how it goes even
    /// when nothing does: its log tells nothing.
    fn until_stalled<'w>(
        &'w self,
        server: &Server,
        client: &Group,
        log: &'w Path,
        emit: &'w Emitter,
    ) -> impl Future<Output = Stalled> + use<'w> {
        let (base, server, client) = (server.base(), server.group.members(), client.members());
        let writes_progress = self.job.experiment.workload.client == Client::Vllm;
        async move {
            let Some(limit) = self.context.stall else { return std::future::pending().await };
            let watched = Watched {
                http: &self.context.http,
                base,
                server_log: &self.job.places.server_log,
                client_log: writes_progress.then_some(log),
                server,
                client,
                limit,
                before: self.before.as_ref(),
            };
            until_stalled(watched, |text| emit.say(text)).await
        }
    }

    /// What a client that has ended leaves: a result that counts, or why there is none.
    fn judge_client(
        &mut self,
        ending: Ending,
        blame: &FailureClassifier<'_>,
        emit: &Emitter,
    ) -> Result<Map<String, Value>, Failure> {
        // Our own client says by its exit code that a request failed; its result says more.
        let told = self.job.experiment.workload.client == Client::Builtin
            && ending == Ending::Exited(1)
            && self.job.places.result.exists();
        if ending != Ending::Exited(0) && !told {
            return Err(blame.client_failed(ending));
        }
        let mut judge = || {
            let result = failure::read_result(&self.job.places.result)?;
            let gave_up = result.get("vllm_bench_load").and_then(|own| own.get("gave_up"));
            if gave_up.is_some_and(|why| why == "hung") {
                self.result = Some(result);
                return Err(blame.client_saw_no_token(&Kept::nothing()));
            }
            let valid = emit.validate(&self.job.experiment, &result);
            self.result = Some(result.clone());
            valid.map(|()| result)
        };
        judge().map_err(|failure| if failure.cause == Cause::Hung { failure } else { blame.invalid_result(failure) })
    }
}

/// Whether the server keeps prefixes in a tier of its own beside the device's memory, which is emptied only when asked.
fn keeps_prefixes_elsewhere(job: &Job) -> bool {
    ["kv-transfer-config", "kv-offloading-size", "kv-offloading-backend"]
        .iter()
        .any(|flag| job.experiment.server.flags.contains(flag))
}

/// How long the end of a server may take to reach us after its client's complaint.
const END_OF_SERVER: Duration = Duration::from_millis(300);

/// What died under the client, if anything did: requests fail a moment before the server's end is seen, and vLLM's API
/// server ends seconds after it has logged that its engine is dead.
async fn end_of_server(server: &mut Group, blame: &FailureClassifier<'_>) -> Option<Died> {
    match tokio::time::timeout(END_OF_SERVER, server.changed()).await {
        Ok(change) => Some(Died::of(change)),
        Err(_) => blame.server_is_dying().then_some(Died::Engine),
    }
}

/// How long the end of a rank on another node may take to be told here.
const END_OF_RANK: Duration = Duration::from_secs(1);

/// A head that loses a rank says less than the rank: where one has ended, or is told to have within a moment, it is that.
async fn or_rank(died: Died, ranks: Option<&Ranks>) -> Died {
    let Some(ranks) = ranks else { return died };
    tokio::time::timeout(END_OF_RANK, ranks.gone()).await.map_or(died, Died::Rank)
}

/// What the counters say between two readings; `None` where the server does not count.
fn prefix_cache_between(before: &Reading, after: &Reading) -> Option<PrefixCache> {
    let (queries, hits) = after.prefix_cache_since(before)?;
    Some(PrefixCache { queries, hits })
}
