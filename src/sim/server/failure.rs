//! The log of a vLLM that does not start, by cause.

use super::Launch;
use super::process::Ids;
use crate::sim::flags::{QUANTIZATIONS, python};
use crate::sim::log::Source;
use crate::sim::model::{DoesNotFit, gib};

const SITE: &str = "/usr/local/lib/python3.12/dist-packages";

/// A configuration that the API server refuses before any engine: a traceback that ends in `error`, exit 1.
pub fn api_server(launch: &Launch, place: &str, error: &str) -> u8 {
    let traceback = format!(
        "Traceback (most recent call last):\n  File \"/usr/local/bin/vllm\", line 8, in <module>\n    sys.exit(main())\n\
         \x20            ^^^^^^\n  File \"{SITE}/vllm/entrypoints/cli/main.py\", line 73, in main\n    args.dispatch_function(args)\n\
         \x20 File \"{SITE}/vllm/entrypoints/cli/serve.py\", line 60, in cmd\n    uvloop.run(run_server(args))\n{place}{error}"
    );
    launch.log.plain(&launch.api, &traceback);
    1
}

const CREATE_CONFIG: &str = "  File \"/usr/local/lib/python3.12/dist-packages/vllm/engine/arg_utils.py\", line 1371, in create_engine_config\n    \
                             model_config = self.create_model_config()\n                   ^^^^^^^^^^^^^^^^^^^^^^^^^^\n";

/// pydantic refuses the configuration.
pub fn validation(launch: &Launch, config: &str, value_error: &str) -> u8 {
    let error = format!(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for {config}\n  Value error, {value_error} \
         [type=value_error, input_value=ArgsKwargs((), {{'model': {}}}), input_type=ArgsKwargs]\n    \
         For further information visit https://errors.pydantic.dev/2.12/v/value_error",
        python(&launch.config.model)
    );
    api_server(launch, CREATE_CONFIG, &error)
}

/// Another process has the port.
pub fn port_taken(launch: &Launch) -> u8 {
    let place = format!(
        "  File \"{SITE}/vllm/entrypoints/openai/api_server.py\", line 1319, in run_server\n    listen_address, sock = setup_server(args)\n\
         \x20                          ^^^^^^^^^^^^^^^^^^\n  File \"{SITE}/vllm/entrypoints/openai/api_server.py\", line 1284, in setup_server\n    \
         sock = create_server_socket(sock_addr)\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n\
         \x20 File \"{SITE}/vllm/entrypoints/openai/api_server.py\", line 1242, in create_server_socket\n    sock.bind(addr)\n"
    );
    api_server(launch, &place, "OSError: [Errno 98] Address already in use")
}

/// There is no such model.
pub fn model_not_found(launch: &Launch) -> u8 {
    let model = &launch.config.model;
    let error = format!(
        "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1-simulated)\n\n\
         Repository Not Found for url: https://huggingface.co/{model}/resolve/main/config.json.\n\
         Please make sure you specified the correct `repo_id` and `repo_type`.\n\
         If you are trying to access a private or gated repo, make sure you are authenticated. For more details, see \
         https://huggingface.co/docs/huggingface_hub/authentication\n\n\
         The above exception was the direct cause of the following exception:\n\n\
         OSError: {model} is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\n\
         If this is a private repository, make sure to pass a token having permission to this repo either by logging in with \
         `hf auth login` or by passing `token=<your_token>`"
    );
    api_server(launch, CREATE_CONFIG, &error)
}

/// The model needs a licence and a token.
pub fn gated_model(launch: &Launch) -> u8 {
    let model = &launch.config.model;
    let error = format!(
        "OSError: You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/{model}.\n\
         401 Client Error. (Request ID: Root=1-simulated)\n\n\
         Cannot access gated repo for url https://huggingface.co/{model}/resolve/main/config.json.\n\
         Access to model {model} is restricted. You must have access to it and be authenticated to access it. Please log in."
    );
    api_server(launch, CREATE_CONFIG, &error)
}

/// Hugging Face cannot be reached.
pub fn network(launch: &Launch) -> u8 {
    let model = &launch.config.model;
    let error = format!(
        "requests.exceptions.ConnectionError: (MaxRetryError(\"HTTPSConnectionPool(host='huggingface.co', port=443): Max retries \
         exceeded with url: /{model}/resolve/main/config.json (Caused by NameResolutionError(\\\"<urllib3.connection.HTTPSConnection \
         object at 0x7f0000000000>: Failed to resolve 'huggingface.co' ([Errno -3] Temporary failure in name resolution)\\\"))\"), \
         '(Request ID: simulated)')\n\nThe above exception was the direct cause of the following exception:\n\n\
         OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.\n\
         Check your internet connection or see how to run the library in offline mode at \
         'https://huggingface.co/docs/transformers/installation#offline-mode'."
    );
    api_server(launch, CREATE_CONFIG, &error)
}

/// `--quantization` names no method.
pub fn unknown_quantization(launch: &Launch, method: &str) -> u8 {
    let methods: Vec<String> = QUANTIZATIONS.iter().map(|method| python(method)).collect();
    validation(
        launch,
        "ModelConfig",
        &format!("Unknown quantization method: {method}. Must be one of [{}].", methods.join(", ")),
    )
}

/// The platform does not support the quantization.
pub fn quantization_unsupported(launch: &Launch) -> u8 {
    let method = launch.config.deployment.quantization.as_deref().unwrap_or("fp8");
    validation(launch, "ModelConfig", &format!("{method} quantization is currently not supported in xpu."))
}

/// The device does not support the dtype.
pub fn dtype_unsupported(launch: &Launch, ids: Ids) -> u8 {
    let error = "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Simulated GPU has \
                 compute capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI, for example: \
                 --dtype=half.";
    worker(
        launch,
        ids,
        "xpu_worker.py\", line 87, in init_device\n    current_platform.check_if_supports_dtype(self.model_config.dtype)",
        error,
    )
}

/// More devices asked for than there are.
pub fn too_many_devices(launch: &Launch, devices: u32) -> u8 {
    let deployment = &launch.config.deployment;
    let world = deployment.tp * deployment.pp;
    let error = format!(
        "World size ({world}) is larger than the number of available GPUs ({devices}) in this node. If this is intentional and you \
         are using:\n- ray, set '--distributed-executor-backend ray'.\n- multiprocessing, set '--nnodes' appropriately."
    );
    validation(launch, "ParallelConfig", &error)
}

/// The context is longer than the model's.
pub fn context_too_long(launch: &Launch, derived: u32) -> u8 {
    let error = format!(
        "User-specified max_model_len ({}) is greater than the derived max_model_len (max_position_embeddings={derived} or \
         model_max_length=None in model's config.json). To allow overriding this maximum, set the env var \
         VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with extreme caution. If the model uses \
         relative position encoding (RoPE), positions exceeding derived_max_model_len lead to nan. If the model uses absolute \
         position encoding, positions exceeding derived_max_model_len will cause a CUDA array out-of-bounds error.",
        launch.config.max_model_len
    );
    validation(launch, "ModelConfig", &error)
}

/// Device memory runs out while loading.
pub fn out_of_memory(launch: &Launch, ids: Ids) -> u8 {
    let (total, needed) = (launch.settings.device_memory_gib, gib(launch.cost.weight_bytes()));
    let free = 0.02 + total / 400.0;
    let used = needed.min(total - free - 0.3).max(0.1);
    let error = format!(
        "torch.OutOfMemoryError: XPU out of memory. Tried to allocate 384.00 MiB. GPU 0 has a total capacity of {total:.2} GiB. \
         Of the allocated memory {used:.2} GiB is allocated by PyTorch, and 112.50 MiB is reserved by PyTorch but unallocated. \
         Please use `empty_cache` to release all unoccupied cached memory."
    );
    let place = "gpu_model_runner.py\", line 3561, in load_model\n    self.model = model_loader.load_model(";
    worker(launch, ids, place, &error)
}

/// The model fits, the cache (or one request in it) does not.
pub fn kv_cache(launch: &Launch, ids: Ids, why: DoesNotFit) -> u8 {
    let more = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details.";
    let error = match why {
        DoesNotFit::CacheTooSmall { needed, available, longest } => format!(
            "ValueError: To serve at least one request with the models's max seq len ({}), ({:.2} GiB KV cache is needed, which is \
             larger than the available KV cache memory ({:.2} GiB). Based on the available memory, the estimated maximum model \
             length is {longest}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the \
             engine. {more}",
            launch.config.max_model_len,
            gib(needed),
            gib(available),
        ),
        DoesNotFit::Weights { .. } | DoesNotFit::NoCacheBlocks { .. } => format!(
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the \
             engine. {more}"
        ),
    };
    let available = match why {
        DoesNotFit::CacheTooSmall { available, .. } | DoesNotFit::NoCacheBlocks { available } => available,
        DoesNotFit::Weights { needed, device } => device - needed,
    };
    launch.log.info(
        &launch.worker(ids),
        "gpu_worker.py:358",
        &format!("Available KV cache memory: {:.2} GiB", gib(available)),
    );
    let place = "  File \"/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py\", line 248, in _initialize_kv_caches\n    \
                 kv_cache_configs = get_kv_cache_configs(\n                       ^^^^^^^^^^^^^^^^^^^^^\n  File \
                 \"/usr/local/lib/python3.12/dist-packages/vllm/v1/core/kv_cache_utils.py\", line 616, in _check_enough_kv_cache_memory\n    \
                 raise ValueError(\n";
    engine(launch, ids, place, &error, "{}")
}

/// The device is lost while profiling.
pub fn level_zero(launch: &Launch, ids: Ids) -> u8 {
    let place =
        "gpu_model_runner.py\", line 4010, in profile_run\n    hidden_states, last_hidden_states = self._dummy_run(";
    worker(launch, ids, place, "RuntimeError: level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)")
}

/// `/dev/shm` is full.
pub fn shared_memory(launch: &Launch, ids: Ids) -> u8 {
    let place = "  File \"/usr/local/lib/python3.12/dist-packages/vllm/distributed/device_communicators/shm_broadcast.py\", line 181, in __init__\n    \
                 self.shared_memory = shared_memory.SharedMemory(\n                         ^^^^^^^^^^^^^^^^^^^^^^^^^^^\n";
    engine(launch, ids, place, "OSError: [Errno 28] No space left on device: '/psm_5ee1d0c1'", "{}")
}

/// An exception in a worker (which is the engine core itself when tp is 1), exit 1.
fn worker(launch: &Launch, ids: Ids, place: &str, error: &str) -> u8 {
    let place = format!("  File \"{SITE}/vllm/v1/worker/{place}\n");
    if launch.config.deployment.tp == 1 {
        return engine(launch, ids, &place, error, "{}");
    }
    let traceback = format!("WorkerProc failed to start.\nTraceback (most recent call last):\n{place}{error}");
    launch.log.line(&launch.worker(ids), "ERROR", "multiproc_executor.py:772", &traceback);
    let place = format!(
        "  File \"{SITE}/vllm/v1/executor/multiproc_executor.py\", line 671, in wait_for_ready\n    raise e from None\n"
    );
    let error = "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.";
    engine(launch, ids, &place, error, "{}")
}

/// An exception in the engine core, then the API server's, exit 1.
fn engine(launch: &Launch, ids: Ids, place: &str, error: &str, failed: &str) -> u8 {
    let source = launch.engine(ids);
    let traceback = format!(
        "Traceback (most recent call last):\n  File \"{SITE}/vllm/v1/engine/core.py\", line 926, in run_engine_core\n    \
         engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)\n                  \
         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n{place}{error}"
    );
    launch.log.line(&source, "ERROR", "core.py:935", &format!("EngineCore failed to start.\n{traceback}"));
    launch.log.plain(&source, &format!("Process EngineCore_DP0:\n{traceback}"));
    engine_failed(launch, failed)
}

/// What the API server says when its engine core does not come up.
pub fn engine_failed(launch: &Launch, failed: &str) -> u8 {
    let place = format!(
        "  File \"{SITE}/vllm/v1/engine/core_client.py\", line 479, in __init__\n    with launch_core_engines(vllm_config, executor_class, log_stats) as (\n\
         \x20        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"{SITE}/vllm/v1/engine/utils.py\", line 986, in wait_for_engine_startup\n    \
         raise RuntimeError(\n"
    );
    let error =
        format!("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {failed}");
    api_server(launch, &place, &error)
}

/// The engine core died under a running server: what the API server says before it shuts down.
pub fn engine_died(launch: &Launch) {
    let died = "Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.";
    launch.log.line(&launch.api, "ERROR", "core_client.py:610", died);
    let traceback = format!(
        "AsyncLLM output_handler failed.\nTraceback (most recent call last):\n  File \"{SITE}/vllm/v1/engine/async_llm.py\", line 518, in output_handler\n    \
         outputs = await engine_core.get_output_async()\n              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"{SITE}/vllm/v1/engine/core_client.py\", line 895, in get_output_async\n    \
         raise self._format_exception(outputs) from None\n\
         vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause."
    );
    launch.log.line(&launch.api, "ERROR", "async_llm.py:543", &traceback);
}

/// A signal in the middle of the start.
pub fn interrupted(launch: &Launch) -> u8 {
    api_server(launch, "", "KeyboardInterrupt: terminated");
    130
}

/// The bytes of the fault `garbage-log`: 0 to 255, a line of a mebibyte, no newline at the end.
pub fn garbage() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(std::iter::repeat_n(b'x', 1 << 20));
    bytes.extend(b"\nno newline after this \xff\xfe\xc3(");
    bytes
}

/// A name of a process that has no id of its own in the simulation.
pub fn source(name: &str, pid: u32) -> Source {
    Source::Process { name: name.into(), pid }
}
