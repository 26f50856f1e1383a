//! Series of means along a setting: which measurements make a line, which lines get a name, what the legend says.

use super::super::chart::{Axis, Entry, Point, Sampled, Series, Shape};
use super::super::data::{Data, Group, Shot, ends, full_key, mean_of, setting};
use super::super::look::{Look, OTHERS};
use super::super::scale::{Counting, Scale, Tick, separated};
use super::super::words::axis_label;
use crate::analyse::Estimate;
use crate::model::Better;
use crate::report::Refusal;

/// One line: measurements with the same settings but for the one on the axis.
pub struct Line<'a, 'd> {
    /// What tells it from the others.
    pub label: String,
    /// Its measurements at each place of the axis, from left to right.
    pub places: Vec<(f64, Vec<&'d Shot<'a>>)>,
}

/// Lines along an axis.
pub struct Lines<'a, 'd> {
    /// The key on the axis.
    pub x: String,
    /// The lines.
    pub lines: Vec<Line<'a, 'd>>,
    /// The values of the axis, from left to right.
    pub levels: Vec<f64>,
    /// Keys over which points are means; empty where each point is one configuration.
    pub over: Vec<String>,
}

/// The lines of the data along `--x`, else along `x`.
///
/// # Errors
/// When the axis has no two values, or `--by` would mix models or loads.
pub fn lines<'a, 'd>(data: &'d Data<'a>, x: &str, first: &[&str]) -> Result<Lines<'a, 'd>, Refusal> {
    let x = match &data.query.x {
        Some(key) => data.known("--x", key)?,
        None => x.to_owned(),
    };
    let number = |shot: &Shot<'_>| setting(shot.row, &x)?.parse::<f64>().ok().filter(|value| value.is_finite());
    let mut levels: Vec<f64> = data.shots.iter().filter_map(number).collect();
    levels.sort_by(f64::total_cmp);
    levels.dedup();
    if levels.len() < 2 {
        let numbers = |key: &&String| {
            data.shots.iter().all(|shot| setting(shot.row, key).is_none_or(|value| value.parse::<f64>().is_ok()))
        };
        let others: Vec<&str> = data.differing.iter().filter(numbers).map(String::as_str).take(6).collect();
        let other =
            if others.is_empty() { String::new() } else { format!(", or draw along `--x {}`", others.join("|")) };
        let have = if levels.is_empty() { "no value" } else { "one value" };
        let message = format!("the measurements have {have} of `{x}`: there is nothing to draw a line along");
        return Err(Refusal::missing(message, format!("measure several: `{x}: [1, 8, 32]` in a sweep file{other}")));
    }
    let all = data.rest(&[&x]);
    let (by, over) = split(data, &all, first)?;
    let mut found = Vec::new();
    for Group { label, shots } in data.groups(&by) {
        let places: Vec<(f64, Vec<&Shot<'a>>)> = levels
            .iter()
            .map(|level| (*level, shots.iter().copied().filter(|shot| number(shot) == Some(*level)).collect()))
            .filter(|(_, shots): &(f64, Vec<&Shot<'a>>)| !shots.is_empty())
            .collect();
        if !places.is_empty() {
            found.push(Line { label, places });
        }
    }
    Ok(Lines { x, lines: found, levels, over })
}

/// The keys that make series, and those over which a mean is taken. Without `--by` each configuration is a series.
///
/// # Errors
/// When the mean would be over models or loads.
pub fn split(data: &Data<'_>, all: &[String], first: &[&str]) -> Result<(Vec<String>, Vec<String>), Refusal> {
    if data.query.by.is_empty() {
        let leading = first.iter().map(|key| (*key).to_owned());
        let rest = all.iter().filter(|key| {
            !(first.contains(&key.as_str()) || first.contains(&"devices") && *key == "tensor-parallel-size")
        });
        return Ok((leading.chain(rest.cloned()).collect(), Vec::new()));
    }
    let by: Vec<String> = data.query.by.iter().map(|key| data.known("--by", key)).collect::<Result<_, _>>()?;
    let over: Vec<String> = all.iter().filter(|key| !by.contains(key)).cloned().collect();
    let mixed: Vec<&str> = over.iter().filter(|key| data.is_load(key)).map(String::as_str).collect();
    if mixed.is_empty() {
        return Ok((by, over));
    }
    let suggestion: Vec<&str> = by.iter().map(String::as_str).chain(mixed.iter().copied()).collect();
    Err(Refusal::Wrong {
        message: format!("`--by {}` would mix measurements of different `{}`", by.join(","), mixed.join("`, `")),
        hint: format!("`--by {}`, or one of them: `--where {}=VALUE`", suggestion.join(","), mixed[0]),
    })
}

/// The keys given on the command line as a list.
pub fn list(text: &[String]) -> Vec<String> {
    text.iter().flat_map(|text| text.split(',')).map(full_key).filter(|key| !key.is_empty()).collect()
}

/// A line's points for a metric.
pub struct Drawn {
    /// The line's number.
    pub index: usize,
    /// Its points.
    pub points: Vec<Point>,
    /// Their estimates.
    pub estimates: Vec<Estimate>,
}

impl Lines<'_, '_> {
    /// The points of every line for a metric; lines without any are left out.
    pub fn drawn(&self, value: &dyn Fn(&Shot<'_>) -> Option<f64>) -> Vec<Drawn> {
        let draw = |(index, line): (usize, &Line<'_, '_>)| {
            let known: Vec<(f64, Estimate)> =
                line.places.iter().filter_map(|(x, shots)| Some((*x, mean_of(shots, value)?))).collect();
            let points = known
                .iter()
                // A mean over several configurations has no interval of this meaning.
                .map(|(x, e)| Point {
                    x: *x,
                    y: e.mean,
                    y_range: ends(e).filter(|_| self.over.is_empty()),
                    x_range: None,
                })
                .collect();
            Drawn { index, points, estimates: known.into_iter().map(|(_, e)| e).collect() }
        };
        self.lines.iter().enumerate().map(draw).filter(|drawn| !drawn.points.is_empty()).collect()
    }

    /// The axis with the tested values as ticks.
    pub fn axis(&self) -> Axis {
        let (low, high) = (self.levels.first().copied().unwrap_or(1.0), self.levels.last().copied().unwrap_or(1.0));
        let counting = if low > 0.0 && high / low >= 4.0 { Counting::Log2 } else { Counting::Linear };
        let decimals = usize::from(self.levels.iter().any(|level| level.fract() != 0.0)) * 2;
        let tick = |level: &f64| Tick { at: *level, label: separated(*level, decimals) };
        Axis {
            label: axis_label(&self.x),
            scale: Scale::of(counting, self.levels.iter().copied(), false),
            ticks: Some(self.levels.iter().map(tick).collect()),
        }
    }

    /// Which lines have a look and a line in the legend of their own: the best `most` by their best value, in their order.
    pub fn named(&self, drawn: &[Drawn], better: Option<Better>, most: usize) -> Vec<usize> {
        named(
            &drawn.iter().map(|d| (d.index, d.points.iter().map(|p| p.y).collect())).collect::<Vec<_>>(),
            better,
            most,
        )
    }
}

/// The best `most` of numbered series by their best value, in their order.
pub fn named(series: &[(usize, Vec<f64>)], better: Option<Better>, most: usize) -> Vec<usize> {
    let sign = if better == Some(Better::Lower) { -1.0 } else { 1.0 };
    let peak = |values: &[f64]| values.iter().map(|value| value * sign).fold(f64::NEG_INFINITY, f64::max);
    let mut order: Vec<(usize, f64)> = series.iter().map(|(index, values)| (*index, peak(values))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut named: Vec<usize> = order.into_iter().take(most).map(|(index, _)| index).collect();
    named.sort_unstable();
    named
}

/// The look of a line: its own where it is named, else grey.
pub fn look(named: &[usize], index: usize) -> Look {
    named.iter().position(|known| *known == index).map_or(OTHERS, Look::of)
}

/// Series in the order in which they are drawn: grey ones first.
pub fn series(drawn: &[Drawn], named: &[usize], shape: Shape) -> Vec<Series> {
    let make = |d: &Drawn| {
        let look = look(named, d.index);
        let points = d.points.iter().map(|point| Point {
            // Intervals of hundreds of grey lines would hide all others.
            y_range: point.y_range.filter(|_| look != OTHERS),
            ..*point
        });
        Series { points: points.collect(), look, shape }
    };
    let (front, back): (Vec<&Drawn>, Vec<&Drawn>) = drawn.iter().partition(|d| named.contains(&d.index));
    back.into_iter().chain(front).map(make).collect()
}

/// The legend of named lines, and how many others there are. One line that is all there is needs none.
pub fn legend(labels: &[String], named: &[usize], total: usize, sample: Sampled) -> Vec<Entry> {
    if total == 1 {
        return Vec::new();
    }
    let entry = |(i, index): (usize, &usize)| Entry {
        label: labels.get(*index).cloned().unwrap_or_default(),
        look: Look::of(i),
        sample,
    };
    let mut entries: Vec<Entry> = named.iter().enumerate().map(entry).collect();
    if total > named.len() {
        let label = format!("… and {} more", total - named.len());
        entries.push(Entry { label, look: OTHERS, sample });
    }
    entries
}

/// What is said of lines without a name.
pub fn unnamed(total: usize, named: usize, what: &str) -> Option<String> {
    (total > named).then(|| format!("Named are the {named} of {total} with the best {what}; the others are grey."))
}

/// What is said of means over several configurations.
pub fn over(keys: &[String]) -> Option<String> {
    (!keys.is_empty())
        .then(|| format!("Each point is the mean over all values of {}, so that it has no interval.", keys.join(", ")))
}

/// The axis of a metric, from zero; logarithmic where values differ by a factor of more than a hundred.
pub fn metric_axis(label: String, values: &[f64]) -> Axis {
    let (low, high) = values.iter().fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(*v), h.max(*v)));
    let counting = if low > 0.0 && high / low > 100.0 { Counting::Log10 } else { Counting::Linear };
    Axis { label, scale: Scale::of(counting, values.iter().copied(), true), ticks: None }
}

/// Every value that the points of some series reach.
pub fn reach(drawn: &[Drawn]) -> Vec<f64> {
    let of = |p: &Point| [Some(p.y), p.y_range.map(|r| r.0.max(0.0)), p.y_range.map(|r| r.1)];
    let values = drawn.iter().flat_map(|d| &d.points).flat_map(of).flatten();
    values.collect()
}
