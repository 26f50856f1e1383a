//! Which attempt counts, what wins over what, and what an ending says when the log says nothing.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::model::{Cause, StartPhase};

const BANNER: &str = "(APIServer pid=1) INFO 11-22 06:13:32 [api_server.py:1272] vLLM API server version 0.14.1\n";
const OOM: &str = "(EngineCore_DP0 pid=2) ERROR 11-22 06:13:38 [core.py:936] torch.OutOfMemoryError: XPU out of memory. Tried to allocate 192.00 MiB. GPU 0 has a total capacity of 11.93 GiB of which 7.61 MiB is free.\n";
const ENGINE: &str = "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n";
const READY: &str = "(APIServer pid=1) INFO:     Application startup complete.\n";

fn cause(log: &str, ending: Option<Ending>) -> Option<Cause> {
    diagnose(log.as_bytes(), ending).cause
}

#[test]
fn only_the_newest_attempt_counts() {
    assert_eq!(cause(&format!("{BANNER}{OOM}{ENGINE}{BANNER}"), None), None);
    assert_eq!(
        cause(
            &format!(
                "{BANNER}{OOM}{ENGINE}usage: vllm serve [model_tag] [options]\nvllm serve: error: unrecognized arguments: --x\n"
            ),
            None
        ),
        Some(Cause::InvalidFlag)
    );
    assert_eq!(
        cause(
            &format!(
                "{BANNER}{OOM}{ENGINE}(APIServer pid=9) INFO 08-13 17:49:51 [api_utils.py:345]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.27.1\n"
            ),
            None
        ),
        None,
        "the banner beside the logo, since 0.15"
    );
    assert_eq!(cause(&format!("{BANNER}{OOM}:: initializing oneAPI environment ...\n"), None), None);
}

#[test]
fn final_success_wins_over_old_errors() {
    let log = format!("{BANNER}{OOM}{READY}");
    for ending in [None, Some(Ending::Exited(0)), Some(Ending::Stopped)] {
        assert_eq!(cause(&log, ending), None, "{ending:?}");
    }
    assert_eq!(cause(&log, Some(Ending::Exited(3))), Some(Cause::Crashed), "and the old error is not its cause");
}

#[test]
fn a_failure_after_readiness_counts() {
    let dead = "(APIServer pid=1) ERROR 10-20 03:20:50 [async_llm.py:485] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.\n";
    let finding = diagnose(format!("{BANNER}{READY}{OOM}{dead}").as_bytes(), Some(Ending::Exited(1)));
    assert_eq!(finding.cause, Some(Cause::OutOfDeviceMemory));
    assert_eq!(finding.evidence[0].line, 3);
    assert_eq!(finding.evidence.last().map(|seen| seen.line), Some(4), "the consequence comes last");
}

#[test]
fn what_follows_an_orderly_stop_is_noise() {
    let noise = format!("{BANNER}{READY}(APIServer pid=1) INFO:     Shutting down\n{ENGINE}RuntimeError: late\n");
    assert_eq!(cause(&noise, Some(Ending::Stopped)), None);
    assert_eq!(cause(&noise, Some(Ending::Exited(0))), None);
}

#[test]
fn when_we_ended_it_dying_processes_prove_nothing() {
    let ending = Ending::TimedOut { phase: StartPhase::Loading, seconds: 300 };
    let finding = diagnose(
        format!("{BANNER}Loading safetensors checkpoint shards:   0% Completed | 0/4\n{ENGINE}").as_bytes(),
        Some(ending),
    );
    assert_eq!(finding.cause, Some(Cause::StartupTimeout));
    assert_eq!(finding.summary, "not ready in time: not ready within 300 s, while loading weights");
    assert!(!finding.evidence.is_empty());
    let finding = diagnose(format!("{BANNER}{OOM}{ENGINE}").as_bytes(), Some(ending));
    assert_eq!((finding.cause, finding.also), (Some(Cause::OutOfDeviceMemory), vec![Cause::StartupTimeout]));
}

#[test]
fn hints_explain_a_timeout_and_nothing_else() {
    let hint = "(EngineCore_DP0 pid=7) INFO 10-22 09:43:49 [shm_broadcast.py:466] No available shared memory broadcast block found in 60 seconds. This typically\n";
    assert_eq!(cause(hint, Some(Ending::Exited(1))), Some(Cause::Crashed));
    let finding = diagnose(hint.as_bytes(), Some(Ending::TimedOut { phase: StartPhase::Profiling, seconds: 9 }));
    assert_eq!((finding.cause, finding.also), (Some(Cause::StartupTimeout), vec![Cause::Hung]));
    assert_eq!(finding.evidence[0].line, 1);
    assert_eq!(cause(hint, Some(Ending::Hung { phase: StartPhase::Profiling, seconds: 120 })), Some(Cause::Hung));
}

#[test]
fn the_root_cause_comes_before_its_consequences() {
    let finding = diagnose(format!("{BANNER}{ENGINE}{OOM}").as_bytes(), Some(Ending::Exited(1)));
    assert_eq!(finding.cause, Some(Cause::OutOfDeviceMemory));
    assert_eq!(finding.also, []);
    assert_eq!(finding.evidence.iter().map(|seen| seen.line).collect::<Vec<_>>(), [3, 2]);
    assert!(finding.summary.starts_with("out of device memory: torch.OutOfMemoryError: XPU"), "{}", finding.summary);
}

#[test]
fn the_same_exception_of_many_ranks_is_shown_once() {
    let mut log = String::from(BANNER);
    for rank in 0..8 {
        log.push_str(&format!("(Worker_TP{rank} pid=29127{rank}) ERROR 01-12 02:58:31 [multiproc_executor.py:654] torch.OutOfMemoryError: XPU out of memory. Tried to allocate {rank}92.00 MiB. GPU {rank} has a total capacity of 11.93 GiB of which 7.61 MiB is free.\n"));
    }
    log.push_str(ENGINE);
    let finding = diagnose(log.as_bytes(), Some(Ending::Exited(1)));
    assert_eq!(finding.evidence.iter().map(|seen| seen.line).collect::<Vec<_>>(), [2, 10]);
}

#[test]
fn an_engine_that_fails_for_an_unknown_reason_shows_the_exception_that_ended_it() {
    let log = format!(
        "{BANNER}(Worker pid=3) ERROR 1-1 00:00:00 [x.py:1] ValueError: tried and caught\n\
         (EngineCore_DP0 pid=2) ERROR 11-22 06:13:38 [core.py:936] EngineCore failed to start.\n\
         (EngineCore_DP0 pid=2) ERROR 11-22 06:13:38 [core.py:936] AttributeError: 'NoneType' object has no attribute 'shape'\n\
         (EngineCore_DP0 pid=2) AttributeError: 'NoneType' object has no attribute 'shape'\n{ENGINE}"
    );
    let finding = diagnose(log.as_bytes(), Some(Ending::Exited(1)));
    assert_eq!(finding.cause, Some(Cause::EngineCoreFailed));
    assert_eq!(finding.summary, "engine core failed: AttributeError: 'NoneType' object has no attribute 'shape'");
    assert_eq!(finding.evidence[0].line, 4);
}

#[test]
fn without_a_known_line_the_ending_speaks() {
    let log = "starting\nTraceback (most recent call last):\n  File \"x.py\", line 1, in <module>\nZeroDivisionError: division by zero\n";
    for (ending, expected, said) in [
        (Ending::Exited(1), Cause::Crashed, "crashed: ZeroDivisionError: division by zero (exit code 1)"),
        (Ending::Signaled(9), Cause::KilledBySystem, "killed by the system: ended by SIGKILL"),
        (Ending::Exited(137), Cause::KilledBySystem, "killed by the system: exit code 137, which is SIGKILL"),
        (Ending::Exited(127), Cause::VllmMissing, "vLLM missing or broken: exit code 127"),
        (Ending::Exited(126), Cause::LaunchFailed, "could not be launched: exit code 126"),
    ] {
        let finding = diagnose(log.as_bytes(), Some(ending));
        assert_eq!((finding.cause, finding.summary.as_str()), (Some(expected), said), "{ending:?}");
        assert!(finding.evidence.iter().any(|seen| seen.line == 4), "{finding:#?}");
        assert!(!finding.advice.is_empty());
    }
    for (ending, said) in [
        (Ending::Signaled(11), "crashed: ended by SIGSEGV"),
        (Ending::Exited(0), "crashed: exited with code 0 before it was ready"),
        (Ending::Signaled(15), "crashed: ended by SIGTERM"),
    ] {
        let finding = diagnose(b"", Some(ending));
        assert_eq!((finding.cause, finding.summary.as_str()), (Some(Cause::Crashed), said));
    }
    assert_eq!(cause(log, None), Some(Cause::Crashed));
    assert_eq!(cause("", None), None);
    assert_eq!(cause(log, Some(Ending::Stopped)), None);
}

#[test]
fn evidence_is_bounded_cleaned_and_keeps_no_token() {
    let log = format!(
        "\x1b[31mOSError: x is not a local folder and is not a valid model identifier listed on hf_abcdefghijklmnopqrstuvwxyz\x07 {}\x1b[0m\n",
        "y".repeat(9000)
    );
    let finding = diagnose(log.as_bytes(), None);
    let text = &finding.evidence[0].text;
    assert_eq!(text.chars().count(), 400);
    assert!(text.contains("hf_***") && !text.contains("abcdefgh") && !text.contains('\x1b'), "{text}");
    assert!(!finding.summary.contains("abcdefgh"));
}

#[test]
fn progress_bars_and_line_numbers() {
    let log = format!("one\nLoading: 1%\rLoading: 2%\r{OOM}");
    assert_eq!(diagnose(log.as_bytes(), None).evidence[0].line, 2);
}

#[test]
fn a_long_log_of_errors_keeps_little() {
    let mut scanner = Scanner::new();
    for index in 0..20_000 {
        let letter = char::from(b'g' + u8::try_from(index % 19).unwrap());
        scanner.feed(format!("ValueError: {} {index}\n", letter.to_string().repeat(index % 31)).as_bytes());
        scanner.feed(format!("HSA_STATUS_ERROR {}\n", letter.to_string().repeat(index % 29)).as_bytes());
    }
    assert!(scanner.attempt.hits.len() <= HITS_PER_ROW);
    assert!(scanner.attempt.exceptions.len() <= 2 * EXCEPTIONS);
}

/// Gives its bytes a few at a time, with interruptions.
struct Slow<'a>(Cursor<&'a [u8]>, usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let few = buffer.len().min(1 + self.1 % 7);
        self.0.read(&mut buffer[..few])
    }
}

fn endings() -> impl Strategy<Value = Option<Ending>> {
    prop_oneof![
        Just(None),
        any::<i32>().prop_map(|code| Some(Ending::Exited(code))),
        any::<i32>().prop_map(|signal| Some(Ending::Signaled(signal))),
        any::<u64>().prop_map(|seconds| Some(Ending::TimedOut { phase: StartPhase::Loading, seconds })),
        any::<u64>().prop_map(|seconds| Some(Ending::Hung { phase: StartPhase::Compiling, seconds })),
        Just(Some(Ending::Stopped)),
    ]
}

fn logs() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<Vec<u8>> = crate::diagnose::rows()
        .iter()
        .flat_map(|row| row.examples)
        .map(|example| format!("(EngineCore_DP0 pid=1) ERROR 11-22 06:13:38 [core.py:97] {example}\n").into_bytes())
        .chain([BANNER, READY, ENGINE, "INFO:     Shutting down\n", "\r\n"].map(|line| line.as_bytes().to_vec()))
        .collect();
    let piece = prop_oneof![proptest::sample::select(lines), proptest::collection::vec(any::<u8>(), 0..60)];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn reader_and_slice_agree_on_any_bytes(log in logs(), ending in endings()) {
        let whole = diagnose(&log, ending);
        prop_assert_eq!(&whole, &diagnose_reader(Slow(Cursor::new(&log), 0), ending).unwrap());
        prop_assert!(whole.evidence.len() <= crate::diagnose::MAX_EVIDENCE);
        let lines = u64::try_from(log.split(|byte| *byte == b'\n').count()).unwrap();
        for seen in &whole.evidence {
            prop_assert!(seen.line >= 1 && seen.line <= lines);
            prop_assert!(!seen.text.chars().any(char::is_control));
        }
        prop_assert!(!crate::diagnose::render_text(&whole).is_empty());
    }
}
