//! When what ran where, as the journal of a run tells it.

use indexmap::IndexMap;

use crate::analyse::{LaneSpan, Step};
use crate::model::{Event, Outcome, Phase, Stamped};

/// The attempts of a run with what they did when, in seconds of its sessions: between two sessions no time passes.
pub(super) fn spans(entries: &[Stamped]) -> Vec<LaneSpan> {
    let mut clock = Clock::default();
    let mut open: IndexMap<String, LaneSpan> = IndexMap::new();
    let mut done: Vec<LaneSpan> = Vec::new();
    for entry in entries {
        let begins = matches!(entry.event, Event::RunStarted { .. });
        let Some(now) = clock.at(entry, begins) else { continue };
        match &entry.event {
            // What a session that died had under way ended with it.
            Event::RunStarted { .. } => done.extend(open.drain(..).map(|(_, span)| span)),
            Event::ExperimentStarted { name, placement, .. } => {
                let (lane, devices) = placement
                    .as_ref()
                    .map_or((1, Vec::new()), |placement| (placement.lane.unwrap_or(1), placement.devices.clone()));
                let steps = vec![(Step::Starting, now, now)];
                open.insert(name.clone(), LaneSpan { name: name.clone(), lane, devices, lost: true, steps });
            }
            Event::NeighboursBeingChecked { .. } => {
                // One that failed makes way for one on another configuration.
                close(&mut open, "", now, &mut done);
                let steps = vec![(Step::Checking, now, now)];
                let span = LaneSpan { name: String::new(), lane: 0, devices: Vec::new(), lost: false, steps };
                open.insert(String::new(), span);
            }
            Event::PhaseChanged { name, now: phase } => {
                if let Some(span) = open.get_mut(name) {
                    let step = match phase {
                        Phase::Launching | Phase::Starting(_) | Phase::Ready => Step::Starting,
                        Phase::Measuring => Step::Measuring,
                        Phase::Draining => Step::Ending,
                    };
                    until(span, now);
                    if span.steps.last().is_none_or(|(last, ..)| *last != step) {
                        span.steps.push((step, now, now));
                    }
                }
            }
            Event::ExperimentFinished { name, outcome, .. } => {
                if let Some(span) = open.get_mut(name) {
                    span.lost = !matches!(outcome, Outcome::Passed { .. });
                }
                close(&mut open, name, now, &mut done);
            }
            Event::NeighboursChecked { .. } => close(&mut open, "", now, &mut done),
            _ => {}
        }
        open.values_mut().for_each(|span| until(span, now));
    }
    done.extend(open.into_iter().map(|(_, span)| span));
    done
}

fn until(span: &mut LaneSpan, now: f64) {
    if let Some((.., end)) = span.steps.last_mut() {
        *end = now;
    }
}

fn close(open: &mut IndexMap<String, LaneSpan>, name: &str, now: f64, done: &mut Vec<LaneSpan>) {
    if let Some(mut span) = open.shift_remove(name) {
        until(&mut span, now);
        done.push(span);
    }
}

/// Seconds of all sessions.
#[derive(Default)]
struct Clock {
    /// When the session began, and how long those before it took.
    session: Option<(chrono::DateTime<chrono::Utc>, f64)>,
    last: f64,
}

impl Clock {
    fn at(&mut self, entry: &Stamped, begins: bool) -> Option<f64> {
        let at = entry.time()?;
        if begins || self.session.is_none() {
            self.session = Some((at, self.last));
        }
        let (began, before) = self.session?;
        self.last = self.last.max(before + (at - began).as_seconds_f64().max(0.0));
        Some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Headline, Placement, ProcessId, StartPhase, Timings};

    fn at(second: u32, event: Event) -> Stamped {
        Stamped { v: 1, seq: 1, at: format!("2026-02-25T14:30:{second:02}+02:00"), event }
    }

    fn begins(resumed: bool) -> Event {
        let process = ProcessId { pid: 1, start_time: 1 };
        Event::RunStarted { process, simulated: true, resumed, planned: 2, pending: 2 }
    }

    fn started(name: &str, lane: u32) -> Event {
        let placement = Placement { lane: Some(lane), devices: vec![format!("sim:{lane}")], ..Placement::default() };
        let placement = Some(Box::new(placement));
        Event::ExperimentStarted { index: 1, name: name.into(), attempt: 1, axes: None, placement }
    }

    fn phase(name: &str, now: Phase) -> Event {
        Event::PhaseChanged { name: name.into(), now }
    }

    fn finished(name: &str) -> Event {
        Event::ExperimentFinished {
            index: 1,
            name: name.into(),
            attempt: 1,
            outcome: Outcome::Passed { headline: Headline::default() },
            timings: Timings::default(),
            metrics: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn steps_have_their_times_and_between_two_sessions_none_passes() {
        let found = spans(&[
            at(0, begins(false)),
            at(1, started("a", 1)),
            at(1, phase("a", Phase::Starting(StartPhase::Loading))),
            at(2, started("b", 2)),
            at(5, phase("a", Phase::Measuring)),
            at(9, phase("a", Phase::Draining)),
            at(10, finished("a")),
            // The run died, and goes on half a minute later.
            at(40, begins(true)),
            at(42, started("b", 1)),
            at(45, finished("b")),
        ]);
        let names: Vec<_> =
            found.iter().map(|span| (span.name.as_str(), span.lane, span.lost, span.steps.clone())).collect();
        assert_eq!(
            names,
            [
                (
                    "a",
                    1,
                    false,
                    vec![(Step::Starting, 1.0, 5.0), (Step::Measuring, 5.0, 9.0), (Step::Ending, 9.0, 10.0)]
                ),
                ("b", 2, true, vec![(Step::Starting, 2.0, 10.0)]),
                ("b", 1, false, vec![(Step::Starting, 12.0, 15.0)]),
            ]
        );
    }
}
