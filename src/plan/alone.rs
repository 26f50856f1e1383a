//! Experiments that are measured again, alone, after they were measured beside others.

use std::collections::HashSet;

use super::matrix::key;
use super::name::{experiment_name, make_unique};
use crate::model::{Experiment, Identity, Plan, Repeat};

/// Their starts are counted from a hundred on, so that no start that joins the sweep later has the same number.
const HUNDRED: u32 = 100;

/// A plan that has all of `plan`, and once more, to be measured alone, what `chosen` says of it. What it has of that already stays as it
/// is. The starts of what is measured again take turns.
pub fn again_alone(plan: &Plan, chosen: impl Fn(&Experiment) -> bool) -> Plan {
    let most = plan.experiments.iter().filter(|e| !e.alone).map(|e| e.repeat.start).max().unwrap_or(0);
    let from = (most / HUNDRED).saturating_add(1).saturating_mul(HUNDRED);
    let known: HashSet<_> = plan.experiments.iter().map(key).collect();
    let twin = |e: &Experiment| {
        let repeat = Repeat { start: e.repeat.start.saturating_add(from), run: e.repeat.run };
        Experiment { repeat, alone: true, ..e.clone() }
    };
    let mut twins: Vec<Experiment> = plan.experiments.iter().filter(|e| !e.alone && chosen(e)).map(twin).collect();
    twins.retain(|twin| !known.contains(&key(twin)));
    twins.sort_by_key(|twin| twin.repeat.start);
    let taken: HashSet<String> = plan.experiments.iter().map(|e| e.name.to_lowercase()).collect();
    let mut names: Vec<_> =
        twins.iter().map(|twin| (experiment_name(&twin.axes, twin.repeat, &twin.identity), key(twin))).collect();
    make_unique(&mut names, &taken);
    let mut experiments = plan.experiments.clone();
    experiments.extend(twins.into_iter().zip(names).map(|(twin, (name, _))| Experiment { name, ..twin }));
    for (i, experiment) in experiments.iter_mut().enumerate() {
        experiment.index = i + 1;
    }
    Plan { identity: Identity::of_plan(&experiments, plan.until_decided), experiments, ..plan.clone() }
}

impl Plan {
    /// The plan as it was before anything of it was to be measured again.
    #[must_use]
    pub fn without_alone(&self) -> Self {
        let experiments: Vec<Experiment> = self.experiments.iter().filter(|e| !e.alone).cloned().collect();
        Self { identity: Identity::of_plan(&experiments, self.until_decided), experiments, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Engine;
    use crate::plan::fixture::grid;
    use crate::plan::{Order, Repeats, Sweep, expand};

    #[test]
    fn what_is_measured_again_has_starts_and_names_of_its_own() {
        let sweep = Sweep {
            repeats: Repeats { runs: 1, starts: 2, auto: false },
            order: Order::Grouped,
            ..grid(&["m"], "1,2", Engine::Sim)
        };
        let plan = expand(&sweep);
        let chosen = |e: &Experiment| e.axes.tensor_parallel_size == 2 && e.axes.enforce_eager;
        let grown = again_alone(&plan, chosen);
        let count = plan.experiments.iter().filter(|e| chosen(e)).count();
        let twins: Vec<&Experiment> = grown.experiments.iter().filter(|e| e.alone).collect();
        assert_eq!((twins.len(), grown.experiments.len()), (count, plan.experiments.len() + count));
        assert!(twins.iter().all(|twin| twin.repeat.start > 100 && twin.name.contains("_start10")), "{twins:#?}");
        assert!(twins.is_sorted_by_key(|twin| twin.repeat.start), "they take turns");
        assert_eq!((grown.problem(), again_alone(&grown, chosen) == grown), (None, true), "and nothing twice");
        assert_eq!(grown.without_alone(), plan);
    }
}
