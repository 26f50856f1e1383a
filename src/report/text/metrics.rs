//! The metrics: statistics, tables by model, and what is best.

use super::super::columns::{self, Column, Table};
use super::super::display::{ABSENT, configuration, counted, cut, eager, in_unit, put_value, quantization, tp};
use super::super::page::{Page, Tone};
use super::caption;
use super::per_device;
use crate::analyse::{
    Against, EAGER, QUANTIZATION, RANKED, RankingSpec, Row, RunTable, Status, TP, Warning, WarningKind,
    against_baseline, bases, by_model_and_load, components, detectable, estimate, level, over_starts, overall,
    samples_beyond, settings, starts_of,
};
use crate::model::{Side, VllmMetric};

/// Names of models in headings.
const MODEL: usize = 90;
/// The status column, so that a line stays below 120 columns.
const STATUS: usize = 36;
/// So many configurations are shown with their repeats.
const MOST_NOISE: usize = 8;
/// A p99 with fewer requests at or beyond it is marked.
const FIRM: u64 = 5;
/// Models and workloads with statistics of their own.
const MOST_STATISTICS: usize = 4;

/// Overall statistics over the rows that compare.
pub(super) fn statistics(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let title = format!("Overall statistics over {}", counted(rows.len(), "valid result"));
    page.heading(&caption(&title, table));
    if rows.is_empty() {
        page.paragraph(2, "", Tone::Plain, "There is no valid result yet.");
        return;
    }
    // Nothing is averaged over models or workloads.
    let groups = by_model_and_load(rows);
    for ((model, load), indices) in groups.iter().take(MOST_STATISTICS) {
        let own: Vec<&Row> = indices.iter().filter_map(|index| rows.get(*index).copied()).collect();
        if groups.len() > 1 {
            let load = if load.is_empty() { String::new() } else { format!(", at {load}") };
            page.gap();
            page.paragraph(2, "", Tone::Heading, &format!("{}{}", cut(model, MODEL), cut(&load, MODEL)));
            page.gap();
        }
        statistics_of(page, &own);
    }
    if let Some(more @ 1..) = groups.len().checked_sub(MOST_STATISTICS) {
        page.paragraph(2, "", Tone::Faint, &format!("and {more} more models and workloads"));
    }
    let out = |is: fn(&Row) -> bool| table.rows.iter().filter(|row| row.is_valid() && is(row)).count();
    let (replaced, before) = (out(|row| row.replaced), out(|row| row.side == Some(Side::Before)));
    let all = table.rows.iter().filter(|row| row.is_valid()).count() - rows.len();
    let whys = [
        (replaced, "measured again alone"),
        (before, "of the side before"),
        (all.saturating_sub(replaced + before), "simulated"),
    ];
    let whys: Vec<String> = whys.into_iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} {why}")).collect();
    if all > 0 {
        page.gap();
        let text = format!("{} left out of the statistics and rankings: {}.", counted(all, "row"), whys.join(", "));
        page.paragraph(2, "! ", Tone::Warning, &text);
    }
}

fn statistics_of(page: &mut Page, rows: &[&Row]) {
    let columns = [
        Column::text("Metric"),
        Column::metrics("Min"),
        Column::metrics("Mean"),
        Column::metrics("Median"),
        Column::metrics("Max"),
        Column::text("Unit"),
    ];
    let lines = overall(rows).into_iter().map(|(metric, stats)| {
        let unit = metric.unit();
        let cells = stats.map_or([ABSENT; 4].map(str::to_owned), |stats| {
            [stats.min, stats.mean, stats.median, stats.max].map(|value| in_unit(value, unit))
        });
        let line = [metric.label().to_owned()].into_iter().chain(cells).chain([unit.symbol().to_owned()]);
        (Tone::Plain, line.collect())
    });
    columns::put(page, &columns, lines.collect());
    // The tail of a small sample is a request or two.
    let fewest = rows.iter().filter_map(|row| row.metrics.get(VllmMetric::Completed)).reduce(f64::min);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    if let Some(requests) = fewest.map(|requests| requests as u64)
        && samples_beyond(requests, 0.99) < FIRM
        && rows.iter().any(|row| row.metrics.get(VllmMetric::P99Ttft).is_some())
    {
        page.gap();
        let on = counted(usize::try_from(samples_beyond(requests, 0.99)).unwrap_or(usize::MAX), "request");
        let text = format!("A p99 of {requests} requests has {on} at or beyond it: it differs much from run to run.");
        page.paragraph(2, "", Tone::Faint, &text);
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
        page.paragraph(2, "", Tone::Heading, &cut(model, MODEL));
        page.gap();
        let keys = varying(&rows);
        let repeats = rows.iter().any(|row| row.repeat.is_some());
        let mut columns: Vec<Column> = keys.iter().map(|key| Column::metrics(heading(key))).collect();
        if repeats {
            columns.extend([Column::metrics("Start"), Column::metrics("Run")]);
        }
        columns.extend(["Req/s", "Out tok/s", "TTFT ms", "TPOT ms"].map(Column::metrics));
        columns.push(Column::text("Status"));
        let mut lines = Table::new(&columns);
        rows.into_iter().for_each(|row| line(&mut lines, row, &keys, repeats));
        lines.put(page);
    }
}

/// The settings that tell the rows apart, server's first, by vLLM's flags.
fn varying<'r>(rows: &[&'r Row]) -> Vec<&'r str> {
    let known = |key: &str| rows.iter().any(|row| row.setting(key).is_some());
    let is_fixed = |key: &str| rows.iter().all(|row| row.about.fixed.has(key));
    let mut keys: Vec<&str> =
        [TP, QUANTIZATION, EAGER].into_iter().filter(|key| known(key) && !is_fixed(key)).collect();
    for (key, _) in rows.iter().flat_map(|row| row.axes.server.iter().chain(&row.axes.workload)) {
        if !keys.contains(&key.as_str()) && !is_fixed(key) {
            keys.push(key);
        }
    }
    keys
}

/// The heading of a setting's column.
fn heading(key: &str) -> String {
    match key {
        TP => "TP".to_owned(),
        QUANTIZATION => "Quant".to_owned(),
        EAGER => "Eager".to_owned(),
        other => other.to_owned(),
    }
}

fn line(table: &mut Table<'_>, row: &Row, keys: &[&str], repeats: bool) {
    table.line(match row.status {
        Status::Valid => Tone::Plain,
        Status::Invalid(_) | Status::Failed(_) => Tone::Bad,
        Status::Skipped { .. } | Status::Interrupted | Status::Running | Status::NotRun => Tone::Faint,
    });
    for key in keys {
        let of_axes = row.axes.server.iter().chain(&row.axes.workload).find(|(known, _)| known == key);
        let value = match *key {
            TP => tp(&row.axes),
            QUANTIZATION => quantization(&row.axes),
            EAGER => eager(&row.axes),
            _ => of_axes.map_or(ABSENT.to_owned(), |(_, value)| cut(value, 20)),
        };
        table.cell(|text| text.push_str(&value));
    }
    if repeats {
        for number in [row.repeat.map(|repeat| repeat.start), row.repeat.map(|repeat| repeat.run)] {
            table.cell(|text| text.push_str(&number.map_or(ABSENT.to_owned(), |number| number.to_string())));
        }
    }
    for metric in RANKED {
        table.cell(|text| match row.metrics.get(metric) {
            Some(value) => put_value(text, value, metric.unit()),
            None => text.push_str(ABSENT),
        });
    }
    let baseline = if row.baseline { ", baseline" } else { "" };
    let suspect = if told(row).is_empty() { "" } else { ", warnings" };
    table.cell(|text| text.push_str(&cut(&format!("{}{suspect}{baseline}", status(row)), STATUS)));
}

/// The status of a row in a few words.
pub(in crate::report) fn status(row: &Row) -> String {
    let beside = match row.about.neighbours {
        _ if row.replaced => ", again alone",
        Some(1..) => ", beside others",
        Some(0) | None => "",
    };
    match &row.status {
        Status::Valid if row.simulated => format!("ok (simulated){beside}"),
        Status::Valid => format!("ok{beside}"),
        Status::Invalid(_) => "invalid result".into(),
        Status::Failed(failed) => failed.cause.map_or("failed".into(), |cause| format!("failed: {cause}")),
        Status::Skipped { .. } => "skipped".into(),
        Status::Interrupted => "interrupted".into(),
        Status::Running => "running".into(),
        Status::NotRun => "not run".into(),
    }
}

/// Every configuration against the baseline of its model and load.
pub(super) fn baseline(page: &mut Page, table: &RunTable, rows: &[&Row], wanted: &RankingSpec) {
    if !table.rows.iter().any(|row| row.baseline) {
        return;
    }
    page.heading(&caption("Against the baseline", table));
    let compared = against_baseline(rows);
    // Beside metrics per device they stand there.
    if rows.iter().all(|row| row.metric("speedup").is_none()) {
        bases(table, wanted).iter().for_each(|base| per_device::excluded(page, base));
    }
    if compared.is_empty() {
        page.paragraph(2, "", Tone::Plain, "No baseline has a valid result, or nothing else has.");
        return;
    }
    let ratio = |value: Option<f64>| value.map_or(ABSENT.to_owned(), |value| format!("{value:.2}x"));
    let mut last: Option<(&str, String)> = None;
    let mut lines: Vec<(Tone, Vec<String>)> = Vec::new();
    let columns =
        [Column::text("Configuration"), Column::metrics("Out tok/s"), Column::metrics("TTFT"), Column::metrics("TPOT")];
    for Against { row, baseline, output_throughput, ttft, tpot } in compared {
        let key = (row.axes.model.as_str(), row.axes.workload_label());
        if last.as_ref() != Some(&key) {
            if !lines.is_empty() {
                columns::put(page, &columns, std::mem::take(&mut lines));
            }
            page.gap();
            let load = if key.1.is_empty() { String::new() } else { format!(", at {}", key.1) };
            page.paragraph(2, "", Tone::Heading, &format!("{}{}", cut(key.0, MODEL), cut(&load, MODEL)));
            page.paragraph(2, "", Tone::Plain, &format!("baseline: {}", configuration(baseline)));
            page.gap();
            last = Some(key);
        }
        lines.push((Tone::Plain, vec![configuration(row), ratio(output_throughput), ratio(ttft), ratio(tpot)]));
    }
    columns::put(page, &columns, lines);
}

/// Rows whose metrics are suspect, each with what was seen.
pub(super) fn warnings_from(page: &mut Page, table: &RunTable) {
    let suspect: Vec<&Row> = table.rows.iter().filter(|row| !told(row).is_empty()).collect();
    if suspect.is_empty() {
        return;
    }
    page.heading(&caption("Warnings", table));
    for row in suspect {
        let texts: Vec<String> = told(row)
            .iter()
            .map(|warning| {
                format!("{}{}", warning.text, if warning.kind.excludes() { " (excluded from the ranking)" } else { "" })
            })
            .collect();
        page.paragraph(2, "! ", Tone::Warning, &format!("{}: {}", cut(&row.name, MODEL), texts.join("; ")));
    }
}

/// The warnings of a row but the one that stands in every heading.
fn told(row: &Row) -> Vec<&Warning> {
    row.about.warnings.iter().filter(|warning| warning.kind != WarningKind::Simulated).collect()
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
        Column::text("Metric"),
        Column::metrics("n"),
        Column::metrics("Mean"),
        Column::metrics("95 % interval"),
        Column::metrics("Starts"),
        Column::metrics("Runs"),
        Column::metrics("MDE 3"),
        Column::metrics("MDE 10"),
    ];
    let rows_of_all = rows;
    let mut begun = false;
    let repeated: Vec<&Vec<&Row>> = groups.values().filter(|rows| rows.len() > 1).collect();
    for rows in repeated.iter().take(MOST_NOISE) {
        let Some(first) = rows.first() else { continue };
        let own = |row: &&&Row| row.axes.model == first.axes.model && row.workload_label() == first.workload_label();
        let beside: Vec<&Row> = rows_of_all.iter().filter(own).copied().collect();
        let level = level(settings(&beside).len());
        if !begun {
            page.heading(&caption("Repeats of the same configuration", table));
            begun = true;
        }
        page.gap();
        page.paragraph(2, "", Tone::Heading, &cut(&first.name, MODEL));
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
                let least = spread.and_then(|spread| detectable(spread, n, level));
                least.map_or(ABSENT.to_owned(), |least| format!("{:.1} %", 100.0 * least))
            };
            let interval = of.interval.map_or(ABSENT.to_owned(), |interval| {
                format!("{} to {}", in_unit(interval.low, metric.unit()), in_unit(interval.high, metric.unit()))
            });
            let between = parts.map(|parts| parts.between_starts).or(of.sd.filter(|_| starts.len() > 1));
            let only = starts.first().filter(|_| starts.len() == 1);
            let within = parts.map(|parts| parts.within_start).or_else(|| estimate(only?)?.sd);
            Some((
                Tone::Plain,
                vec![
                    metric.label().to_owned(),
                    of.n.to_string(),
                    in_unit(of.mean, metric.unit()),
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
        let text = "Starts, Runs: standard deviation between server starts, and between measurements on one start. MDE: minimum \
                    detectable effect, the smallest difference that 3 or 10 starts of each show with a probability of 80 %, at the \
                    level of the comparisons with the best.";
        page.paragraph(2, "", Tone::Faint, text);
    }
}
