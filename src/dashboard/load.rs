//! A load as a small page and as `/metrics`: what it counts anyway, read when somebody asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::metrics::{LoadNow, of_load};
use super::routes::{Form, guarded, json_of, opened, typed};
use super::{Gate, Watchers, pages};

/// Says how a load stands. It is asked at any moment, and must come back at once.
pub trait LoadSource: Send + Sync {
    /// Now.
    fn now(&self) -> LoadNow;
}

/// What the handlers share.
struct LoadApp {
    source: Arc<dyn LoadSource>,
    gate: Arc<Gate>,
    watchers: Arc<Watchers>,
}

pub(super) fn router(source: Arc<dyn LoadSource>, gate: Arc<Gate>, watchers: Arc<Watchers>) -> Router {
    let app = Arc::new(LoadApp { source, gate: Arc::clone(&gate), watchers });
    let routes = Router::new()
        .route("/", get(page))
        .route("/load.js", get(async || typed("text/javascript; charset=utf-8", pages::LOAD_SCRIPT)))
        .route("/style.css", get(async || typed("text/css; charset=utf-8", pages::style())))
        .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
        .route("/api/load", get(load))
        .route("/metrics", get(prometheus));
    guarded(routes.with_state(app), gate)
}

async fn page(State(app): State<Arc<LoadApp>>, request: Request) -> Response {
    opened(&app.gate, &request, pages::LOAD_PAGE)
}

async fn load(State(app): State<Arc<LoadApp>>) -> Response {
    let over = app.watchers.over.load(Ordering::Relaxed);
    let now = app.source.now();
    let rates = json!({
        "tokens_per_second": now.tokens_per_second(),
        "requests_per_second": now.requests_per_second(),
        "mean_ttft": now.mean_ttft(),
    });
    let answer = json_of(&json!({ "load": now, "rates": rates, "over": over }));
    // Who has seen the end is waited for no longer.
    app.watchers.streams.store(usize::from(!over), Ordering::Relaxed);
    answer
}

async fn prometheus(State(app): State<Arc<LoadApp>>, request: Request) -> Response {
    Form::of(request.headers()).answer(of_load(&app.source.now()))
}
