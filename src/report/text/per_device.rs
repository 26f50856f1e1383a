//! What each configuration yields per device and user, and what a billion tokens take.

use super::super::columns::{Column, Table};
use super::super::display::{ABSENT, configuration, counted, cut, put_value};
use super::super::page::{Page, Tone};
use super::caption;
use crate::analyse::{Base, BaselineRule, RankingSpec, Row, RunTable, Slot, bases, mean_over_starts, settings};
use crate::model::{Metric, Unit};

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

/// The columns of what was sampled beside the measurements.
const POWER: [(&str, &str); 8] = [
    ("mean_power_w", "mean W"),
    ("max_power_w", "most W"),
    ("idle_power_w", "idle W"),
    ("joules_per_output_token", "J/token"),
    ("output_tokens_per_joule", "tok/J"),
    ("max_temperature_c", "most °C"),
    ("throttled_pct", "throttled %"),
    ("energy_cost_per_1m_output_tokens", "energy/1e6"),
];

/// Of a longer name of a configuration the rest is left out.
const NAME: usize = 240;

/// One line per configuration whose devices are known; repeats with their mean.
pub(super) fn put(page: &mut Page, table: &RunTable, rows: &[&Row], wanted: &RankingSpec) {
    let known: Vec<&Row> = rows.iter().copied().filter(|row| row.metric("output_tps_per_gpu").is_some()).collect();
    if known.is_empty() {
        return;
    }
    page.heading(&caption("Per device and user", table));
    let there = |key: &str| known.iter().any(|row| row.metric(key).is_some());
    // The price says what the number of devices would.
    let crowded = |key: &str| key == "gpus_for_1b_tokens_per_hour" && there("cost_per_1m_output_tokens");
    let shown: Vec<(&'static str, &'static str)> =
        COLUMNS.into_iter().filter(|(key, _)| there(key) && !crowded(key)).collect();
    let speedup = there("speedup");
    let bases = bases(table, wanted);
    tables(page, &known, &shown, |page, model| {
        let own = bases.iter().filter(|base| base.model == model);
        // Where a sweep marks its baseline, a section of its own says what became of it.
        if speedup || !table.rows.iter().any(|row| row.baseline) {
            against(page, own);
        }
    });
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

/// Power and energy of each configuration beside which devices were sampled; repeats with their mean.
pub(super) fn power(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let known: Vec<&Row> = rows.iter().copied().filter(|row| row.metric("mean_power_w").is_some()).collect();
    if known.is_empty() {
        return;
    }
    page.heading(&caption("Power and energy", table));
    let there = |key: &str| known.iter().any(|row| row.metric(key).is_some());
    let shown: Vec<(&'static str, &'static str)> = POWER.into_iter().filter(|(key, _)| there(key)).collect();
    tables(page, &known, &shown, |_, _| {});
    let text = "Watts of all devices of the server together while requests were worked on; idle: before the first, with the model loaded. \
                J/token: joules of an output token.";
    page.paragraph(2, "", Tone::Faint, text);
}

/// A table of these metrics for each model, a line for each configuration; `below` adds what stands under it.
fn tables(
    page: &mut Page,
    rows: &[&Row],
    shown: &[(&'static str, &'static str)],
    mut below: impl FnMut(&mut Page, &str),
) {
    let columns: Vec<(&str, Slot<'_>, Option<Unit>)> =
        shown.iter().map(|(key, _)| (*key, Slot::of(key), Metric::of(key).map(|metric| metric.unit))).collect();
    let mut shape = vec![Column::text("Configuration"), Column::metrics("Devs")];
    shape.extend(shown.iter().map(|(_, title)| Column::metrics(*title)));
    for (model, measured) in by_model(rows) {
        page.paragraph(2, "", Tone::Heading, &cut(model, 90));
        page.gap();
        let mut lines = Table::new(&shape);
        measured.iter().for_each(|rows| line(&mut lines, rows, &columns));
        lines.put(page);
        page.gap();
        below(page, model);
    }
}

/// Where a baseline comes from, in words.
pub(in crate::report) fn baseline_rule(rule: BaselineRule) -> &'static str {
    match rule {
        BaselineRule::Asked => "as `--baseline` says",
        BaselineRule::Sweep => "the baseline of the sweep",
        BaselineRule::Plainest => "the first plain configuration of tp 1, 2, 4, 8",
    }
}

/// Names what the speed-up of each load is over, and the baselines that are excluded.
fn against<'a>(page: &mut Page, bases: impl Iterator<Item = &'a Base<'a>>) {
    for base in bases {
        let at = if base.workload.is_empty() { String::new() } else { format!(" at {}", cut(&base.workload, 60)) };
        if let Some(used) = &base.used {
            let rule = baseline_rule(used.rule);
            let text = format!("speed-up{at}: per device, over {} ({rule}).", configuration(used.row));
            page.paragraph(2, "", Tone::Faint, &text);
        }
        excluded(page, base);
    }
    page.gap();
}

/// That a baseline is excluded.
pub(super) fn excluded(page: &mut Page, base: &Base<'_>) {
    if let Some(warning) = base.warning() {
        let at = if base.workload.is_empty() { String::new() } else { format!("at {}: ", cut(&base.workload, 60)) };
        page.paragraph(2, "! ", Tone::Warning, &format!("{at}{warning}"));
    }
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

fn line(table: &mut Table<'_>, rows: &[&Row], columns: &[(&str, Slot<'_>, Option<Unit>)]) {
    let first = rows.first();
    let load = first.map(|row| row.workload_label()).unwrap_or_default();
    let mut name = first.map(|row| configuration(row)).unwrap_or_default();
    if !load.is_empty() {
        name.push_str(", ");
        name.push_str(&load);
    }
    table.line(Tone::Plain);
    table.cell(|text| text.push_str(&cut(&name, NAME)));
    let devices = first.and_then(|row| row.about.devices);
    table.cell(|text| text.push_str(&devices.map_or(ABSENT.to_owned(), |devices| devices.to_string())));
    for (key, slot, unit) in columns {
        // One measurement needs no look-up of its key: a table may have a hundred thousand of them.
        let mean = if let [only] = rows { only.at(slot) } else { mean_over_starts(rows, key) };
        table.cell(|text| match mean.zip(*unit) {
            Some((value, unit)) => put_value(text, value, unit),
            None => text.push_str(ABSENT),
        });
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::super::super::page::{Style, WIDEST};
    use super::super::super::tests::fixture::Fixture;
    use super::*;
    use crate::analyse::{Assumptions, Prices, derive};
    use crate::model::{Engine, VllmMetric};
    use crate::results::read_run;

    /// The table of a run with every column, whose first configuration has these further settings and this output throughput.
    fn table(settings: &[(&str, &str)], tps: f64) -> String {
        let mut run = Fixture::new(&["org/m"], &[2, 4], Engine::Vllm);
        for index in 0..run.plan.experiments.len() {
            run.pass(index, 1.5, 20.0);
        }
        let run = run.close(10.0);
        let mut table = read_run(run.path()).unwrap();
        let first = &mut table.rows[0];
        first.axes.server = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        first.axes.workload = vec![("max-concurrency".into(), "32".into())];
        first.metrics.set(VllmMetric::OutputThroughput, Some(tps));
        first.baseline = true;
        let prices = Prices { currency: "EUR".into(), default: Some(1.0), ..Prices::default() };
        derive(&mut table, &Assumptions { prices: Some(prices), ..Assumptions::default() });
        let mut page = Page::new(Style::PLAIN);
        put(&mut page, &table, &table.comparable(), &RankingSpec::default());
        page.finish()
    }

    #[test]
    fn no_line_is_too_wide_and_no_setting_is_lost() {
        let long = [
            ("max-num-seqs", "64"),
            ("max-num-batched-tokens", "16384"),
            ("speculative-config", r#"{"method":"ngram","n":6}"#),
            ("a-flag-that-has-a-very-long-name-of-one-word-that-no-line-could-hold", "1"),
        ];
        for (settings, tps) in
            [(&[][..], 48.0), (&long[..1], 48.0), (&long[..], 48.0), (&long[..], 1.9e9), (&long[..], 1e-7)]
        {
            let text = table(settings, tps);
            assert!(text.contains("cost/1e6") && text.contains("speed-up"), "{text}");
            for line in text.lines() {
                assert!(line.width() <= WIDEST, "{} columns: {line}\n{text}", line.width());
            }
            // Broken within words as well: blanks are no part of what must be there.
            let dense: String = text.split_whitespace().collect();
            for (key, value) in settings {
                assert!(text.contains(value) || dense.contains(value), "{key} {value}\n{text}");
            }
            assert!(text.contains("max-concurrency 32") || dense.contains("max-concurrency32"), "{text}");
        }
    }
}
