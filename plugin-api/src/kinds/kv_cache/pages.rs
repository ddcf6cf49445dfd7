//! Blocks of a pool and the tables of sequences over them: what caches of pages share, whatever a
//! token takes in memory.
//!
//! Source: Kwon et al., "Efficient Memory Management … with PagedAttention", arXiv:2309.06180.

mod bitmap;
mod blocks;
mod shelf;

use std::collections::HashMap;

pub use bitmap::Bitmap;
use blocks::Blocks;

use super::{
    BlockCopy, BlockKey, PoolLimits, PoolUsage, PrefixCaching, SavedTables, SeqId, SeqTable,
    TableShape, save_tables,
};
use crate::error::{Error, Result};
use crate::kinds::Handover;

/// A pool of blocks with a count of owners each, and a table of blocks for each sequence.
///
/// Its methods are those of [`KvCache`](super::KvCache) and promise what it promises. Empty blocks
/// are taken first, then those that are kept for their key, least recently used first. A fork
/// shares full blocks; a block that is shared is copied before it is written.
#[derive(Debug)]
pub struct Pages {
    block_size: usize,
    tokens_max: usize,
    blocks: Blocks,
    /// Where in `seqs` a sequence lies.
    index_of: HashMap<SeqId, usize>,
    seqs: Vec<Sequence>,
    /// Places of `seqs` that no sequence uses.
    free_seqs: Vec<usize>,
}

#[derive(Debug, Default)]
struct Sequence {
    /// Its blocks: always as many as `len + reserved` tokens fill.
    table: Vec<u32>,
    /// Committed tokens.
    len: usize,
    /// Tokens reserved after them.
    reserved: usize,
}

impl Pages {
    /// No pool yet: blocks of `block_size` tokens, which is not 0.
    pub fn new(block_size: usize) -> Self {
        Self {
            block_size: block_size.max(1),
            tokens_max: 0,
            blocks: Blocks::default(),
            index_of: HashMap::new(),
            seqs: Vec::new(),
            free_seqs: Vec::new(),
        }
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Starts over with `num_blocks` empty blocks for sequences of up to `limits`. Nothing grows
    /// afterwards.
    pub fn lay_out(&mut self, num_blocks: usize, limits: &PoolLimits) {
        let blocks_per_seq_max = limits.tokens_per_seq_max.div_ceil(self.block_size);
        self.tokens_max = limits.tokens_per_seq_max;
        self.blocks = Blocks::new(num_blocks);
        // Twice the sequences: the map then cleans up in place instead of growing.
        self.index_of = HashMap::with_capacity(2 * limits.num_seqs_max);
        let sequence =
            || Sequence { table: Vec::with_capacity(blocks_per_seq_max), len: 0, reserved: 0 };
        self.seqs = (0..limits.num_seqs_max).map(|_| sequence()).collect();
        self.free_seqs = (0..limits.num_seqs_max).rev().collect();
    }

    /// As [`KvCache::reserve`](super::KvCache::reserve).
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] with nothing taken.
    pub fn reserve(
        &mut self,
        seq: SeqId,
        tokens: usize,
        moves: &mut Vec<BlockCopy>,
    ) -> Result<&[u32]> {
        let known = self.index_of.get(&seq).copied();
        let index = known.map_or_else(|| self.next_index(), Ok)?;
        let Sequence { table, len, reserved } = &self.seqs[index];
        let held = len + reserved;
        if tokens > self.tokens_max - held {
            return Err(no_space("tokens of a sequence", tokens, self.tokens_max - held));
        }
        let num_more = (held + tokens).div_ceil(self.block_size) - table.len();
        // The block that the first of the tokens goes to, if it is begun; if somebody shares it.
        let begun = table.get(held / self.block_size).copied().filter(|_| tokens > 0);
        let shared = begun.filter(|&block| self.blocks.is_shared(block));
        let needed = num_more + usize::from(shared.is_some());
        if needed > self.blocks.available() {
            return Err(no_space("kv cache, in blocks", needed, self.blocks.available()));
        }
        if known.is_none() {
            self.free_seqs.pop();
            self.index_of.insert(seq, index);
        }
        if let Some(from) = shared {
            let to = self.blocks.take();
            self.blocks.give(from);
            self.seqs[index].table[held / self.block_size] = to;
            moves.push(BlockCopy { from, to });
        } else if let Some(block) = begun {
            self.blocks.shelf.unname(block);
        }
        for _ in 0..num_more {
            let block = self.blocks.take();
            self.seqs[index].table.push(block);
        }
        self.seqs[index].reserved += tokens;
        Ok(&self.seqs[index].table)
    }

    /// As [`KvCache::commit`](super::KvCache::commit).
    pub fn commit(&mut self, seq: SeqId, keep: usize) {
        if let Some(&index) = self.index_of.get(&seq) {
            let Sequence { len, reserved, .. } = self.seqs[index];
            self.cut(index, len + keep.min(reserved));
        }
    }

    /// As [`KvCache::fork`](super::KvCache::fork).
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] with nothing taken.
    pub fn fork(&mut self, parent: SeqId, child: SeqId, moves: &mut Vec<BlockCopy>) -> Result<()> {
        let Some(&from) = self.index_of.get(&parent) else { return Ok(()) };
        let index = self.next_index()?;
        let len = self.seqs[from].len;
        let (num_full, is_partial) = (len / self.block_size, !len.is_multiple_of(self.block_size));
        if is_partial && self.blocks.available() == 0 {
            return Err(no_space("kv cache, in blocks", 1, 0));
        }
        self.free_seqs.pop();
        self.index_of.insert(child, index);
        for i in 0..num_full {
            let block = self.seqs[from].table[i];
            self.blocks.share(block);
            self.seqs[index].table.push(block);
        }
        if is_partial {
            let (from, to) = (self.seqs[from].table[num_full], self.blocks.take());
            self.seqs[index].table.push(to);
            moves.push(BlockCopy { from, to });
        }
        self.seqs[index].len = len;
        Ok(())
    }

    /// As [`KvCache::release`](super::KvCache::release).
    pub fn release(&mut self, seq: SeqId, upto: usize) {
        let Some(&index) = self.index_of.get(&seq) else { return };
        self.cut(index, upto.min(self.seqs[index].len));
        if upto == 0 {
            self.index_of.remove(&seq);
            self.free_seqs.push(index);
        }
    }

    /// Forgets the keys of all blocks: nobody adopts what they held. [`PrefixCaching`]
    pub fn forget_keys(&mut self) {
        self.blocks.forget_keys();
    }

    /// As [`KvCache::usage`](super::KvCache::usage).
    pub fn usage(&self) -> PoolUsage {
        let total = self.blocks.total();
        PoolUsage { used: total - self.blocks.available(), total }
    }

    fn shape(&self) -> TableShape {
        TableShape {
            block_size: self.block_size,
            num_blocks: self.blocks.total(),
            tokens_per_seq_max: self.tokens_max,
            num_seqs_max: self.seqs.len(),
        }
    }

    /// Where one more sequence may lie; it is taken by popping it.
    fn next_index(&self) -> Result<usize> {
        self.free_seqs.last().copied().ok_or(no_space("sequences of the kv cache", 1, 0))
    }

    /// Leaves a sequence with `len` committed tokens and nothing reserved.
    fn cut(&mut self, index: usize, len: usize) {
        let Self { seqs, blocks, block_size, .. } = self;
        // From the end: of a prefix, what comes last is worth least and is evicted first.
        for block in seqs[index].table.drain(len.div_ceil(*block_size)..).rev() {
            blocks.give(block);
        }
        (seqs[index].len, seqs[index].reserved) = (len, 0);
    }
}

impl PrefixCaching for Pages {
    fn find(&self, keys: &[BlockKey]) -> usize {
        self.blocks.find(keys)
    }

    fn adopt(&mut self, seq: SeqId, keys: &[BlockKey]) -> usize {
        let keys = &keys[..keys.len().min(self.tokens_max / self.block_size)];
        let found = self.blocks.find(keys);
        let (false, Ok(index)) = (self.index_of.contains_key(&seq), self.next_index()) else {
            return 0;
        };
        if found == 0 {
            return 0;
        }
        self.free_seqs.pop();
        self.index_of.insert(seq, index);
        let Self { seqs, blocks, .. } = self;
        for key in &keys[..found] {
            let Some(block) = blocks.shelf.find(key) else { break };
            blocks.share(block);
            seqs[index].table.push(block);
        }
        self.seqs[index].len = found * self.block_size;
        found
    }

    fn publish(&mut self, seq: SeqId, first: usize, keys: &[BlockKey]) {
        let Some(&index) = self.index_of.get(&seq) else { return };
        let Sequence { table, len, .. } = &self.seqs[index];
        let full = &table[..len / self.block_size];
        for (&block, &key) in full.iter().skip(first).zip(keys) {
            self.blocks.shelf.name(block, key);
        }
    }
}

impl Handover for Pages {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        let seqs = self.index_of.iter().map(|(&seq, &index)| {
            let Sequence { table, len, reserved } = &self.seqs[index];
            SeqTable { seq, len: *len, reserved: *reserved, blocks: &table[..] }
        });
        // Keys stay behind: whoever takes over gets what sequences hold, and empty blocks.
        save_tables(out, &self.shape(), &self.blocks.unowned(), seqs);
        Ok(())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let SavedTables { free, num_owners, seqs } = SavedTables::parse(bytes, &self.shape())?;
        self.blocks = Blocks::restored(&free, num_owners);
        self.index_of.clear();
        self.free_seqs.clear();
        self.free_seqs.extend((seqs.len()..self.seqs.len()).rev());
        self.seqs.iter_mut().for_each(|sequence| sequence.table.clear());
        for (index, saved) in seqs.into_iter().enumerate() {
            self.index_of.insert(saved.seq, index);
            let sequence = &mut self.seqs[index];
            (sequence.len, sequence.reserved) = (saved.len, saved.reserved);
            sequence.table.extend(saved.blocks);
        }
        Ok(())
    }
}

pub(super) fn no_space(what: &'static str, needed: usize, free: usize) -> Error {
    Error::NoSpace { what: what.into(), needed: needed as u64, free: free as u64 }
}
