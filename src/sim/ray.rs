//! `ray start`, simulated: a head that counts the devices of the nodes that joined, and workers that hold their place there.
//!
//! A line says what a connection is for: `join N` brings N devices as long as it lasts, `wait N` is answered once so many are there and
//! closed when they are not any more. The head goes into the background, as Ray's does; `--block` keeps a worker in the foreground.

use std::io::{Read, Write};
use std::net::TcpStream as Blocking;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::fault::Fault;
use super::settings::SimSettings;

/// The word that follows `sim-vllm` on the command line of the head in the background.
pub const HEAD: &str = "__ray-head";
/// How long a command may take to reach a head.
const LIMIT: Duration = Duration::from_secs(60);
const TRY_EVERY: Duration = Duration::from_millis(50);

/// `ray ARGS...`.
pub fn main(words: &[String], settings: &SimSettings) -> ExitCode {
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let refuse = |text: &str| {
        let _ = writeln!(std::io::stderr(), "simulated ray: error: {text}");
        ExitCode::from(2)
    };
    let has = |word: &str| words.iter().any(|given| given == word);
    match (words.first().map(String::as_str), value("--port"), value("--address")) {
        (Some("start"), Some(port), _) if has("--head") => start_head(port),
        (Some("start"), _, Some(address)) if has("--block") => work(address, settings),
        _ => refuse("`start --head --port=P` or `start --address=A:P --block` are played"),
    }
}

/// Starts the head, and comes back when it answers.
fn start_head(port: &str) -> ExitCode {
    let mut command = Command::new("/proc/self/exe");
    command.args(["sim-vllm", HEAD, port]).stdin(Stdio::null());
    // It is never waited for: it outlives this process, as Ray's does.
    drop(command.spawn());
    for _ in 0..LIMIT.as_millis() / TRY_EVERY.as_millis() {
        if Blocking::connect(format!("127.0.0.1:{port}")).is_ok() {
            let _ = writeln!(std::io::stdout(), "SIMULATED Ray runtime started (head, port {port})");
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(TRY_EVERY);
    }
    ExitCode::FAILURE
}

/// The head in the background.
pub fn head(port: Option<&String>) -> ExitCode {
    let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) else { return ExitCode::FAILURE };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(async {
        let (Ok(listener), Ok(mut terminate)) =
            (TcpListener::bind(("0.0.0.0", port)).await, signal(SignalKind::terminate()))
        else {
            return ExitCode::FAILURE;
        };
        let devices = watch::channel(0u32).0;
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    tokio::spawn(serve(stream, devices.clone()));
                },
                _ = terminate.recv() => return ExitCode::SUCCESS,
            }
        }
    })
}

async fn serve(stream: TcpStream, devices: watch::Sender<u32>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await.is_err() {
        return;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = words.get(1).and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
    let mut nothing = [0; 64];
    match words.first() {
        Some(&"join") => {
            devices.send_modify(|there| *there += number);
            while stream.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
            devices.send_modify(|there| *there = there.saturating_sub(number));
        }
        Some(&"wait") => {
            let mut there = devices.subscribe();
            if there.wait_for(|there| *there >= number).await.is_err() || stream.write_all(b"ok\n").await.is_err() {
                return;
            }
            // Dropped, and so closed, when a node leaves.
            let _ = there.wait_for(|there| *there < number).await;
        }
        _ => {}
    }
}

/// A worker in the foreground: ends when the head is gone, or when it is told to.
fn work(address: &str, settings: &SimSettings) -> ExitCode {
    let faults = settings.active_faults(|_| None);
    if faults.contains(&Fault::RankDies { after: None }) {
        let _ = writeln!(std::io::stdout(), "RuntimeError: the device of this rank is gone (simulated)");
        return ExitCode::FAILURE;
    }
    let mut tries = LIMIT.as_millis() / TRY_EVERY.as_millis();
    let stream = loop {
        match Blocking::connect(address) {
            Ok(stream) => break stream,
            Err(_) if tries > 0 => tries -= 1,
            Err(error) => {
                let _ = writeln!(std::io::stdout(), "ConnectionError: the Ray head at {address}: {error}");
                return ExitCode::FAILURE;
            }
        }
        std::thread::sleep(TRY_EVERY);
    };
    let mut stream = stream;
    if writeln!(stream, "join {}", settings.devices).is_err() {
        return ExitCode::FAILURE;
    }
    let _ = writeln!(std::io::stdout(), "SIMULATED Ray runtime started ({} devices for {address})", settings.devices);
    if let Some(seconds) = faults.iter().find_map(|fault| match fault {
        Fault::RankDies { after } => *after,
        _ => None,
    }) {
        let _ = stream.set_read_timeout(Some(settings.speed.real(seconds).max(Duration::from_millis(1))));
    }
    // SIGTERM ends this process as it ends any: nothing of it has to be put in order.
    let mut nothing = [0; 64];
    while stream.read(&mut nothing).is_ok_and(|read| read > 0) {}
    let _ = writeln!(std::io::stdout(), "Some Ray subprocesses exited unexpectedly: the head is gone, or this node");
    ExitCode::FAILURE
}

/// Waits at the head for so many devices of other nodes; the connection lasts as long as they are there. `None` where there is no head.
pub async fn wait_for_devices(address: &str, devices: u32) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("wait {devices}\n").as_bytes()).await.ok()?;
    let mut said = [0; 3];
    stream.read_exact(&mut said).await.ok()?;
    Some(stream)
}
