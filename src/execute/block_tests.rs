//! The block machine, without a process: what it is told, and what it does.

use proptest::prelude::*;

use super::*;
use crate::model::{Engine, Headline, Phase};
use crate::plan::fixture::grid;
use crate::plan::{Retry, expand};
use StopLevel::{AfterCurrent, Drain};

/// A block of workloads on one server configuration, one letter each; the same letter twice is the same workload.
fn block(letters: &str) -> Block {
    let plan = expand(&grid(&["m"], "1", Engine::Sim));
    let one = |(place, letter): (usize, char)| {
        let mut experiment = plan.experiments[0].clone();
        let again = letters[..place].contains(letter);
        experiment.name = if again { format!("{letter}2") } else { letter.to_string() };
        experiment.workload.flags.text("max-concurrency", u32::from(letter));
        Arc::new(experiment)
    };
    Block::new(letters.char_indices().map(one).collect())
}

fn failure(cause: Cause) -> Failure {
    let mut failure = Failure::plain(cause, Phase::Measuring, "why".into());
    failure.log_tail = vec!["a line".into()];
    failure
}

fn failed(cause: Cause) -> Outcome {
    Outcome::Failed(failure(cause))
}

fn passed() -> Seen {
    Seen::Measured(Outcome::Passed { headline: Headline::default() })
}

fn measured(cause: Cause) -> Seen {
    Seen::Measured(failed(cause))
}

fn no_start(cause: Cause) -> Seen {
    Seen::NotStarted { outcome: failed(cause), stolen: None }
}

fn stolen(cause: Cause) -> Seen {
    Seen::NotStarted { outcome: failed(cause), stolen: Some(8000) }
}

/// A policy that tries these causes again so often, after so many seconds.
fn retry(rules: &[(Cause, u32, u64)]) -> Policy {
    let rule = |(cause, attempts, seconds): &(Cause, u32, u64)| {
        (FailureReason::Exactly(*cause), Retry { attempts: *attempts, back_off: Duration::from_secs(*seconds) })
    };
    Policy { retry: RetryPolicy(rules.iter().map(rule).collect()), ..Policy::default() }
}

fn cooldown(seconds: u64) -> Policy {
    Policy { cooldown: Duration::from_secs(seconds), ..Policy::default() }
}

fn stops() -> Policy {
    Policy { on_failure: OnFailure::Stop, ..Policy::default() }
}

fn word(step: &Step) -> String {
    match step {
        Step::Clear => "clear".into(),
        Step::Begin { experiment, shares_server: false } => format!("begin {}", experiment.name),
        Step::Begin { experiment, shares_server: true } => format!("share {}", experiment.name),
        Step::Start => "start".into(),
        Step::Reuse => "reuse".into(),
        Step::Measure(turn) => format!("measure {}{}", turn.on_start, if turn.new_workload { " new" } else { "" }),
        Step::Keep => "keep".into(),
        Step::Record => "record".into(),
        Step::RecordFailure(failure) => format!("fail {}", failure.cause.word()),
        Step::Say(text) => format!("say {}", text.split(' ').next().unwrap_or_default()),
        Step::Pause(duration) => format!("pause {}", duration.as_secs()),
        Step::CheckHealth => "health?".into(),
        Step::Drain { of_attempt } => if *of_attempt { "drain" } else { "drain alone" }.into(),
        Step::End => "END".into(),
    }
}

/// What a machine did, one line for each time it was told something, and what the block came to.
struct Played {
    lines: Vec<String>,
    end: BlockEnd,
}

impl Played {
    /// `a passed, b failed(...)`.
    fn outcomes(&self) -> String {
        let one = |(experiment, outcome): &(Arc<Experiment>, Outcome)| match outcome {
            Outcome::Passed { .. } => format!("{} passed", experiment.name),
            Outcome::Failed(failure) => format!("{} {}", experiment.name, failure.cause.word()),
            Outcome::Interrupted => format!("{} interrupted", experiment.name),
        };
        self.end.outcomes.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Plays a block: what is seen, with the level of the stop at that moment. A server that is told to drain is drained, one that is asked is
/// well, and a pause is over, unless the script says otherwise.
fn play_with(policy: Policy, block: Block, script: Vec<(Seen, StopLevel)>) -> Played {
    let mut machine = Machine::new(block, policy);
    let mut lines = Vec::new();
    let mut script = script.into_iter().peekable();
    let mut level = StopLevel::None;
    let mut seen = Seen::Nothing;
    loop {
        let steps = machine.next(seen, level);
        lines.push(steps.iter().map(word).collect::<Vec<_>>().join(", "));
        let last = steps.last().expect("a machine says something").clone();
        let scripted = |wanted: fn(&Seen) -> bool, script: &mut std::iter::Peekable<_>| {
            script.next_if(|(seen, _): &(Seen, StopLevel)| wanted(seen))
        };
        let (now, at) = match last {
            Step::End => break,
            Step::Drain { .. } => {
                scripted(|seen| *seen == Seen::Drained, &mut script).unwrap_or((Seen::Drained, level))
            }
            Step::Pause(_) => scripted(|seen| *seen == Seen::Paused, &mut script).unwrap_or((Seen::Paused, level)),
            Step::CheckHealth => {
                scripted(|seen| matches!(seen, Seen::Health(_)), &mut script).unwrap_or((Seen::Health(true), level))
            }
            _ => script.next().expect("the script is long enough"),
        };
        (seen, level) = (now, at.max(level));
    }
    assert_eq!(script.next(), None, "the script has a rest: {lines:?}");
    Played { lines, end: machine.into_end() }
}

fn play(policy: Policy, letters: &str, script: &[Seen]) -> Played {
    play_with(policy, block(letters), script.iter().cloned().map(|seen| (seen, StopLevel::None)).collect())
}

/// The same with levels.
fn stopped(policy: Policy, letters: &str, script: &[(Seen, StopLevel)]) -> Played {
    play_with(policy, block(letters), script.to_vec())
}

// One start.

#[test]
fn one_experiment_is_safe_before_its_server_is_ended() {
    let played = play(Policy::default(), "a", &[Seen::Ready, passed()]);
    assert_eq!(played.lines, ["clear, begin a, start", "measure 1 new", "keep, drain", "record, END"]);
    assert_eq!(played.outcomes(), "a passed");
    assert!(!played.end.interrupted && !played.end.stopped_by_failure && played.end.never_starts.is_none());
}

#[test]
fn an_empty_block_ends_at_once() {
    assert_eq!(play(Policy::default(), "", &[]).lines, ["END"]);
}

#[test]
fn two_share_a_start() {
    let played = play(Policy::default(), "ab", &[Seen::Ready, passed(), passed()]);
    assert_eq!(
        played.lines,
        [
            "clear, begin a, start",
            "measure 1 new",
            "record, health?",
            "share b, reuse, measure 2 new",
            "keep, drain",
            "record, END"
        ]
    );
}

#[test]
fn the_ordinal_on_a_start_goes_up() {
    let played = play(Policy::default(), "abc", &[Seen::Ready, passed(), passed(), passed()]);
    assert_eq!(played.lines[5], "share c, reuse, measure 3 new");
    assert_eq!(played.outcomes(), "a passed, b passed, c passed");
}

#[test]
fn a_workload_is_new_once_on_a_start() {
    let played = play(Policy::default(), "aba", &[Seen::Ready, passed(), passed(), passed()]);
    assert_eq!(played.lines[3], "share b, reuse, measure 2 new");
    assert_eq!(played.lines[5], "share a2, reuse, measure 3");
}

#[test]
fn a_workload_is_new_again_on_another_start() {
    let script = [Seen::Ready, passed(), Seen::Health(false), Seen::Ready, passed()];
    let played = play(Policy::default(), "aa", &script);
    assert_eq!(played.lines[5], "measure 1 new");
}

#[test]
fn one_cools_down_between_two_on_a_server_and_not_after_the_last() {
    let played = play(cooldown(7), "ab", &[Seen::Ready, passed(), passed()]);
    assert_eq!(
        played.lines[2..],
        ["record, pause 7", "health?", "share b, reuse, measure 2 new", "keep, drain", "record, END"]
    );
}

#[test]
fn one_cools_down_before_another_server() {
    let script = [Seen::Ready, measured(Cause::RequestsFailed), Seen::Ready, passed()];
    let played = play(cooldown(7), "ab", &script);
    assert_eq!(played.lines[2..4], ["keep, drain", "record, pause 7"]);
    assert_eq!(played.lines[4], "clear, begin b, start");
}

// Starts that fail.

#[test]
fn a_failed_start_fails_all_that_need_it() {
    let played = play(Policy::default(), "abc", &[no_start(Cause::EngineCoreFailed)]);
    assert_eq!(played.lines[1], "record, share b, fail engine-core-failed, share c, fail engine-core-failed, END");
    assert_eq!(played.outcomes(), "a engine-core-failed, b engine-core-failed, c engine-core-failed");
}

#[test]
fn the_others_are_told_that_they_were_not_started_and_have_no_log() {
    let played = play(Policy::default(), "ab", &[no_start(Cause::EngineCoreFailed)]);
    let of = |place: usize| match &played.end.outcomes[place].1 {
        Outcome::Failed(failure) => (failure.summary.clone(), failure.log_tail.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(0), ("why".to_owned(), 1));
    assert_eq!(of(1), ("not started: this server configuration failed before: why".to_owned(), 0));
}

#[test]
fn what_runs_out_of_memory_never_starts() {
    let played = play(Policy::default(), "a", &[no_start(Cause::OutOfDeviceMemory)]);
    assert_eq!(played.end.never_starts.map(|failure| failure.cause), Some(Cause::OutOfDeviceMemory));
}

#[test]
fn what_vllm_refuses_never_starts() {
    for cause in [Cause::InvalidFlag, Cause::UnsupportedModel, Cause::UnsupportedQuantization, Cause::NotEnoughDevices]
    {
        assert!(play(Policy::default(), "a", &[no_start(cause)]).end.never_starts.is_some(), "{cause}");
    }
}

#[test]
fn what_may_start_another_time_is_not_remembered() {
    for cause in [Cause::StartupTimeout, Cause::Crashed, Cause::PortInUse, Cause::Hung, Cause::EngineCoreFailed] {
        assert!(play(Policy::default(), "a", &[no_start(cause)]).end.never_starts.is_none(), "{cause}");
    }
}

#[test]
fn a_start_is_tried_again_after_the_pause_of_its_cause() {
    let policy = retry(&[(Cause::StartupTimeout, 1, 30)]);
    let played = play(policy, "a", &[no_start(Cause::StartupTimeout), Seen::Ready, passed()]);
    assert_eq!(played.lines[1..3], ["record, say `a`, pause 30", "clear, begin a, start"]);
    assert_eq!(played.outcomes(), "a passed");
}

#[test]
fn without_a_pause_it_is_tried_again_at_once() {
    let policy = retry(&[(Cause::StartupTimeout, 1, 0)]);
    let played = play(policy, "a", &[no_start(Cause::StartupTimeout), Seen::Ready, passed()]);
    assert_eq!(played.lines[1], "record, say `a`, clear, begin a, start");
}

#[test]
fn tries_of_a_start_come_to_an_end() {
    let policy = retry(&[(Cause::StartupTimeout, 2, 0)]);
    let again = no_start(Cause::StartupTimeout);
    let played = play(policy, "ab", &[again.clone(), again.clone(), again]);
    assert_eq!(played.lines[3], "record, share b, fail startup-timeout, END");
    assert_eq!(played.outcomes(), "a startup-timeout, b startup-timeout");
}

#[test]
fn a_start_that_succeeds_gives_the_next_all_tries_back() {
    let policy = retry(&[(Cause::StartupTimeout, 1, 0)]);
    let again = no_start(Cause::StartupTimeout);
    let script = [again.clone(), Seen::Ready, measured(Cause::ServerDied), again, Seen::Ready, passed()];
    assert_eq!(play(policy, "ab", &script).outcomes(), "a server-died, b passed");
}

#[test]
fn another_cause_has_its_own_number_of_tries() {
    let policy = retry(&[(Cause::StartupTimeout, 1, 0)]);
    let played = play(policy, "a", &[no_start(Cause::Crashed)]);
    assert_eq!(played.lines[1], "record, END");
}

#[test]
fn what_never_starts_is_not_started() {
    let known = Block { known_failure: Some(failure(Cause::OutOfDeviceMemory)), ..block("ab") };
    let played = play_with(Policy::default(), known, Vec::new());
    assert_eq!(played.lines, ["clear, begin a, fail out-of-device-memory, share b, fail out-of-device-memory, END"]);
    assert_eq!(played.end.outcomes.len(), 2);
}

#[test]
fn that_it_failed_before_is_said_once() {
    let known = Block { known_failure: Some(never_started(&failure(Cause::InvalidFlag))), ..block("abc") };
    let played = play_with(Policy::default(), known, Vec::new());
    for (_, outcome) in &played.end.outcomes {
        let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
        assert_eq!(failure.summary.matches("not started").count(), 1, "{}", failure.summary);
    }
}

#[test]
fn never_to_start_is_seen_on_the_second_server_as_well() {
    let script = [Seen::Ready, measured(Cause::ServerDied), no_start(Cause::OutOfDeviceMemory)];
    let played = play(Policy::default(), "abc", &script);
    assert_eq!(played.outcomes(), "a server-died, b out-of-device-memory, c out-of-device-memory");
    assert!(played.end.never_starts.is_some());
}

// Ports.

fn auto() -> Policy {
    Policy { chooses_ports: true, ..Policy::default() }
}

#[test]
fn a_stolen_port_costs_no_try() {
    let played = play(auto(), "a", &[stolen(Cause::PortInUse), Seen::Ready, passed()]);
    assert_eq!(played.lines[1], "record, say port, clear, begin a, start");
    assert_eq!(played.outcomes(), "a passed");
}

#[test]
fn a_foreign_server_on_the_port_is_a_stolen_port() {
    assert_eq!(play(auto(), "a", &[stolen(Cause::ForeignServer), Seen::Ready, passed()]).outcomes(), "a passed");
}

#[test]
fn a_fixed_port_that_is_stolen_is_a_failure() {
    assert_eq!(play(Policy::default(), "a", &[stolen(Cause::PortInUse)]).outcomes(), "a port-in-use");
}

#[test]
fn whoever_takes_every_port_does_not_do_it_by_chance() {
    let script = vec![stolen(Cause::PortInUse); 6];
    assert_eq!(play(auto(), "a", &script).outcomes(), "a port-in-use");
}

#[test]
fn a_port_that_is_free_again_was_not_stolen() {
    assert_eq!(play(auto(), "a", &[no_start(Cause::PortInUse)]).outcomes(), "a port-in-use");
}

#[test]
fn another_failure_while_somebody_has_the_port_is_that_failure() {
    assert_eq!(play(auto(), "a", &[stolen(Cause::OutOfDeviceMemory)]).outcomes(), "a out-of-device-memory");
}

// Measurements that fail.

#[test]
fn a_failure_of_the_client_leaves_the_server_to_the_next() {
    for cause in [Cause::BenchmarkFailed, Cause::ResultInvalid] {
        let played = play(Policy::default(), "ab", &[Seen::Ready, measured(cause), passed()]);
        assert_eq!(played.lines[2..4], ["record, health?", "share b, reuse, measure 2 new"]);
    }
}

#[test]
fn any_other_failure_ends_the_server() {
    for cause in [Cause::RequestsFailed, Cause::ServerDied, Cause::BenchmarkTimeout, Cause::ForeignServer] {
        let played = play(Policy::default(), "ab", &[Seen::Ready, measured(cause), Seen::Ready, passed()]);
        assert_eq!(played.lines[2..4], ["keep, drain", "record, clear, begin b, start"], "{cause}");
        assert_eq!(played.outcomes(), format!("a {cause}, b passed"), "{cause}");
    }
}

#[test]
fn what_failed_is_measured_again_after_the_others_on_a_server_that_has_not_seen_its_prompts() {
    let policy = retry(&[(Cause::BenchmarkFailed, 1, 5)]);
    let script = [Seen::Ready, measured(Cause::BenchmarkFailed), passed(), Seen::Ready, passed()];
    let played = play(policy, "ab", &script);
    assert_eq!(played.outcomes(), "b passed, a passed");
    assert_eq!(played.lines[2], "record, say `a`, pause 5");
    assert!(played.lines.iter().any(|line| line == "share b, reuse, measure 2 new"), "{:?}", played.lines);
    assert!(played.lines.iter().any(|line| line.ends_with("clear, begin a, start")), "{:?}", played.lines);
}

#[test]
fn a_failure_that_ends_the_server_is_measured_again_on_another() {
    let policy = retry(&[(Cause::ServerDied, 1, 5)]);
    let played = play(policy, "a", &[Seen::Ready, measured(Cause::ServerDied), Seen::Ready, passed()]);
    assert_eq!(played.lines[2..5], ["keep, drain", "record, say `a`, pause 5", "clear, begin a, start"]);
    assert_eq!(played.outcomes(), "a passed");
}

#[test]
fn tries_of_a_measurement_come_to_an_end() {
    let policy = retry(&[(Cause::BenchmarkFailed, 2, 0)]);
    let again = measured(Cause::BenchmarkFailed);
    let script = [Seen::Ready, again.clone(), Seen::Ready, again.clone(), Seen::Ready, again];
    let played = play(policy, "a", &script);
    assert_eq!(played.outcomes(), "a benchmark-failed");
}

#[test]
fn tries_are_counted_for_each_experiment() {
    let policy = retry(&[(Cause::BenchmarkFailed, 1, 0)]);
    let again = measured(Cause::BenchmarkFailed);
    let script = [Seen::Ready, again.clone(), again, Seen::Ready, passed(), passed()];
    assert_eq!(play(policy, "ab", &script).outcomes(), "a passed, b passed");
}

#[test]
fn a_class_of_causes_has_its_tries() {
    let policy = Policy {
        retry: RetryPolicy(vec![(FailureReason::Crash, Retry { attempts: 1, back_off: Duration::ZERO })]),
        ..Policy::default()
    };
    let script = [Seen::Ready, measured(Cause::EngineCoreFailed), Seen::Ready, passed()];
    assert_eq!(play(policy, "a", &script).outcomes(), "a passed");
}

#[test]
fn the_pause_of_a_cause_comes_before_the_cooldown() {
    let policy = Policy { cooldown: Duration::from_secs(7), ..retry(&[(Cause::BenchmarkFailed, 1, 5)]) };
    let played = play(policy, "ab", &[Seen::Ready, measured(Cause::BenchmarkFailed), passed(), passed()]);
    assert_eq!(played.lines[2..5], ["record, say `a`, pause 5", "pause 7", "health?"]);
}

// Health.

#[test]
fn a_server_that_is_not_well_is_replaced() {
    let script = [Seen::Ready, passed(), Seen::Health(false), Seen::Ready, passed()];
    let played = play(Policy::default(), "ab", &script);
    assert_eq!(played.lines[3..5], ["say the, drain alone", "clear, begin b, start"]);
    assert_eq!(played.outcomes(), "a passed, b passed");
}

#[test]
fn nobody_is_told_of_its_health_when_the_run_ends_anyway() {
    let script = [(Seen::Ready, StopLevel::None), (passed(), StopLevel::None), (Seen::Health(false), Drain)];
    let played = stopped(Policy::default(), "ab", &script);
    assert_eq!(played.lines[3..], ["drain alone", "END"]);
    assert!(played.end.interrupted);
}

// Stops.

#[test]
fn a_stop_before_the_first_server_starts_none() {
    let mut machine = Machine::new(block("a"), Policy::default());
    assert_eq!(machine.next(Seen::Nothing, AfterCurrent), [Step::End]);
    assert!(machine.into_end().interrupted);
}

#[test]
fn after_current_the_measurement_under_way_is_kept() {
    let played = stopped(Policy::default(), "ab", &[(Seen::Ready, StopLevel::None), (passed(), AfterCurrent)]);
    assert_eq!(played.lines[2..], ["keep, drain", "record, END"]);
    assert_eq!((played.outcomes().as_str(), played.end.interrupted), ("a passed", true));
}

#[test]
fn a_stop_with_the_last_measurement_interrupts_nothing() {
    let played = stopped(Policy::default(), "a", &[(Seen::Ready, StopLevel::None), (passed(), AfterCurrent)]);
    assert_eq!((played.outcomes().as_str(), played.end.interrupted), ("a passed", false));
}

#[test]
fn an_interrupted_measurement_is_recorded_and_has_no_outcome() {
    let script = [(Seen::Ready, StopLevel::None), (Seen::Measured(Outcome::Interrupted), Drain)];
    let played = stopped(Policy::default(), "ab", &script);
    assert_eq!(played.lines[2..], ["keep, drain", "record, END"]);
    assert_eq!((played.outcomes().as_str(), played.end.interrupted), ("", true));
}

#[test]
fn an_interrupted_start_is_recorded_and_has_no_outcome() {
    let seen = Seen::NotStarted { outcome: Outcome::Interrupted, stolen: None };
    let played = stopped(retry(&[(Cause::Crashed, 9, 0)]), "ab", &[(seen, Drain)]);
    assert_eq!(played.lines[1], "record, END");
    assert_eq!((played.outcomes().as_str(), played.end.interrupted), ("", true));
}

#[test]
fn a_stop_in_the_pause_between_two_ends_the_server() {
    let script = [(Seen::Ready, StopLevel::None), (passed(), StopLevel::None), (Seen::Paused, AfterCurrent)];
    let played = stopped(cooldown(7), "ab", &script);
    assert_eq!(played.lines[3..], ["drain alone", "END"]);
    assert!(played.end.interrupted);
}

#[test]
fn a_stop_in_the_pause_before_another_try_ends_the_block() {
    let policy = retry(&[(Cause::StartupTimeout, 1, 30)]);
    let script = [(no_start(Cause::StartupTimeout), StopLevel::None), (Seen::Paused, AfterCurrent)];
    let played = stopped(policy, "a", &script);
    assert_eq!(played.lines[2..], ["END"]);
    assert_eq!((played.outcomes().as_str(), played.end.interrupted), ("", true));
}

#[test]
fn a_stop_skips_the_pauses() {
    let policy = Policy { cooldown: Duration::from_secs(7), ..retry(&[(Cause::ServerDied, 1, 5)]) };
    let script = [(Seen::Ready, StopLevel::None), (measured(Cause::ServerDied), AfterCurrent)];
    assert_eq!(stopped(policy, "ab", &script).lines[2..], ["keep, drain", "record, say `a`, END"]);
}

#[test]
fn a_healthy_server_that_was_asked_before_the_stop_measures_no_more_than_one() {
    let script = [
        (Seen::Ready, StopLevel::None),
        (passed(), StopLevel::None),
        (Seen::Health(true), AfterCurrent),
        (passed(), AfterCurrent),
    ];
    let played = stopped(Policy::default(), "abc", &script);
    assert_eq!((played.outcomes().as_str(), played.end.interrupted), ("a passed, b passed", true));
}

#[test]
fn a_stop_during_the_end_of_a_server_starts_no_other() {
    let script =
        [(Seen::Ready, StopLevel::None), (measured(Cause::ServerDied), StopLevel::None), (Seen::Drained, AfterCurrent)];
    assert_eq!(stopped(Policy::default(), "ab", &script).lines[3..], ["record, END"]);
}

#[test]
fn a_stop_after_a_stolen_port_starts_no_other() {
    let played = stopped(auto(), "a", &[(stolen(Cause::PortInUse), AfterCurrent)]);
    assert_eq!(played.lines[1], "record, say port, END");
    assert!(played.end.interrupted);
}

// A failure that ends the run.

#[test]
fn the_first_failure_ends_the_block_where_it_is_to() {
    let played = play(stops(), "ab", &[Seen::Ready, measured(Cause::BenchmarkFailed)]);
    assert_eq!(played.lines[2..], ["keep, drain", "record, END"]);
    assert_eq!((played.outcomes().as_str(), played.end.stopped_by_failure), ("a benchmark-failed", true));
    assert!(!played.end.interrupted);
}

#[test]
fn a_failed_start_that_ends_the_run_leaves_the_others_for_a_resume() {
    let played = play(stops(), "ab", &[no_start(Cause::Crashed)]);
    assert_eq!(played.lines[1], "record, END");
    assert_eq!(played.outcomes(), "a crashed");
}

#[test]
fn a_failure_that_is_tried_again_ends_nothing_yet() {
    let policy = Policy { on_failure: OnFailure::Stop, ..retry(&[(Cause::BenchmarkFailed, 1, 0)]) };
    let played = play(policy, "a", &[Seen::Ready, measured(Cause::BenchmarkFailed), Seen::Ready, passed()]);
    assert_eq!((played.outcomes().as_str(), played.end.stopped_by_failure), ("a passed", false));
}

#[test]
fn a_known_failure_ends_the_run_where_it_is_to() {
    let known = Block { known_failure: Some(failure(Cause::InvalidFlag)), ..block("ab") };
    let played = play_with(stops(), known, Vec::new());
    assert_eq!(played.lines, ["clear, begin a, fail invalid-flag, END"]);
}

// Anything at all.

#[test]
fn an_answer_to_no_question_ends_the_block() {
    let mut machine = Machine::new(block("a"), Policy::default());
    machine.next(Seen::Nothing, StopLevel::None);
    assert_eq!(machine.next(Seen::Drained, StopLevel::None), [Step::End]);
}

proptest! {
    /// Whatever happens: a block ends; a server that was ready is ended before another starts and before the end; each attempt that is
    /// begun is recorded once; no experiment has two outcomes; without a stop each has one.
    #[test]
    fn every_block_keeps_its_promises(choices in prop::collection::vec(0u8..12, 40..80), stop_at in 0usize..120, stops_run: bool) {
        let policy = Policy {
            on_failure: if stops_run { OnFailure::Stop } else { OnFailure::Continue },
            chooses_ports: true,
            ..retry(&[(Cause::BenchmarkFailed, 1, 1), (Cause::ServerDied, 2, 0), (Cause::StartupTimeout, 1, 3)])
        };
        let mut machine = Machine::new(block("abcd"), policy);
        let (mut runs, mut open, mut begun) = (false, false, 0);
        let (mut seen, mut turn, mut ended) = (Seen::Nothing, 0usize, false);
        let mut choices = choices.into_iter().cycle();
        while !ended {
            let level = if turn >= stop_at { AfterCurrent } else { StopLevel::None };
            for step in machine.next(seen.clone(), level) {
                match step {
                    Step::Begin { shares_server, .. } => {
                        prop_assert!(!open, "an attempt was left open");
                        prop_assert!(!runs || shares_server, "a second server beside the first");
                        (open, begun) = (true, begun + 1);
                    }
                    Step::Record | Step::RecordFailure(_) => {
                        prop_assert!(open, "recorded twice");
                        open = false;
                    }
                    Step::Start => prop_assert!(!runs),
                    Step::Measure(_) | Step::CheckHealth | Step::Reuse | Step::Keep => prop_assert!(runs),
                    Step::Drain { .. } => {
                        prop_assert!(runs);
                        runs = false;
                    }
                    Step::End => ended = true,
                    Step::Clear => prop_assert!(!runs),
                    Step::Say(_) | Step::Pause(_) => {}
                }
            }
            let choice = choices.next().unwrap();
            let cause = [Cause::BenchmarkFailed, Cause::ServerDied, Cause::RequestsFailed][usize::from(choice % 3)];
            seen = match machine.state {
                State::Starting if choice < 7 => {
                    runs = true;
                    Seen::Ready
                }
                State::Starting if choice < 9 => no_start(Cause::StartupTimeout),
                State::Starting if choice < 10 => stolen(Cause::PortInUse),
                State::Starting => no_start(Cause::OutOfDeviceMemory),
                State::Measuring(_) if choice < 6 => passed(),
                State::Measuring(_) => measured(cause),
                State::Checking => Seen::Health(choice > 2),
                State::Draining(_) => Seen::Drained,
                State::BetweenMeasurements(_) | State::WithoutServer(_) => Seen::Paused,
                State::Idle | State::Over => Seen::Nothing,
            };
            turn += 1;
            prop_assert!(turn < 200 && begun < 60, "it does not come to an end");
        }
        prop_assert!(!runs && !open);
        let end = machine.into_end();
        let mut names: Vec<&str> = end.outcomes.iter().map(|(experiment, _)| experiment.name.as_str()).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        prop_assert_eq!(names.len(), all);
        prop_assert!(all == 4 || end.interrupted || end.stopped_by_failure);
    }
}
