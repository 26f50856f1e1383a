//! What a diagnosis says, as data and as text.

use crate::model::{Cause, Evidence};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The most lines of evidence in a finding.
pub const MAX_EVIDENCE: usize = 8;

/// The most characters of a line of evidence.
pub const MAX_EVIDENCE_CHARS: usize = 400;

/// What a log and an ending show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The root cause; `None`: nothing shows a failure.
    pub cause: Option<Cause>,
    /// One line for a table or a headline.
    pub summary: String,
    /// The lines that show it, root cause first, at most [`MAX_EVIDENCE`].
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// What to do next, the most exact first.
    #[serde(default)]
    pub advice: Vec<String>,
    /// Other causes that the same log shows.
    #[serde(default)]
    pub also: Vec<Cause>,
}

impl Finding {
    /// A finding that needs no log: what was seen elsewhere (`summary`), with the advice of its cause.
    pub fn of(cause: Cause, summary: impl Into<String>) -> Self {
        Self {
            cause: Some(cause),
            summary: summary.into(),
            evidence: Vec::new(),
            advice: cause.advice().iter().map(|&sentence| sentence.to_owned()).collect(),
            also: Vec::new(),
        }
    }
}

/// A finding as plain text without colour: headline, evidence with line numbers, advice. Ends in a newline.
pub fn render_text(finding: &Finding) -> String {
    let mut text = String::new();
    match finding.cause {
        Some(cause) => push(&mut text, format_args!("cause: {cause}")),
        None => push(&mut text, format_args!("cause: none")),
    }
    push(&mut text, format_args!("  {}", finding.summary));
    if !finding.evidence.is_empty() {
        push(&mut text, format_args!("evidence:"));
        let width = finding.evidence.iter().map(|seen| seen.line.to_string().len()).max().unwrap_or(1);
        for seen in &finding.evidence {
            push(&mut text, format_args!("  line {:>width$}: {}", seen.line, seen.text));
        }
    }
    if !finding.also.is_empty() {
        let also: Vec<String> = finding.also.iter().map(Cause::to_string).collect();
        push(&mut text, format_args!("also seen: {}", also.join(", ")));
    }
    if !finding.advice.is_empty() {
        push(&mut text, format_args!("what to do:"));
        for advice in &finding.advice {
            push(&mut text, format_args!("  - {advice}"));
        }
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_headline_evidence_and_next_steps() {
        let finding = Finding {
            cause: Some(Cause::KvCacheTooSmall),
            summary: "no room for the KV cache: ValueError: …".into(),
            evidence: vec![Evidence { line: 7, text: "a".into() }, Evidence { line: 120, text: "b".into() }],
            advice: vec!["lower `--max-model-len`".into()],
            also: vec![Cause::LevelZero],
        };
        assert_eq!(
            render_text(&finding),
            "cause: kv-cache-too-small\n  no room for the KV cache: ValueError: …\nevidence:\n  line   7: a\n  line 120: b\n\
             also seen: level-zero\nwhat to do:\n  - lower `--max-model-len`\n"
        );
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
    }

    #[test]
    fn a_cause_seen_elsewhere_brings_its_advice() {
        let finding = Finding::of(Cause::BenchmarkTimeout, "no result after 1800 s");
        assert_eq!(
            (finding.cause, finding.summary.as_str()),
            (Some(Cause::BenchmarkTimeout), "no result after 1800 s")
        );
        assert_eq!(finding.advice, Cause::BenchmarkTimeout.advice());
    }

    #[test]
    fn no_failure_is_said_plainly() {
        let finding = Finding { cause: None, summary: "s".into(), evidence: vec![], advice: vec![], also: vec![] };
        assert_eq!(render_text(&finding), "cause: none\n  s\n");
    }
}
