//! Tables without frames: columns that align by the width of their characters, a rule under the heading.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

use super::page::{Page, Tone};

/// Where the cells of a column stand.
#[derive(Debug, Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// One column.
pub(super) struct Column {
    title: Cow<'static, str>,
    side: Side,
}

impl Column {
    /// A column of words.
    pub fn text(title: impl Into<Cow<'static, str>>) -> Self {
        Self { title: title.into(), side: Side::Left }
    }

    /// A column of figures.
    pub fn figures(title: impl Into<Cow<'static, str>>) -> Self {
        Self { title: title.into(), side: Side::Right }
    }
}

/// Blanks between two columns.
const GAP: usize = 3;

/// Puts a table on a page, two blanks in. Cells must be clean and of one line.
pub(super) fn put(page: &mut Page, columns: &[Column], rows: Vec<(Tone, Vec<String>)>) {
    let mut widths: Vec<usize> = columns.iter().map(|column| column.title.width()).collect();
    for (_, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.width());
        }
    }
    let titles: Vec<&str> = columns.iter().map(|column| column.title.as_ref()).collect();
    let mut line = String::new();
    put_line(page, Tone::Heading, columns, &widths, &titles, &mut line);
    let rule = widths.iter().sum::<usize>() + GAP * columns.len().saturating_sub(1);
    page.line(Tone::Faint, &format!("  {}", "─".repeat(rule)));
    for (tone, cells) in &rows {
        put_line(page, *tone, columns, &widths, cells, &mut line);
    }
}

/// One line of a table. `line` is for use again.
fn put_line(
    page: &mut Page,
    tone: Tone,
    columns: &[Column],
    widths: &[usize],
    cells: &[impl AsRef<str>],
    line: &mut String,
) {
    line.clear();
    for ((column, width), cell) in columns.iter().zip(widths).zip(cells) {
        let cell = cell.as_ref();
        let blanks = width.saturating_sub(cell.width());
        let (before, after) = match column.side {
            Side::Left => (0, blanks),
            Side::Right => (blanks, 0),
        };
        let gap = if line.is_empty() { 2 } else { GAP };
        line.extend(std::iter::repeat_n(' ', gap + before));
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', after));
    }
    page.line(tone, line);
}
