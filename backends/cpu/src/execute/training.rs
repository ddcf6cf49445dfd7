//! Ops of training.

use kernels_cpu::{self as kernels, GradSpec};

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
    let kv_heads = of.shape.kv_heads;
    let (heads, width) = (of.shape.heads / kv_heads, kv_heads * of.shape.head_dim);
    let group = heads * of.shape.head_dim;
    let sequences = part.read::<u32>(of.sequence_index);
    let [k, v] = [of.k, of.v].map(|slot| part.read::<f32>(slot));
    let [q, out_grad] = [of.q, grad.out_grad].map(|slot| part.read_share::<f32>(slot, group));
    let units = part.units();
    let (q_grads, lefts) = part.write_both::<f32, f32>();
    let mut run = 0..0;
    for (i, unit) in units.enumerate() {
        let (token, kv_head) = (unit / kv_heads, unit % kv_heads);
        if !run.contains(&token) {
            run = run_around(sequences, token);
        }
        let own = [q, out_grad].map(|x| &x[i * group..][..group]);
        let kv = [k, v].map(|x| &x[run.start * width..run.end * width]);
        let q_grad = &mut q_grads[i * group..][..group];
        let left = &mut lefts[i * LEFT * heads..][..LEFT * heads];
        let token = token - run.start;
        kernels::attend_within_query_grad(isa, spec, kv_head, token, own, kv, q_grad, left);
    }
}

/// Units are those of [`query_grad`].
pub(super) fn key_grad(grad: &WithinGrad, part: &mut Part<'_>) {
    let (isa, spec, of) = (part.isa(), spec(grad), &grad.of);
    let (kv_heads, head_dim) = (of.shape.kv_heads, of.shape.head_dim);
    let (wide, heads) = (of.shape.heads * head_dim, of.shape.heads);
    let sequences = part.read::<u32>(of.sequence_index);
    let [q, out_grad, left] = [of.q, grad.out_grad, grad.left].map(|slot| part.read::<f32>(slot));
    let [k, v] = [of.k, of.v].map(|slot| part.read_share::<f32>(slot, head_dim));
    let units = part.units();
    let (k_grads, v_grads) = part.write_both::<f32, f32>();
    let mut run = 0..0;
    for (i, unit) in units.enumerate() {
        let (token, kv_head) = (unit / kv_heads, unit % kv_heads);
        if !run.contains(&token) {
            run = run_around(sequences, token);
        }
        let all = [
            &q[run.start * wide..run.end * wide],
            &out_grad[run.start * wide..run.end * wide],
            &left[run.start * LEFT * heads..run.end * LEFT * heads],
        ];
        let own = [k, v].map(|x| &x[i * head_dim..][..head_dim]);
        let k_grad = &mut k_grads[i * head_dim..][..head_dim];
        let v_grad = &mut v_grads[i * head_dim..][..head_dim];
        let token = token - run.start;
        kernels::attend_within_key_grad(isa, spec, kv_head, token, all, own, k_grad, v_grad);
    }
}
