//! Telling somebody: at the end of a run, at its first failure, when something hangs, when a comparison finds it worse. A webhook or a
//! command that fails, or takes long, is a warning: no run waits for it, but for a bounded time at its very end.

mod target;

pub use target::{EXPECTED, Target, hidden};

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::model::{Cause, Event, Failure, Outcome, Stamped};
use crate::observe::Observer;
use crate::record::atomic;
use crate::telemetry::run_limited;
use crate::{bounded, http, safe, words};

/// How long a webhook may take.
const WEBHOOK: Duration = Duration::from_secs(8);
/// How long a command may take: it is ended before the run stops waiting for it.
const COMMAND: Duration = Duration::from_secs(9);
/// How long the end of a run waits until all have been told.
const FAREWELL: Duration = Duration::from_secs(10);
/// Messages that wait for one of them: a run has four at most, or one for each stall.
const QUEUE: usize = 64;
/// Stalls of one run that are told.
const STALLS: u32 = 10;
/// The event of the first failure.
const FIRST_FAILURE: &str = "first-failure";

/// What somebody is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// `end`, `first-failure`, `stall` or `regression`.
    pub event: &'static str,
    /// In words.
    pub text: String,
    /// What else programs may want.
    pub more: Value,
}

impl Message {
    /// As a webhook gets it: `text` is what Slack, Mattermost and others show.
    fn body(&self, about: &About) -> Value {
        json!({
            "text": safe::redact(&self.text),
            "vllm_bench": {
                "event": self.event, "run": about.run, "directory": about.directory, "host": about.host,
                "simulated": about.simulated, "details": self.more,
            },
        })
    }
}

/// The run of which is told.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// What it is called.
    pub run: String,
    /// Its directory.
    pub directory: String,
    /// The machine.
    pub host: String,
    /// Whether nothing is measured on a real server.
    pub simulated: bool,
    /// Variables that commands do not get.
    pub unset: Vec<String>,
}

impl About {
    fn title(&self) -> String {
        let mark = if self.simulated { " (SIMULATED)" } else { "" };
        format!("vllm-bench run {}{mark} on {}", self.run, self.host)
    }
}

/// Tells some targets of one run, each on a thread of its own. Clones share it.
#[derive(Debug, Clone)]
pub struct Notifier {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    about: Arc<About>,
    tellers: Vec<Teller>,
    failed: bool,
    stalls: u32,
    told: Option<Told>,
}

#[derive(Debug)]
struct Teller {
    target: String,
    queue: Option<SyncSender<Message>>,
    over: Receiver<Vec<String>>,
    lost: bool,
}

impl Notifier {
    /// For these targets.
    pub fn start(targets: &[Target], about: About) -> Self {
        let about = Arc::new(about);
        let tellers = targets.iter().map(|target| Teller::start(target.clone(), Arc::clone(&about))).collect();
        Self { inner: Arc::new(Mutex::new(Inner { about, tellers, failed: false, stalls: 0, told: None })) }
    }

    /// Several processes see the same run, one after the other (fronts of a cluster): what one of them has told is noted in this file, and told
    /// by none of them again.
    pub fn remember_in(&self, path: PathBuf) {
        self.lock().told = Some(Told::read(path));
    }

    /// Looks whether this is worth telling.
    pub fn see(&self, event: &Event) {
        let Event::ExperimentFinished { name, attempt, outcome: Outcome::Failed(failure), .. } = event else { return };
        let mut inner = self.lock();
        if let Some(message) = inner.of_failure((name, *attempt), failure) {
            inner.tell(&message);
        }
    }

    /// Whether nobody has told this of the run yet, as far as that is noted; it is noted now.
    pub fn is_news(&self, what: &str) -> bool {
        self.lock().is_news(what)
    }

    /// Tells something; `words` follow what the run is called.
    pub fn tell(&self, event: &'static str, words: &str, more: Value) {
        let mut inner = self.lock();
        let text = format!("{} {words}", inner.about.title());
        inner.tell(&Message { event, text, more });
    }

    /// Nothing more is told: waits, for a bounded time and no longer than until `enough` says so, until all have been told. What went
    /// wrong, in sentences.
    pub fn farewell(&self, enough: impl Fn() -> bool) -> Vec<String> {
        let mut tellers = std::mem::take(&mut self.lock().tellers);
        tellers.iter_mut().for_each(|teller| teller.queue = None);
        let until = Instant::now() + FAREWELL;
        let mut wrong = Vec::new();
        for teller in tellers {
            let told = loop {
                match teller.over.recv_timeout(Duration::from_millis(20)) {
                    Ok(told) => break Some(told),
                    Err(_) if Instant::now() >= until || enough() => break None,
                    Err(_) => {}
                }
            };
            match told {
                Some(told) => wrong.extend(told),
                None => wrong.push(format!("notify: {} takes too long: it may not have been told all", teller.target)),
            }
            if teller.lost {
                wrong.push(format!("notify: {} was too slow: it was not told all", teller.target));
            }
        }
        wrong
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Notifier {
    fn on(&mut self, stamped: &Stamped) -> Result<(), String> {
        self.see(&stamped.event);
        Ok(())
    }
}

/// What has been told of a run, by whichever process.
#[derive(Debug)]
struct Told {
    path: PathBuf,
    what: BTreeSet<String>,
}

impl Told {
    fn read(path: PathBuf) -> Self {
        let what = atomic::read_json(&path, "note of what was told").unwrap_or_default();
        Self { path, what }
    }

    /// Notes it, before it is told: what a kill falls upon is told once or not at all. Whether it was new.
    fn note(&mut self, what: &str) -> bool {
        let is_new = self.what.insert(what.to_owned());
        if is_new && let Err(error) = atomic::write_json(&self.path, &self.what) {
            tracing::debug!(%error, "what is told is not noted");
        }
        is_new
    }
}

impl Inner {
    /// The first failure is told, and what hangs.
    fn of_failure(&mut self, (name, attempt): (&str, u32), failure: &Failure) -> Option<Message> {
        let hangs = matches!(failure.cause, Cause::Hung | Cause::BenchmarkHung);
        let first = !std::mem::replace(&mut self.failed, true) && self.is_news(FIRST_FAILURE);
        if hangs && !self.is_news(&format!("stall of {name}, attempt {attempt}")) {
            return None;
        }
        let (event, what) = match (hangs, first) {
            (true, _) if self.stalls < STALLS => ("stall", "stands still"),
            (_, true) => (FIRST_FAILURE, "has its first failure"),
            _ => return None,
        };
        self.stalls += u32::from(hangs);
        let text = format!("{} {what}: {name}: {}", self.about.title(), failure.summary);
        let more = json!({
            "experiment": name, "cause": failure.cause, "summary": failure.summary, "phase": failure.phase.to_string(),
        });
        Some(Message { event, text, more })
    }

    fn is_news(&mut self, what: &str) -> bool {
        self.told.as_mut().is_none_or(|told| told.note(what))
    }

    fn tell(&mut self, message: &Message) {
        for teller in &mut self.tellers {
            if let Some(queue) = &teller.queue {
                teller.lost |= queue.try_send(message.clone()).is_err();
            }
        }
    }
}

impl Teller {
    fn start(target: Target, about: Arc<About>) -> Self {
        let (queue, messages) = sync_channel::<Message>(QUEUE);
        let (tell, over) = channel();
        let shown = target.shown();
        let spawned = std::thread::Builder::new().name("notify".to_owned()).spawn(move || {
            let _ = rustix::process::nice(10);
            let mut wrong: Vec<String> = Vec::new();
            for message in &messages {
                if let Err(why) = deliver(&target, &message, &about) {
                    let why = safe::redact(&format!("notify: {}: {why}", target.shown())).into_owned();
                    if !wrong.contains(&why) {
                        wrong.push(why);
                    }
                }
            }
            let _ = tell.send(wrong);
        });
        Self { target: shown, queue: spawned.is_ok().then_some(queue), over, lost: false }
    }
}

fn deliver(target: &Target, message: &Message, about: &About) -> Result<(), String> {
    match target {
        Target::Webhook(url) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(post(url, &message.body(about)))
        }
        Target::Command(words) => command(words, message, about),
        // These were told before the run began.
        Target::Variable(_) | Target::NotKept(_) => Ok(()),
    }
}

async fn post(url: &reqwest::Url, body: &Value) -> Result<(), String> {
    let is_local = url.host_str().is_some_and(|host| {
        host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    });
    let builder = if is_local { http::client(false) } else { http::through_proxy(false) };
    let builder = builder.redirect(reqwest::redirect::Policy::none()).timeout(WEBHOOK / 2);
    let client = builder.build().map_err(|error| bounded::chain(&error))?;
    let mut why = String::new();
    // One that is busy for a moment is asked once more.
    for _ in 0..2 {
        match client.post(url.clone()).json(body).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => why = format!("it answers {}", answer.status()),
            // An error names the address, which is a secret.
            Err(error) if error.is_timeout() => "it does not answer in time".clone_into(&mut why),
            Err(error) => why = bounded::chain(&error.without_url()),
        }
    }
    Err(why)
}

fn command(line: &[String], message: &Message, about: &About) -> Result<(), String> {
    let Some((program, arguments)) = line.split_first() else { return Ok(()) };
    let text = safe::redact(&message.text).into_owned();
    let mut command = Command::new(program);
    command.args(arguments).arg(&text);
    for name in &about.unset {
        command.env_remove(name);
    }
    command.env("NOTIFY_EVENT", message.event).env("NOTIFY_TEXT", &text).env("NOTIFY_RUN", &about.run);
    command.env("NOTIFY_DIRECTORY", &about.directory).env("NOTIFY_JSON", message.body(about).to_string());
    let output = run_limited(command, COMMAND).map_err(|error| bounded::chain(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = output.complaint().map(|line| format!(": {}", words::cut_chars(&line, 200))).unwrap_or_default();
    Err(format!("{}{said}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Phase;

    fn failure(cause: Cause) -> Failure {
        Failure::plain(cause, Phase::Measuring, "it broke".into())
    }

    #[test]
    fn the_first_failure_is_told_and_what_hangs() {
        let about = Arc::new(About { run: "r".into(), host: "h".into(), simulated: true, ..About::default() });
        let mut inner = Inner { about, tellers: Vec::new(), failed: false, stalls: 0, told: None };
        let mut told = |cause| inner.of_failure(("a", 1), &failure(cause)).map(|message| (message.event, message.text));
        let first = told(Cause::OutOfDeviceMemory).unwrap();
        assert_eq!(first.1, "vllm-bench run r (SIMULATED) on h has its first failure: a: it broke");
        assert_eq!(told(Cause::OutOfDeviceMemory), None);
        assert_eq!(told(Cause::BenchmarkHung).unwrap().0, "stall");
        for _ in 1..STALLS {
            assert_eq!(told(Cause::Hung).unwrap().0, "stall");
        }
        assert_eq!(told(Cause::Hung), None, "somebody who is told all the time does not read");
    }

    #[test]
    fn a_command_gets_the_message_and_cannot_keep_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("told");
        let script = format!("printf '%s|%s' \"$1\" \"$NOTIFY_EVENT\" > '{}'", file.display());
        let good = Target::Command(["sh", "-c", &script, "sh"].map(str::to_owned).to_vec());
        let bad = Target::Command(["sh", "-c", "echo out; echo why >&2; exit 3"].map(str::to_owned).to_vec());
        let about = About { run: "r".into(), host: "h".into(), ..About::default() };
        let notifier = Notifier::start(&[good, bad], about);
        notifier.tell("end", "is over", Value::Null);
        let wrong = notifier.farewell(|| false);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "vllm-bench run r on h is over|end");
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].ends_with("exit status: 3: why"), "{wrong:?}");
        // One that never ends is not waited for where somebody is in a hurry.
        let slow = Target::Command(["sh", "-c", "sleep 5"].map(str::to_owned).to_vec());
        let notifier = Notifier::start(&[slow], About::default());
        notifier.tell("end", "is over", Value::Null);
        assert!(notifier.farewell(|| true)[0].contains("takes too long"));
    }

    #[test]
    fn what_one_process_has_told_no_other_tells_again() {
        let dir = tempfile::tempdir().unwrap();
        let front = || {
            let about = Arc::new(About::default());
            let told = Some(Told::read(dir.path().join("told.json")));
            Inner { about, tellers: Vec::new(), failed: false, stalls: 0, told }
        };
        let of = |inner: &mut Inner, attempt, cause| {
            inner.of_failure(("a", attempt), &failure(cause)).map(|message| message.event)
        };
        let mut first = front();
        assert_eq!(of(&mut first, 1, Cause::OutOfDeviceMemory), Some("first-failure"));
        assert_eq!(of(&mut first, 2, Cause::Hung), Some("stall"));
        // It reads all again, and what is new.
        let mut second = front();
        assert_eq!(of(&mut second, 1, Cause::OutOfDeviceMemory), None);
        assert_eq!(of(&mut second, 2, Cause::Hung), None);
        assert_eq!(of(&mut second, 3, Cause::Hung), Some("stall"));
        assert_eq!((second.is_news("end"), front().is_news("end")), (true, false));
    }
}
