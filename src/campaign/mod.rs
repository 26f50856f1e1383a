//! The loop, and nothing else: asks the strategy, gives blocks to the executor, tells the strategy what came. The only module that
//! knows both sides.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::execute::{BlockEnd, Error, Executor};
use crate::model::{Failure, Outcome, ServerConfig, Side};
use crate::plan::Block;
use crate::process::{Stop, StopLevel};
use crate::search::{Ask, Observation, Strategy};

/// What a session of a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Experiments with a valid result.
    pub passed: usize,
    /// Experiments without one.
    pub failed: usize,
    /// Whether the run was ended before the strategy was done.
    pub interrupted: bool,
    /// Whether it ended because a failure was to end it.
    pub stopped_by_failure: bool,
}

impl Totals {
    /// With what came after it.
    #[must_use]
    pub fn and(self, next: Self) -> Self {
        Self {
            passed: self.passed + next.passed,
            failed: self.failed + next.failed,
            interrupted: self.interrupted || next.interrupted,
            stopped_by_failure: self.stopped_by_failure || next.stopped_by_failure,
        }
    }
}

/// Measures what the strategy asks for until it is done. Ends at the first failure only when told to (rule 4); ends in order when
/// asked to.
///
/// # Errors
/// When the tool itself cannot go on; blocks that are under way have ended by then.
pub async fn run(strategy: &mut dyn Strategy, executor: &dyn Executor, stop: &Stop) -> Result<Totals, Error> {
    let mut totals = Totals::default();
    // Server configurations that will never start, with what their last start came to.
    let mut never_start: Vec<(Server, Failure)> = Vec::new();
    let mut under_way = FuturesUnordered::new();
    let mut failed = None;
    loop {
        while failed.is_none() && !totals.stopped_by_failure && !totals.interrupted {
            let free = executor.capacity();
            let Ask::Run(block) = strategy.ask(free) else { break };
            // What is asked for and not begun is what an interruption leaves.
            if stop.level() >= StopLevel::AfterCurrent {
                totals.interrupted = true;
                break;
            }
            under_way.push(one(executor, known(block, &never_start)));
        }
        let Some((server, ended)) = under_way.next().await else { break };
        let end = match ended {
            Ok(end) => end,
            Err(error) => {
                failed.get_or_insert(error);
                continue;
            }
        };
        totals.interrupted |= end.interrupted;
        totals.stopped_by_failure |= end.stopped_by_failure;
        for (experiment, outcome) in end.outcomes {
            match &outcome {
                Outcome::Passed { .. } => totals.passed += 1,
                Outcome::Failed(_) => totals.failed += 1,
                Outcome::Interrupted => {}
            }
            strategy.tell(&Observation { experiment, outcome });
        }
        let news =
            server.zip(end.never_starts).filter(|(server, _)| !never_start.iter().any(|(known, _)| known == server));
        never_start.extend(news);
    }
    failed.map_or(Ok(totals), Err)
}

/// A server configuration, on its side of a comparison: another vLLM may start it.
type Server = (ServerConfig, Option<Side>);

fn server_of(block: &Block) -> Option<Server> {
    block.server().map(|(server, side)| (server.clone(), side))
}

/// Runs a block, which takes its place in the executor at once; says which server configuration it was.
fn one(
    executor: &dyn Executor,
    block: Block,
) -> impl Future<Output = (Option<Server>, Result<BlockEnd, Error>)> + use<'_> {
    let server = server_of(&block);
    let running = executor.run(block);
    async move { (server, running.await) }
}

/// A block with what is known of its server configuration.
fn known(block: Block, never_start: &[(Server, Failure)]) -> Block {
    let same = |((server, side), _): &&(Server, Failure)| Some((server, *side)) == block.server();
    let known_failure = never_start.iter().find(same).map(|(_, failure)| failure.clone());
    Block { known_failure, ..block }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::model::{Capacity, Cause, Engine, Experiment, Headline, Phase};
    use crate::plan::expand;
    use crate::plan::fixture::grid;
    use crate::process::{StopSender, stop_channel};
    use crate::search::Grid;

    /// Plays blocks without a process: `what` says what comes of each, after as many turns of the loop as it has experiments.
    struct Fake<W> {
        lanes: usize,
        used: Mutex<usize>,
        most: Mutex<usize>,
        seen: Mutex<Vec<(String, bool)>>,
        what: W,
    }

    impl<W: Fn(&Block) -> Result<BlockEnd, Error> + Sync> Fake<W> {
        fn new(lanes: usize, what: W) -> Self {
            Self { lanes, used: Mutex::default(), most: Mutex::default(), seen: Mutex::default(), what }
        }
    }

    impl<W: Fn(&Block) -> Result<BlockEnd, Error> + Sync + Send> Executor for Fake<W> {
        fn capacity(&self) -> Capacity {
            Capacity::blocks(self.lanes - *self.used.lock().unwrap())
        }

        fn run(&self, block: Block) -> BoxFuture<'_, Result<BlockEnd, Error>> {
            let mut used = self.used.lock().unwrap();
            *used += 1;
            assert!(*used <= self.lanes, "more than there is room for");
            let mut most = self.most.lock().unwrap();
            *most = (*most).max(*used);
            async move {
                for _ in &block.experiments {
                    tokio::task::yield_now().await;
                }
                self.seen.lock().unwrap().push((name(&block), block.known_failure.is_some()));
                *self.used.lock().unwrap() -= 1;
                (self.what)(&block)
            }
            .boxed()
        }
    }

    fn name(block: &Block) -> String {
        block.experiments[0].axes.to_string()
    }

    fn pending() -> Vec<Arc<Experiment>> {
        expand(&grid(&["m"], "1,2", Engine::Sim)).experiments.into_iter().map(Arc::new).collect()
    }

    #[expect(clippy::unnecessary_wraps, reason = "as an executor answers")]
    fn all_pass(block: &Block) -> Result<BlockEnd, Error> {
        let one = |e: &Arc<Experiment>| (Arc::clone(e), Outcome::Passed { headline: Headline::default() });
        Ok(BlockEnd { outcomes: block.experiments.iter().map(one).collect(), ..BlockEnd::default() })
    }

    fn run_on<W: Fn(&Block) -> Result<BlockEnd, Error> + Sync + Send>(
        executor: &Fake<W>,
        stop: &Stop,
    ) -> Result<Totals, Error> {
        let mut strategy = Grid::new(pending(), true, None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&mut strategy, executor, stop))
    }

    #[test]
    fn a_grid_is_measured_whole_and_in_order() {
        let executor = Fake::new(1, all_pass);
        let totals = run_on(&executor, &Stop::never()).unwrap();
        assert_eq!(totals, Totals { passed: 6, ..Totals::default() });
        let names: Vec<String> = pending().iter().map(|e| e.axes.to_string()).collect();
        assert_eq!(executor.seen.lock().unwrap().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    }

    #[test]
    fn blocks_run_beside_each_other_where_there_is_room_for_them() {
        for lanes in [1, 2, 4] {
            let executor = Fake::new(lanes, all_pass);
            assert_eq!(run_on(&executor, &Stop::never()).unwrap().passed, 6);
            assert_eq!(*executor.most.lock().unwrap(), lanes);
        }
    }

    #[test]
    fn a_server_configuration_that_never_starts_is_known_to_the_next_block() {
        let failure = Failure::plain(Cause::OutOfDeviceMemory, Phase::Launching, "no room".into());
        let fails = |block: &Block| {
            let outcomes =
                block.experiments.iter().map(|e| (Arc::clone(e), Outcome::Failed(failure.clone()))).collect();
            Ok(BlockEnd { outcomes, never_starts: Some(failure.clone()), ..BlockEnd::default() })
        };
        let executor = Fake::new(1, fails);
        let mut twice = pending();
        twice.truncate(2);
        twice.extend(twice.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut strategy = Grid::new(twice, true, None);
        let totals = runtime.block_on(run(&mut strategy, &executor, &Stop::never())).unwrap();
        assert_eq!(totals.failed, 4);
        let known: Vec<bool> = executor.seen.lock().unwrap().iter().map(|(_, known)| *known).collect();
        assert_eq!(known, [false, false, true, true]);
    }

    /// Plays blocks until the second, at which it raises the level.
    fn stops_at_the_second(sender: StopSender) -> impl Fn(&Block) -> Result<BlockEnd, Error> + Sync + Send {
        let second = pending()[1].axes.to_string();
        move |block| {
            if name(block) == second {
                sender.raise(StopLevel::AfterCurrent);
            }
            all_pass(block)
        }
    }

    #[test]
    fn a_stop_leaves_the_rest_and_says_so() {
        let (sender, stop) = stop_channel();
        let totals = run_on(&Fake::new(1, stops_at_the_second(sender)), &stop).unwrap();
        assert_eq!(totals, Totals { passed: 2, interrupted: true, ..Totals::default() });
    }

    #[test]
    fn a_stop_with_the_last_block_interrupts_nothing() {
        let (sender, stop) = stop_channel();
        let last = pending()[5].axes.to_string();
        let executor = Fake::new(1, |block: &Block| {
            if name(block) == last {
                sender.raise(StopLevel::AfterCurrent);
            }
            all_pass(block)
        });
        assert_eq!(run_on(&executor, &stop).unwrap(), Totals { passed: 6, ..Totals::default() });
    }

    #[test]
    fn a_failure_that_ends_the_run_lets_what_runs_beside_it_end() {
        let first = name(&Block::new(pending()));
        let executor = Fake::new(2, |block: &Block| {
            let end = all_pass(block)?;
            Ok(BlockEnd { stopped_by_failure: name(block) == first, ..end })
        });
        let totals = run_on(&executor, &Stop::never()).unwrap();
        let ended = executor.seen.lock().unwrap().len();
        assert_eq!(totals, Totals { passed: ended, stopped_by_failure: true, ..Totals::default() });
        assert!(ended < 6 && *executor.used.lock().unwrap() == 0, "{ended}");
    }

    #[test]
    fn an_error_of_the_tool_ends_the_run_after_what_is_under_way() {
        let first = name(&Block::new(pending()));
        let executor = Fake::new(2, |block: &Block| match name(block) == first {
            true => Err(Error::NoVllm),
            false => all_pass(block),
        });
        assert!(matches!(run_on(&executor, &Stop::never()), Err(Error::NoVllm)));
        assert!(executor.seen.lock().unwrap().len() < 6 && *executor.used.lock().unwrap() == 0);
    }
}
