//! Ops of training.

use std::ops::Range;

use kernels_cpu::{self as kernels, AttendShape, GradOf, GradSpec};

use super::attention::run_around;
use crate::code::{LEFT, ROW_COLUMNS, SlotId, WithinGrad};
use crate::frame::Part;
use crate::size::Size;

pub(super) fn reduce_rows(x: SlotId, width: Size, part: &mut Part<'_>) {
    let (isa, width) = (part.isa(), width.of(part.sizes()));
    let (x, units) = (part.read(x), part.units());
    let columns = units.start * ROW_COLUMNS..(units.end * ROW_COLUMNS).min(width);
    kernels::reduce_rows(isa, x, width, columns, part.write(0));
}

pub(super) fn take_along([x, indices]: [SlotId; 2], widths: [Size; 2], part: &mut Part<'_>) {
    let widths = widths.map(|width| width.of(part.sizes()));
    let (x, indices) = (part.read_share(x, widths[0]), part.read_share(indices, widths[1]));
    kernels::take_along(x, indices, widths, part.write(0));
}

pub(super) fn scatter_along(
    [base, indices, updates]: [SlotId; 3],
    widths: [Size; 2],
    part: &mut Part<'_>,
) {
    let widths = widths.map(|width| width.of(part.sizes()));
    let (indices, updates) =
        (part.read_share(indices, widths[1]), part.read_share(updates, widths[1]));
    super::start_as::<f32>(base, widths[0], part);
    kernels::scatter_along(part.write(0), indices, updates, widths);
}

fn spec(grad: &WithinGrad) -> GradSpec {
    let of = &grad.of;
    GradSpec { scale: of.scale, is_causal: of.is_causal, shape: of.shape }
}

/// One unit is one token and one head of keys and values, with all query heads that use it.
pub(super) fn query_grad(grad: &WithinGrad, part: &mut Part<'_>) {
    let (isa, spec, of) = (part.isa(), spec(grad), &grad.of);
    let AttendShape { heads, kv_heads, head_dim } = of.shape;
    let (group, width) = (heads / kv_heads, kv_heads * head_dim);
    let sequences = part.read::<u32>(of.sequence_index);
    let [k, v] = [of.k, of.v].map(|slot| part.read::<f32>(slot));
    let [q, out_grad] =
        [of.q, grad.out_grad].map(|slot| part.read_share::<f32>(slot, group * head_dim));
    let units = part.units();
    let (q_grads, lefts) = part.write_both::<f32, f32>();
    for_each_run(sequences, &units, kv_heads, |run, of, unit| {
        let row = unit * group;
        let own = [q, out_grad].map(|x| &x[row * head_dim..]);
        let kv = [k, v].map(|x| &x[run.start * width..run.end * width]);
        let (q_grad, left) = (&mut q_grads[row * head_dim..], &mut lefts[row * LEFT..]);
        kernels::attend_within_query_grad(isa, spec, of, own, kv, q_grad, left);
    });
}

/// Units are those of [`query_grad`].
pub(super) fn key_grad(grad: &WithinGrad, part: &mut Part<'_>) {
    let (isa, spec, of) = (part.isa(), spec(grad), &grad.of);
    let AttendShape { heads, kv_heads, head_dim } = of.shape;
    let sequences = part.read::<u32>(of.sequence_index);
    let all = [of.q, grad.out_grad, grad.left].map(|slot| part.read::<f32>(slot));
    let widths = [heads * head_dim, heads * head_dim, heads * LEFT];
    let [k, v] = [of.k, of.v].map(|slot| part.read_share::<f32>(slot, head_dim));
    let units = part.units();
    let (k_grads, v_grads) = part.write_both::<f32, f32>();
    for_each_run(sequences, &units, kv_heads, |run, of, unit| {
        let all = [0, 1, 2].map(|i| &all[i][run.start * widths[i]..run.end * widths[i]]);
        let own = [k, v].map(|x| &x[unit * head_dim..]);
        let (k_grad, v_grad) = (&mut k_grads[unit * head_dim..], &mut v_grads[unit * head_dim..]);
        kernels::attend_within_key_grad(isa, spec, of, all, own, k_grad, v_grad);
    });
}

/// Calls `f` with the tokens of `units` that stand together in a sequence, head by head: the sequence, what is
/// of it, and its first unit of this part.
fn for_each_run(
    sequences: &[u32],
    units: &Range<usize>,
    kv_heads: usize,
    mut f: impl FnMut(Range<usize>, GradOf, usize),
) {
    for kv_head in 0..kv_heads {
        let token_from = |unit: usize| unit.saturating_sub(kv_head).div_ceil(kv_heads);
        let (mut token, end) = (token_from(units.start), token_from(units.end));
        while token < end {
            let run = run_around(sequences, token);
            let tokens = run.end.min(end) - token;
            let of = GradOf { kv_head, first: token - run.start, tokens };
            f(run, of, token * kv_heads + kv_head - units.start);
            token += tokens;
        }
    }
}
