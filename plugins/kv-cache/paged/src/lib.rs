//! Paged cache: blocks of a few tokens, shared between forked sequences, copied before a write.
//!
//! Source: Kwon et al., "Efficient Memory Management … with PagedAttention", arXiv:2309.06180.

mod bitmap;
mod blocks;
mod shelf;

use std::collections::HashMap;

use plugin_api::prelude::*;

pub use bitmap::Bitmap;
use blocks::Blocks;

/// A pool of blocks with a count of owners each, and a table of blocks for each sequence.
#[derive(Debug)]
pub struct Paged {
    dtype: DType,
    block_size: usize,
    /// Whether blocks are kept for sequences to come.
    keeps_prefixes: bool,
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

impl Capability for Paged {
    const NAME: &'static str = "paged";

    fn from_config(config: &Config) -> Result<Self> {
        let dtype = match config.one_of("dtype", &["f16", "f32"])? {
            "f32" => DType::F32,
            _ => DType::F16,
        };
        let block_size = config.count_or("block_size", 16, 1..=4096)? as usize;
        Ok(Self {
            dtype,
            block_size,
            keeps_prefixes: config.flag_or("prefix_caching", true)?,
            tokens_max: 0,
            blocks: Blocks::default(),
            index_of: HashMap::new(),
            seqs: Vec::new(),
            free_seqs: Vec::new(),
        })
    }
}

impl KvCache for Paged {
    fn pool(&mut self, states: &[StateSpec], limits: &PoolLimits) -> Result<PoolSpec> {
        let block_bytes = bytes_per_block(states, self.dtype, self.block_size).max(1);
        let blocks_per_seq_max = limits.tokens_per_seq_max.div_ceil(self.block_size);
        let fitting = usize::try_from(limits.size_bytes_max / block_bytes).unwrap_or(usize::MAX);
        let num_blocks = fitting.min(limits.num_seqs_max * blocks_per_seq_max);
        if num_blocks == 0 {
            let free = limits.size_bytes_max as usize;
            return Err(no_space("kv cache, in bytes", block_bytes as usize, free));
        }
        self.tokens_max = limits.tokens_per_seq_max;
        self.blocks = Blocks::new(num_blocks);
        // Twice the sequences: the map then cleans up in place instead of growing.
        self.index_of = HashMap::with_capacity(2 * limits.num_seqs_max);
        let sequence =
            || Sequence { table: Vec::with_capacity(blocks_per_seq_max), len: 0, reserved: 0 };
        self.seqs = (0..limits.num_seqs_max).map(|_| sequence()).collect();
        self.free_seqs = (0..limits.num_seqs_max).rev().collect();
        Ok(PoolSpec {
            block_size: self.block_size,
            num_blocks,
            blocks_per_seq_max,
            dtype: self.dtype,
            semantic_id: SemanticId::new(format!("kv {}/1", self.dtype)),
        })
    }

    fn reserve(&mut self, seq: SeqId, tokens: usize, moves: &mut Vec<BlockCopy>) -> Result<&[u32]> {
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

    fn commit(&mut self, seq: SeqId, keep: usize, _: &mut Vec<BlockCopy>) {
        if let Some(&index) = self.index_of.get(&seq) {
            let Sequence { len, reserved, .. } = self.seqs[index];
            self.cut(index, len + keep.min(reserved));
        }
    }

    fn fork(&mut self, parent: SeqId, child: SeqId, moves: &mut Vec<BlockCopy>) -> Result<()> {
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

    fn release(&mut self, seq: SeqId, upto: usize) {
        let Some(&index) = self.index_of.get(&seq) else { return };
        self.cut(index, upto.min(self.seqs[index].len));
        if upto == 0 {
            self.index_of.remove(&seq);
            self.free_seqs.push(index);
        }
    }

    fn usage(&self) -> PoolUsage {
        let total = self.blocks.total();
        PoolUsage { used: total - self.blocks.available(), total }
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        Some(self)
    }

    fn prefix_caching(&mut self) -> Option<&mut dyn PrefixCaching> {
        if self.keeps_prefixes { Some(self) } else { None }
    }
}

impl PrefixCaching for Paged {
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

impl Handover for Paged {
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

impl Paged {
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

fn no_space(what: &'static str, needed: usize, free: usize) -> Error {
    Error::NoSpace { what: what.into(), needed: needed as u64, free: free as u64 }
}

export_plugin!(Paged);

#[cfg(test)]
mod tests;
