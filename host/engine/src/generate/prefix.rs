//! Prompts that begin as others did: what their blocks are called, and what the cache still has.
//!
//! A block's key is a hash of its tokens and of the key before it; the first follows from
//! everything else that decides the numbers: plan, backend, traced parts, adapter, mask. So the cache
//! compares keys, and nothing made under one plan is read under another. Tokens that have precise weights
//! have no keys.

use plugin_api::kinds::kv_cache::{BlockKey, KvCache, SeqId};
use plugin_api::{Config, Kind, Scheduler};
use sha2::{Digest as _, Sha256};

use super::engine::Engine;
use super::group::Sequence;
use super::plans::CompiledPlan;

/// The keys of a sequence's blocks.
#[derive(Debug, Default, Clone)]
pub(super) struct Chain {
    /// Of its full blocks, from the first on, as far as they were asked for.
    keys: Vec<BlockKey>,
    /// How many of them the cache was told.
    num_published: usize,
    /// Whether blocks that it holds were made by plugins that are not there any more: nobody else
    /// may read them.
    is_mixed: bool,
}

impl Chain {
    /// Room for the keys of `num_tokens`, and some more.
    pub(super) fn for_tokens(num_tokens: usize, block_size: usize) -> Self {
        let keys = Vec::with_capacity((num_tokens + TOKENS_MORE) / block_size.max(1) + 1);
        Self { keys, ..Self::default() }
    }

    /// Keeps the keys of the first `num_tokens`.
    pub(super) fn cut(&mut self, num_tokens: usize, block_size: usize) {
        let keep = num_tokens / block_size.max(1);
        self.keys.truncate(keep);
        self.num_published = self.num_published.min(keep);
        self.is_mixed &= num_tokens > 0;
    }

    /// The sequence holds nothing any more; its tokens are what they were.
    pub(super) fn forget(&mut self) {
        (self.num_published, self.is_mixed) = (0, false);
    }

    /// Another cache knows no key.
    pub(super) fn unpublish(&mut self) {
        self.num_published = 0;
    }

    /// Everything is called otherwise from here on.
    fn rename(&mut self, holds_tokens: bool) {
        self.keys.clear();
        (self.num_published, self.is_mixed) = (0, holds_tokens);
    }

    /// The keys of the full blocks among `tokens`.
    fn of(&mut self, seed: &BlockKey, tokens: &[u32], block_size: usize) -> &[BlockKey] {
        let num_full = tokens.len() / block_size;
        for block in tokens.chunks_exact(block_size).skip(self.keys.len()) {
            let before = self.keys.last().unwrap_or(seed);
            let mut hash = Sha256::new_with_prefix(before.0);
            block.iter().for_each(|token| hash.update(token.to_le_bytes()));
            self.keys.push(BlockKey(hash.finalize().into()));
        }
        &self.keys[..num_full]
    }
}

/// How many tokens of a sequence that holds none are in the cache.
pub(super) fn find(
    cache: &mut dyn KvCache,
    sequence: &mut Sequence,
    seed: &BlockKey,
    block_size: usize,
) -> usize {
    let Some(prefixes) = cache.prefix_caching() else { return 0 };
    let shared = sequence.tokens.len().min(sequence.precise_from);
    let keys = sequence.chain.of(seed, adoptable(&sequence.tokens[..shared]), block_size);
    prefixes.find(keys).min(keys.len()) * block_size
}

/// Starts a sequence that holds nothing with what the cache has of it, and returns its tokens.
pub(super) fn adopt(
    cache: &mut dyn KvCache,
    seq: SeqId,
    sequence: &mut Sequence,
    seed: &BlockKey,
    block_size: usize,
) -> usize {
    let Some(prefixes) = cache.prefix_caching() else { return 0 };
    let shared = sequence.tokens.len().min(sequence.precise_from);
    let keys = sequence.chain.of(seed, adoptable(&sequence.tokens[..shared]), block_size);
    let num_blocks = prefixes.adopt(seq, keys).min(keys.len());
    sequence.chain.num_published = num_blocks;
    sequence.num_evaluated = num_blocks * block_size;
    sequence.num_evaluated
}

/// Tells the cache the keys of blocks that have become full.
fn publish(
    cache: &mut dyn KvCache,
    seq: SeqId,
    sequence: &mut Sequence,
    seed: &BlockKey,
    block_size: usize,
) {
    let end = sequence.num_evaluated.min(sequence.precise_from);
    let (first, full) = (sequence.chain.num_published, end / block_size);
    if full <= first || sequence.chain.is_mixed {
        return;
    }
    let Some(prefixes) = cache.prefix_caching() else { return };
    let keys = sequence.chain.of(seed, &sequence.tokens[..end], block_size);
    prefixes.publish(seq, first, &keys[first..]);
    sequence.chain.num_published = full;
}

/// The last token is evaluated whatever the cache has: its logits are asked for.
fn adoptable(tokens: &[u32]) -> &[u32] {
    tokens.split_last().map_or(&[], |(_, before)| before)
}

impl Engine {
    /// What the keys of a request begin with.
    pub(super) fn seed_of(&self, plan: &CompiledPlan, params: &Config) -> BlockKey {
        let shapes_numbers =
            |kind: &str| kind != <dyn KvCache>::NAME && kind != <dyn Scheduler>::NAME;
        let labels = self.engine_labels(plan).filter(|(kind, _)| shapes_numbers(kind));
        let mut hash = Sha256::new_with_prefix(plan.digest.with(labels).as_bytes());
        hash.update(&self.layout.pool.semantic_id.0);
        // Requests with different salts share nothing, as vLLM has it.
        for (field, value) in
            [("adapter", ""), ("salt", params.text_or("cache_salt", "").unwrap_or(""))]
        {
            hash.update(field);
            hash.update((value.len() as u64).to_le_bytes());
            hash.update(value);
        }
        BlockKey(hash.finalize().into())
    }

    /// Works out again what the keys of a request begin with.
    pub(super) fn update_seed(&mut self, index: usize) {
        let Some(group) = self.groups.get(index) else { return };
        let seed = self.seed_of(self.plans.get(group.plan), &group.params);
        let Some(group) = self.groups.get_mut(index).filter(|group| group.seed_key != seed) else {
            return;
        };
        group.seed_key = seed;
        for seq in &group.seqs {
            if let Some(sequence) = self.sequences.get_mut(seq.0 as usize) {
                sequence.chain.rename(sequence.num_evaluated > 0);
            }
        }
    }

    /// Tells the cache the keys of blocks of a sequence that have become full.
    pub(super) fn publish(&mut self, seq: SeqId) {
        let Some(sequence) = self.sequences.get_mut(seq.0 as usize) else { return };
        let Some(group) = self.groups.get(sequence.group) else { return };
        publish(self.cache.get_mut(), seq, sequence, &group.seed_key, self.layout.pool.block_size);
    }

    /// Starts a sequence that holds nothing with what the cache has of it.
    pub(super) fn adopt(&mut self, seq: SeqId) {
        let Some(sequence) = self.sequences.get_mut(seq.0 as usize) else { return };
        if sequence.num_evaluated > 0 || sequence.is_atomic {
            return;
        }
        let Some(group) = self.groups.get_mut(sequence.group) else { return };
        let block_size = self.layout.pool.block_size;
        // What is to be scored has to be evaluated.
        let tokens = match group.scores {
            Some(_) => 0,
            None => adopt(self.cache.get_mut(), seq, sequence, &group.seed_key, block_size),
        };
        // What is adopted again after a preemption was counted when it was first.
        if group.cached_tokens.is_none() {
            group.cached_tokens = Some(tokens);
            self.load.prompt_tokens += group.prompt_tokens as u64;
            self.load.cached_tokens += tokens as u64;
        }
    }
}

/// Tokens of an answer that keys have room for without growing.
const TOKENS_MORE: usize = 1024;
