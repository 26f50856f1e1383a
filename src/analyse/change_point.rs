//! Where a series of runs changes its level, with a false alarm rate that is held. Pure.
//!
//! Circular binary segmentation (Olshen, Venkatraman, Lucito and Wigler 2004, *Biostatistics* 5, 557-572): the stretch of a series whose mean
//! differs most from that of the rest is looked for, by the statistic of a two-sample t test; a stretch that begins the series is one change,
//! any other is two, so that a short dip is found too. For independent normal values without a change the distribution of the largest
//! statistic depends on their number alone (Hawkins 1977, *Journal of the American Statistical Association* 72, 180-186), and is drawn here;
//! nothing has to be known of the noise. What is found is searched again, each part at its share of [`ALPHA`]; last, changes that the levels
//! beside them do not show are given up.
//!
//! The unit is the run: what differs from session to session is noise like any other. A level has two runs or more: one odd run is no change.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::inference::{NO_NOISE, mean, t_above, t_quantile};

/// The probability that a series without a change is said to have one.
pub const ALPHA: f64 = 0.05;
/// Fewer runs than this say nothing of a change.
pub const FEWEST: usize = 4;
/// Runs of a level.
const LEAST: usize = 2;
/// Series without a change that are drawn for each number of runs.
const DRAWS: usize = 1999;
/// Of so many runs every stretch is looked at; of more, stretches of fewer lengths and places, around which the best one is looked for.
const ALL: usize = 64;

/// A change of the level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Number of the first value behind it.
    pub at: usize,
    /// How probable as strong a change is in a series (or a part of one) that has none.
    pub p: f64,
    /// From the mean before to the mean behind.
    pub change: f64,
    /// The interval of the true change; those of all changes hold together with a probability of 95 %, if they are where they were found.
    /// `None` where values do not differ from their levels.
    pub interval: Option<(f64, f64)>,
}

/// A series as levels with changes between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    /// The changes, in order.
    pub steps: Vec<Step>,
    /// The mean of each level.
    pub means: Vec<f64>,
    /// Standard deviation of a value around its level; `None` where nothing tells it.
    pub sd: Option<f64>,
    /// Where the last value lies; `None` where too few are before it.
    pub newest: Option<Newest>,
}

/// The last value against what those of its level before it let one expect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Newest {
    /// From the mean of the level before it.
    pub change: f64,
    /// Half of the interval that holds the next value with a probability of 95 % (prediction interval).
    pub half: f64,
    /// Values before it on its level.
    pub before: usize,
}

impl Newest {
    /// Whether it lies outside: of runs without a change one in twenty does.
    pub fn is_outside(&self) -> bool {
        self.change.abs() > self.half
    }
}

impl Levels {
    /// The level on which a value lies.
    pub fn of(&self, index: usize) -> usize {
        self.steps.iter().take_while(|step| step.at <= index).count()
    }
}

/// Looks for changes. It keeps what it has drawn for each number of values.
#[derive(Debug, Default)]
pub struct Search {
    drawn: HashMap<usize, Vec<f64>>,
}

impl Search {
    /// The levels of these values, in the order of time.
    #[expect(clippy::cast_precision_loss, reason = "runs are few")]
    pub fn levels(&mut self, values: &[f64]) -> Levels {
        let n = values.len();
        let mut cuts: Vec<(usize, f64)> = Vec::new();
        let mut open = vec![(0, n)];
        while let Some((from, to)) = open.pop() {
            let Some(found) = Stretch::strongest(&values[from..to]) else { continue };
            let p = self.p(to - from, found.share);
            if p > ALPHA * (to - from) as f64 / n as f64 {
                continue;
            }
            let ends = [from, from + found.from, from + found.to, to];
            cuts.extend(ends[1..3].iter().filter(|at| **at > from && **at < to).map(|at| (*at, p)));
            open.extend(ends.windows(2).map(|pair| (pair[0], pair[1])).filter(|(from, to)| from < to));
        }
        cuts.sort_unstable_by_key(|(at, _)| *at);
        give_up(values, &mut cuts);
        let fit = Fit::of(values, &cuts);
        let count = cuts.len().max(1) as f64;
        let step = |(i, (at, p)): (usize, &(usize, f64))| {
            let (change, error) = fit.change(i);
            let half = t_quantile(1.0 - ALPHA / 2.0 / count, fit.freedom).map(|t| t * error);
            let interval = half.filter(|_| fit.is_known()).map(|half| (change - half, change + half));
            Step { at: *at, p: *p, change, interval }
        };
        Levels {
            steps: cuts.iter().enumerate().map(step).collect(),
            sd: fit.is_known().then_some(fit.sd),
            newest: newest(values, &cuts),
            means: fit.means,
        }
    }

    /// How probable a share of at least this size is without a change.
    #[expect(clippy::cast_precision_loss, reason = "draws are few")]
    fn p(&mut self, n: usize, share: f64) -> f64 {
        let drawn = self.drawn.entry(n).or_insert_with(|| draw(n));
        let as_strong = drawn.iter().filter(|drawn| **drawn >= share).count();
        (as_strong + 1) as f64 / (drawn.len() + 1) as f64
    }
}

/// The strongest shares of series without a change.
fn draw(n: usize) -> Vec<f64> {
    let random = &mut ChaCha8Rng::seed_from_u64(n as u64);
    let mut values = vec![0.0; n];
    let one = |_| {
        values.iter_mut().for_each(|value| *value = normal(random));
        Stretch::strongest(&values).map_or(0.0, |found| found.share)
    };
    (0..DRAWS).map(one).collect()
}

/// A normal deviate (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (random.random::<f64>().max(f64::MIN_POSITIVE), random.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// A part of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stretch {
    from: usize,
    to: usize,
    /// The share of the sum of squares that is between it and the rest: the t statistic in another scale, from 0 to 1.
    share: f64,
}

/// Sums of a series up to each place, around its mean.
struct Sums {
    sums: Vec<f64>,
    squares: f64,
}

impl Sums {
    fn of(values: &[f64]) -> Self {
        let middle = mean(values);
        let mut sums = Vec::with_capacity(values.len() + 1);
        sums.push(0.0);
        let (mut sum, mut squares) = (0.0, 0.0);
        for value in values {
            let apart = value - middle;
            sum += apart;
            squares += apart * apart;
            sums.push(sum);
        }
        Self { sums, squares }
    }

    /// The sum of squares between a stretch and the rest.
    #[expect(clippy::cast_precision_loss, reason = "runs are few")]
    fn between(&self, from: usize, to: usize) -> f64 {
        let (n, inside) = (self.sums.len() - 1, to - from);
        let sum = self.sums[to] - self.sums[from];
        sum * sum * n as f64 / (inside * (n - inside)) as f64
    }
}

/// Whether a stretch leaves levels of enough runs. One that ends the series is the rest of one that begins it.
fn is_allowed(n: usize, from: usize, to: usize) -> bool {
    (from == 0 || from >= LEAST) && to >= from + LEAST && to + LEAST <= n
}

impl Stretch {
    /// The one that differs most from the rest; `None` where there are too few values, or they do not differ.
    #[expect(clippy::cast_precision_loss, reason = "runs are few")]
    fn strongest(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let sums = Sums::of(values);
        let largest = values.iter().fold(0.0f64, |most, value| most.max(value.abs())).max(1.0);
        if n < FEWEST || !sums.squares.is_finite() || sums.squares <= n as f64 * (NO_NOISE * largest).powi(2) {
            return None;
        }
        let mut best = (0, LEAST, 0.0);
        let mut look = |from: usize, to: usize| {
            let between = sums.between(from, to);
            if between > best.2 {
                best = (from, to, between);
            }
        };
        (LEAST..=n - LEAST).for_each(|to| look(0, to));
        if n <= ALL {
            for from in LEAST..n - LEAST {
                (from + LEAST..=n - LEAST).for_each(|to| look(from, to));
            }
        } else {
            let (mut length, mut next) = (LEAST, 3);
            while length <= n / 2 {
                (LEAST..=n - LEAST - length).step_by((length / 4).max(1)).for_each(|from| look(from, from + length));
                (length, next) = (next, length * 2);
            }
        }
        let (from, to, between) = improved(&sums, n, best);
        Some(Self { from, to, share: (between / sums.squares).min(1.0) })
    }
}

/// Moves the ends of a stretch while that makes it stronger.
fn improved(sums: &Sums, n: usize, mut best: (usize, usize, f64)) -> (usize, usize, f64) {
    if n <= ALL {
        return best;
    }
    loop {
        let (from, to, between) = best;
        let moved = [(from.saturating_sub(1), to), (from + 1, to), (from, to - 1), (from, to + 1)];
        // A stretch at the beginning stays there: it is one change and not two.
        let allowed = moved.into_iter().filter(|(f, t)| (*f == 0) == (from == 0) && is_allowed(n, *f, *t));
        let all = allowed.map(|(from, to)| (from, to, sums.between(from, to)));
        match all.max_by(|a, b| a.2.total_cmp(&b.2)).filter(|found| found.2 > between) {
            Some(found) => best = found,
            None => return best,
        }
    }
}

/// The levels between cuts, with the noise that all of them share.
struct Fit {
    means: Vec<f64>,
    counts: Vec<usize>,
    sd: f64,
    freedom: f64,
}

impl Fit {
    #[expect(clippy::cast_precision_loss, reason = "runs are few")]
    fn of(values: &[f64], cuts: &[(usize, f64)]) -> Self {
        let ends: Vec<usize> = std::iter::once(0).chain(cuts.iter().map(|(at, _)| *at)).chain([values.len()]).collect();
        let levels: Vec<&[f64]> = ends.windows(2).map(|pair| &values[pair[0]..pair[1]]).collect();
        let means: Vec<f64> = levels.iter().map(|level| mean(level)).collect();
        let apart =
            levels.iter().zip(&means).flat_map(|(level, mean)| level.iter().map(move |value| (value - mean).powi(2)));
        let (squares, freedom) = (apart.sum::<f64>(), values.len().saturating_sub(levels.len()) as f64);
        let sd = if freedom > 0.0 { (squares / freedom).sqrt() } else { 0.0 };
        Self { counts: levels.iter().map(|level| level.len()).collect(), means, sd, freedom }
    }

    /// Whether values differ from their levels at all.
    fn is_known(&self) -> bool {
        self.freedom > 0.0 && self.sd > NO_NOISE
    }

    /// The change between two levels that stand beside each other, and its standard error.
    #[expect(clippy::cast_precision_loss, reason = "runs are few")]
    fn change(&self, before: usize) -> (f64, f64) {
        let parts = 1.0 / self.counts[before] as f64 + 1.0 / self.counts[before + 1] as f64;
        (self.means[before + 1] - self.means[before], self.sd.max(NO_NOISE) * parts.sqrt())
    }
}

/// Takes out cuts that the levels beside them do not show, the weakest first: a stretch that was found brings two, of which one may be
/// nothing. That only ever takes out.
fn give_up(values: &[f64], cuts: &mut Vec<(usize, f64)>) {
    loop {
        let fit = Fit::of(values, cuts);
        let p = |i: usize| {
            let (change, error) = fit.change(i);
            (i, 2.0 * t_above(change.abs() / error, fit.freedom))
        };
        match (0..cuts.len()).map(p).max_by(|a, b| a.1.total_cmp(&b.1)) {
            Some((weakest, p)) if p > ALPHA => drop(cuts.remove(weakest)),
            Some(_) | None => return,
        }
    }
}

/// Values before the last one that say what to expect, and degrees of freedom of their noise.
const EXPECTED: (usize, f64) = (2, 3.0);

/// The last value against those before it on its level.
#[expect(clippy::cast_precision_loss, reason = "runs are few")]
fn newest(values: &[f64], cuts: &[(usize, f64)]) -> Option<Newest> {
    let (last, before) = values.split_last()?;
    let fit = Fit::of(before, cuts);
    let count = *fit.counts.last()?;
    if count < EXPECTED.0 || fit.freedom < EXPECTED.1 || !fit.is_known() {
        return None;
    }
    let half = t_quantile(1.0 - ALPHA / 2.0, fit.freedom)? * fit.sd * (1.0 + 1.0 / count as f64).sqrt();
    Some(Newest { change: last - fit.means.last()?, half, before: count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(random: &mut ChaCha8Rng, levels: &[(usize, f64)], sd: f64) -> Vec<f64> {
        levels
            .iter()
            .flat_map(|(n, level)| (0..*n).map(|_| level + sd * normal(random)).collect::<Vec<f64>>())
            .collect()
    }

    fn random(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    fn places(search: &mut Search, values: &[f64]) -> Vec<usize> {
        search.levels(values).steps.iter().map(|step| step.at).collect()
    }

    /// How many of a thousand series have a change where `draw` makes none.
    fn alarms(n: usize, mut draw: impl FnMut(&mut ChaCha8Rng) -> f64) -> usize {
        let (random, search) = (&mut random(7), &mut Search::default());
        let one = |_: &usize| {
            let values: Vec<f64> = (0..n).map(|_| draw(random)).collect();
            !search.levels(&values).steps.is_empty()
        };
        (0..1000).filter(one).count()
    }

    /// The table of docs/history.md.
    #[test]
    fn the_false_alarm_rate_is_the_documented_one() {
        // Three standard errors of a share of 5 % of a thousand are 2.1 %.
        for n in [4, 6, 12, 30, 100] {
            let found = alarms(n, normal);
            assert!((25..=72).contains(&found), "{found} of 1000 for {n} runs");
        }
    }

    #[test]
    fn noise_of_another_kind_makes_as_many_more_false_alarms_as_is_documented() {
        // Exponential, of which the documents say 13 %; and uniform.
        let skewed = alarms(20, |random| -random.random::<f64>().max(f64::MIN_POSITIVE).ln());
        let flat = alarms(20, |random| random.random());
        assert!((95..=160).contains(&skewed) && flat <= 72, "{skewed} and {flat} of 1000");
    }

    #[test]
    fn one_odd_run_is_no_change() {
        let mut values = series(&mut random(3), &[(20, 7.0)], 0.01);
        values[9] += 0.1;
        assert_eq!(places(&mut Search::default(), &values), [0usize; 0]);
    }

    /// The second table of docs/history.md.
    #[test]
    fn the_power_is_the_documented_one() {
        let (random, search) = (&mut random(11), &mut Search::default());
        let mut found = |levels: &[(usize, f64)], at: &[usize]| {
            let one = |_: &usize| places(search, &series(random, levels, 0.01)) == at;
            (0..500).filter(one).count() / 5
        };
        // In standard deviations of a run: 10, 5, 3, 3.
        let all = [
            found(&[(3, 0.0), (3, 0.1)], &[3]),
            found(&[(5, 0.0), (5, 0.05)], &[5]),
            found(&[(20, 0.0), (3, 0.03)], &[20]),
            found(&[(30, 0.0), (30, 0.03)], &[30]),
            found(&[(20, 0.0), (4, 0.05), (20, 0.0)], &[20, 24]),
        ];
        assert!(all[0] >= 90 && all[1] >= 90 && all[2] >= 55 && all[3] >= 80 && all[4] >= 85, "{all:?}");
    }

    #[test]
    fn changes_have_their_size_with_an_interval_and_noise_is_known() {
        let values = series(&mut random(5), &[(12, 7.0), (12, 6.9), (12, 7.2)], 0.01);
        let found = Search::default().levels(&values);
        let at: Vec<usize> = found.steps.iter().map(|step| step.at).collect();
        assert_eq!((at.as_slice(), found.means.len()), ([12, 24].as_slice(), 3));
        for (step, truth) in found.steps.iter().zip([-0.1, 0.3]) {
            let (low, high) = step.interval.unwrap();
            assert!(low < truth && truth < high && high - low < 0.03 && step.p <= 0.001, "{step:?}");
        }
        assert!((0.006..0.014).contains(&found.sd.unwrap()), "{found:?}");
        assert_eq!((found.of(11), found.of(12), found.of(35)), (0, 1, 2));
    }

    #[test]
    fn values_without_noise_change_where_they_differ() {
        let search = &mut Search::default();
        let found = search.levels(&[4.0, 4.0, 4.0, 5.0, 5.0]);
        assert_eq!((found.steps.len(), found.steps[0].at, found.steps[0].interval), (1, 3, None));
        assert_eq!((found.sd, found.newest), (None, None));
        for same in [&[][..], &[1.0], &[1.0, 2.0, 3.0], &[4.0; 40], &[0.0; 9]] {
            assert_eq!(places(search, same), [0usize; 0], "{same:?}");
        }
        let huge = [f64::MAX, -f64::MAX, f64::MAX, -f64::MAX, f64::MAX];
        assert_eq!(places(search, &huge), [0usize; 0]);
    }

    #[test]
    fn the_newest_run_is_held_against_those_before_it() {
        let mut values = series(&mut random(9), &[(12, 7.0)], 0.01);
        values.push(7.005);
        let search = &mut Search::default();
        let newest = search.levels(&values).newest.unwrap();
        assert!(!newest.is_outside() && newest.before == 12, "{newest:?}");
        *values.last_mut().unwrap() = 6.9;
        let found = search.levels(&values);
        assert!(found.steps.is_empty() && found.newest.unwrap().is_outside(), "one run is no level: {found:?}");
    }

    #[test]
    fn long_series_are_searched_in_fewer_places_and_changes_are_where_they_are() {
        let values = series(&mut random(2), &[(300, 7.0), (60, 6.95), (640, 7.03)], 0.01);
        let found = places(&mut Search::default(), &values);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].abs_diff(300) <= 2 && found[1].abs_diff(360) <= 2, "{found:?}");
    }
}
