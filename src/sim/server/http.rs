//! The HTTP interface of a simulated server: vLLM's paths, bodies and errors.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Launch, VERSION};
use crate::sim::engine::Engine;
use crate::sim::fault::{BrokenStream, Fault};
use crate::sim::log::{Log, Source};
use crate::sim::openai;
use crate::sim::settings::Speed;
use crate::sim::tokens::{Vocabulary, count};

/// Seconds between two lines about throughput, at least.
const LOG_AT_MOST: f64 = 0.05;

/// What the handlers share.
pub struct App {
    /// Names under which the model is served.
    pub served: Vec<String>,
    /// The longest request.
    pub max_model_len: u64,
    /// The engine.
    pub engine: Arc<Engine>,
    root: String,
    vocab: u32,
    vocabulary: Mutex<Vocabulary>,
    flags: Value,
    api_keys: Vec<String>,
    log: Arc<Log>,
    source: Source,
    access_log: bool,
    log_stats: bool,
    created: u64,
    not_healthy: Option<u64>,
    health_asked: AtomicU64,
    requests_fail: Option<Failing>,
    streams_fail: Option<(BrokenStream, Failing)>,
    dev_mode: bool,
    reset_refused: bool,
    silent_health: bool,
}

/// Which requests a fault strikes.
struct Failing {
    /// So many of them.
    most: u64,
    /// Only in this benchmark of the server start.
    load: Option<u64>,
    struck: AtomicU64,
}

impl Failing {
    fn new(launch: &Launch, fault: &Fault, count: Option<u64>) -> Failing {
        Failing { most: count.unwrap_or(u64::MAX), load: launch.settings.load_of(fault), struck: AtomicU64::new(0) }
    }

    /// By its number in a session, so that the same ones fail every time.
    fn strikes(&self, load: u64, index: Option<u64>) -> bool {
        self.load.is_none_or(|only| only == load)
            && index.unwrap_or_else(|| self.struck.fetch_add(1, Ordering::Relaxed)) < self.most
    }
}

/// Seconds since 1970.
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl App {
    /// The application of a server that has started.
    pub fn new(launch: &Launch, engine: Arc<Engine>) -> Arc<App> {
        let config = &launch.config;
        let wrong = launch.faults.contains(&Fault::WrongModel);
        let served = if wrong { vec!["simulated/another-model".to_string()] } else { config.served.clone() };
        let not_healthy = launch.faults.iter().find_map(|fault| match fault {
            Fault::NeverHealthy => Some(u64::MAX),
            Fault::LateHealthy { times } => Some(u64::from(*times)),
            _ => None,
        });
        let requests_fail = launch.faults.iter().find_map(|fault| match fault {
            Fault::RequestsFail { count } => Some(Failing::new(launch, fault, *count)),
            _ => None,
        });
        let streams_fail = launch.faults.iter().find_map(|fault| match fault {
            Fault::StreamsFail { how, count } => Some((*how, Failing::new(launch, fault, *count))),
            _ => None,
        });
        let mut flags: serde_json::Map<String, Value> = ["model", "tp", "quantization", "eager", "port"]
            .into_iter()
            .filter_map(|key| Some((key.to_string(), config.flag(key)?.into())))
            .collect();
        for (key, _) in config.parsed.iter().filter(|(key, _)| *key != "api-key" && *key != "hf-token") {
            flags.insert(key.to_string(), config.flag(key).into());
        }
        Arc::new(App {
            served,
            max_model_len: u64::from(config.max_model_len),
            engine,
            root: config.model.clone(),
            vocab: launch.cost.architecture.vocab,
            vocabulary: Mutex::default(),
            flags: flags.into(),
            api_keys: config.api_keys.clone(),
            log: Arc::clone(&launch.log),
            source: launch.api.clone(),
            access_log: !config.parsed.on("disable-uvicorn-access-log", false)
                && matches!(config.parsed.get("uvicorn-log-level"), None | Some("info" | "debug" | "trace")),
            log_stats: !config.parsed.on("disable-log-stats", false),
            created: unix_time(),
            not_healthy,
            health_asked: AtomicU64::new(0),
            requests_fail,
            streams_fail,
            silent_health: launch.faults.contains(&Fault::SilentHealth),
            reset_refused: launch.faults.contains(&Fault::ResetRefused),
            dev_mode: std::env::var("VLLM_SERVER_DEV_MODE").is_ok_and(|value| value == "1"),
        })
    }

    /// Must this request fail (fault `requests-fail`)?
    pub fn must_fail(&self, index: Option<u64>, warmup: bool) -> bool {
        let load = self.engine.loads.load(Ordering::Relaxed);
        !warmup && self.requests_fail.as_ref().is_some_and(|failing| failing.strikes(load, index))
    }

    /// How the answer to this request goes wrong (fault `streams-fail`), if it does.
    pub fn breaks(&self, index: Option<u64>, warmup: bool) -> Option<BrokenStream> {
        let (how, failing) = self.streams_fail.as_ref()?;
        let load = self.engine.loads.load(Ordering::Relaxed);
        (!warmup && failing.strikes(load, index)).then_some(*how)
    }

    /// vLLM's line about its throughput, every ten simulated seconds (at most one a real second).
    pub async fn log_throughput(self: Arc<Self>, speed: Speed) {
        // As often as vLLM in its own time, and no more than twenty times in a second of ours.
        let seconds = if speed.is_infinite() { LOG_AT_MOST } else { speed.real(10.0).as_secs_f64().max(LOG_AT_MOST) };
        let (mut prompt, mut generated) = (0, 0);
        if !self.log_stats {
            return;
        }
        loop {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            let (new_prompt, new_generated, now, hit_rate) = self.engine.metrics.with(|counters| {
                (counters.prompt_tokens, counters.generation_tokens, counters.now(), counters.prefix_hit_rate())
            });
            let simulated = if speed.is_infinite() { seconds } else { seconds * speed.factor() };
            let rates = ((new_prompt - prompt) as f64 / simulated, (new_generated - generated) as f64 / simulated);
            if rates.1 > 0.0 || now.running > 0 {
                let text = format!(
                    "Engine 000: Avg prompt throughput: {:.1} tokens/s, Avg generation throughput: {:.1} tokens/s, Running: {} reqs, \
                     Waiting: {} reqs, GPU KV cache usage: {:.1}%, Prefix cache hit rate: {:.1}%",
                    rates.0,
                    rates.1,
                    now.running,
                    now.waiting,
                    now.kv_usage * 100.0,
                    hit_rate
                );
                self.log.info(&self.source, "loggers.py:257", &text);
            }
            (prompt, generated) = (new_prompt, new_generated);
        }
    }
}

/// Answers on a listening socket for ever.
pub async fn serve(listener: TcpListener, app: Arc<App>) -> std::io::Result<()> {
    let router = router(app).into_make_service_with_connect_info::<SocketAddr>();
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ping", get(health).post(health))
        .route("/metrics", get(metrics))
        .route("/version", get(async || Json(json!({"version": VERSION}))))
        .route("/load", get(async || Json(json!({"server_load": 0}))))
        .route("/v1/models", get(models))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/reset_prefix_cache", post(reset_prefix_cache))
        .route("/reset_mm_cache", post(development))
        .route(
            "/vllm_bench_sim",
            get(async |State(app): State<Arc<App>>| Json(json!({"simulated": true, "flags": app.flags})))
                // A benchmark begins: the answer says which one on this start it is.
                .post(async |State(app): State<Arc<App>>| {
                    let load = app.engine.loads.fetch_add(1, Ordering::Relaxed) + 1;
                    Json(json!({"simulated": true, "flags": app.flags, "load": load}))
                }),
        )
        .fallback(async || (StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found"}))))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Forgets the prefixes, where the server does what it says.
async fn reset_prefix_cache(State(app): State<Arc<App>>) -> Response {
    if app.dev_mode && !app.reset_refused {
        app.engine.forget_prefixes();
    }
    development(State(app)).await
}

/// What vLLM offers in development mode only.
async fn development(State(app): State<Arc<App>>) -> Response {
    match (app.dev_mode, app.reset_refused) {
        (false, _) => StatusCode::NOT_FOUND.into_response(),
        (true, true) => Json(json!({"success": false})).into_response(),
        (true, false) => StatusCode::OK.into_response(),
    }
}

/// The key and the access log, around every request.
async fn around(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let (method, target) = (request.method().clone(), request.uri().to_string());
    let allowed = app.api_keys.is_empty()
        || !request.uri().path().starts_with("/v1")
        || has_key(request.headers(), &app.api_keys);
    let response = if allowed {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, Json(json!({"error": "Unauthorized"}))).into_response()
    };
    if app.access_log {
        let status = response.status();
        let line = format!(
            "INFO:     {peer} - \"{method} {target} HTTP/1.1\" {} {}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default()
        );
        app.log.plain(&app.source, &line);
    }
    response
}

fn has_key(headers: &HeaderMap, keys: &[String]) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|key| keys.iter().any(|known| known == key))
}

async fn health(State(app): State<Arc<App>>) -> StatusCode {
    if app.silent_health && app.engine.was_asked() {
        std::future::pending::<()>().await;
    }
    match app.not_healthy {
        Some(times) if app.health_asked.fetch_add(1, Ordering::Relaxed) < times => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.engine.metrics.text(app.served.first().map_or("", String::as_str));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let data: Vec<Value> = app
        .served
        .iter()
        .map(|name| {
            json!({
                "id": name, "object": "model", "created": app.created, "owned_by": "vllm", "root": app.root, "parent": null,
                "max_model_len": app.max_model_len, "permission": [], "simulated": true,
            })
        })
        .collect();
    Json(json!({"object": "list", "data": data}))
}

async fn completions(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    openai::answer(app, false, &headers, &body).await
}

async fn chat(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    openai::answer(app, true, &headers, &body).await
}

/// An error as vLLM 0.14 words it.
pub fn error(status: StatusCode, kind: &str, param: Option<&str>, message: &str) -> Response {
    let body = json!({"error": {"message": message, "type": kind, "param": param, "code": status.as_u16()}});
    (status, Json(body)).into_response()
}

fn parse(body: &[u8]) -> Result<Value, Box<Response>> {
    serde_json::from_slice(body).map_err(|cause| {
        let message = format!("[{{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error', 'ctx': {{'error': '{cause}'}}}}]");
        Box::new(error(StatusCode::BAD_REQUEST, "Bad Request", None, &message))
    })
}

async fn tokenize(State(app): State<Arc<App>>, body: Bytes) -> Response {
    let body = match parse(&body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let text = match body.get("prompt").and_then(Value::as_str) {
        Some(prompt) => prompt.to_string(),
        None => openai::messages_text(&body),
    };
    let mut vocabulary = app.vocabulary.lock().unwrap_or_else(PoisonError::into_inner);
    let tokens = vocabulary.encode(&text, app.vocab);
    let body = json!({"count": count(&text), "max_model_len": app.max_model_len, "tokens": tokens, "token_strs": null});
    Json(body).into_response()
}

async fn detokenize(State(app): State<Arc<App>>, body: Bytes) -> Response {
    let body = match parse(&body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let Some(tokens) = body.get("tokens").and_then(Value::as_array) else {
        return error(StatusCode::BAD_REQUEST, "BadRequestError", Some("tokens"), "tokens: Field required");
    };
    let ids = tokens.iter().filter_map(Value::as_u64).map(|id| id as u32);
    let prompt = app.vocabulary.lock().unwrap_or_else(PoisonError::into_inner).decode(ids);
    Json(json!({"prompt": prompt})).into_response()
}

/// A stream of server-sent events.
pub fn events(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response()
}
