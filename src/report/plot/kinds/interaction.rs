//! Which setting matters most, alone (main effect) and together with another (interaction).

use indexmap::IndexMap;

use super::super::chart::{Bar, Bars, Body, Chart, Entry, Panel, Sampled};
use super::super::data::{Data, mean_of, metric, setting};
use super::super::kind::Plot;
use super::super::look::Look;
use super::super::scale::short;
use super::super::words::in_sentence;
use crate::record::layout;
use crate::report::Refusal;
use crate::stats;

/// Pairs on the sheet.
const PAIRS: usize = 12;

/// A configuration: its levels, and its metric relative to the mean of its model and load.
struct Cell {
    levels: Vec<Option<String>>,
    value: f64,
}

/// Draws it.
///
/// # Errors
/// When no setting of the server has several values, or no result has the metric.
pub fn draw(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let shown =
        metric("--metric", data.query.metric.as_deref().or(data.query.y.as_deref()).unwrap_or("output_throughput"))?;
    let (load, axes): (Vec<String>, Vec<String>) = data.rest(&[]).into_iter().partition(|key| data.is_load(key));
    if axes.is_empty() {
        return Err(Refusal::missing(
            "the measurements do not differ in any setting of the server".into(),
            "sweep one: `max-num-seqs: [64, 256]` below `serve` in a sweep file".into(),
        ));
    }
    let (cells, noise) = cells(data, &load, &axes, &shown.key);
    if cells.len() < 2 {
        return Err(Refusal::missing(
            format!("fewer than two configurations have `{}`", shown.key),
            "choose another metric with `--metric KEY`".into(),
        ));
    }
    let mut main: Vec<(String, f64)> =
        axes.iter().enumerate().map(|(i, key)| (key.clone(), spread(&means(&cells, &[i])))).collect();
    main.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let (mut pairs, unbalanced) = pairs(&cells, &axes);
    pairs.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let total = pairs.len();
    pairs.truncate(PAIRS);
    let bar = |n: usize| {
        move |(label, part): (String, f64)| Bar {
            label,
            value: format!("{} %", short(part * 100.0)),
            parts: vec![(part * 100.0, Look::of(n))],
            range: None,
            within: Vec::new(),
        }
    };
    let mut panels = vec![Panel {
        title: "Main effects: how much the mean differs between the values of a setting".into(),
        facts: String::new(),
        body: Body::Bars(Bars {
            label: "Spread of the mean (% of the mean)".into(),
            rows: main.into_iter().map(bar(0)).collect(),
        }),
    }];
    if !pairs.is_empty() {
        panels.push(Panel {
            title: "Interactions: what two settings do together beyond what each does alone".into(),
            facts: String::new(),
            body: Body::Bars(Bars {
                label: "Spread of the interaction (% of the mean)".into(),
                rows: pairs.into_iter().map(bar(1)).collect(),
            }),
        });
    }
    let mut caption = data.caption();
    caption.push(format!("{} configurations, each once (mean over its repeats).", cells.len()));
    caption.push(
        "Values are relative to the mean of their model and load. Main effect of a setting: largest less smallest of its means. \
         Interaction of a pair: largest less smallest of m(a,b) − m(a) − m(b) + m over its cells."
            .into(),
    );
    caption.extend(noise.map(|noise| match noise < 1e-9 {
        true => "Repeats of one configuration do not differ at all.".into(),
        false => format!(
            "Repeats of one configuration differ by {} % (standard deviation): smaller effects may be noise.",
            short(noise * 100.0)
        ),
    }));
    if total > PAIRS {
        caption.push(format!("The {PAIRS} largest of {total} pairs."));
    }
    if unbalanced > 0 {
        caption.push(format!(
            "{unbalanced} pairs are left out: not all of their combinations were measured. Main effects rest on what was measured."
        ));
    }
    let chart = Chart {
        title: format!("Which setting matters most for {}", in_sentence(&shown.label)),
        subtitle: data.common(&[]),
        panels,
        columns: 1,
        legend: vec![
            Entry { label: "a setting alone".into(), look: Look::of(0), sample: Sampled::Field },
            Entry { label: "two settings together".into(), look: Look::of(1), sample: Sampled::Field },
        ],
        caption,
        simulated: data.simulated(),
    };
    Ok(vec![Plot { stem: layout::plot::INTERACTION.into(), chart }])
}

/// The configurations, and the relative standard deviation between repeats (root of the mean variance).
fn cells(data: &Data<'_>, load: &[String], axes: &[String], key: &str) -> (Vec<Cell>, Option<f64>) {
    let mut cells = Vec::new();
    let mut variances = Vec::new();
    for block in data.groups(load) {
        let configurations = data.groups_of(block.shots.clone(), axes);
        let known: Vec<_> = configurations
            .iter()
            .filter_map(|one| Some((one, mean_of(&one.shots, &|shot| shot.row.metric(key))?)))
            .collect();
        let mean = stats::mean(known.iter().map(|(_, e)| e.mean)).unwrap_or_default();
        if mean.abs() < f64::MIN_POSITIVE || !mean.is_finite() {
            continue;
        }
        for (one, estimate) in known {
            let Some(first) = one.shots.first() else { continue };
            let level = |axis: &String| setting(first.row, axis).map(std::borrow::Cow::into_owned);
            cells.push(Cell { levels: axes.iter().map(level).collect(), value: estimate.mean / mean });
            variances.extend(estimate.sd.map(|sd| (sd / estimate.mean).powi(2)).filter(|v| v.is_finite()));
        }
    }
    let noise = stats::mean(variances).map(f64::sqrt);
    (cells, noise)
}

type Means = IndexMap<Vec<Option<String>>, f64>;

/// Means over all configurations with the same levels of some axes.
fn means(cells: &[Cell], axes: &[usize]) -> Means {
    let mut groups: IndexMap<Vec<Option<String>>, Vec<f64>> = IndexMap::new();
    for cell in cells {
        let levels = axes.iter().map(|axis| cell.levels[*axis].clone()).collect();
        groups.entry(levels).or_default().push(cell.value);
    }
    groups.into_iter().filter_map(|(levels, values)| Some((levels, stats::mean(values)?))).collect()
}

fn spread(means: &Means) -> f64 {
    let (low, high) = means.values().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    (high - low).max(0.0)
}

/// The interaction of every pair whose combinations were all measured, and how many were not.
fn pairs(cells: &[Cell], axes: &[String]) -> (Vec<(String, f64)>, usize) {
    let mean = stats::mean(cells.iter().map(|cell| cell.value)).unwrap_or_default();
    let (mut found, mut unbalanced) = (Vec::new(), 0);
    for b in 0..axes.len() {
        for a in 0..b {
            let (of_a, of_b, both) = (means(cells, &[a]), means(cells, &[b]), means(cells, &[a, b]));
            if both.len() < of_a.len() * of_b.len() {
                unbalanced += 1;
                continue;
            }
            let beyond = both.into_iter().filter_map(|(levels, value)| {
                let [la, lb] = levels.as_slice() else { return None };
                let alone = of_a.get(std::slice::from_ref(la))? + of_b.get(std::slice::from_ref(lb))?;
                Some((levels, value - alone + mean))
            });
            found.push((format!("{} × {}", axes[a], axes[b]), spread(&beyond.collect())));
        }
    }
    (found, unbalanced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(a: &str, b: &str, value: f64) -> Cell {
        Cell { levels: vec![Some(a.into()), Some(b.into())], value }
    }

    #[test]
    fn what_only_adds_up_does_not_interact() {
        let axes = ["a".to_owned(), "b".to_owned()];
        let added = [cell("1", "1", 1.0), cell("1", "2", 1.5), cell("2", "1", 1.2), cell("2", "2", 1.7)];
        assert!((spread(&means(&added, &[0])) - 0.2).abs() < 1e-12);
        assert!((spread(&means(&added, &[1])) - 0.5).abs() < 1e-12);
        let (found, unbalanced) = pairs(&added, &axes);
        assert!(found[0].1.abs() < 1e-12 && unbalanced == 0, "{found:?}");
        // Each alone does nothing; together they decide: +-0.5 around 1 in every cell.
        let crossed = [cell("1", "1", 1.5), cell("1", "2", 0.5), cell("2", "1", 0.5), cell("2", "2", 1.5)];
        assert_eq!(spread(&means(&crossed, &[0])), 0.0);
        assert!((pairs(&crossed, &axes).0[0].1 - 1.0).abs() < 1e-12);
        assert_eq!(pairs(&crossed[..3], &axes), (Vec::new(), 1));
    }
}
