//! Which nodes run as they are.

use plugin_api::DType;
use plugin_api::kinds::backend::{NodeView, Support};
use plugin_api::plan::{NodeKind, OpId, ops};

/// How `view` would run.
pub(crate) fn support(view: &NodeView<'_>) -> Support {
    let node = view.node;
    let is_prim = |op: &OpId| ops::ALL.contains(op) && !FUSED.contains(op);
    match &node.kind {
        NodeKind::Call { .. } => return Support::No("calls of plugins need a host".to_owned()),
        NodeKind::Prim(op, _) if !is_prim(op) => {
            return Support::No(format!("op `{op}` is not in the vocabulary"));
        }
        NodeKind::Fused { op, .. } if !FUSED.contains(op) => return Support::Expand,
        NodeKind::Prim(..) | NodeKind::Fused { .. } => {}
    }
    // States are values of bytes, which only `attend` takes.
    let is_state = |val| view.plan.states.iter().any(|port| port.val == val);
    for &val in node.inputs.iter().chain(&node.outputs) {
        let dtype = view.plan.spec(val).dtype;
        let is_known = matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::U32);
        if !is_known && !is_state(val) {
            return Support::No(format!("values of {dtype}: computed are f32 and indices"));
        }
    }
    Support::Native
}

/// Fused ops with a kernel of their own.
pub(crate) const FUSED: [OpId; 5] =
    [ops::RMS_NORM, ops::LAYER_NORM, ops::ROPE, ops::SWIGLU, ops::GEGLU];
