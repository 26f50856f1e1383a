//! Which configuration is best, as far as the data allow to say. Pure.
//!
//! Values are compared as logarithms, so that differences are relative. The unit is the server start: measurements on one start are
//! averaged first, as they share whatever that start had of its own. Two statements are made, each with its own guarantee:
//!
//! - **The set of the best**: comparisons with the best (Gupta 1965, Hsu 1984). A configuration is not in it where another one is
//!   better by more than Student's t of both their variances allows, one-sided at `0.05 / max(k - 1, 2.5)` for `k`
//!   configurations (Bonferroni). The true best is left out with a probability of at most 5 %. Variances are moderated ([`super::moderate`]).
//! - **Significantly better than every other one**: said of the only one in the set, where it leads each other one by more than the margin.
//!   At the level above this is a two-sided test of two configurations at 4 %: Welch's test errs a little more often than its level where few
//!   starts of one are noisier, so that of equals one is called so in at most 5 %.
//!
//! Nothing is claimed from fewer than three starts, from repeats without any variance, or where configurations were measured one after the
//! other, as a drift of the machine would look like a difference. The choice is the best mean, or a simpler configuration that is shown to be
//! equivalent to it within the margin (two one-sided tests, Schuirmann 1987).
//!
//! **Starts that are added until the answer is decided** ([`Design::until`]): the data are looked at after three starts of each, and after each
//! further one of those that may still be the best. The 5 % are spent over these looks (Lan and DeMets 1983, with Pocock's function), so that the
//! error rates above hold for the sweep as a whole; what was left out at a look stays out. The answer is decided where the leader is shown to be
//! worse than no other one by more than the margin, at the level of that look.
//!
//! The intervals of all means hold together (Bonferroni): the best of many means is one that chance made larger, and an interval that holds
//! 95 % of the means of one configuration holds as few as 62 % of those of the best of 30 equals.

use super::inference::{
    CONFIDENCE, Group, Interval, NO_NOISE, mean, over_starts, pooled, starts_to_separate, t_above, t_quantile,
};
use super::moderate::{Moderated, moderated};
use crate::model::Better;

/// Configurations with fewer starts are undecided.
pub const FEWEST_STARTS: usize = 3;
/// What may be claimed wrongly, in all.
const ALPHA: f64 = 1.0 - CONFIDENCE;
/// Differences below this part do not matter where nobody says otherwise.
pub const MARGIN: f64 = 0.02;
/// Beyond this many configurations each is compared with the leader alone: a little less is left out, and the time stays linear.
const MOST_FOR_ALL: usize = 300;

/// One configuration to choose from.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The measurements of each server start.
    pub starts: Vec<Vec<f64>>,
    /// Devices that it takes: fewer are simpler.
    pub devices: u32,
    /// Flags that differ from the plainest configuration: fewer are simpler.
    pub overrides: usize,
}

/// How candidates were measured, and what matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Design {
    /// Relative difference that matters.
    pub margin: f64,
    /// Whether configurations were measured one after the other.
    pub grouped: bool,
    /// Starts were added until the answer was decided, to at most so many of each.
    pub until: Option<usize>,
}

/// What the answer is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Three starts or more of the leader: there is a set of the best.
    Starts,
    /// The leader has fewer than three starts, and another one has several.
    TooFewStarts,
    /// One start of each, however often it was measured: nothing says how far starts differ.
    OneStart,
    /// Several starts, measured one configuration after the other.
    GroupedOrder,
    /// Repeats that do not differ: nothing says how far they would.
    NoVariance,
    /// Starts enough, but others may be better when they are measured alone, as the leader was, or the leader was not either.
    BesideOthers,
}

impl Basis {
    /// Whether there is a set of the best.
    pub fn is_established(self) -> bool {
        self == Basis::Starts
    }
}

/// Where a configuration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// In the set of the best.
    MayBeBest,
    /// Another one is better: not in the set.
    NotBest,
    /// Too few starts to say, or there is no set.
    Undecided,
}

/// Why a configuration is the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It has the best mean.
    BestMean,
    /// It is simpler than the one with the best mean, and equivalent to it within the margin.
    Equivalent,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Of each candidate.
    pub standings: Vec<Standing>,
    /// The one with the best mean.
    pub leader: usize,
    /// The one to use.
    pub choice: usize,
    /// Why.
    pub why: Why,
    /// Whether the leader is significantly better than every other one, by more than the margin.
    pub significantly_best: bool,
    /// Whether the leader is shown to be worse than no other one by more than the margin.
    pub within_margin: bool,
    /// What it is based on.
    pub basis: Basis,
    /// Relative standard deviation between starts, where it is known: the root of the pooled variance.
    pub noise: Option<f64>,
    /// Starts of each that would separate the leader from the next one in the set with a power of 80 %, at the level that is used;
    /// `None` where nothing is left to separate, or it would take more than a thousand.
    pub starts_needed: Option<usize>,
    /// Of each candidate the interval of its mean; all of them hold together. `None` where nothing tells the noise.
    pub intervals: Vec<Option<Interval>>,
}

/// The one-sided level of each comparison among `k` configurations.
pub fn level(k: usize) -> f64 {
    share(ALPHA, k)
}

/// The part of `alpha` that each comparison among `k` configurations has.
#[expect(clippy::cast_precision_loss, reason = "configurations are few")]
fn share(alpha: f64, k: usize) -> f64 {
    alpha / (k.saturating_sub(1) as f64).max(2.5)
}

/// What of `alpha` the look after `starts` of at most `most` may spend, beyond what the looks before it have.
#[expect(clippy::cast_precision_loss, reason = "starts are few")]
fn spent_at(starts: usize, most: usize) -> f64 {
    let until = |starts: usize| match starts {
        few if few < FEWEST_STARTS => 0.0,
        all if all >= most => ALPHA,
        some => ALPHA * ((std::f64::consts::E - 1.0) * some as f64 / most as f64).ln_1p(),
    };
    until(starts) - until(starts - 1)
}

/// What the looks at a sweep came to whose starts were added until it was decided.
struct Looks {
    /// What the last one may spend.
    alpha: f64,
    /// Those that an earlier one has left out.
    out: Vec<bool>,
}

impl Looks {
    /// One look alone.
    fn one(k: usize) -> Self {
        Self { alpha: ALPHA, out: vec![false; k] }
    }

    /// The looks after three starts of each and after every further one, but for the last.
    fn until(candidates: &[Candidate], better: Better, most: usize) -> Option<Self> {
        let mut looks = Self::one(candidates.len());
        let starts = candidates.iter().map(|candidate| candidate.starts.len()).max()?;
        for now in FEWEST_STARTS..starts {
            let cut = |candidate: &Candidate| {
                let starts = candidate.starts.iter().take(now).cloned().collect();
                Candidate { starts, ..candidate.clone() }
            };
            let samples = Samples::of(&candidates.iter().map(cut).collect::<Vec<_>>(), better)?;
            looks.alpha = spent_at(now, most);
            let leader = samples.leader(candidates, &looks.out)?;
            if samples.basis(leader, false).is_established() {
                let standings = samples.standings(leader, &looks);
                looks.out = standings.iter().map(|standing| *standing == Standing::NotBest).collect();
            }
        }
        looks.alpha = if starts < FEWEST_STARTS { ALPHA } else { spent_at(starts, most.max(starts)) };
        Some(looks)
    }
}

/// Decides among candidates; `None` where there is none, or one has no value or one that is not finite.
pub fn decide(candidates: &[Candidate], better: Better, design: Design) -> Option<Decision> {
    let Design { margin, grouped, until } = design;
    let samples = Samples::of(candidates, better)?;
    let k = candidates.len();
    let looks = match until {
        Some(most) => Looks::until(candidates, better, most)?,
        None => Looks::one(k),
    };
    let leader = samples.leader(candidates, &looks.out)?;
    let basis = samples.basis(leader, grouped && k > 1);
    let noise = samples.noise();
    let mut decision = Decision {
        standings: vec![Standing::Undecided; k],
        leader,
        choice: leader,
        why: Why::BestMean,
        significantly_best: false,
        within_margin: false,
        basis,
        noise: noise.filter(|_| basis != Basis::NoVariance),
        starts_needed: None,
        intervals: samples.intervals(candidates),
    };
    if !basis.is_established() {
        return Some(decision);
    }
    decision.standings = samples.standings(leader, &looks);
    let may_be_best = |index: &usize| decision.standings[*index] == Standing::MayBeBest;
    let others = || (0..k).filter(|index| *index != leader);
    let gap = |index: usize| samples.relative(leader, index);
    let all_decided = decision.standings.iter().all(|standing| *standing != Standing::Undecided);
    decision.significantly_best =
        k > 1 && all_decided && others().all(|index| !may_be_best(&index) && gap(index) >= margin);
    let rivals: Vec<usize> = others().filter(may_be_best).collect();
    decision.within_margin = all_decided && samples.none_is_better(leader, &rivals, margin, looks.alpha);
    let nearest = others().filter(may_be_best).map(gap).filter(|gap| *gap > 0.0).reduce(f64::min);
    decision.starts_needed = nearest.zip(noise).and_then(|(gap, noise)| starts_to_separate(gap, noise, level(k)));
    let simplest = samples
        .equivalent(leader, candidates, margin, looks.alpha)
        .into_iter()
        .min_by_key(|index| simpler(&candidates[*index], *index));
    if let Some(choice) = simplest {
        (decision.choice, decision.why) = (choice, Why::Equivalent);
    }
    Some(decision)
}

/// Orders candidates by what they take: the simpler first.
fn simpler(candidate: &Candidate, index: usize) -> (u32, usize, usize) {
    (candidate.devices, candidate.overrides, index)
}

/// What stands for candidates in the tests: a value per start, larger = better.
struct Samples {
    values: Vec<Vec<f64>>,
    means: Vec<f64>,
    moderated: Vec<Option<Moderated>>,
    /// Whether values are logarithms; else they are parts of the largest value.
    logarithms: bool,
    /// The largest value.
    largest: f64,
}

impl Samples {
    fn of(candidates: &[Candidate], better: Better) -> Option<Self> {
        let all = || candidates.iter().flat_map(|candidate| candidate.starts.iter().flatten());
        let empty = |candidate: &Candidate| candidate.starts.is_empty() || candidate.starts.iter().any(Vec::is_empty);
        if candidates.is_empty() || candidates.iter().any(empty) || all().any(|value| !value.is_finite()) {
            return None;
        }
        let sign = if better == Better::Higher { 1.0 } else { -1.0 };
        // A count may be zero: then differences are parts of the largest.
        let logarithms = all().all(|value| *value > 0.0);
        let largest = all().fold(0.0f64, |largest, value| largest.max(value.abs())).max(f64::MIN_POSITIVE);
        let scaled = |value: &f64| sign * if logarithms { value.ln() } else { value / largest };
        let start = |start: &Vec<f64>| mean(&start.iter().map(scaled).collect::<Vec<f64>>());
        let values: Vec<Vec<f64>> =
            candidates.iter().map(|candidate| candidate.starts.iter().map(start).collect()).collect();
        let means = values.iter().map(|values| mean(values)).collect();
        let groups: Vec<Option<Group>> = values.iter().map(|values| Group::of(values)).collect();
        Some(Self { means, moderated: moderated(&groups), values, logarithms, largest })
    }

    /// A candidate's own variance, and the moderated one that is never below it: for what is said of a candidate alone.
    #[expect(clippy::cast_precision_loss, reason = "starts are few")]
    fn own_and_shared(&self, index: usize) -> Option<[Moderated; 2]> {
        let group = Group::of(&self.values[index])?;
        let own = Moderated { variance: group.variance, freedom: (group.n - 1) as f64 };
        self.moderated[index].map(|known| [own, Moderated { variance: known.variance.max(own.variance), ..known }])
    }

    /// The interval of the mean of each candidate, at a level for all of them together, and never shorter than that of the candidate by
    /// itself. A single one has Student's t, on its values as they are.
    #[expect(clippy::cast_precision_loss, reason = "starts are few")]
    fn intervals(&self, candidates: &[Candidate]) -> Vec<Option<Interval>> {
        let k = candidates.len();
        let one = |(index, candidate): (usize, &Candidate)| {
            let estimate = over_starts(&candidate.starts)?;
            if k == 1 {
                return estimate.interval;
            }
            let [own, shared] = self.own_and_shared(index)?;
            let tail = (1.0 - CONFIDENCE) / 2.0;
            let error = |known: Moderated| (known.variance / self.values[index].len() as f64).sqrt();
            let half = |known: Moderated, tail: f64| Some(t_quantile(1.0 - tail, known.freedom)? * error(known));
            let half = half(shared, tail / k as f64)?.max(half(own, tail)?);
            let ends = match self.logarithms {
                true => [estimate.mean * (-half).exp(), estimate.mean * half.exp()],
                false => [estimate.mean - half * self.largest, estimate.mean + half * self.largest],
            };
            (error(shared) > NO_NOISE).then_some(Interval { low: ends[0], high: ends[1] })
        };
        candidates.iter().enumerate().map(one).collect()
    }

    /// The best mean of those that are not out; of the very same means the simplest.
    fn leader(&self, candidates: &[Candidate], out: &[bool]) -> Option<usize> {
        let order = |a: &usize, b: &usize| self.means[*a].total_cmp(&self.means[*b]);
        let key = |index: usize| simpler(&candidates[index], index);
        (0..candidates.len()).filter(|index| !out[*index]).max_by(|a, b| order(a, b).then(key(*b).cmp(&key(*a))))
    }

    fn basis(&self, leader: usize, grouped: bool) -> Basis {
        let starts = |values: &Vec<f64>| values.len();
        match (self.values.iter().map(starts).max().unwrap_or(0), self.values[leader].len()) {
            (0 | 1, _) => Basis::OneStart,
            (_, few) if few < FEWEST_STARTS => Basis::TooFewStarts,
            _ if self.values.len() > 1 && self.noise().is_none_or(|noise| noise < NO_NOISE) => Basis::NoVariance,
            _ if grouped => Basis::GroupedOrder,
            _ => Basis::Starts,
        }
    }

    /// The root of the variance that all share.
    fn noise(&self) -> Option<f64> {
        let groups: Vec<Group> = self.values.iter().filter_map(|values| Group::of(values)).collect();
        pooled(&groups).map(|(variance, _)| variance.sqrt())
    }

    /// By what part the mean of `a` is better than that of `b`.
    fn relative(&self, a: usize, b: usize) -> f64 {
        let gap = self.means[a] - self.means[b];
        if self.logarithms { gap.exp_m1() } else { gap }
    }

    /// Whether a configuration takes part in the comparisons.
    fn counts(&self, index: usize) -> bool {
        self.values[index].len() >= FEWEST_STARTS
    }

    /// Standard error of the difference of two means, and its degrees of freedom, of moderated variances.
    fn error(&self, a: usize, b: usize) -> Option<(f64, f64)> {
        Some(self.error_of((a, self.moderated[a]?), (b, self.moderated[b]?)))
    }

    /// The same of these variances (Welch, Satterthwaite).
    #[expect(clippy::cast_precision_loss, reason = "starts are few")]
    fn error_of(&self, a: (usize, Moderated), b: (usize, Moderated)) -> (f64, f64) {
        let of = |(index, known): (usize, Moderated)| (known.variance / self.values[index].len() as f64, known.freedom);
        let ((va, fa), (vb, fb)) = (of(a), of(b));
        let total: usize = self.values.iter().map(|values| values.len().saturating_sub(1)).sum();
        let below = va * va / fa + vb * vb / fb;
        let freedom = if below > 0.0 { ((va + vb).powi(2) / below).min(total as f64) } else { fa + fb };
        ((va + vb).sqrt(), freedom)
    }

    fn standings(&self, leader: usize, looks: &Looks) -> Vec<Standing> {
        let k = self.values.len();
        let level = share(looks.alpha, looks.out.iter().filter(|out| !**out).count());
        let mut rivals: Vec<usize> = (0..k).filter(|index| self.counts(*index) && !looks.out[*index]).collect();
        rivals.sort_by(|a, b| self.means[*b].total_cmp(&self.means[*a]));
        let others: &[usize] = if k > MOST_FOR_ALL { &rivals[..rivals.len().min(1)] } else { &rivals };
        let beats = |better: usize, index: usize| {
            let gap = self.means[better] - self.means[index];
            let test = self.error(better, index).filter(|_| gap > 0.0);
            test.is_some_and(|(error, freedom)| error <= 0.0 || t_above(gap / error, freedom) < level)
        };
        let standing = |index: usize| match self.counts(index) {
            _ if looks.out[index] => Standing::NotBest,
            false => Standing::Undecided,
            true if index != leader && others.iter().any(|better| beats(*better, index)) => Standing::NotBest,
            true => Standing::MayBeBest,
        };
        (0..k).map(standing).collect()
    }

    /// The simpler ones that are shown to be equivalent to the leader: both ends of the interval of the difference lie within the
    /// margin, at the level of one test divided by the number of those asked.
    #[expect(clippy::cast_precision_loss, reason = "configurations are few")]
    fn equivalent(&self, leader: usize, candidates: &[Candidate], margin: f64, alpha: f64) -> Vec<usize> {
        let key = |index: usize| (candidates[index].devices, candidates[index].overrides);
        let asked: Vec<usize> = (0..candidates.len())
            .filter(|index| key(*index) < key(leader) && self.counts(*index) && self.relative(leader, *index) < margin)
            .collect();
        let level = alpha / asked.len().max(1) as f64;
        let gap = |index: usize| self.means[leader] - self.means[index];
        asked.into_iter().filter(|index| self.is_below(gap(*index), (leader, *index), margin, level)).collect()
    }

    /// Whether a difference of the means of two is shown to be less than the margin, at this level.
    fn is_below(&self, gap: f64, (a, b): (usize, usize), margin: f64, level: f64) -> bool {
        let limit = if self.logarithms { margin.ln_1p() } else { margin };
        let half = self.error(a, b).and_then(|(error, freedom)| Some(t_quantile(1.0 - level, freedom)? * error));
        half.is_some_and(|half| gap + half < limit)
    }

    /// Whether none of the rivals is better than the leader by more than the margin, shown for all of them together.
    #[expect(clippy::cast_precision_loss, reason = "configurations are few")]
    fn none_is_better(&self, leader: usize, rivals: &[usize], margin: f64, alpha: f64) -> bool {
        let level = alpha / rivals.len().max(1) as f64;
        let lead = |index: usize| self.means[index] - self.means[leader];
        rivals.iter().all(|index| self.is_below(lead(*index), (*index, leader), margin, level))
    }
}

/// The interval of the relative change from one candidate to another, on logarithms of the means of starts. It is one of as many as there are
/// other candidates, which hold together, so that the best of them may be picked. `None` where one of both has fewer than two starts, a value
/// is not positive, or no start differs from another.
#[expect(clippy::cast_precision_loss, reason = "configurations are few")]
pub fn change(candidates: &[Candidate], from: usize, to: usize) -> Option<(f64, f64)> {
    let samples = Samples::of(candidates, Better::Higher).filter(|samples| samples.logarithms)?;
    let ([a, shared_a], [b, shared_b]) = (samples.own_and_shared(from)?, samples.own_and_shared(to)?);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let half = |a: Moderated, b: Moderated, tail: f64| {
        let (error, freedom) = samples.error_of((from, a), (to, b));
        Some(t_quantile(1.0 - tail, freedom)? * error).filter(|half| *half > NO_NOISE)
    };
    let together = half(shared_a, shared_b, tail / candidates.len().saturating_sub(1).max(1) as f64)?;
    let (change, half) =
        (samples.means[to] - samples.means[from], half(a, b, tail).map_or(together, |own| own.max(together)));
    Some(((change - half).exp_m1(), (change + half).exp_m1()))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// A normal deviate (Box and Muller).
    fn normal(random: &mut ChaCha8Rng) -> f64 {
        let (u, v): (f64, f64) = (random.random::<f64>().max(f64::MIN_POSITIVE), random.random());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Starts of a configuration with this true mean and relative noise.
    fn measured(random: &mut ChaCha8Rng, truth: f64, noise: f64, starts: usize) -> Vec<Vec<f64>> {
        (0..starts).map(|_| vec![truth * (noise * normal(random)).exp()]).collect()
    }

    fn candidate(starts: Vec<Vec<f64>>) -> Candidate {
        Candidate { starts, devices: 1, overrides: 0 }
    }

    fn of(values: &[f64]) -> Candidate {
        candidate(values.iter().map(|value| vec![*value]).collect())
    }

    fn decided(candidates: &[Candidate]) -> Decision {
        decide(candidates, Better::Higher, USUAL).unwrap()
    }

    const SWEEPS: usize = 1000;
    const USUAL: Design = Design { margin: MARGIN, grouped: false, until: None };

    /// A sweep whose starts are added until it is decided, to at most 8 of each: the decision, and how many starts it took.
    fn in_turn(random: &mut ChaCha8Rng, truths: &[f64], noise: impl Fn(usize) -> f64) -> (Decision, usize) {
        let mut all: Vec<Candidate> = truths
            .iter()
            .enumerate()
            .map(|(i, truth)| candidate(measured(random, *truth, noise(i), FEWEST_STARTS)))
            .collect();
        for starts in FEWEST_STARTS.. {
            let decision = decide(&all, Better::Higher, Design { until: Some(8), ..USUAL }).unwrap();
            if decision.within_margin || starts == 8 {
                return (decision, all.iter().map(|candidate| candidate.starts.len()).sum());
            }
            for (i, one) in all.iter_mut().enumerate() {
                if decision.standings[i] == Standing::MayBeBest {
                    one.starts.extend(measured(random, truths[i], noise(i), 1));
                }
            }
        }
        unreachable!()
    }

    #[test]
    fn starts_that_are_added_until_it_is_decided_cost_less_and_keep_the_error_rates() {
        let steps = |step: f64| (0..12).map(|i| 100.0 * (1.0 - step).powi(i)).collect::<Vec<f64>>();
        // Truths, noise of the first over that of the others, most of the starts of 8 of each, and whether the first is the best.
        let cases: [(&str, Vec<f64>, f64, f64, bool); 6] = [
            ("steps of 10 %", steps(0.1), 1.0, 0.40, true),
            ("steps of 5 %", steps(0.05), 1.0, 0.45, true),
            ("steps of 3 %", steps(0.03), 1.0, 0.50, true),
            ("steps of 1 %", steps(0.01), 1.0, 0.75, true),
            ("steps of 3 %, the best noisy", steps(0.03), 4.5, 0.75, true),
            ("equals", vec![100.0; 12], 1.0, 1.0, false),
        ];
        for (name, truths, noisy, most, one_is_best) in cases {
            let mut random = ChaCha8Rng::seed_from_u64(2028);
            let (mut held, mut called, mut near, mut took, mut covered, mut wrong) = (0, 0, 0, 0, 0, 0);
            let mut full_near = 0;
            let sweeps = 400;
            for _ in 0..sweeps {
                let noise = |i: usize| if i == 0 { 0.02 * noisy } else { 0.02 };
                let (decision, starts) = in_turn(&mut random, &truths, noise);
                took += starts;
                held += usize::from(decision.standings[0] == Standing::MayBeBest);
                called += usize::from(decision.significantly_best);
                near += usize::from(truths[decision.choice] >= truths[0] * (1.0 - MARGIN));
                wrong += usize::from(decision.within_margin && truths[decision.leader] < truths[0] * (1.0 - MARGIN));
                let full: Vec<Candidate> =
                    truths.iter().enumerate().map(|(i, t)| candidate(measured(&mut random, *t, noise(i), 8))).collect();
                let full = decided(&full);
                full_near += usize::from(truths[full.choice] >= truths[0] * (1.0 - MARGIN));
                let truth = truths[decision.leader];
                covered +=
                    usize::from(decision.intervals[decision.leader].is_some_and(|i| i.low <= truth && truth <= i.high));
            }
            let share = |count: usize| count as f64 / sweeps as f64;
            let cost = share(took) / (8.0 * truths.len() as f64);
            eprintln!(
                "{name}: cost {cost:.3}, in the set {:.3}, called {:.3}, choice within 2 % {:.3}, interval {:.3}, wrongly decided {:.3}; 8 starts of all: choice within 2 % {:.3}",
                share(held),
                share(called),
                share(near),
                share(covered),
                share(wrong),
                share(full_near)
            );
            assert!(cost <= most, "{name}: {cost}");
            // Where one is several times as noisy, not even 8 starts of each find it more often.
            assert!(share(near) >= 0.95 || near + sweeps / 50 >= full_near, "{name}: {}", share(near));
            assert!(share(wrong) <= 0.05, "{name}: {}", share(wrong));
            assert!(share(covered) >= 0.93, "{name}: {}", share(covered));
            match one_is_best {
                true => assert!(share(held) >= 0.95, "{name}: {}", share(held)),
                false => assert!(share(called) <= 0.05, "{name}: {}", share(called)),
            }
        }
    }

    #[test]
    fn what_the_looks_spend_adds_up_to_5_percent() {
        for most in [3, 4, 8, 20] {
            let all: f64 = (FEWEST_STARTS..=most).map(|starts| spent_at(starts, most)).sum();
            assert!((all - 0.05).abs() < 1e-12, "{most}: {all}");
        }
    }

    #[test]
    fn the_true_best_is_in_the_set_and_of_equals_none_is_called_better() {
        // Truths, noise of the first over that of the others, starts, and the share of equals that may be called best.
        let cases: [(&str, Vec<f64>, f64, usize, f64); 6] = [
            ("two equals", vec![100.0; 2], 1.0, 3, 0.05),
            ("eight equals, one noisy, 3 starts", vec![100.0; 8], 4.5, 3, 0.10),
            ("eight equals, one noisy, 5 starts", vec![100.0; 8], 4.5, 5, 0.05),
            ("eight in steps of 1 %", (0..8).map(|i| 100.0 * 0.99f64.powi(i)).collect(), 1.0, 3, 1.0),
            ("eight in steps of 1 %, the best noisy", (0..8).map(|i| 100.0 * 0.99f64.powi(i)).collect(), 4.5, 3, 1.0),
            ("thirty in steps of 3 %", (0..30).map(|i| 100.0 * 0.97f64.powi(i)).collect(), 1.0, 3, 1.0),
        ];
        for (name, truths, noisy, starts, most) in cases {
            let mut random = ChaCha8Rng::seed_from_u64(2026);
            let sweeps = if truths.len() > 8 { SWEEPS / 5 } else { SWEEPS };
            let (mut held, mut called) = (0, 0);
            for _ in 0..sweeps {
                let noise = |i: usize| if i == 0 { 0.02 * noisy } else { 0.02 };
                let all: Vec<Candidate> = truths
                    .iter()
                    .enumerate()
                    .map(|(i, truth)| candidate(measured(&mut random, *truth, noise(i), starts)))
                    .collect();
                let decision = decided(&all);
                held += usize::from(decision.standings[0] == Standing::MayBeBest);
                called += usize::from(decision.significantly_best);
            }
            let share = |count: usize| count as f64 / sweeps as f64;
            eprintln!(
                "{name}: the first is in the set in {:.3}, one is called best in {:.3}",
                share(held),
                share(called)
            );
            let tied = truths.iter().filter(|truth| **truth == truths[0]).count() > 1;
            assert!(tied || share(held) >= 0.94, "{name}: {}", share(held));
            assert!(share(called) <= most, "{name}: {}", share(called));
        }
    }

    #[test]
    fn a_real_difference_is_found_and_the_best_mean_is_chosen() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut found = 0;
        for _ in 0..SWEEPS {
            let all: Vec<Candidate> =
                [100.0, 88.0, 85.0].into_iter().map(|truth| candidate(measured(&mut random, truth, 0.02, 4))).collect();
            let decision = decided(&all);
            found += usize::from(decision.significantly_best && decision.choice == 0);
        }
        assert!(found > SWEEPS * 9 / 10, "{found}");
    }

    #[test]
    fn a_configuration_that_is_merely_not_shown_to_be_slower_is_never_chosen() {
        let mut all = [of(&[1000.0, 1010.0]), of(&[500.0, 650.0]), of(&[330.0, 300.0])];
        all[0].overrides = 2;
        let decision = decided(&all);
        assert_eq!((decision.choice, decision.why, decision.basis), (0, Why::BestMean, Basis::TooFewStarts));
        assert_eq!(decision.standings, [Standing::Undecided; 3]);
        // A simpler one is chosen only where it is shown to be equivalent.
        let close = |simple: &[f64], margin: f64| {
            let mut all = [of(&[100.0, 100.2, 99.9, 100.1]), of(simple)];
            all[0].overrides = 2;
            decide(&all, Better::Higher, Design { margin, ..USUAL }).unwrap()
        };
        let shown = close(&[99.8, 99.9, 100.1, 99.7], MARGIN);
        assert_eq!((shown.choice, shown.why), (1, Why::Equivalent));
        assert_eq!(close(&[99.8, 99.9, 100.1, 99.7], 0.001).choice, 0);
        assert_eq!(close(&[97.0, 101.0, 103.0, 96.0], MARGIN).choice, 0, "too noisy to be shown");
    }

    #[test]
    fn nothing_is_claimed_from_data_that_cannot_carry_it() {
        // One start each, however often it was measured.
        let runs = [
            candidate(vec![vec![100.0, 101.0, 100.5, 100.2, 100.1]]),
            candidate(vec![vec![90.0, 90.1, 90.2, 90.3, 90.1]]),
        ];
        let decision = decided(&runs);
        assert_eq!((decision.basis, decision.choice, decision.significantly_best), (Basis::OneStart, 0, false));
        // One start beside others with more is undecided, whichever is ahead.
        let beside = [of(&[100.0, 101.0, 99.0]), of(&[50.0])];
        let decision = decided(&beside);
        assert_eq!(decision.standings, [Standing::MayBeBest, Standing::Undecided]);
        assert!(!decision.significantly_best);
        assert_eq!(decided(&[of(&[100.0, 101.0, 99.0]), of(&[150.0])]).basis, Basis::TooFewStarts);
        // No variance at all, and a difference that does not matter.
        assert_eq!(decided(&[of(&[100.0; 3]), of(&[90.0; 3])]).basis, Basis::NoVariance);
        let tiny = decided(&[of(&[100.000_1, 100.000_2, 100.000_3]), of(&[100.0, 99.999_9, 99.999_8])]);
        assert_eq!((tiny.basis, tiny.significantly_best), (Basis::Starts, false));
        // One configuration after the other.
        let all = [of(&[100.0, 101.0, 99.0]), of(&[50.0, 51.0, 49.0])];
        assert_eq!(decide(&all, Better::Higher, Design { grouped: true, ..USUAL }).unwrap().basis, Basis::GroupedOrder);
        assert!(decided(&all).significantly_best);
    }

    #[test]
    fn the_interval_of_the_best_mean_of_equals_holds_the_truth() {
        let mut random = ChaCha8Rng::seed_from_u64(12);
        for starts in [3, 8] {
            let (mut held, mut alone) = (0, 0);
            for _ in 0..300 {
                let all: Vec<Candidate> =
                    (0..8).map(|_| candidate(measured(&mut random, 100.0, 0.02, starts))).collect();
                let decision = decided(&all);
                let holds = |interval: Option<Interval>| {
                    usize::from(interval.is_some_and(|interval| interval.low <= 100.0 && 100.0 <= interval.high))
                };
                held += holds(decision.intervals[decision.leader]);
                alone += holds(over_starts(&all[decision.leader].starts).unwrap().interval);
            }
            assert!(held >= 279, "93 % of 300: {held}, {starts} starts");
            assert!(alone < 279, "each by itself it does not: {alone}");
        }
        // One configuration has Student's t; no starts that differ, no interval.
        let one = decided(&[of(&[10.1, 9.8, 10.4, 10.0, 9.9])]);
        assert!((one.intervals[0].unwrap().low - 9.754147480901297).abs() < 1e-9, "{one:?}");
        assert_eq!(decided(&[of(&[100.0; 3]), of(&[90.0; 3])]).intervals, [None; 2]);
    }

    #[test]
    fn zeros_are_compared_by_their_differences_and_lower_may_be_better() {
        let preemptions = [of(&[0.0, 0.0, 0.0]), of(&[50.0, 60.0, 55.0]), of(&[52.0, 48.0, 51.0])];
        let decision = decide(&preemptions, Better::Lower, USUAL).unwrap();
        assert_eq!((decision.choice, decision.significantly_best), (0, true));
        assert_eq!(decide(&[], Better::Higher, USUAL), None);
        assert_eq!(decide(&[of(&[f64::NAN])], Better::Higher, USUAL), None);
        assert_eq!(decide(&[of(&[5.0])], Better::Higher, USUAL).unwrap().basis, Basis::OneStart);
    }

    #[test]
    fn thousands_of_candidates_are_compared_with_the_leader_alone() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let truths = (0..2000).map(|index| if index == 700 { 150.0 } else { 100.0 });
        let all: Vec<Candidate> = truths.map(|truth| candidate(measured(&mut random, truth, 0.02, 3))).collect();
        let decision = decided(&all);
        assert_eq!((decision.choice, decision.significantly_best), (700, true));
    }

    #[test]
    fn a_change_is_that_of_an_independent_computation() {
        fn near(found: f64, expected: f64) {
            assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1e-3), "{found} is not {expected}");
        }
        // scripts/check_statistics.py: numpy and scipy.
        let [before, after] = [of(&[100.0, 100.4, 99.9, 100.2]), of(&[90.0, 150.0, 118.0])];
        let change = change(&[before, after], 0, 1);
        let (low, high) = change.unwrap();
        near(low, -0.3817475750482534);
        near(high, 1.2007019458982178);
    }
}
