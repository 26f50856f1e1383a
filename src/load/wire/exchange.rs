//! One answer as it arrives: head, framing, events, and what they add up to.

use super::chunk::MOST_WORDS;
use super::head::{Head, HeadReader};
use super::reader::Reader;
use super::{Body, Broken, Reply, Splitter, ToldTimes, excerpt};
/// How much of a body is kept that is no answer: of a refused request, of a stream without events.
const MOST_EXCERPT: usize = 2048;
/// The longest answer that is not streamed.
const MOST_WHOLE: usize = 256 << 20;
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
    head: HeadReader,
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

impl Exchange {
    /// An answer of which nothing has come.
    pub fn new(expect: Expect) -> Self {
        Self {
            expect,
            head: HeadReader::default(),
            body: None,
            keep_alive: false,
            events: false,
            splitter: Splitter::default(),
            reader: Reader::new(expect),
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
            None => match self.head.push(bytes)? {
                Some((head, used)) => {
                    self.begin(head);
                    &bytes[used..]
                }
                None => return Ok(Progress::More),
            },
        };
        let Self { body, splitter, reader, whole, events, .. } = self;
        let Some(body) = body.as_mut() else { return Ok(Progress::More) };
        let (events, ok) = (*events, reader.reply.status == Some(200));
        body.push(rest, &mut |piece| {
            reader.reply.bytes += piece.len() as u64;
            if events {
                if !reader.has_begun() {
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

    fn begin(&mut self, head: Head) {
        let reply = &mut self.reader.reply;
        reply.status = Some(head.status);
        if self.expect.keep_headers {
            reply.headers = head.timed;
        }
        (self.content, self.location, self.keep_alive) = (head.content, head.location, head.keep_alive);
        // A stream is a stream whatever its content type says.
        self.events = head.status == 200 && self.expect.stream;
        self.body = Some(Body::new(head.framing));
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
