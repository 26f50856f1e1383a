//! Pushes to a Pushgateway: the text of `/metrics` from where nothing can be scraped. It has a thread of its own with a low priority;
//! a gateway that is gone, slow or refuses costs nobody anything, and is told of once.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use reqwest::{StatusCode, Url};

use super::give_way;
use super::metrics::classic;
use crate::{bounded, http, safe};

/// How often is pushed while the gateway takes it.
const EVERY: Duration = Duration::from_secs(15);
/// The longest pause between tries where it does not.
const LONGEST: Duration = Duration::from_secs(300);
/// How long one push may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the end waits for the last push, ...
const FAREWELL: Duration = Duration::from_millis(1500);
/// ... and where the gateway did not answer the one before.
const FAREWELL_OF_DEAD: Duration = Duration::from_millis(200);
/// Bytes of what a gateway says to a push that it refuses.
const SAID: u64 = 16 << 10;
/// The value of the label `job`.
const JOB: &str = "vllm-bench";

/// Labels beside the job, by which a Pushgateway tells groups of metrics apart.
pub type Labels = Vec<(&'static str, String)>;

/// A Pushgateway. Its user and password are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Gateway {
    url: Url,
    login: Option<(String, String)>,
}

impl Gateway {
    /// Reads its address, as in `http://USER:PASSWORD@gateway:9091`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "the address of a Pushgateway such as `http://gateway:9091`";
        let mut url = Url::parse(text.trim()).map_err(|_| EXPECTED.to_owned())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(EXPECTED.to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{EXPECTED}, without `?` and `#`"));
        }
        if url.path().contains("/metrics") {
            return Err(format!("{EXPECTED}: what comes after it (`/metrics/job/…`) is added by vllm-bench"));
        }
        let plain = |text: &str| percent_decoded(text);
        let login = (!url.username().is_empty() || url.password().is_some())
            .then(|| (plain(url.username()), plain(url.password().unwrap_or_default())));
        if let Some((_, password)) = &login {
            safe::learn([password.as_str(), url.password().unwrap_or_default()]);
        }
        // Neither fails for a URL with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, login })
    }

    /// Its address without user and password.
    pub fn shown(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Where the metrics with these labels are: what is pushed there takes the place of what was pushed there before.
    pub fn group(&self, labels: &Labels) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["metrics", "job", JOB]);
            for (label, value) in labels {
                // The gateway takes a path apart after it has decoded it.
                if value.contains('/') || value.is_empty() || value == "." || value == ".." {
                    path.extend([&format!("{label}@base64"), &URL_SAFE.encode(value)]);
                } else {
                    path.extend([*label, value.as_str()]);
                }
            }
        }
        url
    }

    async fn push(&self, labels: &Labels, openmetrics: &str) -> Result<(), String> {
        let client = http::client(false).build().map_err(|error| bounded::chain(&error))?;
        let mut request = client.put(self.group(labels)).timeout(LIMIT);
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, Some(password));
        }
        let request = request.header(reqwest::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
        let answer = request.body(classic(openmetrics)).send().await;
        let answer = answer.map_err(|error| bounded::chain(&error.without_url()))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(format!(
                "it answers {status}: user and password stand before the host, `http://USER:PASSWORD@HOST`"
            )),
            status => {
                let said = bounded::body(answer, SAID).await.unwrap_or_default();
                let said = String::from_utf8_lossy(&said);
                let line: String = said.lines().next().unwrap_or_default().chars().take(200).collect();
                Err(format!("it answers {status} {}", safe::shown(&line, safe::Sgr::None)).trim_end().to_owned())
            }
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gateway").field(&self.shown()).finish()
    }
}

fn percent_decoded(text: &str) -> String {
    // As the value of a parameter, where `+` is a blank: there is none in a URL's user and password but as itself.
    let pair = format!("v={}", text.replace('+', "%2B"));
    let link = Url::parse(&format!("http://localhost/?{pair}"));
    link.ok().and_then(|link| link.query_pairs().next().map(|(_, value)| value.into_owned())).unwrap_or_default()
}

/// Pushes this OpenMetrics text once, under these labels beside the job.
///
/// # Errors
/// Why the gateway did not take it.
pub fn push_once(gateway: &Gateway, labels: &Labels, openmetrics: &str) -> Result<(), String> {
    // A thread of its own: who calls this may be in a runtime.
    let push = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(gateway.push(labels, openmetrics))
    };
    let pushed = std::thread::scope(|scope| scope.spawn(push).join());
    pushed.unwrap_or_else(|_| Err("that is a bug of vllm-bench".to_owned()))
}

/// Pushes again and again, until it is ended.
#[derive(Debug)]
pub struct Pusher {
    tell: Sender<()>,
    /// What came of each push; closed when the last is over.
    pushed: Receiver<bool>,
}

impl Pusher {
    /// Pushes what `text` gives (it is told whether this is the last time) under these labels. The first failure is told to `trouble`.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(
        gateway: Gateway,
        labels: Labels,
        mut text: impl FnMut(bool) -> Option<String> + Send + 'static,
        trouble: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let (tell, told) = channel();
        let (said, pushed) = channel();
        std::thread::Builder::new().name("pushgateway".to_owned()).spawn(move || {
            give_way();
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            let (mut pause, mut has_failed) = (Duration::ZERO, false);
            loop {
                let is_last = !matches!(told.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
                let outcome = text(is_last).map(|text| runtime.block_on(gateway.push(&labels, &text)));
                let _ = said.send(!matches!(outcome, Some(Err(_))));
                pause = match outcome {
                    Some(Err(why)) => {
                        if !std::mem::replace(&mut has_failed, true) {
                            trouble(&why);
                        }
                        (pause * 2).clamp(EVERY, LONGEST)
                    }
                    Some(Ok(())) | None => EVERY,
                };
                if is_last {
                    return;
                }
            }
        })?;
        Ok(Self { tell, pushed })
    }

    /// Pushes once more and ends. A gateway that did not take the last push is hardly waited for.
    pub fn end(self) {
        let works = self.pushed.try_iter().last().unwrap_or(false);
        let _ = self.tell.send(());
        let until = std::time::Instant::now() + if works { FAREWELL } else { FAREWELL_OF_DEAD };
        // The channel is closed after the last push.
        while self.pushed.recv_timeout(until.saturating_duration_since(std::time::Instant::now())).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_what_is_secret_in_them_is_never_shown() {
        let gateway = Gateway::parse("https://bench:s3cr%2Ft-pass@push.example:9091/prefix/").unwrap();
        assert_eq!(gateway.shown(), "https://push.example:9091/prefix");
        assert_eq!(gateway.login, Some(("bench".into(), "s3cr/t-pass".into())));
        assert!(!format!("{gateway:?}").contains("pass"));
        assert_eq!(safe::redact("a s3cr/t-pass b"), "a [redacted] b");
        let labels = vec![("results", "/a b".to_owned()), ("run", "a b%".to_owned())];
        assert_eq!(
            gateway.group(&labels).as_str(),
            "https://push.example:9091/prefix/metrics/job/vllm-bench/results@base64/L2EgYg==/run/a%20b%25"
        );
        for bad in ["", "gateway:9091", "ftp://x", "http://", "http://x/metrics/job/a", "http://x/?a=b", "/a/b"] {
            assert!(Gateway::parse(bad).unwrap_err().contains("http://gateway:9091"), "{bad}");
        }
    }

    /// A gateway that answers each push with this; what it was sent.
    fn gateway(answer: &'static str) -> (Gateway, Receiver<String>) {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, seen) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut text, mut bytes) = (String::new(), [0; 4096]);
                let is_whole = |text: &str| {
                    let (head, body) = text.split_once("\r\n\r\n")?;
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
                    (body.len() >= length.parse().ok()?).then_some(())
                };
                while is_whole(&text).is_none() {
                    let read = stream.read(&mut bytes).unwrap();
                    assert!(read > 0, "a push that breaks off: {text}");
                    text += std::str::from_utf8(&bytes[..read]).unwrap();
                }
                let _ = write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
                if send.send(text).is_err() {
                    return;
                }
            }
        });
        (Gateway::parse(&format!("http://u:pass-word-1@{address}/")).unwrap(), seen)
    }

    #[test]
    fn it_pushes_at_once_and_at_the_end_with_the_login() {
        let (gateway, seen) = gateway("200 OK");
        let mut number = 0;
        let text = move |is_last| {
            number += 1;
            Some(format!("# TYPE n gauge\n# HELP n N.\nn {number}{}\n# EOF\n", u8::from(is_last)))
        };
        let pusher = Pusher::start(gateway, vec![("run", "r".to_owned())], text, |why| panic!("{why}")).unwrap();
        let first = seen.recv().unwrap();
        assert!(first.starts_with("PUT /metrics/job/vllm-bench/run/r HTTP/1.1\r\n"), "{first}");
        assert!(first.contains("authorization: Basic dTpwYXNzLXdvcmQtMQ==\r\n"), "{first}");
        assert!(first.ends_with("# TYPE n gauge\n# HELP n N.\nn 10\n"), "{first}");
        pusher.end();
        assert!(seen.recv().unwrap().ends_with("n 21\n"));
    }

    #[test]
    fn what_is_refused_is_told_once() {
        let (gateway, seen) = gateway("400 Bad Request");
        let (tell, told) = channel();
        let trouble = move |why: &str| tell.send(why.to_owned()).unwrap();
        let pusher = Pusher::start(
            gateway,
            vec![("run", "r".to_owned())],
            |_| Some("# HELP n N.\n# TYPE n gauge\nn 1\n# EOF\n".to_owned()),
            trouble,
        )
        .unwrap();
        seen.recv().unwrap();
        assert_eq!(told.recv().unwrap(), "it answers 400 Bad Request no");
        pusher.end();
        seen.recv().unwrap();
        assert_eq!(told.iter().count(), 0);
    }
}
