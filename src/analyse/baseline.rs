//! Every configuration against the baseline: the one that the sweep calls so, or that the user names.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::inference::over_starts;
use super::optimize::by_model_and_load;
use super::rank::{settings, starts_of};
use super::{Row, RunTable, group_keys, load_labels};
use crate::model::VllmMetric;

/// The key that names an experiment rather than a setting.
pub const NAME: &str = "name";

/// Why no baseline can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmarked {
    /// No row has this key.
    Key {
        /// The key.
        key: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No row has this value.
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Those that there are, in the order of the rows.
        known: Vec<String>,
    },
    /// Each is there, but no row has all of them.
    Together {
        /// The row that has most of them.
        nearest: String,
        /// What it has otherwise: key and value.
        otherwise: Vec<(String, String)>,
    },
    /// Two configurations of the same model and load have all of them.
    Ambiguous {
        /// Their names.
        names: [String; 2],
        /// A setting in which they differ, with its two values.
        differ: Option<(String, [String; 2])>,
    },
}

/// The value of a row under a key, in words; what is not set is `default`.
fn value_of(row: &Row, key: &str) -> String {
    match key {
        NAME => row.name.clone(),
        _ => row.setting(key).map_or_else(|| "default".to_owned(), std::borrow::Cow::into_owned),
    }
}

/// Whether two values are the same: as texts, numbers (`0.9` and `0.90`) or JSON.
fn is_same(a: &str, b: &str) -> bool {
    let numbers = a.parse::<f64>().ok().zip(b.parse::<f64>().ok());
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok().filter(serde_json::Value::is_object);
    a == b
        || numbers.is_some_and(|(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()))
        || json(a).is_some_and(|a| json(b).as_ref() == Some(&a))
}

/// Makes the configuration with these settings (key and value; [`NAME`] = an experiment) what others are compared with, in place of the
/// sweep's. Returns the models and loads that have none, or none with a valid result: they are compared with nothing.
///
/// # Errors
/// When no row has these settings, or several configurations of one model and load have. Then nothing is changed.
pub fn mark_baseline(table: &mut RunTable, asked: &[(String, String)]) -> Result<Vec<String>, Unmarked> {
    let rows: Vec<&Row> = table.rows.iter().filter(|row| !row.is_skipped()).collect();
    let known = group_keys(table);
    let has = |row: &Row, (key, value): &(String, String)| is_same(&value_of(row, key), value);
    for (key, value) in asked {
        if key != NAME && rows.iter().all(|row| row.setting(key).is_none()) {
            let known = known.iter().filter(|key| rows.iter().any(|row| row.setting(key).is_some())).cloned();
            return Err(Unmarked::Key { key: key.clone(), known: known.collect() });
        }
        if !rows.iter().any(|row| has(row, &(key.clone(), value.clone()))) {
            let known: indexmap::IndexSet<String> = rows.iter().map(|row| value_of(row, key)).collect();
            return Err(Unmarked::Value { key: key.clone(), value: value.clone(), known: known.into_iter().collect() });
        }
    }
    let matches = |row: &Row| asked.iter().all(|one| has(row, one));
    if !rows.iter().any(|row| matches(row)) {
        let held = |row: &Row| asked.iter().filter(|one| has(row, one)).count();
        let most = rows.iter().map(|row| held(row)).max().unwrap_or(0);
        let nearest = rows.iter().find(|row| held(row) == most);
        let others = |row: &Row| -> Vec<(String, String)> {
            asked.iter().filter(|one| !has(row, one)).map(|(key, _)| (key.clone(), value_of(row, key))).collect()
        };
        return Err(Unmarked::Together {
            nearest: nearest.map(|row| row.name.clone()).unwrap_or_default(),
            otherwise: nearest.map(|row| others(row)).unwrap_or_default(),
        });
    }
    let (mut marked, mut without) = (Vec::new(), Vec::new());
    for ((model, load), indices) in by_model_and_load(&rows) {
        let all: Vec<&Row> = indices.iter().filter_map(|index| rows.get(*index).copied()).collect();
        let found: Vec<Vec<&Row>> =
            settings(&all).into_iter().filter(|rows| rows.iter().any(|row| matches(row))).collect();
        if let [first, second, ..] = found.as_slice()
            && let (Some(first), Some(second)) = (first.first(), second.first())
        {
            let differ = known.iter().find(|key| !is_same(&value_of(first, key), &value_of(second, key)));
            let differ = differ.map(|key| (key.clone(), [value_of(first, key), value_of(second, key)]));
            return Err(Unmarked::Ambiguous { names: [first.name.clone(), second.name.clone()], differ });
        }
        let own = found.concat();
        if !own.iter().any(|row| row.is_valid()) && all.iter().any(|row| row.is_valid()) {
            let load = if load.is_empty() { load } else { format!(", at {load}") };
            without.push(format!("{model}{load}"));
        }
        marked.extend(own.into_iter().map(std::ptr::from_ref));
    }
    let marked: std::collections::HashSet<*const Row> = marked.into_iter().collect();
    let marks: Vec<bool> = table.rows.iter().map(|row| marked.contains(&std::ptr::from_ref(row))).collect();
    for (row, mark) in table.rows.iter_mut().zip(marks) {
        row.baseline = mark;
        row.about.baseline_asked = true;
    }
    Ok(without)
}

/// One configuration against the baseline of its model and load.
#[derive(Debug, Clone, PartialEq)]
pub struct Against<'a> {
    /// Its first measurement.
    pub row: &'a Row,
    /// The first measurement of the baseline.
    pub baseline: &'a Row,
    /// Mean output throughput over the baseline's; above 1 = faster.
    pub output_throughput: Option<f64>,
    /// Mean TTFT over the baseline's; below 1 = faster.
    pub ttft: Option<f64>,
    /// Mean TPOT over the baseline's; below 1 = faster.
    pub tpot: Option<f64>,
}

/// Compares valid rows with the baseline of the same model and load: the first of several that has a valid result, in
/// the order of the plan. Repeats count with their mean.
pub fn against_baseline<'a>(rows: &[&'a Row]) -> Vec<Against<'a>> {
    let mut settings: IndexMap<(&str, String, String), Vec<&'a Row>> = IndexMap::new();
    let labels = load_labels(rows);
    for ((i, row), load) in rows.iter().enumerate().zip(labels).filter(|((_, row), _)| row.is_valid()) {
        let identity = row.identity.as_ref().map_or_else(|| i.to_string(), ToString::to_string);
        settings.entry((row.axes.model.as_str(), load, identity)).or_default().push(row);
    }
    let mut baselines: HashMap<(&str, &str), &Vec<&'a Row>> = HashMap::new();
    for ((model, load, _), rows) in &settings {
        if rows.iter().any(|row| row.baseline) {
            baselines.entry((model, load.as_str())).or_insert(rows);
        }
    }
    let mut compared = Vec::new();
    for ((model, load, _), measured) in &settings {
        let Some(baseline) = baselines.get(&(*model, load.as_str())) else { continue };
        let (Some(row), Some(first)) = (measured.first(), baseline.first()) else { continue };
        if row.identity == first.identity {
            continue;
        }
        let ratio = |metric| Some(mean(measured, metric)? / mean(baseline, metric).filter(|value| *value > 0.0)?);
        compared.push(Against {
            row,
            baseline: first,
            output_throughput: ratio(VllmMetric::OutputThroughput),
            ttft: ratio(VllmMetric::MeanTtft),
            tpot: ratio(VllmMetric::MeanTpot),
        });
    }
    compared
}

/// The mean over starts, as in every answer.
fn mean(rows: &[&Row], metric: VllmMetric) -> Option<f64> {
    starts_of(rows, metric).and_then(|starts| over_starts(&starts)).map(|of| of.mean)
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::row;
    use super::*;
    use crate::model::{Context, Engine};
    use crate::plan::fixture::axis;
    use crate::plan::{Sweep, expand};

    #[test]
    fn a_configuration_is_compared_with_the_first_baseline_that_works() {
        let mut sweep = Sweep::new(Engine::Vllm);
        sweep.context = Context::default();
        sweep.groups.push(crate::plan::Group {
            serve: vec![axis("model", "a"), axis("tensor-parallel-size", "1,2,4")],
            ..crate::plan::Group::default()
        });
        let identities: Vec<_> = expand(&sweep).experiments.into_iter().map(|e| e.identity).collect();
        let mut rows = [row("a", 1, 1.0, 8.0), row("a", 2, 1.0, 10.0), row("a", 4, 1.0, 5.0)];
        for (row, identity) in rows.iter_mut().zip(identities) {
            row.identity = Some(identity);
        }
        (rows[0].baseline, rows[1].baseline) = (true, true);
        rows[0].status = super::super::Status::NotRun;
        let rows: Vec<&Row> = rows.iter().collect();
        let against = against_baseline(&rows);
        assert_eq!(against.len(), 1);
        assert_eq!((against[0].row.name.as_str(), against[0].baseline.name.as_str()), ("a_tp4", "a_tp2"));
        assert_eq!((against[0].ttft, against[0].tpot), (Some(0.5), None));
    }

    fn asked(words: &[(&str, &str)]) -> Vec<(String, String)> {
        words.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Two loads; under each a small, a plain and a large one, of which the sweep marks the plain one.
    fn several() -> RunTable {
        let mut rows = Vec::new();
        for (load, scale) in [("8", 1.0), ("64", 10.0)] {
            for (seqs, tps) in [("64", 50.0), ("256", 100.0), ("0.50", 400.0)] {
                let mut row = row("a", 1, 1.0, 1.0);
                row.name = format!("seqs-{seqs}-at-{load}");
                row.axes.server = vec![("max-num-seqs".into(), seqs.into())];
                row.axes.workload = vec![("max-concurrency".into(), load.into())];
                row.metrics.set(VllmMetric::OutputThroughput, Some(scale * tps));
                row.about.devices = Some(1);
                row.baseline = seqs == "256";
                rows.push(row);
            }
        }
        let mut table = super::super::table::tests::table_of(rows);
        super::super::derive(&mut table, &super::super::Assumptions::default());
        table
    }

    fn speedups(table: &RunTable) -> Vec<Option<f64>> {
        table.rows.iter().map(|row| row.metric("speedup")).collect()
    }

    #[test]
    fn what_the_user_names_is_compared_with_and_nothing_takes_its_place() {
        let mut table = several();
        let again = |table: &mut RunTable| super::super::derive(table, &super::super::Assumptions::default());
        assert_eq!(speedups(&table), [0.5, 1.0, 4.0, 0.5, 1.0, 4.0].map(Some));
        // Of each load its own: 50 and 500 tokens a second.
        assert_eq!(mark_baseline(&mut table, &asked(&[("max-num-seqs", "64")])), Ok(vec![]));
        again(&mut table);
        assert_eq!(speedups(&table), [1.0, 2.0, 8.0, 1.0, 2.0, 8.0].map(Some));
        let rows: Vec<&Row> = table.rows.iter().take(3).collect();
        assert_eq!(super::super::baseline(&rows).map(|base| base.rule), Some(super::super::BaselineRule::Asked));
        // Numbers are compared as numbers, and a name is that of one load.
        let half = asked(&[("max-num-seqs", "0.5"), ("name", "seqs-0.50-at-64")]);
        assert_eq!(mark_baseline(&mut table, &half), Ok(vec!["a, at max-concurrency 8".to_owned()]));
        again(&mut table);
        assert_eq!(speedups(&table), [None, None, None, Some(0.125), Some(0.25), Some(1.0)]);
        // One that failed is replaced by no other.
        table.rows[0].status = super::super::Status::NotRun;
        let found = mark_baseline(&mut table, &asked(&[("max-num-seqs", "64")]));
        assert_eq!(found, Ok(vec!["a, at max-concurrency 8".to_owned()]));
        again(&mut table);
        assert_eq!(speedups(&table)[1..4], [None, None, Some(1.0)]);
    }

    #[test]
    fn what_is_no_configuration_or_two_is_refused_and_changes_nothing() {
        let mut table = several();
        let before = table.clone();
        let mut refused = |words: &[(&str, &str)]| mark_baseline(&mut table, &asked(words)).unwrap_err();
        let Unmarked::Key { key, known } = refused(&[("max-num-seq", "64")]) else { panic!("a key") };
        assert_eq!((key.as_str(), known.contains(&"max-num-seqs".to_owned())), ("max-num-seq", true));
        assert_eq!(
            refused(&[("max-num-seqs", "65")]),
            Unmarked::Value {
                key: "max-num-seqs".into(),
                value: "65".into(),
                known: ["64", "256", "0.50"].map(str::to_owned).into()
            }
        );
        assert_eq!(
            refused(&[("max-num-seqs", "64"), ("name", "seqs-256-at-8")]),
            Unmarked::Together {
                nearest: "seqs-64-at-8".into(),
                otherwise: vec![("name".into(), "seqs-64-at-8".into())]
            }
        );
        assert_eq!(
            refused(&[("tensor-parallel-size", "1")]),
            Unmarked::Ambiguous {
                names: ["seqs-64-at-8".into(), "seqs-256-at-8".into()],
                differ: Some(("max-num-seqs".into(), ["64".into(), "256".into()]))
            }
        );
        assert_eq!(table, before);
    }
}
