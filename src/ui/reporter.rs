//! Shows a run as it happens. Fed by the same events as the journal; a replayed journal shows the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indexmap::IndexMap;

use super::Ui;
use super::rows::Rows;
use crate::model::{Event, Experiment, Failure, Headline, Outcome, Phase, Plan, Side, TeardownProof, Timings};
use crate::safe::{self, Sgr};
use crate::words::cut_chars;

/// In a pipe, how often a wait is reported.
const PLAIN_EVERY: Duration = Duration::from_secs(30);

/// Shows events on stderr.
#[derive(Debug, Clone)]
pub struct Reporter {
    ui: Ui,
    /// Whether the plan has more than may be measured.
    at_most: bool,
    simulated: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// What is shown of each experiment, by name: its place in the plan, from 1, and its title.
    titles: HashMap<String, (usize, String)>,
    rows: Rows,
    /// What is waited for, by experiment.
    waiting: IndexMap<String, Waiting>,
    /// The lane of each experiment under way, in a run that has lanes.
    lanes: HashMap<String, u32>,
    /// Whether it has.
    has_lanes: bool,
}

/// What is being waited for.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    what: String,
    line: String,
    told: Instant,
}

fn title(experiment: &Experiment) -> (String, (usize, String)) {
    let Experiment { axes, repeat, .. } = experiment;
    let which = match (experiment.side, experiment.alone) {
        (Some(Side::Before), _) => "  (before)",
        (Some(Side::After), _) => "  (after)",
        (None, true) => "  (again, alone)",
        (None, false) => "",
    };
    (experiment.name.clone(), (experiment.index, format!("{axes}{repeat}{which}")))
}

impl Reporter {
    /// A reporter for the experiments of a plan.
    pub fn new(ui: Ui, plan: &Plan, simulated: bool) -> Self {
        let state = State {
            titles: plan.experiments.iter().map(title).collect(),
            rows: Rows::new(ui.display.live),
            waiting: IndexMap::new(),
            lanes: HashMap::new(),
            has_lanes: false,
        };
        let at_most = plan.until_decided.is_some();
        Self { ui, at_most, simulated, state: Arc::new(Mutex::new(state)) }
    }

    /// Experiments that join the plan.
    pub fn joined<'e>(&self, experiments: impl IntoIterator<Item = &'e Arc<Experiment>>) {
        if let Ok(mut state) = self.state.lock() {
            state.titles.extend(experiments.into_iter().map(|experiment| title(experiment)));
        }
    }

    /// Keeps the elapsed seconds moving; to be called a few times a second while a run goes on.
    pub fn tick(&self) {
        let Ok(mut state) = self.state.lock() else { return };
        if self.ui.display.live {
            let lines = self.lines(&state);
            state.rows.show(&lines);
            return;
        }
        let told = self.plain_lines(&mut state, PLAIN_EVERY);
        drop(state);
        told.iter().for_each(|text| self.ui.say(text));
    }

    /// What is still waited for and was not told for so long.
    fn plain_lines(&self, state: &mut State, every: Duration) -> Vec<String> {
        let leads: Vec<String> = state.waiting.keys().map(|name| self.lead(state, name)).collect();
        let mut told = Vec::new();
        for (waiting, lead) in state.waiting.values_mut().zip(leads) {
            if waiting.told.elapsed() >= every {
                waiting.told = Instant::now();
                // What is no experiment is waited for in words that say it all.
                let still = if lead.is_empty() { "" } else { "still " };
                told.push(format!("{lead}{still}{} ({} s)", waiting.what, waiting.since.elapsed().as_secs()));
            }
        }
        told
    }

    /// One line for each experiment under way; with lanes in their order, each with what it is about.
    fn lines(&self, state: &State) -> Vec<String> {
        let mut rows: Vec<(u32, String)> = state
            .waiting
            .iter()
            .map(|(name, waiting)| {
                let now = format!("{} {} s", waiting.what, waiting.since.elapsed().as_secs());
                let lane = state.lanes.get(name).copied().unwrap_or(u32::MAX);
                let text = match state.titles.get(name) {
                    _ if !state.has_lanes => format!("{now}  {}", waiting.line),
                    Some((index, title)) => format!("lane {lane}  {} {now}  {title}", self.place(state, *index)),
                    None => format!("{}  {now}", name.replace('_', " ")),
                };
                (lane, safe::shown(&text, Sgr::None))
            })
            .collect();
        rows.sort_by_key(|(lane, _)| *lane);
        rows.into_iter().map(|(_, text)| text).collect()
    }

    /// Shows an event.
    pub fn event(&self, event: &Event) {
        match event {
            Event::RunStarted { resumed, planned, pending, .. } if *resumed => {
                self.print(&format!("going on: {pending} of {planned} experiments have no valid result yet"));
            }
            Event::RunStarted { .. }
            | Event::ServerLaunched { .. }
            | Event::ServerReused { .. }
            | Event::BenchmarkLaunched { .. } => {}
            Event::ExperimentsPlanned { names, why } => {
                let experiments = if names.len() == 1 { "experiment" } else { "experiments" };
                self.print(&format!("{}: {} {experiments}: {why}", self.paint(BOLD, "planned"), names.len()));
            }
            Event::Notice { text } => self.print(&format!("{}: {text}", self.paint(BOLD, "note"))),
            Event::ForeignEnded { processes } => {
                for process in processes {
                    let text = format!("ended another vLLM process: {} `{}`", process.pid, process.command);
                    self.print(&format!("{}: {text}", self.paint(YELLOW, "warning")));
                }
            }
            Event::NeighboursBeingChecked { lanes, .. } => self.print(&format!(
                "{}: what neighbours cost is measured first: one server alone, and beside {} under load, in turn",
                self.paint(BOLD, "lanes"),
                lanes.saturating_sub(1)
            )),
            Event::NeighboursChecked { why, .. } => self.print(&format!("{}: {why}", self.paint(BOLD, "lanes"))),
            Event::ExperimentReused { name } => self.heading(name, "  has a valid result"),
            Event::ExperimentStarted { name, attempt, placement, .. } => {
                let again = if *attempt > 1 { format!("  (attempt {attempt})") } else { String::new() };
                let lane = placement.as_ref().and_then(|placement| placement.lane);
                self.takes_lane(name, lane);
                let lane = lane.map(|lane| format!("  (lane {lane})")).unwrap_or_default();
                self.heading(name, &format!("{lane}{again}"));
            }
            Event::PhaseChanged { name, now } => self.wait_for(name, *now),
            Event::Progress { name, line } => self.note_line(name, line),
            Event::ServerReady { name, seconds } => self.about(name, &format!("ready after {seconds:.1} s")),
            Event::TornDown { name, proof } => self.torn_down(name, proof),
            Event::ExperimentFinished { name, outcome, timings, .. } => self.finished(name, outcome, timings),
            Event::StopRequested { by } => {
                self.print(&format!(
                    "{}: {by}: ending in order; a second one kills at once",
                    self.paint(YELLOW, "stopping")
                ));
            }
            Event::JobSubmitted { job, tasks, .. } => {
                let tasks = crate::words::counted(usize::try_from(*tasks).unwrap_or(usize::MAX), "task");
                self.print(&format!("{}: job {job} with {tasks}", self.paint(BOLD, "submitted")));
            }
            Event::JobRefused { why, .. } => {
                self.print(&format!("{}: Slurm did not take a job: {why}", self.paint(YELLOW, "warning")));
            }
            Event::TaskLost { submission, task, cause, said } => {
                let what = format!("task {task} of submission {submission}: {}", cause.title());
                self.print(&format!("{}: {what} ({said})", self.paint(YELLOW, "warning")));
            }
            Event::JobSubmitting { .. } | Event::TaskStarted { .. } | Event::TaskEnded { .. } => {}
            Event::RunFinished { .. } | Event::FrontLeft { .. } => self.close(),
        }
    }

    /// Shows what is waited for, in words; the time since it was first waited for goes on.
    pub fn wait_on(&self, what: &str) {
        let Ok(mut state) = self.state.lock() else { return };
        let now = Instant::now();
        let new = || Waiting { since: now, what: String::new(), line: String::new(), told: now };
        let waiting = state.waiting.entry(String::new()).or_insert_with(new);
        what.clone_into(&mut waiting.what);
    }

    fn takes_lane(&self, name: &str, lane: Option<u32>) {
        if let (Ok(mut state), Some(lane)) = (self.state.lock(), lane) {
            state.has_lanes = true;
            state.lanes.insert(name.to_owned(), lane);
        }
    }

    fn wait_for(&self, name: &str, phase: Phase) {
        let Ok(mut state) = self.state.lock() else { return };
        let what = match phase {
            Phase::Launching => "launching".to_owned(),
            Phase::Starting(start) => start.label().to_owned(),
            Phase::Ready => "ready".to_owned(),
            Phase::Measuring => "measuring".to_owned(),
            Phase::Draining => "ending the server".to_owned(),
        };
        let now = Instant::now();
        state.waiting.insert(name.to_owned(), Waiting { since: now, what, line: String::new(), told: now });
    }

    fn note_line(&self, name: &str, line: &str) {
        if let Ok(mut state) = self.state.lock()
            && let Some(waiting) = state.waiting.get_mut(name)
        {
            waiting.line = line.to_owned();
        }
    }

    fn torn_down(&self, name: &str, proof: &TeardownProof) {
        // What is no experiment of the plan is over with its server.
        if self.state.lock().is_ok_and(|state| !state.titles.contains_key(name)) {
            self.stop_waiting(name);
        }
        if proof.complete() {
            return;
        }
        let mut left = Vec::new();
        match proof.group_empty {
            Some(true) => {}
            Some(false) => left.push("processes of the server are still there".to_owned()),
            None => left.push("it is not proven that no process of the server is left".to_owned()),
        }
        if proof.port_closed != Some(true) {
            let holder = proof.port_held_by.as_ref().map(|who| format!(": {who} has it")).unwrap_or_default();
            left.push(format!("its port is not free{holder}"));
        }
        if proof.device_memory_back == Some(false) {
            left.push("device memory did not come back".to_owned());
        }
        self.about(name, &format!("{}: after the end, {}", self.paint(YELLOW, "warning"), left.join(", ")));
    }

    fn finished(&self, name: &str, outcome: &Outcome, timings: &Timings) {
        self.stop_waiting(name);
        match outcome {
            Outcome::Passed { headline } => self.passed(name, headline, timings),
            Outcome::Failed(failure) => self.failed(name, failure, timings),
            Outcome::Interrupted => self.about(name, &self.paint(YELLOW, "interrupted")),
        }
        if let Ok(mut state) = self.state.lock() {
            state.lanes.remove(name);
        }
    }

    fn passed(&self, name: &str, headline: &Headline, timings: &Timings) {
        let metric =
            |value: Option<f64>, unit: &str| value.map_or(format!("n/a {unit}"), |v| format!("{} {unit}", short(v)));
        let mark = if self.simulated { "  SIMULATED" } else { "" };
        let text = format!(
            "{}  {}   {}   TTFT {}   TPOT {}   {}{mark}",
            self.paint(GREEN, "passed"),
            metric(headline.request_throughput, "req/s"),
            metric(headline.output_throughput, "tok/s"),
            metric(headline.mean_ttft_ms, "ms"),
            metric(headline.mean_tpot_ms, "ms"),
            // In one line of a terminal; where the time went is in the result file.
            self.paint(DIM, &format!("in {:.1} s", timings.total)),
        );
        self.about(name, &text);
    }

    /// Rule 12: the last 50 log lines are shown when a start fails; they help more than any message of ours.
    fn failed(&self, name: &str, failure: &Failure, timings: &Timings) {
        if !failure.log_tail.is_empty() {
            self.about(name, &self.paint(DIM, "the last lines of the log:"));
            for line in &failure.log_tail {
                self.print(&self.paint(DIM, &format!("        | {}", cut_chars(line, 300))));
            }
        }
        let text = format!(
            "{}  {}: {}   {}",
            self.paint(RED, "FAILED"),
            self.paint(BOLD, &failure.cause.to_string()),
            cut_chars(without_title(failure), 300),
            self.paint(DIM, &seconds_of(timings)),
        );
        self.about(name, &text);
        for evidence in &failure.evidence {
            self.print(&format!("        line {}: {}", evidence.line, cut_chars(&evidence.text, 300)));
        }
        for advice in &failure.advice {
            self.print(&format!("        {}: {advice}", self.paint(BOLD, "advice")));
        }
        if let Some(kept) = &failure.kept {
            self.print(&format!("        {}: {}", self.paint(BOLD, "evidence"), kept.display()));
        }
    }

    fn stop_waiting(&self, name: &str) {
        if let Ok(mut state) = self.state.lock() {
            state.waiting.shift_remove(name);
            if state.waiting.is_empty() {
                state.rows.clear();
            }
        }
    }

    /// Ends the live lines.
    pub fn close(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.waiting.clear();
            state.rows.clear();
        }
    }

    /// A line that stays, above the live ones.
    pub fn print(&self, text: &str) {
        let above = self.state.lock().ok().map(|state| state.rows.printer());
        match above {
            Some(above) if self.ui.display.live => above.suspend(|| self.ui.say(text)),
            _ => self.ui.say(text),
        }
    }

    /// What begins the lines of an experiment.
    fn heading(&self, name: &str, more: &str) {
        let Ok(state) = self.state.lock() else { return };
        let known = state.titles.get(name);
        let (index, title) = known.map_or((0, name), |(index, title)| (*index, title.as_str()));
        let text = format!("{} {title}{more}", self.paint(BOLD, &self.place(&state, index)));
        drop(state);
        self.print(&text);
    }

    /// A line about an experiment.
    fn about(&self, name: &str, text: &str) {
        let lead = self.state.lock().map(|state| self.lead(&state, name)).unwrap_or_default();
        self.print(&format!("{lead}{text}"));
    }

    /// What stands before a line about an experiment: nothing to tell it from others, but where several run at once.
    fn lead(&self, state: &State, name: &str) -> String {
        match state.titles.get(name) {
            _ if name.is_empty() => String::new(),
            Some(_) if !state.has_lanes => "        ".to_owned(),
            Some((index, _)) => format!("{} ", self.place(state, *index)),
            None => format!("[{name}] "),
        }
    }

    /// The place of an experiment in its plan.
    fn place(&self, state: &State, index: usize) -> String {
        let total = state.titles.len();
        let width = total.to_string().len();
        let most = if self.at_most { "≤" } else { "" };
        format!("[{index:>width$}/{most}{total}]")
    }

    fn paint(&self, style: Style, text: &str) -> String {
        self.ui.paint_err(style, text)
    }
}

/// The summary without the cause's title, where the cause stands before it anyway.
fn without_title(failure: &Failure) -> &str {
    let rest = failure.summary.strip_prefix(failure.cause.title()).and_then(|rest| rest.strip_prefix(": "));
    rest.unwrap_or(&failure.summary)
}

const GREEN: Style = AnsiColor::Green.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

fn seconds_of(timings: &Timings) -> String {
    let part = |name: &str, value: Option<f64>| value.map(|seconds| format!("{name} {seconds:.1} s"));
    let parts: Vec<String> = [
        part("start", timings.startup),
        part("benchmark", timings.benchmark),
        part("end", timings.teardown),
        Some(format!("in all {:.1} s", timings.total)),
    ]
    .into_iter()
    .flatten()
    .collect();
    format!("({})", parts.join(", "))
}

/// Three significant digits or so: a line is for orientation, the files have every digit.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Color;
    use crate::ui::{Display, Terminal};

    #[test]
    fn metrics_are_short() {
        for (value, text) in
            [(12345.6, "12346"), (123.45, "123.5"), (12.345, "12.35"), (0.12345, "0.123"), (0.0, "0.000")]
        {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn a_wait_for_slurm_is_told_without_an_experiment() {
        let terminal = Terminal {
            stdout: false,
            stderr: false,
            no_color: true,
            dumb: true,
            ci: false,
            columns_out: None,
            columns_err: None,
        };
        let (titles, waiting, lanes) =
            (HashMap::from([("a".to_owned(), (1, "a".to_owned()))]), IndexMap::new(), HashMap::new());
        let state = State { titles, rows: Rows::new(false), waiting, lanes, has_lanes: false };
        let ui = Ui::new(Display::decide(Color::Never, false, 0, terminal));
        let reporter = Reporter { ui, at_most: false, simulated: false, state: Arc::new(Mutex::new(state)) };
        reporter.wait_on("Slurm: 1 running, 0 waiting, 0 of 1 task over");
        reporter.wait_for("a", Phase::Launching);
        let mut state = reporter.state.lock().unwrap();
        let told = reporter.plain_lines(&mut state, Duration::ZERO);
        assert_eq!(told, ["Slurm: 1 running, 0 waiting, 0 of 1 task over (0 s)", "        still launching (0 s)"]);
    }
}
