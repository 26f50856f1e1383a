//! Which configurations of two runs are the same: by all settings, by all but some, or by some alone. Pure.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::{LoadValue, Row, RunTable};

/// What makes two configurations the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pairing {
    /// All of their settings.
    #[default]
    All,
    /// All but these.
    Ignore(Vec<String>),
    /// These alone.
    Match(Vec<String>),
}

/// Settings by name: flags of server and client, `env.NAME`, `model`, `client`, `engine`.
pub type Described = BTreeMap<String, String>;

/// What a configuration is by its settings, as far as its results say. What was counted (tokens of a prompt) is in steps of a fifth, as it
/// varies between measurements.
pub fn described(row: &Row) -> Described {
    const WITHOUT_EFFECT: [&str; 2] = ["port", "host"];
    let mut all = Described::new();
    let about = &row.about;
    let load = row.load.0.iter().map(|(key, value)| {
        let text = match value {
            LoadValue::Exact(text) => text.clone(),
            LoadValue::About(count) => format!("about {:.0}", 1.2f64.powf(count.max(1.0).log(1.2).round())),
        };
        (key.clone(), text)
    });
    let flags = about.flags.iter().map(|(key, value)| (key.clone(), value.clone()));
    let variables = about.serve_environment.iter().map(|(key, value)| (format!("env.{key}"), value.clone()));
    all.extend(load.chain(flags).chain(variables).chain(row.axes.server.iter().chain(&row.axes.workload).cloned()));
    for key in ["model", "tensor-parallel-size", "quantization", "enforce-eager"] {
        all.extend(row.setting(key).map(|value| (key.to_owned(), value.into_owned())));
    }
    all.extend(about.client.map(|client| ("client".to_owned(), client.to_string())));
    all.extend(about.engine.map(|engine| ("engine".to_owned(), engine.to_string())));
    all.retain(|key, _| !WITHOUT_EFFECT.contains(&key.as_str()));
    all
}

/// Rows of a run by what makes them the same; repeats together.
pub type Groups<'a> = IndexMap<String, Vec<&'a Row>>;

/// The key of all settings. Files whose settings nobody recorded are the same where they say the same; by their names where they say nothing.
fn all_settings(row: &Row) -> String {
    match &row.about.settings {
        Some(settings) => settings.to_string(),
        None if row.load.0.is_empty() => format!("{} {:?}", row.name, described(row)),
        None => format!("{:?}", described(row)),
    }
}

/// Planned rows by what they measured.
pub fn groups<'a>(table: &'a RunTable, pairing: &Pairing) -> Groups<'a> {
    let mut groups = Groups::new();
    for row in table.judged() {
        let key = match pairing {
            Pairing::All => all_settings(row),
            Pairing::Ignore(keys) => {
                let mut all = described(row);
                all.retain(|key, _| !keys.contains(key));
                format!("{all:?}")
            }
            Pairing::Match(keys) => {
                let mut all = described(row);
                all.retain(|key, _| keys.contains(key));
                format!("{all:?}")
            }
        };
        groups.entry(key).or_default().push(row);
    }
    groups
}

/// The settings, each with its values, in which configurations of one run differ that the pairing makes the same: they are no repeats of each
/// other. Empty where there are none.
pub fn ambiguous(table: &RunTable, pairing: &Pairing) -> Vec<(String, Vec<String>)> {
    if *pairing == Pairing::All {
        return Vec::new();
    }
    let several = |rows: &Vec<&Row>| rows.iter().map(|row| all_settings(row)).collect::<BTreeSet<_>>().len() > 1;
    let Some(rows) = groups(table, pairing).into_values().find(several) else { return Vec::new() };
    let all: Vec<Described> = rows.into_iter().map(described).collect();
    let keys: BTreeSet<&String> = all.iter().flat_map(Described::keys).collect();
    let values = |key: &String| -> BTreeSet<String> { all.iter().map(|of| value(of, key)).collect() };
    let all = keys.into_iter().map(|key| (key.clone(), values(key).into_iter().collect::<Vec<_>>()));
    all.filter(|(_, values)| values.len() > 1).collect()
}

/// A setting, or that it is not set.
fn value(of: &Described, key: &str) -> String {
    of.get(key).cloned().unwrap_or_else(|| "not set".to_owned())
}

/// The settings in which the two most alike configurations of two runs differ, each with its two values.
pub fn nearest_difference(before: &RunTable, after: &RunTable) -> Vec<(String, [String; 2])> {
    /// So many distinct configurations of each run are looked at: the time grows with the product.
    const MOST: usize = 200;
    let of = |table: &RunTable| -> Vec<Described> {
        let planned = table.rows.iter().filter(|row| !row.is_skipped());
        planned.map(described).collect::<BTreeSet<_>>().into_iter().take(MOST).collect()
    };
    let differ = |a: &Described, b: &Described| -> Vec<(String, [String; 2])> {
        let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let all = keys.into_iter().map(|key| (key.clone(), [value(a, key), value(b, key)]));
        all.filter(|(_, [a, b])| a != b).collect()
    };
    let (a, b) = (of(before), of(after));
    a.iter().flat_map(|a| b.iter().map(move |b| differ(a, b))).min_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{row, table_of};
    use super::*;
    use crate::model::{Client, Engine};

    /// Configurations with this flag, each of settings of its own.
    fn with(flag: &str, values: &[&str]) -> RunTable {
        let one = |value: &&str| {
            let mut row = row("m", 1, 10.0, 10.0);
            row.about.settings = serde_json::from_value(format!("{value:0>64}").into()).ok();
            row.about.flags = std::sync::Arc::new([(flag.to_owned(), (*value).to_owned())].into());
            row.about.client = Some(Client::Vllm);
            row.about.engine = Some(Engine::Vllm);
            row
        };
        table_of(values.iter().map(one).collect())
    }

    fn common(before: &RunTable, after: &RunTable, pairing: &Pairing) -> usize {
        let after = groups(after, pairing);
        groups(before, pairing).keys().filter(|key| after.contains_key(*key)).count()
    }

    #[test]
    fn configurations_are_paired_by_all_settings_by_all_but_some_or_by_some() {
        let (before, after) = (with("max-num-seqs", &["1"]), with("max-num-seqs", &["2"]));
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        assert_eq!(common(&before, &after, &Pairing::All), 0);
        assert_eq!(common(&before, &after, &Pairing::Ignore(keys(&["max-num-seqs"]))), 1);
        assert_eq!(common(&before, &after, &Pairing::Ignore(keys(&["block-size"]))), 0);
        assert_eq!(common(&before, &after, &Pairing::Match(keys(&["model", "tensor-parallel-size"]))), 1);
        assert_eq!(common(&before, &after, &Pairing::Match(keys(&["max-num-seqs"]))), 0);
    }

    #[test]
    fn configurations_of_one_run_that_become_the_same_are_named() {
        let table = with("max-num-seqs", &["1", "2"]);
        let differ = ambiguous(&table, &Pairing::Ignore(vec!["max-num-seqs".into()]));
        assert_eq!(differ, [("max-num-seqs".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
        assert_eq!(ambiguous(&table, &Pairing::Match(vec!["model".into()])).len(), 1);
        assert!(ambiguous(&table, &Pairing::Ignore(vec!["block-size".into()])).is_empty());
        assert!(ambiguous(&table, &Pairing::All).is_empty());
    }

    #[test]
    fn the_nearest_difference_is_that_of_the_most_alike_whatever_kind_it_is() {
        let before = with("max-num-seqs", &["1", "2"]);
        let differ = |change: fn(&mut Row)| -> Vec<String> {
            let mut after = with("max-num-seqs", &["2"]);
            after.rows.iter_mut().for_each(change);
            let all = nearest_difference(&before, &after).into_iter();
            all.map(|(key, [a, b])| format!("{key}: {a}, {b}")).collect()
        };
        assert_eq!(differ(|_| ()), [""; 0]);
        assert_eq!(differ(|row| row.about.client = Some(Client::Builtin)), ["client: vllm, builtin"]);
        assert_eq!(differ(|row| row.about.engine = Some(Engine::Sim)), ["engine: vllm, sim"]);
        assert_eq!(differ(|row| row.axes.model = "n".into()), ["model: m, n"]);
        let variable = |row: &mut Row| drop(row.about.serve_environment.insert("A".into(), "1".into()));
        assert_eq!(differ(variable), ["env.A: not set, 1"]);
    }

    #[test]
    fn files_without_recorded_settings_are_told_apart_by_what_they_say() {
        let file = |name: &str, concurrency: &str, tokens: f64| {
            let mut row = row("m", 1, 10.0, 10.0);
            row.name = name.into();
            let load = [
                ("max-concurrency".to_owned(), LoadValue::Exact(concurrency.to_owned())),
                ("random-input-len".to_owned(), LoadValue::About(tokens)),
            ];
            row.load = std::sync::Arc::new(super::super::Load(load.into()));
            table_of(vec![row])
        };
        // The same name says nothing, and another name of the same settings (with the time in it) is no other configuration.
        assert_eq!(common(&file("result", "8", 128.0), &file("result", "64", 128.0), &Pairing::All), 0);
        assert_eq!(common(&file("a-1200", "8", 128.0), &file("a-1300", "8", 129.0), &Pairing::All), 1);
        assert_eq!(common(&file("result", "8", 128.0), &file("result", "8", 1024.0), &Pairing::All), 0);
    }
}
