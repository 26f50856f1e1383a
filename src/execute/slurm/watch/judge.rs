//! What the queue says, and what became of tasks that it does not know.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use chrono::Utc;

use super::{Cut, LATER, Open, Watch};
use crate::bounded;
use crate::execute::slurm::request::{comment, job_name};
use crate::execute::slurm::tools::Queued;
use crate::execute::slurm::verdict;
use crate::execute::slurm::verdict::Said;
use crate::model::{Cause, Event};
use crate::record::{Lock, TaskKey};

/// The queue is asked at most so often, whatever the size of the run.
const POLL: Duration = Duration::from_secs(5);
/// So long Slurm may be silent before it is told.
const SILENT: Duration = Duration::from_secs(60);
/// Files of other machines may be seen so late: what looks missing is looked for again.
const SETTLE: Duration = Duration::from_secs(6);
/// The controller is asked for what became of a job at most so often.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// A submission of which nobody knows whether Slurm has it is looked for so long.
const LOOKED_FOR: Duration = Duration::from_secs(15);
/// So many lines of a task's output are kept with a failure.
const TAIL: usize = 50;

impl Watch {
    pub(super) fn ask_queue(&mut self) {
        if self.open.is_empty() || self.queue.asked.is_some_and(|at| at.elapsed() < POLL) {
            return;
        }
        let name = job_name(self.plan.run.path());
        self.queue.asked = Some(Instant::now());
        match self.plan.tools.queue(&name) {
            Ok(tasks) => {
                if std::mem::take(&mut self.queue.told_silent) {
                    self.plan.live.0.say("Slurm answers again".to_owned());
                }
                let key = |(at, task): (usize, &Queued)| Some(((task.job.clone(), task.task?), at));
                self.queue.index = tasks.iter().enumerate().filter_map(key).collect();
                (self.queue.tasks, self.queue.error) = (tasks, None);
                self.queue.answered = Some(Instant::now());
            }
            Err(error) => {
                let silent = self.queue.answered.is_none_or(|at| at.elapsed() > SILENT);
                if silent && !self.queue.told_silent {
                    self.queue.told_silent = true;
                    self.plan.live.0.say(format!(
                        "Slurm does not answer ({error}): the run goes on by the tasks' own files, and Slurm is asked again and again"
                    ));
                }
                self.queue.error = Some(error);
            }
        }
        // The limit counts from the end of an answer that was slow.
        self.queue.asked = Some(Instant::now());
    }

    /// Looks for submissions that an earlier front may have made, or a call of `sbatch` without an answer.
    pub(super) fn find_torn(&mut self) {
        let Some(answered) = self.queue.answered else { return };
        let torn: Vec<(u32, Instant)> = self.torn.iter().map(|(number, since)| (*number, *since)).collect();
        for (number, since) in torn {
            let wanted = comment(self.plan.run.path(), number);
            let found = self.queue.tasks.iter().find(|task| task.comment == wanted).map(|task| task.job.clone());
            let tasks = self.state.jobs.get(&number).map_or(0, |job| job.tasks);
            if let Some(job) = found {
                self.torn.remove(&number);
                self.event(Event::JobSubmitted { submission: number, job, tasks });
            } else if answered.saturating_duration_since(since) > LOOKED_FOR {
                self.torn.remove(&number);
                self.refused(number, "the queue does not have it: it was never submitted".to_owned());
            }
        }
    }

    /// A job is not there: its experiments are free again.
    pub(super) fn refused(&mut self, number: u32, why: String) {
        self.event(Event::JobRefused { submission: number, why });
        let keys: Vec<TaskKey> = self.open.keys().filter(|(submission, _)| *submission == number).copied().collect();
        let closed: Vec<Open> = keys.into_iter().filter_map(|key| self.close(key)).collect();
        for name in closed.into_iter().flat_map(|open| open.names) {
            if let Some(tracked) = self.tracked.get_mut(&name) {
                tracked.not_before = Some(Instant::now() + LATER);
            }
        }
    }

    pub(super) fn close(&mut self, key: TaskKey) -> Option<Open> {
        let open = self.open.remove(&key)?;
        for name in &open.names {
            if self.holders.get(name) == Some(&key) {
                self.holders.remove(name);
            }
        }
        Some(open)
    }

    pub(super) fn job_of(&self, key: TaskKey) -> Option<String> {
        let known = self.state.jobs.get(&key.0).and_then(|job| job.job.clone());
        known.or_else(|| self.state.tasks.get(&key).and_then(|task| task.job.clone()))
    }

    /// Which tasks are over, and why.
    pub(super) fn judge_tasks(&mut self) {
        let keys: Vec<TaskKey> = self.open.keys().copied().collect();
        let missing_since = self.queue.answered.filter(|_| self.queue.error.is_none());
        let mut asked: HashMap<String, Vec<(TaskKey, bool)>> = HashMap::new();
        for key in keys {
            let ended = self.state.tasks.get(&key).and_then(|task| task.ended);
            if let Some((at, why)) = ended
                && why != Some(Cause::Interrupted)
            {
                self.over(key, at, why);
                continue;
            }
            let Some(job) = self.job_of(key) else { continue };
            if let Some(at) = self.queue.index.get(&(job.clone(), key.1)) {
                let never = self.queue.tasks[*at].reason.contains("DependencyNeverSatisfied");
                if let Some(open) = self.open.get_mut(&key) {
                    open.missing = None;
                    open.is_earlier = false;
                }
                if never {
                    let _ = self.plan.tools.cancel(&[], &[format!("{job}_{}", key.1)]);
                    let said = "squeue says DependencyNeverSatisfied".to_owned();
                    self.lost(
                        key,
                        Cut { cause: Cause::DependencyNeverSatisfied, said, tail: Vec::new(), is_earlier: false },
                    );
                }
                continue;
            }
            let Some(open) = self.open.get_mut(&key) else { continue };
            // The queue was asked after the task was submitted, and does not have it.
            if missing_since.is_some_and(|answered| answered > open.since) {
                let since = *open.missing.get_or_insert_with(Instant::now);
                if since.elapsed() >= SETTLE {
                    asked.entry(job).or_default().push((key, ended.is_some()));
                }
            }
        }
        for (job, tasks) in asked {
            self.find_out(&job, &tasks);
        }
    }

    /// What became of tasks that the queue does not have, and that did not say so.
    pub(super) fn find_out(&mut self, job: &str, tasks: &[(TaskKey, bool)]) {
        if self.said.get(job).is_none_or(|(at, _)| at.elapsed() >= ASK_AGAIN) {
            let indices: Vec<u32> = tasks.iter().map(|(key, _)| key.1).collect();
            let said = self.plan.tools.says(job, &indices);
            self.said.insert(job.to_owned(), (Instant::now(), said));
        }
        for (key, interrupted) in tasks {
            let said = self.said.get(job).and_then(|(_, said)| said.get(&key.1)).cloned();
            let is_over = said.as_ref().is_some_and(Said::is_over);
            let waited =
                self.open.get(key).and_then(|open| open.missing).map_or(Duration::ZERO, |since| since.elapsed());
            let out_of_patience = waited >= self.plan.request.patience;
            if !is_over && !out_of_patience && !*interrupted {
                continue;
            }
            if self.is_measured_now(*key) {
                continue;
            }
            let output = self.output_of(job, key.1);
            let began = self.state.tasks.contains_key(key);
            let known = said.as_ref().filter(|said| said.is_over());
            let cause = match verdict::cause(known, &output, began) {
                Some(cause) => cause,
                None if *interrupted => Cause::JobCancelled,
                // Completed, and yet no word of its end is there: files of other machines may be seen late.
                None if !out_of_patience => continue,
                None => Cause::LostByScheduler,
            };
            let told = known.map_or_else(
                || match interrupted {
                    true => "it was told to end, and the queue does not have it any more".to_owned(),
                    false => format!("neither the queue nor the accounting has known it for {} s", waited.as_secs()),
                },
                Said::told,
            );
            let lines: Vec<&str> = output.lines().collect();
            let tail = lines.iter().skip(lines.len().saturating_sub(TAIL)).map(|line| (*line).to_owned()).collect();
            self.lost(*key, Cut { cause, said: told, tail, is_earlier: false });
        }
    }

    /// Whether a process still measures an experiment of a task: it holds the lock, whatever the scheduler thinks of its node.
    pub(super) fn is_measured_now(&self, key: TaskKey) -> bool {
        let layout = self.plan.run.layout();
        let names = self.open.get(&key).map(|open| open.names.as_slice()).unwrap_or_default();
        names.iter().map(|name| layout.experiment_lock(name)).any(|path| path.exists() && Lock::holder(&path).is_some())
    }

    /// The end of what a task printed.
    pub(super) fn output_of(&self, job: &str, task: u32) -> String {
        const END: u64 = 16 << 10;
        let path = self.plan.run.layout().task_output(job, task);
        let read = || {
            let (mut file, meta) = bounded::open_known(&path)?;
            file.seek(SeekFrom::Start(meta.len().saturating_sub(END)))?;
            let mut bytes = Vec::new();
            file.take(END).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// A task is over without having said so.
    pub(super) fn lost(&mut self, key: TaskKey, cut: Cut) {
        self.event(Event::TaskLost { submission: key.0, task: key.1, cause: cut.cause, said: cut.said.clone() });
        self.cut_off(key, &cut);
    }

    /// A task has said how it ended.
    pub(super) fn over(&mut self, key: TaskKey, at: Option<chrono::DateTime<Utc>>, why: Option<Cause>) {
        let began = self.state.tasks.get(&key).and_then(|task| task.began);
        if let (Some(began), Some(at)) = (began, at) {
            self.took.push((at - began).as_seconds_f64().max(0.0));
        }
        // Of a task that has measured all nothing was cut off: what has no outcome in its journal lies in the result files.
        let (cause, said) = match why {
            Some(cause) => (cause, "the task has ended in order, as the signal before its limit told it"),
            None => (Cause::LostByScheduler, "the task says that it has measured all"),
        };
        self.cut_off(key, &Cut { cause, said: said.to_owned(), tail: Vec::new(), is_earlier: false });
    }

    /// Frees the experiments of a task that is over; those without an outcome were cut off.
    pub(super) fn cut_off(&mut self, key: TaskKey, cut: &Cut) {
        let Some(open) = self.close(key) else { return };
        self.over += 1;
        for name in open.names {
            if let Some(tracked) = self.tracked.get_mut(&name).filter(|tracked| tracked.outcome.is_none()) {
                tracked.cut = Some(Cut { is_earlier: open.is_earlier, ..cut.clone() });
            }
        }
    }
}
