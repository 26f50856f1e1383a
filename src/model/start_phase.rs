//! What a server does between launch and readiness.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a server does between launch and readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartPhase {
    /// The script runs; vLLM has said nothing yet.
    Launching,
    /// Python imports vLLM and torch, and finds the platform.
    Importing,
    /// Flags are read, the model's configuration is resolved, engine processes start.
    Configuring,
    /// Weights come from the hub.
    Downloading,
    /// Weights go to the device.
    Loading,
    /// Memory is measured and the KV cache laid out.
    Profiling,
    /// torch.compile works.
    Compiling,
    /// Graphs are captured.
    Capturing,
    /// The engine is ready; the API comes up.
    StartingApi,
    /// The API says that it is up.
    Ready,
}

impl StartPhase {
    /// The stable word, as serialised.
    pub const fn word(self) -> &'static str {
        match self {
            StartPhase::Launching => "launching",
            StartPhase::Importing => "importing",
            StartPhase::Configuring => "configuring",
            StartPhase::Downloading => "downloading",
            StartPhase::Loading => "loading",
            StartPhase::Profiling => "profiling",
            StartPhase::Compiling => "compiling",
            StartPhase::Capturing => "capturing",
            StartPhase::StartingApi => "starting-api",
            StartPhase::Ready => "ready",
        }
    }

    /// A few words for a progress line.
    pub const fn label(self) -> &'static str {
        match self {
            StartPhase::Launching => "launching",
            StartPhase::Importing => "importing vLLM",
            StartPhase::Configuring => "reading the model's configuration",
            StartPhase::Downloading => "downloading weights",
            StartPhase::Loading => "loading weights",
            StartPhase::Profiling => "profiling memory",
            StartPhase::Compiling => "compiling",
            StartPhase::Capturing => "capturing graphs",
            StartPhase::StartingApi => "starting the API",
            StartPhase::Ready => "ready",
        }
    }

    /// Phases of one stage may alternate: weights are fetched and loaded in turns, and whether vLLM compiles before or
    /// after it measures memory differs by backend. Between stages there is no way back.
    pub(crate) const fn stage(self) -> u8 {
        match self {
            StartPhase::Launching => 0,
            StartPhase::Importing => 1,
            StartPhase::Configuring => 2,
            StartPhase::Downloading | StartPhase::Loading => 3,
            StartPhase::Profiling | StartPhase::Compiling => 4,
            StartPhase::Capturing => 5,
            StartPhase::StartingApi => 6,
            StartPhase::Ready => 7,
        }
    }
}

impl fmt::Display for StartPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
