//! What the manifest and the journal of a run say of it as a whole.

use std::path::Path;
use std::sync::Arc;

use crate::analyse::{Facts, Origin, Unreadable};
use crate::model::{Event, Stamped};
use crate::record::{JournalText, Manifest, RunDir, layout};

/// What the machine's devices are called; `None` where they are not alike, or simulated.
pub(super) fn device(manifest: &Manifest) -> Option<Arc<str>> {
    let mut names = manifest.devices.devices.iter().map(|device| device.name.as_deref());
    let first = names.next()??;
    (!manifest.simulated && names.all(|name| name == Some(first))).then(|| first.into())
}

pub(super) fn facts(manifest: Manifest) -> Facts {
    Facts {
        slo: slo(&manifest),
        objective: objective(&manifest),
        until: manifest.plan.until_decided.and_then(|until| usize::try_from(until.max).ok()),
        directory: Path::new("").into(),
        run: manifest.run,
        name: manifest.name,
        origin: Origin::VllmBench { version: manifest.vllm_bench },
        created: Some(manifest.created),
        timezone: Some(manifest.timezone),
        engine: Some(manifest.engine),
        vllm_path: manifest.vllm.map(|vllm| vllm.path),
        vllm_versions: Vec::new(),
        command_line: manifest.command_line,
        duration: None,
        sessions: 0,
        live: false,
        unreadable_journal_lines: 0,
        damaged: Vec::new(),
        neighbours: None,
        spans: Vec::new(),
    }
}

/// A file of the record that is damaged, among the files that do not count.
pub(super) fn broken(file: &str, what: &str) -> Unreadable {
    Unreadable { file: file.to_owned(), reason: what.to_owned(), lost: true }
}

/// The journal as far as it is whole, and what is wrong with it. The line that a crash cut is no damage.
pub(super) fn journal_of(dir: &RunDir) -> (JournalText, Vec<String>) {
    match dir.journal() {
        Ok(text) if text.damaged == 0 => (text, Vec::new()),
        Ok(text) => {
            let what = format!("`{}` is damaged: {} lines cannot be read", layout::JOURNAL, text.damaged);
            (text, vec![what])
        }
        Err(error) => {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
            (JournalText::default(), vec![format!("`{}` cannot be read{why}", layout::JOURNAL)])
        }
    }
}

/// The objective of the run, as the manifest keeps it.
fn objective(manifest: &Manifest) -> Option<String> {
    manifest.settings.get("objective").and_then(|setting| setting.value.as_str()).map(str::to_owned)
}

/// The limits of the sweep file, as the manifest keeps them: `slo.ttft.p99` -> `500`, or words under `slo` itself.
fn slo(manifest: &Manifest) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let of = |key: &String, value: &serde_json::Value| -> Vec<(String, String)> {
        let name = match key.strip_prefix("slo") {
            Some("") => "",
            Some(rest) if rest.starts_with('.') => &rest[1..],
            Some(_) | None => return Vec::new(),
        };
        match value {
            serde_json::Value::Null => Vec::new(),
            serde_json::Value::Object(map) if map.is_empty() => Vec::new(),
            serde_json::Value::Array(items) => items.iter().map(|item| (name.to_owned(), text(item))).collect(),
            one => vec![(name.to_owned(), text(one))],
        }
    };
    let all = manifest.settings.iter().flat_map(|(key, setting)| of(key, &setting.value));
    // Words that stand under no metric may be several between commas, as after `--slo`.
    let several = all.flat_map(|(name, value)| match name.is_empty() {
        true => value.split(',').map(|word| (String::new(), word.trim().to_owned())).collect(),
        false => vec![(name, value)],
    });
    several.filter(|(name, value)| !(name.is_empty() && value.is_empty())).collect()
}

/// Seconds over all sessions: what a session said at its end, or from its first to its last event where it died.
pub(super) fn duration(entries: &[Stamped]) -> Option<f64> {
    let mut sessions: Vec<f64> = Vec::new();
    let mut began = None;
    for entry in entries {
        match &entry.event {
            Event::RunStarted { .. } => {
                began = entry.time();
                sessions.push(0.0);
            }
            Event::RunFinished { seconds, .. } if seconds.is_finite() => {
                began = None;
                if let Some(session) = sessions.last_mut() {
                    *session = seconds.max(0.0);
                }
            }
            _ => {
                if let (Some(session), Some(from), Some(to)) = (sessions.last_mut(), began, entry.time()) {
                    *session = (to - from).as_seconds_f64().max(0.0);
                }
            }
        }
    }
    (!sessions.is_empty()).then(|| sessions.iter().sum())
}
