//! Attention over the state arena: stores, gathers what is read, attends. And attention without one.

use kernels_reference as kernels;

use super::op::Call;
use super::state::StateArena;
use super::value::{Arithmetic, Numbers, Value};
use crate::error::{Error, Result};
use crate::plan::ops;
use crate::plan::{Per, StatePort, StateSpec};

impl<T: Arithmetic> Call<'_, T> {
    /// Every index is checked before anything is stored.
    pub(super) fn attend(
        &self,
        states: &[StatePort],
        arena: &mut StateArena<'_>,
    ) -> Result<Vec<T>> {
        let (&[tokens, heads, head_dim], &[_, kv_heads, _]) = (self.shape(0)?, self.shape(1)?)
        else {
            return Err(Error::shape(self.op, "q and k of three axes", "others"));
        };
        let Value::State(index) = *self.value(3)? else {
            return Err(Error::shape(self.op, "a state", "another value"));
        };
        let (state, window) = match states.get(index).map(|port| &port.spec) {
            Some(state @ StateSpec { per: Per::Token { window }, .. }) => (state, *window as usize),
            _ => return Err(Error::unsupported(self.op, "a state that is not per token")),
        };
        let value_dim = self.attrs.get_count_or_zero("value_dim")?;
        let spec = kernels::AttendSpec {
            scale: self.float("scale")?,
            window,
            softcap: self.float("softcap")?,
            chunk: self.attrs.get_count_or_zero("chunk")?,
            value_dim,
        };
        let shape = kernels::AttendShape { heads, kv_heads, head_dim };
        let width = kv_heads * head_dim;
        // Values that are the first channels of the keys have no part of their own.
        let num_parts = if value_dim == 0 { 2 } else { 1 };
        let parts: Vec<_> = (0..num_parts)
            .map(|part| arena.check(index, part, width, state))
            .collect::<Result<_>>()?;
        let table = kernels::BlockTable {
            entries: self.value(6)?.indices()?,
            blocks_per_seq: self.shape(6)?[1],
            block_size: arena.block_size,
        };
        let refs = kernels::TokenRefs {
            positions: self.value(4)?.indices()?,
            sequence_index: self.value(5)?.indices()?,
        };
        let seen = Seen::new(refs, table, &spec, self.shape(6)?[0], parts[0].num_blocks)?;
        for (part, rows) in parts.iter().zip([self.reals(1)?, self.reals(2)?]) {
            for t in 0..tokens {
                let slot = table.slot(refs.sequence_index[t] as usize, refs.positions[t] as usize);
                arena.write(part, slot, &rows[t * width..][..width]);
            }
        }
        let mut pools: [Vec<T>; 2] = [Vec::new(), Vec::new()];
        for (pool, part) in pools.iter_mut().zip(&parts) {
            seen.slots.iter().for_each(|&slot| arena.read(part, slot, pool));
        }
        let [k, v] = &mut pools;
        if value_dim > 0 {
            v.clone_from(k);
        }
        let width = if value_dim == 0 { head_dim } else { value_dim };
        let mut out = vec![T::zero(); tokens * heads * width];
        let state = kernels::KvState { k, v };
        let (q, table) = (self.reals(0)?, seen.table());
        let sinks = if self.args.len() > SINKS { self.reals(SINKS)?.into_owned() } else { vec![] };
        kernels::attend(spec, shape, &q, &sinks, refs, table, &state, &mut out);
        Ok(out)
    }

    pub(super) fn attend_within(&self) -> Result<Vec<T>> {
        let (shape, reach) = self.within()?;
        let sequence_index = self.value(3)?.indices()?;
        let [q, k, v] = [self.reals(0)?, self.reals(1)?, self.reals(2)?];
        let mut weights = vec![T::zero(); 2 * sequence_index.len()];
        let mut out = vec![T::zero(); q.len()];
        let (scale, qkv) = (self.float("scale")?, [&*q, &*k, &*v]);
        kernels::attend_within(scale, reach, shape, qkv, sequence_index, &mut weights, &mut out);
        Ok(out)
    }

    pub(super) fn attend_within_grad(&self) -> Result<Vec<Numbers<T>>> {
        let (shape, reach) = self.within()?;
        let sequence_index = self.value(3)?.indices()?;
        let [q, k, v] = [self.reals(0)?, self.reals(1)?, self.reals(2)?];
        let (scale, out_grad) = (self.float("scale")?, self.reals(4)?);
        let mut memory = vec![T::zero(); 2 * sequence_index.len()];
        let mut grads = [&q, &k, &v].map(|x| vec![T::zero(); x.len()]);
        let [q_grad, k_grad, v_grad] = &mut grads;
        kernels::attend_within_grad(
            scale,
            reach,
            shape,
            [&q, &k, &v, &out_grad],
            sequence_index,
            &mut memory,
            [q_grad, k_grad, v_grad],
        );
        Ok(grads.map(Numbers::Reals).into())
    }

    fn within(&self) -> Result<(kernels::AttendShape, kernels::Reach)> {
        let (&[_, heads, head_dim], &[_, kv_heads, _]) = (self.shape(0)?, self.shape(1)?) else {
            return Err(Error::shape(self.op, "q and k of three axes", "others"));
        };
        let is_causal = ops::is_causal(self.attrs)?;
        let reach = if is_causal { kernels::Reach::Causal } else { kernels::Reach::Sequence };
        Ok((kernels::AttendShape { heads, kv_heads, head_dim }, reach))
    }
}

/// Which input of `attend` its sinks are.
const SINKS: usize = 7;

/// The slots that the tokens of one `attend` read, each once, in the order of their positions.
struct Seen {
    slots: Vec<usize>,
    /// `[seqs, positions]`: where in `slots` a position is.
    entries: Vec<u32>,
    positions: usize,
}

impl Seen {
    fn new<T>(
        tokens: kernels::TokenRefs<'_>,
        table: kernels::BlockTable<'_>,
        spec: &kernels::AttendSpec<T>,
        num_seqs: usize,
        num_blocks: usize,
    ) -> Result<Self> {
        let end = tokens.positions.iter().map(|&p| p as usize + 1).max().unwrap_or(0);
        let places = table.blocks_per_seq.saturating_mul(table.block_size);
        if end > places || table.block_size == 0 {
            return Err(Error::shape(ops::ATTEND, format!("positions below {places}"), end));
        }
        let mut seen =
            Self { slots: Vec::new(), entries: vec![u32::MAX; num_seqs * end], positions: end };
        for (&sequence, &position) in tokens.sequence_index.iter().zip(tokens.positions) {
            let (sequence, position) = (sequence as usize, position as usize);
            if sequence >= num_seqs {
                return Err(Error::shape(ops::ATTEND, format!("{num_seqs} sequences"), sequence));
            }
            for p in spec.first(position)..=position {
                let entry = &mut seen.entries[sequence * end + p];
                if *entry == u32::MAX {
                    let slot = table.slot(sequence, p);
                    if slot / table.block_size >= num_blocks {
                        let block = slot / table.block_size;
                        return Err(Error::shape(
                            ops::ATTEND,
                            format!("{num_blocks} blocks"),
                            block,
                        ));
                    }
                    *entry = seen.slots.len() as u32;
                    seen.slots.push(slot);
                }
            }
        }
        Ok(seen)
    }

    fn table(&self) -> kernels::BlockTable<'_> {
        kernels::BlockTable {
            entries: &self.entries,
            blocks_per_seq: self.positions,
            block_size: 1,
        }
    }
}
