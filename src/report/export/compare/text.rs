//! A comparison for the terminal or a log.

use std::io::Write;

use super::super::{ExportError, Exporter, Format, Sink};
use super::{Compared, cells, failing, is_quiet, name, quiet, quoted, unmeasured, verdict, warnings};
use crate::analyse::{Effect, Matched, Outcome};
use crate::report::columns::{self, Column};
use crate::report::display::{counted, cut};
use crate::report::page::{Page, Style, Tone};
use crate::report::text::SIMULATED;

/// For the terminal.
pub struct Text;

impl Exporter<Compared<'_>> for Text {
    fn format(&self) -> Format {
        Format::one("text", "For the terminal", "txt")
    }

    fn write(&self, compared: &Compared<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(render(compared, out.style()).as_bytes())?)
    }
}

const COLUMNS: [&str; 6] = ["Metric", "Before", "After", "Change", "95 % interval", ""];

/// So many configurations without a change are named.
const MOST_NAMES: usize = 12;

/// Whether all of a configuration is the same, with nothing to say of it.
fn is_unchanged(matched: &Matched<'_>) -> bool {
    let same = |effect: &Effect| effect.outcome == Outcome::Same && is_quiet(effect);
    matched.not_comparable.is_none()
        && matched.unmeasured.is_empty()
        && !matched.effects.is_empty()
        && matched.effects.iter().all(same)
}

/// The table of one configuration.
fn put(page: &mut Page, matched: &Matched<'_>) {
    page.gap();
    page.paragraph(2, "", Tone::Heading, &name(matched.row));
    page.gap();
    if let Some(why) = &matched.not_comparable {
        page.paragraph(2, "! ", Tone::Warning, &format!("nothing is decided, {}", cut(why, 300)));
    }
    let lines = matched.effects.iter().filter(|effect| !is_quiet(effect)).map(|effect| {
        let tone = match effect.outcome {
            Outcome::Better => Tone::Good,
            Outcome::Worse => Tone::Bad,
            Outcome::Same | Outcome::NotDecided => Tone::Plain,
        };
        (tone, cells(effect).to_vec())
    });
    let mut shape = vec![Column::text(COLUMNS[0])];
    shape.extend(COLUMNS[1..5].iter().map(|title| Column::metrics(*title)));
    shape.push(Column::text(""));
    let lines: Vec<_> = lines.collect();
    if !lines.is_empty() {
        columns::put(page, &shape, lines);
    }
    for text in quiet(&matched.effects).into_iter().chain(unmeasured(matched)) {
        page.paragraph(2, "", Tone::Faint, &text);
    }
}

/// As text for a terminal or a log.
fn render(compared: &Compared<'_>, style: Style) -> String {
    let mut page = Page::new(style);
    let Compared { comparison, tables, environment, threshold, .. } = compared;
    let (before, after) = tables;
    let tone = if comparison.has_worse() { Tone::Bad } else { Tone::Plain };
    page.paragraph(0, "", tone, &verdict(comparison, *threshold));
    page.title("vllm-bench · comparison", &cut(&format!("{} -> {}", before.facts.title(), after.facts.title()), 70));
    if before.is_all_simulated() {
        page.paragraph(1, "!! ", Tone::Warning, SIMULATED);
    }
    for different in *environment {
        let (before, after) = (quoted(&different.before), quoted(&different.after));
        let text = format!("{} differs: {before} before, {after} now", different.what);
        page.paragraph(1, "!! ", Tone::Warning, &text);
    }
    for warning in &comparison.warnings {
        page.paragraph(1, "!! ", Tone::Warning, warning);
    }
    page.heading(&format!(
        "{} in both; a change counts where its whole interval lies beyond {:.1} %",
        counted(comparison.matched.len(), "configuration"),
        threshold * 100.0
    ));
    let (unchanged, changed): (Vec<&Matched<'_>>, Vec<&Matched<'_>>) =
        comparison.matched.iter().partition(|matched| is_unchanged(matched));
    changed.into_iter().for_each(|matched| put(&mut page, matched));
    if !unchanged.is_empty() {
        page.gap();
        let names: Vec<String> = unchanged.iter().take(MOST_NAMES).map(|matched| name(matched.row)).collect();
        let more = if unchanged.len() > MOST_NAMES { ", …" } else { "" };
        let text = format!(
            "{} the same in every metric: {}{more}",
            counted(unchanged.len(), "configuration"),
            names.join(", ")
        );
        page.paragraph(2, "", Tone::Faint, &text);
    }
    page.gap();
    page.paragraph(1, "", Tone::Faint, compared.note());
    let failing = failing(comparison);
    if !failing.is_empty() {
        page.heading("Failures");
        for (is_worse, text) in failing {
            page.paragraph(2, "! ", if is_worse { Tone::Bad } else { Tone::Warning }, &text);
        }
    }
    for (title, rows) in [("Only before", &comparison.missing), ("Only now", &comparison.added)] {
        if !rows.is_empty() {
            page.heading(title);
            for row in rows {
                page.paragraph(2, "", Tone::Warning, &name(row));
            }
        }
    }
    let warnings = warnings(*tables);
    if !warnings.is_empty() {
        page.heading("Warnings");
        for (which, row, text) in warnings {
            page.paragraph(2, "! ", Tone::Warning, &format!("{which}: {}: {text}", cut(&row.name, 60)));
        }
    }
    page.finish()
}
