//! What the template shows.

use serde::Serialize;

use super::super::display::{clean, counted, cut, duration};
use super::super::export::Analysis;
use super::super::text::banner;
use super::answers::{self, Shown};
use super::machine::{self, Machine};
use super::problems::Problems;
use super::table::{self, Cell, Columns, Line, Setting};
use super::{data, shell};
use crate::analyse::{Base, Counts, Facts, Origin, RankingSpec, RunTable, bases};
use crate::model::Engine;

/// The page's own parts.
pub(super) struct Parts<'a> {
    pub csp: String,
    pub style: &'a str,
    pub script: &'a str,
}

/// Everything that the template asks for.
#[derive(Serialize)]
pub(super) struct View<'a> {
    title: String,
    csp: String,
    style: &'a str,
    script: &'a str,
    data: String,
    simulated: bool,
    live: bool,
    facts: Vec<(&'static str, String)>,
    notes: Vec<String>,
    counts: Vec<Count>,
    ranked_by: String,
    latency: String,
    limits: Option<String>,
    answers: Vec<Shown>,
    axes: Vec<Asked>,
    fixed: Vec<Asked>,
    rules: Vec<(String, usize)>,
    head: Vec<Cell>,
    rows: Vec<Line>,
    problems: Problems,
    machines: Vec<Machine>,
    commands: Vec<(String, String)>,
}

/// How many came to what.
#[derive(Serialize)]
struct Count {
    label: &'static str,
    value: usize,
    class: &'static str,
}

/// A setting and its values.
#[derive(Serialize)]
struct Asked {
    key: String,
    values: String,
    load: bool,
}

impl<'a> View<'a> {
    /// Of a table.
    pub fn of(analysis: &Analysis<'_>, parts: Parts<'a>) -> Self {
        let (table, wanted) = (analysis.table, &analysis.wanted);
        let machines = machine::of(table);
        let counts = Counts::of(&table.rows);
        let columns = Columns::of(analysis);
        let (head, rows) = table::lines(table, &columns);
        let title =
            analysis.title.as_deref().map_or_else(|| format!("vLLM benchmark {}", table.facts.title()), str::to_owned);
        let (axes, fixed): (Vec<&Setting>, Vec<&Setting>) = columns.settings.iter().partition(|setting| setting.varies);
        Self {
            title: cut(&title, 160),
            csp: parts.csp,
            style: parts.style,
            script: parts.script,
            data: data::block(analysis, &columns),
            simulated: table.is_all_simulated(),
            live: table.facts.live,
            facts: facts(table, &machines),
            notes: notes(table, wanted),
            counts: counted_out(&counts),
            ranked_by: wanted.objective(wanted.per_device),
            latency: crate::model::Metric::of(&wanted.latency)
                .map_or_else(|| wanted.latency.clone(), |metric| metric.label),
            limits: wanted.about().map(|said| clean(&said)),
            answers: answers::of(analysis),
            axes: axes.into_iter().map(asked).collect(),
            fixed: fixed.into_iter().map(asked).collect(),
            rules: rules(table),
            head,
            rows,
            problems: Problems::of(table),
            commands: commands(table),
            machines,
        }
    }
}

fn asked(setting: &Setting) -> Asked {
    const SHOWN: usize = 24;
    let mut values: Vec<String> = setting.values.iter().take(SHOWN).map(|value| cut(value, 80)).collect();
    if setting.values.len() > SHOWN {
        values.push(format!("and {} more", setting.values.len() - SHOWN));
    }
    Asked { key: clean(&setting.key), values: values.join(", "), load: setting.load }
}

fn counted_out(counts: &Counts) -> Vec<Count> {
    let all = [
        ("planned", counts.planned, "plain", true),
        ("passed", counts.passed, "good", true),
        ("failed", counts.failed, "bad", true),
        ("skipped by a rule", counts.skipped, "faint", counts.skipped > 0),
        ("interrupted", counts.interrupted, "warn", counts.interrupted > 0),
        ("running", counts.running, "warn", counts.running > 0),
        ("not run", counts.not_run, "faint", counts.not_run > 0),
    ];
    let count = |(label, value, class, _)| Count { label, value, class: if value == 0 { "faint" } else { class } };
    all.into_iter().filter(|(.., there)| *there).map(count).collect()
}

/// The head of the page.
fn facts(table: &RunTable, machines: &[Machine]) -> Vec<(&'static str, String)> {
    let facts = &table.facts;
    let runs: Vec<String> = std::iter::once(facts).chain(&table.more).map(|facts| clean(&facts.title())).collect();
    let mut shown = vec![(if runs.len() > 1 { "Runs" } else { "Run" }, runs.join(", "))];
    shown.extend(facts.created.as_ref().map(|created| {
        let zone = facts.timezone.as_ref().map_or(String::new(), |zone| format!(" ({zone})"));
        ("Date", clean(&format!("{created}{zone}")))
    }));
    shown.push(("Engine", engine(facts)));
    if let Some(machine) = machines.first() {
        let machine = [machine.host.as_str(), machine.devices.as_str()];
        let named: Vec<&str> = machine.into_iter().filter(|part| !part.is_empty()).collect();
        if !named.is_empty() {
            shown.push(("Machine", named.join(" · ")));
        }
    }
    let seconds: Vec<f64> = std::iter::once(facts).chain(&table.more).filter_map(|facts| facts.duration).collect();
    if !seconds.is_empty() {
        let sessions = if facts.sessions > 1 { format!(" in {} sessions", facts.sessions) } else { String::new() };
        shown.push(("Time", duration(seconds.iter().sum()) + &sessions));
    }
    shown.push((
        "Written by",
        match &facts.origin {
            Origin::VllmBench { version } => format!("vllm-bench {}", clean(version)),
            Origin::Predecessor => "files without a manifest".to_owned(),
            Origin::Files(program) => program.words().to_owned(),
        },
    ));
    shown
}

fn engine(facts: &Facts) -> String {
    match facts.engine {
        Some(Engine::Sim) => "simulated vLLM".to_owned(),
        Some(Engine::Vllm) | None if facts.vllm_versions.is_empty() => "vLLM, version not known".to_owned(),
        Some(Engine::Vllm) | None => format!("vLLM {}", clean(&facts.vllm_versions.join(", "))),
    }
}

/// What deserves a word at the head.
fn notes(table: &RunTable, wanted: &RankingSpec) -> Vec<String> {
    let facts = &table.facts;
    let mut notes = Vec::new();
    notes.extend(banner(table).filter(|_| !table.is_all_simulated()));
    if facts.live {
        notes.push("The run is still going on; this is what it has so far.".to_owned());
    }
    if facts.vllm_versions.len() > 1 {
        notes.push("Rows come from different versions of vLLM.".to_owned());
    }
    notes.extend(crate::analyse::incomparable(&table.rows).iter().map(|text| clean(text).to_string()));
    notes.extend(bases(table, wanted).iter().filter_map(Base::warning).map(|text| clean(&text).to_string()));
    if facts.unreadable_journal_lines > 0 {
        let lines = counted(facts.unreadable_journal_lines, "line");
        notes
            .push(format!("{lines} of the journal could not be read (cut by a crash, or written by a newer version)."));
    }
    if table.rows.iter().any(|row| row.is_valid()) && table.rows.iter().all(|row| row.repeat.is_none()) {
        notes.push("Each row is one measurement: repeat rows that are close before choosing between them.".to_owned());
    }
    notes
}

/// Rules that left something out, and how much.
fn rules(table: &RunTable) -> Vec<(String, usize)> {
    let mut rules: indexmap::IndexMap<String, usize> = indexmap::IndexMap::new();
    for row in &table.rows {
        if let crate::analyse::Status::Skipped { rule, .. } = &row.status {
            *rules.entry(clean(rule)).or_default() += 1;
        }
    }
    rules.into_iter().collect()
}

/// The command line of each run.
fn commands(table: &RunTable) -> Vec<(String, String)> {
    std::iter::once(&table.facts)
        .chain(&table.more)
        .filter(|facts| !facts.command_line.is_empty())
        .map(|facts| (clean(&facts.run), shell::own(&facts.command_line)))
        .collect()
}
