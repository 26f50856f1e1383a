//! What a session measures: all that the plan asks for, on one lane or on several, and the best of it once more alone.

use std::sync::Arc;

use super::judge::RunJudge;
use super::lanes;
use super::prepare::Prepared;
use super::recorder::{RunRecorder, SessionJobs};
use super::truth::{self, Use};
use super::{Sweep, policy_of};
use crate::campaign::{self, Totals};
use crate::config::Finalists;
use crate::error::Error;
use crate::execute::{Emitter, Leases, LocalExecutor, UnitContext};
use crate::model::{Event, Experiment, Outcome, ProcessId};
use crate::plan::blocks;
use crate::process::{Stop, StopSender};
use crate::record::{RunState, atomic};
use crate::search::{AddStarts, Grid, Packing, Strategy};
use crate::ui::Reporter;

/// What is to be measured, as a session finds it.
#[derive(Default)]
struct Work {
    /// For the first time.
    pending: Vec<Arc<Experiment>>,
    /// Once more, alone.
    alone: Vec<Arc<Experiment>>,
    /// Names of what failed before and is not tried again.
    left_alone: Vec<String>,
}

impl Sweep<'_> {
    /// Measures.
    pub(super) async fn measure(
        &self,
        context: UnitContext,
        prepared: &mut Prepared,
        (recorder, reporter): (&RunRecorder, &Reporter),
        sender: StopSender,
        stop: Stop,
    ) -> Result<Totals, Error> {
        let work = self.work(prepared);
        let emit = Emitter::new(Arc::new(recorder.clone()), sender);
        self.begin(&work, prepared, &emit);
        let policy = policy_of(self.settings);
        let jobs = Arc::new(SessionJobs::new(recorder.clone(), &prepared.state));
        let leases = std::mem::take(&mut prepared.leases);
        let leases = match &self.lanes {
            Some(lanes) => lanes.leases(leases, &prepared.run),
            None => Leases::one(leases),
        };
        let live = (emit.clone(), stop.clone());
        let executor = LocalExecutor::new(context, policy, jobs, live, self.settings.keep_foreign, leases);
        let (executor, packing) = match self.packing(executor, &work, prepared, &emit).await? {
            Some(ready) => ready,
            None => return Ok(Totals { interrupted: true, ..Totals::default() }),
        };
        // An earlier session may have had lanes where this one has none.
        let may_have_neighbours = packing.is_some() || prepared.resumed;
        let Work { pending, alone, left_alone } = work;
        let mut strategy = self.strategy(pending, &left_alone, packing, prepared, &emit);
        let mut totals = campaign::run(strategy.as_mut(), &executor, &stop).await?;
        totals.failed += left_alone.len();
        let executor = executor.one_at_a_time();
        let mut alone = alone;
        loop {
            if totals.interrupted || totals.stopped_by_failure {
                return Ok(totals);
            }
            let mut strategy = Grid::new(alone, self.settings.sweep.reuse, None);
            totals = totals.and(campaign::run(&mut strategy, &executor, &stop).await?);
            if !may_have_neighbours || self.settings.finalists == Finalists::Off {
                return Ok(totals);
            }
            alone = self.finalists(prepared, &emit, reporter)?;
            if alone.is_empty() {
                return Ok(totals);
            }
        }
    }

    /// Says that a session begins that measures all in one way, wherever it runs: names of what is left alone, and the strategy over the
    /// others.
    pub(super) fn open(&self, prepared: &Prepared, emit: &Emitter) -> (Vec<String>, Box<dyn Strategy>) {
        let work = self.work(prepared);
        self.begin(&work, prepared, emit);
        let Work { mut pending, alone, left_alone } = work;
        pending.extend(alone);
        let strategy = self.strategy(pending, &left_alone, None, prepared, emit);
        (left_alone, strategy)
    }

    /// What there is to measure.
    fn work(&self, prepared: &Prepared) -> Work {
        let mut work = Work::default();
        let asked = |e: &&Experiment| e.alone || prepared.state.is_asked(self.plan.until_decided, &e.name, e.repeat);
        for experiment in self.plan.experiments.iter().filter(asked).filter(|e| !prepared.valid.contains(&e.name)) {
            if self.is_left_alone(experiment, &prepared.state) {
                work.left_alone.push(experiment.name.clone());
            } else if experiment.alone {
                work.alone.push(Arc::new(experiment.clone()));
            } else {
                work.pending.push(Arc::new(experiment.clone()));
            }
        }
        work
    }

    /// Says that the session begins, and with what.
    fn begin(&self, work: &Work, prepared: &Prepared, emit: &Emitter) {
        let pending = work.pending.len() + work.alone.len();
        emit.event(Event::RunStarted {
            process: ProcessId::current(),
            simulated: self.settings.simulated(),
            resumed: prepared.resumed,
            planned: prepared.valid.len() + work.left_alone.len() + pending,
            pending,
        });
        let waited = prepared.devices.waited.iter();
        for notice in waited.chain(self.earlier.iter().flat_map(|earlier| &earlier.notices)) {
            emit.say(notice.clone());
        }
        for name in &prepared.valid {
            emit.event(Event::ExperimentReused { name: name.clone() });
        }
        for name in &work.left_alone {
            emit.say(format!("`{name}` is left alone: it failed before, and `skip-failure-reasons` names why"));
        }
    }

    /// How blocks are packed onto lanes, where these are used: with `--parallel auto` after a look at what they cost. `None` where the
    /// user wants the run to end.
    async fn packing(
        &self,
        executor: LocalExecutor,
        work: &Work,
        prepared: &Prepared,
        emit: &Emitter,
    ) -> Result<Option<(LocalExecutor, Option<Packing>)>, Error> {
        let reuse = self.settings.sweep.reuse;
        let Some(lanes) = &self.lanes else { return Ok(Some((executor, None))) };
        let several = blocks(work.pending.iter().cloned(), reuse).len() > 1;
        let found = match truth::known(&prepared.state, lanes, self.settings, emit) {
            _ if !lanes.checked => Use::Lanes,
            Some(found) => found,
            None if several => truth::check(&executor, lanes, &work.pending, self.settings, emit).await?,
            // Nothing that could run beside something.
            None => Use::OneAtATime,
        };
        match found {
            Use::Lanes => {}
            Use::OneAtATime => return Ok(Some((executor.without_lanes(), None))),
            Use::Interrupted => return Ok(None),
        }
        let packing = lanes.packing(lanes::estimates(prepared));
        emit.say(lanes.told(&packing, &work.pending, self.settings));
        Ok(Some((executor, Some(packing))))
    }

    /// What is measured in which order.
    fn strategy(
        &self,
        pending: Vec<Arc<Experiment>>,
        left_alone: &[String],
        packing: Option<Packing>,
        prepared: &Prepared,
        emit: &Emitter,
    ) -> Box<dyn Strategy> {
        let reuse = self.settings.sweep.reuse;
        match self.plan.until_decided {
            None => Box::new(Grid::new(pending, reuse, packing)),
            Some(until) => {
                let space = self.plan.experiments.iter().filter(|e| !e.alone).cloned().map(Arc::new).collect();
                let settled = prepared.valid.iter().chain(left_alone).cloned().collect();
                let judge = RunJudge::new(prepared.run.path().to_owned(), emit.clone());
                Box::new(AddStarts::new(space, until, &prepared.state.planned, settled, (reuse, packing), judge))
            }
        }
    }

    /// The best of what was measured beside others, which join the plan to be measured alone; none where all is.
    fn finalists(
        &self,
        prepared: &mut Prepared,
        emit: &Emitter,
        reporter: &Reporter,
    ) -> Result<Vec<Arc<Experiment>>, Error> {
        let plan = &prepared.manifest.plan;
        let Some((grown, names)) = truth::with_finalists(prepared.run.path(), plan) else {
            return Ok(Vec::new());
        };
        let new: Vec<Arc<Experiment>> =
            grown.experiments.iter().filter(|e| names.contains(&e.name)).cloned().map(Arc::new).collect();
        // First the journal: a plan that has them is asked for them.
        let why = "what may be the best is measured again alone: others ran beside it".to_owned();
        reporter.joined(&new);
        emit.event(Event::ExperimentsPlanned { names, why });
        prepared.manifest.plan = grown;
        atomic::keep_json(&prepared.run.layout().manifest(), &prepared.manifest)?;
        Ok(new)
    }

    /// Whether an experiment failed before for a reason that the user does not want to see again.
    fn is_left_alone(&self, experiment: &Experiment, state: &RunState) -> bool {
        let newest = state.newest(&experiment.name).and_then(|attempt| attempt.outcome.as_ref());
        match newest {
            Some(Outcome::Failed(failure)) => {
                self.settings.skip_failure_reasons.iter().any(|reason| reason.covers(failure.cause))
            }
            Some(Outcome::Passed { .. } | Outcome::Interrupted) | None => false,
        }
    }
}
