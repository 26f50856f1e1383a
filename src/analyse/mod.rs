//! Numbers out of rows: pure functions over plain data. No file system, no clock, no runtime.
//!
//! [`RunTable`] is the one table behind every report; [`crate::report::load_run`] fills it from files.

mod baseline;
mod load;
mod metric;
mod rank;
mod stats;
mod summary;
mod table;

pub use baseline::{Against, against_baseline};
pub use load::{Load, LoadSpread, LoadValue, spread};
pub use metric::{Better, Metric, Metrics, Unit};
pub use rank::{Best, RANKED, Ranking, best, best_by_model, best_overall};
pub use stats::{Sample, Stats};
pub use summary::{Counts, overall};
pub use table::{Facts, FailedAttempt, Origin, Row, RunTable, ShownAxes, Status, Unreadable};
