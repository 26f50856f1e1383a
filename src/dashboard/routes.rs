//! What is answered to which request.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::access::{HEADERS, POLICY};
use super::source::StopMode;
use super::watch::Watched;
use super::{App, Gate, metrics, pages, stream};
use crate::safe;

/// Streams that are open at once, at most.
const STREAMS: usize = 64;

/// The two texts of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For who asks for it, as Prometheus does.
    OpenMetrics,
    /// For all others: a browser, `curl`, `promtool`.
    Classic,
}

impl Form {
    /// What these headers ask for.
    pub fn of(headers: &HeaderMap) -> Self {
        let asked = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        match asked
            .flat_map(|accept| accept.split(','))
            .any(|kind| kind.trim().starts_with("application/openmetrics-text"))
        {
            true => Self::OpenMetrics,
            false => Self::Classic,
        }
    }

    /// This OpenMetrics text in the form that was asked for.
    pub fn answer(self, text: String) -> Response {
        match self {
            Self::OpenMetrics => typed("application/openmetrics-text; version=1.0.0; charset=utf-8", text),
            Self::Classic => typed("text/plain; version=0.0.4; charset=utf-8", metrics::classic(&text)),
        }
    }
}

pub(super) fn router(app: Arc<App>) -> Router {
    let gate = Arc::clone(&app.gate);
    let routes = Router::new()
        .route("/", get(page))
        .route("/page.js", get(async || typed("text/javascript; charset=utf-8", pages::SCRIPT)))
        .route("/style.css", get(async || typed("text/css; charset=utf-8", pages::style())))
        // There is none; a browser that gets no answer shows an error.
        .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
        .route("/api/runs", get(runs))
        .route("/api/events", get(events))
        .route("/api/log", get(log))
        .route("/plot.svg", get(plot))
        .route("/report", get(report))
        .route("/metrics", get(prometheus))
        .route("/stop", post(stop));
    guarded(routes.with_state(app), gate)
}

/// Lets nobody through who may not ask, and gives every answer its headers.
pub(super) fn guarded(routes: Router, gate: Arc<Gate>) -> Router {
    routes.layer(middleware::from_fn_with_state(gate, guard))
}

async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&gate, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    response
}

fn refusal(gate: &Gate, request: &Request) -> Option<Response> {
    let headers = request.headers();
    if !gate.access.knows_host(headers) {
        let text =
            "this name is none of this machine's: open the address, or start the dashboard with `--allow-host NAME`\n";
        return Some(plain(StatusCode::MISDIRECTED_REQUEST, text));
    }
    let path = request.uri().path();
    let in_link =
        matches!(path, "/" | "/metrics") && gate.access.is_token(&parameter(request, "token").unwrap_or_default());
    let open = path == "/metrics" && gate.options.metrics_open;
    if !open && !in_link && !gate.access.is_allowed(headers) {
        let mut response = plain(StatusCode::UNAUTHORIZED, pages::CLOSED);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Some(response);
    }
    if !gate.access.is_own_page(request.method(), headers) {
        return Some(plain(StatusCode::FORBIDDEN, "this request does not come from the dashboard's page\n"));
    }
    None
}

async fn page(State(app): State<Arc<App>>, request: Request) -> Response {
    opened(&app.gate, &request, pages::PAGE)
}

/// A page; with the token in the link, the cookie and a way to the page without it.
pub(super) fn opened(gate: &Gate, request: &Request, page: &'static str) -> Response {
    if parameter(request, "token").is_none() {
        return typed("text/html; charset=utf-8", page);
    }
    let mut response = typed("text/html; charset=utf-8", pages::WELCOME);
    if let Ok(cookie) = HeaderValue::from_str(&gate.access.set_cookie()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

async fn runs(State(app): State<Arc<App>>) -> Response {
    let control = app.gate.options.control;
    let read = blocking(move || {
        let mut runs = app.source.runs()?;
        runs["current"] = json!(app.source.current());
        runs["control"] = json!(control);
        Ok(runs)
    });
    match read.await {
        Ok(runs) => json_of(&runs),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

/// Everything that happens to a run.
async fn events(State(app): State<Arc<App>>, request: Request) -> Response {
    let (path, watched) = match watched(&app, parameter(&request, "run")).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let after = last.or_else(|| parameter(&request, "after")).and_then(|id| id.trim().parse().ok());
    match stream::of(&app, watched, path, after, STREAMS) {
        Some(stream) => Sse::new(stream).keep_alive(KeepAlive::default()).into_response(),
        None => failed(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open"),
    }
}

async fn log(State(app): State<Arc<App>>, request: Request) -> Response {
    let (_, watched) = match watched(&app, parameter(&request, "run")).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let name = parameter(&request, "name").unwrap_or_default();
    let server = parameter(&request, "role").as_deref() != Some("benchmark");
    match blocking(move || watched.log(&name, server)).await {
        Ok((file, lines)) => json_of(&json!({ "file": file, "lines": lines })),
        Err(error) => failed(StatusCode::NOT_FOUND, &error),
    }
}

async fn plot(State(app): State<Arc<App>>, request: Request) -> Response {
    let (path, _) = match watched(&app, parameter(&request, "run")).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let kind = parameter(&request, "kind").unwrap_or_default();
    match blocking(move || app.source.plot(&path, &kind)).await {
        Ok(svg) => {
            let mut response = typed("image/svg+xml", safe::redact(&svg).into_owned());
            // Opened by itself it is a document: nothing in it runs.
            let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        }
        Err(error) => failed(StatusCode::NOT_FOUND, &error),
    }
}

/// The report of a run as it is now: it has a policy of its own, with the hashes of its script and style.
async fn report(State(app): State<Arc<App>>, request: Request) -> Response {
    let (path, _) = match watched(&app, parameter(&request, "run")).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    match blocking(move || app.source.report(&path)).await {
        Ok(page) => {
            let mut response = typed("text/html; charset=utf-8", safe::redact(&page).into_owned());
            let policy = HeaderValue::from_static("connect-src 'none'; frame-ancestors 'none'");
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        }
        Err(error) => failed(StatusCode::NOT_FOUND, &error),
    }
}

async fn prometheus(State(app): State<Arc<App>>, request: Request) -> Response {
    let named = parameter(&request, "run");
    let form = Form::of(request.headers());
    let text = blocking(move || {
        let Some(path) = named.or_else(|| app.source.current()) else { return Ok(metrics::nothing()) };
        let watched = app.hub.run(&*app.source, &path).ok_or_else(|| "there is no such run".to_owned())?;
        let (_, answer) = watched.answer(&*app.source, &path);
        watched.with(|look, entries| metrics::text(look, entries, &answer))
    });
    match text.await {
        Ok(text) => form.answer(text),
        Err(error) => failed(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

/// Asks a run to end.
async fn stop(State(app): State<Arc<App>>, request: Request) -> Response {
    if !app.gate.options.control {
        return failed(
            StatusCode::FORBIDDEN,
            "this dashboard only shows: start it with `--allow-control` to stop runs from it",
        );
    }
    let Some(mode) = parameter(&request, "mode").as_deref().and_then(StopMode::of) else {
        return failed(StatusCode::BAD_REQUEST, "`mode` is `after-current`, `in-order` or `now`");
    };
    let (path, _) = match watched(&app, parameter(&request, "run")).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    match blocking(move || app.source.stop(&path, mode)).await {
        Ok(said) => json_of(&json!({ "said": said })),
        Err(error) => failed(StatusCode::CONFLICT, &error),
    }
}

/// The run that a request names, else the current one.
async fn watched(app: &Arc<App>, named: Option<String>) -> Result<(String, Arc<Watched>), Response> {
    let app = Arc::clone(app);
    let found = blocking(move || {
        let path = named.or_else(|| app.source.current()).ok_or_else(|| "there is no run yet".to_owned())?;
        let watched = app.hub.run(&*app.source, &path).ok_or_else(|| "there is no such run".to_owned())?;
        Ok((path, watched))
    });
    found.await.map_err(|error| failed(StatusCode::NOT_FOUND, &error))
}

/// A parameter of the link, decoded.
fn parameter(request: &Request, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    let link = reqwest::Url::parse(&format!("http://localhost/?{query}")).ok()?;
    link.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// Does what may wait for files on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err("that is a bug of vllm-bench: its log says more".to_owned()))
}

pub(super) fn typed(kind: &'static str, body: impl Into<axum::body::Body>) -> Response {
    ([(header::CONTENT_TYPE, kind)], body.into()).into_response()
}

fn plain(code: StatusCode, text: &'static str) -> Response {
    (code, HeaderMap::new(), text).into_response()
}

pub(super) fn json_of(value: &Value) -> Response {
    typed("application/json", safe::redact(&value.to_string()).into_owned())
}

fn failed(code: StatusCode, error: &str) -> Response {
    let mut response = json_of(&json!({ "error": error }));
    *response.status_mut() = code;
    response
}
