//! The processes of a simulated server: this binary again, under the names that vLLM's children give themselves.
//!
//! The API server starts `VLLM::EngineCore`, which starts `VLLM::Worker_TP0` when tp > 1. As the real ones they outlive an API
//! server that was killed; they end on SIGTERM and when the API server ends in order. They take their names as `setproctitle`
//! does: arguments and environment are overwritten, so that `/proc/PID/environ` holds nothing but zeros. The worker leads a
//! session of its own, keeps the server's port bound, and outlives an engine core that was killed.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};

/// The word that follows `sim-vllm` on the command line of a child.
const ENGINE: &str = "__engine-core";
const WORKER: &str = "__worker";
const GRANDCHILD: &str = "__grandchild";
/// This very binary, even when its file was replaced meanwhile.
const SELF: &str = "/proc/self/exe";
/// A grandchild that nobody ended ends by itself.
const GRANDCHILD_LIFE: Duration = Duration::from_secs(15 * 60);
/// So does a worker that lost its engine core.
const ORPHAN_LIFE: Duration = Duration::from_secs(60);
/// How an engine core tells its worker to end.
const END: &[u8] = b"end";

/// Is this command line that of a child?
pub fn is_child(role: &str) -> bool {
    matches!(role, ENGINE | WORKER | GRANDCHILD)
}

/// What a child does; `words` are its role and the rest.
pub fn child_main(words: &[String]) -> ExitCode {
    match words.first().map(String::as_str) {
        Some(ENGINE) => engine_main(words.get(1).is_some_and(|tp| tp != "1"), words.get(2)),
        Some(WORKER) => worker_main(words.get(1).and_then(|address| address.parse().ok())),
        _ => {
            rename("sim-grandchild");
            if words.get(1).is_some_and(|word| word == "setsid") {
                let _ = nix::unistd::setsid();
            }
            block_signals();
            std::thread::sleep(GRANDCHILD_LIFE);
        }
    }
    ExitCode::SUCCESS
}

fn worker_main(address: Option<SocketAddr>) {
    let _ = nix::unistd::setsid();
    rename("VLLM::Worker_TP0");
    let _port = address.map(bound);
    let mut said = Vec::new();
    let _ = io::stdin().read_to_end(&mut said);
    if said != END {
        std::thread::sleep(ORPHAN_LIFE);
    }
}

/// A socket that holds a port and does not listen.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn engine_main(with_worker: bool, address: Option<&String>) {
    rename("VLLM::EngineCore");
    // Inherited from an API server that ignores signals (fault `ignores-sigterm`): then this one does too.
    let deaf = SigSet::thread_get_mask().is_ok_and(|mask| mask.contains(Signal::SIGTERM));
    let mut command = std::process::Command::new(SELF);
    command.args(["sim-vllm", WORKER]).args(address).arg0_named("VLLM::Worker_TP0").stdin(Stdio::piped());
    let worker = with_worker.then(|| command.spawn().ok()).flatten();
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all_signals()), None);
    let mut out = std::io::stdout();
    let pid = worker.as_ref().map_or(0, std::process::Child::id);
    let _ = writeln!(out, "{pid}").and_then(|()| out.flush());
    loop {
        match all_signals().wait() {
            Ok(how @ (STAND_STILL | COMPUTE)) => stand_still(how == COMPUTE, deaf),
            Ok(_) if !deaf => {}
            Ok(_) | Err(_) => {
                nix::unistd::pause();
                continue;
            }
        }
        break;
    }
    if let Some(mut worker) = worker {
        // Its end of the pipe closes, it ends, and no zombie is left.
        if let Some(mut stdin) = worker.stdin.take() {
            let _ = stdin.write_all(END);
        }
        let _ = worker.wait();
    }
}

/// Waits for ever, as one does whose lock nobody gives back, or computes for ever; until it is told to end.
fn stand_still(computes: bool, deaf: bool) {
    let told = std::thread::spawn(move || {
        while deaf || ending_signals().wait().is_err() {
            std::thread::park();
        }
    });
    while computes && !told.is_finished() {
        std::hint::spin_loop();
    }
    let _ = told.join();
}

/// What tells an engine core to stand still, or to compute without an end.
const STAND_STILL: Signal = Signal::SIGUSR1;
const COMPUTE: Signal = Signal::SIGUSR2;

fn all_signals() -> SigSet {
    let mut signals = ending_signals();
    signals.add(STAND_STILL);
    signals.add(COMPUTE);
    signals
}

fn ending_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
}

trait Named {
    fn arg0_named(&mut self, name: &str) -> &mut Self;
}

impl Named for std::process::Command {
    fn arg0_named(&mut self, name: &str) -> &mut Self {
        std::os::unix::process::CommandExt::arg0(self, name)
    }
}

fn rename(title: &str) {
    // The kernel cuts it to 15 bytes, as it does with vLLM's names.
    if let Ok(name) = CString::new(title) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    let _ = overwrite(title);
}

/// Writes a title over the arguments of this process and zeros over the rest of them and over its environment, as
/// `setproctitle` does. Neither is read again.
fn overwrite(title: &str) -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    // Fields 48 to 51 of the whole line: where arguments and environment begin and end.
    let places: Vec<u64> = fields.skip(45).take(4).filter_map(|field| field.parse().ok()).collect();
    let &[arguments, arguments_end, environment, environment_end] = &places[..] else {
        return Err(io::Error::other("/proc/self/stat has no addresses"));
    };
    let room = |from: u64, to: u64| vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or_default()];
    let mut text = room(arguments, arguments_end);
    let length = title.len().min(text.len().saturating_sub(1));
    text[..length].copy_from_slice(&title.as_bytes()[..length]);
    let memory = fs::OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.write_all_at(&text, arguments)?;
    memory.write_all_at(&room(environment, environment_end), environment)
}

/// From here on this thread, its threads and its children ignore SIGTERM and SIGINT.
pub fn block_signals() {
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ending_signals()), None);
}

/// Starts the grandchild of a fault.
pub fn spawn_grandchild(own_session: bool) {
    let mut command = std::process::Command::new(SELF);
    command
        .args(["sim-vllm", GRANDCHILD])
        .args(own_session.then_some("setsid"))
        .arg0_named("sim-grandchild")
        .stdin(Stdio::null());
    // It is never waited for: it outlives this process.
    drop(command.spawn());
}

/// The ids of the engine core and its worker.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// Process id of the engine core.
    pub engine: u32,
    /// Process id of the worker (that of the engine core when there is none).
    pub worker: u32,
}

impl Ids {
    /// Sends SIGKILL to both. Only while they have not been waited for.
    pub fn kill(self) {
        for pid in [self.worker, self.engine] {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
    }

    /// The engine core does nothing any more.
    pub fn stand_still(self) {
        let _ = kill(Pid::from_raw(self.engine.cast_signed()), STAND_STILL);
    }

    /// It computes for ever.
    pub fn compute(self) {
        let _ = kill(Pid::from_raw(self.engine.cast_signed()), COMPUTE);
    }

    /// Whether the engine core is stopped by a signal.
    pub fn is_stopped(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.engine)).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    }
}

/// The engine core and its worker.
#[derive(Debug)]
pub struct Children {
    engine: Child,
    ids: Ids,
}

impl Children {
    /// Starts them; the worker holds this address.
    pub async fn spawn(tp: u32, address: Option<SocketAddr>) -> std::io::Result<Children> {
        let mut engine = Command::new(SELF)
            .args(["sim-vllm", ENGINE, &tp.to_string()])
            .args(address.map(|address| address.to_string()))
            .arg0("VLLM::EngineCore")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let engine_pid = engine.id().unwrap_or_default();
        let mut line = Vec::new();
        if let Some(mut stdout) = engine.stdout.take() {
            while !line.contains(&b'\n') && stdout.read_buf(&mut line).await? > 0 {}
        }
        let worker = String::from_utf8_lossy(&line).trim().parse().ok().filter(|pid| *pid > 0);
        Ok(Children { engine, ids: Ids { engine: engine_pid, worker: worker.unwrap_or(engine_pid) } })
    }

    /// Waits until the engine core has ended.
    pub async fn engine_ended(&mut self) -> Option<ExitStatus> {
        self.engine.wait().await.ok()
    }

    /// Sends a signal to the engine core (its worker ends with it), while it has not been waited for.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.engine.id() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    /// Only the ids of these processes, for whoever logs or kills them while another waits for their end.
    pub fn ids(&self) -> Ids {
        self.ids
    }

    /// Ends them in order: SIGTERM, and after five seconds SIGKILL.
    pub async fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(Duration::from_secs(5), self.engine_ended()).await.is_err() {
            self.signal(Signal::SIGKILL);
            self.engine_ended().await;
        }
    }
}

/// Ends this process by a signal. SIGSEGV is sent twice: the first only takes Rust's own handler away. No core is dumped.
pub fn die_by(signal: Signal) -> ! {
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    loop {
        let _ = kill(Pid::this(), signal);
    }
}
