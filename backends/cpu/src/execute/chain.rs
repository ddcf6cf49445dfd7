//! Chains of elementwise ops: block by block, through registers that stay in the first-level cache.

use kernels_cpu::{self as kernels, Isa, Rhs};

use crate::code::{BLOCK_ELEMENTS, Chain, ChainOp, GatedKind, REGISTERS_MAX, Source, Step};
use crate::frame::Part;

pub(super) fn chain(chain: &Chain, part: &mut Part<'_>) {
    // No more than there are: they are filled with zeros first.
    match chain.registers {
        0..=2 => blocks::<2>(chain, part),
        3..=4 => blocks::<4>(chain, part),
        _ => blocks::<REGISTERS_MAX>(chain, part),
    }
}

fn blocks<const N: usize>(chain: &Chain, part: &mut Part<'_>) {
    let isa = part.isa();
    let len = part.write::<f32>(0).len();
    let mut registers = [[0.0; BLOCK_ELEMENTS]; N];
    for start in (0..len).step_by(BLOCK_ELEMENTS) {
        let count = BLOCK_ELEMENTS.min(len - start);
        for step in &chain.steps {
            run(isa, step, start, count, &mut registers, part);
            if let Some(output) = step.store {
                let out = &mut part.write::<f32>(output)[start..][..count];
                out.copy_from_slice(&registers[step.to][..count]);
            }
        }
    }
}

/// Computes one block of one step.
fn run(
    isa: Isa,
    step: &Step,
    start: usize,
    count: usize,
    registers: &mut [[f32; BLOCK_ELEMENTS]],
    part: &Part<'_>,
) {
    let (below, rest) = registers.split_at_mut(step.to);
    let Some((out, above)) = rest.split_first_mut() else { return };
    let out = &mut out[..count];
    let source = |source: Source| -> &[f32] {
        match source {
            Source::Register(i) if i < below.len() => &below[i][..count],
            Source::Register(i) => &above[i - below.len() - 1][..count],
            Source::Slot(slot) => &part.read_share(slot, BLOCK_ELEMENTS)[start..][..count],
            Source::One(slot) => part.read(slot),
            Source::None => &[],
        }
    };
    let (a, b) = (source(step.a), source(step.b));
    match step.op {
        ChainOp::Unary(op) => kernels::unary(isa, op, a, out),
        ChainOp::Scale(by) => kernels::scale(isa, a, by, out),
        ChainOp::Offset(by) => kernels::offset(isa, a, by, out),
        ChainOp::Fill(value) => out.fill(value),
        ChainOp::Gated(GatedKind::Swiglu) => kernels::swiglu(isa, a, b, out),
        ChainOp::Gated(GatedKind::Geglu) => kernels::geglu(isa, a, b, out),
        ChainOp::Binary(op) => {
            let rhs = if matches!(step.b, Source::One(_)) { Rhs::Column } else { Rhs::Same };
            kernels::elementwise(isa, op, a, b, rhs, [1, count], out);
        }
    }
}
