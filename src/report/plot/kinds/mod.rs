//! One file for each family of plots: from the data to a chart.

pub mod concurrency;
pub mod heatmap;
pub mod history;
pub mod interaction;
pub mod lanes;
mod lines;
pub mod pareto;
pub mod ranking;
pub mod requests;
pub mod startup;
pub mod telemetry;

pub use lines::list;

use super::chart::Body;

/// A panel that says why it is empty: nothing is left out in silence.
fn empty(why: &str) -> Body {
    Body::Empty(why.to_owned())
}
