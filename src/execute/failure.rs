//! Turns what was seen into a [`Failure`]: the cause, the lines that show it, what to do.

use crate::model::{Cause, Ending, Evidence, Failure, Phase, StartPhase, signal_name};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::evidence::Kept;
use super::hang;
use super::ranks::Gone;
use super::stall::{Stalled, Why};
use super::start_limit::SILENCE;
use super::unit::{Places, UnitContext};
use crate::bounded::{self, NoObject};
use crate::diagnose::{self, Finding, clean_line, diagnose_reader, tail_lines};
use crate::process::Role;
use crate::record::layout;
use crate::safe;

/// How many log lines a failure keeps (rule 12).
const TAIL: usize = 50;
/// How much of a log's end is read for them.
const TAIL_BYTES: u64 = 128 << 10;

impl Failure {
    /// A failure without evidence in a log.
    pub fn plain(cause: Cause, phase: Phase, summary: String) -> Self {
        Self {
            cause,
            summary,
            phase,
            evidence: Vec::new(),
            advice: cause.advice().iter().map(|advice| (*advice).to_owned()).collect(),
            also: Vec::new(),
            ending: None,
            log_tail: Vec::new(),
            hang: None,
            kept: None,
        }
    }
}

/// Everything needed to find out who is to blame.
pub(super) struct FailureClassifier<'a> {
    pub places: &'a Places,
    pub context: &'a UnitContext,
}

impl FailureClassifier<'_> {
    /// The server ended before it was ready.
    pub fn server_exited(&self, ending: Ending, phase: StartPhase) -> Failure {
        self.blame_server_log(ending, Cause::Crashed, Phase::Starting(phase))
    }

    /// The server's log says that it will never be ready, or its engine vanished; it may have ended by itself since.
    pub fn server_fatal(&self, cause: Cause, own_end: Option<Ending>, phase: StartPhase) -> Failure {
        let ending = own_end.unwrap_or(Ending::Exited(1));
        let mut failure = self.blame_server_log(ending, cause, Phase::Starting(phase));
        // Where it was ended when the sign came, it neither exited nor crashed.
        failure.ending = own_end;
        // Where the log shows nothing else, the sign itself is the cause.
        if failure.evidence.is_empty() || failure.cause == Cause::Crashed {
            failure.cause = cause;
            failure.summary = cause.title().to_owned();
            failure.advice = cause.advice().iter().map(|advice| (*advice).to_owned()).collect();
        }
        failure
    }

    /// An engine process vanished while the client ran; the API server may take seconds to notice.
    pub fn engine_died(&self) -> Failure {
        let own = self.server_fatal(Cause::EngineCoreFailed, None, StartPhase::Ready);
        let mut failure = Failure { cause: Cause::ServerDied, phase: Phase::Measuring, ..own.clone() };
        failure.summary = format!("an engine process of the server died during the benchmark: {}", own.summary);
        failure.also.retain(|cause| *cause != own.cause);
        failure.also.insert(0, own.cause);
        failure
    }

    /// The server was not ready within its limit, and made progress until then.
    ///
    /// Only the first `log_length` bytes of its log count: what follows was said while it was being ended.
    pub fn server_too_slow(&self, phase: StartPhase, log_length: u64, kept: Option<&Kept>) -> Failure {
        let ending = Ending::TimedOut { phase, seconds: self.context.start_limit.most().as_secs() };
        let log = self.blame_beginning_of_log(log_length, ending, Cause::StartupTimeout, Phase::Starting(phase));
        let Some(kept) = kept else { return log };
        let mut failure = self.with_kept(log, kept);
        if failure.cause == Cause::StartupTimeout && kept.found().is_busy() {
            failure.summary = format!("{}; {}", failure.summary, kept.found().clause());
        }
        failure
    }

    /// Nothing has shown progress in a start for so long.
    ///
    /// As for [`FailureClassifier::server_too_slow`], the beginning of the log counts.
    pub fn server_silent(&self, phase: StartPhase, silent: Duration, log_length: u64, kept: Option<&Kept>) -> Failure {
        let seconds = silent.as_secs();
        let ending = Ending::Hung { phase, seconds };
        let log = self.blame_beginning_of_log(log_length, ending, Cause::Hung, Phase::Starting(phase));
        let Some(kept) = kept else { return log };
        let mut failure = self.with_kept(log, kept);
        let found = kept.found();
        failure.hang = Some(found.hang(seconds));
        if failure.cause == Cause::Hung {
            failure.summary = format!("{}; {}", hang::no_progress(phase, seconds), found.clause());
            let own = found.advice();
            failure.advice.retain(|advice| !own.contains(advice));
            failure.advice.splice(0..0, own);
        }
        failure
    }

    /// The same failure with the folder of what was kept.
    fn with_kept(&self, mut failure: Failure, kept: &Kept) -> Failure {
        failure.kept =
            kept.folder.as_ref().map(|folder| self.context.relative(folder).unwrap_or_else(|| folder.clone()));
        failure
    }

    /// A rank on another node ended before the server was ready: its own log says why.
    pub fn rank_gone(&self, gone: Gone, phase: StartPhase) -> Failure {
        let (log, who) = match gone {
            Gone::Rank(rank) => (layout::rank_log(&self.places.server_log, rank), format!("rank {rank}")),
            Gone::Launcher => (layout::ranks_log(&self.places.server_log), "the command that starts the ranks".into()),
        };
        let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let places = Places { server_log: log, ..self.places.clone() };
        let own = FailureClassifier { places: &places, context: self.context };
        let mut failure = own.server_fatal(Cause::EngineCoreFailed, None, phase);
        failure.summary = format!("{who} ended ({name}): {}", failure.summary);
        failure
    }

    /// The same while the client ran.
    pub fn rank_died(&self, gone: Gone) -> Failure {
        let own = self.rank_gone(gone, StartPhase::Ready);
        let mut failure = Failure { cause: Cause::ServerDied, phase: Phase::Measuring, ..own.clone() };
        failure.summary = format!("the server died during the benchmark: {}", own.summary);
        failure.also.retain(|cause| *cause != own.cause);
        failure.also.insert(0, own.cause);
        failure
    }

    /// Something else answered on the port.
    pub fn foreign(&self, text: String, phase: StartPhase, log_length: u64) -> Failure {
        let mut failure = Failure::plain(Cause::ForeignServer, Phase::Starting(phase), text);
        failure.log_tail = tail_of_beginning(&self.places.server_log, log_length);
        failure
    }

    /// Another process listens on the port of the server that was started.
    pub fn foreign_listener(&self, port: u16, who: &str, phase: Phase) -> Failure {
        let text = format!("not only the server listens on port {port}: a part of the requests may have gone to {who}");
        Failure::plain(Cause::ForeignListener, phase, text)
    }

    /// The server that was started serves another model.
    pub fn other_model(&self, text: String, phase: StartPhase, log_length: u64) -> Failure {
        let mut failure = self.foreign(text, phase, log_length);
        failure.advice = vec![
            "look which model the log names, and whether the `vllm` that was started takes its flags as vLLM does"
                .into(),
        ];
        failure
    }

    /// The server died while the client ran.
    pub fn server_died(&self, ending: Option<Ending>) -> Failure {
        let Some(ending) = ending else { return self.guard_lost(Role::Server, Phase::Measuring) };
        let own = self.blame_server_log(ending, Cause::Crashed, Phase::Measuring);
        let mut failure = Failure { cause: Cause::ServerDied, ..own.clone() };
        failure.summary = format!("the server died during the benchmark: {}", own.summary);
        failure.also.retain(|cause| *cause != own.cause);
        failure.also.insert(0, own.cause);
        failure
    }

    /// The client failed while the server lived.
    pub fn client_failed(&self, ending: Ending) -> Failure {
        let how = describe(ending);
        let failure = Failure::plain(Cause::BenchmarkFailed, Phase::Measuring, format!("the benchmark client {how}"));
        let mut failure = self.with_tail(failure, Role::Benchmark);
        failure.ending = Some(ending);
        failure.evidence = last_words(&self.places.benchmark_log);
        if let Some(last) = failure.evidence.first() {
            failure.summary = format!("{}: {}", failure.summary, last.text);
        }
        failure
    }

    /// The client reached its limit, and had written nothing for so long.
    pub fn client_too_slow(&self, silent: Duration, kept: Option<&Kept>) -> Failure {
        let limit = self.context.timeout_benchmark;
        let (cause, summary) = if silent >= SILENCE.min(limit / 2) {
            let text = format!(
                "the benchmark client reached its limit of {} s, silent for the last {} s",
                limit.as_secs_f64(),
                silent.as_secs()
            );
            (Cause::BenchmarkHung, text)
        } else {
            (
                Cause::BenchmarkTimeout,
                format!(
                    "the benchmark client reached its limit of {} s while it still wrote output",
                    limit.as_secs_f64()
                ),
            )
        };
        let mut failure = self.with_tail(Failure::plain(cause, Phase::Measuring, summary), Role::Benchmark);
        let Some(kept) = kept else { return failure };
        failure = self.with_kept(failure, kept);
        if cause == Cause::BenchmarkHung {
            let found = kept.found();
            failure.summary = format!("{}; {}", failure.summary, found.clause());
            failure.advice = found.advice();
            failure.hang = Some(found.hang(silent.as_secs()));
        }
        failure
    }

    /// Nothing moved any more while the client ran.
    pub fn stalled(&self, stalled: &Stalled, kept: &Kept) -> Failure {
        let (seconds, found) = (stalled.seconds, kept.found());
        let what = match stalled.why {
            Why::NothingMoves => format!("no token, no finished request and no log line for {seconds} s"),
            Why::HealthSilent => format!("no token and no answer of `/health` for {seconds} s"),
        };
        let mut failure = if found.is_client() {
            let text = format!("{what}: {}", found.clause());
            self.with_tail(Failure::plain(Cause::BenchmarkHung, Phase::Measuring, text), Role::Benchmark)
        } else {
            self.server_hangs(seconds, stalled.log_length, format!("{what}: {}", found.clause()))
        };
        failure = self.with_kept(failure, kept);
        failure.advice.splice(0..0, found.advice());
        failure.hang = Some(found.hang(seconds));
        failure
    }

    fn server_hangs(&self, seconds: u64, log_length: u64, text: String) -> Failure {
        let ending = Ending::Hung { phase: StartPhase::Ready, seconds };
        let log = self.blame_beginning_of_log(log_length, ending, Cause::Hung, Phase::Measuring);
        self.hung(text, log)
    }

    /// Our own client saw no token any more, and ended.
    pub fn client_saw_no_token(&self, kept: &Kept) -> Failure {
        let (stall, found) = (self.context.stall.unwrap_or_default(), kept.found());
        let text = format!("no token for the client for {} s, which gave up: {}", stall.as_secs_f64(), found.clause());
        let mut failure = self.with_kept(self.server_hangs(stall.as_secs(), u64::MAX, text), kept);
        failure.advice.splice(0..0, found.advice());
        failure.hang = Some(found.hang(stall.as_secs()));
        failure
    }

    /// `log`: what the server's log shows.
    fn hung(&self, summary: String, log: Failure) -> Failure {
        let mut failure = Failure { cause: Cause::Hung, summary, ..log.clone() };
        failure.also.retain(|cause| *cause != Cause::Hung);
        if log.cause != Cause::Hung {
            failure.summary = format!("{}; its log: {}", failure.summary, log.summary);
            failure.also.insert(0, log.cause);
        } else {
            // Who stands still says more than the cause alone.
            failure.advice = Vec::new();
        }
        failure
            .advice
            .push("a server that needs longer for a single step is given more time by `--stall-timeout`".into());
        failure
    }

    /// A guard was killed.
    pub fn guard_lost(&self, role: Role, phase: Phase) -> Failure {
        let text = format!("the guard of the {role} was killed; its processes were ended");
        let mut failure = self.with_tail(Failure::plain(Cause::LaunchFailed, phase, text), role);
        failure.advice = vec![
            "something ended one of vllm-bench's own processes with SIGKILL: look into `dmesg` for the OOM killer, and whether somebody ends processes by hand; `--resume` goes on".into(),
        ];
        failure
    }

    /// A log could not be written.
    pub fn log_failed(&self, role: Role, reason: &str) -> Failure {
        let phase = if role == Role::Server { Phase::Launching } else { Phase::Measuring };
        Failure::plain(Cause::DiskFull, phase, format!("the log of the {role} could not be written: {reason}"))
    }

    /// The same failure with the end of the log that shows it.
    pub fn with_tail(&self, mut failure: Failure, role: Role) -> Failure {
        let log = match role {
            Role::Server => &self.places.server_log,
            Role::Benchmark => &self.places.benchmark_log,
        };
        failure.log_tail = tail_of(log);
        failure
    }

    fn blame_server_log(&self, ending: Ending, fallback: Cause, phase: Phase) -> Failure {
        self.blame_beginning_of_log(u64::MAX, ending, fallback, phase)
    }

    fn blame_beginning_of_log(&self, length: u64, ending: Ending, fallback: Cause, phase: Phase) -> Failure {
        let log = &self.places.server_log;
        let Finding { cause, summary, evidence, advice, also } =
            diagnose_beginning(log, length, Some(ending)).unwrap_or_else(|_| diagnose::diagnose(b"", Some(ending)));
        Failure {
            cause: cause.unwrap_or(fallback),
            summary,
            phase,
            evidence,
            advice,
            also,
            ending: Some(ending),
            log_tail: tail_of_beginning(log, length),
            hang: None,
            kept: None,
        }
    }

    /// Whether the server's log says that it cannot go on, though it has not ended yet.
    pub fn server_is_dying(&self) -> bool {
        diagnose_beginning(&self.places.server_log, u64::MAX, None).is_ok_and(|finding| finding.cause.is_some())
    }

    /// The client ended without an error, and its result does not count.
    pub fn invalid_result(&self, failure: Failure) -> Failure {
        let mut failure = self.with_tail(failure, Role::Benchmark);
        failure.evidence = failed_requests(&self.places.benchmark_log);
        failure
    }
}

fn diagnose_beginning(log: &Path, length: u64, ending: Option<Ending>) -> std::io::Result<Finding> {
    diagnose_reader(BufReader::with_capacity(1 << 16, bounded::open(log)?.take(length)), ending)
}

/// The client's result as it is on disk; a large one without the arrays of its requests.
///
/// # Errors
/// A failure where there is none, or it is no JSON object.
pub(super) fn read_result(path: &Path) -> Result<Map<String, Value>, Failure> {
    let fail = |text: String| Failure::plain(Cause::ResultInvalid, Phase::Measuring, text);
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => fail("the benchmark client ended without an error but wrote no result".into()),
        _ => fail(format!("the benchmark client's result could not be read: {error}")),
    };
    let bytes = bounded::read(path, bounded::RESULT).map_err(unreadable)?;
    // The client may have been given what it wrote; what is kept of it, here and in the records, has no secret in it.
    let safe = safe::file_bytes(&bytes);
    if *safe != *bytes {
        std::fs::write(path, &*safe).map_err(|error| {
            fail(format!("the benchmark client's result holds a secret and could not be rewritten: {error}"))
        })?;
    }
    drop(safe);
    drop(bytes);
    bounded::read_object(path, &[]).map_err(|error| match error {
        NoObject::Io(error) => unreadable(error),
        NoObject::Json(error) => fail(format!("the benchmark client's result is not a JSON object: {error}")),
    })
}

/// vLLM's version as its server logs it: `vLLM API server version 0.14.1`, and beside its logo since 0.15: `█  version 0.32.0`.
pub(super) fn vllm_version(log: &Path) -> Option<String> {
    const WORDS: [&str; 2] = ["vLLM API server version ", "█  version "];
    let file = bounded::open(log).ok()?;
    let reader = BufReader::new(file.take(256 << 10));
    bounded::lines(reader).find_map(|line| {
        let line = clean_line(&line);
        let version = WORDS.iter().find_map(|words| line.split(words).nth(1))?.split_whitespace().next()?;
        Some(version.to_owned())
    })
}

/// The last 50 lines of a log.
fn tail_of(log: &Path) -> Vec<String> {
    tail_of_beginning(log, u64::MAX)
}

/// The last 50 lines of the first `length` bytes of a log.
fn tail_of_beginning(log: &Path, length: u64) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = bounded::open(log)?;
        let length = file.metadata()?.len().min(length);
        let start = length.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(length - start).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| tail_lines(&bytes, TAIL)).unwrap_or_default()
}

/// The line in which a Python program says why it ended: the last `SomeError: …`, or the last line at all.
fn last_words(log: &Path) -> Vec<Evidence> {
    let Ok(file) = bounded::open(log) else { return Vec::new() };
    let mut error = None;
    let mut last = None;
    for (number, line) in bounded::lines(BufReader::new(file)).enumerate() {
        let mut text = clean_line(&line);
        if text.trim().is_empty() {
            continue;
        }
        if text.len() > 400 {
            text = text.chars().take(400).collect();
        }
        let evidence = Evidence { line: number as u64 + 1, text: text.clone() };
        let head = text.split(':').next().unwrap_or_default();
        if !text.starts_with(' ') && (head.ends_with("Error") || head.ends_with("Exception"))
            || text.contains(": error: ")
        {
            error = Some(evidence.clone());
        }
        last = Some(evidence);
    }
    error.or(last).into_iter().collect()
}

/// How many errors of requests a failure keeps.
const REQUEST_ERRORS: usize = 3;

/// What `vllm bench serve` says of requests that failed: `Error 0: …`.
fn failed_requests(log: &Path) -> Vec<Evidence> {
    let Ok(file) = bounded::open(log) else { return Vec::new() };
    let lines = bounded::lines(BufReader::new(file)).enumerate();
    let errors = lines.filter_map(|(number, line)| {
        let text: String = clean_line(&line).chars().take(400).collect();
        let (index, _) = text.strip_prefix("Error ")?.split_once(": ")?;
        index.parse::<u64>().ok()?;
        Some(Evidence { line: number as u64 + 1, text })
    });
    errors.take(REQUEST_ERRORS).collect()
}

/// How long a log has not grown.
pub(super) fn silence_of(log: &Path) -> Duration {
    let written = std::fs::metadata(log).and_then(|meta| meta.modified());
    written.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

/// How a process ended, in words.
fn describe(ending: Ending) -> String {
    match ending {
        Ending::Exited(code) => format!("ended with exit code {code}"),
        Ending::Signaled(signal) => format!("was ended by {}", signal_name(signal)),
        Ending::TimedOut { .. } | Ending::Hung { .. } | Ending::Stopped => "was ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_off_either_banner() {
        let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_vllm/logs");
        assert_eq!(vllm_version(&logs.join("ok_eager.log")).as_deref(), Some("0.14.1"));
        assert_eq!(vllm_version(&logs.join("ok_eager_0.32.log")).as_deref(), Some("0.32.0"));
    }
}
