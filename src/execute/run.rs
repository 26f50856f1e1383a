//! One experiment after the other.

use std::time::Duration;

use super::{Emitter, Event, Outcome, Places, UnitContext, end_foreign, end_leftovers, run_unit};
use crate::plan::Experiment;
use crate::process::{Error, Stop, StopLevel};

/// One attempt that is to be made.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// What to measure.
    pub experiment: &'a Experiment,
    /// From 1, over all resumes.
    pub attempt: u32,
    /// The server's port.
    pub port: u16,
    /// Where its files go.
    pub places: Places,
    /// When it began, as shown and recorded; set by the recorder's clock.
    pub started: String,
}

/// What a session of a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Attempts with a valid result.
    pub passed: usize,
    /// Attempts without one.
    pub failed: usize,
    /// Whether the run was ended before all jobs were done.
    pub interrupted: bool,
}

/// Takes every experiment through its life. Never ends at the first failure (rule 4); ends in order when asked to.
///
/// `job` is called when an experiment's turn comes, so that file names and attempt numbers are fresh.
///
/// # Errors
/// When the registry of live groups cannot be used: without it, nothing may be started.
pub async fn run_all<'p>(
    pending: &[&'p Experiment],
    mut job: impl FnMut(&'p Experiment) -> Job<'p>,
    context: &UnitContext,
    keep_foreign: bool,
    emit: &mut Emitter<'_>,
    stop: &mut Stop,
) -> Result<Totals, Error> {
    let mut totals = Totals::default();
    for experiment in pending {
        if stop.level() >= StopLevel::AfterCurrent {
            totals.interrupted = true;
            break;
        }
        clear_the_way(context.grace, keep_foreign, emit, stop).await?;
        let job = job(experiment);
        emit.event(Event::ExperimentStarted {
            index: experiment.index,
            name: experiment.name.clone(),
            attempt: job.attempt,
        });
        let attempted = run_unit(&job, context, emit, stop).await;
        match &attempted.outcome {
            Outcome::Passed { .. } => totals.passed += 1,
            Outcome::Failed(_) => totals.failed += 1,
            Outcome::Interrupted => totals.interrupted = true,
        }
        emit.finished(&job, &attempted);
    }
    Ok(totals)
}

/// Ends leftovers of ours and, unless told otherwise, other vLLM processes of this user (rule 14).
///
/// # Errors
/// As [`run_all`].
pub async fn clear_the_way(
    grace: Duration,
    keep_foreign: bool,
    emit: &mut Emitter<'_>,
    stop: &mut Stop,
) -> Result<(), Error> {
    super::script::remove_stale();
    for reaped in end_leftovers(grace).await? {
        let owner = &reaped.record.owner;
        emit.event(Event::Notice {
            text: format!(
                "ended {} process(es) that the {} of `{}` had left behind (run `{}`)",
                reaped.processes,
                owner.role,
                owner.experiment,
                owner.run.display()
            ),
        });
    }
    if !keep_foreign {
        let processes = end_foreign(grace, stop).await;
        if !processes.is_empty() {
            emit.event(Event::ForeignEnded { processes });
        }
    }
    Ok(())
}
