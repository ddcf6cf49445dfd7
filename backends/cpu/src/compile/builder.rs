//! Collects instructions and the slots that they read and write.

use std::collections::BTreeMap;

use plugin_api::kinds::backend::MemoryMap;
use plugin_api::plan::{Plan, Spec, StatePort};
use plugin_api::{DType, Error, Result};

use super::experts::Sorted;
use crate::check::Check;
use crate::code::{
    BLOCK_ELEMENTS, CastTo, Element, Instruction, Op, Output, Place, Slot, SlotId, Units,
    WeightPlan,
};
use crate::layout::Packing;
use crate::size::{Size, Symbols};

/// A plan on its way to code.
pub(super) struct Builder<'a> {
    pub(super) memory: &'a MemoryMap,
    pub(super) states: &'a [StatePort],
    pub(super) symbols: Symbols,
    pub(super) weights: Vec<WeightPlan>,
    /// Quantized rows that make one row of activations.
    pub(super) terms: usize,
    pub(super) slots: Vec<Slot>,
    pub(super) drafts: Vec<Draft>,
    pub(super) constants: Vec<f32>,
    pub(super) index_checks: Vec<Check>,
    /// Checks of computed indices that stand among the instructions.
    pub(super) late_checks: Vec<Check>,
    /// Weights that were unpacked.
    pub(super) unpacked: BTreeMap<usize, SlotId>,
    /// Floats that were quantized.
    pub(super) quantized: BTreeMap<SlotId, SlotId>,
    /// Choices that were sorted, by what they choose from.
    pub(super) sorted: BTreeMap<(SlotId, usize), Sorted>,
    /// Rows that were picked for them.
    pub(super) picked: BTreeMap<(SlotId, SlotId), SlotId>,
    /// The last product of an input, by whether its weights want it quantized.
    pub(super) products: BTreeMap<(SlotId, bool), usize>,
    pub(super) rope_tables: Vec<RopeTable>,
    /// Matrices that were transposed.
    pub(super) turned: BTreeMap<SlotId, SlotId>,
    /// Matrices that were packed: whether turned, and as how many rows and columns.
    pub(super) panels: BTreeMap<(SlotId, bool, Size, Size), SlotId>,
}

/// An instruction with what it reads.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) instruction: Instruction,
    pub(super) reads: Vec<SlotId>,
    /// A slot that the first output may take the place of.
    pub(super) in_place: Option<SlotId>,
}

/// Cosines and sines that were computed.
pub(super) struct RopeTable {
    pub(super) positions: SlotId,
    pub(super) inv_freq: Vec<f32>,
    pub(super) factor: f32,
    pub(super) cos: SlotId,
    pub(super) sin: SlotId,
}

/// What a value of the plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Slot(SlotId),
    Weight(usize),
    State(usize),
    /// The transpose of a matrix `[rows, cols]`: products read it as it lies.
    Turned {
        slot: SlotId,
        rows: Size,
        cols: Size,
    },
    /// A row for each choice, sorted by what was chosen: others want them in the order of the choices.
    Sorted(SortedRows),
}

/// See [`Value::Sorted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SortedRows {
    pub(super) slot: SlotId,
    /// Where each choice stands.
    pub(super) places: SlotId,
    pub(super) rows: Size,
    pub(super) width: Size,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        memory: &'a MemoryMap,
        symbols: Symbols,
        weights: Vec<WeightPlan>,
    ) -> Self {
        Self {
            memory,
            states: &plan.states,
            symbols,
            weights,
            terms: 1,
            slots: Vec::new(),
            drafts: Vec::new(),
            constants: Vec::new(),
            index_checks: Vec::new(),
            late_checks: Vec::new(),
            unpacked: BTreeMap::new(),
            quantized: BTreeMap::new(),
            sorted: BTreeMap::new(),
            picked: BTreeMap::new(),
            products: BTreeMap::new(),
            rope_tables: Vec::new(),
            turned: BTreeMap::new(),
            panels: BTreeMap::new(),
        }
    }

    /// A slot; scratch slots get their place at the end.
    pub(super) fn slot(&mut self, place: Place, element: Element, len: Size) -> SlotId {
        self.slots.push(Slot { place, element, len });
        self.slots.len() - 1
    }

    /// A slot in scratch memory.
    pub(super) fn scratch(&mut self, element: Element, len: Size) -> SlotId {
        self.slot(Place::Scratch(0), element, len)
    }

    /// A slot in scratch memory for a value.
    pub(super) fn scratch_for(&mut self, spec: &Spec) -> Result<SlotId> {
        let len = self.symbols.len(spec)?;
        Ok(self.scratch(element_of(spec)?, len))
    }

    /// A value's dense elements; packed weights are unpacked, once.
    pub(super) fn dense(&mut self, value: Value) -> Result<SlotId> {
        let weight = match value {
            Value::Slot(slot) => return Ok(slot),
            Value::State(_) => return Err(Error::shape("state", "a use by `attend`", "another")),
            Value::Turned { slot, rows, cols } => return Ok(self.turned(slot, [rows, cols])),
            Value::Sorted(SortedRows { slot, places, rows, width }) => {
                return Ok(self.picked(slot, places, [rows, width]));
            }
            Value::Weight(weight) => weight,
        };
        if let Some(slot) = self.unpacked.get(&weight) {
            return Ok(*slot);
        }
        let plan = self.weights[weight];
        let len = plan.rows.checked_mul(plan.cols);
        let len = len.ok_or_else(|| Error::unsupported("weight", "sizes that fit into memory"))?;
        let slot = if plan.packing == Packing::Dense {
            self.slot(Place::Weight(weight), Element::F32, Size::fixed(len))
        } else {
            let slot = self.scratch(Element::F32, Size::fixed(len));
            let (op, rows) = (Op::Unpack { weight }, Units::Count(Size::fixed(plan.rows)));
            self.emit(op, rows, plan.cols, &[], &[(slot, Size::fixed(plan.cols))]);
            slot
        };
        self.unpacked.insert(weight, slot);
        Ok(slot)
    }

    /// The transpose of a matrix, for others than products.
    fn turned(&mut self, x: SlotId, [rows, cols]: [Size; 2]) -> SlotId {
        if let Some(slot) = self.turned.get(&x) {
            return *slot;
        }
        let Slot { element, len, .. } = self.slots[x];
        let out = self.scratch(element, len);
        let shape = [Size::fixed(1), Size::fixed(1), rows, cols];
        self.emit_whole(Op::Transpose { x, shape, order: [0, 1, 3, 2] }, &[x], &[out]);
        self.turned.insert(x, out);
        out
    }

    /// Adds an instruction.
    pub(super) fn emit(
        &mut self,
        op: Op,
        units: Units,
        unit_ns: usize,
        reads: &[SlotId],
        outputs: &[(SlotId, Size)],
    ) {
        let outputs = outputs.iter().map(|&(slot, per_unit)| Output { slot, per_unit }).collect();
        let instruction = Instruction { op, units, unit_ns, outputs };
        self.drafts.push(Draft { instruction, reads: reads.to_vec(), in_place: None });
    }

    /// Adds an instruction without rows: blocks of elements of `out`.
    pub(super) fn emit_blocks(&mut self, op: Op, ns: usize, reads: &[SlotId], out: SlotId) {
        let units = Units::Blocks(self.slots[out].len);
        self.emit(op, units, ns, reads, &[(out, Size::fixed(BLOCK_ELEMENTS))]);
    }

    /// Adds an instruction of one unit.
    pub(super) fn emit_whole(&mut self, op: Op, reads: &[SlotId], outputs: &[SlotId]) {
        let outputs: Vec<_> = outputs.iter().map(|&slot| (slot, self.slots[slot].len)).collect();
        self.emit(op, Units::Count(Size::fixed(1)), 0, reads, &outputs);
    }

    /// Lets the output of the last instruction take the place of `slot`, if nobody reads it later.
    pub(super) fn in_place_of(&mut self, slot: SlotId) {
        if let Some(draft) = self.drafts.last_mut() {
            draft.in_place = Some(slot);
        }
    }

    /// Has indices checked: before anything runs if they are inputs, else where they are computed.
    pub(super) fn check(&mut self, check: Check) {
        let slots = check.slots();
        if slots.iter().all(|&slot| matches!(self.slots[slot].place, Place::Input(_))) {
            if !self.index_checks.contains(&check) {
                self.index_checks.push(check);
            }
        } else if !self.late_checks.contains(&check) {
            self.late_checks.push(check);
            self.emit(Op::Check(check), Units::Count(Size::fixed(1)), 0, &slots, &[]);
        }
    }

    /// Copies a slot into a new one at `place`.
    pub(super) fn copy(&mut self, x: SlotId, place: Place) {
        let Slot { element, len, .. } = self.slots[x];
        let out = self.slot(place, element, len);
        self.emit_blocks(Op::Cast { x, to: CastTo::Same }, 100, &[x], out);
    }
}

/// What a value is kept as: 16-bit floats as `f32`.
pub(super) fn element_of(spec: &Spec) -> Result<Element> {
    match spec.dtype {
        DType::F32 | DType::F16 | DType::BF16 => Ok(Element::F32),
        DType::U32 => Ok(Element::U32),
        other => Err(Error::unsupported(format!("values of {other}"), "f32 and u32 are computed")),
    }
}
