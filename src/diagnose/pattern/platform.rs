//! Rows on what only some platforms say (TPU, Gaudi, Ascend, the CPU backend, Ray), on host memory, files and adapters.

use super::{Rank, Row};
use crate::model::Cause::{
    Crashed, DiskFull, EngineCoreFailed, Hung, InvalidFlag, KilledBySystem, KvCacheTooSmall, Network, NotEnoughDevices,
    OutOfDeviceMemory, UnsupportedModel,
};

const TPU_MEMORY: &[&str] = &[
    "the program and its weights do not fit into the chips' memory: raise `--tensor-parallel-size`, or lower `--max-model-len`, `--max-num-seqs` or `--max-num-batched-tokens`",
    "a process that still holds the chips shows the same: look for it (`/tmp/libtpu_lockfile`), and end it",
];
const TPU_DEVICES: &[&str] = &[
    "fewer TPU chips are visible than asked for, or another process holds them: look for it (`/tmp/libtpu_lockfile`), end it, and compare `--tensor-parallel-size` with the chips of this host",
];
const GAUDI: &[&str] = &[
    "Gaudi's graph compiler or runtime failed: try `--enforce-eager` or `--env PT_HPU_LAZY_MODE=1`, smaller `--max-num-seqs` and `--max-model-len`, and a plugin, driver and SynapseAI of one release",
];
const ASCEND: &[&str] = &[
    "CANN refused a call: see that driver, firmware, CANN and torch_npu are of one release (`npu-smi info`), that `set_env.sh` was sourced, and that this plugin supports the card; `--enforce-eager` does without compiled graphs",
];
const AFFINITY: &[&str] = &[
    "threads cannot be bound to these processors: name in `--env VLLM_CPU_OMP_THREADS_BIND=…` only those that the container or job may use (`taskset -p 1`, `nproc`), or `auto`",
];
const HOST_MEMORY: &[&str] = &[
    "main memory was used up, not the device's: give the host or container more of it, or load with fewer ranks or a smaller model",
];
const CPU_MEMORY: &[&str] = &[
    "on the CPU backend `--gpu-memory-utilization` is the part of main memory that is reserved: lower it, set `--env VLLM_CPU_KVCACHE_SPACE=…` (GiB), or free memory of this NUMA node",
];
const WAITS: &[&str] = &[
    "the engine process says nothing any more: the lines before the first of these show what it did last (a download, a compilation, a link between ranks); run it once with `--env VLLM_LOGGING_LEVEL=DEBUG`, for a link with `--env NCCL_DEBUG=INFO`",
];
const RAY: &[&str] = &[
    "Ray's cluster has not what is asked for: compare `ray status` with `--tensor-parallel-size` times `--pipeline-parallel-size`, and see that no other job holds the devices",
];

pub(super) const ROWS: &[Row] = &[
    // --- TPU -------------------------------------------------------------------------------------------------------------
    Row::new(OutOfDeviceMemory, "RESOURCE_EXHAUSTED", r"RESOURCE_EXHAUSTED: ").advice(TPU_MEMORY).seen(
        "JAX on TPU, vLLM 0.13 (AI-Hypercomputer/tpu-recipes#151)",
        &["jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Error loading program 'jit__multi_slice': Attempting to reserve 6.14G at the bottom of memory."],
    ),
    Row::new(OutOfDeviceMemory, "memory space ", r"[Rr]an out of memory in memory space (?:hbm|vmem|smem|cmem)").advice(TPU_MEMORY).seen(
        "XLA on TPU, vLLM 0.9 (vllm#19490)",
        &["RuntimeError: Bad StatusOr access: Ran out of memory in memory space hbm. Used 20.44G of 15.75G hbm. Exceeded hbm capacity by 4.70G."],
    ),
    Row::new(NotEnoughDevices, "nitialize backend '", r"Unable to initialize backend '\w+'").rank(Rank::Likely).advice(TPU_DEVICES).seen(
        "JAX on TPU (jax#37230)",
        &["RuntimeError: Unable to initialize backend 'tpu': INTERNAL: TPU initialization failed: TPU_RET_CHECK failure"],
    ),
    Row::new(NotEnoughDevices, "TPU is already in use", r"The TPU is already in use by process").advice(TPU_DEVICES).seen(
        "libtpu",
        &["ABORTED: The TPU is already in use by process with pid 4242. Not attempting to load libtpu.so in this process."],
    ),
    Row::new(NotEnoughDevices, "Insufficient devices", r"Insufficient devices for ").advice(TPU_DEVICES).seen(
        "tpu-inference on a host without chips (kaggle-tpu-lab#7)",
        &["ValueError: Insufficient devices for 2D mesh: found 1, expected 8"],
    ),
    // --- Gaudi -----------------------------------------------------------------------------------------------------------
    Row::new(OutOfDeviceMemory, "PT_DEVMEM", r"PT_DEVMEM.*Allocation failed").seen(
        "Gaudi, every release of its plugin",
        &["RuntimeError: [Rank:0] FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed for size::939524096 (896)MB"],
    ),
    Row::new(NotEnoughDevices, "cquire", r"synDeviceAcquire\w* failed|[Dd]evice acquire failed")
        .advice(&["no Gaudi is free or visible: look who holds it with `hl-smi`, and check `HABANA_VISIBLE_DEVICES` and the container's runtime"])
        .seen("Gaudi", &["RuntimeError: synStatus=8 [Device not found] Device acquire failed."]),
    Row::new(EngineCoreFailed, "synStatus", r"synStatus[= ]").rank(Rank::Device).advice(GAUDI).seen(
        "Gaudi (vllm-gaudi#1734, HabanaAI/vllm-fork#484)",
        &["RuntimeError: Graph compile failed. synStatus=synStatus 26 [Generic failure].", "RuntimeError: synNodeCreateWithId failed for node: batch_gemm with synStatus 26 [Generic failure]. ."],
    ),
    Row::new(EngineCoreFailed, "FATAL ERROR :: MODULE:", r"FATAL ERROR :: MODULE:PT_\w+").rank(Rank::Device).advice(GAUDI).seen(
        "Gaudi 1, vLLM 0.6 (HabanaAI/vllm-fork#776)",
        &["RuntimeError: [Rank:0] FATAL ERROR :: MODULE:PT_LAZY Error, ValidateSyncInputTensors tensor_data is empty."],
    ),
    // --- Ascend ----------------------------------------------------------------------------------------------------------
    Row::new(EngineCoreFailed, "NPU function error", r"NPU function error: ").rank(Rank::Device).advice(ASCEND).seen(
        "Ascend, vLLM 0.11 to 0.23 (vllm-ascend#4744, #13522)",
        &["RuntimeError: SetPrecisionMode:torch_npu/csrc/framework/LazyInitAclops.cpp:155 NPU function error: at_npu::native::AclSetCompileopt(aclCompileOpt::ACL_PRECISION_MODE, precision_mode), error code is 500001"],
    ),
    // --- the CPU backend -------------------------------------------------------------------------------------------------
    Row::new(OutOfDeviceMemory, "less than desired CPU memory", r"is less than desired CPU memory utilization").advice(CPU_MEMORY).seen(
        "CPU build, 0.20 to current (`cpu_worker.py`)",
        &["ValueError: Available memory on node 0 (3.21/15.6 GiB) on startup is less than desired CPU memory utilization (0.92, 14.4 GiB). On the CPU backend, the `--gpu-memory-utilization` flag controls the fraction of CPU memory reserved (despite its name)."],
    ),
    Row::new(KvCacheTooSmall, "less than requested memory for kv", r"on kv cache allocation is less than requested memory for kv").advice(CPU_MEMORY).seen(
        "CPU build, 0.20 to current (`cpu_worker.py`)",
        &["ValueError: Available memory on node 0 (3.21/15.6 GiB) on kv cache allocation is less than requested memory for kv (8.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes."],
    ),
    Row::new(InvalidFlag, "sched_setaffinity", r"sched_setaffinity failed").advice(AFFINITY).seen(
        "CPU build in a container with fewer processors, all releases (`csrc/cpu/utils.cpp`; vllm#10556)",
        &["RuntimeError: sched_setaffinity failed. errno: 22"],
    ),
    Row::new(InvalidFlag, "OMP_THREADS_BIND", r"(?:Error|Exception): .*OMP_THREADS_BIND").rank(Rank::Likely).advice(AFFINITY).seen(
        "CPU build",
        &["ValueError: VLLM_CPU_OMP_THREADS_BIND must have one entry for each rank"],
    ),
    // --- host memory -----------------------------------------------------------------------------------------------------
    Row::new(Crashed, "std::bad_alloc", r"std::bad_alloc").rank(Rank::Device).advice(HOST_MEMORY).seen("C++, all backends", &["terminate called after throwing an instance of 'std::bad_alloc'"]),
    Row::new(KilledBySystem, "OutOfMemoryError", r"ray\.exceptions\.OutOfMemoryError").seen("Ray", &["ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory."]),
    // --- files -----------------------------------------------------------------------------------------------------------
    Row::new(DiskFull, "(os error 28)", r"No space left on device \(os error 28\)").seen(
        "hf_xet's downloader (tenstorrent/tt-forge-onnx#2987)",
        &["RuntimeError: Data processing error: CAS service error : IO Error: No space left on device (os error 28)"],
    ),
    Row::new(DiskFull, "isk quota exceeded", r"[Dd]isk quota exceeded")
        .advice(&["the user's quota is used up: name another place for the model cache (`--env HF_HOME=…`) and the compile cache (`--env VLLM_CACHE_ROOT=…`)"])
        .seen("shared file systems of clusters", &["OSError: [Errno 122] Disk quota exceeded: '/home/user/.cache/vllm/torch_compile_cache/x'"]),
    Row::new(Crashed, "(os error 13)", r"Permission denied \(os error 13\)")
        .advice(&["the model cache cannot be written by this user: change its owner, or name another with `--env HF_HOME=…`"])
        .seen("hf_xet's downloader", &["RuntimeError: Data processing error: I/O error: Permission denied (os error 13)"]),
    Row::new(Network, "Data processing error", r"Data processing error: ").rank(Rank::Likely).seen(
        "hf_xet's downloader",
        &["RuntimeError: Data processing error: CAS service error : Reqwest Error: HTTP status server error (500 Internal Server Error), domain: https://cas-server.xethub.hf.co"],
    ),
    Row::new(Network, "error downloading", r"HarmonyError: error downloading or loading vocab file")
        .advice(&["gpt-oss fetches its vocabulary when it starts: let it reach the network, or fetch it beforehand and name the folder with `--env TIKTOKEN_ENCODINGS_BASE=…`"])
        .seen("gpt-oss under vLLM 0.10 and later", &["openai_harmony.HarmonyError: error downloading or loading vocab file: failed to download or load vocab file"]),
    // --- adapters and loaders --------------------------------------------------------------------------------------------
    Row::new(InvalidFlag, "is greater than max_lora_rank", r"LoRA rank \d+ is greater than max_lora_rank \d+").seen(
        "vLLM 0.3 to current (vllm#2847, gpustack#5438)",
        &["ValueError: LoRA rank 64 is greater than max_lora_rank 16."],
    ),
    Row::new(InvalidFlag, " parser", r"(?i)invalid (?:tool call|reasoning) parser|(?:reasoning|tool) parser '?[\w.-]+'? not found").seen(
        "vLLM 0.6 to current",
        &["KeyError: 'invalid tool call parser: qwen (chose from { deepseek_v3,hermes })'", "KeyError: \"Reasoning parser 'qwen' not found. Available parsers: deepseek_r1\""],
    ),
    Row::new(UnsupportedModel, "failed to map GGUF parameters", r"failed to map GGUF parameters")
        .advice(&["this vLLM cannot map the GGUF file to the model: name the original model with `--serve-arg=hf-config-path=…` and `--serve-arg=tokenizer=…`, use a newer vLLM, or weights in safetensors"])
        .seen("GGUF files under vLLM 0.17 (vllm#38716)", &["RuntimeError: failed to map GGUF parameters (18288)"]),
    // --- Ray and waiting -------------------------------------------------------------------------------------------------
    Row::new(NotEnoughDevices, "provide a placement group", r"Cannot provide a placement group").advice(RAY).seen(
        "vLLM with Ray",
        &["ValueError: Cannot provide a placement group of placement_group_specs=[{'GPU': 1.0}] within 1800 seconds. See `ray status` and `ray list nodes` to make sure the cluster has enough resources."],
    ),
    Row::new(NotEnoughDevices, "fulfill resource request", r"No available node types can fulfill resource request").rank(Rank::Likely).advice(RAY).any_level().seen(
        "Ray's autoscaler",
        &["Error: No available node types can fulfill resource request {'GPU': 1.0}. Add suitable node types to this cluster to resolve this issue."],
    ),
    Row::new(NotEnoughDevices, "placement group", r"Waiting for creating a placement group of specs for \d+ seconds").rank(Rank::Hint).any_level().advice(RAY).seen(
        "vLLM with Ray",
        &["Waiting for creating a placement group of specs for 640 seconds. specs=[{'GPU': 1.0}]. Check `ray status` and `ray list nodes` to see if you have enough resources."],
    ),
    Row::new(Hung, "core engine", r"Waiting for \d+ (?:local, \d+ remote )?core engine proc").rank(Rank::Hint).any_level().advice(WAITS).seen(
        "V1 engine, 0.8 to current (vllm#18260)",
        &["Waiting for 1 core engine proc(s) to start: {0}", "Waiting for 1 local, 0 remote core engine proc(s) to start."],
    ),
    Row::new(Hung, "front-end process within", r"Did not receive response from front-end process within").rank(Rank::Process).advice(WAITS).seen(
        "V1 engine, 0.9 to current",
        &["RuntimeError: Did not receive response from front-end process within 5 minutes"],
    ),
    Row::new(Hung, "imed out waiting for engine", r"[Tt]imed out waiting for engine (?:core )?process").rank(Rank::Process).advice(WAITS).seen(
        "V1 engine",
        &["TimeoutError: Timed out waiting for engine core processes to start. This is often caused by slow weight loading for large models."],
    ),
    // --- the last words of C++ -------------------------------------------------------------------------------------------
    Row::new(Crashed, "what():", r"^ *what\(\): +\S").rank(Rank::Process).seen("C++, all backends", &["  what():  CUDA kernel launch failed"]),
    Row::new(Crashed, "terminate called ", r"terminate called (?:after throwing an instance of|without an active exception)").rank(Rank::Process).seen(
        "C++, all backends",
        &["terminate called after throwing an instance of 'c10::Error'"],
    ),
    Row::new(Crashed, "Check failed: ", r"^F\d{4} \d\d:\d\d:\d\d.*Check failed: ").rank(Rank::Process).seen(
        "glog and abseil, XLA",
        &["F0118 22:42:45.737331   20084 tpu_pjrt_client.cc:1889] Check failed: status.ok()"],
    ),
];
