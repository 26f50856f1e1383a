//! Sending beside a run: a thread of its own that reads what is on disk now and then. The run never waits for it, but for a bounded time
//! at its very end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::client::Answers;
use super::{Export, Server, Source, Tally};
use crate::record::RunDir;

/// How often it is looked whether there is something new.
const LOOK: Duration = Duration::from_secs(2);
/// Of its time, reading and sending takes no more than this part.
const SHARE: u32 = 20;
/// How long nothing is tried after a failure; twice as long after each further one.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the end of a run waits until all is sent, where the server answers.
pub const FAREWELL: Duration = Duration::from_secs(30);
/// The same where it has not answered until then.
const SILENT: Duration = Duration::from_secs(1);

/// A run that is being sent.
#[derive(Debug)]
pub struct Live {
    over: Arc<Over>,
    /// The server answers, as far as is known.
    answers: Arc<Answers>,
    last: Receiver<Result<Option<Tally>, String>>,
    place: String,
}

/// How the sending of a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// All of it was gone through.
    Through(Tally),
    /// It went no further, or not in time; in words.
    Cut(String),
}

impl Live {
    /// Begins to send a run.
    ///
    /// # Errors
    /// When there is no thread for it, or the server's certificates cannot be read.
    pub fn start(run: RunDir, server: Server) -> io::Result<Self> {
        let export = Export::new(Source::Run(run.clone()), server).map_err(io::Error::other)?;
        let place = export.place();
        let answers = export.answers();
        let over = Arc::new(Over::default());
        let (tell, last) = channel();
        let told = Arc::clone(&over);
        std::thread::Builder::new().name("mlflow".to_owned()).spawn(move || {
            // What is measured goes first.
            let _ = rustix::process::nice(10);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = match runtime {
                Ok(runtime) => runtime.block_on(follow(&run, export, &told)),
                Err(error) => Err(error.to_string()),
            };
            // Nobody listens where the run did not wait.
            let _ = tell.send(outcome);
        })?;
        Ok(Self { over, answers, last, place })
    }

    /// Where it goes, in words.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The run is over: what is missing is sent, for a bounded time, and no longer than until `enough` says so.
    pub fn farewell(self, enough: impl Fn() -> bool) -> Ended {
        self.over.is.store(true, Ordering::Relaxed);
        self.over.wake.notify_one();
        let began = Instant::now();
        loop {
            match self.last.recv_timeout(Duration::from_millis(20)) {
                Ok(Ok(Some(tally))) => return Ended::Through(tally),
                Ok(Ok(None)) => return Ended::Cut("another process sends this run now".to_owned()),
                Ok(Err(why)) => return Ended::Cut(why),
                Err(RecvTimeoutError::Disconnected) => return Ended::Cut("its thread ended".to_owned()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let answers = self.answers.does();
            let limit = if answers { FAREWELL } else { SILENT };
            if began.elapsed() >= limit {
                let seconds = limit.as_secs();
                return Ended::Cut(if answers {
                    format!("not all of it was there after {seconds} s")
                } else {
                    let why = self.answers.why();
                    if why.is_empty() { "it does not answer".to_owned() } else { format!("it does not answer: {why}") }
                });
            }
            if enough() {
                return Ended::Cut("it was ended early".to_owned());
            }
        }
    }
}

/// How large the journals of a run are: what grows says that there is something new.
fn size(run: &RunDir) -> u64 {
    let layout = run.layout();
    let of = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let shards = std::fs::read_dir(layout.shards()).into_iter().flatten().flatten();
    shards.map(|shard| of(&shard.path())).sum::<u64>() + of(&layout.journal())
}

/// That the run is over.
#[derive(Debug, Default)]
struct Over {
    is: AtomicBool,
    wake: Notify,
}

/// Sends what is new until the run is over, and then once more.
async fn follow(run: &RunDir, mut export: Export, over: &Over) -> Result<Option<Tally>, String> {
    let mut seen = None;
    let mut pause = PAUSE;
    let mut next = Instant::now();
    loop {
        if over.is.load(Ordering::Relaxed) {
            export.end_by(Some(Instant::now() + FAREWELL));
            return export.pass(false).await.map_err(|trouble| trouble.to_string());
        }
        let now = size(run);
        if seen != Some(now) && Instant::now() >= next {
            let began = Instant::now();
            match export.pass(false).await {
                Ok(_) => {
                    (seen, pause) = (Some(now), PAUSE);
                    next = Instant::now() + began.elapsed() * SHARE;
                }
                Err(trouble) => {
                    tracing::info!(%trouble, "mlflow: tried again later");
                    next = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = over.wake.notified() => {}
        }
    }
}
