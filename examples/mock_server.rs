//! An OpenAI-compatible server with known times, to measure load generators with: the first token of an answer is due so
//! long after the request was read, each further one so long after the one before. It keeps how late it was itself, so that
//! a client's error can be told from the server's. With `--canned` it sends whole answers as fast as it can.
//!
//! One thread, readiness of sockets, no JSON but what it looks for in a body. Not for anything but measuring.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

#[derive(Parser)]
struct Args {
    /// Port on 127.0.0.1; 0 = any
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Milliseconds to the first token
    #[arg(long, default_value_t = 50.0)]
    ttft_ms: f64,
    /// Milliseconds between tokens
    #[arg(long, default_value_t = 10.0)]
    itl_ms: f64,
    /// Tokens of an answer (default: as asked for)
    #[arg(long)]
    tokens: Option<u64>,
    /// Send whole answers at once
    #[arg(long)]
    canned: bool,
}

struct Answer {
    /// When the next token is due, in nanoseconds.
    due: u64,
    sent: u64,
    tokens: u64,
    chat: bool,
}

struct Conn {
    stream: TcpStream,
    input: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    answer: Option<Answer>,
    serial: u64,
}

#[derive(Default)]
struct Lateness {
    first: Vec<u32>,
    all: Vec<u32>,
    requests: u64,
    first_request_unix_ns: u128,
    last_answer_unix_ns: u128,
    answers: u64,
    tokens: u64,
}

impl Lateness {
    /// An answer was sent to its end.
    fn answered(&mut self, tokens: u64) {
        self.answers += 1;
        self.tokens += tokens;
        self.last_answer_unix_ns = unix_ns();
    }
}

fn unix_ns() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos())
}

struct Server {
    args: Args,
    began: Instant,
    conns: HashMap<usize, Conn>,
    due: BinaryHeap<Reverse<(u64, usize, u64)>>,
    late: Lateness,
    next_token: usize,
    serial: u64,
    canned: HashMap<(u64, bool), Vec<u8>>,
}

const LISTENER: Token = Token(0);
const TIMER: Token = Token(1);
const MOST_KEPT: usize = 8_000_000;

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let mut listener = TcpListener::bind(([127, 0, 0, 1], args.port).into())?;
    // Thousands connect at once: none may have to try again, which would look like a late first token.
    let _ = nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN);
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{{\"port\": {}}}", listener.local_addr()?.port())?;
    stdout.flush()?;
    let mut poll = Poll::new()?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
    let mut server = Server {
        args,
        began: Instant::now(),
        conns: HashMap::new(),
        due: BinaryHeap::new(),
        late: Lateness::default(),
        next_token: 2,
        serial: 0,
        canned: HashMap::new(),
    };
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0u8; 256 << 10];
    loop {
        if let Err(error) = poll.poll(&mut events, Some(Duration::from_secs(1))) {
            if error.kind() == std::io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept(&listener, &poll),
                TIMER => {}
                Token(slot) => {
                    if event.is_writable() {
                        server.flush(slot);
                    }
                    if event.is_readable() || event.is_read_closed() {
                        server.read(slot, &mut buffer);
                    }
                }
            }
        }
        server.send_due();
        if let Some(Reverse((due, _, _))) = server.due.peek() {
            let wait = due.saturating_sub(server.now()).max(1);
            let wait = TimeSpec::from_duration(Duration::from_nanos(wait));
            let _ = timer.set(Expiration::OneShot(wait), TimerSetTimeFlags::empty());
        }
    }
}

impl Server {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn accept(&mut self, listener: &TcpListener, poll: &Poll) {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.set_nodelay(true);
            let slot = self.next_token;
            self.next_token += 1;
            let both = Interest::READABLE | Interest::WRITABLE;
            if poll.registry().register(&mut stream, Token(slot), both).is_ok() {
                let conn = Conn { stream, input: Vec::new(), out: Vec::new(), written: 0, answer: None, serial: 0 };
                self.conns.insert(slot, conn);
            }
        }
    }

    fn flush(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(&slot) else { return };
        while conn.written < conn.out.len() {
            match conn.stream.write(&conn.out[conn.written..]) {
                Ok(count) => conn.written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.conns.remove(&slot);
                    return;
                }
            }
        }
        conn.out.clear();
        conn.written = 0;
    }

    fn read(&mut self, slot: usize, buffer: &mut [u8]) {
        loop {
            let Some(conn) = self.conns.get_mut(&slot) else { return };
            match conn.stream.read(buffer) {
                Ok(0) => {
                    self.conns.remove(&slot);
                    return;
                }
                Ok(count) => {
                    conn.input.extend_from_slice(&buffer[..count]);
                    self.requests(slot);
                    if count < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.conns.remove(&slot);
                    return;
                }
            }
        }
    }

    /// Answers every request that is complete.
    fn requests(&mut self, slot: usize) {
        loop {
            let Some(conn) = self.conns.get_mut(&slot) else { return };
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            let head = match request.parse(&conn.input) {
                Ok(httparse::Status::Complete(head)) => head,
                Ok(httparse::Status::Partial) if conn.input.len() < 1 << 16 => return,
                _ => {
                    self.conns.remove(&slot);
                    return;
                }
            };
            let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length: usize =
                length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok()).unwrap_or(0);
            let path = request.path.unwrap_or("/").to_owned();
            let post = request.method == Some("POST");
            if conn.input.len() < head + length {
                return;
            }
            let rest = conn.input.split_off(head + length);
            let body = std::mem::replace(&mut conn.input, rest).split_off(head);
            self.answer(slot, post, &path, &body);
        }
    }

    fn answer(&mut self, slot: usize, post: bool, path: &str, body: &[u8]) {
        match (post, path) {
            (true, "/v1/completions" | "/v1/chat/completions") => {
                let chat = path.contains("chat");
                if self.late.requests == 0 {
                    self.late.first_request_unix_ns = unix_ns();
                }
                self.late.requests += 1;
                let asked = number(body, b"\"max_tokens\":").or_else(|| number(body, b"\"max_completion_tokens\":"));
                let tokens = self.args.tokens.or(asked).unwrap_or(16).max(1);
                let streamed = memchr::memmem::find(body, b"\"stream\":true").is_some()
                    || memchr::memmem::find(body, b"\"stream\": true").is_some();
                if !streamed {
                    let text = format!(
                        "{{\"id\":\"cmpl-0\",\"object\":\"text_completion\",\"created\":1,\"model\":\"mock\",\"choices\":[{{\"index\":0,\
                         \"text\":\"x\",\"finish_reason\":\"length\"}}],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{tokens},\
                         \"total_tokens\":{}}}}}",
                        tokens + 1
                    );
                    return self.whole(slot, "application/json", &text);
                }
                if self.args.canned {
                    let bytes = self.canned.entry((tokens, chat)).or_insert_with(|| {
                        let mut bytes = HEAD.as_bytes().to_vec();
                        (0..tokens).for_each(|at| token(&mut bytes, 1, at, tokens, chat));
                        bytes
                    });
                    if let Some(conn) = self.conns.get_mut(&slot) {
                        conn.out.extend_from_slice(bytes);
                    }
                    self.late.answered(tokens);
                    return self.flush(slot);
                }
                let now = self.now();
                let due = now + (self.args.ttft_ms * 1e6) as u64;
                self.serial += 1;
                if let Some(conn) = self.conns.get_mut(&slot) {
                    conn.serial = self.serial;
                    conn.answer = Some(Answer { due, sent: 0, tokens, chat });
                    self.due.push(Reverse((due, slot, conn.serial)));
                }
            }
            (true, "/lateness/reset") => {
                self.late = Lateness::default();
                self.whole(slot, "application/json", "{}");
            }
            (false, "/lateness") => {
                let text = format!(
                    "{{\"requests\": {}, \"answers\": {}, \"tokens\": {}, \"first_request_unix_ns\": {}, \
                     \"last_answer_unix_ns\": {}, \"first\": {}, \"all\": {}}}",
                    self.late.requests,
                    self.late.answers,
                    self.late.tokens,
                    self.late.first_request_unix_ns,
                    self.late.last_answer_unix_ns,
                    summary(&mut self.late.first),
                    summary(&mut self.late.all)
                );
                self.whole(slot, "application/json", &text);
            }
            (false, "/v1/models") => self.whole(
                slot,
                "application/json",
                "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\",\
                 \"root\":\"mock\",\"parent\":null,\"max_model_len\":131072}]}",
            ),
            (false, "/health" | "/version" | "/metrics") => self.whole(slot, "application/json", "{}"),
            _ => self.whole(slot, "application/json", "{\"detail\":\"Not Found\"}"),
        }
    }

    fn whole(&mut self, slot: usize, kind: &str, text: &str) {
        if let Some(conn) = self.conns.get_mut(&slot) {
            let length = text.len();
            let _ =
                write!(conn.out, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{text}");
        }
        self.flush(slot);
    }

    fn send_due(&mut self) {
        loop {
            let now = self.now();
            match self.due.peek() {
                Some(Reverse((due, _, _))) if *due <= now => {}
                _ => return,
            }
            let Some(Reverse((due, slot, serial))) = self.due.pop() else { return };
            let itl = (self.args.itl_ms * 1e6) as u64;
            let Some(conn) = self.conns.get_mut(&slot).filter(|conn| conn.serial == serial) else { continue };
            let Some(answer) = &mut conn.answer else { continue };
            if answer.sent == 0 {
                conn.out.extend_from_slice(HEAD.as_bytes());
            }
            token(&mut conn.out, serial, answer.sent, answer.tokens, answer.chat);
            let first = answer.sent == 0;
            answer.sent += 1;
            answer.due = due + itl;
            let more = (answer.sent < answer.tokens).then_some(answer.due);
            if more.is_none() {
                self.late.answered(answer.tokens);
                conn.answer = None;
            }
            self.flush(slot);
            // Sent when the system has taken it.
            let late = u32::try_from((self.now() - due) / 100).unwrap_or(u32::MAX);
            if first && self.late.first.len() < MOST_KEPT {
                self.late.first.push(late);
            }
            if self.late.all.len() < MOST_KEPT {
                self.late.all.push(late);
            }
            if let Some(due) = more {
                self.due.push(Reverse((due, slot, serial)));
            }
        }
    }
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

/// One token as vLLM 0.14.1 sends it, and after the last one the usage and the end.
fn token(out: &mut Vec<u8>, serial: u64, at: u64, tokens: u64, chat: bool) {
    let last = at + 1 == tokens;
    let reason = if last { "\"length\"" } else { "null" };
    let start = |object: &str| {
        format!(
            "data: {{\"id\":\"cmpl-{serial:032x}\",\"object\":\"{object}\",\"created\":1764000000,\"model\":\"mock\",\"choices\":["
        )
    };
    let mut text = String::with_capacity(400);
    let object = if chat { "chat.completion.chunk" } else { "text_completion" };
    let start = start(object);
    if chat && at == 0 {
        text.push_str(&start);
        text.push_str("{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    }
    text.push_str(&start);
    if chat {
        text.push_str("{\"index\":0,\"delta\":{\"content\":\" token\"},\"logprobs\":null,\"finish_reason\":");
        text.push_str(reason);
        text.push_str(",\"token_ids\":null}]}\n\n");
    } else {
        text.push_str("{\"index\":0,\"text\":\" token\",\"logprobs\":null,\"finish_reason\":");
        text.push_str(reason);
        text.push_str(",\"stop_reason\":null,\"token_ids\":null,\"prompt_token_ids\":null}],\"usage\":null}\n\n");
    }
    if last {
        text.push_str(&start);
        text.push_str(&format!(
            "],\"usage\":{{\"prompt_tokens\":32,\"total_tokens\":{},\"completion_tokens\":{tokens}}}}}\n\ndata: [DONE]\n\n",
            tokens + 32
        ));
    }
    let _ = write!(out, "{:x}\r\n", text.len());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
    if last {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

/// The number after a key of a body.
fn number(body: &[u8], key: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(body, key)? + key.len();
    let digits: String = body[at..]
        .iter()
        .skip_while(|byte| **byte == b' ')
        .take_while(|byte| byte.is_ascii_digit())
        .map(|byte| char::from(*byte))
        .collect();
    digits.parse().ok()
}

fn summary(values: &mut [u32]) -> String {
    if values.is_empty() {
        return "null".into();
    }
    values.sort_unstable();
    let ms = |value: u32| f64::from(value) * 1e-4;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64 * 1e-4;
    let at = |which: f64| ms(values[((values.len() - 1) as f64 * which) as usize]);
    format!(
        "{{\"count\": {}, \"mean_ms\": {mean:.4}, \"p50_ms\": {:.4}, \"p99_ms\": {:.4}, \"max_ms\": {:.4}}}",
        values.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
