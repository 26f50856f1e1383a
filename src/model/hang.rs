//! What stands still when nothing moves any more, as far as it could be seen from outside.

use serde::{Deserialize, Serialize};

use super::ProcessId;

/// Who stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// An engine or worker process of the server (`VLLM::EngineCore`, `VLLM::Worker…`).
    Engine,
    /// The server's first process, which answers requests.
    ApiServer,
    /// The benchmark client.
    Client,
    /// Nobody for himself: the client waits for answers to requests that the server does not have.
    Requests,
}

/// What it does instead of moving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standstill {
    /// Stopped by a signal (SIGSTOP, SIGTSTP), by a debugger, or with its cgroup.
    Stopped,
    /// It waits in the kernel and cannot be interrupted: for a device, a disk, a network file system.
    InKernel,
    /// It waits for something that does not come: a lock, another process, a message.
    Waits,
    /// It computes, and nothing comes of it.
    Busy,
}

impl Party {
    /// The stable word, as serialised.
    pub const fn word(self) -> &'static str {
        match self {
            Party::Engine => "engine",
            Party::ApiServer => "api-server",
            Party::Client => "client",
            Party::Requests => "requests",
        }
    }
}

impl Standstill {
    /// The stable word, as serialised.
    pub const fn word(self) -> &'static str {
        match self {
            Standstill::Stopped => "stopped",
            Standstill::InKernel => "in-kernel",
            Standstill::Waits => "waits",
            Standstill::Busy => "busy",
        }
    }
}

/// Who stood still in an attempt that was ended because nothing moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hang {
    /// Who.
    pub who: Party,
    /// What it does instead.
    pub does: Standstill,
    /// Without a movement for so long, seconds.
    pub seconds: u64,
    /// The process that shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// Where in the kernel it waits (`futex_do_wait`), where that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_in: Option<String>,
    /// Whether `/health` was answered at the end.
    pub health_answers: bool,
}
