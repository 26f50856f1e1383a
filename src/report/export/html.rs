//! The whole analysis as one page.

use std::io::Write;

use super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::report::html;

/// One page.
pub struct Html;

impl Exporter<Analysis<'_>> for Html {
    fn format(&self) -> Format {
        Format::one("html", "One page", "html")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(html::render(analysis).as_bytes())?)
    }
}
