//! The numbers of a workload, by vLLM's definitions (`vllm/benchmarks/serve.py` of 0.14.1), and what goes beyond them. Pure.
//!
//! Memory is bounded by the number of requests (40 bytes each) and a fixed amount for the times between tokens: all of them
//! are kept up to some millions, and from then on in classes 0.05 % wide, which the result says.

mod gaps;
mod slots;
mod summary;

use std::collections::BTreeMap;

use serde::Serialize;

use super::drift::{Drift, drift};
use super::sample::{FailureClass, Sample, seconds};
use super::session::Ended;
use gaps::{Gaps, MOST_GAPS};
use slots::{SLOT, Slots};

pub use summary::{Summary, percentile};

/// What is kept of a completed request.
#[derive(Debug, Clone, Copy)]
struct Row {
    started: u64,
    end: u64,
    /// Seconds; NaN = none.
    ttft: f64,
    /// Seconds; NaN = none.
    tpot: f64,
    tokens: u32,
}

/// Failures of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What was seen, each text once with its number; the first few.
    pub examples: Vec<(String, u64)>,
}

/// Different texts that are kept of each class.
const MOST_EXAMPLES: usize = 10;

/// Adds up requests as they end.
#[derive(Debug)]
pub struct Collector {
    ignore_eos: bool,
    goodput: Vec<(Goal, f64)>,
    rows: Vec<Row>,
    gaps: Gaps,
    /// When the first and the last request were due, in a workload that follows the clock, and how many were.
    due: Option<(u64, u64)>,
    dues: u64,
    queue_times: Vec<f64>,
    connect_times: Vec<f64>,
    failures: BTreeMap<FailureClass, Failures>,
    failed: u64,
    total_input: u64,
    total_output: u64,
    estimated: u64,
    /// Tokens and events of streams whose usage tells.
    in_chunks: (u64, u64),
    prompts_of_both: Option<(u64, u64)>,
    sequences_asked: u64,
    cached: Option<u64>,
    sequences: u64,
    good: u64,
    slots: Slots,
    input_unknown: u64,
    simulated: bool,
}

/// What `--goodput` can ask of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Time to first token.
    Ttft,
    /// Time per output token.
    Tpot,
    /// End-to-end latency.
    E2el,
}

/// A part of a workload, with its own numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Window {
    /// Its beginning in seconds.
    pub from_s: f64,
    /// Its end.
    pub to_s: f64,
    /// Requests that lie wholly within.
    pub requests: u64,
    /// Output tokens per second.
    pub output_throughput: f64,
    /// Requests that ended in it, per second.
    pub request_throughput: f64,
    /// Over its requests.
    pub ttft_ms: Summary,
    /// Over its requests.
    pub tpot_ms: Summary,
    /// Over its requests.
    pub e2el_ms: Summary,
}

/// The numbers of a whole workload.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Named as in vLLM's result.
pub struct Metrics {
    pub duration: f64,
    pub completed: u64,
    pub failed: u64,
    /// Tokens of all prompts; `None` where nothing counted those of one.
    pub total_input: Option<u64>,
    pub total_output: u64,
    pub request_throughput: f64,
    pub request_goodput: Option<f64>,
    pub output_throughput: f64,
    /// Of prompts and answers; `None` where those of the prompts are not known.
    pub total_token_throughput: Option<f64>,
    pub max_output_tokens_per_s: f64,
    pub max_concurrent_requests: u64,
    pub ttft: Summary,
    pub tpot: Summary,
    pub itl: Summary,
    pub e2el: Summary,
    /// Whether there is any time to first token: answers in one piece have none.
    pub has_ttft: bool,
    /// Whether percentiles of ITL are those of classes.
    pub itl_in_classes: bool,
    /// Requests whose tokens are counted as events, for want of the server's usage.
    pub estimated: u64,
    /// Tokens in each event of a stream, on average over the requests whose usage tells; ITL is the time between events.
    pub tokens_per_chunk: Option<f64>,
    /// Requests whose prompt nothing counted.
    pub input_unknown: u64,
    /// Tokens of prompts from the prefix cache, where the server tells.
    pub cached_tokens: Option<u64>,
    /// Tokens of the prompts that both sides counted, as counted before they were sent and by the server.
    pub prompts_of_both: Option<(u64, u64)>,
    /// Samples that were asked for by the requests that were answered.
    pub sequences_asked: u64,
    /// Milliseconds to the first token of the request that began first (to its end, in answers in one piece), and how many
    /// times the median of the others that is.
    pub first_request: Option<(f64, f64)>,
    /// Samples that came back (S4's completions).
    pub sequences: u64,
    /// Milliseconds from due to sent, in a workload that follows the clock.
    pub queue_time: Option<Summary>,
    /// Milliseconds to connect, for requests that had to.
    pub connect_time: Option<Summary>,
    /// Tokens per second as one user sees them: tokens / latency of each request.
    pub tokens_per_second_per_user: Summary,
    /// Requests per second that were sent, over the time in which they were sent.
    pub achieved_rate: Option<f64>,
    /// Requests under way, over time.
    pub mean_concurrency: f64,
    /// Without ramp-up and drain; `None` where there is nothing in between.
    pub steady_state: Option<Window>,
    /// Requests per second that were due, between the first and the last; `None` where none was due at a time of its own.
    pub scheduled_rate: Option<f64>,
    /// By how much requests of the second half took longer than those of the first.
    pub drift: Option<Drift>,
    pub failures: BTreeMap<FailureClass, Failures>,
    pub simulated: bool,
}

impl Collector {
    /// Nothing yet.
    pub fn new(ignore_eos: bool, goodput: Vec<(Goal, f64)>) -> Self {
        Self {
            ignore_eos,
            goodput,
            rows: Vec::new(),
            gaps: Gaps::new(MOST_GAPS),
            due: None,
            dues: 0,
            queue_times: Vec::new(),
            connect_times: Vec::new(),
            failures: BTreeMap::new(),
            failed: 0,
            total_input: 0,
            total_output: 0,
            estimated: 0,
            in_chunks: (0, 0),
            prompts_of_both: None,
            sequences_asked: 0,
            cached: None,
            sequences: 0,
            good: 0,
            slots: Slots::default(),
            input_unknown: 0,
            simulated: false,
        }
    }

    /// Adds a request.
    pub fn add(&mut self, sample: &Sample) {
        self.simulated |= sample.reply.told;
        if let Some(due) = sample.due {
            let (first, last) = self.due.unwrap_or((due, due));
            self.due = Some((first.min(due), last.max(due)));
            self.dues += 1;
        }
        if let Some(failure) = &sample.failure {
            self.failed += 1;
            return self.count_failure(failure.class, &failure.detail);
        }
        let (tokens, estimate) = sample.output_tokens();
        for remark in sample.remarks(self.ignore_eos) {
            self.count_failure(remark.class, &remark.detail);
        }
        self.estimated += u64::from(estimate);
        if !estimate && sample.reply.first.is_some() {
            self.in_chunks.0 = self.in_chunks.0.saturating_add(tokens);
            self.in_chunks.1 += sample.reply.events;
        }
        self.sequences += u64::from(sample.reply.samples.max(sample.reply.finished));
        // The counts are the server's: each is plausible, and their sum must not wrap either.
        self.total_output = self.total_output.saturating_add(tokens);
        self.sequences_asked += u64::from(sample.n);
        let of_server = sample.reply.usage.and_then(|usage| usage.prompt_tokens);
        if let (Some(ours), Some(theirs)) = (sample.prompt_len, of_server) {
            let (mine, server) = self.prompts_of_both.unwrap_or_default();
            self.prompts_of_both = Some((mine.saturating_add(ours), server.saturating_add(theirs)));
        }
        match sample.prompt_tokens() {
            Some(tokens) => self.total_input = self.total_input.saturating_add(tokens),
            None => self.input_unknown += 1,
        }
        if let Some(cached) = sample.reply.usage.and_then(|usage| usage.cached_tokens()) {
            let sum = self.cached.get_or_insert(0);
            *sum = sum.saturating_add(cached);
        }
        self.queue_times.extend(sample.queue_time().map(|time| time * 1e3));
        self.connect_times
            .extend(sample.connected.map(|connected| seconds(connected.saturating_sub(sample.started)) * 1e3));
        self.gaps.add(&sample.reply.gaps);
        let row = Row {
            started: sample.started,
            end: sample.end(),
            ttft: sample.ttft().unwrap_or(f64::NAN),
            tpot: sample.tpot().unwrap_or(f64::NAN),
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        };
        self.good += u64::from(self.is_good(&row));
        self.rows.push(row);
        self.slots.add(sample);
    }

    fn count_failure(&mut self, class: FailureClass, detail: &str) {
        let failures = self.failures.entry(class).or_default();
        failures.count += 1;
        let known = failures.examples.iter().position(|(text, _)| text == detail);
        match known {
            Some(known) => failures.examples[known].1 += 1,
            None if failures.examples.len() < MOST_EXAMPLES => failures.examples.push((detail.to_owned(), 1)),
            None => {}
        }
    }

    /// vLLM: a request without TPOT counts as 0 there.
    fn is_good(&self, row: &Row) -> bool {
        self.goodput.iter().all(|(goal, most_ms)| {
            let value = match goal {
                Goal::Ttft => row.ttft,
                Goal::Tpot => row.tpot,
                Goal::E2el => seconds(row.end - row.started),
            };
            value.is_nan() || value * 1e3 <= *most_ms
        })
    }

    /// The numbers, once the workload is over.
    pub fn finish(&mut self, ended: &Ended, percentiles: &[f64]) -> Metrics {
        let completed = self.rows.len() as u64;
        let duration = ended.duration;
        let per_second = |value: f64| if duration > 0.0 { value / duration } else { 0.0 };
        let all = |value: &dyn Fn(&Row) -> f64| -> Summary {
            let mut values: Vec<f64> = self.rows.iter().map(value).filter(|value| !value.is_nan()).collect();
            Summary::of(&mut values, percentiles)
        };
        let ttft = all(&|row| row.ttft * 1e3);
        let tpot = all(&|row| row.tpot * 1e3);
        let e2el = all(&|row| seconds(row.end - row.started) * 1e3);
        let per_user = all(&|row| f64::from(row.tokens) / seconds(row.end - row.started).max(1e-9));
        let busy: u128 = self.rows.iter().map(|row| u128::from(row.end - row.started)).sum();
        let sending = seconds(ended.last_start.saturating_sub(ended.first_start));
        let optional = |values: &mut Vec<f64>| (!values.is_empty()).then(|| Summary::of(values, percentiles));
        let queue_time = optional(&mut self.queue_times);
        let connect_time = optional(&mut self.connect_times);
        let sent = completed + self.failed - self.failures.get(&FailureClass::NotSent).map_or(0, |f| f.count);
        let steady_state = self.steady_state(ended, percentiles);
        let total_input = (self.input_unknown == 0).then_some(self.total_input);
        Metrics {
            duration,
            completed,
            failed: self.failed,
            total_input,
            total_output: self.total_output,
            request_throughput: per_second(completed as f64),
            request_goodput: (!self.goodput.is_empty()).then(|| per_second(self.good as f64)),
            output_throughput: per_second(self.total_output as f64),
            total_token_throughput: total_input.map(|input| per_second(input as f64 + self.total_output as f64)),
            // A second that the workload fills in part only holds fewer tokens than its mean: no peak is below that.
            max_output_tokens_per_s: (self.most_tokens_in_a_second() as f64).max(per_second(self.total_output as f64)),
            max_concurrent_requests: self.most_in_a_second(),
            has_ttft: self.rows.iter().any(|row| !row.ttft.is_nan()),
            ttft,
            tpot,
            itl: self.gaps.summary(percentiles),
            e2el,
            itl_in_classes: self.gaps.in_classes(),
            estimated: self.estimated,
            tokens_per_chunk: (self.in_chunks.1 > 0).then(|| self.in_chunks.0 as f64 / self.in_chunks.1 as f64),
            input_unknown: self.input_unknown,
            cached_tokens: self.cached,
            prompts_of_both: self.prompts_of_both,
            sequences_asked: self.sequences_asked,
            first_request: self.first_request(),
            sequences: self.sequences,
            queue_time,
            connect_time,
            tokens_per_second_per_user: per_user,
            achieved_rate: (sent > 1 && sending > 0.0).then(|| (sent - 1) as f64 / sending),
            mean_concurrency: per_second(busy as f64 / 1e9),
            steady_state,
            scheduled_rate: self.scheduled_rate(),
            drift: drift(self.rows.iter().map(|row| (row.started, row.end - row.started)), ended.peak_concurrency),
            failures: self.failures.clone(),
            simulated: self.simulated,
        }
    }

    /// The request that began first, beside the median of the others; `None` for fewer than four requests.
    fn first_request(&self) -> Option<(f64, f64)> {
        const LEAST: usize = 4;
        let took = |row: &Row| if row.ttft.is_nan() { seconds(row.end - row.started) } else { row.ttft };
        let first = self.rows.iter().enumerate().min_by_key(|(_, row)| row.started)?.0;
        let others = self.rows.iter().enumerate().filter(|(at, _)| *at != first);
        let mut others: Vec<f64> = others.map(|(_, row)| took(row)).collect();
        others.sort_by(f64::total_cmp);
        let (first, median) = (took(&self.rows[first]), percentile(&others, 50.0));
        (self.rows.len() >= LEAST && median > 0.0).then(|| (first * 1e3, first / median))
    }

    /// The rate of the schedule: from the first due time to the last there is one gap less than requests.
    fn scheduled_rate(&self) -> Option<f64> {
        let (first, last) = self.due?;
        let span = seconds(last.saturating_sub(first));
        (self.dues > 1 && span > 0.0).then(|| (self.dues - 1) as f64 / span)
    }

    /// vLLM's metric: the most tokens that came in one of the seconds from the first request on. Seconds begin at a tenth of
    /// a second here, and tokens are counted, where vLLM's client counts the events that carry them.
    fn most_tokens_in_a_second(&self) -> u64 {
        let first = self.rows.iter().map(|row| row.started).min().unwrap_or(0) / SLOT;
        self.slots.most_in_a_second(first)
    }

    /// vLLM's metric: the most requests that were under way at any moment of one second.
    fn most_in_a_second(&self) -> u64 {
        let Some(origin) = self.rows.iter().map(|row| row.started).min() else { return 0 };
        let second = |at: u64| at.saturating_sub(origin) / 1_000_000_000;
        let mut changes: BTreeMap<u64, i64> = BTreeMap::new();
        for row in &self.rows {
            *changes.entry(second(row.started)).or_default() += 1;
            *changes.entry(second(row.end) + 1).or_default() -= 1;
        }
        let mut now = 0;
        let most = changes.values().map(|change| {
            now += change;
            now
        });
        most.max().unwrap_or(0).unsigned_abs()
    }

    /// From the moment at which all were under way to that at which the last one was sent.
    fn steady_state(&self, ended: &Ended, percentiles: &[f64]) -> Option<Window> {
        let (from, to) = (ended.full_at, ended.last_start);
        let within: Vec<&Row> = self.rows.iter().filter(|row| row.started >= from && row.end <= to).collect();
        let (first, last) = (from.div_ceil(SLOT), to / SLOT);
        if within.is_empty() || last <= first {
            return None;
        }
        let length = seconds((last - first) * SLOT);
        let tokens = self.slots.between(first, last);
        let ends = self.rows.iter().filter(|row| row.end >= from && row.end <= to).count();
        let all = |value: &dyn Fn(&Row) -> f64| -> Summary {
            let mut values: Vec<f64> = within.iter().map(|row| value(row)).filter(|value| !value.is_nan()).collect();
            Summary::of(&mut values, percentiles)
        };
        Some(Window {
            from_s: seconds(from),
            to_s: seconds(to),
            requests: within.len() as u64,
            output_throughput: tokens as f64 / length,
            request_throughput: ends as f64 / seconds(to - from),
            ttft_ms: all(&|row| row.ttft * 1e3),
            tpot_ms: all(&|row| row.tpot * 1e3),
            e2el_ms: all(&|row| seconds(row.end - row.started) * 1e3),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::clock::ArrivalClock;
    use crate::load::sample::Failure;
    use crate::load::wire::Reply;

    const MS: u64 = 1_000_000;

    fn ended(duration: f64) -> Ended {
        Ended {
            duration,
            first_start: 0,
            last_start: 0,
            full_at: 0,
            peak_concurrency: 0,
            not_sent: 0,
            late: 0,
            latest: 0.0,
            starved: 0,
            arrival_clock: ArrivalClock::Read,
            threads: 1,
            stopped: None,
            gave_up: None,
        }
    }

    fn sample(started: u64, times: &[u64]) -> Sample {
        let gaps = times.windows(2).map(|pair| ((pair[1] - pair[0]) * MS / 100) as u32).collect();
        let last = times.last().map_or(0, |time| time * MS);
        Sample {
            index: 0,
            due: None,
            started: started * MS,
            connected: None,
            ended: last,
            prompt_len: Some(10),
            output_len: Some(3),
            n: 1,
            reply: Reply {
                first: times.first().map(|time| time * MS),
                last,
                gaps,
                events: times.len() as u64,
                samples: 1,
                ..Reply::default()
            },
            failure: None,
        }
    }

    #[test]
    fn percentiles_interpolate_as_numpy_does() {
        // numpy.percentile([1, 2, 3, 4], [0, 25, 50, 99, 100])
        let sorted = [1.0, 2.0, 3.0, 4.0];
        for (which, expected) in [(0.0, 1.0), (25.0, 1.75), (50.0, 2.5), (99.0, 3.97), (100.0, 4.0)] {
            assert!((percentile(&sorted, which) - expected).abs() < 1e-12);
        }
        assert_eq!((percentile(&[7.0], 99.0), percentile(&[], 99.0)), (7.0, 0.0));
    }

    #[test]
    fn definitions_are_those_of_vllm() {
        let mut collector = Collector::new(false, vec![(Goal::Ttft, 150.0)]);
        collector.add(&sample(0, &[100, 150, 300]));
        collector.add(&sample(50, &[250]));
        let failure = Some(Failure::new(FailureClass::HttpStatus, "HTTP 500: x"));
        collector.add(&Sample { failure, ..sample(0, &[]) });
        let m = collector.finish(&ended(0.3), &[99.0]);
        assert_eq!((m.completed, m.failed, m.total_input, m.total_output), (2, 1, Some(20), 4));
        assert!((m.ttft.mean - 150.0).abs() < 1e-9 && (m.ttft.std - 50.0).abs() < 1e-9);
        assert!((m.tpot.mean - 100.0).abs() < 1e-9, "one token gives no TPOT");
        assert!((m.itl.median - 100.0).abs() < 1e-9);
        assert!((m.request_goodput.unwrap_or(0.0) - 1.0 / 0.3).abs() < 1e-9);
        // Four tokens in the one second, of which the workload fills 0.3.
        assert_eq!((m.max_output_tokens_per_s, m.max_concurrent_requests), (4.0 / 0.3, 2));
        assert_eq!(m.failures[&FailureClass::HttpStatus].examples, [("HTTP 500: x".to_owned(), 1)]);
        let none = Collector::new(false, vec![]).finish(&ended(0.0), &[99.0]);
        assert_eq!((none.completed, none.ttft.mean, none.request_goodput), (0, 0.0, None));
    }

    /// 41 tokens in 11 chunks of 40 ms, and a second request of one token: tokens are counted, not events.
    #[test]
    fn several_tokens_in_a_chunk_are_all_counted_where_they_came() {
        let mut collector = Collector::new(false, vec![]);
        let mut several = sample(0, &(0..11).map(|n| 100 + n * 40).collect::<Vec<_>>());
        several.reply.usage = serde_json::from_str("{\"completion_tokens\":41}").ok();
        collector.add(&several);
        let ended = Ended { last_start: 400 * MS, ..ended(0.5) };
        let m = collector.finish(&ended, &[]);
        assert!((m.tpot.mean - 10.0).abs() < 1e-9 && (m.itl.mean - 40.0).abs() < 1e-9, "{m:?}");
        assert_eq!((m.total_output, m.tokens_per_chunk), (41, Some(41.0 / 11.0)));
        assert!(m.max_output_tokens_per_s >= m.output_throughput, "{m:?}");
        // Eight of the eleven chunks lie within the first 400 ms, and with them their share of the tokens.
        assert_eq!(collector.slots.between(0, 4), several.tokens_after(8));
    }

    #[test]
    fn tokens_of_answers_in_one_piece_are_spread_over_their_time() {
        let mut collector = Collector::new(false, vec![]);
        let mut whole = sample(0, &[]);
        whole.reply.last = 1000 * MS;
        whole.reply.usage = serde_json::from_str("{\"completion_tokens\":50}").ok();
        collector.add(&whole);
        assert!(
            (0..10).all(|slot| collector.slots.between(slot, slot + 1) == 5) && collector.slots.between(10, 99) == 0
        );
        // The counts of a server do not wrap.
        whole.reply.usage = serde_json::from_str("{\"completion_tokens\":70}").ok();
        collector.total_output = u64::MAX;
        collector.add(&whole);
        assert_eq!(collector.finish(&ended(1.0), &[]).total_output, u64::MAX);
    }

    #[test]
    fn a_slow_first_request_and_the_server_s_count_of_prompts_are_known() {
        let mut collector = Collector::new(false, vec![]);
        for (started, took) in [(0, 2000), (1, 50), (2, 60), (3, 50)] {
            let mut one = sample(started, &[started + took]);
            one.reply.usage = serde_json::from_str("{\"prompt_tokens\":13,\"completion_tokens\":1}").ok();
            collector.add(&one);
        }
        let m = collector.finish(&ended(3.0), &[]);
        assert_eq!((m.first_request, m.prompts_of_both), (Some((2000.0, 40.0)), Some((40, 52))));
    }

    #[test]
    fn fewer_samples_than_asked_for_are_listed() {
        let mut collector = Collector::new(false, vec![]);
        collector.add(&Sample { n: 4, ..sample(0, &[1, 2]) });
        let m = collector.finish(&ended(1.0), &[]);
        assert_eq!((m.completed, m.failures[&FailureClass::FewerSamples].count), (1, 1));
    }

    #[test]
    fn short_answers_are_listed_and_count_as_completed() {
        let mut collector = Collector::new(true, vec![]);
        let mut short = sample(0, &[1, 2]);
        short.reply.usage = serde_json::from_str("{\"completion_tokens\":2,\"prompt_tokens\":10}").ok();
        collector.add(&short);
        let m = collector.finish(&ended(1.0), &[]);
        assert_eq!((m.completed, m.failed, m.failures[&FailureClass::Short].count), (1, 0, 1));
    }

    #[test]
    fn long_and_miscounted_answers_are_listed_and_count_as_completed() {
        let mut collector = Collector::new(false, vec![]);
        let mut long = sample(0, &[1, 2, 3, 4]);
        (long.reply.texts, long.reply.text_bytes) = (4, 8);
        // Without a count, events with a text are tokens.
        collector.add(&long);
        long.reply.usage = serde_json::from_str("{\"completion_tokens\":4}").ok();
        collector.add(&long);
        long.reply.usage = serde_json::from_str("{\"completion_tokens\":2}").ok();
        collector.add(&long);
        let m = collector.finish(&ended(1.0), &[]);
        let count = |class| m.failures.get(&class).map(|failures| failures.count);
        assert_eq!((m.completed, count(FailureClass::Long), count(FailureClass::Miscounted)), (3, Some(2), Some(1)));
        assert_eq!(m.failures[&FailureClass::Long].examples, [("4 tokens, where 3 were asked for".to_owned(), 2)]);
    }

    #[test]
    fn the_steady_state_leaves_out_ramp_up_and_drain() {
        let mut collector = Collector::new(false, vec![]);
        // One after the other, 200 ms each with four tokens; the last one drains.
        (0..10).for_each(|n| {
            collector.add(&sample(n * 200, &[n * 200 + 50, n * 200 + 100, n * 200 + 150, n * 200 + 200]))
        });
        let ended = Ended { full_at: 200 * MS, last_start: 1800 * MS, ..ended(2.0) };
        let window = collector.finish(&ended, &[]).steady_state.unwrap();
        assert_eq!((window.requests, window.from_s, window.to_s), (8, 0.2, 1.8));
        assert!((window.output_throughput - 20.0).abs() < 1e-9 && (window.e2el_ms.mean - 200.0).abs() < 1e-9);
    }

    proptest::proptest! {
        /// Classes answer within 0.05 % of the exact percentile.
        #[test]
        fn classes_are_close(mut values in proptest::collection::vec(0u32..=u32::MAX, 1..300), which in 0.0f64..=100.0) {
            let (mut exact, mut classes) = (Gaps::new(usize::MAX), Gaps::new(0));
            exact.add(&values);
            classes.add(&values);
            values.sort_unstable();
            // Between two samples the classes answer with the lower one.
            let at = (which / 100.0 * (values.len() - 1) as f64).floor() as usize;
            let expected = f64::from(values[at]) * 1e-4;
            let (found, mean) = (classes.summary(&[which]), exact.summary(&[]).mean);
            proptest::prop_assert!((found.percentiles[0].1 - expected).abs() <= expected * 5e-4 + 1e-12);
            proptest::prop_assert!((found.mean - mean).abs() <= mean * 1e-9 + 1e-12);
        }
    }
}
