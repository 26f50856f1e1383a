//! The requests of a benchmark: many at once, over HTTP, never through a proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::StreamExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::stats::Outcome;
use crate::sim::settings::Speed;
use crate::sim::tokens::push_word;

/// One prompt.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its words.
    pub text: String,
    /// Its tokens.
    pub tokens: u64,
    /// Tokens to ask for.
    pub output_tokens: u64,
}

/// `--dataset-name random`: prompts of random words, the same for the same seed.
pub fn random_prompts(count: usize, input: u64, output: u64, range: f64, seed: u64) -> Vec<Prompt> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let length = |random: &mut ChaCha8Rng, middle: u64| {
        let low = ((middle as f64 * (1.0 - range)).floor() as u64).max(1);
        let high = ((middle as f64 * (1.0 + range)).ceil() as u64).max(low);
        random.random_range(low..=high)
    };
    (0..count)
        .map(|_| {
            let (tokens, output_tokens) = (length(&mut random, input), length(&mut random, output));
            let mut text = String::with_capacity(tokens as usize * 5);
            (0..tokens).for_each(|_| push_word(&mut text, random.random()));
            Prompt { text, tokens, output_tokens }
        })
        .collect()
}

/// Seconds at which requests are due: all at once for an infinite rate, else gamma-distributed gaps (shape `burstiness`).
pub fn schedule(count: usize, rate: f64, burstiness: f64, seed: u64) -> Vec<f64> {
    if rate.is_infinite() {
        return vec![0.0; count];
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0xa441);
    let gaps: Vec<f64> = (0..count).map(|_| gamma(&mut random, burstiness) / (rate * burstiness)).collect();
    // vLLM scales the sum of the gaps to count / rate.
    let scale = count as f64 / rate / gaps.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    gaps.iter()
        .scan(0.0, |at, gap| {
            *at += gap * scale;
            Some(*at)
        })
        .collect()
}

/// A sample of the gamma distribution with scale 1 (Marsaglia and Tsang).
fn gamma(random: &mut ChaCha8Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        return gamma(random, shape + 1.0) * random.random::<f64>().max(f64::MIN_POSITIVE).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let (u1, u2): (f64, f64) = (random.random::<f64>().max(f64::MIN_POSITIVE), random.random());
        let normal = (-2.0 * u1.ln()).sqrt() * (std::f64::consts::TAU * u2).cos();
        let v = (1.0 + c * normal).powi(3);
        let u: f64 = random.random::<f64>().max(f64::MIN_POSITIVE);
        if v > 0.0 && u.ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Where and how requests go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The whole address of the endpoint.
    pub url: String,
    /// It is the chat endpoint.
    pub chat: bool,
    /// The model's name in requests.
    pub model: String,
    /// Requests run to their last token.
    pub ignore_eos: bool,
    /// Sampling temperature, if given.
    pub temperature: Option<f64>,
    /// The simulation's speed, for servers that send no simulated times.
    pub speed: Speed,
}

/// One session of requests.
pub struct Session {
    target: Target,
    http: reqwest::Client,
    name: String,
    prompts: Vec<Prompt>,
    due: Vec<f64>,
    concurrency: usize,
    warmup: bool,
    next: AtomicUsize,
    done: AtomicUsize,
    started: Instant,
}

impl Session {
    /// A session that has not begun.
    pub fn new(
        target: Target,
        http: reqwest::Client,
        prompts: Vec<Prompt>,
        due: Vec<f64>,
        concurrency: Option<usize>,
        warmup: bool,
    ) -> Session {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let nanos =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let name = format!("{}-{nanos}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let concurrency = concurrency.unwrap_or(prompts.len()).min(prompts.len()).max(1);
        Session {
            target,
            http,
            name,
            prompts,
            due,
            concurrency,
            warmup,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            started: Instant::now(),
        }
    }

    /// Sends all requests and hands back what became of them, in their order; `progress` hears how many are done.
    pub async fn run(self, progress: impl Fn(usize) + Send + Sync + 'static) -> Vec<Outcome> {
        let (session, progress) = (Arc::new(self), Arc::new(progress));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..session.concurrency {
            let (session, progress) = (Arc::clone(&session), Arc::clone(&progress));
            workers.spawn(async move {
                let (mut outcomes, mut now) = (Vec::new(), 0);
                loop {
                    let index = session.next.fetch_add(1, Ordering::Relaxed);
                    if index >= session.prompts.len() {
                        return outcomes;
                    }
                    let outcome = session.request(index, now).await;
                    now = outcome.times.last().copied().unwrap_or(outcome.sent).max(now);
                    outcomes.push((index, outcome));
                    progress(session.done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
        let mut outcomes: Vec<(usize, Outcome)> = workers.join_all().await.into_iter().flatten().collect();
        outcomes.sort_by_key(|(index, _)| *index);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    async fn request(&self, index: usize, now: u64) -> Outcome {
        let prompt = &self.prompts[index];
        let sent = now.max((self.due[index] * 1e9) as u64);
        let mut outcome = Outcome { sent, prompt_tokens: prompt.tokens, ..Outcome::default() };
        let mut reader = Reader::new(self.started, self.target.speed, sent);
        let sent = self
            .http
            .post(&self.target.url)
            .header("content-type", "application/json")
            .header("x-vllm-bench-sim-session", &self.name)
            .header("x-vllm-bench-sim-index", index)
            .header("x-vllm-bench-sim-total", self.prompts.len())
            .header("x-vllm-bench-sim-concurrency", self.concurrency)
            .header("x-vllm-bench-sim-arrival", outcome.sent)
            .header("x-vllm-bench-sim-warmup", u16::from(self.warmup))
            .body(self.body(prompt))
            .send()
            .await;
        match sent {
            Err(error) => outcome.error = Some(describe(&error)),
            Ok(response) if !response.status().is_success() => {
                outcome.error = Some(response.status().canonical_reason().unwrap_or("error").to_string());
                // Read to its end, so that the connection can be used again.
                let _ = response.bytes().await;
            }
            Ok(response) => {
                let mut stream = response.bytes_stream();
                while let Some(chunk) = stream.next().await {
                    match chunk {
                        Ok(bytes) => reader.push(&bytes),
                        Err(error) => reader.error = Some(describe(&error)),
                    }
                }
                outcome.error = reader.error.or_else(|| {
                    (!reader.done || reader.times.is_empty()).then(|| {
                        "Never received a valid chunk to calculate TTFT.This response will be marked as failed!"
                            .to_string()
                    })
                });
                (outcome.times, outcome.text) = (reader.times, reader.text);
            }
        }
        outcome
    }

    fn body(&self, prompt: &Prompt) -> String {
        let quote = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let (model, text) = (quote(&self.target.model), quote(&prompt.text));
        let asked = if self.target.chat {
            format!(
                "\"messages\":[{{\"role\":\"user\",\"content\":{text}}}],\"max_completion_tokens\":{}",
                prompt.output_tokens
            )
        } else {
            format!("\"prompt\":{text},\"repetition_penalty\":1.0,\"max_tokens\":{}", prompt.output_tokens)
        };
        format!(
            "{{\"model\":{model},{asked},\"temperature\":{},\"logprobs\":null,\"stream\":true,\
             \"stream_options\":{{\"include_usage\":true}},\"ignore_eos\":{}}}",
            self.target.temperature.unwrap_or(0.0),
            self.target.ignore_eos
        )
    }
}

fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Reads server-sent events from pieces of any size.
struct Reader {
    line: Vec<u8>,
    started: Instant,
    speed: Speed,
    sent: u64,
    times: Vec<u64>,
    text: String,
    done: bool,
    error: Option<String>,
}

impl Reader {
    fn new(started: Instant, speed: Speed, sent: u64) -> Reader {
        Reader {
            line: Vec::new(),
            started,
            speed,
            sent,
            times: Vec::new(),
            text: String::new(),
            done: false,
            error: None,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if piece.last() != Some(&b'\n') {
                self.line.extend_from_slice(piece);
            } else if self.line.is_empty() {
                self.event(piece);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(piece);
                self.event(&line);
            }
        }
    }

    fn event(&mut self, line: &[u8]) {
        let Some(data) = std::str::from_utf8(line).ok().and_then(|line| line.trim().strip_prefix("data:")) else {
            return;
        };
        let data = data.trim();
        if data == "[DONE]" {
            self.done = true;
        } else if let Some((_, times)) = data.split_once("\"sim_times_ns\":[") {
            let times = times.split(']').next().unwrap_or_default();
            self.times.extend(times.split(',').filter_map(|time| time.parse::<u64>().ok()));
        } else if data.starts_with("{\"error\"") {
            self.error = Some(data.to_string());
        } else if data.contains("\"choices\":[{") && !data.contains("\"role\":\"assistant\"") {
            // A server that is not ours: its real time, as simulated time.
            let factor = if self.speed.is_infinite() { 1.0 } else { self.speed.factor() };
            let now = (self.started.elapsed().as_nanos() as f64 * factor) as u64;
            self.times.push(now.max(self.sent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::tokens;

    #[test]
    fn prompts_have_the_tokens_that_they_say() {
        let prompts = random_prompts(20, 100, 10, 0.3, 5);
        for prompt in &prompts {
            assert_eq!(tokens::count(&prompt.text), prompt.tokens);
            assert!((70..=130).contains(&prompt.tokens) && (7..=13).contains(&prompt.output_tokens));
        }
        assert_eq!(random_prompts(20, 100, 10, 0.3, 5)[7].text, prompts[7].text);
    }

    #[test]
    fn schedules_end_at_count_over_rate() {
        for burstiness in [0.5, 1.0, 3.0] {
            let due = schedule(100, 4.0, burstiness, 1);
            assert!((due[99] - 25.0).abs() < 1e-9 && due.windows(2).all(|pair| pair[0] <= pair[1]));
        }
        assert_eq!(schedule(3, f64::INFINITY, 1.0, 1), [0.0; 3]);
    }

    #[test]
    fn events_may_be_cut_anywhere() {
        let text = b"data: {\"choices\":[{}],\"sim_times_ns\":[5,7]}\n\ndata: {\"choices\":[{}],\"sim_times_ns\":[9]}\n\ndata: [DONE]\n\n";
        for cut in 0..text.len() {
            let mut reader = Reader::new(Instant::now(), Speed::INFINITE, 0);
            reader.push(&text[..cut]);
            reader.push(&text[cut..]);
            assert_eq!((reader.times.as_slice(), reader.done), ([5, 7, 9].as_slice(), true), "cut at {cut}");
        }
    }
}
