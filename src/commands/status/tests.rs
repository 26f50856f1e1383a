use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use unicode_width::UnicodeWidthStr;

use super::report::{Counts, ProcessReport, Report, RunReport, SCHEMA, Sources, Standing};
use super::text::text;
use crate::commands::find_run::Head;
use crate::commands::fixture::{Fixture, hold, holder};
use crate::record::JournalText;
use crate::ui::{Display, Ui};

/// `seconds` after 14:30:00.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-02-25T14:30:00+02:00").unwrap().to_utc() + TimeDelta::seconds(seconds)
}

fn report(fixture: &Fixture, live: bool, seconds: i64) -> RunReport {
    let JournalText { entries, unreadable, .. } = fixture.run().journal().unwrap();
    let holder = live.then(|| holder(fixture));
    let head = Head::read(&fixture.run()).unwrap();
    let mut report = RunReport::new(Sources {
        path: fixture.path(),
        head: &head,
        entries: &entries,
        unreadable,
        holder: holder.as_ref(),
        detached: live.then_some(true),
        now: at(seconds),
        queue: None,
    });
    report.path = format!("/w/experiment_results/{}", report.name);
    if let Some(orchestrator) = &mut report.orchestrator {
        orchestrator.pid = 4242;
    }
    report
}

fn shown(run: Option<RunReport>, processes: Vec<ProcessReport>) -> String {
    let report = Report { schema: SCHEMA, run, vllm_processes: processes };
    let at = |columns_out| {
        let ui = Ui::new(Display { talk: true, columns_out, ..Display::PLAIN });
        text(&report, Path::new("/w"), None, &ui)
    };
    for columns in 60..=200 {
        for line in at(Some(columns)).lines() {
            // Commands to be copied stay whole.
            assert!(line.width() <= columns || line.contains('`'), "{columns}: {line:?}");
            assert!(line == line.trim_end(), "{line:?}");
        }
    }
    let wide = at(None);
    for line in wide.lines() {
        assert!(line.width() <= 100 && line == line.trim_end(), "{line:?}");
    }
    wide
}

fn fixture() -> (tempfile::TempDir, Fixture) {
    let home = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(home.path(), "20260225_1430");
    (home, fixture)
}

const NAMES: [&str; 4] = [
    "openai_gpt-oss-20b_tp2_quant-none_eager-true",
    "openai_gpt-oss-20b_tp2_quant-none_eager-false",
    "an-organisation-with-a-long-name_a-model-with-an-even-longer-name-Instruct-2507_tp4_quant-none_eager-true",
    "openai_gpt-oss-20b_tp8_quant-none_eager-true",
];

fn in_the_middle(fixture: &Fixture) {
    fixture.plan(&NAMES);
    fixture
        .session(0, 4)
        .begin(0, 1, NAMES[0])
        .measure(40, NAMES[0])
        .pass(100, 1, NAMES[0], 100.0)
        .begin(100, 2, NAMES[1])
        .fail(120, 2, NAMES[1], 20.0)
        .begin(120, 3, NAMES[2])
        .measure(150, NAMES[2])
        .event(155, serde_json::json!({"event": "progress", "name": NAMES[2], "line": "(APIServer pid=4301) INFO 02-25 14:32:35 [loggers.py:236] Engine 000: Avg prompt throughput: 3276.8 tokens/s, Running: 32 reqs"}));
}

#[test]
fn a_live_run() {
    let (_home, fixture) = fixture();
    in_the_middle(&fixture);
    let run = report(&fixture, true, 165);
    assert_eq!(run.counts, Counts { planned: 4, passed: 1, failed: 1, running: 1, to_do: 1, skipped: 1 });
    // The mean of 100 s and 20 s; 45 s of the one under way are spent.
    assert_eq!(run.remaining_seconds, Some(75.0));
    let process = |pid, kind: &str, command: &str, experiment: Option<&str>| ProcessReport {
        pid,
        user: "root".into(),
        kind: kind.into(),
        command: command.into(),
        ours: experiment.is_some(),
        run: experiment.map(|_| "/w/experiment_results/20260225_1430".into()),
        experiment: experiment.map(str::to_owned),
    };
    let long = "/opt/venv/bin/python3 /opt/venv/bin/vllm serve Qwen/Qwen3-30B-A3B --tensor-parallel-size 8 --port 8001 --dtype bfloat16";
    let processes = vec![
        process(4300, "server", "vllm serve", Some(NAMES[2])),
        process(4310, "engine", "VLLM::EngineCore", Some(NAMES[2])),
        process(977, "server", long, None),
    ];
    insta::assert_snapshot!("status_live", shown(Some(run), processes));
}

#[test]
fn lanes_have_a_line_each() {
    let (_home, fixture) = fixture();
    fixture.plan(&NAMES);
    let begins = |lane: u32, index: usize, devices: &[&str]| {
        serde_json::json!({"event": "experiment-started", "index": index, "name": NAMES[index - 1], "attempt": 1,
            "placement": {"lane": lane, "devices": devices}})
    };
    fixture
        .session(0, 4)
        .event(0, serde_json::json!({"event": "neighbours-checked", "name": NAMES[0], "lanes": 2, "metric": "output_throughput",
            "pairs": [], "threshold": 0.02, "within": true, "why": "neighbours cost 0.1 % of output_throughput: within 2 %"}))
        .event(0, begins(2, 2, &["sim:0", "sim:1"]))
        .event(1, begins(1, 1, &["sim:2", "sim:3"]))
        .measure(40, NAMES[0])
        .pass(100, 1, NAMES[0], 100.0)
        .event(100, begins(1, 3, &["sim:2", "sim:3", "sim:4", "sim:5", "sim:6", "sim:7"]))
        .measure(120, NAMES[1]);
    let run = report(&fixture, true, 150);
    assert_eq!(run.counts, Counts { planned: 4, passed: 1, running: 2, to_do: 1, skipped: 1, ..Counts::default() });
    // 100 s each: nothing of the one, 50 s of the other, and 100 s of the last, on two lanes.
    assert_eq!(run.remaining_seconds, Some(75.0));
    let lanes: Vec<_> = run.under_way.iter().map(|one| (one.lane, one.devices.len())).collect();
    assert_eq!(lanes, [(Some(2), 2), (Some(1), 6)]);
    insta::assert_snapshot!("status_lanes", shown(Some(run), vec![]));
}

#[test]
fn a_run_of_which_nothing_is_measured_yet() {
    let (_home, fixture) = fixture();
    fixture.session(0, 3).begin(1, 1, "a");
    let run = report(&fixture, true, 31);
    assert_eq!(run.remaining_seconds, None);
    assert!(shown(Some(run.clone()), vec![]).contains("31 s elapsed, not known yet how much is to go"));
    let json = serde_json::to_value(run).unwrap();
    assert!(json["remaining_seconds"].is_null() && json["experiment"]["client_pid"].is_null());
}

#[test]
fn a_finished_run() {
    let (_home, fixture) = fixture();
    in_the_middle(&fixture);
    fixture.pass(200, 3, NAMES[2], 80.0).begin(200, 4, NAMES[3]).fail(260, 4, NAMES[3], 60.0).over(261, false);
    let run = report(&fixture, false, 9999);
    assert_eq!((run.standing, run.remaining_seconds, run.elapsed_seconds), (Standing::Finished, None, Some(261.0)));
    insta::assert_snapshot!("status_finished", shown(Some(run), vec![]));
}

#[test]
fn a_run_that_died_says_how_to_go_on() {
    let (_home, fixture) = fixture();
    in_the_middle(&fixture);
    fixture.journal_bytes(br#"{"v":1,"at":"2026-02-25T14:3"#);
    let run = report(&fixture, false, 9999);
    assert_eq!((run.standing, run.counts.to_do, run.elapsed_seconds), (Standing::Died, 2, Some(155.0)));
    insta::assert_snapshot!("status_died", shown(Some(run), vec![]));
}

#[test]
fn engines_of_others_are_none_of_a_run_that_is_over() {
    let (_home, fixture) = fixture();
    in_the_middle(&fixture);
    let process = |pid, run: Option<&str>| ProcessReport {
        pid,
        user: "root".into(),
        kind: "engine".into(),
        command: "VLLM::EngineCore".into(),
        ours: run.is_some(),
        run: run.map(|run| format!("/w/experiment_results/{run}")),
        experiment: run.map(str::to_owned),
    };
    let processes = vec![process(1, Some("20260225_1430")), process(2, Some("other")), process(3, None)];
    let live = shown(Some(report(&fixture, true, 165)), processes.clone());
    for heading in ["vLLM processes of this run (1)", "vLLM processes of other runs (1)", "Other vLLM processes (1)"] {
        assert!(live.contains(heading), "{live}");
    }
    fixture.pass(200, 3, NAMES[2], 80.0).over(261, false);
    let over = shown(Some(report(&fixture, false, 9999)), processes.clone());
    assert!(over.contains("vLLM processes that this run has left (1)") && !over.contains("ther"), "{over}");
    let none = shown(None, processes);
    assert!(none.contains("vLLM processes of vllm-bench (2)") && none.contains("Other vLLM processes (1)"), "{none}");
}

#[test]
fn no_run() {
    insta::assert_snapshot!("status_none", shown(None, vec![]));
}

#[test]
fn interrupted_and_not_begun_are_told_apart() {
    let (_home, fixture) = fixture();
    let run = report(&fixture, false, 0);
    assert_eq!((run.standing, run.elapsed_seconds, run.counts.to_do), (Standing::NotStarted, None, 3));
    fixture.session(0, 3).begin(1, 1, "a").interrupt(5, 1, "a").over(6, true);
    let run = report(&fixture, false, 0);
    assert_eq!((run.standing, run.counts.to_do), (Standing::Interrupted, 3));
    assert!(shown(Some(run), vec![]).contains("--resume ./experiment_results/20260225_1430"));
}

#[test]
fn a_result_that_a_resume_found_is_done_although_its_session_died_before_saying_so() {
    let (_home, fixture) = fixture();
    fixture.session(0, 3).begin(1, 1, "a");
    assert_eq!(report(&fixture, false, 30).counts.to_do, 3);
    fixture.session(60, 3).event(60, serde_json::json!({"event": "experiment-reused", "name": "a"}));
    let run = report(&fixture, true, 70);
    assert_eq!((run.counts.passed, run.counts.to_do), (1, 2));
}

#[test]
fn a_resumed_run_tries_again_what_failed() {
    let (_home, fixture) = fixture();
    fixture.session(0, 3).begin(1, 1, "a").fail(9, 1, "a", 8.0).begin(9, 2, "b").pass(20, 2, "b", 11.0).over(21, true);
    assert_eq!(report(&fixture, false, 30).counts.failed, 1);
    fixture.session(60, 3).event(60, serde_json::json!({"event": "experiment-reused", "name": "b"}));
    let run = report(&fixture, true, 70);
    assert_eq!((run.counts.passed, run.counts.failed, run.counts.to_do, run.session), (1, 0, 2, 2));
    assert_eq!((run.elapsed_seconds, run.remaining_seconds), (Some(10.0), Some(19.0)));
    assert_eq!(run.last_failures, []);
}

#[test]
fn a_holder_that_has_written_nothing_yet_is_live_without_an_experiment() {
    let (_home, fixture) = fixture();
    in_the_middle(&fixture);
    let text = std::fs::read_to_string(fixture.path().join("journal.jsonl")).unwrap();
    let other = text.replace(&format!("\"pid\":{}", std::process::id()), "\"pid\":1");
    std::fs::write(fixture.path().join("journal.jsonl"), other).unwrap();
    let run = report(&fixture, true, 200);
    assert_eq!((run.standing, run.experiment, run.elapsed_seconds), (Standing::Live, None, None));
}

#[test]
fn a_thousand_experiments_are_added_up_from_one_reading_of_the_journal() {
    let (_home, fixture) = fixture();
    let names: Vec<String> = (1..=1000).map(|i| format!("model_tp{i}_quant-none_eager-true")).collect();
    fixture.plan(&names.iter().map(String::as_str).collect::<Vec<_>>());
    fixture.session(0, 1000);
    let single = Fixture::new(fixture.path(), "one");
    single.begin(1, 1, "NAME").measure(2, "NAME");
    let started = std::fs::read_to_string(single.path().join("journal.jsonl")).unwrap();
    let [passed, failed] = [true, false].map(|passes| {
        let one = Fixture::new(fixture.path(), if passes { "passes" } else { "fails" });
        if passes {
            one.pass(3, 1, "NAME", 2.0)
        } else {
            one.fail(3, 1, "NAME", 2.0)
        };
        std::fs::read_to_string(one.path().join("journal.jsonl")).unwrap()
    });
    let journal: String = names
        .iter()
        .enumerate()
        .map(|(i, name)| format!("{started}{}", if i % 10 == 0 { &failed } else { &passed }).replace("NAME", name))
        .collect();
    fixture.journal_bytes(journal.as_bytes());
    let _lock = hold(&fixture);
    let run = report(&fixture, true, 4);
    assert_eq!(run.counts, Counts { planned: 1000, passed: 900, failed: 100, running: 0, to_do: 0, skipped: 1 });
    assert_eq!((run.last_failures.len(), run.last_failures[0].name.as_str()), (5, "model_tp991_quant-none_eager-true"));
    assert!(shown(Some(run), vec![]).lines().count() < 40);
}

#[test]
fn text_from_outside_cannot_act_on_the_terminal() {
    let (_home, fixture) = fixture();
    fixture.plan(&["a\u{1b}[2Jb"]);
    fixture
        .session(0, 1)
        .begin(1, 1, "a\u{1b}[2Jb")
        .event(2, serde_json::json!({"event": "progress", "name": "a", "line": "x\u{1b}]0;t\u{7}\n\ny"}));
    let text = shown(Some(report(&fixture, true, 9)), vec![]);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
}
