//! What neighbours cost, measured: the same configuration is started on several lanes, and one of them is measured alone and beside the
//! others under load, in turn. Nothing of it is a result of the run.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::hang::ENGINE_TITLE;
use super::launch::launch_client;
use super::local::{Job, LocalExecutor, end_foreign_and_leftovers};
use super::server::{NotStarted, Server};
use super::unit::measure;
use super::{Error, Lease, Scope, Turn};
use crate::model::{Experiment, Isolation, Outcome};
use crate::process::StopLevel;

/// A neighbour sends so many times the requests of the measurement beside it: it does not end before.
const LONGER: u64 = 8;
/// How long neighbours may take to be busy.
const BUSY_LIMIT: Duration = Duration::from_secs(180);
/// How long they may take to be idle when their clients are gone.
const IDLE_LIMIT: Duration = Duration::from_secs(20);
/// How often they are looked at until then.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// By how much random prompts vary in length.
const RANGE: &str = "random-range-ratio";
/// The first seed of the prompts: no measurement finds those of another in the cache.
const FIRST_SEED: u64 = 7_000_001;

/// A result of the client.
pub type Measured = Map<String, Value>;

/// How the check ended.
#[derive(Debug, Clone, PartialEq)]
pub enum NeighbourCheck {
    /// With these pairs: alone, and beside busy neighbours.
    Pairs(Vec<(Measured, Measured)>),
    /// It could not be made; why.
    Failed(String),
    /// The user wants the run to end.
    Interrupted,
}

/// Why a step of the check came to nothing.
enum Ended {
    Failed(String),
    Interrupted,
}

/// A lane with its server.
struct Lane {
    number: u32,
    lease: Lease,
    job: Job,
    server: Server,
}

impl LocalExecutor {
    /// Measures an experiment alone and beside busy neighbours, until `enough` says so of the pairs so far.
    ///
    /// # Errors
    /// When the tool itself cannot go on.
    pub async fn check_neighbours(
        &self,
        experiment: &Experiment,
        enough: impl FnMut(&[(Measured, Measured)]) -> bool,
    ) -> Result<NeighbourCheck, Error> {
        let mut stop = self.stop.clone();
        // Other people's servers were ended when the run began, where that is allowed.
        end_foreign_and_leftovers(&Scope::User, self.context.grace, true, &self.emit, &mut stop).await?;
        let mut seeds = FIRST_SEED..;
        let mut leased: Vec<(u32, Lease, Job)> = Vec::new();
        loop {
            let taken = self.leases().take(experiment.server.devices());
            let Some((number, mut lease)) = taken else { break };
            let of_lane = Arc::new(on_lane(experiment, number));
            let job = self.jobs.fresh(&of_lane, lease.next_port());
            let job = Job { binding: lease.binding.clone(), ..job };
            leased.push((number, lease, job));
        }
        let starts = leased.into_iter().map(|(number, lease, job)| async move {
            let server = Server::start(&job, &self.context, &self.emit, &mut self.stop.clone(), (None, None)).await;
            (number, lease, job, server)
        });
        let (mut lanes, mut refused) = (Vec::new(), None);
        for (number, lease, job, server) in join_all(starts).await {
            match server {
                Ok(server) => lanes.push(Lane { number, lease, job, server }),
                Err(not) => {
                    refused.get_or_insert(why_not(*not));
                    self.leases().back(number, lease);
                }
            }
        }
        let came = match refused {
            Some(ended) => Err(ended),
            None => self.pairs(&mut lanes, &mut seeds, enough).await,
        };
        let ends = lanes.into_iter().map(|Lane { number, lease, server, .. }| async move {
            server.drain(&self.context, &self.emit, &mut self.stop.clone()).await;
            self.leases().back(number, lease);
        });
        join_all(ends).await;
        Ok(match came {
            Ok(pairs) => NeighbourCheck::Pairs(pairs),
            Err(_) if self.stop.level() >= StopLevel::AfterCurrent => NeighbourCheck::Interrupted,
            Err(Ended::Interrupted) => NeighbourCheck::Interrupted,
            Err(Ended::Failed(why)) => NeighbourCheck::Failed(why),
        })
    }

    /// The pairs, one after the other, on servers that are ready.
    async fn pairs(
        &self,
        lanes: &mut [Lane],
        seeds: &mut impl Iterator<Item = u64>,
        mut enough: impl FnMut(&[(Measured, Measured)]) -> bool,
    ) -> Result<Vec<(Measured, Measured)>, Ended> {
        let Some((first, others)) = lanes.split_first_mut() else {
            return Err(Ended::Failed("there is no lane".to_owned()));
        };
        if others.is_empty() {
            return Err(Ended::Failed("there is no room for a neighbour".to_owned()));
        }
        // The first measurement on a start is like no other.
        self.alone(first, seeds).await?;
        let mut pairs = Vec::new();
        while !enough(&pairs) {
            let pair = if pairs.len() % 2 == 0 {
                let alone = self.alone(first, seeds).await?;
                (alone, self.beside(first, others, seeds).await?)
            } else {
                let beside = self.beside(first, others, seeds).await?;
                (self.alone(first, seeds).await?, beside)
            };
            pairs.push(pair);
        }
        Ok(pairs)
    }

    /// One measurement on a lane, with prompts of its own.
    async fn alone(&self, lane: &mut Lane, seeds: &mut impl Iterator<Item = u64>) -> Result<Measured, Ended> {
        if self.stop.level() >= StopLevel::AfterCurrent {
            return Err(Ended::Interrupted);
        }
        let experiment = with_prompts(&lane.job.experiment, seeds.next().unwrap_or(FIRST_SEED));
        let job = self.next_job(&lane.job, experiment);
        let turn = Turn { on_start: 2, new_workload: false };
        let came = measure(&job, &mut lane.server, turn, &self.context, &self.emit, &mut self.stop.clone()).await;
        let _ = std::fs::remove_file(&job.places.result);
        lane.job = job;
        match (came.outcome, came.result) {
            (Outcome::Passed { .. }, Some(result)) => Ok(result),
            (Outcome::Passed { .. }, None) => Err(Ended::Failed("the client left no result".to_owned())),
            (Outcome::Failed(failure), _) => Err(Ended::Failed(failure.summary)),
            (Outcome::Interrupted, _) => Err(Ended::Interrupted),
        }
    }

    /// The same while all others are under load.
    async fn beside(
        &self,
        lane: &mut Lane,
        others: &[Lane],
        seeds: &mut impl Iterator<Item = u64>,
    ) -> Result<Measured, Ended> {
        let (over, is_over) = watch::channel(false);
        let loads: Vec<_> = others
            .iter()
            .map(|other| self.keep_busy(other, seeds.next().unwrap_or(FIRST_SEED), is_over.clone()))
            .collect();
        let measuring = async {
            let gone = others.iter().map(|other| Box::pin(one_that_dies(other)));
            let measured = async {
                self.until_busy(others).await?;
                self.alone(lane, seeds).await
            };
            // One that is dead disturbs nobody: what is measured beside it says nothing.
            let came = tokio::select! {
                came = measured => came,
                (number, ..) = select_all(gone) => {
                    Err(Ended::Failed(format!("an engine of the neighbour on lane {number} died")))
                }
            };
            let _ = over.send(true);
            came
        };
        let (came, _) = tokio::join!(measuring, join_all(loads));
        let idle = join_all(others.iter().map(|other| self.is_idle(&other.server)));
        let _ = self.stop.clone().cuts_short(tokio::time::timeout(IDLE_LIMIT, idle)).await;
        came
    }

    /// Waits until a server has no request: those of a client that is gone are ended a moment later.
    async fn is_idle(&self, server: &Server) {
        while let Some(reading) = server.counters(&self.context).await
            && reading.under_way().is_some_and(|requests| requests > 0.0)
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends load to a server until it is over.
    async fn keep_busy(&self, lane: &Lane, seed: u64, mut over: watch::Receiver<bool>) {
        let mut experiment = with_prompts(&lane.job.experiment, seed);
        if let Some(prompts) = experiment.workload.num_prompts() {
            experiment.workload.flags.text("num-prompts", prompts.saturating_mul(LONGER));
        }
        let mut stop = self.stop.clone();
        let mut job = lane.job.clone();
        while !*over.borrow() && stop.level() < StopLevel::Drain {
            job = self.next_job(&job, experiment.clone());
            let Ok(mut client) = launch_client(&job, &self.context, &mut stop).await else { return };
            tokio::select! {
                _ = client.changed() => {}
                _ = over.wait_for(|over| *over) => {}
                () = stop.reached(StopLevel::Drain) => {}
            }
            client.end(&mut stop).await;
            let _ = std::fs::remove_file(&job.places.result);
        }
    }

    /// Waits until every server yields tokens.
    async fn until_busy(&self, lanes: &[Lane]) -> Result<(), Ended> {
        let mut stop = self.stop.clone();
        let busy = join_all(lanes.iter().map(|lane| self.yields_tokens(&lane.server)));
        tokio::select! {
            _ = busy => Ok(()),
            () = stop.reached(StopLevel::Drain) => Err(Ended::Interrupted),
            () = tokio::time::sleep(BUSY_LIMIT) => {
                Err(Ended::Failed(format!("the neighbours were not busy within {} s", BUSY_LIMIT.as_secs())))
            }
        }
    }

    /// Waits until a server has yielded a token since now; for ever where it counts none.
    async fn yields_tokens(&self, server: &Server) {
        let mut first = None;
        loop {
            let tokens = server.counters(&self.context).await.and_then(|reading| reading.generated());
            match (tokens, first) {
                (Some(now), Some(before)) if now > before => return,
                (Some(now), None) => first = Some(now),
                _ => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn next_job(&self, earlier: &Job, experiment: Experiment) -> Job {
        let job = self.jobs.on_server_of(earlier, &Arc::new(experiment));
        Job { binding: earlier.binding.clone(), ..job }
    }
}

fn why_not(not: NotStarted) -> Ended {
    match not.outcome {
        Outcome::Failed(failure) => Ended::Failed(failure.summary),
        Outcome::Passed { .. } | Outcome::Interrupted => Ended::Interrupted,
    }
}

/// Waits until an engine of a lane's server is gone; the lane's number.
async fn one_that_dies(lane: &Lane) -> u32 {
    lane.server.group.titled_gone(ENGINE_TITLE).await;
    lane.number
}

/// What the check measures is called so, and by the number of its lane.
const NEIGHBOUR_CHECK: &str = "neighbour-check_lane";

/// The lane of what the check of neighbours measures under this name; `None` for any other name.
pub fn lane_of_check(name: &str) -> Option<u32> {
    name.strip_prefix(NEIGHBOUR_CHECK)?.parse().ok()
}

/// The experiment under a name of its own: its files are no results of the run.
fn on_lane(experiment: &Experiment, lane: u32) -> Experiment {
    let name = format!("{NEIGHBOUR_CHECK}{lane}");
    Experiment { index: 0, server_name: name.clone(), name, ..experiment.clone() }
}

/// The experiment with other prompts than any before, where their seed is not fixed. All of one length: lengths that are drawn anew for each
/// measurement would differ by more than neighbours cost.
fn with_prompts(experiment: &Experiment, seed: u64) -> Experiment {
    let mut experiment = experiment.clone();
    if !experiment.workload.flags.contains("seed") {
        experiment.isolation = Isolation::Seed(seed);
        if experiment.workload.flags.contains(RANGE) {
            experiment.workload.flags.text(RANGE, 0);
        }
    }
    experiment
}
