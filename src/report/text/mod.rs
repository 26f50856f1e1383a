//! `detailed_analysis.txt`, and the same on the terminal: what was asked, what came out, what failed and why,
//! and what to do next.

mod figures;
mod head;
mod per_device;
mod problems;
pub(super) mod ranking;
mod screen;

pub(super) use figures::status;
pub(super) use head::{SIMULATED, load_fields};
pub use screen::on_screen;

use super::page::{Page, Style};
use crate::analyse::{Counts, Ranked, RunTable, Wanted};

/// Renders the analysis. The same table and style give the same text; no line is wider than 120 columns.
pub fn render(table: &RunTable, style: Style) -> String {
    whole(table, None, style)
}

/// As [`render`], with a ranking that the user asks for.
pub fn render_ranked(table: &RunTable, ranked: &[Ranked<'_>], wanted: &Wanted, style: Style) -> String {
    whole(table, Some((ranked, wanted)), style)
}

fn whole(table: &RunTable, asked: Option<(&[Ranked<'_>], &Wanted)>, style: Style) -> String {
    let mut page = Page::new(style);
    let counts = Counts::of(&table.rows);
    head::put(&mut page, table, &counts);
    let rows = table.comparable();
    figures::statistics(&mut page, table, &rows);
    figures::by_model(&mut page, table);
    per_device::put(&mut page, table, &rows);
    if let Some((ranked, wanted)) = asked {
        ranking::put(&mut page, table, ranked, wanted);
    }
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
