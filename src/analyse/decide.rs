//! Which configurations are best, as a set: all that cannot be told from the one with the best mean. Pure.
//!
//! Values are compared as logarithms, so that differences are relative. The unit is the server start: measurements on one start are
//! averaged first, as they share whatever that start had of its own. All pairs are tested and corrected together (Holm), so
//! that over the whole comparison equals are called different with a probability of at most 1 - [`CONFIDENCE`], whichever of
//! them came out on top.

use super::Better;
use super::inference::{
    CONFIDENCE, Difference, Group, bartlett, holm, mean, pooled, repeats_to_tell, variance, welch, with_pooled,
};

/// Below this probability variances are taken for different. High, as usual for a test that only chooses another test (Bancroft
/// 1964): at 0.05 one configuration that is four times as noisy makes false alarms in 6 % (5 starts) to 10 % (3 starts) of all
/// sweeps, at 0.25 in 3 % and 7 %. With three starts nothing tells variances apart well enough.
const DIFFERENT_VARIANCES: f64 = 0.25;

/// One configuration to choose from.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The measurements of each server start; positive numbers.
    pub starts: Vec<Vec<f64>>,
    /// Devices that it takes, for the tie-break.
    pub devices: u32,
    /// Flags that differ from the plainest configuration, for the tie-break.
    pub overrides: usize,
}

/// What the data allow to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Repeats over several server starts.
    Starts,
    /// Repeats on one server start each: what a start has of its own is not in the spread.
    RunsOfOneStart,
    /// The noise of this machine, as measured by `--noise-check`.
    NoiseFloor,
    /// One measurement of each: nothing says how far it can be trusted.
    Single,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Indices of all that cannot be told from the best; the recommended one first.
    pub set: Vec<usize>,
    /// The one with the best mean.
    pub leader: usize,
    /// What it rests on.
    pub basis: Basis,
    /// Relative standard deviation of a start's figure, where it is known.
    pub noise: Option<f64>,
    /// Repeats of each configuration that would tell the leader from the next one in the set, with a power of 80 %;
    /// `None` where nothing is left to tell, or it would take more than a thousand.
    pub repeats_needed: Option<usize>,
}

/// What stands for a candidate in the tests.
struct Log {
    /// Logarithms, one per start (or per run, where there is one start).
    values: Vec<f64>,
}

/// Decides among candidates; `None` where there is none, or one has a value that is not positive. `noise_floor`: relative
/// standard deviation of repeated starts on this machine.
pub fn decide(candidates: &[Candidate], better: Better, noise_floor: Option<f64>) -> Option<Decision> {
    let logs = logs_of_all(candidates)?;
    if logs.is_empty() {
        return None;
    }
    let sign = if better == Better::Higher { 1.0 } else { -1.0 };
    let means: Vec<f64> = logs.iter().map(|log| sign * mean(&log.values)).collect();
    let leader = (0..means.len()).max_by(|a, b| means[*a].total_cmp(&means[*b]).then(b.cmp(a)))?;
    let spread = Spread::of(candidates, &logs, noise_floor);
    let k = logs.len();
    let p = against_leader(&spread, &logs, leader);
    let mut set: Vec<usize> = (0..k).filter(|index| p[*index] > 1.0 - CONFIDENCE).collect();
    // Among equals: fewer devices, fewer overrides, the better mean.
    set.sort_by(|a, b| {
        let key = |index: usize| (candidates[index].devices, candidates[index].overrides);
        key(*a).cmp(&key(*b)).then(means[*b].total_cmp(&means[*a])).then(a.cmp(b))
    });
    let noise = spread.noise();
    let next = set.iter().filter(|index| **index != leader).map(|index| means[leader] - means[*index]);
    let nearest = next.filter(|gap| *gap > 0.0).reduce(f64::min);
    #[expect(clippy::cast_precision_loss, reason = "pairs are few")]
    let alpha = (1.0 - CONFIDENCE) / pairs(k).max(1) as f64;
    let repeats_needed = nearest.zip(noise).and_then(|(gap, noise)| repeats_to_tell(gap, noise, alpha));
    Some(Decision { set, leader, basis: spread.basis, noise, repeats_needed })
}

/// Beyond this many candidates (45,000 pairs) only those with the leader are tested.
const MOST_FOR_HOLM: usize = 300;

/// How many pairs there are among so many.
fn pairs(k: usize) -> usize {
    k * k.saturating_sub(1) / 2
}

/// P of a difference to the leader as large as seen between equals, corrected for all pairs; 1 for the leader itself, and for
/// all where nothing tells the noise.
fn against_leader(spread: &Spread, logs: &[Log], leader: usize) -> Vec<f64> {
    let k = logs.len();
    let mut p = vec![1.0; k];
    if spread.shared.is_none() {
        return p;
    }
    let test = |a: usize, b: usize| spread.difference(&logs[a].values, &logs[b].values);
    if k > MOST_FOR_HOLM {
        // Bonferroni over all pairs: as strict about false differences, a little slower to tell true ones, and linear.
        #[expect(clippy::cast_precision_loss, reason = "nobody measures 2^26 configurations")]
        let count = pairs(k) as f64;
        let tests: Option<Vec<f64>> =
            (0..k).map(|index| if index == leader { Some(1.0) } else { Some(test(index, leader)?.p) }).collect();
        return tests.map_or(p, |tests| tests.into_iter().map(|p| (p * count).min(1.0)).collect());
    }
    let all: Vec<(usize, usize)> = (0..k).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
    let tests: Option<Vec<f64>> = all.iter().map(|(a, b)| Some(test(*a, *b)?.p)).collect();
    for ((a, b), value) in all.iter().zip(tests.map(|tests| holm(&tests)).unwrap_or_default()) {
        match (*a == leader, *b == leader) {
            (true, _) => p[*b] = value,
            (_, true) => p[*a] = value,
            _ => {}
        }
    }
    p
}

/// All candidates in the same unit: starts, where any has several. Runs of one start vary less than starts do, so that many of
/// them beside the starts of others would be believed too much.
fn logs_of_all(candidates: &[Candidate]) -> Option<Vec<Log>> {
    let starts = candidates.iter().any(|candidate| candidate.starts.len() > 1);
    candidates.iter().map(|candidate| logs_of(candidate, starts)).collect()
}

fn logs_of(candidate: &Candidate, by_start: bool) -> Option<Log> {
    let starts: Vec<&Vec<f64>> = candidate.starts.iter().filter(|start| !start.is_empty()).collect();
    if starts.is_empty() || starts.iter().any(|start| start.iter().any(|value| !(value.is_finite() && *value > 0.0))) {
        return None;
    }
    let values = match starts.as_slice() {
        [only] if !by_start => only.iter().map(|value| value.ln()).collect(),
        several => {
            several.iter().map(|start| mean(&start.iter().map(|value| value.ln()).collect::<Vec<f64>>())).collect()
        }
    };
    Some(Log { values })
}

/// Where the spread for the tests comes from.
struct Spread {
    basis: Basis,
    /// A variance for all, with its degrees of freedom.
    shared: Option<(f64, f64)>,
    /// Each has a variance of its own.
    own: bool,
}

impl Spread {
    fn of(candidates: &[Candidate], logs: &[Log], noise_floor: Option<f64>) -> Self {
        let groups: Vec<Group> = logs.iter().filter_map(|log| Group::of(&log.values)).collect();
        let starts = candidates.iter().filter(|c| c.starts.len() > 1).count();
        match (pooled(&groups), noise_floor) {
            (Some(shared), _) => {
                let alike = bartlett(&groups).is_none_or(|p| p > DIFFERENT_VARIANCES);
                let own = !alike && groups.len() == logs.len();
                let basis = if starts > 0 { Basis::Starts } else { Basis::RunsOfOneStart };
                Self { basis, shared: Some(shared), own }
            }
            // A known standard deviation: as many degrees of freedom as make no difference.
            (None, Some(noise)) => Self { basis: Basis::NoiseFloor, shared: Some((noise * noise, 1e6)), own: false },
            (None, None) => Self { basis: Basis::Single, shared: None, own: false },
        }
    }

    fn difference(&self, a: &[f64], b: &[f64]) -> Option<Difference> {
        let (shared, freedom) = self.shared?;
        if self.own {
            return Some(welch(Group::of(a)?, Group::of(b)?));
        }
        let group =
            |values: &[f64]| Group { n: values.len(), mean: mean(values), variance: variance(values).unwrap_or(0.0) };
        Some(with_pooled(group(a), group(b), shared, freedom))
    }

    fn noise(&self) -> Option<f64> {
        self.shared.map(|(variance, _)| variance.sqrt())
    }
}

/// A configuration of one run against the same of another, by one figure.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Change {
    /// Mean of the first.
    pub before: f64,
    /// Mean of the second.
    pub after: f64,
    /// Relative change of the mean (of logarithms).
    pub relative: f64,
    /// The interval that holds the true change; `None` where nothing tells the noise.
    pub interval: Option<(f64, f64)>,
    /// P of a change as large as this between equals, not corrected; `None` as above.
    pub p: Option<f64>,
    /// Server starts (or runs of one start) on each side.
    pub n: (usize, usize),
}

/// The change from one sample of starts to another. `noise_floor` as in [`decide`].
pub fn change(before: &[Vec<f64>], after: &[Vec<f64>], noise_floor: Option<f64>) -> Option<Change> {
    let candidate = |starts: &[Vec<f64>]| Candidate { starts: starts.to_vec(), devices: 0, overrides: 0 };
    let both = [candidate(before), candidate(after)];
    let logs = logs_of_all(&both)?;
    let spread = Spread::of(&both, &logs, noise_floor);
    let test = spread.difference(&logs[1].values, &logs[0].values);
    let means = [mean(&before.concat()), mean(&after.concat())];
    Some(Change {
        before: means[0],
        after: means[1],
        relative: (mean(&logs[1].values) - mean(&logs[0].values)).exp_m1(),
        interval: test.map(|test| test.interval(CONFIDENCE)).map(|(low, high)| (low.exp_m1(), high.exp_m1())),
        p: test.map(|test| test.p),
        n: (logs[0].values.len(), logs[1].values.len()),
    })
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::inference::holm;
    use super::*;

    /// A normal deviate (Box and Muller).
    fn normal(random: &mut ChaCha8Rng) -> f64 {
        let (u, v): (f64, f64) = (random.random::<f64>().max(f64::MIN_POSITIVE), random.random());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Measurements of a configuration with this true mean: starts differ by 2 %, runs of a start by 1 %.
    fn measured(random: &mut ChaCha8Rng, truth: f64, starts: usize, runs: usize) -> Vec<Vec<f64>> {
        (0..starts)
            .map(|_| {
                let start = truth * (1.0 + 0.02 * normal(random));
                (0..runs).map(|_| start * (1.0 + 0.01 * normal(random))).collect()
            })
            .collect()
    }

    fn candidate(starts: Vec<Vec<f64>>) -> Candidate {
        Candidate { starts, devices: 1, overrides: 0 }
    }

    const SWEEPS: usize = 1000;

    /// How often, of 1,000 sweeps, the true best is in the set, and how often one that equals it is called different.
    fn simulate(truths: &[f64], starts: usize, runs: usize) -> (f64, f64) {
        let mut random = ChaCha8Rng::seed_from_u64(2026);
        let best = truths.iter().copied().fold(f64::MIN, f64::max);
        let (mut held, mut wrong) = (0, 0);
        for _ in 0..SWEEPS {
            let candidates: Vec<Candidate> =
                truths.iter().map(|truth| candidate(measured(&mut random, *truth, starts, runs))).collect();
            let decision = decide(&candidates, Better::Higher, None).unwrap();
            let bests: Vec<usize> = (0..truths.len()).filter(|index| truths[*index] == best).collect();
            held += usize::from(bests.iter().any(|index| decision.set.contains(index)));
            wrong += usize::from(bests.iter().any(|index| !decision.set.contains(index)));
        }
        (held as f64 / SWEEPS as f64, wrong as f64 / SWEEPS as f64)
    }

    #[test]
    fn of_a_thousand_sweeps_the_true_best_is_in_the_set_and_equals_are_rarely_called_different() {
        let cases: [(&str, Vec<f64>, usize, usize); 6] = [
            ("six equals, 3 starts", vec![100.0; 6], 3, 1),
            ("twenty equals, 3 starts", vec![100.0; 20], 3, 1),
            ("six equals, 5 starts of 3 runs", vec![100.0; 6], 5, 3),
            ("two equals on top of four others", vec![100.0, 100.0, 99.0, 97.0, 90.0, 80.0], 4, 1),
            ("one best, close rivals", vec![100.0, 99.0, 98.0, 97.0, 96.0], 3, 2),
            ("two configurations, 2 starts", vec![100.0, 100.0], 2, 1),
        ];
        for (name, truths, starts, runs) in cases {
            let (held, wrong) = simulate(&truths, starts, runs);
            eprintln!(
                "{name}: the true best is in the set in {:.1} %, equals called different in {:.1} %",
                held * 100.0,
                wrong * 100.0
            );
            assert!(held >= 0.95, "{name}: {held}");
            if truths.iter().filter(|truth| **truth == 100.0).count() > 1 {
                assert!(wrong <= 0.05, "{name}: {wrong}");
            }
        }
    }

    /// How often, of 1,000 sweeps of equals, any is called different from the best.
    fn false_alarms(mut sweep: impl FnMut(&mut ChaCha8Rng) -> Vec<Vec<Vec<f64>>>, better: Better) -> f64 {
        let mut random = ChaCha8Rng::seed_from_u64(40);
        let wrong = (0..SWEEPS).filter(|_| {
            let candidates: Vec<Candidate> = sweep(&mut random).into_iter().map(candidate).collect();
            decide(&candidates, better, None).unwrap().set.len() < candidates.len()
        });
        wrong.count() as f64 / SWEEPS as f64
    }

    #[test]
    fn noise_of_other_shapes_makes_no_more_false_alarms() {
        /// One figure per start: `deviate` is its relative deviation.
        fn starts(n: usize, mut deviate: impl FnMut() -> f64) -> Vec<Vec<f64>> {
            (0..n).map(|_| vec![100.0 * deviate().exp()]).collect()
        }
        /// Student's t with three degrees of freedom: now and then an outlier.
        fn heavy(random: &mut ChaCha8Rng) -> f64 {
            let chi: f64 = (0..3).map(|_| normal(random).powi(2)).sum();
            normal(random) / (chi / 3.0).sqrt()
        }
        type Shape = fn(&mut ChaCha8Rng, usize) -> Vec<Vec<f64>>;
        let shapes: [(&str, Shape); 6] = [
            ("heavy tails, 3 starts", |random, _| starts(3, || 0.02 * heavy(random))),
            ("skewed by slow outliers, 4 starts", |random, _| starts(4, || -0.02 * normal(random).exp())),
            ("1 to 6 starts", |random, i| starts(i + 1, || 0.02 * normal(random))),
            ("one four times as noisy, 5 starts", |random, i| {
                starts(5, || if i == 0 { 0.08 } else { 0.02 } * normal(random))
            }),
            ("half of them five times as noisy, 4 starts", |random, i| {
                starts(4, || if i % 2 == 0 { 0.1 } else { 0.02 } * normal(random))
            }),
            ("ten runs of one start beside four starts of others", |random, i| {
                if i < 3 { measured(random, 100.0, 1, 10) } else { measured(random, 100.0, 4, 1) }
            }),
        ];
        for (name, shape) in shapes {
            for better in [Better::Higher, Better::Lower] {
                let wrong = false_alarms(|random| (0..6).map(|i| shape(random, i)).collect(), better);
                eprintln!("{name}, {better:?}: equals called different in {:.1} %", wrong * 100.0);
                assert!(wrong <= 0.05, "{name}: {wrong}");
            }
        }
    }

    #[test]
    fn a_real_difference_is_found() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut alone = 0;
        for _ in 0..SWEEPS {
            let candidates: Vec<Candidate> =
                [100.0, 88.0, 85.0].into_iter().map(|truth| candidate(measured(&mut random, truth, 4, 2))).collect();
            alone += usize::from(decide(&candidates, Better::Higher, None).unwrap().set == [0]);
        }
        assert!(alone > SWEEPS * 9 / 10, "{alone}");
    }

    #[test]
    fn two_runs_of_the_same_are_rarely_called_different() {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let mut alarms = 0;
        for _ in 0..SWEEPS {
            // Five configurations, three figures each.
            let p: Vec<f64> = (0..15)
                .map(|_| {
                    let before = measured(&mut random, 100.0, 3, 1);
                    let after = measured(&mut random, 100.0, 3, 1);
                    change(&before, &after, None).unwrap().p.unwrap()
                })
                .collect();
            alarms += usize::from(holm(&p).iter().any(|p| *p <= 1.0 - CONFIDENCE));
        }
        eprintln!(
            "false alarms of compare: {:.1} % of 1,000 comparisons of 15 figures",
            100.0 * alarms as f64 / SWEEPS as f64
        );
        assert!(alarms <= SWEEPS / 20, "{alarms}");
    }

    #[test]
    fn thousands_of_candidates_are_decided_without_testing_every_pair() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let truths = (0..2000).map(|index| if index == 700 { 150.0 } else { 100.0 });
        let candidates: Vec<Candidate> = truths.map(|truth| candidate(measured(&mut random, truth, 3, 1))).collect();
        let decision = decide(&candidates, Better::Higher, None).unwrap();
        assert_eq!((decision.leader, decision.set), (700, vec![700]));
        // Never more sure than with every pair.
        let few: Vec<Log> = candidates[600..800].iter().map(|candidate| logs_of(candidate, true).unwrap()).collect();
        let spread = Spread::of(&candidates[600..800], &few, None);
        let exact = against_leader(&spread, &few, 100);
        let all = pairs(200) as f64;
        for (index, p) in exact.iter().enumerate().filter(|(index, _)| *index != 100) {
            let alone = spread.difference(&few[index].values, &few[100].values).unwrap().p;
            assert!(*p <= (alone * all).min(1.0) + 1e-12);
        }
    }

    #[test]
    fn pairs_and_changes_are_those_of_an_independent_computation() {
        fn near(found: f64, expected: f64) {
            assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1e-3), "{found} is not {expected}");
        }
        // scripts/check_statistics.py: numpy, scipy, and Holm by its closure.
        let all = [
            candidate([100.0, 104.0, 98.0, 101.0].map(|value| vec![value]).into()),
            candidate(vec![vec![103.0, 105.0], vec![101.0], vec![107.0]]),
            candidate([111.0, 108.0, 114.0].map(|value| vec![value]).into()),
        ];
        let logs = logs_of_all(&all).unwrap();
        let spread = Spread::of(&all, &logs, None);
        assert!(!spread.own);
        let p = against_leader(&spread, &logs, 2);
        near(p[0], 0.006151788938547297);
        near(p[1], 0.0399654261408218);
        assert_eq!(p[2], 1.0);
        assert_eq!(decide(&all, Better::Higher, None).unwrap().set, [2]);
        let change = change(
            &[100.0, 100.4, 99.9, 100.2].map(|value| vec![value]),
            &[90.0, 150.0, 118.0].map(|value| vec![value]),
            None,
        );
        let (low, high) = change.unwrap().interval.unwrap();
        near(low, -0.3817475750482534);
        near(high, 1.2007019458982178);
    }

    #[test]
    fn one_measurement_of_each_is_told_as_such() {
        let candidates: Vec<Candidate> = [10.0, 11.0].map(|value| candidate(vec![vec![value]])).into();
        let decision = decide(&candidates, Better::Higher, None).unwrap();
        assert_eq!((decision.basis, decision.leader, decision.noise), (Basis::Single, 1, None));
        assert_eq!(decision.set.len(), 2, "nothing tells them apart");
        let known = decide(&candidates, Better::Higher, Some(0.01)).unwrap();
        assert_eq!((known.basis, known.set), (Basis::NoiseFloor, vec![1]));
        assert_eq!(decide(&[candidate(vec![vec![0.0]])], Better::Higher, None), None);
        assert_eq!(decide(&[], Better::Higher, None), None);
        let change = change(&[vec![10.0]], &[vec![11.0]], None).unwrap();
        assert_eq!((change.interval, change.p), (None, None));
    }

    #[test]
    fn fewer_devices_then_fewer_overrides_break_ties() {
        let starts = || vec![vec![10.0], vec![10.4], vec![9.8]];
        let mut candidates = vec![candidate(starts()); 3];
        (candidates[0].devices, candidates[1].overrides) = (2, 3);
        let decision = decide(&candidates, Better::Lower, None).unwrap();
        assert_eq!(decision.set, [2, 1, 0]);
    }
}
