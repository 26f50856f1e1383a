//! Plots of a run: from the table to SVG and PNG, without a display and without fonts on the machine.
//!
//! [`plots`] says what is drawn (plain data), [`svg`] and [`png`] draw it. The same run gives the same bytes.

mod area;
mod bars;
mod chart;
mod data;
mod font;
mod heat;
mod kind;
mod kinds;
mod look;
mod png;
mod scale;
mod sheet;
mod svg;
mod words;
mod xy;

#[cfg(test)]
mod tests;

pub use data::full_key;
pub use kind::{Kind, Over, Plot, Query, plots};
pub(super) use kinds::concurrency::tokens_per_second_of_a_request;
pub use kinds::history::draw as over_runs;
pub use kinds::list;
pub(super) use scale::Round;
pub use sheet::Size;
use svg::Letters;
pub(super) use words::in_sentence;

/// Draws a plot as SVG.
pub fn svg(plot: &Plot, size: Size) -> String {
    sheet::draw(&plot.chart, size, Letters::Text)
}

/// Draws a chart as PNG, with `scale` pixels per CSS pixel.
///
/// # Errors
/// In words, when the plot is too large for memory.
pub fn png(plot: &Plot, size: Size, scale: f64) -> Result<Vec<u8>, String> {
    png::draw(&sheet::draw(&plot.chart, size, Letters::Outlines), scale)
}
