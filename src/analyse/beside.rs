//! What was measured beside others and may be the best alone. Pure.
//!
//! Neighbours make a measurement worse, and not each by as much: what ran at the end of a run had fewer. What they cost at most is known from
//! configurations that were measured both ways, or from the check before the lanes were used. What is still worse when it is raised by
//! that much is worse; all else is measured again alone.

use indexmap::IndexMap;

use super::rank::mean_over_starts;
use super::{Choice, LeftOut, MARGIN, RankingSpec, Recommendation, Row, RunTable, Standing};
use crate::model::{Better, Identity, Metric};

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
    /// What the check before the lanes found them to cost at most.
    checked: Option<f64>,
}

impl<'a> Sides<'a> {
    /// Of a table; `None` where nothing was measured beside others.
    pub(super) fn of(table: &'a RunTable) -> Option<Self> {
        table.rows.iter().any(|row| row.about.neighbours > Some(0)).then(|| {
            let most = table.rows.iter().filter_map(|row| row.about.neighbours).max().unwrap_or(0);
            let checked = table.facts.neighbours.as_ref().filter(|of| of.within && of.lanes > most);
            let mut sides = Self { checked: checked.map(|of| of.threshold), ..Self::default() };
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

    /// What neighbours cost at most, as a logarithm: what the check allowed, unless those measured both ways lost more than that.
    fn most(&self, costs: &[f64]) -> Option<f64> {
        let seen = costs.iter().copied().reduce(f64::max).map(|most| most.max(0.0));
        let checked = self.checked.map(f64::ln_1p);
        #[expect(clippy::cast_precision_loss, reason = "configurations are few")]
        let mean = costs.iter().sum::<f64>() / costs.len().max(1) as f64;
        match (checked, seen) {
            (Some(checked), _) if mean <= checked => Some(checked),
            (_, seen) => seen,
        }
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
        let cost = self.most(&self.costs(&all, &wanted.rank_by, wanted.better));
        let mut open: Vec<&Row> = Vec::new();
        if let Ok(found) = choice {
            open.extend(self.open(found, cost.unwrap_or(MARGIN), wanted));
            if cost.is_none() {
                // The best of those with as many neighbours, of each number: they tell what neighbours cost.
                let mut counts: Vec<u32> = vec![0];
                for option in options {
                    let count = self.neighbours(option.row);
                    if !counts.contains(&count) {
                        counts.push(count);
                        open.push(option.row);
                    }
                }
            }
        }
        let best = options.first().map(|best| best.value);
        let limited = left_out.iter().filter(|left| left.breaks_limit && self.neighbours(left.row) > 0);
        let mut limited: Vec<&Row> = limited.map(|left| left.row).collect();
        match cost {
            Some(cost) => limited.retain(|row| self.may_keep(row, &all, cost, best, wanted)),
            // Again those that tell it, where nothing else does.
            None => limited.truncate(usize::from(open.is_empty())),
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

    /// Whether a configuration that breaks a limit may keep all of them alone, and be the best of those that do.
    fn may_keep(&self, row: &Row, all: &[&Row], cost: f64, best: Option<f64>, wanted: &RankingSpec) -> bool {
        let Some(rows) = row.identity.as_ref().and_then(|identity| self.counting.get(identity)) else { return false };
        let keeps = wanted.limits.iter().all(|limit| {
            let better = if limit.above { Better::Higher } else { Better::Lower };
            let costs = self.costs(all, &limit.key, better);
            let cost = costs.into_iter().fold(cost, f64::max);
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
    use crate::model::{Repeat, VllmMetric};

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
        assert_eq!(told(all, &[]), (vec![1], None, Some(Basis::OneStart)));
    }

    #[test]
    fn what_is_no_better_when_it_is_raised_by_the_cost_is_settled() {
        let first = replaced(measured(1, 2, 1, &[80.0]));
        let alone = measured(1, 0, 101, &[100.0]);
        let near = measured(2, 2, 1, &[82.0]);
        let far = measured(4, 2, 1, &[50.0]);
        let (open, cost, _) = told([first, alone, near, far].concat(), &[]);
        assert_eq!((open, (cost.unwrap() * 100.0).round()), (vec![2], 25.0), "it costs a quarter");
    }

    #[test]
    fn nothing_is_established_while_another_may_be_better_alone() {
        let first = replaced(measured(1, 2, 1, &[80.0, 80.4, 79.7]));
        let alone = measured(1, 0, 101, &[100.0, 100.5, 99.6]);
        let near = measured(2, 2, 1, &[82.0, 82.3, 81.6]);
        let interleaved = |all: [Vec<Row>; 2]| {
            (0..3).flat_map(|i| all.iter().map(move |rows| rows[i].clone()).collect::<Vec<_>>()).collect::<Vec<Row>>()
        };
        let both = [interleaved([first.clone(), near.clone()]), alone.clone()].concat();
        let (open, _, basis) = told(both, &[]);
        assert_eq!((open, basis), (vec![2], Some(Basis::BesideOthers)));
        let settled =
            [interleaved([first, replaced(near)]), interleaved([alone, measured(2, 0, 101, &[102.5, 103.0, 102.0])])];
        let table = table_of(settled.concat());
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
    fn one_that_breaks_a_limit_beside_others_may_keep_it_alone() {
        let slow = |rows: Vec<Row>, ttft: f64| -> Vec<Row> {
            let mut rows = rows;
            rows.iter_mut().for_each(|row| row.metrics.set(VllmMetric::MeanTtft, Some(ttft)));
            rows
        };
        let known = [replaced(measured(1, 2, 1, &[80.0])), measured(1, 0, 101, &[88.0])];
        let known = slow(known.concat(), 40.0);
        let breaks = slow(measured(2, 2, 1, &[95.0]), 52.0);
        let hopeless = slow(measured(4, 2, 1, &[95.0]), 90.0);
        let (open, ..) = told([known, breaks, hopeless].concat(), &["ttft.mean<50"]);
        assert_eq!(open, [2]);
        // Where all break it, one of them tells what neighbours cost.
        let all = [slow(measured(2, 2, 1, &[95.0]), 52.0), slow(measured(4, 2, 1, &[95.0]), 90.0)];
        assert_eq!(told(all.concat(), &["ttft.mean<50"]).0, [2]);
    }
}
