//! Rows in, bytes out: what a run looks like as text, CSV and JSON.
//!
//! The same run directory gives the same bytes: no clock, no absolute path, nothing read back that was written here.

mod answer;
mod columns;
mod display;
pub mod export;
mod front;
mod html;
mod page;
pub mod plot;
mod refusal;
mod text;
mod trend;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};

pub use display::{clean, configuration, label};
pub use html::STYLE;
pub use page::Style;
pub use refusal::Refusal;
pub use text::{END_LINES, Ended, end, on_screen, render};

use crate::analyse::Origin;
use crate::record::{atomic, layout};
use export::{Analysis, AnalysisExporter, ExportError};

/// A table of numbers for a person, without colour: one heading for each column.
pub fn table(headings: &[&'static str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let columns: Vec<columns::Column> = headings.iter().map(|heading| columns::Column::metrics(*heading)).collect();
    let mut page = page::Page::new(Style::PLAIN);
    columns::put(&mut page, &columns, rows.map(|cells| (page::Tone::Plain, cells)).collect());
    page.finish()
}

/// A table of words for a person, which follows the width of its terminal.
pub fn words_table(headings: &[&'static str], rows: impl Iterator<Item = Vec<String>>, style: Style) -> String {
    let columns: Vec<columns::Column> = headings.iter().map(|heading| columns::Column::text(*heading)).collect();
    let mut page = page::Page::new(style);
    columns::put(&mut page, &columns, rows.map(|cells| (page::Tone::Plain, cells)).collect());
    page.finish()
}

/// The reports beside a run.
#[derive(Debug)]
pub struct Written {
    /// Where they are.
    pub paths: Vec<PathBuf>,
    /// What stands in `detailed_analysis.txt`.
    pub analysis: String,
}

/// Writes `detailed_analysis.txt`, `results_summary.csv`, `raw_results.json` and `summary.txt` into the run directory,
/// each whole or not at all. A predecessor's `summary.txt` is left as it is: its list of failures is recorded nowhere else.
///
/// # Errors
/// When the disk refuses.
pub fn write_all(run: &Path, analysis: &Analysis<'_>) -> Result<Written, ExportError> {
    let beside = export::BESIDE.into_iter().filter(|(name, _)| match analysis.table.facts.origin {
        Origin::VllmBench { .. } => true,
        Origin::Predecessor | Origin::Files(_) => *name != layout::SUMMARY,
    });
    let keep = |name: &str, exporter: &AnalysisExporter| {
        let path = run.join(name);
        export::whole_file(exporter, analysis, |content| atomic::keep_again_with(&path, content)).map(|()| path)
    };
    // They do not need each other. The text takes as long as the others: more threads would only slow it down.
    let (text, others) = std::thread::scope(|scope| {
        let others = scope.spawn(|| beside.map(|(name, exporter)| keep(name, exporter)).collect::<Result<Vec<_>, _>>());
        let path = run.join(layout::ANALYSIS);
        let text = text::render(analysis, Style::PLAIN);
        let written = atomic::keep_again_with(&path, |out| out.write_all(text.as_bytes()));
        (written.map(|()| (path, text)), others.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (path, analysis) = text?;
    let paths = std::iter::once(path).chain(others?).collect();
    Ok(Written { paths, analysis })
}
