//! Block tables as bytes, in one schema for all caches that keep some: what one saves, another of
//! the same shape restores, and one of more blocks, or of fewer if no sequence has those beyond.
//!
//! Little-endian `u32`s: schema, shape, free blocks with their number first, then each sequence:
//! id, committed and reserved tokens, blocks with their number first.

use super::SeqId;
use crate::error::{Error, Result};

/// The sizes that a table belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableShape {
    /// Tokens in a block.
    pub block_size: usize,
    /// Blocks in the pool.
    pub num_blocks: usize,
    /// Tokens in one sequence.
    pub tokens_per_seq_max: usize,
    /// Sequences at a time.
    pub num_seqs_max: usize,
}

/// One sequence of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeqTable<T> {
    /// The sequence.
    pub seq: SeqId,
    /// Committed tokens.
    pub len: usize,
    /// Tokens reserved after them.
    pub reserved: usize,
    /// Its blocks: as many as `len + reserved` tokens fill.
    pub blocks: T,
}

/// Appends a cache's tables. `free` holds the blocks that nobody owns, in the cache's own order.
pub fn save_tables<'a>(
    out: &mut Vec<u8>,
    shape: &TableShape,
    free: &[u32],
    seqs: impl ExactSizeIterator<Item = SeqTable<&'a [u32]>>,
) {
    let mut put =
        |words: &[u32]| words.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    put(&[SCHEMA]);
    put(&words_of(shape));
    put(&[free.len() as u32]);
    put(free);
    put(&[seqs.len() as u32]);
    for SeqTable { seq, len, reserved, blocks } in seqs {
        put(&[seq.0, len as u32, reserved as u32, blocks.len() as u32]);
        put(blocks);
    }
}

/// A cache's tables, read back and checked: every block is free or in a table, and none is both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedTables {
    /// Blocks that nobody owns, in the order of who saved them.
    pub free: Vec<u32>,
    /// How many sequences own each block.
    pub num_owners: Vec<u32>,
    /// Every known sequence, in no particular order.
    pub seqs: Vec<SeqTable<Vec<u32>>>,
}

impl SavedTables {
    /// Reads what [`save_tables`] wrote for this shape, or for another number of blocks: those that
    /// are new are free.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for another schema, another shape, tables that contradict themselves,
    /// and sequences that have blocks beyond the last one.
    pub fn parse(bytes: &[u8], shape: &TableShape) -> Result<Self> {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut words = Words(words);
        let schema = words.next()?;
        if schema != SCHEMA {
            return Err(Error::malformed(WHAT, format!("schema {SCHEMA}"), schema));
        }
        let found = words.take(4)?.collect::<Vec<u32>>();
        let (saved_blocks, num_blocks) = (found[1], shape.num_blocks as u32);
        let saved_shape = TableShape { num_blocks: saved_blocks as usize, ..*shape };
        if found != words_of(&saved_shape) {
            let expected = format!("the shape {:?}", words_of(shape));
            return Err(Error::malformed(WHAT, expected, format!("{found:?}")));
        }
        let mut free: Vec<u32> = words.counted()?.collect();
        if let Some(&block) = free.iter().find(|&&block| block >= saved_blocks) {
            return Err(no_block(block));
        }
        free.retain(|&block| block < num_blocks);
        free.extend(saved_blocks..num_blocks);
        let num_seqs = words.next()? as usize;
        let mut seqs = Vec::with_capacity(num_seqs.min(shape.num_seqs_max));
        for _ in 0..num_seqs {
            let (seq, len) = (SeqId(words.next()?), words.next()? as usize);
            let reserved = words.next()? as usize;
            seqs.push(SeqTable { seq, len, reserved, blocks: words.counted()?.collect() });
        }
        if !words.0.is_empty() || !rest.is_empty() {
            let found = format!("{} more bytes", words.0.len() * 4 + rest.len());
            return Err(Error::malformed(WHAT, "its end", found));
        }
        let num_owners = Self::count_owners(&free, &seqs, shape)?;
        Ok(Self { free, num_owners, seqs })
    }

    fn count_owners(
        free: &[u32],
        seqs: &[SeqTable<Vec<u32>>],
        shape: &TableShape,
    ) -> Result<Vec<u32>> {
        let mut ids: Vec<SeqId> = seqs.iter().map(|s| s.seq).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != seqs.len() || ids.len() > shape.num_seqs_max {
            let expected = format!("at most {} distinct sequences", shape.num_seqs_max);
            return Err(Error::malformed(WHAT, expected, seqs.len()));
        }
        let mut num_owners = vec![0_u32; shape.num_blocks];
        for s in seqs {
            let held = s.len + s.reserved;
            let expected = held.div_ceil(shape.block_size.max(1));
            if held > shape.tokens_per_seq_max || s.blocks.len() != expected {
                let found = format!("{held} tokens in {}", s.blocks.len());
                return Err(Error::malformed(WHAT, format!("{expected} blocks"), found));
            }
            for &block in &s.blocks {
                *num_owners.get_mut(block as usize).ok_or_else(|| no_block(block))? += 1;
            }
        }
        let mut is_free = vec![false; shape.num_blocks];
        for &block in free {
            let place = is_free.get_mut(block as usize).ok_or_else(|| no_block(block))?;
            if std::mem::replace(place, true) {
                return Err(Error::malformed(WHAT, "each free block once", block));
            }
        }
        match (0..shape.num_blocks).find(|&i| is_free[i] == (num_owners[i] > 0)) {
            Some(block) => Err(Error::malformed(WHAT, "blocks free or owned", block)),
            None => Ok(num_owners),
        }
    }
}

/// Words that have not been read.
struct Words<'a>(&'a [[u8; 4]]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<u32> {
        let (first, rest) = self.0.split_first().ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*first))
    }

    fn take(&mut self, count: usize) -> Result<impl Iterator<Item = u32> + 'a> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(taken.iter().map(|word| u32::from_le_bytes(*word)))
    }

    /// As many words as the next one says.
    fn counted(&mut self) -> Result<impl Iterator<Item = u32> + 'a> {
        let count = self.next()? as usize;
        self.take(count)
    }
}

fn words_of(shape: &TableShape) -> [u32; 4] {
    let TableShape { block_size, num_blocks, tokens_per_seq_max, num_seqs_max } = *shape;
    [block_size, num_blocks, tokens_per_seq_max, num_seqs_max].map(|n| n as u32)
}

fn cut_off() -> Error {
    Error::malformed(WHAT, "more bytes", "their end")
}

fn no_block(block: u32) -> Error {
    Error::malformed(WHAT, "a block of the pool", block)
}

const WHAT: &str = "state of a kv cache";
const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: TableShape =
        TableShape { block_size: 4, num_blocks: 4, tokens_per_seq_max: 8, num_seqs_max: 2 };

    fn saved(free: &[u32], seqs: &[(u32, usize, usize, &[u32])]) -> Result<SavedTables> {
        let table =
            |&(seq, len, reserved, blocks)| SeqTable { seq: SeqId(seq), len, reserved, blocks };
        let mut bytes = Vec::new();
        save_tables(&mut bytes, &SHAPE, free, seqs.iter().map(table));
        SavedTables::parse(&bytes, &SHAPE)
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let good = saved(&[3, 2], &[(7, 4, 1, &[0, 1]), (9, 4, 0, &[0])]).unwrap();
        assert_eq!((good.num_owners, good.free), (vec![2, 1, 0, 0], vec![3, 2]));
        type Seq = (u32, usize, usize, &'static [u32]);
        #[rustfmt::skip]
        let cases: [(&str, &[u32], &[Seq]); 9] = [
            ("free twice",         &[3, 3, 2], &[(7, 8, 0, &[0, 1])]),
            ("free and owned",     &[3, 2, 1], &[(7, 8, 0, &[0, 1])]),
            ("lost",               &[3],       &[(7, 8, 0, &[0, 1])]),
            ("outside, free",      &[3, 2, 4], &[(7, 8, 0, &[0, 1])]),
            ("outside, owned",     &[3, 2, 1], &[(7, 8, 0, &[0, 4])]),
            ("too few blocks",     &[3, 2, 1], &[(7, 8, 0, &[0])]),
            ("too many tokens",    &[3],       &[(7, 8, 1, &[0, 1, 2])]),
            ("a sequence twice",   &[3, 2],    &[(7, 4, 0, &[0]), (7, 4, 0, &[1])]),
            ("too many sequences", &[0, 1, 2, 3], &[(7, 0, 0, &[]), (8, 0, 0, &[]), (9, 0, 0, &[])]),
        ];
        for (name, free, seqs) in cases {
            let found = saved(free, seqs);
            assert!(matches!(found, Err(Error::Malformed { .. })), "{name}: {found:?}");
        }
    }

    #[test]
    fn pools_may_grow_and_shrink() {
        let mut bytes = Vec::new();
        let blocks: &[u32] = &[2, 0];
        let table = SeqTable { seq: SeqId(7), len: 5, reserved: 0, blocks };
        save_tables(&mut bytes, &SHAPE, &[3, 1], [table].into_iter());
        let parse = |num_blocks| SavedTables::parse(&bytes, &TableShape { num_blocks, ..SHAPE });
        let grown = parse(6).unwrap();
        assert_eq!((grown.free, grown.num_owners), (vec![3, 1, 4, 5], vec![1, 0, 1, 0, 0, 0]));
        let shrunk = parse(3).unwrap();
        assert_eq!((shrunk.free, shrunk.num_owners), (vec![1], vec![1, 0, 1]));
        assert!(matches!(parse(2), Err(Error::Malformed { .. })), "block 2 is owned");
    }
}
