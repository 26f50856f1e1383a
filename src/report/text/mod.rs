//! `detailed_analysis.txt`, and the same on the terminal: what was asked, what came out, what failed and why,
//! and what to do next.

mod figures;
mod head;
mod problems;

pub(super) use figures::status;
pub(super) use head::{SIMULATED, load_fields};

use super::page::{Page, Style};
use crate::analyse::{Counts, RunTable};

/// Renders the analysis. The same table and style give the same text; no line is wider than 120 columns.
pub fn render(table: &RunTable, style: Style) -> String {
    let mut page = Page::new(style);
    let counts = Counts::of(&table.rows);
    head::put(&mut page, table, &counts);
    let rows = table.comparable();
    figures::statistics(&mut page, table, &rows);
    figures::by_model(&mut page, table);
    figures::best_per_model(&mut page, table, &rows);
    figures::best_overall(&mut page, table, &rows);
    figures::baseline(&mut page, table, &rows);
    figures::noise(&mut page, table, &rows);
    figures::doubts(&mut page, table);
    problems::failures(&mut page, table);
    problems::not_measured(&mut page, table);
    problems::skips(&mut page, table);
    problems::unreadable(&mut page, table);
    problems::next(&mut page, table, &counts, &rows);
    page.finish()
}
