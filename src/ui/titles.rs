//! What experiments are called on a screen: what varies between them, and nothing else; what they share is said once.

use std::collections::{HashMap, HashSet};

use crate::analyse::{Fixed, ShownAxes};
use crate::model::{Experiment, FlagValue, Plan, Side};
use crate::report::label;

/// What is shown of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Title {
    /// Its place in the plan, from 1.
    pub index: usize,
    /// What tells it from the others.
    pub text: String,
    /// Its model and workload: what is best is best among those that share them.
    pub group: String,
}

/// The titles of a plan.
#[derive(Debug, Default)]
pub struct Titles {
    all: HashMap<String, Title>,
    fixed: Fixed,
    has_models: bool,
}

impl Titles {
    /// Of all its experiments.
    pub fn of(plan: &Plan) -> Self {
        let axes: Vec<ShownAxes> = plan.experiments.iter().map(|experiment| (&experiment.axes).into()).collect();
        let models: HashSet<&str> = axes.iter().map(|axes| axes.model.as_str()).collect();
        let has_models = models.len() > 1;
        let mut titles = Self { all: HashMap::new(), fixed: Fixed::of(&axes), has_models };
        plan.experiments.iter().for_each(|experiment| titles.add(experiment));
        titles
    }

    /// Of one that joins it.
    pub fn add(&mut self, experiment: &Experiment) {
        let axes = ShownAxes::from(&experiment.axes);
        let workload = axes.workload_label();
        let repeat = experiment.repeat;
        let which = match (experiment.side, experiment.alone) {
            (Some(Side::Before), _) => "before",
            (Some(Side::After), _) => "after",
            (None, true) => "again, alone",
            (None, false) => "",
        };
        let parts = [
            if self.has_models { axes.model.clone() } else { String::new() },
            label(&axes, &self.fixed),
            workload.clone(),
            if repeat.start > 1 { format!("start {}", repeat.start) } else { String::new() },
            if repeat.run > 1 { format!("run {}", repeat.run) } else { String::new() },
            which.to_owned(),
        ];
        let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        let group = if workload.is_empty() { axes.model.clone() } else { format!("{}, {workload}", axes.model) };
        self.all.insert(experiment.name.clone(), Title { index: experiment.index, text, group });
    }

    /// By the name of an experiment.
    pub fn get(&self, name: &str) -> Option<&Title> {
        self.all.get(name)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }
}

/// What all experiments of a plan share, in a line; empty where there is only one.
pub fn shared_by_all(plan: &Plan) -> String {
    let Some((first, others)) = plan.experiments.split_first().filter(|(_, others)| !others.is_empty()) else {
        return String::new();
    };
    let model = others.iter().all(|other| other.server.model == first.server.model);
    let shared = first.server.flags.iter().filter(|(name, value)| {
        *name != "host" && others.iter().all(|other| other.server.flags.get(name) == Some(value))
    });
    let written = |(name, value): (&str, &FlagValue)| match value {
        FlagValue::Switch(_) => name.to_owned(),
        FlagValue::Text(text) => format!("{name} {text}"),
        FlagValue::List(words) => format!("{name} {}", words.join(" ")),
    };
    let parts: Vec<String> = model.then(|| first.server.model.clone()).into_iter().chain(shared.map(written)).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Engine;
    use crate::plan::expand;
    use crate::plan::fixture::grid;

    #[test]
    fn titles_say_what_varies_and_what_is_shared_is_said_once() {
        let plan = expand(&grid(&["org/m"], "1,2", Engine::Sim));
        let titles = Titles::of(&plan);
        let texts: Vec<&str> = plan.experiments.iter().map(|e| titles.get(&e.name).unwrap().text.as_str()).collect();
        assert!(texts.iter().all(|text| text.starts_with("tp ") && !text.contains("org/m")), "{texts:?}");
        assert!(shared_by_all(&plan).starts_with("org/m"), "{}", shared_by_all(&plan));
        let two = expand(&grid(&["org/m", "org/n"], "1", Engine::Sim));
        assert!(Titles::of(&two).get(&two.experiments[0].name).unwrap().text.starts_with("org/m, "));
        assert!(!shared_by_all(&two).contains("org/"));
    }
}
