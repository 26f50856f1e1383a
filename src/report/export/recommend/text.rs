//! The configuration to use, for the terminal.

use std::io::Write;

use super::super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::report::answer::Told;
use crate::report::display::cut;
use crate::report::page::{Page, Style, Tone};
use crate::report::text::{banner, ranking};

/// For the terminal.
pub struct Text;

impl Exporter<Analysis<'_>> for Text {
    fn format(&self) -> Format {
        Format::one("text", "For the terminal", "txt")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(render(analysis, out.style()).as_bytes())?)
    }
}

fn render(analysis: &Analysis<'_>, style: Style) -> String {
    let (table, wanted) = (analysis.table, &analysis.wanted);
    let mut page = Page::new(style);
    page.title("vllm-bench · recommendation", &cut(&format!("by {}", wanted.objective(wanted.per_device)), 60));
    if let Some(banner) = banner(table) {
        page.paragraph(1, "!! ", Tone::Warning, &banner);
    }
    if let Some(said) = wanted.about() {
        page.paragraph(1, "", Tone::Plain, &cut(&said, 1000));
    }
    for told in Told::all(analysis) {
        page.heading(&cut(&told.title(), 90));
        if let Some(found) = told.found() {
            page.paragraph(2, "Use  ", Tone::Good, &found.configuration());
            if !found.choice.row.about.serve_command.is_empty() {
                page.gap();
                // In one piece, so that it can be copied.
                page.line(Tone::Plain, &format!("    {}", found.command()));
                page.gap();
            }
        }
        ranking::one(&mut page, &told, &wanted.latency);
    }
    page.finish()
}
