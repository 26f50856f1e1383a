//! Two plans as one: what was measured before and what is measured now, started in turn.

use std::sync::Arc;

use super::{Block, blocks};
use crate::model::{Before, Experiment, Identity, Plan, Side};

/// What the names of those before begin with.
const PREFIX: &str = "before_";

/// Puts two plans together, each with several starts in turn: of every pair of servers the one before is first at odd starts, the one after
/// at even ones (ABBA), so that a drift of the machine hits both alike. `reuse`: experiments share server starts. `None` where the plans do
/// not have the same number of server starts.
pub fn alternate(before: Plan, after: Plan, what: Before, reuse: bool) -> Option<Plan> {
    let split = |plan: &Plan| blocks(plan.experiments.iter().cloned().map(Arc::new), reuse);
    let (old, new) = (split(&before), split(&after));
    if old.len() != new.len() {
        return None;
    }
    let mut experiments: Vec<Experiment> = Vec::new();
    for (old, new) in old.into_iter().zip(new) {
        let odd = new.experiments.first().is_none_or(|experiment| experiment.repeat.start % 2 == 1);
        let (old, new) = (of_side(old, Side::Before), of_side(new, Side::After));
        let [first, second] = if odd { [old, new] } else { [new, old] };
        experiments.extend(first.into_iter().chain(second));
    }
    for (place, experiment) in experiments.iter_mut().enumerate() {
        experiment.index = place + 1;
    }
    Some(Plan { identity: Identity::of_plan(&experiments, None), experiments, before: Some(what), ..after })
}

fn of_side(block: Block, side: Side) -> Vec<Experiment> {
    let one = |experiment: Arc<Experiment>| {
        let mut experiment = Arc::unwrap_or_clone(experiment);
        if side == Side::Before {
            let server = experiment.server_name().to_owned();
            experiment.server_name = format!("{PREFIX}{server}");
            experiment.name.insert_str(0, PREFIX);
        }
        Experiment { side: Some(side), ..experiment }
    };
    block.experiments.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::grid;
    use super::super::{Order, Repeats, Sweep, expand};
    use super::*;
    use crate::model::{Context, Engine};

    fn plan(tps: &str, version: &str, starts: u32) -> Plan {
        let sweep = Sweep {
            repeats: Repeats { runs: 1, starts, auto: false },
            order: Order::Interleaved,
            context: Context { vllm_version: Some(version.into()), ..Context::default() },
            ..grid(&["m"], tps, Engine::Vllm)
        };
        let mut plan = expand(&sweep);
        plan.experiments.retain(|e| e.axes.quantization.is_none() && e.axes.enforce_eager);
        plan
    }

    fn together(before: Plan, after: Plan) -> Option<Plan> {
        let what = Before { run: "20260101_0000".into(), vllm: None, context: before.context.clone() };
        alternate(before, after, what, true)
    }

    #[test]
    fn both_are_started_in_turn_and_each_is_first_as_often() {
        let plan = together(plan("1,2", "0.14.1", 4), plan("1,2", "0.32.0", 4)).unwrap();
        let word = |e: &Experiment| {
            let side = if e.side == Some(Side::Before) { 'A' } else { 'B' };
            format!("{side}{}", e.axes.tensor_parallel_size)
        };
        let order: Vec<String> = plan.experiments.iter().map(word).collect();
        let round = ["A1", "B1", "A2", "B2", "B1", "A1", "B2", "A2"];
        assert_eq!(order, [round, round].concat());
        assert_eq!(plan.problem(), None, "identities are those of each side");
        assert!(plan.experiments.iter().all(|e| e.name.starts_with(PREFIX) == (e.side == Some(Side::Before))));
        assert_eq!(plan.experiments.last().map(|e| e.index), Some(16));
    }

    #[test]
    fn plans_of_another_size_do_not_go_together() {
        assert_eq!(together(plan("1,2", "0.14.1", 4), plan("1", "0.14.1", 4)), None);
    }
}
