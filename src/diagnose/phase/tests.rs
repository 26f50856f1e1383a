//! The tracker on the real log of a start, cut anywhere, and on lines that end it.

use proptest::prelude::*;

use super::*;

const START: &[u8] = include_bytes!("../fixtures/ready-cpu-0.14.1.log");

fn follow<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<StartPhase>, PhaseTracker) {
    let mut tracker = PhaseTracker::new();
    let mut phases = Vec::new();
    for chunk in chunks {
        phases.extend(tracker.feed(chunk));
    }
    phases.extend(tracker.finish());
    (phases, tracker)
}

#[test]
fn a_real_start_goes_through_its_phases() {
    use StartPhase::{Compiling, Configuring, Importing, Loading, Profiling, Ready, StartingApi};
    let (phases, tracker) = follow([START]);
    assert_eq!(phases, [Importing, Configuring, Loading, Profiling, Compiling, StartingApi, Ready]);
    assert!(tracker.ready_hint());
    assert_eq!(tracker.fatal(), None);
    assert_eq!(tracker.phase(), Ready);
}

#[test]
fn a_gpu_start_with_compilation_and_graphs() {
    use StartPhase::{
        Capturing, Compiling, Configuring, Downloading, Importing, Loading, Profiling, Ready, StartingApi,
    };
    let log = include_bytes!("../fixtures/ready-cuda-0.11-tp2.log");
    let (phases, _) = follow([&log[..]]);
    assert_eq!(
        phases,
        [
            Importing,
            Configuring,
            Loading,
            Downloading,
            Loading,
            Profiling,
            Compiling,
            Profiling,
            Capturing,
            StartingApi,
            Ready
        ]
    );
}

#[test]
fn a_log_cut_at_every_byte_gives_the_same() {
    for log in [START, b"a\rDownloading x\r\nLoading weights took 1\nvllm serve: error: unrecognized arguments: --x"] {
        let (whole, tracker) = follow([log]);
        let (bytewise, single) = follow(log.chunks(1));
        assert_eq!(whole, bytewise);
        assert_eq!(tracker.newest_line(), single.newest_line());
        assert_eq!(tracker.fatal(), single.fatal());
    }
}

#[test]
fn there_is_no_way_back_but_a_new_start() {
    let mut tracker = PhaseTracker::new();
    assert_eq!(tracker.feed(b"INFO 1 [gpu.py:1] Model loading took 3 GiB\n"), [StartPhase::Profiling]);
    assert_eq!(tracker.feed(b"INFO 1 [x.py:1] Starting to load model late...\nimporting.py:4\n"), []);
    assert_eq!(tracker.feed(b"EngineCore failed to start.\n"), []);
    assert_eq!(tracker.fatal().map(|fatal| fatal.cause), Some(Cause::EngineCoreFailed));
    assert_eq!(tracker.feed(b"INFO 1 [api_server.py:1] vLLM API server version 0.14.1\n"), [StartPhase::Configuring]);
    assert_eq!(tracker.fatal(), None, "that was another server");
}

#[test]
fn fatal_lines_are_recognised_with_prefix_and_colour() {
    for (line, cause) in [
        (
            "\u{1b}[0;36m(EngineCore_DP0 pid=1)\u{1b}[0;0m ERROR 11-22 06:13:38 [core.py:866] EngineCore failed to start.",
            Cause::EngineCoreFailed,
        ),
        ("vllm serve: error: argument --max-model-len: invalid value: 'x'", Cause::InvalidFlag),
        ("/tmp/run.sh: line 3: vllm: command not found", Cause::VllmMissing),
        ("(APIServer pid=7) OSError: [Errno 98] Address already in use", Cause::PortInUse),
    ] {
        let mut tracker = PhaseTracker::new();
        tracker.feed(format!("{line}\nmore\n").as_bytes());
        let fatal = tracker.fatal().unwrap_or_else(|| panic!("{line}"));
        assert_eq!(fatal.cause, cause);
        assert!(!fatal.line.contains('\u{1b}'));
    }
}

#[test]
fn after_readiness_nothing_is_fatal_to_the_start() {
    let mut tracker = PhaseTracker::new();
    tracker.feed(b"INFO:     Application startup complete.\nEngineCore failed to start.\n");
    assert!(tracker.ready_hint());
    assert_eq!(tracker.fatal(), None);
}

#[test]
fn the_newest_line_is_for_people() {
    let mut tracker = PhaseTracker::new();
    assert_eq!(tracker.newest_line(), None);
    tracker.feed(b"\x1b[0;36m(APIServer pid=3070)\x1b[0;0m INFO 11-22 06:13:32 [model.py:530] Resolved architecture: Qwen3ForCausalLM\n");
    tracker
        .feed(b"(APIServer pid=3070) INFO [launcher.py:46] Route: /docs, Methods: GET\n\n  ^^^^^^\n[Gloo] Rank 0 is\n");
    assert_eq!(
        tracker.newest_line().as_deref(),
        Some("(APIServer pid=3070) INFO 11-22 06:13:32 [model.py:530] Resolved architecture: Qwen3ForCausalLM")
    );
    tracker.feed(b"Loading shards:  10%\rLoading shards:  90%\rrest");
    assert_eq!(tracker.newest_line().as_deref(), Some("Loading shards:  90%"));
    tracker.feed(&[b'y'; 100_000]);
    tracker.feed(b"\n");
    assert_eq!(tracker.newest_line().map(|line| line.chars().count()), Some(400));
}

#[test]
fn words_serde_and_labels_agree() {
    use StartPhase::{
        Capturing, Compiling, Configuring, Downloading, Importing, Launching, Loading, Profiling, Ready, StartingApi,
    };
    for phase in
        [Launching, Importing, Configuring, Downloading, Loading, Profiling, Compiling, Capturing, StartingApi, Ready]
    {
        assert_eq!(serde_json::to_string(&phase).unwrap(), format!("\"{phase}\""));
        assert!(!phase.label().is_empty());
    }
}

proptest! {
    #[test]
    fn any_cut_of_any_bytes_gives_the_same(
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                prop_oneof![
                    Just(&b"Starting to load model x...\n"[..]), Just(&b"Capturing CUDA graphs\r"[..]), Just(&b"\r\n"[..]),
                    Just(&b"EngineCore failed to start.\n"[..]), Just(&b"Application startup complete"[..]),
                    Just(&b"INFO 1 [a.py:1] vLLM API server version 0.14.1\n"[..]), Just(&b"\x1b[0;36m"[..]),
                ].prop_map(<[u8]>::to_vec),
            ],
            0..12,
        ),
        size in 1usize..9,
    ) {
        let log = pieces.concat();
        let (whole, one) = follow([&log[..]]);
        let (cut, other) = follow(log.chunks(size));
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(one.newest_line(), other.newest_line());
        prop_assert_eq!(one.fatal(), other.fatal());
        prop_assert_eq!(one.ready_hint(), other.ready_hint());
    }
}

#[test]
fn a_start_of_0_32_goes_through_its_phases() {
    let mut tracker = PhaseTracker::new();
    // Its import says nothing where triton is installed: that the script handed over tells it.
    assert_eq!(tracker.handed_over(), Some(StartPhase::Importing));
    assert_eq!(tracker.handed_over(), None);
    let entered = tracker.feed(include_bytes!("../../../tests/real_vllm/logs/ok_eager_0.32.log"));
    assert_eq!(
        entered,
        [
            StartPhase::Configuring,
            StartPhase::Loading,
            StartPhase::Profiling,
            StartPhase::StartingApi,
            StartPhase::Ready
        ]
    );
    assert!(tracker.fatal().is_none());
}
