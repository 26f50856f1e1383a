//! `detailed_analysis.txt`, and the same on the terminal: what was asked, what came out, what failed and why,
//! and what to do next.

mod end;
mod metrics;
mod per_device;
mod problems;
pub(super) mod ranking;
mod run_header;
mod screen;

pub use end::{Ended, MOST as END_LINES, end};
pub(super) use metrics::status;
pub(super) use per_device::baseline_rule;
pub(super) use run_header::{SIMULATED, banner, load_fields};
pub use screen::on_screen;

use super::export::Analysis;
use super::page::{Page, Style};
use crate::analyse::{Counts, Row, RunTable};

/// Renders the analysis. The same table and style give the same text; no line is wider than 120 columns.
pub fn render(analysis: &Analysis<'_>, style: Style) -> String {
    let counts = Counts::of(&analysis.table.rows);
    let rows = analysis.table.comparable();
    let first = || results(analysis, &counts, &rows, style);
    let second = || remarks(analysis, &counts, &rows, style);
    let (mut page, remarks) = match analysis.table.rows.len() {
        0..MANY => (first(), second()),
        _ => std::thread::scope(|scope| {
            let second = scope.spawn(second);
            (first(), second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        }),
    };
    page.append(remarks);
    page.finish()
}

/// A heading; that of simulated metrics says so.
fn caption(text: &str, table: &RunTable) -> String {
    if table.is_all_simulated() { format!("{text} (SIMULATED)") } else { text.to_owned() }
}

/// So many rows are worth a thread.
const MANY: usize = 1000;

/// What was asked, the answers, and every result.
fn results(analysis: &Analysis<'_>, counts: &Counts, rows: &[&Row], style: Style) -> Page {
    let mut page = Page::new(style);
    run_header::put(&mut page, analysis.table, counts);
    ranking::put(&mut page, analysis);
    metrics::statistics(&mut page, analysis.table, rows);
    metrics::by_model(&mut page, analysis.table);
    page
}

/// What the results say of devices, baselines and repeats, what is wrong with them, and what to do next.
fn remarks(analysis: &Analysis<'_>, counts: &Counts, rows: &[&Row], style: Style) -> Page {
    let (table, wanted) = (analysis.table, &analysis.wanted);
    let mut page = Page::new(style);
    per_device::put(&mut page, table, rows, wanted);
    per_device::power(&mut page, table, rows);
    metrics::baseline(&mut page, table, rows, wanted);
    metrics::noise(&mut page, table, rows);
    metrics::warnings_from(&mut page, table);
    problems::failures(&mut page, table);
    problems::not_measured(&mut page, table);
    problems::skips(&mut page, table);
    problems::unreadable(&mut page, table);
    problems::next(&mut page, analysis, counts, rows);
    page
}
