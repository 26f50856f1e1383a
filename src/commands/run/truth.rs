//! What keeps lanes true: what neighbours cost is measured before they are used, and the best are measured again alone.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::analyse::{
    BY_MODEL, Cost, FEWEST_PAIRS, Limit, MOST_PAIRS, Objective, RankingSpec, RunTable, Verdict, answers, cost,
};
use crate::config::Settings;
use crate::error::Error;
use crate::execute::{Emitter, LocalExecutor, Measured, NeighbourCheck};
use crate::model::{Better, Event, Experiment, Identity, Plan, ServerConfig};
use crate::plan::again_alone;
use crate::record::RunState;
use crate::results;

use super::lanes::Lanes;

/// So many configurations are tried for the check, where one does not start.
const CANDIDATES: usize = 3;

/// Whether lanes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// They are.
    Lanes,
    /// One block at a time: they cost too much, or that they do not is not shown.
    OneAtATime,
    /// The user wants the run to end.
    Interrupted,
}

/// What an earlier session of the run found, for as many lanes and the same threshold.
pub fn known(state: &RunState, lanes: &Lanes, settings: &Settings, emit: &Emitter) -> Option<Use> {
    let same = |a: f64, b: f64| a.total_cmp(&b).is_eq();
    let known = state.neighbours.as_ref().filter(|known| lanes.checked && known.lanes == lanes.count)?;
    if !same(known.threshold, settings.parallel_threshold) {
        return None;
    }
    emit.say(format!("an earlier session measured what neighbours cost: {}", known.why));
    Some(if known.within { Use::Lanes } else { Use::OneAtATime })
}

/// Measures what neighbours cost.
///
/// # Errors
/// When the tool itself cannot go on.
pub async fn check(
    executor: &LocalExecutor,
    lanes: &Lanes,
    pending: &[Arc<Experiment>],
    settings: &Settings,
    emit: &Emitter,
) -> Result<Use, Error> {
    let threshold = settings.parallel_threshold;
    let objective = metric(settings);
    let limits = limits(settings, &objective.0);
    let judge = |pairs: &[(Measured, Measured)]| Judged::of(pairs, &objective, &limits, threshold);
    let mut why = "there is nothing to measure".to_owned();
    for experiment in candidates(pending) {
        emit.event(Event::NeighboursBeingChecked { name: experiment.name.clone(), lanes: lanes.count });
        let enough = |pairs: &[(Measured, Measured)]| {
            let decided = || judge(pairs).is_none_or(|judged| judged.verdict != Verdict::Open);
            pairs.len() >= MOST_PAIRS || pairs.len() >= FEWEST_PAIRS && decided()
        };
        let pairs = match executor.check_neighbours(experiment, enough).await? {
            NeighbourCheck::Pairs(pairs) => pairs,
            NeighbourCheck::Interrupted => return Ok(Use::Interrupted),
            NeighbourCheck::Failed(failure) => {
                emit.say(format!("what neighbours cost could not be measured on `{}`: {failure}", experiment.name));
                why = failure;
                continue;
            }
        };
        let judged = judge(&pairs);
        let found = judged.as_ref().map(|judged| judged.cost);
        let within = judged.as_ref().is_some_and(|judged| judged.verdict == Verdict::Within);
        let key = judged.as_ref().map_or(&objective.0, |judged| &judged.key);
        emit.event(Event::NeighboursChecked {
            name: experiment.name.clone(),
            lanes: lanes.count,
            metric: key.clone(),
            pairs: values(&pairs, key).into_iter().filter(|(a, b)| a.is_finite() && b.is_finite()).collect(),
            cost: found.map(|cost| cost.mean),
            interval: found.map(|cost| (cost.low, cost.high)),
            threshold,
            within,
            why: told(found, pairs.len(), key, threshold),
            metrics: judged.map(|judged| judged.within).unwrap_or_default(),
        });
        return Ok(if within { Use::Lanes } else { Use::OneAtATime });
    }
    emit.event(Event::NeighboursChecked {
        name: String::new(),
        lanes: lanes.count,
        metric: objective.0,
        pairs: Vec::new(),
        cost: None,
        interval: None,
        threshold,
        within: false,
        metrics: Vec::new(),
        why: format!("what neighbours cost could not be measured ({why}): one at a time"),
    });
    Ok(Use::OneAtATime)
}

/// What pairs say of neighbours.
struct Judged {
    /// The metric that decides: the objective, or that of a limit which neighbours are shown to make worse by more than the threshold.
    key: String,
    cost: Cost,
    verdict: Verdict,
    /// Those of which the cost is shown to be within the threshold.
    within: Vec<String>,
}

impl Judged {
    /// The objective decides whether lanes are used. A metric of a limit may be too noisy for a few pairs: only where it is shown to be
    /// worse are they given up for it, and where it is not shown to be within the threshold nothing is taken for granted of it.
    fn of(
        pairs: &[(Measured, Measured)],
        objective: &(String, Better),
        limits: &[(String, Better)],
        threshold: f64,
    ) -> Option<Self> {
        let of = |(key, better): &(String, Better)| cost(&values(pairs, key), *better);
        let found = of(objective)?;
        let limits: Vec<(&String, Cost)> = limits.iter().filter_map(|limit| Some((&limit.0, of(limit)?))).collect();
        let all = || std::iter::once((&objective.0, found)).chain(limits.iter().copied());
        let within = all().filter(|(_, cost)| cost.verdict(threshold) == Verdict::Within);
        let within = within.map(|(key, _)| key.clone()).collect();
        let above = all().filter(|(_, cost)| cost.verdict(threshold) == Verdict::Above);
        let (key, cost) = above.max_by(|a, b| a.1.mean.total_cmp(&b.1.mean)).unwrap_or((&objective.0, found));
        Some(Self { key: key.clone(), cost, verdict: cost.verdict(threshold), within })
    }
}

/// The metrics of the limits, but this one, each with what is better.
fn limits(settings: &Settings, but: &str) -> Vec<(String, Better)> {
    let mut found: Vec<(String, Better)> = Vec::new();
    for limit in settings.slo.iter().filter_map(|stated| Limit::stated(&stated.name, &stated.value)) {
        if limit.key != but && !found.iter().any(|(key, _)| *key == limit.key) {
            found.push((limit.key, if limit.above { Better::Higher } else { Better::Lower }));
        }
    }
    found
}

/// The metric by which lanes are judged: the objective.
pub(super) fn metric(settings: &Settings) -> (String, Better) {
    let named = settings.objective.as_ref().and_then(|raw| raw.node.scalar()).and_then(|text| Objective::parse(&text));
    named.map_or_else(
        || {
            let usual = RankingSpec::default();
            (usual.rank_by, usual.better)
        },
        |objective| (objective.key, objective.better),
    )
}

/// The metric of each pair; not a number where a result has none.
fn values(pairs: &[(Measured, Measured)], key: &str) -> Vec<(f64, f64)> {
    let value = |result: &Measured| result.get(key).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
    pairs.iter().map(|(alone, beside)| (value(alone), value(beside))).collect()
}

/// Experiments that may stand for all: those that leave room for most neighbours come first, of each server configuration one.
fn candidates(pending: &[Arc<Experiment>]) -> Vec<&Arc<Experiment>> {
    let mut servers: Vec<&ServerConfig> = Vec::new();
    let mut all: Vec<&Arc<Experiment>> = pending.iter().collect();
    all.sort_by_key(|experiment| experiment.server.devices().unwrap_or(u32::MAX));
    all.retain(|experiment| {
        let new = !servers.contains(&&experiment.server) && servers.len() < CANDIDATES;
        if new {
            servers.push(&experiment.server);
        }
        new
    });
    all
}

/// What was found, in a sentence.
fn told(found: Option<Cost>, pairs: usize, key: &str, threshold: f64) -> String {
    let percent = |part: f64| format!("{:.1}", part * 100.0 + 0.0);
    let limit = percent(threshold);
    let Some(found) = found else {
        return format!("the results of the check have no `{key}`: one at a time");
    };
    let what = format!(
        "neighbours cost {} % of {key} ({} to {} %, {pairs} pairs)",
        percent(found.mean),
        percent(found.low),
        percent(found.high)
    );
    match found.verdict(threshold) {
        Verdict::Within => format!("{what}: within {limit} %, so several run at once"),
        Verdict::Above => format!("{what}: more than {limit} %, so one runs at a time"),
        Verdict::Open => format!("{what}: not shown to be within {limit} %, so one runs at a time"),
    }
}

/// The plan with the best of what was measured beside others once more, to be measured alone, and the names of what is new in it. `None`
/// where nothing is.
pub fn with_finalists(run: &Path, plan: &Plan) -> Option<(Plan, Vec<String>)> {
    let table = results::read_run(run).ok()?;
    let chosen = finalists(&table);
    // What is not measured yet, or failed, is measured once.
    let measured: HashSet<&str> = table.rows.iter().filter(|row| row.is_valid()).map(|row| row.name.as_str()).collect();
    let again = |e: &Experiment| chosen.contains(&e.identity) && measured.contains(e.name.as_str());
    let grown = again_alone(plan, again);
    let new: Vec<String> = grown.experiments.iter().skip(plan.experiments.len()).map(|e| e.name.clone()).collect();
    (!new.is_empty()).then_some((grown, new))
}

/// The settings of all that may be the best of their model and workload when they are measured alone.
fn finalists(table: &RunTable) -> HashSet<Identity> {
    let answers = answers(table, &[BY_MODEL.to_owned()], &RankingSpec::of(table));
    answers.into_iter().filter_map(|answer| answer.beside).flat_map(|beside| beside.open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_neighbours_break_gives_lanes_up_and_one_that_is_noisy_is_not_taken_for_granted() {
        let result = |throughput: f64, tpot: f64, ttft: f64| -> Measured {
            let values = [("output_throughput", throughput), ("mean_tpot_ms", tpot), ("p99_ttft_ms", ttft)];
            values.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
        };
        let objective = ("output_throughput".to_owned(), Better::Higher);
        let tpot = ("mean_tpot_ms".to_owned(), Better::Lower);
        let ttft = ("p99_ttft_ms".to_owned(), Better::Lower);
        let judged = |pairs: &[(Measured, Measured)], limits: &[(String, Better)]| {
            Judged::of(pairs, &objective, limits, 0.02).unwrap()
        };
        let noise = [30.0, 55.0, 20.0, 44.0];
        let even: Vec<_> = noise.map(|ttft| (result(100.0, 50.0, 37.0), result(99.9, 50.1, ttft))).into();
        let found = judged(&even, &[tpot.clone(), ttft.clone()]);
        assert_eq!((found.verdict, found.key.as_str()), (Verdict::Within, "output_throughput"));
        assert_eq!(found.within, ["output_throughput", "mean_tpot_ms"]);
        // A load of a fixed rate: throughput hardly moves, and each token takes a fifth longer.
        let slower: Vec<_> =
            noise.map(|ttft| (result(100.0, 50.0, 37.0), result(99.0, 60.0 + ttft / 100.0, ttft))).into();
        let found = judged(&slower, &[tpot, ttft]);
        assert_eq!((found.verdict, found.key.as_str()), (Verdict::Above, "mean_tpot_ms"));
    }

    #[test]
    fn what_was_found_is_a_sentence_with_its_interval_and_what_follows() {
        let cost = |mean, low, high| Some(Cost { mean, low, high });
        assert_eq!(
            told(cost(0.001, -0.002, 0.004), 3, "output_throughput", 0.02),
            "neighbours cost 0.1 % of output_throughput (-0.2 to 0.4 %, 3 pairs): within 2.0 %, so several run at once"
        );
        assert!(told(cost(0.05, 0.04, 0.06), 3, "k", 0.02).ends_with("more than 2.0 %, so one runs at a time"));
        assert!(told(cost(0.01, -0.04, 0.06), 8, "k", 0.02).contains("not shown to be within"));
        assert!(told(None, 3, "k", 0.02).contains("no `k`"));
    }
}
