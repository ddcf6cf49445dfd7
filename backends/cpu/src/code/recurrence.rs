//! Ops whose state is kept per sequence.

use super::SlotId;
use crate::size::Size;

/// What goes on from the state after the token before.
#[derive(Debug)]
pub(crate) struct Recurrence {
    pub(crate) step: Step,
    pub(crate) positions: SlotId,
    pub(crate) sequence_index: SlotId,
    pub(crate) block_table: SlotId,
    pub(crate) blocks_per_seq: Size,
    pub(crate) block_size: usize,
    /// Which state of the plan it is.
    pub(crate) state_index: usize,
    /// First byte of the state's part in the arena, which has a copy for each block.
    pub(crate) offset: usize,
    /// Elements of a copy.
    pub(crate) size: usize,
    /// Elements of all.
    pub(crate) len: usize,
}

/// What a token does to it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    CausalConv { x: SlotId, w: SlotId },
    SelectiveScan { x: SlotId, dt: SlotId, a: SlotId, b: SlotId, c: SlotId },
}
