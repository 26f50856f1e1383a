//! What answers are written as: one small file per format behind one trait ([`Exporter`]), and the tables of all formats. A new
//! format is a file with its `impl Exporter`, and a row in a table here: `--format`, its help and its completion follow.

mod analysis;
mod batch_sizes;
mod cells;
mod compare;
mod csv;
mod datatrove;
mod history;
mod html;
mod json;
mod markdown;
mod plot;
mod raw_results;
mod recommend;
mod results_summary;
mod sink;
mod summary;
mod text;

pub use analysis::Analysis;
pub(super) use cells::status;
pub use compare::{Compared, Difference, differences};
pub use datatrove::DatatroveTree;
pub use history::History;
pub use html::Html;
pub use plot::{Drawing, Png, Svg};
pub use sink::{ExportError, Sink, in_memory, whole_file};
pub use text::Text;

use crate::record::layout;

/// A format of answers of the kind `A`.
pub trait Exporter<A: ?Sized>: Sync {
    /// What is said of it.
    fn format(&self) -> Format;
    /// Writes the one file; of several, what a screen shows, and then each into the directory of the sink, if it has one.
    ///
    /// # Errors
    /// When the writer or the disk refuses, or the answer does not hold what the format needs.
    fn write(&self, answer: &A, out: &mut Sink<'_>) -> Result<(), ExportError>;
}

/// What is said of a format.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// Its name in `--format`.
    pub name: &'static str,
    /// What it is for, in a few words of help.
    pub about: &'static str,
    /// Its files.
    pub files: Files,
    /// Flags that have no effect with it, and are refused.
    pub ignores: &'static [&'static str],
    /// Whether it shows what only the servers' logs say.
    pub needs_server_logs: bool,
}

impl Format {
    /// One file.
    const fn one(name: &'static str, about: &'static str, ending: &'static str) -> Self {
        Self { name, about, files: Files::One(ending), ignores: &[], needs_server_logs: false }
    }

    /// The ending of its file; empty where it is several.
    pub fn ending(&self) -> &'static str {
        match self.files {
            Files::One(ending) => ending,
            Files::Several => "",
        }
    }

    /// Several files in a directory.
    const fn several(name: &'static str, about: &'static str) -> Self {
        Self { files: Files::Several, ..Self::one(name, about, "") }
    }
}

/// The files of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// One, with this ending.
    One(&'static str),
    /// Several.
    Several,
}

/// A format of an analysis or a recommendation.
pub type AnalysisExporter = dyn for<'a> Exporter<Analysis<'a>>;
/// A format of a comparison.
pub type ComparisonExporter = dyn for<'a> Exporter<Compared<'a>>;
/// A format of runs over time.
pub type HistoryExporter = dyn for<'a> Exporter<History<'a>>;
/// A format of a plot.
pub type PlotExporter = dyn for<'a> Exporter<Drawing<'a>>;

/// What `analyze` writes; the first is the default.
pub static ANALYZE: [&AnalysisExporter; 7] =
    [&Text, &markdown::Markdown, &csv::Csv, &json::Json, &Html, &datatrove::Datatrove, &batch_sizes::BatchSizes];
/// What `recommend` writes.
pub static RECOMMEND: [&AnalysisExporter; 2] = [&recommend::Text, &recommend::Json];
/// What `compare` writes.
pub static COMPARE: [&ComparisonExporter; 3] = [&compare::Text, &compare::Markdown, &compare::Json];
/// What `history` writes.
pub static HISTORY: [&HistoryExporter; 4] = [&history::Text, &history::Json, &history::Csv, &history::Html];
/// What `plot` writes.
pub static PLOT: [&PlotExporter; 2] = [&Svg, &Png];
/// What stands beside every run, by name.
pub(super) static BESIDE: [(&str, &AnalysisExporter); 3] = [
    (layout::SUMMARY_CSV, &results_summary::ResultsSummary),
    (layout::RAW_RESULTS, &raw_results::RawResults),
    (layout::SUMMARY, &summary::Summary),
];
