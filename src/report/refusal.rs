//! Why something that was asked for is not written.

/// Why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The data do not hold what is needed.
    Missing {
        /// Why.
        message: String,
        /// The next step.
        hint: String,
    },
    /// A flag is wrong.
    Wrong {
        /// What is wrong.
        message: String,
        /// The next step.
        hint: String,
    },
}

impl Refusal {
    /// The data do not hold what is needed.
    pub fn missing(message: String, hint: String) -> Self {
        Refusal::Missing { message, hint }
    }
}
