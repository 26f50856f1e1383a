//! `vllm-bench list`: the runs of the results directories, what they are called, how they stand, and what they recommend. Reads only.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::find_run::{self, Head};
use super::format;
use super::status::report::{RunReport, Sources, Standing};
use crate::analyse::{RankingSpec, answers};
use crate::cli::ListArgs;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::record::{RunDir, list_runs};
use crate::report;
use crate::results::read_run;
use crate::ui::Ui;

/// Version of the JSON that `list --json` prints.
const SCHEMA: u32 = 1;
/// Width of a line where no terminal says one.
const WIDTH: usize = 120;
/// A run with more results is not analysed for the list: that would take long.
const ANALYSED: usize = 200;

/// One run.
#[derive(Debug, Serialize)]
struct Listed {
    /// The name that its user gave it.
    name: Option<String>,
    /// The name of its directory.
    run: String,
    /// The run directory, absolute.
    path: PathBuf,
    /// When it was made, RFC 3339.
    created: Option<String>,
    state: State,
    simulated: bool,
    planned: usize,
    passed: usize,
    failed: usize,
    models: Vec<String>,
    /// One for each model and workload; none where nothing is valid, or where the run is too large to be analysed for a list.
    recommends: Vec<Recommends>,
    /// What of its record cannot be read.
    damaged: Option<String>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Running,
    /// Its jobs are queued or running on a cluster, and no front watches them.
    Submitted,
    Finished,
    Interrupted,
    Died,
    NotBegun,
    Damaged,
}

impl State {
    fn words(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Submitted => "submitted",
            State::Finished => "finished",
            State::Interrupted => "interrupted",
            State::Died => "died",
            State::NotBegun => "not begun",
            State::Damaged => "damaged",
        }
    }

    fn of(standing: Standing) -> Self {
        match standing {
            Standing::Live => State::Running,
            Standing::Submitted => State::Submitted,
            Standing::Finished => State::Finished,
            Standing::Interrupted => State::Interrupted,
            Standing::Died => State::Died,
            Standing::NotStarted => State::NotBegun,
        }
    }
}

/// The configuration to use for one model and workload.
#[derive(Debug, Serialize)]
struct Recommends {
    /// Model and workload.
    group: String,
    /// The settings that vary, in words.
    configuration: String,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Listing {
    schema: u32,
    runs: Vec<Listed>,
}

/// Lists the runs, newest first. A run whose record is damaged is a row that says so, and exit code 5.
///
/// # Errors
/// When there is no run, or a results directory cannot be read.
pub fn run(args: &ListArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let dirs = find_run::results_dirs(args.results_dir.as_deref(), environment);
    let wide = ui.display.columns_out.unwrap_or(WIDTH);
    let mut places = Vec::new();
    for dir in &dirs {
        let runs = list_runs(dir)?;
        let listed: Vec<Listed> =
            runs.iter().rev().map(|run| listed(run, args.output.is_json() || wide >= 100)).collect();
        if !listed.is_empty() {
            places.push((dir, listed));
        }
    }
    let damaged: Vec<String> = places
        .iter()
        .flat_map(|(_, runs)| runs)
        .filter_map(|run| Some(format!("{}: {}", run.run, run.damaged.as_ref()?)))
        .collect();
    let is_empty = places.is_empty();
    if args.output.is_json() {
        let listing = Listing { schema: SCHEMA, runs: places.into_iter().flat_map(|(_, runs)| runs).collect() };
        ui.out(&serde_json::to_string_pretty(&listing).map_err(std::io::Error::from)?);
    } else if !is_empty {
        let from = environment.working_directory();
        let page = |(dir, runs): &(&PathBuf, Vec<Listed>)| {
            let heading = format!("{} in {}", format::count(runs.len(), "run"), format::path(dir, from));
            format!("{}\n{}", ui.bold(&heading), table(runs, wide, ui))
        };
        ui.out(&places.iter().map(page).collect::<Vec<_>>().join("\n\n"));
    }
    if is_empty {
        return Err(find_run::no_run(&dirs, environment));
    }
    damaged.iter().for_each(|what| ui.warn(what));
    Ok(if damaged.is_empty() { exit::OK } else { exit::RECORD })
}

/// What `list --json` says of these results directories, without the answers.
///
/// # Errors
/// When one cannot be read.
pub(super) fn without_answers(dirs: &[PathBuf]) -> Result<serde_json::Value, Error> {
    let mut runs = Vec::new();
    for dir in dirs {
        runs.extend(list_runs(dir)?.iter().rev().map(|run| listed(run, false)));
    }
    Ok(serde_json::to_value(Listing { schema: SCHEMA, runs }).map_err(std::io::Error::from)?)
}

/// Reads one run.
fn listed(run: &RunDir, with_answer: bool) -> Listed {
    let mut listed = Listed {
        name: run.given_name(),
        run: run.name(),
        path: run.path().to_owned(),
        created: run.created().map(|at| at.to_rfc3339()),
        state: State::Damaged,
        simulated: false,
        planned: 0,
        passed: 0,
        failed: 0,
        models: Vec::new(),
        recommends: Vec::new(),
        damaged: None,
    };
    let (head, journal) = match Head::read_or_remains(run).and_then(|(head, wrong)| Ok((head, wrong, run.journal()?))) {
        Ok((head, wrong, journal)) => {
            listed.damaged = wrong;
            (head, journal)
        }
        Err(error) => {
            listed.damaged = Some(error.to_string());
            return listed;
        }
    };
    if journal.damaged > 0 && listed.damaged.is_none() {
        listed.damaged = Some(format!("{} of the journal cannot be read", format::count(journal.damaged, "line")));
    }
    let holder = run.live();
    let report = RunReport::new(Sources {
        path: run.path(),
        head: &head,
        entries: &journal.entries,
        unreadable: journal.unreadable,
        holder: holder.as_ref(),
        detached: None,
        now: Utc::now(),
        queue: None,
    });
    if listed.damaged.is_none() || report.standing == Standing::Live {
        listed.state = State::of(report.standing);
    }
    if DateTime::parse_from_rfc3339(&head.created).is_ok() {
        listed.created = Some(head.created.clone());
    }
    listed.simulated = report.simulated;
    (listed.planned, listed.passed, listed.failed) =
        (report.counts.planned, report.counts.passed, report.counts.failed);
    for experiment in &head.plan.experiments {
        let model = &experiment.axes.model;
        if !model.is_empty() && !listed.models.contains(model) {
            listed.models.push(model.clone());
        }
    }
    if with_answer && listed.passed > 0 && listed.planned <= ANALYSED {
        listed.recommends = recommends(run);
    }
    listed
}

/// The answer of a run by its own objective and limits, as `recommend` gives it.
fn recommends(run: &RunDir) -> Vec<Recommends> {
    let Ok(table) = read_run(run.path()) else { return Vec::new() };
    let wanted = RankingSpec::default().with_objective_of(&table).0.with_limits_of(&table).0;
    let answers = answers(&table, &[crate::analyse::BY_MODEL.to_owned()], &wanted);
    let chosen = answers.iter().filter_map(|answer| {
        let choice = answer.choice.as_ref().ok()?.chosen()?;
        Some(Recommends { group: answer.title(), configuration: report::configuration(choice.row) })
    });
    chosen.collect()
}

/// One column of the table.
struct Column {
    heading: &'static str,
    cell: fn(&Listed) -> String,
    /// The most columns of the terminal that it takes, where there is room.
    most: usize,
    /// The fewest with which it says something.
    least: usize,
}

/// In the order in which they stand.
const COLUMNS: [Column; 7] = [
    Column { heading: "NAME", cell: |run| run.name.clone().unwrap_or_default(), most: 24, least: 8 },
    Column { heading: "RUN", cell: |run| run.run.clone(), most: 24, least: 13 },
    Column { heading: "STATE", cell: state, most: 17, least: 17 },
    Column { heading: "PASSED", cell: passed, most: 16, least: 16 },
    Column { heading: "CREATED", cell: created, most: 23, least: 23 },
    Column { heading: "MODEL", cell: models, most: 28, least: 12 },
    Column { heading: "RECOMMENDS", cell: recommended, most: 44, least: 16 },
];
/// Columns that a narrow terminal does without, the first to go first.
const DISPENSABLE: [&str; 3] = ["RECOMMENDS", "CREATED", "MODEL"];
/// Columns that are made narrower where there is no room, in turn.
const CUT: [&str; 4] = ["RECOMMENDS", "MODEL", "NAME", "RUN"];
/// Blanks between two columns.
const GAP: usize = 2;

fn state(run: &Listed) -> String {
    format!("{}{}", run.state.words(), if run.simulated { " (sim)" } else { "" })
}

fn passed(run: &Listed) -> String {
    if run.planned == 0 { "-".to_owned() } else { format!("{} of {}", run.passed, run.planned) }
}

fn created(run: &Listed) -> String {
    let at = run.created.as_deref().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    at.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%d %H:%M %:z").to_string())
}

fn models(run: &Listed) -> String {
    match run.models.as_slice() {
        [] => "-".to_owned(),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
    }
}

fn recommended(run: &Listed) -> String {
    match run.recommends.as_slice() {
        [] => "-".to_owned(),
        [one] => one.configuration.clone(),
        several => format!("{} answers", several.len()),
    }
}

/// The table, no wider than `wide`: columns go, then cells are cut.
fn table(runs: &[Listed], wide: usize, ui: &Ui) -> String {
    use unicode_width::UnicodeWidthStr as _;
    let named = runs.iter().any(|run| run.name.is_some());
    let mut columns: Vec<(&Column, usize)> = COLUMNS
        .iter()
        .filter(|column| named || column.heading != "NAME")
        .map(|column| {
            let cells = runs.iter().map(|run| format::plain(&(column.cell)(run)).width());
            (column, cells.max().unwrap_or(0).max(column.heading.len()).min(column.most))
        })
        .collect();
    let total = |columns: &[(&Column, usize)]| columns.iter().map(|(_, width)| width + GAP).sum::<usize>() - GAP;
    let fewest = |columns: &[(&Column, usize)]| {
        columns.iter().map(|(column, width)| column.least.min(*width) + GAP).sum::<usize>() - GAP
    };
    for heading in DISPENSABLE {
        if fewest(&columns) > wide {
            columns.retain(|(column, _)| column.heading != heading);
        }
    }
    for heading in CUT {
        let over = total(&columns).saturating_sub(wide);
        for (column, width) in columns.iter_mut().filter(|(column, _)| column.heading == heading) {
            *width = width.saturating_sub(over).max(column.least.min(*width));
        }
    }
    let line = |cells: Vec<String>, paint: &dyn Fn(usize, &str) -> String| {
        let cells = cells.iter().zip(&columns).enumerate().map(|(at, (cell, (_, width)))| {
            let cell = format::cut_middle(cell, *width);
            let blanks = " ".repeat(width.saturating_sub(cell.width()));
            format!("{}{blanks}", paint(at, &cell))
        });
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    let heading = line(columns.iter().map(|(column, _)| column.heading.to_owned()).collect(), &|_, cell| ui.dim(cell));
    let rows = runs.iter().map(|run| {
        let paint = |at: usize, cell: &str| match columns.get(at).map(|(column, _)| column.heading) {
            Some("STATE") => match run.state {
                State::Running | State::Submitted | State::Finished => ui.good(cell),
                State::Interrupted | State::NotBegun => ui.caution(cell),
                State::Died | State::Damaged => ui.bad(cell),
            },
            _ => cell.to_owned(),
        };
        line(columns.iter().map(|(column, _)| (column.cell)(run)).collect(), &paint)
    });
    std::iter::once(heading).chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fixture::{Fixture, hold};
    use crate::ui::Display;
    use unicode_width::UnicodeWidthStr;

    fn ui() -> Ui {
        Ui::new(Display::PLAIN)
    }

    /// Every kind of run there is.
    fn runs(results: &std::path::Path) -> (Vec<Listed>, crate::record::Lock) {
        let finished = Fixture::new(results, "20260101_1000");
        finished
            .session(0, 3)
            .begin(1, 1, "a")
            .pass(2, 1, "a", 1.0)
            .begin(3, 2, "b")
            .fail(4, 2, "b", 1.0)
            .over(9, false);
        finished.name("a rather long name of a run, with its reason");
        let interrupted = Fixture::new(results, "20260101_1001");
        interrupted.session(0, 3).begin(1, 1, "a").interrupt(2, 1, "a").over(3, true);
        Fixture::new(results, "20260101_1002").session(0, 3).begin(1, 1, "a");
        Fixture::new(results, "20260101_1003");
        Fixture::new(results, "20260101_1004").write_manifest("{");
        let torn = Fixture::new(results, "20260101_1005");
        torn.session(0, 3).begin(1, 1, "a");
        torn.write_manifest(r#"{"schema": 1}"#);
        let live = Fixture::new(results, "20260101_1006");
        live.session(0, 3).begin(1, 1, "a");
        let lock = hold(&live);
        (list_runs(results).unwrap().iter().map(|run| listed(run, true)).collect(), lock)
    }

    #[test]
    fn every_run_is_a_row_whatever_its_state() {
        let dir = tempfile::tempdir().unwrap();
        let (mut runs, _lock) = runs(dir.path());
        runs.sort_by(|a, b| a.run.cmp(&b.run));
        let states: Vec<(&str, State)> = runs.iter().map(|run| (&run.run[12..], run.state)).collect();
        use State::*;
        assert_eq!(
            states,
            [
                ("0", Finished),
                ("1", Interrupted),
                ("2", Died),
                ("3", NotBegun),
                ("4", Damaged),
                ("5", Damaged),
                ("6", Running)
            ]
        );
        assert_eq!((runs[0].planned, runs[0].passed, runs[0].failed), (3, 1, 1));
        assert!(runs[4].damaged.as_ref().is_some_and(|what| what.contains("manifest.json")), "{:?}", runs[4]);
        assert!(runs[0].damaged.is_none() && runs[0].simulated);
    }

    #[test]
    fn the_table_fits_narrow_and_wide_terminals() {
        let dir = tempfile::tempdir().unwrap();
        let (runs, _lock) = runs(dir.path());
        for wide in [60, 80, 120] {
            let text = table(&runs, wide, &ui());
            assert!(text.lines().all(|line| line.width() <= wide), "{wide}:\n{text}");
            assert_eq!(text.lines().count(), 8, "{text}");
            for word in ["20260101_1006", "running (sim)", "damaged", "1 of 3", "a rat"] {
                assert!(text.contains(word), "{word} at {wide}:\n{text}");
            }
        }
        // Counts are never cut: what they take is known before columns go.
        let mut large = runs;
        for run in &mut large {
            (run.planned, run.passed, run.state) = (100_000, 100_000, State::Finished);
            run.models = vec!["an-organisation/a-model".into()];
        }
        for wide in 60..=100 {
            let text = table(&large, wide, &ui());
            assert!(text.lines().all(|line| line.width() <= wide), "{wide}:\n{text}");
            assert!(text.contains("100000 of 100000"), "{text}");
        }
        let wide = table(&large, 120, &ui());
        assert!(wide.contains("CREATED") && wide.contains("2026-02-25 14:30"), "{wide}");
    }
}
