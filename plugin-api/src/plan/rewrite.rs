//! Plans out of plans: what training makes of a plan that serves.

mod calls;
mod experts;

use super::build::PlanBuilder;
use super::ops::{self, Attrs};
use super::sink::{OpSink, OpSinkExt};
use super::{Node, NodeKind, Per, Plan, Val};
use crate::error::{Error, Result};

pub use calls::{Cut, Named, Stage, cut_at_calls};
pub use experts::with_all_experts;

/// The plan with the weights called `names` as inputs of the same names, after those it has: what
/// changes from step to step is no weight.
///
/// # Errors
///
/// [`Error::MissingWeight`] for a name without a weight.
pub fn weights_as_inputs(plan: &Plan, names: &[&str]) -> Result<Plan> {
    if let Some(name) = names.iter().find(|name| !plan.weights.iter().any(|w| w.name == **name)) {
        return Err(Error::MissingWeight { name: (*name).to_owned() });
    }
    let mut copy = Copy::new(plan);
    copy.inputs(|_| true)?;
    for port in plan.weights.iter().filter(|port| names.contains(&port.name.as_str())) {
        let val = copy.g.input(&port.name, plan.spec(port.val).clone())?;
        copy.to[port.val.index()] = Some(val);
    }
    copy.weights(|name| !names.contains(&name))?;
    copy.states()?;
    copy.nodes(|_| true)?;
    copy.finish()
}

/// The plan for whole sequences, each from its first token to its last in one step: every `attend`
/// becomes an `attend_within` that looks back only, no state is left, and inputs that only states
/// needed are gone.
///
/// # Errors
///
/// [`Error::Unsupported`] that names the state of an `attend` with a window, chunks, sinks, values in its
/// keys or a cap on its scores, and a state that something else reads.
pub fn without_states(plan: &Plan) -> Result<Plan> {
    let nodes: Vec<Node> =
        plan.nodes.iter().map(|node| without_state(plan, node)).collect::<Result<_>>()?;
    let is_read = |val: Val| {
        nodes.iter().any(|node| node.inputs.contains(&val))
            || plan.outputs.iter().any(|port| port.val == val)
    };
    if let Some(state) = plan.states.iter().find(|state| is_read(state.val)) {
        let what = format!("state `{}`", state.spec.name);
        return Err(Error::unsupported(what, "only `attend` is known without its state"));
    }
    let mut copy = Copy::new(plan);
    copy.inputs(is_read)?;
    copy.weights(|_| true)?;
    for node in &nodes {
        copy.node(node)?;
    }
    copy.finish()
}

fn without_state(plan: &Plan, node: &Node) -> Result<Node> {
    let NodeKind::Prim(ops::ATTEND, attrs) = &node.kind else { return Ok(node.clone()) };
    let [q, k, v, state, _positions, sequence_index, _block_table, ref sinks @ ..] =
        node.inputs[..]
    else {
        return Err(Error::shape(ops::ATTEND, "7 inputs", node.inputs.len()));
    };
    let (scale, softcap) = (attrs.get_float("scale")?, attrs.get_float("softcap")?);
    let Some(port) = plan.states.iter().find(|port| port.val == state) else {
        return Err(Error::malformed(ops::ATTEND, "a state", state.0));
    };
    let is_plain = sinks.is_empty()
        && attrs.get_count_or_zero("chunk")? == 0
        && attrs.get_count_or_zero("value_dim")? == 0;
    if port.spec.per != (Per::Token { window: 0 }) || softcap != 0.0 || !is_plain {
        let what = format!("attention of `{}` without its state", port.spec.name);
        let missing = "it has a window, chunks, sinks, values in its keys or a cap on its scores";
        return Err(Error::unsupported(what, missing));
    }
    let attrs = Attrs::new().float("scale", scale).int("causal", 1);
    let kind = NodeKind::Prim(ops::ATTEND_WITHIN, attrs);
    Ok(Node { kind, inputs: vec![q, k, v, sequence_index], outputs: node.outputs.clone() })
}

/// The plan with more on top: `more` is given the values of its outputs, which are outputs no longer, and
/// says what comes out instead.
///
/// # Errors
///
/// Whatever `more` returns.
pub fn continued(
    plan: &Plan,
    more: impl FnOnce(&mut PlanBuilder, &[Val]) -> Result<()>,
) -> Result<Plan> {
    let mut copy = Copy::new(plan);
    copy.inputs(|_| true)?;
    copy.weights(|_| true)?;
    copy.states()?;
    copy.nodes(|_| true)?;
    let outputs: Vec<Val> =
        plan.outputs.iter().map(|port| copy.of(port.val)).collect::<Result<_>>()?;
    more(&mut copy.g, &outputs)?;
    Ok(copy.g.finish())
}

/// The plan with its outputs joined into one more: the sum of all their elements, each times its
/// element of the input `cotangent.{output}`. Its gradient holds that of every output.
///
/// # Errors
///
/// [`Error::ShapeMismatch`] for a plan without outputs of floats.
pub fn with_weighed_sum(plan: &Plan, name: &str) -> Result<(Plan, Val)> {
    let mut copy = Copy::new(plan);
    copy.inputs(|_| true)?;
    copy.weights(|_| true)?;
    copy.states()?;
    copy.nodes(|_| true)?;
    let mut loss: Option<Val> = None;
    for port in &plan.outputs {
        let (y, spec) = (copy.of(port.val)?, plan.spec(port.val));
        if spec.dtype.is_float() {
            let cotangent = copy.g.input(&format!("cotangent.{}", port.name), spec.clone())?;
            let product = copy.g.mul(y, cotangent)?;
            let rows = copy.g.sum(product)?;
            let sum = copy.g.unary(ops::REDUCE_ROWS, rows)?;
            loss = Some(match loss {
                Some(others) => copy.g.add(others, sum)?,
                None => sum,
            });
        }
    }
    let loss = loss.ok_or_else(|| Error::shape("outputs", "some of floats", "none"))?;
    copy.outputs()?;
    copy.g.output(name, loss)?;
    let plan = copy.g.finish();
    let loss = plan.outputs.last().map_or(loss, |port| port.val);
    Ok((plan, loss))
}

/// A plan on its way into another builder.
pub(super) struct Copy<'p> {
    pub(super) g: PlanBuilder,
    plan: &'p Plan,
    /// What became of each value.
    to: Vec<Option<Val>>,
}

impl<'p> Copy<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        Self { g: PlanBuilder::trusting(), plan, to: vec![None; plan.specs.len()] }
    }

    pub(super) fn of(&self, val: Val) -> Result<Val> {
        val_of(&self.to, val)
    }

    pub(super) fn inputs(&mut self, keep: impl Fn(Val) -> bool) -> Result<()> {
        for port in self.plan.inputs.iter().filter(|port| keep(port.val)) {
            let val = self.g.input(&port.name, self.plan.spec(port.val).clone())?;
            self.to[port.val.index()] = Some(val);
        }
        Ok(())
    }

    pub(super) fn weights(&mut self, keep: impl Fn(&str) -> bool) -> Result<()> {
        for port in self.plan.weights.iter().filter(|port| keep(&port.name)) {
            let val = self.g.declare_weight(&port.name, self.plan.spec(port.val).clone())?;
            self.to[port.val.index()] = Some(val);
        }
        Ok(())
    }

    pub(super) fn states(&mut self) -> Result<()> {
        for port in &self.plan.states {
            self.to[port.val.index()] = Some(self.g.state(port.spec.clone())?);
        }
        Ok(())
    }

    /// The nodes whose place in the plan `keep` wants.
    pub(super) fn nodes(&mut self, keep: impl Fn(usize) -> bool) -> Result<()> {
        let plan = self.plan;
        plan.nodes
            .iter()
            .enumerate()
            .filter(|(at, _)| keep(*at))
            .try_for_each(|(_, n)| self.node(n))
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        copy_node(&mut self.g, self.plan, node, &mut self.to)
    }

    pub(super) fn outputs(&mut self) -> Result<()> {
        for port in &self.plan.outputs {
            let val = self.of(port.val)?;
            self.g.output(&port.name, val)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Plan> {
        self.outputs()?;
        Ok(self.g.finish())
    }

    /// The builder, and what became of each value: those that no port or node made are missing.
    pub(super) fn into_parts(self) -> (PlanBuilder, Vec<Option<Val>>) {
        (self.g, self.to)
    }
}

/// Adds a node of `plan` to `g`; `to` says what became of its inputs, and learns of its outputs.
pub(super) fn copy_node(
    g: &mut PlanBuilder,
    plan: &Plan,
    node: &Node,
    to: &mut [Option<Val>],
) -> Result<()> {
    let inputs: Vec<Val> = node.inputs.iter().map(|&val| val_of(to, val)).collect::<Result<_>>()?;
    let outputs = match &node.kind {
        NodeKind::Prim(op, attrs) => g.op(*op, &inputs, attrs.clone())?,
        NodeKind::Fused { op, attrs, expansion } => {
            g.fused(*op, &inputs, attrs.clone(), (**expansion).clone())?
        }
        NodeKind::Call { callback } => {
            let specs: Vec<_> = node.outputs.iter().map(|&val| plan.spec(val).clone()).collect();
            g.call(callback, &inputs, &specs)?
        }
    };
    for (val, output) in node.outputs.iter().zip(outputs) {
        to[val.index()] = Some(output);
    }
    Ok(())
}

pub(super) fn val_of(to: &[Option<Val>], val: Val) -> Result<Val> {
    let known = to.get(val.index()).copied().flatten();
    known.ok_or_else(|| Error::malformed("plan", "values in an order that can be run", val.0))
}
