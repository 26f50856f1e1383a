//! Server and client in one process, over real sockets, at infinite speed: no port is fixed, nothing sleeps.

use std::sync::Arc;

use serde_json::Value;

use super::client::stats::{Metrics, Outcome};
use super::client::{self, Options};
use super::engine::Engine;
use super::flags::{SERVE, ServeConfig};
use super::log::Log;
use super::server::{Launch, http};
use super::settings::{SimSettings, Speed};

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
    let launch = Launch::new(config, settings.clone(), Log::nowhere());
    let engine = Arc::new(launch.make_engine());
    let app = http::App::new(&launch, Arc::clone(&engine));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("address"));
    let task = tokio::spawn(async move { http::serve(listener, app).await.expect("serves") });
    Server { address, engine, task }
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("client")
}

async fn bench(server: &Server, flags: &str, settings: &SimSettings) -> (Metrics, Vec<Outcome>) {
    let options =
        Options::parse(&words(&format!("--base-url {} --disable-tqdm {flags}", server.address))).expect("options");
    client::benchmark(&options, settings, &http(), &[], &|_| {}).await.expect("a benchmark")
}

const SERVE_FLAGS: &str = "Qwen/Qwen3-4B-Thinking-2507 -tp 2 --max-model-len 4096 --max-num-batched-tokens 2048";
const BENCH_FLAGS: &str = "--model Qwen/Qwen3-4B-Thinking-2507 --random-input-len 200 --random-output-len 40 --ignore-eos \
    --random-range-ratio 0.3 --max-concurrency 8 --num-prompts 40 --num-warmups 3";

#[tokio::test]
async fn two_runs_give_the_same_numbers() {
    let settings = settings("");
    for load in ["", "--request-rate 4 --burstiness 0.7"] {
        let flags = format!("{BENCH_FLAGS} {load}");
        let first = bench(&server(SERVE_FLAGS, &settings).await, &flags, &settings).await;
        let again = server(SERVE_FLAGS, &settings).await;
        assert_eq!(bench(&again, &flags, &settings).await, first, "another server");
        assert_eq!(bench(&again, &flags, &settings).await, first, "the same server again");
        assert_eq!((first.0.completed, first.0.failed), (40, 0));
        let tokens: u64 = first.1.iter().map(|outcome| outcome.times.len() as u64).sum();
        assert_eq!(tokens, first.0.total_output);
        let other = SimSettings { seed: 1, ..settings.clone() };
        let server = server(SERVE_FLAGS, &other).await;
        assert_ne!(bench(&server, &flags, &other).await.0.duration, first.0.duration, "another seed");
    }
}

#[tokio::test]
async fn what_fails_is_counted_and_deterministic() {
    let settings = settings("requests-fail:3");
    let server = server(SERVE_FLAGS, &settings).await;
    let (metrics, outcomes) = bench(&server, BENCH_FLAGS, &settings).await;
    assert_eq!((metrics.completed, metrics.failed), (37, 3));
    assert!(outcomes[..3].iter().all(|outcome| outcome.error.as_deref() == Some("Internal Server Error")));
    assert_eq!(bench(&server, BENCH_FLAGS, &settings).await.0, metrics);
    let (metrics, _) = bench(&server, "--model other --num-prompts 4 --max-concurrency 2", &settings).await;
    assert_eq!((metrics.completed, metrics.failed), (0, 4));
}

#[tokio::test]
async fn more_tensor_parallelism_and_compilation_serve_faster() {
    let settings = settings("");
    let mut throughput = Vec::new();
    for flags in ["-tp 2 --enforce-eager", "-tp 2", "-tp 4", "-tp 8"] {
        let server = server(&format!("Qwen/Qwen3-4B-Thinking-2507 --max-model-len 4096 {flags}"), &settings).await;
        throughput.push(bench(&server, BENCH_FLAGS, &settings).await.0.request_throughput);
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
    assert_eq!(post(&server, "/reset_prefix_cache", "").await.0, 200);
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
    let work = super::engine::Work { session: None, prompt_tokens: 10, output_tokens: 39_000, by_length: true };
    let mut answer = server.engine.submit(work);
    assert!(answer.next().await.is_some());
    drop(answer);
    while server.engine.metrics.with(|counters| counters.by_abort) == 0 {
        tokio::task::yield_now().await;
    }
}
