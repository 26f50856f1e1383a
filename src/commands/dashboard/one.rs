//! One run as the dashboard watches it: what `status` says, from a journal that is read on where it was left.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::Utc;

use crate::bounded;
use crate::commands::cluster;
use crate::commands::find_run::Head;
use crate::commands::status::report::{ProcessReport, Report, RunReport, SCHEMA, Sources, Standing};
use crate::commands::status::{detached, joins, processes};
use crate::commands::tail::JournalTail;
use crate::config::Environment;
use crate::dashboard::{Counts, Facts, FailureRow, Look, Numbers, Row, Run, Seen, SeenDevice, State, UnderWay};
use crate::diagnose::{requests_done, tail_lines};
use crate::execute::slurm::Queued;
use crate::model::{Event, Experiment, Failure, Outcome, Phase, Stamped};
use crate::record::{RunDir, RunState, layout};
use crate::results::{DeviceNow, newest_moment};
use crate::ui::Titles;

/// How often the processes of the machine are looked at.
const PROCESSES: Duration = Duration::from_secs(5);
/// Lines of a log.
const LINES: usize = 200;
/// Bytes of a log that are read for them.
const TAIL: u64 = 64 << 10;
/// Bytes of it in which a client says how far it is.
const PROGRESS: u64 = 4 << 10;
/// Lines of evidence of a failure.
const EVIDENCE: usize = 6;

/// One run.
pub(super) struct One {
    run: RunDir,
    environment: Environment,
    journal: JournalTail,
    entries: Vec<Stamped>,
    head: Option<Head>,
    /// Settings in words, by the name of the experiment.
    configurations: HashMap<String, String>,
    queue: Option<(Instant, Result<Vec<Queued>, String>)>,
    processes: Option<(Instant, Vec<ProcessReport>)>,
}

impl One {
    pub fn new(run: RunDir, environment: Environment) -> Self {
        let journal = JournalTail::of_run(&run);
        Self {
            run,
            environment,
            journal,
            entries: Vec::new(),
            head: None,
            configurations: HashMap::new(),
            queue: None,
            processes: None,
        }
    }

    /// What is seen of the experiments that are being measured.
    fn seen(&self, report: &RunReport, state: &RunState) -> Vec<Seen> {
        let lanes = report.under_way.iter().zip(1u32..).map(|(one, place)| (&one.name, one.lane.unwrap_or(place)));
        lanes
            .filter_map(|(name, lane)| {
                let live = state.live.get(name).filter(|live| live.phase == Phase::Measuring)?;
                let mut seen = Seen { name: name.clone(), lane, ..Seen::default() };
                let log = newest_log(&self.entries, name, false).and_then(|log| inside(self.run.path(), &log));
                let end = log.and_then(|log| end_of(&log, PROGRESS).ok()).unwrap_or_default();
                (seen.requests_done, seen.requests) = requests_done(&end).unzip();
                let series = layout::newest(|n| self.run.layout().telemetry(name, n));
                let newest = newest_moment(&series).ok().flatten();
                // The series of an attempt before this one says nothing of it.
                if let Some(newest) = newest.filter(|newest| live.began.is_none_or(|began| newest.at >= began)) {
                    (seen.running, seen.waiting) = (newest.running, newest.waiting);
                    seen.kv_cache_pct = newest.kv_cache_pct;
                    seen.devices = newest.devices.into_iter().map(device).collect();
                }
                Some(seen)
            })
            .collect()
    }

    /// Reads what the plan says; again when experiments have joined it.
    fn read_plan(&mut self) -> Result<(), String> {
        let (head, _) = Head::read_or_remains(&self.run).map_err(|error| error.to_string())?;
        self.head = Some(head);
        if let Ok(manifest) = self.run.manifest() {
            let titles = Titles::of(&manifest.plan);
            let named = |e: &Experiment| Some((e.name.clone(), titles.get(&e.name)?.text.clone()));
            self.configurations = manifest.plan.experiments.iter().filter_map(named).collect();
        }
        Ok(())
    }

    fn ask_queue(&mut self, state: &RunState) {
        if state.open_tasks() == 0 {
            self.queue = None;
        } else if self.queue.as_ref().is_none_or(|(at, _)| at.elapsed() >= cluster::POLL) {
            self.queue = Some((Instant::now(), cluster::queue(&self.run, state, &self.environment)));
        }
    }

    fn processes(&mut self) -> Vec<ProcessReport> {
        if self.processes.as_ref().is_none_or(|(at, _)| at.elapsed() >= PROCESSES) {
            self.processes = Some((Instant::now(), processes()));
        }
        self.processes.as_ref().map(|(_, found)| found.clone()).unwrap_or_default()
    }
}

impl Run for One {
    fn look(&mut self) -> Result<Look, String> {
        // Asked before the journal is read: what a run writes last is read after its end.
        let holder = self.run.live();
        let new = self.journal.read().map_err(|error| error.to_string())?;
        if self.head.is_none() || new.iter().any(|entry| joins(&entry.event)) {
            self.read_plan()?;
        }
        self.entries.extend(new);
        let state = RunState::replay(&self.entries);
        if self.run.layout().slurm().is_dir() {
            self.ask_queue(&state);
        }
        let vllm_processes = self.processes();
        let Some(head) = &self.head else { return Err("its plan cannot be read".to_owned()) };
        let (report, states) = RunReport::with_states(Sources {
            path: self.run.path(),
            head,
            entries: &self.entries,
            unreadable: 0,
            holder: holder.as_ref(),
            detached: holder.as_ref().and_then(|holder| detached(holder, self.run.layout())),
            now: Utc::now(),
            queue: self.queue.as_ref().map(|(_, queue)| queue.as_deref().map_err(String::as_str)),
        });
        let one = |(experiment, stands): (&crate::commands::find_run::ExperimentHead, State)| {
            row(experiment.index, &experiment.name, self.configurations.get(&experiment.name), stands, &state)
        };
        let rows = head.plan.experiments.iter().zip(states).map(one).collect();
        let facts = facts(&report);
        let seen = self.seen(&report, &state);
        let report = Report { schema: SCHEMA, run: Some(report), vllm_processes };
        let status = serde_json::to_value(report).map_err(|error| error.to_string())?;
        Ok(Look { status, facts, rows, seen })
    }

    fn entries(&self) -> &[Stamped] {
        &self.entries
    }

    fn is_merged(&self) -> bool {
        self.run.layout().slurm().is_dir()
    }

    fn log(&self, experiment: &str, server: bool) -> Result<(String, Vec<String>), String> {
        let log = newest_log(&self.entries, experiment, server).ok_or("there is no such log yet")?;
        let path = inside(self.run.path(), &log).ok_or("the journal names no log of this run")?;
        let bytes = end_of(&path, TAIL).map_err(|error| error.to_string())?;
        Ok((log.to_string_lossy().into_owned(), tail_lines(&bytes, LINES)))
    }
}

/// The end of a file.
fn end_of(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut file = bounded::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn device(now: DeviceNow) -> SeenDevice {
    SeenDevice {
        device: now.address,
        power_w: now.power_w,
        temperature_c: now.temperature_c,
        utilization_pct: now.utilization_pct,
        memory_gib: now.memory_used_mib.map(|mib| mib / 1024.0),
        clock_mhz: now.clock_mhz,
        throttled: now.throttle_reasons,
    }
}

/// The newest log that the journal names for an experiment; on a server that was there before, that server's.
fn newest_log(entries: &[Stamped], experiment: &str, server: bool) -> Option<PathBuf> {
    let process = entries.iter().rev().find_map(|entry| match &entry.event {
        Event::ServerLaunched { name, process, .. } | Event::ServerReused { name, process, .. }
            if name == experiment =>
        {
            Some(*process)
        }
        _ => None,
    });
    entries.iter().rev().find_map(|entry| match &entry.event {
        Event::ServerLaunched { process: launched, log, .. } if server && Some(*launched) == process => log.clone(),
        Event::BenchmarkLaunched { name, log, .. } if !server && name == experiment => log.clone(),
        _ => None,
    })
}

/// A file of the run directory, wherever links lead.
fn inside(run: &Path, file: &Path) -> Option<PathBuf> {
    let plain = file.components().all(|part| matches!(part, Component::Normal(_)));
    let path = run.join(file).canonicalize().ok()?;
    (plain && path.starts_with(run.canonicalize().ok()?)).then_some(path)
}

fn facts(report: &RunReport) -> Facts {
    let counts = report.counts;
    Facts {
        run: report.name.clone(),
        name: report.given_name.clone(),
        simulated: report.simulated,
        live: matches!(report.standing, Standing::Live | Standing::Submitted),
        counts: Counts {
            planned: counts.planned,
            passed: counts.passed,
            failed: counts.failed,
            running: counts.running,
            to_do: counts.to_do,
            skipped: counts.skipped,
        },
        remaining: report.remaining_seconds,
        elapsed: report.elapsed_seconds,
        under_way: report
            .under_way
            .iter()
            .zip(1u32..)
            .map(|(one, place)| UnderWay {
                lane: one.lane.unwrap_or(place),
                phase: one.phase,
                seconds: one.phase_seconds,
            })
            .collect(),
    }
}

fn row(index: usize, name: &str, configuration: Option<&String>, stands: State, state: &RunState) -> Row {
    let attempts = state.attempts.get(name).map(Vec::as_slice).unwrap_or_default();
    let newest = attempts.iter().rev().find(|attempt| attempt.outcome.is_some());
    let outcome = newest.and_then(|attempt| attempt.outcome.as_ref());
    let is_over = matches!(stands, State::Passed | State::Failed);
    let (metrics, failure) = match outcome {
        Some(Outcome::Passed { headline }) if is_over => {
            let numbers = Numbers {
                output_throughput: headline.output_throughput,
                request_throughput: headline.request_throughput,
                mean_ttft_ms: headline.mean_ttft_ms,
                mean_tpot_ms: headline.mean_tpot_ms,
            };
            (Some(numbers), None)
        }
        Some(Outcome::Failed(failure)) if stands == State::Failed => (None, Some(why(failure))),
        Some(Outcome::Passed { .. } | Outcome::Failed(_) | Outcome::Interrupted) | None => (None, None),
    };
    Row {
        index,
        name: name.to_owned(),
        configuration: configuration.cloned().unwrap_or_else(|| name.to_owned()),
        state: stands,
        attempts: u32::try_from(attempts.len()).unwrap_or(u32::MAX),
        lane: state.live.get(name).and_then(|live| live.placement.as_ref()?.lane),
        seconds: newest.filter(|_| is_over).and_then(|attempt| Some(attempt.timings.as_ref()?.total)),
        metrics,
        failure,
    }
}

fn why(failure: &Failure) -> FailureRow {
    FailureRow {
        cause: failure.cause,
        summary: failure.summary.clone(),
        phase: failure.phase.to_string(),
        evidence: failure.evidence.iter().take(EVIDENCE).map(|line| (line.line, line.text.clone())).collect(),
        advice: failure.advice.clone(),
        kept: failure.kept.as_ref().map(|folder| folder.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fixture::Fixture;

    #[test]
    fn rows_stand_as_status_counts_them() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        fixture
            .session(0, 3)
            .begin(1, 1, "a")
            .pass(2, 1, "a", 1.0)
            .begin(3, 2, "b")
            .fail(4, 2, "b", 1.0)
            .over(9, false);
        let mut one = One::new(fixture.run(), Environment::default());
        let look = one.look().unwrap();
        let states: Vec<State> = look.rows.iter().map(|row| row.state).collect();
        assert_eq!(states, [State::Passed, State::Failed, State::ToDo]);
        assert_eq!((look.facts.counts.passed, look.facts.counts.failed, look.facts.counts.to_do), (1, 1, 1));
        assert_eq!(look.status["run"]["counts"]["failed"], 1);
        assert!(look.rows[1].failure.is_some() && look.rows[0].failure.is_none());
        // It is read on from where it was left.
        fixture.session(10, 3).begin(11, 2, "b").pass(12, 2, "b", 1.0);
        let again = one.look().unwrap();
        assert_eq!(again.rows[1].state, State::Passed);
        assert_eq!(one.entries().len(), fixture.run().journal().unwrap().entries.len());
    }

    #[test]
    fn a_log_is_a_file_of_the_run() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        let run = fixture.path();
        std::fs::write(run.join("logs/a.log"), "x").unwrap();
        std::fs::write(home.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(home.path().join("secret"), run.join("logs/link.log")).unwrap();
        assert!(inside(run, Path::new("logs/a.log")).is_some());
        for bad in ["../secret", "/etc/hostname", "logs/link.log", "logs/../../secret", "logs/none.log"] {
            assert_eq!(inside(run, Path::new(bad)), None, "{bad}");
        }
    }
}
