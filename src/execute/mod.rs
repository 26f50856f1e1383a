//! Takes experiments through real processes, one by one, and tells what happens as [`Event`]s.
//!
//! Nothing here prints, and nothing here knows the names of files in a run directory: paths come in as data.

mod error;
mod event;
mod outcome;

pub use error::Error;
pub use event::{Event, ForeignProcess};
pub use outcome::{Failure, Outcome, Phase, StartStep, TeardownProof, Timings};
