//! The memory of one run, and the part of it that one thread may touch.
//!
//! This is where threads share memory. What makes it sound:
//!
//! 1. `compile::arena` gives values that are alive together places that do not overlap, so an
//!    instruction's outputs overlap nothing that it reads but what it works on in place
//!    ([`Part::read`] refuses to read those);
//! 2. unit `u` of an instruction writes only its own `per_unit` elements of each output
//!    ([`Part::write`]), or its own columns ([`Part::columns`]);
//! 3. the units of an instruction are divided into disjoint parts, each run by one thread, and the
//!    next instruction starts when all are done (`pool`).

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::Pod;
use kernels_cpu::{Isa, OutputColumns, PANEL_ROWS};
use plugin_api::kinds::backend::{Bindings, Buf};
use plugin_api::{Error, Result, TensorMut, TensorRef};

use crate::code::{Code, Instruction, Place, SlotId, WeightPlan};

/// Most outputs of a plan.
pub(crate) const OUTPUTS_MAX: usize = 256;

/// Alignment of scratch, state and weights, in bytes.
const ALIGNMENT: usize = 64;

/// Everything that a run reads and writes, by slot.
pub(crate) struct Frame<'a> {
    code: &'a Code,
    isa: Isa,
    sizes: &'a [usize],
    inputs: &'a [TensorRef<'a>],
    weights: &'a [Buf],
    state: *mut u8,
    state_len: usize,
    scratch: *mut u8,
    outputs: [*mut u8; OUTPUTS_MAX],
    lifetime: PhantomData<&'a mut [u8]>,
}

// SAFETY: the pointers are exclusive borrows for `'a`; what threads reach through a shared frame
// is governed by `Part`, by the rules at the top of this file.
unsafe impl Sync for Frame<'_> {}

impl<'a> Frame<'a> {
    /// Borrows the memory of a run whose bindings have passed `code.check`.
    pub(crate) fn new(code: &'a Code, isa: Isa, bind: &'a mut Bindings<'_>) -> Result<Self> {
        for (place, weight) in code.weights.iter().zip(bind.weights) {
            let bytes = weight.host_bytes();
            let bytes = bytes.ok_or_else(|| Error::unsupported("weight", "memory of a device"))?;
            if bytes.len() < place.size_bytes {
                let expected = format!("{} bytes", place.size_bytes);
                return Err(Error::shape("weight", expected, bytes.len()));
            }
            aligned("weight", bytes)?;
        }
        aligned("scratch", bind.scratch)?;
        aligned("state arena", bind.state)?;
        let mut outputs = [std::ptr::null_mut(); OUTPUTS_MAX];
        for (place, output) in outputs.iter_mut().zip(&mut *bind.outputs) {
            *place = match output {
                TensorMut::F32(x) => x.as_mut_ptr().cast(),
                TensorMut::U32(x) => x.as_mut_ptr().cast(),
                TensorMut::F64(_) => {
                    return Err(Error::unsupported("output", "f64 is not computed"));
                }
            };
        }
        Ok(Self {
            code,
            isa,
            sizes: bind.sizes,
            inputs: bind.inputs,
            weights: bind.weights,
            state: bind.state.as_mut_ptr(),
            state_len: bind.state.len(),
            scratch: bind.scratch.as_mut_ptr(),
            outputs,
            lifetime: PhantomData,
        })
    }

    /// The value of each symbol.
    pub(crate) fn sizes(&self) -> &'a [usize] {
        self.sizes
    }

    /// Indices. The exclusive borrow says that no instruction runs: a part borrows the frame.
    pub(crate) fn indices<const N: usize>(&mut self, slots: [SlotId; N]) -> [&[u32]; N] {
        // SAFETY: nobody else has the frame, so nobody writes through it while the result lives.
        slots.map(|slot| unsafe { self.slice(slot) })
    }

    /// The state arena, to change. The exclusive borrow says that no instruction runs.
    pub(crate) fn arena(&mut self) -> &mut [u8] {
        if self.state_len == 0 {
            return &mut [];
        }
        // SAFETY: the arena is borrowed exclusively for `'a`, and nobody else has the frame.
        unsafe { std::slice::from_raw_parts_mut(self.state, self.state_len) }
    }

    /// The elements of a slot.
    ///
    /// # Safety
    ///
    /// While the result lives, nobody writes them.
    unsafe fn slice<T: Pod>(&self, slot: SlotId) -> &'a [T] {
        let (start, len) = self.locate::<T>(slot);
        // SAFETY: `locate` gives memory of `len` initialized elements, aligned for them, that is
        // borrowed for `'a`; the caller keeps writers away.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// First element and number of elements of a slot.
    fn locate<T: Pod>(&self, slot: SlotId) -> (*const T, usize) {
        let found = &self.code.slots[slot];
        let len = found.len.of(self.sizes);
        assert_eq!(size_of::<T>(), found.element.size_bytes(), "slot {slot}: another type");
        if len == 0 {
            return (std::ptr::dangling(), 0);
        }
        let start: *const T = match found.place {
            Place::Scratch(offset) => {
                // SAFETY: the arena's offsets, with the length at its largest, are within the
                // `scratch_bytes` that the check has found.
                unsafe { self.scratch.add(offset) }.cast_const().cast()
            }
            Place::Output(i) => self.outputs[i].cast_const().cast(),
            Place::Input(i) => match self.inputs[i] {
                TensorRef::F32(x) => x.as_ptr().cast(),
                TensorRef::U32(x) => x.as_ptr().cast(),
                TensorRef::F64(x) => x.as_ptr().cast(),
            },
            Place::Weight(i) => self.weight(i).1.as_ptr().cast(),
            Place::Constant(at) => self.code.constants[at..at + len].as_ptr().cast(),
        };
        (start, len)
    }

    /// A weight and its packed bytes.
    pub(crate) fn weight(&self, i: usize) -> (&'a WeightPlan, &'a [u8]) {
        let plan = &self.code.weights[i];
        let bytes = self.weights[i].host_bytes().unwrap_or_default();
        (plan, &bytes[..plan.size_bytes])
    }

    /// Whether two slots are one memory.
    fn is_same(&self, a: SlotId, b: SlotId) -> bool {
        a == b || self.code.slots[a].place == self.code.slots[b].place
    }
}

fn aligned(what: &str, bytes: &[u8]) -> Result<()> {
    let start = bytes.as_ptr().addr();
    if bytes.is_empty() || start.is_multiple_of(ALIGNMENT) {
        Ok(())
    } else {
        let found = format!("an address {} past", start % ALIGNMENT);
        Err(Error::shape(what, format!("alignment to {ALIGNMENT} bytes"), found))
    }
}

/// Some units of one instruction: the exclusive right to write what these write.
pub(crate) struct Part<'f> {
    frame: &'f Frame<'f>,
    instruction: &'f Instruction,
    units: Range<usize>,
}

impl<'f> Part<'f> {
    /// # Safety
    ///
    /// While the part lives, no other part of the instruction has these units, and no other
    /// instruction runs.
    pub(crate) unsafe fn new(
        frame: &'f Frame<'f>,
        instruction: &'f Instruction,
        units: Range<usize>,
    ) -> Self {
        Self { frame, instruction, units }
    }

    pub(crate) fn isa(&self) -> Isa {
        self.frame.isa
    }

    pub(crate) fn sizes(&self) -> &'f [usize] {
        self.frame.sizes
    }

    /// The units of this part.
    pub(crate) fn units(&self) -> Range<usize> {
        self.units.clone()
    }

    /// A weight and its packed bytes.
    pub(crate) fn weight(&self, i: usize) -> (&'f WeightPlan, &'f [u8]) {
        self.frame.weight(i)
    }

    /// All elements of a slot that the instruction reads.
    pub(crate) fn read<T: Pod>(&self, slot: SlotId) -> &'f [T] {
        assert!(!self.is_output(slot), "slot {slot} is being written");
        // SAFETY: the slot is none of the instruction's outputs, which overlap nothing else that
        // it reads (rule 1), and no other instruction runs.
        unsafe { self.frame.slice(slot) }
    }

    /// Those elements of a slot that correspond to this part's, `per_unit` for each unit.
    pub(crate) fn read_share<T: Pod>(&self, slot: SlotId, per_unit: usize) -> &'f [T] {
        let x = self.read(slot);
        &x[share(&self.units, per_unit, x.len())]
    }

    /// Whether the instruction works on `slot` in place.
    pub(crate) fn is_output(&self, slot: SlotId) -> bool {
        self.instruction.outputs.iter().any(|output| self.frame.is_same(output.slot, slot))
    }

    /// What this part's units write of output `i`.
    pub(crate) fn write<T: Pod>(&mut self, i: usize) -> &mut [T] {
        // SAFETY: `&mut self` makes the result the only slice of this part's share.
        unsafe { self.share_mut(i) }
    }

    /// What this part's units write of the first two outputs.
    pub(crate) fn write_both<A: Pod, B: Pod>(&mut self) -> (&mut [A], &mut [B]) {
        // SAFETY: as in `write`; the two outputs do not overlap (rule 1).
        unsafe { (self.share_mut(0), self.share_mut(1)) }
    }

    /// # Safety
    ///
    /// The result is the only slice of this part's share of output `i`.
    unsafe fn share_mut<T: Pod>(&self, i: usize) -> &'f mut [T] {
        let output = self.instruction.outputs[i];
        let (start, len) = self.frame.locate::<T>(output.slot);
        let share = share(&self.units, output.per_unit.of(self.frame.sizes), len);
        // SAFETY: `start` points to `len` elements and the share is within them. Outputs lie in
        // scratch or in outputs of the run, both exclusively borrowed, and other parts' shares do
        // not overlap (rules 2 and 3).
        unsafe { std::slice::from_raw_parts_mut(start.cast_mut().add(share.start), share.len()) }
    }

    /// The columns of panels `panels` of output `i`, which is `[rows, n]`. For instructions whose
    /// units are panels: `first` is the unit of the output's first panel.
    pub(crate) fn columns(
        &mut self,
        i: usize,
        n: usize,
        first: usize,
        panels: Range<usize>,
    ) -> OutputColumns<'_> {
        let is_mine = self.units.start <= first + panels.start
            && first + panels.end <= self.units.end
            && panels.start <= panels.end;
        assert!(is_mine, "columns of units {panels:?} from {first}, not in {:?}", self.units);
        let (start, len) = self.frame.locate::<f32>(self.instruction.outputs[i].slot);
        assert!(n > 0 && len.is_multiple_of(n), "output {i} is not [rows, {n}]");
        let columns = panels.start * PANEL_ROWS..(panels.end * PANEL_ROWS).min(n);
        // SAFETY: `start` points to `len` floats of an output (see `share_mut`). The panels are
        // units of this part, so no other part has their columns; `&mut self` makes this view the
        // only one of this part.
        unsafe { OutputColumns::from_raw(start.cast_mut(), len / n, n, columns) }
    }

    /// The columns of panels `panels` of some rows of output `i`, which is `[rows, n]`. For
    /// instructions whose units are panels.
    pub(crate) fn columns_of(
        &mut self,
        i: usize,
        n: usize,
        panels: Range<usize>,
        rows: Range<usize>,
    ) -> OutputColumns<'_> {
        let is_mine = self.units.start <= panels.start && panels.end <= self.units.end;
        assert!(
            is_mine && panels.start <= panels.end,
            "panels {panels:?}, not in {:?}",
            self.units
        );
        let (start, len) = self.frame.locate::<f32>(self.instruction.outputs[i].slot);
        assert!(n > 0 && len.is_multiple_of(n), "output {i} is not [rows, {n}]");
        assert!(rows.start <= rows.end && rows.end <= len / n, "rows {rows:?} of {}", len / n);
        let columns = panels.start * PANEL_ROWS..(panels.end * PANEL_ROWS).min(n);
        // SAFETY: `start` points to `len` floats of an output (see `share_mut`), and the rows are
        // within them. The panels are units of this part, so no other part has their columns;
        // `&mut self` makes this view the only one of this part.
        unsafe {
            let start = start.cast_mut().add(rows.start * n);
            OutputColumns::from_raw(start, rows.len(), n, columns)
        }
    }

    /// Elements of the state arena that the instruction reads.
    pub(crate) fn state<T: Pod>(&self, offset: usize, len: usize) -> &'f [T] {
        if len == 0 {
            return &[];
        }
        let start = self.state_at::<T>(offset, len);
        // SAFETY: the range is within the arena and aligned; state is written only by instructions
        // of one unit through `state_mut`, and no other instruction runs.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// Ranges of the state arena, apart from each other, for an instruction of one unit.
    pub(crate) fn state_mut<T: Pod, const N: usize>(
        &mut self,
        offsets: [usize; N],
        len: usize,
    ) -> [&mut [T]; N] {
        let units = self.instruction.units.of(self.frame.sizes);
        assert!(units == 1 && self.units == (0..1), "state is written by one thread");
        if len == 0 {
            return std::array::from_fn(|_| &mut [][..]);
        }
        let bytes = len * size_of::<T>();
        for (i, offset) in offsets.iter().enumerate() {
            let are_apart = offsets[..i].iter().all(|other| other.abs_diff(*offset) >= bytes);
            assert!(are_apart, "parts of a state overlap");
        }
        // SAFETY: the ranges are within the arena, which is exclusively borrowed, aligned, and
        // apart; this part is the only one of the only instruction that runs.
        offsets.map(|offset| unsafe {
            std::slice::from_raw_parts_mut(self.state_at::<T>(offset, len), len)
        })
    }

    /// A range of floats of the state arena and the first output, for an instruction of one unit.
    pub(crate) fn state_and_output(
        &mut self,
        offset: usize,
        len: usize,
    ) -> (&mut [f32], &mut [f32]) {
        // SAFETY: as in `write`; outputs lie in scratch or in outputs of the run, not in the arena.
        let out = unsafe { self.share_mut(0) };
        let [state] = self.state_mut::<f32, 1>([offset], len);
        (state, out)
    }

    fn state_at<T: Pod>(&self, offset: usize, len: usize) -> *mut T {
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        let is_within = end.is_some_and(|end| end <= self.frame.state_len);
        assert!(is_within && offset.is_multiple_of(align_of::<T>()), "state is out of the arena");
        // SAFETY: `offset` is within the arena.
        unsafe { self.frame.state.add(offset) }.cast()
    }
}

fn share(units: &Range<usize>, per_unit: usize, len: usize) -> Range<usize> {
    (units.start * per_unit).min(len)..(units.end * per_unit).min(len)
}
