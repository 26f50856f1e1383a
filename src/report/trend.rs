//! What is said of runs over time and of a trend, in words: the same on the screen, on the page and beside a plot.

use chrono::{DateTime, NaiveDateTime};

use super::display::{clean, counted, cut, in_unit, label};
use super::plot::in_sentence;
use crate::analyse::{
    ALPHA, Best, Changed, Counts, FEWEST_RUNS, Fixed, LevelStep, LoadValue, Outcome, Past, Point, STARTS, ShownAxes,
    Trend,
};

/// Keys of a workload that say most of it.
const OF_WORKLOAD: [&str; 8] = [
    "dataset-name",
    "num-prompts",
    "random-input-len",
    "random-output-len",
    "sharegpt-output-len",
    "max-concurrency",
    "request-rate",
    "burstiness",
];

/// What a run is called: its name, else that of its directory or file.
pub(super) fn called(run: &Past) -> &str {
    run.facts.name.as_deref().unwrap_or(&run.facts.run)
}

/// When a run began, in its own zone: with the zone, or to the minute alone.
pub(super) fn when(run: &Past, zone: bool) -> String {
    let Some(created) = run.facts.created.as_deref() else { return "date not known".to_owned() };
    if let Ok(at) = DateTime::parse_from_rfc3339(created) {
        let shown = at.format("%Y-%m-%d %H:%M").to_string();
        return match (zone, run.facts.timezone.as_deref()) {
            (false, _) => shown,
            (true, Some(name)) => format!("{shown} {} ({})", at.format("%:z"), clean(name)),
            (true, None) => format!("{shown} {}", at.format("%:z")),
        };
    }
    // What other programs write has no zone.
    let of =
        ["%Y%m%d-%H%M%S", "%Y%m%d_%H%M"].into_iter().find_map(|form| NaiveDateTime::parse_from_str(created, form).ok());
    match of {
        Some(at) => at.format("%Y-%m-%d %H:%M").to_string() + if zone { " (zone not known)" } else { "" },
        None => cut(created, 32),
    }
}

/// What yielded its results.
pub(super) fn version(run: &Past) -> String {
    match run.facts.vllm_versions.as_slice() {
        [] => "vLLM not known".to_owned(),
        versions => format!("vLLM {}", clean(&versions.join(", "))),
    }
}

/// What a run asked for, in a line.
pub(super) fn plan(run: &Past) -> String {
    const SHOWN: usize = 8;
    let part = |(key, values): &(String, Vec<String>)| {
        if key == STARTS {
            return counted(values.len(), "start") + " of each";
        }
        let mut shown: Vec<String> = values.iter().take(SHOWN).map(|value| cut(value, 48)).collect();
        if values.len() > SHOWN {
            shown.push(format!("and {} more", values.len() - SHOWN));
        }
        let key = match key.as_str() {
            "model" => return shown.join(", "),
            "tensor-parallel-size" => "tp",
            key => key,
        };
        format!("{} {}", clean(key), shown.join(", "))
    };
    let parts: Vec<String> = run.plan.iter().map(part).collect();
    format!(
        "{}: {}",
        counted(run.counts.planned, "experiment"),
        if parts.is_empty() { "-".into() } else { parts.join("; ") }
    )
}

/// What came of a run.
pub(super) fn outcome(counts: &Counts) -> String {
    let all = [
        (counts.passed, "passed", true),
        (counts.failed, "failed", true),
        (counts.skipped, "skipped", true),
        (counts.interrupted, "interrupted", false),
        (counts.running, "running", false),
        (counts.not_run, "not run", false),
    ];
    let words = all.into_iter().filter(|(count, _, always)| *count > 0 || *always);
    words.map(|(count, word, _)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

/// A configuration to use, with its metric.
pub(super) fn best(best: &Best) -> String {
    let interval =
        best.interval.map(|of| format!(" ({} to {})", in_unit(of.low, best.unit), in_unit(of.high, best.unit)));
    format!(
        "{}{} {}{}, {}",
        settings(&best.axes, ": "),
        in_unit(best.value, best.unit),
        best.unit.symbol(),
        interval.unwrap_or_default(),
        in_sentence(&best.objective)
    )
}

/// A configuration, and what stands behind it; nothing where its settings are not known.
fn settings(axes: &ShownAxes, behind: &str) -> String {
    let is_known = axes.tensor_parallel_size.is_some()
        || axes.quantization.is_some()
        || axes.enforce_eager.is_some()
        || !axes.server.is_empty();
    if is_known { format!("{}{behind}", label(axes, &Fixed::default())) } else { String::new() }
}

/// What a trend is of: the configuration.
pub(super) fn of(trend: &Trend<'_>) -> String {
    let Some(row) = trend.row() else { return String::new() };
    let workload = row.axes.workload_label();
    let at = if workload.is_empty() { String::new() } else { format!(", at {}", clean(&workload)) };
    let settings = settings(&row.axes, "");
    let between = if settings.is_empty() { "" } else { ": " };
    const TOLD: usize = 4;
    let told = trend.told_by.iter().take(TOLD).map(|(key, value)| format!(", {} {}", clean(key), cut(value, 40)));
    format!("{}{between}{settings}{at}{}", cut(&row.axes.model, 64), told.collect::<String>())
}

/// Its workload, as far as it is recorded.
pub(super) fn workload(trend: &Trend<'_>) -> String {
    let Some(row) = trend.row() else { return String::new() };
    let one = |key: &&str| {
        let value = row.load.0.get(*key)?;
        let text = match value {
            LoadValue::Exact(text) => text.clone(),
            LoadValue::About(_) => value.to_string(),
        };
        Some(format!("{key} {}", cut(&text, 32)))
    };
    OF_WORKLOAD.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

/// `-6.1 %`.
pub(super) fn percent(part: f64) -> String {
    format!("{:+.1} %", part * 100.0)
}

/// A value of the metric of a trend.
pub(super) fn value(trend: &Trend<'_>, value: f64) -> String {
    in_unit(value, trend.metric.unit)
}

/// `-6.1 % (-6.8 % to -5.4 %)`; of values that are not all positive a difference has another meaning.
pub(super) fn size(trend: &Trend<'_>, step: &LevelStep) -> String {
    let interval =
        step.interval.map(|(low, high)| format!(" ({} to {})", percent(trend.part(low)), percent(trend.part(high))));
    let of = if trend.is_relative() { "" } else { " of the largest value" };
    format!("{}{}{of}", percent(trend.part(step.change)), interval.unwrap_or_default())
}

/// Better or worse.
pub(super) fn verdict(trend: &Trend<'_>, step: &LevelStep) -> &'static str {
    match trend.outcome(step.change) {
        Outcome::Better => "better",
        Outcome::Worse | Outcome::Same | Outcome::NotDecided => "worse",
    }
}

/// What changed between two runs.
pub(super) fn changed(all: &[Changed]) -> String {
    const SHOWN: usize = 6;
    let one = |of: &Changed| format!("{} `{}` -> `{}`", clean(&of.what), cut(&of.before, 60), cut(&of.after, 60));
    let mut words: Vec<String> = all.iter().take(SHOWN).map(one).collect();
    if all.len() > SHOWN {
        words.push(format!("and {} more", all.len() - SHOWN));
    }
    words.join(", ")
}

/// A change in a sentence.
pub(super) fn step(trend: &Trend<'_>, index: usize, step: &LevelStep) -> String {
    let steps = &trend.levels.steps;
    let from = index.checked_sub(1).and_then(|before| steps.get(before)).map_or(0, |before| before.at);
    let to = steps.get(index + 1).map_or(trend.points.len(), |next| next.at);
    let first =
        trend.points.get(step.at).map(|point| format!("{} ({})", cut(called(point.run), 60), when(point.run, false)));
    let there = match trend.changed_at(index) {
        [] => "Nothing that is recorded changed there.".to_owned(),
        all => format!("There changed: {}.", changed(all)),
    };
    format!(
        "{} from {} on: {} {} over {} before, {} over {} since; p = {:.4}. {there}",
        size(trend, step),
        first.unwrap_or_default(),
        value(trend, trend.level(index)),
        trend.metric.unit.symbol(),
        counted(step.at - from, "run"),
        value(trend, trend.level(index + 1)),
        counted(to - step.at, "run"),
        step.p,
    )
}

/// What is said where there is no change.
pub(super) fn no_change(trend: &Trend<'_>) -> String {
    let runs = trend.points.len();
    if runs < FEWEST_RUNS {
        return format!(
            "{}: that a level changed is shown by {FEWEST_RUNS} runs or more; `vllm-bench compare` compares two runs start by start.",
            counted(runs, "run")
        );
    }
    format!("No change of the level is shown in {} (false alarm rate {:.0} %).", counted(runs, "run"), ALPHA * 100.0)
}

/// The newest run against those before it: the sentence, and whether it stands apart.
pub(super) fn newest(trend: &Trend<'_>) -> Option<(bool, String)> {
    let newest = trend.levels.newest?;
    let (low, high) = (percent(trend.part(-newest.half)), percent(trend.part(newest.half)));
    let last = cut(called(trend.points.last()?.run), 60);
    let lies = percent(trend.part(newest.change));
    // A level of its own is told as a change.
    if trend.levels.steps.last().is_some_and(|step| step.at + 1 >= trend.points.len()) {
        return None;
    }
    let text = match newest.is_outside() {
        true => format!(
            "The newest run, {last}, lies {lies} from its level, and {low} to {high} was expected: one odd run, or the first of another level. \
             Measure it again; of runs without a change one in twenty lies outside."
        ),
        false => format!("The newest run, {last}, is as expected: {lies} from its level, within {low} to {high}."),
    };
    Some((newest.is_outside(), text))
}

/// How much runs scatter.
pub(super) fn noise(trend: &Trend<'_>) -> Option<String> {
    let sd = trend.levels.sd?;
    Some(format!("Runs scatter by {:.2} % around their level (standard deviation).", trend.part(sd) * 100.0))
}

/// Runs at which something changed, and the level did not.
pub(super) fn other_changes<'t, 'a>(trend: &'t Trend<'a>) -> impl Iterator<Item = &'t Point<'a>> {
    let is_step = |at: usize| trend.levels.steps.iter().any(|step| step.at == at);
    trend
        .points
        .iter()
        .enumerate()
        .filter(move |(at, point)| !point.changed.is_empty() && !is_step(*at))
        .map(|(_, point)| point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::{Facts, Origin};

    #[test]
    fn a_date_has_the_zone_of_its_run() {
        let of = |created: Option<&str>, zone: Option<&str>| {
            let mut facts = Facts::bare("x".into(), "r".into(), Origin::Predecessor);
            (facts.created, facts.timezone) = (created.map(str::to_owned), zone.map(str::to_owned));
            Past::unreadable(facts, String::new())
        };
        let dated = of(Some("2026-02-25T14:30:12+02:00"), Some("Asia/Jerusalem"));
        assert_eq!(when(&dated, true), "2026-02-25 14:30 +02:00 (Asia/Jerusalem)");
        assert_eq!(when(&dated, false), "2026-02-25 14:30");
        assert_eq!(when(&of(Some("20260225-143012"), None), true), "2026-02-25 14:30 (zone not known)");
        assert_eq!(when(&of(Some("20260225_1430"), None), false), "2026-02-25 14:30");
        assert_eq!(when(&of(Some("soon"), None), true), "soon");
        assert_eq!(when(&of(None, None), true), "date not known");
    }
}
