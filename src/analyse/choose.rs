//! The answer for one model and workload: what is out and why, what is left by the objective, and which of these to use. Pure.
//!
//! Every screen and every format prints this answer; none decides anything by itself.

use super::beside::Beside;
use super::decide::{Standing, Why};
use super::inference::over_starts;
use super::limit::{Kept, kept};
use super::rank::{settings, starts_by, starts_of_rows};
use super::{Basis, Candidate, Decision, Design, Estimate, RankingSpec, Row, Status, Warning, decide};
use crate::model::{Better, Metric};

/// Server starts that failed by a cause of their own, of those that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Failures {
    /// Failed, or measured nothing.
    pub failed: usize,
    /// Of so many.
    pub of: usize,
}

/// One configuration that may be chosen, with its metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice<'a> {
    /// Its first valid measurement.
    pub row: &'a Row,
    /// Mean of the objective over its starts.
    pub value: f64,
    /// Mean of the latency on the other axis over its starts; `None` where it is not known.
    pub latency: Option<f64>,
    /// Server starts.
    pub n: usize,
    /// Measurements on them.
    pub measurements: usize,
    /// What the starts say of the mean; its interval is one of all options, which hold together.
    pub estimate: Option<Estimate>,
    /// No other has both a better mean and less latency.
    pub on_front: bool,
    /// Whether it may be the best.
    pub standing: Standing,
    /// Of its starts.
    pub failures: Failures,
    /// Its warnings that do not exclude it, each once.
    pub warnings: Vec<&'a Warning>,
}

/// Why a configuration is excluded.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOut<'a> {
    /// Its first measurement.
    pub row: &'a Row,
    /// In words.
    pub why: String,
    /// It has valid results, and is not shown to keep the limits.
    pub breaks_limit: bool,
}

/// What is recommended.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation<'a> {
    /// All that may be chosen, the best mean first.
    pub options: Vec<Choice<'a>>,
    /// Index of the choice among them.
    pub choice: usize,
    /// Why it is the choice.
    pub why: Why,
    /// Whether the best mean is significantly better than every other, by more than the margin.
    pub significantly_best: bool,
    /// Whether the best mean is shown to be worse than no other by more than the margin.
    pub within_margin: bool,
    /// What it is based on.
    pub basis: Basis,
    /// Relative standard deviation between starts.
    pub noise: Option<f64>,
    /// Starts of each that would separate the best mean from the next one in the set.
    pub starts_needed: Option<usize>,
    /// Whether values are divided by the devices: asked for, and known of every option.
    pub per_device: bool,
    /// Limits are asked for, and no configuration is shown to keep them with confidence: it keeps them in its one or two starts.
    pub limits_unconfirmed: bool,
    /// Those that are excluded.
    pub left_out: Vec<LeftOut<'a>>,
}

impl<'a> Recommendation<'a> {
    /// The configuration to use; `None` never happens, as there is one option at least.
    pub fn chosen(&self) -> Option<&Choice<'a>> {
        self.options.get(self.choice)
    }

    /// Claims nothing where another one may be better when it is measured alone.
    pub(super) fn weigh(&mut self, beside: &Beside) {
        weigh_limits(&mut self.left_out, beside);
        if self.options.len() > 1 && self.chosen().is_some_and(|chosen| beside.leaves_open(chosen.row)) {
            self.significantly_best = false;
            if self.basis.is_established() {
                self.basis = Basis::BesideOthers;
            }
        }
    }

    /// The other options in the set of the best.
    pub fn others_in_set(&self) -> usize {
        let in_set = |option: &&Choice<'_>| option.standing == Standing::MayBeBest;
        let all = self.options.iter().filter(in_set).count();
        all.saturating_sub(usize::from(self.chosen().is_some_and(|chosen| chosen.standing == Standing::MayBeBest)))
    }

    /// The next one by its mean that is not the choice.
    pub fn runner_up(&self) -> Option<&Choice<'a>> {
        (0..self.options.len()).find(|index| *index != self.choice).and_then(|index| self.options.get(index))
    }
}

/// Says of those that break a limit beside others that they may keep it alone.
pub(super) fn weigh_limits(left_out: &mut [LeftOut<'_>], beside: &Beside) {
    for left in left_out.iter_mut().filter(|left| left.breaks_limit && left.row.about.neighbours > Some(0)) {
        if beside.cost.is_none() || left.row.identity.as_ref().is_some_and(|identity| beside.open.contains(identity)) {
            left.why += "; others ran beside it: alone it may keep the limit";
        }
    }
}

/// A configuration that may be chosen, while limits are asked.
pub(super) struct Asked<'a> {
    /// Its valid measurements.
    rows: Vec<&'a Row>,
    failures: Failures,
}

/// Chooses among rows of one model and workload, in the order in which they were measured; `Err` holds those left out where none is left.
///
/// # Errors
/// When no configuration may be chosen.
pub fn choose<'a>(rows: &[&'a Row], wanted: &RankingSpec) -> Result<Recommendation<'a>, Vec<LeftOut<'a>>> {
    let (mut left_out, mut asked) = (Vec::new(), Vec::new());
    for rows in settings(rows) {
        let Some(row) = rows.first().copied() else { continue };
        match refused(&rows, wanted) {
            Err(why) => left_out.push(LeftOut { row, why, breaks_limit: false }),
            Ok(one) => asked.push(one),
        }
    }
    let limits_unconfirmed = keep_limits(&mut asked, &mut left_out, wanted);
    let devices = |row: &Row| row.about.devices.filter(|devices| *devices > 0);
    let per_device = wanted.per_device && asked.iter().all(|one| one.rows.iter().all(|row| devices(row).is_some()));
    let mut starts_of_all = Vec::new();
    let mut options = Vec::new();
    for one in &asked {
        let Some(row) = one.rows.first().copied() else { continue };
        let Some(mut starts) = starts_by(&one.rows, &wanted.rank_by) else { continue };
        let scale = devices(row).filter(|_| per_device).map_or(1.0, |devices| 1.0 / f64::from(devices));
        starts.iter_mut().flatten().for_each(|value| *value *= scale);
        let Some(estimate) = over_starts(&starts) else { continue };
        let latency = starts_by(&one.rows, &wanted.latency).and_then(|starts| over_starts(&starts));
        let mut warnings: Vec<&Warning> = Vec::new();
        for warning in one.rows.iter().flat_map(|row| row.warnings()) {
            if !warnings.iter().any(|known| known.kind == warning.kind) {
                warnings.push(warning);
            }
        }
        options.push(Choice {
            row,
            value: estimate.mean,
            latency: latency.map(|of| of.mean),
            n: starts.len(),
            measurements: starts.iter().map(Vec::len).sum(),
            estimate: Some(estimate),
            on_front: false,
            standing: Standing::Undecided,
            failures: one.failures,
            warnings,
        });
        starts_of_all.push(starts);
    }
    let candidates: Vec<Candidate> = options
        .iter()
        .zip(starts_of_all)
        .map(|(option, starts)| Candidate {
            starts,
            devices: option.row.about.devices.unwrap_or(u32::MAX),
            overrides: option.row.about.overrides,
        })
        .collect();
    let design = Design { margin: wanted.margin, grouped: is_grouped(rows), until: wanted.until };
    let Some(decision) = decide(&candidates, wanted.better, design) else { return Err(left_out) };
    let Decision {
        standings,
        leader,
        choice,
        why,
        significantly_best,
        within_margin,
        basis,
        noise,
        starts_needed,
        intervals,
    } = decision;
    for ((option, standing), interval) in options.iter_mut().zip(standings).zip(intervals) {
        option.standing = standing;
        option.estimate = option.estimate.map(|of| Estimate { interval, ..of });
    }
    mark_front(&mut options, wanted.better);
    let chosen = options.get(choice).map(|option| std::ptr::from_ref(option.row));
    let first = options.get(leader).map(|option| std::ptr::from_ref(option.row));
    let leads = |option: &Choice<'_>| first == Some(std::ptr::from_ref(option.row));
    options.sort_by(|a, b| {
        let order = match wanted.better {
            Better::Higher => b.value.total_cmp(&a.value),
            Better::Lower => a.value.total_cmp(&b.value),
        };
        leads(b).cmp(&leads(a)).then(order)
    });
    let choice = options.iter().position(|option| chosen == Some(std::ptr::from_ref(option.row))).unwrap_or(0);
    Ok(Recommendation {
        options,
        choice,
        why,
        significantly_best,
        within_margin,
        basis,
        noise,
        starts_needed,
        per_device,
        limits_unconfirmed,
        left_out,
    })
}

/// Takes out what does not keep the limits. Returns whether those that are left are only not shown to break them.
fn keep_limits<'a>(asked: &mut Vec<Asked<'a>>, left_out: &mut Vec<LeftOut<'a>>, wanted: &RankingSpec) -> bool {
    let mut verdicts: Vec<Kept> = asked.iter().map(|_| Kept::Yes).collect();
    for limit in &wanted.limits {
        let starts: Vec<Option<Vec<Vec<f64>>>> =
            asked.iter().map(|one| starts_of_rows(&one.rows, &limit.key)).collect();
        for (verdict, new) in verdicts.iter_mut().zip(kept(&starts, limit)) {
            let known = std::mem::replace(verdict, Kept::Yes);
            *verdict = known.and(new);
        }
    }
    let confirmed = verdicts.iter().any(|verdict| matches!(verdict, Kept::Yes));
    let mut verdicts = verdicts.into_iter();
    asked.retain(|one| {
        let why = match verdicts.next() {
            Some(Kept::No(why)) => why,
            Some(Kept::Unconfirmed(why)) if confirmed => why,
            Some(Kept::Unconfirmed(_) | Kept::Yes) | None => return true,
        };
        left_out.extend(one.rows.first().map(|row| LeftOut { row, why, breaks_limit: true }));
        false
    });
    !wanted.limits.is_empty() && !confirmed
}

/// Whether configurations that were started several times in one run were measured one after the other: a drift of the machine is not
/// seen in their repeats then, and looks like a difference.
fn is_grouped(rows: &[&Row]) -> bool {
    /// Where the measurements of a configuration in one run lie, and on which starts.
    struct Span {
        first: usize,
        last: usize,
        starts: std::collections::BTreeSet<u32>,
    }
    // What was measured again alone came after all others: it is in an order of its own.
    let mut spans: indexmap::IndexMap<((&str, bool), &crate::model::Identity), Span> = indexmap::IndexMap::new();
    for (place, row) in rows.iter().enumerate() {
        let (Some(repeat), Some(identity)) = (row.repeat, &row.identity) else { continue };
        let new = || Span { first: place, last: place, starts: std::collections::BTreeSet::new() };
        let span = spans.entry(((&*row.about.run, row.alone), identity)).or_insert_with(new);
        span.last = place;
        span.starts.insert(repeat.start);
    }
    let several = spans.iter().filter(|(_, span)| span.starts.len() > 1);
    let mut all: Vec<((&str, bool), usize, usize)> =
        several.map(|((run, _), span)| (*run, span.first, span.last)).collect();
    all.sort_unstable();
    let pairs = || all.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    pairs().count() > 0 && pairs().all(|pair| pair[0].2 < pair[1].1)
}

/// How many starts of a configuration failed by a cause of their own, of those that ended, and why the first did (empty: it measured
/// nothing, as `measured_nothing` says of a valid row).
pub(super) fn failures(rows: &[&Row], measured_nothing: impl Fn(&Row) -> bool) -> (Failures, Option<String>) {
    let (mut starts, mut failed) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    let mut cause = None;
    for row in rows {
        let start = (&*row.about.run, row.repeat.map_or(1, |repeat| repeat.start));
        let why = match &row.status {
            Status::Valid if measured_nothing(row) => String::new(),
            Status::Valid => {
                starts.insert(start);
                continue;
            }
            Status::Invalid(why) => why.clone(),
            Status::Failed(attempt) if attempt.cause.is_none_or(crate::model::Cause::is_of_configuration) => {
                attempt.cause.map_or_else(|| attempt.summary.clone(), |cause| cause.to_string())
            }
            Status::Failed(_) | Status::Skipped { .. } | Status::Interrupted | Status::Running | Status::NotRun => {
                continue;
            }
        };
        starts.insert(start);
        failed.insert(start);
        cause.get_or_insert(why);
    }
    (Failures { failed: failed.len(), of: starts.len() }, cause)
}

/// The valid measurements of a configuration, or why it is not asked.
pub(super) fn refused<'a>(rows: &[&'a Row], wanted: &RankingSpec) -> Result<Asked<'a>, String> {
    // A rate of nothing is no measurement; but none of the requests may keep the goals of a goodput.
    let rate = Metric::of(&wanted.rank_by).and_then(|of| of.better) == Some(Better::Higher)
        && wanted.rank_by != "request_goodput";
    let measured_nothing = |row: &Row| rate && row.metric(&wanted.rank_by).is_some_and(|value| value <= 0.0);
    let (failures, cause) = failures(rows, measured_nothing);
    let cause = cause.map(|cause| if cause.is_empty() { format!("{} is 0", wanted.rank_by) } else { cause });
    let measured: Vec<&Row> = rows.iter().filter(|row| row.is_valid() && !measured_nothing(row)).copied().collect();
    #[expect(clippy::cast_precision_loss, reason = "starts are few")]
    let share = failures.failed as f64 / failures.of.max(1) as f64;
    if failures.failed > 0 && (share > wanted.failures || measured.is_empty()) {
        let why = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        let starts = if failures.of == 1 { "start" } else { "starts" };
        return Err(format!("{} of {} {starts} failed{why}", failures.failed, failures.of));
    }
    if measured.is_empty() {
        return Err("it has no valid result".into());
    }
    if let Some(warning) = measured.iter().flat_map(|row| &row.about.warnings).find(|warning| warning.kind.excludes()) {
        return Err(warning.text.clone());
    }
    if measured.iter().all(|row| row.metric(&wanted.rank_by).is_none()) {
        return Err(format!("its result has no `{}`", wanted.rank_by));
    }
    Ok(Asked { rows: measured, failures })
}

/// Marks what no other beats in both: a better metric and less latency.
fn mark_front(options: &mut [Choice<'_>], better: Better) {
    let gain = |value: f64| if better == Better::Higher { value } else { -value };
    let points: Vec<(f64, Option<f64>)> = options.iter().map(|option| (gain(option.value), option.latency)).collect();
    let mut order: Vec<(usize, f64, f64)> =
        points.iter().enumerate().filter_map(|(index, (value, latency))| Some((index, *value, (*latency)?))).collect();
    // By the metric, best first; of equals the least latency first. Then a point is on the front when it has less latency than
    // all that are better, or is the very same as one that is on it.
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.2.total_cmp(&b.2)));
    let mut last: Option<(f64, f64)> = None;
    for (index, value, latency) in order {
        #[expect(clippy::float_cmp, reason = "the very same metrics")]
        let on_front = last.is_none_or(|(best, least)| latency < least || latency == least && value == best);
        options[index].on_front = on_front;
        if on_front {
            last = Some((value, latency));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::row;
    use super::super::{FailedAttempt, Limit};
    use super::*;
    use crate::model::{Cause, Repeat, VllmMetric};

    fn wanted(limits: &[&str]) -> RankingSpec {
        RankingSpec {
            limits: limits.iter().map(|text| Limit::parse(text).unwrap()).collect(),
            ..RankingSpec::by("request_throughput", Better::Higher)
        }
    }

    /// Starts of a configuration with these rates and a TTFT of 100 ms.
    fn starts(tp: u32, rates: &[f64]) -> Vec<Row> {
        let one = |(start, rate): (u32, &f64)| {
            let mut row = row("m", tp, *rate, 100.0);
            row.repeat = Some(Repeat { start, run: 1 });
            row.identity = serde_json::from_value(format!("{tp:064}").into()).ok();
            row.about.devices = Some(1);
            row
        };
        (1..).zip(rates).map(one).collect()
    }

    /// First starts of all, then second ones.
    fn interleaved(all: &[Vec<Row>]) -> Vec<&Row> {
        let most = all.iter().map(Vec::len).max().unwrap_or(0);
        (0..most).flat_map(|start| all.iter().filter_map(move |rows| rows.get(start))).collect()
    }

    fn chosen(found: &Recommendation<'_>) -> Option<u32> {
        found.chosen().and_then(|choice| choice.row.axes.tensor_parallel_size)
    }

    #[test]
    fn fewer_devices_win_per_device_and_limits_leave_out() {
        let mut rows = [row("m", 1, 10.0, 400.0), row("m", 2, 16.0, 200.0), row("m", 4, 20.0, 250.0)];
        for (row, devices) in rows.iter_mut().zip([1, 2, 4]) {
            row.about.devices = Some(devices);
        }
        let all: Vec<&Row> = rows.iter().collect();
        let found = choose(&all, &wanted(&[])).unwrap();
        assert_eq!((chosen(&found), found.basis, found.per_device), (Some(1), Basis::OneStart, true));
        let front: Vec<bool> = found.options.iter().map(|option| option.on_front).collect();
        assert_eq!(front, [true, true, false]);
        let found = choose(&all, &wanted(&["ttft.mean<300"])).unwrap();
        assert_eq!((chosen(&found), found.limits_unconfirmed), (Some(2), true));
        assert!(found.left_out[0].why.contains("mean_ttft_ms is 400.00, not below 300"), "{}", found.left_out[0].why);
        assert_eq!(choose(&all, &wanted(&["ttft.p99<1"])).unwrap_err().len(), 3);
        // Where devices are not known of all, nothing is said per device.
        rows[0].about.devices = None;
        let all: Vec<&Row> = rows.iter().collect();
        let found = choose(&all, &wanted(&[])).unwrap();
        assert_eq!((chosen(&found), found.per_device), (Some(4), false));
    }

    #[test]
    fn a_simpler_one_is_chosen_only_where_it_is_shown_to_be_equivalent() {
        let mut all = [starts(2, &[9.99, 10.01, 10.0, 9.98]), starts(4, &[10.0, 10.02, 10.01, 9.99])];
        for row in &mut all[1] {
            row.about.overrides = 2;
        }
        let found = choose(&interleaved(&all), &wanted(&[])).unwrap();
        assert_eq!((chosen(&found), found.why, found.basis), (Some(2), Why::Equivalent, Basis::Starts));
        assert_eq!((found.options[0].row.axes.tensor_parallel_size, found.others_in_set()), (Some(4), 1));
        let strict = RankingSpec { margin: 0.0005, ..wanted(&[]) };
        assert_eq!(chosen(&choose(&interleaved(&all), &strict).unwrap()), Some(4));
        assert_eq!(all[0][0].metrics.get(VllmMetric::RequestThroughput), Some(9.99));
    }

    #[test]
    fn configurations_measured_one_after_the_other_are_no_basis_for_a_claim() {
        let all = [starts(1, &[50.0, 51.0, 49.0]), starts(2, &[90.0, 91.0, 89.0])];
        let grouped: Vec<&Row> = all.iter().flatten().collect();
        let found = choose(&grouped, &wanted(&[])).unwrap();
        assert_eq!((chosen(&found), found.basis, found.significantly_best), (Some(2), Basis::GroupedOrder, false));
        let found = choose(&interleaved(&all), &wanted(&[])).unwrap();
        assert_eq!((chosen(&found), found.basis, found.significantly_best), (Some(2), Basis::Starts, true));
    }

    #[test]
    fn failed_starts_count() {
        let mut all = [starts(1, &[50.0, 51.0, 52.0]), starts(2, &[90.0, 91.0, 92.0])];
        let fail = |row: &mut Row, cause: Cause| {
            row.status = Status::Failed(Box::new(FailedAttempt {
                cause: Some(cause),
                summary: "it failed".into(),
                phase: None,
                evidence: Vec::new(),
                advice: Vec::new(),
                log: None,
                kept: None,
            }));
        };
        fail(&mut all[1][0], Cause::OutOfDeviceMemory);
        let found = choose(&interleaved(&all), &wanted(&[])).unwrap();
        assert_eq!(chosen(&found), Some(1));
        assert_eq!(found.left_out[0].why, "1 of 3 starts failed (out-of-device-memory)");
        let lenient = RankingSpec { failures: 0.4, ..wanted(&[]) };
        let found = choose(&interleaved(&all), &lenient).unwrap();
        assert_eq!((chosen(&found), found.options[0].failures), (Some(2), Failures { failed: 1, of: 3 }));
        // A port that somebody else took says nothing of the configuration.
        fail(&mut all[1][0], Cause::PortInUse);
        assert_eq!(chosen(&choose(&interleaved(&all), &wanted(&[])).unwrap()), Some(2));
        // A rate of zero is a start that measured nothing, and no other configuration suffers for it.
        let all = [starts(1, &[50.0, 51.0, 52.0]), starts(2, &[90.0, 91.0, 0.0])];
        let found = choose(&interleaved(&all), &wanted(&[])).unwrap();
        assert_eq!(chosen(&found), Some(1));
        assert_eq!(found.left_out[0].why, "1 of 3 starts failed (request_throughput is 0)");
    }
}
