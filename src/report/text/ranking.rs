//! The answers in an analysis: for each model and workload what to use, how sure that is, and the options.

use super::super::answer;
use super::super::columns::{self, Column};
use super::super::display::{ABSENT, configuration, cut, in_unit};
use super::super::page::{Page, Tone};
use crate::analyse::{Answer, LeftOut, RankingSpec, Recommendation, RunTable};
use crate::model::Metric;

/// So many options stand on a screen.
const OPTIONS: usize = 40;
/// So many excluded configurations are named.
const LEFT_OUT: usize = 12;

/// Every group.
pub(super) fn put(page: &mut Page, table: &RunTable, groups: &[Answer<'_>], wanted: &RankingSpec) {
    let by = format!("Recommendation by {}", wanted.objective(wanted.per_device));
    page.heading(&super::metrics::caption(&by, table));
    if let Some(said) = wanted.about() {
        page.paragraph(2, "", Tone::Plain, &cut(&said, 1000));
    }
    if groups.is_empty() {
        page.paragraph(2, "", Tone::Plain, "There is no valid result yet.");
    }
    for group in groups {
        page.gap();
        page.line(Tone::Heading, &format!("  {}", cut(&group.title(), 110)));
        page.gap();
        match &group.choice {
            Err(left_out) => none(page, left_out, wanted),
            Ok(found) => {
                if let Some(choice) = found.chosen() {
                    page.line(Tone::Good, &format!("  Use  {}", cut(&configuration(&choice.row.axes), 110)));
                }
                one(page, group, found, wanted);
            }
        }
    }
}

/// That nothing is left, and why.
pub(in crate::report) fn none(page: &mut Page, left_out: &[LeftOut<'_>], wanted: &RankingSpec) {
    page.paragraph(2, "", Tone::Bad, &format!("{}:", nothing(wanted)));
    exclusions(page, left_out, "- ", "");
}

/// That nothing is left, in words.
pub(in crate::report) fn nothing(wanted: &RankingSpec) -> &'static str {
    match wanted.limits.is_empty() {
        true => "No configuration can be recommended",
        false => "No configuration keeps the limits",
    }
}

fn exclusions(page: &mut Page, left_out: &[LeftOut<'_>], mark: &str, word: &str) {
    for left in left_out.iter().take(LEFT_OUT) {
        page.paragraph(2, mark, Tone::Warning, &format!("{word}{}: {}", cut(&left.row.name, 80), cut(&left.why, 300)));
    }
    if let Some(more @ 1..) = left_out.len().checked_sub(LEFT_OUT) {
        page.paragraph(2, mark, Tone::Warning, &format!("and {more} more"));
    }
}

/// What is said of an answer, its options, its warnings and what is excluded.
pub(in crate::report) fn one(page: &mut Page, group: &Answer<'_>, found: &Recommendation<'_>, wanted: &RankingSpec) {
    for sentence in answer::sentences(found, wanted) {
        page.paragraph(2, "", Tone::Plain, &cut(&sentence, 600));
    }
    for warning in answer::warnings(found) {
        page.paragraph(2, "! ", Tone::Warning, &cut(&warning, 400));
    }
    page.gap();
    let names = [
        Column::text(""),
        Column::text("Configuration"),
        Column::metrics("Devs"),
        Column::metrics("Mean"),
        Column::metrics("95 % interval"),
        Column::metrics(wanted.latency.clone()),
        Column::metrics("Starts"),
        Column::text("Front"),
    ];
    let number =
        |key: &str, value: f64| Metric::of(key).map_or_else(|| value.to_string(), |of| in_unit(value, of.unit));
    let models = group.value("model").is_none();
    let lines = found.options.iter().enumerate().take(OPTIONS).map(|(index, option)| {
        let model = if models { format!("{}  ", cut(&option.row.axes.model, 30)) } else { String::new() };
        let mark = answer::mark(found, index);
        let failed = match option.failures.failed {
            0 => String::new(),
            failed => format!(" ({failed} failed)"),
        };
        let cells = vec![
            mark.to_owned(),
            cut(&format!("{model}{}", configuration(&option.row.axes)), 52),
            option.row.about.devices.map_or(ABSENT.into(), |devices| devices.to_string()),
            number(&wanted.rank_by, option.value),
            answer::interval(option, &wanted.rank_by),
            option.latency.map_or(ABSENT.into(), |value| number(&wanted.latency, value)),
            format!("{}{failed}", option.n),
            if option.on_front { "yes".into() } else { String::new() },
        ];
        (if mark == ">" { Tone::Good } else { Tone::Plain }, cells)
    });
    columns::put(page, &names, lines.collect());
    if let Some(more @ 1..) = found.options.len().checked_sub(OPTIONS) {
        page.paragraph(2, "", Tone::Faint, &format!("and {more} more (`analyze --format csv` has all)"));
    }
    exclusions(page, &found.left_out, "! ", "excluded: ");
}
