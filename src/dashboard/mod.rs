//! The dashboard: the runs of a results directory as one page in a browser, and as `/metrics` for Prometheus.
//!
//! It only reads, and it computes no number of its own: what it sends is what `status --json` and `recommend --format json` say
//! ([`Source`]), fed from the journal. It has a thread of its own with a low priority: a run beside it neither waits for it nor ends
//! with it. Whoever asks must show the token ([`access`]); whatever comes from outside (names, log lines) is sent as data, and put into
//! the page as text.

mod access;
mod load;
mod metrics;
mod pages;
mod push;
mod routes;
mod source;
mod stream;
mod token;
mod watch;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use load::LoadSource;
pub use metrics::{Counted, LoadNow, classic, of_change, of_load};
pub use push::{Gateway, Labels, Pusher, push_once};
pub use source::{
    Answer, Change, Counts, Facts, FailureRow, Look, Numbers, Row, Run, Seen, SeenDevice, Source, State, StopMode,
    UnderWay,
};
pub use token::{Token, TokenError};

use access::Access;
use watch::Hub;

/// The port where nobody names one.
pub const PORT: u16 = 8765;
/// Threads that read files, at most.
const READERS: usize = 4;
/// How long the end of a run waits until those who watch have seen it.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a dashboard is served.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether `POST /stop` is heard.
    pub control: bool,
    /// Whether `/metrics` needs no token.
    pub metrics_open: bool,
    /// Names in the `Host` header beside addresses, `localhost` and this machine's name.
    pub hosts: Vec<String>,
}

/// Who may ask what.
struct Gate {
    access: Access,
    options: Options,
}

/// Those who watch what goes on beside a dashboard.
#[derive(Default)]
struct Watchers {
    /// Open streams of events; of a load, 1 from the first question to the first answer after the end.
    streams: AtomicUsize,
    /// What goes on beside it is over: streams say so and end.
    over: AtomicBool,
}

/// What the handlers of a page of runs share.
pub(crate) struct App {
    source: Arc<dyn Source>,
    hub: Hub,
    gate: Arc<Gate>,
    watchers: Arc<Watchers>,
}

/// A run as text, for who pushes it: what `/metrics` says of it.
pub struct RunText {
    source: Arc<dyn Source>,
    hub: Hub,
    path: String,
}

impl RunText {
    /// The run of this path.
    pub fn new(source: Arc<dyn Source>, path: String) -> Self {
        Self { source, hub: Hub::default(), path }
    }

    /// How it stands now, as OpenMetrics text; `None` while it cannot be read. `anew`: also where that was looked at a moment ago.
    pub fn text(&self, anew: bool) -> Option<String> {
        let watched = self.hub.run(&*self.source, &self.path)?;
        if anew {
            watched.look_again();
        }
        let (_, answer) = watched.answer(&*self.source, &self.path);
        watched.with(|look, entries| metrics::text(look, entries, &answer)).ok()
    }
}

/// A dashboard that is being served, until it is dropped.
pub struct Server {
    watchers: Arc<Watchers>,
    address: SocketAddr,
    token: Token,
    end: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Server {
    /// Serves runs on this listener, on a thread of its own.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn start(listener: TcpListener, token: Token, options: Options, source: Arc<dyn Source>) -> io::Result<Self> {
        Self::serve(listener, token, options, |gate, watchers| {
            routes::router(Arc::new(App { source, hub: Hub::default(), gate, watchers }))
        })
    }

    /// Serves a load in the same way.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn start_load(
        listener: TcpListener,
        token: Token,
        options: Options,
        source: Arc<dyn LoadSource>,
    ) -> io::Result<Self> {
        Self::serve(listener, token, options, |gate, watchers| load::router(source, gate, watchers))
    }

    fn serve(
        listener: TcpListener,
        token: Token,
        options: Options,
        router: impl FnOnce(Arc<Gate>, Arc<Watchers>) -> axum::Router,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let access = Access::new(&token, address, &options);
        let watchers = Arc::new(Watchers::default());
        let router = router(Arc::new(Gate { access, options }), Arc::clone(&watchers));
        let (end, ended) = tokio::sync::oneshot::channel();
        let (tell, told) = mpsc::channel();
        std::thread::Builder::new().name("dashboard".to_owned()).spawn(move || {
            give_way();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(READERS)
                .on_thread_start(give_way)
                .build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            runtime.block_on(async move {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let _ = tell.send(Ok(()));
                        tokio::select! {
                            _ = axum::serve(listener, router) => {}
                            _ = ended => {}
                        }
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
            runtime.shutdown_background();
        })?;
        told.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))?;
        Ok(Self { watchers, address, token, end: Some(end) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is opened in a browser, without the token.
    pub fn place(&self) -> String {
        let host = match self.address {
            SocketAddr::V4(at) if at.ip().is_unspecified() => "127.0.0.1".to_owned(),
            SocketAddr::V6(at) if at.ip().is_unspecified() => "[::1]".to_owned(),
            SocketAddr::V4(at) => at.ip().to_string(),
            SocketAddr::V6(at) => format!("[{}]", at.ip()),
        };
        format!("http://{host}:{}/", self.address.port())
    }

    /// The same with the token: whoever has it sees the runs.
    pub fn link(&self) -> String {
        format!("{}?token={}", self.place(), self.token.text())
    }

    /// The file that has the token.
    pub fn token_file(&self) -> &std::path::Path {
        self.token.path()
    }

    /// Lets those who watch see the end of a run; nobody is waited for where nobody watches.
    pub fn farewell(&self) {
        self.watchers.over.store(true, Ordering::Relaxed);
        let until = Instant::now() + FAREWELL;
        while self.watchers.streams.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Lets what is measured go first.
fn give_way() {
    // Where it may not, it serves all the same.
    let _ = rustix::process::nice(10);
}
