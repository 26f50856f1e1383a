//! What the results so far decide, for `repeats: {starts: auto}`: the very answer that `analyze` gives of them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::analyse::{Answer, BY_MODEL, Basis, RankingSpec, Recommendation, Standing, answers};
use crate::execute::Emitter;
use crate::model::{Event, Experiment, Identity};
use crate::results;
use crate::search::{Judge, Verdict};

/// Reads the run directory, and tells the run's events.
#[derive(Debug)]
pub struct RunJudge {
    run: PathBuf,
    emit: Emitter,
}

impl RunJudge {
    /// For the run in this directory.
    pub fn new(run: PathBuf, emit: Emitter) -> Self {
        Self { run, emit }
    }
}

impl Judge for RunJudge {
    fn judge(&mut self, starts: u32) -> Verdict {
        let table = match results::read_run(&self.run) {
            Ok(table) => table,
            Err(error) => {
                return Verdict { undecided: Vec::new(), why: format!("what was measured cannot be judged: {error}") };
            }
        };
        let spec = RankingSpec::of(&table);
        let answers = answers(&table, &[BY_MODEL.to_owned()], &spec);
        let undecided: Vec<Identity> = answers.iter().flat_map(undecided).collect();
        let of: usize =
            answers.iter().filter_map(|answer| answer.choice.as_ref().ok()).map(|of| of.options.len()).sum();
        let margin = spec.margin * 100.0;
        let why = match undecided.len() {
            _ if of == 0 => "no configuration can be recommended".to_owned(),
            0 => format!("decided after {starts} starts: the best mean is at most {margin} % worse than any other"),
            open => format!("after {starts} starts {open} of {of} configurations may be the best"),
        };
        Verdict { undecided, why }
    }

    fn planned(&mut self, experiments: &[Arc<Experiment>], why: &str) {
        let names = experiments.iter().map(|experiment| experiment.name.clone()).collect();
        self.emit.event(Event::ExperimentsPlanned { names, why: why.to_owned() });
    }

    fn ended(&mut self, why: &str) {
        self.emit.say(format!("no further starts: {why}"));
    }
}

/// The settings of a group that another start may decide.
fn undecided(answer: &Answer<'_>) -> Vec<Identity> {
    let Ok(choice) = &answer.choice else { return Vec::new() };
    let Recommendation { options, within_margin, basis, .. } = choice;
    let is_open = |standing: Standing| match basis {
        Basis::Starts | Basis::BesideOthers => !within_margin && standing != Standing::NotBest,
        Basis::OneStart | Basis::TooFewStarts => true,
        // No number of starts decides these.
        Basis::GroupedOrder | Basis::NoVariance => false,
    };
    let open = options.iter().filter(|option| options.len() > 1 && is_open(option.standing));
    open.filter_map(|option| option.row.identity.clone()).collect()
}
