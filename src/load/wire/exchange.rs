//! One answer as it arrives: head, framing, events, and what they add up to.

use super::chunk::MOST_WORDS;
use super::{Body, Broken, Classifier, End, Framing, Splitter, ToldTimes, Usage, excerpt};

/// The longest head of an answer.
const MOST_HEAD: usize = 64 << 10;
/// Interim answers (1xx) in one piece, at most.
const MOST_INTERIM: usize = 64;
/// The only status of its hundred that is final: another protocol follows.
const SWITCHING: u16 = 101;
/// How much of a body is kept that is no answer: of a refused request, of a stream without events.
const MOST_EXCERPT: usize = 2048;
/// The longest answer that is not streamed.
const MOST_WHOLE: usize = 256 << 20;
/// The most text that is kept of one answer.
const MOST_TEXT: usize = 4 << 20;
/// Samples of one request that are kept apart.
const MOST_SAMPLES: usize = 4096;
/// Events after which a stream of unknown length is endless.
const MOST_EVENTS: u64 = 8 << 20;
/// Events beyond twice the tokens asked for after which a stream is endless.
const SLACK: u64 = 1024;
/// Counts of tokens that are kept of one answer.
const MOST_COUNTS: usize = 8;

/// What is known of an answer before it comes.
#[derive(Debug, Clone, Copy)]
pub struct Expect {
    /// It comes as server-sent events.
    pub stream: bool,
    /// How the times of tokens are read that the server tells; `None`: they are those of their arrival.
    pub told: Option<ToldTimes>,
    /// Samples asked for.
    pub samples: u32,
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
    /// Events with a text, a thought or a tool call.
    pub texts: u64,
    /// Bytes of these, in UTF-8.
    pub text_bytes: u64,
    /// Events and ends without: special tokens, parts of a character.
    pub quiet: u64,
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
    /// It gave several that differ, in words.
    pub recounted: Option<String>,
    /// The server's error, in the stream.
    pub error: Option<String>,
    /// The text of the first sample, if kept.
    pub text: String,
    /// Headers that were kept.
    pub headers: Vec<(String, String)>,
    /// The times are those that the server told.
    pub told: bool,
}

/// The most events that an answer may have, where so many tokens were asked for: one that goes on is endless.
fn most_events(asked: Option<u64>) -> u64 {
    asked.map_or(MOST_EVENTS, |tokens| tokens.saturating_mul(2).saturating_add(SLACK))
}

impl Reply {
    /// Notes an event: whether it says anything, and how many bytes that is.
    fn note(&mut self, prints: bool, bytes: u64) {
        self.printed |= prints;
        if prints {
            self.texts += 1;
            self.text_bytes = self.text_bytes.saturating_add(bytes);
        } else {
            self.quiet += 1;
        }
    }
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
    /// An answer in one piece; of a body that is none, the beginning.
    whole: Vec<u8>,
    /// The content type, where it is not that of an answer.
    content: Option<String>,
    /// Where a redirect leads.
    location: Option<String>,
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
    /// Counts of the whole answer, where they differ.
    counts: Vec<Usage>,
    /// An event has come.
    begun: bool,
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
            reader: Reader {
                expect,
                classifier,
                reply,
                lasts: Vec::new(),
                ends: Vec::new(),
                counts: Vec::new(),
                begun: false,
            },
            whole: Vec::new(),
            content: None,
            location: None,
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
                if !reader.begun {
                    whole.extend_from_slice(&piece[..piece.len().min(MOST_EXCERPT.saturating_sub(whole.len()))]);
                }
                return splitter.push(piece, &mut |payload, is_error| reader.event(payload, is_error, at));
            }
            let most = if ok { MOST_WHOLE } else { MOST_EXCERPT };
            if ok && whole.len() + piece.len() > most {
                return Err(Broken::LineTooLong { limit: most });
            }
            whole.extend_from_slice(&piece[..piece.len().min(most.saturating_sub(whole.len()))]);
            Ok(())
        })?;
        if !body.is_complete() {
            // Of a refusal no more is wanted, and it may have no end.
            let enough = !ok && whole.len() >= MOST_EXCERPT;
            return Ok(if enough { Progress::Complete { keep_alive: false } } else { Progress::More });
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

    /// What to say of a request that was refused: the status, where it leads, and the beginning of the body, as far as it has come.
    pub fn refusal(&self) -> Option<String> {
        let status = self.reader.reply.status.filter(|status| *status != 200)?;
        let leads = self.location.as_ref();
        let leads = leads.map(|to| format!(" leads to {to}, and redirects are not followed")).unwrap_or_default();
        let body = excerpt(&self.whole, MOST_EXCERPT);
        Some(format!("HTTP {status}{leads}: {}", if body.is_empty() { "(no text)" } else { &body }))
    }

    /// What to say of a stream without a token.
    pub fn without_token(&self) -> String {
        match &self.content {
            Some(content) => {
                let body = excerpt(&self.whole, MOST_WORDS);
                format!("the answer is no stream of events but `{content}`: {body}")
            }
            None => "the answer has no token and no end".to_owned(),
        }
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
            if (100..200).contains(&status) && status != SWITCHING {
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
                    "content-type" if !value.starts_with("text/event-stream") => {
                        self.content = Some(excerpt(value.as_bytes(), 80));
                    }
                    "content-encoding" if !value.eq_ignore_ascii_case("identity") => {
                        return Err(Broken::Encoded { encoding: excerpt(value.as_bytes(), 40) });
                    }
                    "location" if (300..400).contains(&status) => self.location = Some(excerpt(value.as_bytes(), 400)),
                    name if self.expect.keep_headers && tells_of_time(name) => {
                        reply.headers.push((name.to_owned(), value.chars().take(200).collect()));
                    }
                    _ => {}
                }
            }
            // RFC 9112, section 6.3, and RFC 9110, section 15.3.6, for 205.
            if matches!(status, SWITCHING | 204 | 304) || (status == 205 && framing == Framing::Close) {
                framing = Framing::Length(0);
                self.keep_alive = false;
            }
            // A stream is a stream whatever its content type says.
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
            self.splitter.end(&mut |payload, is_error| reader.event(payload, is_error, at))?;
            reader.refused(&self.whole);
            return reader.settle();
        }
        if reader.reply.status != Some(200) {
            return Ok(());
        }
        reader.whole(&std::mem::take(&mut self.whole), at)
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
    fn event(&mut self, payload: &[u8], is_error: bool, at: u64) -> Result<(), Broken> {
        self.begun = true;
        if self.reply.done {
            // Nothing counts after `[DONE]`, nor is it read.
            return Ok(());
        }
        if is_error {
            self.failed(&excerpt(payload, MOST_WORDS));
            return Ok(());
        }
        let told = self.expect.told.map_or(Ok(None), |read| read(payload))?;
        if told.is_none()
            && let Some((sample, text)) = self.classifier.plain_token(payload)
        {
            keep(&mut self.reply.text, self.expect.keep_text && sample == 0, text);
            self.reply.note(!text.is_empty(), text.len() as u64);
            return self.token(sample, at);
        }
        if payload == b"[DONE]" {
            self.reply.done = true;
            return self.settle();
        }
        let chunk = self.classifier.read(payload)?;
        if let Some(usage) = chunk.usage {
            self.count(usage, chunk.choices > 0);
        }
        if let Some(error) = &chunk.error {
            self.failed(error);
        }
        self.reply.finished += chunk.finished;
        chunk.tokens.iter().for_each(|piece| self.reply.note(piece.prints, piece.bytes));
        self.reply.quiet += chunk.ends.len() as u64;
        for piece in &chunk.tokens {
            keep(&mut self.reply.text, self.expect.keep_text && piece.sample == 0, &piece.text);
        }
        if let Some(times) = told {
            self.reply.told = true;
            let sample = chunk.tokens.first().map_or(0, |piece| piece.sample);
            return times.into_iter().try_for_each(|time| self.token(sample, time));
        }
        for piece in &chunk.tokens {
            self.token(piece.sample, at)?;
        }
        for end in chunk.ends {
            self.in_range(end.sample)?;
            if self.ends.len() >= MOST_SAMPLES {
                return Err(Broken::Endless { events: self.ends.len() as u64, asked: self.expect.tokens.unwrap_or(0) });
            }
            self.ends.push((end, at));
        }
        Ok(())
    }

    /// The server's error, of which further lines may come.
    fn failed(&mut self, words: &str) {
        match &mut self.reply.error {
            None if words.is_empty() => self.reply.error = Some("an event named `error`".into()),
            None => self.reply.error = Some(words.to_owned()),
            Some(known) if known.len() < MOST_WORDS && !words.is_empty() => {
                known.push(' ');
                known.push_str(words);
            }
            Some(_) => {}
        }
    }

    /// Where not one event came: an error of the server that is no event, as a gateway sends it.
    fn refused(&mut self, body: &[u8]) {
        if self.begun || !body.starts_with(b"{") {
            return;
        }
        if let Some(words) = self.classifier.read(body).ok().and_then(|chunk| chunk.error) {
            self.failed(&words);
        }
    }

    /// A count of tokens. One that comes with a part of the answer grows with it; others are of the whole.
    fn count(&mut self, usage: Usage, grows: bool) {
        let before = self.reply.usage;
        let known = before.filter(|before| before.completion_tokens.is_some());
        if (grows && !self.counts.is_empty()) || (known.is_some() && usage.completion_tokens.is_none()) {
            return;
        }
        self.reply.usage = Some(usage);
        if grows {
            return;
        }
        // Where there is one sample, the whole has no fewer than a part.
        let fell = known.filter(|known| {
            self.counts.is_empty() && self.reply.samples <= 1 && known.completion_tokens > usage.completion_tokens
        });
        for usage in fell.into_iter().chain([usage]) {
            if self.counts.last() == Some(&usage) {
                continue;
            }
            self.counts.truncate(MOST_COUNTS - 1);
            self.counts.push(usage);
        }
    }

    /// Finds out which count is taken, and whether ends that said nothing were tokens, once all is known. They were where the server counts one token
    /// for each event and for each end (the token at which a text ends prints nothing); and where nothing else tells of the
    /// tokens that there were.
    fn settle(&mut self) -> Result<(), Broken> {
        self.reply.choose(&self.counts, self.expect.tokens);
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

    /// Whether a sample can be one of those that were asked for.
    fn in_range(&self, sample: u32) -> Result<(), Broken> {
        let asked = self.expect.samples;
        if sample < asked && (sample as usize) < MOST_SAMPLES {
            Ok(())
        } else {
            Err(Broken::Sample { index: sample, asked })
        }
    }

    fn token(&mut self, sample: u32, at: u64) -> Result<(), Broken> {
        self.in_range(sample)?;
        let reply = &mut self.reply;
        let number = sample as usize;
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
        if reply.events > most_events(self.expect.tokens) {
            return Err(Broken::Endless { events: reply.events, asked: self.expect.tokens.unwrap_or(0) });
        }
        Ok(())
    }

    /// An answer in one piece: there is no time to a first token.
    fn whole(&mut self, body: &[u8], at: u64) -> Result<(), Broken> {
        let told = self.expect.told.map_or(Ok(None), |read| read(body))?;
        let chunk = self.classifier.read(body)?;
        let reply = &mut self.reply;
        (reply.usage, reply.error, reply.finished) = (chunk.usage, chunk.error, chunk.finished);
        reply.samples = chunk.choices;
        chunk.tokens.iter().for_each(|piece| reply.note(piece.prints, piece.bytes));
        reply.quiet += chunk.ends.len() as u64;
        // At least one each, where nobody counts.
        let by_length = chunk.ends.iter().filter(|end| end.by_length).count();
        reply.events = (chunk.tokens.len() + by_length) as u64;
        reply.done = reply.error.is_none() && chunk.choices > 0;
        reply.told = told.is_some();
        reply.last = told.map_or(at, |times| times.into_iter().max().unwrap_or(0));
        if let Some(piece) = chunk.tokens.first() {
            keep(&mut reply.text, self.expect.keep_text, &piece.text);
        }
        Ok(())
    }
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
        Expect { stream: true, told: None, samples: 4, tokens: Some(8), keep_text: true, keep_headers: true };

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
        assert_eq!(exchange.refusal().as_deref(), Some("HTTP 503: not now"));

        for (head, body, said) in [
            (
                "200 OK\r\ncontent-type: text/html",
                "<p>Hello",
                "the answer is no stream of events but `text/html`: <p>Hello",
            ),
            ("302 Found\r\nlocation: /v2", "", "HTTP 302 leads to /v2, and redirects are not followed: (no text)"),
        ] {
            let mut exchange = Exchange::new(STREAM);
            let text = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            exchange.push(text.as_bytes(), 1).unwrap();
            assert_eq!(exchange.refusal().unwrap_or_else(|| exchange.without_token()), said);
        }
        let text =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"error\": \"boom\"}";
        let mut exchange = Exchange::new(STREAM);
        exchange.push(text.as_bytes(), 1).unwrap();
        assert_eq!(exchange.reply().error.as_deref(), Some("\"boom\""));

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
    fn nothing_counts_after_done_and_several_counts_are_told() {
        let (two, many) = (usage(2), usage(500));
        let with = |more: &[(&str, u64)]| timed(STREAM, &[&[(TEXT, 1), (TEXT, 2)], more].concat());
        let reply = with(&[(&two, 3), ("[DONE]", 3), (TEXT, 9), (&many, 9), ("{{{", 9)]);
        assert_eq!((reply.output_tokens(), reply.events, reply.last), ((2, false), 2, 2_000_000));
        assert_eq!((reply.miscounted(), reply.error), (None, None));
        let reply = with(&[(&two, 3), (&many, 3), ("[DONE]", 3)]);
        assert_eq!(reply.output_tokens(), (2, false));
        let told = reply.miscounted().unwrap();
        assert!(told.contains("2 tokens for a prompt of 4, then 500"), "{told}");
        // The same count again is no other one, and one that grows with the answer is none either.
        let reply = with(&[(&two, 3), (&two, 3), ("[DONE]", 3)]);
        assert_eq!((reply.output_tokens(), reply.miscounted()), ((2, false), None));
        let grows = |tokens: u64| TEXT.replace(']', &format!("],\"usage\":{{\"completion_tokens\":{tokens}}}"));
        let reply = timed(STREAM, &[(&grows(1), 1), (&grows(2), 2), ("[DONE]", 3)]);
        assert_eq!((reply.output_tokens(), reply.miscounted()), ((2, false), None));
        let reply = timed(STREAM, &[(&grows(1), 1), (&grows(2), 2), (&usage(1), 3), ("[DONE]", 3)]);
        assert!(reply.miscounted().is_some());
    }

    #[test]
    fn an_event_named_error_and_a_reason_that_is_none_are_errors() {
        let named = chunked(&[
            &format!("data: {TEXT}\n\n"),
            "event: error\ndata: {\"message\": \"boom\"}\n\n",
            "data: [DONE]\n\n",
        ]);
        let mut exchange = Exchange::new(STREAM);
        exchange.push(named.as_bytes(), 1).unwrap();
        assert_eq!(exchange.reply().error.as_deref(), Some("{\"message\": \"boom\"}"));
        let abort = STOP.replace("stop", "abort");
        let reply = timed(STREAM, &[(TEXT, 1), (&abort, 2), (&usage(1), 2), ("[DONE]", 2)]);
        assert_eq!(reply.error.as_deref(), Some("finish_reason \"abort\""));
    }

    #[test]
    fn an_event_of_several_data_lines_is_one() {
        let lines = TEXT.replace("\"text\"", "\ndata: \"text\"").replace('}', "}\ndata: ");
        let text = chunked(&[&format!("data: {lines}\n\n"), &format!("data: {}\n\ndata: [DONE]\n\n", usage(1))]);
        let mut exchange = Exchange::new(STREAM);
        exchange.push(text.as_bytes(), 1).unwrap();
        let reply = exchange.into_reply();
        assert_eq!((reply.text.as_str(), reply.output_tokens(), reply.done), ("a", (1, false), true));
        let cut = chunked(&["data: {\"choices\": [\n\ndata: [DONE]\n\n"]);
        assert!(Exchange::new(STREAM).push(cut.as_bytes(), 1).is_err());
    }

    #[test]
    fn a_status_without_a_body_is_an_answer_at_once() {
        for (head, keeps) in [
            ("204 No Content\r\n", false),
            ("204 No Content\r\ntransfer-encoding: chunked\r\n", false),
            ("205 Reset Content\r\n", false),
            ("205 Reset Content\r\ncontent-length: 0\r\n", true),
            ("304 Not Modified\r\ncontent-length: 90\r\n", false),
            ("101 Switching Protocols\r\nupgrade: x\r\n", false),
        ] {
            let text = format!("HTTP/1.1 {head}\r\n");
            let mut exchange = Exchange::new(STREAM);
            let progress = exchange.push(text.as_bytes(), 1).unwrap();
            assert_eq!(progress, Progress::Complete { keep_alive: keeps }, "{head}");
            assert_eq!(exchange.reply().status, head[..3].parse().ok(), "{head}");
        }
    }

    #[test]
    fn times_that_the_server_tells_count_where_it_may_tell_them() {
        fn seven(event: &[u8]) -> Result<Option<Vec<u64>>, Broken> {
            Ok(event.starts_with(b"{").then(|| vec![7]))
        }
        let reply = timed(STREAM, &[(TEXT, 10), ("[DONE]", 10)]);
        assert_eq!((reply.first, reply.told), (Some(10_000_000), false));
        let told = Expect { told: Some(seven), ..STREAM };
        // Also where the second event is like the first one.
        let reply = timed(told, &[(TEXT, 10), (TEXT, 20), ("[DONE]", 30)]);
        assert_eq!((reply.first, reply.last, reply.gaps, reply.told), (Some(7), 7, vec![0], true));
        let mut exchange =
            Exchange::new(Expect { told: Some(|_| Err(Broken::Told { reason: "no".into() })), ..STREAM });
        exchange.push(ANSWER.as_bytes(), 0).unwrap();
        let event = format!("data: {TEXT}\n\n");
        let error = exchange.push(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes(), 1).unwrap_err();
        assert_eq!(error, Broken::Told { reason: "no".into() });
        // An answer in one piece, too.
        let body = r#"{"choices":[{"index":0,"text":"a"}],"usage":{"completion_tokens":3}}"#;
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut exchange = Exchange::new(Expect { stream: false, ..told });
        exchange.push(text.as_bytes(), 5_000).unwrap();
        assert_eq!((exchange.reply().last, exchange.reply().told), (7, true));
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
            let proper = exchange.closed(2).unwrap_or(false);
            // Where the head tells how the body ends, the close of the connection is no proper end.
            proptest::prop_assert!(!proper || exchange.body.as_ref().is_some_and(Body::may_end_here));
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
            let proper = exchange.closed(2).unwrap_or(false);
            // Where the head tells how the body ends, the close of the connection is no proper end.
            proptest::prop_assert!(!proper || exchange.body.as_ref().is_some_and(Body::may_end_here));
        }
    }
}
