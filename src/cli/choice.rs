//! Flags that several commands share: what is chosen by, against what, what devices cost, and whether JSON is printed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// By what a configuration is chosen.
#[derive(Debug, Default, Args)]
pub struct ChoiceArgs {
    /// Limits that must be kept: 'ttft.p99<500,tpot.mean<50' (milliseconds)
    #[arg(long, value_name = "LIMITS")]
    pub slo: Vec<String>,
    /// The metric by which configurations are chosen (default: that of the run, else output_throughput, per device)
    #[arg(long, value_name = "KEY", alias = "rank-by")]
    pub objective: Option<String>,
    /// Choose by the throughput of the whole server, not per device
    #[arg(long)]
    pub total: bool,
    /// Differences below this do not matter: a simpler configuration within it may be chosen (default 2%)
    #[arg(long, value_name = "PERCENT")]
    pub margin: Option<String>,
    /// Share of server starts that may fail without excluding a configuration (default 0%)
    #[arg(long, value_name = "PERCENT")]
    pub max_failure_rate: Option<String>,
    /// The latency beside it (default mean_ttft_ms)
    #[arg(long, value_name = "KEY")]
    pub latency: Option<String>,
}

impl ChoiceArgs {
    /// Each flag, and whether it is given.
    pub fn given(&self) -> [(&'static str, bool); 6] {
        [
            ("--objective", self.objective.is_some()),
            ("--slo", !self.slo.is_empty()),
            ("--total", self.total),
            ("--margin", self.margin.is_some()),
            ("--max-failure-rate", self.max_failure_rate.is_some()),
            ("--latency", self.latency.is_some()),
        ]
    }
}

/// What others are compared with.
#[derive(Debug, Default, Args)]
pub struct BaselineArgs {
    /// What others are compared with: settings, or name=EXPERIMENT (default: the sweep's baseline, else the plainest)
    #[arg(long, value_name = "KEY=VALUE")]
    pub baseline: Vec<String>,
}

/// What is assumed beside the measurements.
#[derive(Debug, Default, Args)]
pub struct CostArgs {
    /// Prices of devices per hour: a YAML, JSON or TOML file
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// Devices in a node (default 8)
    #[arg(long, value_name = "N")]
    pub devices_per_node: Option<String>,
}

/// Whether a command prints for people or for programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum TextOrJson {
    /// For the terminal.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The two spellings of JSON.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Format (default text)
    #[arg(long, value_name = "FORMAT")]
    format: Option<TextOrJson>,
}

impl JsonArgs {
    /// Whether JSON is wanted.
    pub fn is_json(self) -> bool {
        self.json || self.format == Some(TextOrJson::Json)
    }
}
