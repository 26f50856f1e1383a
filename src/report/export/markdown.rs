//! The analysis as Markdown: what was chosen among what, with intervals, for a pull request or a wiki.

use std::fmt::Write as _;

use super::super::compare::cell;
use super::super::display::{configuration, counted, figure};
use super::super::text::{SIMULATED, ranking, status};
use super::{Analysis, requests_under};
use crate::analyse::{Choice, Counts, DoubtKind, Facts, Figure, Metric, Row};

/// Renders it.
pub fn render(analysis: &Analysis<'_>) -> String {
    let table = analysis.table;
    let counts = Counts::of(&table.rows);
    let runs: Vec<String> = std::iter::once(&table.facts)
        .chain(&table.more)
        .map(|facts: &Facts| format!("`{}`", cell(&facts.run)))
        .collect();
    let mut text = format!("# vllm-bench: {}\n\n", runs.join(", "));
    if table.simulated {
        let _ = writeln!(text, "**{SIMULATED}**\n");
    }
    let _ = writeln!(
        text,
        "{} of {} passed, {} failed, {} skipped by a rule.",
        counts.passed, counts.planned, counts.failed, counts.skipped
    );
    if let Some(said) = analysis.wanted.about_limits() {
        let _ = writeln!(text, "\n{}", cell(&said));
    }
    for ranked in analysis.ranked {
        let _ = writeln!(text, "\n## {}\n", cell(&ranked.title()));
        match &ranked.choice {
            Ok(found) => {
                for line in ranking::said(found, analysis.wanted) {
                    let _ = writeln!(text, "{}\n", cell(&line));
                }
                head(&mut text, analysis);
                for (mark, option) in ranking::ordered(found, analysis.wanted) {
                    line(&mut text, analysis, mark, option);
                }
                for left in &found.left_out {
                    let _ = writeln!(text, "\n- left out: {}: {}", cell(&left.row.name), cell(&left.why));
                }
            }
            Err(left_out) => {
                text.push_str("No configuration keeps the limits.\n\n");
                for left in left_out {
                    let _ = writeln!(text, "- {}: {}", cell(&left.row.name), cell(&left.why));
                }
            }
        }
    }
    problems(&mut text, &table.rows);
    for bad in &table.unreadable {
        let _ = writeln!(text, "- does not count: `{}`: {}", cell(&bad.file), cell(&bad.reason));
    }
    text
}

/// The figures beside the ranked one.
const BESIDE: [&str; 5] = ["output_tps_per_gpu", "output_tps_per_user", "mean_ttft_ms", "mean_tpot_ms", "speedup"];

fn head(text: &mut String, analysis: &Analysis<'_>) {
    let wanted = analysis.wanted;
    let mut columns = vec!["".to_owned(), "configuration".into(), "devices".into(), "samples".into()];
    columns.push(ranking::unit(wanted));
    columns.push("95 % interval".into());
    let beside = BESIDE.iter().filter(|key| **key != wanted.rank_by);
    columns.extend(beside.filter_map(|key| Figure::of(key)).map(|of| format!("{} ({})", of.label, of.unit.symbol())));
    columns.extend(["P99 TTFT (ms)".into(), "rests on".into(), "doubts".into()]);
    let rule =
        columns.iter().enumerate().map(|(i, _)| if (2..columns.len() - 1).contains(&i) { "---:" } else { "---" });
    let _ = writeln!(text, "| {} |\n| {} |", columns.join(" | "), rule.collect::<Vec<_>>().join(" | "));
}

fn line(text: &mut String, analysis: &Analysis<'_>, mark: &str, option: &Choice<'_>) {
    let (row, wanted) = (option.row, analysis.wanted);
    let shown = |value: Option<f64>, key: &str| {
        let unit = Figure::of(key).map(|of| of.unit);
        value.zip(unit).map_or_else(String::new, |(value, unit)| figure(value, unit))
    };
    let mut cells = vec![
        mark.to_owned(),
        cell(&format!("{}{}", if row.simulated { "(simulated) " } else { "" }, configuration(&row.axes))),
        row.about.devices.map(|devices| devices.to_string()).unwrap_or_default(),
        option.n.to_string(),
        shown(Some(option.value), &wanted.rank_by),
        ranking::interval(option, &wanted.rank_by),
    ];
    let beside = BESIDE.iter().filter(|key| **key != wanted.rank_by && Figure::of(key).is_some());
    cells.extend(beside.map(|key| shown(row.figure(key), key)));
    let p99 = Metric::P99Ttft.key();
    let tail = row.figure(p99);
    cells.push(match row.about.quantiles.get(p99) {
        Some(of) => format!(
            "{} ({} to {})",
            shown(tail, p99),
            of.low.map_or("?".into(), |low| shown(Some(low), p99)),
            of.high.map_or("?".into(), |high| shown(Some(high), p99))
        ),
        None => shown(tail, p99),
    });
    let under = tail.and_then(|_| requests_under(row, p99)).and_then(|n| usize::try_from(n).ok());
    cells.push(under.map(|n| counted(n, "request")).unwrap_or_default());
    let doubts = row.about.doubts.iter().filter(|doubt| doubt.kind != DoubtKind::Simulated);
    cells.push(cell(&doubts.map(|doubt| doubt.text.clone()).collect::<Vec<_>>().join("; ")));
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn problems(text: &mut String, rows: &[Row]) {
    let without: Vec<&Row> = rows.iter().filter(|row| !row.is_valid() && !row.is_skipped()).collect();
    if without.is_empty() {
        return;
    }
    text.push_str("\n## Without a valid result\n\n");
    for row in without {
        let why = super::super::csv::reason(&row.status);
        let why = if why.is_empty() { why } else { format!(": {}", cell(&why)) };
        let _ = writeln!(text, "- {} ({}){why}", cell(&row.name), cell(&status(row)));
    }
}
