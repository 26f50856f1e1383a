//! Rows on builds that do not fit: kernels that are not there for a device, compilers that are missing or too old, packages and
//! drivers of other releases.

use super::{Rank, Row};
use crate::diagnose::cause::Cause::{
    Crashed, DiskFull, NotEnoughDevices, OutOfDeviceMemory, UnsupportedModel, UnsupportedQuantization, VllmMissing,
};

const NO_KERNEL: &[&str] = &[
    "this build of vLLM has no such kernel for this device: use another quantization or `none`, or a build (image) made for this device",
];
const OTHER_DEVICE: &[&str] = &[
    "this build of vLLM, or of a library below it, is not made for this device: take an image or wheel that names the device, or another attention backend (`--serve-arg=attention-backend=…`)",
];
const COMPILER: &[&str] = &[
    "kernels are compiled at the start and the compiler is missing or does not fit: install the CUDA toolkit of torch's release (`nvcc`, `CUDA_HOME`), or use an image that has it",
];
const VERSIONS: &[&str] = &[
    "packages of vLLM's installation do not fit each other: install the releases that this vLLM asks for (`pip check` names them), or use its image",
];

pub(super) const ROWS: &[Row] = &[
    // --- kernels ---------------------------------------------------------------------------------------------------------
    Row::new(UnsupportedQuantization, "No compiled ", r"No compiled \w+ for (?:a )?(?:CUDA )?(?:device|compute)")
        .advice(NO_KERNEL)
        .seen("CUDA on sm_120, vLLM 0.13 (vllm#32109)", &["NotImplementedError: No compiled cutlass_scaled_mm for CUDA device capability: 120"]),
    Row::new(UnsupportedQuantization, " is not implemented for ", r"(?:fp8|fp4|int8|int4|scaled|quant)[\w ]* is not implemented for ")
        .advice(NO_KERNEL)
        .seen("CUDA on Blackwell, vLLM 0.10 (vllm#16515)", &["RuntimeError: Currently, block scaled fp8 gemm is not implemented for Blackwell"]),
    Row::new(UnsupportedQuantization, "object has no attribute '", r"'_OpNamespace' '_\w*C\w*' object has no attribute '\w*(?:quant|scaled|fp8|fp4|int8|awq|gptq|marlin|machete)\w*'")
        .advice(NO_KERNEL)
        .seen("builds without a kernel, CPU and XPU, 0.8 to current", &["AttributeError: '_OpNamespace' '_C' object has no attribute 'static_scaled_fp8_quant'"]),
    Row::new(VllmMissing, "object has no attribute '", r"'_OpNamespace' '_\w*C\w*' object has no attribute '")
        .rank(Rank::Likely)
        .advice(&["vLLM's compiled kernels are not loaded: the line that warns of `vllm._C` near the top of the log says why; install the build for this machine"])
        .seen("CPU build 0.7 without its extension (vllm#13593)", &["AttributeError: '_OpNamespace' '_C' object has no attribute 'silu_and_mul'"]),
    Row::new(Crashed, "only supports Ampere", r"FlashAttention only supports Ampere GPUs or newer")
        .advice(OTHER_DEVICE)
        .seen("CUDA on Turing, vLLM 0.6 (vllm#8189)", &["RuntimeError: FlashAttention only supports Ampere GPUs or newer."]),
    Row::new(Crashed, "Unknown recipe", r"Assertion error \(csrc/.*\): Unknown recipe")
        .advice(OTHER_DEVICE)
        .seen("DeepGEMM under vLLM 0.25 (vllm#47130)", &["RuntimeError: Assertion error (csrc/apis/layout.hpp:57): Unknown recipe"]),
    Row::new(Crashed, "GPU archs of", r"One of GPU archs of \[.*\] is invalid or not supported")
        .advice(OTHER_DEVICE)
        .seen("AITER on gfx1151 (kyuz0/amd-strix-halo-vllm-toolboxes#73)", &["RuntimeError: One of GPU archs of ['gfx1151'] is invalid or not supported"]),
    Row::new(Crashed, "provide architecture for which code", r"Please provide architecture for which code is to be generated")
        .advice(OTHER_DEVICE)
        .seen("HIP's runtime compiler, vLLM 0.16 (vllm#36167)", &["Error: Please provide architecture for which code is to be generated."]),
    Row::new(Crashed, "Failed: Cuda error", r"^Failed: Cuda error ")
        .rank(Rank::Device)
        .advice(&["a kernel of vLLM's custom all-reduce failed: try `--serve-arg=disable-custom-all-reduce`, and look whether the devices can reach each other (`nvidia-smi topo -m`)"])
        .seen("custom all-reduce while serving, vLLM 0.9 (vllm#20170)", &["Failed: Cuda error /workspace/csrc/custom_all_reduce.cuh:368 'an illegal memory access was encountered'"]),
    // --- compilers -------------------------------------------------------------------------------------------------------
    Row::new(VllmMissing, "nvcc", r"nvcc: (?:command )?not found|nvcc fatal")
        .advice(COMPILER)
        .seen(
            "FlashInfer's kernels, vLLM 0.10 (flashinfer#1532) and 0.26 (vllm#49497)",
            &["/bin/sh: 1: /usr/local/cuda/bin/nvcc: not found", "nvcc fatal   : Unknown option '-static-global-template-stub=false'"],
        ),
    Row::new(VllmMissing, "Ninja build failed", r"RuntimeError: Ninja build failed")
        .rank(Rank::Likely)
        .advice(COMPILER)
        .seen("FlashInfer's kernels, vLLM 0.10 and later", &["RuntimeError: Ninja build failed. Ninja output:"]),
    // --- packages and drivers --------------------------------------------------------------------------------------------
    Row::new(VllmMissing, "all_special_tokens_extended", r"has no attribute all_special_tokens_extended")
        .advice(VERSIONS)
        .seen(
            "vLLM before 0.16 with transformers 5 (QwenLM/Qwen3-VL#2058, runpod-workers/worker-vllm#260)",
            &["AttributeError: Qwen2Tokenizer has no attribute all_special_tokens_extended. Did you mean: 'num_special_tokens_to_add'?"],
        ),
    Row::new(VllmMissing, "driver on your system is too old", r"The NVIDIA driver on your system is too old")
        .advice(&["the driver is older than the CUDA of this build: update the driver, or take a build for an older CUDA"])
        .seen("torch on CUDA", &["RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver by downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"]),
    Row::new(NotEnoughDevices, "invalid literal for int() with base 10: '", r"invalid literal for int\(\) with base 10: '(?:MIG|GPU)-")
        .advice(&["this vLLM wants numbers in `CUDA_VISIBLE_DEVICES`, not the names of devices or of their parts (`GPU-…`, `MIG-…`)"])
        .seen("vLLM 0.20 with a part of a device (vllm#41848)", &["ValueError: invalid literal for int() with base 10: 'MIG-00000000-1111-2222-3333-444444444444'"]),
    // --- other accelerators, loaders -------------------------------------------------------------------------------------
    Row::new(OutOfDeviceMemory, "RESOURCE_EXHAUSTED", r"RESOURCE_EXHAUSTED: ").seen(
        "JAX on TPU, vLLM 0.13 (AI-Hypercomputer/tpu-recipes#151)",
        &["jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Error loading program 'jit__multi_slice': Attempting to reserve 6.14G at the bottom of memory."],
    ),
    Row::new(DiskFull, "(os error 28)", r"No space left on device \(os error 28\)").seen(
        "hf_xet's downloader (tenstorrent/tt-forge-onnx#2987)",
        &["RuntimeError: Data processing error: CAS service error : IO Error: No space left on device (os error 28)"],
    ),
    Row::new(UnsupportedModel, "failed to map GGUF parameters", r"failed to map GGUF parameters").seen(
        "GGUF files under vLLM 0.17 (vllm#38716)",
        &["RuntimeError: failed to map GGUF parameters (18288)"],
    ),
];
