//! Shows a run as it happens. Fed by the same events as the journal; a replayed journal shows the same.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

use super::Ui;
use crate::model::{Event, Failure, Headline, Outcome, Phase, Plan, TeardownProof, Timings};
use crate::safe::{self, Sgr};
use crate::words::cut_chars;

/// In a pipe, how often a wait is reported.
const PLAIN_EVERY: Duration = Duration::from_secs(30);

/// Shows events on stderr.
#[derive(Debug, Clone)]
pub struct Reporter {
    ui: Ui,
    /// What is shown of each experiment, by name.
    titles: Arc<Vec<(String, String)>>,
    /// Whether the plan has more than may be measured.
    at_most: bool,
    simulated: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    bar: ProgressBar,
    waiting: Option<Waiting>,
}

/// What is being waited for.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    what: String,
    line: String,
    told: Instant,
}

impl Reporter {
    /// A reporter for the experiments of a plan.
    pub fn new(ui: Ui, plan: &Plan, simulated: bool) -> Self {
        let bar = if ui.display.live { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("  {spinner} {wide_msg}");
        if let Ok(style) = style {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        let titles = plan.experiments.iter().map(|e| (e.name.clone(), format!("{}{}", e.axes, e.repeat))).collect();
        let state = State { bar, waiting: None };
        let at_most = plan.until_decided.is_some();
        Self { ui, titles: Arc::new(titles), at_most, simulated, state: Arc::new(Mutex::new(state)) }
    }

    /// Keeps the elapsed seconds moving; to be called a few times a second while a run goes on.
    pub fn tick(&self) {
        let Ok(mut state) = self.state.lock() else { return };
        let live = self.ui.display.live;
        let bar = state.bar.clone();
        let mut told = None;
        if let Some(waiting) = &mut state.waiting {
            let seconds = waiting.since.elapsed().as_secs();
            if live {
                if bar.is_finished() {
                    bar.reset();
                }
                let message = safe::shown(&format!("{} {seconds} s  {}", waiting.what, waiting.line), Sgr::None);
                bar.set_message(message);
                bar.tick();
            } else if waiting.told.elapsed() >= PLAIN_EVERY {
                waiting.told = Instant::now();
                told = Some(format!("        still {} ({seconds} s)", waiting.what));
            }
        }
        drop(state);
        if let Some(text) = told {
            self.ui.say(&text);
        }
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
            Event::ExperimentReused { name } => {
                self.print(&format!("{} {}  has a valid result", self.counter(self.position(name)), self.title(name)));
            }
            Event::ExperimentStarted { index, name, attempt, .. } => {
                let again = if *attempt > 1 { format!("  (attempt {attempt})") } else { String::new() };
                self.print(&format!("{} {}{again}", self.counter(*index), self.title(name)));
            }
            Event::PhaseChanged { now, .. } => self.wait_for(*now),
            Event::Progress { line, .. } => self.note_line(line),
            Event::ServerReady { seconds, .. } => self.print(&format!("        ready after {seconds:.1} s")),
            Event::TornDown { proof, .. } => self.torn_down(proof),
            Event::ExperimentFinished { outcome, timings, .. } => self.finished(outcome, timings),
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
            Event::RunFinished { .. } | Event::FrontLeft { .. } => self.stop_waiting(),
        }
    }

    /// Shows what is waited for, in words; the time since it was first waited for goes on.
    pub fn wait_on(&self, what: &str) {
        let Ok(mut state) = self.state.lock() else { return };
        let now = Instant::now();
        let waiting = state.waiting.get_or_insert_with(|| Waiting {
            since: now,
            what: String::new(),
            line: String::new(),
            told: now,
        });
        what.clone_into(&mut waiting.what);
    }

    fn wait_for(&self, phase: Phase) {
        let Ok(mut state) = self.state.lock() else { return };
        let what = match phase {
            Phase::Launching => "launching".to_owned(),
            Phase::Starting(start) => start.label().to_owned(),
            Phase::Ready => "ready".to_owned(),
            Phase::Measuring => "measuring".to_owned(),
            Phase::Draining => "ending the server".to_owned(),
        };
        let now = Instant::now();
        state.waiting = Some(Waiting { since: now, what, line: String::new(), told: now });
    }

    fn note_line(&self, line: &str) {
        if let Ok(mut state) = self.state.lock()
            && let Some(waiting) = &mut state.waiting
        {
            waiting.line = line.to_owned();
        }
    }

    fn torn_down(&self, proof: &TeardownProof) {
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
        self.print(&format!("        {}: after the end, {}", self.paint(YELLOW, "warning"), left.join(", ")));
    }

    fn finished(&self, outcome: &Outcome, timings: &Timings) {
        self.stop_waiting();
        match outcome {
            Outcome::Passed { headline } => self.passed(headline, timings),
            Outcome::Failed(failure) => self.failed(failure, timings),
            Outcome::Interrupted => self.print(&format!("        {}", self.paint(YELLOW, "interrupted"))),
        }
    }

    fn passed(&self, headline: &Headline, timings: &Timings) {
        let metric =
            |value: Option<f64>, unit: &str| value.map_or(format!("n/a {unit}"), |v| format!("{} {unit}", short(v)));
        let mark = if self.simulated { "  SIMULATED" } else { "" };
        self.print(&format!(
            "        {}  {}   {}   TTFT {}   TPOT {}   {}{mark}",
            self.paint(GREEN, "passed"),
            metric(headline.request_throughput, "req/s"),
            metric(headline.output_throughput, "tok/s"),
            metric(headline.mean_ttft_ms, "ms"),
            metric(headline.mean_tpot_ms, "ms"),
            // In one line of a terminal; where the time went is in the result file.
            self.paint(DIM, &format!("in {:.1} s", timings.total)),
        ));
    }

    /// Rule 12: the last 50 log lines are shown when a start fails; they help more than any message of ours.
    fn failed(&self, failure: &Failure, timings: &Timings) {
        if !failure.log_tail.is_empty() {
            self.print(&self.paint(DIM, "        the last lines of the log:"));
            for line in &failure.log_tail {
                self.print(&self.paint(DIM, &format!("        | {}", cut_chars(line, 300))));
            }
        }
        self.print(&format!(
            "        {}  {}: {}   {}",
            self.paint(RED, "FAILED"),
            self.paint(BOLD, &failure.cause.to_string()),
            cut_chars(without_title(failure), 300),
            self.paint(DIM, &seconds_of(timings)),
        ));
        for evidence in &failure.evidence {
            self.print(&format!("        line {}: {}", evidence.line, cut_chars(&evidence.text, 300)));
        }
        for advice in &failure.advice {
            self.print(&format!("        {}: {advice}", self.paint(BOLD, "advice")));
        }
    }

    fn stop_waiting(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.waiting = None;
            state.bar.set_message("");
            if state.bar.is_hidden() {
                return;
            }
            // Begun again by the next tick: to do it here would draw an empty line that stays at the end of a run.
            state.bar.finish_and_clear();
        }
    }

    /// Ends the live line.
    pub fn close(&self) {
        self.stop_waiting();
    }

    /// A line that stays, above the live one.
    pub fn print(&self, text: &str) {
        let bar = self.state.lock().ok().map(|state| state.bar.clone());
        match bar {
            Some(bar) if self.ui.display.live => bar.suspend(|| self.ui.say(text)),
            _ => self.ui.say(text),
        }
    }

    fn counter(&self, index: usize) -> String {
        let total = self.titles.len();
        let width = total.to_string().len();
        let most = if self.at_most { "≤" } else { "" };
        self.paint(BOLD, &format!("[{index:>width$}/{most}{total}]"))
    }

    fn position(&self, name: &str) -> usize {
        self.titles.iter().position(|(n, _)| n == name).map_or(0, |i| i + 1)
    }

    fn title(&self, name: &str) -> String {
        self.titles.iter().find(|(n, _)| n == name).map_or_else(|| name.to_owned(), |(_, title)| title.clone())
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

    #[test]
    fn metrics_are_short() {
        for (value, text) in
            [(12345.6, "12346"), (123.45, "123.5"), (12.345, "12.35"), (0.12345, "0.123"), (0.0, "0.000")]
        {
            assert_eq!(short(value), text);
        }
    }
}
