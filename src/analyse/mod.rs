//! Numbers out of rows: pure functions over plain data. No file system, no clock, no runtime.
//!
//! [`RunTable`] is the one table behind every report; [`crate::results::read_run`] fills it from files.

mod axes;
mod baseline;
mod beside;
mod change_point;
mod choose;
mod comparable;
mod compare;
mod decide;
mod derive;
mod effect;
mod grouping;
mod history;
mod inference;
mod interference;
mod labels;
mod limit;
mod load;
mod metric_values;
mod moderate;
mod optimize;
mod pairing;
mod rank;
mod requests;
mod row;
mod samples;
mod setting;
mod summary;
mod table;
mod verdict;
mod vllm_metrics;
mod wanted;

pub use axes::{EAGER, Fixed, QUANTIZATION, ShownAxes, TP};
pub use baseline::{Against, NAME, Unmarked, against_baseline, mark_baseline};
pub use beside::Beside;
pub use change_point::{ALPHA, FEWEST as FEWEST_RUNS, Levels, Newest, Search, Step as LevelStep};
pub use choose::{Choice, Failures, LeftOut, Recommendation, choose};
pub use comparable::across as incomparable;
pub use compare::{COMPARED, Comparison, Failing, LostRequests, Matched, Noise, compare, noise_of};
pub use decide::{Basis, Candidate, Decision, Design, FEWEST_STARTS, MARGIN, Standing, Why, change, decide, level};
pub use derive::{Assumptions, DEVICES_PER_NODE, Prices, derive};
pub use effect::{Effect, Outcome};
pub use grouping::{Answer, BY_MODEL, answers, group_keys};
pub use history::{Best, Changed, Measured, Past, Point, SNAPSHOT_OF, STARTS, Trend, ambiguous_in, trends};
pub use inference::{
    CONFIDENCE, Components, Estimate, Group, Interval, components, detectable, estimate, over_starts, samples_beyond,
};
pub use interference::{Cost, FEWEST_PAIRS, MOST_PAIRS, Verdict, cost};
pub use limit::Limit;
pub use load::{Load, LoadSpread, LoadValue, load_labels, spread};
pub use metric_values::MetricValues;
pub use optimize::{
    Base, Baseline, BaselineRule, METRIC as OPTIMIZED, OVERALL, Optimized, Tier, baseline, bases, by_model_and_load,
    is_in_tier, optimize, tiers,
};
pub use pairing::{Described, Pairing, ambiguous, described, nearest_difference};
pub use rank::{RANKED, mean_over_starts, settings, starts_by, starts_of};
pub use requests::Requests;
pub use row::{About, FailedAttempt, Row, Slot, Status};
pub use samples::{Moment, token_rate};
pub use setting::{all_settings, different, short_settings};
pub use summary::{Counts, overall};
pub use table::{Facts, LaneSpan, Origin, Program, RunTable, Step, Unreadable};
pub use verdict::{EmptyAnswers, Signs, Warning, WarningKind, warnings_from};
pub use vllm_metrics::VllmMetrics;
pub use wanted::{LimitsFrom, Objective, ObjectiveFrom, RankingSpec};
