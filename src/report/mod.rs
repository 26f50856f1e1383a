//! Rows in, bytes out: what a run looks like as text, CSV and JSON.
//!
//! The same run directory gives the same bytes: no clock, no absolute path, nothing read back that was written here.

mod columns;
pub mod compare;
mod csv;
pub mod datatrove;
mod display;
pub mod export;
pub mod html;
mod load;
mod page;
pub mod plot;
mod raw;
pub mod recommend;
mod summary;
mod text;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use display::clean;
pub use load::{add_quantiles, add_server_logs, load_requests, load_run, load_runs};
pub use page::Style;
pub use summary::render as render_summary;
pub use text::{render as render_text, render_ranked};

use crate::analyse::{Origin, RunTable};
use crate::record::{Error, atomic, layout};

/// Writes `detailed_analysis.txt`, `results_summary.csv`, `raw_results.json` and `summary.txt` into the run directory,
/// each whole or not at all, and returns their paths. A predecessor's `summary.txt` is left as it is: its list of
/// failures is recorded nowhere else.
///
/// # Errors
/// When the disk refuses.
pub fn write_all(run: &Path, table: &RunTable) -> Result<Vec<PathBuf>, Error> {
    let analysis = run.join(layout::ANALYSIS);
    atomic::write(&analysis, render_text(table, Style::PLAIN).as_bytes())?;
    let table_csv = run.join(layout::SUMMARY_CSV);
    atomic::write_with(&table_csv, |out| csv::write(table, out))?;
    let raw_results = run.join(layout::RAW_RESULTS);
    atomic::write_with(&raw_results, |out| raw::write(run, table, out))?;
    let mut written = vec![analysis, table_csv, raw_results];
    match table.facts.origin {
        Origin::VllmBench { .. } => {
            let summary = run.join(layout::SUMMARY);
            atomic::write(&summary, render_summary(table).as_bytes())?;
            written.push(summary);
        }
        Origin::Predecessor | Origin::Files(_) => {}
    }
    Ok(written)
}
