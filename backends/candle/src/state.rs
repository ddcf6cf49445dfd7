//! Parts of states in the host's arena, as tensors.

use candle_core::{DType, Device, Tensor};
use plugin_api::kinds::backend::StatePlace;
use plugin_api::kinds::kv_cache::Storage;
use plugin_api::{Error, Result};

use crate::fault::Outcome;

/// One part of a state: rows of floats, `block_size` of them in a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatePart {
    dtype: DType,
    /// First byte in the arena.
    offset: usize,
    /// Elements of a row.
    width: usize,
}

impl StatePart {
    /// Part `part` of the state at `place`, whose bounds have been checked.
    pub(crate) fn new(place: &StatePlace, part: usize, width: usize) -> Result<Self> {
        let dtype = match place.storage {
            Storage::Plain(plugin_api::DType::F64) => DType::F64,
            Storage::Plain(plugin_api::DType::F32) => DType::F32,
            Storage::Plain(plugin_api::DType::F16) => DType::F16,
            Storage::Plain(plugin_api::DType::BF16) => DType::BF16,
            ref other => {
                return Err(Error::unsupported(format!("a state as {other:?}"), "only floats"));
            }
        };
        let offset = place.offsets.get(part).copied();
        let offset = offset.ok_or_else(|| Error::shape("state", "keys and values", "fewer"))?;
        Ok(Self { dtype, offset, width })
    }

    /// Writes row `i` of `rows` to slot `slots[i]`.
    pub(crate) fn write(self, arena: &mut [u8], slots: &[usize], rows: &Tensor) -> Outcome<()> {
        let mut bytes = Vec::with_capacity(slots.len() * self.row_bytes());
        rows.to_dtype(self.dtype)?.write_bytes(&mut bytes)?;
        for (row, &slot) in bytes.chunks_exact(self.row_bytes()).zip(slots) {
            self.row_mut(arena, slot).copy_from_slice(row);
        }
        Ok(())
    }

    /// Reads slots as rows of `dtype`: `[slots, width]`.
    pub(crate) fn read(self, arena: &mut [u8], slots: &[usize], dtype: DType) -> Outcome<Tensor> {
        let mut bytes = Vec::with_capacity(slots.len() * self.row_bytes());
        for &slot in slots {
            bytes.extend_from_slice(self.row_mut(arena, slot));
        }
        let shape = [slots.len(), self.width];
        let rows = Tensor::from_raw_buffer(&bytes, self.dtype, &shape, &Device::Cpu)?;
        Ok(rows.to_dtype(dtype)?)
    }

    fn row_mut(self, arena: &mut [u8], slot: usize) -> &mut [u8] {
        &mut arena[self.offset + slot * self.row_bytes()..][..self.row_bytes()]
    }

    fn row_bytes(self) -> usize {
        self.width * self.dtype.size_in_bytes()
    }
}
