//! Chains: ops on the same elements, one after the other.

use kernels_cpu::{BinaryOp, UnaryOp};

use super::{GatedKind, SlotId};

/// Elementwise ops, one after the other.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) steps: Vec<Step>,
    /// How many there are.
    pub(crate) registers: usize,
}

/// Computes a register, none of its sources.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) op: ChainOp,
    pub(crate) a: Source,
    pub(crate) b: Source,
    pub(crate) to: usize,
    /// The output that it goes to as well.
    pub(crate) store: Option<usize>,
}

/// What a step is computed from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Register(usize),
    /// The same elements of a slot.
    Slot(SlotId),
    /// The one element of a slot.
    One(SlotId),
    None,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ChainOp {
    Unary(UnaryOp),
    Binary(BinaryOp),
    Scale(f32),
    Offset(f32),
    Fill(f32),
    Gated(GatedKind),
}

/// Blocks of elements that a chain holds at a time: they fit the first-level cache.
pub(crate) const REGISTERS_MAX: usize = 8;
