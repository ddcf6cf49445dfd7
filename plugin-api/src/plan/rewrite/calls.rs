//! Plans with calls as what runs between the calls.

use super::Copy;
use crate::error::Result;
use crate::plan::sink::OpSink;
use crate::plan::{NodeKind, Plan, Spec, Val};

/// A plan cut at its calls: what runs one after the other.
///
/// Values that live across a cut have names: that of the step's input, or `%` and their number in the whole
/// plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    /// In the order in which they run.
    pub stages: Vec<Stage>,
    /// The value behind each output of the plan.
    pub outputs: Vec<Named>,
}

/// What runs at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// What a backend runs: of inputs, weights and states it has those that it reads.
    Run(Plan),
    /// What a plugin computes.
    Call {
        /// The callback, as the plan names it.
        callback: String,
        /// What it reads.
        inputs: Vec<Named>,
        /// What it writes.
        outputs: Vec<Named>,
    },
}

/// A value that lives across a cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// What every stage calls it.
    pub name: String,
    /// Its shape and dtype.
    pub spec: Spec,
}

/// The plan cut at its calls; what runs between two calls is one stage. A plan without calls is one stage.
///
/// # Errors
///
/// [`Error::Malformed`](crate::Error::Malformed) for nodes in an order that cannot run, and for calls that
/// read a weight or a state: those lie as the backend has them.
pub fn cut_at_calls(plan: &Plan) -> Result<Cut> {
    let mut stages = Vec::new();
    let mut rest = 0;
    for (at, node) in plan.nodes.iter().enumerate() {
        let NodeKind::Call { callback } = &node.kind else { continue };
        stages.extend(between(plan, rest, at)?);
        let named = |vals: &[Val]| -> Result<Vec<Named>> {
            vals.iter().map(|&val| crossing(plan, val)).collect()
        };
        let (inputs, outputs) = (named(&node.inputs)?, named(&node.outputs)?);
        stages.push(Stage::Call { callback: callback.clone(), inputs, outputs });
        rest = at + 1;
    }
    stages.extend(between(plan, rest, plan.nodes.len())?);
    let outputs = plan.outputs.iter().map(|port| crossing(plan, port.val));
    Ok(Cut { stages, outputs: outputs.collect::<Result<_>>()? })
}

/// The nodes from `from` to `to` as a plan of their own.
fn between(plan: &Plan, from: usize, to: usize) -> Result<Option<Stage>> {
    let nodes = &plan.nodes[from..to];
    if nodes.is_empty() {
        return Ok(None);
    }
    let mut copy = Copy::new(plan);
    let is_read = |val: Val| nodes.iter().any(|node| node.inputs.contains(&val));
    copy.inputs(is_read)?;
    for &val in plan.nodes[..from].iter().flat_map(|node| &node.outputs) {
        if is_read(val) {
            let Named { name, spec } = crossing(plan, val)?;
            copy.to[val.index()] = Some(copy.g.input(&name, spec)?);
        }
    }
    let weight =
        |name: &str| plan.weights.iter().any(|port| port.name == name && is_read(port.val));
    copy.weights(weight)?;
    for port in plan.states.iter().filter(|port| is_read(port.val)) {
        copy.to[port.val.index()] = Some(copy.g.state(port.spec.clone())?);
    }
    copy.nodes(|at| (from..to).contains(&at))?;
    let is_wanted = |val: Val| {
        plan.nodes[to..].iter().any(|node| node.inputs.contains(&val))
            || plan.outputs.iter().any(|port| port.val == val)
    };
    for &val in nodes.iter().flat_map(|node| &node.outputs).filter(|&&val| is_wanted(val)) {
        let own = copy.of(val)?;
        copy.g.output(&crossing(plan, val)?.name, own)?;
    }
    Ok(Some(Stage::Run(copy.g.finish())))
}

/// What a value is called on both sides of a cut.
fn crossing(plan: &Plan, val: Val) -> Result<Named> {
    let spec = plan.spec(val).clone();
    let weight = plan.weights.iter().find(|port| port.val == val).map(|port| &port.name);
    let state = plan.states.iter().find(|port| port.val == val).map(|port| &port.spec.name);
    if let Some(held) = weight.or(state) {
        let expected = "values that ops make: weights and states lie as the backend has them";
        return Err(crate::Error::malformed("call", expected, held));
    }
    let input = plan.inputs.iter().find(|port| port.val == val);
    let name = input.map_or_else(|| format!("%{}", val.0), |port| port.name.clone());
    Ok(Named { name, spec })
}
