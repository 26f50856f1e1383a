//! `vllm-bench status`: is a run live, how far is it, what failed, and which vLLM processes are there. Reads only.

mod remaining;
pub(super) mod report;
#[cfg(test)]
mod tests;
mod text;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use chrono::Utc;

use self::report::{ProcessReport, Report, RunReport, SCHEMA, Sources, Standing};
use crate::cli::StatusArgs;
use crate::commands::cluster;
use crate::commands::find_run;
use crate::commands::find_run::Head;
use crate::commands::format;
use crate::commands::tail::JournalTail;
use crate::config::Environment;
use crate::error::Error;
use crate::execute::slurm::Queued;
use crate::exit;
use crate::model::Event;
use crate::process::{foreign, procfs, registry, signals};
use crate::record::layout::Layout;
use crate::record::{Holder, JournalText, RunDir, RunState};
use crate::ui::Ui;

/// How often `--watch` draws.
const REDRAW: Duration = Duration::from_secs(1);
/// How often `--follow` looks for events.
const FOLLOW: Duration = Duration::from_millis(100);
/// Home, and clear what is below: no flicker, and the scroll-back stays.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows the state of a run.
///
/// # Errors
/// When there is no run, or its files cannot be read.
pub async fn run(args: &StatusArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    if args.follow && !args.output.is_json() {
        return Err(Error::Usage {
            message: "--follow prints events as JSON".into(),
            hint: "write `status --follow --json`; `status --watch` shows the state of a run again and again".into(),
        });
    }
    let found = match find_run::find(args.run.as_deref(), args.results_dir.as_deref(), environment) {
        Ok(found) => found,
        Err(error @ (Error::Nothing { .. } | Error::NotFound { .. })) => {
            show(
                &Report { schema: SCHEMA, run: None, vllm_processes: processes() },
                args.output.is_json(),
                environment,
                ui,
            )?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    if args.run.is_none() && args.results_dir.is_none() {
        find_run::live_elsewhere(&found, environment).iter().for_each(|note| ui.say(note));
    }
    if args.follow {
        return follow(&found.run, ui).await;
    }
    let mut reader = Reader::new(found.run)?;
    if !args.watch {
        show(&reader.report(found.holder.as_ref(), environment)?, args.output.is_json(), environment, ui)?;
        return Ok(reader.code(ui));
    }
    let code = watch(&mut reader, environment, ui).await?;
    Ok(code.max(reader.code(ui)))
}

/// Prints the events of a run as they come, until it ends; Ctrl-C is a normal end.
async fn follow(run: &RunDir, ui: &Ui) -> Result<u8, Error> {
    let path = run.layout().journal();
    let mut journal = JournalTail::of_run(run);
    let mut interrupted = std::pin::pin!(signals::interrupted());
    loop {
        // Asked before the journal is read: what a run writes last is read after its end.
        let live = run.live().is_some() || cluster::open_tasks(run) > 0;
        let events = journal.read().map_err(|source| Error::Input { path: path.clone(), source })?;
        for stamped in events {
            ui.out(&serde_json::to_string(&stamped).map_err(std::io::Error::from)?);
        }
        if !live || format::stdout_is_gone() {
            return Ok(exit::OK);
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW) => {}
            () = &mut interrupted => return Ok(exit::OK),
        }
    }
}

/// Draws every second until the run ends; Ctrl-C is a normal end.
async fn watch(reader: &mut Reader, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let in_place = std::io::stdout().is_terminal();
    let mut interrupted = std::pin::pin!(signals::interrupted());
    let mut clock = tokio::time::interval(REDRAW);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    if in_place {
        // Whatever stood on the screen scrolls away instead of being overwritten.
        ui.out_harmless(b"\x1b[2J");
    }
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = &mut interrupted => return Ok(exit::OK),
        }
        let holder = reader.run.live();
        let report = reader.report(holder.as_ref(), environment)?;
        let goes_on = |run: &RunReport| matches!(run.standing, Standing::Live | Standing::Submitted);
        let live = report.run.as_ref().is_some_and(goes_on);
        let (ui, rows) = ui.measured();
        // Its last row stays free for the cursor.
        let rows = rows.filter(|_| in_place).map(|rows| rows.saturating_sub(1));
        let page = text::text(&report, environment.working_directory(), rows, &ui);
        if in_place {
            ui.out_harmless(CLEAR.as_bytes());
        }
        ui.out_raw(format!("{page}\n{}", if in_place { "" } else { "\n" }).as_bytes());
        if !live || format::stdout_is_gone() {
            return Ok(exit::OK);
        }
    }
}

fn show(report: &Report, json: bool, environment: &Environment, ui: &Ui) -> Result<(), Error> {
    if json {
        ui.out(&serde_json::to_string_pretty(report).map_err(std::io::Error::from)?);
    } else {
        ui.out(&text::text(report, environment.working_directory(), None, ui));
    }
    Ok(())
}

/// Reads a run again and again; the manifest once, the journal when it has grown.
struct Reader {
    run: RunDir,
    head: Head,
    journal: JournalText,
    length: Option<u64>,
    /// What the queue had of the run, and when.
    queue: Option<(Instant, Result<Vec<Queued>, String>)>,
    /// How often experiments had joined the plan when the manifest was read.
    joined: usize,
    /// What of the record is damaged.
    damaged: Vec<String>,
}

impl Reader {
    fn new(run: RunDir) -> Result<Self, Error> {
        let (head, wrong) = Head::read_or_remains(&run)?;
        let damaged = wrong.into_iter().collect();
        Ok(Self { run, head, journal: JournalText::default(), length: None, queue: None, joined: 0, damaged })
    }

    /// Names what is damaged; the exit code that it means.
    fn code(&self, ui: &Ui) -> u8 {
        let lines = self.journal.damaged;
        let journal = (lines > 0).then(|| format!("{lines} lines of the journal cannot be read"));
        self.damaged.iter().chain(&journal).for_each(|what| ui.warn(what));
        if lines > 0 || !self.damaged.is_empty() { exit::RECORD } else { exit::OK }
    }

    /// Asks Slurm what it has of the run, unless nothing is open, or it was asked a moment ago.
    fn ask_queue(&mut self, environment: &Environment) {
        let state = RunState::replay(&self.journal.entries);
        if state.open_tasks() == 0 {
            self.queue = None;
        } else if self.queue.as_ref().is_none_or(|(at, _)| at.elapsed() >= cluster::POLL) {
            self.queue = Some((Instant::now(), cluster::queue(&self.run, &state, environment)));
        }
    }

    fn report(&mut self, holder: Option<&Holder>, environment: &Environment) -> Result<Report, Error> {
        let length = std::fs::metadata(self.run.layout().journal()).ok().map(|meta| meta.len());
        let on_cluster = self.run.layout().slurm().is_dir();
        if length != self.length || length.is_none() || on_cluster {
            match self.run.journal() {
                Ok(journal) => {
                    self.journal = journal;
                    // Experiments join the plan of a run while it goes on.
                    let joined = self.journal.entries.iter().filter(|entry| joins(&entry.event)).count();
                    if joined != self.joined
                        && let Ok(head) = Head::read(&self.run)
                    {
                        (self.head, self.joined) = (head, joined);
                    }
                }
                Err(error) => self.damaged = vec![one_line(&error)],
            }
            self.length = length;
        }
        if on_cluster {
            self.ask_queue(environment);
        }
        let run = RunReport::new(Sources {
            path: self.run.path(),
            head: &self.head,
            entries: &self.journal.entries,
            unreadable: self.journal.unreadable,
            holder,
            detached: holder.and_then(|holder| detached(holder, self.run.layout())),
            now: Utc::now(),
            queue: self.queue.as_ref().map(|(_, queue)| queue.as_deref().map_err(String::as_str)),
        });
        Ok(Report { schema: SCHEMA, run: Some(run), vllm_processes: processes() })
    }
}

/// Whether experiments join the plan by it.
pub(super) fn joins(event: &Event) -> bool {
    matches!(event, Event::ExperimentsPlanned { .. })
}

/// An error with its cause.
fn one_line(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Whether the orchestrator has left its terminal: a detached one leads a session of its own and writes what it would have shown into a file.
pub(super) fn detached(holder: &Holder, layout: &Layout) -> Option<bool> {
    let stat = procfs::stat(holder.process.pid).filter(|stat| stat.start_time == holder.process.start_time)?;
    Some(stat.session == stat.pid && layout.run_log().exists())
}

/// Every vLLM process of this machine; ours with run and experiment.
pub(super) fn processes() -> Vec<ProcessReport> {
    let found = foreign::vllm_processes();
    let records = if found.is_empty() { Vec::new() } else { registry::records().unwrap_or_default() };
    let report = |process: foreign::VllmProcess| {
        let record =
            process.group_token.as_ref().and_then(|token| records.iter().find(|record| record.token == *token));
        ProcessReport {
            pid: process.pid,
            user: format::user(process.uid),
            kind: process.kind.to_string(),
            command: process.title,
            ours: process.group_token.is_some(),
            run: record.map(|record| record.owner.run.to_string_lossy().into_owned()),
            experiment: record.map(|record| record.owner.experiment.clone()),
        }
    };
    found.into_iter().map(report).collect()
}
