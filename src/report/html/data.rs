//! The data block that the script reads: settings by number, metrics rounded to six digits, every command word once.

use std::collections::HashMap;

use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value, json};

use super::super::display::{clean, cut};
use super::super::export::{Analysis, status as status_key};
use super::super::front::front;
use super::super::plot::Round;
use super::super::text::status;
use super::shell;
use super::table::{Columns, Setting, told};
use crate::analyse::{Answer, Estimate, Row, RunTable, Standing, Status, by_model_and_load, over_starts, starts_by};
use crate::model::{Better, Metric};

/// Everything the script shows, as JSON that may stand inside a `script` element.
pub(super) fn block(analysis: &Analysis<'_>, columns: &Columns) -> String {
    let (table, wanted) = (analysis.table, &analysis.wanted);
    let Columns { settings, metrics, shown } = columns;
    let mut words = IndexSet::new();
    let groups = groups(table);
    let all = table.is_all_simulated();
    let of_row = |(index, row): (usize, &Row)| one(index, row, settings, metrics, &mut words, all);
    let rows: Vec<Value> = table.rows.iter().enumerate().map(of_row).collect();
    let value = json!({
        "run": clean(&table.facts.run),
        "simulated": table.is_all_simulated(),
        "metrics": metrics.iter().map(described).collect::<Vec<Value>>(),
        "shown": shown,
        "settings": settings.iter().map(|setting| json!({
            "key": setting.key, "short": short_key(&setting.key), "values": setting.values, "varies": setting.varies, "load": setting.load,
        })).collect::<Vec<Value>>(),
        "phases": phases(table),
        "rows": rows,
        "groups": groups.iter().map(|rows| group(table, rows, metrics)).collect::<Vec<Value>>(),
        "fronts": fronts(table, &groups, metrics),
        "round": round(columns, table),
        "words": words,
        "choices": choices(table, analysis.answers()),
        "rank_by": wanted.rank_by,
        "latency": wanted.latency,
    });
    escaped(&value.to_string())
}

/// A key beside many others: the three that stand in every line are short there, as in the other reports.
fn short_key(key: &str) -> &str {
    match key {
        "tensor-parallel-size" => "tp",
        "quantization" => "quant",
        "enforce-eager" => "eager",
        other => other,
    }
}

/// JSON without the characters that mean something to HTML or to old readers of JavaScript.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn described(metric: &Metric) -> Value {
    let better = match metric.better {
        Some(Better::Higher) => 1,
        Some(Better::Lower) => -1,
        None => 0,
    };
    json!({"key": metric.key, "label": metric.label, "unit": metric.unit.symbol(), "better": better})
}

/// Six digits: more than any metric is exact to, and a third of the bytes.
fn rounded(value: Option<f64>) -> Value {
    value.and_then(|value| format!("{value:.5e}").parse::<f64>().ok()).map_or(Value::Null, short)
}

/// Whole numbers without a point.
fn short(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn one(
    index: usize,
    row: &Row,
    settings: &[Setting],
    metrics: &[Metric],
    words: &mut IndexSet<String>,
    all_simulated: bool,
) -> Value {
    let mut out = Map::new();
    out.insert("n".into(), json!(clean(&row.name)));
    out.insert("s".into(), json!(status_key(&row.status)));
    out.insert("t".into(), json!(clean(&status(row))));
    out.insert("v".into(), json!(settings.iter().map(|setting| setting.of_row[index]).collect::<Vec<_>>()));
    let values: Vec<Value> = metrics.iter().map(|metric| rounded(row.metric(&metric.key))).collect();
    if values.iter().any(|value| !value.is_null()) {
        out.insert("f".into(), json!(values));
    }
    if let Some(repeat) = row.repeat {
        out.insert("r".into(), json!([repeat.start, repeat.run]));
    }
    let warnings: Vec<String> = told(row).map(|warning| cut(&warning.text, 200)).collect();
    if !warnings.is_empty() {
        out.insert("d".into(), json!(warnings));
    }
    // Beside real rows a simulated one is never compared.
    if row.is_valid() && (!row.may_be_best() || row.simulated && !all_simulated) {
        out.insert("b".into(), json!(1));
    }
    if row.baseline {
        out.insert("base".into(), json!(1));
    }
    if let Status::Skipped { reason, .. } = &row.status {
        out.insert("why".into(), json!(cut(reason, 200)));
    }
    if let Some(timings) = &row.timings {
        let seconds = [timings.startup, timings.benchmark, Some(timings.total)];
        out.insert("q".into(), json!(seconds.map(rounded)));
        let steps = &timings.startup_phases;
        if !steps.is_empty() {
            let steps: Vec<Value> =
                steps.iter().map(|step| json!([step.phase.word(), rounded(Some(step.seconds))])).collect();
            out.insert("p".into(), json!(steps));
        }
    }
    for (key, command) in [("c", &row.start_command()), ("k", &row.about.bench_command)] {
        if !command.is_empty() {
            let numbers: Vec<usize> = command.iter().map(|word| words.insert_full(shell::word(word)).0).collect();
            out.insert(key.into(), json!(numbers));
        }
    }
    Value::Object(out)
}

/// The phases of a start, in the order in which the rows have them.
fn phases(table: &RunTable) -> IndexSet<&'static str> {
    let steps = table.rows.iter().filter_map(|row| row.timings.as_ref()).flat_map(|timings| &timings.startup_phases);
    let mut phases: Vec<_> = steps.map(|step| step.phase).collect();
    phases.sort_unstable();
    phases.into_iter().map(crate::model::StartPhase::word).collect()
}

/// Valid rows of the same settings, where there are several.
fn groups(table: &RunTable) -> Vec<Vec<usize>> {
    let mut groups: IndexMap<String, Vec<usize>> = IndexMap::new();
    for (index, row) in table.rows.iter().enumerate().filter(|(_, row)| row.is_valid() && row.repeat.is_some()) {
        if let Some(identity) = &row.identity {
            groups.entry(identity.to_string()).or_default().push(index);
        }
    }
    groups.into_values().filter(|rows| rows.len() > 1).collect()
}

/// The mean of a metric over repeats; a start counts once, because its measurements share what it has of its own.
fn over_repeats(table: &RunTable, indices: &[usize], metric: &Metric) -> Option<Estimate> {
    let rows: Vec<&Row> = indices.iter().filter_map(|&index| table.rows.get(index)).collect();
    over_starts(&starts_by(&rows, &metric.key)?)
}

/// Means and intervals over repeats.
fn group(table: &RunTable, indices: &[usize], metrics: &[Metric]) -> Value {
    let of_metric = |metric: &Metric| {
        let of = over_repeats(table, indices, metric)?;
        let interval = of.interval.filter(|_| metric.better.is_some());
        let [low, high] = [interval.map(|i| i.low), interval.map(|i| i.high)].map(rounded);
        Some(json!([rounded(Some(of.mean)), low, high, of.n]))
    };
    json!({"rows": indices, "f": metrics.iter().map(of_metric).collect::<Vec<Option<Value>>>()})
}

/// For every two metrics of which one at least is better when it is higher, what no other configuration of the same model and load
/// beats in both: the numbers of the metrics, and for each model and load the first row of each configuration. Configurations with a
/// warning that excludes them are left out, as in every answer.
fn fronts(table: &RunTable, groups: &[Vec<usize>], metrics: &[Metric]) -> Vec<Value> {
    let repeats: HashMap<usize, &Vec<usize>> =
        groups.iter().flat_map(|rows| rows.iter().map(move |row| (*row, rows))).collect();
    let measured = !table.is_all_simulated();
    let counts = |row: &Row| row.may_be_best() && !(measured && row.simulated);
    let configuration = |index: usize| -> Option<(usize, Vec<Option<f64>>)> {
        let own = [index];
        let rows = repeats.get(&index).map_or(&own[..], |rows| rows);
        if rows.first() != Some(&index) || !rows.iter().filter_map(|row| table.rows.get(*row)).all(counts) {
            return None;
        }
        let value = |metric: &Metric| match rows {
            [only] => table.rows.get(*only)?.metric(&metric.key),
            several => over_repeats(table, several, metric).map(|of| of.mean),
        };
        Some((index, metrics.iter().map(value).collect()))
    };
    let rows: Vec<&Row> = table.rows.iter().collect();
    let places: Vec<Vec<(usize, Vec<Option<f64>>)>> = by_model_and_load(&rows)
        .into_values()
        .map(|indices| indices.into_iter().filter_map(configuration).collect())
        .collect();
    let directed = || metrics.iter().enumerate().filter_map(|(at, metric)| Some((at, metric.better?)));
    let pairs = directed().flat_map(|first| directed().map(move |second| (first, second)));
    let pairs = pairs.filter(|((a, first), (b, second))| a < b && [first, second].contains(&&Better::Higher));
    pairs
        .filter_map(|((a, first), (b, second))| {
            let of_place = |place: &Vec<(usize, Vec<Option<f64>>)>| -> Vec<usize> {
                let there = place.iter().filter_map(|(row, of)| Some((*row, (of[a]?, of[b]?))));
                let (rows, points): (Vec<usize>, Vec<(f64, f64)>) = there.unzip();
                front(&points, (first, second)).into_iter().map(|at| rows[at]).collect()
            };
            let all: Vec<Vec<usize>> = places.iter().map(of_place).filter(|rows| rows.len() > 1).collect();
            (!all.is_empty()).then(|| json!([a, b, all]))
        })
        .collect()
}

/// What axes over anything in the page choose their steps from.
fn round(columns: &Columns, table: &RunTable) -> Round {
    let metrics = table.rows.iter().flat_map(|row| columns.metrics.iter().filter_map(|metric| row.metric(&metric.key)));
    let settings =
        columns.settings.iter().flat_map(|setting| setting.values.iter().filter_map(|value| value.parse().ok()));
    let timings = table.rows.iter().filter_map(|row| row.timings.as_ref());
    let seconds = timings.flat_map(|timings| {
        let phases = timings.startup_phases.iter().map(|step| step.seconds);
        [timings.startup, timings.benchmark, Some(timings.total)]
            .into_iter()
            .flatten()
            .chain(phases)
            .collect::<Vec<f64>>()
    });
    let sizes = metrics.chain(settings).chain(seconds).map(f64::abs).filter(|size| size.is_normal());
    let (low, high) = sizes.fold((1.0_f64, 1.0_f64), |(low, high), size| (low.min(size), high.max(size)));
    // A part of an axis may be looked at closely.
    Round::between((low * 1e-3).max(1e-9), (high * 10.0).min(1e15))
}

/// The rows that are recommended, and those that may be the best as well.
fn choices(table: &RunTable, answers: &[Answer<'_>]) -> Value {
    let index_of = |row: &Row| table.rows.iter().position(|other| std::ptr::eq(other, row));
    let (mut best, mut equal) = (Vec::new(), Vec::new());
    for answer in answers {
        let Ok(found) = &answer.choice else { continue };
        best.extend(found.chosen().and_then(|choice| index_of(choice.row)));
        let others = found.options.iter().enumerate().filter(|(index, _)| *index != found.choice);
        let others = others.filter(|(_, option)| option.standing == Standing::MayBeBest);
        equal.extend(others.filter_map(|(_, option)| index_of(option.row)));
    }
    json!({"best": best, "equal": equal})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_block_ends_its_element() {
        let text = escaped(&json!({"a": "</script><!-- & \u{2028}"}).to_string());
        assert!(!text.contains(['<', '>', '&', '\u{2028}']), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["a"], "</script><!-- & \u{2028}");
    }

    #[test]
    fn metrics_have_six_digits_and_whole_ones_no_point() {
        assert_eq!(rounded(Some(1_234.567_89)).to_string(), "1234.57");
        assert_eq!(rounded(Some(20.0)).to_string(), "20");
        assert_eq!(rounded(None), Value::Null);
        assert_eq!(rounded(Some(f64::NAN)), Value::Null);
    }
}
