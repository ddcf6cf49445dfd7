//! Memory that the host owns: packed weights, the state arena, scratch.

use bytemuck::{Pod, Zeroable};
use plugin_api::kinds::backend::{DomainId, Memory, StatePlace};
use plugin_api::kinds::kv_cache::PoolSpec;
use plugin_api::plan::{Per, StateSpec};

/// Bytes on a cache line boundary, zero at first.
#[derive(Debug, Default, Clone)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

/// One cache line: what makes the vector of them aligned.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

const LINE_BYTES: usize = 64;

impl AlignedBytes {
    /// `len` zero bytes; pages are taken from the system when they are first written.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: bytemuck::allocation::zeroed_vec(len.div_ceil(LINE_BYTES)), len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Memory for AlignedBytes {
    fn domain(&self) -> DomainId {
        DomainId::HOST
    }

    fn host_bytes(&self) -> Option<&[u8]> {
        Some(self.as_slice())
    }
}

/// Where each state lies in one arena, and the arena's size in bytes.
pub fn lay_out(states: &[StateSpec], pool: &PoolSpec, num_seqs: usize) -> (Vec<StatePlace>, usize) {
    let mut end = 0_usize;
    let mut places = Vec::with_capacity(states.len());
    for spec in states {
        let (num_blocks, copies) = match spec.per {
            Per::Token { .. } => (pool.num_blocks, pool.num_blocks * pool.block_size),
            Per::Sequence => (num_seqs, num_seqs),
        };
        let mut offsets = Vec::with_capacity(spec.parts.len());
        for part in &spec.parts {
            offsets.push(end);
            let bytes = copies * part.num_elements() as usize * pool.dtype.size_bytes();
            end = (end + bytes).next_multiple_of(LINE_BYTES);
        }
        places.push(StatePlace { dtype: pool.dtype, offsets, num_blocks });
    }
    (places, end)
}
