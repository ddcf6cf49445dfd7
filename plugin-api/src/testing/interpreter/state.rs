//! Keys and values between runs: an arena of bytes laid out as the host lays it out.

use half::{bf16, f16};
use kernels_reference::Stored;

use crate::error::{Error, Result};
use crate::kinds::backend::StatePlace;
use crate::kinds::kv_cache::Storage;
use crate::plan::{Part, Plan, StateSpec};
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
    /// Zeroed memory for the states of `plan`, stored as they are.
    pub fn new(plan: &Plan, num_blocks: usize, block_size: usize, dtype: DType) -> Self {
        Self::stored(plan, num_blocks, block_size, &Storage::Plain(dtype))
    }

    /// Zeroed memory for the states of `plan`, each part at a multiple of 64 bytes. States per
    /// sequence take `num_blocks` entries, too.
    pub fn stored(plan: &Plan, num_blocks: usize, block_size: usize, storage: &Storage) -> Self {
        let (mut places, mut end) = (Vec::new(), 0_usize);
        for port in &plan.states {
            let rows = port.spec.per.rows_of_block(block_size);
            let storage = match storage {
                Storage::Affine(_) => storage.clone().for_state(&port.spec),
                Storage::Plain(_) => storage.clone(),
            };
            let mut offsets = Vec::new();
            for part in &port.spec.parts {
                offsets.push(end);
                let len = num_blocks * storage.block_bytes(part, rows);
                end = (end + len).next_multiple_of(64);
            }
            places.push(StatePlace { storage, offsets, num_blocks });
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
    /// Checks that part `index` of state `state`, which is `spec` with rows of `width` elements, lies
    /// in the arena.
    pub(super) fn check(
        &self,
        state: usize,
        index: usize,
        width: usize,
        spec: &StateSpec,
    ) -> Result<PartAt> {
        let outside = |found: &str| Error::shape("state", "parts inside of the arena", found);
        let place = self.places.get(state).ok_or_else(|| outside("no place"))?;
        let offset = *place.offsets.get(index).ok_or_else(|| outside("no part"))?;
        if let Storage::Plain(dtype) = place.storage
            && !dtype.is_float()
        {
            return Err(Error::shape("state", "floats", dtype));
        }
        let part = spec.parts.get(index).filter(|part| part.num_elements() == width as u64);
        let part = part.ok_or_else(|| outside("a part of other elements"))?.clone();
        let rows = spec.per.rows_of_block(self.block_size);
        let block_bytes = place.storage.block_bytes(&part, rows);
        let len = place.num_blocks.checked_mul(block_bytes);
        let end = len.and_then(|len| len.checked_add(offset));
        if end.is_none_or(|end| end > self.bytes.len()) {
            return Err(outside("a part beyond its end"));
        }
        let (num_blocks, storage) = (place.num_blocks, place.storage.clone());
        Ok(PartAt { storage, offset, num_blocks, index, part, rows, block_bytes })
    }

    pub(super) fn write<T: Stored>(&mut self, at: &PartAt, slot: usize, row: &[T]) {
        let (block, inside) = (slot / at.rows, slot % at.rows);
        let bytes = &mut self.bytes[at.offset + block * at.block_bytes..][..at.block_bytes];
        let Storage::Plain(dtype) = at.storage else {
            let row: Vec<f32> = row.iter().map(|x| x.to_f64() as f32).collect();
            return at.storage.write(at.index, &at.part, bytes, inside, &row);
        };
        // Not through `f32`: the oracle keeps what it computes in twice the width.
        let size = dtype.size_bytes();
        let bytes = &mut bytes[inside * row.len() * size..][..row.len() * size];
        for (bytes, x) in bytes.chunks_exact_mut(size).zip(row) {
            let x = x.to_f64();
            match dtype {
                DType::F64 => bytes.copy_from_slice(&x.to_ne_bytes()),
                DType::F16 => bytes.copy_from_slice(&f16::from_f64(x).to_ne_bytes()),
                DType::BF16 => bytes.copy_from_slice(&bf16::from_f64(x).to_ne_bytes()),
                _ => bytes.copy_from_slice(&(x as f32).to_ne_bytes()),
            }
        }
    }

    pub(super) fn read<T: Stored>(&self, at: &PartAt, slot: usize, row: &mut Vec<T>) {
        let (block, inside) = (slot / at.rows, slot % at.rows);
        let bytes = &self.bytes[at.offset + block * at.block_bytes..][..at.block_bytes];
        let width = at.part.num_elements() as usize;
        let Storage::Plain(dtype) = at.storage else {
            let mut numbers = vec![0.0; width];
            at.storage.read(at.index, &at.part, bytes, inside, &mut numbers);
            return row.extend(numbers.iter().map(|&x| T::from_f64(f64::from(x))));
        };
        let size = dtype.size_bytes();
        let bytes = &bytes[inside * width * size..][..width * size];
        row.extend(bytes.chunks_exact(size).map(|bytes| {
            T::from_f64(match (dtype, bytes) {
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
#[derive(Debug, Clone)]
pub(super) struct PartAt {
    storage: Storage,
    offset: usize,
    pub(super) num_blocks: usize,
    /// Which part of the state it is.
    index: usize,
    part: Part,
    /// Rows of a block.
    rows: usize,
    block_bytes: usize,
}
