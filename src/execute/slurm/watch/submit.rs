//! Submits what no task holds and has no outcome.

use std::sync::Arc;
use std::time::Instant;

use super::{Cut, LATER, Watch, experiments};
use crate::execute::Error;
use crate::execute::slurm::plan::{Array, arrays};
use crate::execute::slurm::request::{ArrayJob, Shape};
use crate::execute::slurm::tools::Submitted;
use crate::model::{Cause, Event, Experiment, Outcome};
use crate::plan::Block;
use crate::record;
use crate::record::{SCHEMA, Submission, TaskPlan, layout};

/// MaxArraySize where the cluster does not tell it.
const MOST_IN_ARRAY: usize = 1001;

impl Watch {
    /// Submits what no task holds and has no outcome.
    pub(super) fn submit(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let mut blocks = Vec::new();
        for waiting in &self.waiting {
            let free = |experiment: &&Arc<Experiment>| {
                let tracked = &self.tracked[&experiment.name];
                tracked.outcome.is_none()
                    && tracked.cut.is_none()
                    && !self.holders.contains_key(&experiment.name)
                    && tracked.not_before.is_none_or(|at| at <= now)
            };
            let pending: Vec<Arc<Experiment>> = waiting.block.experiments.iter().filter(free).cloned().collect();
            if !pending.is_empty() {
                blocks.push(Block { experiments: pending, known_failure: None });
            }
        }
        if blocks.is_empty() {
            return Ok(());
        }
        if self.stopping {
            for experiment in blocks.iter().flat_map(|block| &block.experiments) {
                if let Some(tracked) = self.tracked.get_mut(&experiment.name) {
                    tracked.outcome = Some(Outcome::Interrupted);
                }
            }
            return Ok(());
        }
        let most = match self.most {
            Some(most) => most,
            None => *self.most.insert(self.plan.tools.most_in_array().unwrap_or(MOST_IN_ARRAY)),
        };
        let mut left: Vec<Array> = arrays(blocks, &self.plan.request, most);
        left.reverse();
        while let Some(array) = left.pop() {
            match self.submit_one(&array)? {
                Came::In | Came::Unclear => {}
                Came::TooMany(why) if array.tasks.len() > 1 => {
                    // Half as many at a time: what a limit leaves room for is found in a few steps.
                    let mut first = array;
                    let rest = first.tasks.split_off(first.tasks.len().div_ceil(2));
                    left.push(Array { shape: first.shape, tasks: rest });
                    left.push(first);
                    tracing::debug!(why, "fewer tasks in one array");
                }
                Came::TooMany(why) if !self.open.is_empty() => {
                    // There is room again when what is queued has gone.
                    left.push(array);
                    self.postpone(&left, &why);
                    return Ok(());
                }
                Came::TooMany(why) | Came::Refused(why) => self.give_up(&array, &why),
            }
        }
        Ok(())
    }

    fn submit_one(&mut self, array: &Array) -> Result<Came, Error> {
        let layout = self.plan.run.layout().clone();
        let number = layout::first_free(|n| layout.submission(n));
        let plan = |blocks: &Vec<Block>| {
            let experiments = blocks.iter().flat_map(|block| &block.experiments);
            let one =
                |experiment: &Arc<Experiment>| (experiment.name.clone(), self.state.next_attempt(&experiment.name));
            TaskPlan { experiments: experiments.map(one).collect() }
        };
        let Shape { nodes, gpus_per_node } = array.shape;
        let tasks: Vec<TaskPlan> = array.tasks.iter().map(plan).collect();
        let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let submission = Submission { schema: SCHEMA, number, nodes, gpus_per_node, tasks };
        submission.keep(&layout)?;
        let script = layout.batch_script(number);
        let text = self.plan.request.script(self.plan.run.path(), number, &self.plan.program);
        record::atomic::keep_again_with(&script, |out| out.write_all(text.as_bytes()))?;
        let chained = self.last_job.get(&array.shape).filter(|(last, _)| {
            self.plan.request.workers.is_some() && self.open.keys().any(|(submission, _)| submission == last)
        });
        let outputs = layout.task_outputs();
        let job = ArrayJob {
            run: self.plan.run.path(),
            submission: number,
            shape: array.shape,
            tasks: array.tasks.len(),
            output: &outputs,
            script: &script,
            after: chained.map(|(_, job)| job.as_str()),
            secrets: &self.plan.secrets,
        };
        let options = self.plan.request.options(&job);
        self.event(Event::JobSubmitting { submission: number, tasks: count });
        let names = |task: &TaskPlan| task.experiments.iter().map(|(name, _)| name.clone()).collect();
        let keep = |watch: &mut Self| {
            for name in submission.tasks.iter().flat_map(|task| &task.experiments).map(|(name, _)| name) {
                let begun = watch.state.attempts.get(name).map_or(0, Vec::len);
                if let Some(tracked) = watch.tracked.get_mut(name) {
                    tracked.begun = begun;
                }
            }
            for (task, plan) in submission.tasks.iter().enumerate() {
                watch.opened((number, u32::try_from(task).unwrap_or(u32::MAX)), names(plan));
            }
        };
        Ok(match self.plan.tools.submit(&options) {
            Submitted::As(job) => {
                self.event(Event::JobSubmitted { submission: number, job: job.clone(), tasks: count });
                self.last_job.insert(array.shape, (number, job));
                keep(self);
                Came::In
            }
            Submitted::Unclear(why) => {
                self.plan
                    .live
                    .0
                    .say(format!("`sbatch` gave no clear answer ({why}): the queue is looked through for the job"));
                keep(self);
                self.torn.insert(number, Instant::now());
                Came::Unclear
            }
            Submitted::Limit(why) => {
                self.event(Event::JobRefused { submission: number, why: why.clone() });
                Came::TooMany(why)
            }
            Submitted::Refused(why) => {
                self.event(Event::JobRefused { submission: number, why: why.clone() });
                Came::Refused(why)
            }
        })
    }

    /// What a limit has no room for is submitted later.
    pub(super) fn postpone(&mut self, arrays: &[Array], why: &str) {
        let mut told = true;
        for experiment in experiments(arrays) {
            let Some(tracked) = self.tracked.get_mut(&experiment.name) else { continue };
            told &= std::mem::replace(&mut tracked.postponed, true);
            tracked.not_before = Some(Instant::now() + LATER);
        }
        if !told {
            self.plan.live.0.say(format!("the rest is submitted when there is room for it: {why}"));
        }
    }

    pub(super) fn give_up(&mut self, array: &Array, why: &str) {
        let names: Vec<String> = experiments(std::slice::from_ref(array)).map(|e| e.name.clone()).collect();
        for name in names {
            let cut =
                Cut { cause: Cause::SubmissionRefused, said: why.to_owned(), tail: Vec::new(), is_earlier: false };
            self.record_failure(&name, cut);
        }
    }
}

/// What came of a call of `sbatch`.
enum Came {
    In,
    Unclear,
    TooMany(String),
    Refused(String),
}
