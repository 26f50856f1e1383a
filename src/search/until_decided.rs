//! Starts are added to configurations that may still be the best, until the answer is decided.

use std::collections::HashSet;
use std::sync::Arc;

use super::queue::{Packing, Queue};
use super::{Ask, Observation, Strategy};
use crate::model::{Capacity, Experiment, Identity, UntilDecided};
use crate::plan::blocks;

/// What the results so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The settings that need another start; none where it is decided.
    pub undecided: Vec<Identity>,
    /// What was found, for the user.
    pub why: String,
}

/// Looks at the results, by the statistics of every answer.
pub trait Judge: Send {
    /// What they say once every configuration that is asked for has so many starts.
    fn judge(&mut self, starts: u32) -> Verdict;

    /// These are to be measured next.
    fn planned(&mut self, experiments: &[Arc<Experiment>], why: &str);

    /// Nothing is measured any more.
    fn ended(&mut self, why: &str);
}

/// The second strategy.
pub struct AddStarts<J> {
    /// Everything that may be measured.
    space: Vec<Arc<Experiment>>,
    /// What needs no measurement: it has a valid result, or is left alone.
    settled: HashSet<String>,
    reuse: bool,
    max: u32,
    judge: J,
    /// Starts of each that were asked for.
    starts: u32,
    queue: Queue,
    /// Experiments that are under way.
    open: usize,
    is_done: bool,
}

impl<J> std::fmt::Debug for AddStarts<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddStarts").field("starts", &self.starts).field("open", &self.open).finish_non_exhaustive()
    }
}

impl<J: Judge> AddStarts<J> {
    /// For all that may be measured. `asked`: names that an earlier session was asked for; none at the beginning. `settled`: names that
    /// need no measurement.
    pub fn new(
        space: Vec<Arc<Experiment>>,
        until: UntilDecided,
        asked: &HashSet<String>,
        settled: HashSet<String>,
        (reuse, packing): (bool, Option<Packing>),
        judge: J,
    ) -> Self {
        let UntilDecided { first, max } = until;
        let queue = Queue::new(packing);
        let mut new = Self { space, settled, reuse, max, judge, starts: first, queue, open: 0, is_done: false };
        if asked.is_empty() {
            let all = |e: &Experiment| e.repeat.start <= first;
            new.plan(all, &format!("{first} starts of each configuration come first"));
        } else {
            let again = new.space.iter().filter(|e| asked.contains(&e.name)).cloned().collect::<Vec<_>>();
            new.starts = again.iter().map(|e| e.repeat.start).max().unwrap_or(first);
            new.queue(again);
        }
        new
    }

    /// Asks for some of what may be measured.
    fn plan(&mut self, which: impl Fn(&Experiment) -> bool, why: &str) {
        let chosen: Vec<Arc<Experiment>> = self.space.iter().filter(|e| which(e)).cloned().collect();
        self.judge.planned(&chosen, why);
        self.queue(chosen);
    }

    fn queue(&mut self, experiments: Vec<Arc<Experiment>>) {
        let open = experiments.into_iter().filter(|e| !self.settled.contains(&e.name));
        let blocks = blocks(open, self.reuse);
        self.queue.fill(blocks);
    }

    /// All that was asked for is measured: what comes next.
    fn look(&mut self) {
        let Verdict { undecided, why } = self.judge.judge(self.starts);
        if undecided.is_empty() || self.starts >= self.max {
            self.is_done = true;
            self.judge.ended(&why);
            return;
        }
        self.starts += 1;
        let start = self.starts;
        self.plan(|e| e.repeat.start == start && undecided.contains(&e.identity), &why);
    }
}

impl<J: Judge> Strategy for AddStarts<J> {
    fn ask(&mut self, free: Capacity) -> Ask {
        loop {
            if self.is_done {
                return Ask::Done;
            }
            if let Some(block) = self.queue.next(free) {
                self.open += block.experiments.len();
                return Ask::Run(block);
            }
            if !self.queue.is_empty() || self.open > 0 {
                return Ask::Wait;
            }
            self.look();
        }
    }

    fn tell(&mut self, seen: &Observation) {
        self.open = self.open.saturating_sub(1);
        self.queue.ended(&seen.experiment);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::model::{Engine, Headline, Outcome};
    use crate::plan::fixture::grid;
    use crate::plan::{Order, Repeats, Sweep, expand};

    /// Says what is undecided after so many starts, by the places of the configurations.
    #[derive(Clone)]
    struct Script {
        undecided: Vec<(u32, Vec<usize>)>,
        identities: Vec<Identity>,
        said: Arc<Mutex<Vec<String>>>,
    }

    impl Judge for Script {
        fn judge(&mut self, starts: u32) -> Verdict {
            let places = self.undecided.iter().find(|(at, _)| *at == starts).map(|(_, places)| places.as_slice());
            let undecided = places.unwrap_or_default().iter().map(|place| self.identities[*place].clone()).collect();
            Verdict { undecided, why: format!("after {starts}") }
        }

        fn planned(&mut self, experiments: &[Arc<Experiment>], why: &str) {
            self.said.lock().unwrap().push(format!("{} {why}", experiments.len()));
        }

        fn ended(&mut self, why: &str) {
            self.said.lock().unwrap().push(format!("ended {why}"));
        }
    }

    /// Three configurations, at most 5 starts of each.
    fn space() -> Vec<Arc<Experiment>> {
        let sweep = Sweep {
            repeats: Repeats { runs: 1, starts: 5, auto: true },
            order: Order::Interleaved,
            ..grid(&["m"], "1", Engine::Sim)
        };
        expand(&sweep).experiments.into_iter().map(Arc::new).collect()
    }

    fn script(undecided: &[(u32, &[usize])]) -> Script {
        Script {
            undecided: undecided.iter().map(|(at, places)| (*at, places.to_vec())).collect(),
            identities: space().iter().take(3).map(|e| e.identity.clone()).collect(),
            said: Arc::default(),
        }
    }

    const UNTIL: UntilDecided = UntilDecided { first: 3, max: 5 };

    fn strategy(script: &Script, asked: &[&str], settled: &[&str]) -> AddStarts<Script> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        AddStarts::new(space(), UNTIL, &names(asked), names(settled), (true, None), script.clone())
    }

    fn passed(experiment: &Arc<Experiment>) -> Observation {
        let outcome = Outcome::Passed { headline: Headline::default() };
        Observation { experiment: Arc::clone(experiment), outcome }
    }

    /// Measures until it is done; the places and starts of what was measured, by start: `012 012 012 01`.
    fn play(strategy: &mut AddStarts<Script>) -> String {
        let identities: Vec<Identity> = space().iter().take(3).map(|e| e.identity.clone()).collect();
        let (mut words, mut last) = (String::new(), 0);
        while let Ask::Run(block) = strategy.ask(Capacity::blocks(1)) {
            for experiment in &block.experiments {
                if last != 0 && experiment.repeat.start != last {
                    words.push(' ');
                }
                last = experiment.repeat.start;
                words += &identities.iter().position(|i| *i == experiment.identity).unwrap().to_string();
                strategy.tell(&passed(experiment));
            }
        }
        assert_eq!(strategy.ask(Capacity::blocks(1)), Ask::Done);
        words
    }

    #[test]
    fn what_is_decided_after_the_first_starts_ends() {
        let script = script(&[]);
        assert_eq!(play(&mut strategy(&script, &[], &[])), "012 012 012");
        assert_eq!(*script.said.lock().unwrap(), ["9 3 starts of each configuration come first", "ended after 3"]);
    }

    #[test]
    fn only_what_may_be_the_best_gets_another_start() {
        let script = script(&[(3, &[0, 2]), (4, &[2])]);
        assert_eq!(play(&mut strategy(&script, &[], &[])), "012 012 012 02 2");
        assert_eq!(script.said.lock().unwrap()[1..], ["2 after 3", "1 after 4", "ended after 5"]);
    }

    #[test]
    fn it_ends_at_the_most_starts() {
        let script = script(&[(3, &[0, 1]), (4, &[0, 1]), (5, &[0, 1])]);
        assert_eq!(play(&mut strategy(&script, &[], &[])), "012 012 012 01 01");
    }

    #[test]
    fn nothing_is_judged_before_all_is_measured() {
        let mut strategy = strategy(&script(&[]), &[], &[]);
        let free = Capacity::blocks(9);
        let mut open = Vec::new();
        while let Ask::Run(block) = strategy.ask(free) {
            open.extend(block.experiments);
        }
        assert_eq!((open.len(), strategy.ask(free)), (9, Ask::Wait));
        open.iter().take(8).for_each(|e| strategy.tell(&passed(e)));
        assert_eq!(strategy.ask(free), Ask::Wait);
        strategy.tell(&passed(&open[8]));
        assert_eq!(strategy.ask(free), Ask::Done);
    }

    #[test]
    fn a_resume_goes_on_where_it_was() {
        let all = space();
        let fourth = |place: usize| {
            let identity = &all[place].identity;
            all.iter().find(|e| e.repeat.start == 4 && e.identity == *identity).unwrap().name.clone()
        };
        let mut asked: Vec<String> = all.iter().filter(|e| e.repeat.start <= 3).map(|e| e.name.clone()).collect();
        let settled = asked.clone();
        asked.extend([fourth(0), fourth(2)]);
        let names = |names: &[String]| names.iter().cloned().collect::<HashSet<_>>();
        // The fourth start of the first configuration was measured before the interruption.
        let mut done = names(&settled);
        done.insert(fourth(0));
        let script = script(&[(4, &[2])]);
        let mut strategy = AddStarts::new(space(), UNTIL, &names(&asked), done, (true, None), script.clone());
        assert_eq!(play(&mut strategy), "2 2");
        assert_eq!(script.said.lock().unwrap()[..], ["1 after 4", "ended after 5"]);
    }

    #[test]
    fn without_room_it_waits() {
        let mut strategy = strategy(&script(&[]), &[], &[]);
        assert_eq!(strategy.ask(Capacity::blocks(0)), Ask::Wait);
    }
}
