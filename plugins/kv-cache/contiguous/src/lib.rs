//! Contiguous cache: each sequence has one block that is as long as a sequence can get.
//!
//! Source: the layout before Kwon et al., "PagedAttention", arXiv:2309.06180, section 3.1.

use std::collections::HashMap;

use plugin_api::prelude::*;

/// One block per sequence: nothing is shared, and a short sequence wastes the rest of its block.
#[derive(Debug)]
pub struct Contiguous {
    dtype: DType,
    tokens_max: usize,
    num_blocks: usize,
    /// Blocks that nobody owns, the next one last.
    free: Vec<u32>,
    seqs: HashMap<SeqId, Sequence>,
    seqs_max: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sequence {
    /// Its block; none while it holds no token.
    block: Option<[u32; 1]>,
    /// Committed tokens.
    len: usize,
    /// Tokens reserved after them.
    reserved: usize,
}

impl Sequence {
    fn table(&self) -> &[u32] {
        self.block.as_ref().map_or(&[], |block| block)
    }
}

impl Capability for Contiguous {
    const NAME: &'static str = "contiguous";

    fn from_config(config: &Config) -> Result<Self> {
        let dtype = plain_dtype(config)?;
        let (free, seqs) = (Vec::new(), HashMap::new());
        Ok(Self { dtype, tokens_max: 0, num_blocks: 0, free, seqs, seqs_max: 0 })
    }
}

impl KvCache for Contiguous {
    fn pool(&mut self, states: &[StateSpec], limits: &PoolLimits) -> Result<PoolSpec> {
        let tokens_max = limits.tokens_per_seq_max.max(1);
        let storage = states.iter().map(|state| Storage::Plain(self.dtype).for_state(state));
        let storage: Vec<_> = storage.collect();
        let block_bytes = block_bytes(states, &storage, tokens_max)?.max(1);
        let fitting = usize::try_from(limits.size_bytes_max / block_bytes).unwrap_or(usize::MAX);
        self.num_blocks = fitting.min(limits.num_seqs_max);
        if self.num_blocks == 0 {
            let free = limits.size_bytes_max as usize;
            return Err(no_space("kv cache, in bytes", block_bytes as usize, free));
        }
        self.tokens_max = limits.tokens_per_seq_max;
        self.seqs_max = limits.num_seqs_max;
        self.free = (0..self.num_blocks as u32).rev().collect();
        // Twice the sequences: the map then cleans up in place instead of growing.
        self.seqs = HashMap::with_capacity(2 * limits.num_seqs_max);
        Ok(PoolSpec {
            block_size: tokens_max,
            num_blocks: self.num_blocks,
            blocks_per_seq_max: 1,
            storage,
            semantic_id: plain_id(self.dtype),
        })
    }

    fn reserve(&mut self, seq: SeqId, tokens: usize, _: &mut Vec<BlockCopy>) -> Result<&[u32]> {
        let mut entry = self.admit(seq)?;
        let room = self.tokens_max - entry.len - entry.reserved;
        if tokens > room {
            return Err(no_space("tokens of a sequence", tokens, room));
        }
        if tokens > 0 && entry.block.is_none() {
            entry.block = Some([self.free.pop().ok_or(no_space("kv cache, in blocks", 1, 0))?]);
        }
        entry.reserved += tokens;
        let kept = self.seqs.entry(seq).insert_entry(entry).into_mut();
        Ok(kept.table())
    }

    fn commit(&mut self, seq: SeqId, keep: usize, _: &mut Vec<BlockCopy>) {
        if let Some(entry) = self.seqs.get_mut(&seq) {
            entry.len += keep.min(entry.reserved);
            entry.reserved = 0;
            self.give_back_if_empty(seq);
        }
    }

    fn fork(&mut self, parent: SeqId, child: SeqId, moves: &mut Vec<BlockCopy>) -> Result<()> {
        let mut entry = self.admit(child)?;
        let Some(from) = self.seqs.get(&parent) else { return Ok(()) };
        entry.len = from.len;
        if let (Some([from]), 1..) = (from.block, from.len) {
            let to = self.free.pop().ok_or(no_space("kv cache, in blocks", 1, 0))?;
            entry.block = Some([to]);
            moves.push(BlockCopy { from, to });
        }
        self.seqs.insert(child, entry);
        Ok(())
    }

    fn release(&mut self, seq: SeqId, upto: usize) {
        let Some(entry) = self.seqs.get_mut(&seq) else { return };
        entry.len = entry.len.min(upto);
        entry.reserved = 0;
        self.give_back_if_empty(seq);
        if upto == 0 {
            self.seqs.remove(&seq);
        }
    }

    fn usage(&self) -> PoolUsage {
        PoolUsage { used: self.num_blocks - self.free.len(), total: self.num_blocks }
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        Some(self)
    }
}

impl Handover for Contiguous {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        let seqs = self.seqs.iter().map(|(&seq, s)| SeqTable {
            seq,
            len: s.len,
            reserved: s.reserved,
            blocks: s.table(),
        });
        save_tables(out, &self.shape(), &self.free, seqs);
        Ok(())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let SavedTables { free, num_owners, seqs } = SavedTables::parse(bytes, &self.shape())?;
        if let Some(block) = num_owners.iter().position(|&n| n > 1) {
            return Err(Error::malformed("state of a kv cache", "no block shared", block));
        }
        self.free = free;
        self.seqs.clear();
        self.seqs.extend(seqs.into_iter().map(|s| {
            let block = s.blocks.first().map(|&block| [block]);
            (s.seq, Sequence { block, len: s.len, reserved: s.reserved })
        }));
        Ok(())
    }
}

impl Contiguous {
    fn shape(&self) -> TableShape {
        TableShape {
            block_size: self.tokens_max.max(1),
            num_blocks: self.num_blocks,
            tokens_per_seq_max: self.tokens_max,
            num_seqs_max: self.seqs_max,
        }
    }

    /// What is known of `seq`, or an empty sequence if one more may begin.
    fn admit(&self, seq: SeqId) -> Result<Sequence> {
        match self.seqs.get(&seq) {
            Some(entry) => Ok(*entry),
            None if self.seqs.len() < self.seqs_max => Ok(Sequence::default()),
            None => Err(no_space("sequences of the kv cache", 1, 0)),
        }
    }

    fn give_back_if_empty(&mut self, seq: SeqId) {
        if let Some(entry) = self.seqs.get_mut(&seq).filter(|entry| entry.len == 0) {
            self.free.extend(entry.block.take().into_iter().flatten());
        }
    }
}

fn no_space(what: &'static str, needed: usize, free: usize) -> Error {
    Error::NoSpace { what: what.into(), needed: needed as u64, free: free as u64 }
}

export_plugin!(Contiguous);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::plan::{Part, Per};

    #[test]
    fn passes_the_contract_suite() {
        for dtype in ["f16", "f32"] {
            plugin_api::testing::kv_cache::suite::<Contiguous>(&Config::new().with("dtype", dtype));
        }
    }

    #[test]
    fn lays_out_one_block_per_sequence() {
        let part = Part { name: "key".to_owned(), dims: vec![4] };
        let per = Per::Token { window: 0 };
        let states = [StateSpec { name: "s".to_owned(), per, parts: vec![part] }];
        #[rustfmt::skip]
        let cases = [
            // dtype  sequences  bytes  blocks: 4 elements × 10 tokens are 80 or 160 bytes
            ("f16",   8,         800,   8),
            ("f16",   20,        800,   10),
            ("f32",   20,        800,   5),
            ("f32",   20,        799,   4),
        ];
        for (dtype, num_seqs_max, size_bytes_max, num_blocks) in cases {
            let mut cache = Contiguous::from_config(&Config::new().with("dtype", dtype)).unwrap();
            let limits = PoolLimits { num_seqs_max, tokens_per_seq_max: 10, size_bytes_max };
            let spec = cache.pool(&states, &limits).unwrap();
            assert_eq!((spec.num_blocks, spec.block_size), (num_blocks, 10), "{dtype}");
            assert_eq!(spec.semantic_id.0, format!("kv {dtype}/1"));
        }
    }
}
