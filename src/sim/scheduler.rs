//! Continuous batching in simulated time, after vLLM's V1 scheduler. Pure: no clock, no task, no socket.
//!
//! Each step gives a budget of `max_num_batched_tokens` first to the running sequences (one token to each that decodes, a
//! chunk of prompt to the others), then to waiting ones while `max_num_seqs` and the KV cache allow. When the cache is full
//! the sequence that came last is preempted: it loses its cache and is computed again later.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::model::{CostModel, StepLoad};
use super::speculation::{Drafts, Speculation};

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
    /// Tokens drafted for it in this step.
    drafted: u64,
}

/// What a step did. Kept by the caller and reused, so that a step allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Sequences that got tokens, in order, and how many; the flag says whether the last of them was the sequence's last.
    pub tokens: Vec<(u64, u64, bool)>,
    /// Prompt tokens that were computed for the first time or again.
    pub prefill_tokens: u64,
    /// Sequences that lost their cache.
    pub preempted: u64,
    /// What was drafted and accepted, until somebody takes it.
    pub drafts: Drafts,
}

/// Sequences that run and wait, and the simulated clock.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    cost: CostModel,
    /// By what the time of every step is multiplied.
    slowdown: f64,
    /// By what it is multiplied further, for now.
    disturbance: f64,
    speculation: Option<Speculation>,
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
            slowdown: 1.0,
            disturbance: 1.0,
            speculation: None,
            random: ChaCha8Rng::seed_from_u64(seed),
            waiting: VecDeque::new(),
            running: Vec::new(),
            used_blocks: 0,
            now: 0,
        }
    }

    /// The same on a machine that takes so many times as long, and with speculative decoding where it is asked for.
    pub fn varied(self, slowdown: f64, speculation: Option<Speculation>) -> Scheduler {
        Scheduler { slowdown, speculation, ..self }
    }

    /// From now on every step takes so many times as long.
    pub fn disturb(&mut self, factor: f64) {
        self.disturbance = factor;
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

    /// Queues a sequence, of whose prompt so many tokens are in the prefix cache; false when it can never fit into the KV cache
    /// (or has nothing to compute).
    pub fn add(&mut self, id: u64, prompt_tokens: u64, output_tokens: u64, cached: u64) -> bool {
        let tokens = prompt_tokens.max(1);
        if output_tokens == 0 || (tokens + output_tokens).div_ceil(self.limits.block_size) > self.limits.kv_blocks {
            return false;
        }
        let computed = cached.min(tokens - 1);
        self.waiting.push_back(Sequence { id, tokens, computed, remaining: output_tokens, blocks: 0, drafted: 0 });
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
        let drafting = 1.0 + self.speculation.map_or(0.0, |speculation| speculation.cost * speculation.tokens as f64);
        self.now +=
            (self.cost.step_seconds(load) * jitter * drafting * self.slowdown * self.disturbance * 1e9) as Nanos;
        self.collect(step);
    }

    fn schedule_running(&mut self, budget: &mut u64, load: &mut StepLoad, step: &mut Step) {
        let mut at = 0;
        while at < self.running.len() && *budget > 0 {
            let chunk = (self.running[at].tokens - self.running[at].computed).min(*budget);
            let drafted = self.drafts_for(at, chunk, *budget);
            let needed = (self.running[at].computed + chunk + drafted).div_ceil(self.limits.block_size);
            // What refused drafts had is kept.
            let wanted = needed.max(self.running[at].blocks);
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
            load.tokens += drafted;
            self.running[at].drafted = drafted;
            *budget -= chunk + drafted;
            at += 1;
        }
    }

    /// How many tokens are drafted for a running sequence in this step: none while its prompt is computed.
    fn drafts_for(&self, at: usize, chunk: u64, budget: u64) -> u64 {
        let sequence = &self.running[at];
        match self.speculation {
            Some(speculation) if chunk == 1 && sequence.computed + 1 == sequence.tokens => {
                speculation.tokens.min(sequence.remaining - 1).min(budget - 1)
            }
            _ => 0,
        }
    }

    fn preempt_last(&mut self, step: &mut Step) {
        if let Some(mut sequence) = self.running.pop() {
            self.used_blocks -= sequence.blocks;
            (sequence.blocks, sequence.computed, sequence.drafted) = (0, 0, 0);
            self.waiting.push_front(sequence);
            step.preempted += 1;
        }
    }

    fn schedule_waiting(&mut self, budget: &mut u64, load: &mut StepLoad, step: &mut Step) {
        while *budget > 0 && self.running.len() < self.limits.max_num_seqs {
            let Some(next) = self.waiting.front() else { break };
            let chunk = (next.tokens - next.computed).min(*budget);
            let wanted = (next.computed + chunk).div_ceil(self.limits.block_size);
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
        let (used_blocks, random, speculation) = (&mut self.used_blocks, &mut self.random, self.speculation);
        self.running.retain_mut(|sequence| {
            if sequence.computed < sequence.tokens {
                return true;
            }
            let drafted = std::mem::take(&mut sequence.drafted);
            let accepted = match speculation {
                Some(speculation) if drafted > 0 => {
                    let accepted = speculation.accepted(drafted, random);
                    step.drafts.add(drafted, accepted);
                    accepted
                }
                _ => 0,
            };
            sequence.computed += accepted;
            sequence.tokens += 1 + accepted;
            sequence.remaining -= 1 + accepted;
            let last = sequence.remaining == 0;
            step.tokens.push((sequence.id, 1 + accepted, last));
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
        let (times, preempted, _) = run_on(Scheduler::new(limits, cost(), seed), limits, requests, 0, 0);
        (times, preempted)
    }

    /// The same on a machine made before; `cached` tokens of each prompt are there, `drafted` are drafted at most.
    fn run_on(
        mut scheduler: Scheduler,
        limits: Limits,
        requests: &[(u64, u64)],
        cached: u64,
        drafted: u64,
    ) -> (Times, u64, Drafts) {
        for (id, (prompt, output)) in requests.iter().enumerate() {
            assert!(scheduler.add(id as u64, *prompt, *output, cached));
        }
        let (mut times, mut preempted, mut steps) = (Times::new(), 0, 0);
        let mut step = Step { drafts: Drafts::none(drafted), ..Step::default() };
        while !scheduler.is_idle() {
            let before = scheduler.now();
            scheduler.step(&mut step);
            assert!(scheduler.now() > before, "a step with work takes time");
            assert!(scheduler.used_blocks <= limits.kv_blocks);
            assert!(scheduler.running() <= limits.max_num_seqs);
            for (id, count, _) in &step.tokens {
                times.entry(*id).or_default().extend((0..*count).map(|_| scheduler.now()));
            }
            preempted += step.preempted;
            steps += 1;
            assert!(steps < 200_000, "it does not end");
        }
        assert_eq!(scheduler.used_blocks, 0);
        (times, preempted, step.drafts)
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

        #[test]
        fn with_drafts_all_tokens_come_too_and_bounds_hold(
            requests in prop::collection::vec((1u64..300, 1u64..60), 1..30),
            budget in 1u64..600,
            spare_blocks in 0u64..40,
            cached in 0u64..200,
            tokens in 1u64..6,
            seed: u64,
        ) {
            let largest = requests.iter().map(|(p, o)| (p + o).div_ceil(16)).max().unwrap_or(1);
            let limits =
                Limits { max_num_seqs: 8, max_num_batched_tokens: budget, kv_blocks: largest + spare_blocks, block_size: 16 };
            let speculation = Speculation { tokens, acceptance: 0.6, cost: 0.01 };
            let scheduler = Scheduler::new(limits, cost(), seed).varied(1.1, Some(speculation));
            let (times, _, drafts) = run_on(scheduler, limits, &requests, cached, tokens);
            for (id, (_, output)) in requests.iter().enumerate() {
                prop_assert_eq!(times[&(id as u64)].len() as u64, *output);
            }
            prop_assert!(drafts.all_accepted() <= drafts.tokens);
        }
    }

    const WIDE: Limits = Limits { max_num_seqs: 64, max_num_batched_tokens: 8192, kv_blocks: 10_000, block_size: 16 };

    #[test]
    fn a_slower_machine_takes_longer_by_its_factor() {
        let end = |slowdown: f64| {
            let scheduler = Scheduler::new(WIDE, cost(), 1).varied(slowdown, None);
            run_on(scheduler, WIDE, &[(500, 40); 8], 0, 0).0[&0].last().copied().unwrap() as f64
        };
        assert!((end(1.25) / end(1.0) - 1.25).abs() < 1e-6, "{} {}", end(1.25), end(1.0));
    }

    #[test]
    fn what_is_cached_is_not_computed_and_accepted_drafts_save_steps() {
        let first = |cached: u64| run_on(Scheduler::new(WIDE, cost(), 1), WIDE, &[(4000, 40)], cached, 0).0[&0][0];
        assert!(first(3200) < first(0) / 2, "{} {}", first(3200), first(0));
        let speculation = Speculation { tokens: 4, acceptance: 0.8, cost: 0.01 };
        let last = |speculation: Option<Speculation>| {
            let scheduler = Scheduler::new(WIDE, cost(), 1).varied(1.0, speculation);
            let (times, _, drafts) = run_on(scheduler, WIDE, &[(100, 200)], 0, 4);
            (times[&0].last().copied().unwrap(), drafts)
        };
        let ((plain, none), (drafted, drafts)) = (last(None), last(Some(speculation)));
        assert!(drafted < plain * 2 / 3, "{drafted} {plain}");
        assert_eq!(none.drafts, 0);
        assert_eq!(drafts.drafts + drafts.all_accepted() + 1, 200, "the prompt's step, and each draft's own token");
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
        assert!(!scheduler.add(1, 64, 1, 0));
        assert!(scheduler.add(2, 32, 10, 0));
        scheduler.step(&mut Step::default());
        assert!(scheduler.kv_usage() > 0.0);
        scheduler.abort(2);
        assert!(scheduler.is_idle() && scheduler.kv_usage() == 0.0);
    }
}
