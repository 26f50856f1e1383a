//! The prefix cache of a simulated server, after vLLM's: full blocks of prompts by the hash of all that stands before them.
//! The oldest blocks go when it is full. Generated tokens are not kept, unlike vLLM's. Pure.

use std::collections::{HashSet, VecDeque};

use super::model::hash;
use super::tokens::split;

/// Hashes of a prompt's full blocks, each over the prompt up to its end.
pub type Blocks = Vec<u64>;

/// The blocks of a prompt given as text.
pub fn of_text(text: &str, block_size: u64) -> Blocks {
    chain(split(text).map(hash), block_size)
}

/// The blocks of a prompt given as token ids.
pub fn of_ids(ids: impl Iterator<Item = u64>, block_size: u64) -> Blocks {
    chain(ids, block_size)
}

fn chain(tokens: impl Iterator<Item = u64>, block_size: u64) -> Blocks {
    let (mut blocks, mut state, mut length) = (Blocks::new(), 0xcbf2_9ce4_8422_2325_u64, 0);
    for token in tokens {
        state = (state.rotate_left(5) ^ token).wrapping_mul(0x517c_c1b7_2722_0a95);
        length += 1;
        if length % block_size.max(1) == 0 {
            blocks.push(state);
        }
    }
    blocks
}

/// What is held.
#[derive(Debug)]
pub struct PrefixCache {
    block_size: u64,
    most: usize,
    held: HashSet<u64>,
    order: VecDeque<u64>,
}

impl PrefixCache {
    /// An empty cache of so many blocks.
    pub fn new(block_size: u64, blocks: u64) -> Self {
        let most = usize::try_from(blocks).unwrap_or(usize::MAX);
        Self { block_size, most, held: HashSet::new(), order: VecDeque::new() }
    }

    /// Tokens of a prompt that need not be computed: at least one always is.
    pub fn found(&self, blocks: &[u64], prompt_tokens: u64) -> u64 {
        let most = usize::try_from(prompt_tokens.saturating_sub(1) / self.block_size.max(1)).unwrap_or(usize::MAX);
        blocks.iter().take(most).take_while(|block| self.held.contains(block)).count() as u64 * self.block_size
    }

    /// Keeps the blocks of a prompt that was computed.
    pub fn keep(&mut self, blocks: &[u64]) {
        for block in blocks {
            if self.held.insert(*block) {
                self.order.push_back(*block);
            }
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.held.remove(&oldest);
            }
        }
    }

    /// Forgets all, as `/reset_prefix_cache` asks.
    pub fn clear(&mut self) {
        self.held.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: impl IntoIterator<Item = u64>) -> Blocks {
        of_ids(ids.into_iter(), 4)
    }

    #[test]
    fn what_begins_alike_is_found_up_to_the_last_full_block() {
        let mut cache = PrefixCache::new(4, 100);
        assert_eq!(cache.found(&ids(0..10), 10), 0);
        cache.keep(&ids(0..10));
        assert_eq!(cache.found(&ids(0..10), 10), 8);
        assert_eq!(cache.found(&ids((0..6).chain([99; 6])), 12), 4);
        assert_eq!(cache.found(&ids([99, 1, 2, 3, 4, 5, 6, 7]), 8), 0, "the same tokens behind another one");
        assert_eq!(cache.found(&ids(0..8), 8), 4, "one token at least is computed");
        cache.clear();
        assert_eq!(cache.found(&ids(0..10), 10), 0);
    }

    #[test]
    fn the_oldest_blocks_go() {
        let mut cache = PrefixCache::new(4, 2);
        cache.keep(&ids(0..8));
        cache.keep(&ids(100..104));
        assert_eq!((cache.found(&ids(0..9), 9), cache.found(&ids(100..105), 5)), (0, 4));
    }

    #[test]
    fn texts_are_cut_into_the_same_tokens_as_they_are_counted() {
        let (one, other) = (" abc def ghi jkl mno", " abc def ghi jkl xyz");
        assert_eq!((of_text(one, 2).len(), of_text(one, 5).len(), of_text(one, 6).len()), (2, 1, 0));
        assert_eq!(of_text(one, 2), of_text(other, 2));
        assert_ne!(of_text(one, 5), of_text(other, 5));
    }
}
