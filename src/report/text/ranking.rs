//! The answers in an analysis: for each model and workload what to use, how sure that is, and the options.

use super::super::answer::{Found, Mark, Told};
use super::super::columns::{self, Column};
use super::super::display::{ABSENT, cut};
use super::super::export::Analysis;
use super::super::page::{Page, Tone};

/// So many options stand on a screen.
const OPTIONS: usize = 40;
/// So many excluded configurations are named.
const LEFT_OUT: usize = 12;

/// Every group.
pub(super) fn put(page: &mut Page, analysis: &Analysis<'_>) {
    let wanted = &analysis.wanted;
    let by = format!("Recommendation by {}", wanted.objective(wanted.per_device));
    page.heading(&super::caption(&by, analysis.table));
    if let Some(said) = wanted.about() {
        page.paragraph(2, "", Tone::Plain, &cut(&said, 1000));
    }
    if analysis.answers().is_empty() {
        page.paragraph(2, "", Tone::Plain, "There is no valid result yet.");
    }
    for told in Told::all(analysis) {
        page.gap();
        page.paragraph(2, "", Tone::Heading, &cut(&told.title(), 110));
        page.gap();
        if let Some(found) = told.found() {
            page.paragraph(2, "Use  ", Tone::Good, &found.configuration());
        }
        one(page, &told, &wanted.latency);
    }
}

/// What is said of an answer, its options and its warnings, or that there is nothing; and what is excluded.
pub(in crate::report) fn one(page: &mut Page, told: &Told<'_, '_>, latency: &str) {
    let (mark, word) = match told.found() {
        Some(found) => {
            options(page, told, &found, latency);
            ("! ", "excluded: ")
        }
        None => {
            page.paragraph(2, "", Tone::Bad, &format!("{}:", told.nothing()));
            ("- ", "")
        }
    };
    for (name, why) in told.left_out().take(LEFT_OUT) {
        page.paragraph(2, mark, Tone::Warning, &format!("{word}{}: {}", cut(name, 80), cut(why, 300)));
    }
    if let Some(more @ 1..) = told.left_out().len().checked_sub(LEFT_OUT) {
        page.paragraph(2, mark, Tone::Warning, &format!("and {more} more"));
    }
}

fn options(page: &mut Page, told: &Told<'_, '_>, found: &Found<'_, '_>, latency: &str) {
    for sentence in found.sentences() {
        page.paragraph(2, "", Tone::Plain, &cut(&sentence, 600));
    }
    for warning in found.warnings() {
        page.paragraph(2, "! ", Tone::Warning, &cut(&warning, 400));
    }
    page.gap();
    let names = [
        Column::text(""),
        Column::text("Configuration"),
        Column::metrics("Devs"),
        Column::metrics("Mean"),
        Column::metrics("95 % interval"),
        Column::metrics(latency.to_owned()),
        Column::metrics("Starts"),
        Column::text("Front"),
    ];
    let lines = found.options().take(OPTIONS).map(|line| {
        let row = line.option.row;
        let model = if told.has_model() { String::new() } else { format!("{}  ", cut(&row.axes.model, 30)) };
        let failed = match line.option.failures.failed {
            0 => String::new(),
            failed => format!(" ({failed} failed)"),
        };
        let tone = if line.mark == Mark::Choice { Tone::Good } else { Tone::Plain };
        let cells = vec![
            line.mark.sign().to_owned(),
            cut(&format!("{model}{}", line.configuration), 52),
            line.devices().unwrap_or_else(|| ABSENT.into()),
            line.value,
            line.interval,
            line.latency.unwrap_or_else(|| ABSENT.into()),
            format!("{}{failed}", line.option.n),
            if line.option.on_front { "yes".into() } else { String::new() },
        ];
        (tone, cells)
    });
    columns::put(page, &names, lines.collect());
    if let Some(more @ 1..) = found.options().len().checked_sub(OPTIONS) {
        page.paragraph(2, "", Tone::Faint, &format!("and {more} more (`analyze --format csv` has all)"));
    }
}
