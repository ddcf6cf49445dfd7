//! Products with the experts that tokens chose.

use crate::code::{Experts, SortChoices};
use crate::execute::product::{Rows, multiply};
use crate::frame::Part;

/// One unit. A counting sort: choices of one expert stay in their order.
pub(super) fn sort(op: &SortChoices, part: &mut Part<'_>) {
    let chosen = part.read::<u32>(op.chosen);
    let (ends, places) = part.write_both::<u32, u32>();
    ends.fill(0);
    for &expert in chosen {
        ends[expert as usize] += 1;
    }
    let mut total = 0;
    for end in &mut *ends {
        total += std::mem::replace(end, total);
    }
    // Where each expert's begin becomes where they end, while its choices take their places.
    for (place, &expert) in places.iter_mut().zip(chosen) {
        *place = ends[expert as usize];
        ends[expert as usize] += 1;
    }
    for i in 0..chosen.len() {
        let place = part.write::<u32>(1)[i] as usize;
        part.write::<u32>(2)[place] = i as u32;
        part.write::<u32>(3)[place] = (i / op.choices) as u32;
    }
}

/// The panels of this part of every expert that somebody chose.
pub(super) fn experts(op: &Experts, part: &mut Part<'_>) {
    let (isa, units) = (part.isa(), part.units());
    let ends = part.read::<u32>(op.ends);
    let (plan, bytes) = part.weight(op.weight);
    let x = Rows::of(part, plan, op.x, op.quantized, op.terms);
    let mut start = 0;
    for (bytes, &end) in bytes.chunks_exact(bytes.len() / op.experts).zip(ends) {
        let rows = start..end as usize;
        start = end as usize;
        if !rows.is_empty() {
            let mut columns = part.columns_of(0, op.n, units.clone(), rows.clone());
            multiply(isa, plan, op.n, bytes, x.part(rows, plan.cols), &mut columns);
        }
    }
}
