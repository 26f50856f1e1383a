//! The processes of a simulated server: this binary again, under the names that vLLM's children give themselves.
//!
//! The API server starts `VLLM::EngineCore`, which starts `VLLM::Worker_TP0` when tp > 1. As the real ones they stay in the
//! process group and outlive an API server that was killed; they end on SIGTERM and when the API server ends in order.

use std::ffi::CString;
use std::io::{Read, Write};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// The word that follows `sim-vllm` on the command line of a child.
const ENGINE: &str = "__engine-core";
const WORKER: &str = "__worker";
const GRANDCHILD: &str = "__grandchild";
/// This very binary, even when its file was replaced meanwhile.
const SELF: &str = "/proc/self/exe";
/// A grandchild that nobody ended ends by itself.
const GRANDCHILD_LIFE: Duration = Duration::from_secs(15 * 60);

/// Is this command line that of a child?
pub fn is_child(role: &str) -> bool {
    matches!(role, ENGINE | WORKER | GRANDCHILD)
}

/// What a child does; `words` are its role and the rest.
pub fn child_main(words: &[String]) -> ExitCode {
    match words.first().map(String::as_str) {
        Some(ENGINE) => engine_main(words.get(1).is_some_and(|tp| tp != "1")),
        Some(WORKER) => {
            rename("VLLM::Worker_TP0");
            // The engine core holds the other end: it ends with it.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
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

fn engine_main(with_worker: bool) {
    rename("VLLM::EngineCore");
    // Inherited from an API server that ignores signals (fault `ignores-sigterm`): then this one does too.
    let deaf = SigSet::thread_get_mask().is_ok_and(|mask| mask.contains(Signal::SIGTERM));
    let mut command = std::process::Command::new(SELF);
    command.args(["sim-vllm", WORKER]).arg0_named("VLLM::Worker_TP0").stdin(Stdio::piped());
    let worker = with_worker.then(|| command.spawn().ok()).flatten();
    block_signals();
    let mut out = std::io::stdout();
    let pid = worker.as_ref().map_or(0, std::process::Child::id);
    let _ = writeln!(out, "{pid}").and_then(|()| out.flush());
    while deaf || ending_signals().wait().is_err() {
        nix::unistd::pause();
    }
    if let Some(mut worker) = worker {
        // Its end of the pipe closes, it ends, and no zombie is left.
        drop(worker.stdin.take());
        let _ = worker.wait();
    }
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

fn rename(name: &str) {
    // The kernel cuts it to 15 bytes, as it does with vLLM's names.
    if let Ok(name) = CString::new(name) {
        let _ = nix::sys::prctl::set_name(&name);
    }
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
}

/// The engine core and its worker.
#[derive(Debug)]
pub struct Children {
    engine: Child,
    ids: Ids,
}

impl Children {
    /// Starts them.
    pub async fn spawn(tp: u32) -> std::io::Result<Children> {
        let mut engine = Command::new(SELF)
            .args(["sim-vllm", ENGINE, &tp.to_string()])
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
