//! One run against another: configurations matched by their settings, each figure with its change and how sure that is. Pure.

use indexmap::IndexMap;

use super::decide::{Change, change};
use super::inference::{CONFIDENCE, holm};
use super::moderate::Moderated;
use super::{Better, Figure, Metric, Row, RunTable, comparable, starts_by};

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Better by more than the threshold, and beyond noise.
    Better,
    /// Worse by more than the threshold, and beyond noise.
    Worse,
    /// The whole interval lies within the threshold.
    Same,
    /// Neither can be said.
    NotTold,
}

/// The change of one figure.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Effect {
    /// Its key.
    pub metric: String,
    /// Before, after, relative change, interval.
    #[serde(flatten)]
    pub change: Change,
    /// P of a change as large as this between equals, corrected for all figures of all configurations.
    pub corrected_p: Option<f64>,
    /// What became of it.
    pub outcome: Outcome,
}

/// A configuration that both runs measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Matched<'a> {
    /// Its first measurement in the second run.
    pub row: &'a Row,
    /// Its figures.
    pub effects: Vec<Effect>,
}

/// Two runs beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison<'a> {
    /// Why results of the two are not comparable, or not wholly: what changed between releases of vLLM.
    pub warnings: Vec<String>,
    /// What both measured.
    pub matched: Vec<Matched<'a>>,
    /// Measured in the second run only.
    pub added: Vec<&'a Row>,
    /// Measured in the first run only.
    pub missing: Vec<&'a Row>,
}

/// The figures that are compared where nobody names others.
pub const COMPARED: [Metric; 3] = [Metric::OutputThroughput, Metric::MeanTtft, Metric::MeanTpot];

type Groups<'a> = IndexMap<String, Vec<&'a Row>>;

/// Valid rows by what they measured; repeats together.
fn groups(table: &RunTable) -> Groups<'_> {
    let mut groups = Groups::new();
    for row in table.rows.iter().filter(|row| row.is_valid()) {
        let key = row.about.settings.as_ref().map_or_else(|| row.name.clone(), ToString::to_string);
        groups.entry(key).or_default().push(row);
    }
    groups
}

/// Compares two runs by these figures. `threshold`: relative change that matters (0.03 = 3 %). `noise`: of a start's
/// logarithm, where the runs themselves say nothing of it.
pub fn compare<'a>(
    before: &'a RunTable,
    after: &'a RunTable,
    figures: &[Figure],
    threshold: f64,
    noise: Option<Moderated>,
) -> Comparison<'a> {
    let (a, b) = (groups(before), groups(after));
    let mut matched: Vec<Matched<'a>> = Vec::new();
    let mut warnings: Vec<String> = Vec::new();
    for (key, rows) in &b {
        let (Some(then), Some(row)) = (a.get(key), rows.first()) else { continue };
        let effects = figures.iter().filter_map(|figure| {
            let change = change(&starts_by(then, &figure.key)?, &starts_by(rows, &figure.key)?, noise)?;
            Some(Effect { metric: figure.key.clone(), change, corrected_p: None, outcome: Outcome::NotTold })
        });
        for text in then.first().map(|then| comparable::differences(then, row)).unwrap_or_default() {
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
        matched.push(Matched { row, effects: effects.collect() });
    }
    judge(&mut matched, threshold);
    let only = |these: &Groups<'a>, others: &Groups<'a>| -> Vec<&'a Row> {
        these
            .iter()
            .filter(|(key, _)| !others.contains_key(*key))
            .filter_map(|(_, rows)| rows.first().copied())
            .collect()
    };
    Comparison { warnings, matched, added: only(&b, &a), missing: only(&a, &b) }
}

fn judge(matched: &mut [Matched<'_>], threshold: f64) {
    let effects: Vec<&mut Effect> = matched.iter_mut().flat_map(|matched| matched.effects.iter_mut()).collect();
    let corrected = holm(&effects.iter().filter_map(|effect| effect.change.p).collect::<Vec<f64>>());
    let mut corrected = corrected.into_iter();
    for effect in effects {
        effect.corrected_p = effect.change.p.and_then(|_| corrected.next());
        effect.outcome = outcome(effect, threshold);
    }
}

fn outcome(effect: &Effect, threshold: f64) -> Outcome {
    let better = Figure::of(&effect.metric).and_then(|figure| figure.better);
    let Change { relative, interval, .. } = &effect.change;
    let (Some((low, high)), Some(p), Some(better)) = (interval, effect.corrected_p, better) else {
        return Outcome::NotTold;
    };
    if p <= 1.0 - CONFIDENCE && relative.abs() > threshold {
        let up = *relative > 0.0;
        return if up == (better == Better::Higher) { Outcome::Better } else { Outcome::Worse };
    }
    if *low > -threshold && *high < threshold { Outcome::Same } else { Outcome::NotTold }
}

impl Comparison<'_> {
    /// Whether anything became worse.
    pub fn has_worse(&self) -> bool {
        self.matched.iter().flat_map(|matched| &matched.effects).any(|effect| effect.outcome == Outcome::Worse)
    }
}
