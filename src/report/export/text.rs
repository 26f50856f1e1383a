//! The whole analysis for people: `detailed_analysis.txt`, and the terminal.

use std::io::Write;

use super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::report::text;

/// For the terminal.
pub struct Text;

impl Exporter<Analysis<'_>> for Text {
    fn format(&self) -> Format {
        Format::one("text", "For the terminal", "txt")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(text::render(analysis, out.style()).as_bytes())?)
    }
}
