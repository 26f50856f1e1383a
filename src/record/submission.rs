//! What a run asked a cluster for: which experiments each task of an array job measures; and that its jobs are to end.

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::{Error, SCHEMA, atomic};

/// One array job of a run, as its tasks find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Submission {
    /// Format version.
    pub schema: u32,
    /// Its number within the run, from 1.
    pub number: u32,
    /// Nodes of each task.
    pub nodes: u32,
    /// GPUs of each node.
    pub gpus_per_node: u32,
    /// What each index of the array measures.
    pub tasks: Vec<TaskPlan>,
}

/// What a task measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPlan {
    /// Names of experiments, in running order, each with the number of its next attempt.
    pub experiments: Vec<(String, u32)>,
}

impl Submission {
    /// Reads the n-th of a run.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(layout: &Layout, number: u32) -> Result<Self, Error> {
        let path = layout.submission(number);
        let read: Self = atomic::read_json(&path, "submission of a run")?;
        if read.schema > SCHEMA { Err(Error::Newer { path, found: read.schema, known: SCHEMA }) } else { Ok(read) }
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep(&self, layout: &Layout) -> Result<(), Error> {
        atomic::keep_json(&layout.submission(self.number), self)
    }
}

/// How the jobs of a run are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopMode {
    /// What waits is cancelled, what is measured is measured to its end.
    AfterCurrent,
    /// What waits is cancelled, what runs ends in order.
    InOrder,
    /// All is cancelled.
    Now,
}

/// That the jobs of a run are to end: read by its front, by tasks before they measure, and removed when the run is resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// How.
    pub mode: StopMode,
    /// Who asked: a process of which machine.
    pub by: String,
}

impl StopRequest {
    /// What is asked of a run; `None` where nothing is.
    pub fn read(layout: &Layout) -> Option<Self> {
        atomic::read_json(&layout.stop_request(), "request to stop").ok()
    }

    /// Asks it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep(&self, layout: &Layout) -> Result<(), Error> {
        atomic::keep_json(&layout.stop_request(), self)
    }

    /// Takes it back.
    pub fn forget(layout: &Layout) {
        let _ = std::fs::remove_file(layout.stop_request());
    }
}
