//! The prompts of a workload, and those that warm the server up before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Prepared;
use crate::config::{LoadSettings, Point};
use crate::error::Error;
use crate::load::arrival::Arrival;
use crate::load::dataset::{self, Name, Source};
use crate::load::session::{self, GaveUp, Live};

/// Prompts that are ready for a workload of unknown length.
const MANY: u64 = 1_000_000;
/// Tokens of a prompt, and of its answer, that warm up before a workload whose prompts are a data set's.
const WARMUP_TOKENS: u64 = 256;

/// The prompts of a workload.
pub(super) struct Prompts {
    pub source: Source,
    pub first: u64,
    /// None of them is measured.
    pub warmup: Source,
}

impl Prompts {
    /// Makes those that the workload begins with in a thread of its own, while the server is warmed up: a source that keeps
    /// what it made has them when they are needed.
    pub fn make_ahead(&self, point: &Point) -> MakingAhead {
        let at_once = match point.arrival {
            Arrival::Open { rate, .. } => Some(rate.ceil() as u64),
            Arrival::Closed | Arrival::Burst => point.max_concurrency,
        };
        let count = [at_once, point.num_prompts].into_iter().flatten().min().unwrap_or(0);
        let (source, first, over) = (self.source.clone(), self.first, Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&over);
        std::thread::spawn(move || {
            // What cannot be made is told when it is needed.
            let mut numbers = first..first.saturating_add(count);
            numbers.try_for_each(|number| {
                (!is_over.load(Ordering::Relaxed) && source.prompt(number).is_ok()).then_some(())
            })
        });
        MakingAhead { over }
    }
}

/// A thread that makes prompts until nobody holds this any more.
pub(super) struct MakingAhead {
    over: Arc<AtomicBool>,
}

impl Drop for MakingAhead {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// The prompts of a workload, unless a signal or the end of its time comes before they are made: then there are none, and the reason
/// where it is not a signal.
pub(super) async fn made_in_time(
    settings: &LoadSettings,
    prepared: &Prepared,
    number: usize,
    live: &Live,
) -> Result<(Prompts, Option<GaveUp>), Error> {
    let limit = async {
        match settings.limits.total {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let none = || {
        let source: Source = Arc::new(dataset::List::new(Vec::new(), false));
        Prompts { source: source.clone(), first: 0, warmup: source }
    };
    tokio::select! {
        prompts = prompts(settings, prepared, number) => Ok((prompts?, None)),
        () = live.stopped() => Ok((none(), None)),
        () = limit => Ok((none(), Some(GaveUp::TimeIsUp))),
    }
}

/// Made prompts come from a seed of their own for each workload; others are used once over all workloads of a sweep.
pub(super) async fn prompts(settings: &LoadSettings, prepared: &Prepared, number: usize) -> Result<Prompts, Error> {
    let point = &settings.points[number];
    let made = matches!(settings.prompts.spec.name, Name::Random | Name::PrefixRepetition | Name::Rag);
    let all = |points: &[Point]| points.iter().map(|point| point.num_prompts.unwrap_or(MANY)).sum::<u64>();
    let mut spec = settings.prompts.spec.clone();
    spec.chat = settings.chat;
    (spec.input_len, spec.output_len) = (point.input_len, point.output_len);
    let token_ids = settings.prompts.token_ids.unwrap_or(false);
    spec.token_ids = token_ids && !settings.chat;
    let fixed = spec.text.is_some();
    let open = async |spec: dataset::Spec| {
        let tokenizer = prepared.tokenizer.clone();
        let opened = tokio::task::spawn_blocking(move || dataset::open(&spec, tokenizer)).await;
        match opened {
            Ok(opened) => opened.map_err(|error| Error::Load(crate::load::error::Error::Dataset(error))),
            Err(_) => Err(Error::Load(session::Error::Died.into())),
        }
    };
    if made {
        spec.count = point.num_prompts.unwrap_or(MANY);
        spec.seed = settings.seed.wrapping_add(number as u64);
        let warmups = settings.warmups(point);
        let mut warmup = spec.clone();
        warmup.count = warmups.max(1);
        // No warm-up prompt may be measured afterwards.
        warmup.seed = spec.seed.wrapping_add(0x5eed_0000);
        let source = with_system(open(spec).await?, settings);
        let warmup = if warmups > 0 { with_system(open(warmup).await?, settings) } else { source.clone() };
        return Ok(Prompts { source, first: 0, warmup });
    }
    let unknown = settings.points.iter().any(|point| point.num_prompts.is_none());
    spec.count = if unknown && !fixed { u64::MAX } else { all(&settings.points) };
    if fixed {
        spec.count = 1;
        spec.again = true;
    }
    let words = dataset::Words {
        input_len: point.input_len.min(WARMUP_TOKENS),
        output_len: point.output_len.unwrap_or(WARMUP_TOKENS).min(WARMUP_TOKENS),
        seed: spec.seed ^ 0x5eed,
    };
    let source = with_system(open(spec).await?, settings);
    let warmup = with_system(Arc::new(words), settings);
    Ok(Prompts { warmup, source, first: all(&settings.points[..number]) })
}

/// Puts the system message before each prompt.
fn with_system(source: Source, settings: &LoadSettings) -> Source {
    match &settings.prompts.system_prompt {
        Some(text) => Arc::new(dataset::WithSystem::new(source, text.clone())),
        None => source,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::load::prompt::{Content, Prompt, PromptSource};

    /// Tells which prompts are asked for.
    #[derive(Debug)]
    struct Told(Mutex<Sender<u64>>);

    impl PromptSource for Told {
        fn available(&self) -> Option<u64> {
            None
        }

        fn prompt(&self, index: u64) -> Result<Prompt, dataset::Error> {
            let _ = self.0.lock().unwrap().send(index);
            Ok(Prompt { content: Content::Text("x".into()), prompt_len: None, output_len: None, id: None })
        }
    }

    fn closed() -> Point {
        Point {
            max_concurrency: Some(3),
            request_rate: f64::INFINITY,
            num_prompts: Some(9),
            input_len: 8,
            output_len: None,
            arrival: Arrival::Closed,
            n: 1,
            completions: None,
            run: 1,
        }
    }

    fn ahead(point: &Point) -> (MakingAhead, Receiver<u64>) {
        let (sender, receiver) = channel();
        let source: Source = Arc::new(Told(Mutex::new(sender)));
        let prompts = Prompts { warmup: source.clone(), source, first: 5 };
        (prompts.make_ahead(point), receiver)
    }

    #[test]
    fn the_prompts_that_a_workload_begins_with_are_made_ahead() {
        let open = Arrival::Open { rate: 1.5, burstiness: 1.0, ramp_up: None };
        for (point, expected) in [
            (closed(), 5..8),
            (Point { max_concurrency: None, ..closed() }, 5..14),
            (Point { arrival: open, ..closed() }, 5..7),
            // Nobody knows how many.
            (Point { max_concurrency: None, num_prompts: None, ..closed() }, 5..5),
        ] {
            let (_making, made) = ahead(&point);
            let made: Vec<u64> = std::iter::from_fn(|| made.recv_timeout(Duration::from_secs(30)).ok()).collect();
            assert_eq!(made, expected.collect::<Vec<_>>(), "{point:?}");
        }
    }

    #[test]
    fn nothing_more_is_made_once_the_workload_begins() {
        let (making, made) = ahead(&Point { max_concurrency: None, num_prompts: Some(u64::MAX), ..closed() });
        made.recv().unwrap();
        drop(making);
        // The thread ends, and with it the sender: else this would never come back.
        let _more = made.iter().count();
    }
}
