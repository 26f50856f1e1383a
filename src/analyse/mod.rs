//! Numbers out of rows: pure functions over plain data. No file system, no clock, no runtime.
//!
//! [`RunTable`] is the one table behind every report; [`crate::report::load_run`] fills it from files.

mod baseline;
mod choose;
mod comparable;
mod compare;
mod decide;
mod derive;
mod figure;
mod figures;
mod grouping;
mod inference;
mod load;
mod metric;
mod optimize;
mod rank;
mod requests;
mod setting;
mod stats;
mod summary;
mod table;
mod verdict;

pub use baseline::{Against, NAME, Unmarked, against_baseline, mark_baseline};
pub use choose::{Choice, LeftOut, Limit, LimitsFrom, Recommendation, Wanted, choose};
pub use comparable::across as incomparable;
pub use compare::{COMPARED, Comparison, Effect, Matched, Outcome, compare};
pub use decide::{Basis, Candidate, Change, Decision, change, decide};
pub use derive::{Assumptions, DEVICES_PER_NODE, Prices, derive};
pub use figure::Figure;
pub use figures::Figures;
pub use grouping::{BY_MODEL, Ranked, group_keys, ranked};
pub use inference::{
    CONFIDENCE, Components, Estimate, Interval, Method, QuantileInterval, components, estimate, over_starts,
    quantile_interval, resolvable, rests_on,
};
pub use load::{Load, LoadSpread, LoadValue, load_labels, spread};
pub use metric::{Better, Metric, Metrics, Unit};
pub use optimize::{
    Baseline, BaselineRule, FIGURE as OPTIMIZED, OVERALL, Optimized, Tier, baseline, is_in_tier, optimize, tiers,
};
pub use rank::{Best, RANKED, Ranking, best, best_by_model, best_overall, settings, starts_by, starts_of};
pub use requests::Requests;
pub use setting::{all_settings, different, short_settings};
pub use stats::{Sample, Stats};
pub use summary::{Counts, overall};
pub use table::{About, Facts, FailedAttempt, Origin, Program, Row, RunTable, ShownAxes, Slot, Status, Unreadable};
pub use verdict::{Doubt, DoubtKind, EmptyAnswers, Signs, doubts};
