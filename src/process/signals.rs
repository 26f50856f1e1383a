//! Signals that this program listens to. One that was ignored when it began (`nohup`, a job in the background of a script)
//! stays ignored: whoever started it has decided so.

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

use super::procfs;
use crate::model::ProcessId;

/// A stream of signals that never ends.
#[derive(Debug)]
pub struct Signals(Option<unix::Signal>);

impl Signals {
    /// Listens to a signal, unless it is ignored. To be asked before anything else listens to it.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn of(signal: Signal) -> std::io::Result<Self> {
        if procfs::ignores(ProcessId::current().pid, signal) {
            return Ok(Self(None));
        }
        unix::signal(SignalKind::from_raw(signal as i32)).map(|stream| Self(Some(stream)))
    }

    /// Waits for the next one; for ever where the signal is ignored. Cancel safe.
    pub async fn next(&mut self) {
        let came = match &mut self.0 {
            Some(stream) => stream.recv().await.is_some(),
            None => false,
        };
        if !came {
            std::future::pending::<()>().await;
        }
    }
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) an error that can be told: the kernel's signal would end this
/// process without a word. It is caught, not ignored: what is started gets the default back. To be called before there is a
/// second thread; the handler outlives its runtime.
pub fn survive_file_size_limit() {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() {
        let _inside = runtime.enter();
        let _ = Signals::of(Signal::SIGXFSZ);
    }
}

/// Waits for Ctrl-C; for ever where SIGINT is ignored, or cannot be listened to.
pub async fn interrupted() {
    match Signals::of(Signal::SIGINT) {
        Ok(mut signals) => signals.next().await,
        Err(_) => std::future::pending().await,
    }
}
