//! What a run looks like, and what must never happen to a reader of it.

pub(crate) mod fixture;
mod html;
mod predecessor;
mod run;
mod sources;

use std::collections::BTreeMap;
use std::path::Path;

use unicode_width::UnicodeWidthStr;

use super::export::{Analysis, AnalysisExporter, Sink};
use super::{Style, render, write_all};
use crate::analyse::RunTable;
use crate::results::read_run;

/// Every output of a run, by name.
fn outputs(run: &Path) -> BTreeMap<String, String> {
    let table = read_run(run).unwrap();
    write_all(&table.facts.directory, &Analysis::of(&table))
        .unwrap()
        .paths
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// The analysis as text, by what the runs ask for.
fn render_text(table: &RunTable, style: Style) -> String {
    render(&Analysis::of(table), style)
}

/// An analysis in a format.
fn exported(name: &str, analysis: &Analysis<'_>) -> String {
    let exporter: &AnalysisExporter =
        super::export::ANALYZE.into_iter().find(|exporter| exporter.format().name == name).unwrap();
    let mut bytes = Vec::new();
    exporter.write(analysis, &mut Sink::new(&mut bytes, Style::PLAIN)).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The analysis as text; no line is too wide or could harm a terminal.
fn text(run: &Path) -> String {
    let text = render_text(&read_run(run).unwrap(), Style::PLAIN);
    for line in text.lines() {
        assert!(line.width() <= 120, "{} columns: {line}", line.width());
        assert!(!line.chars().any(char::is_control) && line.trim_end() == line, "{line:?}");
    }
    text
}
