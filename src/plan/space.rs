//! The combinations of one group, numbered: any of them can be looked at without making the others.

use std::collections::HashSet;

use super::condition::Compiled;
use super::sweep::{ENFORCE_EAGER, Section};
use super::{Axis, Exclusion, Group, Link, Value};
use crate::model::normalize;

/// One key of a group.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// Whose key.
    pub section: Section,
    /// vLLM's long name, or the variable.
    pub key: String,
    /// Its values.
    pub values: Vec<Value>,
    /// The slot whose value this one always has.
    tied: Option<usize>,
    /// How many combinations lie between two values of this slot.
    stride: u64,
}

/// The combinations of a group.
#[derive(Debug, Clone)]
pub(super) struct Space {
    /// What the user calls the group.
    pub name: Option<String>,
    /// Serve, env, bench; the last varies fastest.
    pub slots: Vec<Slot>,
    /// How many combinations there are before any condition.
    pub size: u64,
    /// Pairs of slots that must have the same value.
    pub equal: Vec<(usize, usize)>,
    /// The group's own conditions.
    pub exclude: Vec<(Exclusion, Compiled)>,
}

impl Space {
    pub fn new(group: &Group, links: &[Link]) -> Self {
        let sections = [(Section::Serve, &group.serve), (Section::Env, &group.env), (Section::Bench, &group.bench)];
        let mut slots: Vec<Slot> =
            sections.into_iter().flat_map(|(section, axes)| axes.iter().map(move |axis| slot(section, axis))).collect();
        let mut equal = Vec::new();
        for link in links {
            let find =
                |slots: &[Slot], section, key: &str| slots.iter().position(|s| s.section == section && s.key == key);
            let (serve, bench) = (normalize(&link.serve), normalize(&link.bench));
            let sides = (find(&slots, Section::Serve, &serve), find(&slots, Section::Bench, &bench));
            match sides {
                (Some(a), Some(b)) => equal.push((a, b)),
                (Some(a), None) => slots.push(tied(&slots, a, Section::Bench, bench)),
                (None, Some(b)) => slots.push(tied(&slots, b, Section::Serve, serve)),
                (None, None) => {}
            }
        }
        let mut size: u64 = 1;
        for slot in slots.iter_mut().rev().filter(|slot| slot.tied.is_none()) {
            slot.stride = size;
            size = size.saturating_mul(slot.values.len() as u64);
        }
        let mut space = Self { name: group.name.clone(), slots, size, equal, exclude: Vec::new() };
        space.exclude = group.exclude.iter().map(|e| (e.clone(), Compiled::new(&e.when, &space))).collect();
        space
    }

    /// Where a key of a condition stands: with a prefix there, else the server's flags first, then the workload's, then
    /// the variables.
    pub fn find(&self, key: &str) -> Option<usize> {
        let of = |section, name: &str| self.slots.iter().position(|s| s.section == section && s.key == name);
        let flag = |name: &str| normalize(name);
        if let Some(name) = key.strip_prefix("serve.") {
            return of(Section::Serve, &flag(name));
        }
        if let Some(name) = key.strip_prefix("bench.") {
            return of(Section::Bench, &flag(name));
        }
        if let Some(name) = key.strip_prefix("env.") {
            return of(Section::Env, name);
        }
        of(Section::Serve, &flag(key)).or_else(|| of(Section::Bench, &flag(key))).or_else(|| of(Section::Env, key))
    }

    /// Which of its values a slot has in a combination.
    pub fn choice(&self, combination: u64, slot: usize) -> usize {
        let Some(slot) = self.slots.get(slot) else { return 0 };
        let slot = slot.tied.and_then(|other| self.slots.get(other)).unwrap_or(slot);
        let count = slot.values.len().max(1) as u64;
        usize::try_from(combination / slot.stride.max(1) % count).unwrap_or(0)
    }

    /// The value of a slot in a combination.
    pub fn value(&self, combination: u64, slot: usize) -> &Value {
        self.slots.get(slot).and_then(|s| s.values.get(self.choice(combination, slot))).unwrap_or(&Value::Omitted)
    }

    /// The value of a flag or variable in a combination; [`Value::Omitted`] where the group does not have it.
    pub fn value_of(&self, combination: u64, section: Section, key: &str) -> &Value {
        let slot = self.slots.iter().position(|s| s.section == section && s.key == key);
        slot.map_or(&Value::Omitted, |slot| self.value(combination, slot))
    }

    /// Whether linked keys have the same value.
    pub fn links_hold(&self, combination: u64) -> bool {
        self.equal.iter().all(|&(a, b)| self.value(combination, a).same(self.value(combination, b)))
    }
}

fn slot(section: Section, axis: &Axis) -> Slot {
    let key = if section == Section::Env { axis.key.clone() } else { normalize(&axis.key) };
    let mut values: Vec<Value> = Vec::new();
    let mut known = HashSet::new();
    for value in &axis.values {
        // Eager execution is off in vLLM unless it is asked for: `false` and a flag left out are the same.
        let value = match value {
            Value::Omitted if key == ENFORCE_EAGER && section == Section::Serve => Value::Switch(false),
            Value::Text(text) if key == ENFORCE_EAGER && text == "true" => Value::Switch(true),
            Value::Text(text) if key == ENFORCE_EAGER && text == "false" => Value::Switch(false),
            other => other.clone(),
        };
        if known.insert(value.canonical()) {
            values.push(value);
        }
    }
    Slot { section, key, values, tied: None, stride: 1 }
}

fn tied(slots: &[Slot], other: usize, section: Section, key: String) -> Slot {
    let values = slots.get(other).map(|slot| slot.values.clone()).unwrap_or_default();
    Slot { section, key, values, tied: Some(other), stride: 1 }
}
