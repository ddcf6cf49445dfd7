//! Causal attention over the paged state.
//!
//! Each token is computed by itself, over its own context at once: nothing depends on batch
//! mates, blocks or chunks. Source: Kwon et al., "PagedAttention", arXiv:2309.06180, section 4.1.

use std::collections::BTreeMap;

use candle_core::Tensor;
use plugin_api::kinds::backend::StatePlace;
use plugin_api::plan::{Attrs, Per, Spec, StateSpec};
use plugin_api::{Error, Result};

use crate::fault::Outcome;
use crate::op::softmax;
use crate::state::StatePart;

/// An `attend` with its state.
#[derive(Debug)]
pub(crate) struct Attend {
    scale: f64,
    /// 0 for none.
    softcap: f64,
    /// Positions that a token sees, itself included; 0 for all.
    window: usize,
    kv_heads: usize,
    keys: StatePart,
    values: StatePart,
    num_blocks: usize,
    block_size: usize,
}

impl Attend {
    /// Of arguments with these specs.
    pub(crate) fn new(
        attrs: &Attrs,
        specs: &[&Spec],
        state: &StateSpec,
        place: &StatePlace,
        block_size: usize,
    ) -> Result<Self> {
        let Per::Token { window } = state.per else {
            return Err(Error::unsupported("attend", "a state that is not per token"));
        };
        let fixed = |i: usize| specs[1].dims.get(i)?.fixed().and_then(|n| usize::try_from(n).ok());
        let (Some(kv_heads @ 1..), Some(head_dim @ 1..)) = (fixed(1), fixed(2)) else {
            return Err(Error::shape("attend", "keys [tokens, kv_heads, head_dim]", specs[1]));
        };
        let width = kv_heads.saturating_mul(head_dim);
        let widths = state.parts.iter().map(|part| part.num_elements());
        if block_size == 0 || !widths.eq([width as u64; 2]) {
            let expected = format!("keys and values of {width} elements in blocks of some tokens");
            return Err(Error::shape(&state.name, expected, "others"));
        }
        Ok(Self {
            scale: attrs.get_float("scale")?,
            softcap: attrs.get_float("softcap")?,
            window: window as usize,
            kv_heads,
            keys: StatePart::new(place, 0, width)?,
            values: StatePart::new(place, 1, width)?,
            num_blocks: place.num_blocks,
            block_size,
        })
    }

    /// Stores `k` and `v`, then attends. Every index is checked before anything is stored.
    ///
    /// `args` are q `[tokens, heads, head_dim]`, k and v `[tokens, kv_heads, head_dim]`,
    /// positions and sequence_index `[tokens]`, block_table `[seqs, blocks]`.
    pub(crate) fn run(&self, args: &[&Tensor], arena: &mut [u8]) -> Outcome<Tensor> {
        let [q, k, v, positions, sequence_index, block_table] = *args else {
            return Err(Error::shape("attend", "six tensors", args.len()).into());
        };
        if q.elem_count() == 0 {
            return Ok(q.clone());
        }
        let positions = positions.to_vec1()?;
        let sequence_index = sequence_index.to_vec1()?;
        let table = Table { rows: block_table.to_vec2()?, attend: self };
        for (&position, &sequence) in positions.iter().zip(&sequence_index) {
            table.check(sequence, position)?;
        }
        let tokens = positions.iter().zip(&sequence_index);
        let slots: Vec<usize> = tokens.map(|(&p, &s)| table.slot(s, p as usize)).collect();
        self.keys.write(arena, &slots, k)?;
        self.values.write(arena, &slots, v)?;

        let mut sequences: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (token, &sequence) in sequence_index.iter().enumerate() {
            sequences.entry(sequence).or_default().push(token);
        }
        let mut results: Vec<Option<Tensor>> = vec![None; positions.len()];
        for (sequence, tokens) in sequences {
            let context = self.context(&table, sequence, &tokens, &positions, q, arena)?;
            for token in tokens {
                let q = q.narrow(0, token, 1)?;
                results[token] = Some(self.attend(&q, &context, positions[token] as usize)?);
            }
        }
        Ok(Tensor::cat(&results.into_iter().flatten().collect::<Vec<_>>(), 0)?)
    }

    /// What any of `tokens` sees of their sequence. Positions in between that none of them sees
    /// may be without a block; they are not read.
    fn context(
        &self,
        table: &Table<'_>,
        sequence: u32,
        tokens: &[usize],
        positions: &[u32],
        q: &Tensor,
        arena: &mut [u8],
    ) -> Outcome<Context> {
        let mut seen: Vec<usize> = Vec::new();
        let mut ends: Vec<usize> = tokens.iter().map(|&t| positions[t] as usize + 1).collect();
        ends.sort_unstable();
        for end in ends {
            let next = seen.last().map_or(0, |&last| last + 1);
            seen.extend(self.first(end).max(next)..end);
        }
        let slots: Vec<usize> = seen.iter().map(|&p| table.slot(sequence, p)).collect();
        let mut heads = |part: StatePart| -> Outcome<Tensor> {
            let shape = (slots.len(), self.kv_heads, ());
            let rows = part.read(arena, &slots, q.dtype())?.reshape(shape)?;
            Ok(rows.transpose(0, 1)?.contiguous()?)
        };
        Ok(Context { keys: heads(self.keys)?, values: heads(self.values)?, seen })
    }

    /// One token: `q [1, heads, head_dim]`.
    fn attend(&self, q: &Tensor, context: &Context, position: usize) -> Outcome<Tensor> {
        let (_, heads, head_dim) = q.dims3()?;
        let (first, end) = (self.first(position + 1), position + 1);
        let start = context.seen.partition_point(|&seen| seen < first);
        let keys = context.keys.narrow(1, start, end - first)?;
        let values = context.values.narrow(1, start, end - first)?;
        // Heads that share keys and values follow each other.
        let q = q.reshape((self.kv_heads, heads / self.kv_heads, head_dim))?;
        let mut scores = (q.matmul(&keys.transpose(1, 2)?)? * self.scale)?;
        if self.softcap != 0.0 {
            scores = ((scores / self.softcap)?.tanh()? * self.softcap)?;
        }
        Ok(softmax(&scores)?.matmul(&values)?.reshape((1, heads, head_dim))?)
    }

    /// The first position that is seen from the last before `end`.
    fn first(&self, end: usize) -> usize {
        if self.window == 0 { 0 } else { end.saturating_sub(self.window) }
    }
}

/// Keys and values of one sequence.
struct Context {
    /// `[kv_heads, seen, head_dim]`
    keys: Tensor,
    /// `[kv_heads, seen, head_dim]`
    values: Tensor,
    /// Positions, rising.
    seen: Vec<usize>,
}

/// Which blocks hold a sequence, in order.
struct Table<'a> {
    rows: Vec<Vec<u32>>,
    attend: &'a Attend,
}

impl Table<'_> {
    /// That everything a token sees lies in a block that exists.
    fn check(&self, sequence: u32, position: u32) -> Result<()> {
        let Attend { block_size, num_blocks, .. } = *self.attend;
        let Some(row) = self.rows.get(sequence as usize) else {
            let expected = format!("below {}", self.rows.len());
            return Err(Error::shape("sequence index", expected, sequence));
        };
        let end = position as usize + 1;
        let blocks = self.attend.first(end) / block_size..end.div_ceil(block_size);
        let Some(blocks) = row.get(blocks) else {
            let expected = format!("below {}", row.len() * block_size);
            return Err(Error::shape("position", expected, position));
        };
        match blocks.iter().find(|&&block| block as usize >= num_blocks) {
            Some(block) => {
                Err(Error::shape("block of the table", format!("below {num_blocks}"), block))
            }
            None => Ok(()),
        }
    }

    /// The slot of a position that has been checked.
    fn slot(&self, sequence: u32, position: usize) -> usize {
        let block_size = self.attend.block_size;
        let block = self.rows[sequence as usize][position / block_size] as usize;
        block * block_size + position % block_size
    }
}
