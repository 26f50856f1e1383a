//! The figures: statistics, tables by model, and what is best.

use super::super::columns::{self, Column, Table};
use super::super::display::{
    ABSENT, configuration, counted, cut, eager, figure, put_figure, quantity, quantization, tp,
};
use super::super::page::{Page, Tone};
use crate::analyse::{
    Against, Basis, Best, Doubt, DoubtKind, Metric, RANKED, Ranking, Row, RunTable, Status, against_baseline,
    best_by_model, best_overall as rank, components, over_starts, overall, resolvable, rests_on, starts_of,
};
use crate::plan::abbreviation;

/// Names of models in headings.
const MODEL: usize = 90;
/// The status column, so that a line stays below 120 columns.
const STATUS: usize = 36;
/// So many configurations are shown with their repeats.
const MOST_NOISE: usize = 8;
/// A p99 that rests on fewer requests is marked.
const FIRM: u64 = 5;
/// As many rows as tie are named.
const TIES: usize = 8;

pub(super) fn caption(text: &str, table: &RunTable) -> String {
    if table.simulated { format!("{text} (SIMULATED)") } else { text.to_owned() }
}

/// Overall statistics over the rows that compare.
pub(super) fn statistics(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let title = format!("Overall statistics over {}", counted(rows.len(), "valid result"));
    page.heading(&caption(&title, table));
    if rows.is_empty() {
        page.paragraph(2, "", Tone::Plain, "There is no valid result yet.");
        return;
    }
    let columns = [
        Column::text("Metric"),
        Column::figures("Min"),
        Column::figures("Mean"),
        Column::figures("Median"),
        Column::figures("Max"),
        Column::text("Unit"),
    ];
    let lines = overall(rows).into_iter().map(|(metric, stats)| {
        let unit = metric.unit();
        let cells = stats.map_or([ABSENT; 4].map(str::to_owned), |stats| {
            [stats.min, stats.mean, stats.median, stats.max].map(|value| figure(value, unit))
        });
        let line = [metric.label().to_owned()].into_iter().chain(cells).chain([unit.symbol().to_owned()]);
        (Tone::Plain, line.collect())
    });
    columns::put(page, &columns, lines.collect());
    // The tail of a small sample is a request or two.
    let fewest = rows.iter().filter_map(|row| row.metrics.get(Metric::Completed)).reduce(f64::min);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    if let Some(requests) = fewest.map(|requests| requests as u64)
        && rests_on(requests, 0.99) < FIRM
        && rows.iter().any(|row| row.metrics.get(Metric::P99Ttft).is_some())
    {
        page.gap();
        let on = counted(usize::try_from(rests_on(requests, 0.99)).unwrap_or(usize::MAX), "request");
        let text = format!("A p99 of {requests} requests rests on {on}: it differs much from run to run.");
        page.paragraph(2, "", Tone::Faint, &text);
    }
    let left_out = table.rows.iter().filter(|row| row.is_valid()).count() - rows.len();
    if left_out > 0 {
        page.gap();
        let text = format!("{} left out of the statistics and rankings.", counted(left_out, "simulated row"));
        page.paragraph(2, "! ", Tone::Warning, &text);
    }
}

/// One table per model.
pub(super) fn by_model(page: &mut Page, table: &RunTable) {
    page.heading(&caption("Results by model", table));
    let groups = table.by_model();
    if groups.is_empty() {
        page.paragraph(2, "", Tone::Plain, "No experiment was planned.");
    }
    for (model, rows) in groups {
        page.gap();
        page.line(Tone::Heading, &format!("  {}", cut(model, MODEL)));
        page.gap();
        let keys = varying(&rows);
        let repeats = rows.iter().any(|row| row.repeat.is_some());
        let mut columns = vec![Column::figures("TP"), Column::text("Quant"), Column::text("Eager")];
        columns.extend(keys.iter().map(|key| Column::figures(abbreviation(key).to_owned())));
        if repeats {
            columns.extend([Column::figures("Start"), Column::figures("Run")]);
        }
        columns.extend(["Req/s", "Out tok/s", "TTFT ms", "TPOT ms"].map(Column::figures));
        columns.push(Column::text("Status"));
        let mut lines = Table::new(&columns);
        rows.into_iter().for_each(|row| line(&mut lines, row, &keys, repeats));
        lines.put(page);
        let short: Vec<String> = keys
            .iter()
            .filter(|key| abbreviation(key) != **key)
            .map(|key| format!("{} = {key}", abbreviation(key)))
            .collect();
        if !short.is_empty() {
            page.gap();
            page.paragraph(2, "", Tone::Faint, &short.join(", "));
        }
    }
}

/// The keys that vary, server's first.
fn varying<'r>(rows: &[&'r Row]) -> Vec<&'r str> {
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in rows.iter().flat_map(|row| row.axes.server.iter().chain(&row.axes.workload)) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    keys
}

fn line(table: &mut Table<'_>, row: &Row, keys: &[&str], repeats: bool) {
    table.line(match row.status {
        Status::Valid => Tone::Plain,
        Status::Invalid(_) | Status::Failed(_) => Tone::Bad,
        Status::Skipped { .. } | Status::Interrupted | Status::Running | Status::NotRun => Tone::Faint,
    });
    for cell in [tp(&row.axes), quantization(&row.axes), eager(&row.axes)] {
        table.cell(|text| text.push_str(&cell));
    }
    for key in keys {
        let value = row.axes.server.iter().chain(&row.axes.workload).find(|(known, _)| known == key);
        table.cell(|text| text.push_str(&value.map_or(ABSENT.to_owned(), |(_, value)| cut(value, 20))));
    }
    if repeats {
        for number in [row.repeat.map(|repeat| repeat.start), row.repeat.map(|repeat| repeat.run)] {
            table.cell(|text| text.push_str(&number.map_or(ABSENT.to_owned(), |number| number.to_string())));
        }
    }
    for metric in RANKED {
        table.cell(|text| match row.metrics.get(metric) {
            Some(value) => put_figure(text, value, metric.unit()),
            None => text.push_str(ABSENT),
        });
    }
    let baseline = if row.baseline { ", baseline" } else { "" };
    let doubtful = if told(row).is_empty() { "" } else { ", doubtful" };
    table.cell(|text| text.push_str(&cut(&format!("{}{doubtful}{baseline}", status(row)), STATUS)));
}

/// The status of a row in a few words.
pub(in crate::report) fn status(row: &Row) -> String {
    match &row.status {
        Status::Valid if row.simulated => "ok (simulated)".into(),
        Status::Valid => "ok".into(),
        Status::Invalid(_) => "invalid result".into(),
        Status::Failed(failed) => failed.cause.map_or("failed".into(), |cause| format!("failed: {cause}")),
        Status::Skipped { .. } => "skipped".into(),
        Status::Interrupted => "interrupted".into(),
        Status::Running => "running".into(),
        Status::NotRun => "not run".into(),
    }
}

/// The best of each model, for each load by itself.
pub(super) fn best_per_model(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let rankings = best_by_model(rows);
    if rankings.is_empty() {
        return;
    }
    page.heading(&caption("Best per model", table));
    for Ranking { model, workload, bests } in &rankings {
        page.gap();
        let load = if workload.is_empty() { String::new() } else { format!(", at {workload}") };
        page.line(Tone::Heading, &format!("  {}{}", cut(model.unwrap_or_default(), MODEL), cut(&load, MODEL)));
        page.gap();
        put_bests(page, bests, |row| configuration(&row.axes));
    }
}

/// The best of all, for each load by itself.
pub(super) fn best_overall(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let rankings = rank(rows);
    if rankings.is_empty() {
        return;
    }
    page.heading(&caption("Best overall", table));
    for Ranking { workload, bests, .. } in &rankings {
        if !workload.is_empty() {
            page.gap();
            page.line(Tone::Heading, &format!("  at {}", cut(workload, MODEL)));
            page.gap();
        }
        put_bests(page, bests, |row| format!("{}  {}", cut(&row.axes.model, 44), configuration(&row.axes)));
    }
}

/// Every configuration against the baseline of its model and load.
pub(super) fn baseline(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    if !table.rows.iter().any(|row| row.baseline) {
        return;
    }
    page.heading(&caption("Against the baseline", table));
    let compared = against_baseline(rows);
    if compared.is_empty() {
        page.paragraph(2, "", Tone::Plain, "No baseline has a valid result, or nothing else has.");
        return;
    }
    let ratio = |value: Option<f64>| value.map_or(ABSENT.to_owned(), |value| format!("{value:.2}x"));
    let mut last: Option<(&str, String)> = None;
    let mut lines: Vec<(Tone, Vec<String>)> = Vec::new();
    let columns =
        [Column::text("Configuration"), Column::figures("Out tok/s"), Column::figures("TTFT"), Column::figures("TPOT")];
    for Against { row, baseline, output_throughput, ttft, tpot } in compared {
        let key = (row.axes.model.as_str(), row.axes.workload_label());
        if last.as_ref() != Some(&key) {
            if !lines.is_empty() {
                columns::put(page, &columns, std::mem::take(&mut lines));
            }
            page.gap();
            let load = if key.1.is_empty() { String::new() } else { format!(", at {}", key.1) };
            page.line(Tone::Heading, &format!("  {}{}", cut(key.0, MODEL), cut(&load, MODEL)));
            page.paragraph(2, "", Tone::Plain, &format!("baseline: {}", configuration(&baseline.axes)));
            page.gap();
            last = Some(key);
        }
        lines.push((Tone::Plain, vec![configuration(&row.axes), ratio(output_throughput), ratio(ttft), ratio(tpot)]));
    }
    columns::put(page, &columns, lines);
}

fn put_bests(page: &mut Page, bests: &[Best<'_>], name: impl Fn(&Row) -> String) {
    let columns = [Column::text("Best by"), Column::figures("Value"), Column::text("Configuration")];
    let mut lines = Vec::new();
    for best in bests {
        let repeated = best.basis != Basis::Single;
        for (i, (row, own)) in best.rows.iter().take(TIES).enumerate() {
            let unit = best.metric.unit();
            let label = match (i, repeated) {
                (0, true) => format!("{} (mean of {})", best.metric.label(), best.measurements),
                (0, false) => best.metric.label().to_owned(),
                _ => String::new(),
            };
            let value = if i > 0 && !repeated { "same".to_owned() } else { quantity(*own, unit) };
            let apart = if i > 0 && repeated { "  (not told apart)" } else { "" };
            lines.push((Tone::Good, vec![label, value, format!("{}{apart}", name(row))]));
        }
        if let Some(more @ 1..) = best.rows.len().checked_sub(TIES) {
            let how = if repeated { "not told apart either" } else { "more" };
            lines.push((Tone::Good, vec![String::new(), String::new(), format!("and {more} {how}")]));
        }
    }
    columns::put(page, &columns, lines);
    let notes: Vec<String> = bests.iter().filter_map(doubt_of).collect();
    if !notes.is_empty() {
        page.gap();
    }
    for note in notes {
        page.paragraph(2, "", Tone::Faint, &note);
    }
}

/// How far the best by a figure can be trusted.
fn doubt_of(best: &Best<'_>) -> Option<String> {
    let mut said = Vec::new();
    let what = best.metric.label();
    if let (Some(noise), 2..) = (best.noise, best.rows.len()) {
        let more = match best.repeats_needed {
            Some(repeats) => format!("{} of each would tell the first two apart", counted(repeats, "repeat")),
            None => "more repeats would hardly tell the first two apart".to_owned(),
        };
        said.push(format!(
            "{what}: {} cannot be told apart (95 %, noise {:.1} %); {more}",
            counted(best.rows.len(), "configuration"),
            noise * 100.0
        ));
    }
    if best.basis == Basis::RunsOfOneStart {
        said.push(format!(
            "{what}: repeats of one server start each, so what a start has of its own is not in the noise"
        ));
    }
    if best.barred > 0 {
        said.push(format!(
            "{what}: {} with a better figure, left out for doubts about it",
            counted(best.barred, "row")
        ));
    }
    (!said.is_empty()).then(|| said.join(". ") + ".")
}

/// Rows whose figures are doubtful, each with what was seen.
pub(super) fn doubts(page: &mut Page, table: &RunTable) {
    let doubtful: Vec<&Row> = table.rows.iter().filter(|row| !told(row).is_empty()).collect();
    if doubtful.is_empty() {
        return;
    }
    page.heading(&caption("Doubts", table));
    for row in doubtful {
        let texts: Vec<String> = told(row)
            .iter()
            .map(|doubt| format!("{}{}", doubt.text, if doubt.kind.bars() { " (never called best)" } else { "" }))
            .collect();
        page.paragraph(2, "! ", Tone::Warning, &format!("{}: {}", cut(&row.name, MODEL), texts.join("; ")));
    }
}

/// The doubts of a row but the one that stands in every heading.
fn told(row: &Row) -> Vec<&Doubt> {
    row.about.doubts.iter().filter(|doubt| doubt.kind != DoubtKind::Simulated).collect()
}

/// How repeats of the same configuration differ, and what difference that lets one see.
pub(super) fn noise(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let mut groups: indexmap::IndexMap<String, Vec<&Row>> = indexmap::IndexMap::new();
    for row in rows.iter().filter(|row| row.repeat.is_some()) {
        if let Some(identity) = &row.identity {
            groups.entry(identity.to_string()).or_default().push(row);
        }
    }
    let columns = [
        Column::text("Figure"),
        Column::figures("n"),
        Column::figures("Mean"),
        Column::figures("95 % interval"),
        Column::figures("Starts"),
        Column::figures("Runs"),
        Column::figures("3 tell"),
        Column::figures("10 tell"),
    ];
    let mut begun = false;
    let repeated: Vec<&Vec<&Row>> = groups.values().filter(|rows| rows.len() > 1).collect();
    for rows in repeated.iter().take(MOST_NOISE) {
        let Some(first) = rows.first() else { continue };
        if !begun {
            page.heading(&caption("Repeats of the same configuration", table));
            begun = true;
        }
        page.gap();
        page.line(Tone::Heading, &format!("  {}", cut(&first.name, MODEL)));
        page.gap();
        let lines = RANKED.into_iter().filter_map(|metric| {
            let starts = starts_of(rows, metric)?;
            let of = over_starts(&starts)?;
            let parts = components(&starts);
            let share = |value: Option<f64>| {
                value
                    .filter(|_| of.mean != 0.0)
                    .map_or(ABSENT.to_owned(), |v| format!("{:.1} %", 100.0 * v / of.mean.abs()))
            };
            let spread = of.sd.map(|sd| sd / of.mean.abs());
            let tells = |n: usize| {
                let least = spread.and_then(|spread| resolvable(spread, n));
                least.map_or(ABSENT.to_owned(), |least| format!("{:.1} %", 100.0 * least))
            };
            let interval = of.interval.map_or(ABSENT.to_owned(), |interval| {
                format!("{} to {}", figure(interval.low, metric.unit()), figure(interval.high, metric.unit()))
            });
            let between = parts.map(|parts| parts.between_starts).or(of.sd.filter(|_| starts.len() > 1));
            let within = parts.map(|parts| parts.within_start).or(of.sd.filter(|_| starts.len() == 1));
            Some((
                Tone::Plain,
                vec![
                    metric.label().to_owned(),
                    of.n.to_string(),
                    figure(of.mean, metric.unit()),
                    interval,
                    share(between),
                    share(within),
                    tells(3),
                    tells(10),
                ],
            ))
        });
        columns::put(page, &columns, lines.collect());
    }
    if begun {
        page.gap();
        if let Some(more @ 1..) = repeated.len().checked_sub(MOST_NOISE) {
            page.paragraph(
                2,
                "",
                Tone::Faint,
                &format!("and {more} more: `results_summary.csv` has every measurement"),
            );
        }
        let text = "Starts, Runs: standard deviation between server starts, and between measurements on one start. 3 tell, 10 \
                    tell: the smallest difference that so many repeats of each of two configurations show with a probability of \
                    80 %, at an error of 5 %.";
        page.paragraph(2, "", Tone::Faint, text);
    }
}
