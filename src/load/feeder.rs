//! Makes requests ahead of their sending, in a thread of its own.

use std::time::{Duration, Instant};

use super::arrival::{Arrival, Schedule};
use super::dataset;
use super::prompt::PromptSource;
use super::queue::{Queue, Work};
use super::session::{Error, Shared, Spec};

/// Before a workload that follows the clock begins, the requests of its first second are made, in nanoseconds.
const LEAD: u64 = 1_000_000_000;
/// And they are made so many times as fast as they are due; else all of them are waited for.
const HEADROOM: u64 = 2;

/// While every stream is busy, the next requests are made for so long at a time, ...
const SHIFT: Duration = Duration::from_millis(1);
/// ... with so many times as long a rest in between, which ends when a stream finds no request: at full speed it takes the processors
/// away from streams that have just begun, and their first tokens are seen late.
const REST: u32 = 9;
/// Requests of as many streams as there are can be made so beside the measurement if the fastest answers take this long, in
/// nanoseconds. Else all streams ask for the next ones at the same time, and their making is seen in every TTFT: on two cores, 1,000
/// streams whose answers take 0.37 s, 48 ms in place of 11 (`scripts/clients.py`). They are made before the first is sent then, ...
const SHORTEST: u64 = 200_000_000;
/// ... for so long at most, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// When enough requests are made for the first to be sent, so that making the others delays none: where each waits for a
/// free stream, those that start at once, if the next ones can be made beside them; where they follow the clock, those of the first
/// second, if making them is much faster than sending them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ahead {
    /// Requests that start at once.
    at_once: u64,
}

impl Ahead {
    fn of(spec: &Spec) -> Self {
        let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        Self { at_once: most(spec.max_concurrency).min(most(spec.requests)) }
    }

    /// `made`: requests so far; `due`: when the last of them is; `spent`: how long making them took. In nanoseconds.
    fn is_enough(self, made: u64, due: Option<u64>, spent: u64) -> bool {
        match due {
            None => made >= self.at_once && (self.keeps_up(made, spent) || spent >= PATIENCE),
            Some(due) => due >= LEAD && due >= spent.saturating_mul(HEADROOM),
        }
    }

    /// Whether the next request of each stream is made before it is asked for, at the part of the time that making gets.
    fn keeps_up(self, made: u64, spent: u64) -> bool {
        let one = spent / made.max(1);
        one.saturating_mul(self.at_once).saturating_mul(u64::from(REST) + 1) <= SHORTEST
    }
}

/// Makes the requests of a workload, to its end.
///
/// # Errors
/// When a prompt cannot be made; the workload is ended then.
pub(super) fn feed(shared: &Shared, source: &dyn PromptSource) -> Result<(), Error> {
    let made = make(shared, source);
    shared.queues.iter().for_each(Queue::complete);
    if made.is_err() {
        shared.live.abort();
    }
    made.map_err(|(number, source)| Error::Prompts { number, source })
}

fn make(shared: &Shared, source: &dyn PromptSource) -> Result<(), (u64, dataset::Error)> {
    let spec = &shared.spec;
    let mut schedule = match spec.arrival {
        Arrival::Open { rate, burstiness, ramp_up } => {
            Some(Schedule::new(spec.requests, rate, burstiness, ramp_up, spec.seed))
        }
        _ => None,
    };
    shared.queues.iter().for_each(Queue::is_fed_here);
    let (ahead, began, mut has_begun) = (Ahead::of(spec), Instant::now(), false);
    let mut working = began;
    for index in 0..spec.requests.unwrap_or(u64::MAX) {
        if shared.live.is_over() {
            return Ok(());
        }
        let due = schedule.as_mut().and_then(Iterator::next).map(|seconds| (seconds * 1e9) as u64);
        // A workload that is limited in time is over when the next request is due too late; a closed one ends at the workers.
        if let (Some(due), Some(duration)) = (due, spec.duration)
            && u128::from(due) >= duration.as_nanos()
        {
            return Ok(());
        }
        let number = spec.first_prompt + index;
        // A workload that is limited in time ends with its prompts, if they are fewer.
        if spec.requests.is_none() && source.available().is_some_and(|all| number >= all) {
            return Ok(());
        }
        let prompt = source.prompt(number).map_err(|error| (number, error))?;
        let n = spec.samples_of(index);
        let body = shared.writer.body(index, &prompt, n).into();
        let output_len = spec.form.output_len(prompt.output_len);
        let work = Work { index, due, body, prompt_len: prompt.prompt_len, output_len, n: spec.form.samples(n) };
        let queue = (index % shared.queues.len() as u64) as usize;
        if !shared.queues[queue].push(work, &shared.live) {
            return Ok(());
        }
        if !has_begun {
            let spent = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            has_begun = ahead.is_enough(index + 1, due, spent);
            if has_begun {
                give_way();
                shared.queues.iter().for_each(Queue::is_enough);
                working = Instant::now();
            }
        } else if due.is_none() && working.elapsed() >= SHIFT {
            if !shared.queues.iter().any(Queue::is_starved) {
                std::thread::park_timeout(SHIFT * REST);
            }
            working = Instant::now();
        }
    }
    Ok(())
}

/// Lets the workers go first from now on: this thread takes what they and the server leave. Both this and the rest in between are for
/// what is seen of first tokens while it runs (`scripts/clients.py`, 1,000 streams on two cores: 5 ms late without them).
fn give_way() {
    // Where it may not, the workload is measured all the same.
    let _ = rustix::process::nice(10);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::live::Live;
    use super::super::prompt::{Content, Prompt};
    use super::super::session::tests::spec;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Prompts whose text is their number; the last one cannot be made.
    #[derive(Debug)]
    struct Numbers {
        available: Option<u64>,
        broken: u64,
    }

    impl PromptSource for Numbers {
        fn available(&self) -> Option<u64> {
            self.available
        }

        fn prompt(&self, index: u64) -> Result<Prompt, dataset::Error> {
            if index == self.broken {
                return Err(dataset::Error::Needs { what: "the number", needs: "something".into() });
            }
            let content = Content::Text(index.to_string());
            Ok(Prompt { content, prompt_len: Some(1), output_len: Some(4), id: None })
        }
    }

    const ALL: Numbers = Numbers { available: None, broken: u64::MAX };

    fn fed(spec: Spec, threads: usize, source: &Numbers) -> (Result<(), Error>, Vec<Vec<Work>>, Arc<Live>) {
        let shared = Shared::new(spec, None, Arc::default(), threads);
        let result = feed(&shared, source);
        let left = shared.queues.iter().map(Queue::left).collect();
        (result, left, shared.live)
    }

    fn numbers(works: &[Work]) -> Vec<u64> {
        works.iter().map(|work| work.index).collect()
    }

    #[test]
    fn requests_that_start_at_once_are_made_before_the_first_is_sent() {
        let ahead = |max_concurrency, requests| Ahead::of(&Spec { max_concurrency, requests, ..spec() });
        let streams = ahead(Some(4), Some(100));
        assert_eq!((streams.is_enough(3, None, 0), streams.is_enough(4, None, 0)), (false, true));
        assert!(ahead(Some(40), Some(3)).is_enough(3, None, SECOND), "there are no more");
        assert!(!ahead(None, Some(100)).is_enough(99, None, SECOND), "all start at once");
        assert!(!ahead(None, None).is_enough(1 << 40, None, SECOND), "nobody knows how many");
    }

    #[test]
    fn many_streams_have_their_next_requests_made_before_they_begin() {
        let ahead = Ahead::of(&Spec { max_concurrency: Some(1000), requests: Some(3000), ..spec() });
        // 0.2 ms each: 2 s for the next of all streams, beside them.
        assert!(!ahead.is_enough(1000, None, SECOND / 5));
        // No longer than a second.
        assert!(ahead.is_enough(5000, None, SECOND));
        // 0.02 ms each: 0.2 s.
        assert!(ahead.is_enough(1000, None, SECOND / 50));
        let few = Ahead { at_once: 10 };
        assert!(few.is_enough(10, None, SECOND / 500), "the same 0.2 ms, but ten streams alone");
    }

    #[test]
    fn requests_that_follow_the_clock_are_a_second_ahead_and_made_faster_than_they_are_due() {
        let ahead = Ahead::of(&spec());
        for (due, spent, enough) in [
            (SECOND - 1, 0, false),
            (SECOND, SECOND / 10, true),
            (SECOND, SECOND / 2, true),
            // Sending would catch up with making: all are waited for.
            (SECOND, SECOND / 2 + 1, false),
            (5 * SECOND, 4 * SECOND, false),
        ] {
            assert_eq!(ahead.is_enough(1, Some(due), spent), enough, "due at {due} after {spent}");
        }
    }

    #[test]
    fn prompts_begin_where_they_are_to_begin_and_each_request_has_its_own() {
        let (result, left, _) = fed(Spec { requests: Some(3), first_prompt: 7, ..spec() }, 1, &ALL);
        assert!(result.is_ok());
        assert_eq!(numbers(&left[0]), [0, 1, 2]);
        let body = String::from_utf8_lossy(&left[0][2].body).into_owned();
        assert!(body.contains("\"prompt\":\"9\""), "{body}");
        assert_eq!((left[0][0].due, left[0][0].output_len, left[0][0].n), (None, Some(4), 1));
    }

    #[test]
    fn requests_that_follow_the_clock_go_round_the_threads_until_their_time_is_over() {
        let open = Spec {
            arrival: Arrival::Open { rate: 10.0, burstiness: f64::INFINITY, ramp_up: None },
            requests: None,
            duration: Some(Duration::from_millis(650)),
            ..spec()
        };
        let (result, left, _) = fed(open.clone(), 2, &ALL);
        assert!(result.is_ok());
        assert_eq!((numbers(&left[0]), numbers(&left[1])), (vec![0, 2, 4], vec![1, 3, 5]));
        let due: Vec<u64> = left[0].iter().filter_map(|work| work.due).map(|due| due / 1_000_000).collect();
        assert_eq!(due, [100, 300, 500]);
        // Or until there are no more prompts.
        let (result, left, _) = fed(open, 1, &Numbers { available: Some(2), ..ALL });
        assert!(result.is_ok());
        assert_eq!(numbers(&left[0]), [0, 1]);
    }

    #[test]
    fn a_prompt_that_cannot_be_made_ends_the_workload_and_is_named() {
        let (result, left, live) = fed(Spec { first_prompt: 3, ..spec() }, 1, &Numbers { broken: 5, ..ALL });
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Prompts { number: 5, .. }), "{error:?}");
        assert_eq!(numbers(&left[0]), [0, 1]);
        assert!(live.is_over());
    }

    #[test]
    fn nothing_is_made_for_a_workload_that_is_over() {
        let shared = Shared::new(spec(), None, Arc::default(), 1);
        shared.live.stop(15);
        assert!(feed(&shared, &ALL).is_ok());
        assert!(shared.queues[0].left().is_empty());
    }
}
