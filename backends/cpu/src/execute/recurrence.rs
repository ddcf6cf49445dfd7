//! Ops whose state is kept per sequence, token by token. Positions and blocks have been checked.

use kernels_cpu::{causal_conv, selective_scan};

use crate::code::{Recurrence, RecurrentStep};
use crate::frame::Part;

/// One unit: a token goes on from the one before. The state of a block is worked on in place; the first token
/// of a block copies that of the block before.
pub(super) fn recur(op: &Recurrence, part: &mut Part<'_>) {
    let (isa, width) = (part.isa(), op.blocks_per_seq.of(part.sizes()));
    let positions = part.read::<u32>(op.positions);
    let sequences = part.read::<u32>(op.sequence_index);
    let table = part.read::<u32>(op.block_table);
    let step = op.step;
    let x = part.read::<f32>(match step {
        RecurrentStep::CausalConv { x, .. } | RecurrentStep::SelectiveScan { x, .. } => x,
    });
    let rest = match step {
        RecurrentStep::CausalConv { w, .. } => [w, w, w, w],
        RecurrentStep::SelectiveScan { dt, a, b, c, .. } => [dt, a, b, c],
    };
    let [second, a, b, c] = rest.map(|slot| part.read::<f32>(slot));
    let channels = x.len().checked_div(positions.len()).unwrap_or(0);
    let n = b.len().checked_div(positions.len()).unwrap_or(0);
    let (states, out) = part.state_and_output(op.offset, op.len);
    for (t, (&position, &sequence)) in positions.iter().zip(sequences).enumerate() {
        let place = position as usize;
        let block_of = |place: usize| {
            let entry = sequence as usize * width + place / op.block_size;
            table[entry] as usize * op.size
        };
        let own = block_of(place);
        if place == 0 {
            states[own..][..op.size].fill(0.0);
        } else if place.is_multiple_of(op.block_size) {
            let before = block_of(place - 1);
            states.copy_within(before..before + op.size, own);
        }
        let state = &mut states[own..][..op.size];
        let (row, of_n) = (t * channels..(t + 1) * channels, t * n..(t + 1) * n);
        let (x, out) = (&x[row.clone()], &mut out[row.clone()]);
        match step {
            RecurrentStep::CausalConv { .. } => causal_conv(x, second, state, out),
            RecurrentStep::SelectiveScan { .. } => {
                let read = [&b[of_n.clone()], &c[of_n]];
                selective_scan(isa, [x, &second[row]], a, read, state, out);
            }
        }
    }
}
