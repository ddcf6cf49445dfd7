//! What a plugin's blocks are checked against.

use crate::error::{Error, Result};
use crate::kinds::kv_cache::{PoolLimits, PoolSpec, block_bytes};
use crate::native::abi::kv_cache::BlockTableV1;
use crate::plan::StateSpec;

/// The sizes that the plugin laid its pool out with; nothing fits before it has.
#[derive(Default)]
pub(super) struct Pool {
    block_size: usize,
    num_blocks: usize,
    blocks_per_seq_max: usize,
}

impl Pool {
    /// The sizes of a pool that the host can afford to lay out.
    pub(super) fn of(spec: &PoolSpec, states: &[StateSpec], limits: &PoolLimits) -> Result<Self> {
        let PoolSpec { block_size, num_blocks, blocks_per_seq_max, .. } = *spec;
        let bytes = block_bytes(states, &spec.storage, block_size)?.checked_mul(num_blocks as u64);
        let reach = block_size.checked_mul(blocks_per_seq_max);
        let is_usable = block_size > 0
            && (1..=u32::MAX as usize).contains(&num_blocks)
            && reach.is_some_and(|reach| (reach as u64) <= TOKENS_MAX)
            && blocks_per_seq_max > 0
            && bytes.is_some_and(|bytes| bytes <= limits.size_bytes_max);
        if is_usable {
            return Ok(Self { block_size, num_blocks, blocks_per_seq_max });
        }
        let expected = format!("blocks in {} bytes", limits.size_bytes_max);
        Err(Error::malformed("pool", expected, format!("{spec:?}")))
    }

    pub(super) fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Refuses blocks outside of the pool.
    pub(super) fn check(&self, mut blocks: impl Iterator<Item = u32>) -> Result<()> {
        match blocks.find(|&block| block as usize >= self.num_blocks) {
            None => Ok(()),
            Some(block) => {
                let expected = format!("one of {}", self.num_blocks);
                Err(Error::malformed("block", expected, block))
            }
        }
    }

    /// Refuses tables that do not hold `tokens`, or that are no table.
    pub(super) fn check_table(&self, table: BlockTableV1, tokens: usize) -> Result<()> {
        let BlockTableV1 { blocks, len } = table;
        let fewest = tokens.div_ceil(self.block_size.max(1)) as u64;
        if !(fewest..=self.blocks_per_seq_max as u64).contains(&len) {
            let expected = format!("{fewest} to {} blocks", self.blocks_per_seq_max);
            return Err(Error::malformed("block table", expected, len));
        }
        if blocks.is_null() || !blocks.is_aligned() {
            return Err(Error::malformed("block table", "blocks", "none"));
        }
        Ok(())
    }
}

/// Positions are `u32`: no sequence is longer.
const TOKENS_MAX: u64 = u32::MAX as u64;
