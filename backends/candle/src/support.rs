//! Which nodes run as they are, and what values are made of.

use plugin_api::DType;
use plugin_api::kinds::backend::{NodeView, Support};
use plugin_api::plan::{NodeKind, OpId, ops};

/// How `view` would run.
pub(crate) fn support(view: &NodeView<'_>) -> Support {
    let node = view.node;
    let is_prim = |op: &OpId| ops::ALL.contains(op) && !FUSED.contains(op);
    match &node.kind {
        NodeKind::Call { .. } => return Support::No("calls of plugins need a host".to_owned()),
        NodeKind::Prim(op, _) | NodeKind::Fused { op, .. } if ops::OF_TRAINING.contains(op) => {
            return Support::No(format!("op `{op}` of training has no kernel"));
        }
        NodeKind::Prim(op, _) if !is_prim(op) => {
            return Support::No(format!("op `{op}` is not in the vocabulary"));
        }
        NodeKind::Prim(ops::ATTEND_WITHIN, _) => {
            return Support::No("attention in both directions has no kernel".to_owned());
        }
        NodeKind::Prim(ops::ATTEND, attrs)
            if node.inputs.len() > 7
                || ["chunk", "value_dim"].iter().any(|name| attrs.get(name).is_some()) =>
        {
            return Support::No("attention with sinks, chunks or values in its keys".to_owned());
        }
        NodeKind::Prim(op @ (ops::CAUSAL_CONV | ops::SELECTIVE_SCAN), _) => {
            return Support::No(format!("op `{op}` has no kernel"));
        }
        NodeKind::Fused { op, .. } if !FUSED.contains(op) => return Support::Expand,
        NodeKind::Prim(..) | NodeKind::Fused { .. } => {}
    }
    // States are values of bytes, which only `attend` takes.
    let is_state = |val| view.plan.states.iter().any(|port| port.val == val);
    for &val in node.inputs.iter().chain(&node.outputs) {
        let dtype = view.plan.spec(val).dtype;
        if carrier(dtype).is_none() && !is_state(val) {
            return Support::No(format!("values of {dtype}: computed are floats and u32"));
        }
    }
    Support::Native
}

/// What values of `dtype` are computed in: 16-bit floats are `f32` between casts.
pub(crate) fn carrier(dtype: DType) -> Option<candle_core::DType> {
    match dtype {
        DType::F64 => Some(candle_core::DType::F64),
        DType::F32 | DType::F16 | DType::BF16 => Some(candle_core::DType::F32),
        DType::U32 => Some(candle_core::DType::U32),
        _ => None,
    }
}

/// Fused ops that run whole.
const FUSED: [OpId; 5] = [ops::RMS_NORM, ops::LAYER_NORM, ops::ROPE, ops::SWIGLU, ops::GEGLU];
