//! What a run looks like, and what must never happen to a reader of it.

pub(crate) mod fixture;
mod html;
mod predecessor;
mod run;
mod sources;

use std::collections::BTreeMap;
use std::path::Path;

use unicode_width::UnicodeWidthStr;

use super::{Style, render_text, write_all};
use crate::results::read_run;

/// Every output of a run, by name.
fn outputs(run: &Path) -> BTreeMap<String, String> {
    let table = read_run(run).unwrap();
    write_all(&table.facts.directory, &table)
        .unwrap()
        .paths
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
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
