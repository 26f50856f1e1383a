//! A server on several nodes: the head here, a rank on each of the others.
//!
//! One command (`srun`) starts this program on the other nodes, where each holds its rank in a group of its own under a guard, ends it
//! and proves the end as it is done here, and writes what it saw beside the server's log. vLLM's own flags make one server of them
//! (`--nnodes`, `--node-rank`, `--master-addr`, `--headless`), or Ray where `distributed-executor-backend` says so. The head is ready only
//! when all ranks have joined; a rank that ends is told as the failure that its own log shows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::lease::lock_path;
use super::script::{EngineCommand, ScriptContext, script_of, serve_args};
use super::{Job, UnitContext, launch, port};
use crate::model::{Cause, Ending, Experiment, Failure, Phase, ProcessId};
use crate::process::{self, Emptied, Group, GroupSpec, Owner, Role, Stop, StopLevel, stop_channel};
use crate::record::{Lock, atomic, layout};
use crate::words::quoted;

/// The hidden subcommand that holds a rank on its node.
pub const SUBCOMMAND: &str = "__rank";
/// The variable in which a rank's script has its number.
const RANK: &str = "VLLM_BENCH_RANK";
/// The first port that is tried where head and ranks meet: vLLM's own default.
const FIRST_PORT: u16 = 29501;
/// How often it is looked whether a rank has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What the way to the other nodes may take beyond the grace period of a rank.
const MARGIN: Duration = Duration::from_secs(15);

/// The nodes that one server is spread over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// How many, this one included.
    pub count: u32,
    /// The address of this node, as the others reach it.
    pub head: String,
    /// What runs a command on every other node: `srun` and its flags.
    pub launcher: Vec<String>,
    /// Devices that there are on each; `None` where nobody said.
    pub devices: Option<u32>,
}

impl Nodes {
    /// Whether a server is spread over them: it needs more devices than one has.
    pub(super) fn are_for(&self, experiment: &Experiment) -> bool {
        let size = |flag: &str| experiment.server.flags.get_text(flag).and_then(|text| text.parse::<u32>().ok());
        let sizes = ["tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"];
        let world = sizes.into_iter().fold(1u32, |world, flag| world.saturating_mul(size(flag).unwrap_or(1)));
        let is_divided = world.is_multiple_of(self.count.max(1));
        self.count > 1 && self.devices.map_or(is_divided, |here| world > here)
    }
}

/// How ranks find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// vLLM's own flags.
    Multiprocessing,
    /// A Ray cluster of the nodes.
    Ray,
}

impl Way {
    fn of(experiment: &Experiment) -> Self {
        match experiment.server.flags.get_text("distributed-executor-backend") {
            Some("ray") => Way::Ray,
            Some(_) | None => Way::Multiprocessing,
        }
    }
}

/// Where head and ranks meet.
#[derive(Debug)]
pub(super) struct Meeting {
    way: Way,
    count: u32,
    head: String,
    /// For the ranks, and for data parallel groups.
    ports: [HeldPort; 2],
}

/// A free port, and what keeps other runs off it.
#[derive(Debug)]
struct HeldPort {
    number: u16,
    _lock: Lock,
}

impl HeldPort {
    fn take() -> Result<Self, super::Error> {
        let claim = |port| Lock::take(&lock_path(port).ok()?).ok()?.ok();
        let (number, lock) = port::find_free(FIRST_PORT, claim)?;
        Ok(Self { number, _lock: lock })
    }
}

impl Meeting {
    /// Takes the ports for it.
    ///
    /// # Errors
    /// When none is free.
    pub fn arrange(experiment: &Experiment, nodes: &Nodes) -> Result<Self, super::Error> {
        let ports = [HeldPort::take()?, HeldPort::take()?];
        Ok(Self { way: Way::of(experiment), count: nodes.count, head: nodes.head.clone(), ports })
    }

    /// The flags that the head and its ranks share.
    fn flags(&self, experiment: &Experiment) -> Vec<String> {
        let [master, data_parallel] = [&self.ports[0], &self.ports[1]].map(|port| port.number.to_string());
        let mut words = vec!["--nnodes".to_owned(), self.count.to_string()];
        words.extend(["--master-addr".to_owned(), self.head.clone(), "--master-port".to_owned(), master]);
        if experiment.server.flags.get_text("data-parallel-size").is_some_and(|size| size != "1") {
            // Jobs that share a node must not meet at vLLM's default.
            words.extend(["--data-parallel-rpc-port".to_owned(), data_parallel]);
        }
        words
    }

    /// What the head's command has beyond that of a server on one node.
    pub fn head_args(&self, experiment: &Experiment) -> Vec<String> {
        match self.way {
            Way::Multiprocessing => [self.flags(experiment), vec!["--node-rank".into(), "0".into()]].concat(),
            Way::Ray => Vec::new(),
        }
    }

    /// Lines of the head's script before its server.
    pub fn before_head(&self, engine: &EngineCommand) -> Vec<String> {
        match self.way {
            Way::Multiprocessing => Vec::new(),
            Way::Ray => {
                let port = self.ports[0].number;
                let head = quoted(&self.head);
                vec![
                    format!("export VLLM_HOST_IP={head}"),
                    format!("export RAY_ADDRESS={head}:{port}"),
                    format!(
                        "{} start --head --node-ip-address={head} --port={port} --include-dashboard=false --disable-usage-stats || exit 1",
                        ray(engine)
                    ),
                ]
            }
        }
    }

    /// The script of every other rank; its number is in a variable.
    fn rank_script(&self, job: &Job, context: &ScriptContext<'_>) -> String {
        let experiment = &job.experiment;
        let command = match self.way {
            Way::Multiprocessing => {
                let mut words = vec![context.engine.program.to_string_lossy().into_owned()];
                words.extend(context.engine.prefix.iter().cloned());
                words.extend(without_port(serve_args(experiment, 0)));
                words.extend(self.flags(experiment));
                words.push("--headless".into());
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                format!("{} --node-rank \"${RANK}\"", words.join(" "))
            }
            Way::Ray => {
                let address = quoted(&format!("{}:{}", self.head, self.ports[0].number));
                format!("{} start --address={address} --disable-usage-stats --block", ray(context.engine))
            }
        };
        script_of(Role::Server, experiment, context, &[], &format!(" {command}"))
    }
}

/// The program `ray`: beside vLLM, which the script puts on its PATH; of the simulated vLLM, the simulated one.
fn ray(engine: &EngineCommand) -> String {
    if engine.prefix.is_empty() {
        return "ray".to_owned();
    }
    let words = [engine.program.to_string_lossy().into_owned()].into_iter().chain(engine.prefix.iter().cloned());
    let words: Vec<String> = words.map(|word| quoted(&word)).collect();
    format!("{} ray", words.join(" "))
}

/// A rank without an API has no port of its own.
fn without_port(mut words: Vec<String>) -> Vec<String> {
    if let Some(at) = words.iter().position(|word| word == "--port") {
        words.drain(at..(at + 2).min(words.len()));
    }
    words
}

/// What a rank's holder is told, through the file system that the nodes share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RankOrder {
    argv: Vec<String>,
    /// The server's log: those of the ranks, and what was seen of their end, stand beside it.
    server_log: PathBuf,
    unset: Vec<String>,
    grace: Duration,
    owner: Owner,
}

/// What was seen of a rank when it had ended, or been ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RankEnd {
    /// How it ended by itself; absent where it was told to.
    ending: Option<Ending>,
    emptied: Emptied,
}

impl RankOrder {
    /// Reads the order at this path.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> Result<Self, crate::record::Error> {
        atomic::read_json(path, "order of a rank")
    }

    /// Holds a rank on this node until it ends, or `told` to end it; then ends what is left and writes what was seen.
    ///
    /// # Errors
    /// When it cannot be started, or what was seen cannot be written.
    pub async fn hold(
        self,
        rank: u32,
        secrets: Vec<String>,
        told: impl Future<Output = ()>,
    ) -> Result<u8, super::Error> {
        let (_sender, mut stop) = stop_channel();
        let spec = GroupSpec {
            argv: self.argv,
            env: vec![(RANK.to_owned(), rank.to_string())],
            unset: self.unset,
            secrets,
            log: layout::rank_log(&self.server_log, rank),
            cleanup: Vec::new(),
            grace: self.grace,
            cores: Vec::new(),
            container: None,
            owner: self.owner,
        };
        let mut group = Group::spawn(spec, &mut stop).await?;
        let ending = tokio::select! {
            ending = group.exited() => ending,
            () = told => None,
        };
        let emptied = group.end(&mut stop).await;
        let code = match ending {
            Some(Ending::Exited(code)) => u8::try_from(code).unwrap_or(1),
            Some(_) => 1,
            None => 0,
        };
        atomic::keep_json(&layout::rank_end(&self.server_log, rank), &RankEnd { ending, emptied })?;
        Ok(code)
    }
}

/// What a rank ended with, or the command that starts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// This one.
    Rank(u32),
    /// The command on this node that started them: none of them has said anything.
    Launcher,
}

/// The ranks on other nodes, as their head sees them.
pub(super) struct Ranks {
    group: Group,
    meeting: Meeting,
    server_log: PathBuf,
    leader: ProcessId,
    grace: Duration,
}

impl Ranks {
    /// Starts them.
    ///
    /// # Errors
    /// The failure that it is when they cannot be started.
    pub async fn start(job: &Job, context: &UnitContext, meeting: Meeting, stop: &mut Stop) -> Result<Self, Failure> {
        let spec = spec(job, context, &meeting).map_err(|error| launch_failed(&error))?;
        let group = Group::spawn(spec, stop).await.map_err(|error| launch_failed(&error))?;
        Ok(Self {
            leader: group.leader,
            group,
            meeting,
            server_log: job.places.server_log.clone(),
            grace: context.grace,
        })
    }

    fn numbers(&self) -> std::ops::Range<u32> {
        1..self.meeting.count
    }

    /// The first that is known to have ended.
    pub fn first_gone(&self) -> Option<Gone> {
        gone(&self.server_log, self.numbers(), self.leader)
    }

    /// Waits until one has ended.
    pub fn gone(&self) -> impl Future<Output = Gone> + use<> {
        let (log, numbers, leader) = (self.server_log.clone(), self.numbers(), self.leader);
        async move {
            loop {
                if let Some(gone) = gone(&log, numbers.clone(), leader) {
                    return gone;
                }
                sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Ends them all, and says what was seen on every node.
    pub async fn end(self, stop: &mut Stop) -> Emptied {
        let (numbers, log) = (self.numbers(), self.server_log);
        // `srun` passes this on; told to end, it would have all ranks killed at once.
        self.group.tell(Signal::SIGUSR1);
        let deadline = Instant::now() + self.grace + MARGIN;
        for rank in numbers.clone() {
            let path = layout::rank_end(&log, rank);
            while !path.exists() && Instant::now() < deadline && stop.level() < StopLevel::Kill {
                sleep(LOOK_EVERY).await;
            }
        }
        let mut all = self.group.end(stop).await;
        for rank in numbers {
            match atomic::read_json::<RankEnd>(&layout::rank_end(&log, rank), "end of a rank") {
                Ok(RankEnd { emptied, .. }) => all = together(all, emptied),
                // Its node may be gone: nobody has looked there.
                Err(_) => all.empty = all.empty.filter(|empty| !empty),
            }
        }
        all
    }
}

/// Two groups as one: nothing is left only where nothing is left of either.
pub(super) fn together(one: Emptied, other: Emptied) -> Emptied {
    let empty = match (one.empty, other.empty) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        (None, _) | (_, None) => None,
    };
    let left = [one.left, other.left].concat();
    Emptied {
        empty,
        killed: one.killed || other.killed,
        strays: one.strays + other.strays,
        left,
        seconds: one.seconds.max(other.seconds),
        held_by: one.held_by,
    }
}

fn gone(log: &Path, mut numbers: std::ops::Range<u32>, leader: ProcessId) -> Option<Gone> {
    let launched = leader.is_alive();
    // Looked at after the launcher: what a rank wrote before that ended is there.
    let rank = numbers.find(|rank| layout::rank_end(log, *rank).exists());
    rank.map(Gone::Rank).or_else(|| (!launched).then_some(Gone::Launcher))
}

fn launch_failed(error: &dyn std::error::Error) -> Failure {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    Failure::plain(Cause::LaunchFailed, Phase::Launching, format!("the ranks on other nodes: {error}{source}"))
}

/// Writes the ranks' script and order, and says what starts them.
fn spec(job: &Job, context: &UnitContext, meeting: &Meeting) -> Result<GroupSpec, super::Error> {
    let nodes = context.nodes.as_ref().map(|nodes| nodes.launcher.clone()).unwrap_or_default();
    let engine = launch::server_of(job, context);
    let script_context = launch::script_context(&engine, job, context);
    let log = &job.places.server_log;
    let (script, order) = (layout::rank_script(log), layout::rank_order(log));
    atomic::keep_again_with(&script, |file| file.write_all(meeting.rank_script(job, &script_context).as_bytes()))?;
    let owner =
        Owner { run: context.run.clone(), experiment: job.experiment.name.clone(), role: Role::Server, port: job.port };
    let rank = RankOrder {
        argv: launch::shell(context.login)
            .into_iter()
            .map(str::to_owned)
            .chain([script.to_string_lossy().into_owned()])
            .collect(),
        server_log: log.clone(),
        unset: context.unset.clone(),
        grace: context.grace,
        owner: owner.clone(),
    };
    atomic::keep_json(&order, &rank)?;
    let me = std::env::current_exe().map_err(|source| super::Error::Script { path: script.clone(), source })?;
    let inside = format!("exec \"$0\" {SUBCOMMAND} \"$1\" \"$((SLURM_PROCID + 1))\"");
    let words = ["bash", "-c", &inside, &me.to_string_lossy(), &order.to_string_lossy()].map(str::to_owned);
    Ok(GroupSpec {
        argv: nodes.into_iter().chain(words).collect(),
        env: context.secret_env.clone(),
        unset: context.unset.clone(),
        secrets: context.secrets.clone(),
        log: layout::ranks_log(log),
        cleanup: vec![order],
        grace: context.grace + MARGIN,
        cores: Vec::new(),
        container: None,
        owner,
    })
}

/// Inherits what a guard that dies leaves, as whoever holds groups does.
pub fn become_holder() {
    process::become_subreaper();
}
