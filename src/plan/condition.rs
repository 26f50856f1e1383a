//! Conditions over the settings of one combination.

use super::Value;
use super::space::Space;
use super::sweep::ENFORCE_EAGER;

/// True where all its terms are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// At least one.
    pub terms: Vec<Term>,
}

/// One key and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// `tensor-parallel-size`, `bench.max-concurrency`, `env.NAME`, `serve.seed`. Without a prefix the server's flags
    /// are asked first, then the workload's, then the variables.
    pub key: String,
    /// What it is compared with.
    pub test: Test,
}

/// What a key must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// One of these.
    OneOf(Vec<Value>),
    /// None of these.
    NoneOf(Vec<Value>),
    /// Compared as numbers, or with another key's value. False where either is no number.
    Compare(Comparison, Operand),
}

/// How two numbers stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// The right side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// A number as written.
    Number(String),
    /// Another key of the same combination.
    Key(String),
}

impl Comparison {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
        }
    }
}

/// A condition against the keys of one group: what depends on a single key is decided once per value.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    terms: Vec<CompiledTerm>,
    /// A key that the group does not have, so that the condition can never hold, if there is one.
    pub missing: Option<String>,
}

#[derive(Debug, Clone)]
enum CompiledTerm {
    /// By value of the slot.
    Values { slot: usize, holds: Vec<bool> },
    /// Between two slots.
    Slots { left: usize, comparison: Comparison, right: usize },
}

impl Compiled {
    pub fn new(condition: &Condition, space: &Space) -> Self {
        let mut compiled = Self { terms: Vec::new(), missing: None };
        for term in &condition.terms {
            match (space.find(&term.key), &term.test) {
                (Some(slot), test) => match compile(slot, test, space) {
                    Some(term) => compiled.terms.push(term),
                    None => compiled.missing = Some(term.key.clone()),
                },
                // A flag that nobody sets is left out, and eager is off.
                (None, Test::OneOf(values)) if values.iter().any(|v| unset(&term.key, v)) => {}
                (None, Test::NoneOf(values)) if !values.iter().any(|v| unset(&term.key, v)) => {}
                (None, _) => compiled.missing = Some(term.key.clone()),
            }
        }
        compiled
    }

    /// Whether a combination meets it.
    pub fn holds(&self, space: &Space, combination: u64) -> bool {
        self.missing.is_none()
            && self.terms.iter().all(|term| match term {
                CompiledTerm::Values { slot, holds } => {
                    holds.get(space.choice(combination, *slot)).copied().unwrap_or(false)
                }
                CompiledTerm::Slots { left, comparison, right } => {
                    let (left, right) = (space.value(combination, *left), space.value(combination, *right));
                    matches!((left.number(), right.number()), (Some(l), Some(r)) if comparison.holds(l, r))
                }
            })
    }
}

/// What a key that nobody sets is equal to.
fn unset(key: &str, value: &Value) -> bool {
    *value == Value::Omitted || key.trim_start_matches("serve.") == ENFORCE_EAGER && *value == Value::Switch(false)
}

fn compile(slot: usize, test: &Test, space: &Space) -> Option<CompiledTerm> {
    let by_value = |holds: &dyn Fn(&Value) -> bool| CompiledTerm::Values {
        slot,
        holds: space.slots.get(slot).map(|s| s.values.iter().map(holds).collect()).unwrap_or_default(),
    };
    let eager = space.slots.get(slot).is_some_and(|slot| slot.key == ENFORCE_EAGER);
    let same = |a: &Value, b: &Value| a.same(b) || eager && *b == Value::Omitted && *a == Value::Switch(false);
    Some(match test {
        Test::OneOf(values) => by_value(&|value| values.iter().any(|v| same(value, v))),
        Test::NoneOf(values) => by_value(&|value| !values.iter().any(|v| same(value, v))),
        Test::Compare(comparison, Operand::Number(number)) => {
            let right: f64 = number.parse().ok()?;
            by_value(&|value| value.number().is_some_and(|left| comparison.holds(left, right)))
        }
        Test::Compare(comparison, Operand::Key(key)) => {
            CompiledTerm::Slots { left: slot, comparison: *comparison, right: space.find(key)? }
        }
    })
}
