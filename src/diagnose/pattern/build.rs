//! Rows on builds that do not fit: kernels that are not there for a device, compilers that are missing or too old, packages and
//! drivers of other releases.

use super::{Rank, Row};
use crate::model::Cause::{Crashed, InvalidFlag, NotEnoughDevices, UnsupportedQuantization, VllmMissing};

const NO_KERNEL: &[&str] = &[
    "this build of vLLM has no such kernel for this device: use another quantization or `none`, or a build (image) made for this device",
];
const OTHER_DEVICE: &[&str] = &[
    "this build of vLLM, or of a library below it, is not made for this device: take an image or wheel that names the device, or another attention backend (`--serve-arg=attention-backend=…`)",
];
const COMPILER: &[&str] = &[
    "kernels are compiled at the start and the compiler is missing or does not fit: install the toolkit of torch's release (`nvcc`, `CUDA_HOME`), `ninja` and a C++ compiler, or use an image that has them",
];
const OLD_COMPILER: &[&str] = &[
    "kernels are compiled at the start and the compiler is older than the device: install a toolkit that knows it and name it (`--env CUDA_HOME=…`, `--env TRITON_PTXAS_PATH=…`), or use an image made for the device",
];
const HEADERS: &[&str] = &[
    "kernels are compiled at the start and a header or library is missing: install the development packages (Python's headers, the device's toolkit), or use an image that has them",
];
const VERSIONS: &[&str] = &[
    "packages of vLLM's installation do not fit each other: install the releases that this vLLM asks for (`pip check` names them), or use its image",
];
const DRIVER: &[&str] = &[
    "the driver is older than the CUDA of this build, or its libraries in the container are not the host's: update the driver, take a build for an older CUDA, or see what `LD_LIBRARY_PATH` and the container's `compat` folder put before the driver's own",
];
const DEEP_GEMM: &[&str] = &[
    "DeepGEMM has no kernel for this device or shape: switch it off with `--env VLLM_USE_DEEP_GEMM=0`, or use another build or quantization",
];
const ON_CHIP: &[&str] = &[
    "a kernel wants more on-chip memory than this device has: try another attention backend (`--serve-arg=attention-backend=…`), a smaller `--block-size`, or a newer vLLM",
];
const BACKEND: &[&str] = &[
    "no attention backend of this build takes this device, data type, head size and `--kv-cache-dtype` together: the reasons stand in the line; leave `--serve-arg=attention-backend=…` out, or change the setting that is named",
];

pub(super) const ROWS: &[Row] = &[
    // --- kernels ---------------------------------------------------------------------------------------------------------
    Row::new(UnsupportedQuantization, "No compiled ", r"No compiled \w+ for (?:a )?(?:CUDA )?(?:device|compute)")
        .advice(NO_KERNEL)
        .seen("CUDA on sm_120, vLLM 0.13 (vllm#32109)", &["NotImplementedError: No compiled cutlass_scaled_mm for CUDA device capability: 120"]),
    Row::new(UnsupportedQuantization, "implemented for ", r"(?i)(?:fp8|fp4|int8|int4|scaled|quant|nvfp4|mxfp\d)[\w ]* (?:is )?not (?:currently |yet )?implemented for ")
        .advice(NO_KERNEL)
        .seen("CUDA on Blackwell, vLLM 0.10 (vllm#16515)", &["RuntimeError: Currently, block scaled fp8 gemm is not implemented for Blackwell"]),
    Row::new(UnsupportedQuantization, "upport", r"(?i)(?:fp8|fp4|int8|int4|nvfp4|mxfp\d|\bquanti[sz]|scaled_mm|marlin|machete|w4a\d+|w8a\d+).*(?:only |not |n't |un|no )\w* ?(?:\w+ )?support\w*.*\b(?:sm_?\d{2,3}|compute capability|capability \d|device|gpus?|hopper|blackwell|ampere|turing|volta|gfx\d+|xe2?|xpu|cpu|rocm|hip|architecture)")
        .rank(Rank::Likely)
        .advice(NO_KERNEL)
        .seen("CUDA and ROCm, vLLM 0.9 and later", &["RuntimeError: NVFP4 MoE kernels are not supported on this device (compute capability 8.9)"]),
    Row::new(UnsupportedQuantization, "Could not run '", r"Could not run '\w+::\w*(?:quant|scaled|fp8|fp4|int8|int4|awq|gptq|marlin|machete)\w*'")
        .advice(NO_KERNEL)
        .seen("torch's dispatcher, builds without the kernel", &["NotImplementedError: Could not run '_C::dynamic_scaled_fp8_quant' with arguments from the 'CPU' backend."]),
    Row::new(Crashed, "Could not run '", r"Could not run '\w+::\w+\S*' with arguments from the '\w+' backend")
        .rank(Rank::Likely)
        .advice(OTHER_DEVICE)
        .seen("torch's dispatcher", &["NotImplementedError: Could not run 'vllm::unified_attention' with arguments from the 'XPU' backend."]),
    Row::new(Crashed, "implemented for the ", r"The operator '\S+' is not currently implemented for the \w+ device")
        .advice(OTHER_DEVICE)
        .seen("torch on XPU", &["NotImplementedError: The operator 'aten::_unique2' is not currently implemented for the XPU device."]),
    Row::new(UnsupportedQuantization, "object has no attribute '", r"'_OpNamespace' '_\w*C\w*' object has no attribute '\w*(?:quant|scaled|fp8|fp4|int8|awq|gptq|marlin|machete)\w*'")
        .advice(NO_KERNEL)
        .seen("builds without a kernel, CPU and XPU, 0.8 to current", &["AttributeError: '_OpNamespace' '_C' object has no attribute 'static_scaled_fp8_quant'"]),
    Row::new(VllmMissing, "object has no attribute '", r"'_OpNamespace' '_\w*C\w*' object has no attribute '")
        .rank(Rank::Likely)
        .advice(&["vLLM's compiled kernels are not loaded: the line that warns of `vllm._C` near the top of the log says why; install the build for this machine"])
        .seen("CPU build 0.7 without its extension (vllm#13593)", &["AttributeError: '_OpNamespace' '_C' object has no attribute 'silu_and_mul'"]),
    Row::new(Crashed, "upport", r"(?i)(?:only |not |n't |un|no )\w* ?(?:\w+ ){0,3}support\w*(?:.{0,80})\b(?:sm_?\d{2,3}|compute capability|capability \d|hopper|blackwell|ampere|turing|volta|gfx\d+|xe2|h100|b200|mi\d{3}|cuda arch\w*|gpu arch\w*|device capability)")
        .rank(Rank::Likely)
        .advice(OTHER_DEVICE)
        .seen(
            "FlashAttention on Turing, vLLM 0.6 (vllm#8189); FlashInfer on sm_121 (vllm#31740); XPU kernels on an integrated Arc, vLLM 0.18",
            &[
                "RuntimeError: FlashAttention only supports Ampere GPUs or newer.",
                "RuntimeError: No supported CUDA architectures found for major versions [10].",
                "RuntimeError: Unsupported GPU architecture: gfx906",
                "RuntimeError: This kernel is not supported on devices of compute capability 7.5",
            ],
        ),
    Row::new(Crashed, "equires ", r"(?i)\brequires? (?:.{0,40})\b(?:sm_?\d{2,3}|compute capability|gfx\d+|cdna\d?|rdna\d?|hopper|blackwell|ampere)\b.*\b(?:got|found|but|current|this)\b")
        .rank(Rank::Likely)
        .advice(OTHER_DEVICE)
        .seen("AITER on MI300, vLLM 0.27 (vllm#51964)", &["AssertionError: mla_gluon requires gfx950 (CDNA4), got gfx942"]),
    Row::new(Crashed, "equired aspect ", r"Required aspect \w+ is not supported on the device")
        .advice(OTHER_DEVICE)
        .seen("Triton on Arc A770, vLLM 0.17 (vllm-xpu-kernels#92)", &["RuntimeError: Required aspect fp64 is not supported on the device"]),
    Row::new(Crashed, "Only XE", r"Only XE\w* \w+ kernels? (?:is|are) supported")
        .advice(OTHER_DEVICE)
        .seen("XPU kernels on an integrated Arc, vLLM 0.17 (vllm#37828)", &["RuntimeError: Only XE2 cutlass kernel is supported currently."]),
    Row::new(Crashed, "invalid device function", r"(?:CUDA|HIP) error: invalid device function")
        .advice(OTHER_DEVICE)
        .seen("ROCm on consumer cards (vllm#36615)", &["RuntimeError: HIP error: invalid device function"]),
    Row::new(Crashed, "GPU archs of", r"GPU archs of \[.*\] (?:is|are) invalid or not supported")
        .advice(OTHER_DEVICE)
        .seen("AITER on gfx1151 (kyuz0/amd-strix-halo-vllm-toolboxes#73)", &["RuntimeError: One of GPU archs of ['gfx1151'] is invalid or not supported"]),
    Row::new(Crashed, "provide architecture for which code", r"Please provide architecture for which code is to be generated")
        .advice(OTHER_DEVICE)
        .seen("HIP's runtime compiler, vLLM 0.16 (vllm#36167)", &["Error: Please provide architecture for which code is to be generated."]),
    Row::new(Crashed, "Assertion error (", r"Assertion error \(\S+:\d+\): ")
        .advice(DEEP_GEMM)
        .seen("DeepGEMM under vLLM 0.25 (vllm#47130)", &["RuntimeError: Assertion error (csrc/apis/layout.hpp:57): Unknown recipe"]),
    Row::new(Crashed, "out of resource", r"out of resources?: (?:shared memory|threads|tensor memory|registers)")
        .advice(ON_CHIP)
        .seen("Triton, every GPU backend", &["triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 122880, Hardware limit: 101376. Reducing block sizes or `num_stages` may help."]),
    Row::new(InvalidFlag, "attention backend", r"No valid attention backend found for \w+")
        .advice(BACKEND)
        .seen("vLLM 0.12 and later", &["ValueError: No valid attention backend found for cuda with AttentionSelectorConfig(head_size=80, dtype=torch.bfloat16). Reasons: {FLASH_ATTN: [head_size not supported]}."]),
    Row::new(InvalidFlag, "is not valid for this configuration", r"Selected backend \S+ is not valid for this configuration")
        .advice(BACKEND)
        .seen("vLLM 0.11 and later", &["ValueError: Selected backend AttentionBackendEnum.FLASHINFER is not valid for this configuration. Reason: ['compute capability not supported']"]),
    Row::new(Crashed, "Failed: Cuda error", r"^Failed: Cuda error ")
        .rank(Rank::Device)
        .advice(&["a kernel of vLLM's custom all-reduce failed: try `--serve-arg=disable-custom-all-reduce`, and look whether the devices can reach each other (`nvidia-smi topo -m`)"])
        .seen("custom all-reduce while serving, vLLM 0.9 (vllm#20170)", &["Failed: Cuda error /workspace/csrc/custom_all_reduce.cuh:368 'an illegal memory access was encountered'"]),
    // --- compilers -------------------------------------------------------------------------------------------------------
    Row::new(VllmMissing, "not found", r"(?:^|[/: ])(?:nvcc|ninja|gcc|g\+\+|cc|c\+\+|clang(?:\+\+)?|cmake|hipcc|icpx|ld): (?:command )?not found")
        .advice(COMPILER)
        .seen("FlashInfer's kernels, vLLM 0.26 (vllm#49497)", &["/bin/sh: 1: /usr/local/cuda/bin/nvcc: not found", "/bin/sh: 1: ninja: not found"]),
    Row::new(VllmMissing, "ould not find nvcc", r"[Cc]ould not find nvcc")
        .advice(COMPILER)
        .seen("FlashInfer, vLLM 0.11 and later", &["RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist"]),
    Row::new(VllmMissing, "CUDA_HOME", r"CUDA_HOME (?:environment variable is not set|is not set|.* does not exist|.* not found)")
        .advice(COMPILER)
        .seen("torch's extensions", &["OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root."]),
    Row::new(VllmMissing, "Ninja is required", r"Ninja is required to load C\+\+ extensions")
        .advice(COMPILER)
        .seen("torch's extensions", &["RuntimeError: Ninja is required to load C++ extensions (pip install ninja to get it)"]),
    Row::new(VllmMissing, "is not defined for option", r"fatal *: Value '\S+' is not defined for option")
        .advice(OLD_COMPILER)
        .seen("Triton's `ptxas` on GB10, vLLM 0.12 (gpustack#4372)", &["ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'"]),
    Row::new(VllmMissing, "nsupported gpu architecture", r"fatal *: Unsupported gpu architecture")
        .advice(OLD_COMPILER)
        .seen("`nvcc` older than the device", &["nvcc fatal   : Unsupported gpu architecture 'compute_120a'"]),
    Row::new(VllmMissing, " fatal ", r"(?:nvcc|ptxas|nvlink|cicc|fatbinary) fatal +: ")
        .advice(COMPILER)
        .seen("FlashInfer's kernels, vLLM 0.10 (flashinfer#1532)", &["nvcc fatal   : Unknown option '-static-global-template-stub=false'"]),
    Row::new(VllmMissing, "fatal error: ", r"fatal error: '?\S+\.(?:h|hpp|cuh)'?(?:: No such file| file not found)")
        .advice(HEADERS)
        .seen("Triton and torch.compile in slim images", &["/tmp/tmpabc/main.c:5:10: fatal error: Python.h: No such file or directory"]),
    Row::new(VllmMissing, "cannot find -l", r"ld: cannot find -l\w+")
        .advice(HEADERS)
        .seen("Triton without the driver's `libcuda.so` (vllm#12505)", &["/usr/bin/ld: cannot find -lcuda: No such file or directory"]),
    Row::new(VllmMissing, "unsupported GNU version", r"unsupported GNU version! gcc versions later than \d+")
        .advice(COMPILER)
        .seen("`nvcc` with a newer `gcc`", &["error: #error -- unsupported GNU version! gcc versions later than 13 are not supported!"]),
    Row::new(VllmMissing, "Ninja build failed", r"RuntimeError: Ninja build failed")
        .rank(Rank::Device)
        .advice(COMPILER)
        .seen("FlashInfer's kernels, vLLM 0.10 and later", &["RuntimeError: Ninja build failed. Ninja output:"]),
    Row::new(VllmMissing, "Error ", r"RuntimeError: Error (?:building extension|compiling objects for extension)")
        .rank(Rank::Device)
        .advice(COMPILER)
        .seen("torch's extensions, AITER", &["RuntimeError: Error building extension 'fused_moe_120'"]),
    // --- packages and drivers --------------------------------------------------------------------------------------------
    Row::new(VllmMissing, "all_special_tokens_extended", r"has no attribute '?all_special_tokens_extended")
        .advice(VERSIONS)
        .seen(
            "vLLM before 0.16 with transformers 5 (QwenLM/Qwen3-VL#2058, runpod-workers/worker-vllm#260)",
            &["AttributeError: Qwen2Tokenizer has no attribute all_special_tokens_extended. Did you mean: 'num_special_tokens_to_add'?"],
        ),
    Row::new(VllmMissing, "Torch not compiled with", r"Torch not compiled with \w+ enabled")
        .advice(&["torch is a build for other hardware than this vLLM: install the torch that vLLM's build for this device asks for"])
        .seen("torch on every backend", &["AssertionError: Torch not compiled with CUDA enabled"]),
    Row::new(VllmMissing, "driver on your system is too old", r"The NVIDIA driver on your system is too old")
        .advice(DRIVER)
        .seen("torch on CUDA", &["RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver by downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"]),
    Row::new(VllmMissing, "driver version is insufficient", r"CUDA driver version is insufficient for CUDA runtime version")
        .advice(DRIVER)
        .seen("CUDA on an old driver", &["RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version"]),
    Row::new(VllmMissing, "unsupported toolchain", r"PTX was compiled with an unsupported toolchain")
        .advice(DRIVER)
        .seen("CUDA on an old driver", &["RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain."]),
    Row::new(VllmMissing, "unsatisfied condition: ", r"requirement error: unsatisfied condition: cuda")
        .advice(DRIVER)
        .seen("NVIDIA's container runtime (vllm#5635)", &["nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.4, please update your driver to a newer version, or use an earlier cuda container: unknown."]),
    Row::new(VllmMissing, "rror 80", r"[Ee]rror 80[1-5]: ")
        .advice(DRIVER)
        .seen("vLLM 0.15 images (vllm#33447, gpustack#4678)", &["RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that might have already set an error? Error 803: system has unsupported display driver / cuda driver combination"]),
    Row::new(VllmMissing, "version mismatch", r"Driver/library version mismatch")
        .advice(&["the driver was updated and the running kernel still has the old one: reboot, or load the new module"])
        .seen("NVML after an update of the driver", &["pynvml.NVMLError_LibRmVersionMismatch: Driver/library version mismatch"]),
    Row::new(NotEnoughDevices, "cudaGetDeviceCount", r"Unexpected error from cudaGetDeviceCount\(\)").rank(Rank::Likely).seen(
        "torch on CUDA",
        &["RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that might have already set an error? Error 2: out of memory"],
    ),
    Row::new(NotEnoughDevices, "invalid literal for int() with base 10: '", r"invalid literal for int\(\) with base 10: '(?:MIG|GPU)-")
        .advice(&["this vLLM wants numbers in `CUDA_VISIBLE_DEVICES`, not the names of devices or of their parts (`GPU-…`, `MIG-…`)"])
        .seen("vLLM 0.20 with a part of a device (vllm#41848)", &["ValueError: invalid literal for int() with base 10: 'MIG-00000000-1111-2222-3333-444444444444'"]),
];
