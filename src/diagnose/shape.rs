//! What the shape of an exception tells, when no row of the table knows its words: its type, and what kind of thing it names.
//!
//! Rows know single lines; here stand kinds of them. A shape is asked only of the exception that most likely ended the
//! server, so that an exception which was caught on the way means nothing.

use std::sync::LazyLock;

use regex::Regex;

use crate::model::{
    Cause, Cause::InvalidFlag, Cause::ModelIncomplete, Cause::Network, Cause::NotEnoughDevices,
    Cause::UnsupportedDtype, Cause::UnsupportedModel, Cause::UnsupportedQuantization, Cause::VllmMissing,
};

/// What an exception's shape tells.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The cause; `None`: the shape brings advice alone.
    pub(super) cause: Option<Cause>,
    /// What to do; empty: what the cause says.
    pub(super) advice: Vec<String>,
}

/// A kind of exception. In the advice `{1}` is the pattern's first group.
struct Rule {
    pattern: &'static str,
    cause: Option<Cause>,
    advice: &'static [&'static str],
}

const VERSIONS: &str = "packages of vLLM's installation do not fit each other: install the releases that this vLLM asks for (`pip check` names them), or use its image";
const WEIGHTS: &str = "the checkpoint's weights are not those that this vLLM expects of the model: use a newer vLLM, or another conversion of the model";
const WRITE: &str = "`{1}` cannot be written or read by this user: change its owner, or name other places with `--env HF_HOME=…` and `--env VLLM_CACHE_ROOT=…`";
const HOST_MEMORY: &str = "main memory was used up, not the device's: give the host or container more of it, or load with fewer ranks or a smaller model";
const RANKS: &str = "ranks could not reach each other: see that `VLLM_HOST_IP`, `GLOO_SOCKET_IFNAME` and `NCCL_SOCKET_IFNAME` name the interface that connects them (`--env`), and that no firewall or proxy lies between";

/// The first rule that fits counts.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    // --- installation ----------------------------------------------------------------------------------------------------
    Rule { pattern: r"(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)", cause: Some(VllmMissing), advice: &["the Python module `{1}` is not in vLLM's environment, or of another release: install it there (`pip check` names what is missing), or use vLLM's image"] },
    Rule { pattern: r"ImportError: cannot import name '?(\w+)'? from (?:partially initialized module )?'?([\w.]+)", cause: Some(VllmMissing), advice: &["`{2}` has no `{1}`: it is of a release that this vLLM does not know; install the one that this vLLM asks for (`pip check` names it), or use vLLM's image"] },
    Rule { pattern: r"(?:ImportError|OSError): (?:Using|Please install|.* requires|.* is not installed|.*pip install)", cause: Some(VllmMissing), advice: &["install the package that the message names, in vLLM's environment"] },
    Rule { pattern: r"(?:ImportError|OSError): (\S+\.so\S*): ", cause: Some(VllmMissing), advice: &["`{1}` cannot be loaded: the build does not fit this machine's libraries or driver; install the one that does, or use vLLM's image"] },
    Rule { pattern: r"^ImportError: ", cause: Some(VllmMissing), advice: &[VERSIONS] },
    Rule { pattern: r"PackageNotFoundError: (?:No package metadata was found for )?(\S+)", cause: Some(VllmMissing), advice: &["the package `{1}` is not installed in vLLM's environment: install it, or use vLLM's image"] },
    Rule { pattern: r"AttributeError: (?:partially initialized )?module '([\w.]+)' has no attribute '(\w+)'", cause: Some(VllmMissing), advice: &["`{1}` has no `{2}`: it is of a release that this vLLM does not know; install the one that this vLLM asks for (`pip check` names it), or use vLLM's image"] },
    Rule { pattern: r"AttributeError: '?\w*(?:Config|Tokenizer|Tokenizers|Processor|TokenizerFast|Backend)'?(?: object)? has no attribute", cause: Some(VllmMissing), advice: &["the installed transformers and this vLLM do not fit each other: install the release that this vLLM asks for (`pip check` names it), or a newer vLLM"] },
    Rule { pattern: r"TypeError: .*(?:got an unexpected keyword argument|missing \d+ required (?:positional|keyword)|takes \d+ positional arguments?|takes from \d+ to \d+ positional|takes no (?:keyword )?arguments)", cause: Some(VllmMissing), advice: &[VERSIONS] },
    Rule { pattern: r"Can't instantiate abstract class", cause: Some(VllmMissing), advice: &["a plugin and vLLM are of releases that do not fit each other: install the pair that belongs together"] },
    // --- compilers -------------------------------------------------------------------------------------------------------
    Rule { pattern: r"(?:FileNotFoundError|PermissionError|CalledProcessError): .*'(?:\S*/)?(nvcc|ninja|gcc|g\+\+|cc|c\+\+|clang|clang\+\+|ld|cmake|hipcc|icpx|ptxas|ld\.lld)'", cause: Some(VllmMissing), advice: &["kernels are compiled at the start and `{1}` is missing or fails: install it with the headers it wants (Python's and the device's toolkit), or use an image that has them"] },
    Rule { pattern: r"PTXASError|triton\.compiler\.errors|`?ptxas`? (?:failed|stderr)", cause: None, advice: &["Triton could not compile a kernel for this device: set `--env TRITON_PTXAS_PATH=…` to the toolkit's own `ptxas` that knows the device, or take a build made for it; `--enforce-eager` does without some kernels"] },
    // --- memory ----------------------------------------------------------------------------------------------------------
    Rule { pattern: r"MemoryError|bad_alloc|\[Errno 12\]|Cannot allocate memory", cause: None, advice: &[HOST_MEMORY] },
    // --- files -----------------------------------------------------------------------------------------------------------
    Rule { pattern: r"(?:PermissionError: \[Errno \d+\]|OSError: \[Errno (?:13|30)\])[^:]*: '([^']+)'", cause: None, advice: &[WRITE] },
    Rule { pattern: r"PermissionError", cause: None, advice: &["a file or folder cannot be written or read by this user: change its owner, or name other places with `--env HF_HOME=…` and `--env VLLM_CACHE_ROOT=…`"] },
    Rule { pattern: r"(?:FileNotFoundError|NotADirectoryError|EntryNotFoundError).*'(\S+\.(?:json|jinja|safetensors|bin|model|gguf|txt|tiktoken))'", cause: Some(ModelIncomplete), advice: &["`{1}` is not there: fetch the model again, completely, and check the path as seen inside the container"] },
    Rule { pattern: r"FileNotFoundError: .*'(\S+)'", cause: None, advice: &["`{1}` is not there: check the path as seen inside the container"] },
    Rule { pattern: r"(?:safetensors_rust\.)?SafetensorError|UnpicklingError|zipfile\.BadZipFile|PytorchStreamReader|EntryNotFoundError|Consistency check failed|(?:HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer)", cause: Some(ModelIncomplete), advice: &[] },
    Rule { pattern: r"Exception: data did not match any variant of untagged enum|tokenizers?\..*(?:error|Error)", cause: Some(VllmMissing), advice: &["the tokenizer's file is of a newer release than the installed `tokenizers` and transformers: install newer ones, or a newer vLLM; else fetch `tokenizer.json` again"] },
    Rule { pattern: r"(?:SentencePiece|sentencepiece|tiktoken|Tiktoken|tokenizer)", cause: Some(ModelIncomplete), advice: &["the model's tokenizer cannot be read: fetch `tokenizer.json` and `tokenizer_config.json` again, install the package that the message names, or name a tokenizer with `--serve-arg=tokenizer=…`"] },
    Rule { pattern: r"CacheNotFound|[Cc]ache directory not found", cause: None, advice: &["the model cache is not where it is looked for: set `--env HF_HOME=…` to a folder that exists inside the container and can be written"] },
    // --- network ---------------------------------------------------------------------------------------------------------
    Rule { pattern: r"(?:Dist(?:Network|Store|Backend)Error|Gloo|TCPStore|connectFullMesh)", cause: None, advice: &[RANKS] },
    Rule { pattern: r"(?:HfHubHTTPError|ConnectTimeout|ReadTimeout|ConnectionError|ChunkedEncodingError|IncompleteRead|ProtocolError|SSLError|ClientConnector\w*|RemoteDisconnected|RemoteProtocolError|CAS service error|error downloading|Data processing error|huggingface\.co)", cause: Some(Network), advice: &[] },
    // --- weights ---------------------------------------------------------------------------------------------------------
    Rule { pattern: r"(?:KeyError|ValueError|AttributeError|RuntimeError): .*\b\w*(weight_scale\w*|input_scale\w*|qweight|qzeros|g_idx|absmax|weight_packed|weight_zero_point|_scale_inv|blockscale\w*)", cause: Some(UnsupportedQuantization), advice: &["the checkpoint has `{1}` where this vLLM expects none (or the other way): its quantization is one that this vLLM does not read for this model; use a newer vLLM, or another quantization of the model"] },
    Rule { pattern: r"KeyError: '[\w.]*(?:layers?|blocks|experts|embed|lm_head|model|proj|attn|mlp|norm|visual|vision)[\w.]*\.", cause: Some(UnsupportedModel), advice: &[WEIGHTS] },
    Rule { pattern: r"(?:There is no module or parameter named|weights were not initialized from checkpoint|Unexpected key|Missing key|Attempted to load weight|loaded_weight|exceeds dimension size|size mismatch for)", cause: Some(UnsupportedModel), advice: &[WEIGHTS] },
    Rule { pattern: r"[Gg][Gg][Uu][Ff]", cause: Some(UnsupportedModel), advice: &["this vLLM cannot map the GGUF file to the model: name the original model with `--serve-arg=hf-config-path=…` and `--serve-arg=tokenizer=…`, use a newer vLLM, or weights in safetensors"] },
    // --- what was asked for ----------------------------------------------------------------------------------------------
    Rule { pattern: r"(?:Value|Assertion|Runtime|Key|NotImplemented)Error: .*\b(?:LoRA|lora)", cause: Some(InvalidFlag), advice: &["the adapter and the server's settings do not fit: compare `--serve-arg=max-lora-rank=…`, the adapter's target modules and its base model"] },
    Rule { pattern: r"divisible by", cause: Some(InvalidFlag), advice: &["a size of the model does not divide by the number of ranks or by the quantization's block: choose another `--tensor-parallel-size`"] },
    Rule { pattern: r#"not (?:currently )?implemented for '?"?(?:Half|BFloat16|Float8\w*|Float|Double|Char|Byte)"#, cause: Some(UnsupportedDtype), advice: &[] },
    Rule { pattern: r"expected (?:scalar type|m1 and m2|mat1 and mat2).*(?:dtype|type)|[Dd]types? mismatch|must have the same dtype", cause: Some(UnsupportedDtype), advice: &[] },
    Rule { pattern: r"(?i)(?:NotImplementedError|not (?:yet )?(?:supported|implemented)|unsupported|no (?:valid|available|suitable|compatible|compiled) |only supports?).*(?:fp8|fp4|int8|int4|nvfp4|mxfp\d|quant|scaled_mm|marlin|machete|cutlass|w4a\d|w8a\d|awq|gptq|bitsandbytes)|(?i)(?:fp8|fp4|int8|int4|nvfp4|mxfp\d|quant|scaled_mm|marlin|machete|w4a\d|w8a\d|awq|gptq|bitsandbytes).*(?:not (?:yet )?(?:supported|implemented)|unsupported|only supports?)", cause: Some(UnsupportedQuantization), advice: &["this vLLM has no kernel for this quantization on this device: use another quantization or `none`, or a build made for the device"] },
    Rule { pattern: r"(?:ValueError|AssertionError|NotImplementedError|KeyError|RuntimeError|TypeError): .*(--[a-z][a-z0-9-]{3,})", cause: Some(InvalidFlag), advice: &["change `{1}` as the message says, or leave it out"] },
    Rule { pattern: r"^(?:\w+\.)*(?:ValueError|NotImplementedError|AssertionError): .*(?i:speculative|draft|eagle|mtp)\b", cause: Some(InvalidFlag), advice: &["this vLLM does not take this `--speculative-config` with the other settings: change it as the message says, or leave it out"] },
    Rule { pattern: r"(?i)(?:Invalid|Unknown|Unsupported|unrecognized) (?:value|choice|argument|option|parser|backend|attention|load[ _]format|tool|reasoning)", cause: Some(InvalidFlag), advice: &[] },
    Rule { pattern: r"(?i)(?:world[ _]?size|data[ _]parallel|tensor[ _]parallel|pipeline[ _]parallel).*(?:devices?|gpus?|chips?|nodes?)|[Ii]nsufficient devices|No accelerated? devices?|[Nn]o (?:GPU|device|accelerator)s? (?:found|available|detected)", cause: Some(NotEnoughDevices), advice: &[] },
    // --- what the build has not ------------------------------------------------------------------------------------------
    Rule { pattern: r"(?:NotImplementedError|is not (?:currently )?(?:supported|implemented|available)|not supported (?:on|for|by)|only support)", cause: None, advice: &["this vLLM has not what is asked for on this device: follow the message, try another attention backend (`--serve-arg=attention-backend=…`), a newer vLLM, or a build made for the device"] },
    Rule { pattern: r"torch\._dynamo\.exc|torch\._inductor|torch\.fx|FakeTensor|aot_autograd|data-dependent", cause: None, advice: &["compiling the model failed: use `--enforce-eager`, or another vLLM", "a stale compile cache shows the same: remove `~/.cache/vllm/torch_compile_cache`"] },
];

static COMPILED: LazyLock<Vec<Regex>> =
    LazyLock::new(|| RULES.iter().map(|rule| Regex::new(rule.pattern).expect("a constant pattern compiles")).collect());

/// What the shape of this exception tells; `raised` is where it was raised.
pub(super) fn of(message: &str, raised: Option<&str>) -> Shape {
    let found = COMPILED.iter().zip(RULES).find_map(|(pattern, rule)| Some((pattern.captures(message)?, rule)));
    let Some((groups, rule)) = found else {
        let loading = raised.is_some_and(|place| {
            ["(weight_loader", "(load_weights", "_weights)"].iter().any(|part| place.contains(part))
        });
        return if loading {
            Shape { cause: Some(UnsupportedModel), advice: vec![WEIGHTS.to_owned()] }
        } else {
            Shape::default()
        };
    };
    let advice = rule.advice.iter().map(|sentence| {
        (1..groups.len()).fold((*sentence).to_owned(), |said, group| {
            let caught = groups.get(group).map_or("", |caught| caught.as_str());
            said.replace(&format!("{{{group}}}"), &caught.replace('`', "'"))
        })
    });
    Shape { cause: rule.cause, advice: advice.collect() }
}

/// Whether an exception only passes on another one, or follows from a process that vanished.
pub(super) fn is_wrapper(message: &str) -> bool {
    static WRAPPER: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"^(?:RuntimeError: (?:Worker failed with error|Error raised in subprocess|Failed to import .* because of|cancelled|Engine )",
            r"|Exception: (?:Call to \w+ method failed|WorkerProc)",
            r"|ray\.exceptions\.Ray(?:Task|Actor)\w*",
            r"|(?:\w+\.)*_?RemoteTraceback",
            r"|subprocess\.CalledProcessError: .*vllm\.model_executor\.models\.registry",
            r"|(?:torch\.distributed\.)?Dist\w+Error: (?:failed to recv|[Cc]onnection closed|recvValue failed|Broken pipe)",
            r"|(?:EOFError|BrokenPipeError|ConnectionResetError|ConnectionRefusedError|ChildProcessError)\b)",
        ))
        .expect("a constant pattern compiles")
    });
    WRAPPER.is_match(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_compiles_and_fills_its_groups() {
        for (pattern, rule) in COMPILED.iter().zip(RULES) {
            for sentence in rule.advice {
                for group in 1..=3 {
                    assert!(
                        !sentence.contains(&format!("{{{group}}}")) || group < pattern.captures_len(),
                        "{sentence}"
                    );
                }
            }
            assert!(rule.cause.is_some() || !rule.advice.is_empty(), "{} tells nothing", rule.pattern);
        }
    }

    #[test]
    fn kinds_of_exceptions_tell_a_cause_and_a_next_step() {
        for (message, cause, advice) in [
            (
                "ModuleNotFoundError: No module named 'qwix._src.core.ragged_dot'",
                Some(VllmMissing),
                "`qwix._src.core.ragged_dot`",
            ),
            (
                "ImportError: cannot import name 'A' from 'transformers' (/x/__init__.py)",
                Some(VllmMissing),
                "`transformers` has no `A`",
            ),
            (
                "AttributeError: module 'torch.library' has no attribute 'wrap'",
                Some(VllmMissing),
                "`torch.library` has no `wrap`",
            ),
            ("AttributeError: 'Qwen3Config' object has no attribute 'rope_theta'", Some(VllmMissing), "transformers"),
            ("TypeError: Runner.__init__() got an unexpected keyword argument 'a'", Some(VllmMissing), "pip check"),
            ("AttributeError: 'NoneType' object has no attribute 'shape'", None, ""),
            ("PermissionError: [Errno 13] Permission denied: '/c/hub'", None, "`/c/hub` cannot be written"),
            ("OSError: [Errno 30] Read-only file system: '/root/.cache/vllm'", None, "HF_HOME"),
            (
                "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'",
                Some(VllmMissing),
                "`ninja` is missing",
            ),
            ("KeyError: 'layers.0.mlp.down_proj.weight_scale'", Some(UnsupportedQuantization), "`weight_scale`"),
            ("KeyError: 'layers.45.mlp.shared_expert.down_proj.weight'", Some(UnsupportedModel), "newer vLLM"),
            ("ValueError: There is no module or parameter named 'x' in Y", Some(UnsupportedModel), "weights"),
            (
                "ValueError: Weight input_size_per_partition = 192 is not divisible by min_thread_k = 128.",
                Some(InvalidFlag),
                "--tensor-parallel-size",
            ),
            ("NotImplementedError: \"addmm_impl_cpu_\" not implemented for 'Half'", Some(UnsupportedDtype), ""),
            ("ValueError: Please increase --max-num-batched-tokens", Some(InvalidFlag), "`--max-num-batched-tokens`"),
            (
                "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.",
                None,
                "VLLM_HOST_IP",
            ),
        ] {
            let shape = of(message, None);
            assert_eq!(shape.cause, cause, "{message}");
            assert!(shape.advice.join("\n").contains(advice), "{message}: {:?}", shape.advice);
        }
    }

    #[test]
    fn a_bare_assertion_in_a_loader_is_about_weights() {
        assert_eq!(of("AssertionError", Some("vllm/layers/linear.py:1 (weight_loader)")).cause, Some(UnsupportedModel));
        assert_eq!(of("AssertionError", Some("vllm/engine/core.py:1 (step)")).cause, None);
    }

    #[test]
    fn wrappers_are_known() {
        assert!(is_wrapper(
            "RuntimeError: Worker failed with error 'x', please check the stack trace above for the root cause"
        ));
        assert!(is_wrapper("ray.exceptions.RayTaskError(ValueError): ray::x()"));
        assert!(!is_wrapper("RuntimeError: shape mismatch"));
    }
}
