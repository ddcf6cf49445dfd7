//! Joins instructions on the elements of one length into chains: a block of elements goes through all of
//! them before the next one, and what nobody else reads never reaches memory.

use kernels_cpu::Rhs;

use super::builder::Draft;
use crate::code::{
    BLOCK_ELEMENTS, Chain, ChainOp, Element, Instruction, Op, Output, Place, REGISTERS_MAX, Slot,
    SlotId, Source, Step, Units,
};
use crate::size::Size;

/// The same drafts, with runs of elementwise ones joined. Few elements in between are computed before.
pub(super) fn join(drafts: Vec<Draft>, slots: &[Slot]) -> Vec<Draft> {
    let mut joiner =
        Joiner { slots, readers: vec![0; slots.len()], done: Vec::new(), run: Vec::new() };
    for slot in drafts.iter().flat_map(|draft| &draft.reads) {
        joiner.readers[*slot] += 1;
    }
    for draft in drafts {
        joiner.add(draft);
    }
    joiner.flush();
    joiner.done
}

struct Joiner<'a> {
    slots: &'a [Slot],
    /// Instructions that read each slot.
    readers: Vec<usize>,
    done: Vec<Draft>,
    /// Elementwise, all of one length.
    run: Vec<Draft>,
}

impl Joiner<'_> {
    fn add(&mut self, draft: Draft) {
        let Some(len) = self.elements(&draft) else {
            self.flush();
            self.done.push(draft);
            return;
        };
        let is_same = self.run.last().is_none_or(|last| self.elements(last) == Some(len));
        let written = self.run.iter().flat_map(|member| &member.instruction.outputs);
        let is_apart = !written.clone().any(|output| draft.reads.contains(&output.slot));
        if is_same {
            self.run.push(draft);
        } else if is_apart && len.as_fixed().is_some_and(|len| len <= FEW) {
            self.done.push(draft);
        } else {
            self.flush();
            self.run.push(draft);
        }
    }

    /// The length of the elements that an instruction takes one by one.
    fn elements(&self, draft: &Draft) -> Option<Size> {
        let [output] = draft.instruction.outputs[..] else { return None };
        let slot = &self.slots[output.slot];
        let is_one_row =
            |units: &Units| matches!(units, Units::Count(n) if n.as_fixed() == Some(1));
        let is_flat = match &draft.instruction.op {
            Op::Unary { .. }
            | Op::Scale { .. }
            | Op::Offset { .. }
            | Op::Fill { .. }
            | Op::Gated { .. } => true,
            Op::Binary { rhs: Rhs::Same, .. } => true,
            Op::Binary { rhs: Rhs::Column, .. } => is_one_row(&draft.instruction.units),
            _ => false,
        };
        (is_flat && slot.element == Element::F32).then_some(slot.len)
    }

    /// Ends the run.
    fn flush(&mut self) {
        let mut run = std::mem::take(&mut self.run);
        while !run.is_empty() {
            let mut count = run.len();
            let chain = loop {
                match self.chain(&run[..count]) {
                    Some(draft) => break draft,
                    None => count -= 1,
                }
            };
            let rest = run.split_off(count);
            match chain {
                Joined::One => self.done.extend(run),
                Joined::Chain(draft) => self.done.push(draft),
            }
            run = rest;
        }
    }

    /// `None` if values do not fit the registers.
    fn chain(&self, run: &[Draft]) -> Option<Joined> {
        if run.len() == 1 {
            return Some(Joined::One);
        }
        let mut uses: Vec<(SlotId, usize)> = Vec::new();
        for (at, draft) in run.iter().enumerate() {
            uses.extend(draft.reads.iter().map(|slot| (*slot, at)));
        }
        let mut registers: [Option<SlotId>; REGISTERS_MAX] = [None; REGISTERS_MAX];
        let (mut steps, mut reads, mut outputs, mut unit_ns) =
            (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut used = 0;
        for (at, draft) in run.iter().enumerate() {
            let source = |slot: SlotId| -> Source {
                match registers.iter().position(|held| *held == Some(slot)) {
                    Some(register) => Source::Register(register),
                    None => Source::Slot(slot),
                }
            };
            let (op, [a, b]) = operation(&draft.instruction.op, &source);
            let from_memory = [a, b].into_iter().filter_map(|source| match source {
                Source::Slot(slot) | Source::One(slot) => Some(slot),
                Source::Register(_) | Source::None => None,
            });
            for slot in from_memory {
                if !reads.contains(&slot) {
                    reads.push(slot);
                }
            }
            // A result never takes the place of what it is computed from.
            let to = registers.iter().position(Option::is_none)?;
            used = used.max(to + 1);
            let Output { slot, .. } = draft.instruction.outputs[0];
            let inside = uses.iter().filter(|(used, _)| *used == slot).count();
            let is_kept =
                inside < self.readers[slot] || matches!(self.slots[slot].place, Place::Output(_));
            let store = is_kept.then_some(outputs.len());
            if is_kept {
                outputs.push(Output { slot, per_unit: Size::fixed(BLOCK_ELEMENTS) });
            }
            steps.push(Step { op, a, b, to, store });
            registers[to] = Some(slot);
            for held in &mut registers {
                let is_used =
                    |slot: SlotId| uses.iter().any(|(used, by)| *used == slot && *by > at);
                if held.is_some_and(|slot| !is_used(slot)) {
                    *held = None;
                }
            }
            unit_ns += match draft.instruction.units {
                Units::Blocks(_) => draft.instruction.unit_ns,
                Units::Count(_) => BLOCK_NS,
            };
        }
        let units = Units::Blocks(self.slots[run[0].instruction.outputs[0].slot].len);
        let op = Op::Chain(Box::new(Chain { steps, registers: used }));
        let instruction = Instruction { op, units, unit_ns, outputs };
        Some(Joined::Chain(Draft { instruction, reads, in_place: None }))
    }
}

enum Joined {
    /// Nothing to join it with.
    One,
    Chain(Draft),
}

/// What an instruction computes, and from what.
fn operation(op: &Op, source: &dyn Fn(SlotId) -> Source) -> (ChainOp, [Source; 2]) {
    let one = |x: &SlotId| [source(*x), Source::None];
    match op {
        Op::Unary { op, x } => (ChainOp::Unary(*op), one(x)),
        Op::Scale { x, by } => (ChainOp::Scale(*by), one(x)),
        Op::Offset { x, by } => (ChainOp::Offset(*by), one(x)),
        Op::Gated { kind, gate, up } => (ChainOp::Gated(*kind), [source(*gate), source(*up)]),
        Op::Binary { op, a, b, rhs: Rhs::Same, .. } => {
            (ChainOp::Binary(*op), [source(*a), source(*b)])
        }
        Op::Binary { op, a, b, .. } => (ChainOp::Binary(*op), [source(*a), Source::One(*b)]),
        Op::Fill { value } => (ChainOp::Fill(*value), [Source::None; 2]),
        _ => unreachable!("`elements` takes no others"),
    }
}

/// Elements that are computed before a run instead of ending it.
const FEW: usize = 64;
/// Rough time of a block of one op, in nanoseconds.
const BLOCK_NS: usize = 150;
