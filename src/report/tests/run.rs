use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use unicode_width::UnicodeWidthStr;

use super::super::export::ExportError;
use super::super::{END_LINES, Ended, end};
use super::fixture::{Fixture, failure, result};
use super::{Analysis, Style, outputs, read_run, render_text, text, write_all};
use crate::analyse::{Status, Unreadable};
use crate::model::{Engine, Event, Outcome};
use crate::record::{Error, ResultRecord, layout};

/// Three models; passes, failures, a torn and an invalid result, an interrupted one, some never begun, an unplanned result.
fn mixed() -> Fixture {
    let mut run =
        Fixture::new(&["openai/gpt-oss-20b", "Qwen/Qwen3-30B-A3B", "モデル/日本語"], &[2, 16, 4], Engine::Vllm);
    for (i, (throughput, ttft)) in [(1.5, 900.0), (1.75, 850.0), (1.25, 950.5)].into_iter().enumerate() {
        run.pass(i, throughput, ttft);
    }
    run.pass(3, 7.125, 210.0);
    run.fail(4, "the server exited with code 1", "RuntimeError: Engine core initialization failed.");
    run.fail(5, "the server exited with code 1", "torch.OutOfMemoryError: \u{1b}[31mXPU out of memory.\u{1b}[0m");
    run.pass(9, 0.5, 3000.0);
    run.pass(10, 7.125, 2900.0);
    std::fs::write(run.result_path(11), "{\"completed\": 16, ").unwrap();
    let mut broken = result("Qwen/Qwen3-30B-A3B", 9.0, 1.0);
    broken.insert("failed".into(), json!(3));
    broken.insert("completed".into(), json!(13));
    ResultRecord { vllm: broken, vllm_bench: Some(run.meta(12)) }.write(&run.result_path(12)).unwrap();
    run.start(18);
    run.finish(18, Outcome::Interrupted);
    run.pass(19, 2.0, 400.0);
    std::fs::write(run.path().join("foreign_results.json"), "{}").unwrap();
    std::fs::write(run.result_path(4), "").unwrap();
    run.close(3723.0)
}

#[test]
fn a_mixed_run() {
    let run = mixed();
    insta::assert_snapshot!("mixed_analysis", text(run.path()));
    let outputs = outputs(run.path());
    assert_eq!(outputs[layout::ANALYSIS], text(run.path()));
    insta::assert_snapshot!("mixed_summary", outputs[layout::SUMMARY]);
    insta::assert_snapshot!("mixed_csv", outputs[layout::SUMMARY_CSV]);
}

#[test]
fn a_simulated_run_says_so_everywhere() {
    let mut run = Fixture::new(&["Qwen/Qwen3-4B-Thinking-2507"], &[2, 4], Engine::Sim);
    run.pass(0, 1.5, 120.0);
    run.pass(1, 1.75, 110.0);
    run.pass(3, 2.5, 70.0);
    let run = run.close(12.0);
    insta::assert_snapshot!("simulated_analysis", text(run.path()));
    let outputs = outputs(run.path());
    insta::assert_snapshot!("simulated_summary", outputs[layout::SUMMARY]);
    let raw: Value = serde_json::from_str(&outputs[layout::RAW_RESULTS]).unwrap();
    assert!(raw.as_array().unwrap().iter().all(|entry| entry["config"]["simulated"] == json!(true)));
    let csv = &outputs[layout::SUMMARY_CSV];
    assert!(csv.lines().skip(1).all(|line| line.contains(",true,1,") || line.contains(",true,,")), "{csv}");
}

#[test]
fn a_run_in_which_nothing_has_happened_yet() {
    let run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    insta::assert_snapshot!("empty_analysis", text(run.path()));
    insta::assert_snapshot!("empty_summary", outputs(run.path())[layout::SUMMARY]);
}

#[test]
fn a_run_with_one_result() {
    let mut run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    run.pass(0, 1.5, 120.0);
    insta::assert_snapshot!("one_result_analysis", text(run.close(95.0).path()));
}

/// What the end of a run shows of a table.
fn end_of(run: &Fixture, columns: usize, interrupted: bool) -> String {
    let table = read_run(run.path()).unwrap();
    let directory = "./experiment_results/20260225_1430";
    let ended = Ended { run: "experiment_results/20260225_1430", directory, interrupted, skips_kept: true };
    let shown = end(&Analysis::of(&table), ended, Style::of(false, Some(columns)));
    assert!(shown.lines().count() + 3 <= END_LINES, "{columns}:\n{shown}");
    for line in shown.lines() {
        assert!(line.width() <= columns && line.trim_end() == line, "{columns}: {line:?}\n{shown}");
    }
    shown
}

#[test]
fn the_end_of_a_run_fits_on_a_screen() {
    let mut one = Fixture::new(&["Qwen/Qwen3-4B-Thinking-2507"], &[2, 4], Engine::Sim);
    one.pass(0, 1.5, 120.0);
    one.pass(1, 1.75, 110.0);
    one.pass(3, 2.5, 70.0);
    one.fail(4, "the server exited with code 1", "torch.OutOfMemoryError: XPU out of memory.");
    one.fail(5, "the server exited with code 1", "torch.OutOfMemoryError: XPU out of memory.");
    let one = one.close(12.0);
    insta::assert_snapshot!("end_of_one_model", end_of(&one, 100, false));
    insta::assert_snapshot!("end_of_one_model_narrow", end_of(&one, 60, false));
    let mixed = mixed();
    insta::assert_snapshot!("end_of_several_models", end_of(&mixed, 100, true));
    for columns in [60, 70, 80, 120, 160, 200, 250] {
        end_of(&one, columns, true);
        end_of(&mixed, columns, false);
    }
    let mut nothing = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    nothing.start(0);
    nothing.finish(0, Outcome::Interrupted);
    let shown = end_of(&nothing.close(3.0), 100, true);
    assert!(shown.starts_with("Interrupted: nothing was measured (0 of 3 experiments; 1 was under way)."), "{shown}");
    assert_eq!(shown.lines().count(), 2, "and the run says how to resume: {shown}");
}

#[test]
fn an_analysis_twice_gives_the_same_bytes() {
    let run = mixed();
    let first = outputs(run.path());
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        [layout::ANALYSIS, layout::RAW_RESULTS, layout::SUMMARY_CSV, layout::SUMMARY]
    );
    assert_eq!(outputs(run.path()), first);
    let files: Vec<_> = std::fs::read_dir(run.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!files.iter().any(|file| file.to_string_lossy().starts_with(layout::TEMPORARY_PREFIX)), "{files:?}");
}

#[test]
fn the_raw_results_are_the_files_as_they_are() {
    let run = mixed();
    let raw: Value = serde_json::from_str(&outputs(run.path())[layout::RAW_RESULTS]).unwrap();
    let raw = raw.as_array().unwrap();
    assert_eq!(raw.len(), 8, "seven valid ones and one that was read and does not count");
    for entry in raw {
        let file = std::fs::read_to_string(run.path().join(entry["filename"].as_str().unwrap())).unwrap();
        assert_eq!(entry["data"], serde_json::from_str::<Value>(&file).unwrap());
    }
    assert_eq!(raw.iter().filter(|entry| entry["config"]["status"] == json!("invalid")).count(), 1);
}

fn status_of(run: &Fixture, i: usize) -> Status {
    read_run(run.path()).unwrap().rows[i].status.clone()
}

#[test]
fn nothing_counts_but_a_valid_result_of_exactly_this_experiment() {
    let mut run = Fixture::new(&["org/m"], &[2, 4], Engine::Vllm);
    run.pass(0, 1.0, 1.0);
    let path = run.result_path(1);
    let invalid = |run: &Fixture, reason: &str| match status_of(run, 1) {
        Status::Invalid(found) => assert!(found.contains(reason), "{found}"),
        other => panic!("{other:?}"),
    };
    std::fs::copy(run.result_path(0), &path).unwrap();
    invalid(&run, "other settings");
    std::fs::write(&path, serde_json::to_vec(&result("org/m", 1.0, 1.0)).unwrap()).unwrap();
    invalid(&run, "not written by vllm-bench");
    std::fs::write(&path, "{\"vllm_bench\": {\"schema\": 99}}").unwrap();
    invalid(&run, "format version 99");
    std::fs::write(&path, "{\"vllm_bench\": 7}").unwrap();
    invalid(&run, "not readable in its `vllm_bench` part");
    std::fs::remove_file(&path).unwrap();
    symlink("/nowhere/at/all", &path).unwrap();
    invalid(&run, "not readable: ");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(status_of(&run, 1), Status::NotRun);
    run.start(1);
    run.finish(1, Outcome::Passed { headline: crate::model::Headline::default() });
    run.write_journal();
    invalid(&run, "gone");
}

#[test]
fn a_failure_beside_a_bad_result_file_tells_both() {
    let mut run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    run.fail(0, "it crashed", "boom");
    run.write_journal();
    std::fs::write(run.result_path(0), "garbage").unwrap();
    let table = read_run(run.path()).unwrap();
    assert!(matches!(&table.rows[0].status, Status::Failed(failed) if failed.summary == "it crashed"));
    assert_eq!(
        table.unreadable,
        [Unreadable {
            file: "org_m_tp2_quant-none_eager-true_results.json".into(),
            reason: "the result file is not JSON: expected value at line 1 column 1".into(),
            lost: true
        }]
    );
}

#[test]
fn a_failure_counts_until_a_newer_attempt_begins() {
    let mut run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    run.fail(0, "it crashed", "boom");
    let name = run.experiment(0).name;
    run.event(9, Event::ExperimentStarted { index: 1, name, attempt: 2, axes: None, placement: None });
    run.write_journal();
    assert_eq!(status_of(&run, 0), Status::Interrupted);
}

#[test]
fn a_torn_failure_file_leaves_the_journals_word() {
    let mut run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    run.fail(0, "it crashed", "boom");
    run.write_journal();
    std::fs::write(run.dir.layout().failure(&run.experiment(0).name), "{\"schema\"").unwrap();
    let table = read_run(run.path()).unwrap();
    assert!(matches!(&table.rows[0].status, Status::Failed(failed) if failed.summary == "it crashed"));
    assert_eq!(table.unreadable.len(), 1);
}

#[test]
fn every_cut_of_a_result_and_of_a_journal_is_survived() {
    let mut run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    run.pass(0, 1.0, 1.0);
    run.write_journal();
    for path in [run.result_path(0), run.dir.layout().journal()] {
        let whole = std::fs::read(&path).unwrap();
        for cut in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let table = read_run(run.path()).unwrap();
            let valid = path == run.dir.layout().journal() || cut + 1 >= whole.len();
            assert_eq!(table.rows[0].is_valid(), valid, "{} cut at {cut}", path.display());
            render_text(&table, Style::COLOR);
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn seconds_are_summed_over_sessions_also_over_one_that_died() {
    let mut run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    run.event(100, Event::Notice { text: "last word before a power cut".into() });
    let process = crate::model::ProcessId { pid: 1, start_time: 1 };
    run.event(5000, Event::RunStarted { process, simulated: false, resumed: true, planned: 3, pending: 3 });
    let run = run.close(60.5);
    let facts = read_run(run.path()).unwrap().facts;
    assert_eq!((facts.duration, facts.sessions), (Some(160.5), 2));
}

#[test]
fn colour_only_adds_colour() {
    let run = mixed();
    let table = read_run(run.path()).unwrap();
    let colored = render_text(&table, Style::COLOR);
    assert!(colored.contains("\u{1b}["));
    let plain: String = anstream::adapter::strip_str(&colored).to_string();
    assert_eq!(plain, render_text(&table, Style::PLAIN));
}

#[test]
fn hostile_names_and_log_lines_do_not_reach_the_terminal() {
    let model = format!("org/\u{1b}]0;owned\u{7}{}\u{202e}\n=cmd|,\"x\"", "long".repeat(80));
    let mut run = Fixture::new(&[&model, "org/m"], &[2], Engine::Vllm);
    run.pass(0, 1.0, 1.0);
    let hostile = failure("died\u{1b}[2J of \r\n\u{1b}[31mthis", &"wide 日本語 ".repeat(200));
    run.start(3);
    run.finish(3, Outcome::Failed(hostile));
    let run = run.close(1.0);
    assert!(text(run.path()).contains("\n  org/longlong") && !text(run.path()).contains("0;owned"));
    let outputs = outputs(run.path());
    let csv = &outputs[layout::SUMMARY_CSV];
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let first = reader.records().next().unwrap().unwrap();
    let escaped = model.replace('\u{1b}', "\\u001b").replace('\u{7}', "\\u0007").replace('\u{202e}', "\\u202e");
    assert_eq!(&first[0], escaped, "what a terminal would act on is escaped, the rest stays exact");
    serde_json::from_str::<Value>(&outputs[layout::RAW_RESULTS]).unwrap();
}

#[test]
fn a_results_directory_stands_for_its_newest_run() {
    let mut run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    run.pass(0, 1.0, 1.0);
    let table = read_run(run.path().parent().unwrap()).unwrap();
    assert_eq!(table.facts.run, "20260225_1430");
    assert_eq!(table.facts.directory, run.path());
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(read_run(nothing.path()), Err(Error::NoResults { .. })));
    assert!(matches!(read_run(&nothing.path().join("absent")), Err(Error::NoRuns(_))));
    let single = read_run(&run.result_path(0)).unwrap();
    assert_eq!((single.rows.len(), &single.rows[0].identity), (1, &table.rows[0].identity));
}

#[test]
fn a_disk_that_refuses_is_an_error() {
    let run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
    let table = read_run(run.path()).unwrap();
    let written = write_all(&run.path().join("absent"), &Analysis::of(&table));
    assert!(matches!(written, Err(ExportError::File(Error::Write { .. }))));
}
