//! Whether a plan that was read from a file is one of ours.

use crate::model::{Experiment, Identity, Plan};

impl Plan {
    /// What contradicts itself in a plan that was read from a file: an identity that is not that of the settings beside it, or a
    /// name that is none of ours and could lead out of the run directory. `None` for every plan that [`super::expand`] made.
    pub fn problem(&self) -> Option<String> {
        let mut names = std::collections::HashSet::new();
        for experiment in &self.experiments {
            let Experiment { name, identity, engine, server, workload, .. } = experiment;
            if ![name.as_str(), experiment.server_name()].into_iter().all(super::name::is_safe) {
                return Some(format!("`{}` is no name of an experiment", name.escape_debug()));
            }
            if !names.insert(name.to_lowercase()) {
                return Some(format!("two experiments are called `{name}`"));
            }
            if *identity != Identity::of_experiment(*engine, server, workload, self.context_of(experiment)) {
                return Some(format!("the identity of `{name}` is not that of its settings"));
            }
        }
        let whole = Identity::of_plan(&self.experiments, self.until_decided);
        (self.identity != whole).then(|| "the identity of the plan is not that of its experiments".to_owned())
    }
}
