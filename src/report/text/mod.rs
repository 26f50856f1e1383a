//! `detailed_analysis.txt`, and the same on the terminal: what was asked, what came out, what failed and why,
//! and what to do next.

mod metrics;
mod per_device;
mod problems;
pub(super) mod ranking;
mod run_header;
mod screen;

pub(super) use metrics::status;
pub(super) use per_device::baseline_rule;
pub(super) use ranking::nothing;
pub(super) use run_header::{SIMULATED, banner, load_fields};
pub use screen::on_screen;

use super::export::Analysis;
use super::page::{Page, Style};
use crate::analyse::Counts;

/// Renders the analysis. The same table and style give the same text; no line is wider than 120 columns.
pub fn render(analysis: &Analysis<'_>, style: Style) -> String {
    let table = analysis.table;
    let mut page = Page::new(style);
    let counts = Counts::of(&table.rows);
    run_header::put(&mut page, table, &counts);
    let rows = table.comparable();
    ranking::put(&mut page, table, analysis.answers(), &analysis.wanted);
    metrics::statistics(&mut page, table, &rows);
    metrics::by_model(&mut page, table);
    per_device::put(&mut page, table, &rows, &analysis.wanted);
    metrics::baseline(&mut page, table, &rows, &analysis.wanted);
    metrics::noise(&mut page, table, &rows);
    metrics::warnings_from(&mut page, table);
    problems::failures(&mut page, table);
    problems::not_measured(&mut page, table);
    problems::skips(&mut page, table);
    problems::unreadable(&mut page, table);
    problems::next(&mut page, analysis, &counts, &rows);
    page.finish()
}
