//! A cache takes over whose pool holds other numbers, while sequences hold tokens.
//!
//! Boundary by boundary a budget of bytes is converted into the new memory, which steps do not read
//! yet; what they write meanwhile goes to the old one and is converted in its turn. At the boundary
//! that leaves nothing to convert, tables are handed over, and cache, memory and plans change
//! together. So no step ever sees tokens of two kinds.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use jackfield_runtime::SwapError;
use plugin_api::DType;
use plugin_api::kinds::kv_cache::{BlockCopy, SeqId, Storage};
use plugin_api::plan::StateSpec;

use super::batch::StepBatch;
use super::engine::Engine;
use crate::model::memory::StateLayout;
use crate::swap::{Change, Leftover, NewMemory};

/// A takeover that is under way.
pub(super) struct Conversion {
    pub(super) ticket: u64,
    /// Everything else that changes with it.
    change: Box<Change>,
    into: NewMemory,
    /// Tokens that steps have written since the last boundary.
    num_written: usize,
}

impl Conversion {
    pub(super) fn new(ticket: u64, change: Box<Change>, into: NewMemory) -> Box<Self> {
        Box::new(Self { ticket, change, into, num_written: 0 })
    }

    /// Nothing came of it: everything that was prepared.
    pub(super) fn into_leftover(self) -> Leftover {
        vec![self.change, Box::new(self.into)]
    }

    /// Notes which tokens a step writes: they are to be converted, again where they were.
    pub(super) fn written(&mut self, batch: &StepBatch, block_size: usize) {
        self.num_written += batch.num_tokens();
        for (block, offset) in batch.places(block_size) {
            self.keep(block, offset);
        }
    }

    /// Notes that blocks were overwritten.
    pub(super) fn moved(&mut self, moves: &[BlockCopy]) {
        moves.iter().for_each(|copy| self.keep(copy.to, 0));
    }

    fn keep(&mut self, block: u32, num_tokens: usize) {
        if let Some(converted) = self.into.num_converted.get_mut(block as usize) {
            *converted = num_tokens.min(*converted);
        }
    }
}

impl Engine {
    /// Converts as much as one boundary may. The ticket and what came of it, at the end.
    pub(super) fn convert(&mut self) -> Option<(u64, Result<(), SwapError>, Leftover)> {
        let mut conversion = self.conversion.take()?;
        match self.convert_some(&mut conversion) {
            Ok(false) => {
                self.conversion = Some(conversion);
                None
            }
            Ok(true) => {
                let Conversion { ticket, mut change, into, .. } = *conversion;
                change.memory = Some(into);
                let (result, leftover) = self.take(change);
                Some((ticket, result, leftover))
            }
            Err(error) => Some((conversion.ticket, Err(error), conversion.into_leftover())),
        }
    }

    /// Whether everything that sequences hold is converted.
    fn convert_some(&mut self, conversion: &mut Conversion) -> Result<bool, SwapError> {
        let (old, per_token) = (&self.layout, self.layout.bytes_per_token.max(1));
        let budget = self.convert_bytes_per_step as usize / per_token;
        // What steps write comes on top: else a prompt that is evaluated could outrun the budget.
        let mut tokens_left = budget.max(1) + std::mem::take(&mut conversion.num_written);
        let (block_size, into) = (old.pool.block_size, &mut conversion.into);
        let cache = self.cache.get_mut();
        for (place, sequence) in self.sequences.iter() {
            if sequence.num_evaluated == 0 {
                continue;
            }
            let table = cache.reserve(SeqId(place as u32), 0, &mut self.work.moves);
            let table = table.map_err(|source| SwapError::Plugin {
                slot: "kv-cache".to_owned(),
                what: "table of a sequence".to_owned(),
                source,
            })?;
            let num_blocks = into.layout.pool.num_blocks.min(into.num_converted.len());
            if let Some(&beyond) = table.iter().find(|&&block| block as usize >= num_blocks) {
                return Err(no_such_block(beyond, num_blocks));
            }
            for (i, &block) in table.iter().enumerate() {
                let held = sequence.num_evaluated.saturating_sub(i * block_size).min(block_size);
                let block = block as usize;
                let from = into.num_converted[block];
                let to = held.min(from + tokens_left);
                if from >= held {
                    continue;
                }
                let tokens = from..to;
                tokens_left -= tokens.len();
                self.load.converted_bytes += (tokens.len() * per_token) as u64;
                into.num_converted[block] = to;
                let (states, bytes) = (&self.model.states, self.state.as_slice());
                convert_tokens(states, old, bytes, into, block, &tokens);
                if tokens_left == 0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Converts tokens of a block that lie side by side, in every part of every state.
fn convert_tokens(
    states: &[StateSpec],
    old: &StateLayout,
    old_bytes: &[u8],
    into: &mut NewMemory,
    block: usize,
    tokens: &Range<usize>,
) {
    let NewMemory { state, layout, row, .. } = into;
    let (new_bytes, block_size) = (state.as_mut_slice(), old.pool.block_size);
    for ((state, old), new) in states.iter().zip(&old.places).zip(&layout.places) {
        let offsets = old.offsets.iter().zip(&new.offsets);
        for (index, (part, (from, to))) in state.parts.iter().zip(offsets).enumerate() {
            let range = |offset: usize, storage: &Storage| {
                let size = storage.block_bytes(part, block_size);
                offset + block * size..offset + (block + 1) * size
            };
            let from = &old_bytes[range(*from, &old.storage)];
            let to = &mut new_bytes[range(*to, &new.storage)];
            if let (Storage::Plain(from_type), Storage::Plain(to_type)) =
                (&old.storage, &new.storage)
            {
                let bytes = |storage: &Storage| {
                    let size = storage.row_bytes(part);
                    tokens.start * size..tokens.end * size
                };
                let (from, to) = (&from[bytes(&old.storage)], &mut to[bytes(&new.storage)]);
                convert(*from_type, from, *to_type, to);
                continue;
            }
            let row = &mut row[..part.num_elements() as usize];
            for token in tokens.clone() {
                old.storage.read(index, part, from, token, row);
                new.storage.write(index, part, to, token, row);
            }
        }
    }
}

fn no_such_block(block: u32, num_blocks: usize) -> SwapError {
    SwapError::Differs {
        slot: "kv-cache".to_owned(),
        what: "blocks that sequences hold".to_owned(),
        expected: format!("those of a pool of {num_blocks}"),
        found: format!("block {block}: try again when less is held"),
    }
}

/// Converts numbers, rounding to the nearest, ties to even, as backends do.
fn convert(from_type: DType, from: &[u8], to_type: DType, to: &mut [u8]) {
    match (from_type, to_type) {
        (DType::F32, DType::F16) => {
            let (from, to) = (bytemuck::cast_slice(from), bytemuck::cast_slice_mut::<_, f16>(to));
            to.convert_from_f32_slice(from);
        }
        (DType::F16, DType::F32) => {
            let (from, to) = (bytemuck::cast_slice::<_, f16>(from), bytemuck::cast_slice_mut(to));
            from.convert_to_f32_slice(to);
        }
        _ => to.copy_from_slice(from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_even_and_come_back() {
        // Halfway between 1 and the next number of 10 bits, and between that and the one after.
        let numbers = [1.0, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, -65504.0, 1e9, 0.0];
        let rounded = [1.0, 1.0, 1.0 + 2.0 / 1024.0, -65504.0, f32::INFINITY, 0.0];
        let (mut halves, mut back) = ([f16::ZERO; 6], [0_f32; 6]);
        let bytes = bytemuck::cast_slice_mut(&mut halves);
        convert(DType::F32, bytemuck::cast_slice(&numbers.map(|n: f32| n)), DType::F16, bytes);
        let bytes = bytemuck::cast_slice(&halves);
        convert(DType::F16, bytes, DType::F32, bytemuck::cast_slice_mut(&mut back));
        assert_eq!(back, rounded);
    }
}
