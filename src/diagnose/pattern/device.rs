//! Rows on memory and devices: device memory, the KV cache, how many devices, Level Zero and its like.

use super::{Rank, Row};
use crate::model::Cause::{Crashed, EngineCoreFailed, KvCacheTooSmall, LevelZero, NotEnoughDevices, OutOfDeviceMemory};

const FREE_IT: &[&str] = &[
    "end what else holds device memory (`vllm-bench stop` for leftovers of ours; `xpu-smi ps`, `nvidia-smi`, `rocm-smi`)",
    "or lower `--gpu-memory-utilization`",
];

const RESOURCES: &[&str] = &[
    "Level Zero says this both when memory is short and when a kernel or the device failed: lower `--gpu-memory-utilization`, `--max-model-len` or `--max-num-seqs` once, and try `--enforce-eager`",
    "where that changes nothing, look for a lost device in the kernel's log (`dmesg | grep -i xe`), update driver and firmware, and reset the device",
];

const KERNEL: &[&str] = &[
    "a kernel failed on the device: run once with `--env CUDA_LAUNCH_BLOCKING=1` (ROCm: `--env AMD_SERIALIZE_KERNEL=3`), then the traceback names it",
    "try `--enforce-eager`, another attention backend (`--serve-arg=attention-backend=…`), `--kv-cache-dtype auto`, or a newer vLLM and driver",
];

pub(super) const ROWS: &[Row] = &[
    // --- device memory ---------------------------------------------------------------------------------------------------
    Row::new(OutOfDeviceMemory, "out of memory. Tried to allocate", r"(?:CUDA|HIP|XPU|NPU) out of memory\. Tried to allocate")
        .seen(
            "torch 2.1 to 2.13 on XPU (intel/llm-scaler#578, #305), CUDA (vllm#11560, #26863), ROCm (lemonade-sdk/vllm-rocm#5)",
            &[
                "torch.OutOfMemoryError: XPU out of memory. Tried to allocate 192.00 MiB. GPU 3 has a total capacity of 31.89 GiB of which 13.22 GiB is free.",
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 50.00 MiB. GPU 0 has a total capacity of 23.56 GiB of which 56.88 MiB is free",
                "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB of which 1.50 GiB is free.",
                "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 12.95 GiB. GPU 0 has a total capacity of 127.00 GiB of which 18.55 GiB is free.",
            ],
        ),
    Row::new(OutOfDeviceMemory, "_ERROR_OUT_OF_", r"(?:UR_RESULT|ZE_RESULT|PI|CUDA|HIP|ACL)_ERROR_OUT_OF_(?:DEVICE_)?MEMORY")
        .seen(
            "vLLM on XPU, Level Zero through Unified Runtime (intel/llm-scaler#348) and through PI before 2025",
            &[
                "RuntimeError: level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
                "RuntimeError: Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
            ],
        ),
    Row::new(LevelZero, "_ERROR_OUT_OF_RESOURCES", r"(?:UR_RESULT|ZE_RESULT|PI)_ERROR_OUT_OF_RESOURCES")
        .rank(Rank::Device)
        .advice(RESOURCES)
        .seen(
            "vLLM on XPU (vllm#41663; the predecessor's notes on gpt-oss-20b without eager), and through PI before 2025",
            &[
                "RuntimeError: level_zero backend failed with error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)",
                "RuntimeError: Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)",
            ],
        ),
    Row::new(OutOfDeviceMemory, "is less than desired GPU memory utilization", r"Free memory on device.* on startup is less than desired GPU memory utilization")
        .advice(FREE_IT)
        .seen(
            "vLLM 0.9 to 0.11 (vllm#20305, #25837), with the device's name since 0.13 (pytorch#175666), on XPU too",
            &[
                "ValueError: Free memory on device (31.44/47.38 GiB) on startup is less than desired GPU memory utilization (0.95, 45.01 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
                "ValueError: Free memory on device cuda:0 (7.34/15.49 GiB) on startup is less than desired GPU memory utilization (0.8, 12.39 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
                "ValueError: Free memory on device xpu:0 (18.79/28.57 GiB) on startup is less than desired GPU memory utilization (0.7, 20.0 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
            ],
        ),
    Row::new(OutOfDeviceMemory, "not enough GPU memory", r"Failed to load model - not enough GPU memory")
        .advice(&["the weights alone do not fit: raise `--tensor-parallel-size`, quantize, or take a smaller model"])
        .seen(
            "vLLM 0.12 and later, all GPU backends (`gpu_model_runner.py`)",
            &["Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory for weights, increasing --tensor-parallel-size, or using --quantization. See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more tips. (original error: CUDA out of memory.)"],
        ),
    Row::new(OutOfDeviceMemory, "error: out of memory", r"(?:CUDA|HIP)(?: driver)? error: out of memory").seen(
        "CUDA, vLLM 0.19 (noonghunna/club-3090#60) and earlier",
        &["RuntimeError: CUDA driver error: out of memory", "RuntimeError: CUDA error: out of memory", "RuntimeError: HIP error: out of memory"],
    ),
    Row::new(OutOfDeviceMemory, "ut of memory", r"(?i:CUDA|HIP|XPU|NPU|HPU|MUSA|Triton Error|cublas|cudnn|device|GPU|HBM)\b.{0,60}[Oo]ut of memory").rank(Rank::Likely).seen(
        "Triton, CUDA, Ascend",
        &["RuntimeError: Triton Error [CUDA]: out of memory", "RuntimeError: NPU out of memory. NPUWorkspaceAllocator tried to allocate 1.2 GiB"],
    ),
    Row::new(OutOfDeviceMemory, "ErrorOutOfMemory", r"(?:hip|cuda)ErrorOutOfMemory").rank(Rank::Likely).seen("HIP", &["RuntimeError: hipErrorOutOfMemory"]),
    Row::new(OutOfDeviceMemory, "_STATUS_ALLOC_FAILED", r"CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED").rank(Rank::Likely).seen(
        "cuBLAS with nothing left for its workspace",
        &["RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"],
    ),
    Row::new(OutOfDeviceMemory, "out of memory occurred when warming up", r"out of memory occurred when warming up \w+ with \d+ dummy requests")
        .seen(
            "vLLM 0.8 to 0.11, CUDA (vllm#27508)",
            &["RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine."],
        ),
    Row::new(OutOfDeviceMemory, "Cuda failure", r"Cuda failure (?:2 )?'out of memory'").seen(
        "NCCL 2.18 to 2.27 while communicators are made",
        &["Cuda failure 2 'out of memory'", "Cuda failure 'out of memory'"],
    ),
    Row::new(OutOfDeviceMemory, "larger than 4GB", r"can NOT allocate memory block with size larger than 4GB").seen(
        "IPEX on Arc A770 (ipex-llm#11798)",
        &["RuntimeError: Current platform can NOT allocate memory block with size larger than 4GB! Tried to allocate 40.00 GiB (GPU  0; 15.11 GiB total capacity; 10.03 GiB already allocated)"],
    ),
    Row::new(OutOfDeviceMemory, "DefaultCPUAllocator", r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)")
        .advice(&["the CPU backend ran out of main memory: lower `--env VLLM_CPU_KVCACHE_SPACE=…` or `--max-model-len`, or take a smaller model"])
        .seen(
            "CPU build, all releases (torch's allocator)",
            &["RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"],
        ),
    // --- KV cache --------------------------------------------------------------------------------------------------------
    Row::new(KvCacheTooSmall, "No available memory for the cache blocks", r"No available memory for the cache blocks").seen(
        "vLLM 0.2 to current, all backends (vllm#2248, #27508; wtdcode/vllm-backport#15)",
        &[
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine (this flag also controls CPU memory reservation on the CPU backend, despite its name). See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details.",
        ],
    ),
    Row::new(KvCacheTooSmall, "To serve at least one request with the model", r"To serve at least one request with the models?'s max seq len").seen(
        "vLLM 0.8 (vllm#16118), CPU 0.11 (vllm#29233), CUDA 0.15 (vllm#34076), XPU 0.2x (SergiioB/intel-arc-pro-b70-inference-cookbook#4)",
        &[
            "ValueError: To serve at least one request with the models's max seq len (1048576), (24.00 GiB KV cache is needed, which is larger than the available KV cache memory (9.97 GiB). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
            "ValueError: To serve at least one request with the models's max seq len (40960), (4.38 GiB KV cache is needed, which is larger than the available KV cache memory (4.00 GiB). Based on the available memory, the estimated maximum model length is 37376. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
            "ValueError: To serve at least one request with the model's max seq len (100000), (4.26 GiB KV cache is needed, which is larger than the available KV cache memory (4.25 GiB). Based on the available memory, the estimated maximum model length is 99648.",
        ],
    ),
    Row::new(KvCacheTooSmall, "can be stored in KV cache", r"is larger than the maximum number of tokens that can be stored in KV cache").seen(
        "vLLM 0.2 to 0.8, CUDA and XPU (vllm#2418, QwenLM/Qwen3#295)",
        &["ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV cache (7344). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."],
    ),
    // --- how many devices ------------------------------------------------------------------------------------------------
    Row::new(NotEnoughDevices, "is larger than the number of available GPUs", r"World size \(\d+\) is larger than the number of available GPUs \(\d+\)").seen(
        "vLLM 0.11 and later (vllm#30140)",
        &["  Value error, World size (8) is larger than the number of available GPUs (4) in this node. If this is intentional and you are using: [type=value_error, input_value=ArgsKwargs((), {}), input_type=ArgsKwargs]"],
    ),
    Row::new(NotEnoughDevices, "less than than max local gpu count", r"ensure that world_size \(\d+\) is less than than max local gpu count").seen(
        "vLLM 0.6 and 0.7, CUDA and ROCm (vllm#15217)",
        &["RuntimeError: please ensure that world_size (2) is less than than max local gpu count (1)"],
    ),
    Row::new(NotEnoughDevices, "the number of visible devices", r"local_world_size \(\d+\) must be less than or equal to the number of visible devices").seen(
        "vLLM 0.11 and later (vllm#28873)",
        &["AssertionError: local_world_size (16) must be less than or equal to the number of visible devices (8)."],
    ),
    Row::new(NotEnoughDevices, "invalid device ordinal", r"(?:CUDA|HIP) error: invalid device ordinal").seen(
        "CUDA and ROCm, 0.3 to current (vllm#3722, #8984, #16456)",
        &["RuntimeError: CUDA error: invalid device ordinal", "torch.AcceleratorError: HIP error: invalid device ordinal"],
    ),
    Row::new(NotEnoughDevices, "device index", r"[Ii]nvalid device index \d+, must be in range|The device index is out of range\. It must be in").seen(
        "XPU platform of vLLM 0.2x (`platforms/xpu.py`); torch's XPU functions",
        &["ValueError: Invalid device index 2, must be in range [0, 2)", "RuntimeError: The device index is out of range. It must be in [0, 1), but got 1."],
    ),
    Row::new(NotEnoughDevices, "required GPUs exceeds", r"The number of required GPUs exceeds the total number of available GPUs").seen(
        "vLLM 0.4 to 0.10 with Ray (vllm#7107)",
        &["ValueError: The number of required GPUs exceeds the total number of available GPUs in the cluster."],
    ),
    Row::new(NotEnoughDevices, "Current node has no GPU available", r"Current node has no GPU available").seen(
        "vLLM 0.8 to 0.11 with Ray (vllm#17980, #29265)",
        &["ValueError: Current node has no GPU available. current_node_resource={'CPU': 8.0}. vLLM engine cannot start without GPU."],
    ),
    Row::new(NotEnoughDevices, "are available", r"No (?:CUDA GPUs|HIP GPUs|XPU(?: devices)?) are available")
        .advice(&["no device is visible: check the driver, the container's `--device` or `--gpus`, and `ZE_AFFINITY_MASK`, `CUDA_VISIBLE_DEVICES`, `HIP_VISIBLE_DEVICES`"])
        .seen("torch on CUDA, ROCm and XPU, all releases", &["RuntimeError: No CUDA GPUs are available", "RuntimeError: No HIP GPUs are available", "RuntimeError: No XPU are available"]),
    Row::new(NotEnoughDevices, "capable device is detected", r"no (?:CUDA|ROCm|HIP)-capable device is detected").seen(
        "CUDA and ROCm without a visible device",
        &["RuntimeError: CUDA error: no CUDA-capable device is detected", "RuntimeError: HIP error: no ROCm-capable device is detected"],
    ),
    Row::new(NotEnoughDevices, "could not select device driver", r"could not select device driver")
        .advice(&["the container runtime knows no such device: install the vendor's container toolkit and restart the container service"])
        .seen("docker", &["docker: Error response from daemon: could not select device driver \"\" with capabilities: [[gpu]]."]),
    Row::new(NotEnoughDevices, "NVMLError", r"NVMLError_\w+: ")
        .rank(Rank::Device)
        .advice(&["the driver refused a question about its devices: check `nvidia-smi` in the container, and `CUDA_VISIBLE_DEVICES`"])
        .seen("CUDA, vLLM 0.6 to current", &["pynvml.NVMLError_InvalidArgument: Invalid Argument"]),
    Row::new(NotEnoughDevices, "Failed to infer device type", r"Failed to infer device type")
        .advice(&["no device of vLLM's build is visible: check the driver, the container's `--device` or `--gpus`, and that this vLLM is built for this hardware"])
        .seen("vLLM 0.6 to current on every backend (vllm#8863, #12847)", &["RuntimeError: Failed to infer device type", "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue."]),
    Row::new(NotEnoughDevices, "enough allowed NUMA nodes", r"No?t? enough allowed NUMA nodes to bind threads of \d+")
        .advice(&["the CPU backend wants one NUMA node per rank: lower `--tensor-parallel-size`, or bind by hand with `--env VLLM_CPU_OMP_THREADS_BIND=0-3|4-7`"])
        .seen(
            "CPU build, 0.9 to current (`cpu_worker.py`)",
            &[
                "AssertionError: No enough allowed NUMA nodes to bind threads of 2 CPUWorkers. Allowed NUMA nodes are [0]. Please try to bind threads manually.",
                "AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers. Allowed NUMA nodes are [0]. Please try to bind threads manually.",
            ],
        ),
    Row::new(NotEnoughDevices, "XPU device count is zero", r"XPU device count is zero")
        .rank(Rank::Hint)
        .any_level()
        .advice(&["torch sees no Intel device: check `/dev/dri` in the container, the `render` group, and that `setvars.sh` was sourced"])
        .seen("torch on XPU without a visible device", &["[W1122 06:13:30.574911999 XPUFunctions.cpp:60] Warning: XPU device count is zero! (function initGlobalDevicePoolState)"]),
    // --- Intel's stack ---------------------------------------------------------------------------------------------------
    Row::new(LevelZero, "UR_RESULT_ERROR_", r"UR_RESULT_ERROR_[A-Z_]+").rank(Rank::Device).seen(
        "XPU, vLLM 0.10 to 0.21 (intel/llm-scaler#152, #465, #595; pytorch#190972)",
        &[
            "RuntimeError: Native API failed. Native API returns: 20 (UR_RESULT_ERROR_DEVICE_LOST)",
            "RuntimeError: level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)",
        ],
    ),
    Row::new(LevelZero, "Native API failed", r"Native API failed\. Native API returns: -?\d+").rank(Rank::Device).seen(
        "XPU with oneAPI 2023 and 2024, vLLM 0.3 to 0.6",
        &[
            "RuntimeError: Native API failed. Native API returns: -999 (Unknown PI error) -999 (Unknown PI error)",
            "RuntimeError: Native API failed. Native API returns: -997 (Command failed to enqueue/execute) -997 (Command failed to enqueue/execute)",
        ],
    ),
    Row::new(LevelZero, "|CCL_ERROR|", r"\|CCL_ERROR\|")
        .rank(Rank::Device)
        .advice(&[
            "oneCCL could not connect the ranks: see that `/dev/dri` and `/dev/dri/by-path` are in the container, with `--ipc=host` and `--privileged`",
            "try `--env CCL_ZE_IPC_EXCHANGE=sockets` or `--env CCL_TOPO_P2P_ACCESS=0`",
        ])
        .seen(
            "XPU with tp > 1, vLLM 0.5 (ipex-llm#11881, #12081) to 0.8 (vllm#14612)",
            &[
                "2025:03:13-10:36:27:(  636) |CCL_ERROR| ze_fd_manager.cpp:214 fill_device_fds: condition fds[dev_idx] > 0 failed",
                "2024:08:21-10:41:21:( 8320) |CCL_ERROR| atl_ofi_helper.cpp:867 atl_ofi_get_prov_list: fi_getinfo error: ret -61, providers 0",
            ],
        ),
    Row::new(LevelZero, "oneCCL: ", r"oneCCL: .*EXCEPTION")
        .rank(Rank::Device)
        .advice(&[
            "oneCCL could not connect the ranks: see that `/dev/dri` and `/dev/dri/by-path` are in the container, with `--ipc=host` and `--privileged`",
            "try `--env CCL_ZE_IPC_EXCHANGE=sockets` or `--env CCL_TOPO_P2P_ACCESS=0`; a kernel and driver too old for the card show the same",
        ])
        .seen(
            "XPU, vLLM 0.6 (vllm#10109), 0.7 (vllm#14747), 0.14 (intel/llm-scaler#486)",
            &[
                "RuntimeError: oneCCL: exec.cpp:122 start_workers: EXCEPTION: failed to start worker # 0",
                "RuntimeError: oneCCL: ze_fd_manager.cpp:214 fill_device_fds: EXCEPTION: open failed: fd: -1, errno: No such file or directory",
            ],
        ),
    Row::new(LevelZero, "terminate called after throwing an instance of", r"terminate called after throwing an instance of '(?:sycl|ccl)::").rank(Rank::Device).seen(
        "XPU, vLLM 0.14 (intel/llm-scaler#288)",
        &["terminate called after throwing an instance of 'sycl::_V1::exception'", "terminate called after throwing an instance of 'ccl::v1::exception'"],
    ),
    Row::new(LevelZero, "ZE_RESULT_ERROR_", r"ZE_RESULT_ERROR_[A-Z_]+").rank(Rank::Device).seen(
        "XPU with tp 2, vLLM 0.25 (vllm#48953; intel/llm-scaler#486)",
        &["ze error at zeMemOpenIpcHandle, code: ZE_RESULT_ERROR_INVALID_ARGUMENT"],
    ),
    Row::new(LevelZero, "querying the available free memory", r"doesn't support querying the available free memory")
        .advice(&["this device or driver does not report its free memory: update the driver, set `--env ZES_ENABLE_SYSMAN=1`"])
        .seen(
            "XPU on an integrated Arc, vLLM 0.9 (vllm#20743)",
            &["RuntimeError: The device (Intel(R) Graphics [0x7d51]) doesn't support querying the available free memory. You can file an issue at https://github.com/pytorch/pytorch/issues to help us prioritize its implementation."],
        ),
    // --- other devices ---------------------------------------------------------------------------------------------------
    Row::new(Crashed, "no kernel image is available", r"no kernel image is available for execution on the device")
        .advice(&["this build of vLLM or torch has no kernels for this device: install one that is built for it"])
        .seen("CUDA on cards newer or older than the build (vllm#11485, #19906)", &["RuntimeError: CUDA error: no kernel image is available for execution on the device"]),
    Row::new(Crashed, " error: ", r"(?:CUDA|HIP) error: ").rank(Rank::Device).advice(KERNEL).seen(
        "CUDA and ROCm, all releases (vllm#7593, #10855)",
        &["RuntimeError: CUDA error: an illegal memory access was encountered", "RuntimeError: HIP error: unspecified launch failure"],
    ),
    Row::new(Crashed, "Memory access fault by GPU", r"Memory access fault by GPU node").rank(Rank::Device).advice(KERNEL).seen(
        "ROCm, all releases (ROCm/legacy-rocm-build#5724)",
        &["Memory access fault by GPU node-1 (Agent handle: 0x560f905a1640) on address 0x10044f0000. Reason: Page not present or supervisor privilege."],
    ),
    Row::new(Crashed, "HSA_STATUS_ERROR", r"HSA_STATUS_ERROR").rank(Rank::Device).advice(KERNEL).seen(
        "ROCm (vllm#20007)",
        &[":0:rocdevice.cpp :3020: 5875275709338d us: Callback: Queue 0x7f4580c00000 aborting with error : HSA_STATUS_ERROR_EXCEPTION: An HSAIL operation resulted in a hardware exception. code: 0x1016"],
    ),
    Row::new(EngineCoreFailed, "NCCL error", r"NCCL error")
        .rank(Rank::Process)
        .advice(&[
            "`--env NCCL_DEBUG=INFO` shows what NCCL could not do; often it is shared memory (`--shm-size 10g`) or the link between devices (`--env NCCL_P2P_DISABLE=1`)",
        ])
        .seen(
            "CUDA and ROCm with tp > 1, vLLM 0.4 to 0.10 (vllm#4618, #8286; MiniMax-AI/MiniMax-01#42)",
            &[
                "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
                "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5",
            ],
        ),
];
