//! Attention over the cache: what it reads, and how that is stored.

use kernels_cpu::{AttendShape, AttendSpec, KvCodeLayout};

use super::SlotId;
use crate::size::Size;

/// Keys and values with what attends to them.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    pub(crate) shape: AttendShape,
    pub(crate) spec: AttendSpec,
    pub(crate) q: SlotId,
    pub(crate) k: SlotId,
    pub(crate) v: SlotId,
    pub(crate) sinks: Option<SlotId>,
    pub(crate) positions: SlotId,
    pub(crate) sequence_index: SlotId,
    pub(crate) block_table: SlotId,
    pub(crate) blocks_per_seq: Size,
    pub(crate) block_size: usize,
    /// Which state of the plan it is.
    pub(crate) state_index: usize,
    pub(crate) state: StateElement,
    /// First byte of keys and of values in the state arena; the same where values are in keys.
    pub(crate) offsets: [usize; 2],
    /// Elements of each; bytes, where they are codes.
    pub(crate) len: usize,
}

/// What keys and values are stored as.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StateElement {
    F32,
    F16,
    BF16,
    /// 8-bit codes of keys and of values.
    Codes(Box<[StoredCodes; 2]>),
}

/// How codes lie, and what they are multiplied with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredCodes {
    pub(crate) layout: KvCodeLayout,
    /// `[kv_heads, head_dim]`, or empty where each vector has its own.
    pub(crate) channel_scales: Vec<f32>,
}
