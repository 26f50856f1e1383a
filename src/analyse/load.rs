//! The load under which rows were measured, and whether it was the same for all of them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use super::Row;

/// One load parameter's value.
#[derive(Debug, Clone, PartialEq)]
pub enum LoadValue {
    /// As it was asked for.
    Exact(String),
    /// As it was counted afterwards (tokens per request in a file that does not say what was asked for).
    About(f64),
}

impl LoadValue {
    /// Whether the two may stand for the same setting: counted values may differ by a hundredth.
    fn agrees(&self, other: &LoadValue) -> bool {
        match (self, other) {
            (LoadValue::Exact(a), LoadValue::Exact(b)) => a == b,
            (LoadValue::About(a), LoadValue::About(b)) => (a - b).abs() <= a.abs().max(b.abs()) / 100.0,
            (LoadValue::Exact(_), LoadValue::About(_)) | (LoadValue::About(_), LoadValue::Exact(_)) => false,
        }
    }
}

impl fmt::Display for LoadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadValue::Exact(text) => f.write_str(text),
            LoadValue::About(value) => write!(f, "about {value:.0}"),
        }
    }
}

/// The load of one row: vLLM's flag names and their values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load(pub IndexMap<String, LoadValue>);

/// One load parameter over all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadSpread {
    /// vLLM's flag name.
    pub flag: String,
    /// Its distinct values, in order of appearance; `None` = rows in which it is not known or not set.
    pub values: Vec<Option<LoadValue>>,
}

impl LoadSpread {
    /// Whether rows differ in it, so that they do not compare as one series.
    pub fn differs(&self) -> bool {
        self.values.len() > 1
    }
}

/// The parameters of several loads, each with its distinct values.
pub fn spread<'a>(loads: impl IntoIterator<Item = &'a Load>) -> Vec<LoadSpread> {
    // Rows share their loads: each is looked at once, so that this stays linear.
    let mut seen: HashSet<*const Load> = HashSet::new();
    let distinct: Vec<&Load> = loads.into_iter().filter(|load| seen.insert(std::ptr::from_ref(*load))).collect();
    let mut spreads: IndexMap<&str, Distinct<'_>> = IndexMap::new();
    for flag in distinct.iter().flat_map(|load| load.0.keys()) {
        spreads.entry(flag).or_default();
    }
    for (flag, values) in &mut spreads {
        distinct.iter().for_each(|load| values.add(load.0.get(*flag)));
    }
    spreads.into_iter().map(|(flag, values)| LoadSpread { flag: flag.to_owned(), values: values.in_order }).collect()
}

/// The distinct values of one parameter.
#[derive(Default)]
struct Distinct<'a> {
    in_order: Vec<Option<LoadValue>>,
    exact: HashSet<&'a str>,
    about: Vec<&'a LoadValue>,
    absent: bool,
}

impl<'a> Distinct<'a> {
    fn add(&mut self, value: Option<&'a LoadValue>) {
        let new = match value {
            None => !std::mem::replace(&mut self.absent, true),
            Some(LoadValue::Exact(text)) => self.exact.insert(text),
            Some(about @ LoadValue::About(_)) => {
                let new = !self.about.iter().any(|known| known.agrees(about));
                self.about.extend(new.then_some(about));
                new
            }
        };
        if new {
            self.in_order.push(value.cloned());
        }
    }
}

/// Parameters that change nothing of what a measurement is: another seed is the same load with other prompts.
const NO_LOAD: [&str; 6] =
    ["seed", "max-model-len", "num-warmups", "percentile-metrics", "metric-percentiles", "save-detailed"];

/// What the load of each row has of its own among the loads of all of them, as text: rows with different ones are never ranked
/// against each other. Of one sweep that is what its axes say; several sources are distinguished by every parameter in which
/// they differ.
pub fn load_labels(rows: &[&Row]) -> Vec<String> {
    // Rows of one run share its name and directory: nothing needs to be compared.
    let same = |a: &Row, b: &Row| {
        let name = Arc::ptr_eq(&a.about.run, &b.about.run) || a.about.run == b.about.run;
        name && (Arc::ptr_eq(&a.about.directory, &b.about.directory) || a.about.directory == b.about.directory)
    };
    if rows.first().is_none_or(|first| rows.iter().all(|row| same(row, first))) {
        return rows.iter().map(|row| row.workload_label()).collect();
    }
    let mut keys: Vec<&str> = Vec::new();
    let mut first: HashMap<&str, Option<&str>> = HashMap::new();
    let mut seen: HashSet<*const Load> = HashSet::new();
    let loads: Vec<&Load> =
        rows.iter().map(|row| &*row.load).filter(|load| seen.insert(std::ptr::from_ref(*load))).collect();
    for key in loads.iter().flat_map(|load| load.0.keys()).filter(|key| !NO_LOAD.contains(&key.as_str())) {
        first.entry(key).or_insert_with(|| loads.first().and_then(|load| load.exact(key)));
    }
    for load in &loads {
        keys.extend(first.iter().filter(|(key, value)| load.exact(key) != **value).map(|(key, _)| *key));
    }
    keys.extend(rows.iter().flat_map(|row| row.axes.workload.iter().map(|(key, _)| key.as_str())));
    keys.sort_unstable();
    keys.dedup();
    let label = |row: &&Row| {
        let value = |key: &&str| {
            let axis = row.axes.workload.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
            axis.or_else(|| row.load.exact(key)).map(|value| format!("{key} {value}"))
        };
        keys.iter().filter_map(value).collect::<Vec<String>>().join(", ")
    };
    rows.iter().map(label).collect()
}

impl Load {
    /// The value of a parameter, where it is known exactly.
    fn exact(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            LoadValue::Exact(text) => Some(text),
            LoadValue::About(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::row;
    use super::*;

    fn load(values: &[(&str, LoadValue)]) -> Load {
        Load(values.iter().map(|(flag, value)| ((*flag).to_owned(), value.clone())).collect())
    }

    #[test]
    fn loads_of_several_runs_are_told_apart_by_what_differs() {
        let exact = |text: &str| LoadValue::Exact(text.to_owned());
        let of = |run: &str, length: &str, seed: &str| {
            let mut row = row("m", 1, 1.0, 1.0);
            row.about.run = run.into();
            row.load = std::sync::Arc::new(load(&[
                ("num-prompts", exact("160")),
                ("random-input-len", exact(length)),
                ("seed", exact(seed)),
            ]));
            row
        };
        let rows = [of("a", "1024", "1"), of("b", "2048", "1"), of("c", "1024", "2")];
        let rows: Vec<&Row> = rows.iter().collect();
        assert_eq!(load_labels(&rows), ["random-input-len 1024", "random-input-len 2048", "random-input-len 1024"]);
        assert_eq!(load_labels(&rows[..1]), [""]);
        assert_eq!(load_labels(&[rows[0], rows[2]]), ["", ""]);
    }

    #[test]
    fn only_what_differs_is_said_to_differ() {
        let exact = |text: &str| LoadValue::Exact(text.to_owned());
        let a = load(&[("num-prompts", exact("160")), ("random-input-len", LoadValue::About(1024.0))]);
        let b = load(&[("num-prompts", exact("16")), ("random-input-len", LoadValue::About(1020.0))]);
        let spreads = spread([&a, &b, &a]);
        assert_eq!(spreads.iter().map(LoadSpread::differs).collect::<Vec<_>>(), [true, false]);
        assert_eq!(spread([&a, &load(&[])]).iter().filter(|s| s.differs()).count(), 2);
        assert_eq!(spread([]), []);
    }
}
