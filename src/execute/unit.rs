//! One experiment, from launch to proof: launching, starting, ready, measuring, draining.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::failure::{self, Blame};
use super::readiness::{Question, Sign, StartLog, Started, wait_ready};
use super::script::{EngineCommand, ScriptContext, bench_args, client_host, script, serve_args, write_exclusively};
use super::{Emitter, Event, Failure, Headline, Job, Outcome, Phase, TeardownProof, Timings, port};
use crate::diagnose::{Cause, Ending, StartPhase};
use crate::plan::Experiment;
use crate::process::{Change, Emptied, Group, GroupSpec, Owner, Role, Stop, StopLevel, Verdict, supervise};
use crate::telemetry::{DeviceKind, MemorySource, Probe};

/// What every experiment of a run shares.
#[derive(Debug, Clone)]
pub struct UnitContext {
    /// What plays `vllm`.
    pub engine: EngineCommand,
    /// oneAPI's environment script, where it exists.
    pub setvars: Option<PathBuf>,
    /// Limit from launch to ready.
    pub timeout_startup: Duration,
    /// Limit of the benchmark client.
    pub timeout_benchmark: Duration,
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
    /// Where device memory is read.
    pub probe: Probe,
    /// Which devices the machine has.
    pub devices: DeviceKind,
    /// For `/health` and `/v1/models`: never through a proxy.
    pub http: reqwest::Client,
}

/// Where the files of one attempt go.
#[derive(Debug, Clone)]
pub struct Places {
    /// The server's output; must not exist.
    pub server_log: PathBuf,
    /// The client's output; must not exist.
    pub benchmark_log: PathBuf,
    /// The server's script as run.
    pub server_script: PathBuf,
    /// The client's script as run.
    pub benchmark_script: PathBuf,
    /// Where the client writes its result; must not exist.
    pub result: PathBuf,
}

/// What came of one attempt.
#[derive(Debug, Clone)]
pub struct Attempted {
    /// How it ended.
    pub outcome: Outcome,
    /// Where the time went.
    pub timings: Timings,
    /// What was seen after the server had been ended; `None` where none was started.
    pub teardown: Option<TeardownProof>,
    /// The client's result, where there is one (valid only if the outcome is `Passed`).
    pub result: Option<Map<String, Value>>,
    /// The server's command line.
    pub serve_command: Vec<String>,
    /// The client's command line.
    pub bench_command: Vec<String>,
    /// vLLM's version as the server's log says.
    pub vllm_version: Option<String>,
    /// Whether the client was started.
    pub benchmarked: bool,
}

/// What vLLM's engine and worker processes call themselves.
const ENGINE_TITLE: &str = "VLLM::";
/// How long a server that lost its engine may take to say why.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What died while the client ran.
enum Died {
    /// The server's leader; `None` = its guard.
    Server(Option<Ending>),
    /// An engine or worker process, while the API server lived on.
    Engine,
    /// Nobody, but the server's log cannot be written any more.
    LogFailed(String),
}

impl Died {
    fn of(change: Change) -> Self {
        match change {
            Change::Exited(ending) => Died::Server(Some(ending)),
            Change::GuardLost => Died::Server(None),
            Change::LogFailed(reason) => Died::LogFailed(reason),
        }
    }

    fn failure(self, blame: &Blame<'_>) -> Failure {
        match self {
            Died::Server(ending) => blame.server_died(ending),
            Died::Engine => blame.engine_died(),
            Died::LogFailed(reason) => blame.log_failed(Role::Server, &reason),
        }
    }
}

/// What was seen of a server until it was to be ended. What it says after that shows nothing of why it had to be.
struct Seen {
    phase: StartPhase,
    /// How long its log had not grown.
    silent: Duration,
    /// Bytes in its log.
    log_length: u64,
}

/// How long a server that said that it failed may take to end by itself: to tell vLLM to end while it does so makes it
/// hang, and a hard kill is what devices suffer from.
const OWN_END: Duration = Duration::from_secs(5);

/// Waits for a failed server to end by itself; `None` where it does not, or the user is in a hurry.
async fn end_by_itself(server: &mut Group, stop: &mut Stop) -> Option<Ending> {
    tokio::select! {
        ending = server.exited() => ending,
        () = tokio::time::sleep(OWN_END) => None,
        () = stop.reached(StopLevel::Drain) => None,
    }
}

/// How the benchmark part ended.
enum Measured {
    Result(Map<String, Value>),
    Failed(Failure),
    Interrupted,
}

/// Takes one experiment through its life. A failure of the experiment is in the outcome; the emitter holds a failure
/// of the record, which ends the run.
pub async fn run_unit(job: &Job<'_>, context: &UnitContext, emit: &mut Emitter<'_>, stop: &mut Stop) -> Attempted {
    let mut unit = Unit::new(job, context);
    let outcome = unit.run(emit, stop).await;
    unit.finish(outcome)
}

struct Unit<'a> {
    job: &'a Job<'a>,
    experiment: &'a Experiment,
    places: &'a Places,
    context: &'a UnitContext,
    began: Instant,
    timings: Timings,
    teardown: Option<TeardownProof>,
    result: Option<Map<String, Value>>,
    benchmarked: bool,
}

impl<'a> Unit<'a> {
    fn new(job: &'a Job<'a>, context: &'a UnitContext) -> Self {
        Self {
            job,
            experiment: job.experiment,
            places: &job.places,
            context,
            began: Instant::now(),
            timings: Timings::default(),
            teardown: None,
            result: None,
            benchmarked: false,
        }
    }

    async fn run(&mut self, emit: &mut Emitter<'_>, stop: &mut Stop) -> Outcome {
        if let Some(holder) = port::holder(self.job.port) {
            let text = format!("port {} is taken by {holder}", self.job.port);
            return Outcome::Failed(Failure::plain(Cause::PortInUse, Phase::Launching, text));
        }
        let memory = DeviceMemory::read(self.context).await;
        let launched = Instant::now();
        let mut server = match self.launch(Role::Server).await {
            Ok(server) => server,
            Err(failure) => return Outcome::Failed(failure),
        };
        emit.event(Event::ServerLaunched {
            name: self.experiment.name.clone(),
            process: server.leader,
            port: self.job.port,
        });
        let mut log = StartLog::new(&self.places.server_log);
        let started = self.wait_ready(&mut server, &mut log, emit, stop).await;
        let ready = matches!(started, Verdict::Watched(Started::Ready));
        log.finish();
        self.timings.startup = Some(launched.elapsed().as_secs_f64());
        self.timings.startup_phases = std::mem::take(&mut log.steps);
        let mut measured = None;
        if ready {
            let seconds = launched.elapsed().as_secs_f64();
            emit.event(Event::ServerReady { name: self.experiment.name.clone(), seconds });
            emit.phase(self.experiment, Phase::Measuring);
            measured = Some(self.measure(&mut server, emit, stop).await);
        }
        let seen = Seen {
            phase: log.phase(),
            silent: log.last_growth.elapsed(),
            log_length: std::fs::metadata(&self.places.server_log).map_or(0, |meta| meta.len()),
        };
        emit.phase(self.experiment, Phase::Draining);
        let own_end = match &started {
            Verdict::Watched(Started::Fatal(_) | Started::EngineGone) => end_by_itself(&mut server, stop).await,
            _ => None,
        };
        self.drain(server, memory, emit, stop).await;
        match measured {
            Some(Measured::Result(result)) => {
                let headline = Headline::of(&result);
                self.result = Some(result);
                Outcome::Passed { headline }
            }
            Some(Measured::Failed(failure)) => Outcome::Failed(failure),
            Some(Measured::Interrupted) => Outcome::Interrupted,
            None => self.not_ready(started, own_end, &seen),
        }
    }

    fn arguments(&self, role: Role) -> Vec<String> {
        match role {
            Role::Server => serve_args(self.experiment, self.job.port),
            Role::Benchmark => bench_args(self.experiment, self.job.port, &self.places.result),
        }
    }

    fn command(&self, role: Role) -> Vec<String> {
        let engine = &self.context.engine;
        let mut command = vec![engine.program.to_string_lossy().into_owned()];
        command.extend(engine.prefix.iter().cloned());
        command.extend(self.arguments(role));
        command
    }

    /// Writes the script and starts it in a group of its own.
    async fn launch(&self, role: Role) -> Result<Group, Failure> {
        let context = ScriptContext {
            engine: &self.context.engine,
            setvars: self.context.setvars.as_deref(),
            port: self.job.port,
            attempt: self.job.attempt,
        };
        let text = script(role, self.experiment, &self.arguments(role), &context);
        let (kept, log) = match role {
            Role::Server => (&self.places.server_script, &self.places.server_log),
            Role::Benchmark => (&self.places.benchmark_script, &self.places.benchmark_log),
        };
        let phase = if role == Role::Server { Phase::Launching } else { Phase::Measuring };
        let failed = |error: &dyn std::error::Error| {
            let mut text = error.to_string();
            if let Some(source) = error.source() {
                text = format!("{text}: {source}");
            }
            Failure::plain(Cause::LaunchFailed, phase, text)
        };
        std::fs::write(kept, &text).map_err(|error| failed(&error))?;
        let path = write_exclusively(role, &text).map_err(|error| failed(&error))?;
        let spec = GroupSpec {
            argv: vec!["bash".into(), "--login".into(), path.to_string_lossy().into_owned()],
            env: self.context.secret_env.clone(),
            unset: self.context.unset.clone(),
            secrets: self.context.secrets.clone(),
            log: log.clone(),
            cleanup: vec![path],
            grace: self.context.grace,
            owner: Owner {
                run: self.context.run.clone(),
                experiment: self.experiment.name.clone(),
                role,
                port: self.job.port,
            },
        };
        Group::spawn(spec).await.map_err(|error| failed(&error))
    }

    async fn wait_ready(
        &self,
        server: &mut Group,
        log: &mut StartLog,
        emit: &mut Emitter<'_>,
        stop: &mut Stop,
    ) -> Verdict<Started> {
        let experiment = self.experiment;
        emit.phase(experiment, Phase::Starting(StartPhase::Launching));
        let question = Question {
            host: reachable(client_host(experiment)),
            port: self.job.port,
            model: experiment.server.served_model().to_owned(),
            api_key: self.context.api_key.clone(),
        };
        let members = server.members();
        let deadline = Instant::now() + self.context.timeout_startup;
        let watched = wait_ready(&self.context.http, &question, &members, log, |sign| match sign {
            Sign::Entered(phase) => emit.phase(experiment, Phase::Starting(phase)),
            Sign::Line(line) => emit.event(Event::Progress { name: experiment.name.clone(), line }),
        });
        let engine_gone = server.titled_gone(ENGINE_TITLE);
        let watched = async {
            tokio::select! {
                started = watched => started,
                _ = engine_gone => {
                    // A server that fails by itself says why, and ends, within this moment.
                    tokio::time::sleep(LAST_WORDS).await;
                    Started::EngineGone
                }
            }
        };
        supervise(server, deadline, stop, watched).await
    }

    /// Runs the client against a ready server.
    async fn measure(&mut self, server: &mut Group, emit: &mut Emitter<'_>, stop: &mut Stop) -> Measured {
        let began = Instant::now();
        let mut client = match self.launch(Role::Benchmark).await {
            Ok(client) => client,
            Err(failure) => return Measured::Failed(failure),
        };
        self.benchmarked = true;
        emit.event(Event::BenchmarkLaunched { name: self.experiment.name.clone(), process: client.leader });
        let deadline = began + self.context.timeout_benchmark;
        let engine_gone = server.titled_gone(ENGINE_TITLE);
        let died = async {
            let first = tokio::select! {
                change = server.changed() => Ok(change),
                _ = engine_gone => Err(()),
            };
            match first {
                Ok(change) => Died::of(change),
                // A server that loses its engine says so, and ends, within this moment.
                Err(()) => tokio::time::timeout(LAST_WORDS, server.changed()).await.map_or(Died::Engine, Died::of),
            }
        };
        let verdict = supervise(&mut client, deadline, stop, died).await;
        // A client that has ended leaves at once; one that has not gets the grace period like a server.
        let emptied = client.end(stop).await;
        self.timings.benchmark = Some(began.elapsed().as_secs_f64());
        let blame = Blame { places: self.places, context: self.context };
        match verdict {
            Verdict::Exited(ending) => match self.judge_client(ending, &blame, emit) {
                Ok(result) => Measured::Result(result),
                Err(failure) => Measured::Failed(match end_of_server(server, &blame).await {
                    Some(died) => died.failure(&blame),
                    None => failure,
                }),
            },
            Verdict::Watched(died) => Measured::Failed(died.failure(&blame)),
            Verdict::Deadline => Measured::Failed(blame.client_too_slow(&emptied)),
            Verdict::Stopped => Measured::Interrupted,
            Verdict::GuardLost => Measured::Failed(blame.guard_lost(Role::Benchmark, Phase::Measuring)),
            Verdict::LogFailed(reason) => Measured::Failed(blame.log_failed(Role::Benchmark, &reason)),
        }
    }

    /// What a client that has ended leaves: a result that counts, or why there is none.
    fn judge_client(
        &mut self,
        ending: Ending,
        blame: &Blame<'_>,
        emit: &mut Emitter<'_>,
    ) -> Result<Map<String, Value>, Failure> {
        if ending != Ending::Exited(0) {
            return Err(blame.client_failed(ending));
        }
        let mut judge = || {
            let result = failure::read_result(&self.places.result)?;
            let valid = emit.recorder.validate(self.experiment, &result);
            self.result = Some(result.clone());
            valid.map(|()| result)
        };
        judge().map_err(|failure| blame.invalid_result(failure))
    }

    /// Why a server did not become ready.
    fn not_ready(&self, started: Verdict<Started>, own_end: Option<Ending>, seen: &Seen) -> Outcome {
        let blame = Blame { places: self.places, context: self.context };
        let Seen { phase, silent, log_length } = *seen;
        let failure = match started {
            Verdict::Watched(Started::Ready) | Verdict::Stopped => return Outcome::Interrupted,
            Verdict::Watched(Started::EngineGone) => blame.server_fatal(Cause::EngineCoreFailed, own_end, phase),
            Verdict::Watched(Started::Fatal(cause)) => blame.server_fatal(cause, own_end, phase),
            Verdict::Watched(Started::Foreign(text)) => blame.foreign(text, phase, log_length),
            Verdict::Watched(Started::OtherModel(text)) => blame.other_model(text, phase, log_length),
            Verdict::Exited(ending) => blame.server_exited(ending, phase),
            Verdict::Deadline => blame.server_too_slow(phase, silent, log_length),
            Verdict::GuardLost => blame.guard_lost(Role::Server, Phase::Starting(phase)),
            Verdict::LogFailed(reason) => blame.log_failed(Role::Server, &reason),
        };
        Outcome::Failed(failure)
    }

    /// Ends the server and proves that nothing is left.
    async fn drain(&mut self, server: Group, memory: DeviceMemory, emit: &mut Emitter<'_>, stop: &mut Stop) {
        let began = Instant::now();
        let members = server.members();
        let Emptied { empty, killed, strays, .. } = server.end(stop).await;
        let left: Vec<i32> = members.find().iter().map(|stat| stat.pid).collect();
        let port_closed = left.is_empty()
            || crate::telemetry::netport::listening_pids(Path::new("/"), self.job.port, &left).is_empty();
        let proof = TeardownProof {
            group_empty: empty && left.is_empty(),
            port_closed: Some(port_closed),
            device_memory_back: memory.is_back(self.context).await,
            killed,
            strays_ended: strays,
            seconds: began.elapsed().as_secs_f64(),
        };
        self.timings.teardown = Some(proof.seconds);
        emit.event(Event::TornDown { name: self.experiment.name.clone(), proof: proof.clone() });
        self.teardown = Some(proof);
    }

    fn finish(mut self, outcome: Outcome) -> Attempted {
        self.timings.total = self.began.elapsed().as_secs_f64();
        Attempted {
            outcome,
            timings: self.timings.clone(),
            teardown: self.teardown.take(),
            result: self.result.take(),
            serve_command: self.command(Role::Server),
            bench_command: self.command(Role::Benchmark),
            vllm_version: failure::vllm_version(&self.places.server_log),
            benchmarked: self.benchmarked,
        }
    }
}

/// The address at which a server that listens on `host` is asked.
fn reachable(host: &str) -> String {
    match host {
        "0.0.0.0" | "::" | "" => "127.0.0.1".to_owned(),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    }
}

/// How long the end of a server may take to reach us after its client's complaint.
const END_OF_SERVER: Duration = Duration::from_millis(300);

/// What died under the client, if anything did: requests fail a moment before the server's end is seen, and vLLM's API
/// server ends seconds after it has logged that its engine is dead.
async fn end_of_server(server: &mut Group, blame: &Blame<'_>) -> Option<Died> {
    match tokio::time::timeout(END_OF_SERVER, server.changed()).await {
        Ok(change) => Some(Died::of(change)),
        Err(_) => blame.server_is_dying().then_some(Died::Engine),
    }
}

/// Device memory in use before a start, to be compared with what is in use after the end.
struct DeviceMemory(Vec<(u32, u64)>);

/// What may stay in use on a device: contexts of other processes come and go.
const MEMORY_SLACK: u64 = 256 << 20;
/// How long memory may take to come back.
const MEMORY_LIMIT: Duration = Duration::from_secs(10);

impl DeviceMemory {
    async fn read(context: &UnitContext) -> Self {
        Self(Self::now(context).await)
    }

    /// Only a driver's figure for the whole device proves anything: memory of the host moves for many reasons.
    async fn now(context: &UnitContext) -> Vec<(u32, u64)> {
        if context.devices == DeviceKind::Cpu {
            return Vec::new();
        }
        let (probe, kind) = (context.probe.clone(), context.devices);
        let readings = tokio::task::spawn_blocking(move || crate::telemetry::devices::memory_readings(&probe, kind));
        let readings = readings.await.unwrap_or_default();
        readings
            .into_iter()
            .filter(|reading| reading.source != Some(MemorySource::Host))
            .filter_map(|reading| Some((reading.index, reading.used_bytes?)))
            .collect()
    }

    /// Whether memory came back to its level before the start; `None` where it cannot be read.
    async fn is_back(&self, context: &UnitContext) -> Option<bool> {
        if self.0.is_empty() {
            return None;
        }
        let deadline = Instant::now() + MEMORY_LIMIT;
        loop {
            let now = Self::now(context).await;
            if now.is_empty() {
                return None;
            }
            let back = now.iter().all(|(index, used)| {
                self.0.iter().find(|(i, _)| i == index).is_none_or(|(_, before)| *used <= before + MEMORY_SLACK)
            });
            if back || Instant::now() >= deadline {
                return Some(back);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
