//! Flags of `plot`.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::choice::{BaselineArgs, ChoiceArgs};
use super::format::PlotFormat;
use crate::report::plot::Kind;

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlotKind {
    /// One kind.
    One(Kind),
    /// Every kind that the data allow.
    All,
    /// Nothing: the kinds are listed.
    List,
}

impl ValueEnum for PlotKind {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<PlotKind>> =
            LazyLock::new(|| Kind::ALL.map(PlotKind::One).into_iter().chain([PlotKind::All, PlotKind::List]).collect());
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, about) = match self {
            Self::One(kind) => (kind.name(), kind.about()),
            Self::All => ("all", "every kind that the data allow, into a folder"),
            Self::List => ("list", "say what there is"),
        };
        Some(PossibleValue::new(name).help(about))
    }
}

/// What stands for several configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlotOver {
    /// The best of them.
    Best,
    /// Their mean.
    Mean,
}

/// Flags of `plot`.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// What to draw
    #[arg(value_name = "KIND")]
    pub kind: PlotKind,
    /// The runs to draw from (default: the newest)
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Where to write: a file, a folder, or `-` for SVG on standard output (default: `plots/` in the run)
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: Option<PathBuf>,
    /// Format (default: as the name of the file says, else png)
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<PlotFormat>,
    /// What goes from left to right: a setting (max-concurrency) or a latency (pareto)
    #[arg(long, value_name = "KEY")]
    pub x: Option<String>,
    /// The metric shown (output_throughput, ttft …); of a heat map the setting from top to bottom
    #[arg(long, value_name = "KEY")]
    pub y: Option<String>,
    /// The metric that colours or bars show (heatmap, interaction, ranking)
    #[arg(long, value_name = "KEY")]
    pub metric: Option<String>,
    /// Settings that make series (default: all that differ)
    #[arg(long, value_name = "KEY")]
    pub by: Vec<String>,
    /// Only measurements with this setting; several must all hold
    #[arg(long = "where", value_name = "KEY=VALUE")]
    pub only: Vec<String>,
    /// By what the recommended one is chosen (pareto, ranking).
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Against what.
    #[command(flatten)]
    pub against: BaselineArgs,
    /// One plot per measurement (CDFs, histogram, over-time)
    #[arg(long)]
    pub each: bool,
    /// What a cell of a heat map shows of several configurations (default best)
    #[arg(long, value_name = "WHICH")]
    pub over: Option<PlotOver>,
    /// Width in pixels of 1/96 inch
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<String>,
    /// Height in pixels of 1/96 inch
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<String>,
    /// Dots per inch of a PNG (default 192)
    #[arg(long, value_name = "DPI")]
    pub dpi: Option<String>,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
}
