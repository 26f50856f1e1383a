//! Server and client in one process, over real sockets, at infinite speed: no port is fixed, nothing sleeps.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::client::{self, Options};
use super::engine::Engine;
use super::flags::{SERVE, ServeConfig};
use super::log::Log;
use super::server::process::Ids;
use super::server::{Launch, http, startup};
use super::settings::{SimSettings, Speed};
use crate::load::metrics::Metrics;

struct Server {
    address: String,
    engine: Arc<Engine>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_string).collect()
}

fn settings(faults: &str) -> SimSettings {
    SimSettings {
        speed: Speed::INFINITE,
        faults: super::fault::parse_list(faults).expect("faults"),
        ..SimSettings::default()
    }
}

async fn server(flags: &str, settings: &SimSettings) -> Server {
    let config = ServeConfig::new(SERVE.parse(&words(flags)).expect("flags"));
    let launch = Launch::new(config, settings.clone(), Log::into(std::io::sink()));
    let engine = Arc::new(launch.make_engine());
    let app = http::App::new(&launch, Arc::clone(&engine));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("address"));
    let task = tokio::spawn(async move { http::serve(listener, app).await.expect("serves") });
    Server { address, engine, task }
}

fn http() -> reqwest::Client {
    crate::http::client(false).build().expect("client")
}

/// The numbers, and the result file as `--save-detailed` writes it.
async fn bench(server: &Server, flags: &str) -> (Metrics, Map<String, Value>) {
    let options =
        Options::parse(&words(&format!("--base-url {} --disable-tqdm {flags}", server.address))).expect("options");
    let mut measured = client::benchmark(&options, &[], true, &|_| {}).await.expect("a benchmark");
    let result = client::result(&options, &mut measured, true, "20260101-000000");
    (measured.metrics, result)
}

const SERVE_FLAGS: &str = "Qwen/Qwen3-4B-Thinking-2507 -tp 2 --max-model-len 4096 --max-num-batched-tokens 2048 \
    --no-enable-prefix-caching";
const BENCH_FLAGS: &str = "--model Qwen/Qwen3-4B-Thinking-2507 --random-input-len 200 --random-output-len 40 --ignore-eos \
    --random-range-ratio 0.3 --max-concurrency 8 --num-prompts 40 --num-warmups 3";

#[tokio::test]
async fn two_runs_give_the_same_numbers() {
    let settings = settings("");
    for load in ["", "--request-rate 4 --burstiness 0.7"] {
        let flags = format!("{BENCH_FLAGS} {load}");
        let first = bench(&server(SERVE_FLAGS, &settings).await, &flags).await;
        let again = server(SERVE_FLAGS, &settings).await;
        assert!(bench(&again, &flags).await == first, "another server");
        assert!(bench(&again, &flags).await == first, "the same server again");
        assert_eq!((first.0.completed, first.0.failed), (40, 0));
        let gaps =
            first.1["itls"].as_array().expect("times").iter().map(|gaps| gaps.as_array().map_or(0, Vec::len) as u64);
        assert_eq!(gaps.sum::<u64>() + 40, first.0.total_output);
        let other = SimSettings { seed: 1, ..settings.clone() };
        let server = server(SERVE_FLAGS, &other).await;
        assert_ne!(bench(&server, &flags).await.0.duration, first.0.duration, "another seed");
    }
}

#[tokio::test]
async fn with_a_prefix_cache_the_same_prompts_are_found_again() {
    let settings = settings("");
    let cached = SERVE_FLAGS.replace("--no-enable-prefix-caching", "--block-size 16");
    let server = server(&cached, &settings).await;
    let first = bench(&server, BENCH_FLAGS).await.0;
    let before = server.engine.metrics.with(|counters| counters.prefix_hits);
    let again = bench(&server, BENCH_FLAGS).await.0;
    let hits = server.engine.metrics.with(|counters| counters.prefix_hits) - before;
    let input = again.total_input.expect("counted");
    assert!(hits > input * 8 / 10 && again.ttft.mean < first.ttft.mean, "{hits} of {input}");
    server.engine.forget_prefixes();
    assert_eq!(bench(&server, BENCH_FLAGS).await.0, first, "after a reset it is as at the beginning");
}

#[tokio::test]
async fn what_fails_is_counted_and_deterministic() {
    let settings = settings("requests-fail:3");
    let server = server(SERVE_FLAGS, &settings).await;
    let (metrics, result) = bench(&server, BENCH_FLAGS).await;
    assert_eq!((metrics.completed, metrics.failed), (37, 3));
    let errors = result["errors"].as_array().expect("errors");
    assert!(errors[..3].iter().all(|error| error.as_str().unwrap().starts_with("HTTP 500: ")), "{errors:?}");
    assert!(errors[3..].iter().all(|error| error == ""));
    assert_eq!(bench(&server, BENCH_FLAGS).await.0, metrics);
    let (metrics, _) = bench(&server, "--model other --num-prompts 4 --max-concurrency 2").await;
    assert_eq!((metrics.completed, metrics.failed), (0, 4));
}

#[tokio::test]
async fn more_tensor_parallelism_and_compilation_serve_faster() {
    let settings = settings("");
    let mut throughput = Vec::new();
    for flags in ["-tp 2 --enforce-eager", "-tp 2", "-tp 4", "-tp 8"] {
        let server = server(&format!("Qwen/Qwen3-4B-Thinking-2507 --max-model-len 4096 {flags}"), &settings).await;
        throughput.push(bench(&server, BENCH_FLAGS).await.0.request_throughput);
    }
    assert!(throughput.windows(2).all(|pair| pair[0] < pair[1]), "{throughput:?}");
}

async fn post(server: &Server, path: &str, body: &str) -> (u16, Value) {
    let response =
        http().post(format!("{}{path}", server.address)).body(body.to_string()).send().await.expect("response");
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.expect("body")).unwrap_or_default())
}

async fn get(server: &Server, path: &str) -> (u16, String) {
    let response = http().get(format!("{}{path}", server.address)).send().await.expect("response");
    (response.status().as_u16(), response.text().await.expect("text"))
}

#[tokio::test]
async fn the_interface_is_that_of_vllm() {
    let server =
        server("m/Tiny-1B --served-model-name tiny other --max-model-len 100", &settings("late-healthy:2")).await;
    assert_eq!(get(&server, "/health").await.0, 503);
    assert_eq!(get(&server, "/health").await.0, 503);
    assert_eq!(get(&server, "/health").await, (200, String::new()));
    assert!(get(&server, "/v1/models").await.1.contains("\"id\":\"other\""));
    assert_eq!(get(&server, "/nothing").await.0, 404);

    let (status, body) = post(
        &server,
        "/v1/completions",
        r#"{"model":"tiny","prompt":"one two","max_tokens":5,"n":2,"ignore_eos":true}"#,
    )
    .await;
    assert_eq!(
        (status, body.pointer("/usage/completion_tokens"), body.pointer("/choices/1/finish_reason")),
        (200, Some(&10.into()), Some(&"length".into()))
    );
    let (status, body) =
        post(&server, "/v1/chat/completions", r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":3}"#).await;
    assert_eq!((status, body.pointer("/choices/0/message/role")), (200, Some(&"assistant".into())));
    let (status, body) = post(&server, "/v1/completions", r#"{"model":"gone","prompt":"x"}"#).await;
    assert_eq!((status, body.pointer("/error/message")), (404, Some(&"The model `gone` does not exist.".into())));
    let (status, body) = post(&server, "/v1/completions", r#"{"prompt":"x","max_tokens":1000}"#).await;
    assert!(status == 400 && body.to_string().contains("maximum context length is 100"), "{body}");
    assert_eq!(post(&server, "/v1/completions", "{").await.0, 400);

    let (_, tokens) = post(&server, "/tokenize", r#"{"prompt":"hello world"}"#).await;
    assert_eq!(tokens["count"], 2);
    assert_eq!(post(&server, "/detokenize", &tokens.to_string()).await.1["prompt"], "hello world");
    assert_eq!(post(&server, "/reset_prefix_cache", "").await.0, 404, "only in development mode");
    let metrics = get(&server, "/metrics").await.1;
    assert!(metrics.contains("vllm:generation_tokens_total{engine=\"0\",model_name=\"tiny\"} 13.0"), "{metrics}");
    assert!(metrics.contains("vllm_bench_simulated 1"));
}

#[tokio::test]
async fn streams_carry_one_token_per_event_and_usage() {
    let server = server("m/Tiny-1B --api-key secret", &settings("")).await;
    let body =
        r#"{"prompt":[1,2,3],"max_tokens":4,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true}}"#;
    let url = format!("{}/v1/completions", server.address);
    assert_eq!(http().post(&url).body(body).send().await.expect("response").status(), 401);
    let text =
        http().post(&url).bearer_auth("secret").body(body).send().await.expect("response").text().await.expect("text");
    let events: Vec<Value> =
        text.split("\n\n").filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok()).collect();
    assert_eq!(events.len(), 5, "{text}");
    assert_eq!(events[3].pointer("/choices/0/finish_reason"), Some(&"length".into()));
    assert!(events[0]["sim_time"].as_f64() < events[3]["sim_time"].as_f64());
    assert_eq!(events[4].pointer("/usage/total_tokens"), Some(&7.into()));
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let server = server("m/Tiny-1B --max-model-len 40000", &settings("")).await;
    let work = super::engine::Work {
        session: None,
        prompt_tokens: 10,
        blocks: Arc::default(),
        output_tokens: 39_000,
        by_length: true,
    };
    let mut answer = server.engine.submit(work);
    assert!(answer.next().await.is_some());
    drop(answer);
    while server.engine.metrics.with(|counters| counters.by_abort) == 0 {
        tokio::task::yield_now().await;
    }
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts without processes; the exit code of a start that failed, and the log.
async fn start(flags: &str, faults: &str) -> (Option<u8>, String) {
    let captured = Captured::default();
    let config = ServeConfig::new(SERVE.parse(&words(&format!("{flags} --port 0"))).expect("flags"));
    let launch = Launch::new(config, settings(faults), Log::into(captured.clone()));
    let ids = Ids { engine: 101, worker: 102 };
    let code = match startup::api_server(&launch).await {
        Err(code) => Some(code),
        Ok(_socket) => startup::engine(&launch, ids).await.err(),
    };
    let log = String::from_utf8_lossy(&captured.0.lock().expect("not poisoned")).into_owned();
    assert!(log.contains("SIMULATED"), "{log}");
    (code, log)
}

#[tokio::test]
async fn starts_that_fail_say_what_the_real_one_says() {
    let core = "RuntimeError: Engine core initialization failed. See root cause above.";
    for (flags, fault, lines) in [
        (
            "m/1B -tp 2",
            "out-of-memory",
            ["(Worker_TP0 pid=102) ERROR", "torch.OutOfMemoryError: XPU out of memory.", core],
        ),
        (
            "m/1B",
            "kv-cache",
            ["EngineCore failed to start.", "ValueError: No available memory for the cache blocks.", core],
        ),
        (
            "m/1B",
            "kv-cache:small",
            [
                "(EngineCore_DP0 pid=101)",
                "ValueError: To serve at least one request with the models's max seq len",
                core,
            ],
        ),
        ("m/1B", "level-zero", ["UR_RESULT_ERROR_DEVICE_LOST", "level_zero backend failed", core]),
        ("m/1B", "shared-memory", ["[Errno 28] No space left on device", "shm_broadcast", core]),
        ("m/1B", "dtype-unsupported", ["Bfloat16 is only supported", "--dtype=half", core]),
        ("m/1B", "port-taken", ["OSError: [Errno 98] Address already in use", "sock.bind(addr)", "(APIServer pid="]),
        ("m/1B", "model-not-found", ["is not a valid model identifier", "Repository Not Found", "m/1B"]),
        ("m/1B", "gated-model", ["You are trying to access a gated repo", "401 Client Error", "m/1B"]),
        ("m/1B", "network", ["Max retries exceeded", "We couldn't connect to 'https://huggingface.co'", "resolution"]),
        (
            "m/1B",
            "quantization-unsupported",
            ["quantization is currently not supported", "ValidationError", "ModelConfig"],
        ),
        (
            "m/1B -tp 4",
            "too-many-devices",
            ["World size (4) is larger than the number of available GPUs (2)", "ParallelConfig", "ValidationError"],
        ),
        ("m/1B -tp 16", "", ["World size (16) is larger than the number of available GPUs (8)", "", ""]),
        ("m/1B -tp 3", "", ["must be divisible by tensor parallel size (3)", "", ""]),
        (
            "m/1B --max-model-len 1M",
            "",
            ["is greater than the derived max_model_len", "VLLM_ALLOW_LONG_MAX_MODEL_LEN", ""],
        ),
        ("m/1B --quantization off", "", ["Unknown quantization method: off.", "ModelConfig", ""]),
        ("Qwen/Qwen3-30B-A3B", "", ["torch.OutOfMemoryError", "Starting to load model Qwen/Qwen3-30B-A3B...", core]),
    ] {
        let (code, log) = start(flags, fault).await;
        assert_eq!(code, Some(1), "{flags} {fault}: {log}");
        for line in lines {
            assert!(log.contains(line), "{flags} {fault}: {line}\n{log}");
        }
    }
    assert_eq!(start("m/1B", "exit-at-start:9").await.0, Some(9));
}

#[tokio::test]
async fn a_start_that_works_shows_its_phases() {
    let (code, log) = start("Qwen/Qwen3-4B-Thinking-2507 -tp 2 --max-model-len 10000", "garbage-log").await;
    assert_eq!(code, None, "{log}");
    for line in [
        "Loading safetensors checkpoint shards: 100% Completed",
        "torch.compile takes",
        "GPU KV cache size: ",
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 100%",
    ] {
        assert!(log.contains(line), "{line}");
    }
    let (_, log) = start("Qwen/Qwen3-4B-Thinking-2507 -tp 2 --max-model-len 10000 --enforce-eager", "").await;
    assert!(log.contains("Enforce eager set") && !log.contains("Capturing") && !log.contains("torch.compile"));
}
