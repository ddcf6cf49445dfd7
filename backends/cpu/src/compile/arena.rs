//! Gives every value its place in scratch memory: values that are alive together lie apart.

use plugin_api::{Error, Result};

use super::builder::Draft;
use crate::code::{Instruction, Place, Slot, SlotId};
use crate::size::Symbols;

/// Places begin at multiples of this many bytes.
const LINE_BYTES: usize = 64;

/// From the instruction that writes a value to the last one that reads it, and its size.
#[derive(Debug, Clone, Copy)]
struct Life {
    first: usize,
    last: usize,
    bytes: usize,
}

/// Places all scratch slots. Returns the slots, the instructions and the bytes of scratch memory.
pub(super) fn place(
    mut slots: Vec<Slot>,
    drafts: Vec<Draft>,
    symbols: &Symbols,
) -> Result<(Vec<Slot>, Vec<Instruction>, usize)> {
    let mut lives = lives(&slots, &drafts, symbols)?;
    let homes = share_homes(&slots, &drafts, &mut lives);
    let mut placed: Vec<(SlotId, usize)> = Vec::new();
    let mut end = LINE_BYTES;
    for slot in 0..slots.len() {
        let (Some(life), true) = (lives[slot], homes[slot] == slot) else { continue };
        let mut taken: Vec<_> = placed
            .iter()
            .filter_map(|&(other, start)| Some((lives[other]?, start)))
            .filter(|(other, _)| other.first <= life.last && life.first <= other.last)
            .map(|(other, start)| (start, start + other.bytes))
            .collect();
        taken.sort_unstable();
        let mut start = 0;
        for (from, to) in taken {
            if start + life.bytes <= from {
                break;
            }
            start = start.max(to);
        }
        placed.push((slot, start));
        end = end.max(start + life.bytes);
        slots[slot].place = Place::Scratch(start);
    }
    for slot in 0..slots.len() {
        if lives[slot].is_some() {
            slots[slot].place = slots[homes[slot]].place;
        }
    }
    assert_apart(&slots, &lives, &homes);
    assert_writable(&slots, &drafts);
    let instructions = drafts.into_iter().map(|draft| draft.instruction).collect();
    Ok((slots, instructions, end))
}

/// The lives of scratch slots; `None` for others and for slots that are never written.
fn lives(slots: &[Slot], drafts: &[Draft], symbols: &Symbols) -> Result<Vec<Option<Life>>> {
    let mut lives: Vec<Option<Life>> = vec![None; slots.len()];
    for (at, draft) in drafts.iter().enumerate() {
        let written = draft.instruction.outputs.iter().map(|output| output.slot);
        for slot in draft.reads.iter().copied().chain(written) {
            let Slot { place: Place::Scratch(_), element, len } = slots[slot] else { continue };
            let bytes = symbols.max(&len).and_then(|len| len.checked_mul(element.size_bytes()));
            let bytes = bytes.and_then(|bytes| bytes.max(1).checked_next_multiple_of(LINE_BYTES));
            let bytes =
                bytes.ok_or_else(|| Error::unsupported("plan", "sizes that fit into memory"))?;
            let life = lives[slot].get_or_insert(Life { first: at, last: at, bytes });
            life.last = at;
        }
    }
    Ok(lives)
}

/// Which slot's place each one takes: its own, or that of what it is computed from in place.
fn share_homes(slots: &[Slot], drafts: &[Draft], lives: &mut [Option<Life>]) -> Vec<SlotId> {
    let mut homes: Vec<SlotId> = (0..slots.len()).collect();
    for (at, draft) in drafts.iter().enumerate() {
        let (Some(from), Some(output)) = (draft.in_place, draft.instruction.outputs.first()) else {
            continue;
        };
        let (home, to) = (homes[from], output.slot);
        let (Some(old), Some(new)) = (lives[home], lives[to]) else { continue };
        let others = draft.reads.iter().filter(|read| homes[**read] == home).count();
        let is_free = old.last == at && others == 1 && new.first == at && old.bytes == new.bytes;
        if is_free && slots[from].len == slots[to].len {
            homes[to] = home;
            lives[home] = Some(Life { last: new.last, ..old });
        }
    }
    homes
}

/// The first rule that `frame` relies on.
fn assert_apart(slots: &[Slot], lives: &[Option<Life>], homes: &[SlotId]) {
    let mut all = Vec::new();
    for (slot, life) in lives.iter().enumerate() {
        if let (Some(life), Place::Scratch(start)) = (life, slots[slot].place)
            && homes[slot] == slot
        {
            all.push((*life, start));
        }
    }
    for (i, (a, a_start)) in all.iter().enumerate() {
        for (b, b_start) in &all[..i] {
            let is_apart_in_time = a.last < b.first || b.last < a.first;
            let is_apart = a_start + a.bytes <= *b_start || b_start + b.bytes <= *a_start;
            assert!(is_apart_in_time || is_apart, "values that are alive together overlap");
        }
    }
}

/// Instructions write scratch memory and outputs, and no two of their outputs are one.
fn assert_writable(slots: &[Slot], drafts: &[Draft]) {
    for draft in drafts {
        let outputs = &draft.instruction.outputs;
        for (i, output) in outputs.iter().enumerate() {
            let place = slots[output.slot].place;
            let is_writable = matches!(place, Place::Scratch(_) | Place::Output(_));
            assert!(is_writable, "an instruction writes {place:?}");
            let is_twice = outputs[..i].iter().any(|other| slots[other.slot].place == place);
            assert!(!is_twice, "an instruction writes {place:?} twice");
        }
    }
}
