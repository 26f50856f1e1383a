//! Pictures of a run: from the table to SVG and PNG, without a display and without fonts on the machine.
//!
//! [`pictures`] says what is drawn (plain data), [`svg`] and [`png`] draw it. The same run gives the same bytes.

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
mod xy;

#[cfg(test)]
mod tests;

pub use data::full_key;
pub use kind::{Kind, Over, Picture, Query, Refusal, pictures};
pub(super) use kinds::concurrency::tokens_per_second_of_a_request;
pub use kinds::list;
pub use sheet::Size;
use svg::Letters;

/// Draws a picture as SVG.
pub fn svg(picture: &Picture, size: Size) -> String {
    sheet::draw(&picture.chart, size, Letters::Text)
}

/// Draws a chart as PNG, with `scale` pixels per CSS pixel.
///
/// # Errors
/// In words, when the picture is too large for memory.
pub fn png(picture: &Picture, size: Size, scale: f64) -> Result<Vec<u8>, String> {
    png::draw(&sheet::draw(&picture.chart, size, Letters::Outlines), scale)
}
