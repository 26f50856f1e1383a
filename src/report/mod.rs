//! Rows in, bytes out: what a run looks like as text, CSV and JSON.
//!
//! The same run directory gives the same bytes: no clock, no absolute path, nothing read back that was written here.

mod answer;
mod batch_sizes;
mod columns;
pub mod compare;
mod csv;
pub mod datatrove;
mod display;
pub mod export;
pub mod html;
mod page;
pub mod plot;
mod raw;
pub mod recommend;
mod summary;
mod text;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};

pub use batch_sizes::BatchSizes;
pub use display::{clean, configuration};
pub use page::Style;
pub use summary::render as render_summary;
pub use text::{on_screen, render as render_text, render_analysis};

use crate::analyse::{Origin, RunTable};
use crate::record::{Error, atomic, layout};

/// A table of numbers for a person, without colour: one heading for each column.
pub fn table(headings: &[&'static str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let columns: Vec<columns::Column> = headings.iter().map(|heading| columns::Column::metrics(*heading)).collect();
    let mut page = page::Page::new(Style::PLAIN);
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
pub fn write_all(run: &Path, table: &RunTable) -> Result<Written, Error> {
    let [text, table_csv, raw_results] =
        [layout::ANALYSIS, layout::SUMMARY_CSV, layout::RAW_RESULTS].map(|name| run.join(name));
    // They do not need each other. The text takes as long as both tables: more threads would only slow it down.
    let (analysis, tables) = std::thread::scope(|scope| {
        let tables = scope.spawn(|| {
            atomic::keep_again_with(&table_csv, |out| csv::write(table, out))?;
            atomic::keep_again_with(&raw_results, |out| raw::write(run, table, out))
        });
        let analysis = render_text(table, Style::PLAIN);
        let written = atomic::keep_again_with(&text, |out| out.write_all(analysis.as_bytes()));
        (written.map(|()| analysis), tables.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let analysis = analysis?;
    tables?;
    let mut paths = vec![text, table_csv, raw_results];
    match table.facts.origin {
        Origin::VllmBench { .. } => {
            let summary = run.join(layout::SUMMARY);
            atomic::keep_again_with(&summary, |out| out.write_all(render_summary(table).as_bytes()))?;
            paths.push(summary);
        }
        Origin::Predecessor | Origin::Files(_) => {}
    }
    Ok(Written { paths, analysis })
}
