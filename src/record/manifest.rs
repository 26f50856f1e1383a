//! `manifest.json`: what a run was asked to do, by whom, with what, on which machine.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Engine, Plan};
use crate::telemetry::{DeviceReport, HostInfo};

/// One resolved setting and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The value that was used; secrets are never here.
    pub value: Value,
    /// `flag --tp`, `environment VLLM_BENCH_TP`, `preset full`.
    pub origin: String,
}

/// Time limits, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// From launch to ready.
    pub startup: f64,
    /// The same for a start that makes progress. Absent in manifests of before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_most: Option<f64>,
    /// The benchmark client, from launch to exit.
    pub benchmark: f64,
    /// The benchmark where nothing moves; 0 = no limit. Absent in manifests of before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<f64>,
    /// From SIGTERM to SIGKILL.
    pub grace: f64,
}

/// The vLLM that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VllmInfo {
    /// The program the scripts name, absolute.
    pub path: PathBuf,
    /// As `vllm --version` or the server's log says; `None` while unknown.
    pub version: Option<String>,
}

/// What a run was asked to do, and on what. Written before the first start, and again where a resume changes how it is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    /// Format version.
    pub schema: u32,
    /// Version of vllm-bench.
    pub vllm_bench: String,
    /// True for `--engine sim`: no metric of this run was measured on a real server.
    pub simulated: bool,
    /// Name of the run directory.
    pub run: String,
    /// The name that the user gave it (`--name`), unique in its results directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When, in the run's time zone (RFC 3339 with offset).
    pub created: String,
    /// Name of the run's time zone.
    pub timezone: String,
    /// The arguments of vllm-bench, secrets redacted.
    pub command_line: Vec<String>,
    /// The directory in which it was called.
    pub working_directory: PathBuf,
    /// The server backend.
    pub engine: Engine,
    /// Which vLLM; `None` for the simulated one.
    pub vllm: Option<VllmInfo>,
    /// Every setting with its origin.
    pub settings: IndexMap<String, Setting>,
    /// The same as the program reads it back when the run goes on; secrets are not in it. Null where an earlier version made it.
    #[serde(default)]
    pub sweep: Value,
    /// Time limits.
    pub limits: Limits,
    /// The machine.
    pub host: HostInfo,
    /// Its devices.
    pub devices: DeviceReport,
    /// The experiments.
    pub plan: Plan,
}
