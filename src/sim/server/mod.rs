//! `vllm serve`, simulated: its processes, its start, its log, its HTTP interface, its end.

pub mod failure;
pub mod http;
pub mod process;
pub mod ranks;
pub mod startup;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};

use super::argparse::{Refusal, main_refusal, unrecognized};
use super::engine::{Engine, Machine, Variation};
use super::fault::{Death, Fault, Hanging};
use super::flags::{SERVE, ServeConfig};
use super::log::{Log, Source};
use super::model::{CostModel, hash};
use super::neighbours::Neighbours;
use super::scheduler::Limits;
use super::settings::SimSettings;
use super::trigger::Trigger;
use process::{Children, Ids};

/// The version that the simulation says it is.
pub const VERSION: &str = "0.14.1+sim";

/// One start of a server.
pub struct Launch {
    /// The flags.
    pub config: ServeConfig,
    /// The simulated machine.
    pub settings: SimSettings,
    /// What goes wrong in this attempt.
    pub faults: Vec<Fault>,
    /// What things cost.
    pub cost: CostModel,
    /// The log.
    pub log: Arc<Log>,
    /// The API server in the log.
    pub api: Source,
}

impl Launch {
    /// A start with these flags on that machine.
    pub fn new(config: ServeConfig, settings: SimSettings, log: Log) -> Launch {
        let faults = settings.active_faults(|key| config.flag(key));
        let cost = CostModel::new(&config.model, config.deployment.clone(), settings.device_memory_gib);
        let api = failure::source("APIServer", std::process::id());
        Launch { config, settings, faults, cost, log: Arc::new(log), api }
    }

    fn has(&self, fault: &Fault) -> bool {
        self.faults.contains(fault)
    }

    async fn sleep(&self, simulated_seconds: f64) {
        if !self.settings.speed.is_infinite() {
            tokio::time::sleep(self.settings.speed.real(simulated_seconds)).await;
        }
    }

    /// The engine core in the log.
    pub fn engine(&self, ids: Ids) -> Source {
        failure::source("EngineCore_DP0", ids.engine)
    }

    /// The first worker in the log: the engine core itself when tp is 1.
    pub fn worker(&self, ids: Ids) -> Source {
        match self.config.deployment.tp {
            1 => self.engine(ids),
            _ => failure::source("Worker_TP0", ids.worker),
        }
    }

    /// The engine for requests.
    pub fn make_engine(&self) -> Engine {
        let deployment = &self.config.deployment;
        let limits = Limits {
            max_num_seqs: (deployment.max_num_seqs * deployment.dp) as usize,
            max_num_batched_tokens: u64::from(deployment.max_num_batched_tokens * deployment.dp).max(1),
            kv_blocks: self.cost.kv_cache_tokens() * u64::from(deployment.dp) / self.config.block_size,
            block_size: self.config.block_size,
        };
        let trigger = self.faults.iter().find_map(|fault| match fault {
            Fault::DieInBenchmark { after, .. } | Fault::HangInBenchmark { after, .. } => {
                Some(Trigger::new(*after, self.settings.load_of(fault)))
            }
            _ => None,
        });
        let SimSettings { seed, noise, start, speed, .. } = self.settings;
        let machine = Machine {
            cost: self.cost.clone(),
            limits,
            seed: seed ^ self.config.seed ^ hash(&self.config.model),
            speed,
            variation: Variation { noise, seed, start: start.map_or(1.0, |draw| noise.of_start(seed, draw)) },
            speculation: self.config.speculation,
            prefix_caching: self.config.prefix_caching,
        };
        let neighbours = Neighbours::of(self.settings.interference, self.settings.neighbours.as_deref());
        Engine::new(machine, trigger).beside(neighbours)
    }
}

/// Prints a refusal of the command line; the exit code is argparse's.
pub fn refuse(refusal: &Refusal) -> ExitCode {
    use std::io::Write;
    if refusal.help {
        let _ = std::io::stdout().write_all(refusal.text.as_bytes());
        ExitCode::SUCCESS
    } else {
        let _ = std::io::stderr().write_all(refusal.text.as_bytes());
        ExitCode::from(2)
    }
}

/// `vllm serve`.
pub fn main(words: &[String], settings: SimSettings) -> ExitCode {
    let parsed = match SERVE.parse(words) {
        Ok(parsed) => parsed,
        Err(refusal) => return refuse(&refusal),
    };
    let launch = Launch::new(ServeConfig::new(parsed), settings, Log::stdout());
    for fault in &launch.faults {
        if let Fault::UnknownFlag { flag } = fault {
            return refuse(&main_refusal(&unrecognized(std::slice::from_ref(flag))));
        }
    }
    if launch.has(&Fault::IgnoresSigterm) {
        process::block_signals();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ExitCode::from(failure::api_server(&launch, "", &format!("OSError: {error}"))),
    };
    let code = runtime
        .block_on(async { if launch.config.headless { ranks::headless(&launch).await } else { run(&launch).await } });
    // A flood in a thread must not hold up the end.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// The signals that end a server; `None` where they cannot be listened to.
fn stopped() -> Option<impl Future<Output = ()>> {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return None;
    };
    Some(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn run(launch: &Launch) -> u8 {
    let Some(stop) = stopped() else { return 1 };
    tokio::pin!(stop);
    let socket = tokio::select! {
        biased;
        () = &mut stop => return failure::interrupted(launch),
        socket = startup::api_server(launch) => match socket {
            Ok(socket) => socket,
            Err(code) => return code,
        },
    };
    for (fault, own_session) in [(Fault::GrandchildInGroup, false), (Fault::GrandchildOutOfGroup, true)] {
        if launch.has(&fault) {
            process::spawn_grandchild(own_session);
        }
    }
    let ranks = launch.config.deployment.tp * launch.config.deployment.pp;
    let mut children = match Children::spawn(ranks, socket.local_addr().ok()).await {
        Ok(children) => children,
        Err(error) => return failure::api_server(launch, "", &format!("OSError: {error}")),
    };
    let code = with_children(launch, socket, &mut children, &mut stop).await;
    children.end().await;
    code
}

/// From the start of the engine to the end of the server.
async fn with_children<F: Future<Output = ()> + Unpin>(
    launch: &Launch,
    socket: TcpSocket,
    children: &mut Children,
    stop: &mut F,
) -> u8 {
    let ids = children.ids();
    let joined = tokio::select! {
        biased;
        () = &mut *stop => return failure::interrupted(launch),
        joined = ranks::gather(launch) => match joined {
            Ok(joined) => joined,
            Err(code) => return code,
        },
    };
    let rank_gone = joined.one_gone();
    tokio::pin!(rank_gone);
    tokio::select! {
        biased;
        () = &mut *stop => return failure::interrupted(launch),
        started = startup::engine(launch, ids) => if let Err(code) = started {
            return code;
        },
        peer = &mut rank_gone => {
            ranks::lost(launch, ids, &peer);
            return failure::engine_failed(launch, "{'EngineCore_DP0': 1}");
        },
        status = children.engine_ended() => return match settle(stop).await {
            true => failure::interrupted(launch),
            false => {
                use std::os::unix::process::ExitStatusExt;
                let code = status.and_then(|status| status.signal().map(|signal| -signal).or(status.code())).unwrap_or(1);
                failure::engine_failed(launch, &format!("{{'EngineCore_DP0': {code}}}"))
            }
        },
    }
    let listener = match socket.listen(1024) {
        Ok(listener) => listener,
        Err(_) => return failure::port_taken(launch),
    };
    startup::started(launch);
    if launch.has(&Fault::ServerFloods) {
        let log = Arc::clone(&launch.log);
        std::thread::spawn(move || flood(&log));
    }
    let engine = Arc::new(launch.make_engine());
    tokio::select! {
        biased;
        () = &mut *stop => orderly_end(launch),
        () = die_when_triggered(launch, &engine, ids) => 1,
        peer = &mut rank_gone => {
            ranks::lost(launch, ids, &peer);
            ids.kill();
            failure::engine_died(launch);
            orderly_end(launch)
        }
        _ = children.engine_ended() => {
            if !settle(stop).await {
                failure::engine_died(launch);
            }
            orderly_end(launch)
        }
        code = answer(launch, listener, Arc::clone(&engine), ids) => code,
    }
}

/// A signal to the whole group ends the engine core too, perhaps before the API server hears of it: does one come?
async fn settle<F: Future<Output = ()> + Unpin>(stop: &mut F) -> bool {
    tokio::time::timeout(Duration::from_millis(200), stop).await.is_ok()
}

fn orderly_end(launch: &Launch) -> u8 {
    let pid = std::process::id();
    launch.log.info(&launch.api, "launcher.py:110", "Shutting down FastAPI HTTP server.");
    launch.log.plain(
        &launch.api,
        &format!(
            "INFO:     Shutting down\nINFO:     Waiting for application shutdown.\nINFO:     Application shutdown complete.\n\
             INFO:     Finished server process [{pid}]"
        ),
    );
    0
}

/// Accepts and answers until something else ends the server.
async fn answer(launch: &Launch, listener: TcpListener, engine: Arc<Engine>, ids: Ids) -> u8 {
    if launch.has(&Fault::HangAccept) {
        let mut connections = Vec::new();
        loop {
            connections.extend(listener.accept().await.ok());
        }
    }
    tokio::spawn(freeze_while_stopped(Arc::clone(&engine), ids));
    let app = http::App::new(launch, engine);
    tokio::spawn(Arc::clone(&app).log_throughput(launch.settings.speed));
    match http::serve(listener, app).await {
        Ok(()) => 0,
        Err(error) => failure::api_server(launch, "", &format!("OSError: {error}")),
    }
}

/// How often it is looked whether the engine core is stopped.
const LOOK_AT_ENGINE: Duration = Duration::from_millis(50);

/// The steps are made here and not in the engine core: where that is stopped, they are as well.
async fn freeze_while_stopped(engine: Arc<Engine>, ids: Ids) {
    loop {
        engine.freeze(ids.is_stopped());
        tokio::time::sleep(LOOK_AT_ENGINE).await;
    }
}

/// The fault `hang-in-benchmark`.
async fn hang(launch: &Launch, how: Hanging, ids: Ids) {
    match how {
        Hanging::Deadlock => ids.stand_still(),
        Hanging::Busy => ids.compute(),
        Hanging::Deaf | Hanging::Babble => {
            if how == Hanging::Babble {
                let (log, api) = (Arc::clone(&launch.log), launch.api.clone());
                std::thread::spawn(move || {
                    loop {
                        log.info(&api, "sim.rs:2", "SIMULATED line of a server that answers nobody");
                        std::thread::sleep(Duration::from_millis(100));
                    }
                });
            }
            // The whole API server waits, its signals included.
            loop {
                std::thread::park();
            }
        }
    }
    std::future::pending().await
}

/// The faults `die-in-benchmark` and `hang-in-benchmark`; comes back only when the API server is to exit.
async fn die_when_triggered(launch: &Launch, engine: &Engine, ids: Ids) {
    let Some(trigger) = engine.trigger() else { return std::future::pending().await };
    trigger.notify.notified().await;
    // What was flushed reaches the client first.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let how = launch.faults.iter().find_map(|fault| match fault {
        Fault::DieInBenchmark { how, .. } => Some(Ok(*how)),
        Fault::HangInBenchmark { how, .. } => Some(Err(*how)),
        _ => None,
    });
    let how = match how {
        Some(Ok(how)) => how,
        Some(Err(how)) => return hang(launch, how, ids).await,
        None => return std::future::pending().await,
    };
    match how {
        Death::Engine => {
            ids.kill();
            std::future::pending().await
        }
        Death::Exit => {}
        Death::Kill => {
            ids.kill();
            process::die_by(Signal::SIGKILL)
        }
        Death::Segv => {
            ids.kill();
            process::die_by(Signal::SIGSEGV)
        }
    }
}

/// Prints about four megabytes a second until the stream is gone.
pub fn flood(log: &Log) {
    let line =
        format!("INFO:     127.0.0.1:44136 - \"GET /health HTTP/1.1\" 200 OK {}\n", "SIMULATED flood ".repeat(12));
    let chunk = line.repeat(256);
    while log.raw(chunk.as_bytes()) {
        std::thread::sleep(Duration::from_millis(16));
    }
}
