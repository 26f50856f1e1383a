//! A comparison as Markdown for a pull request.

use std::fmt::Write as _;
use std::io::Write as _;

use super::super::markdown::cell;
use super::super::{ExportError, Exporter, Format, Sink};
use super::{Compared, cells, failing, is_quiet, name, quiet, quoted, unmeasured, verdict, warnings};

/// For pull requests.
pub struct Markdown;

impl Exporter<Compared<'_>> for Markdown {
    fn format(&self) -> Format {
        Format::one("markdown", "For pull requests", "md")
    }

    fn write(&self, compared: &Compared<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(render(compared).as_bytes())?)
    }
}

/// As Markdown for a pull request.
fn render(compared: &Compared<'_>) -> String {
    let Compared { comparison, tables, environment, threshold, .. } = compared;
    let (before, after) = tables;
    let mut text = format!(
        "### {}\n\n`{}` against `{}`\n\n",
        verdict(comparison, *threshold),
        cell(&after.facts.title()),
        cell(&before.facts.title())
    );
    if before.is_all_simulated() {
        text.push_str("**SIMULATED**: a timing model made these metrics up.\n\n");
    }
    for different in *environment {
        let _ = writeln!(
            text,
            "> **{} differs**: {} before, {} now",
            cell(&different.what),
            quoted(&cell(&different.before)),
            quoted(&cell(&different.after))
        );
    }
    for warning in &comparison.warnings {
        let _ = writeln!(text, "> **{}**", cell(warning));
    }
    text.push_str(
        "\n| configuration | metric | before | after | change | 95 % interval | |\n| --- | --- | ---: | ---: | ---: | ---: | --- |\n",
    );
    let mut folded = Vec::new();
    for matched in &comparison.matched {
        let name = cell(&name(matched.row));
        for effect in matched.effects.iter().filter(|effect| !is_quiet(effect)) {
            let cells = cells(effect).map(|text| cell(&text));
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        let sentences = quiet(&matched.effects).into_iter().chain(unmeasured(matched));
        folded.extend(sentences.map(|said| format!("- {name}: {}", cell(&said))));
    }
    if !folded.is_empty() {
        let _ = writeln!(text, "\n{}", folded.join("\n"));
    }
    for (title, rows) in [("Only before", &comparison.missing), ("Only now", &comparison.added)] {
        if !rows.is_empty() {
            let names: Vec<String> = rows.iter().map(|row| cell(&name(row))).collect();
            let _ = writeln!(text, "\n{title}: {}", names.join("; "));
        }
    }
    for (is_worse, failing) in failing(comparison) {
        let word = if is_worse { "failing now" } else { "failures" };
        let _ = writeln!(text, "\n> **{word}**: {}", cell(&failing));
    }
    for matched in &comparison.matched {
        if let Some(why) = &matched.not_comparable {
            let _ = writeln!(text, "\n> **nothing is decided** of {}: {}", cell(&matched.row.name), cell(why));
        }
    }
    let _ = writeln!(text, "\n{}", compared.note());
    for (which, row, warning) in warnings(*tables) {
        let _ = writeln!(text, "\n> **warning** ({which}) {}: {}", cell(&row.name), cell(warning));
    }
    text
}
