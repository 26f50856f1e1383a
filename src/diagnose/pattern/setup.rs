//! Rows on what was asked for: flags, model, quantization, data type, port, network, installation.

use super::{Rank, Row};
use crate::model::Cause::{
    DiskFull, InvalidFlag, ModelGated, ModelIncomplete, ModelNotFound, Network, PortInUse, SharedMemory,
    UnsupportedDtype, UnsupportedModel, UnsupportedQuantization, VllmMissing,
};

const INNER_PORT: &[&str] = &[
    "one of vLLM's inner sockets, not the API's: another vLLM starts at the same time or was just killed; start again, or set `--env VLLM_PORT=…`",
];
const BAD_PARALLEL: &[&str] = &["choose a `--tensor-parallel-size` that divides the model's attention heads"];

const TOKENIZER: &[&str] = &[
    "the model's folder has no tokenizer that can be read: fetch `tokenizer.json` and `tokenizer_config.json` again, or name a tokenizer with `--serve-arg=tokenizer=…`",
];

pub(super) const ROWS: &[Row] = &[
    // --- port ------------------------------------------------------------------------------------------------------------
    Row::new(PortInUse, "error while attempting to bind on address", r"error while attempting to bind on address .*address already in use").fatal().seen(
        "uvicorn in vLLM 0.5 and 0.6 (vllm#7514)",
        &["ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use"],
    ),
    Row::new(PortInUse, "Address already in use", r"OSError: \[Errno (?:48|98)\] Address already in use").fatal().seen(
        "the API server's own bind, vLLM 0.6 (vllm#9763) to current, all backends",
        &["OSError: [Errno 98] Address already in use"],
    ),
    Row::new(PortInUse, "has failed to listen on any local network address", r"server socket has failed to listen on any local network address")
        .rank(Rank::Likely)
        .advice(INNER_PORT)
        .seen(
            "torch's rendezvous, vLLM 0.6 to current (vllm#11617)",
            &["RuntimeError: The server socket has failed to listen on any local network address. useIpv6: 0, code: -98, name: EADDRINUSE, message: address already in use"],
        ),
    Row::new(PortInUse, "ZMQError: Address already in use", r"ZMQError: Address already in use").rank(Rank::Likely).advice(INNER_PORT).seen(
        "V1 engine's sockets, vLLM 0.8 to current",
        &["zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:29550')"],
    ),
    // --- model -----------------------------------------------------------------------------------------------------------
    Row::new(ModelGated, "access a gated repo", r"You are trying to access a gated repo\.").seen(
        "transformers 4.3x to 4.5x, every release of vLLM (tenstorrent/tt-inference-server#37)",
        &["OSError: You are trying to access a gated repo."],
    ),
    Row::new(ModelGated, "Cannot access gated repo for url", r"Cannot access gated repo for url").seen(
        "huggingface_hub 0.2x to 1.x",
        &["Cannot access gated repo for url https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct/resolve/main/config.json."],
    ),
    Row::new(ModelGated, "GatedRepoError", r"GatedRepoError: 40[13] Client Error").seen(
        "huggingface_hub 0.2x to 1.x",
        &["huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-66f4b037-1bf3d7d219afbc904ee05694;5601d2c9)"],
    ),
    Row::new(ModelNotFound, "is not a valid model identifier listed on", r"is not a local folder and is not a valid model identifier listed on").seen(
        "transformers, every release of vLLM",
        &["OSError: no-such-model is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'"],
    ),
    Row::new(ModelNotFound, "RepositoryNotFoundError", r"RepositoryNotFoundError: 40[14] Client Error")
        .advice(&["check the model's name on the hub; for a private model set `HF_TOKEN` (the hub says the same for both)"])
        .seen(
            "huggingface_hub under vLLM 0.15 (vast-ai/base-image#128)",
            &["huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1-69aa2f15-66396d560525c0fb463d8d99;dfa35b92)"],
        ),
    Row::new(ModelNotFound, "Repository Not Found for url", r"Repository Not Found for url")
        .advice(&["check the model's name on the hub; for a private model set `HF_TOKEN` (the hub says the same for both)"])
        .seen("huggingface_hub", &["Repository Not Found for url: https://huggingface.co/Qwen/Qwen3.5-27B-AWQ/resolve/main/config.json."]),
    Row::new(ModelNotFound, "RevisionNotFoundError", r"RevisionNotFoundError: 404").seen(
        "huggingface_hub with `--revision`",
        &["huggingface_hub.errors.RevisionNotFoundError: 404 Client Error. (Request ID: Root=1-66f4b037-1bf3d7d219afbc904ee05694)"],
    ),
    Row::new(ModelNotFound, "HFValidationError: Repo id must ", r"HFValidationError: Repo id must ")
        .advice(&["this looks like a path that does not exist here: check it inside the container, and that it holds a `config.json`"])
        .seen(
            "vLLM 0.6 to current given a missing path (vllm#12378, #17877)",
            &[
                "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/root/DeepSeek-V2-Lite'. Use `repo_type` argument if needed.",
            ],
        ),
    Row::new(ModelNotFound, "Invalid repository ID or local directory specified", r"Invalid repository ID or local directory specified").rank(Rank::Likely).seen(
        "vLLM 0.8 to current (vllm#13724, #22043)",
        &[
            "ValueError: Invalid repository ID or local directory specified: '/models'.",
            "  Value error, Invalid repository ID or local directory specified: 'org/some-model-7b'.",
        ],
    ),
    Row::new(ModelNotFound, "does not appear to have ", r"does not appear to have (?:a file|files) named").seen(
        "transformers (huggingface/transformers#37314)",
        &[
            "OSError: /models/empty does not appear to have a file named config.json. Checkout 'https://huggingface.co//models/empty/tree/main' for available files.",
            "OSError: meta-llama/Llama-4-Scout-17B-16E-Instruct does not appear to have files named ('model-00002-of-00050.safetensors',). Checkout 'https://huggingface.co/meta-llama/Llama-4-Scout-17B-16E-Instruct/tree/main'for available files.",
        ],
    ),
    Row::new(ModelNotFound, "Can't load ", r"OSError: Can't load (?:the configuration of|the model for|tokenizer for|image processor for) '").rank(Rank::Likely).seen(
        "transformers, every release of vLLM given a path that is not there or is incomplete",
        &["OSError: Can't load the configuration of '/models/nope'. If you were trying to load it from 'https://huggingface.co/models', make sure you don't have a local directory with the same name. Otherwise, make sure '/models/nope' is the correct path to a directory containing a config.json file"],
    ),
    Row::new(ModelNotFound, "Cannot find any model weights with", r"Cannot find any model weights with")
        .advice(&["the directory has a configuration but no weights: fetch the model again, completely"])
        .seen("vLLM, all releases (`weight_utils.py`, `default_loader.py`)", &["RuntimeError: Cannot find any model weights with `/models/broken`"]),
    Row::new(UnsupportedModel, "Model architectures", r"Model architectures \[.*\] are not supported for now").seen(
        "vLLM 0.4 to current (vllm#9515, #9713)",
        &["ValueError: Model architectures ['Qwen3ForCausalLM'] are not supported for now. Supported architectures: ['AquilaModel', 'AquilaForCausalLM']"],
    ),
    Row::new(VllmMissing, "failed to be inspected", r"Model architectures \[.*\] failed to be inspected")
        .wraps()
        .advice(&["importing the model's class failed: the exception above it says why; mostly a package is missing or of another release (`pip check`), or the device cannot be used"])
        .seen(
            "vLLM 0.6 to current (vllm#22231)",
            &["  Value error, Model architectures ['LlamaForCausalLM'] failed to be inspected. Please check the logs for more details. [type=value_error, input_value=ArgsKwargs((), {})]"],
        ),
    Row::new(UnsupportedModel, "has no vLLM implementation", r"has no vLLM implementation and the Transformers implementation ?is not compatible").seen(
        "vLLM 0.7 to current (vllm#16146, #17463)",
        &["ValueError: BertForMaskedLM has no vLLM implementation and the Transformers implementation is not compatible with vLLM."],
    ),
    Row::new(UnsupportedModel, "does not recognize this architecture", r"has model type .* but Transformers does not recognize this architecture")
        .advice(&["the installed transformers is too old for this model: use a newer vLLM image"])
        .seen(
            "transformers 4.4x under vLLM 0.6 to current",
            &["  Value error, The checkpoint you are trying to load has model type `qwen3_5` but Transformers does not recognize this architecture. This could be because of an issue with the checkpoint, or because your version of Transformers is out of date."],
        ),
    Row::new(UnsupportedModel, "Unrecognized model in", r"Unrecognized model in .*Should have a `model_type` key").seen(
        "transformers",
        &["ValueError: Unrecognized model in /models/x. Should have a `model_type` key in its config.json, or contain one of the following strings in its name: albert, align"],
    ),
    Row::new(UnsupportedModel, "GGUF model with architecture", r"GGUF model with architecture \S+ is not supported yet").seen(
        "transformers under vLLM 0.8 (vllm#16905)",
        &["ValueError: GGUF model with architecture deci is not supported yet."],
    ),
    Row::new(ModelIncomplete, "SafetensorError: ", r"SafetensorError: Error while deserializing header").seen(
        "safetensors, every release; vLLM 0.32.0, CPU, run for real (`tests/real_vllm/logs/weights_truncated_0.32.log`)",
        &["safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered"],
    ),
    Row::new(ModelIncomplete, "Can't load tokenizer for", r"OSError: Can't load tokenizer for '").advice(TOKENIZER).seen(
        "transformers 4.x under every release of vLLM",
        &["OSError: Can't load tokenizer for '/models/m'. If you were trying to load it from 'https://huggingface.co/models', make sure you don't have a local directory with the same name."],
    ),
    Row::new(ModelIncomplete, "instantiate the backend tokenizer from one of", r"Couldn't instantiate the backend tokenizer from one of").advice(TOKENIZER).seen(
        "transformers 4.x and 5.x",
        &["ValueError: Couldn't instantiate the backend tokenizer from one of: "],
    ),
    Row::new(ModelIncomplete, "No tokenizer file found in directory", r"No tokenizer file found in directory").advice(TOKENIZER).seen(
        "vLLM's Mistral tokenizer, 0.6 to current",
        &["OSError: No tokenizer file found in directory: /models/m"],
    ),
    // Without tokenizer files transformers 5 makes an empty tokenizer, and vLLM fails where it asks it for the first time.
    Row::new(ModelIncomplete, "= reply_label_ids(tokenizer", r"= reply_label_ids\(tokenizer")
        .rank(Rank::Process)
        .advice(TOKENIZER)
        .seen(
            "the traceback of vLLM 0.32.0 with a model that has no tokenizer files, CPU, run for real (`tests/real_vllm/logs/tokenizer_missing_0.32.log`)",
            &["    _, ids = reply_label_ids(tokenizer, prompt_ids, qtype.label_set)"],
        ),
    // --- quantization and data type --------------------------------------------------------------------------------------
    Row::new(UnsupportedQuantization, "quantization is currently not supported in", r"\S+ quantization is currently not supported in").seen(
        "ROCm 0.5 to current (vllm#6576, #17410), and every platform's list since 0.8",
        &["ValueError: fp8 quantization is currently not supported in ROCm.", "  Value error, gptq_bitblas quantization is currently not supported in rocm. [type=value_error, input_value=ArgsKwargs((), {})]", "ValueError: bitsandbytes quantization is currently not supported in xpu."],
    ),
    Row::new(UnsupportedQuantization, "is not supported for the current GPU", r"[Qq]uantization (?:method \S+|scheme) is not supported for the current GPU").seen(
        "CUDA 0.4 (vllm#4327) to current (vllm#22288)",
        &["ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 90. Current capability: 86"],
    ),
    Row::new(UnsupportedQuantization, "Quantization scheme is not supported for", r"Quantization scheme is not supported for").seen(
        "compressed-tensors, CUDA 0.7 to 0.10 (vllm#14040, #20216)",
        &["RuntimeError: ('Quantization scheme is not supported for ', 'the current GPU. Min capability: 80. ', 'Current capability: 75.')"],
    ),
    Row::new(UnsupportedQuantization, "does not match the quantization method specified", r"Quantization method specified in the model config \(.*\) does not match").seen(
        "vLLM 0.4 to current (vllm#5842, #19050)",
        &[
            "ValueError: Quantization method specified in the model config (gptq) does not match the quantization method specified in the `quantization` argument (gptq_marlin).",
            "  Value error, Quantization method specified in the model config (mxfp4) does not match the quantization method specified in the `quantization` argument (fp8). [type=value_error, input_value=ArgsKwargs((), {})]",
        ],
    ),
    Row::new(UnsupportedQuantization, "Unknown quantization method", r"Unknown quantization method: ").seen(
        "vLLM 0.3 to current",
        &["  Value error, Unknown quantization method: int3. Must be one of ['awq', 'fp8', 'fbgemm_fp8']. [type=value_error, input_value=ArgsKwargs((), {})]"],
    ),
    Row::new(UnsupportedQuantization, "Failed to find a kernel that can implement", r"Failed to find a kernel that can implement the \w+ ?linear layer").seen(
        "vLLM 0.7 to current on devices without a kernel for the scheme",
        &["ValueError: Failed to find a kernel that can implement the WNA16 linear layer. Reasons:"],
    ),
    Row::new(UnsupportedQuantization, "Cannot find the config file for", r"Cannot find the config file for \w+")
        .advice(&["this checkpoint is not quantized with that method: take a quantized checkpoint, or `--quantization none`"])
        .seen(
            "vLLM 0.14.1, CPU, run for real (`tests/real_vllm/logs/quantization_gptq_on_unquantized.log`)",
            &["  Value error, Cannot find the config file for gptq [type=value_error, input_value=ArgsKwargs((), {'model_co...timizationLevel.O2: 2>})]"],
        ),
    Row::new(UnsupportedQuantization, "scaled_fp8_quant", r"RuntimeError: _C::(?:dynamic|static)_(?:per_token_)?scaled_fp8_quant\(\) expected")
        .advice(&["this build of vLLM has no fp8 kernel for this device: use `--quantization none`"])
        .seen(
            "vLLM 0.14.1 and 0.32.0, CPU, run for real (`tests/real_vllm/logs/fp8_cpu_unsupported.log`, `…_0.32.log`)",
            &[
                "RuntimeError: _C::dynamic_scaled_fp8_quant() expected at most 0 argument(s) but received 3 argument(s). Declaration: _C::dynamic_scaled_fp8_quant() -> ()",
                "RuntimeError: _C::static_scaled_fp8_quant() expected at most 0 argument(s) but received 4 argument(s). Declaration: _C::static_scaled_fp8_quant() -> ()",
            ],
        ),
    Row::new(UnsupportedQuantization, "argument --quantization", r": error: argument --quantization/-q: (?:invalid|expected)").fatal().seen(
        "argparse of `vllm serve`, 0.5 to 0.13",
        &["vllm serve: error: argument --quantization/-q: invalid choice: 'off' (choose from 'aqlm', 'awq', 'fp8')"],
    ),
    Row::new(UnsupportedDtype, "Bfloat16 is only supported on GPUs", r"Bfloat16 is only supported on GPUs with compute capability")
        .advice(&["use `--dtype half` on this GPU"])
        .seen(
            "CUDA before Ampere, all releases (vllm#946, #1157)",
            &["ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute capability 7.5. You can use float16 instead by explicitly setting the`dtype` flag in CLI, for example: --dtype=half."],
        ),
    Row::new(UnsupportedDtype, "bfloat16 accuracy known issue", r"have bfloat16 accuracy known issue")
        .advice(&["use `--dtype half` on this device"])
        .seen(
            "XPU on Arc A770 (`platforms/xpu.py`)",
            &["ValueError: Intel Arc A770 have bfloat16 accuracy known issue. You can use float16 instead by explicitly setting the `dtype` flag in CLI, for example: --dtype=half."],
        ),
    Row::new(UnsupportedDtype, "does not support float16. Reason", r"does not support float16\. Reason")
        .advice(&["use `--dtype bfloat16` (or `float32`) for this model"])
        .seen("vLLM 0.9 to current, XPU too", &["ValueError: The model type 'gemma3' does not support float16. Reason: Numerical instability. Please use bfloat16 or float32 instead."]),
    Row::new(UnsupportedDtype, "is not supported for quantization method", r"torch\.\w+ is not supported for quantization method \S+\. Supported dtypes").seen(
        "vLLM 0.2 to current (awq, gptq, gguf)",
        &["ValueError: torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]"],
    ),
    Row::new(UnsupportedDtype, "Unknown dtype", r"Unknown dtype: ").seen("vLLM 0.2 to current", &["  Value error, Unknown dtype: 'bf16' [type=value_error, input_value=ArgsKwargs((), {})]"]),
    Row::new(UnsupportedDtype, "argument --dtype", r": error: argument --dtype: (?:invalid|expected)").fatal().seen(
        "argparse of `vllm serve` (unslothai/unsloth#2811)",
        &["vllm serve: error: argument --dtype: invalid choice: 'torch.bfloat16' (choose from 'auto', 'bfloat16', 'float', 'float16', 'float32', 'half')"],
    ),
    // --- flags -----------------------------------------------------------------------------------------------------------
    Row::new(InvalidFlag, ": error: unrecognized arguments", r"^\S*(?:vllm\S*|\.py)(?: [a-z-]+)*: error: unrecognized arguments: ").fatal().seen(
        "argparse, 0.5 (vllm#8273) to 0.19 (containers/ramalama#758), `vllm serve` and `api_server.py` (vllm#27389)",
        &[
            "vllm: error: unrecognized arguments: --temperature 0.8",
            "api_server.py: error: unrecognized arguments: /root/models/Qwen3-8B",
            "vllm serve: error: unrecognized arguments: --no-such-flag",
        ],
    ),
    Row::new(InvalidFlag, ": error: ", r"^\S*(?:vllm\S*|\.py)(?: [a-z-]+)*: error: (?:argument|the following arguments|ambiguous option|one of the arguments|expected)").fatal().seen(
        "argparse of every release (vllm#13150)",
        &[
            "vllm serve: error: the following arguments are required: model_tag",
            "vllm serve: error: argument --max-model-len: invalid human_readable_int_or_auto value: 'many'",
            "vllm serve: error: ambiguous option: --enable could match --enable-lora, --enable-prefix-caching",
            "vllm serve: error: argument --tensor-parallel-size/-tp: expected one argument",
        ],
    ),
    Row::new(InvalidFlag, "User-specified max_model_len", r"User-specified max_model_len \(\d+\) is greater than the derived max_model_len").seen(
        "vLLM 0.2 to current (vllm#3676, #19660)",
        &["  Value error, User-specified max_model_len (513) is greater than the derived max_model_len (max_position_embeddings=512 or model_max_length=None in model's config.json). This may lead to incorrect model outputs or CUDA errors. To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 [type=value_error, input_value=ArgsKwargs((), {})]"],
    ),
    Row::new(InvalidFlag, "must be divisible by tensor parallel size", r"must be divisible by tensor parallel size \(\d+\)").advice(BAD_PARALLEL).seen(
        "vLLM 0.1 (vllm#414) to current (vllm#52535)",
        &[
            "ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (8).",
            "  Value error, Total number of attention heads (64) must be divisible by tensor parallel size (3). [type=value_error, input_value=ArgsKwargs((), {})]",
        ],
    ),
    Row::new(InvalidFlag, "max_num_batched_tokens", r"max_num_batched_tokens \(\d+\) is smaller than max_model_len").seen(
        "vLLM 0.3 to current without chunked prefill",
        &["ValueError: max_num_batched_tokens (2048) is smaller than max_model_len (10000). This effectively limits the maximum sequence length to max_num_batched_tokens and makes vLLM reject longer sequences. Please increase max_num_batched_tokens or decrease max_model_len."],
    ),
    Row::new(InvalidFlag, "Invalid attention backend for", r"Invalid attention backend for \w+").seen("XPU and CUDA 0.11 to current (`platforms/xpu.py`)", &["ValueError: Invalid attention backend for xpu, with use_mla: False"]),
    Row::new(InvalidFlag, "requires intel_extension_for_pytorch", r"--block-size=\d+ requires intel_extension_for_pytorch")
        .advice(&["drop the flag for the CPU backend: `--serve-arg=no:--block-size`"])
        .seen("CPU build 0.7 to 0.9 (`platforms/cpu.py`)", &["RuntimeError: --block-size=64 requires intel_extension_for_pytorch"]),
    Row::new(InvalidFlag, "on the CPU backend is not compatible", r"on the CPU backend is not compatible with FP8 KV cache").seen(
        "CPU build 0.7 to 0.10 (`platforms/cpu.py`)",
        &["RuntimeError: Chunked-prefill and prefix-cache on the CPU backend is not compatible with FP8 KV cache."],
    ),
    Row::new(InvalidFlag, "Invalid environment variable VLLM_", r"Invalid environment variable VLLM_\w+").seen(
        "CPU build 0.6 to 0.10 (`platforms/cpu.py`)",
        &["RuntimeError: Invalid environment variable VLLM_CPU_KVCACHE_SPACE -1, expect a positive integer value."],
    ),
    Row::new(InvalidFlag, "trust_remote_code=True", r"Please pass the argument `trust_remote_code=True`").advice(&["add `--trust-remote-code`, if you trust the model's repository"]).seen(
        "transformers, every release of vLLM",
        &["Please pass the argument `trust_remote_code=True` to allow custom code to be run."],
    ),
    Row::new(InvalidFlag, "you should provide the model as a positional argument", r"you should provide the model as a positional argument").seen(
        "vLLM 0.8 and 0.9 (vllm#17944); a warning since",
        &["ValueError: With `vllm serve`, you should provide the model as a positional argument or in a config file instead of via the `--model` option."],
    ),
    Row::new(InvalidFlag, "Value error, ", r"^ *Value error, ").rank(Rank::Device).seen(
        "pydantic in vLLM 0.9 and later: any check of the settings that has no row of its own",
        &["  Value error, Unsupported combination of settings [type=value_error, input_value=ArgsKwargs((), {})]"],
    ),
    Row::new(InvalidFlag, "[type=", r"\[type=[a-z_]+, input_value=").rank(Rank::Device).seen(
        "pydantic in vLLM 0.9 and later: a value of the wrong type",
        &["  Input should be greater than 0 [type=greater_than, input_value=0, input_type=int]"],
    ),
    Row::new(InvalidFlag, "validation error", r"\d+ validation errors? for \w+").rank(Rank::Consequence).seen(
        "pydantic in vLLM 0.9 and later (vllm#19660)",
        &["pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig"],
    ),
    // --- network ---------------------------------------------------------------------------------------------------------
    Row::new(Network, "couldn't connect to 'http", r"[Ww]e couldn't connect to 'https?://").rank(Rank::Likely).seen(
        "transformers, every release of vLLM",
        &["OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files."],
    ),
    Row::new(Network, "Max retries exceeded with url", r"Max retries exceeded with url").rank(Rank::Likely).seen(
        "requests and urllib3 (vllm#1432; Avarok-Cybersecurity/dgx-vllm#16); with a proxy, `ProxyError`",
        &[
            "urllib3.exceptions.MaxRetryError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /openai/gpt-oss-120b/resolve/main/config.json (Caused by ConnectTimeoutError(<HTTPSConnection(host='huggingface.co', port=443) at 0xf0ff49d14530>, 'Connection to huggingface.co timed out. (connect timeout=10)'))",
            "requests.exceptions.ProxyError: (MaxRetryError(\"HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /openai/clip-vit-base-patch32/resolve/main/tokenizer_config.json (Caused by ProxyError('Cannot connect to proxy.', FileNotFoundError(2, 'No such file or directory')))\"), '(Request ID: 8a9f7cff)')",
        ],
    ),
    Row::new(Network, "httpx.", r"^httpx\.(?:Connect|Proxy|Read|Remote)\w*(?:Error|Timeout)").rank(Rank::Likely).seen(
        "huggingface_hub 1.x under vLLM 0.15 and later",
        &["httpx.ConnectError: [Errno -2] Name or service not known", "httpx.ProxyError: 503 Service Unavailable"],
    ),
    Row::new(Network, "LocalEntryNotFoundError", r"LocalEntryNotFoundError").rank(Rank::Likely).seen(
        "huggingface_hub, offline or cut off",
        &["huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub and we cannot find the requested files in the local cache. Please check your connection and try again or make sure your Internet connection is on."],
    ),
    Row::new(Network, "OfflineModeIsEnabled", r"OfflineModeIsEnabled: Cannot reach")
        .rank(Rank::Likely)
        .advice(&["`HF_HUB_OFFLINE` is set and the model is not in the cache: fetch it beforehand, or unset the variable"])
        .seen("vLLM 0.3 to current (vllm#3719)", &["huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/bigcode/starcoder: offline mode is enabled. To disable it, please unset the `HF_HUB_OFFLINE` environment variable."]),
    Row::new(Network, "gaierror", r"socket\.gaierror: ").rank(Rank::Likely).seen("Python's resolver, all releases", &["socket.gaierror: [Errno -3] Temporary failure in name resolution"]),
    Row::new(Network, "CERTIFICATE_VERIFY_FAILED", r"CERTIFICATE_VERIFY_FAILED")
        .rank(Rank::Likely)
        .advice(&["the proxy's certificate is not trusted in the container: set `--env SSL_CERT_FILE=…` and `--env REQUESTS_CA_BUNDLE=…`"])
        .seen("Python's ssl behind a proxy that opens TLS", &["ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in certificate chain (_ssl.c:1006)"]),
    Row::new(Network, "for url: http", r"(?:429 Client|50[0-9] Server) Error: .* for url: https?://")
        .rank(Rank::Likely)
        .advice(&["the hub refuses or fails for now: wait, set `HF_TOKEN` (it raises the limit), or fetch the model beforehand"])
        .seen("huggingface_hub", &["huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/api/models/Qwen/Qwen3-30B-A3B/tree/main"]),
    // --- files -----------------------------------------------------------------------------------------------------------
    Row::new(SharedMemory, "No space left on device", r"(?:/dev/shm|psm_|/sem\.).*No space left on device|No space left on device.*(?:/dev/shm|/psm_|/sem\.)").seen(
        "NCCL in containers (llm-d/llm-d#352, pytorch/ci-infra#490); Python's shared memory",
        &[
            "misc/shmutils.cc:129 NCCL WARN Error while creating shared memory segment /dev/shm/nccl-Ewjreo (size 33030528), error: No space left on device (28)",
            "OSError: [Errno 28] No space left on device: '/psm_7f57e47e'",
        ],
    ),
    Row::new(DiskFull, "No space left on device", r"\[Errno 28\] No space left on device|StorageFull").rank(Rank::Likely).seen(
        "weights or compile cache on a full disk",
        &["OSError: [Errno 28] No space left on device: '/root/.cache/huggingface/hub/models--Qwen--Qwen3-30B-A3B/blobs/x.incomplete'", "OSError: [Errno 28] No space left on device"],
    ),
    // --- installation ----------------------------------------------------------------------------------------------------
    Row::new(VllmMissing, "vllm: ", r"vllm: (?:command not found|not found|No such file or directory|cannot execute)").fatal().seen(
        "bash and dash",
        &["/tmp/vllm-bench/run.sh: line 12: vllm: command not found", "bash: line 1: exec: vllm: not found", "/tmp/run.sh: line 9: /opt/venv/bin/vllm: No such file or directory"],
    ),
    Row::new(VllmMissing, "No module named ", r"No module named '?vllm'?$").fatal().seen("Python", &["ModuleNotFoundError: No module named 'vllm'", "/usr/bin/python3: No module named vllm"]),
    Row::new(VllmMissing, "cannot open shared object file", r"ImportError: \S+: cannot open shared object file")
        .rank(Rank::Likely)
        .advice(&["a library of vLLM's installation is not found: source oneAPI's `setvars.sh` (`--setvars`), or install the build that fits this machine's driver"])
        .seen(
            "XPU without `setvars.sh`; CUDA with the wrong build (vllm#36099, #52300)",
            &["ImportError: libsycl.so.8: cannot open shared object file: No such file or directory", "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory"],
        ),
    Row::new(VllmMissing, "undefined symbol", r"ImportError: .*undefined symbol: ")
        .rank(Rank::Device)
        .advice(&["vLLM and torch (or an extension such as flash-attn) do not fit together: install the pair that belongs together"])
        .seen(
            "CUDA with mixed versions (vllm#9377)",
            &["ImportError: /usr/local/lib/python3.10/dist-packages/flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"],
        ),
];
