//! `status` for humans: aligned, as wide as the terminal (paths and commands apart), and readable without colour.

use std::path::Path;

use super::report::{Counts, ExperimentReport, JobsReport, ProcessReport, Report, RunReport, Standing};
use crate::commands::format;
use crate::ui::Ui;

/// The widest line where no terminal says how wide it is, paths apart: those must stay whole to be of use.
const WIDTH: usize = 100;
/// The widest line of a terminal.
const WIDEST: usize = 200;
/// Between values on one line.
const GAP: &str = "   ";
/// The fewest columns of a name in the line of a lane.
const NAME: usize = 12;
/// Where values begin.
const LABEL: usize = 12;
/// How many skips are shown in full.
const SKIPS: usize = 3;
/// How many experiments under way are shown in full.
const UNDER_WAY: usize = 8;
/// How many processes are shown in full.
const PROCESSES: usize = 20;

/// Writes a report; `from` is the directory in which the program was called. In no more than so many `rows` the essentials: sections are
/// cut from the last, and keep their headings.
pub fn text(report: &Report, from: &Path, rows: Option<usize>, ui: &Ui) -> String {
    let width = ui.display.columns_out.map_or(WIDTH, |columns| columns.min(WIDEST));
    let mut page = Page { ui, from, width, lines: Vec::new(), sections: Vec::new() };
    match &report.run {
        Some(run) => page.run(run),
        None => page.row("State", "no run"),
    }
    page.processes(&report.vllm_processes, report.run.as_ref());
    if let Some(rows) = rows {
        page.fit(rows);
    }
    page.lines.join("\n")
}

struct Page<'a> {
    ui: &'a Ui,
    from: &'a Path,
    width: usize,
    lines: Vec<String>,
    /// Where each section begins, with the empty line before it.
    sections: Vec<usize>,
}

/// An empty line and a heading.
const LEAST_OF_SECTION: usize = 2;

impl Page<'_> {
    /// A label and its value, on further lines where there is no room.
    fn row(&mut self, label: &str, value: &str) {
        let mut label = self.ui.bold(&format!("{label:<LABEL$}"));
        for line in format::packed(value.split(GAP).map(str::trim), GAP, self.width - LABEL) {
            self.lines.push(format!("{label}{line}").trim_end().to_owned());
            label = " ".repeat(LABEL);
        }
    }

    /// A line below a section's heading.
    fn below(&mut self, indent: usize, text: &str) {
        let lines = format::packed([text], "", self.width - indent);
        self.lines.extend(lines.into_iter().map(|line| format!("{:indent$}{line}", "")));
    }

    /// A section's heading, after an empty line.
    fn section(&mut self, heading: &str) {
        self.sections.push(self.lines.len());
        self.lines.push(String::new());
        self.lines.push(self.ui.bold(heading));
    }

    /// Leaves out what so many rows do not hold.
    fn fit(&mut self, rows: usize) {
        let whole = self.lines.len();
        let mut end = self.lines.len();
        for begin in std::mem::take(&mut self.sections).into_iter().rev() {
            let excess = self.lines.len().saturating_sub(rows);
            let from = end.saturating_sub(excess).max(begin + LEAST_OF_SECTION).min(end);
            self.lines.drain(from..end);
            end = begin;
        }
        if self.lines.len() > rows {
            self.lines.truncate(rows);
        }
        let left_out = whole - self.lines.len();
        if left_out > 0 && rows > 0 {
            self.lines.pop();
            let lines = format::count(left_out + 1, "line");
            self.lines.push(self.ui.dim(&format::cut_end(&format!("… {lines} more: `vllm-bench status`"), self.width)));
        }
    }

    fn run(&mut self, run: &RunReport) {
        let name = run.given_name.as_ref().map(|name| format!(" ({})", format::plain(name))).unwrap_or_default();
        self.row("Run", &format!("{}{name}", format::path(Path::new(&run.path), self.from)));
        if run.simulated {
            self.row("", &self.ui.caution("simulated: no metric of this run was measured on a real server"));
        }
        self.standing(run);
        self.row("Progress", &self.counts(&run.counts));
        if let Some(jobs) = &run.jobs {
            self.jobs(jobs);
        }
        if let Some(why) = &run.neighbours {
            self.row("Neighbours", &format::cut_end(&format::plain(why), self.width - LABEL));
        }
        if let Some(seconds) = run.checking_neighbours_seconds {
            self.row("Lanes", &format!("what neighbours cost is being measured, for {}", format::seconds(seconds)));
        }
        if run.under_way.iter().any(|experiment| experiment.lane.is_some()) {
            self.lanes(run);
        } else {
            run.under_way.iter().take(UNDER_WAY).for_each(|experiment| self.experiment(experiment, run));
        }
        if let Some(more @ 1..) = run.under_way.len().checked_sub(UNDER_WAY) {
            self.row(
                "",
                &format!("and {} more under way (`status --json` has them)", format::count(more, "experiment")),
            );
        }
        if let Some(elapsed) = run.elapsed_seconds {
            let mut time = format!("{} elapsed", format::seconds(elapsed));
            match run.remaining_seconds {
                Some(remaining) if remaining < 1.0 => time.push_str(", less than a second to go"),
                Some(remaining) => time.push_str(&format!(", about {} to go", format::seconds(remaining))),
                None if run.standing == Standing::Live => time.push_str(", not known yet how much is to go"),
                None => {}
            }
            if run.session > 1 {
                time.push_str(&format!(" (session {})", run.session));
            }
            self.row("Time", &time);
        }
        if run.unreadable_journal_lines > 0 {
            let lines = format::count(run.unreadable_journal_lines, "line");
            self.row("Journal", &self.ui.caution(&format!("{lines} cannot be read (a crash cuts one)")));
        }
        self.failures(run);
        self.skips(run);
    }

    fn standing(&mut self, run: &RunReport) {
        let last = run.last_event.as_deref().map(|at| format!(", last event {}", moment(at))).unwrap_or_default();
        match run.standing {
            Standing::Live => {
                let who = run.orchestrator.as_ref().map(|who| {
                    let detached = match who.detached {
                        Some(true) => ", detached",
                        Some(false) => ", in a terminal",
                        None => "",
                    };
                    let (user, since) = (format::plain(&who.user), format::plain(&who.since));
                    format!(": process {} of {user}, since {}{detached}", who.pid, moment(&since))
                });
                let live = format!("{}{}", self.ui.good("live"), who.unwrap_or_default());
                self.row("State", &live);
                if let Some(by) = &run.stop_requested {
                    self.row("", &self.ui.caution(&format!("it was asked to stop ({})", format::plain(by))));
                }
            }
            Standing::Submitted => {
                self.row("State", &format!("{}: no front watches its jobs{last}", self.ui.good("submitted")));
                let path = format::word(&format::path(Path::new(&run.path), self.from));
                self.row("", &format!("watch and submit what is missing with `vllm-bench run --resume {path}`"));
            }
            Standing::Finished => self.row("State", &format!("{}{last}", self.ui.good("finished"))),
            Standing::Interrupted => {
                self.row("State", &format!("{}{last}", self.ui.caution("interrupted")));
                self.resume(run);
            }
            Standing::Died => {
                self.row("State", &format!("{}: nobody works on it any more{last}", self.ui.bad("died")));
                self.resume(run);
            }
            Standing::NotStarted => {
                self.row("State", &self.ui.caution("not begun"));
                self.resume(run);
            }
        }
    }

    fn jobs(&mut self, jobs: &JobsReport) {
        let mut text = format!("{} of {} over", jobs.over, format::count(jobs.tasks, "task"));
        if let (Some(running), Some(waiting)) = (jobs.running, jobs.waiting) {
            text.push_str(&format!("   {running} running   {waiting} waiting"));
        }
        self.row("Slurm", &text);
        if !jobs.jobs.is_empty() {
            self.row(
                "",
                &format::cut_end(&format!("cancel with: scancel {}", jobs.jobs.join(" ")), self.width - LABEL),
            );
        }
        if let Some(problem) = &jobs.problem {
            let problem = format::cut_end(&format!("the queue cannot be asked: {problem}"), self.width - LABEL);
            self.row("", &self.ui.caution(&problem));
        }
    }

    fn resume(&mut self, run: &RunReport) {
        // Named, so that it is this run that goes on, whatever its flags were.
        let path = format::word(&format::path(Path::new(&run.path), self.from));
        self.row("", &format!("resume with `vllm-bench run --resume {path}`"));
    }

    fn counts(&self, counts: &Counts) -> String {
        let done = counts.passed + counts.failed;
        let part = |n: usize, word: &str, paint: &dyn Fn(&str) -> String| {
            let text = format!("{n} {word}");
            if n == 0 { text } else { paint(&text) }
        };
        let plain = |text: &str| text.to_owned();
        let mut parts = vec![
            format!("{done} of {} done", counts.planned),
            part(counts.passed, "passed", &|text| self.ui.good(text)),
            part(counts.failed, "failed", &|text| self.ui.bad(text)),
        ];
        if counts.running > 0 {
            parts.push(part(counts.running, "running", &plain));
        }
        parts.push(part(counts.to_do, "to do", &plain));
        parts.push(part(counts.skipped, "skipped", &plain));
        parts.join("   ")
    }

    /// One line for each lane.
    fn lanes(&mut self, run: &RunReport) {
        let mut lanes: Vec<&ExperimentReport> = run.under_way.iter().collect();
        lanes.sort_by_key(|experiment| experiment.lane);
        if !run.goes_on() {
            self.row("Ended in", &format!("{} under way at once", format::count(lanes.len(), "experiment")));
        }
        for experiment in lanes {
            let label = experiment.lane.map_or_else(|| "Lane".to_owned(), |lane| format!("Lane {lane}"));
            let seconds = experiment.phase_seconds.map(|seconds| format!(" {}", format::seconds(seconds)));
            let phase = experiment.start_phase.as_deref().unwrap_or(experiment.phase);
            let phase = format!("{phase}{}", seconds.unwrap_or_default());
            let place = format!(" {} of {}  ", experiment.index, run.counts.planned);
            let room = self.width - LABEL;
            let phase = format::cut_end(&phase, room.saturating_sub(place.len() + NAME));
            let place = format!("{phase:<22}{place}");
            // The devices are what a narrow terminal does without.
            let most = room.saturating_sub(place.chars().count() + NAME + 2).min(28);
            let devices = if most < 8 { String::new() } else { format::cut_end(&experiment.devices.join(" "), most) };
            let room = room.saturating_sub(place.chars().count() + devices.chars().count() + 2);
            let name = format::cut_middle(&experiment.name, room.max(NAME));
            self.lines.push(
                format!("{}{place}{name}  {}", self.ui.bold(&format!("{label:<LABEL$}")), self.ui.dim(&devices))
                    .trim_end()
                    .to_owned(),
            );
        }
    }

    fn experiment(&mut self, experiment: &ExperimentReport, run: &RunReport) {
        let place = format!("{} of {}  ", experiment.index, run.counts.planned);
        let name = format::cut_middle(&experiment.name, (self.width - LABEL).saturating_sub(place.len()));
        let label = if run.goes_on() { "Experiment" } else { "Ended in" };
        self.row(label, &format!("{place}{name}"));
        let mut phase = experiment.phase.to_owned();
        if let Some(start) = &experiment.start_phase {
            phase = format!("{phase} ({start})");
        }
        if let Some(seconds) = experiment.phase_seconds {
            phase = format!("{phase} for {}", format::seconds(seconds));
        }
        let attempt = if experiment.attempt > 1 { format!("attempt {}, ", experiment.attempt) } else { String::new() };
        let total =
            experiment.seconds.map_or(String::new(), |seconds| format!("{} since it began", format::seconds(seconds)));
        self.row("Phase", &format!("{phase}   {}", self.ui.dim(&format!("{attempt}{total}"))));
        if let (Some(pid), Some(port)) = (experiment.server_pid, experiment.port) {
            let client = experiment.client_pid.map_or(String::new(), |pid| format!("   client process {pid}"));
            self.row("Server", &format!("process {pid}, port {port}{client}"));
        }
        if let Some(line) = &experiment.log_line {
            let whose = if experiment.phase == "measuring" { "Client" } else { "Log" };
            self.row(whose, &self.ui.dim(&format::cut_end(line.trim(), self.width - LABEL)));
        }
    }

    fn failures(&mut self, run: &RunReport) {
        if run.failures_by_cause.is_empty() {
            return;
        }
        let causes: Vec<String> =
            run.failures_by_cause.iter().map(|cause| format!("{} x {}", cause.count, cause.cause)).collect();
        self.section(&format!("Failures ({})", run.counts.failed));
        for line in wrapped(&causes, self.width - 2) {
            self.below(2, &line);
        }
        if run.counts.failed > run.last_failures.len() {
            self.lines.push(self.ui.dim(&format!("  the last {}:", run.last_failures.len())));
        }
        for failure in &run.last_failures {
            self.lines.push(format!("  {}", format::cut_middle(&failure.name, self.width - 2)));
            let room = (self.width - 6).saturating_sub(failure.cause.len()).max(NAME);
            let summary = format::cut_end(&failure.summary, room);
            self.lines.push(format!("    {}: {summary}", self.ui.bad(&failure.cause)));
            if let Some(kept) = &failure.kept {
                self.lines.push(format!("    evidence: {}", format::cut_middle(kept, self.width.saturating_sub(14))));
            }
        }
    }

    fn skips(&mut self, run: &RunReport) {
        if run.skips.is_empty() {
            return;
        }
        self.section(&format!("Skipped ({})", run.skips.len()));
        for reason in run.skips.iter().take(SKIPS) {
            self.lines.push(format!("  {}", format::cut_end(reason, self.width - 2)));
        }
        if let Some(more @ 1..) = run.skips.len().checked_sub(SKIPS) {
            self.lines.push(self.ui.dim(&format!("  and {more} more")));
        }
    }

    /// What serves here now. Of a run that is over only what it left: what others do there says nothing of it.
    fn processes(&mut self, processes: &[ProcessReport], run: Option<&RunReport>) {
        let is_own = |process: &&ProcessReport| match run {
            Some(run) => process.run.as_deref() == Some(&*run.path),
            None => process.ours,
        };
        let (own, others): (Vec<_>, Vec<_>) = processes.iter().partition(is_own);
        let (ours, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|process| process.ours);
        let is_over =
            |run: &RunReport| matches!(run.standing, Standing::Finished | Standing::Interrupted | Standing::NotStarted);
        let (own_title, ours, others) = match run {
            None => ("vLLM processes of vllm-bench", Vec::new(), others),
            Some(run) if is_over(run) => ("vLLM processes that this run has left", Vec::new(), Vec::new()),
            Some(_) => ("vLLM processes of this run", ours, others),
        };
        for (heading, list) in
            [(own_title, own), ("vLLM processes of other runs", ours), ("Other vLLM processes", others)]
        {
            if list.is_empty() {
                continue;
            }
            self.section(&format!("{heading} ({})", list.len()));
            self.lines
                .push(self.ui.dim(&format!("  {:>7}  {:<12}  {:<9}  COMMAND OR EXPERIMENT", "PID", "USER", "WHAT")));
            for process in list.iter().take(PROCESSES) {
                let user = format::cut_end(&process.user, 12);
                let room = self.width.saturating_sub(36).max(NAME);
                let what = match &process.experiment {
                    Some(experiment) => format::cut_middle(experiment, room),
                    None => format::cut_end(&process.command, room),
                };
                self.lines.push(format!("  {:>7}  {user:<12}  {:<9}  {what}", process.pid, process.kind));
            }
            if let Some(more @ 1..) = list.len().checked_sub(PROCESSES) {
                self.lines.push(self.ui.dim(&format!("  and {more} more")));
            }
        }
    }
}

/// RFC 3339 without the fraction, as a wall clock in its zone shows it, with the offset of that; anything else as it is.
fn moment(at: &str) -> String {
    match chrono::DateTime::parse_from_rfc3339(at) {
        Ok(at) => at.format("%Y-%m-%d %H:%M:%S %:z").to_string(),
        Err(_) => at.to_owned(),
    }
}

/// Items joined by commas, broken into lines.
fn wrapped(items: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if line.len() + item.len() + 3 <= width => line.push_str(&format!(", {item}")),
            Some(line) => {
                line.push(',');
                lines.push(item.clone());
            }
            None => lines.push(item.clone()),
        }
    }
    lines
}
