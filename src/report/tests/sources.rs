//! Results of other programs, and several sources at once.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::fixture::{Fixture, result};
use super::{outputs, read_run};
use crate::analyse::{Origin, Program, RankingSpec, Row, RunTable, Status, choose, settings};
use crate::model::{Better, Engine, Repeat, VllmMetric};
use crate::record::{Error, layout};
use crate::results::{read_requests, read_runs};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn table(&self) -> RunTable {
        read_run(self.path()).unwrap()
    }
}

/// A result with more keys, which come last.
fn with(throughput: f64, more: Value) -> Map<String, Value> {
    let mut result = result("org/m", throughput, 100.0);
    result.extend(more.as_object().unwrap().clone());
    result
}

fn text(result: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(result).unwrap()
}

/// What `vllm bench sweep serve` leaves: three runs of each of two servers under two loads.
fn sweep(place: &Place, experiment: &str, date: &str) {
    for seqs in [32, 64] {
        for concurrency in [4, 8] {
            let folder = format!("{experiment}/SERVE--max_num_seqs={seqs}-BENCH--max_concurrency={concurrency}");
            let runs: Vec<Map<String, Value>> = (0..3)
                .map(|run| {
                    let throughput = f64::from(seqs * concurrency + run);
                    with(
                        throughput,
                        json!({"date": date, "run_number": run, "max_num_seqs": seqs, "async-scheduling": true,
                               "compilation_config": {"level": seqs / 32}, "max_concurrency": concurrency}),
                    )
                })
                .collect();
            for (run, result) in runs.iter().enumerate() {
                place.put(&format!("{folder}/run={run}.json"), text(result));
            }
            place.put(&format!("{folder}/summary.json"), serde_json::to_string(&runs).unwrap());
            let warmup = with(1.0, json!({"run_number": -1, "max_num_seqs": seqs}));
            place.put(&format!("{folder}/warmup.json"), text(&warmup));
        }
    }
    let table = "\u{feff},run_number,completed,request_throughput\n0,0,16,1.0\n";
    place.put(&format!("{experiment}/summary.csv"), table.trim_start_matches('\u{feff}'));
}

#[test]
fn a_sweep_of_vllm_is_known_by_its_runs() {
    let place = Place::new();
    sweep(&place, "20260101_100000", "20260101-100000");
    let table = read_run(&place.path().join("20260101_100000")).unwrap();
    assert_eq!(table.facts.origin, Origin::Files(Program::Sweep));
    assert_eq!((table.rows.len(), table.unreadable.len()), (12, 0), "{:?}", table.unreadable);
    let row = &table.rows[0];
    assert_eq!(row.setting("max-num-seqs").as_deref(), Some("32"));
    assert_eq!(row.setting("async-scheduling").as_deref(), Some("true"));
    assert_eq!(row.setting("max-concurrency").as_deref(), Some("4"));
    assert_eq!(row.about.flags["compilation-config"].replace([' ', '\n'], ""), r#"{"level":1}"#);
    let keys: Vec<&str> = row.axes.server.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["max-num-seqs", "compilation-config"], "what is the same everywhere is no axis");
    assert_eq!(row.axes.workload, [("max-concurrency".to_owned(), "4".to_owned())]);
    assert_eq!((row.axes.tensor_parallel_size, row.about.devices), (None, None), "not stated, so not known");
    // Runs of one server are repeats on one start.
    let same: Vec<&Row> = table.rows.iter().filter(|other| other.identity == row.identity).collect();
    assert_eq!(same.iter().map(|row| row.repeat.unwrap().run).collect::<Vec<_>>(), [1, 2, 3]);
    let rows: Vec<&Row> = table.rows.iter().filter(|row| row.axes.workload[0].1 == "8").collect();
    assert!(settings(&rows).iter().all(|rows| rows.len() == 3));
}

#[test]
fn of_several_sweeps_the_newest_stands_for_the_folder() {
    let place = Place::new();
    sweep(&place, "zz-old", "20250101-100000");
    sweep(&place, "new", "20260101-100000");
    assert_eq!(place.table().facts.run, "new");
    let both = read_runs(&[place.path().join("zz-old"), place.path().join("new")]).unwrap();
    let first = &both.rows[0];
    let starts: Vec<u32> =
        both.rows.iter().filter(|row| row.identity == first.identity).map(|row| row.repeat.unwrap().start).collect();
    assert_eq!(starts, [1, 1, 1, 2, 2, 2]);
}

#[test]
fn failures_of_a_sweep_are_rows_and_summaries_stand_in_for_lost_runs() {
    let place = Place::new();
    sweep(&place, "s", "20260101-100000");
    let failure = json!({"run_number": 1, "error_type": "RuntimeError", "error": "boom",
        "serve_overrides": {"max_num_seqs": 128}, "bench_overrides": {"max_concurrency": 4}});
    place.put("s/SERVE--max_num_seqs=128-BENCH--max_concurrency=4/run=1.failure.json", failure.to_string());
    let folder = "s/SERVE--max_num_seqs=32-BENCH--max_concurrency=4";
    for run in 0..3 {
        std::fs::remove_file(place.path().join(format!("{folder}/run={run}.json"))).unwrap();
    }
    place.put("s/SERVE--max_num_seqs=64-BENCH--max_concurrency=4/run=2.json", "{\"completed\": 16, \"fai");
    let table = read_run(&place.path().join("s")).unwrap();
    assert_eq!(table.rows.iter().filter(|row| row.is_valid()).count(), 11);
    let failed: Vec<&Row> = table.rows.iter().filter(|row| matches!(row.status, Status::Failed(_))).collect();
    assert!(matches!(&failed[0].status, Status::Failed(failed) if failed.summary == "RuntimeError: boom"));
    assert_eq!(failed[0].setting("max-num-seqs").as_deref(), Some("128"));
    assert!(table.rows.iter().any(|row| row.name.ends_with("summary#3")));
    assert_eq!((table.unreadable.len(), table.lost()), (1, 1), "{:?}", table.unreadable);
    assert!(table.unreadable[0].reason.starts_with("cut off: "), "{}", table.unreadable[0].reason);
    // The table of a sweep alone is read too.
    let csv = place.put(
        "t.csv",
        ",run_number,completed,failed,request_throughput,output_throughput,mean_ttft_ms,\
                                  mean_tpot_ms,max_num_seqs,request_rate\n0,0,16.0,0,2.5,80.0,9.0,1.0,32.0,inf\n",
    );
    let table = read_run(&csv).unwrap();
    assert!(table.rows[0].is_valid(), "{:?}", table.rows[0].status);
    assert_eq!(table.rows[0].about.flags["max-num-seqs"], "32");
}

#[test]
fn plain_results_are_taken_whatever_they_are_called() {
    let place = Place::new();
    for (name, concurrency) in [("a.json", 4), ("b-infqps", 8), ("c.result", 16)] {
        place.put(name, serde_json::to_string(&with(1.0, json!({"max_concurrency": concurrency}))).unwrap());
    }
    let lines: Vec<String> =
        [1.0, 2.0].iter().map(|t| serde_json::to_string(&with(*t, json!({"max_concurrency": 4}))).unwrap()).collect();
    place.put("appended.json", lines.join("\n"));
    place.put("cut.jsonl", format!("{}\n{}", lines[0], &lines[1][..40]));
    place.put("notes.txt", "{}");
    place.put("other.json", "{\"hello\": 1}");
    place.put("list.json", "[1, 2]");
    place.put("empty.json", "");
    place.put("binary.json", b"\xff\xfe\x00");
    nix::unistd::mkfifo(&place.path().join("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let table = place.table();
    let names: Vec<&str> = table.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["a", "appended#1", "appended#2", "b-infqps", "c", "cut"]);
    assert!(table.rows.iter().all(|row| row.is_valid() && row.identity.is_none() && row.repeat.is_none()));
    assert_eq!(table.rows[4].axes.workload, [("max-concurrency".to_owned(), "16".to_owned())]);
    let told: Vec<(&str, &str, bool)> =
        table.unreadable.iter().map(|bad| (bad.file.as_str(), bad.reason.as_str(), bad.lost)).collect();
    let begins = [
        ("binary.json", "not text: ", true),
        ("cut.jsonl", "cut off: ", true),
        ("empty.json", "empty", true),
        ("list.json", "not a benchmark result: ", false),
        ("other.json", "not a benchmark result: it has no `completed`", false),
        ("pipe.json", "not a regular file", false),
    ];
    assert_eq!(told.len(), begins.len(), "{told:?}");
    for ((file, reason, lost), (expected, begin, is_lost)) in told.iter().zip(begins) {
        assert!((*file, *lost) == (expected, is_lost) && reason.starts_with(begin), "{file}: {reason} ({lost})");
    }
    let first = outputs(place.path());
    assert_eq!(outputs(place.path()), first, "its own reports are no input");
    let raw: Value = serde_json::from_str(&first[layout::RAW_RESULTS]).unwrap();
    assert_eq!(raw.as_array().unwrap().len(), 6);
    assert_eq!(raw[2]["data"]["request_throughput"], json!(2.0));
    let single = read_runs(&[place.path().join("a.json"), place.path().join("b-infqps"), place.path().join("a.json")]);
    let single = single.unwrap();
    assert_eq!((single.rows.len(), single.facts.run.as_str()), (2, "2 files"), "named twice, counted once");
    assert_eq!(single.rows[1].about.run.as_ref(), "b-infqps");
}

#[test]
fn what_the_user_said_with_metadata_is_a_setting() {
    let place = Place::new();
    let said =
        json!({"tensor_parallel_size": "2", "pipeline-parallel-size": "1", "data-parallel-size": "2", "machine": "a"});
    let row = read_run(&place.put("x.json", text(&with(1.0, said)))).unwrap().rows.remove(0);
    assert_eq!((row.axes.tensor_parallel_size, row.about.devices), (Some(2), Some(4)));
    assert_eq!(row.setting("machine").as_deref(), Some("a"));
}

#[test]
fn where_nothing_is_found_it_is_said_what_was_looked_for() {
    let place = Place::new();
    let other = place.put("other.json", "{\"hello\": 1}");
    let error = read_run(place.path()).unwrap_err();
    assert_eq!(error.exit_code(), crate::exit::NOTHING);
    let hints = error.hints().join("\n");
    assert!(
        hints.contains("`other.json`: not a benchmark result") && hints.contains("vllm bench sweep serve"),
        "{hints}"
    );
    let error = read_run(&other).unwrap_err();
    assert_eq!(error.exit_code(), crate::exit::RECORD);
    assert!(
        error.to_string().ends_with("is no result: it is not a benchmark result: it has no `completed`"),
        "{error}"
    );
    let pipe = place.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(read_run(&pipe), Err(Error::NotAResult { .. })));
    assert!(matches!(read_runs(&[]), Err(Error::NoRuns(_))));
}

const REQUESTS: &str = "run_id,qid,prefill_tokens,max_new_tokens,ttft_ms,latency_ms,prompt_tokens,completion_tokens,\
                        actual_prefill_tokens,error,timestamp,start_s,end_s\n\
                        chat,0,64,11,10,110,64,11,64,,t,0.5,0.61\n\
                        chat,1,64,11,20,220,64,21,64,,t,0.0,0.22\n\
                        chat,2,64,11,30,330,64,1,64,,t,0.67,1.0\n";

#[test]
fn metrics_of_requests_one_by_one_follow_vllms_definitions() {
    let place = Place::new();
    let row = read_run(&place.put("requests.csv", REQUESTS)).unwrap().rows.remove(0);
    assert!(row.is_valid() && row.name == "chat");
    let close = |metric, expected: f64| {
        let value = row.metrics.get(metric).unwrap();
        assert!((value - expected).abs() < 1e-9, "{metric:?}: {value}, not {expected}");
    };
    close(VllmMetric::Duration, 1.0);
    close(VllmMetric::RequestThroughput, 3.0);
    close(VllmMetric::OutputThroughput, 33.0);
    close(VllmMetric::TotalTokenThroughput, 225.0);
    close(VllmMetric::MeanTtft, 20.0);
    // numpy 2.3: std([10, 20, 30]), percentile([10, 20, 30], 99), percentile([110, 220, 330], 99)
    close(VllmMetric::StdTtft, 8.164_965_809_277_26);
    close(VllmMetric::P99Ttft, 29.8);
    close(VllmMetric::P99E2el, 327.8);
    // (110 - 10) / 10 and (220 - 20) / 20; one token has none.
    close(VllmMetric::MeanTpot, 10.0);
    assert_eq!(row.metric("p95_ttft_ms"), Some(29.0));
    assert_eq!(row.metrics.get(VllmMetric::MeanItl), None, "not in the file");
    let requests = read_requests(&row).unwrap().unwrap();
    assert_eq!(requests.ttft_ms, [20.0, 10.0, 30.0], "in the order of their starts");
    assert_eq!(requests.start_s.iter().map(|s| (s * 100.0).round()).collect::<Vec<_>>(), [0.0, 50.0, 67.0]);
    assert_eq!((requests.tpot_ms.len(), requests.output_tokens.len()), (2, 3));
}

#[test]
fn what_a_load_generator_does_not_tell_is_not_known() {
    let place = Place::new();
    // S3: no times of its own, tokens 0 where it was not told them, -1 for a TTFT that never came.
    let columns =
        "run_id,qid,prefill_tokens,max_new_tokens,ttft_ms,latency_ms,prompt_tokens,completion_tokens,error,timestamp\n";
    place.put("a.csv", format!("{columns}a,0,64,8,10,100,0,0,,t\na,1,64,8,12,110,0,0,,t\n"));
    place.put("b.csv", format!("{columns}b,0,64,8,-1,5,0,0,HTTP 500,t\nb,1,64,8,12,110,0,0,,t\n"));
    let all = format!("{columns}a,0,64,8,10,100,0,0,,t\na,1,64,8,12,110,0,0,,t\nb,0,64,8,-1,5,0,0,HTTP 500,t\n");
    place.put("s_all_runs.csv", format!("{all}b,1,64,8,12,110,0,0,,t\n"));
    place.put("summary.csv", "run_id,scenario,concurrency\na,s,8\n");
    let table = place.table();
    assert_eq!(table.facts.origin, Origin::Files(Program::Requests));
    assert_eq!(table.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a", "b"], "each run once");
    let [a, b] = &table.rows[..] else { panic!() };
    for metric in [
        VllmMetric::RequestThroughput,
        VllmMetric::OutputThroughput,
        VllmMetric::TotalInputTokens,
        VllmMetric::MeanTpot,
    ] {
        assert_eq!(a.metrics.get(metric), None, "{metric:?}");
    }
    assert_eq!(a.metrics.get(VllmMetric::MedianTtft), Some(11.0));
    let failed = "1 of 2 requests failed, the first with: HTTP 500";
    assert!(matches!(&b.status, Status::Failed(of) if of.summary == failed), "{:?}", b.status);
    let files: Vec<(&str, bool)> = table.unreadable.iter().map(|bad| (bad.file.as_str(), bad.lost)).collect();
    assert_eq!(files, [("s_all_runs.csv", false), ("summary.csv", false)]);
    // A scenario with one run: its file of all runs holds nothing else.
    let one = format!("{columns}c,0,64,8,10,100,0,0,,t\nc,1,64,8,12,111,0,0,,t\n");
    place.put("single/c.csv", one.clone());
    place.put("single/c_all_runs.csv", one);
    let single = read_run(&place.path().join("single")).unwrap();
    let files: Vec<&str> = single.unreadable.iter().map(|bad| bad.file.as_str()).collect();
    assert_eq!((single.rows.len(), files), (1, vec!["c_all_runs.csv"]));
    let whole = read_run(&place.path().join("s_all_runs.csv")).unwrap();
    assert_eq!(whole.rows.len(), 2);
    assert_eq!(read_requests(&whole.rows[1]).unwrap().unwrap().ttft_ms, [12.0]);
    let cut = read_run(&place.put("cut/c.csv", format!("{columns}a,0,64,8,10,100,0,0,,t\na,1,64"))).unwrap();
    assert_eq!((cut.rows.len(), cut.lost()), (1, 1));
}

#[test]
fn requests_of_each_of_several_results_in_a_file() {
    let place = Place::new();
    let detailed = |ttft: f64| {
        let arrays = json!({"ttfts": [ttft, ttft], "itls": [[0.01], [0.01]], "output_lens": [2, 2], "input_lens": [1, 1],
                            "start_times": [0.0, 1.0], "errors": ["", ""], "generated_texts": ["}]\"", "\\"]});
        serde_json::to_string(&with(1.0, arrays)).unwrap()
    };
    place.put("lines.json", [detailed(0.1), detailed(0.2)].join("\n"));
    place.put("list.json", format!("[{},{}]", detailed(0.3), detailed(0.4)));
    let table = place.table();
    let ttfts: Vec<f64> =
        table.rows.iter().map(|row| read_requests(row).unwrap().unwrap().ttft_ms[1].round()).collect();
    assert_eq!(ttfts, [100.0, 200.0, 300.0, 400.0]);
    let raw: Value = serde_json::from_str(&outputs(place.path())[layout::RAW_RESULTS]).unwrap();
    assert_eq!(raw[3]["left_out"].as_array().unwrap().len(), 7, "{}", raw[3]["left_out"]);
    assert!(raw[3]["data"].get("ttfts").is_none() && raw[3]["data"]["completed"] == json!(16));
}

#[test]
fn several_runs_are_repeats_on_different_starts_and_keep_their_names() {
    let runs: Vec<Fixture> = [1.0, 2.0]
        .into_iter()
        .map(|throughput| {
            let mut run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
            run.pass(0, throughput, 100.0);
            run
        })
        .collect();
    let results = |i: usize| runs[i].path().parent().unwrap().to_owned();
    let table = read_runs(&[runs[0].path().into(), runs[1].path().into(), results(0)]).unwrap();
    let skipped = table.rows.iter().filter(|row| row.is_skipped()).count();
    assert_eq!(skipped, read_run(runs[0].path()).unwrap().rows.iter().filter(|row| row.is_skipped()).count());
    let valid: Vec<&Row> = table.rows.iter().filter(|row| row.is_valid()).collect();
    assert_eq!(valid.len(), 2, "the first run is named twice and counts once");
    assert_eq!(valid[0].identity, valid[1].identity);
    assert_eq!(valid.iter().map(|row| row.repeat.unwrap().start).collect::<Vec<_>>(), [1, 2]);
    let above = results(1).file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(valid[0].about.run.as_ref(), "20260225_1430");
    assert_eq!(valid[1].about.run.as_ref(), format!("{above}/20260225_1430"));
    let found = choose(&valid, &RankingSpec::by("request_throughput", Better::Higher)).unwrap();
    assert_eq!(found.chosen().unwrap().n, 2);
    assert_eq!(read_runs(&[runs[0].path().into()]).unwrap(), read_run(runs[0].path()).unwrap());
}

#[test]
fn real_and_simulated_rows_are_never_under_one_banner() {
    let runs: Vec<Fixture> = [Engine::Vllm, Engine::Sim]
        .into_iter()
        .map(|engine| {
            let mut run = Fixture::new(&["org/m"], &[2, 4], engine);
            for index in 0..run.plan.experiments.len() {
                run.pass(index, 1.5, 110.0);
            }
            run.close(10.0)
        })
        .collect();
    let table = read_runs(&[runs[0].path().into(), runs[1].path().into()]).unwrap();
    let analysis = crate::report::export::Analysis::of(&table);
    let [text, markdown, page] = ["text", "markdown", "html"].map(|name| super::exported(name, &analysis));
    for said in [&text, &markdown, &page] {
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains("are SIMULATED, and marked so"), "{said}");
        assert!(!flat.contains("Nothing was measured on a real server") && !flat.contains("(SIMULATED)"), "{said}");
        assert!(!flat.contains("Nothing here was measured"), "{said}");
    }
    assert!(text.contains("ok (simulated)") && markdown.contains("## Speed-ups"));
    // One start of each was measured: the simulated ones are no further starts.
    let found = analysis.answers()[0].choice.as_ref().unwrap();
    assert!(found.options.iter().all(|option| option.n == 1 && !option.row.simulated));
}

#[test]
fn runs_of_the_predecessor_with_the_same_names_and_loads_are_repeats() {
    let place = Place::new();
    for (run, concurrency) in [("20250101_1000", 4), ("20250102_1000", 4), ("20250103_1000", 8)] {
        let result = with(1.0, json!({"max_concurrency": concurrency}));
        place.put(&format!("{run}/org_m_tp2_quant-none_eager-true_results.json"), text(&result));
    }
    let paths: Vec<PathBuf> =
        ["20250101_1000", "20250102_1000", "20250103_1000"].iter().map(|run| place.path().join(run)).collect();
    let table = read_runs(&paths).unwrap();
    assert!(table.rows[0].identity.is_some() && table.rows[0].identity == table.rows[1].identity);
    assert_ne!(table.rows[0].identity, table.rows[2].identity, "another load");
    assert_eq!(table.rows[0].about.devices, Some(2));
    assert_eq!(table.rows[2].repeat, Some(Repeat { start: 3, run: 1 }));
}

#[test]
fn versions_of_vllm_that_differ_are_told() {
    let mut runs = Vec::new();
    for version in ["0.14.1", "0.32.0"] {
        let mut run = Fixture::new(&["org/m"], &[2], Engine::Vllm);
        run.pass(0, 1.0, 1.0);
        let path = run.result_path(0);
        let text = std::fs::read_to_string(&path).unwrap().replace("\"0.14.1\"", &format!("\"{version}\""));
        std::fs::write(&path, text).unwrap();
        runs.push(run);
    }
    let table = read_runs(&[runs[0].path().into(), runs[1].path().into()]).unwrap();
    let text = super::render_text(&table, super::Style::PLAIN);
    assert!(text.contains("different versions of vLLM (0.14.1, 0.32.0)"), "{text}");
}
