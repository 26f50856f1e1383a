//! What a run is: its facts and the load under which it was measured.

use super::super::display::{counted, cut, duration};
use super::super::page::{Page, Tone};
use crate::analyse::{Counts, LoadSpread, Origin, RunTable, spread};
use crate::model::Engine;
use crate::words::shell_line;

/// What stands over everything that the simulated vLLM yielded.
pub(in crate::report) const SIMULATED: &str =
    "SIMULATED: these metrics come from the simulated vLLM (--engine sim). Nothing was measured on a real server.";

/// What stands over a table in which anything is simulated; real rows are never under the banner of simulated ones.
pub(in crate::report) fn banner(table: &RunTable) -> Option<String> {
    let valid = table.rows.iter().filter(|row| row.is_valid()).count();
    let simulated = table.rows.iter().filter(|row| row.is_valid() && row.simulated).count();
    match (table.is_all_simulated(), simulated) {
        (true, _) => Some(SIMULATED.to_owned()),
        (false, 0) => None,
        (false, count) => Some(format!(
            "{count} of {} are SIMULATED, and marked so: they come from the simulated vLLM (--engine sim), and are left out of all \
             statistics and answers.",
            counted(valid, "valid result")
        )),
    }
}

/// Width of the labels.
const LABEL: usize = 18;
/// A command line beyond this width is cut; the manifest holds it whole.
const COMMAND: usize = 400;

/// The parameters that say most, with our words; all others follow under vLLM's names.
const KNOWN: [(&str, &str); 7] = [
    ("dataset-name", "Dataset"),
    ("random-input-len", "Input tokens"),
    ("random-output-len", "Output tokens"),
    ("num-prompts", "Prompts"),
    ("max-concurrency", "Max. concurrency"),
    ("request-rate", "Request rate"),
    ("max-model-len", "Max. model length"),
];

/// The title, the facts and the load.
pub(super) fn put(page: &mut Page, table: &RunTable, counts: &Counts) {
    page.title("vLLM BENCHMARK ANALYSIS", &format!("run {}", cut(&table.facts.title(), 60)));
    if let Some(banner) = banner(table) {
        page.paragraph(1, "!! ", Tone::Warning, &banner);
    }
    page.gap();
    facts(page, table, counts);
    page.heading("Load parameters");
    load_fields(page, table);
}

fn facts(page: &mut Page, table: &RunTable, counts: &Counts) {
    let facts = &table.facts;
    let mut field = |label: &str, value: &str| page.field(1, label, LABEL + 1, Tone::Plain, value);
    match (&facts.created, &facts.timezone) {
        (Some(created), Some(zone)) => field("Created", &format!("{created} ({zone})")),
        (Some(created), None) => field("Created", &format!("{created} (from the directory's name)")),
        (None, _) => {}
    }
    field(
        "Written by",
        &match &facts.origin {
            Origin::VllmBench { version } => format!("vllm-bench {version}"),
            Origin::Predecessor => {
                "the Python predecessor: no manifest, so the settings are read off file names".to_owned()
            }
            Origin::Files(program) => program.words().to_owned(),
        },
    );
    let engine = match facts.engine {
        Some(Engine::Sim) => Some("simulated vLLM".to_owned()),
        Some(Engine::Vllm) | None if facts.vllm_versions.is_empty() && facts.vllm_path.is_none() => None,
        Some(Engine::Vllm) | None => Some(vllm(table)),
    };
    if let Some(engine) = engine {
        field("Engine", &engine);
    }
    if !facts.command_line.is_empty() {
        field("Command", &command(&facts.command_line));
    }
    if let Some(seconds) = facts.duration {
        let sessions = if facts.sessions > 1 { format!(" in {} sessions", facts.sessions) } else { String::new() };
        field("Duration", &format!("{}{sessions}", duration(seconds)));
    }
    for (i, more) in table.more.iter().enumerate() {
        let label = if i == 0 { "Together with" } else { "" };
        let versions = more.vllm_versions.join(", ");
        let versions = if versions.is_empty() { versions } else { format!(" (vLLM {versions})") };
        field(label, &format!("{}{versions}", cut(&more.title(), 60)));
    }
    let shared: Vec<String> =
        table.shared_settings().iter().map(|(key, value)| format!("{key} {}", cut(value, 40))).collect();
    if !shared.is_empty() && counts.planned > 1 {
        field("Same for all", &cut(&shared.join(", "), 600));
    }
    field("Outcome", &outcome(counts));
    let mut versions: Vec<&str> = Vec::new();
    for version in std::iter::once(facts).chain(&table.more).flat_map(|facts| &facts.vllm_versions) {
        if !versions.contains(&version.as_str()) {
            versions.push(version);
        }
    }
    if !table.more.is_empty() && versions.len() > 1 {
        let text = format!(
            "these runs used different versions of vLLM ({}): their metrics differ for that too",
            versions.join(", ")
        );
        page.field(1, "Versions", LABEL + 1, Tone::Warning, &text);
    }
    for text in crate::analyse::incomparable(&table.rows) {
        page.field(1, "Versions", LABEL + 1, Tone::Warning, &text);
    }
    if facts.live {
        page.field(1, "Live", LABEL + 1, Tone::Warning, "the run is still going on; this is what it has so far");
    }
    for what in table.damaged() {
        page.field(1, "DAMAGED", LABEL + 1, Tone::Bad, &what);
    }
    if facts.unreadable_journal_lines > 0 {
        let lines = counted(facts.unreadable_journal_lines, "line");
        let text = format!("{lines} of the journal could not be read (cut by a crash, or written by a newer version)");
        page.field(1, "Journal", LABEL + 1, Tone::Warning, &text);
    }
}

fn vllm(table: &RunTable) -> String {
    let versions = &table.facts.vllm_versions;
    let mut text = if versions.is_empty() { "vLLM".to_owned() } else { format!("vLLM {}", versions.join(", ")) };
    if let Some(path) = &table.facts.vllm_path {
        text.push_str(&format!(" ({})", path.display()));
    }
    if versions.len() > 1 {
        text.push_str(" (rows come from different versions)");
    }
    text
}

/// The command line as a shell would take it.
fn command(arguments: &[String]) -> String {
    let quoted = shell_line(arguments.iter().map(String::as_str));
    let named = arguments.first().is_some_and(|first| first.ends_with("vllm-bench"));
    cut(&if named { quoted } else { format!("vllm-bench {quoted}") }, COMMAND)
}

pub(super) fn outcome(counts: &Counts) -> String {
    let parts = [
        (counts.failed, "failed"),
        (counts.interrupted, "interrupted"),
        (counts.running, "running"),
        (counts.not_run, "not run"),
        (counts.skipped, "skipped by a rule"),
    ];
    let mut text = format!("{} of {} passed", counts.passed, counts.planned);
    for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {what}"));
    }
    text
}

/// The load parameters; where rows differ in one, that is said.
pub(in crate::report) fn load_fields(page: &mut Page, table: &RunTable) {
    let spreads = spread(table.rows.iter().filter(|row| !row.load.0.is_empty()).map(|row| row.load.as_ref()));
    if spreads.is_empty() {
        page.paragraph(2, "", Tone::Plain, "not known");
        return;
    }
    let known = KNOWN.into_iter().filter_map(|(flag, label)| {
        let found = spreads.iter().find(|spread| spread.flag == flag)?;
        Some((label.to_owned(), found))
    });
    let others = spreads
        .iter()
        .filter(|spread| KNOWN.iter().all(|(flag, _)| *flag != spread.flag))
        .map(|spread| (cut(&spread.flag, 40), spread));
    for (label, spread) in known.chain(others) {
        let tone = if spread.differs() { Tone::Warning } else { Tone::Plain };
        page.field(2, &label, LABEL, tone, &values(spread));
    }
    if spreads.iter().any(LoadSpread::differs) {
        page.gap();
        let text = if table.rows.iter().any(|row| !row.axes.workload.is_empty()) {
            "These rows were measured under different loads: each has statistics and an answer of its own."
        } else {
            "These rows were measured under different loads: metrics of different loads do not compare, and \
             the statistics and rankings below mix them."
        };
        page.paragraph(2, "! ", Tone::Warning, text);
    }
}

fn values(spread: &LoadSpread) -> String {
    const SHOWN: usize = 6;
    let mut shown: Vec<String> = spread
        .values
        .iter()
        .take(SHOWN)
        .map(|value| value.as_ref().map_or("not given".to_owned(), |value| cut(&value.to_string(), 60)))
        .collect();
    if spread.values.len() > SHOWN {
        shown.push(format!("and {} more", spread.values.len() - SHOWN));
    }
    let differs = if spread.differs() { " (differs)" } else { "" };
    shown.join(" | ") + differs
}
