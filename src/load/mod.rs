//! The load generator: prompts in, requests over the wire, exact times out. It knows nothing of sweeps.

pub mod arrival;
pub mod clock;
mod connection;
pub mod dataset;
pub mod drift;
pub mod error;
mod feeder;
mod live;
pub mod metrics;
pub mod output;
pub mod prompt;
mod queue;
pub mod request;
pub mod sample;
pub mod server;
pub mod session;
pub mod target;
pub mod timing;
pub mod tokenizer;
pub mod wire;
mod worker;
