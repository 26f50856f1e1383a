//! `load` as a user calls it, against the simulated vLLM and against servers that go wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{BIN, Ended, MODEL, Scene, wait_for};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// A simulated vLLM that is ready.
struct Simulated {
    child: Child,
    url: String,
}

impl Simulated {
    fn start(scene: &Scene, fault: &str) -> Self {
        Self::with(scene, fault, &[])
    }

    fn with(scene: &Scene, fault: &str, flags: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(scene.path(&format!("server-{port}.log"))).unwrap();
        let child = Command::new(BIN)
            .args(["sim-vllm", "serve", MODEL, "--port", &port.to_string(), "--max-model-len", "8192"])
            // Loads are repeated on one server, with the same prompts.
            .arg("--no-enable-prefix-caching")
            .args(flags)
            .env("VLLM_BENCH_SIM_SPEED", "inf")
            .env("VLLM_BENCH_SIM_FAULT", fault)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let server = Self { child, url };
        wait_for("the simulated server", || {
            get(&format!("127.0.0.1:{port}"), "/health").filter(|text| text.contains("200 OK"))
        });
        server
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _ = killpg(self.group(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// `load` with a result file of a known name, and without a warm-up.
fn load<'s>(scene: &'s Scene, url: &str, line: &str) -> crate::support::Call<'s> {
    let words: Vec<&str> = ["load", "--base-url", url].into_iter().chain(line.split_whitespace()).collect();
    scene.call(&words).flag("--save-result").set("--result-filename", ["r.json"]).set("--num-warmups", ["0"])
}

fn result(scene: &Scene) -> Value {
    json(&scene.path("r.json"))
}

fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Header and rows of a CSV file.
fn rows(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_path(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let head = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
    (head, rows.collect())
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A tokenizer for which each word is a token.
fn tokenizer(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "word": 1}, "unk_token": "[UNK]"},
    });
    std::fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
}

const SMALL: &str = "--dataset-name random --random-input-len 20 --random-output-len 16 --num-prompts 12";

#[test]
fn a_load_against_the_simulated_server_writes_what_vllm_s_client_writes_and_says_that_it_is_simulated() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    let ended = load(&scene, &server.url, SMALL).exits(0);
    ended.says("SIMULATED").prints("SIMULATED").prints("Successful requests:                     12");
    let found = result(&scene);
    for (key, value) in [("completed", 12), ("failed", 0), ("total_input_tokens", 240), ("total_output_tokens", 192)] {
        assert_eq!(found[key], value, "{key}");
    }
    assert_eq!((&found["model_id"], &found["simulated"]), (&MODEL.into(), &true.into()));
    assert_eq!(found["vllm_bench_load"]["arrival_clock"], "simulated");
    // Virtual time: the same metrics again.
    load(&scene, &server.url, SMALL).exits(0);
    let again = result(&scene);
    for key in ["duration", "mean_ttft_ms", "p99_itl_ms", "mean_tpot_ms", "output_throughput"] {
        assert_eq!(found[key], again[key], "{key}");
    }
}

/// A tokenizer with a chat template that adds four words to a question.
fn with_template(folder: &Path) {
    tokenizer(folder);
    let template = "{% for m in messages %}{% generation %}{{ m.role }} : {{ m.content }} {% endgeneration %}{% endfor %}\
        {% if add_generation_prompt %}assistant :{% endif %}";
    let config = serde_json::json!({"chat_template": template});
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

#[test]
fn prompts_are_shown_and_counted_with_the_chat_template() {
    let scene = Scene::new();
    with_template(&scene.path("model"));
    let model = scene.path("model").display().to_string();
    let line = ["prompts", "inspect", "--prompt", "word word", "--num-prompts", "1", "--tokenizer", &model];
    scene
        .call(&line)
        .exits(0)
        .prints("prompt 0: 6 tokens")
        .prints("--- through the chat template\nuser : word word assistant :\n");
    std::fs::write(
        scene.path("m.jsonl"),
        "[{\"role\": \"user\", \"content\": \"é\"}]\n{\"messages\": [], \"add_generation_prompt\": false}\n",
    )
    .unwrap();
    let messages = scene.path("m.jsonl").display().to_string();
    let line = ["prompts", "render", "--json", "--messages", &messages, "--tokenizer", &model];
    scene
        .call(&line)
        .exits(0)
        .prints("{\"text\":\"user : é assistant :\",\"tokens\":5}\n{\"text\":\"\",\"tokens\":0}\n");
    let template = scene.path("t.jinja").display().to_string();
    std::fs::write(&template, "{{ raise_exception('never') }}").unwrap();
    let line = ["prompts", "render", "--messages", &messages, "--chat-template", &template];
    scene.call(&line).exits(2).says("never (line 1 of the template)");
    std::fs::write(
        scene.path("model/tokenizer.json"),
        "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 7, \"vocab\": []}}",
    )
    .unwrap();
    let line = ["prompts", "inspect", "--prompt", "word", "--tokenizer", &model];
    scene.call(&line).exits(2).says("model/tokenizer.json");
}

#[test]
fn messages_have_parts_and_tool_calls_and_plots_go_to_chats_only() {
    let scene = Scene::new();
    with_template(&scene.path("model"));
    let part = |kind: &str| serde_json::json!({"type": kind, "text": "word"});
    let call = serde_json::json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let messages = serde_json::json!([{"role": "user", "content": [part("text"), part("text")]},
        {"role": "assistant", "content": null, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "word"}]);
    std::fs::write(scene.path("m.jsonl"), serde_json::json!({"messages": messages}).to_string()).unwrap();
    let server = Simulated::start(&scene, "");
    let data = format!(
        "--dataset-name custom --dataset-path {} --tokenizer {} --num-prompts 1",
        scene.path("m.jsonl").display(),
        scene.path("model").display()
    );
    load(&scene, &server.url, &format!("{data} --backend openai-chat")).exits(0);
    assert_eq!(result(&scene)["completed"], 1);
    let plot = serde_json::json!({"messages": [{"role": "user", "content": [part("image_url")]}]});
    std::fs::write(scene.path("m.jsonl"), plot.to_string()).unwrap();
    load(&scene, &server.url, &data).exits(2).says("`image_url`").says("--backend openai-chat");
    std::fs::write(scene.path("m.jsonl"), "{\"messages\": [{\"role\": \"user\", \"content\": 7}]}").unwrap();
    load(&scene, &server.url, &data).exits(2).says("neither a text nor a list of parts");
}

#[test]
fn flags_are_spelled_as_vllm_s_client_takes_them() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    let line =
        "--dataset_name=random --random_input_len 9 --random-output 5 --num_prompts 3 --endpoint-type openai-chat";
    load(&scene, &server.url, line).exits(0);
    let found = result(&scene);
    assert_eq!((&found["completed"], &found["total_output_tokens"]), (&3.into(), &15.into()));
    assert_eq!(found["endpoint_type"], "openai-chat");
}

/// What a load says of its failures, by class.
fn failures(scene: &Scene) -> Vec<(String, u64)> {
    let found = result(scene);
    let failures = found["vllm_bench_load"]["failures"].as_object().expect("failures").clone();
    failures.iter().map(|(class, value)| (class.clone(), value["count"].as_u64().unwrap())).collect()
}

/// Acceptance 6 of the load generator: each failure class, provoked. The table is printed with `--nocapture`.
#[test]
fn each_failure_class_is_provoked_counted_and_told() {
    struct Provoked {
        class: &'static str,
        fault: &'static str,
        flags: &'static str,
        count: u64,
        completed: u64,
        told: &'static str,
    }
    let case = |class, fault, flags, count, completed, told| Provoked { class, fault, flags, count, completed, told };
    let cases = [
        case("http-status", "requests-fail:3", "", 3, 9, "HTTP 500"),
        case("in-stream-error", "streams-fail:error+2", "", 2, 10, "EngineCore encountered an issue"),
        case("stream-broken", "streams-fail:break+2", "", 2, 10, ""),
        case("malformed", "streams-fail:malformed+2", "", 2, 10, ""),
        case("short", "streams-fail:short+2", "--ignore-eos", 2, 12, "8 tokens of 16"),
        case("timeout", "streams-fail:silent+2", "--request-timeout 1s", 2, 10, ""),
        case("timeout", "streams-fail:stall+2", "--stall-timeout 1s", 2, 10, ""),
        case("timeout", "streams-fail:silent+all", "--max-concurrency 4 --total-timeout 1s", 4, 0, ""),
        case("not-sent", "streams-fail:silent+all", "--max-concurrency 4 --total-timeout 1s", 8, 0, ""),
        case("connect", "no server", "", 12, 0, "refused"),
    ];
    let mut table = String::from("class | provoked by | requests | completed | told\n");
    for Provoked { class, fault, flags, count, completed, told } in cases {
        let scene = Scene::new();
        let server = (fault != "no server").then(|| Simulated::start(&scene, fault));
        let url = server.as_ref().map_or("http://127.0.0.1:9".to_owned(), |server| server.url.clone());
        let model = if server.is_none() { "--model m" } else { "" };
        let ended = load(&scene, &url, &format!("{SMALL} {flags} {model} --no-server-metrics")).ends();
        let code = if class == "short" { 0 } else { 1 };
        ended.check(ended.status.code() == Some(code), &format!("{class}: exit code {code} was expected"));
        let found = failures(&scene);
        let seen: u64 = found.iter().filter(|(name, _)| name == class).map(|(_, count)| *count).sum();
        let all: u64 = found.iter().map(|(_, count)| count).sum();
        if class == "connect" {
            // A server that is gone is not asked thousands of times.
            ended.check(seen >= 1 && all == count, &format!("{class}: {found:?}"));
        } else {
            ended.check(seen == count, &format!("{class}: {count} expected, {found:?}"));
        }
        let result = result(&scene);
        ended.check(result["completed"] == completed, &format!("{class}: {completed} completed expected"));
        ended.prints(&format!("{class}:")).prints(told);
        let examples =
            result["vllm_bench_load"]["failures"][class]["examples"][0]["text"].as_str().unwrap_or_default().to_owned();
        table.push_str(&format!(
            "{class} | {fault} {flags} | {seen} | {completed} | {}\n",
            examples.chars().take(90).collect::<String>()
        ));
    }
    eprintln!("{table}");
}

#[test]
fn a_server_that_dies_ends_the_load_soon() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "die-in-benchmark:kill+20");
    let line = "--prompt hi --tokenizer none --output-len 16 --num-prompts 100000 --max-concurrency 8";
    let ended = load(&scene, &server.url, line).exits(1);
    let found = result(&scene);
    ended.prints("ended early: the server takes no connections any more");
    assert_eq!(found["vllm_bench_load"]["gave_up"], "server-gone");
    let (completed, failed) = (found["completed"].as_u64().unwrap(), found["failed"].as_u64().unwrap());
    assert!((20..100).contains(&completed), "{completed}");
    assert_eq!(completed + failed, 100_000, "each request is accounted for");
    let counts = failures(&scene);
    let not_sent = counts.iter().find(|(class, _)| class == "not-sent").map_or(0, |(_, count)| *count);
    assert!(not_sent > 99_000, "{counts:?}");
}

/// Each of the signals that end a run in order ends a workload in order, too.
#[test]
fn ctrl_c_writes_what_was_measured() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let scene = Scene::new();
        let server = Simulated::start(&scene, "streams-fail:stall+4");
        // Four streams stall for ever; the others go on until the signal.
        let line =
            "--dataset-name random --random-input-len 8 --random-output-len 4 --num-prompts 9 --max-concurrency 9";
        let call = load(&scene, &server.url, line).set("--requests-csv", ["requests.csv"]).start();
        wait_for("all that the server will answer", || {
            let text = get(server.url.trim_start_matches("http://"), "/metrics")?;
            text.lines()
                .find(|line| line.starts_with("vllm:request_success_total") && line.ends_with(" 9.0"))
                .map(|_| ())
        });
        std::thread::sleep(std::time::Duration::from_millis(300));
        call.signal(signal);
        let ended = call.ends();
        ended.check(ended.status.code() == Some(128 + signal as i32), "128 + the signal");
        let found = result(&scene);
        assert_eq!((&found["completed"], &found["failed"]), (&5.into(), &4.into()));
        assert_eq!(found["vllm_bench_load"]["interrupted"], true);
        assert_eq!(failures(&scene), [("cancelled".to_owned(), 4)]);
        assert_eq!(rows(&scene.path("requests.csv")).1.len(), 9);
    }
}

#[test]
fn samples_are_counted_as_sequences() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    let line =
        "--dataset-name random --random-input-len 8 --random-output-len 6 --num-prompts 5 --n 3 --max-concurrency 2";
    load(&scene, &server.url, line).exits(0).prints("Samples that came back:                  15");
    let found = result(&scene);
    assert_eq!((&found["completed"], &found["total_output_tokens"]), (&5.into(), &90.into()));
    assert_eq!(found["vllm_bench_load"]["sequences"], 15);
}

/// Fewer than were asked for are another measurement: the server refuses, and `load` says so by its exit code.
#[test]
fn samples_that_do_not_come_back_are_told() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    let line = "--dataset-name random --random-input-len 8 --random-output-len 4 --completions 500 --max-concurrency 2";
    load(&scene, &server.url, line).exits(0);
    assert_eq!(result(&scene)["vllm_bench_load"]["sequences"], 500);
    load(&scene, &server.url, &line.replace("500", "20000")).exits(1).prints("n must be at most 4096");
    // A server that sends fewer without a word.
    let silent = Scripted::start(|_| vec![HEAD.to_vec(), chunk(&good()), b"0\r\n\r\n".to_vec()], Then::KeepAlive);
    let line = "--model m --tokenizer none --prompt hi --output-len 3 --num-prompts 2 --n 4 --no-server-metrics";
    load(&scene, &silent.url, line).exits(1).prints("1 of 4 samples came back");
    assert_eq!(failures(&scene), [("fewer-samples".to_owned(), 2)]);
}

/// Answers in one piece have simulated times, too.
#[test]
fn simulated_times_do_not_depend_on_the_machine_without_a_stream_either() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    let mut seen = Vec::new();
    for _ in 0..2 {
        load(&scene, &server.url, &format!("{SMALL} --non-streaming --max-concurrency 3")).exits(0);
        let found = result(&scene);
        assert_eq!(found["vllm_bench_load"]["arrival_clock"], "simulated");
        seen.push(["duration", "request_throughput", "output_throughput"].map(|key| found[key].clone()));
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn the_key_is_sent_and_is_nowhere_to_be_read() {
    let scene = Scene::new();
    let server = Simulated::with(&scene, "", &["--api-key", "sk-very-secret-value"]);
    let denied = load(&scene, &server.url, SMALL).env("OPENAI_API_KEY", "sk-wrong").ends();
    denied.check(!denied.status.success(), "a wrong key");
    std::fs::write(scene.path("key"), "sk-very-secret-value\n").unwrap();
    let with_file =
        load(&scene, &server.url, SMALL).set("--api-key-file", ["key"]).set("--requests-csv", ["q.csv"]).exits(0);
    let with_variable = load(&scene, &server.url, SMALL)
        .set("--api-key-env", ["MY_KEY"])
        .env("MY_KEY", "sk-very-secret-value")
        .exits(0);
    std::fs::remove_file(scene.path("key")).unwrap();
    for ended in [&denied, &with_file, &with_variable] {
        ended.check(!format!("{}{}", ended.stdout, ended.stderr).contains("sk-very"), "the key was shown");
    }
    for name in ["r.json", "q.csv"] {
        assert!(!std::fs::read_to_string(scene.path(name)).unwrap().contains("sk-very"), "{name}");
    }
}

#[test]
fn detailed_results_have_an_entry_for_each_request_and_each_token() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "requests-fail:1");
    load(&scene, &server.url, SMALL).flag("--save-detailed").exits(1);
    let found = result(&scene);
    for key in ["input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors"] {
        assert_eq!(found[key].as_array().map(Vec::len), Some(12), "{key}");
    }
    assert_eq!(found["itls"][5].as_array().map(Vec::len), Some(15), "16 tokens have 15 gaps");
    assert!(found["errors"][0].as_str().unwrap().contains("500") && found["errors"][1] == "");
    assert!(!found["generated_texts"][1].as_str().unwrap().is_empty());
}

// ------------------------------------------------------------------------------------- the examples of sources 2, 3 and 4

/// S2: `benchmark_vllm.py --batch-size 32 …` and `batch_size_sweep.py --powers-of-2 --max-batch 256 … --timeout 1200`.
#[test]
fn s2_s_examples_have_counterparts() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    let url = format!("{}/v1/chat/completions", server.url);
    let words = [
        "load",
        "--url",
        &url,
        "--batch-size",
        "32",
        "--load-pattern",
        "burst",
        "--random-input-len",
        "1024",
        "--random-output-len",
        "512",
    ];
    let ended = scene.call(&words).exits(0);
    ended.prints("Successful requests:                     32").prints("Mean TTFT (ms):").prints("Mean TPOT (ms):");

    let ended = scene
        .call(&["load", "--url", &url, "--max-concurrency", "pow2:1..256", "--load-pattern", "burst"])
        .set("--random-input-len", ["64"])
        .set("--random-output-len", ["16"])
        .set("--total-timeout", ["1200s"])
        .set("--csv", ["output/batch_size_throughput.csv"])
        .exits(0);
    let (head, rows) = rows(&scene.path("output/batch_size_throughput.csv"));
    assert_eq!(head[..3], ["batch_size", "per_request_throughput", "total_system_throughput"]);
    let sizes: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(sizes, ["1", "2", "4", "8", "16", "32", "64", "128", "256"]);
    let column = |at: usize| -> Vec<f64> { rows.iter().map(|row| row[at].parse().unwrap()).collect() };
    // A batch serves each request slower and the system faster.
    assert!(column(1).first() > column(1).last() && column(2).first() < column(2).last(), "{rows:?}");
    assert_eq!(column(9).iter().sum::<f64>(), 511.0, "one batch of each size");
    ended.prints("256");
}

/// S3: `bench.py --scenarios FILE --name smoke_test`, `summarize.py`, `inspect_prompts.py`.
#[test]
fn s3_s_smoke_test_gives_the_files_that_its_document_checks() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    std::fs::create_dir(scene.path("bench")).unwrap();
    let yaml = "defaults:\n  base_url: URL/v1\n  model: org/tiny\nscenarios:\n  smoke_test:\n    concurrencies: [8]\n    prefill_tokens: 256\n    max_new_tokens: 128\n    num_requests: 50\n  other:\n    concurrencies: [2, 4]\n    prefill_tokens: 64\n    max_new_tokens: 8\n    num_requests: 6\n";
    std::fs::write(scene.path("bench/test_scenario.yaml"), yaml.replace("URL", &server.url)).unwrap();
    let call = |scene: &Scene, more: &[&str]| {
        let words = [&["load", "--scenarios", "bench/test_scenario.yaml", "--dataset", "random"][..], more].concat();
        scene.call(&words).exits(0);
    };
    call(&scene, &["--name", "smoke_test"]);
    let names = files(&scene.path("results"));
    let run = names.iter().find(|name| name.starts_with("smoke_test-cc8-pref256-max128-") && name.ends_with(".csv"));
    let run = run.unwrap_or_else(|| panic!("{names:?}"));
    let (head, lines) = rows(&scene.path("results").join(run));
    let s3 = "run_id qid prefill_tokens max_new_tokens ttft_ms latency_ms prompt_tokens completion_tokens actual_prefill_tokens error timestamp";
    assert_eq!(head[..11].join(" "), s3);
    assert_eq!(lines.len(), 50, "1 header and 50 requests");
    assert!(lines.iter().all(|row| row[9].is_empty() && row[4].parse::<f64>().unwrap() > 0.0 && row[7] == "128"));
    let (head, lines) = rows(&scene.path("results/summary.csv"));
    let s3 = "run_id scenario concurrency prefill_tokens max_new_tokens total_requests successful_requests failed_requests success_rate \
        ttft_p50_ms ttft_p95_ms ttft_p99_ms latency_p50_ms latency_p95_ms latency_p99_ms tokens_per_sec_p50 tokens_per_sec_p95 \
        avg_prompt_tokens avg_completion_tokens error_types";
    assert_eq!(head[..20].join(" "), s3.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!((lines.len(), lines[0][8].as_str()), (1, "100.0%"));
    let summary = std::fs::read_to_string(scene.path("results/summary.md")).unwrap();
    assert!(summary.contains("## smoke_test") && summary.contains("SIMULATED"), "{summary}");
    // All scenarios, each concurrency a run.
    call(&scene, &[]);
    let names = files(&scene.path("results"));
    for begin in ["other-cc2-pref64-max8-", "other-cc4-pref64-max8-", "smoke_test_all_runs.csv", "other_all_runs.csv"] {
        assert!(names.iter().any(|name| name.starts_with(begin)), "{begin}: {names:?}");
    }
    assert_eq!(rows(&scene.path("results/other_all_runs.csv")).1.len(), 12);
}

/// S3: `bench.py --telemetry`: `results/telemetry/{run_id}.csv`, and a warning where no device tells of itself.
#[test]
fn s3_s_telemetry_is_recorded_beside_the_requests() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    let yaml = "defaults:\n  base_url: URL/v1\n  model: org/tiny\nscenarios:\n  one:\n    concurrencies: [2]\n    prefill_tokens: 16\n    max_new_tokens: 8\n    num_requests: 4\n";
    std::fs::write(scene.path("s.yaml"), yaml.replace("URL", &server.url)).unwrap();
    let words = ["load", "--scenarios", "s.yaml", "--dataset", "random", "--telemetry"];
    scene.program("bin/nvidia-smi", "#!/bin/sh\ncase $1 in *utilization*) echo '0, 97, 20480, 23034, 61, 71.50';; *) echo '0, NVIDIA L4, 00000000:29:00.0, 23034, 1, 580.1, GPU-1';; esac\n");
    let path = format!("{}:{}", scene.path("bin").display(), std::env::var("PATH").unwrap());
    scene.call(&words).env("PATH", &path).exits(0).says("telemetry:");
    let run = files(&scene.path("results")).into_iter().find(|name| name.starts_with("one-cc2-")).expect("requests");
    let (head, lines) = rows(&scene.path("results/telemetry").join(&run));
    let s3 = "timestamp elapsed_ms gpu_id gpu_utilization_pct vram_used_mb vram_total_mb vram_utilization_pct temperature_c power_usage_w";
    assert_eq!(head.join(" "), s3);
    assert!(
        !lines.is_empty()
            && lines.iter().all(|row| row[2..] == ["0", "97.0", "20480.0", "23034.0", "88.9", "61.0", "71.5"]),
        "{lines:?}"
    );
}

/// S3: `inspect_prompts.py --show 10`, `--save-text results/prompts.txt`, `--dataset openassistant`, from files at hand.
#[test]
fn s3_s_prompts_can_be_looked_at_before() {
    let scene = Scene::new();
    let text = |words: usize| vec!["word"; words].join(" ");
    let mut lines = String::new();
    for number in 0..30 {
        let row = serde_json::json!({"instruction": format!("Question {number}: {}", text(40 + number)), "context": "", "response": "yes", "category": "open_qa"});
        lines.push_str(&format!("{row}\n"));
    }
    std::fs::write(scene.path("dolly.jsonl"), lines).unwrap();
    tokenizer(&scene.path("tokenizer"));
    let dolly = ["--dataset", "dolly", "--dataset-path", "dolly.jsonl", "--tokenizer", "tokenizer"];
    let ended = scene.call(&[&["prompts", "inspect"][..], &dolly, &["--show", "10"]].concat()).exits(0);
    assert_eq!(ended.stdout.matches("Question ").count(), 10, "{}", ended.stdout);
    let ended =
        scene.call(&[&["prompts", "inspect"][..], &dolly, &["--save-text", "results/prompts.txt"]].concat()).ends();
    ended.check(ended.status.success(), "prompts build");
    assert!(std::fs::read_to_string(scene.path("results/prompts.txt")).unwrap().contains("Question "));
    scene.call(&["prompts", "list"]).exits(0).prints("openassistant");
}

/// S4: `run_benchmarks.py` and `benchmark_vllm.py`, each line of its section on usage.
#[test]
fn s4_s_examples_have_counterparts() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    let url = format!("{}/v1/chat/completions", server.url);
    let call = |words: &str| -> Ended<'_> {
        let mut all = vec!["load", "--url", &url, "--max-tokens", "16"];
        all.extend(words.split_whitespace());
        scene.call(&all).set("--prompt", ["Your prompt here"]).exits(0)
    };
    call("--completions 100").prints("100");
    call("--completions 100 --concurrent 20").prints("20");
    call("--completions 500 --concurrent 30").prints("500");
    let ended = call("--compare 10 50 100 200 500");
    for count in ["10", "50", "100", "200", "500"] {
        ended.prints(&format!(" {count} "));
    }
    let ended = call("--completions 100 --concurrent-tests 5 10 20 50");
    for count in ["5", "10", "20", "50"] {
        ended.prints(&format!(" {count} "));
    }
    // `--sync`: one request after the other.
    call("--completions 20 --concurrent 1").prints("Maximum request concurrency:             1");
    call("--completions 100 --save --result-dir saved");
    let saved = json(&scene.path("saved/benchmark_100_completions.json"));
    for key in [
        "timestamp",
        "num_completions",
        "concurrent_requests",
        "total_time",
        "avg_latency",
        "throughput",
        "success_rate",
        "error_count",
        "response_times",
        "server_metrics",
    ] {
        assert!(saved.get(key).is_some(), "{key}: {saved}");
    }
    assert_eq!(
        (&saved["num_completions"], &saved["completions"], &saved["success_rate"]),
        (&100.into(), &100.into(), &1.0.into())
    );
    assert_eq!(saved["simulated"], true);
}

#[test]
fn s4_s_configuration_runs_as_it_is() {
    let scene = Scene::new();
    let server = Simulated::start(&scene, "");
    let config = serde_json::json!({
        "server": {"url": format!("{}/v1/chat/completions", server.url), "model": MODEL, "auth_token": "token-abc123", "timeout": 3600},
        "benchmark": {"max_concurrent_requests": 32, "default_prompt": "p", "default_completions": 128},
        "test_scenarios": [
            {"name": "Small Load", "completions": [10, 25, 50], "prompt": "Write a short poem about coding."},
            {"name": "Medium Load", "completions": [100], "prompt": "Explain."},
        ],
    });
    std::fs::write(scene.path("my_config.json"), config.to_string()).unwrap();
    let ended = scene.call(&["load", "--config", "my_config.json", "--max-tokens", "16"]).exits(0);
    let names = files(&scene.path("res"));
    for name in [
        "benchmark_Small_Load_10_completions.json",
        "benchmark_Small_Load_25_completions.json",
        "benchmark_Small_Load_50_completions.json",
        "benchmark_Medium_Load_100_completions.json",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    let report =
        names.iter().find(|name| name.starts_with("benchmark_report_") && name.ends_with(".csv")).expect("a report");
    let (head, lines) = rows(&scene.path("res").join(report));
    for column in [
        "scenario",
        "prompt",
        "num_completions",
        "concurrent_requests",
        "total_time",
        "avg_latency",
        "throughput",
        "success_rate",
        "error_count",
    ] {
        assert!(head.iter().any(|name| name == column), "{column}: {head:?}");
    }
    assert_eq!(lines.len(), 4);
    assert!(!ended.stdout.contains("token-abc123") && !ended.stderr.contains("token-abc123"));
    std::fs::remove_dir_all(scene.path("res")).unwrap();
    scene.call(&["load", "--config", "my_config.json", "--max-tokens", "16", "--no-csv"]).exits(0);
    assert!(!files(&scene.path("res")).iter().any(|name| name.ends_with(".csv")), "--no-csv");
}

// --------------------------------------------------------------------------------------------------- servers of our own

/// A server that answers every POST with these pieces, each written by itself, and then keeps or closes the connection.
struct Scripted {
    url: String,
    served: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    KeepAlive,
    Close,
    Hang,
}

impl Scripted {
    fn start(answer: impl Fn(usize) -> Vec<Vec<u8>> + Send + Sync + 'static, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(AtomicUsize::new(0));
        let (answer, count) = (Arc::new(answer), Arc::clone(&served));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                std::thread::spawn(move || serve(stream, &*answer, &count, then));
            }
        });
        Self { url, served }
    }
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(usize) -> Vec<Vec<u8>>, count: &AtomicUsize, then: Then) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut length, mut first) = (0, String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        if first.starts_with("GET") {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").ok()?;
            continue;
        }
        for piece in answer(count.fetch_add(1, Ordering::SeqCst)) {
            stream.write_all(&piece).ok()?;
        }
        match then {
            Then::KeepAlive => {}
            Then::Close => return None,
            Then::Hang => std::thread::sleep(std::time::Duration::from_secs(3600)),
        }
    }
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A chunk of the chunked encoding.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn token(text: &str) -> Vec<u8> {
    format!(
        "data: {}\n\n",
        serde_json::json!({"id": "c", "choices": [{"index": 0, "text": text, "finish_reason": null}]})
    )
    .into_bytes()
}

/// The end of a sample, without a text.
fn end(reason: &str) -> Vec<u8> {
    let event = serde_json::json!({"choices": [{"index": 0, "text": "", "finish_reason": reason}]});
    format!("data: {event}\n\n").into_bytes()
}

fn usage(tokens: u64) -> Vec<u8> {
    format!(
        "data: {}\n\n",
        serde_json::json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})
    )
    .into_bytes()
}

/// Three tokens, usage and the end.
fn good() -> Vec<u8> {
    [token("a"), token("b"), token("c"), usage(3), b"data: [DONE]\n\n".to_vec()].concat()
}

/// Acceptance 6: streams that no parser expects. None of them may hang, panic or be taken for another.
#[test]
fn broken_streams_neither_hang_nor_panic() {
    let whole = |body: &[u8]| vec![HEAD.to_vec(), chunk(body), b"0\r\n\r\n".to_vec()];
    let bytewise = |body: &[u8]| -> Vec<Vec<u8>> {
        let all = whole(body).concat();
        all.iter().map(|byte| vec![*byte]).collect()
    };
    let text = String::from_utf8(good()).unwrap();
    let huge = format!("data: {{\"choices\":[{{\"index\":0,\"text\":\"{}\"}}]}}\n\n", "x".repeat(3 << 20));
    let endless = token("x").repeat(40_000);
    let head = |status: &str, header: &str, body: &str| {
        let length = body.len();
        vec![format!("HTTP/1.1 {status}\r\n{header}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()]
    };
    let refused = b"HTTP/1.1 500 Internal Server Error\r\ntransfer-encoding: chunked\r\n\r\n";
    type Case = (&'static str, Vec<Vec<u8>>, Then, &'static str);
    let cases: Vec<Case> = vec![
        ("split at every byte", bytewise(&good()), Then::KeepAlive, "ok"),
        ("CRLF line ends", whole(text.replace('\n', "\r\n").as_bytes()), Then::KeepAlive, "ok"),
        ("CR line ends", whole(text.replace('\n', "\r").as_bytes()), Then::KeepAlive, "ok"),
        (
            "comments between events",
            whole(format!(": ping\n\n{}: bye\n\n", text.replace("\n\n", "\n\n: x\n\n")).as_bytes()),
            Then::KeepAlive,
            "ok",
        ),
        (
            "event, id and retry fields",
            whole(text.replace("data:", "event: m\nid: 7\nretry: 5\ndata:").as_bytes()),
            Then::KeepAlive,
            "ok",
        ),
        ("no space after data:", whole(text.replace("data: ", "data:").as_bytes()), Then::KeepAlive, "ok"),
        ("byte order mark", whole(format!("\u{feff}{text}").as_bytes()), Then::KeepAlive, "ok"),
        (
            "one event per chunk",
            {
                let mut pieces = vec![HEAD.to_vec()];
                pieces.extend(text.split_inclusive("\n\n").map(|event| chunk(event.as_bytes())));
                pieces.push(b"0\r\n\r\n".to_vec());
                pieces
            },
            Then::KeepAlive,
            "ok",
        ),
        (
            "chunk extensions and trailers",
            vec![HEAD.to_vec(), format!("{:X};x=y\r\n{text}\r\n0\r\nx-t: 1\r\n\r\n", text.len()).into_bytes()],
            Then::KeepAlive,
            "ok",
        ),
        (
            "length instead of chunks",
            vec![
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{text}",
                    text.len()
                )
                .into_bytes(),
            ],
            Then::KeepAlive,
            "ok",
        ),
        (
            "ended by the close of the connection",
            vec![format!("HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{text}").into_bytes()],
            Then::Close,
            "ok",
        ),
        ("a huge line", whole(&[huge.as_bytes(), &good()].concat()), Then::KeepAlive, "ok"),
        (
            "invalid UTF-8 in a token",
            whole(&[b"data: {\"choices\":[{\"index\":0,\"text\":\"\xff\xfe\"}]}\n\n".to_vec(), good()].concat()),
            Then::KeepAlive,
            "malformed",
        ),
        ("missing DONE", whole(text.replace("data: [DONE]\n\n", "").as_bytes()), Then::KeepAlive, "stream-broken"),
        ("cut in an event", vec![HEAD.to_vec(), chunk(&good()[..good().len() / 2])], Then::Close, "stream-broken"),
        ("cut in the head", vec![b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec()], Then::Close, "stream-broken"),
        ("closed without a word", vec![], Then::Close, "stream-broken"),
        ("no token at all", whole(b"data: [DONE]\n\n"), Then::KeepAlive, "malformed"),
        ("an answer of no token", whole(&[end("stop"), usage(0)].concat()), Then::KeepAlive, "no-token"),
        ("tokens that print nothing", whole(&[end("length"), usage(3)].concat()), Then::KeepAlive, "ok"),
        (
            "a count beyond reason",
            whole(&[token("a"), end("length"), usage(u64::MAX)].concat()),
            Then::KeepAlive,
            "malformed",
        ),
        (
            "a count beyond what was sent",
            whole(&[token("a"), end("length"), usage(4_000_000)].concat()),
            Then::KeepAlive,
            "malformed",
        ),
        (
            "times of a simulation that is none",
            whole(text.replace("\"id\"", "\"sim_times_ns\":[18446744073709551615],\"id\"").as_bytes()),
            Then::KeepAlive,
            "ok",
        ),
        (
            "a count beyond the text and what was asked for",
            whole(&[token("a"), token("b"), token("c"), usage(500), b"data: [DONE]\n\n".to_vec()].concat()),
            Then::KeepAlive,
            "malformed",
        ),
        (
            "more than was asked for",
            whole(&[token("word").repeat(9), usage(9), end("length")].concat()),
            Then::KeepAlive,
            "long",
        ),
        ("a count after the end", whole(&[good(), usage(500), token("d")].concat()), Then::KeepAlive, "ok"),
        (
            "two counts",
            whole(
                text.replace("data: [DONE]", &format!("{}data: [DONE]", String::from_utf8(usage(4)).unwrap()))
                    .as_bytes(),
            ),
            Then::KeepAlive,
            "miscounted",
        ),
        (
            "a count like 3.0",
            whole(text.replace("\"completion_tokens\":3", "\"completion_tokens\":3.0").as_bytes()),
            Then::KeepAlive,
            "ok",
        ),
        (
            "events of several lines",
            whole(text.replace("\"choices\"", "\ndata: \"choices\"").as_bytes()),
            Then::KeepAlive,
            "ok",
        ),
        (
            "an event named error",
            whole(&[token("a"), b"event: error\ndata: {\"message\": \"boom\"}\n\n".to_vec(), good()].concat()),
            Then::KeepAlive,
            "in-stream-error",
        ),
        (
            "an error, then the close of the connection",
            vec![HEAD.to_vec(), chunk(&[token("a"), b"event: error\ndata: boom\n\n".to_vec()].concat())],
            Then::Close,
            "in-stream-error",
        ),
        (
            "an answer given up",
            whole(&[token("a"), end("abort"), usage(1)].concat()),
            Then::KeepAlive,
            "in-stream-error",
        ),
        ("HTTP 204", vec![b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()], Then::KeepAlive, "http-status"),
        ("HTTP 101", vec![b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec()], Then::KeepAlive, "http-status"),
        ("not JSON", whole(b"data: {\"choices\": [\n\ndata: [DONE]\n\n"), Then::KeepAlive, "malformed"),
        ("not HTTP", vec![b"220 smtp ready\r\n".to_vec()], Then::Close, "malformed"),
        ("a chunk size that is none", vec![HEAD.to_vec(), b"zz\r\n".to_vec()], Then::Close, "malformed"),
        (
            "an error object",
            whole(b"data: {\"error\": {\"message\": \"boom\", \"code\": 500}}\n\ndata: [DONE]\n\n"),
            Then::KeepAlive,
            "in-stream-error",
        ),
        (
            "HTTP 429 with a body",
            vec![b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nslow".to_vec()],
            Then::KeepAlive,
            "http-status",
        ),
        (
            "a sample that was not asked for",
            whole(text.replacen("\"index\":0", "\"index\":7", 1).as_bytes()),
            Then::KeepAlive,
            "malformed",
        ),
        (
            "a chunk beyond any size",
            vec![HEAD.to_vec(), b"fffffffffffffffff\r\n".to_vec(), good()],
            Then::Close,
            "malformed",
        ),
        (
            "a web page",
            head("200 OK", "content-type: text/html", "<!DOCTYPE html><p>Hello"),
            Then::KeepAlive,
            "malformed",
        ),
        (
            "an error with status 200",
            head("200 OK", "content-type: application/json", "{\"error\": {\"message\": \"boom\"}}"),
            Then::KeepAlive,
            "in-stream-error",
        ),
        ("compressed", head("200 OK", "content-encoding: gzip", "\u{1f}\u{8b}"), Then::KeepAlive, "malformed"),
        ("a redirect", head("307 Temporary Redirect", "location: /v2", ""), Then::KeepAlive, "http-status"),
        ("a refusal that has no end", vec![refused.to_vec(), chunk(b"no")], Then::Hang, "http-status"),
        ("a refusal that goes on", vec![refused.to_vec(), chunk(&[b'x'; 100_000])], Then::Hang, "http-status"),
        ("endless", vec![HEAD.to_vec(), chunk(&endless)], Then::Hang, "malformed"),
        (
            "interim answers",
            vec![
                [
                    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\n".to_vec(),
                    whole(&good()).concat(),
                ]
                .concat(),
            ],
            Then::KeepAlive,
            "ok",
        ),
        ("endless interim answers", vec![b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000)], Then::Close, "malformed"),
        (
            "endless head",
            vec![b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-a: b\r\n".repeat(200_000)],
            Then::Close,
            "malformed",
        ),
        ("silence", vec![], Then::Hang, "timeout+not-sent"),
        ("silence amid a stream", vec![HEAD.to_vec(), chunk(&token("a"))], Then::Hang, "timeout+not-sent"),
        (
            "nothing but comments",
            [vec![HEAD.to_vec()], vec![chunk(b": ping\n\n"); 20]].concat(),
            Then::Hang,
            "timeout+not-sent",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, pieces, then, expected) in cases {
        let server = Scripted::start(move |_| pieces.clone(), then);
        let scene = Scene::new();
        let line = "--model m --tokenizer none --prompt hi --num-prompts 3 --max-concurrency 2 --output-len 3 --request-timeout 30s --stall-timeout 2s --no-server-metrics";
        let ended = load(&scene, &server.url, line).ends();
        let code = ended.status.code();
        let seen = match scene.path("r.json").exists() {
            false => format!("no result: {}", ended.stderr),
            true => {
                let found = failures(&scene);
                let completed = result(&scene)["completed"].as_u64().unwrap();
                match (completed, found.as_slice()) {
                    (3, []) => "ok".to_owned(),
                    (_, classes) => classes.iter().map(|(class, _)| class.as_str()).collect::<Vec<_>>().join("+"),
                }
            }
        };
        let told = matches!(code, Some(0 | 1)) && !seen.starts_with("no result");
        if !(told && seen == expected) {
            wrong.push(format!("{name}: {seen} with {code:?}, {expected} was expected"));
        }
        assert!(server.served.load(Ordering::SeqCst) <= 6, "{name}: asked again and again");
        eprintln!("{name}: {seen}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A server with a certificate that nobody signed.
fn over_tls() -> String {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || -> Option<()> {
                let session = rustls::ServerConnection::new(config).ok()?;
                let mut stream = rustls::StreamOwned::new(session, stream);
                let mut read = Vec::new();
                loop {
                    let mut piece = [0; 4096];
                    let held = stream.read(&mut piece).ok().filter(|held| *held > 0)?;
                    read.extend_from_slice(&piece[..held]);
                    if read.starts_with(b"GET ") && read.ends_with(b"\r\n\r\n") {
                        read.clear();
                        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?;
                    }
                    // A request of this test ends with its body's closing brace.
                    if read.ends_with(b"}") {
                        read.clear();
                        stream.write_all(HEAD).ok()?;
                        for piece in good().chunks(40) {
                            stream.write_all(&chunk(piece)).ok()?;
                        }
                        stream.write_all(b"0\r\n\r\n").ok()?;
                    }
                }
            });
        }
    });
    format!("https://localhost:{port}")
}

#[test]
fn https_is_checked_unless_told_otherwise() {
    let scene = Scene::new();
    let url = over_tls();
    let line =
        "--model m --tokenizer none --prompt hi --output-len 3 --num-prompts 6 --max-concurrency 2 --no-server-metrics";
    load(&scene, &url, line).exits(1).prints("certificate");
    assert_eq!(result(&scene)["completed"], 0);
    load(&scene, &url, line).flag("--insecure").exits(0);
    let found = result(&scene);
    assert_eq!((&found["completed"], &found["total_output_tokens"]), (&6.into(), &18.into()));
}

#[test]
fn reasoning_is_output_and_a_role_is_no_token() {
    let delta = |delta: Value| {
        format!("data: {}\n\n", serde_json::json!({"choices": [{"index": 0, "delta": delta}]})).into_bytes()
    };
    let scene = Scene::new();
    let server = Scripted::start(
        move |_| {
            vec![
                HEAD.to_vec(),
                chunk(&delta(serde_json::json!({"role": "assistant", "content": ""}))),
                chunk(&delta(serde_json::json!({"reasoning_content": "hm"}))),
                chunk(&delta(serde_json::json!({"content": "yes"}))),
                chunk(b"data: [DONE]\n\n"),
                b"0\r\n\r\n".to_vec(),
            ]
        },
        Then::KeepAlive,
    );
    let line =
        "--backend openai-chat --model m --tokenizer none --prompt hi --num-prompts 2 --output-len 9 --save-detailed";
    load(&scene, &server.url, line).exits(0).prints("an estimate");
    let found = result(&scene);
    assert_eq!(
        (&found["total_output_tokens"], &found["vllm_bench_load"]["estimated_token_counts"]),
        (&4.into(), &2.into())
    );
    assert_eq!(found["itls"][0].as_array().map(Vec::len), Some(1));
}

/// What may make a result other than it looks is on the screen, in the result and in the analysis.
#[test]
fn known_hazards_are_said() {
    let scene = Scene::new();
    tokenizer(&scene.path("tokenizer"));
    std::fs::write(scene.path("p.jsonl"), "{\"prompt\": \"word word word\"}\n".repeat(6)).unwrap();
    let warm = serde_json::json!({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 28}}});
    let body = [token("a"), token("b"), token("c"), format!("data: {warm}\n\ndata: [DONE]\n\n").into_bytes()].concat();
    let server = Scripted::start(
        move |number| {
            std::thread::sleep(std::time::Duration::from_millis(if number == 0 { 400 } else { 0 }));
            vec![HEAD.to_vec(), chunk(&body), b"0\r\n\r\n".to_vec()]
        },
        Then::KeepAlive,
    );
    let line = "--model m --tokenizer tokenizer --dataset-name custom --dataset-path p.jsonl --num-prompts 6 --max-concurrency 1 \
        --skip-chat-template --custom-output-len 3";
    let ended = load(&scene, &server.url, line).exits(0);
    ended.says("93.3 % of the prompt tokens came from the prefix cache").says("the first request took");
    ended.says("prompts have 180 tokens as counted, 18 were asked for");
    let own = result(&scene)["vllm_bench_load"].clone();
    assert_eq!(own["warnings"].as_array().map(Vec::len), Some(3), "{}", own["warnings"]);
    assert_eq!((&own["request"]["temperature"], &own["request"]["ignore_eos"]), (&0.0.into(), &false.into()));
    let ended = scene.call(&["analyze", "r.json", "--format", "json"]).exits(0);
    for kind in ["prefix-cache-hits", "prompt-tokens", "slow-first-request"] {
        ended.prints(kind);
    }
}

/// Answers that are longer than asked for, and counts that are not what was streamed, are told wherever short ones are.
#[test]
fn long_and_miscounted_answers_are_warnings_everywhere() {
    let scene = Scene::new();
    let server = Scripted::start(
        |number| {
            let count = if number % 2 == 0 { 9 } else { 3 };
            let body = [token("word").repeat(9), usage(count), b"data: [DONE]\n\n".to_vec()].concat();
            vec![HEAD.to_vec(), chunk(&body), b"0\r\n\r\n".to_vec()]
        },
        Then::KeepAlive,
    );
    let line =
        "--model m --tokenizer none --prompt hi --output-len 3 --num-prompts 4 --max-concurrency 1 --no-server-metrics";
    let ended = load(&scene, &server.url, line).exits(0);
    ended.prints("2 x 9 tokens, where 3 were asked for");
    ended.prints("2 x the server counts 3 tokens, but sent 36 bytes of text in 9 events");
    let own = result(&scene)["vllm_bench_load"].clone();
    let warnings = own["warnings"].to_string();
    assert!(warnings.contains("2 answers were longer than asked for"), "{warnings}");
    assert!(warnings.contains("counted the tokens of 2 answers otherwise"), "{warnings}");
    scene.call(&["analyze", "r.json", "--format", "json"]).exits(0).prints("long-outputs").prints("miscounted-tokens");
}

#[test]
fn a_load_warms_up_by_itself_with_prompts_that_are_not_measured() {
    let scene = Scene::new();
    let server = Scripted::start(|_| vec![HEAD.to_vec(), chunk(&good()), b"0\r\n\r\n".to_vec()], Then::KeepAlive);
    let line =
        "--model m --tokenizer none --prompt hi --output-len 3 --num-prompts 5 --max-concurrency 2 --save-result";
    let call = |more: &str| {
        let line =
            format!("load --base-url {} --result-filename r.json --requests-csv q.csv {line} {more}", server.url);
        scene.call(&line.split_whitespace().collect::<Vec<_>>()).exits(0)
    };
    call("").says("warming up: 2 requests").says("--num-warmups 0");
    assert_eq!((server.served.load(Ordering::SeqCst), &result(&scene)["completed"]), (7, &5.into()));
    assert_eq!((rows(&scene.path("q.csv")).1.len(), &result(&scene)["vllm_bench_load"]["warmups"]), (5, &2.into()));
    call("--num-warmups 0");
    assert_eq!(server.served.load(Ordering::SeqCst), 12);
    // A server that hangs is not waited for twice.
    let silent = Scripted::start(|_| vec![], Then::Hang);
    let line = line.replace("--save-result", "--save-result --result-filename h.json --stall-timeout 1s");
    let line = format!("load --base-url {} {line}", silent.url);
    scene.call(&line.split_whitespace().collect::<Vec<_>>()).exits(1).says("2 of 2 warm-up requests failed");
    let found = json(&scene.path("h.json"));
    assert_eq!((&found["vllm_bench_load"]["gave_up"], &found["failed"]), (&"hung".into(), &5.into()));
    assert_eq!(silent.served.load(Ordering::SeqCst), 2);
}

#[test]
fn an_open_load_offers_what_it_was_asked_for() {
    let scene = Scene::new();
    let server = Scripted::start(|_| vec![HEAD.to_vec(), chunk(&good()), b"0\r\n\r\n".to_vec()], Then::KeepAlive);
    let line =
        "--model m --tokenizer none --prompt hi --output-len 3 --num-prompts 60 --request-rate 100 --no-server-metrics";
    for burstiness in ["1", "inf"] {
        load(&scene, &server.url, line).set("--burstiness", [burstiness]).exits(0);
        let found = result(&scene);
        let own = &found["vllm_bench_load"];
        assert_eq!(
            (&found["request_rate"], &own["load_pattern"], &own["offered_rate"]),
            (&100.0.into(), &"open".into(), &"100.0".into())
        );
        assert!(
            own["achieved_rate"].as_f64().is_some()
                && own["late_requests"].as_u64().is_some()
                && own["client_queue_time_ms"].is_object()
        );
        assert!(
            found["duration"].as_f64().unwrap() >= 0.58,
            "60 requests at 100/s end after 0.6 s: {}",
            found["duration"]
        );
    }
    // A ramp, and a load that is limited by time.
    let ramp = "--ramp-up-strategy linear --ramp-up-start-rps 20 --ramp-up-end-rps 200 --num-prompts 60";
    load(&scene, &server.url, &format!("--model m --tokenizer none --prompt hi --output-len 3 {ramp}")).exits(0);
    let found = result(&scene);
    assert_eq!((&found["ramp_up_strategy"], &found["completed"]), (&"linear".into(), &60.into()));
    load(
        &scene,
        &server.url,
        "--model m --tokenizer none --prompt hi --output-len 3 --duration 1s --max-concurrency 2",
    )
    .exits(0);
    let found = result(&scene);
    assert!(found["completed"].as_u64().unwrap() > 10 && found["duration"].as_f64().unwrap() >= 0.9, "{found}");
}

#[test]
fn wrong_words_are_refused_before_anything_is_sent() {
    let scene = Scene::new();
    for (line, told) in [
        ("--num-prompts many", "--num-prompts"),
        ("--dataset-name nonsense", "--dataset-name"),
        ("--base-url ftp://x", "http"),
        ("--scenarios nowhere.yaml", "nowhere.yaml"),
        ("--dataset-name custom --dataset-path nowhere.jsonl --model m", "nowhere.jsonl"),
        ("--result-dir /proc/nowhere --model m", "/proc/nowhere"),
        ("--max-concurency 3", "--max-concurrency"),
        ("--name x", "--scenarios"),
        ("--no-stream", "--non-streaming"),
    ] {
        let words: Vec<&str> = std::iter::once("load").chain(line.split_whitespace()).collect();
        let ended = scene.call(&words).ends();
        ended.check(matches!(ended.status.code(), Some(1..=5)), "a documented exit code");
        ended.says(told);
    }
}

#[test]
fn too_few_prompts_is_an_error_that_says_how_many_there_are() {
    let scene = Scene::new();
    let server = Scripted::start(|_| vec![HEAD.to_vec(), chunk(&good()), b"0\r\n\r\n".to_vec()], Then::KeepAlive);
    std::fs::write(scene.path("p.jsonl"), "{\"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n").unwrap();
    let line = "--model m --tokenizer none --dataset-name custom --dataset-path p.jsonl --num-prompts 5 --custom-output-len 3 --skip-chat-template";
    let ended = load(&scene, &server.url, line).ends();
    ended.check(!ended.status.success(), "too few");
    ended.says("5 prompts were asked for").says("has 2");
    assert!(!scene.path("r.json").exists());
}

/// A hub with one data set; hands over what it was asked, line by line.
fn hub() -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
            heard.lock().unwrap().extend(head);
            let body = match path.as_str() {
                "/api/datasets/org/set" => {
                    r#"{"siblings": [{"rfilename": "README.md"}, {"rfilename": "data/train.jsonl"}, {"rfilename": "data/test.jsonl"}]}"#.to_owned()
                }
                "/datasets/org/set/resolve/main/data/train.jsonl" => {
                    (0..9).map(|n| format!("{{\"question\": \"word number {n} of the hub\"}}\n")).collect()
                }
                _ => {
                    let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    continue;
                }
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    (url, asked)
}

#[test]
fn data_sets_come_from_the_hub_with_the_token_that_is_shown_nowhere() {
    let scene = Scene::new();
    tokenizer(&scene.path("tokenizer"));
    let (endpoint, asked) = hub();
    let inspect = |set: &str| {
        let words =
            ["prompts", "inspect", "--dataset-name", "hf", "--dataset-path", set, "--prompt-column", "question"];
        let call = scene.call(&words).set("--tokenizer", ["tokenizer"]).set("--hf-split", ["train"]);
        call.env("HF_ENDPOINT", &endpoint).env("HF_TOKEN", "hf_notToBeShown123").set("--show", ["9"]).ends()
    };
    let ended = inspect("org/set");
    ended.check(ended.status.success(), "the data set is there");
    assert_eq!(ended.stdout.matches("of the hub").count(), 9, "{}", ended.stdout);
    assert!(!format!("{}{}", ended.stdout, ended.stderr).contains("hf_notToBeShown"));
    assert!(asked.lock().unwrap().iter().any(|line| line.to_lowercase() == "authorization: bearer hf_nottobeshown123"));
    let ended = inspect("org/other");
    ended.check(!ended.status.success(), "no such data set");
    ended.says("org/other").says("404");
}

// ------------------------------------------------------------------------------------------------- run --client builtin

#[test]
fn a_sweep_with_the_builtin_client_leaves_the_files_of_one_with_vllm_s() {
    let names = |client: &str| -> (Vec<String>, Value) {
        let scene = Scene::new();
        scene.sweep().set("--client", [client]).exits(0);
        let run = scene.run();
        run.assert_journal_complete();
        let found = run.result(crate::support::FIRST);
        let mut all: Vec<PathBuf> = vec![run.path("")];
        let mut names = Vec::new();
        while let Some(folder) = all.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    all.push(path);
                } else {
                    names.push(path.strip_prefix(run.path("")).unwrap().to_string_lossy().into_owned());
                }
            }
        }
        names.sort();
        (names, found)
    };
    let (with_vllm, theirs) = names("vllm");
    let (with_builtin, ours) = names("builtin");
    assert_eq!(with_vllm, with_builtin);
    let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let own = |key: &String| key != "vllm_bench_load";
    assert_eq!(keys(&theirs), keys(&ours).into_iter().filter(own).collect::<Vec<_>>());
    assert_eq!(ours["vllm_bench"]["client"], "builtin");
    assert_ne!(
        ours["vllm_bench"]["identity"], theirs["vllm_bench"]["identity"],
        "metrics of two clients do not stand for each other"
    );
    for key in ["completed", "total_output_tokens", "total_input_tokens"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert!(ours["simulated"] == true && ours["vllm_bench"]["simulated"] == true);
}

#[test]
fn failures_under_the_builtin_client_are_told_as_such() {
    let scene = Scene::new();
    scene.sweep().set("--client", ["builtin"]).set("--enforce-eager", ["true"]).fault("requests-fail:2").exits(1);
    let failure = scene.run().failure(crate::support::FIRST);
    assert_eq!(failure["cause"], "requests-failed", "{failure}");
    let scene = Scene::new();
    let call = scene.sweep().set("--client", ["builtin"]).set("--enforce-eager", ["true"]);
    call.fault("die-in-benchmark:kill").exits(1);
    let failure = scene.run().failure(crate::support::FIRST);
    assert!(failure["cause"].as_str().unwrap().contains("server"), "{failure}");
}

#[test]
fn what_the_builtin_client_would_refuse_is_refused_before_the_first_start() {
    let scene = Scene::new();
    let refused = |arg: &str, told: &str| {
        let ended = scene.sweep().set("--client", ["builtin"]).also("--bench-arg", arg).exits(2);
        ended.says(told);
        assert!(scene.runs().is_empty(), "nothing was begun");
    };
    refused("no-such-flag=3", "no-such-flag");
    refused("burstiness=0", "--burstiness");
    refused("num-runs=2", "list");
    for (flag, value, told) in
        [("--num-prompts", "1000000000000", "up to 100000000"), ("--input-len", "10000000000", "up to 16000000")]
    {
        let call = scene.sweep().set("--client", ["builtin"]).set("--no-rule", ["context-length"]);
        call.set(flag, [value]).exits(2).says(told);
        assert!(scene.runs().is_empty(), "nothing was begun");
    }
    let ended = scene.sweep().set("--client", ["builtin"]).fault("benchmark-hangs").exits(2);
    ended.says("benchmark-");
}

/// A server that never answers some requests for `/metrics`, and the others as `other` says. Tells of each that it holds.
fn silent_metrics(answered: usize, other: Vec<u8>) -> (String, std::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut held, mut metrics) = (Vec::new(), 0);
        for mut stream in listener.incoming().flatten() {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).unwrap_or_default();
            if piece[..read].starts_with(b"GET /metrics") {
                metrics += 1;
                if metrics > answered {
                    let _ = sender.send(());
                    held.push(stream);
                } else {
                    let _ = stream.write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\nConnection: close\r\n\r\nvllm:prompt_tokens_total 0",
                    );
                }
            } else if piece[..read].starts_with(b"POST ") {
                let _ = stream.write_all(&other);
                held.push(stream);
            } else {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        }
    });
    (url, asked)
}

const METRICS_LOAD: &str = "--model m --tokenizer none --prompt hi --output-len 3 --num-prompts 2 --max-concurrency 1";

/// A server that never answers at `/metrics` keeps nobody: a signal is heard, and is the exit code.
#[test]
fn a_signal_is_heard_while_the_server_does_not_tell_its_metrics() {
    let scene = Scene::new();
    let (url, asked) = silent_metrics(0, [HEAD, &chunk(&good()), b"0\r\n\r\n"].concat());
    let call = load(&scene, &url, METRICS_LOAD).start();
    asked.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    call.signal(Signal::SIGTERM);
    let ended = call.ends();
    ended.check(ended.status.code() == Some(143), "128 + SIGTERM");
    assert_eq!(result(&scene)["vllm_bench_load"]["interrupted"], true);
    assert_eq!(
        (result(&scene)["completed"].clone(), result(&scene)["failed"].clone()),
        (0.into(), 2.into()),
        "{}",
        result(&scene)
    );
}

/// A data set that comes through a pipe and has no end, and a client that reads it: it has taken more than the pipe holds.
fn endless_prompts(scene: &Scene, url: &str, flags: &[&str]) -> Child {
    let mut child = Command::new(BIN)
        .current_dir(scene.path(""))
        .args(["load", "--base-url", url, "--model", "m", "--tokenizer", "none", "--num-prompts", "2"])
        .args([
            "--dataset-name",
            "text",
            "--dataset-path",
            "/dev/stdin",
            "--save-result",
            "--result-filename",
            "r.json",
        ])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(&b"some text\n".repeat(100_000)).unwrap();
    child
}

#[test]
fn a_signal_and_the_total_timeout_are_heard_while_prompts_are_made() {
    let scene = Scene::new();
    let (url, _asked) = silent_metrics(0, Vec::new());
    let mut child = endless_prompts(&scene, &url, &[]);
    let held = child.stdin.take();
    nix::sys::signal::kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "128 + SIGTERM");
    drop(held);
    let found = result(&scene);
    assert_eq!((&found["completed"], &found["failed"]), (&0.into(), &2.into()), "{found}");
    assert_eq!(found["vllm_bench_load"]["interrupted"], true);

    let scene = Scene::new();
    let mut child = endless_prompts(&scene, &url, &["--total-timeout", "1s"]);
    let held = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    drop(held);
    let found = result(&scene);
    assert_eq!((&found["completed"], &found["failed"]), (&0.into(), &2.into()), "{found}");
}

/// The second signal ends what the first has not ended yet, by an exit code as documented.
#[test]
fn a_second_signal_ends_a_load_at_once() {
    let scene = Scene::new();
    let (url, asked) = silent_metrics(1, Vec::new());
    let line = format!("{METRICS_LOAD} --ready-check-timeout-sec 0");
    let call = load(&scene, &url, &line).start();
    // Asked for again and again while the load waits for its first token, and once more at its end.
    asked.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    call.signal(Signal::SIGINT);
    asked.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    call.signal(Signal::SIGINT);
    let ended = call.ends();
    ended.check(ended.status.code() == Some(130), "128 + SIGINT");
    ended.check(ended.stderr.contains("stopped at once by a second signal"), "says so");
}
