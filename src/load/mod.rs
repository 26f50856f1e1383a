//! The load generator: prompts in, requests over the wire, exact times out. It knows nothing of sweeps.

pub mod dataset;
pub mod prompt;
pub mod tokenizer;
