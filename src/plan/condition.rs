//! Conditions over the settings of one combination.

use super::Value;

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
