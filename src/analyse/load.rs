//! The load under which rows were measured, and whether it was the same for all of them.

use std::collections::HashSet;
use std::fmt;

use indexmap::IndexMap;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(values: &[(&str, LoadValue)]) -> Load {
        Load(values.iter().map(|(flag, value)| ((*flag).to_owned(), value.clone())).collect())
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
