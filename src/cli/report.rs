//! Flags of `report`.

use std::path::PathBuf;

use clap::Args;

use super::ops::BaselineArgs;

/// Flags of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The runs to show as one (default: the newest)
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Where to write the page, `-` for standard output (default: report.html in the run directory)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Title of the page (default: the name of the run)
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Limits that the recommendation must keep: 'ttft.p99<500,tpot.mean<50' (milliseconds)
    #[arg(long, value_name = "LIMITS")]
    pub slo: Vec<String>,
    /// The figure that matters, as vLLM names it (default output_throughput, per device)
    #[arg(long, value_name = "KEY")]
    pub rank_by: Option<String>,
    /// Rank by the whole throughput, not per device
    #[arg(long)]
    pub total: bool,
    /// The latency beside it (default mean_ttft_ms)
    #[arg(long, value_name = "KEY")]
    pub latency: Option<String>,
    /// Against what.
    #[command(flatten)]
    pub against: BaselineArgs,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
}
