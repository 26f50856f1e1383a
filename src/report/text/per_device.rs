//! What each configuration yields per device and user, and what a billion tokens take.

use super::super::columns::{self, Column};
use super::super::display::{ABSENT, configuration, counted, cut, figure};
use super::super::page::{Page, Tone};
use super::figures::caption;
use crate::analyse::{BaselineRule, Figure, Row, RunTable, Unit, baseline, load_labels, settings};

/// The columns: key and short heading. Money and speed-up are left out where no row has them.
const COLUMNS: [(&str, &str); 7] = [
    ("output_tps_per_gpu", "tok/s/dev"),
    ("output_tps_per_user", "tok/s/user"),
    ("gpu_days_to_process_1b_tokens", "dev-days/1e9"),
    ("gpus_for_1b_tokens_per_hour", "devs 1e9/h"),
    ("startup_s", "start s"),
    ("cost_per_1m_output_tokens", "cost/1e6"),
    ("speedup", "speed-up"),
];

/// One line per configuration whose devices are known; repeats with their mean.
pub(super) fn put(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let known: Vec<&Row> = rows.iter().copied().filter(|row| row.figure("output_tps_per_gpu").is_some()).collect();
    if known.is_empty() {
        return;
    }
    page.heading(&caption("Per device and user", table));
    let there = |key: &str| known.iter().any(|row| row.figure(key).is_some());
    // A line stays below 120 columns: the price says what the number of devices would.
    let crowded = |key: &str| key == "gpus_for_1b_tokens_per_hour" && there("cost_per_1m_output_tokens");
    let shown: Vec<(&str, &str)> = COLUMNS.into_iter().filter(|(key, _)| there(key) && !crowded(key)).collect();
    let columns: Vec<(&str, Option<Unit>)> =
        shown.iter().map(|(key, _)| (*key, Figure::of(key).map(|figure| figure.unit))).collect();
    let speedup = there("speedup");
    let mut shape = vec![Column::text("Configuration"), Column::figures("Devs")];
    shape.extend(shown.iter().map(|(_, title)| Column::figures(*title)));
    for (model, measured) in by_model(&known) {
        page.line(Tone::Heading, &format!("  {}", cut(model, 90)));
        page.gap();
        let all: Vec<&Row> = measured.concat();
        let lines = measured.into_iter().map(|rows| (Tone::Plain, line(&rows, &columns)));
        columns::put(page, &shape, lines.collect());
        page.gap();
        if speedup {
            against(page, &all);
        }
    }
    let money = table.rows.iter().find_map(|row| row.about.currency.as_deref());
    let money = money.map(|currency| format!(" cost/1e6: {} for a million output tokens.", cut(currency, 20)));
    let text = format!(
        "Devices: tensor x pipeline x data parallel size. dev-days/1e9, devs 1e9/h: what 1e9 output tokens take, and take in an \
         hour. No server start is in any throughput.{}",
        money.unwrap_or_default()
    );
    page.paragraph(2, "", Tone::Faint, &text);
    if let Some(others @ 1..) = rows.len().checked_sub(known.len()) {
        page.paragraph(
            2,
            "",
            Tone::Faint,
            &format!("{} without: the number of devices is not known.", counted(others, "row")),
        );
    }
}

/// Names what the speed-up of each load is over.
fn against(page: &mut Page, rows: &[&Row]) {
    let mut loads: indexmap::IndexMap<String, Vec<&Row>> = indexmap::IndexMap::new();
    for (row, load) in rows.iter().zip(load_labels(rows)) {
        loads.entry(load).or_default().push(row);
    }
    for (load, rows) in loads {
        let Some(base) = baseline(&rows) else { continue };
        let rule = match base.rule {
            BaselineRule::Asked => "as `--baseline` says",
            BaselineRule::Sweep => "the baseline of the sweep",
            BaselineRule::Plainest => "the first plain configuration of tp 1, 2, 4, 8",
        };
        let at = if load.is_empty() { load } else { format!(" at {}", cut(&load, 60)) };
        let text = format!("speed-up{at}: per device, over {} ({rule}).", configuration(&base.row.axes));
        page.paragraph(2, "", Tone::Faint, &text);
    }
    page.gap();
}

/// Configurations of each model, in order of appearance.
fn by_model<'a>(rows: &[&'a Row]) -> indexmap::IndexMap<&'a str, Vec<Vec<&'a Row>>> {
    let mut models: indexmap::IndexMap<&str, Vec<Vec<&Row>>> = indexmap::IndexMap::new();
    for measured in settings(rows) {
        if let Some(first) = measured.first() {
            models.entry(first.axes.model.as_str()).or_default().push(measured);
        }
    }
    models
}

#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
fn line(rows: &[&Row], columns: &[(&str, Option<Unit>)]) -> Vec<String> {
    let first = rows.first();
    let load = first.map(|row| row.workload_label()).unwrap_or_default();
    let load = if load.is_empty() { load } else { format!(", {load}") };
    let name = first.map(|row| configuration(&row.axes)).unwrap_or_default();
    let devices = first.and_then(|row| row.about.devices).map_or(ABSENT.into(), |devices| devices.to_string());
    let mut cells = vec![cut(&format!("{name}{load}"), 42), devices];
    for (key, unit) in columns {
        let values: Vec<f64> = rows.iter().filter_map(|row| row.figure(key)).collect();
        let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        let shown = mean.zip(*unit).map(|(value, unit)| figure(value, unit));
        cells.push(shown.unwrap_or_else(|| ABSENT.to_owned()));
    }
    cells
}
