//! What was measured beside others and may be the best alone. Pure.
//!
//! Neighbours make a measurement worse, and not each by as much: what ran at the end of a run had fewer. What they cost at most is known from
//! configurations that were measured both ways, or from the check before the lanes were used. What is still worse when it is raised by
//! that much is worse; all else is measured again alone.

use indexmap::IndexMap;

use super::inference::{mean, t_quantile};
use super::rank::mean_over_starts;
use super::{Choice, LeftOut, MARGIN, RankingSpec, Recommendation, Row, RunTable, Standing};
use crate::model::{Better, Identity, Metric};

/// So many configurations must be measured both ways before they tell what neighbours cost at most.
const FEWEST_BOTH_WAYS: usize = 3;

/// What is known of neighbours in an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Beside {
    /// So many configurations were measured beside others, and not again alone.
    pub settings: usize,
    /// Beside so many others at most.
    pub most: u32,
    /// What neighbours cost at most, as a part of the objective (0.02 = 2 %); `None` = not known.
    pub cost: Option<f64>,
    /// The settings that may be the best alone. Where the cost is not known: those that would tell it.
    pub open: Vec<Identity>,
}

impl Beside {
    /// Whether another configuration than this one may be the best alone, as far as anybody knows.
    pub fn leaves_open(&self, choice: &Row) -> bool {
        self.cost.is_none() || self.open.iter().any(|identity| Some(identity) != choice.identity.as_ref())
    }
}

/// The measurements that count, and those that others replaced, by their settings.
#[derive(Debug, Default)]
pub(super) struct Sides<'a> {
    counting: IndexMap<&'a Identity, Vec<&'a Row>>,
    replaced: IndexMap<&'a Identity, Vec<&'a Row>>,
    /// What the check before the lanes found them to cost at most, and of which metrics.
    checked: Option<(f64, Vec<String>)>,
}

impl<'a> Sides<'a> {
    /// Of a table; `None` where nothing was measured beside others.
    pub(super) fn of(table: &'a RunTable) -> Option<Self> {
        table.rows.iter().any(|row| row.about.neighbours > Some(0)).then(|| {
            let most = table.rows.iter().filter_map(|row| row.about.neighbours).max().unwrap_or(0);
            let checked = table.facts.neighbours.as_ref().filter(|of| of.within && of.lanes > most);
            let checked = checked.map(|of| (of.threshold, of.metrics.clone()));
            let mut sides = Self { checked, ..Self::default() };
            for row in table.rows.iter().filter(|row| row.is_valid() && row.side.is_none()) {
                let Some(identity) = &row.identity else { continue };
                let side = if row.replaced { &mut sides.replaced } else { &mut sides.counting };
                side.entry(identity).or_default().push(row);
            }
            sides
        })
    }

    fn neighbours(&self, row: &Row) -> u32 {
        let rows = row.identity.as_ref().and_then(|identity| self.counting.get(identity));
        rows.into_iter().flatten().filter_map(|row| row.about.neighbours).max().unwrap_or(0)
    }

    /// How much better each of these was alone than beside others, as logarithms; none where none was measured both ways.
    fn costs(&self, rows: &[&Row], key: &str, better: Better) -> Vec<f64> {
        let means = |row: &Row| {
            let identity = row.identity.as_ref()?;
            let beside: Vec<&Row> =
                self.replaced.get(identity)?.iter().filter(|row| row.about.neighbours > Some(0)).copied().collect();
            let alone = mean_over_starts(self.counting.get(identity)?, key)?;
            let log = (alone / mean_over_starts(&beside, key)?).ln();
            Some(if better == Better::Higher { log } else { -log }).filter(|log| log.is_finite())
        };
        rows.iter().filter_map(|row| means(row)).collect()
    }

    /// What neighbours cost a metric at most, as a logarithm: what the check allowed, where it looked at this one, unless those measured both ways lost more than that. Of those
    /// it is the most, or the upper end of where one more would lie (one-sided prediction limit at 95 %, Student's t), if that is more;
    /// `None` for fewer than [`FEWEST_BOTH_WAYS`].
    fn most(&self, costs: &[f64], key: &str) -> Option<f64> {
        let middle = if costs.is_empty() { 0.0 } else { mean(costs) };
        let of_key = self.checked.as_ref().filter(|(_, metrics)| metrics.iter().any(|known| known == key));
        let checked = of_key.map(|(threshold, _)| threshold.ln_1p());
        if checked.is_some_and(|checked| middle <= checked) {
            return checked;
        }
        if costs.len() < FEWEST_BOTH_WAYS {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "configurations are few")]
        let n = costs.len() as f64;
        let variance = costs.iter().map(|cost| (cost - middle).powi(2)).sum::<f64>() / (n - 1.0);
        let limit = middle + t_quantile(0.95, n - 1.0)? * (variance * (1.0 + 1.0 / n)).sqrt();
        Some(costs.iter().copied().fold(limit.max(0.0), f64::max))
    }

    /// What they say of an answer; `None` where nothing that it is about was measured beside others.
    pub(super) fn tell(
        &self,
        choice: &Result<Recommendation<'a>, Vec<LeftOut<'a>>>,
        wanted: &RankingSpec,
    ) -> Option<Beside> {
        let (options, left_out) = match choice {
            Ok(found) => (found.options.as_slice(), found.left_out.as_slice()),
            Err(left_out) => (&[][..], left_out.as_slice()),
        };
        let all: Vec<&Row> =
            options.iter().map(|option| option.row).chain(left_out.iter().map(|left| left.row)).collect();
        let beside: Vec<u32> = all.iter().map(|row| self.neighbours(row)).filter(|count| *count > 0).collect();
        let most = beside.iter().copied().max()?;
        let cost = self.most(&self.costs(&all, &wanted.rank_by, wanted.better), &wanted.rank_by);
        let mut open: Vec<&Row> = Vec::new();
        if let Ok(found) = choice {
            open.extend(self.open(found, cost.unwrap_or(MARGIN), wanted));
            if cost.is_none() {
                open.extend(self.telling(options));
            }
        }
        let best = options.first().map(|best| best.value);
        let limited = left_out.iter().filter(|left| left.breaks_limit && self.neighbours(left.row) > 0);
        let mut limited: Vec<&Row> = limited.map(|left| left.row).collect();
        if let Some(cost) = cost {
            limited.retain(|row| self.may_keep(row, &all, cost, best, wanted));
        }
        let of_limit = |limit: &super::Limit| self.cost_of_limit(&all, limit);
        if cost.is_none() || wanted.limits.iter().any(|limit| of_limit(limit).is_none()) {
            // Those that are nearest to the limits, and that tell it where nothing else does.
            limited.sort_by(|a, b| self.excess(a, wanted).total_cmp(&self.excess(b, wanted)));
            limited.truncate(if cost.is_some() || open.is_empty() { FEWEST_BOTH_WAYS + 1 } else { 1 });
        }
        open.extend(limited);
        let mut identities: Vec<Identity> = Vec::new();
        for identity in open.iter().filter_map(|row| row.identity.as_ref()) {
            if !identities.contains(identity) {
                identities.push(identity.clone());
            }
        }
        Some(Beside { settings: beside.len(), most, cost: cost.map(f64::exp_m1), open: identities })
    }

    /// The options that tell what neighbours cost: the best of each number of neighbours, and some over the whole order. The best alone
    /// were disturbed least.
    fn telling(&self, options: &[Choice<'a>]) -> Vec<&'a Row> {
        let beside: Vec<&'a Row> =
            options.iter().map(|option| option.row).filter(|row| self.neighbours(row) > 0).collect();
        let mut counts: Vec<u32> = Vec::new();
        let mut telling: Vec<&'a Row> = Vec::new();
        for row in &beside {
            let count = self.neighbours(row);
            if !counts.contains(&count) {
                counts.push(count);
                telling.push(row);
            }
        }
        let last = beside.len().saturating_sub(1);
        telling.extend((0..=FEWEST_BOTH_WAYS).filter_map(|part| beside.get(last * part / FEWEST_BOTH_WAYS)));
        telling
    }

    /// By how much a configuration breaks its limits, as the largest logarithm; nothing known is the most.
    fn excess(&self, row: &Row, wanted: &RankingSpec) -> f64 {
        let rows = row.identity.as_ref().and_then(|identity| self.counting.get(identity));
        let excess = |limit: &super::Limit| {
            let log = (mean_over_starts(rows?, &limit.key)? / limit.value).ln();
            Some(if limit.above { -log } else { log }).filter(|log| log.is_finite())
        };
        wanted.limits.iter().map(|limit| excess(limit).unwrap_or(f64::MAX)).fold(f64::MIN, f64::max)
    }

    /// The options with neighbours that may be the best when they are raised by a cost.
    fn open(&self, found: &Recommendation<'a>, cost: f64, wanted: &RankingSpec) -> Vec<&'a Row> {
        let best = found.options.first().map_or(f64::NAN, |best| best.value);
        let established = found.basis.is_established();
        let may_be = |place: usize, option: &Choice<'_>| {
            let end = option.estimate.and_then(|of| of.interval).filter(|_| established);
            let (reach, behind) = match wanted.better {
                Better::Higher => (end.map_or(option.value, |of| of.high), 1.0),
                Better::Lower => (end.map_or(option.value, |of| of.low), -1.0),
            };
            // Without a set of the best, what is nearer than matters may be as good.
            let slack = if established { 0.0 } else { MARGIN };
            let near = (reach / best).ln() * behind + cost + slack >= 0.0;
            place == found.choice || near || established && option.standing == Standing::MayBeBest
        };
        let options = found.options.iter().enumerate();
        let options = options.filter(|(place, option)| self.neighbours(option.row) > 0 && may_be(*place, option));
        options.map(|(_, option)| option.row).collect()
    }

    /// What neighbours cost the metric of a limit at most, as a logarithm; `None` = not known.
    fn cost_of_limit(&self, all: &[&Row], limit: &super::Limit) -> Option<f64> {
        let better = if limit.above { Better::Higher } else { Better::Lower };
        self.most(&self.costs(all, &limit.key, better), &limit.key)
    }

    /// Whether a configuration that breaks a limit may keep all of them alone, and be the best of those that do.
    fn may_keep(&self, row: &Row, all: &[&Row], cost: f64, best: Option<f64>, wanted: &RankingSpec) -> bool {
        let Some(rows) = row.identity.as_ref().and_then(|identity| self.counting.get(identity)) else { return false };
        let keeps = wanted.limits.iter().all(|limit| {
            // What nobody knows may be anything.
            let Some(own) = self.cost_of_limit(all, limit) else { return true };
            let cost = own.max(cost);
            let raised = |value: f64| if limit.above { value * cost.exp() } else { value / cost.exp() };
            mean_over_starts(rows, &limit.key).is_some_and(|value| limit.holds(raised(value)))
        });
        let per_device = wanted.per_device && Metric::is_of_all_devices(&wanted.rank_by);
        let devices = row.about.devices.filter(|_| per_device).map_or(1.0, f64::from);
        let value = mean_over_starts(rows, &wanted.rank_by).map(|value| value / devices);
        let wins = |value: f64, best: f64| match wanted.better {
            Better::Higher => value * cost.exp() >= best,
            Better::Lower => value / cost.exp() <= best,
        };
        keeps && value.is_some_and(|value| best.is_none_or(|best| wins(value, best)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{row, table_of};
    use super::super::{BY_MODEL, Basis, Limit, answers};
    use super::*;
    use crate::model::{NeighboursChecked, Repeat, VllmMetric};

    /// A configuration as it was measured on these starts, beside so many others; the first start is `from`.
    fn measured(tp: u32, neighbours: u32, from: u32, values: &[f64]) -> Vec<Row> {
        let one = |(place, value): (u32, &f64)| {
            let mut row = row("m", tp, *value, 100.0);
            row.identity = Some(Identity::of_stated(&[("tp".to_owned(), tp.to_string())].into()));
            row.repeat = Some(Repeat { start: from + place, run: 1 });
            row.about.neighbours = Some(neighbours);
            row.alone = from > 100;
            row
        };
        (0..).zip(values).map(one).collect()
    }

    fn replaced(rows: Vec<Row>) -> Vec<Row> {
        rows.into_iter().map(|row| Row { replaced: true, ..row }).collect()
    }

    fn wanted(limits: &[&str]) -> RankingSpec {
        RankingSpec {
            rank_by: VllmMetric::RequestThroughput.key().into(),
            better: Better::Higher,
            per_device: false,
            latency: "mean_ttft_ms".into(),
            limits: limits.iter().filter_map(|text| Limit::parse(text)).collect(),
            ..RankingSpec::default()
        }
    }

    /// The first answer: what is open by tensor parallel size, the cost, and what the answer is based on.
    fn told(rows: Vec<Row>, limits: &[&str]) -> (Vec<u32>, Option<f64>, Option<Basis>) {
        let table = table_of(rows);
        let answers = answers(&table, &[BY_MODEL.to_owned()], &wanted(limits));
        let answer = &answers[0];
        let beside = answer.beside.as_ref().unwrap();
        let tp = |identity: &Identity| {
            let row = table.rows.iter().find(|row| row.identity.as_ref() == Some(identity)).unwrap();
            row.axes.tensor_parallel_size.unwrap()
        };
        let mut open: Vec<u32> = beside.open.iter().map(tp).collect();
        open.sort_unstable();
        (open, beside.cost, answer.choice.as_ref().ok().map(|choice| choice.basis))
    }

    #[test]
    fn a_run_without_neighbours_says_nothing_of_them() {
        let table = table_of(vec![row("m", 1, 10.0, 1.0), row("m", 2, 20.0, 1.0)]);
        assert!(answers(&table, &[BY_MODEL.to_owned()], &wanted(&[])).iter().all(|answer| answer.beside.is_none()));
    }

    #[test]
    fn where_the_cost_is_not_known_those_are_measured_again_that_tell_it() {
        // The second ran last, with no other beside it: the first would be the best alone.
        let all = [measured(1, 2, 1, &[90.0]), measured(2, 0, 1, &[95.0]), measured(4, 2, 1, &[50.0])].concat();
        assert_eq!(told(all, &[]), (vec![1, 4], None, Some(Basis::OneStart)));
    }

    #[test]
    fn what_is_no_better_when_it_is_raised_by_the_cost_is_settled() {
        let both = |tp, beside: f64, alone: f64| {
            [replaced(measured(tp, 2, 1, &[beside])), measured(tp, 0, 101, &[alone])].concat()
        };
        let near = measured(2, 2, 1, &[82.0]);
        let far = measured(4, 2, 1, &[50.0]);
        // One or two may have been lucky: they tell nothing.
        let two = [both(1, 100.0, 100.0), both(8, 60.0, 60.0), near.clone(), far.clone()].concat();
        assert_eq!(told(two, &[]).1, None);
        let alike = [both(1, 80.0, 100.0), both(8, 56.0, 70.0), both(16, 48.0, 60.0), near.clone(), far.clone()];
        let (open, cost, _) = told(alike.concat(), &[]);
        assert_eq!((open, (cost.unwrap() * 100.0).round()), (vec![2], 25.0), "it costs a quarter");
        // Where it costs some much and others nothing, one more may lose more than any of them.
        let unlike = [both(1, 100.0, 100.0), both(8, 56.0, 70.0), both(16, 48.0, 60.0), near, far];
        let (open, cost, _) = told(unlike.concat(), &[]);
        assert!(open == [2] && cost.unwrap() > 0.5, "{open:?} {cost:?}");
    }

    #[test]
    fn nothing_is_established_while_another_may_be_better_alone() {
        let beside = |tp, at: f64| measured(tp, 2, 1, &[at, at * 1.01, at * 0.99]);
        let alone = |tp, at: f64| measured(tp, 0, 101, &[at, at * 1.01, at * 0.99]);
        let in_turn = |all: &[Vec<Row>]| -> Vec<Row> {
            (0..3).flat_map(|start| all.iter().map(move |rows| rows[start].clone())).collect()
        };
        let three = [1, 8, 16].map(|tp| replaced(beside(tp, 80.0 / f64::from(tp))));
        let again = [1, 8, 16].map(|tp| alone(tp, 100.0 / f64::from(tp)));
        let near = beside(2, 82.0);
        let first = [three.as_slice(), std::slice::from_ref(&near)].concat();
        let (open, _, basis) = told([in_turn(&first), in_turn(&again)].concat(), &[]);
        assert_eq!((open, basis), (vec![2], Some(Basis::BesideOthers)));
        let first = [three.as_slice(), &[replaced(near)]].concat();
        let again = [again.as_slice(), &[alone(2, 102.5)]].concat();
        let table = table_of([in_turn(&first), in_turn(&again)].concat());
        let answers = answers(&table, &[BY_MODEL.to_owned()], &wanted(&[]));
        let choice = answers[0].choice.as_ref().unwrap();
        assert_eq!(
            (choice.basis, choice.chosen().unwrap().value.round()),
            (Basis::Starts, 103.0),
            "two orders of starts"
        );
        assert_eq!(answers[0].beside, None);
    }

    #[test]
    fn what_the_check_did_not_look_at_is_not_taken_for_granted() {
        let slow = |mut rows: Vec<Row>| {
            rows.iter_mut().for_each(|row| row.metrics.set(VllmMetric::MeanTtft, Some(90.0)));
            rows
        };
        let rows = || [measured(1, 2, 1, &[50.0]), slow(measured(2, 2, 1, &[95.0]))].concat();
        for (metrics, open) in
            [(&["request_throughput"][..], vec![1, 2]), (&["request_throughput", "mean_ttft_ms"], vec![1])]
        {
            let mut table = table_of(rows());
            table.rows[0].metrics.set(VllmMetric::MeanTtft, Some(20.0));
            let metrics = metrics.iter().map(|key| (*key).to_owned()).collect();
            table.facts.neighbours =
                Some(NeighboursChecked { lanes: 3, threshold: 0.02, within: true, metrics, why: String::new() });
            let answers = answers(&table, &[BY_MODEL.to_owned()], &wanted(&["ttft.mean<50"]));
            let beside = answers[0].beside.as_ref().unwrap();
            let tp = |row: &&Row| row.identity.as_ref().is_some_and(|identity| beside.open.contains(identity));
            let found: Vec<u32> =
                table.rows.iter().filter(tp).filter_map(|row| row.axes.tensor_parallel_size).collect();
            assert_eq!(found, open, "the second is twice as fast, and breaks the limit only beside others");
        }
        // Another objective than that of the check.
        let mut table = table_of(rows());
        let metrics = vec!["output_throughput".to_owned()];
        table.facts.neighbours =
            Some(NeighboursChecked { lanes: 3, threshold: 0.02, within: true, metrics, why: String::new() });
        let answers = answers(&table, &[BY_MODEL.to_owned()], &wanted(&[]));
        assert_eq!(answers[0].beside.as_ref().unwrap().cost, None);
    }

    #[test]
    fn one_that_breaks_a_limit_beside_others_may_keep_it_alone() {
        let slow = |rows: Vec<Row>, ttft: f64| -> Vec<Row> {
            let mut rows = rows;
            rows.iter_mut().for_each(|row| row.metrics.set(VllmMetric::MeanTtft, Some(ttft)));
            rows
        };
        let known =
            [1, 8, 16].map(|tp| [replaced(measured(tp, 2, 1, &[80.0])), measured(tp, 0, 101, &[88.0])].concat());
        let known = slow(known.concat(), 40.0);
        let breaks = slow(measured(2, 2, 1, &[95.0]), 52.0);
        let hopeless = slow(measured(4, 2, 1, &[95.0]), 90.0);
        let (open, ..) = told([known, breaks, hopeless].concat(), &["ttft.mean<50"]);
        assert_eq!(open, [2]);
        // Where all break it, those that are nearest to it tell what neighbours cost.
        let all: Vec<Vec<Row>> = (1..=6).map(|tp| slow(measured(tp, 2, 1, &[95.0]), 50.0 + f64::from(tp))).collect();
        assert_eq!(told(all.concat(), &["ttft.mean<50"]).0, [1, 2, 3, 4]);
    }
}
