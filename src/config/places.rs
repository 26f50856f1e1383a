//! Where the values of a sweep stand, for checks that are made long after it was read.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::Origin;
use crate::plan::{Section, Value};

/// Places of keys, of their values, and of rules.
#[derive(Debug, Clone, Default)]
pub struct Places {
    values: HashMap<(Section, String), IndexMap<String, Origin>>,
    rules: Vec<(String, Origin)>,
}

impl Places {
    /// Where a key has this value (as [`Value::shown`] shows it); for a value that stands nowhere, where the key stands.
    pub fn value(&self, section: Section, key: &str, value: &str) -> Option<&Origin> {
        let values = self.values.get(&(section, key.to_owned()))?;
        values.get(value).or(values.first().map(|(_, origin)| origin))
    }

    /// Where a key stands first.
    pub fn key(&self, section: Section, key: &str) -> Option<&Origin> {
        self.values.get(&(section, key.to_owned()))?.first().map(|(_, origin)| origin)
    }

    /// Where an entry of `exclude` or `include` stands.
    pub fn rule(&self, name: &str) -> Option<&Origin> {
        self.rules.iter().find(|(rule, _)| rule == name).map(|(_, origin)| origin)
    }

    pub(super) fn note_value(&mut self, section: Section, key: &str, value: &Value, origin: &Origin) {
        let values = self.values.entry((section, key.to_owned())).or_default();
        values.entry(value.shown()).or_insert_with(|| origin.clone());
    }

    pub(super) fn note_rule(&mut self, name: &str, origin: &Origin) {
        self.rules.push((name.to_owned(), origin.clone()));
    }
}
