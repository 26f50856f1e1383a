//! Pictures of a run: from the table to SVG and PNG, without a display and without fonts on the machine.
//!
//! [`pictures`] says what is drawn (plain data), [`svg`] draws it, [`png`] makes pixels of that. The same run gives the same bytes.

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

/// Draws a picture as SVG.
pub fn svg(picture: &Picture, size: Size) -> String {
    sheet::draw(&picture.chart, size)
}

/// Makes a PNG of an SVG, with `scale` pixels per CSS pixel.
///
/// # Errors
/// In words, when the picture is too large for memory.
pub fn png(svg: &str, scale: f64) -> Result<Vec<u8>, String> {
    png::draw(svg, scale)
}
