//! The timing and memory model: what a configuration of `vllm serve` costs on the simulated machine.
//!
//! Pure arithmetic, in seconds and bytes. One engine step works on `tokens` tokens of `seqs` sequences and takes
//!
//! ```text
//! step     = memory + compute + kv + all-reduce + launch
//! memory   = weights touched / (bandwidth * efficiency(tp) * tp)
//!            a mixture of experts touches 1 - (1 - k/E)^tokens of its expert weights
//! compute  = (2 * active parameters * tokens + attention) / (FLOP/s(quantization) * 0.45 * efficiency(tp) * tp)
//! kv       = context tokens * KV bytes per token and device / (bandwidth * 0.6)
//! allreduce= 2 * layers * (latency(tp) + tokens * hidden * 2 B * 2 (tp - 1) / tp / link)        for tp > 1
//! launch   = 0.4 ms + 4 us * layers, eager: 0.6 ms + 90 us * layers
//! ```
//!
//! The devices resemble an Intel Arc Pro B60: 456 GB/s, 98 TFLOP/s in bfloat16, PCIe 5 x8 between them. Memory of one device:
//!
//! ```text
//! weights / (tp * pp) + 0.6 GiB runtime + activations(max-num-batched-tokens) + graphs (not eager: 0.3 GiB)
//! KV cache = gpu-memory-utilization * memory - that
//! ```

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
const BANDWIDTH: f64 = 456e9;
const BF16_FLOPS: f64 = 98e12;
const LINK: f64 = 22e9;
const RUNTIME_BYTES: f64 = 0.6 * GIB;
const GRAPH_BYTES: f64 = 0.3 * GIB;
const DISK: f64 = 1.8e9;

/// The shape of a model, as far as its costs depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Hugging Face's architecture name, as vLLM logs it.
    pub class: &'static str,
    /// All parameters outside of experts.
    pub dense_params: f64,
    /// All parameters of experts (0: a dense model).
    pub expert_params: f64,
    /// Experts per layer and how many of them a token uses.
    pub experts: (f64, f64),
    /// Bytes per expert parameter in the checkpoint when it is quantized there (mxfp4), whatever the flags say.
    pub native_expert_bytes: Option<f64>,
    /// Transformer layers.
    pub layers: f64,
    /// Width of the residual stream.
    pub hidden: f64,
    /// Attention heads.
    pub heads: u32,
    /// Key/value heads.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_dim: f64,
    /// The context that the model was made for.
    pub max_position: u32,
    /// Vocabulary.
    pub vocab: u32,
}

impl Architecture {
    /// The architecture behind a model name: known, guessed from a size in the name such as `7B`, or else from a hash.
    pub fn of(model: &str) -> Architecture {
        let short = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
        let base = Architecture {
            class: "Qwen3ForCausalLM",
            dense_params: 4.02e9,
            expert_params: 0.0,
            experts: (1.0, 1.0),
            native_expert_bytes: None,
            layers: 36.0,
            hidden: 2560.0,
            heads: 32,
            kv_heads: 8,
            head_dim: 128.0,
            max_position: 262_144,
            vocab: 151_936,
        };
        if short.starts_with("gpt-oss") {
            let large = short.contains("120b");
            return Architecture {
                class: "GptOssForCausalLM",
                dense_params: if large { 2.2e9 } else { 1.8e9 },
                expert_params: if large { 114.6e9 } else { 19.1e9 },
                experts: if large { (128.0, 4.0) } else { (32.0, 4.0) },
                native_expert_bytes: Some(0.53),
                layers: if large { 36.0 } else { 24.0 },
                hidden: 2880.0,
                heads: 64,
                head_dim: 64.0,
                max_position: 131_072,
                vocab: 201_088,
                ..base
            };
        }
        if short.starts_with("qwen3-30b-a3b") {
            return Architecture {
                class: "Qwen3MoeForCausalLM",
                dense_params: 1.5e9,
                expert_params: 29.0e9,
                experts: (128.0, 8.0),
                layers: 48.0,
                hidden: 2048.0,
                kv_heads: 4,
                max_position: 40_960,
                ..base
            };
        }
        if short.starts_with("qwen3-4b") {
            return Architecture { max_position: if short.contains("2507") { 262_144 } else { 40_960 }, ..base };
        }
        Self::guess(&short, base)
    }

    fn guess(short: &str, base: Architecture) -> Architecture {
        let billions = size_in_name(short).unwrap_or_else(|| {
            const SIZES: [f64; 6] = [0.6, 1.7, 3.0, 7.0, 8.0, 14.0];
            SIZES[(hash(short) % SIZES.len() as u64) as usize]
        });
        // (at most so many billions, layers, hidden, heads, key/value heads)
        const SHAPES: [(f64, f64, f64, u32, u32); 7] = [
            (0.8, 28.0, 1024.0, 16, 8),
            (2.0, 28.0, 2048.0, 16, 8),
            (5.0, 36.0, 2560.0, 32, 8),
            (9.5, 32.0, 4096.0, 32, 8),
            (18.0, 40.0, 5120.0, 40, 8),
            (40.0, 64.0, 5120.0, 64, 8),
            (f64::INFINITY, 80.0, 8192.0, 64, 8),
        ];
        let shape = SHAPES.iter().find(|(most, ..)| billions <= *most).unwrap_or(&SHAPES[6]);
        Architecture {
            class: if short.contains("llama") { "LlamaForCausalLM" } else { "Qwen3ForCausalLM" },
            dense_params: billions * 1e9,
            layers: shape.1,
            hidden: shape.2,
            heads: shape.3,
            kv_heads: shape.4,
            max_position: 40_960,
            ..base
        }
    }

    fn active_params(&self) -> f64 {
        self.dense_params + self.expert_params * self.experts.1 / self.experts.0
    }
}

/// A stable hash (FNV-1a), the same in every process and release.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The first number directly before a `b` or `m` in a name (`llama-3.1-8b` is 8 billion, `smollm-135m` 0.135).
fn size_in_name(name: &str) -> Option<f64> {
    name.split(['-', '_', ' ']).find_map(|part| {
        let number = |suffix: char| part.strip_suffix(suffix).and_then(|n| n.parse::<f64>().ok()).filter(|n| *n > 0.0);
        number('b').or_else(|| number('m').map(|n| n / 1000.0))
    })
}

/// What a server configuration says that costs depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// `--tensor-parallel-size`.
    pub tp: u32,
    /// `--pipeline-parallel-size`.
    pub pp: u32,
    /// `--data-parallel-size`.
    pub dp: u32,
    /// `--quantization`.
    pub quantization: Option<String>,
    /// `--dtype float32`.
    pub float32: bool,
    /// `--kv-cache-dtype fp8...`.
    pub kv_fp8: bool,
    /// `--enforce-eager`.
    pub eager: bool,
    /// `--gpu-memory-utilization`.
    pub memory_utilization: f64,
    /// `--max-num-batched-tokens`.
    pub max_num_batched_tokens: u32,
    /// `--max-num-seqs`.
    pub max_num_seqs: u32,
    /// `--cpu-offload-gb`.
    pub cpu_offload_gib: f64,
}

/// One step's work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepLoad {
    /// Tokens computed in the step.
    pub tokens: u64,
    /// Cached tokens that attention reads.
    pub context_tokens: u64,
    /// Pairs (token, token before it) of prompts, for the quadratic part of attention.
    pub attention_pairs: u64,
}

/// Why a model does not start.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // Bytes, named by what they are.
pub enum DoesNotFit {
    Weights { needed: f64, device: f64 },
    NoCacheBlocks { available: f64 },
    CacheTooSmall { needed: f64, available: f64, longest: u32 },
}

/// A model on the simulated machine in one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct CostModel {
    /// The model.
    pub architecture: Architecture,
    /// The configuration.
    pub deployment: Deployment,
    device_bytes: f64,
}

impl CostModel {
    /// The costs of `model` in this configuration on devices of that memory.
    pub fn new(model: &str, deployment: Deployment, device_memory_gib: f64) -> CostModel {
        let mut deployment = deployment;
        if deployment.quantization.is_none() {
            let name = model.to_ascii_lowercase();
            deployment.quantization = ["fp8", "awq", "gptq", "int4"]
                .iter()
                .find(|method| name.contains(&format!("-{method}")))
                .map(|method| (*method).to_string());
        }
        CostModel { architecture: Architecture::of(model), deployment, device_bytes: device_memory_gib * GIB }
    }

    fn bytes_per_param(&self) -> f64 {
        match self.deployment.quantization.as_deref() {
            None if self.deployment.float32 => 4.0,
            None => 2.0,
            Some("fp8" | "int8" | "w8a8_int8" | "ptpc_fp8" | "fbgemm_fp8" | "experts_int8" | "tpu_int8") => 1.0,
            Some(_) => 0.56,
        }
    }

    fn expert_bytes_per_param(&self) -> f64 {
        self.architecture.native_expert_bytes.unwrap_or_else(|| self.bytes_per_param())
    }

    /// Bytes of the whole checkpoint as it lies on disk.
    pub fn checkpoint_bytes(&self) -> f64 {
        let native = self.architecture.native_expert_bytes.unwrap_or(2.0);
        self.architecture.dense_params * 2.0 + self.architecture.expert_params * native
    }

    /// Bytes of weights on one device.
    pub fn weight_bytes(&self) -> f64 {
        let all = self.architecture.dense_params * self.bytes_per_param()
            + self.architecture.expert_params * self.expert_bytes_per_param();
        let share = all / f64::from(self.deployment.tp * self.deployment.pp);
        (share - self.deployment.cpu_offload_gib * GIB).max(share * 0.05)
    }

    /// Peak bytes of activations on one device, as the profile run sees them.
    pub fn activation_bytes(&self) -> f64 {
        let tokens = f64::from(self.deployment.max_num_batched_tokens);
        let logits = f64::from(self.deployment.max_num_seqs.min(512)) * f64::from(self.architecture.vocab) * 4.0;
        tokens * self.architecture.hidden * 2.0 * 14.0 + logits / f64::from(self.deployment.tp)
    }

    /// KV bytes that one token takes on one device.
    pub fn kv_bytes_per_token(&self) -> f64 {
        let heads = f64::from(self.architecture.kv_heads.div_ceil(self.deployment.tp).max(1));
        let bytes = if self.deployment.kv_fp8 { 1.0 } else { 2.0 };
        2.0 * self.architecture.layers / f64::from(self.deployment.pp) * heads * self.architecture.head_dim * bytes
    }

    /// Bytes left for the KV cache on one device (may be negative).
    pub fn kv_cache_bytes(&self) -> f64 {
        let graphs = if self.deployment.eager { 0.0 } else { GRAPH_BYTES };
        self.device_bytes * self.deployment.memory_utilization
            - self.weight_bytes()
            - RUNTIME_BYTES
            - graphs
            - self.activation_bytes()
    }

    /// Tokens that the KV cache holds (of one data-parallel replica).
    pub fn kv_cache_tokens(&self) -> u64 {
        (self.kv_cache_bytes() / self.kv_bytes_per_token()).max(0.0) as u64
    }

    /// Does the configuration fit, with one request of `max_model_len` tokens?
    pub fn fits(&self, max_model_len: u32) -> Result<(), DoesNotFit> {
        let needed = self.weight_bytes() + RUNTIME_BYTES;
        if needed > self.device_bytes {
            return Err(DoesNotFit::Weights { needed, device: self.device_bytes });
        }
        let available = self.kv_cache_bytes();
        if available <= 0.0 {
            return Err(DoesNotFit::NoCacheBlocks { available });
        }
        let needed = f64::from(max_model_len) * self.kv_bytes_per_token();
        if needed > available {
            return Err(DoesNotFit::CacheTooSmall { needed, available, longest: self.kv_cache_tokens() as u32 });
        }
        Ok(())
    }

    fn efficiency(&self) -> f64 {
        1.0 / (1.0 + 0.04 * f64::from(self.deployment.tp).log2())
    }

    /// Seconds of one engine step.
    pub fn step_seconds(&self, load: StepLoad) -> f64 {
        let (arch, tp) = (&self.architecture, f64::from(self.deployment.tp));
        let tokens = (load.tokens as f64 / f64::from(self.deployment.dp)).max(1.0);
        let (experts, used) = arch.experts;
        let touched = 1.0 - (1.0 - used / experts).powf(tokens);
        let weights = arch.dense_params * self.bytes_per_param()
            + arch.expert_params * self.expert_bytes_per_param() * if arch.expert_params > 0.0 { touched } else { 0.0 };
        let memory = weights / (BANDWIDTH * 0.78 * self.efficiency() * tp);

        let speedup = match self.deployment.quantization.as_deref() {
            Some("fp8" | "ptpc_fp8" | "fbgemm_fp8") => 1.45,
            Some("int8" | "w8a8_int8") => 1.4,
            Some(_) => 0.95,
            None if self.deployment.float32 => 0.25,
            None => 1.0,
        };
        let attention = 4.0 * load.attention_pairs as f64 * f64::from(arch.heads) * arch.head_dim * arch.layers
            / f64::from(self.deployment.dp);
        let compute =
            (2.0 * arch.active_params() * tokens + attention) / (BF16_FLOPS * speedup * 0.45 * self.efficiency() * tp);
        let kv = load.context_tokens as f64 / f64::from(self.deployment.dp)
            * self.kv_bytes_per_token()
            * f64::from(self.deployment.pp)
            / (BANDWIDTH * 0.6);
        let all_reduce = if tp > 1.0 {
            let latency = (14.0 + 6.0 * tp.log2()) * 1e-6;
            2.0 * arch.layers * (latency + tokens * arch.hidden * 2.0 * 2.0 * (tp - 1.0) / tp / LINK)
        } else {
            0.0
        };
        let launch = if self.deployment.eager { 0.6e-3 + 90e-6 * arch.layers } else { 0.4e-3 + 4e-6 * arch.layers };
        memory + compute + kv + all_reduce + launch + 0.5e-3 * f64::from(self.deployment.pp - 1)
    }

    /// Seconds that loading the weights takes.
    pub fn load_seconds(&self) -> f64 {
        1.5 + self.checkpoint_bytes() / DISK + 0.4 * f64::from(self.deployment.tp)
    }

    /// Seconds of torch.compile (0 when eager).
    pub fn compile_seconds(&self) -> f64 {
        if self.deployment.eager { 0.0 } else { 6.0 + 0.5 * self.architecture.layers }
    }

    /// Seconds of graph capture (0 when eager).
    pub fn capture_seconds(&self) -> f64 {
        if self.deployment.eager { 0.0 } else { 3.0 + 0.15 * self.architecture.layers }
    }
}

/// Bytes as GiB.
pub fn gib(bytes: f64) -> f64 {
    bytes / GIB
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const DEFAULTS: [&str; 3] = ["openai/gpt-oss-20b", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-4B-Thinking-2507"];

    fn cost(model: &str, tp: u32, quantization: Option<&str>, eager: bool) -> CostModel {
        let deployment = Deployment {
            tp,
            pp: 1,
            dp: 1,
            quantization: quantization.map(str::to_string),
            float32: false,
            kv_fp8: false,
            eager,
            memory_utilization: 0.9,
            max_num_batched_tokens: 8192,
            max_num_seqs: 256,
            cpu_offload_gib: 0.0,
        };
        CostModel::new(model, deployment, 24.0)
    }

    const DECODE: StepLoad = StepLoad { tokens: 32, context_tokens: 32 * 1500, attention_pairs: 0 };
    const PREFILL: StepLoad = StepLoad { tokens: 8192, context_tokens: 0, attention_pairs: 8 * 1024 * 512 };

    #[test]
    fn more_tensor_parallelism_is_faster_with_falling_returns() {
        for model in DEFAULTS {
            for load in [DECODE, PREFILL] {
                for eager in [true, false] {
                    let times: Vec<f64> =
                        [1, 2, 4, 8].iter().map(|tp| cost(model, *tp, None, eager).step_seconds(load)).collect();
                    for pair in times.windows(2) {
                        assert!(pair[1] < pair[0], "{model} {load:?} {times:?}");
                        assert!(pair[1] > pair[0] / 2.0, "{model}: no more than linear: {times:?}");
                    }
                    assert!(times[1] - times[2] > times[2] - times[3], "{model}: falling returns: {times:?}");
                }
            }
        }
    }

    #[test]
    fn eager_is_slower_and_fp8_is_faster() {
        for model in DEFAULTS {
            for load in [DECODE, PREFILL] {
                let compiled = cost(model, 4, None, false).step_seconds(load);
                assert!(cost(model, 4, None, true).step_seconds(load) > compiled, "{model}");
                assert!(cost(model, 4, Some("fp8"), false).step_seconds(load) < compiled, "{model}");
            }
        }
    }

    #[test]
    fn what_fits_on_24_gib() {
        assert!(matches!(cost(DEFAULTS[1], 1, None, true).fits(10_000), Err(DoesNotFit::Weights { .. })));
        assert!(matches!(cost(DEFAULTS[1], 2, None, true).fits(10_000), Err(DoesNotFit::Weights { .. })));
        assert_eq!(cost(DEFAULTS[1], 4, None, true).fits(10_000), Ok(()));
        assert_eq!(cost(DEFAULTS[1], 2, Some("fp8"), true).fits(10_000), Ok(()));
        for tp in [2, 4, 8] {
            assert_eq!(cost(DEFAULTS[0], tp, None, false).fits(10_000), Ok(()));
            assert_eq!(cost(DEFAULTS[2], tp, None, false).fits(10_000), Ok(()));
        }
        assert!(matches!(cost("a/14B", 1, None, true).fits(10_000), Err(DoesNotFit::Weights { .. })));
        assert!(matches!(cost("a/11B", 1, None, true).fits(10_000), Err(DoesNotFit::NoCacheBlocks { .. })));
        assert!(matches!(cost(DEFAULTS[2], 1, None, true).fits(262_144), Err(DoesNotFit::CacheTooSmall { .. })));
    }

    #[test]
    fn sizes_are_read_from_names_or_stable() {
        assert_eq!(size_in_name("llama-3.1-8b-instruct"), Some(8.0));
        assert_eq!(size_in_name("smollm2-135m"), Some(0.135));
        assert_eq!(size_in_name("tiny-qwen3"), None);
        assert_eq!(Architecture::of("org/tiny"), Architecture::of("org/tiny"));
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
    }
}
