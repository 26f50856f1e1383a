//! A plot as a file.

use std::io::Write;

use super::{ExportError, Exporter, Format, Sink};
use crate::report::Refusal;
use crate::report::plot::{self, Plot, Size};

/// A plot, and how large it is drawn.
#[derive(Debug)]
pub struct Drawing<'a> {
    /// What is drawn.
    pub plot: &'a Plot,
    /// In CSS pixels.
    pub size: Size,
    /// Pixels of a PNG per CSS pixel.
    pub scale: f64,
}

/// Vectors.
pub struct Svg;

impl Exporter<Drawing<'_>> for Svg {
    fn format(&self) -> Format {
        Format::one("svg", "Vectors", "svg")
    }

    fn write(&self, drawing: &Drawing<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(plot::svg(drawing.plot, drawing.size).as_bytes())?)
    }
}

/// Pixels.
pub struct Png;

impl Exporter<Drawing<'_>> for Png {
    fn format(&self) -> Format {
        Format::one("png", "Pixels", "png")
    }

    fn write(&self, drawing: &Drawing<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        let Drawing { plot, size, scale } = drawing;
        let bytes = plot::png(plot, *size, *scale).map_err(|reason| Refusal::Wrong {
            message: format!("could not draw `{}`: {reason}", plot.stem),
            hint: "choose a smaller `--width`, `--height` or `--dpi`, or `--format svg`".into(),
        })?;
        Ok(out.write_all(&bytes)?)
    }
}
