//! Weighing what a log shows against how the server ended: root cause before consequence, final success before old errors.

use std::sync::LazyLock;

use regex::Regex;

use super::advice;
use super::finding::{Finding, MAX_EVIDENCE, MAX_EVIDENCE_CHARS};
use super::pattern::{Rank, TABLE};
use super::scan::{Attempt, Exception, Hit};
use super::shape::{self, Shape};
use crate::model::{Cause, Ending, Evidence, signal_name};
use crate::words::cut_chars;

/// The most sentences of advice in a finding.
const MAX_ADVICE: usize = 5;

/// How many characters of a message stand in a summary.
const SUMMARY_CHARS: usize = 220;

/// The KV cache of vLLM's CPU backend is a part of main memory that a variable sets.
const KV_CACHE_ON_CPU: &[&str] =
    &["lower `--max-model-len`, or raise `--env VLLM_CPU_KVCACHE_SPACE=…` (GiB of main memory for the KV cache)"];

/// What the newest attempt and the ending show together.
pub(super) fn judge(attempt: &Attempt, ending: Option<Ending>) -> Finding {
    let mut hits: Vec<&Hit> = attempt.hits.iter().filter(|hit| counts(hit, ending)).collect();
    let reversed = attempt.is_reversed();
    hits.sort_by_key(|hit| {
        let row = &TABLE.rows()[hit.row];
        (row.rank, !row.wraps, if reversed { u64::MAX - hit.line } else { hit.line })
    });
    match hits.first() {
        Some(root) => by_line(attempt, &hits, root, ending),
        None => by_ending(attempt, ending),
    }
}

/// Whether a line tells something about the failure. When we ended the server ourselves, dying processes tell nothing.
fn counts(hit: &Hit, ending: Option<Ending>) -> bool {
    let ours = ending.is_some_and(Ending::is_ours);
    match hit.rank() {
        Rank::Root | Rank::Likely | Rank::Device => true,
        Rank::Process | Rank::Consequence => !ours,
        Rank::Hint => false,
    }
}

fn by_line(attempt: &Attempt, hits: &[&Hit], root: &Hit, ending: Option<Ending>) -> Finding {
    let row = &TABLE.rows()[root.row];
    let unknown = (root.rank() == Rank::Consequence).then(|| likely_root(attempt)).flatten();
    let shape = unknown.map(|exception| shape::of(&exception.message, exception.raised.as_deref())).unwrap_or_default();
    let cause = shape.cause.unwrap_or(row.cause);

    let mut evidence: Vec<Evidence> = Vec::new();
    if let Some(exception) = unknown {
        push_evidence(&mut evidence, exception.line, &exception.text);
    }
    let (same, other): (Vec<&Hit>, Vec<&Hit>) = hits.iter().partition(|hit| TABLE.rows()[hit.row].cause == cause);
    for hit in same.into_iter().chain(other) {
        push_evidence(&mut evidence, hit.line, &hit.text);
    }

    let mut advice: Vec<String> = Vec::new();
    let own = !shape.advice.is_empty();
    push_advice(&mut advice, shape.advice);
    push_advice(&mut advice, unknown.filter(|_| !own).and_then(where_raised));
    for hit in hits.iter().filter(|hit| TABLE.rows()[hit.row].cause == cause) {
        push_advice(&mut advice, advice::concrete(cause, &hit.message, attempt.on_cpu));
    }
    let general = match cause {
        // Rows and causes speak of devices; on a CPU their flags do not help.
        Cause::KvCacheTooSmall if attempt.on_cpu => KV_CACHE_ON_CPU,
        _ if own => &[],
        _ if row.advice.is_empty() => cause.advice(),
        _ => row.advice,
    };
    push_advice(&mut advice, general.iter().map(|&sentence| sentence.to_owned()));

    let message = unknown.map_or(&root.message, |exception| &exception.message);
    let mut also: Vec<Cause> = Vec::new();
    for hit in hits.iter().filter(|hit| hit.rank() < Rank::Process) {
        let seen = TABLE.rows()[hit.row].cause;
        if seen != cause && !also.contains(&seen) {
            also.push(seen);
        }
    }
    if let Some(Ending::TimedOut { .. }) = ending {
        also.push(Cause::StartupTimeout);
    }
    Finding { cause: Some(cause), summary: summary(cause, message), evidence, advice, also }
}

/// Nothing in the log names a cause: what does the ending say?
fn by_ending(attempt: &Attempt, ending: Option<Ending>) -> Finding {
    let Some(ending) = ending else {
        if let Some(hint) = waits_at_its_end(attempt) {
            let said = format!(
                "the log ends while it waits, after {} lines like `{}`",
                hint.times,
                cut_chars(&hint.message, 80)
            );
            return waiting(attempt, Cause::Hung, said);
        }
        return match likely_root(attempt).filter(|_| !attempt.ready) {
            Some(exception) => by_exception(attempt, exception, None),
            None if attempt.ready => nothing("the server became ready and the log shows no failure after that"),
            None => nothing("the log shows no failure, and no server that became ready"),
        };
    };
    match ending {
        Ending::Stopped => nothing("stopped in order; the log shows no failure"),
        Ending::Exited(0) if attempt.ready => nothing("the server ended in order after it had been ready"),
        Ending::TimedOut { phase, seconds } => {
            let said = format!("not ready within {seconds} s, while {}", phase.label());
            waiting(attempt, Cause::StartupTimeout, said)
        }
        Ending::Hung { phase, seconds } => {
            let said = format!("silent for {seconds} s, while {}", phase.label());
            waiting(attempt, Cause::Hung, said)
        }
        Ending::Exited(_) | Ending::Signaled(_) => died(attempt, ending),
    }
}

/// What to do about an exception that nothing knows: the place where it was raised is what others search for.
fn where_raised(exception: &Exception) -> Option<String> {
    let place = exception.raised.as_ref()?;
    Some(format!(
        "raised in `{place}`: look for the message in vLLM's issues, try a newer vLLM, and leave out one flag after the other (`--enforce-eager` first)"
    ))
}

/// How often a line that waits must come before the end of a log says that it hung.
const WAITED: u32 = 3;

/// The line that a log ends with again and again, while it waits.
fn waits_at_its_end(attempt: &Attempt) -> Option<&Hit> {
    attempt.hits.iter().find(|hit| {
        hit.rank() == Rank::Hint
            && TABLE.rows()[hit.row].cause == Cause::Hung
            && hit.times >= WAITED
            && hit.last_line == attempt.last_number()
    })
}

/// It ended by itself or by someone else's signal, and no line says why.
fn died(attempt: &Attempt, ending: Ending) -> Finding {
    let how = match (ending, ending.signal()) {
        (Ending::Exited(code), Some(signal)) => format!("exit code {code}, which is {}", signal_name(signal)),
        (_, Some(signal)) => format!("ended by {}", signal_name(signal)),
        (Ending::Exited(0), None) => "exited with code 0 before it was ready".to_owned(),
        (Ending::Exited(code), None) => format!("exit code {code}"),
        (Ending::Signaled(_) | Ending::TimedOut { .. } | Ending::Hung { .. } | Ending::Stopped, None) => String::new(),
    };
    match (ending, ending.signal()) {
        (_, Some(9)) => from_outside(attempt, Cause::KilledBySystem, &how),
        (Ending::Exited(127), _) if !attempt.ready => from_outside(attempt, Cause::VllmMissing, &how),
        (Ending::Exited(126), _) if !attempt.ready => from_outside(attempt, Cause::LaunchFailed, &how),
        _ => match likely_root(attempt) {
            Some(exception) => by_exception(attempt, exception, Some(&how)),
            None => from_outside(attempt, Cause::Crashed, &how),
        },
    }
}

fn by_exception(attempt: &Attempt, root: &Exception, how: Option<&str>) -> Finding {
    let mut evidence = Vec::new();
    push_evidence(&mut evidence, root.line, &root.text);
    for exception in attempt.exceptions.iter().rev() {
        push_evidence(&mut evidence, exception.line, &exception.text);
    }
    let said = match how {
        Some(how) => format!("{} ({how})", root.message),
        None => root.message.clone(),
    };
    let Shape { cause, advice } = shape::of(&root.message, root.raised.as_deref());
    let cause = cause.unwrap_or(Cause::Crashed);
    let mut said_to_do = Vec::new();
    push_advice(&mut said_to_do, advice);
    if said_to_do.is_empty() {
        push_advice(&mut said_to_do, where_raised(root));
        push_advice(&mut said_to_do, cause.advice().iter().map(|&sentence| sentence.to_owned()));
    }
    Finding { cause: Some(cause), summary: summary(cause, &said), evidence, advice: said_to_do, also: Vec::new() }
}

fn from_outside(attempt: &Attempt, cause: Cause, how: &str) -> Finding {
    let mut evidence = Vec::new();
    for (line, text) in attempt.last_lines() {
        push_evidence(&mut evidence, line, &text);
    }
    let advice = cause.advice().iter().map(|&sentence| sentence.to_owned()).collect();
    Finding { cause: Some(cause), summary: summary(cause, how), evidence, advice, also: Vec::new() }
}

/// Ended by us because nothing came: hints count now, then exceptions, then the last lines.
fn waiting(attempt: &Attempt, cause: Cause, said: String) -> Finding {
    let hints = || attempt.hits.iter().filter(|hit| hit.rank() == Rank::Hint);
    let mut evidence = Vec::new();
    let mut advice: Vec<String> = Vec::new();
    let mut also: Vec<Cause> = Vec::new();
    for hint in hints() {
        let row = &TABLE.rows()[hint.row];
        push_evidence(&mut evidence, hint.line, &hint.text);
        push_advice(&mut advice, row.advice.iter().map(|&sentence| sentence.to_owned()));
        if row.cause != cause && !also.contains(&row.cause) {
            also.push(row.cause);
        }
    }
    if let Some(exception) = likely_root(attempt) {
        push_evidence(&mut evidence, exception.line, &exception.text);
    }
    for (line, text) in attempt.last_lines() {
        push_evidence(&mut evidence, line, &text);
    }
    push_advice(&mut advice, cause.advice().iter().map(|&sentence| sentence.to_owned()));
    Finding { cause: Some(cause), summary: summary(cause, &said), evidence, advice, also }
}

fn nothing(summary: &str) -> Finding {
    Finding { cause: None, summary: summary.to_owned(), evidence: Vec::new(), advice: Vec::new(), also: Vec::new() }
}

/// The exception that most likely ended the server: the engine logs the one that ends it and Python prints it again, so the
/// first that came more than once; else the last.
fn likely_root(attempt: &Attempt) -> Option<&Exception> {
    let own = |exception: &&Exception| !shape::is_wrapper(&exception.message);
    let mut exceptions: Vec<&Exception> = attempt.exceptions.iter().filter(own).collect();
    if exceptions.is_empty() {
        exceptions = attempt.exceptions.iter().collect();
    }
    if attempt.is_reversed() {
        exceptions.reverse();
    }
    exceptions.iter().find(|exception| exception.times > 1).or(exceptions.last()).copied()
}

fn summary(cause: Cause, message: &str) -> String {
    cut_chars(&format!("{}: {}", cause.title(), redact(&with_signal(message))), SUMMARY_CHARS)
}

/// `exit code: -9` is Python's way to say SIGKILL; the summary says it in words.
fn with_signal(message: &str) -> std::borrow::Cow<'_, str> {
    static CODE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(exit code: -)(\d{1,2})\b").expect("a constant pattern compiles"));
    CODE.replace(message, |found: &regex::Captures<'_>| {
        let signal = found[2].parse().map(signal_name).unwrap_or_default();
        format!("{}{}, {signal}", &found[1], &found[2])
    })
}

fn push_evidence(evidence: &mut Vec<Evidence>, line: u64, text: &str) {
    if evidence.len() < MAX_EVIDENCE && !text.is_empty() && evidence.iter().all(|known| known.line != line) {
        evidence.push(Evidence { line, text: cut_chars(&redact(text), MAX_EVIDENCE_CHARS) });
    }
}

fn push_advice(advice: &mut Vec<String>, sentences: impl IntoIterator<Item = String>) {
    for sentence in sentences {
        if advice.len() < MAX_ADVICE && !advice.contains(&sentence) {
            advice.push(redact(&sentence));
        }
    }
}

/// Blanks what looks like a token of the hub: findings are kept and shown.
fn redact(text: &str) -> String {
    static TOKEN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\bhf_[A-Za-z0-9]{12,}").expect("a constant pattern compiles"));
    TOKEN.replace_all(text, "hf_***").into_owned()
}
