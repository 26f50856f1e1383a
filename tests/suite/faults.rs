//! Every fault of the simulated vLLM, through the whole program: the cause that is recorded, what shows it, and that the
//! sweep goes on with nothing left behind.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::{BIN, FIRST, SECOND, Scene};
use serde_json::Value;

/// What a fault must come to.
struct Expected {
    /// The fault with its parameter.
    fault: &'static str,
    /// The recorded cause; empty: the experiment passes.
    cause: &'static str,
    /// The phase in which it is noticed: the beginning of its words.
    phase: &'static str,
    /// Words in the first line of evidence; empty: the log shows nothing.
    evidence: &'static str,
    /// Flags that this case needs.
    flags: &'static [(&'static str, &'static str)],
}

/// Makes a test of each line, and the table of all.
macro_rules! faults {
    ($($name:ident: $fault:literal => $cause:literal, $phase:literal, $evidence:literal $(, $flag:literal = $value:literal)*;)*) => {
        const TABLE: &[Expected] = &[
            $(Expected { fault: $fault, cause: $cause, phase: $phase, evidence: $evidence, flags: &[$(($flag, $value)),*] },)*
        ];
        $(#[test] fn $name() { check($fault); })*
    };
}

faults! {
    exit_at_start: "exit-at-start:3" => "crashed", "starting", "";
    out_of_memory: "out-of-memory" => "out-of-device-memory", "starting", "OutOfMemoryError";
    kv_cache: "kv-cache" => "kv-cache-too-small", "starting", "No available memory for the cache blocks";
    kv_cache_small: "kv-cache:small" => "kv-cache-too-small", "starting", "To serve at least one request";
    never_healthy: "never-healthy" => "startup-timeout", "starting", "", "--timeout-startup" = "6";
    late_healthy: "late-healthy:3" => "", "", "";
    hang_loading: "hang-loading" => "hung", "starting", "", "--timeout-startup" = "6";
    hang_accept: "hang-accept" => "hung", "starting", "", "--timeout-startup" = "6";
    die_in_benchmark_kill: "die-in-benchmark:kill" => "server-died", "measuring", "";
    die_in_benchmark_segv: "die-in-benchmark:segv" => "server-died", "measuring", "";
    die_in_benchmark_exit: "die-in-benchmark:exit" => "server-died", "measuring", "";
    die_in_benchmark_engine: "die-in-benchmark:engine" => "server-died", "measuring", "EngineCore_DP0 died unexpectedly";
    hang_in_benchmark: "hang-in-benchmark:deadlock" => "hung", "measuring", "", "--stall-timeout" = "2";
    silent_health: "silent-health" => "", "", "";
    server_floods: "server-floods" => "", "", "";
    requests_fail: "requests-fail:2" => "requests-failed", "measuring", "Error 0: ";
    requests_fail_all: "requests-fail:all" => "requests-failed", "measuring", "Error 0: ";
    streams_fail: "streams-fail:break+2" => "requests-failed", "measuring", "Error 0: ";
    streams_silent: "streams-fail:silent+all" => "hung", "measuring", "", "--stall-timeout" = "2";
    rank_dies: "rank-dies" => "", "", "";
    rank_hangs: "rank-hangs" => "", "", "";
    reset_refused: "reset-refused" => "", "", "";
    ignores_sigterm: "ignores-sigterm" => "", "", "", "--grace" = "1";
    grandchild_in_group: "grandchild-in-group" => "", "", "", "--grace" = "1";
    grandchild_out_of_group: "grandchild-out-of-group" => "", "", "", "--grace" = "1";
    port_taken: "port-taken" => "port-in-use", "starting", "Address already in use";
    wrong_model: "wrong-model" => "foreign-server", "starting", "";
    garbage_log: "garbage-log" => "", "", "";
    unknown_flag: "unknown-flag:--nonsense" => "invalid-flag", "starting", "unrecognized arguments: --nonsense";
    model_not_found: "model-not-found" => "model-not-found", "starting", "RepositoryNotFoundError";
    gated_model: "gated-model" => "model-gated", "starting", "gated repo";
    network: "network" => "network", "starting", "";
    quantization_unsupported: "quantization-unsupported" => "unsupported-quantization", "starting", "";
    dtype_unsupported: "dtype-unsupported" => "unsupported-dtype", "starting", "";
    too_many_devices: "too-many-devices" => "not-enough-devices", "starting", "", "--tp" = "2";
    level_zero: "level-zero" => "level-zero", "starting", "";
    shared_memory: "shared-memory" => "shared-memory", "starting", "";
    oom_killed: "oom-killed" => "killed-by-system", "starting", "";
    oom_killed_engine: "oom-killed:engine" => "killed-by-system", "starting", "";
    benchmark_hangs: "benchmark-hangs" => "benchmark-hung", "measuring", "", "--timeout-benchmark" = "6";
    benchmark_floods: "benchmark-floods" => "benchmark-timeout", "measuring", "", "--timeout-benchmark" = "6";
    benchmark_exits: "benchmark-exits:3" => "benchmark-failed", "measuring", "ValueError";
    benchmark_bad_json: "benchmark-bad-json" => "result-invalid", "measuring", "";
    benchmark_no_result: "benchmark-no-result" => "result-invalid", "measuring", "";
}

/// Takes the first of two experiments through a fault.
fn check(fault: &str) {
    let expected = TABLE.iter().find(|row| row.fault == fault).unwrap();
    let scene = Scene::new();
    let mut sweep = scene.sweep().fault(&format!("{fault}@eager=true"));
    for (flag, value) in expected.flags {
        sweep = sweep.set(flag, [*value]);
    }
    let ended = sweep.exits(i32::from(!expected.cause.is_empty()));
    let run = scene.run();
    run.assert_journal_complete();
    let tp = if expected.flags.contains(&("--tp", "2")) { "tp2" } else { "tp1" };
    let (first, second) = (FIRST.replace("tp1", tp), SECOND.replace("tp1", tp));
    run.assert_passed(&second);
    if expected.cause.is_empty() {
        run.assert_passed(&first);
        ended.says("passed");
        let killed = run.result(&first)["vllm_bench"]["teardown"]["killed"] == true;
        let stays = fault.starts_with("grandchild") || fault == "ignores-sigterm";
        ended.check(killed == stays, "SIGKILL is for those who ignore SIGTERM, and for nobody else");
        return;
    }
    let failure = run.failure(&first);
    let shown = serde_json::to_string_pretty(&failure).unwrap();
    ended.check(failure["cause"] == expected.cause, &format!("cause {}:\n{shown}", expected.cause));
    ended.check(failure["phase"]["phase"] == expected.phase, &format!("phase {}:\n{shown}", expected.phase));
    let evidence = failure["evidence"].as_array().unwrap();
    if !expected.evidence.is_empty() {
        let text = evidence.first().map(|line| line["text"].as_str().unwrap()).unwrap_or_default();
        ended.check(text.contains(expected.evidence), &format!("evidence {}:\n{shown}", expected.evidence));
    }
    for line in evidence {
        let by_client = ["benchmark-failed", "requests-failed"].iter().any(|cause| failure["cause"] == *cause);
        let log = if by_client { &failure["benchmark_log"] } else { &failure["server_log"] };
        assert_stands_in_log(&run.path(log.as_str().unwrap()), line);
    }
    ended.check(
        !shown.contains("shutdown") || expected.phase == "measuring",
        &format!("what a server says while it is ended shows nothing of why it had to be:\n{shown}"),
    );
    ended.check(!failure["advice"].as_array().unwrap().is_empty(), "advice");
    ended.check(!failure["summary"].as_str().unwrap().is_empty(), "a summary");
    let tail = failure["log_tail"].as_array().unwrap();
    ended.check((1..=50).contains(&tail.len()), &format!("up to 50 lines of log:\n{shown}"));
    assert_proof_of(&failure);
    ended.check(!run.has(&format!("{first}_results.json")), "nothing under the results name");
    assert_eq!(run.outcomes(&first), [(1, "failed".to_owned())]);
    ended.says(&format!("FAILED  {}", expected.cause)).says("advice: ").says("the last lines of the log");
    if expected.phase == "measuring" {
        ended.check(failure["benchmark_log"].is_string(), "the client's log is named");
    }
}

fn assert_proof_of(failure: &Value) {
    crate::support::assert_proof(&failure["teardown"]);
}

/// A line of evidence is a line of the log, with its number.
fn assert_stands_in_log(log: &std::path::Path, evidence: &Value) {
    let bytes = std::fs::read(log).unwrap();
    let number = usize::try_from(evidence["line"].as_u64().unwrap()).unwrap();
    let line = bytes.split(|&b| b == b'\n').nth(number - 1).expect("a line with this number");
    let line = vllm_bench::diagnose::clean_line(line);
    let text = evidence["text"].as_str().unwrap();
    let beginning: String = text.trim().chars().take(40).collect();
    assert!(line.contains(&beginning), "line {number} of {} is `{line}`, not `{text}`", log.display());
}

#[test]
fn the_table_has_every_fault_of_the_simulated_vllm() {
    for (name, ..) in vllm_bench::sim::fault::KNOWN {
        assert!(
            TABLE.iter().any(|row| row.fault.split(':').next() == Some(name)),
            "`{name}` has no test; it must have one that says its cause"
        );
    }
}

#[test]
fn a_fault_for_all_fails_all_and_the_sweep_still_ends() {
    let scene = Scene::new();
    let ended = scene.sweep().fault("gated-model").exits(1);
    let run = scene.run();
    run.assert_journal_complete();
    for name in [FIRST, SECOND] {
        assert_eq!(run.failure(name)["cause"], "model-gated");
    }
    let end = run.events("run-finished").remove(0);
    assert_eq!((end["passed"].as_u64(), end["failed"].as_u64()), (Some(0), Some(2)));
    // The first shows its log, the second says that it is like the first; the end groups them.
    ended.says("[2/2]").says("(as [1/2])").prints("2 x model is gated: eager true; eager false");
    assert_eq!(ended.stderr.matches("the last lines of the log").count(), 1, "{}", ended.stderr);
    assert!(ended.stdout.lines().count() <= 30, "{}", ended.stdout);
    for log in ended.stdout.lines().map(str::trim).filter(|line| line.starts_with("logs/")) {
        assert!(run.has(log), "{log} is cited and not there");
    }
}

/// The causes that a server's death is distinguished by stand beside `server-died`.
#[test]
fn a_server_that_dies_in_the_benchmark_has_its_own_diagnosis() {
    for (how, own, ending) in [
        ("kill", "killed-by-system", "SIGKILL"),
        ("segv", "crashed", "SIGSEGV"),
        ("exit", "crashed", "code 1"),
        ("engine", "engine-core-failed", "EngineDeadError"),
    ] {
        let scene = Scene::new();
        let ended = scene.sweep().set("--enforce-eager", ["true"]).fault(&format!("die-in-benchmark:{how}")).exits(1);
        let failure = scene.run().failure(FIRST);
        let shown = serde_json::to_string_pretty(&failure).unwrap();
        ended.check(failure["also"][0] == own, &format!("{how} -> {own}:\n{shown}"));
        ended.check(shown.contains(ending), &format!("{how} -> {ending}:\n{shown}"));
    }
}

/// Real logs, printed by a fake `vllm` that then exits as vLLM does.
#[test]
fn real_logs_of_failures_are_recorded_with_their_causes() {
    const LOGS: &[(&str, &str)] = &[
        ("oom-xpu-profile", "out-of-device-memory"),
        ("no-cache-blocks-cuda-0.11-py313", "kv-cache-too-small"),
        ("port-0.14", "port-in-use"),
        ("gated-0.6", "model-gated"),
        ("not-found-0.15", "model-not-found"),
        ("device-lost-xpu", "level-zero"),
        ("quantization-rocm-0.8.5", "unsupported-quantization"),
        ("unknown-engine-failure", "engine-core-failed"),
    ];
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/src/diagnose/fixtures");
    let scene = Scene::new();
    let vllm = scene.program("fake/vllm", &format!("#!/bin/bash\ncat '{fixtures}'/\"$2\".log\nexit 1\n"));
    let models: Vec<&str> = LOGS.iter().map(|(log, _)| *log).collect();
    let ended = scene.sweep_with(&vllm).set("--models", models).set("--enforce-eager", ["true"]).exits(1);
    let run = scene.run();
    for (log, cause) in LOGS {
        let failure = run.failure(&format!("{log}_tp1_quant-none_eager-true"));
        ended.check(failure["cause"] == *cause, &format!("{log} -> {cause}: {failure:#}"));
        ended.check(!failure["evidence"].as_array().unwrap().is_empty(), &format!("{log}: {failure:#}"));
    }
}

#[test]
fn a_server_that_exits_127_or_segfaults_without_a_word_is_told_by_its_end() {
    let scene = Scene::new();
    let vllm = scene.program(
        "fake/vllm",
        "#!/bin/bash\nulimit -c 0\ncase $2 in\n  missing) exit 127;;\n  crash) kill -SEGV $$;;\n  killed) kill -KILL $$;;\nesac\n",
    );
    let ended = scene
        .sweep_with(&vllm)
        .set("--models", ["missing", "crash", "killed", "nothing"])
        .set("--enforce-eager", ["true"])
        .exits(1);
    let run = scene.run();
    for (model, cause, words) in [
        ("missing", "vllm-missing", "127"),
        ("crash", "crashed", "SIGSEGV"),
        ("killed", "killed-by-system", "SIGKILL"),
        ("nothing", "crashed", "code 0"),
    ] {
        let failure = run.failure(&format!("{model}_tp1_quant-none_eager-true"));
        ended.check(failure["cause"] == cause, &format!("{model} -> {cause}: {failure:#}"));
        ended.check(failure["summary"].as_str().unwrap().contains(words), &format!("{words}: {failure:#}"));
    }
}

/// Answers like a vLLM that serves `model`, on one port, until it is dropped.
struct Foreign {
    port: u16,
}

impl Foreign {
    fn on(port: u16, model: &str) -> Self {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        let body = format!("{{\"object\":\"list\",\"data\":[{{\"id\":\"{model}\",\"object\":\"model\"}}]}}");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 2048];
                let n = stream.read(&mut request).unwrap_or(0);
                if request[..n].starts_with(b"GET /end ") {
                    return;
                }
                let body = if request[..n].starts_with(b"GET /health") { "" } else { &body };
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { port }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.write_all(b"GET /end HTTP/1.1\r\n\r\n");
            let _ = stream.read(&mut [0]);
        }
    }
}

#[test]
fn a_foreign_server_on_the_port_is_never_measured() {
    let scene = Scene::new();
    // It never listens itself: whoever answers on its port is somebody else.
    let vllm = scene.program("fake/vllm", "#!/bin/bash\nexec sleep 600\n");
    // With `--port auto` the next port would be tried.
    let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let sweep = scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).set("--port", [port.to_string().as_str()]);
    let mut live = sweep.start();
    live.event(&["server-launched"]);
    let foreign = Foreign::on(port, crate::support::MODEL);
    let ended = live.ends().with_code(1);
    drop(foreign);
    let run = scene.run();
    let failure = run.failure(FIRST);
    assert_eq!(failure["cause"], "foreign-server", "{failure:#}");
    let holder = format!("process {}", std::process::id());
    ended.check(failure["summary"].as_str().unwrap().contains(&holder), &format!("the holder is named: {failure:#}"));
    assert!(run.events("benchmark-launched").is_empty());
}

#[test]
fn a_server_that_offers_another_model_is_never_measured() {
    let scene = Scene::new();
    let vllm =
        scene.program("fake/vllm", &format!("#!/bin/bash\nshift 2\nexec {BIN} sim-vllm serve org/other \"$@\"\n"));
    let ended = scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).exits(1);
    let run = scene.run();
    let failure = run.failure(FIRST);
    assert_eq!(failure["cause"], "foreign-server", "{failure:#}");
    ended.check(failure["summary"].as_str().unwrap().contains("org/other"), &format!("{failure:#}"));
    assert!(run.events("benchmark-launched").is_empty());
}

#[test]
fn whatever_a_model_is_called_it_reaches_vllm_as_one_argument() {
    let names = [
        r#"it's "quoted""#,
        "a b  c",
        "$(touch owned)",
        "`touch owned`",
        "x;touch owned",
        "back\\slash",
        "*",
        "ünï/cödé",
    ];
    let scene = Scene::new();
    let record = scene.path("argv");
    let text =
        format!("#!/bin/bash\nprintf '%s\\0' \"$@\" >> '{0}'\nprintf '\\n' >> '{0}'\nexit 1\n", record.display());
    let vllm = scene.program("fake/vllm", &text);
    scene.sweep_with(&vllm).set("--models", names).set("--enforce-eager", ["true"]).exits(1);
    let argv = std::fs::read_to_string(record).unwrap();
    let seen: Vec<Vec<&str>> = argv.lines().map(|line| line.split('\0').collect()).collect();
    assert_eq!(seen.len(), names.len());
    for (seen, name) in seen.iter().zip(names) {
        assert_eq!((seen[0], seen[1], seen[2]), ("serve", name, "--port"));
    }
    assert!(!scene.path("owned").exists());
}

#[test]
fn a_model_name_with_a_newline_is_refused() {
    let scene = Scene::new();
    scene.sweep().set("--models", ["a\nb"]).exits(2).says("invalid value `a\\nb` for `--models`");
    assert!(scene.runs().is_empty());
}
