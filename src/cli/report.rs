//! Flags of `report`.

use std::path::PathBuf;

use clap::Args;

use super::choice::{BaselineArgs, ChoiceArgs};

/// Flags of `report`.
#[derive(Debug, Args)]
#[command(mut_arg("slo", |arg| {
    arg.help("Limits that the recommendation must keep: 'ttft.p99<500,tpot.mean<50' (milliseconds)")
}))]
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
    /// By what.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Against what.
    #[command(flatten)]
    pub against: BaselineArgs,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
}
