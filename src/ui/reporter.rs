//! Shows a run as it happens. Fed by the same events as the journal; a replayed journal shows the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indexmap::IndexMap;

use super::Ui;
use super::live::{Row, View, lines};
use super::titles::Titles;
use crate::analyse::RankingSpec;
use crate::execute::lane_of_check;
use crate::fold;
use crate::model::{
    Better, Cause, Event, Experiment, Failure, Headline, Metric, Outcome, Phase, Plan, TeardownProof, Timings,
};
use crate::plan::{Block, blocks};
use crate::search::Estimates;
use crate::words::cut_chars;

/// In a pipe, how often a wait is reported.
const PLAIN_EVERY: Duration = Duration::from_secs(30);
/// A line in a pipe is no longer, where a log or an error has no end.
const LONGEST: usize = 300;

/// Shows events on stderr.
#[derive(Debug, Clone)]
pub struct Reporter {
    ui: Ui,
    /// Whether the plan has more than may be measured.
    at_most: bool,
    simulated: bool,
    /// By what the best is called so.
    wanted: Arc<RankingSpec>,
    /// What tells the stamps of logs from the times of the run; `None` where they are the same.
    log_times: Option<String>,
    /// Whether jobs of a cluster measure, and go on without this process.
    is_front: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    titles: Titles,
    /// What is waited for, by experiment.
    waiting: IndexMap<String, Waiting>,
    /// The lane of each experiment under way, in a run that has lanes.
    lanes: HashMap<String, u32>,
    /// Whether it has.
    has_lanes: bool,
    /// When the session began.
    began: Option<Instant>,
    /// Of each experiment that is over, whether it passed.
    over: HashMap<String, bool>,
    /// What is under way, and since when.
    begun: HashMap<String, Instant>,
    /// What has no outcome, and what experiments took so far.
    open: IndexMap<String, Arc<Experiment>>,
    estimates: Estimates,
    /// Whether experiments share starts, as far as was seen.
    shares_starts: bool,
    /// When the end was last estimated, and how far it was.
    left: Option<(Instant, f64)>,
    /// The best of each group: its value, and what it is.
    best: HashMap<String, (f64, String)>,
    /// The group of what began last.
    group: String,
    last_failure: Option<String>,
    /// The causes of which a failure was shown whole, with its place.
    shown: HashMap<Cause, String>,
    /// What the check of neighbours measures.
    checked: String,
    stopping: Option<String>,
    turn: usize,
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
        let open = plan.experiments.iter().map(|e| (e.name.clone(), Arc::new(e.clone()))).collect();
        let state = State { titles: Titles::of(plan), open, shares_starts: true, ..State::default() };
        let at_most = plan.until_decided.is_some();
        let state = Arc::new(Mutex::new(state));
        Self { ui, at_most, simulated, wanted: Arc::default(), log_times: None, is_front: false, state }
    }

    /// The same, where the best is the best by this metric.
    #[must_use]
    pub fn by(mut self, metric: &str, better: Better) -> Self {
        self.wanted = Arc::new(RankingSpec::by(metric, better));
        self
    }

    /// The same, where the stamps of logs are other times than those of the run; how, in words.
    #[must_use]
    pub fn with_log_times(self, log_times: Option<String>) -> Self {
        Self { log_times, ..self }
    }

    /// The same for the front of a run on a cluster.
    #[must_use]
    pub fn of_front(self) -> Self {
        Self { is_front: true, ..self }
    }

    /// Experiments that join the plan.
    pub fn joined<'e>(&self, experiments: impl IntoIterator<Item = &'e Arc<Experiment>>) {
        if let Ok(mut state) = self.state.lock() {
            for experiment in experiments {
                state.titles.add(experiment);
                state.open.insert(experiment.name.clone(), Arc::clone(experiment));
            }
        }
    }

    /// Keeps the elapsed seconds moving; to be called a few times a second while a run goes on.
    pub fn tick(&self) {
        let Ok(mut state) = self.state.lock() else { return };
        if self.ui.display.live {
            state.turn = state.turn.wrapping_add(1);
            // Nothing is under way before the first event.
            if state.began.is_some() || !state.waiting.is_empty() {
                // Under the lock: whoever ends the lines waits until they are drawn.
                let view = self.view(&state);
                self.ui.show_live(|columns, rows| lines(&view, columns, rows, self.ui.display.color_err));
            }
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
                let line = if waiting.line.is_empty() {
                    String::new()
                } else {
                    format!(": {}", cut_chars(&waiting.line, 100))
                };
                told.push(format!("{lead}{still}{} ({} s){line}", waiting.what, waiting.since.elapsed().as_secs()));
            }
        }
        told
    }

    /// What the live lines show now.
    fn view(&self, state: &State) -> View {
        let mut rows: Vec<Row> = state.waiting.iter().map(|(name, waiting)| self.row(state, name, waiting)).collect();
        rows.sort_by_key(|row| row.lane.unwrap_or(u32::MAX));
        let passed = state.over.values().filter(|passed| **passed).count();
        View {
            planned: state.titles.count(),
            at_most: self.at_most,
            passed,
            failed: state.over.len() - passed,
            elapsed: state.began.map_or(0.0, |began| began.elapsed().as_secs_f64()),
            left: state.left.map(|(at, left)| (left - at.elapsed().as_secs_f64()).max(0.0)),
            rows,
            best: state.best.get(&state.group).map(|(value, what)| format!("{what}: {}", self.with_unit(*value))),
            last_failure: state.last_failure.clone(),
            stopping: state.stopping.clone(),
            turn: state.turn,
        }
    }

    fn row(&self, state: &State, name: &str, waiting: &Waiting) -> Row {
        let title = state.titles.get(name);
        let check = lane_of_check(name);
        Row {
            lane: state.lanes.get(name).copied().or(check),
            place: title.map(|title| self.place(state, title.index)).unwrap_or_default(),
            title: match (title, check) {
                (Some(title), _) => title.text.clone(),
                (None, Some(1)) => format!("neighbour check: alone and beside others, {}", state.checked),
                (None, Some(_)) => "neighbour check: the neighbour".to_owned(),
                (None, None) => String::new(),
            },
            phase: waiting.what.clone(),
            seconds: waiting.since.elapsed().as_secs(),
            said: waiting.line.trim().to_owned(),
        }
    }

    fn with_unit(&self, value: f64) -> String {
        let unit = Metric::of(&self.wanted.rank_by).map(|of| of.unit.symbol()).unwrap_or_default();
        let per = if self.wanted.per_device { " per device" } else { "" };
        format!("{} {unit}{per}", short(value))
    }

    /// Estimates anew when the run will be over.
    fn estimate(&self, state: &mut State) {
        let pending = state.open.values().filter(|e| !state.begun.contains_key(&e.name)).cloned();
        let blocks = blocks(pending, state.shares_starts);
        let now = Instant::now();
        let spent = |name: &str| state.begun.get(name).map_or(0.0, |begun| (now - *begun).as_secs_f64());
        let begun = state.open.values().filter(|e| state.begun.contains_key(&e.name));
        let rest = |e: &Arc<Experiment>| {
            let whole = state.estimates.of(&Block::new(vec![Arc::clone(e)]));
            (whole - spent(&e.name)).max(0.0)
        };
        let begun: f64 = begun.map(rest).sum();
        let seconds = blocks.iter().map(|block| state.estimates.of(block)).sum::<f64>() + begun;
        #[expect(clippy::cast_precision_loss, reason = "lanes are few")]
        let lanes = state.lanes.len().max(1) as f64;
        state.left = state.estimates.are_known().then_some((now, seconds / lanes));
    }

    /// Shows an event.
    pub fn event(&self, event: &Event) {
        match event {
            Event::RunStarted { resumed, planned, pending, .. } => {
                if let Ok(mut state) = self.state.lock() {
                    state.began = Some(Instant::now());
                }
                if *resumed {
                    self.print(&format!("going on: {pending} of {planned} experiments have no valid result yet"));
                }
            }
            Event::ServerLaunched { .. } | Event::ServerReused { .. } | Event::BenchmarkLaunched { .. } => {}
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
            Event::NeighboursBeingChecked { lanes, name } => {
                if let Ok(mut state) = self.state.lock() {
                    state.checked = state.titles.get(name).map(|title| title.text.clone()).unwrap_or_default();
                }
                self.print(&format!(
                    "{}: what neighbours cost is measured first: one server alone, and beside {} under load, in turn",
                    self.paint(BOLD, "lanes"),
                    lanes.saturating_sub(1)
                ));
            }
            Event::NeighboursChecked { why, .. } => self.print(&format!("{}: {why}", self.paint(BOLD, "lanes"))),
            Event::ExperimentReused { name } => {
                self.is_over(name, true);
                self.heading(name, "  has a valid result");
            }
            Event::ExperimentStarted { name, attempt, placement, .. } => {
                self.begins(name);
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
            Event::ExperimentFinished { name, outcome, timings, metrics, .. } => {
                self.learn(name, outcome, timings, metrics);
                self.finished(name, outcome, timings);
            }
            Event::StopRequested { by } => self.stops(by),
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

    /// One sentence of what happens now.
    fn stops(&self, by: &str) {
        let Ok(mut state) = self.state.lock() else { return };
        let what = match (by, state.stopping.is_some()) {
            ("stop --after-current", _) => "the run ends after what is under way".to_owned(),
            ("stop --now", _) => "servers are killed at once".to_owned(),
            (_, _) if self.is_front => {
                format!("{by}: this process leaves; what is queued and running on the cluster goes on")
            }
            (_, true) => format!("{by} again: servers are killed at once; a third one leaves without waiting"),
            (_, false) => format!(
                "{by}: what is under way is ended in order, and the record is kept; a second one kills servers at once"
            ),
        };
        state.stopping = Some(format!("stopping: {what}"));
        drop(state);
        self.print(&format!("{}: {what}", self.paint(YELLOW, "stopping")));
    }

    /// An attempt begins: what came of an earlier one does not count any more.
    fn begins(&self, name: &str) {
        let Ok(mut state) = self.state.lock() else { return };
        state.over.remove(name);
        state.begun.insert(name.to_owned(), Instant::now());
        state.group = state.titles.get(name).map(|title| title.group.clone()).unwrap_or_default();
        self.estimate(&mut state);
    }

    fn is_over(&self, name: &str, passed: bool) {
        if let Ok(mut state) = self.state.lock() {
            state.over.insert(name.to_owned(), passed);
            state.open.shift_remove(name);
        }
    }

    /// What an outcome says of what is to come, and of what is the best so far.
    fn learn(&self, name: &str, outcome: &Outcome, timings: &Timings, metrics: &BTreeMap<String, f64>) {
        let Ok(mut state) = self.state.lock() else { return };
        let state = &mut *state;
        state.begun.remove(name);
        let Some(experiment) = state.open.get(name).cloned() else { return };
        match outcome {
            Outcome::Interrupted => return,
            Outcome::Passed { .. } => {
                let start = timings.startup.map(|startup| startup + timings.teardown.unwrap_or_default());
                state.estimates.learn(&experiment, start, (timings.total - start.unwrap_or_default()).max(0.0));
                state.best(&experiment, metrics, &self.wanted);
            }
            Outcome::Failed(failure) => {
                let title = state.titles.get(name);
                let what = title.map_or(name, |title| title.text.as_str());
                let place = title.map(|title| self.place(state, title.index)).unwrap_or_default();
                state.last_failure = Some(format!("{place} {}: {what}", failure.cause.title()));
            }
        }
        let passed = matches!(outcome, Outcome::Passed { .. });
        state.over.insert(name.to_owned(), passed);
        state.open.shift_remove(name);
        self.estimate(state);
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
        if state.began.is_none() {
            state.began = Some(Instant::now());
        }
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
        if self.state.lock().is_ok_and(|state| state.titles.get(name).is_none()) {
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

    /// Rule 12: the first failure of a cause shows the cause, what to do, and the last 50 lines of the log; failures like it take a line
    /// each.
    fn failed(&self, name: &str, failure: &Failure, timings: &Timings) {
        let cause = self.paint(BOLD, &failure.cause.to_string());
        let lead = self.paint(RED, "FAILED");
        if let Some(first) = self.first_of(name, failure.cause) {
            let text = format!("{lead}  {cause} (as {first}): {}", without_title(failure));
            return self.about_in_a_line(name, &text);
        }
        let seconds = self.paint(DIM, &seconds_of(timings));
        self.about(name, &format!("{lead}  {cause}: {}   {seconds}", cut_chars(without_title(failure), LONGEST)));
        for evidence in &failure.evidence {
            self.print(&format!("        line {}: {}", evidence.line, cut_chars(&evidence.text, LONGEST)));
        }
        for advice in &failure.advice {
            self.print(&format!("        {}: {advice}", self.paint(BOLD, "advice")));
        }
        if let Some(kept) = &failure.kept {
            self.print(&format!("        {}: {}", self.paint(BOLD, "evidence"), kept.display()));
        }
        if !failure.log_tail.is_empty() {
            let times = self.log_times.as_ref().map(|times| format!(" ({times})")).unwrap_or_default();
            self.print(&format!("        {}", self.paint(DIM, &format!("the last lines of the log{times}:"))));
            for line in &failure.log_tail {
                self.print(&self.paint(DIM, &format!("        | {}", cut_chars(line, LONGEST))));
            }
        }
    }

    /// The place of the first failure of a cause; `None` where this is it.
    fn first_of(&self, name: &str, cause: Cause) -> Option<String> {
        let mut state = self.state.lock().ok()?;
        if let Some(first) = state.shown.get(&cause) {
            return Some(first.clone());
        }
        let place = state.titles.get(name).map(|title| self.place(&state, title.index));
        state.shown.insert(cause, place.unwrap_or_else(|| name.to_owned()));
        None
    }

    /// A line about an experiment that is cut rather than folded.
    fn about_in_a_line(&self, name: &str, text: &str) {
        let lead = self.state.lock().map(|state| self.lead(&state, name)).unwrap_or_default();
        let most = self.ui.columns().map_or(LONGEST, |columns| columns.saturating_sub(lead.len()));
        self.print(&format!("{lead}{}", fold::cut(text, most)));
    }

    fn stop_waiting(&self, name: &str) {
        if let Ok(mut state) = self.state.lock() {
            state.waiting.shift_remove(name);
        }
    }

    /// Ends the live lines.
    pub fn close(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.waiting.clear();
            state.began = None;
            self.ui.end_live();
        }
    }

    /// A line that stays, above the live ones.
    pub fn print(&self, text: &str) {
        self.ui.say(text);
    }

    /// What begins the lines of an experiment.
    fn heading(&self, name: &str, more: &str) {
        let Ok(state) = self.state.lock() else { return };
        let known = state.titles.get(name);
        let (index, title) = known.map_or((0, name), |title| (title.index, title.text.as_str()));
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
            Some(title) => format!("{} ", self.place(state, title.index)),
            None => match lane_of_check(name) {
                Some(lane) => format!("        neighbour check, lane {lane}: "),
                None => format!("[{name}] "),
            },
        }
    }

    /// The place of an experiment in its plan.
    fn place(&self, state: &State, index: usize) -> String {
        let total = state.titles.count();
        let width = total.to_string().len();
        let most = if self.at_most { "≤" } else { "" };
        format!("[{index:>width$}/{most}{total}]")
    }

    fn paint(&self, style: Style, text: &str) -> String {
        self.ui.paint_err(style, text)
    }
}

impl State {
    /// Keeps what is the best of its group.
    fn best(&mut self, experiment: &Experiment, metrics: &BTreeMap<String, f64>, wanted: &RankingSpec) {
        let Some(title) = self.titles.get(&experiment.name) else { return };
        let devices = experiment.server.devices().filter(|_| wanted.per_device).unwrap_or(1).max(1);
        let Some(value) = metrics.get(&wanted.rank_by).map(|value| value / f64::from(devices)) else { return };
        let is_better = |best: &(f64, String)| match wanted.better {
            Better::Higher => value > best.0,
            Better::Lower => value < best.0,
        };
        if self.best.get(&title.group).is_none_or(is_better) {
            self.best.insert(title.group.clone(), (value, title.text.clone()));
        }
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
    use crate::model::Engine;
    use crate::plan::expand;
    use crate::plan::fixture::grid;
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
        let mut plan = expand(&grid(&["m"], "1", Engine::Sim));
        plan.experiments.truncate(1);
        plan.experiments[0].name = "a".to_owned();
        let ui = Ui::new(Display::decide(Color::Never, false, 0, terminal));
        let reporter = Reporter::new(ui, &plan, false);
        reporter.wait_on("Slurm: 1 running, 0 waiting, 0 of 1 task over");
        reporter.wait_for("a", Phase::Launching);
        let mut state = reporter.state.lock().unwrap();
        let told = reporter.plain_lines(&mut state, Duration::ZERO);
        assert_eq!(told, ["Slurm: 1 running, 0 waiting, 0 of 1 task over (0 s)", "        still launching (0 s)"]);
    }
}
