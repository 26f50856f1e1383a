//! Runs in MLflow: a run for each sweep, one below it for each experiment. See docs/mlflow.md.
//!
//! The files of a run are the spool: what was measured is on disk before anything is sent, and each pass reads them, looks for what the
//! server has, and sends the rest. So a server that is away, slow or dead costs a run nothing, and any later call sends what is missing.

mod client;
mod files;
mod limits;
mod live;
mod note;
mod outline;
mod send;
mod series;
mod server;
mod source;

pub use client::Failure;
pub use live::{Ended, FAREWELL, Live};
pub use note::{EXPERIMENT, Note};
pub use send::Tally;
pub use server::{Choice, EXPECTED, FROM_ENVIRONMENT, Place, Server, URI_VARIABLE};
pub use source::Source;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::record::Lock;
use note::Sent;

/// In 64 hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How often a lock that another sender holds is tried, and how long one waits between: a pass of a large run takes minutes.
const TURNS: u32 = 600;
const BETWEEN: Duration = Duration::from_secs(1);

/// Sends one source to one server.
#[derive(Debug)]
pub struct Export {
    source: Source,
    sender: send::Sender,
}

impl Export {
    /// Of this source. Its experiment there is what the user names, else the one in which the server has it, else [`EXPERIMENT`].
    ///
    /// # Errors
    /// In words, where the server's certificates cannot be read.
    pub fn new(source: Source, server: Server) -> Result<Self, String> {
        let noted = source.run().and_then(|run| Note::of(run.path()).experiment(&server.place.base).map(str::to_owned));
        let experiment = server.experiment.clone().or(noted).unwrap_or_else(|| EXPERIMENT.to_owned());
        Ok(Self { source, sender: send::Sender::new(client::Client::new(server)?, experiment) })
    }

    /// The experiment's name there.
    pub fn experiment(&self) -> &str {
        self.sender.experiment()
    }

    /// Where it goes, in words.
    pub fn place(&self) -> String {
        format!("{} (experiment `{}`)", self.sender.client.server().place.base, self.experiment())
    }

    /// Whether the server answers, as far as is known at any moment.
    fn answers(&self) -> Arc<client::Answers> {
        self.sender.client.answers()
    }

    /// How many measurements the pass under way has seen to.
    pub fn progress(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.sender.progress)
    }

    /// From now on all must be over by then.
    pub fn end_by(&mut self, deadline: Option<Instant>) {
        self.sender.client.end_by(deadline);
    }

    /// What is there, without sending anything.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub async fn look(&mut self) -> Result<Tally, Trouble> {
        let taken = self.source.take()?;
        Ok(self.sender.look(&taken.outline).await?)
    }

    /// Sends what is missing. `None` where another process of ours sends the same run now; `patient`: that one is waited for.
    ///
    /// # Errors
    /// Why it went no further; what was sent is there.
    pub async fn pass(&mut self, patient: bool) -> Result<Option<Tally>, Trouble> {
        let Some(_lock) = self.turn(patient).await else { return Ok(None) };
        if patient {
            self.sender.forget();
        }
        let taken = self.source.take()?;
        let root = self.source.root().to_owned();
        self.note(None);
        let over = !taken.table.facts.live && self.source.run().is_some();
        let reports = over.then(|| files::of_sweep(&taken.table, &root));
        let tally = self.sender.pass(&taken.outline, &root, reports.as_deref()).await?;
        self.note(Some(&tally));
        Ok(Some(tally))
    }

    /// The lock of who sends; `None` where another one has it. Where there can be no lock, nobody else is expected.
    async fn turn(&self, patient: bool) -> Option<Option<Lock>> {
        let Some(run) = self.source.run() else { return Some(None) };
        let path = run.layout().mlflow_lock();
        for _ in 0..if patient { TURNS } else { 1 } {
            match Lock::take(&path) {
                Ok(Ok(lock)) => return Some(Some(lock)),
                Ok(Err(_)) => {}
                Err(_) => return Some(None),
            }
            tokio::time::sleep(if patient { BETWEEN } else { Duration::ZERO }).await;
        }
        None
    }

    /// Notes beside the run where it is sent.
    fn note(&self, tally: Option<&Tally>) {
        let Some(run) = self.source.run() else { return };
        let mut note = Note::of(run.path());
        let (uri, experiment) = (self.sender.client.server().place.base.clone(), self.experiment().to_owned());
        let known = note.last().filter(|last| last.uri == uri && last.experiment == experiment).cloned();
        let mut sent = known.unwrap_or(Sent { uri, experiment, there: None, link: None });
        if let Some(tally) = tally {
            (sent.there, sent.link) = (Some((tally.all - tally.missing(), tally.all)), tally.link.clone());
        }
        note.keep(run.path(), sent);
    }
}

/// Why nothing more was sent.
#[derive(Debug)]
pub enum Trouble {
    /// The run cannot be read.
    Files(crate::record::Error),
    /// The server.
    Server(Failure),
}

impl From<crate::record::Error> for Trouble {
    fn from(error: crate::record::Error) -> Self {
        Self::Files(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Server(failure)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files(error) => error.fmt(f),
            Self::Server(failure) => failure.fmt(f),
        }
    }
}
