//! Requests on their way from the feeder to the workers. Bounded in bytes; a worker that finds nothing is woken.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::live::Live;

/// A request that waits to be sent.
#[derive(Debug)]
pub(super) struct Work {
    pub index: u64,
    /// When it is due, in nanoseconds; `None`: as soon as a stream is free.
    pub due: Option<u64>,
    pub body: Arc<[u8]>,
    pub prompt_len: Option<u64>,
    pub output_len: Option<u64>,
    pub n: u32,
}

impl Work {
    /// Bytes that it takes while it waits.
    fn size(&self) -> usize {
        self.body.len() + 128
    }
}

/// Bytes of requests that are made before they are sent.
const MOST_BYTES: usize = 16 << 20;

/// How often whoever waits looks whether the workload is over.
const LOOK: Duration = Duration::from_millis(100);

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    most: usize,
    state: Mutex<State>,
    /// Room for more, or reason to leave.
    room: Condvar,
    /// There is enough to begin with, or there will be nothing.
    filled: Condvar,
    /// Who makes the requests: woken from its rest when one is missing.
    feeder: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Work>,
    bytes: usize,
    /// The feeder waits for room.
    full: bool,
    /// The feeder says that there is enough to begin with.
    enough: bool,
    /// Nothing more will come.
    complete: bool,
    hungry: Vec<Arc<mio::Waker>>,
}

impl State {
    fn wake(&mut self) {
        for waker in self.hungry.drain(..) {
            let _ = waker.wake();
        }
    }
}

/// What a worker finds in the queue.
#[derive(Debug)]
pub(super) enum Next {
    Work(Work),
    /// Not due before this time.
    Later(u64),
    /// The feeder is behind: a wake-up follows.
    Starved,
    /// All is sent.
    Nothing,
}

impl Default for Queue {
    fn default() -> Self {
        Self::holding(MOST_BYTES)
    }
}

impl Queue {
    fn holding(most: usize) -> Self {
        Self { most, state: Mutex::default(), room: Condvar::new(), filled: Condvar::new(), feeder: OnceLock::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread makes the requests.
    pub fn is_fed_here(&self) {
        let _ = self.feeder.set(std::thread::current());
    }

    /// Appends a request when there is room. `false`: the workload is over.
    pub fn push(&self, work: Work, live: &Live) -> bool {
        let mut state = self.state();
        if state.bytes > self.most {
            state.full = true;
            self.filled.notify_all();
        }
        while state.full && !live.is_over() {
            state = self.room.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        if live.is_over() {
            return false;
        }
        state.bytes += work.size();
        state.waiting.push_back(work);
        state.wake();
        true
    }

    /// There is enough to begin with.
    pub fn is_enough(&self) {
        self.state().enough = true;
        self.filled.notify_all();
    }

    /// Nothing more will come.
    pub fn complete(&self) {
        let mut state = self.state();
        state.complete = true;
        state.wake();
        self.filled.notify_all();
    }

    /// Waits until there is enough to begin with, or all there is, or as much as may wait. `false`: that took too long.
    pub fn wait_filled(&self, live: &Live, until: Option<Instant>) -> bool {
        let mut state = self.state();
        while !state.enough && !state.complete && state.bytes <= self.most && !live.is_over() {
            if until.is_some_and(|until| Instant::now() >= until) {
                return false;
            }
            state = self.filled.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The next request, if it is due at `now` or before; whoever finds none that will come is woken by `waker` for it.
    pub fn next(&self, now: u64, waker: &Arc<mio::Waker>) -> Next {
        let mut state = self.state();
        match state.waiting.front().map(|work| work.due) {
            Some(Some(due)) if due > now => return Next::Later(due),
            Some(_) => {}
            None if state.complete => return Next::Nothing,
            None => {
                state.hungry.push(Arc::clone(waker));
                self.feeder.get().inspect(|feeder| feeder.unpark());
                return Next::Starved;
            }
        }
        let Some(work) = state.waiting.pop_front() else { return Next::Nothing };
        state.bytes = state.bytes.saturating_sub(work.size());
        // Woken for each request alone the feeder would be a second workload.
        if state.full && state.bytes <= self.most / 2 {
            state.full = false;
            self.room.notify_one();
        }
        Next::Work(work)
    }

    /// Whether somebody waits for a request that is not made yet.
    pub fn is_starved(&self) -> bool {
        !self.state().hungry.is_empty()
    }

    /// Takes out what nobody sent.
    pub fn left(&self) -> Vec<Work> {
        self.state().waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll, Token, Waker};

    use super::*;

    /// A worker as far as the queue sees it.
    struct Sleeper {
        poll: Poll,
        waker: Arc<Waker>,
    }

    impl Sleeper {
        fn new() -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            Self { poll, waker }
        }

        fn was_woken(&mut self) -> bool {
            let mut events = Events::with_capacity(4);
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            !events.is_empty()
        }
    }

    fn work(index: u64, due: Option<u64>) -> Work {
        Work { index, due, body: vec![b'x'; 72].into(), prompt_len: None, output_len: None, n: 1 }
    }

    fn index(next: Next) -> u64 {
        match next {
            Next::Work(work) => work.index,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_come_in_order_and_not_before_they_are_due() {
        let (queue, live, sleeper) = (Queue::default(), Live::default(), Sleeper::new());
        for (number, due) in [None, Some(5), Some(9)].into_iter().enumerate() {
            assert!(queue.push(work(number as u64, due), &live));
        }
        assert_eq!(index(queue.next(0, &sleeper.waker)), 0);
        assert!(matches!(queue.next(4, &sleeper.waker), Next::Later(5)));
        assert_eq!(index(queue.next(5, &sleeper.waker)), 1);
        assert!(matches!(queue.next(5, &sleeper.waker), Next::Later(9)));
        assert_eq!(queue.left().len(), 1);
    }

    #[test]
    fn who_finds_nothing_is_woken_by_the_next_request_and_by_the_end() {
        let (queue, live, mut sleeper) = (Queue::default(), Live::default(), Sleeper::new());
        assert!(matches!(queue.next(0, &sleeper.waker), Next::Starved));
        assert!(!sleeper.was_woken());
        queue.push(work(0, None), &live);
        assert!(sleeper.was_woken());
        assert_eq!(index(queue.next(0, &sleeper.waker)), 0);
        assert!(matches!(queue.next(0, &sleeper.waker), Next::Starved));
        queue.complete();
        assert!(sleeper.was_woken());
        assert!(matches!(queue.next(0, &sleeper.waker), Next::Nothing));
        // Who asked and did not sleep is not woken again.
        queue.push(work(1, None), &live);
        assert!(!sleeper.was_woken());
    }

    #[test]
    fn a_full_queue_holds_the_feeder_until_half_of_it_is_taken() {
        let (queue, live, sleeper) = (Queue::holding(1000), Live::default(), Sleeper::new());
        std::thread::scope(|scope| {
            let feeder = scope.spawn(|| (0..50).all(|number| queue.push(work(number, None), &live)));
            assert!(queue.wait_filled(&live, None));
            for number in 0..50 {
                let next = loop {
                    match queue.next(0, &sleeper.waker) {
                        Next::Starved => std::thread::yield_now(),
                        next => break next,
                    }
                };
                assert_eq!(index(next), number);
                // Each takes 200 bytes, and one that was let in may be too much.
                assert!(queue.state().bytes <= 1200);
            }
            assert!(feeder.join().unwrap());
        });
    }

    #[test]
    fn nobody_waits_for_a_workload_that_is_over() {
        let (queue, live) = (Queue::holding(100), Live::default());
        assert!(queue.push(work(0, None), &live));
        live.stop(2);
        assert!(!queue.push(work(1, None), &live));
        let empty = Queue::default();
        assert!(empty.wait_filled(&live, None));
    }

    #[test]
    fn the_beginning_waits_for_enough_for_all_or_for_as_much_as_may_wait() {
        let (live, past) = (Live::default(), Some(Instant::now()));
        let with = |number: u64, most: usize| {
            let queue = Queue::holding(most);
            assert!((0..number).all(|number| queue.push(work(number, None), &live)));
            queue
        };
        assert!(!with(3, 1000).wait_filled(&live, past), "more may come");
        let (enough, all) = (with(3, 1000), with(3, 1000));
        enough.is_enough();
        all.complete();
        for queue in [enough, all, with(6, 1000)] {
            assert!(queue.wait_filled(&live, past));
        }
    }
}
