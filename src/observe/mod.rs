//! The event bus: one stamped stream of what happens in a run.
//!
//! The journal is written first, and is the only subscriber whose failure ends the run. Who shows the run in this very process is called
//! next, in order. All others have a thread and a queue of their own: one that fails, or is slow, or never comes back, loses events and
//! disturbs nobody.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use chrono_tz::Tz;

use crate::model::{Event, Stamped};
use crate::record::{Error, Journal, SCHEMA};

/// The newest line of a server's log, or of how far a client is, goes to the journal at most so often: it is there for `status`, which
/// reads all of it.
const PROGRESS_EVERY: Duration = Duration::from_secs(3);
/// Events that wait for a subscriber, at most.
const QUEUE: usize = 4096;
/// How long the end of a run waits for subscribers that still have events.
const PATIENCE: Duration = Duration::from_secs(2);

/// Gets every event of a session, in order.
pub trait Observer: Send {
    /// Something happened.
    ///
    /// # Errors
    /// In words, when it cannot go on: it gets no further event.
    fn on(&mut self, stamped: &Stamped) -> Result<(), String>;
}

/// An observer with a thread of its own.
#[derive(Debug)]
struct Subscriber {
    name: String,
    queue: SyncSender<Arc<Stamped>>,
    ended: Receiver<Result<(), String>>,
    /// Events for which its queue had no room.
    lost: u64,
}

/// Passes events on.
pub struct Bus {
    journal: Journal,
    zone: Tz,
    next: u64,
    progress_at: Option<Instant>,
    shown: Vec<Box<dyn Observer>>,
    subscribers: Vec<Subscriber>,
}

impl Bus {
    /// A bus into a journal, which may have events of earlier sessions.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn new(journal: Journal, zone: Tz) -> Result<Self, Error> {
        let next = journal.next_seq()?;
        Ok(Self { journal, zone, next, progress_at: None, shown: Vec::new(), subscribers: Vec::new() })
    }

    /// Adds who shows the run: it is called at once, and must come back at once.
    pub fn show_on(&mut self, observer: impl Observer + 'static) {
        self.shown.push(Box::new(observer));
    }

    /// Adds any other observer, on a thread of its own.
    pub fn subscribe(&mut self, name: &str, mut observer: impl Observer + 'static) {
        let (queue, events) = sync_channel::<Arc<Stamped>>(QUEUE);
        let (end, ended) = channel();
        std::thread::spawn(move || {
            let outcome = events.iter().try_for_each(|stamped| observer.on(&stamped));
            // Nobody listens where the run did not wait.
            let _ = end.send(outcome);
        });
        self.subscribers.push(Subscriber { name: name.to_owned(), queue, ended, lost: 0 });
    }

    /// Passes an event on; into the journal only where that `is_kept`.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn publish(&mut self, event: &Event, is_kept: bool) -> Result<(), Error> {
        let at = Utc::now().with_timezone(&self.zone).to_rfc3339_opts(SecondsFormat::Millis, false);
        let stamped = Arc::new(Stamped { v: SCHEMA, seq: self.next, at, event: event.clone() });
        self.next = self.next.saturating_add(1);
        let written = if is_kept && self.is_due(event) { self.journal.append(&stamped) } else { Ok(()) };
        for observer in &mut self.shown {
            // A terminal that is gone is no reason to end a run.
            let _ = observer.on(&stamped);
        }
        for subscriber in &mut self.subscribers {
            if let Err(TrySendError::Full(_)) = subscriber.queue.try_send(Arc::clone(&stamped)) {
                subscriber.lost += 1;
            }
        }
        written
    }

    fn is_due(&mut self, event: &Event) -> bool {
        if !matches!(event, Event::Progress { .. }) {
            return true;
        }
        let is_due = self.progress_at.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
        if is_due {
            self.progress_at = Some(Instant::now());
        }
        is_due
    }

    /// Ends the stream: subscribers get what waits for them, within a limit. What one of them lost, or why it ended, in words.
    pub fn close(&mut self) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        // All queues end before anybody is waited for.
        let ending = std::mem::take(&mut self.subscribers).into_iter();
        let ending: Vec<_> = ending.map(|Subscriber { name, ended, lost, .. }| (name, ended, lost)).collect();
        let end = |(name, ended, lost): (String, Receiver<Result<(), String>>, u64)| {
            let words = match ended.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Ok(())) if lost == 0 => return None,
                Ok(Ok(())) => format!("{name} was too slow: it lost {lost} events"),
                Ok(Err(error)) => format!("{name} ended early: {error}"),
                Err(_) => format!("{name} does not come to an end: it may lack events"),
            };
            Some(words)
        };
        ending.into_iter().filter_map(end).collect()
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("next", &self.next).field("subscribers", &self.subscribers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::read_journal;

    fn bus(dir: &std::path::Path) -> Bus {
        Bus::new(Journal::open(&dir.join("journal.jsonl")).unwrap(), chrono_tz::UTC).unwrap()
    }

    fn notice(text: &str) -> Event {
        Event::Notice { text: text.into() }
    }

    /// A subscriber: what it gets goes to a channel.
    struct Into(std::sync::mpsc::Sender<Stamped>);

    impl Observer for Into {
        fn on(&mut self, stamped: &Stamped) -> Result<(), String> {
            self.0.send(stamped.clone()).map_err(|error| error.to_string())
        }
    }

    /// One that fails at its first event, or never comes back from it.
    struct Bad {
        blocks: bool,
    }

    impl Observer for Bad {
        fn on(&mut self, _: &Stamped) -> Result<(), String> {
            if !self.blocks {
                return Err("no".into());
            }
            loop {
                std::thread::park();
            }
        }
    }

    #[test]
    fn a_subscriber_gets_the_whole_run_beside_one_that_fails_and_one_that_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, seen) = channel();
        let mut bus = bus(dir.path());
        bus.subscribe("the one that fails", Bad { blocks: false });
        bus.subscribe("the one that blocks", Bad { blocks: true });
        bus.subscribe("the good one", Into(sender));
        for i in 0..100 {
            bus.publish(&notice(&i.to_string()), true).unwrap();
        }
        let mut said = bus.close();
        said.sort();
        assert_eq!(
            said,
            ["the one that blocks does not come to an end: it may lack events", "the one that fails ended early: no"]
        );
        let seen: Vec<Stamped> = seen.iter().collect();
        assert_eq!(seen.iter().map(|stamped| stamped.seq).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
        assert_eq!(read_journal(&dir.path().join("journal.jsonl")).unwrap().entries, seen);
    }

    #[test]
    fn the_last_number_there_is_ends_no_run() {
        let dir = tempfile::tempdir().unwrap();
        bus(dir.path()).publish(&notice("x"), true).unwrap();
        let path = dir.path().join("journal.jsonl");
        let edited = std::fs::read_to_string(&path).unwrap().replace("\"seq\":1,", &format!("\"seq\":{},", u64::MAX));
        std::fs::write(&path, edited).unwrap();
        let mut bus = bus(dir.path());
        bus.publish(&notice("y"), true).unwrap();
        bus.publish(&notice("z"), true).unwrap();
        assert_eq!(read_journal(&path).unwrap().entries.last().map(|entry| entry.seq), Some(u64::MAX));
    }

    #[test]
    fn numbers_go_on_in_the_next_session_and_what_the_journal_leaves_out_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let progress = Event::Progress { name: "a".into(), line: "x".into() };
        for _ in 0..2 {
            let (sender, seen) = channel();
            let mut bus = bus(dir.path());
            bus.show_on(Into(sender));
            for event in [&progress, &progress, &notice("kept")] {
                bus.publish(event, true).unwrap();
            }
            bus.publish(&notice("shown alone"), false).unwrap();
            assert_eq!(seen.try_iter().count(), 4);
        }
        let numbers: Vec<u64> =
            read_journal(&dir.path().join("journal.jsonl")).unwrap().entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(numbers, [1, 3, 4, 6]);
    }
}
