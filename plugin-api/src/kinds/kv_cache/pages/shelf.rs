//! Blocks that can be found again by their keys, and those of them that nobody owns.
//!
//! A key stands for a block and all blocks before it, so one table of keys is the whole radix tree:
//! a prefix is looked up block by block until a key is missing.
//!
//! Source: Zheng et al., "SGLang" (RadixAttention), arXiv:2312.07104, section 3; the table of
//! chained keys is vLLM's.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::kinds::kv_cache::BlockKey;

/// The keys of blocks, and a list of idle blocks by when they were used last.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    block_of: HashMap<BlockKey, u32, BuildHasherDefault<FirstEight>>,
    /// The key of each block.
    keys: Vec<Option<BlockKey>>,
    /// The idle blocks before and after each, in a ring; the last entry is its beginning.
    ring: Vec<(u32, u32)>,
    num_idle: usize,
}

impl Shelf {
    /// For blocks below `num_blocks`, none of them with a key. Nothing grows afterwards.
    pub(crate) fn new(num_blocks: usize) -> Self {
        let (keys, own) = (vec![None; num_blocks], num_blocks as u32);
        // Twice the blocks: the map then cleans up in place instead of growing.
        let block_of = HashMap::with_capacity_and_hasher(2 * num_blocks, Default::default());
        Self { block_of, keys, ring: vec![(own, own); num_blocks + 1], num_idle: 0 }
    }

    /// Blocks that have a key and no owner.
    pub(crate) fn num_idle(&self) -> usize {
        self.num_idle
    }

    pub(crate) fn has(&self, block: u32) -> bool {
        self.keys.get(block as usize).is_some_and(Option::is_some)
    }

    pub(crate) fn find(&self, key: &BlockKey) -> Option<u32> {
        self.block_of.get(key).copied()
    }

    /// Names a block that has an owner; not if it has a name, or another block has this one.
    pub(crate) fn name(&mut self, block: u32, key: BlockKey) {
        if !self.has(block) && !self.block_of.contains_key(&key) {
            self.block_of.insert(key, block);
            self.keys[block as usize] = Some(key);
        }
    }

    /// Takes the name from a block: it is about to hold something else.
    pub(crate) fn unname(&mut self, block: u32) {
        if let Some(key) = self.keys.get_mut(block as usize).and_then(Option::take) {
            self.block_of.remove(&key);
        }
    }

    /// A named block has lost its last owner: it is idle, and the one used last.
    pub(crate) fn lay_down(&mut self, block: u32) {
        let own = self.ring.len() - 1;
        let last = self.ring[own].0;
        self.ring[block as usize] = (last, own as u32);
        self.ring[last as usize].1 = block;
        self.ring[own].0 = block;
        self.num_idle += 1;
    }

    /// An idle block gets an owner.
    pub(crate) fn pick_up(&mut self, block: u32) {
        let (before, after) = self.ring[block as usize];
        self.ring[before as usize].1 = after;
        self.ring[after as usize].0 = before;
        self.num_idle -= 1;
    }

    /// Takes the idle block that was used longest ago, and its name from it.
    pub(crate) fn evict(&mut self) -> Option<u32> {
        if self.num_idle == 0 {
            return None;
        }
        let block = self.ring[self.ring.len() - 1].1;
        self.pick_up(block);
        self.unname(block);
        Some(block)
    }

    /// The idle blocks.
    pub(crate) fn idle(&self) -> impl Iterator<Item = u32> {
        let own = self.ring.len().saturating_sub(1);
        let after = move |block: &u32| Some(self.ring.get(*block as usize)?.1);
        let first = self.ring.get(own).map(|ends| ends.1);
        std::iter::successors(first, after).take(self.num_idle)
    }
}

/// Keys are hashes already: their first eight bytes are hash enough.
#[derive(Debug, Default)]
pub(crate) struct FirstEight(u64);

impl Hasher for FirstEight {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    }

    fn write_usize(&mut self, _: usize) {
        // The length of an array comes before it and is the same for all keys.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
