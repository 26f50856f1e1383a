//! `/v1/completions` and `/v1/chat/completions`: from a request's body to the engine and back, streamed or whole.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};

use super::engine::{Answer, Burst, Session, Work};
use super::fault::BrokenStream;
use super::model::hash;
use super::prefix::{self, Blocks};
use super::server::http::{App, error, events, unix_time};
use super::tokens::{count, push_word};

/// The text of chat messages, with a little for the template around each.
pub fn messages_text(body: &Value) -> String {
    let mut text = String::new();
    for message in body.get("messages").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(message.get("role").and_then(Value::as_str).unwrap_or_default());
        text.push('\n');
        match message.get("content") {
            Some(Value::String(content)) => text.push_str(content),
            Some(Value::Array(parts)) => {
                parts.iter().filter_map(|part| part.get("text")?.as_str()).for_each(|part| text.push_str(part));
            }
            _ => {}
        }
        text.push('\n');
    }
    text
}

/// One prompt of a body.
struct Asking {
    tokens: u64,
    /// Of its text: what is answered follows from it.
    seed: u64,
    blocks: Arc<Blocks>,
}

impl Asking {
    fn of_text(text: &str, block_size: Option<u64>) -> Self {
        let blocks = block_size.map(|size| prefix::of_text(text, size)).unwrap_or_default();
        Self { tokens: count(text).max(1), seed: hash(text), blocks: Arc::new(blocks) }
    }

    fn of_ids(ids: &[Value], block_size: Option<u64>) -> Self {
        let numbers = || ids.iter().filter_map(Value::as_u64);
        let blocks = block_size.map(|size| prefix::of_ids(numbers(), size)).unwrap_or_default();
        let seed = numbers().fold(7u64, |seed, id| seed.wrapping_mul(31) ^ id);
        Self { tokens: ids.len().max(1) as u64, seed, blocks: Arc::new(blocks) }
    }
}

/// The prompts of a body. `block_size`: of the prefix cache, where there is one.
fn prompts(body: &Value, chat: bool, block_size: Option<u64>) -> Option<Vec<Asking>> {
    let of_text = |text: &str| Asking::of_text(text, block_size);
    if chat {
        body.get("messages")?.as_array()?;
        return Some(vec![of_text(&messages_text(body))]);
    }
    match body.get("prompt")? {
        Value::String(text) => Some(vec![of_text(text)]),
        Value::Array(items) => match items.first()? {
            Value::Number(_) => Some(vec![Asking::of_ids(items, block_size)]),
            Value::String(_) => Some(items.iter().filter_map(Value::as_str).map(of_text).collect()),
            Value::Array(_) => {
                let lists = items.iter().filter_map(Value::as_array);
                Some(lists.map(|ids| Asking::of_ids(ids, block_size)).collect())
            }
            _ => None,
        },
        _ => None,
    }
}

/// Answers a request.
pub async fn answer(app: Arc<App>, chat: bool, headers: &HeaderMap, body: &[u8]) -> Response {
    let session = Session::of(headers);
    let broken = {
        let (index, warmup) = session.as_ref().map_or((None, false), |session| (Some(session.index), session.warmup));
        app.breaks(index, warmup)
    };
    if broken == Some(BrokenStream::Silent) {
        if let Some(session) = &session {
            app.engine.answered(session);
        }
        return std::future::pending().await;
    }
    let mut request = match Asked::parse(&app, chat, session.clone(), body) {
        Ok(request) => request,
        Err(response) => {
            if let Some(session) = &session {
                app.engine.answered(session);
            }
            return *response;
        }
    };
    if broken == Some(BrokenStream::Short) {
        for work in &mut request.work {
            (work.output_tokens, work.by_length) = ((work.output_tokens / 2).max(1), false);
        }
    }
    let answers: Vec<Answer> = request.work.iter().map(|work| app.engine.submit(work.clone())).collect();
    let mut chunks = Chunks::new(&request);
    let bursts = bursts(answers);
    if request.stream {
        let head = chunks.head();
        let body = stream::iter((!head.is_empty()).then(|| Bytes::from(head)))
            .chain(bursts.map(move |(index, burst)| chunks.format(index, burst)));
        return events(match broken {
            None | Some(BrokenStream::Short | BrokenStream::Silent) => {
                Body::from_stream(body.map(Ok::<_, std::convert::Infallible>))
            }
            Some(how) => Body::from_stream(breaking(body, how)),
        });
    }
    let mut lengths = vec![0u64; request.work.len()];
    let mut last = 0;
    tokio::pin!(bursts);
    while let Some((index, burst)) = bursts.next().await {
        match burst {
            Some(burst) => {
                lengths[index] += burst.times.len() as u64;
                last = burst.times.last().copied().unwrap_or(0).max(last);
            }
            None => return engine_dead(),
        }
    }
    let mut whole = chunks.whole(&lengths);
    if session.is_some() {
        whole["sim_times_ns"] = json!([last]);
    }
    Json(whole).into_response()
}

/// An answer that goes wrong after its first token.
fn breaking(
    body: impl Stream<Item = Bytes> + Send + 'static,
    how: BrokenStream,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let first = |bytes: Bytes| {
        // One event of many, where a burst holds several.
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").map_or(bytes.len(), |at| at + 2);
        Ok(bytes.slice(..end))
    };
    let error = json!({"error": {"message": DEAD, "type": "InternalServerError", "param": null, "code": 500}});
    let then: Vec<std::io::Result<Bytes>> = match how {
        BrokenStream::Error => vec![Ok(Bytes::from(format!("data: {error}\n\ndata: [DONE]\n\n")))],
        BrokenStream::Malformed => vec![Ok(Bytes::from_static(b"data: {\"choices\": [\n\ndata: [DONE]\n\n"))],
        BrokenStream::Break => vec![Err(std::io::Error::other("SIMULATED fault `streams-fail:break`"))],
        BrokenStream::Stall | BrokenStream::Short | BrokenStream::Silent => vec![],
    };
    let stalls = if how == BrokenStream::Stall { 1 } else { 0 };
    let silence = stream::iter(0..stalls).then(|_| std::future::pending::<std::io::Result<Bytes>>());
    body.take(1).map(first).chain(stream::iter(then)).chain(silence)
}

const DEAD: &str = "EngineCore encountered an issue. See stack trace (above) for the root cause.";

fn engine_dead() -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", None, DEAD)
}

/// All bursts of all choices as they come; `None` when the engine is gone.
fn bursts(answers: Vec<Answer>) -> impl Stream<Item = (usize, Option<Burst>)> + Send {
    stream::select_all(answers.into_iter().enumerate().map(|(index, answer)| {
        Box::pin(stream::unfold(Some(answer), move |answer| async move {
            let mut answer = answer?;
            let burst = answer.next().await;
            let more = burst.as_ref().is_some_and(|burst| !burst.last);
            Some(((index, burst), more.then_some(answer)))
        }))
    }))
}

/// Samples of one request, at most. More are refused: fewer than asked for would be another measurement.
const MOST_SAMPLES: u64 = 4096;

/// An error that is answered at once.
type Refused = Box<Response>;

/// A request that was understood.
struct Asked {
    chat: bool,
    stream: bool,
    include_usage: bool,
    model: String,
    prompt_tokens: u64,
    seeds: Vec<u64>,
    work: Vec<Work>,
}

impl Asked {
    fn parse(app: &App, chat: bool, session: Option<Session>, body: &[u8]) -> Result<Asked, Refused> {
        let warmup = session.as_ref().is_some_and(|session| session.warmup);
        if app.must_fail(session.as_ref().map(|session| session.index), warmup) {
            let message = "SIMULATED fault `requests-fail`";
            return Err(Box::new(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", None, message)));
        }
        let body: Value =
            serde_json::from_slice(body).map_err(|cause| bad(None, &format!("JSON decode error: {cause}")))?;
        let model =
            body.get("model").and_then(Value::as_str).unwrap_or_else(|| app.served.first().map_or("", String::as_str));
        if !app.served.iter().any(|served| served == model) {
            let message = format!("The model `{model}` does not exist.");
            return Err(Box::new(error(StatusCode::NOT_FOUND, "NotFoundError", Some("model"), &message)));
        }
        let prompts = prompts(&body, chat, app.engine.keeps_prefixes()).ok_or_else(|| {
            let field = if chat { "messages" } else { "prompt" };
            bad(Some(field), &format!("{field}: Field required"))
        })?;
        let number = |name: &str| body.get(name).and_then(Value::as_u64);
        let flag = |name: &str| body.get(name).and_then(Value::as_bool).unwrap_or(false);
        let asked = number("max_completion_tokens").or_else(|| number("max_tokens"));
        if asked == Some(0) {
            return Err(bad(Some("max_tokens"), "max_tokens must be at least 1, got 0."));
        }
        let n = number("n").unwrap_or(1).max(1);
        if n > MOST_SAMPLES {
            return Err(bad(Some("n"), &format!("n must be at most {MOST_SAMPLES}, got {n}.")));
        }
        let (mut work, mut seeds) = (Vec::new(), Vec::new());
        for Asking { tokens, seed, blocks } in &prompts {
            let max_tokens = max_tokens(*tokens, asked, chat, app.max_model_len)?;
            for choice in 0..n {
                let natural = 20 + (seed ^ choice.wrapping_mul(0x9e37)) % 400;
                let output_tokens = if flag("ignore_eos") { max_tokens } else { max_tokens.min(natural) };
                seeds.push(seed.wrapping_add(choice));
                work.push(Work {
                    session: session.clone(),
                    prompt_tokens: *tokens,
                    blocks: Arc::clone(blocks),
                    output_tokens,
                    by_length: output_tokens == max_tokens,
                });
            }
        }
        let include_usage = body.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false);
        let prompt_tokens = prompts.iter().map(|prompt| prompt.tokens).sum();
        Ok(Asked { chat, stream: flag("stream"), include_usage, model: model.to_string(), prompt_tokens, seeds, work })
    }
}

fn bad(param: Option<&str>, message: &str) -> Refused {
    Box::new(error(StatusCode::BAD_REQUEST, "BadRequestError", param, message))
}

/// The tokens to generate at most, when prompt and answer fit into the context.
fn max_tokens(tokens: u64, asked: Option<u64>, chat: bool, most: u64) -> Result<u64, Refused> {
    if tokens >= most {
        let message = format!(
            "This model's maximum context length is {most} tokens. However, your request has {tokens} input tokens. Please reduce \
             the length of the input messages."
        );
        return Err(bad(Some("input_tokens"), &message));
    }
    let room = most - tokens;
    let max_tokens = asked.unwrap_or(if chat { room } else { 16.min(room) });
    if max_tokens > room {
        let message = format!(
            "'max_tokens' or 'max_completion_tokens' is too large: {max_tokens}. This model's maximum context length is {most} \
             tokens and your request has {tokens} input tokens ({max_tokens} > {most} - {tokens})."
        );
        return Err(bad(Some("max_tokens"), &message));
    }
    Ok(max_tokens)
}

/// Writes the answer of one request, as text and without serde: there are very many tokens.
struct Chunks {
    chat: bool,
    /// Tokens of one burst share an event (our own client asks).
    dense: bool,
    include_usage: bool,
    id: String,
    created: u64,
    model: String,
    prompt_tokens: u64,
    seeds: Vec<u64>,
    by_length: Vec<bool>,
    sent: Vec<u64>,
    open: usize,
    /// The beginning of every event.
    start: String,
}

impl Chunks {
    fn new(request: &Asked) -> Chunks {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (prefix, object) =
            if request.chat { ("chatcmpl", "chat.completion.chunk") } else { ("cmpl", "text_completion") };
        let (id, created) = (format!("{prefix}-sim{number:029x}"), unix_time());
        let model = serde_json::to_string(&request.model).unwrap_or_default();
        let start = format!(
            "data: {{\"id\":\"{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":["
        );
        Chunks {
            chat: request.chat,
            dense: request.work.first().is_some_and(|work| work.session.is_some()),
            include_usage: request.include_usage,
            id,
            created,
            model: request.model.clone(),
            prompt_tokens: request.prompt_tokens,
            seeds: request.seeds.clone(),
            by_length: request.work.iter().map(|work| work.by_length).collect(),
            sent: vec![0; request.work.len()],
            open: request.work.len(),
            start,
        }
    }

    /// The first chunk of a chat answer, which carries only the role.
    fn head(&self) -> String {
        let mut text = String::new();
        for index in (0..self.sent.len()).filter(|_| self.chat) {
            let _ = write!(
                text,
                "{}{{\"index\":{index},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n",
                self.start
            );
        }
        text
    }

    fn finish_reason(&self, index: usize) -> &'static str {
        if self.by_length[index] { "\"length\"" } else { "\"stop\"" }
    }

    fn words(&self, text: &mut String, index: usize, from: u64, how_many: u64) {
        (from..from + how_many)
            .for_each(|n| push_word(text, self.seeds[index].wrapping_add(n.wrapping_mul(0x9e37_79b9)) >> 3));
    }

    fn usage(&self) -> String {
        let generated: u64 = self.sent.iter().sum();
        format!(
            "{{\"prompt_tokens\":{},\"total_tokens\":{},\"completion_tokens\":{generated}}}",
            self.prompt_tokens,
            self.prompt_tokens + generated
        )
    }

    fn format(&mut self, index: usize, burst: Option<Burst>) -> Bytes {
        let Some(burst) = burst else {
            let body = json!({"error": {"message": DEAD, "type": "InternalServerError", "param": null, "code": 500}});
            return Bytes::from(format!("data: {body}\n\ndata: [DONE]\n\n"));
        };
        let mut text = String::with_capacity(320 + burst.times.len() * 32);
        // Else the tokens of one step do, as vLLM sends them.
        let dense = self.dense;
        let mut events = burst.times.chunk_by(|one, next| dense || one == next).peekable();
        while let Some(times) = events.next() {
            self.event(&mut text, index, times, burst.last && events.peek().is_none());
        }
        if burst.last && burst.times.is_empty() {
            self.event(&mut text, index, &[], true);
        }
        if burst.last {
            self.open -= 1;
        }
        if self.open == 0 {
            if self.include_usage {
                let _ = write!(text, "{}],\"usage\":{}}}\n\n", self.start, self.usage());
            }
            text.push_str("data: [DONE]\n\n");
        }
        Bytes::from(text)
    }

    fn event(&mut self, text: &mut String, index: usize, times: &[u64], last: bool) {
        text.push_str(&self.start);
        let open = if self.chat { "\"delta\":{\"content\":\"" } else { "\"text\":\"" };
        let _ = write!(text, "{{\"index\":{index},{open}");
        self.words(text, index, self.sent[index], times.len() as u64);
        self.sent[index] += times.len() as u64;
        text.push_str(if self.chat { "\"},\"logprobs\":null" } else { "\",\"logprobs\":null" });
        let _ = write!(
            text,
            ",\"finish_reason\":{},\"stop_reason\":null,\"token_ids\":null}}]",
            if last { self.finish_reason(index) } else { "null" }
        );
        if self.dense {
            text.push_str(",\"sim_times_ns\":[");
            for (number, time) in times.iter().enumerate() {
                let _ = write!(text, "{}{time}", if number > 0 { "," } else { "" });
            }
            text.push(']');
        } else if let Some(time) = times.first() {
            let _ = write!(text, ",\"sim_time\":{}", *time as f64 / 1e9);
        }
        text.push_str("}\n\n");
    }

    /// The answer in one piece.
    fn whole(&mut self, lengths: &[u64]) -> Value {
        self.sent = lengths.to_vec();
        let choices: Vec<Value> = (0..lengths.len())
            .map(|index| {
                let mut text = String::new();
                self.words(&mut text, index, 0, lengths[index]);
                let reason = self.finish_reason(index).trim_matches('"');
                if self.chat {
                    json!({"index": index, "message": {"role": "assistant", "content": text}, "logprobs": null, "finish_reason": reason, "stop_reason": null})
                } else {
                    json!({"index": index, "text": text, "logprobs": null, "finish_reason": reason, "stop_reason": null, "token_ids": null})
                }
            })
            .collect();
        let usage: Value = serde_json::from_str(&self.usage()).unwrap_or_default();
        json!({
            "id": self.id, "object": if self.chat { "chat.completion" } else { "text_completion" }, "created": self.created,
            "model": self.model, "choices": choices, "usage": usage, "simulated": true,
        })
    }
}
