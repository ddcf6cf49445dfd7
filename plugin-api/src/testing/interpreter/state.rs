//! Keys and values between runs: an arena of bytes laid out as the host lays it out.

use half::{bf16, f16};
use kernels_reference::Stored;

use crate::error::{Error, Result};
use crate::kinds::backend::StatePlace;
use crate::plan::{Per, Plan};
use crate::tensor::DType;

/// The state arena of a run: each part of a state is `[num_blocks, block_size, part dims]`.
#[derive(Debug)]
pub struct StateArena<'a> {
    /// All states.
    pub bytes: &'a mut [u8],
    /// Where each state of the plan lies, in order.
    pub places: &'a [StatePlace],
    /// Tokens of a block.
    pub block_size: usize,
}

/// A state arena with its memory, for tests.
#[derive(Debug, Clone)]
pub struct OwnedArena {
    /// All states, one after the other.
    pub bytes: Vec<u8>,
    /// Where each state lies.
    pub places: Vec<StatePlace>,
    /// Tokens of a block.
    pub block_size: usize,
}

impl OwnedArena {
    /// Zeroed memory for the states of `plan`, each part at a multiple of 64 bytes. States per
    /// sequence take `num_blocks` entries, too.
    pub fn new(plan: &Plan, num_blocks: usize, block_size: usize, dtype: DType) -> Self {
        let (mut places, mut end) = (Vec::new(), 0_usize);
        for port in &plan.states {
            let copies = match port.spec.per {
                Per::Token { .. } => num_blocks * block_size,
                Per::Sequence => num_blocks,
            };
            let mut offsets = Vec::new();
            for part in &port.spec.parts {
                offsets.push(end);
                let len = copies * part.num_elements() as usize * dtype.size_bytes();
                end = (end + len).next_multiple_of(64);
            }
            places.push(StatePlace { dtype, offsets, num_blocks });
        }
        Self { bytes: vec![0; end], places, block_size }
    }

    /// The arena, borrowed for a run.
    pub fn arena(&mut self) -> StateArena<'_> {
        let Self { bytes, places, block_size } = self;
        StateArena { bytes, places, block_size: *block_size }
    }
}

impl StateArena<'_> {
    /// Checks that part `part` of state `state` with rows of `width` elements lies in the arena.
    pub(super) fn check(&self, state: usize, part: usize, width: usize) -> Result<PartAt> {
        self.check_of(state, part, width, self.block_size)
    }

    /// The same with so many rows in a block.
    pub(super) fn check_of(
        &self,
        state: usize,
        part: usize,
        width: usize,
        per_block: usize,
    ) -> Result<PartAt> {
        let outside = |found: &str| Error::shape("state", "parts inside of the arena", found);
        let place = self.places.get(state).ok_or_else(|| outside("no place"))?;
        let offset = *place.offsets.get(part).ok_or_else(|| outside("no part"))?;
        if !place.dtype.is_float() {
            return Err(Error::shape("state", "floats", place.dtype));
        }
        let slots = place.num_blocks.checked_mul(per_block);
        let row_bytes = width.checked_mul(place.dtype.size_bytes());
        let len = slots.zip(row_bytes).and_then(|(slots, row)| slots.checked_mul(row));
        let end = len.and_then(|len| len.checked_add(offset));
        if end.is_none_or(|end| end > self.bytes.len()) {
            return Err(outside("a part beyond its end"));
        }
        let num_blocks = place.num_blocks;
        Ok(PartAt { dtype: place.dtype, offset, num_blocks, width })
    }

    pub(super) fn write<T: Stored>(&mut self, at: PartAt, slot: usize, row: &[T]) {
        let bytes = &mut self.bytes[at.offset + slot * at.row_bytes()..][..at.row_bytes()];
        for (bytes, x) in bytes.chunks_exact_mut(at.dtype.size_bytes()).zip(row) {
            let x = x.to_f64();
            match at.dtype {
                DType::F64 => bytes.copy_from_slice(&x.to_ne_bytes()),
                DType::F16 => bytes.copy_from_slice(&f16::from_f64(x).to_ne_bytes()),
                DType::BF16 => bytes.copy_from_slice(&bf16::from_f64(x).to_ne_bytes()),
                _ => bytes.copy_from_slice(&(x as f32).to_ne_bytes()),
            }
        }
    }

    pub(super) fn read<T: Stored>(&self, at: PartAt, slot: usize, row: &mut Vec<T>) {
        let bytes = &self.bytes[at.offset + slot * at.row_bytes()..][..at.row_bytes()];
        row.extend(bytes.chunks_exact(at.dtype.size_bytes()).map(|bytes| {
            T::from_f64(match (at.dtype, bytes) {
                (DType::F64, &[a, b, c, d, e, f, g, h]) => {
                    f64::from_ne_bytes([a, b, c, d, e, f, g, h])
                }
                (DType::F16, &[a, b]) => f16::from_ne_bytes([a, b]).to_f64(),
                (DType::BF16, &[a, b]) => bf16::from_ne_bytes([a, b]).to_f64(),
                (_, &[a, b, c, d]) => f64::from(f32::from_ne_bytes([a, b, c, d])),
                _ => f64::NAN,
            })
        }));
    }
}

/// A checked part of a state.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartAt {
    dtype: DType,
    offset: usize,
    pub(super) num_blocks: usize,
    width: usize,
}

impl PartAt {
    fn row_bytes(self) -> usize {
        self.width * self.dtype.size_bytes()
    }
}
