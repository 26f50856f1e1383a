//! The configuration to use, for the terminal.

use std::io::Write;

use super::super::{Analysis, ExportError, Exporter, Format, Sink};
use super::command;
use crate::report::display::{configuration, cut};
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
    for answer in analysis.answers() {
        page.heading(&cut(&answer.title(), 90));
        let found = match &answer.choice {
            Ok(found) => found,
            Err(left_out) => {
                ranking::none(&mut page, left_out, wanted);
                continue;
            }
        };
        if let Some(choice) = found.chosen() {
            page.line(Tone::Good, &format!("  Use  {}", configuration(&choice.row.axes)));
            if !choice.row.about.serve_command.is_empty() {
                page.gap();
                // In one piece, so that it can be copied.
                page.line(Tone::Plain, &format!("    {}", command(choice.row)));
                page.gap();
            }
        }
        ranking::one(&mut page, answer, found, wanted);
    }
    page.finish()
}
