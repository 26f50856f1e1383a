//! Runs over time as one page.

use std::io::Write;

use super::super::{ExportError, Exporter, Format, Sink};
use super::History;
use crate::report::html;

/// One page.
pub struct Html;

impl Exporter<History<'_>> for Html {
    fn format(&self) -> Format {
        Format::one("html", "One page", "html")
    }

    fn write(&self, history: &History<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(html::over_runs(history).as_bytes())?)
    }
}
