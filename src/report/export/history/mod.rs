//! Runs over time: what each format says.

mod csv;
mod html;
mod json;
mod text;

pub use csv::Csv;
pub use html::Html;
pub use json::Json;
pub use text::Text;

use crate::analyse::{Past, Trend};
use crate::model::Metric;

/// The runs of a results directory, and trends over them.
#[derive(Debug)]
pub struct History<'a> {
    /// Where they are.
    pub place: String,
    /// The runs, the oldest first.
    pub runs: &'a [Past],
    /// Of which metric trends are.
    pub metric: &'a Metric,
    /// The trends that are shown.
    pub trends: Vec<Trend<'a>>,
    /// Trends that are not shown.
    pub others: usize,
    /// Whether trends are asked for (`--metric`, `--config`): the runs are not listed then, and trends are shown whole.
    pub asked: bool,
}

impl History<'_> {
    /// Runs that take part in no trend, each with the reason.
    fn skipped(&self) -> impl Iterator<Item = (&Past, &str)> {
        self.runs.iter().filter_map(|run| Some((run, run.skipped.as_deref()?)))
    }
}
