//! A server on several nodes: its head waits for the other ranks at its master port, and whoever loses the other ends.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::process::{Children, Ids};
use super::startup::Start;
use super::{Launch, VERSION, failure, process, settle, stopped};
use crate::sim::fault::Fault;
use crate::sim::flags::ServeConfig;
use crate::sim::log::Source;
use crate::sim::ray;

/// Simulated seconds that torch waits for the head.
const JOIN_LIMIT: f64 = 600.0;
/// How often a rank tries to reach the head, in real time.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// The connections of ranks that joined.
pub struct Joined(Vec<TcpStream>);

impl Joined {
    /// Waits until one of them is gone, and says where it was.
    pub async fn one_gone(self) -> String {
        let mut waiting = tokio::task::JoinSet::new();
        for mut rank in self.0 {
            waiting.spawn(async move {
                let peer = rank.peer_addr().map_or_else(|_| "unknown".into(), |peer| peer.to_string());
                let mut nothing = [0; 64];
                while rank.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
                peer
            });
        }
        match waiting.join_next().await {
            Some(Ok(peer)) => peer,
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}

/// Where the Ray cluster is that this server is spread over.
pub fn ray_head(config: &ServeConfig) -> Option<String> {
    let is_ray = config.parsed.get("distributed-executor-backend") == Some("ray");
    std::env::var("RAY_ADDRESS").ok().filter(|address| is_ray && !address.is_empty())
}

/// The head waits until all ranks are there.
pub async fn gather(launch: &Launch) -> Start<Joined> {
    let (config, mut joined) = (&launch.config, Vec::new());
    if let Some(address) = ray_head(config) {
        let deployment = &config.deployment;
        let elsewhere = (deployment.tp * deployment.pp * deployment.dp).saturating_sub(launch.settings.devices);
        launch.log.info(
            &launch.api,
            "ray_utils.py:375",
            &format!("Connecting to existing Ray cluster at address: {address}..."),
        );
        let Some(cluster) = ray::wait_for_devices(&address, elsewhere).await else {
            let error = format!("ConnectionError: Could not find any running Ray instance at {address}.");
            return Err(failure::api_server(launch, "", &error));
        };
        return Ok(Joined(vec![cluster]));
    }
    if config.nodes > 1 {
        let (address, port) = &config.master;
        let failed = |error: std::io::Error| failure::api_server(launch, "", &format!("OSError: {error}"));
        let listener = TcpListener::bind(("0.0.0.0", *port)).await.map_err(failed)?;
        let world = config.deployment.tp * config.deployment.pp;
        let line = format!(
            "world_size={world} rank=0 local_rank=0 distributed_init_method=tcp://{address}:{port} backend=xccl"
        );
        launch.log.info(&launch.api, "parallel_state.py:1214", &line);
        while joined.len() + 1 < config.nodes as usize {
            let (rank, _) = listener.accept().await.map_err(failed)?;
            joined.push(rank);
        }
    }
    Ok(Joined(joined))
}

/// What the head's engine says when a rank is gone.
pub fn lost(launch: &Launch, ids: Ids, peer: &str) {
    let text = format!(
        "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [{peer}]"
    );
    launch.log.line(&launch.engine(ids), "ERROR", "core.py:866", &text);
}

/// A rank that serves nothing: joins the head, works for it, and ends with it.
pub async fn headless(launch: &Launch) -> u8 {
    let Some(stop) = stopped() else { return 1 };
    tokio::pin!(stop);
    let (log, (address, port)) = (&launch.log, &launch.config.master);
    let notice = format!("SIMULATED vLLM {VERSION} by vllm-bench: a rank without devices.");
    log.line(&Source::Bare, "WARNING", "sim.rs:1", &notice);
    launch.sleep(9.0).await;
    log.info(&Source::Bare, "utils.py:263", &format!("non-default args: {}", launch.config.non_default_args()));
    let line = format!(
        "Launching vLLM (v{VERSION}) headless multiproc executor, with head node address {address}:{port} for torch.distributed \
         process group."
    );
    log.info(&Source::Bare, "serve.py:126", &line);
    if launch.has(&Fault::RankHangs) {
        stop.await;
        return 0;
    }
    let dies = launch.faults.iter().find_map(|fault| match fault {
        Fault::RankDies { after } => Some(*after),
        _ => None,
    });
    if dies == Some(None) {
        log.plain(&Source::Bare, "RuntimeError: the device of this rank is gone (simulated)");
        return 1;
    }
    let head = tokio::select! {
        biased;
        () = &mut stop => return 0,
        head = join(launch) => head,
    };
    let Some(mut head) = head else {
        let limit = JOIN_LIMIT * 1000.0;
        let text = format!(
            "torch.distributed.DistNetworkError: The client socket has timed out after {limit:.0}ms while trying to connect to \
             ({address}, {port})."
        );
        log.plain(&Source::Bare, &text);
        return 1;
    };
    if launch.has(&Fault::IgnoresSigterm) {
        process::block_signals();
    }
    let ranks = launch.config.deployment.tp * launch.config.deployment.pp;
    let Ok(mut children) = Children::spawn(ranks, None).await else { return 1 };
    let after = dies.flatten();
    let dying = async {
        match after {
            Some(seconds) => launch.sleep(seconds).await,
            None => std::future::pending().await,
        }
    };
    let mut nothing = [0; 64];
    let head_gone = async { while head.read(&mut nothing).await.is_ok_and(|read| read > 0) {} };
    let why = tokio::select! {
        biased;
        () = &mut stop => None,
        () = head_gone => Some("RuntimeError: Connection closed by peer: the head of the server is gone"),
        () = dying => Some("RuntimeError: the device of this rank is gone (simulated)"),
        _ = children.engine_ended() => {
            if settle(&mut stop).await { None } else { Some("ERROR: a worker of this rank died unexpectedly, shutting down executor.") }
        }
    };
    if let Some(why) = why {
        log.plain(&Source::Bare, why);
    }
    children.end().await;
    u8::from(why.is_some())
}

/// Reaches the head; `None` where it does not come in time.
async fn join(launch: &Launch) -> Option<TcpStream> {
    let (address, port) = &launch.config.master;
    let trying = async {
        loop {
            if let Ok(head) = TcpStream::connect((address.as_str(), *port)).await {
                return head;
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    };
    if launch.settings.speed.is_infinite() {
        return tokio::time::timeout(Duration::from_secs_f64(JOIN_LIMIT), trying).await.ok();
    }
    tokio::select! {
        head = trying => Some(head),
        () = launch.sleep(JOIN_LIMIT) => None,
    }
}
