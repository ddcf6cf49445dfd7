//! Which nodes run as they are, which as their expansion, and what stands against the others.

use plugin_api::DType;
use plugin_api::kinds::backend::{NodeView, Support};
use plugin_api::plan::{NodeKind, Plan};

use crate::op::Op;

/// How `view` would run.
pub(crate) fn support(view: &NodeView<'_>) -> Support {
    let node = view.node;
    let op = match (Op::of(&node.kind), &node.kind) {
        (Err(error), _) => return Support::No(error.to_string()),
        (Ok(Some(op)), _) => op,
        (Ok(None), NodeKind::Fused { expansion, .. }) => return expanded(expansion),
        (Ok(None), NodeKind::Call { .. }) => {
            return Support::No("calls of plugins need a host".to_owned());
        }
        (Ok(None), NodeKind::Prim(op, _)) => {
            return Support::No(format!("op `{op}` has no kernel"));
        }
    };
    if (node.inputs.len(), node.outputs.len()) != (op.num_inputs(), 1) {
        return Support::No(format!("expected {} inputs and 1 result", op.num_inputs()));
    }
    for (i, &val) in node.inputs.iter().chain(&node.outputs).enumerate() {
        let expected = if op.indices() == Some(i) { DType::U32 } else { DType::F32 };
        let found = view.plan.spec(val).dtype;
        if found != expected {
            return Support::No(format!("values of {found}: expected {expected} there"));
        }
    }
    Support::Native
}

fn expanded(expansion: &Plan) -> Support {
    if !expansion.weights.is_empty() || !expansion.states.is_empty() {
        return Support::No("an expansion with weights or states of its own".to_owned());
    }
    for node in &expansion.nodes {
        if let Support::No(missing) = support(&NodeView { plan: expansion, node }) {
            return Support::No(format!("in its expansion, {missing}"));
        }
    }
    Support::Expand
}
