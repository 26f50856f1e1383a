//! Built-in rules of good sense: combinations that vLLM is known to refuse before it has done anything.

use super::space::Space;
use super::sweep::{MODEL, Section, TENSOR_PARALLEL};
use super::{Sweep, Value};

/// A built-in rule; `rules: {NAME: false}` switches it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// tensor x pipeline x data parallelism above the devices there are.
    Devices,
    /// The model's attention heads cannot be split evenly over the devices of a tensor parallel group.
    AttentionHeads,
    /// Prompt and output are longer than the server's context.
    ContextLength,
    /// Without chunked prefill a whole prompt must fit into one batch.
    BatchedTokens,
}

impl Rule {
    /// Every rule, in the order in which they are asked.
    pub const ALL: [Rule; 4] = [Rule::Devices, Rule::AttentionHeads, Rule::ContextLength, Rule::BatchedTokens];

    /// Its name in `rules`.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Devices => "devices",
            Rule::AttentionHeads => "attention-heads",
            Rule::ContextLength => "context-length",
            Rule::BatchedTokens => "batched-tokens",
        }
    }

    /// Why the rule leaves a combination out; `None` where it does not.
    pub(super) fn refuses(self, space: &Space, combination: u64, sweep: &Sweep) -> Option<String> {
        let serve = |key: &str| space.value_of(combination, Section::Serve, key);
        let bench = |key: &str| space.value_of(combination, Section::Bench, key).number();
        match self {
            Rule::Devices => {
                let size = |key| serve(key).number().unwrap_or(1.0);
                let wanted = size(TENSOR_PARALLEL) * size("pipeline-parallel-size") * size("data-parallel-size");
                let there = f64::from(sweep.devices?);
                (wanted > there).then(|| format!("needs {wanted} devices, there are {there}"))
            }
            Rule::AttentionHeads => {
                let heads = sweep.models.get(&serve(MODEL).shown())?.attention_heads?;
                let tp = serve(TENSOR_PARALLEL).number().filter(|tp| *tp >= 1.0)?;
                #[expect(clippy::cast_precision_loss, reason = "heads are few")]
                let uneven = heads as f64 % tp != 0.0;
                uneven.then(|| format!("{heads} attention heads cannot be split over {tp} devices"))
            }
            Rule::ContextLength => {
                if !matches!(space.value_of(combination, Section::Bench, "dataset-name"), Value::Omitted)
                    && space.value_of(combination, Section::Bench, "dataset-name").shown() != "random"
                {
                    return None;
                }
                let limit = match serve("max-model-len") {
                    Value::Omitted => {
                        let facts = sweep.models.get(&serve(MODEL).shown())?;
                        #[expect(clippy::cast_precision_loss, reason = "a number of tokens")]
                        let limit = facts.max_position_embeddings? as f64;
                        limit
                    }
                    given => given.number()?,
                };
                let tokens = bench("random-input-len")? + bench("random-output-len")?;
                (tokens > limit)
                    .then(|| format!("{tokens} tokens of prompt and output are above the context of {limit}"))
            }
            Rule::BatchedTokens => {
                let whole = matches!(serve("enable-chunked-prefill"), Value::Switch(false))
                    || matches!(serve("no-enable-chunked-prefill"), Value::Switch(true));
                let (batch, context) = (serve("max-num-batched-tokens").number()?, serve("max-model-len").number()?);
                (whole && batch < context).then(|| {
                    format!("without chunked prefill max-num-batched-tokens ({batch}) must not be below max-model-len ({context})")
                })
            }
        }
    }
}
