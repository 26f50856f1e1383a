//! What experiments came to that no task holds any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use chrono::{SecondsFormat, Utc};

use super::{Cut, Watch, settled};
use crate::execute::Attempted;
use crate::execute::block::BlockEnd;
use crate::execute::server::NotStarted;
use crate::model::{Cause, Event, Failure, Headline, Outcome, Phase, Stamped};
use crate::plan::OnFailure;
use crate::record::SCHEMA;

/// So often an experiment may have waited in vain behind others in a task that met its time limit.
const MOST_BEHIND: u32 = 10;

impl Watch {
    /// What experiments came to that no task holds any more.
    pub(super) fn settle(&mut self) {
        let free: Vec<String> = self
            .tracked
            .iter()
            .filter(|(name, tracked)| tracked.outcome.is_none() && !self.holders.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        let mut without = Vec::new();
        for name in free {
            let Some(outcome) = self.outcome_of(&name) else {
                without.push(name);
                continue;
            };
            if matches!(outcome, Outcome::Failed(_)) && self.plan.policy.on_failure == OnFailure::Stop {
                self.stop_by_failure();
            }
            if let Some(tracked) = self.tracked.get_mut(&name) {
                tracked.outcome = Some(outcome);
            }
        }
        without.iter().for_each(|name| self.after_a_cut(name));
    }

    /// The outcome of an experiment in this session, as files say.
    pub(super) fn outcome_of(&mut self, name: &str) -> Option<Outcome> {
        let tracked = &self.tracked[name];
        let newest = self.state.newest(name).and_then(|attempt| attempt.outcome.clone());
        let fresh = self.outcomes(name) > tracked.base;
        if let Some(Outcome::Failed(failure)) = newest.clone().filter(|_| fresh) {
            return Some(Outcome::Failed(failure));
        }
        // Only what was ever in a task can have a result by now.
        if tracked.cut.is_none() && !fresh {
            return None;
        }
        let found = self.plan.run.valid_result(&tracked.experiment);
        found.map(|record| Outcome::Passed { headline: Headline::of(&record.vllm) })
    }

    /// An experiment was in a task that is over, and has no outcome: it is submitted again, or has failed.
    pub(super) fn after_a_cut(&mut self, name: &str) {
        let passed = matches!(
            self.state.newest(name).and_then(|attempt| attempt.outcome.as_ref()),
            Some(Outcome::Passed { .. })
        );
        let Some(tracked) = self.tracked.get_mut(name) else { return };
        let Some(cut) = tracked.cut.clone() else { return };
        // The task says that it passed, and its file is not seen yet.
        if passed && tracked.unseen.get_or_insert_with(Instant::now).elapsed() < self.plan.request.patience {
            return;
        }
        tracked.cut = None;
        tracked.unseen = None;
        if self.stopping {
            tracked.outcome = Some(Outcome::Interrupted);
            return;
        }
        if cut.is_earlier {
            // Submitted again, as what was never begun.
            return;
        }
        let cause = cut.cause;
        let cuts = tracked.cuts.entry(cause).or_default();
        *cuts += 1;
        let (cuts, retry) = (*cuts, self.plan.policy.retry.for_cause(cause));
        // One that waited behind others in a task that met its limit has had no attempt yet.
        let behind = cause == Cause::TimeLimit && !self.has_begun(name) && cuts <= MOST_BEHIND;
        if behind || cuts <= retry.attempts {
            if let Some(tracked) = self.tracked.get_mut(name) {
                tracked.not_before = Some(Instant::now() + retry.back_off);
            }
            self.plan.live.0.say(format!("`{name}` is submitted again: {} ({})", cause.title(), cut.said));
            return;
        }
        self.record_failure(name, cut);
    }

    /// Whether an attempt at an experiment has begun since it was submitted.
    pub(super) fn has_begun(&self, name: &str) -> bool {
        let begun = self.tracked.get(name).map_or(0, |tracked| tracked.begun);
        self.state.attempts.get(name).map_or(0, Vec::len) > begun
    }

    /// Records that an experiment has failed without a measurement of its own.
    pub(super) fn record_failure(&mut self, name: &str, cut: Cut) {
        let Some(experiment) = self.tracked.get(name).map(|tracked| Arc::clone(&tracked.experiment)) else { return };
        let cut_short = |outcome: &Option<Outcome>| matches!(outcome, None | Some(Outcome::Interrupted));
        let newest = self.state.newest(name).filter(|attempt| cut_short(&attempt.outcome) && self.has_begun(name));
        let open = newest.map(|attempt| attempt.number);
        let attempt = open.unwrap_or_else(|| self.state.next_attempt(name));
        let job = (self.plan.job)(&experiment, attempt);
        if open.is_none() {
            let started = Event::ExperimentStarted {
                index: experiment.index,
                name: experiment.name.clone(),
                attempt,
                axes: Some(Box::new(experiment.axes.clone())),
                placement: None,
            };
            self.event(started);
        }
        let summary = format!("{}: {}", cut.cause.title(), cut.said);
        let failure = Failure { log_tail: cut.tail, ..Failure::plain(cut.cause, Phase::Launching, summary) };
        let nothing =
            NotStarted { outcome: Outcome::Failed(failure.clone()), startup: None, steps: Vec::new(), teardown: None };
        let came = Attempted::not_started(nothing, &job, &self.plan.context, tokio::time::Instant::now());
        self.plan.live.0.finished(&job, &came);
        self.state.apply(&Stamped {
            v: SCHEMA,
            seq: 0,
            at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, false),
            event: Event::ExperimentFinished {
                index: experiment.index,
                name: name.to_owned(),
                attempt,
                outcome: Outcome::Failed(failure.clone()),
                timings: came.timings,
                metrics: std::collections::BTreeMap::default(),
            },
        });
        if let Some(tracked) = self.tracked.get_mut(name) {
            tracked.outcome = Some(Outcome::Failed(failure));
        }
        if self.plan.policy.on_failure == OnFailure::Stop {
            self.stop_by_failure();
        }
    }

    /// `on-failure: stop`: what waits is cancelled, what runs is measured to its end.
    pub(super) fn stop_by_failure(&mut self) {
        if std::mem::replace(&mut self.stopped_by_failure, true) {
            return;
        }
        self.stopping = true;
        let jobs: HashSet<String> = self.open.keys().filter_map(|key| self.job_of(*key)).collect();
        if !jobs.is_empty() {
            let _ = self.plan.tools.cancel(&["--state=PENDING"], &jobs.into_iter().collect::<Vec<_>>());
        }
    }

    /// Tells the campaign of the blocks that are over.
    pub(super) fn answer(&mut self) {
        let stopped = self.stopped_by_failure;
        for waiting in &mut self.waiting {
            let over = waiting.names.iter().all(|name| self.tracked[name].outcome.is_some());
            if let (true, Some(done)) = (over, waiting.done.take_if(|_| over)) {
                let outcomes = settled(&waiting.names, &self.tracked);
                let interrupted = outcomes.len() < waiting.names.len();
                let _ = done.send(Ok(BlockEnd {
                    interrupted: interrupted && !stopped,
                    stopped_by_failure: stopped,
                    outcomes,
                    ..BlockEnd::default()
                }));
            }
        }
        self.waiting.retain(|waiting| waiting.done.is_some());
    }
}
