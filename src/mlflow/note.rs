//! The small file beside a run that says to which servers it was sent, so that a later call asks the same one for the same experiment.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::record::layout::Layout;
use crate::record::{SCHEMA, atomic};

/// The experiment of MLflow where the user names none.
pub const EXPERIMENT: &str = "vllm-bench";

/// To which servers a run was sent, the last one first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Format version.
    #[serde(default)]
    schema: u32,
    /// The servers.
    #[serde(default)]
    sent: Vec<Sent>,
}

/// A server to which a run was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Its address, without user and password.
    pub uri: String,
    /// The experiment of MLflow.
    pub experiment: String,
    /// Measurements that were there when it was last looked, and all that there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub there: Option<(usize, usize)>,
    /// Where a browser finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl Note {
    /// What is noted; nothing where there is no such file, or none that can be read.
    pub fn of(run: &Path) -> Self {
        atomic::read_json(&Layout::new(run).mlflow(), "note").unwrap_or_default()
    }

    /// The server of the last sending.
    pub fn last(&self) -> Option<&Sent> {
        self.sent.first()
    }

    /// The experiment that this server has it in.
    pub fn experiment(&self, uri: &str) -> Option<&str> {
        Some(self.sent.iter().find(|sent| sent.uri == uri)?.experiment.as_str())
    }

    /// Puts a server first, and writes the file where it changes. A run that cannot be written to has none.
    pub fn keep(&mut self, run: &Path, sent: Sent) {
        if self.sent.first() == Some(&sent) {
            return;
        }
        self.schema = SCHEMA;
        self.sent.retain(|known| (&known.uri, &known.experiment) != (&sent.uri, &sent.experiment));
        self.sent.insert(0, sent);
        if let Err(error) = atomic::write_json(&Layout::new(run).mlflow(), self) {
            tracing::debug!(%error, "where the run was sent is not noted");
        }
    }
}
