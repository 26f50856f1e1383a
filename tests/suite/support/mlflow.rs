//! A server of MLflow's REST API that is as strict as the limits it documents, and can be dead, slow, busy or a liar.
//!
//! It refuses what MLflow refuses, and what MLflow cuts without a word. What it refused is kept, so that a test can ask that it was nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use serde_json::{Value, json};

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Good,
    /// Answers with this number of HTTP, and does nothing.
    Status(u16),
    /// Answers each request first with 429, and does it when it comes again.
    Busy,
    /// Takes requests and never answers.
    Silent,
    /// Answers with a page for people.
    Page,
    /// Says yes, and keeps nothing of what is logged.
    Forgetful,
    /// Does what it is asked and closes the connection without an answer, every second time.
    Lossy,
    /// Keeps artefacts elsewhere.
    Elsewhere,
}

/// A run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    pub name: String,
    pub status: String,
    pub end_time: Option<i64>,
    pub deleted: bool,
    pub tags: BTreeMap<String, String>,
    pub params: BTreeMap<String, String>,
    /// Key, time, step -> value.
    pub metrics: BTreeMap<(String, i64, i64), f64>,
    pub artifacts: BTreeMap<String, Vec<u8>>,
}

impl Run {
    pub fn tag(&self, key: &str) -> &str {
        self.tags.get(key).map_or("", String::as_str)
    }

    /// The values of a metric by step.
    pub fn steps(&self, metric: &str) -> Vec<(i64, f64)> {
        self.metrics
            .iter()
            .filter(|((key, ..), _)| key == metric)
            .map(|((_, _, step), value)| (*step, *value))
            .collect()
    }
}

/// What it has.
#[derive(Debug, Default)]
pub struct Store {
    pub experiments: Vec<String>,
    pub runs: Vec<Run>,
    pub refused: Vec<String>,
    /// `METHOD path` of every request that was taken.
    pub asked: Vec<String>,
    /// The headers `authorization` of all requests, each once.
    pub logins: Vec<String>,
    /// The request, by its number from 1, after which nobody is answered any more.
    pub hold_after: Option<usize>,
    pub held: bool,
    seen: usize,
}

impl Store {
    /// The run of the sweep.
    pub fn parent(&self) -> Option<&Run> {
        self.living().find(|run| run.tag("vllm_bench.key") == "sweep")
    }

    /// Runs that are not deleted.
    pub fn living(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| !run.deleted)
    }

    /// Those of experiments.
    pub fn children(&self) -> Vec<&Run> {
        self.living().filter(|run| run.tag("vllm_bench.key") != "sweep").collect()
    }

    /// Requests that change something.
    pub fn writes(&self) -> usize {
        let reads = |asked: &&String| !asked.starts_with("GET") && !asked.ends_with("runs/search");
        self.asked.iter().filter(reads).count()
    }

    fn run(&mut self, id: &str) -> Result<&mut Run, (u16, &'static str, String)> {
        let number = id.strip_prefix("run").and_then(|n| n.parse::<usize>().ok());
        let run = number.and_then(|n| self.runs.get_mut(n));
        run.ok_or_else(|| (404, "RESOURCE_DOES_NOT_EXIST", format!("Run with id={id} not found")))
    }
}

/// A running server.
pub struct Mlflow {
    pub port: u16,
    store: Arc<Mutex<Store>>,
    mood: Arc<Mutex<Mood>>,
    held: Arc<Condvar>,
}

impl Mlflow {
    pub fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, store: Arc::default(), mood: Arc::new(Mutex::new(mood)), held: Arc::default() };
        let (store, mood, held) = (Arc::clone(&server.store), Arc::clone(&server.mood), Arc::clone(&server.held));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (store, mood, held) = (Arc::clone(&store), Arc::clone(&mood), Arc::clone(&held));
                std::thread::spawn(move || drop(serve(&stream, &store, &mood, &held)));
            }
        });
        server
    }

    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    pub fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Waits until a request is held, or the condition is met; whether one is.
    pub fn wait_until_held(&self, mut or: impl FnMut() -> bool) -> bool {
        let mut store = self.store();
        loop {
            if store.held {
                return true;
            }
            if or() {
                return store.held;
            }
            store = self.held.wait_timeout(store, std::time::Duration::from_millis(10)).unwrap().0;
        }
    }

    /// A request, as any client sends one: code and answer.
    pub fn ask(&self, line: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let body = body.to_string();
        write!(stream, "{line} HTTP/1.1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).unwrap();
        let mut text = String::new();
        BufReader::new(stream).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }
}

fn serve(stream: &TcpStream, store: &Mutex<Store>, mood: &Mutex<Mood>, held: &Condvar) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream.try_clone()?;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut length, mut login, mut last) = (0, String::new(), false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => login = value.to_owned(),
                Some((name, "close")) if name.eq_ignore_ascii_case("connection") => last = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let words: Vec<&str> = first.split(' ').collect();
        let (method, target) = (words[0], words[1]);
        let now = *mood.lock().unwrap();
        let mut store = store.lock().unwrap();
        if !login.is_empty() && !store.logins.contains(&login) {
            store.logins.push(login);
        }
        store.seen += 1;
        let again = store.seen.is_multiple_of(2);
        let (code, answer) = match now {
            Mood::Silent => {
                drop(store);
                loop {
                    std::thread::park();
                }
            }
            Mood::Status(code) => (code, json!({"error_code": "X", "message": "made up"}).to_string()),
            Mood::Page => (200, "<html>sign in</html>".to_owned()),
            Mood::Busy if !again => (429, String::new()),
            _ => {
                store.asked.push(format!("{method} {}", target.split('?').next().unwrap_or_default()));
                match answer(&mut store, now, method, target, &body) {
                    Ok(value) => (200, value.to_string()),
                    Err((code, word, message)) => {
                        if code == 400 && word != "RESOURCE_ALREADY_EXISTS" {
                            store.refused.push(format!("{target}: {message}"));
                        }
                        (code, json!({"error_code": word, "message": message}).to_string())
                    }
                }
            }
        };
        if store.hold_after.is_some_and(|after| store.asked.len() >= after) {
            store.held = true;
            held.notify_all();
            drop(store);
            loop {
                std::thread::park();
            }
        }
        if now == Mood::Lossy && again {
            return Ok(());
        }
        drop(store);
        let retry = if code == 429 { "retry-after: 0\r\n" } else { "" };
        write!(
            writer,
            "HTTP/1.1 {code} X\r\n{retry}content-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
        if last {
            return Ok(());
        }
    }
}

type Refusal = (u16, &'static str, String);

fn invalid(message: impl Into<String>) -> Refusal {
    (400, "INVALID_PARAMETER_VALUE", message.into())
}

/// Names of metrics, params and tags (`mlflow/utils/validation.py`).
fn check_name(name: &str) -> Result<(), Refusal> {
    let fit = name.chars().all(|c| c.is_alphanumeric() || "_-. :/".contains(c));
    let parts = name.split('/').all(|part| !["", ".", ".."].contains(&part));
    if name.is_empty() || name.len() > 250 || !fit || !parts {
        return Err(invalid(format!("Invalid value \"{name}\" for a name")));
    }
    Ok(())
}

fn list<'v>(body: &'v Value, key: &str) -> &'v [Value] {
    body.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn pair(value: &Value, most: usize) -> Result<(String, String), Refusal> {
    let (Some(key), Some(text)) = (value["key"].as_str(), value["value"].as_str()) else {
        return Err(invalid(format!("a pair is {value}")));
    };
    check_name(key)?;
    if text.chars().count() > most {
        return Err(invalid(format!("the value of `{key}` has more than {most} characters")));
    }
    Ok((key.to_owned(), text.to_owned()))
}

fn answer(store: &mut Store, mood: Mood, method: &str, target: &str, body: &[u8]) -> Result<Value, Refusal> {
    if let Some(path) = target.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/") {
        let parts: Vec<&str> = path.splitn(4, '/').collect();
        let [_, run, "artifacts", file] = parts.as_slice() else { return Err(invalid(format!("artefact {path}"))) };
        store.run(run)?.artifacts.insert((*file).to_owned(), body.to_vec());
        return Ok(json!({}));
    }
    let Some(call) = target.strip_prefix("/api/2.0/mlflow/") else {
        return Err((404, "ENDPOINT_NOT_FOUND", target.to_owned()));
    };
    if let Some(name) = call.strip_prefix("experiments/get-by-name?experiment_name=") {
        return match store.experiments.iter().position(|known| known == name) {
            Some(at) => {
                Ok(json!({"experiment": {"experiment_id": at.to_string(), "name": name, "lifecycle_stage": "active"}}))
            }
            None => Err((404, "RESOURCE_DOES_NOT_EXIST", format!("Could not find experiment with name '{name}'"))),
        };
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    if method != "POST" {
        return Err((404, "ENDPOINT_NOT_FOUND", target.to_owned()));
    }
    match call {
        "experiments/create" => {
            let name = body["name"].as_str().unwrap_or_default().to_owned();
            if store.experiments.contains(&name) {
                return Err((400, "RESOURCE_ALREADY_EXISTS", name));
            }
            store.experiments.push(name);
            Ok(json!({"experiment_id": (store.experiments.len() - 1).to_string()}))
        }
        "runs/create" => create(store, mood, &body),
        "runs/search" => Ok(search(store, mood, &body)),
        "runs/update" => {
            let run = store.run(body["run_id"].as_str().unwrap_or_default())?;
            let status = body["status"].as_str().unwrap_or_default();
            if !["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"].contains(&status) {
                return Err(invalid(format!("status {status}")));
            }
            status.clone_into(&mut run.status);
            run.end_time = body["end_time"].as_i64().or(run.end_time);
            Ok(json!({}))
        }
        "runs/delete" => {
            store.run(body["run_id"].as_str().unwrap_or_default())?.deleted = true;
            Ok(json!({}))
        }
        "runs/log-batch" => log_batch(store, mood, &body),
        other => Err((404, "ENDPOINT_NOT_FOUND", other.to_owned())),
    }
}

fn shown(store: &Store, mood: Mood, at: usize) -> Value {
    let run = &store.runs[at];
    let pairs = |map: &BTreeMap<String, String>| {
        map.iter().map(|(key, value)| json!({"key": key, "value": value})).collect::<Vec<_>>()
    };
    let place = if mood == Mood::Elsewhere {
        format!("s3://bucket/{at}")
    } else {
        format!("mlflow-artifacts:/0/run{at}/artifacts")
    };
    json!({
        "info": {"run_id": format!("run{at}"), "status": run.status, "end_time": run.end_time, "artifact_uri": place},
        "data": {"tags": pairs(&run.tags), "params": pairs(&run.params)},
    })
}

fn create(store: &mut Store, mood: Mood, body: &Value) -> Result<Value, Refusal> {
    let known = body["experiment_id"].as_str().and_then(|id| id.parse::<usize>().ok());
    if known.is_none_or(|at| at >= store.experiments.len()) || !body["start_time"].is_i64() {
        return Err(invalid("experiment_id, start_time"));
    }
    let mut run = Run {
        name: body["run_name"].as_str().unwrap_or_default().to_owned(),
        status: "RUNNING".into(),
        ..Run::default()
    };
    for tag in list(body, "tags") {
        let (key, value) = pair(tag, 5000)?;
        run.tags.insert(key, value);
    }
    store.runs.push(run);
    Ok(json!({"run": shown(store, mood, store.runs.len() - 1)}))
}

/// Knows the one filter that is needed: `` tags.`KEY` = 'VALUE' ``. Pages are small, so that there are some.
fn search(store: &Store, mood: Mood, body: &Value) -> Value {
    let filter = body["filter"].as_str().unwrap_or_default();
    let (key, value) = filter.strip_prefix("tags.`").unwrap().split_once("` = '").unwrap();
    let value = value.trim_end_matches('\'');
    let all: Vec<usize> =
        (0..store.runs.len()).filter(|at| !store.runs[*at].deleted && store.runs[*at].tag(key) == value).collect();
    let from: usize = body["page_token"].as_str().map_or(0, |token| token.parse().unwrap());
    let page: Vec<Value> = all.iter().skip(from).take(10).map(|at| shown(store, mood, *at)).collect();
    let mut answer = json!({"runs": page});
    if from + 10 < all.len() {
        answer["next_page_token"] = json!((from + 10).to_string());
    }
    answer
}

fn log_batch(store: &mut Store, mood: Mood, body: &Value) -> Result<Value, Refusal> {
    let (metrics, params, tags) = (list(body, "metrics"), list(body, "params"), list(body, "tags"));
    let all = metrics.len() + params.len() + tags.len();
    if metrics.len() > 1000 || params.len() > 100 || tags.len() > 100 || all > 1000 {
        return Err(invalid(format!("A batch logging request can contain at most 1000 entries: {all}")));
    }
    // Everything is looked at before anything is kept.
    let mut points = Vec::new();
    for metric in metrics {
        let (Some(key), Some(value)) = (metric["key"].as_str(), metric["value"].as_f64()) else {
            return Err(invalid(format!("a metric is {metric}")));
        };
        let (Some(at), Some(step)) = (metric["timestamp"].as_i64(), metric["step"].as_i64()) else {
            return Err(invalid(format!("a metric is {metric}")));
        };
        check_name(key)?;
        points.push(((key.to_owned(), at, step), value));
    }
    let params = params.iter().map(|param| pair(param, 6000)).collect::<Result<Vec<_>, _>>()?;
    let tags = tags.iter().map(|tag| pair(tag, 5000)).collect::<Result<Vec<_>, _>>()?;
    let run = store.run(body["run_id"].as_str().unwrap_or_default())?;
    if run.deleted {
        return Err((400, "INVALID_PARAMETER_VALUE", "The run must be in the 'active' state".into()));
    }
    if let Some((key, _)) = params.iter().find(|(key, value)| run.params.get(key).is_some_and(|known| known != value)) {
        return Err(invalid(format!("Changing param values is not allowed: {key}")));
    }
    if mood != Mood::Forgetful {
        run.metrics.extend(points);
        run.params.extend(params);
        run.tags.extend(tags);
    }
    Ok(json!({}))
}
