//! The flags of `vllm serve` and `vllm bench serve` 0.14.1 that the simulation knows, and the server configuration they make.

use super::argparse::{Command, Flag, Kind, Parsed};
use super::model::{Architecture, Deployment};
use super::speculation::Speculation;

const fn flag(name: &'static str, kind: Kind) -> Flag {
    Flag { name, short: "", kind }
}

const fn short(name: &'static str, short: &'static str, kind: Kind) -> Flag {
    Flag { name, short, kind }
}

const DTYPES: Kind = Kind::Choice(&["auto", "bfloat16", "float", "float16", "float32", "half"]);
const KV_DTYPES: Kind = Kind::Choice(&["auto", "bfloat16", "fp8", "fp8_ds_mla", "fp8_e4m3", "fp8_e5m2", "fp8_inc"]);
const LOG_LEVELS: Kind = Kind::Choice(&["debug", "info", "warning", "error", "critical", "trace"]);

/// `vllm serve`.
pub const SERVE: Command = Command {
    program: "vllm serve",
    usage: "vllm serve [model_tag] [options]",
    positionals: 1,
    flags: &[
        flag("model", Kind::Text),
        flag("host", Kind::Text),
        flag("port", Kind::Int),
        flag("uds", Kind::Text),
        flag("config", Kind::Text),
        flag("headless", Kind::Switch),
        short("api-server-count", "-asc", Kind::Int),
        flag("uvicorn-log-level", LOG_LEVELS),
        flag("disable-uvicorn-access-log", Kind::Bool),
        flag("allow-credentials", Kind::Bool),
        flag("api-key", Kind::Many),
        flag("chat-template", Kind::Text),
        flag("response-role", Kind::Text),
        flag("root-path", Kind::Text),
        flag("middleware", Kind::Text),
        flag("enable-request-id-headers", Kind::Bool),
        flag("disable-frontend-multiprocessing", Kind::Bool),
        flag("enable-auto-tool-choice", Kind::Bool),
        flag("tool-call-parser", Kind::Text),
        flag("reasoning-parser", Kind::Text),
        flag("enable-server-load-tracking", Kind::Bool),
        flag("enable-prompt-tokens-details", Kind::Bool),
        flag("enable-force-include-usage", Kind::Bool),
        flag("tokenizer", Kind::Text),
        flag("tokenizer-mode", Kind::Text),
        flag("skip-tokenizer-init", Kind::Bool),
        flag("tokenizer-revision", Kind::Text),
        flag("runner", Kind::Text),
        flag("task", Kind::Text),
        flag("hf-config-path", Kind::Text),
        flag("hf-overrides", Kind::Text),
        flag("hf-token", Kind::Text),
        flag("trust-remote-code", Kind::Bool),
        flag("dtype", DTYPES),
        flag("seed", Kind::Int),
        flag("revision", Kind::Text),
        flag("code-revision", Kind::Text),
        flag("max-model-len", Kind::HumanInt),
        short("quantization", "-q", Kind::Text),
        flag("enforce-eager", Kind::Bool),
        flag("max-logprobs", Kind::Int),
        flag("disable-sliding-window", Kind::Bool),
        flag("served-model-name", Kind::Many),
        flag("generation-config", Kind::Text),
        flag("override-generation-config", Kind::Text),
        flag("load-format", Kind::Text),
        flag("download-dir", Kind::Text),
        flag("safetensors-load-strategy", Kind::Text),
        flag("model-loader-extra-config", Kind::Text),
        flag("ignore-patterns", Kind::Many),
        flag("use-tqdm-on-load", Kind::Bool),
        flag("distributed-executor-backend", Kind::Text),
        short("pipeline-parallel-size", "-pp", Kind::Int),
        short("tensor-parallel-size", "-tp", Kind::Int),
        short("decode-context-parallel-size", "-dcp", Kind::Int),
        short("data-parallel-size", "-dp", Kind::Int),
        short("data-parallel-rank", "-dpn", Kind::Int),
        short("data-parallel-address", "-dpa", Kind::Text),
        short("data-parallel-backend", "-dpb", Kind::Text),
        flag("data-parallel-rpc-port", Kind::Int),
        short("enable-expert-parallel", "-ep", Kind::Bool),
        short("nnodes", "-n", Kind::Int),
        short("node-rank", "-r", Kind::Int),
        flag("master-addr", Kind::Text),
        flag("master-port", Kind::Int),
        flag("max-parallel-loading-workers", Kind::Int),
        flag("disable-custom-all-reduce", Kind::Bool),
        flag("worker-cls", Kind::Text),
        flag("block-size", Kind::Choice(&["1", "8", "16", "32", "64", "128", "256"])),
        flag("gpu-memory-utilization", Kind::Float),
        flag("kv-cache-memory-bytes", Kind::HumanInt),
        flag("swap-space", Kind::Float),
        flag("kv-cache-dtype", KV_DTYPES),
        flag("num-gpu-blocks-override", Kind::Int),
        flag("enable-prefix-caching", Kind::Bool),
        flag("prefix-caching-hash-algo", Kind::Text),
        flag("cpu-offload-gb", Kind::Float),
        flag("calculate-kv-scales", Kind::Bool),
        flag("limit-mm-per-prompt", Kind::Text),
        flag("enable-lora", Kind::Bool),
        flag("lora-modules", Kind::Many),
        flag("max-loras", Kind::Int),
        flag("max-lora-rank", Kind::Int),
        flag("max-num-batched-tokens", Kind::HumanInt),
        flag("max-num-seqs", Kind::Int),
        flag("max-num-partial-prefills", Kind::Int),
        flag("long-prefill-token-threshold", Kind::Int),
        flag("scheduling-policy", Kind::Choice(&["fcfs", "priority"])),
        flag("enable-chunked-prefill", Kind::Bool),
        flag("async-scheduling", Kind::Bool),
        flag("stream-interval", Kind::Int),
        flag("speculative-config", Kind::Text),
        flag("kv-transfer-config", Kind::Text),
        short("compilation-config", "-cc", Kind::Text),
        short("optimization-level", "-O", Kind::Text),
        short("attention-config", "-ac", Kind::Text),
        flag("attention-backend", Kind::Text),
        flag("additional-config", Kind::Text),
        flag("structured-outputs-config", Kind::Text),
        flag("otlp-traces-endpoint", Kind::Text),
        flag("show-hidden-metrics-for-version", Kind::Text),
        flag("disable-log-stats", Kind::Switch),
        flag("aggregate-engine-logging", Kind::Switch),
        flag("enable-log-requests", Kind::Bool),
        flag("disable-log-requests", Kind::Bool),
        flag("max-log-len", Kind::Int),
        flag("enable-log-outputs", Kind::Bool),
    ],
};

/// `vllm bench serve`.
pub const BENCH: Command = Command {
    program: "vllm bench serve",
    usage: "vllm bench serve [options]",
    positionals: 0,
    flags: &[
        flag("seed", Kind::Int),
        flag("num-prompts", Kind::Int),
        flag(
            "dataset-name",
            Kind::Choice(&[
                "sharegpt",
                "burstgpt",
                "sonnet",
                "random",
                "random-mm",
                "random-rerank",
                "hf",
                "custom",
                "custom_mm",
                "prefix_repetition",
                "spec_bench",
            ]),
        ),
        flag("no-stream", Kind::Switch),
        flag("dataset-path", Kind::Text),
        flag("no-oversample", Kind::Switch),
        flag("skip-chat-template", Kind::Switch),
        flag("disable-shuffle", Kind::Switch),
        flag("random-input-len", Kind::Int),
        flag("random-output-len", Kind::Int),
        flag("random-range-ratio", Kind::Float),
        flag("random-prefix-len", Kind::Int),
        flag("random-batch-size", Kind::Int),
        flag("input-len", Kind::Int),
        flag("output-len", Kind::Int),
        flag("label", Kind::Text),
        flag("backend", Kind::Choice(&["vllm", "openai", "openai-chat", "openai-audio", "openai-embeddings"])),
        flag("endpoint-type", Kind::Text),
        flag("base-url", Kind::Text),
        flag("host", Kind::Text),
        flag("port", Kind::Int),
        flag("endpoint", Kind::Text),
        flag("header", Kind::Many),
        flag("max-concurrency", Kind::Int),
        flag("model", Kind::Text),
        flag("tokenizer", Kind::Text),
        flag("use-beam-search", Kind::Switch),
        flag("logprobs", Kind::Int),
        flag("request-rate", Kind::Float),
        flag("burstiness", Kind::Float),
        flag("trust-remote-code", Kind::Switch),
        flag("disable-tqdm", Kind::Switch),
        flag("num-warmups", Kind::Int),
        flag("profile", Kind::Switch),
        flag("save-result", Kind::Switch),
        flag("save-detailed", Kind::Switch),
        flag("append-result", Kind::Switch),
        flag("metadata", Kind::Many),
        flag("result-dir", Kind::Text),
        flag("result-filename", Kind::Text),
        flag("ignore-eos", Kind::Switch),
        flag("percentile-metrics", Kind::Text),
        flag("metric-percentiles", Kind::Text),
        flag("goodput", Kind::Many),
        flag("request-id-prefix", Kind::Text),
        flag("top-p", Kind::Float),
        flag("top-k", Kind::Int),
        flag("min-p", Kind::Float),
        flag("temperature", Kind::Float),
        flag("tokenizer-mode", Kind::Text),
        flag("served-model-name", Kind::Text),
        flag("lora-modules", Kind::Many),
        flag("ramp-up-strategy", Kind::Choice(&["linear", "exponential"])),
        flag("ready-check-timeout-sec", Kind::Int),
        flag("extra-body", Kind::Text),
    ],
};

/// Quantization methods of vLLM 0.14.1.
pub const QUANTIZATIONS: &[&str] = &[
    "awq",
    "deepspeedfp",
    "tpu_int8",
    "fp8",
    "ptpc_fp8",
    "fbgemm_fp8",
    "fp_quant",
    "modelopt",
    "modelopt_fp4",
    "bitblas",
    "gguf",
    "gptq_marlin_24",
    "gptq_marlin",
    "gptq_bitblas",
    "awq_marlin",
    "gptq",
    "compressed-tensors",
    "bitsandbytes",
    "hqq",
    "experts_int8",
    "ipex",
    "quark",
    "moe_wna16",
    "torchao",
    "auto-round",
    "rtn",
    "inc",
    "mxfp4",
    "petit_nvfp4",
    "cpu_gptq",
    "cpu_awq",
];

/// What `vllm serve` was asked for.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The flags as given.
    pub parsed: Parsed,
    /// The model.
    pub model: String,
    /// Names under which it is served.
    pub served: Vec<String>,
    /// Address to bind, if any.
    pub host: Option<String>,
    /// Port to bind.
    pub port: u16,
    /// What costs depend on.
    pub deployment: Deployment,
    /// Longest request.
    pub max_model_len: u32,
    /// Tokens per block of the KV cache.
    pub block_size: u64,
    /// Keys of which requests must carry one.
    pub api_keys: Vec<String>,
    /// `--seed`.
    pub seed: u64,
    /// Is prefix caching on?
    pub prefix_caching: bool,
    /// `--speculative-config`.
    pub speculation: Option<Speculation>,
    /// Nodes that the server is spread over.
    pub nodes: u32,
    /// Whether it serves nothing itself: a rank of a server whose head is elsewhere.
    pub headless: bool,
    /// Where the head waits for its ranks.
    pub master: (String, u16),
}

impl ServeConfig {
    /// The configuration behind parsed flags.
    pub fn new(parsed: Parsed) -> ServeConfig {
        let model = parsed.positionals.first().map(String::as_str).or(parsed.get("model")).unwrap_or("Qwen/Qwen3-0.6B");
        let model = model.to_string();
        let served = match parsed.all("served-model-name") {
            [] => vec![model.clone()],
            names => names.to_vec(),
        };
        let deployment = Deployment {
            tp: parsed.number("tensor-parallel-size", 1).max(1),
            pp: parsed.number("pipeline-parallel-size", 1).max(1),
            dp: parsed.number("data-parallel-size", 1).max(1),
            quantization: parsed
                .get("quantization")
                .filter(|method| !method.is_empty() && *method != "None")
                .map(str::to_string),
            float32: matches!(parsed.get("dtype"), Some("float" | "float32")),
            kv_fp8: parsed.get("kv-cache-dtype").is_some_and(|dtype| dtype.starts_with("fp8")),
            eager: parsed.on("enforce-eager", false),
            memory_utilization: parsed.number("gpu-memory-utilization", 0.9),
            max_num_batched_tokens: parsed.number("max-num-batched-tokens", 2048),
            max_num_seqs: parsed.number("max-num-seqs", 256).max(1),
            cpu_offload_gib: parsed.number("cpu-offload-gb", 0.0),
        };
        ServeConfig {
            served,
            host: parsed.get("host").map(str::to_string),
            port: parsed.number("port", 8000),
            deployment,
            max_model_len: parsed.number("max-model-len", Architecture::of(&model).max_position),
            block_size: parsed.number("block-size", 16),
            api_keys: parsed.all("api-key").to_vec(),
            seed: parsed.number("seed", 0),
            prefix_caching: parsed.on("enable-prefix-caching", true),
            speculation: parsed.get("speculative-config").and_then(Speculation::of),
            nodes: parsed.number("nnodes", 1).max(1),
            headless: parsed.on("headless", false),
            master: (parsed.get("master-addr").unwrap_or("127.0.0.1").to_owned(), parsed.number("master-port", 29501)),
            model,
            parsed,
        }
    }

    /// A flag's value as conditions of faults see it.
    pub fn flag(&self, key: &str) -> Option<String> {
        match key {
            "model" => Some(self.model.clone()),
            "tp" | "tensor-parallel-size" => Some(self.deployment.tp.to_string()),
            "quantization" => Some(self.deployment.quantization.clone().unwrap_or_else(|| "none".into())),
            "eager" | "enforce-eager" => Some(self.deployment.eager.to_string()),
            "port" => Some(self.port.to_string()),
            key => self.parsed.get(key).map(|value| match value {
                "True" => "true".into(),
                "False" => "false".into(),
                value => value.to_string(),
            }),
        }
    }

    /// The flags given, as vLLM's log shows them (`non-default args: {...}`).
    pub fn non_default_args(&self) -> String {
        let mut parts = vec![format!("'model_tag': {}", python(&self.model))];
        for (name, values) in self.parsed.iter() {
            let kind = SERVE.flags.iter().find(|flag| flag.name == name).map_or(Kind::Text, |flag| flag.kind);
            let value = match kind {
                Kind::Bool | Kind::Switch | Kind::Int | Kind::HumanInt | Kind::Float => values.concat(),
                Kind::Many if name == "api-key" => "['***']".into(),
                Kind::Many => format!("[{}]", values.iter().map(|v| python(v)).collect::<Vec<_>>().join(", ")),
                Kind::Choice(_) if name == "block-size" => values.concat(),
                Kind::Text if name == "hf-token" => "'***'".into(),
                Kind::Choice(_) | Kind::Text => python(&values.concat()),
            };
            parts.push(format!("'{}': {value}", name.replace('-', "_")));
        }
        if self.parsed.get("model").is_none() {
            parts.insert(1, format!("'model': {}", python(&self.model)));
        }
        format!("{{{}}}", parts.join(", "))
    }
}

/// Python's repr of a text, near enough.
pub fn python(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut repr = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => repr.push_str("\\n"),
            '\r' => repr.push_str("\\r"),
            '\t' => repr.push_str("\\t"),
            '\\' => repr.push_str("\\\\"),
            c if c == quote => {
                repr.push('\\');
                repr.push(c);
            }
            c if c.is_control() => repr.push_str(&format!("\\x{:02x}", c as u32)),
            c => repr.push(c),
        }
    }
    repr.push(quote);
    repr
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::argparse::Refusal;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_string).collect()
    }

    fn refused(command: Command, line: &str) -> Refusal {
        command.parse(&words(line)).expect_err(line)
    }

    #[test]
    fn the_reference_command_parses_in_every_spelling() {
        let line = "Qwen/Qwen3-4B --dtype=bfloat16 --port 8123 --block-size 64 --gpu-memory-util 0.9 --no-enable-prefix-caching \
                    --trust_remote_code --disable-sliding-window --disable-log-requests --max-num-batched-tokens=8192 \
                    --max-model-len 10k -tp=4 --enforce-eager -q fp8 --seed -1";
        let config = ServeConfig::new(SERVE.parse(&words(line)).expect("parses"));
        assert_eq!((config.model.as_str(), config.port, config.max_model_len), ("Qwen/Qwen3-4B", 8123, 10_000));
        assert_eq!((config.deployment.tp, config.deployment.eager, config.block_size), (4, true, 64));
        assert_eq!(config.deployment.quantization.as_deref(), Some("fp8"));
        assert!(!config.prefix_caching);
        assert_eq!(config.flag("max-num-batched-tokens").as_deref(), Some("8192"));
        assert!(config.non_default_args().contains("'enable_prefix_caching': False"));
        assert!(config.non_default_args().contains("'tensor_parallel_size': 4"));
    }

    #[test]
    fn refusals_read_like_argparse() {
        let text = refused(SERVE, "m --foo 3").text;
        assert!(
            text.starts_with("usage: vllm [-h] [-v] {chat,complete,serve,bench,collect-env,run-batch} ...\n"),
            "{text}"
        );
        assert!(text.ends_with("\nvllm: error: unrecognized arguments: --foo 3\n"), "{text}");
        let text = refused(SERVE, "m --port x").text;
        assert!(text.contains("vllm serve: error: argument --port: invalid int value: 'x'"), "{text}");
        let text = refused(SERVE, "m -tp").text;
        assert!(text.contains("argument --tensor-parallel-size/-tp: expected one argument"), "{text}");
        let text = refused(SERVE, "m --dtype int3").text;
        assert!(text.contains("argument --dtype: invalid choice: 'int3' (choose from 'auto', "), "{text}");
        let text = refused(SERVE, "m --max-num 3").text;
        assert!(text.contains("ambiguous option: --max-num could match --max-num-batched-tokens"), "{text}");
        assert!(refused(BENCH, "--help").help);
    }

    #[test]
    fn the_client_flags_of_the_reference_command_parse() {
        let line = "--host 0.0.0.0 --port 1 --model M --trust-remote-code --dataset-name random --random-input-len 8 \
                    --random-output-len 8 --ignore-eos --max-concurrency 2 --num-prompts 4 --num-warmup 3 --save-result \
                    --metadata a=1 b=2 --result-filename /tmp/x.json";
        let parsed = BENCH.parse(&words(line)).expect("parses");
        assert_eq!(parsed.all("metadata"), ["a=1", "b=2"]);
        assert_eq!(parsed.number("num-warmups", 0), 3);
    }

    #[test]
    fn texts_are_shown_as_python_shows_them() {
        assert_eq!(python("a'b\n"), "\"a'b\\n\"");
        assert_eq!(python("plain"), "'plain'");
    }
}
