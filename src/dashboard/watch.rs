//! Runs that somebody watches: each is read once, however many watch it, and no more often than its reading is cheap.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::source::{Answer, Look, Row, Run, Source};
use crate::model::{Event, Stamped};

/// A run is read at most so often, ...
const LOOK: Duration = Duration::from_millis(400);
/// ... and this long after the last time it is read again, whatever that cost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The same for the answer.
const ANSWER_AGAIN: Duration = Duration::from_secs(120);
/// Reading may take this part of one processor, ...
const SHARE: u32 = 10;
/// ... and computing the answer this.
const ANSWER_SHARE: u32 = 20;
/// Runs that are kept open, at most.
const KEPT: usize = 16;

/// All runs that somebody has asked for.
#[derive(Default)]
pub(super) struct Hub {
    runs: Mutex<HashMap<String, Arc<Watched>>>,
}

impl Hub {
    /// A run by its path; `None` where there is none.
    pub fn run(&self, source: &dyn Source, path: &str) -> Option<Arc<Watched>> {
        let mut runs = lock(&self.runs);
        if let Some(known) = runs.get(path) {
            return Some(Arc::clone(known));
        }
        let opened = Arc::new(Watched::new(source.open(path)?));
        if runs.len() >= KEPT {
            // Those that nobody holds; a stream holds what it shows.
            runs.retain(|_, watched| Arc::strong_count(watched) > 1);
        }
        runs.insert(path.to_owned(), Arc::clone(&opened));
        Some(opened)
    }
}

/// One run.
pub(super) struct Watched {
    inner: Mutex<Inner>,
    answer: Mutex<Answered>,
}

struct Inner {
    run: Box<dyn Run>,
    look: Result<Look, String>,
    /// When each row changed last, in versions.
    changed: Vec<u64>,
    version: u64,
    /// When it was read last, and what that cost.
    looked: Option<(Instant, Duration)>,
}

/// The newest answer.
#[derive(Default)]
struct Answered {
    /// What the results were when it was computed.
    of: Option<(usize, bool)>,
    computed: Option<(Instant, Duration)>,
    version: u64,
    answer: Arc<Answer>,
}

/// What is new for one who watches.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct News {
    /// Rows that changed.
    pub rows: Vec<Row>,
    /// How many entries of the journal these rows take into account: the number of the event.
    pub entries: usize,
    /// As [`Look::status`]; an error in words.
    pub status: Result<Value, String>,
    /// Where the next news begin.
    pub version: u64,
}

impl Watched {
    fn new(run: Box<dyn Run>) -> Self {
        let look = Err("it was not read yet".to_owned());
        let inner = Inner { run, look, changed: Vec::new(), version: 0, looked: None };
        Self { inner: Mutex::new(inner), answer: Mutex::default() }
    }

    /// The news since a version; everything since none.
    pub fn news(&self, since: Option<u64>) -> News {
        let mut inner = lock(&self.inner);
        inner.refresh();
        let since = since.unwrap_or_default();
        inner.news(|_, changed| changed > since)
    }

    /// The news since an event, by the number of entries that it had: those of a stream that was cut off, perhaps that of another process.
    pub fn news_after(&self, entries: usize) -> News {
        let mut inner = lock(&self.inner);
        inner.refresh();
        let touched = (!inner.run.is_merged()).then(|| touched_after(inner.run.entries(), entries)).flatten();
        match touched {
            Some(touched) => inner.news(|row, _| touched.contains(row.name.as_str())),
            None => inner.news(|_, _| true),
        }
    }

    /// Lets the next look be a new one, however short ago the last was.
    pub fn look_again(&self) {
        lock(&self.inner).looked = None;
    }

    /// How it stands, with its journal.
    pub fn with<T>(&self, read: impl FnOnce(&Look, &[Stamped]) -> T) -> Result<T, String> {
        let mut inner = lock(&self.inner);
        inner.refresh();
        let look = inner.look.as_ref().map_err(Clone::clone)?;
        Ok(read(look, inner.run.entries()))
    }

    /// The last lines of a log.
    pub fn log(&self, experiment: &str, server: bool) -> Result<(String, Vec<String>), String> {
        let mut inner = lock(&self.inner);
        inner.refresh();
        inner.run.log(experiment, server)
    }

    /// The newest answer, with its version; computed again where the results have changed, unless that is being done, or was done a
    /// moment ago.
    pub fn answer(&self, source: &dyn Source, path: &str) -> (u64, Arc<Answer>) {
        let now = {
            let mut inner = lock(&self.inner);
            inner.refresh();
            let results = inner.run.entries().iter().filter(|entry| is_result(&entry.event)).count();
            (results, inner.look.as_ref().is_ok_and(|look| look.facts.live))
        };
        let mut answered = match self.answer.try_lock() {
            Ok(answered) => answered,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody computes it.
            Err(TryLockError::WouldBlock) => return (0, Arc::default()),
        };
        let is_early =
            answered.computed.is_some_and(|(at, took)| at.elapsed() < (took * ANSWER_SHARE).min(ANSWER_AGAIN));
        let ended = answered.of.is_some_and(|(_, live)| live && !now.1);
        if answered.of != Some(now) && (!is_early || ended) {
            let began = spent();
            let answer = source.answer(path).unwrap_or_else(|error| {
                let recommend = serde_json::json!({ "error": error });
                Answer { recommend, ..Answer::default() }
            });
            answered.of = Some(now);
            answered.computed = Some((Instant::now(), spent().saturating_sub(began)));
            if answered.version == 0 || *answered.answer != answer {
                answered.version += 1;
                answered.answer = Arc::new(answer);
            }
        }
        (answered.version, Arc::clone(&answered.answer))
    }
}

impl Inner {
    /// Reads what is new, unless that was done a moment ago.
    fn refresh(&mut self) {
        let is_early = self.looked.is_some_and(|(at, took)| at.elapsed() < (took * SHARE).clamp(LOOK, LOOK_AGAIN));
        if is_early {
            return;
        }
        let began = spent();
        let look = self.run.look();
        self.looked = Some((Instant::now(), spent().saturating_sub(began)));
        if let Ok(look) = &look {
            let before = self.look.as_ref().map(|look| look.rows.as_slice()).unwrap_or_default();
            let version = self.version + 1;
            self.changed.resize(look.rows.len(), version);
            let pairs = self.changed.iter_mut().zip(&look.rows).enumerate();
            let differing = pairs.filter(|(at, (_, row))| before.get(*at) != Some(row));
            differing.for_each(|(_, (changed, _))| *changed = version);
            self.version = version;
        }
        self.look = look;
    }

    fn news(&self, is_new: impl Fn(&Row, u64) -> bool) -> News {
        let rows = self.look.as_ref().map(|look| look.rows.as_slice()).unwrap_or_default();
        let new = rows.iter().zip(&self.changed).filter(|(row, changed)| is_new(row, **changed));
        News {
            rows: new.map(|(row, _)| row.clone()).collect(),
            entries: self.run.entries().len(),
            status: self.look.as_ref().map(|look| look.status.clone()).map_err(Clone::clone),
            version: self.version,
        }
    }
}

/// The processor time of this thread: on a busy machine a cheap look may take long, and is no reason to look less often.
fn spent() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

fn is_result(event: &Event) -> bool {
    matches!(event, Event::ExperimentFinished { .. } | Event::RunFinished { .. })
}

/// The experiments that the entries after the first so many are about; `None` where all may have changed.
fn touched_after(entries: &[Stamped], first: usize) -> Option<std::collections::HashSet<&str>> {
    let mut touched = std::collections::HashSet::new();
    for entry in entries.get(first..)? {
        match &entry.event {
            Event::RunStarted { .. } | Event::RunFinished { .. } | Event::ExperimentsPlanned { .. } => return None,
            Event::ExperimentReused { name }
            | Event::ExperimentStarted { name, .. }
            | Event::ServerLaunched { name, .. }
            | Event::ServerReused { name, .. }
            | Event::PhaseChanged { name, .. }
            | Event::Progress { name, .. }
            | Event::ServerReady { name, .. }
            | Event::BenchmarkLaunched { name, .. }
            | Event::TornDown { name, .. }
            | Event::ExperimentFinished { name, .. } => drop(touched.insert(name.as_str())),
            Event::Notice { .. }
            | Event::ForeignEnded { .. }
            | Event::NeighboursBeingChecked { .. }
            | Event::NeighboursChecked { .. }
            | Event::StopRequested { .. }
            | Event::JobSubmitting { .. }
            | Event::JobSubmitted { .. }
            | Event::JobRefused { .. }
            | Event::TaskStarted { .. }
            | Event::TaskEnded { .. }
            | Event::TaskLost { .. }
            | Event::FrontLeft { .. } => {}
        }
    }
    Some(touched)
}

/// A panic of one who watched leaves nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::source::{Facts, State};

    fn entry(seq: u64, event: Event) -> Stamped {
        Stamped { v: 1, seq, at: "2026-02-25T14:30:00.000+02:00".into(), event }
    }

    fn reused(seq: u64, name: &str) -> Stamped {
        entry(seq, Event::ExperimentReused { name: name.into() })
    }

    fn row(index: usize, name: &str, state: State) -> Row {
        let (name, configuration) = (name.to_owned(), name.to_owned());
        Row { index, name, configuration, state, attempts: 0, lane: None, seconds: None, metrics: None, failure: None }
    }

    /// Passes one experiment at each look.
    struct Fake {
        entries: Vec<Stamped>,
        merged: bool,
    }

    impl Run for Fake {
        fn look(&mut self) -> Result<Look, String> {
            let seq = self.entries.len() as u64 + 1;
            self.entries.push(reused(seq, ["a", "b", "c"][self.entries.len() % 3]));
            let state = |name: &str| {
                let passed =
                    self.entries.iter().any(|e| matches!(&e.event, Event::ExperimentReused { name: n } if n == name));
                if passed { State::Passed } else { State::ToDo }
            };
            let rows = ["a", "b", "c"].iter().enumerate().map(|(i, name)| row(i + 1, name, state(name))).collect();
            Ok(Look { status: Value::Null, facts: Facts::default(), rows, seen: Vec::new() })
        }

        fn entries(&self) -> &[Stamped] {
            &self.entries
        }

        fn is_merged(&self) -> bool {
            self.merged
        }

        fn log(&self, _: &str, _: bool) -> Result<(String, Vec<String>), String> {
            Err("none".into())
        }
    }

    fn names(news: &News) -> Vec<&str> {
        news.rows.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn who_watches_gets_all_rows_once_and_then_those_that_changed() {
        let watched = Watched::new(Box::new(Fake { entries: Vec::new(), merged: false }));
        let first = watched.news(None);
        assert_eq!((names(&first), first.entries), (vec!["a", "b", "c"], 1));
        // Not read again so soon.
        assert_eq!(names(&watched.news(Some(first.version))), [""; 0]);
        watched.look_again();
        let second = watched.news(Some(first.version));
        assert_eq!((names(&second), second.entries), (vec!["b"], 2));
        // Another one who has just come gets everything.
        assert_eq!(watched.news(None).rows.len(), 3);
    }

    #[test]
    fn a_stream_that_was_cut_off_goes_on_after_its_last_event() {
        let watched = Watched::new(Box::new(Fake { entries: vec![reused(1, "a"), reused(2, "b")], merged: false }));
        assert_eq!(names(&watched.news_after(2)), ["c"]);
        assert_eq!(names(&watched.news_after(1)), ["b", "c"]);
        assert_eq!(names(&watched.news_after(3)), [""; 0]);
        // A number that this journal never had: of another run in its place.
        assert_eq!(watched.news_after(9).rows.len(), 3);
        let merged = Watched::new(Box::new(Fake { entries: Vec::new(), merged: true }));
        assert_eq!(merged.news_after(1).rows.len(), 3);
    }

    #[test]
    fn the_end_of_a_session_may_change_every_row() {
        let end = Event::RunFinished { passed: 0, failed: 0, skipped: 0, interrupted: false, seconds: 1.0 };
        assert_eq!(touched_after(&[reused(1, "a"), entry(2, end)], 0), None);
        assert_eq!(touched_after(&[reused(1, "a")], 0).map(|names| names.len()), Some(1));
    }
}
