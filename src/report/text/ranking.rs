//! A ranking in words, as every report says it: the set of the best, what it rests on, what would decide.

use super::super::columns::{self, Column};
use super::super::display::{ABSENT, configuration, counted, cut, figure};
use super::super::page::{Page, Tone};
use crate::analyse::{Basis, Better, Choice, Figure, Ranked, Recommendation, RunTable, Wanted};

/// What is ranked by, with its unit.
pub(in crate::report) fn unit(wanted: &Wanted) -> String {
    let per = if wanted.per_device { " per device" } else { "" };
    let known = Figure::of(&wanted.rank_by);
    known.map_or_else(|| wanted.rank_by.clone(), |of| format!("{}{per} ({})", of.label, of.unit.symbol()))
}

/// The interval of an option; a word where there is none.
pub(in crate::report) fn interval(option: &Choice<'_>, key: &str) -> String {
    let unit = Figure::of(key).map(|of| of.unit);
    let interval = option.estimate.and_then(|estimate| estimate.interval);
    match interval.zip(unit) {
        Some((interval, unit)) => format!("{} to {}", figure(interval.low, unit), figure(interval.high, unit)),
        None if option.n == 1 => "one sample".into(),
        None => ABSENT.into(),
    }
}

/// The options, the best value first, each with its mark: `>` chosen, `=` not told apart from it.
pub(in crate::report) fn ordered<'f, 'a>(
    found: &'f Recommendation<'a>,
    wanted: &Wanted,
) -> Vec<(&'static str, &'f Choice<'a>)> {
    let mark = |index: usize| match index {
        chosen if chosen == found.choice => ">",
        equal if found.equals.contains(&equal) => "=",
        _ => "",
    };
    let mut all: Vec<(&str, &Choice<'a>)> = found.options.iter().enumerate().map(|(i, o)| (mark(i), o)).collect();
    all.sort_by(|(_, a), (_, b)| match wanted.better {
        Better::Higher => b.value.total_cmp(&a.value),
        Better::Lower => a.value.total_cmp(&b.value),
    });
    all
}

/// What can be said of a ranking, sentence by sentence.
pub(in crate::report) fn said(found: &Recommendation<'_>, wanted: &Wanted) -> Vec<String> {
    let Some(choice) = found.options.get(found.choice) else { return Vec::new() };
    let noise = found.noise.map(|noise| format!(", noise {:.1} %", noise * 100.0)).unwrap_or_default();
    let mut said = vec![format!("By {}: {}.", unit(wanted), configuration(&choice.row.axes))];
    if !found.equals.is_empty() {
        said.push(format!(
            "It cannot be told from {} (95 %{noise}), and takes the fewest devices and flags of them.",
            counted(found.equals.len(), "other")
        ));
        said.push(match found.repeats_needed {
            Some(repeats) => format!("{} of each would tell the first two apart.", counted(repeats, "repeat")),
            None => "More repeats would hardly tell the first two apart.".into(),
        });
    }
    match found.basis {
        Basis::Single => said.push(
            "Each figure is one sample: nothing says how far it differs from run to run, so the order of close ones means \
             nothing."
                .into(),
        ),
        Basis::RunsOfOneStart => {
            said.push("Repeats are of one server start each: what a start has of its own is not in the interval.".into());
        }
        Basis::Starts | Basis::NoiseFloor => {}
    }
    said
}

/// Every group, as asked for.
pub(super) fn put(page: &mut Page, table: &RunTable, groups: &[Ranked<'_>], wanted: &Wanted) {
    page.heading(&super::figures::caption(&format!("Ranking by {}", unit(wanted)), table));
    if let Some(said) = wanted.about_limits() {
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
            Err(left_out) => {
                page.paragraph(2, "", Tone::Bad, "No configuration keeps the limits:");
                for left in left_out {
                    page.paragraph(4, "- ", Tone::Plain, &format!("{}: {}", cut(&left.row.name, 80), left.why));
                }
            }
            Ok(found) => one(page, group, found, wanted),
        }
    }
}

fn one(page: &mut Page, group: &Ranked<'_>, found: &Recommendation<'_>, wanted: &Wanted) {
    let names = [
        Column::text(""),
        Column::text("Configuration"),
        Column::figures("Devices"),
        Column::figures("Value"),
        Column::figures("95 % interval"),
        Column::figures("n"),
    ];
    let unit = Figure::of(&wanted.rank_by).map(|of| of.unit);
    let models = group.value("model").is_none();
    let lines = ordered(found, wanted).into_iter().map(|(mark, option)| {
        let model = if models { format!("{}  ", cut(&option.row.axes.model, 30)) } else { String::new() };
        let cells = vec![
            mark.to_owned(),
            cut(&format!("{model}{}", configuration(&option.row.axes)), 62),
            option.row.about.devices.map_or(ABSENT.into(), |devices| devices.to_string()),
            unit.map_or_else(|| option.value.to_string(), |unit| figure(option.value, unit)),
            interval(option, &wanted.rank_by),
            option.n.to_string(),
        ];
        (if mark == ">" { Tone::Good } else { Tone::Plain }, cells)
    });
    columns::put(page, &names, lines.collect());
    page.gap();
    for sentence in said(found, wanted).into_iter().skip(1) {
        page.paragraph(2, "", Tone::Faint, &sentence);
    }
    for left in &found.left_out {
        page.paragraph(2, "! ", Tone::Warning, &format!("left out: {}: {}", cut(&left.row.name, 80), left.why));
    }
}
