//! A compiled plan: a flat list of instructions over slots of memory.

mod attention;
mod chain;
mod experts;
mod recurrence;

use kernels_cpu::{AttendShape, BinaryOp, Rhs, RopeShape, UnaryOp};
use plugin_api::kinds::backend::BindingCheck;

pub(crate) use self::attention::{Attention, StateElement, StoredCodes};
pub(crate) use self::chain::{Chain, ChainOp, REGISTERS_MAX, Source, Step};
pub(crate) use self::experts::{Experts, SortChoices};
pub(crate) use self::recurrence::{Recurrence, Step as RecurrentStep};
use crate::check::Check;
use crate::layout::Packing;
use crate::size::Size;

/// What the backend makes of a plan.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) check: BindingCheck,
    /// Checks of indices among the inputs, done before anything runs.
    pub(crate) index_checks: Vec<Check>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) weights: Vec<WeightPlan>,
    pub(crate) constants: Vec<f32>,
    pub(crate) scratch_bytes: usize,
}

/// A weight as instructions read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightPlan {
    pub(crate) packing: Packing,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) size_bytes: usize,
}

/// Index into [`Code::slots`].
pub(crate) type SlotId = usize;

/// Memory of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) place: Place,
    pub(crate) element: Element,
    /// Elements.
    pub(crate) len: Size,
}

/// Where a slot lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Byte offset in the scratch memory.
    Scratch(usize),
    /// Index of an input.
    Input(usize),
    /// Index of an output.
    Output(usize),
    /// Index of a weight with [`Packing::Dense`].
    Weight(usize),
    /// Element offset in the constants.
    Constant(usize),
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    U32,
    /// Quantized activations.
    Byte,
}

impl Element {
    pub(crate) fn size_bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Byte => 1,
        }
    }
}

/// One instruction. Its units are divided over threads: unit `u` writes elements
/// `u * per_unit..(u + 1) * per_unit` of each output, and nothing else.
#[derive(Debug)]
pub(crate) struct Instruction {
    pub(crate) op: Op,
    pub(crate) units: Units,
    /// Rough time of one unit, in nanoseconds.
    pub(crate) unit_ns: usize,
    pub(crate) outputs: Vec<Output>,
}

/// Something that an instruction writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) slot: SlotId,
    /// Elements that one unit writes; the last unit may have fewer left.
    pub(crate) per_unit: Size,
}

/// How many units an instruction has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Units {
    /// So many.
    Count(Size),
    /// One for each [`BLOCK_ELEMENTS`] elements, the last one short.
    Blocks(Size),
}

/// Elements of a unit of ops without rows.
pub(crate) const BLOCK_ELEMENTS: usize = 1024;

/// Columns that one unit of a sum over rows takes.
pub(crate) const ROW_COLUMNS: usize = 64;

impl Units {
    pub(crate) fn of(&self, sizes: &[usize]) -> usize {
        match self {
            Self::Count(size) => size.of(sizes),
            Self::Blocks(len) => len.of(sizes).div_ceil(BLOCK_ELEMENTS),
        }
    }
}

/// What an instruction computes. Outputs are named by the instruction.
#[derive(Debug)]
pub(crate) enum Op {
    /// An error if an index is out of range: for indices that the plan computes.
    Check(Check),
    /// Rows of a packed weight.
    Embed {
        weight: usize,
        ids: SlotId,
    },
    /// A packed weight as dense rows.
    Unpack {
        weight: usize,
    },
    /// Dense rows `[n, k]` as panels, or `[k, n]` if they are `turned`. A unit is a panel; all of
    /// them are one if `n` differs from step to step.
    PackPanels {
        w: SlotId,
        n: Size,
        k: Size,
        turned: bool,
    },
    /// Rows of `k` as signed bytes, each as the sum of `terms` rows.
    Quantize {
        x: SlotId,
        k: usize,
        terms: usize,
    },
    /// Products of one input with weights, one after the other in units of panels.
    Product(Box<Product>),
    /// Choices in the order of their experts.
    SortChoices(Box<SortChoices>),
    /// Products of sorted rows with the experts that they chose, in units of panels.
    Experts(Box<Experts>),
    /// A product with panels that the plan computed; units as there. `x` is `[rows, k]`, or `[k, rows]`
    /// if it is `turned`.
    Panels {
        w: SlotId,
        x: SlotId,
        n: Size,
        k: Size,
        turned: bool,
    },
    Binary {
        op: BinaryOp,
        a: SlotId,
        b: SlotId,
        rhs: Rhs,
        width: Size,
    },
    Unary {
        op: UnaryOp,
        x: SlotId,
    },
    Scale {
        x: SlotId,
        by: f32,
    },
    Offset {
        x: SlotId,
        by: f32,
    },
    Reduce {
        kind: ReduceKind,
        x: SlotId,
        width: Size,
    },
    Softmax {
        x: SlotId,
        width: Size,
    },
    /// A unit is [`ROW_COLUMNS`] columns.
    ReduceRows {
        x: SlotId,
        width: Size,
    },
    Fill {
        value: f32,
    },
    TakeAlong {
        x: SlotId,
        indices: SlotId,
        widths: [Size; 2],
    },
    /// The output starts as `base`, or is it.
    ScatterAlong {
        base: SlotId,
        indices: SlotId,
        updates: SlotId,
        widths: [Size; 2],
    },
    TopK {
        x: SlotId,
        width: Size,
        k: usize,
    },
    Gather {
        x: SlotId,
        indices: SlotId,
        width: Size,
    },
    /// The output starts as `base`, or is it.
    ScatterAdd {
        base: SlotId,
        indices: SlotId,
        updates: SlotId,
        width: Size,
    },
    /// Parts, each with the elements that one unit takes of it.
    Concat {
        parts: Vec<(SlotId, Size)>,
    },
    Slice {
        x: SlotId,
        stride: Size,
        start: Size,
    },
    Transpose {
        x: SlotId,
        shape: [Size; 4],
        order: [usize; 4],
    },
    Cast {
        x: SlotId,
        to: CastTo,
    },
    RmsNorm {
        x: SlotId,
        w: SlotId,
        eps: f32,
        weight_offset: f32,
    },
    LayerNorm {
        x: SlotId,
        w: SlotId,
        b: SlotId,
        eps: f32,
    },
    /// Cosines and sines of positions.
    RopeTable {
        positions: SlotId,
        inv_freq: Vec<f32>,
        factor: f32,
    },
    /// The output starts as `x`, or is it.
    Rope {
        x: SlotId,
        cos: SlotId,
        sin: SlotId,
        shape: RopeShape,
    },
    Gated {
        kind: GatedKind,
        gate: SlotId,
        up: SlotId,
    },
    /// Ops on the same elements, block by block.
    Chain(Box<Chain>),
    Recur(Box<Recurrence>),
    Store(Box<Attention>),
    Attend(Box<Attention>),
    AttendWithin(Box<Within>),
    /// Gradient by queries, and what is left of their softmax.
    QueryGrad(Box<WithinGrad>),
    /// Gradients by keys and values.
    KeyGrad(Box<WithinGrad>),
}

/// Products of one input with several weights.
#[derive(Debug)]
pub(crate) struct Product {
    /// `[rows, k]` floats.
    pub(crate) x: SlotId,
    /// The same quantized, if a weight wants it so.
    pub(crate) quantized: Option<SlotId>,
    /// Quantized rows that make one row.
    pub(crate) terms: usize,
    pub(crate) rows: Size,
    pub(crate) weights: Vec<ProductWeight>,
}

/// One weight of a product; its output stands at the same place among the instruction's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProductWeight {
    pub(crate) weight: usize,
    pub(crate) n: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReduceKind {
    Sum,
    Mean,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatedKind {
    Swiglu,
    Geglu,
}

/// Casts between what slots hold: 16-bit floats are kept as `f32` that they are exact in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CastTo {
    /// The same elements.
    Same,
    /// Floats rounded to `f16`.
    F16,
    /// Floats rounded to `bf16`.
    BF16,
    /// Floats to indices, saturating.
    Index,
    /// Indices to floats.
    Real,
    /// Indices to floats rounded to `f16`.
    RealF16,
    /// Indices to floats rounded to `bf16`.
    RealBF16,
}

/// Attention to the tokens of a step alone.
#[derive(Debug, Clone)]
pub(crate) struct Within {
    pub(crate) shape: AttendShape,
    pub(crate) scale: f32,
    pub(crate) is_causal: bool,
    pub(crate) q: SlotId,
    pub(crate) k: SlotId,
    pub(crate) v: SlotId,
    pub(crate) sequence_index: SlotId,
}

/// Numbers that the first half of a gradient of attention leaves of each softmax.
pub(crate) const LEFT: usize = 3;

/// The gradient of that.
#[derive(Debug, Clone)]
pub(crate) struct WithinGrad {
    pub(crate) of: Within,
    pub(crate) out_grad: SlotId,
    /// `[tokens, heads, LEFT]`: what the first half leaves for the second.
    pub(crate) left: SlotId,
}
