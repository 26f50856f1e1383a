//! Continuous batching in simulated time, after vLLM's V1 scheduler. Pure: no clock, no task, no socket.
//!
//! Each step gives a budget of `max_num_batched_tokens` first to the running sequences (one token to each that decodes, a
//! chunk of prompt to the others), then to waiting ones while `max_num_seqs` and the KV cache allow. When the cache is full
//! the sequence that came last is preempted: it loses its cache and is computed again later.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::model::{CostModel, StepLoad};

/// Simulated time in nanoseconds since the scheduler was made: whole numbers, so equal on every machine.
pub type Nanos = u64;

/// What bounds a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `--max-num-seqs`.
    pub max_num_seqs: usize,
    /// `--max-num-batched-tokens`.
    pub max_num_batched_tokens: u64,
    /// Blocks of the KV cache.
    pub kv_blocks: u64,
    /// `--block-size`: tokens per block.
    pub block_size: u64,
}

#[derive(Clone, Debug)]
struct Sequence {
    id: u64,
    /// Prompt and generated tokens so far.
    tokens: u64,
    computed: u64,
    remaining: u64,
    blocks: u64,
}

/// What a step did. Kept by the caller and reused, so that a step allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Sequences that got a token, in order; the flag says whether it was their last.
    pub tokens: Vec<(u64, bool)>,
    /// Prompt tokens that were computed for the first time or again.
    pub prefill_tokens: u64,
    /// Sequences that lost their cache.
    pub preempted: u64,
}

/// Sequences that run and wait, and the simulated clock.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    cost: CostModel,
    random: ChaCha8Rng,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    used_blocks: u64,
    now: Nanos,
}

impl Scheduler {
    /// A scheduler at time 0.
    pub fn new(limits: Limits, cost: CostModel, seed: u64) -> Scheduler {
        Scheduler {
            limits,
            cost,
            random: ChaCha8Rng::seed_from_u64(seed),
            waiting: VecDeque::new(),
            running: Vec::new(),
            used_blocks: 0,
            now: 0,
        }
    }

    /// The simulated time.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Lets time pass without work.
    pub fn advance_to(&mut self, time: Nanos) {
        self.now = self.now.max(time);
    }

    /// Sequences in the batch.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Is there anything to do?
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// The part of the KV cache in use, 0 to 1.
    pub fn kv_usage(&self) -> f64 {
        self.used_blocks as f64 / self.limits.kv_blocks.max(1) as f64
    }

    /// Queues a sequence; false when it can never fit into the KV cache (or has nothing to compute).
    pub fn add(&mut self, id: u64, prompt_tokens: u64, output_tokens: u64) -> bool {
        let tokens = prompt_tokens.max(1);
        if output_tokens == 0 || (tokens + output_tokens).div_ceil(self.limits.block_size) > self.limits.kv_blocks {
            return false;
        }
        self.waiting.push_back(Sequence { id, tokens, computed: 0, remaining: output_tokens, blocks: 0 });
        true
    }

    /// Forgets a sequence.
    pub fn abort(&mut self, id: u64) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            self.used_blocks -= self.running.remove(at).blocks;
        }
    }

    /// One engine step: decides, computes, moves the clock.
    pub fn step(&mut self, step: &mut Step) {
        step.tokens.clear();
        (step.prefill_tokens, step.preempted) = (0, 0);
        let mut budget = self.limits.max_num_batched_tokens;
        let mut load = StepLoad::default();
        self.schedule_running(&mut budget, &mut load, step);
        if step.preempted == 0 {
            self.schedule_waiting(&mut budget, &mut load, step);
        }
        if load.tokens == 0 {
            return;
        }
        let jitter = 1.0 + 0.015 * (2.0 * self.random.random::<f64>() - 1.0);
        self.now += (self.cost.step_seconds(load) * jitter * 1e9) as Nanos;
        self.collect(step);
    }

    fn schedule_running(&mut self, budget: &mut u64, load: &mut StepLoad, step: &mut Step) {
        let mut at = 0;
        while at < self.running.len() && *budget > 0 {
            let chunk = (self.running[at].tokens - self.running[at].computed).min(*budget);
            let wanted = (self.running[at].computed + chunk).div_ceil(self.limits.block_size);
            let mut lost_itself = false;
            while self.used_blocks + wanted - self.running[at].blocks > self.limits.kv_blocks {
                lost_itself = self.running.len() - 1 == at;
                self.preempt_last(step);
                if lost_itself {
                    break;
                }
            }
            if lost_itself {
                break;
            }
            self.grant(at, chunk, wanted, load, step);
            *budget -= chunk;
            at += 1;
        }
    }

    fn preempt_last(&mut self, step: &mut Step) {
        if let Some(mut sequence) = self.running.pop() {
            self.used_blocks -= sequence.blocks;
            (sequence.blocks, sequence.computed) = (0, 0);
            self.waiting.push_front(sequence);
            step.preempted += 1;
        }
    }

    fn schedule_waiting(&mut self, budget: &mut u64, load: &mut StepLoad, step: &mut Step) {
        while *budget > 0 && self.running.len() < self.limits.max_num_seqs {
            let Some(next) = self.waiting.front() else { break };
            let chunk = next.tokens.min(*budget);
            let wanted = chunk.div_ceil(self.limits.block_size);
            if self.used_blocks + wanted > self.limits.kv_blocks {
                break;
            }
            let Some(sequence) = self.waiting.pop_front() else { break };
            self.running.push(sequence);
            self.grant(self.running.len() - 1, chunk, wanted, load, step);
            *budget -= chunk;
        }
    }

    fn grant(&mut self, at: usize, chunk: u64, blocks: u64, load: &mut StepLoad, step: &mut Step) {
        let sequence = &mut self.running[at];
        self.used_blocks += blocks - sequence.blocks;
        sequence.blocks = blocks;
        load.tokens += chunk;
        load.context_tokens += sequence.computed;
        if chunk > 1 {
            load.attention_pairs += chunk * sequence.computed + chunk * chunk / 2;
            step.prefill_tokens += chunk;
        }
        sequence.computed += chunk;
    }

    /// Sequences whose tokens are all computed get the next one; finished ones leave.
    fn collect(&mut self, step: &mut Step) {
        let used_blocks = &mut self.used_blocks;
        self.running.retain_mut(|sequence| {
            if sequence.computed < sequence.tokens {
                return true;
            }
            sequence.tokens += 1;
            sequence.remaining -= 1;
            let last = sequence.remaining == 0;
            step.tokens.push((sequence.id, last));
            if last {
                *used_blocks -= sequence.blocks;
            }
            !last
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::sim::model::Deployment;

    fn cost() -> CostModel {
        let deployment = Deployment {
            tp: 2,
            pp: 1,
            dp: 1,
            quantization: None,
            float32: false,
            kv_fp8: false,
            eager: true,
            memory_utilization: 0.9,
            max_num_batched_tokens: 8192,
            max_num_seqs: 256,
            cpu_offload_gib: 0.0,
        };
        CostModel::new("Qwen/Qwen3-4B", deployment, 24.0)
    }

    type Times = HashMap<u64, Vec<Nanos>>;

    /// Runs all requests to their end and checks the bounds at every step.
    fn run(limits: Limits, requests: &[(u64, u64)], seed: u64) -> (Times, u64) {
        let mut scheduler = Scheduler::new(limits, cost(), seed);
        for (id, (prompt, output)) in requests.iter().enumerate() {
            assert!(scheduler.add(id as u64, *prompt, *output));
        }
        let (mut times, mut step, mut preempted, mut steps) = (Times::new(), Step::default(), 0, 0);
        while !scheduler.is_idle() {
            let before = scheduler.now();
            scheduler.step(&mut step);
            assert!(scheduler.now() > before, "a step with work takes time");
            assert!(scheduler.used_blocks <= limits.kv_blocks);
            assert!(scheduler.running() <= limits.max_num_seqs);
            for (id, _) in &step.tokens {
                times.entry(*id).or_default().push(scheduler.now());
            }
            preempted += step.preempted;
            steps += 1;
            assert!(steps < 200_000, "it does not end");
        }
        assert_eq!(scheduler.used_blocks, 0);
        (times, preempted)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn all_tokens_come_and_bounds_hold(
            requests in prop::collection::vec((1u64..300, 1u64..60), 1..40),
            max_num_seqs in 1usize..20,
            budget in 1u64..600,
            spare_blocks in 0u64..40,
            block_size in prop::sample::select(vec![1u64, 16, 64]),
            seed: u64,
        ) {
            let largest = requests.iter().map(|(p, o)| (p + o).div_ceil(block_size)).max().unwrap_or(1);
            let limits = Limits { max_num_seqs, max_num_batched_tokens: budget, kv_blocks: largest + spare_blocks, block_size };
            let (times, _) = run(limits, &requests, seed);
            for (id, (_, output)) in requests.iter().enumerate() {
                prop_assert_eq!(times[&(id as u64)].len() as u64, *output);
            }
            prop_assert_eq!(times, run(limits, &requests, seed).0);
        }
    }

    #[test]
    fn a_small_cache_preempts_and_still_ends() {
        let limits = Limits { max_num_seqs: 8, max_num_batched_tokens: 512, kv_blocks: 20, block_size: 16 };
        let (_, preempted) = run(limits, &[(100, 100); 8], 1);
        assert!(preempted > 0);
    }

    #[test]
    fn what_can_never_fit_is_refused_and_aborts_free_the_cache() {
        let limits = Limits { max_num_seqs: 8, max_num_batched_tokens: 512, kv_blocks: 4, block_size: 16 };
        let mut scheduler = Scheduler::new(limits, cost(), 1);
        assert!(!scheduler.add(1, 64, 1));
        assert!(scheduler.add(2, 32, 10));
        scheduler.step(&mut Step::default());
        assert!(scheduler.kv_usage() > 0.0);
        scheduler.abort(2);
        assert!(scheduler.is_idle() && scheduler.kv_usage() == 0.0);
    }
}
