//! One answer as it arrives: head, framing, events, and what they add up to.

use super::{Body, Broken, Classifier, End, Framing, Splitter, Usage, excerpt};

/// The longest head of an answer.
const MOST_HEAD: usize = 64 << 10;
/// Interim answers (1xx) in one piece, at most.
const MOST_INTERIM: usize = 64;
/// How much of the body of a refused request is kept.
const MOST_EXCERPT: usize = 2048;
/// The longest answer that is not streamed.
const MOST_WHOLE: usize = 256 << 20;
/// The most text that is kept of one answer.
const MOST_TEXT: usize = 4 << 20;
/// Samples of one request that are told apart.
const MOST_SAMPLES: usize = 4096;
/// Tokens after which a stream of unknown length is endless.
const MOST_EVENTS: u64 = 8 << 20;
/// The latest time that a simulation tells: a year, in nanoseconds.
const MOST_SIMULATED: u64 = 366 * 24 * 3600 * 1_000_000_000;

/// What is known of an answer before it comes.
#[derive(Debug, Clone, Copy)]
pub struct Expect {
    /// It comes as server-sent events.
    pub stream: bool,
    /// The simulated vLLM is at the other end: it tells the times. Nobody else may.
    pub simulated: bool,
    /// Tokens asked for, all samples together.
    pub tokens: Option<u64>,
    /// Keep the text.
    pub keep_text: bool,
    /// Keep headers that tell of time (S4: names with `time`, `latency` or `throughput`).
    pub keep_headers: bool,
}

/// What an answer adds up to. Times are nanoseconds on the caller's clock.
#[derive(Debug, Default)]
pub struct Reply {
    /// HTTP status, once the head is read.
    pub status: Option<u16>,
    /// Arrival of the first byte.
    pub first_byte: Option<u64>,
    /// Arrival of the first token.
    pub first: Option<u64>,
    /// The end: arrival of the last token, or of an answer in one piece.
    pub last: u64,
    /// Times between events with tokens of the same sample, in units of 100 ns.
    pub gaps: Vec<u32>,
    /// Events with tokens, all samples together: an estimate of the tokens, for a server may send several in one event.
    pub events: u64,
    /// One of them printed something.
    pub printed: bool,
    /// Bytes of the body.
    pub bytes: u64,
    /// Samples that were seen.
    pub samples: u32,
    /// Samples whose end was told.
    pub finished: u32,
    /// The stream was ended by `[DONE]`.
    pub done: bool,
    /// The server's own count.
    pub usage: Option<Usage>,
    /// The server's error, in the stream.
    pub error: Option<String>,
    /// The text of the first sample, if kept.
    pub text: String,
    /// The beginning of the body of a refused request.
    pub excerpt: String,
    /// Headers that were kept.
    pub headers: Vec<(String, String)>,
    /// The times are those of a simulation.
    pub simulated: bool,
}

impl Reply {
    /// Why the server's own counts cannot be true; `None` where they can. `asked`: tokens asked for, all samples together.
    /// `request`: bytes of the request.
    pub fn implausible_usage(&self, asked: Option<u64>, request: u64) -> Option<String> {
        let usage = self.usage?;
        if let Some(prompt) = usage.prompt_tokens.filter(|tokens| *tokens > request.saturating_add(MOST_ADDED)) {
            return Some(format!("the server counts {prompt} prompt tokens in a request of {request} bytes"));
        }
        let tokens = usage.completion_tokens?;
        let most = most_tokens(asked);
        if tokens > most {
            let asked = asked.map_or("without a limit".to_owned(), |asked| format!("{asked} were asked for"));
            return Some(format!("the server counts {tokens} tokens, {asked}"));
        }
        // Several tokens may come in one event, but each of them is text, or an event of its own.
        if self.events > 0 && tokens > self.bytes.max(SLACK) {
            return Some(format!(
                "the server counts {tokens} tokens, but sent {} bytes in {} events",
                self.bytes, self.events
            ));
        }
        None
    }

    /// Tokens of the answers: the server's count, else the events. The second value tells an estimate. vLLM's client takes a
    /// count of 0 beside a text for none, too.
    pub fn output_tokens(&self) -> (u64, bool) {
        match self.usage.and_then(|usage| usage.completion_tokens) {
            Some(0) if self.printed => (self.events, true),
            Some(tokens) => (tokens, false),
            None => (self.events, true),
        }
    }
}

/// Tokens that a server may add to a prompt: a template, a system message of its own.
const MOST_ADDED: u64 = 1 << 20;
/// Tokens beyond those asked for that raise no question.
const SLACK: u64 = 1024;

/// The most tokens that an answer may have, where so many were asked for.
fn most_tokens(asked: Option<u64>) -> u64 {
    asked.map_or(MOST_EVENTS, |tokens| tokens.saturating_mul(2).saturating_add(SLACK))
}

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More is to come.
    More,
    /// All of it is read.
    Complete {
        /// The connection can carry another request.
        keep_alive: bool,
    },
}

/// Reads one answer.
#[derive(Debug)]
pub struct Exchange {
    expect: Expect,
    head: Vec<u8>,
    body: Option<Body>,
    keep_alive: bool,
    events: bool,
    splitter: Splitter,
    reader: Reader,
    whole: Vec<u8>,
}

/// What the events go into.
#[derive(Debug)]
struct Reader {
    expect: Expect,
    classifier: Classifier,
    reply: Reply,
    /// Time of the last token of each sample.
    lasts: Vec<Option<u64>>,
    /// Ends that said nothing, with their times, until it is known whether they were tokens.
    ends: Vec<(End, u64)>,
}

impl Exchange {
    /// An answer of which nothing has come.
    pub fn new(expect: Expect) -> Self {
        let mut gaps = Vec::new();
        if expect.stream {
            gaps.reserve_exact(usize::try_from(expect.tokens.unwrap_or(0)).unwrap_or(0).min(4096));
        }
        let reply = Reply { gaps, ..Reply::default() };
        let classifier = Classifier::new(expect.keep_text);
        Self {
            expect,
            head: Vec::new(),
            body: None,
            keep_alive: false,
            events: false,
            splitter: Splitter::default(),
            reader: Reader { expect, classifier, reply, lasts: Vec::new(), ends: Vec::new() },
            whole: Vec::new(),
        }
    }

    /// Feeds bytes that arrived at `at`.
    ///
    /// # Errors
    /// When the answer cannot be read.
    pub fn push(&mut self, bytes: &[u8], at: u64) -> Result<Progress, Broken> {
        self.reader.reply.first_byte.get_or_insert(at);
        let rest = match self.body {
            Some(_) => bytes,
            None => match self.head(bytes)? {
                Some(used) => &bytes[used..],
                None => return Ok(Progress::More),
            },
        };
        let Self { body, splitter, reader, whole, events, .. } = self;
        let Some(body) = body.as_mut() else { return Ok(Progress::More) };
        let (events, ok) = (*events, reader.reply.status == Some(200));
        body.push(rest, &mut |piece| {
            reader.reply.bytes += piece.len() as u64;
            if events {
                return splitter.push(piece, &mut |payload| reader.event(payload, at));
            }
            let most = if ok { MOST_WHOLE } else { MOST_EXCERPT };
            if ok && whole.len() + piece.len() > most {
                return Err(Broken::LineTooLong { limit: most });
            }
            whole.extend_from_slice(&piece[..piece.len().min(most.saturating_sub(whole.len()))]);
            Ok(())
        })?;
        if !body.is_complete() {
            return Ok(Progress::More);
        }
        self.complete(at)?;
        Ok(Progress::Complete { keep_alive: self.keep_alive })
    }

    /// The connection was closed. `Ok(true)` where that is a proper end of the answer.
    ///
    /// # Errors
    /// When the end of the answer cannot be read.
    pub fn closed(&mut self, at: u64) -> Result<bool, Broken> {
        let proper = self.body.as_ref().is_some_and(Body::may_end_here);
        if proper {
            self.complete(at)?;
        }
        Ok(proper)
    }

    /// Whether any byte of an answer has come.
    pub fn has_begun(&self) -> bool {
        self.reader.reply.first_byte.is_some()
    }

    /// What has come so far.
    pub fn reply(&self) -> &Reply {
        &self.reader.reply
    }

    /// What came of it.
    pub fn into_reply(self) -> Reply {
        self.reader.reply
    }

    /// Reads the head, as far as it has come; `Some` = bytes of this piece that belong to it.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Broken> {
        let mut used = 0;
        for _ in 0..MOST_INTERIM {
            let before = self.head.len();
            self.head.extend_from_slice(&bytes[used..]);
            let mut headers = [httparse::EMPTY_HEADER; 96];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&self.head).map_err(|error| Broken::Head { reason: error.to_string() })?;
            let httparse::Status::Complete(length) = parsed else {
                if self.head.len() > MOST_HEAD {
                    return Err(Broken::HeadTooLong { limit: MOST_HEAD });
                }
                return Ok(None);
            };
            let status = response.code.unwrap_or(0);
            if (100..200).contains(&status) {
                // An interim answer: the real one follows, in this very piece or in the next.
                used = bytes.len() - (self.head.len() - length);
                self.head.clear();
                if used == bytes.len() {
                    return Ok(None);
                }
                continue;
            }
            let reply = &mut self.reader.reply;
            reply.status = Some(status);
            let mut framing = Framing::Close;
            self.keep_alive = response.version == Some(1);
            for header in response.headers.iter() {
                let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
                let name = header.name.to_ascii_lowercase();
                match name.as_str() {
                    "content-length" if framing != Framing::Chunked => {
                        let length = value.parse().map_err(|_| Broken::Head {
                            reason: format!("content-length is `{}`", excerpt(value.as_bytes(), 40)),
                        })?;
                        framing = Framing::Length(length);
                    }
                    "transfer-encoding" if value.to_ascii_lowercase().contains("chunked") => framing = Framing::Chunked,
                    "connection" if value.eq_ignore_ascii_case("close") => self.keep_alive = false,
                    "content-type" => self.events = value.starts_with("text/event-stream"),
                    name if self.expect.keep_headers && tells_of_time(name) => {
                        reply.headers.push((name.to_owned(), value.chars().take(200).collect()));
                    }
                    _ => {}
                }
            }
            // A stream is a stream whatever its content type says, unless it says JSON.
            self.events = status == 200 && self.expect.stream;
            self.keep_alive &= framing != Framing::Close;
            self.body = Some(Body::new(framing));
            self.head = Vec::new();
            return Ok(Some(used + length - before));
        }
        Err(Broken::Head { reason: format!("more than {MOST_INTERIM} interim answers") })
    }

    fn complete(&mut self, at: u64) -> Result<(), Broken> {
        let reader = &mut self.reader;
        if self.events {
            self.splitter.end(&mut |payload| reader.event(payload, at))?;
            return reader.settle();
        }
        let whole = std::mem::take(&mut self.whole);
        if reader.reply.status != Some(200) {
            reader.reply.excerpt = excerpt(&whole, MOST_EXCERPT);
            return Ok(());
        }
        reader.whole(&whole, at)
    }
}

fn tells_of_time(name: &str) -> bool {
    ["time", "latency", "throughput"].iter().any(|word| name.contains(word))
}

/// A time between two tokens as it is kept.
pub fn gap(nanos: u64) -> u32 {
    u32::try_from(nanos / 100).unwrap_or(u32::MAX)
}

impl Reader {
    fn event(&mut self, payload: &[u8], at: u64) -> Result<(), Broken> {
        if let Some((sample, text)) = self.classifier.plain_token(payload) {
            keep(&mut self.reply.text, self.expect.keep_text && sample == 0, text);
            self.reply.printed |= !text.is_empty();
            return self.token(sample, at);
        }
        if payload == b"[DONE]" {
            self.reply.done = true;
            return self.settle();
        }
        let chunk = self.classifier.read(payload)?;
        if let Some(usage) = chunk.usage {
            self.reply.usage = Some(usage);
        }
        if chunk.error.is_some() {
            self.reply.error = chunk.error;
        }
        self.reply.finished += chunk.finished;
        self.reply.printed |= chunk.tokens.iter().any(|piece| piece.prints);
        if let Some(times) = chunk.simulated.filter(|_| self.expect.simulated) {
            self.reply.simulated = true;
            let sample = chunk.tokens.first().map_or(0, |piece| piece.sample);
            for time in times {
                self.token(sample, simulated(time)?)?;
            }
            for piece in &chunk.tokens {
                keep(&mut self.reply.text, self.expect.keep_text && piece.sample == 0, &piece.text);
            }
            return Ok(());
        }
        for piece in &chunk.tokens {
            keep(&mut self.reply.text, self.expect.keep_text && piece.sample == 0, &piece.text);
            self.token(piece.sample, at)?;
        }
        for end in chunk.ends {
            if self.ends.len() >= MOST_SAMPLES {
                return Err(Broken::Endless { events: self.ends.len() as u64, asked: self.expect.tokens.unwrap_or(0) });
            }
            self.ends.push((end, at));
        }
        Ok(())
    }

    /// Finds out whether ends that said nothing were tokens, once all is known. They were where the server counts one token
    /// for each event and for each end (the token at which a text ends prints nothing); and where nothing else tells of the
    /// tokens that there were.
    fn settle(&mut self) -> Result<(), Broken> {
        let ends = std::mem::take(&mut self.ends);
        let counted = self.reply.usage.and_then(|usage| usage.completion_tokens);
        let nothing_else = self.reply.events == 0
            && counted.map_or_else(|| ends.iter().any(|(end, _)| end.by_length), |tokens| tokens > 0);
        if nothing_else || counted == Some(self.reply.events + ends.len() as u64) {
            for (end, at) in ends {
                self.token(end.sample, at)?;
            }
        }
        Ok(())
    }

    fn token(&mut self, sample: u32, at: u64) -> Result<(), Broken> {
        let reply = &mut self.reply;
        let number = sample as usize;
        if number >= MOST_SAMPLES {
            return Err(Broken::Event { reason: "no request has so many samples".into(), excerpt: sample.to_string() });
        }
        if self.lasts.len() <= number {
            self.lasts.resize(number + 1, None);
        }
        match self.lasts[number].replace(at) {
            Some(last) => reply.gaps.push(gap(at.saturating_sub(last))),
            None => reply.samples += 1,
        }
        reply.first.get_or_insert(at);
        reply.last = reply.last.max(at);
        reply.events += 1;
        if reply.events > most_tokens(self.expect.tokens) {
            return Err(Broken::Endless { events: reply.events, asked: self.expect.tokens.unwrap_or(0) });
        }
        Ok(())
    }

    /// An answer in one piece: there is no time to a first token.
    fn whole(&mut self, body: &[u8], at: u64) -> Result<(), Broken> {
        let chunk = self.classifier.read(body)?;
        let reply = &mut self.reply;
        (reply.usage, reply.error, reply.finished) = (chunk.usage, chunk.error, chunk.finished);
        reply.samples = chunk.choices;
        reply.printed = chunk.tokens.iter().any(|piece| piece.prints);
        // At least one each, where nobody counts.
        let by_length = chunk.ends.iter().filter(|end| end.by_length).count();
        reply.events = (chunk.tokens.len() + by_length) as u64;
        reply.done = reply.error.is_none() && chunk.choices > 0;
        reply.last = match chunk.simulated.filter(|_| self.expect.simulated) {
            Some(times) => {
                reply.simulated = true;
                simulated(times.into_iter().max().unwrap_or(0))?
            }
            None => at,
        };
        if let Some(piece) = chunk.tokens.first() {
            keep(&mut reply.text, self.expect.keep_text, &piece.text);
        }
        Ok(())
    }
}

/// A time of a simulation, if it can be one.
fn simulated(nanos: u64) -> Result<u64, Broken> {
    if nanos > MOST_SIMULATED { Err(Broken::SimulatedTime { nanos }) } else { Ok(nanos) }
}

fn keep(text: &mut String, wanted: bool, more: &str) {
    if wanted && text.len() + more.len() <= MOST_TEXT {
        text.push_str(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Expect =
        Expect { stream: true, simulated: false, tokens: Some(8), keep_text: true, keep_headers: true };

    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-process-time: 7\r\n\
        transfer-encoding: chunked\r\n\r\n";

    fn chunked(parts: &[&str]) -> String {
        let mut text = ANSWER.to_owned();
        for part in parts {
            text.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
        }
        text + "0\r\n\r\n"
    }

    fn sample() -> String {
        chunked(&[
            ": ping\n\n",
            "data: {\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":null}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"text\":\"b\",\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"index\":0,\
             \"text\":\"c\",\"finish_reason\":\"length\"}]}\r\n\r\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n",
        ])
    }

    #[test]
    fn an_answer_adds_up_wherever_it_is_cut() {
        let text = sample().into_bytes();
        for cut in 0..=text.len() {
            let mut exchange = Exchange::new(STREAM);
            let mut progress = Progress::More;
            for (piece, at) in [(&text[..cut], 1_000), (&text[cut..], 5_000)] {
                if !piece.is_empty() {
                    progress = exchange.push(piece, at).unwrap();
                }
            }
            assert_eq!(progress, Progress::Complete { keep_alive: true }, "cut at {cut}");
            let reply = exchange.into_reply();
            assert_eq!((reply.text.as_str(), reply.events, reply.done, reply.finished), ("abc", 3, true, 1));
            assert_eq!((reply.output_tokens(), reply.gaps.len()), ((3, false), 2));
            assert_eq!(reply.headers, [("x-process-time".to_owned(), "7".to_owned())]);
        }
    }

    #[test]
    fn a_byte_at_a_time_gives_each_token_its_own_time() {
        let text = sample().into_bytes();
        let mut exchange = Exchange::new(STREAM);
        for (at, byte) in text.iter().enumerate() {
            exchange.push(&[*byte], at as u64 * 100).unwrap();
        }
        let reply = exchange.into_reply();
        let at = |needle: &str| {
            let found = sample().find(needle).unwrap();
            sample()[found..].find('\n').unwrap() + found
        };
        assert_eq!(reply.first, Some(at("\"a\"") as u64 * 100));
        assert_eq!(reply.gaps[0] as usize, at("\"b\"") - at("\"a\""));
    }

    #[test]
    fn refusals_interim_answers_and_whole_answers() {
        let mut exchange = Exchange::new(STREAM);
        let text = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nnot now\n\n";
        assert_eq!(exchange.push(text.as_bytes(), 1).unwrap(), Progress::Complete { keep_alive: true });
        assert_eq!((exchange.reply().status, exchange.reply().excerpt.as_str()), (Some(503), "not now"));

        let text = format!("HTTP/1.1 100 Continue\r\n\r\n{}", sample()).into_bytes();
        for cut in 0..60 {
            let mut exchange = Exchange::new(STREAM);
            exchange.push(&text[..cut], 1).unwrap();
            exchange.push(&text[cut..], 2).unwrap();
            assert_eq!(exchange.into_reply().text, "abc", "cut at {cut}");
        }

        let body = "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"x\"},\"finish_reason\":\"stop\"},\
            {\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"y\"}}],\"usage\":{\"completion_tokens\":7}}";
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let mut exchange = Exchange::new(Expect { stream: false, ..STREAM });
        assert_eq!(exchange.push(text.as_bytes(), 9).unwrap(), Progress::Complete { keep_alive: false });
        let reply = exchange.into_reply();
        assert_eq!((reply.samples, reply.output_tokens(), reply.last, reply.first), (2, (7, false), 9, None));
    }

    /// A stream of events with their times in milliseconds, to its end.
    fn timed(expect: Expect, events: &[(&str, u64)]) -> Reply {
        let mut exchange = Exchange::new(expect);
        exchange.push(ANSWER.as_bytes(), 0).unwrap();
        for (event, at) in events {
            let event = format!("data: {event}\n\n");
            exchange.push(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes(), at * 1_000_000).unwrap();
        }
        exchange.push(b"0\r\n\r\n", events.last().unwrap().1 * 1_000_000).unwrap();
        exchange.into_reply()
    }

    const TEXT: &str = r#"{"choices":[{"index":0,"text":"a","finish_reason":null}]}"#;
    const SAID: &str = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#;
    const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
    const STOP: &str = r#"{"choices":[{"index":0,"text":"","finish_reason":"stop"}]}"#;
    const LENGTH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#;

    fn usage(tokens: u64) -> String {
        format!(r#"{{"choices":[],"usage":{{"prompt_tokens":4,"completion_tokens":{tokens}}}}}"#)
    }

    #[test]
    fn an_answer_ends_with_its_last_token_and_not_with_what_tells_its_usage() {
        let reply = timed(STREAM, &[(ROLE, 5), (SAID, 10), (SAID, 20), (&usage(2), 70), ("[DONE]", 80)]);
        assert_eq!((reply.first, reply.last, reply.gaps), (Some(10_000_000), 20_000_000, vec![100_000]));
    }

    #[test]
    fn the_end_of_a_stream_is_a_token_only_where_the_server_counts_it() {
        let many = Expect { tokens: Some(64), ..STREAM };
        // Four tokens in a chunk; the end tells nothing.
        let reply = timed(many, &[(TEXT, 10), (TEXT, 50), (TEXT, 90), (STOP, 100), (&usage(9), 100)]);
        assert_eq!((reply.output_tokens(), reply.events, reply.gaps.len()), ((9, false), 3, 2));
        assert_eq!(reply.last, 90_000_000);
        // The token at which a text ends prints nothing.
        let reply = timed(many, &[(TEXT, 10), (TEXT, 20), (STOP, 30), (&usage(3), 30)]);
        assert_eq!((reply.output_tokens(), reply.events, reply.last), ((3, false), 3, 30_000_000));
        // Nobody counts.
        let reply = timed(many, &[(TEXT, 10), (TEXT, 20), (STOP, 30), ("[DONE]", 30)]);
        assert_eq!((reply.output_tokens(), reply.gaps.len(), reply.finished), ((2, true), 1, 1));
    }

    #[test]
    fn tokens_may_print_nothing_and_an_answer_may_have_none() {
        let reply = timed(STREAM, &[(ROLE, 5), (LENGTH, 40), (&usage(8), 40), ("[DONE]", 40)]);
        assert_eq!((reply.first, reply.output_tokens(), reply.samples), (Some(40_000_000), (8, false), 1));
        let reply = timed(STREAM, &[(ROLE, 5), (LENGTH, 40), ("[DONE]", 40)]);
        assert_eq!((reply.first, reply.output_tokens()), (Some(40_000_000), (1, true)));
        let reply = timed(STREAM, &[(STOP, 40), (&usage(0), 40), ("[DONE]", 40)]);
        assert_eq!((reply.first, reply.output_tokens(), reply.finished), (None, (0, false), 1));
        // A count of 0 beside a text is none.
        assert_eq!(timed(STREAM, &[(TEXT, 1), (STOP, 2), (&usage(0), 2)]).output_tokens(), (1, true));
    }

    #[test]
    fn what_a_server_counts_is_held_against_what_it_sent() {
        let stream = |tokens: u64| timed(STREAM, &[(TEXT, 1), (TEXT, 2), (&usage(tokens), 3), ("[DONE]", 3)]);
        for (tokens, asked, plausible) in [
            (8, Some(8), true),
            (u64::MAX, Some(8), false),
            (u64::MAX, None, false),
            (4_000_000, Some(4), false),
            (4_000_000, Some(4_000_000), false),
            (1000, None, true),
        ] {
            let why = stream(tokens).implausible_usage(asked, 100);
            assert_eq!(why.is_none(), plausible, "{tokens} of {asked:?}: {why:?}");
        }
        let mut reply = stream(2);
        reply.usage = serde_json::from_str(r#"{"prompt_tokens":18446744073709551615}"#).ok();
        assert!(reply.implausible_usage(Some(2), 100).is_some());
    }

    #[test]
    fn only_a_simulation_tells_times_and_only_times_that_it_can_have() {
        let event = |time: u64| format!(r#"{{"choices":[{{"index":0,"text":"a"}}],"sim_times_ns":[{time}]}}"#);
        let reply = timed(STREAM, &[(&event(u64::MAX), 10), ("[DONE]", 10)]);
        assert_eq!((reply.first, reply.simulated), (Some(10_000_000), false));
        let simulated = Expect { simulated: true, ..STREAM };
        let reply = timed(simulated, &[(&event(7), 10), ("[DONE]", 10)]);
        assert_eq!((reply.first, reply.last, reply.simulated), (Some(7), 7, true));
        let mut exchange = Exchange::new(simulated);
        exchange.push(ANSWER.as_bytes(), 0).unwrap();
        let absurd = format!("data: {}\n\n", event(u64::MAX));
        let error = exchange.push(format!("{:x}\r\n{absurd}\r\n", absurd.len()).as_bytes(), 1).unwrap_err();
        assert_eq!(error, Broken::SimulatedTime { nanos: u64::MAX });
        // An answer in one piece, too.
        let body = r#"{"choices":[{"index":0,"text":"a"}],"usage":{"completion_tokens":3},"sim_times_ns":[9]}"#;
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut exchange = Exchange::new(Expect { stream: false, ..simulated });
        exchange.push(text.as_bytes(), 5_000).unwrap();
        assert_eq!((exchange.reply().last, exchange.reply().simulated), (9, true));
    }

    #[test]
    fn endless_streams_end() {
        let mut exchange = Exchange::new(STREAM);
        exchange.push(ANSWER.as_bytes(), 0).unwrap();
        let event = "data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\n";
        let piece = format!("{:x}\r\n{event}\r\n", event.len());
        let error = (0..5000).find_map(|_| exchange.push(piece.as_bytes(), 1).err());
        assert_eq!(error, Some(Broken::Endless { events: 1041, asked: 8 }));
    }

    proptest::proptest! {
        /// Whatever comes, in whatever pieces: an answer, an error, or more to come; never a panic.
        #[test]
        fn no_bytes_panic(head: bool, pieces in proptest::collection::vec(proptest::collection::vec(0u8..=255, 0..80), 0..12)) {
            let mut exchange = Exchange::new(STREAM);
            if head {
                exchange.push(ANSWER.as_bytes(), 0).unwrap();
            }
            for piece in pieces {
                if exchange.push(&piece, 1).is_err() {
                    return Ok(());
                }
            }
            let _ = exchange.closed(2);
        }

        /// A real stream with bytes changed, cut anywhere.
        #[test]
        fn no_damage_panics(changes in proptest::collection::vec((0usize..700, 0u8..=255), 0..6), cuts in proptest::collection::vec(0usize..700, 0..4)) {
            let mut text = sample().into_bytes();
            for (at, byte) in changes {
                let at = at % text.len();
                text[at] = byte;
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % text.len()).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (mut exchange, mut from) = (Exchange::new(STREAM), 0);
            for cut in cuts {
                if exchange.push(&text[from..cut], 1).is_err() {
                    return Ok(());
                }
                from = cut;
            }
            let _ = exchange.closed(2);
        }
    }
}
