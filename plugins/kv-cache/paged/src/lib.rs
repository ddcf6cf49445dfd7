//! Paged cache: blocks of a few tokens, shared between forked sequences, copied before a write.
//!
//! Source: Kwon et al., "Efficient Memory Management … with PagedAttention", arXiv:2309.06180.

use std::collections::HashMap;

use plugin_api::prelude::*;

/// A pool of blocks with a count of owners each, and a table of blocks for each sequence.
#[derive(Debug)]
pub struct Paged {
    dtype: DType,
    block_size: usize,
    tokens_max: usize,
    /// Blocks that nobody owns, the next one last.
    free: Vec<u32>,
    /// How many sequences own each block.
    num_owners: Vec<u32>,
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
        let (free, num_owners, index_of) = (Vec::new(), Vec::new(), HashMap::new());
        let (seqs, free_seqs) = (Vec::new(), Vec::new());
        Ok(Self { dtype, block_size, tokens_max: 0, free, num_owners, index_of, seqs, free_seqs })
    }
}

impl KvCache for Paged {
    fn pool(&mut self, states: &[StateSpec], limits: &PoolLimits) -> Result<PoolSpec> {
        let block_bytes = bytes_per_token(states, self.dtype)?.max(1) * self.block_size as u64;
        let blocks_per_seq_max = limits.tokens_per_seq_max.div_ceil(self.block_size);
        let fitting = usize::try_from(limits.size_bytes_max / block_bytes).unwrap_or(usize::MAX);
        let num_blocks = fitting.min(limits.num_seqs_max * blocks_per_seq_max);
        if num_blocks == 0 {
            let free = limits.size_bytes_max as usize;
            return Err(no_space("kv cache, in bytes", block_bytes as usize, free));
        }
        self.tokens_max = limits.tokens_per_seq_max;
        self.free = (0..num_blocks as u32).rev().collect();
        self.num_owners = vec![0; num_blocks];
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
        // The block that the first of the tokens goes to, if it is begun and somebody shares it.
        let shared = table.get(held / self.block_size).copied();
        let shared = shared.filter(|&block| tokens > 0 && self.num_owners[block as usize] > 1);
        let needed = num_more + usize::from(shared.is_some());
        if needed > self.free.len() {
            return Err(no_space("kv cache, in blocks", needed, self.free.len()));
        }
        if known.is_none() {
            self.free_seqs.pop();
            self.index_of.insert(seq, index);
        }
        if let Some(from) = shared {
            let to = self.take_block();
            self.num_owners[from as usize] -= 1;
            self.seqs[index].table[held / self.block_size] = to;
            moves.push(BlockCopy { from, to });
        }
        for _ in 0..num_more {
            let block = self.take_block();
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
        if is_partial && self.free.is_empty() {
            return Err(no_space("kv cache, in blocks", 1, 0));
        }
        self.free_seqs.pop();
        self.index_of.insert(child, index);
        for i in 0..num_full {
            let block = self.seqs[from].table[i];
            self.num_owners[block as usize] += 1;
            self.seqs[index].table.push(block);
        }
        if is_partial {
            let (from, to) = (self.seqs[from].table[num_full], self.take_block());
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
        let total = self.num_owners.len();
        PoolUsage { used: total - self.free.len(), total }
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        Some(self)
    }
}

impl Handover for Paged {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        let seqs = self.index_of.iter().map(|(&seq, &index)| {
            let Sequence { table, len, reserved } = &self.seqs[index];
            SeqTable { seq, len: *len, reserved: *reserved, blocks: &table[..] }
        });
        save_tables(out, &self.shape(), &self.free, seqs);
        Ok(())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let SavedTables { free, num_owners, seqs } = SavedTables::parse(bytes, &self.shape())?;
        (self.free, self.num_owners) = (free, num_owners);
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
            num_blocks: self.num_owners.len(),
            tokens_per_seq_max: self.tokens_max,
            num_seqs_max: self.seqs.len(),
        }
    }

    /// Where one more sequence may lie; it is taken by popping it.
    fn next_index(&self) -> Result<usize> {
        self.free_seqs.last().copied().ok_or(no_space("sequences of the kv cache", 1, 0))
    }

    /// A block that had no owner and now has one. The caller has checked that there is one.
    fn take_block(&mut self) -> u32 {
        let block = self.free.pop().unwrap_or_default();
        self.num_owners[block as usize] += 1;
        block
    }

    /// Leaves a sequence with `len` committed tokens and nothing reserved.
    fn cut(&mut self, index: usize, len: usize) {
        let Self { seqs, free, num_owners, block_size, .. } = self;
        for block in seqs[index].table.drain(len.div_ceil(*block_size)..) {
            num_owners[block as usize] -= 1;
            if num_owners[block as usize] == 0 {
                free.push(block);
            }
        }
        (seqs[index].len, seqs[index].reserved) = (len, 0);
    }
}

fn no_space(what: &'static str, needed: usize, free: usize) -> Error {
    Error::NoSpace { what: what.into(), needed: needed as u64, free: free as u64 }
}

export_plugin!(Paged);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::plan::{Part, Per};

    fn open(block_size: i32, num_blocks: u64) -> Paged {
        let config = Config::new().with("block_size", block_size).with("dtype", "f32");
        let mut cache = Paged::from_config(&config).unwrap();
        let part = Part { name: "key".to_owned(), dims: vec![1] };
        let per = Per::Token { window: 0 };
        let states = [StateSpec { name: "s".to_owned(), per, parts: vec![part] }];
        let size_bytes_max = num_blocks * 4 * block_size as u64;
        let limits = PoolLimits { num_seqs_max: 4, tokens_per_seq_max: 64, size_bytes_max };
        assert_eq!(cache.pool(&states, &limits).unwrap().num_blocks as u64, num_blocks);
        cache
    }

    #[test]
    fn passes_the_contract_suite() {
        for block_size in [1, 7, 16, 64] {
            let config = Config::new().with("block_size", block_size);
            plugin_api::testing::kv_cache::suite::<Paged>(&config);
        }
    }

    #[test]
    fn takes_as_many_blocks_as_tokens_fill() {
        #[rustfmt::skip]
        let cases = [
            // tokens kept  blocks of 16
            (0,       0,    0),
            (1,       1,    1),
            (16,      16,   1),
            (17,      17,   2),
            (40,      16,   1),
            (40,      0,    0),
        ];
        for (tokens, keep, num_blocks) in cases {
            let mut cache = open(16, 10);
            cache.reserve(SeqId(9), tokens, &mut Vec::new()).unwrap();
            assert_eq!(cache.usage().used, tokens.div_ceil(16), "{tokens} reserved");
            cache.commit(SeqId(9), keep, &mut Vec::new());
            assert_eq!(cache.usage().used, num_blocks, "{keep} of {tokens} kept");
        }
    }

    #[test]
    fn a_fork_shares_full_blocks_and_copies_the_last() {
        let (mut cache, mut moves) = (open(4, 8), Vec::new());
        assert_eq!(cache.reserve(SeqId(0), 6, &mut moves).unwrap(), [0, 1]);
        cache.commit(SeqId(0), 6, &mut moves);
        cache.fork(SeqId(0), SeqId(1), &mut moves).unwrap();
        assert_eq!(moves, [BlockCopy { from: 1, to: 2 }]);
        assert_eq!(cache.reserve(SeqId(1), 0, &mut moves).unwrap(), [0, 2]);
        assert_eq!(cache.usage().used, 3);
    }

    #[test]
    fn a_shared_block_is_copied_before_it_is_written() {
        let (mut cache, mut moves) = (open(4, 8), Vec::new());
        cache.reserve(SeqId(0), 4, &mut moves).unwrap();
        cache.commit(SeqId(0), 4, &mut moves);
        cache.fork(SeqId(0), SeqId(1), &mut moves).unwrap();
        cache.release(SeqId(1), 2);
        assert_eq!(cache.reserve(SeqId(1), 1, &mut moves).unwrap(), [1]);
        assert_eq!(moves, [BlockCopy { from: 0, to: 1 }]);
    }
}
