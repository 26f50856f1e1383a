//! `vllm-bench`: find, on real hardware, the fastest way to serve a model with vLLM.
//!
//! The way of the data; imports go one way too, and nothing imports upward:
//!
//! ```text
//! config ──> plan ──> search ──> execute ──> record ──> results ──> analyse ──> report
//!                        └───── campaign ─────┘
//! ```
//!
//! The nouns are in [`model`]. Helpers that know nothing of sweeps: [`safe`], [`process`], [`diagnose`], [`telemetry`], [`sim`].
//! Edges: [`cli`] (clap types only), [`commands`] (one file per subcommand), [`ui`] (the only code that prints).
//! `ARCHITECTURE.md` is the map for whoever comes next.

pub mod analyse;
pub mod bounded;
pub mod campaign;
pub mod cli;
pub mod commands;
pub mod config;
pub mod contained;
pub mod dashboard;
pub mod diagnose;
pub mod error;
pub mod execute;
pub mod exit;
pub mod fold;
pub mod http;
pub mod load;
pub mod mlflow;
pub mod model;
pub mod nearest;
pub mod notify;
pub mod observe;
pub mod plan;
pub mod preflight;
pub mod process;
pub mod record;
pub mod releases;
pub mod report;
pub mod results;
pub mod safe;
pub mod search;
pub mod sim;
pub mod stats;
pub mod telemetry;
pub mod ui;
pub mod words;
