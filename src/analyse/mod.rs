//! Numbers out of rows: pure functions over plain data. No file system, no clock, no runtime.
//!
//! [`RunTable`] is the one table behind every report; [`crate::report::load_run`] fills it from files.

mod baseline;
mod choose;
mod compare;
mod decide;
mod figure;
mod inference;
mod load;
mod metric;
mod rank;
mod requests;
mod stats;
mod summary;
mod table;
mod verdict;

pub use baseline::{Against, against_baseline};
pub use choose::{Choice, LeftOut, Limit, Recommendation, Wanted, choose};
pub use compare::{Comparison, Effect, Matched, Outcome, compare};
pub use decide::{Basis, Candidate, Change, Decision, change, decide};
pub use figure::Figure;
pub use inference::{CONFIDENCE, Components, Estimate, Interval, Method, components, estimate, resolvable, rests_on};
pub use load::{Load, LoadSpread, LoadValue, spread};
pub use metric::{Better, Metric, Metrics, Unit};
pub use rank::{Best, RANKED, Ranking, best, best_by_model, best_overall, starts_of};
pub use requests::Requests;
pub use stats::{Sample, Stats};
pub use summary::{Counts, overall};
pub use table::{About, Facts, FailedAttempt, Origin, Program, Row, RunTable, ShownAxes, Status, Unreadable};
pub use verdict::{Doubt, DoubtKind, Signs, doubts};
