//! The stream of events of one who watches: rows that changed, how the run stands, the answer when it is another one.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::stream::{self, Stream};
use serde_json::{Value, json};

use super::App;
use super::watch::Watched;
use crate::safe;

/// How often it is looked for news.
const LOOK: Duration = Duration::from_millis(500);
/// Rows of one message, at most: a page stays responsive while it takes them in.
const ROWS: usize = 250;

/// Counts an open stream for as long as it lives.
struct Counted(Arc<App>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.watchers.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One who watches, and what was sent to them.
struct Watcher {
    app: Counted,
    watched: Arc<Watched>,
    path: String,
    /// The number of the event after which they go on.
    after: Option<usize>,
    version: Option<u64>,
    status: String,
    /// The combinations that are left out, as they were sent: there may be thousands, and they hardly ever change.
    skips: Option<Value>,
    answer: u64,
    /// What is seen of the experiments under way, as it was sent.
    seen: String,
    /// Whether the farewell was said.
    over: bool,
}

/// Everything that happens to a run, from now on; first what is missing. `None` where too many watch.
pub(super) fn of(
    app: &Arc<App>,
    watched: Arc<Watched>,
    path: String,
    after: Option<usize>,
    most: usize,
) -> Option<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    let open = app.watchers.streams.fetch_add(1, Ordering::Relaxed);
    let app = Counted(Arc::clone(app));
    if open >= most {
        return None;
    }
    let watcher = Watcher {
        app,
        watched,
        path,
        after,
        version: None,
        status: String::new(),
        skips: None,
        answer: 0,
        seen: "[]".to_owned(),
        over: false,
    };
    let batches = stream::unfold(watcher, async |mut watcher| {
        if watcher.over {
            return None;
        }
        loop {
            if watcher.version.is_some() && !watcher.app.0.watchers.over.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
            // Files are read where waiting stops nobody.
            let looked = tokio::task::spawn_blocking(move || {
                let events = watcher.look();
                (watcher, events)
            });
            let (back, events) = looked.await.ok()?;
            watcher = back;
            if !events.is_empty() {
                return Some((events, watcher));
            }
        }
    });
    Some(futures_util::StreamExt::flat_map(batches, |events| stream::iter(events.into_iter().map(Ok))))
}

impl Watcher {
    fn look(&mut self) -> Vec<Event> {
        let over = self.app.0.watchers.over.load(Ordering::Relaxed);
        if over {
            self.watched.look_again();
        }
        let mut events = Vec::new();
        let news = match (self.version, self.after) {
            (None, Some(after)) => self.watched.news_after(after),
            (version, _) => self.watched.news(version),
        };
        self.version = Some(news.version);
        for rows in news.rows.chunks(ROWS) {
            events.push(event("rows", &json!(rows)).id(news.entries.to_string()));
        }
        let status = match news.status {
            Ok(mut status) => {
                self.leave_out_skips(&mut status);
                json!({ "status": status })
            }
            Err(error) => json!({ "error": error }),
        };
        let status = status.to_string();
        if status != self.status {
            events.push(text("status", &status));
            self.status = status;
        }
        let seen = self.watched.with(|look, _| json!(look.seen).to_string()).unwrap_or_else(|_| "[]".to_owned());
        if seen != self.seen {
            events.push(text("seen", &seen));
            self.seen = seen;
        }
        let (version, answer) = self.watched.answer(&*self.app.0.source, &self.path);
        if version > self.answer {
            self.answer = version;
            let readings = super::pages::readings(&answer);
            events.push(event(
                "answer",
                &json!({ "recommend": answer.recommend, "readings": readings, "version": version }),
            ));
        }
        if over {
            self.over = true;
            events.push(event("bye", &json!({})));
        }
        events
    }

    /// Takes out of a status the skips that were sent before.
    fn leave_out_skips(&mut self, status: &mut Value) {
        let Some(run) = status.get_mut("run").and_then(Value::as_object_mut) else { return };
        match run.get("skips") {
            skips if skips == self.skips.as_ref() => drop(run.shift_remove("skips")),
            skips => self.skips = skips.cloned(),
        }
    }
}

fn event(kind: &str, value: &Value) -> Event {
    text(kind, &value.to_string())
}

fn text(kind: &str, text: &str) -> Event {
    Event::default().event(kind).data(safe::redact(text))
}
