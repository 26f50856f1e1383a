//! Requests to MLflow's REST API: each with a limit, tried again where the server is busy or away, and never beyond a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::server::{Login, Server};
use crate::{bounded, http, safe};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a file may take.
const UPLOAD: Duration = Duration::from_secs(120);
/// The first pause before a request is tried again; each next one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often a request is sent at most.
const TRIES: u32 = 4;
/// The largest answer: a page of runs with all that they have.
const BODY: u64 = 64 << 20;

/// Why nothing more can be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It does not answer, or answers that it cannot now.
    Away(String),
    /// It refuses, and would again.
    Refused {
        /// HTTP's number.
        status: u16,
        /// MLflow's word, such as `INVALID_PARAMETER_VALUE`.
        code: String,
        /// In its words.
        said: String,
    },
    /// What it answers is none of MLflow's answers.
    Odd(String),
    /// The time is over.
    Late,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away(why) => f.write_str(why),
            Self::Refused { status: 401 | 403, said, .. } => {
                write!(
                    f,
                    "it asks for another sign-in (set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD): {said}"
                )
            }
            Self::Refused { status, code, said } => write!(f, "it refuses ({status} {code}): {said}"),
            Self::Odd(why) => write!(f, "{why}: is it a tracking server of MLflow?"),
            Self::Late => f.write_str("the time for it was over"),
        }
    }
}

/// Whether a request may be sent once more when nobody knows whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Twice is once.
    Yes,
    /// It would be done twice: whoever asked looks first.
    No,
}

/// Asks one server.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    server: Server,
    /// When all must be over.
    deadline: Option<Instant>,
    answers: Arc<Answers>,
    /// The last question got no answer.
    silent: bool,
}

/// Whether a server answers as MLflow does, as far as is known at any moment.
#[derive(Debug, Default)]
pub struct Answers {
    does: AtomicBool,
    why: Mutex<String>,
}

impl Answers {
    /// Whether it does.
    pub fn does(&self) -> bool {
        self.does.load(Ordering::Relaxed)
    }

    /// Why it did not, the last time: a connection that is refused, a certificate that is not trusted. Empty where that is not known.
    pub fn why(&self) -> String {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fails(&self, why: &str) {
        self.does.store(false, Ordering::Relaxed);
        why.clone_into(&mut self.why.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Client {
    /// For this server.
    ///
    /// # Errors
    /// In words, where its certificates cannot be read.
    pub fn new(server: Server) -> Result<Self, String> {
        let builder = match &server.authorities {
            None => http::through_proxy(server.insecure),
            Some(file) => {
                let pem =
                    bounded::read(file, bounded::NOTE).map_err(|error| format!("`{}`: {error}", file.display()))?;
                http::with_authorities(server.insecure, &pem)
                    .ok_or_else(|| format!("`{}` holds no certificate in PEM", file.display()))?
            }
        };
        // Only what is elsewhere may need the proxy of the environment.
        let builder = if server.place.is_local { builder.no_proxy() } else { builder };
        let builder = builder.redirect(reqwest::redirect::Policy::none()).connect_timeout(CONNECT);
        let http = builder.build().map_err(|error| bounded::chain(&error))?;
        if let Login::User(user, password) = &server.login {
            safe::learn([password.clone(), format!("{user}:{password}")]);
        } else if let Login::Token(token) = &server.login {
            safe::learn([token.clone()]);
        }
        Ok(Self { http, server, deadline: None, answers: Arc::default(), silent: false })
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// From now on all must be over by then.
    pub fn end_by(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Whether it answers as MLflow does, as far as is known at any moment.
    pub fn answers(&self) -> Arc<Answers> {
        Arc::clone(&self.answers)
    }

    /// A GET of MLflow's API.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get(&mut self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let url = reqwest::Url::parse_with_params(&self.api(path), query);
        let url = url.map_err(|error| Failure::Odd(error.to_string()))?;
        self.json(|http| http.request(Method::GET, url.clone()), Again::Yes).await
    }

    /// A POST of MLflow's API. Secrets that were learnt are cut out of what is sent.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn post(&mut self, path: &str, body: &Value, again: Again) -> Result<Value, Failure> {
        let url = self.api(path);
        let body = redacted(body);
        self.json(|http| http.request(Method::POST, &url).json(&body), again).await
    }

    /// Puts a file to where the server hands on artefacts.
    ///
    /// # Errors
    /// Why it is not there.
    pub async fn put(&mut self, path: &str, content: Vec<u8>) -> Result<(), Failure> {
        let mut url = reqwest::Url::parse(&self.server.place.base).map_err(|error| Failure::Odd(error.to_string()))?;
        if let Ok(mut parts) = url.path_segments_mut() {
            let fixed = ["api", "2.0", "mlflow-artifacts", "artifacts"];
            parts.pop_if_empty().extend(fixed).extend(path.split('/').filter(|part| !part.is_empty()));
        }
        let content = bytes_of(content);
        let send =
            |http: &reqwest::Client| http.request(Method::PUT, url.clone()).timeout(UPLOAD).body(content.clone());
        self.ask(send, Again::Yes).await.map(drop)
    }

    fn api(&self, path: &str) -> String {
        format!("{}/api/2.0/mlflow/{path}", self.server.place.base)
    }

    async fn json(
        &mut self,
        request: impl Fn(&reqwest::Client) -> reqwest::RequestBuilder,
        again: Again,
    ) -> Result<Value, Failure> {
        let bytes = self.ask(request, again).await?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| Failure::Odd("its answer is no JSON".into()))?;
        if !value.is_object() {
            return Err(Failure::Odd("its answer is no JSON object".into()));
        }
        self.answers.does.store(true, Ordering::Relaxed);
        Ok(value)
    }

    /// The body of a good answer.
    async fn ask(
        &mut self,
        request: impl Fn(&reqwest::Client) -> reqwest::RequestBuilder,
        again: Again,
    ) -> Result<Vec<u8>, Failure> {
        let mut pause = PAUSE;
        let mut tries = 0;
        // One that did not answer a moment ago is asked once: the next pass asks again.
        let most = if std::mem::replace(&mut self.silent, true) { 1 } else { TRIES };
        loop {
            tries += 1;
            let (failure, asked) = match self.once(request(&self.http)).await {
                Ok(body) => {
                    self.silent = false;
                    return Ok(body);
                }
                Err(Trouble::Over(failure)) => {
                    self.silent = false;
                    return Err(failure);
                }
                Err(Trouble::Busy { why, pause }) => (Failure::Away(why), pause),
                Err(Trouble::Lost(why)) => {
                    if again == Again::No {
                        self.answers.fails(&why);
                        return Err(Failure::Away(why));
                    }
                    (Failure::Away(why), None)
                }
            };
            let wait = asked.unwrap_or(pause).min(LONGEST_PAUSE);
            self.answers.fails(&failure.to_string());
            let late = self.deadline.is_some_and(|deadline| Instant::now() + wait >= deadline);
            if tries >= most || late {
                return Err(failure);
            }
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
    }

    async fn once(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, Trouble> {
        let request = match &self.server.login {
            Login::None => request,
            Login::Token(token) => request.bearer_auth(token),
            Login::User(user, password) => request.basic_auth(user, Some(password)),
        };
        let mut request = request.build().map_err(|error| Trouble::Over(Failure::Odd(bounded::chain(&error))))?;
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Trouble::Over(Failure::Late));
        }
        let usual = request.timeout().copied().unwrap_or(ANSWER);
        *request.timeout_mut() = Some(left.map_or(usual, |left| left.min(usual)));
        let response = match self.http.execute(request).await {
            Ok(response) => response,
            // It never arrived.
            Err(error) if error.is_connect() => {
                return Err(Trouble::Busy { why: words_of(error), pause: None });
            }
            Err(error) if error.is_builder() => return Err(Trouble::Over(Failure::Odd(words_of(error)))),
            Err(error) => return Err(Trouble::Lost(words_of(error))),
        };
        let status = response.status();
        let pause = response.headers().get("retry-after").and_then(|text| text.to_str().ok()?.trim().parse().ok());
        let body = bounded::body(response, BODY).await;
        if status.is_success() {
            return body.map_err(Trouble::Lost);
        }
        let body = body.unwrap_or_default();
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |key: &str| said.get(key).and_then(Value::as_str).map(str::to_owned);
        let message = text("message").unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        let message = crate::words::cut_chars(message.split_whitespace().collect::<Vec<_>>().join(" ").as_str(), 300);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Trouble::Busy {
                why: format!("it has too much to do ({status})"),
                pause: pause.map(Duration::from_secs),
            });
        }
        if status.is_server_error() {
            let why = format!("it answers {status}: {message}");
            let pause: Option<Duration> = pause.map(Duration::from_secs);
            // A refusal of the service as such is known to have changed nothing.
            let busy = status == StatusCode::SERVICE_UNAVAILABLE;
            return Err(if busy { Trouble::Busy { why, pause } } else { Trouble::Lost(why) });
        }
        if status.is_redirection() {
            return Err(Trouble::Over(Failure::Odd(format!(
                "it sends requests elsewhere ({status}): name that place"
            ))));
        }
        let code = text("error_code").unwrap_or_default();
        Err(Trouble::Over(Failure::Refused { status: status.as_u16(), code, said: message }))
    }
}

/// What became of one request.
enum Trouble {
    /// It was not done, and may be later.
    Busy { why: String, pause: Option<Duration> },
    /// It may have been done.
    Lost(String),
    /// There is no use in sending it again.
    Over(Failure),
}

/// Without the address, which is said beside it, and may hold a secret.
fn words_of(error: reqwest::Error) -> String {
    let timed_out = error.is_timeout();
    let text = bounded::chain(&error.without_url());
    if timed_out { "it does not answer in time".to_owned() } else { text }
}

/// The texts of JSON without secrets.
fn redacted(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(safe::redact(text).into_owned()),
        Value::Array(items) => items.iter().map(redacted).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), redacted(value))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A file without secrets.
fn bytes_of(content: Vec<u8>) -> Vec<u8> {
    match safe::file_bytes(&content) {
        std::borrow::Cow::Borrowed(_) => content,
        std::borrow::Cow::Owned(clean) => clean,
    }
}
