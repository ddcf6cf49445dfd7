//! Which nodes run as they are.

use plugin_api::DType;
use plugin_api::kinds::backend::{NodeView, Support};
use plugin_api::plan::{NodeKind, OpId, ops};

/// How `view` would run.
pub(crate) fn support(view: &NodeView<'_>) -> Support {
    let node = view.node;
    let is_whole = |op: &OpId| FUSED.contains(op) || *op == ops::CROSS_ENTROPY;
    let is_prim = |op: &OpId| ops::ALL.contains(op) && !is_whole(op);
    match &node.kind {
        NodeKind::Call { .. } => return Support::No("calls of plugins need a host".to_owned()),
        NodeKind::Prim(op @ ops::ERF, _) => {
            return Support::No(format!("op `{op}` has no kernel"));
        }
        NodeKind::Prim(op, _) if !is_prim(op) => {
            return Support::No(format!("op `{op}` is not in the vocabulary"));
        }
        NodeKind::Fused { op, .. } if !FUSED.contains(op) => return Support::Expand,
        NodeKind::Prim(..) | NodeKind::Fused { .. } => {}
    }
    // States are values of bytes, which only ops with a state take.
    let is_state = |val| view.plan.states.iter().any(|port| port.val == val);
    for &val in node.inputs.iter().chain(&node.outputs) {
        let dtype = view.plan.spec(val).dtype;
        let is_known = matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::U32);
        if !is_known && !is_state(val) {
            return Support::No(format!("values of {dtype}: computed are f32 and indices"));
        }
    }
    let op = match &node.kind {
        NodeKind::Prim(op, _) | NodeKind::Fused { op, .. } => *op,
        NodeKind::Call { .. } => return Support::Native,
    };
    for (i, &val) in node.inputs.iter().enumerate() {
        let spec = view.plan.spec(val);
        let is_index = spec.dtype == DType::U32;
        if takes_index(op, i).is_some_and(|takes| takes != is_index) {
            return Support::No(format!("`{op}` of {spec} as argument {i}"));
        }
    }
    let axes = node.inputs.first().map_or(0, |&val| view.plan.spec(val).dims.len());
    if op == ops::TRANSPOSE && axes > AXES_MAX {
        return Support::No(format!("`{op}` of more than {AXES_MAX} axes"));
    }
    Support::Native
}

/// Whether argument `i` is of indices; `None` where the op only moves elements of any type.
fn takes_index(op: OpId, i: usize) -> Option<bool> {
    match (op, i) {
        (ops::EMBED | ops::GATHER | ops::SCATTER_ADD | ops::ROPE, 1) => Some(true),
        (ops::TAKE_ALONG | ops::SCATTER_ALONG, 1) | (ops::MATMUL_EXPERTS, 2) => Some(true),
        (ops::ATTEND, 3) | (ops::CAUSAL_CONV, 2) | (ops::SELECTIVE_SCAN, 5) => None,
        (ops::CAUSAL_CONV, 3..) | (ops::SELECTIVE_SCAN, 6..) => Some(true),
        (ops::ATTEND, 4..=6) | (ops::ATTEND_WITHIN | ops::ATTEND_WITHIN_GRAD, 3) => Some(true),
        (ops::GATHER | ops::CONCAT | ops::SLICE | ops::RESHAPE, _) => None,
        (ops::TRANSPOSE | ops::CAST, _) => None,
        _ => Some(false),
    }
}

/// Axes of a tensor that can be transposed.
const AXES_MAX: usize = 4;

/// Fused ops with a kernel of their own.
pub(crate) const FUSED: [OpId; 5] =
    [ops::RMS_NORM, ops::LAYER_NORM, ops::ROPE, ops::SWIGLU, ops::GEGLU];
