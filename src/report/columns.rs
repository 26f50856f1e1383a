//! Tables without frames: columns that align by the width of their characters, a rule under the heading.

use std::borrow::Cow;

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent};

use super::page::{Page, Tone};

/// One column.
pub(super) struct Column {
    title: Cow<'static, str>,
    alignment: CellAlignment,
}

impl Column {
    /// A column of words.
    pub fn text(title: impl Into<Cow<'static, str>>) -> Self {
        Self { title: title.into(), alignment: CellAlignment::Left }
    }

    /// A column of figures.
    pub fn figures(title: impl Into<Cow<'static, str>>) -> Self {
        Self { title: title.into(), alignment: CellAlignment::Right }
    }
}

/// Puts a table on a page, two blanks in. Cells must be clean and of one line.
pub(super) fn put(page: &mut Page, columns: &[Column], rows: Vec<(Tone, Vec<String>)>) {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for part in [TableComponent::HeaderLines, TableComponent::MiddleHeaderIntersections] {
        table.set_style(part, '─');
    }
    table.set_header(columns.iter().map(|column| column.title.as_ref()));
    let mut tones = vec![Tone::Heading, Tone::Faint];
    for (tone, cells) in rows {
        tones.push(tone);
        table.add_row(cells);
    }
    for (i, column) in columns.iter().enumerate() {
        if let Some(drawn) = table.column_mut(i) {
            drawn.set_cell_alignment(column.alignment);
            drawn.set_padding((0, if i + 1 == columns.len() { 0 } else { 2 }));
        }
    }
    for (i, line) in table.lines().enumerate() {
        page.line(tones.get(i).copied().unwrap_or(Tone::Plain), &format!("  {line}"));
    }
}
