//! What a sweep gained: for each model under each load the baseline, the best of each tier, and the speed-up. Pure.
//!
//! The baseline is the one that the user names, else the sweep's own where it marks one. Else it is the cluster sweep's: the smallest tensor parallel size of 1, 2, 4,
//! 8 that has a valid result with 256 sequences, 8,192 batched tokens, 90 % of the memory, blocks of 16, and neither cache type,
//! speculative decoding nor quantization set; a flag that is not set counts as that (an actual run of the default), and so does one that
//! all configurations of the model set alike.

use std::sync::Arc;

use indexmap::IndexMap;

use super::choose::refused;
use super::rank::{mean_over_starts, settings, starts_by};
use super::setting::different;
use super::{Basis, Candidate, LeftOut, RankingSpec, Recommendation, Row, RunTable, change, choose, load_labels};
use crate::model::{Better, VllmMetric};

/// The metric in which the gain is told.
pub const METRIC: &str = "output_tps_per_gpu";

/// Which rule found a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaselineRule {
    /// The user names it.
    Asked,
    /// The sweep marks it.
    Sweep,
    /// The cluster sweep's plainest configuration.
    Plainest,
}

/// What others are compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline<'a> {
    /// Its first measurement.
    pub row: &'a Row,
    /// All of them.
    pub rows: Vec<&'a Row>,
    /// Output tokens per second and device, mean of its measurements.
    pub tps: f64,
    /// How it was found.
    pub rule: BaselineRule,
}

/// What the speed-ups of a model under a load are over.
#[derive(Debug, Clone, PartialEq)]
pub struct Base<'a> {
    /// Which model.
    pub model: &'a str,
    /// Which load; empty where there is one.
    pub workload: String,
    /// Its planned rows.
    pub rows: Vec<&'a Row>,
    /// What they are over; `None` = there are none.
    pub used: Option<Baseline<'a>>,
    /// The configuration that is meant as the baseline where it is excluded (it failed, or a warning excludes it), and why.
    pub excluded: Option<LeftOut<'a>>,
}

impl<'a> Base<'a> {
    /// Of the rows of one model and load.
    fn of(model: &'a str, workload: String, rows: Vec<&'a Row>, wanted: &RankingSpec) -> Self {
        let used = baseline(&rows);
        let excluded = excluded(&rows, used.as_ref(), wanted);
        Self { model, workload, rows, used, excluded }
    }

    /// Whether the baseline is another one than the first that is meant, which is excluded.
    fn falls_back(&self) -> bool {
        let excluded = self.excluded.as_ref().map(|left| left.row);
        let is_other = |used: &Baseline<'_>| excluded.is_some_and(|row| !used.rows.iter().any(|one| one.is_of(row)));
        self.used.as_ref().is_some_and(is_other)
    }

    /// That the baseline is excluded, in a sentence; `None` where it is not, or there is none.
    pub fn warning(&self) -> Option<String> {
        let LeftOut { row, why, .. } = self.excluded.as_ref()?;
        let name = &row.name;
        Some(match &self.used {
            Some(used) if self.falls_back() => {
                let used = &used.row.name;
                format!("speed-ups are over {used}, as {name}, which would be the baseline, is excluded: {why}")
            }
            Some(_) => format!("do not rely on the speed-ups: their baseline {name} is excluded: {why}"),
            None => format!("no speed-ups: their baseline {name} is excluded: {why}"),
        })
    }
}

/// What the speed-ups of each model under each load are over, of the rows that speed-ups are computed of: where some were measured, no simulated ones.
pub fn bases<'a>(table: &'a RunTable, wanted: &RankingSpec) -> Vec<Base<'a>> {
    let rows = table.judged();
    let of = |((model, workload), indices): ((&'a str, String), Vec<usize>)| {
        let all: Vec<&'a Row> = indices.iter().filter_map(|index| rows.get(*index).copied()).collect();
        all.iter().any(|row| row.is_valid()).then(|| Base::of(model, workload, all, wanted))
    };
    by_model_and_load(&rows).into_iter().filter_map(of).collect()
}

/// The best of a part of the sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Tier<'a> {
    /// Which part: `tier0`, `overall`, or the value of a grouping.
    pub name: String,
    /// The choice: its first measurement.
    pub row: &'a Row,
    /// Output tokens per second and device, mean of its measurements.
    pub tps: f64,
    /// Measurements.
    pub n: usize,
    /// Over the baseline's; `None` without a baseline.
    pub speedup: Option<f64>,
    /// The interval that holds the true speed-up; `None` where nothing was repeated.
    pub interval: Option<(f64, f64)>,
    /// What it sets in another way than the baseline; empty where it is the baseline.
    pub parameters: Vec<(String, String)>,
    /// Others that may be the best as well.
    pub in_set: usize,
    /// What the choice is based on.
    pub basis: Basis,
}

/// A model under one load.
#[derive(Debug, Clone, PartialEq)]
pub struct Optimized<'a> {
    /// Which model.
    pub model: &'a str,
    /// Which load; empty where there is one.
    pub workload: String,
    /// What others are compared with.
    pub baseline: Option<Baseline<'a>>,
    /// That the configuration that is meant as the baseline is excluded.
    pub warning: Option<String>,
    /// Whether it is said only that a smaller or earlier one than the baseline is excluded: the baseline itself is not.
    pub falls_back: bool,
    /// The best of each part that has a valid result, in the order asked for.
    pub tiers: Vec<Tier<'a>>,
}

/// The best of all rows.
pub const OVERALL: &str = "overall";

/// The parts that the cluster sweep looks at: groups whose name begins so, and all.
pub fn tiers(rows: &[&Row]) -> Vec<String> {
    let there = |tier: &&str| rows.iter().any(|row| row.groups.iter().any(|group| group.starts_with(*tier)));
    ["tier0", "tier1"].into_iter().filter(there).map(str::to_owned).chain([OVERALL.to_owned()]).collect()
}

/// Whether a row belongs to a part.
pub fn is_in_tier(row: &Row, tier: &str) -> bool {
    tier == OVERALL || row.groups.iter().any(|group| group.starts_with(tier))
}

/// Finds the gain for each model and load, over the parts `names`; `part` says whether a row belongs to one. The best of each is
/// chosen by `wanted`, and its speed-up is in output tokens per second and device, whatever that objective is.
pub fn optimize<'a>(
    rows: &[&'a Row],
    names: &[String],
    part: impl Fn(&Row, &str) -> bool,
    wanted: &RankingSpec,
) -> Vec<Optimized<'a>> {
    let groups = by_model_and_load(rows);
    groups
        .into_iter()
        .map(|((model, workload), indices)| {
            let all: Vec<&'a Row> = indices.iter().filter_map(|index| rows.get(*index).copied()).collect();
            let base = Base::of(model, workload, all, wanted);
            let (warning, falls_back) = (base.warning(), base.falls_back());
            let Base { workload, rows: all, used: baseline, .. } = base;
            let best = |name: &String| {
                let asked: Vec<&'a Row> = all.iter().filter(|row| part(row, name)).copied().collect();
                tier(name, &choose(&asked, wanted).ok()?, &all, baseline.as_ref())
            };
            let tiers = names.iter().filter_map(best).collect();
            Optimized { model, workload, baseline, warning, falls_back, tiers }
        })
        .filter(|found| found.baseline.is_some() || !found.tiers.is_empty())
        .collect()
}

fn tier<'a>(
    name: &str,
    found: &Recommendation<'a>,
    all: &[&'a Row],
    baseline: Option<&Baseline<'a>>,
) -> Option<Tier<'a>> {
    let choice = found.chosen()?;
    let itself = baseline.is_some_and(|base| base.rows.iter().any(|row| std::ptr::eq(*row, choice.row)));
    let interval = baseline.filter(|_| !itself).and_then(|base| interval(all, base.row, choice.row));
    let measured = settings(all).into_iter().find(|rows| rows.iter().any(|row| std::ptr::eq(*row, choice.row)))?;
    let measured: Vec<&Row> = measured.into_iter().filter(|row| row.is_valid()).collect();
    // Where the objective is this very metric, it is the answer's own mean.
    let tps = mean_over_starts(&measured, METRIC)?;
    Some(Tier {
        name: name.to_owned(),
        row: choice.row,
        tps,
        n: choice.measurements,
        speedup: baseline.filter(|base| base.tps > 0.0).map(|base| tps / base.tps),
        interval,
        parameters: baseline.filter(|_| !itself).map(|base| different(choice.row, base.row)).unwrap_or_default(),
        in_set: found.others_in_set(),
        basis: found.basis,
    })
}

/// The interval of the speed-up of one configuration over another, which holds for any that is picked among these rows.
fn interval(all: &[&Row], base: &Row, row: &Row) -> Option<(f64, f64)> {
    let (mut candidates, mut from, mut to) = (Vec::new(), None, None);
    for rows in settings(all) {
        let valid: Vec<&Row> = rows.into_iter().filter(|row| row.is_valid()).collect();
        let Some(starts) = starts_by(&valid, METRIC) else { continue };
        let is = |row: &Row| valid.iter().any(|other| std::ptr::eq(*other, row)).then_some(candidates.len());
        (from, to) = (from.or_else(|| is(base)), to.or_else(|| is(row)));
        candidates.push(Candidate { starts, devices: 1, overrides: 0 });
    }
    let (low, high) = change(&candidates, from?, to?)?;
    Some((1.0 + low, 1.0 + high))
}

/// Indices of rows by model and workload.
pub type Groups<'a> = IndexMap<(&'a str, String), Vec<usize>>;

/// Indices of the planned rows by model and workload, in order of appearance.
pub fn by_model_and_load<'a>(rows: &[&'a Row]) -> Groups<'a> {
    let mut groups: Groups<'a> = IndexMap::new();
    for ((index, row), load) in rows.iter().enumerate().zip(load_labels(rows)) {
        if !row.is_skipped() {
            groups.entry((row.axes.model.as_str(), load)).or_default().push(index);
        }
    }
    groups
}

/// The baseline's tokens per second and device for each row; `None` where there is none.
pub(super) fn baselines(rows: &[&Row]) -> Vec<Option<f64>> {
    let mut found = vec![None; rows.len()];
    for indices in by_model_and_load(rows).into_values() {
        let all: Vec<&Row> = indices.iter().map(|index| rows[*index]).collect();
        if let Some(tps) = baseline(&all).map(|base| base.tps).filter(|tps| *tps > 0.0) {
            for index in indices {
                found[index] = Some(tps);
            }
        }
    }
    found
}

/// The baseline among rows of one model and load.
pub fn baseline<'a>(rows: &[&'a Row]) -> Option<Baseline<'a>> {
    let measured: Vec<(Vec<&'a Row>, f64)> = settings(rows)
        .into_iter()
        .filter_map(|rows| {
            let valid: Vec<&Row> = rows.into_iter().filter(|row| row.is_valid()).collect();
            let tps = mean_over_starts(&valid, METRIC)?;
            Some((valid, tps))
        })
        .collect();
    let of =
        |found: &(Vec<&'a Row>, f64), rule| Baseline { row: found.0[0], rows: found.0.clone(), tps: found.1, rule };
    if let Some(own) = measured.iter().find(|(rows, _)| rows.iter().any(|row| row.baseline)) {
        let asked = own.0.iter().any(|row| row.about.baseline_asked);
        return Some(of(own, if asked { BaselineRule::Asked } else { BaselineRule::Sweep }));
    }
    // Where a sweep has a baseline that failed, or the user names one, another would be a silent substitute.
    if rows.iter().any(|row| row.baseline || row.about.baseline_asked) {
        return None;
    }
    let shared = shared(rows);
    SIZES.into_iter().find_map(|tp| {
        let plain = measured.iter().filter(|(rows, _)| is_plainest(rows[0], tp, &shared));
        plain.max_by(|a, b| a.1.total_cmp(&b.1)).map(|found| of(found, BaselineRule::Plainest))
    })
}

/// The first configuration that is meant as the baseline and is excluded, up to the one that is used.
fn excluded<'a>(rows: &[&'a Row], used: Option<&Baseline<'a>>, wanted: &RankingSpec) -> Option<LeftOut<'a>> {
    let all = settings(rows);
    let is_used = |rows: &[&Row]| used.is_some_and(|used| rows.iter().any(|row| std::ptr::eq(*row, used.row)));
    // In order; of several that are meant alike (plain ones of one size) that which is used, else all.
    let meant: Vec<Vec<&Vec<&'a Row>>> = if rows.iter().any(|row| row.baseline || row.about.baseline_asked) {
        all.iter().filter(|rows| rows.iter().any(|row| row.baseline)).map(|rows| vec![rows]).collect()
    } else {
        let shared = shared(rows);
        let is_plain = |rows: &[&Row], tp| rows.first().is_some_and(|row| is_plainest(row, tp, &shared));
        SIZES.map(|tp| all.iter().filter(|rows| is_plain(rows, tp)).collect()).into()
    };
    let wanted = RankingSpec {
        failures: wanted.failures,
        ..RankingSpec::by(VllmMetric::OutputThroughput.key(), Better::Higher)
    };
    let excluded = |rows: &Vec<&'a Row>| {
        Some(LeftOut { row: rows.first()?, why: refused(rows, &wanted).err()?, breaks_limit: false })
    };
    for alike in meant {
        if let Some(rows) = alike.iter().find(|rows| is_used(rows)) {
            return excluded(rows);
        }
        if let Some(found) = alike.into_iter().find_map(excluded) {
            return Some(found);
        }
    }
    None
}

/// The tensor parallel sizes of a plain configuration.
const SIZES: [u32; 4] = [1, 2, 4, 8];

/// The settings of [`PLAIN`] that all rows set alike: what a whole sweep sets says nothing against any of its configurations.
fn shared(rows: &[&Row]) -> Vec<&'static str> {
    let Some(first) = rows.first() else { return Vec::new() };
    // Rows that share flags and load, and have no axis of their own, differ in nothing but the grid values.
    let same_flags = |row: &Row| {
        let (a, b) = (&row.about, &first.about);
        let axes = [&row.axes, &first.axes];
        Arc::ptr_eq(&a.flags, &b.flags)
            && Arc::ptr_eq(&row.load, &first.load)
            && axes.iter().all(|axes| axes.server.is_empty() && axes.workload.is_empty())
    };
    let others: Vec<&Row> = rows.iter().filter(|row| !same_flags(row)).copied().collect();
    let alike = |flag: &&&str| {
        let setting = first.set(flag);
        let rows = if **flag == "quantization" { rows } else { &others };
        rows.iter().all(|row| row.set(flag) == setting)
    };
    PLAIN.iter().filter(alike).copied().collect()
}

/// The settings that make a configuration plain, beside its size.
const PLAIN: [&str; 7] = [
    "max-num-seqs",
    "max-num-batched-tokens",
    "gpu-memory-utilization",
    "block-size",
    "kv-cache-dtype",
    "speculative-config",
    "quantization",
];

fn is_plainest(row: &Row, tp: u32, shared: &[&str]) -> bool {
    let is_plain = |flag: &&str| {
        let Some(text) = row.set(flag) else { return true };
        let number = |value: f64| text.parse::<f64>().is_ok_and(|found| (found - value).abs() < 1e-9);
        match *flag {
            "max-num-seqs" => number(256.0),
            "max-num-batched-tokens" => number(8192.0),
            "gpu-memory-utilization" => number(0.9),
            "block-size" => number(16.0),
            "kv-cache-dtype" => text == "auto",
            _ => text == "none",
        }
    };
    row.axes.tensor_parallel_size == Some(tp) && PLAIN.iter().filter(|flag| !shared.contains(*flag)).all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::table::tests::row;
    use super::*;

    fn measured(tp: u32, tps: f64, flags: &[(&str, &str)]) -> Row {
        let mut row = row("m", tp, 1.0, 1.0);
        row.metrics.set(VllmMetric::OutputThroughput, Some(tps * f64::from(tp)));
        row.about.further.insert(METRIC, tps);
        row.about.devices = Some(tp);
        row.about.flags = Arc::new(flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        row.name = format!("tp{tp} {flags:?}");
        row
    }

    fn overall<'a>(rows: &'a [Row]) -> Vec<Optimized<'a>> {
        let rows: Vec<&'a Row> = rows.iter().collect();
        optimize(&rows, &tiers(&rows), is_in_tier, &RankingSpec::default())
    }

    #[test]
    fn the_baseline_is_the_smallest_size_that_works_with_plain_settings() {
        let mut rows = vec![
            measured(1, 100.0, &[("max-num-seqs", "256")]),
            measured(2, 80.0, &[("max-num-seqs", "256"), ("gpu-memory-utilization", "0.90")]),
            measured(4, 50.0, &[("max-num-seqs", "256")]),
            measured(2, 120.0, &[("max-num-seqs", "512")]),
        ];
        rows[0].status = Status::NotRun;
        let found = overall(&rows);
        let base = found[0].baseline.as_ref().unwrap();
        assert_eq!((base.row.axes.tensor_parallel_size, base.tps, base.rule), (Some(2), 80.0, BaselineRule::Plainest));
        let best = &found[0].tiers[0];
        assert_eq!((best.name.as_str(), best.speedup, best.interval), (OVERALL, Some(1.5), None));
        let first = found[0].warning.as_deref().unwrap();
        assert!(first.starts_with("speed-ups are over tp2 ") && first.contains("as tp1 "), "{first}");
        // One that counts, and is barred by a warning.
        rows[1].about.warnings =
            super::super::warnings_from(&super::super::Signs { failed: Some(1.0), ..Default::default() });
        rows[0].status = Status::Skipped { rule: "x".into(), explanation: None, reason: "x".into() };
        let warning = overall(&rows)[0].warning.clone().unwrap();
        assert!(warning.starts_with("do not rely on the speed-ups: their baseline tp2 "), "{warning}");
        rows[1].about.warnings.clear();
        assert_eq!(overall(&rows)[0].warning, None);
        // The sweep's own comes first; one that failed is replaced by no other.
        rows[2].baseline = true;
        assert_eq!(overall(&rows)[0].baseline.as_ref().map(|b| (b.tps, b.rule)), Some((50.0, BaselineRule::Sweep)));
        rows[2].status = Status::NotRun;
        let found = overall(&rows);
        assert_eq!((found[0].baseline.is_none(), found[0].tiers[0].speedup), (true, None));
        let none = "no speed-ups: their baseline tp4 [(\"max-num-seqs\", \"256\")] is excluded: it has no valid result";
        assert_eq!(found[0].warning.as_deref(), Some(none));
    }

    #[test]
    fn a_speed_up_over_repeats_is_that_of_an_independent_computation() {
        let mut rows = Vec::new();
        for (tp, all) in [(1, &[100.0, 104.0, 98.0, 101.0][..]), (2, &[111.0, 108.0, 114.0])] {
            for (start, tps) in (1..).zip(all) {
                let mut row = measured(tp, *tps, &[]);
                row.repeat = Some(crate::model::Repeat { start, run: 1 });
                row.identity = serde_json::from_value(format!("{tp:064}").into()).ok();
                rows.push(row);
            }
        }
        // Measured in turn.
        rows.sort_by_key(|row| row.repeat);
        let found = overall(&rows);
        let best = &found[0].tiers[0];
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        // scripts/check_statistics.py
        near(best.speedup.unwrap(), 1.1017369727047146);
        let (low, high) = best.interval.unwrap();
        near(low, 1.0435112951540588);
        near(high, 1.1631797736740546);
        assert_eq!((best.n, best.basis), (3, Basis::Starts));
    }

    #[test]
    fn s5_11_loads_are_judged_by_themselves_and_rows_with_failures_never_win() {
        let mut rows = vec![
            measured(1, 100.0, &[]),
            measured(1, 900.0, &[("max-num-seqs", "512")]),
            measured(1, 300.0, &[("max-num-seqs", "1024")]),
            measured(1, 10.0, &[]),
        ];
        for (row, load) in rows.iter_mut().zip(["8", "8", "8", "64"]) {
            row.axes.workload = vec![("max-concurrency".into(), load.into())];
        }
        rows[1].about.warnings =
            super::super::warnings_from(&super::super::Signs { failed: Some(1.0), ..Default::default() });
        let found = overall(&rows);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].tiers[0].tps, found[0].tiers[0].speedup), (300.0, Some(3.0)));
        assert_eq!(found[0].tiers[0].parameters, [("mns".to_owned(), "1024".to_owned())]);
        assert_eq!((found[1].tiers[0].speedup, found[1].tiers[0].parameters.len()), (Some(1.0), 0));
    }
}
