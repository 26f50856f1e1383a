//! Numbers and names in a line make its advice exact: the context that fits, the flag that is unknown, who holds the port.

use std::sync::LazyLock;

use regex::Regex;

use crate::model::Cause;

/// The advice that a message allows; the second argument says whether vLLM runs on the CPU.
type Exact = fn(&str, bool) -> Vec<String>;

/// Causes whose messages hold numbers or names.
const EXACT: [(Cause, Exact); 8] = [
    (Cause::KvCacheTooSmall, kv_cache),
    (Cause::OutOfDeviceMemory, |message, _| device_memory(message)),
    (Cause::InvalidFlag, |message, _| flag(message)),
    (Cause::NotEnoughDevices, |message, _| devices(message)),
    (Cause::UnsupportedQuantization, |message, _| quantization(message)),
    (Cause::PortInUse, |message, _| port(message)),
    (Cause::ModelNotFound, |message, _| model(message)),
    (Cause::ModelGated, |message, _| gated(message)),
];

/// Advice that only this message allows, most useful first; empty when it says nothing exact.
/// `on_cpu`: the log is one of vLLM's CPU backend, where the KV cache has a variable of its own.
pub(crate) fn concrete(cause: Cause, message: &str, on_cpu: bool) -> Vec<String> {
    let exact = EXACT.into_iter().find(|(known, _)| *known == cause);
    exact.map(|(_, advice)| advice(message, on_cpu)).unwrap_or_default()
}

/// A pattern that is compiled once, and what its groups caught.
macro_rules! groups {
    ($text:expr, $pattern:literal) => {{
        static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).expect("a constant pattern compiles"));
        PATTERN.captures($text).map(|found| found.extract().1)
    }};
}

fn kv_cache(message: &str, on_cpu: bool) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some([length]) = groups!(message, r"estimated maximum model length is (\d+)") {
        advice.push(format!("use `--max-model-len {length}` or lower: that is what the memory left over holds"));
    } else if let Some([tokens]) = groups!(message, r"can be stored in KV cache \((\d+)\)") {
        advice.push(format!("use `--max-model-len {tokens}` or lower: that is what the memory left over holds"));
    }
    if let Some([needed, left]) =
        groups!(message, r"\(([\d.]+) GiB KV cache is needed.*?KV cache memory \((-?[\d.]+) GiB\)")
    {
        if on_cpu {
            let gib = needed.parse().map_or(1.0, f64::ceil).max(1.0);
            advice.push(format!(
                "or make room: one request needs {needed} GiB and {left} GiB are set aside; use `--env VLLM_CPU_KVCACHE_SPACE={gib}` (GiB of main memory) or more"
            ));
            return advice;
        }
        advice.push(format!(
            "or make room: one request needs {needed} GiB per device and {left} GiB are left; raise `--gpu-memory-utilization` or `--tensor-parallel-size`, or quantize the weights"
        ));
    }
    advice
}

fn device_memory(message: &str) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some([free, total, _, _]) =
        groups!(message, r"Free memory on device.*?\(([\d.]+)/([\d.]+) GiB\).*?utilization \(([\d.]+), ([\d.]+) GiB\)")
        && let (Ok(free), Ok(total)) = (free.parse::<f64>(), total.parse::<f64>())
        && total > 0.0
    {
        let fits = (free / total * 100.0).floor() / 100.0;
        let held = (total - free).max(0.0);
        advice.push(format!(
            "another process (or the driver) holds {held:.1} of {total:.1} GiB: end it, if it is not meant to run"
        ));
        if fits >= 0.2 {
            advice.push(format!("or use `--gpu-memory-utilization {fits:.2}`: {free:.1} GiB are free now"));
        }
    }
    if let Some([wanted, wanted_unit, device, free, free_unit]) = groups!(
        message,
        r"Tried to allocate ([\d.]+) ([KMGT]iB)\. GPU +(\d+) has a total capacity of [\d.]+ [KMGT]iB of which ([\d.]+) ([KMGT]iB) is free"
    ) {
        if mebibytes(free, free_unit) > 2.0 * mebibytes(wanted, wanted_unit) {
            advice.push(format!(
                "device {device} refused {wanted} {wanted_unit} with {free} {free_unit} free, so this is not simply a full device: look for a wedged device, a fragmented pool or a driver's limit per allocation"
            ));
        } else {
            advice.push(format!(
                "device {device} had {free} {free_unit} free when {wanted} {wanted_unit} were asked for"
            ));
        }
    }
    if let Some([requests]) = groups!(message, r"with (\d+) dummy requests") {
        advice.push(format!("lower `--max-num-seqs` (now {requests}) or `--gpu-memory-utilization`"));
    }
    advice
}

fn mebibytes(number: &str, unit: &str) -> f64 {
    let scale = match unit {
        "KiB" => 1.0 / 1024.0,
        "GiB" => 1024.0,
        "TiB" => 1024.0 * 1024.0,
        _ => 1.0,
    };
    number.parse::<f64>().map_or(0.0, |number| number * scale)
}

fn flag(message: &str) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some([arguments]) = groups!(message, r"unrecognized arguments: (.+)") {
        let flags: Vec<&str> = arguments
            .split_whitespace()
            .filter(|word| word.starts_with('-') && word.len() > 1)
            .map(|word| word.split('=').next().unwrap_or(word))
            .collect();
        if flags.is_empty() {
            advice.push(format!("this vLLM does not take `{}` here", arguments.trim()));
        }
        for flag in flags {
            advice.push(format!(
                "this vLLM does not know `{flag}`: remove it (`--serve-arg=no:{flag}` drops a default one), or look for its name in this release with `vllm serve --help={flag}`"
            ));
        }
    } else if let Some([flag, reason]) = groups!(message, r": error: argument ([^:\s]+): (.+)") {
        advice.push(format!("give `{flag}` a value that this vLLM takes: {reason}"));
    }
    if let Some([asked, limit]) = groups!(
        message,
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len \((?:\w+=)?(\d+)"
    ) {
        advice.push(format!(
            "use `--max-model-len {limit}` or lower: the model ends there ({asked} was asked for; `--env VLLM_ALLOW_LONG_MAX_MODEL_LEN=1` overrides it at your own risk)"
        ));
    }
    if let Some([heads, tp]) =
        groups!(message, r"attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)")
        && let Ok(heads) = heads.parse::<u32>()
    {
        let divisors: Vec<String> =
            (1..=heads.min(64)).filter(|size| heads % size == 0).map(|size| size.to_string()).collect();
        advice.push(format!(
            "`--tensor-parallel-size {tp}` does not divide {heads} attention heads: {} do",
            divisors.join(", ")
        ));
    }
    if advice.is_empty()
        && message.contains("[type=value_error")
        && let Some([flag]) = groups!(
            message,
            r"(?:[Pp]lease|[Tt]ry|[Cc]onsider) (?:\w+ )?(?:increas|decreas|reduc|set|us|specify|lower|rais|enabl|disabl|pass|provid|remov|chang)\w* (?:the )?`?(?:--)?([a-z]+(?:[_-][a-z]+)+)"
        )
        .or_else(|| groups!(message, r"--([a-z]+(?:-[a-z]+)*)"))
        .or_else(|| groups!(message, r"\b([a-z]+(?:_[a-z]+)+)\b"))
    {
        let flag = flag.replace('_', "-");
        advice.push(format!("change `--{flag}` as the message says, or leave it out"));
    }
    if let Some([rank]) = groups!(message, r"LoRA rank (\d+) is greater than max_lora_rank") {
        let rank: u32 = rank.parse().unwrap_or(16);
        let fits = [16, 32, 64, 128, 256, 320, 512].into_iter().find(|size| *size >= rank).unwrap_or(rank);
        advice.push(format!("use `--serve-arg=max-lora-rank={fits}`: the adapter has rank {rank}"));
    }
    if let Some([batched, length]) =
        groups!(message, r"max_num_batched_tokens \((\d+)\) is smaller than max_model_len \((\d+)\)")
    {
        advice.push(format!("use `--max-num-batched-tokens {length}` or more, or `--max-model-len {batched}` or less"));
    }
    advice
}

fn devices(message: &str) -> Vec<String> {
    let counts = groups!(message, r"World size \((\d+)\).*?available GPUs \((\d+)\)")
        .or_else(|| groups!(message, r"world_size \((\d+)\).*?(?:gpu count|visible devices) \((\d+)\)"));
    match counts {
        Some([asked, "0"]) => vec![format!(
            "{asked} devices are asked for and none is visible: check the driver, the container's `--device`, and `ZE_AFFINITY_MASK`, `CUDA_VISIBLE_DEVICES`, `HIP_VISIBLE_DEVICES`"
        )],
        Some([asked, there]) => vec![format!(
            "{asked} devices are asked for and {there} visible: use `--tensor-parallel-size {there}` or lower"
        )],
        None => Vec::new(),
    }
}

fn quantization(message: &str) -> Vec<String> {
    if let Some([has, asked]) = groups!(message, r"model config \(([^)]+)\) does not match .* argument \(([^)]+)\)") {
        return vec![format!(
            "the checkpoint is already quantized with {has}: run it with `--quantization none`, not `{asked}`"
        )];
    }
    if let Some([method, platform]) = groups!(message, r"(\S+) quantization is currently not supported in (\w+)") {
        return vec![format!("leave {method} out on {platform}, or use a vLLM release that has it there")];
    }
    if let Some([needed, has]) = groups!(message, r"[Mm]in(?:imum)? capability: (\d+)\..*?Current capability: (\d+)") {
        return vec![format!(
            "this device has compute capability {has} and the method wants {needed}: use another method, or `none`"
        )];
    }
    Vec::new()
}

fn port(message: &str) -> Vec<String> {
    groups!(message, r"address \('?[^',)]*'?, (\d+)\)")
        .map(|[port]| format!("port {port} is held by another process: `ss -ltnp 'sport = :{port}'` names it; end it, or use `--port auto`"))
        .into_iter()
        .collect()
}

fn gated(message: &str) -> Vec<String> {
    groups!(message, r"https://huggingface\.co/(?:api/models/)?([\w.-]+/[\w.-]+?)(?:/resolve/|/|\.?$|\.\s)")
        .map(|[name]| {
            format!("accept the licence at https://huggingface.co/{name} and set `HF_TOKEN` to a token of that account")
        })
        .into_iter()
        .collect()
}

fn model(message: &str) -> Vec<String> {
    let name = groups!(message, r"OSError: (\S+) is not a local folder")
        .or_else(|| groups!(message, r"directory specified: '([^']+)'"))
        .or_else(|| groups!(message, r"OSError: Can't load [a-z ]+ '([^']+)'"))
        .or_else(|| groups!(message, r"'namespace/repo_name': '([^']+)'"))
        .or_else(|| {
            groups!(
                message,
                r"Repository Not Found for url: https://huggingface\.co/(?:api/models/)?([\w.-]+/[\w.-]+?)(?:/|\.?$)"
            )
        });
    match name {
        Some([path]) if path.starts_with(['/', '.', '~']) => {
            vec![format!(
                "`{path}` is not there or holds no `config.json`: check the path as seen inside the container"
            )]
        }
        Some([name]) => {
            vec![format!("check the name `{name}`: the hub has no such model, or `HF_TOKEN` may not see it")]
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cause: Cause, message: &str, wanted: &str) {
        let advice = concrete(cause, message, false);
        assert!(advice.iter().any(|advice| advice.contains(wanted)), "no `{wanted}` in {advice:#?}");
    }

    #[test]
    fn numbers_in_the_line_become_values_of_flags() {
        check(
            Cause::KvCacheTooSmall,
            "ValueError: To serve at least one request with the models's max seq len (40960), (4.38 GiB KV cache is needed, which is larger than the available KV cache memory (1.2 GiB). Based on the available memory, the estimated maximum model length is 11232. Try",
            "`--max-model-len 11232` or lower",
        );
        check(
            Cause::KvCacheTooSmall,
            "(10.00 GiB KV cache is needed, which is larger than the available KV cache memory (1.25 GiB)",
            "needs 10.00 GiB per device and 1.25 GiB are left",
        );
        check(Cause::KvCacheTooSmall, "tokens that can be stored in KV cache (7344)", "--max-model-len 7344");
        check(
            Cause::OutOfDeviceMemory,
            "Free memory on device (3.2/16 GiB) on startup is less than desired GPU memory utilization (0.9, 14.4 GiB)",
            "`--gpu-memory-utilization 0.20`",
        );
        check(
            Cause::OutOfDeviceMemory,
            "Free memory on device xpu:0 (18.79/28.57 GiB) on startup is less than desired GPU memory utilization (0.7, 20.0 GiB)",
            "holds 9.8 of 28.6 GiB",
        );
        check(
            Cause::OutOfDeviceMemory,
            "XPU out of memory. Tried to allocate 192.00 MiB. GPU 3 has a total capacity of 31.89 GiB of which 13.22 GiB is free.",
            "not simply a full device",
        );
        check(Cause::OutOfDeviceMemory, "warming up sampler with 1024 dummy requests", "now 1024");
    }

    #[test]
    fn flags_and_their_values_are_named() {
        check(
            Cause::InvalidFlag,
            "vllm serve: error: unrecognized arguments: --foo=3 --bar 1",
            "does not know `--foo`",
        );
        check(
            Cause::InvalidFlag,
            "vllm serve: error: unrecognized arguments: --foo=3 --bar 1",
            "does not know `--bar`",
        );
        check(Cause::InvalidFlag, "api_server.py: error: unrecognized arguments: /root/m", "does not take `/root/m`");
        check(
            Cause::InvalidFlag,
            "vllm serve: error: argument --max-model-len: invalid value: 'x'",
            "give `--max-model-len` a value",
        );
        check(
            Cause::InvalidFlag,
            "User-specified max_model_len (513) is greater than the derived max_model_len (max_position_embeddings=512 or model_max_length=None",
            "`--max-model-len 512` or lower",
        );
        check(
            Cause::InvalidFlag,
            "Total number of attention heads (28) must be divisible by tensor parallel size (8).",
            "1, 2, 4, 7, 14, 28 do",
        );
    }

    #[test]
    fn devices_ports_models_and_methods_are_named() {
        check(
            Cause::NotEnoughDevices,
            "World size (8) is larger than the number of available GPUs (4) in this node",
            "`--tensor-parallel-size 4` or lower",
        );
        check(
            Cause::NotEnoughDevices,
            "local_world_size (16) must be less than or equal to the number of visible devices (8).",
            "size 8",
        );
        check(
            Cause::NotEnoughDevices,
            "World size (2) is larger than the number of available GPUs (0)",
            "none is visible",
        );
        check(
            Cause::PortInUse,
            "error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
            "port 8000",
        );
        check(Cause::ModelNotFound, "OSError: org/x is not a local folder and is", "`org/x`");
        check(Cause::ModelNotFound, "directory specified: '/models'.", "as seen inside the container");
        check(Cause::ModelNotFound, "OSError: Can't load the configuration of '/models/nope'. If", "`/models/nope`");
        check(
            Cause::ModelGated,
            "Cannot access gated repo for url https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct/resolve/main/config.json.",
            "https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct and",
        );
        check(
            Cause::UnsupportedQuantization,
            "in the model config (mxfp4) does not match the quantization method specified in the `quantization` argument (fp8).",
            "already quantized with mxfp4",
        );
        check(
            Cause::UnsupportedQuantization,
            "Minimum capability: 90. Current capability: 86",
            "has compute capability 86",
        );
    }

    #[test]
    fn a_line_that_says_nothing_exact_gives_no_exact_advice() {
        for cause in Cause::ALL {
            assert_eq!(concrete(cause, "RuntimeError: something", false), Vec::<String>::new(), "{cause}");
        }
    }
}
