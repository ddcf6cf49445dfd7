//! Gradient plans: from a plan with a loss, the plan that computes the loss and how it changes with
//! each parameter.
//!
//! Reverse mode: from the loss backwards, each node passes on to its inputs what its results got.
//! One rule for each primitive, in `gradient/`; a fused node has one of its own or that of its
//! expansion, whose values are computed again rather than kept. What cannot be differentiated is
//! refused by name: nothing is cut silently.

mod attention;
mod elementwise;
mod moves;
mod products;
mod rows;
mod whole;

use std::collections::BTreeMap;

use thiserror::Error;

use super::build::PlanBuilder;
use super::ops::{self, Attrs, OpId};
use super::rewrite::{Copy, copy_node, val_of};
use super::sink::{OpSink, OpSinkExt};
use super::spec::Dim;
use super::{Node, NodeKind, Plan, Val};
use crate::error::{Error, Result};

/// A parameter: the name of a weight or an input of floats.
pub type ParamId<'a> = &'a str;

/// Why a plan has no gradient.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum NoGradient {
    /// The loss is not one number.
    #[error("loss %{val}: expected one float, found {found}")]
    Loss {
        /// The value in the plan.
        val: u32,
        /// Its spec.
        found: String,
    },

    /// There is nothing to differentiate by under this name.
    #[error("parameter `{param}`: expected a weight or an input of floats, found none")]
    NotAParam {
        /// The name.
        param: String,
    },

    /// The loss does not depend on a parameter, or through indices only: training it would be
    /// silent nonsense.
    #[error("parameter `{param}`: the loss does not depend on it")]
    Unreachable {
        /// The name.
        param: String,
    },

    /// A node between a parameter and the loss has no rule.
    #[error("%{val} = {node}: no gradient: {why}")]
    Node {
        /// Its first result in the plan.
        val: u32,
        /// The op, or the callback that is called.
        node: String,
        /// What is missing and, where known, what to do.
        why: String,
    },

    /// The plan itself does not hold together.
    #[error(transparent)]
    Plan(#[from] Error),
}

/// The name of the output that holds the gradient by `param`.
pub fn gradient_of(param: ParamId<'_>) -> String {
    format!("grad.{param}")
}

/// The plan that computes what `plan` does and, as further outputs called
/// [`grad.{param}`](gradient_of) with the shape of the parameter, the derivative of `loss` by
/// each parameter of `wrt`.
///
/// `loss` is a value of one element, `[1]` or `[1, 1]`: a sum or mean over tokens is a
/// `reduce_rows`. Inputs, weights and states stay as they are, forward nodes too. Where `max`,
/// `min` or `reduce_max` has equals, the second operand gets the gradient, or the equals share it.
///
/// # Errors
///
/// [`NoGradient`] that names the node or the parameter.
///
/// # Source
///
/// Griewank and Walther, "Evaluating Derivatives", 2nd edition, section 3.2.
pub fn gradient(plan: &Plan, loss: Val, wrt: &[ParamId<'_>]) -> Result<Plan, NoGradient> {
    check_loss(plan, loss)?;
    let params: Vec<Val> = wrt.iter().map(|param| find(plan, param)).collect::<Result<_, _>>()?;
    let mut copy = Copy::new(plan);
    copy.inputs(|_| true)?;
    copy.weights(|_| true)?;
    copy.states()?;
    copy.nodes(|_| true)?;
    copy.outputs()?;
    let num_forward = plan.nodes.len();
    let (g, to) = copy.into_parts();
    let mut backward = Backward { g, grads: BTreeMap::new(), inside: None };
    let loss = val_of(&to, loss)?;
    let one = backward.g.full_like(loss, 1.0)?;
    backward.grads.insert(loss, one);
    let mut is_active = vec![false; plan.specs.len()];
    params.iter().for_each(|val| is_active[val.index()] = true);
    backward.walk(plan, &to, is_active)?;
    for (param, val) in wrt.iter().zip(params) {
        let grad = backward.grads.get(&val_of(&to, val)?);
        let grad = grad.ok_or_else(|| NoGradient::Unreachable { param: (*param).to_owned() })?;
        backward.g.output(&gradient_of(param), *grad)?;
    }
    Ok(without_dead_nodes(&backward.g.finish(), num_forward)?)
}

fn check_loss(plan: &Plan, loss: Val) -> Result<(), NoGradient> {
    let spec = plan.specs.get(loss.index());
    let is_one = spec.is_some_and(|spec| {
        spec.dtype.is_float() && spec.dims.iter().all(|dim| *dim == Dim::Fixed(1))
    });
    let found = || spec.map_or_else(|| "no value".to_owned(), ToString::to_string);
    if is_one { Ok(()) } else { Err(NoGradient::Loss { val: loss.0, found: found() }) }
}

fn find(plan: &Plan, param: ParamId<'_>) -> Result<Val, NoGradient> {
    let mut ports = plan.weights.iter().chain(&plan.inputs);
    let port = ports.find(|port| port.name == param && plan.spec(port.val).dtype.is_float());
    let missing = || NoGradient::NotAParam { param: param.to_owned() };
    port.map(|port| port.val).ok_or_else(missing)
}

/// A gradient plan while it is made.
struct Backward {
    g: PlanBuilder,
    /// The sum so far of what each value got.
    grads: BTreeMap<Val, Val>,
    /// The node whose expansion is being walked.
    inside: Option<(u32, OpId)>,
}

impl Backward {
    /// Walks the nodes of `plan` from the last to the first. `to` says where its values lie in the
    /// builder, `is_active` which of its ports are differentiated by.
    fn walk(
        &mut self,
        plan: &Plan,
        to: &[Option<Val>],
        mut is_active: Vec<bool>,
    ) -> Result<(), NoGradient> {
        for node in &plan.nodes {
            if node.inputs.iter().any(|val| is_active[val.index()]) && !is_flat(node) {
                let floats = node.outputs.iter().filter(|&&val| plan.spec(val).dtype.is_float());
                floats.for_each(|val| is_active[val.index()] = true);
            }
        }
        for node in plan.nodes.iter().rev() {
            if !node.outputs.iter().any(|val| is_active[val.index()]) {
                continue;
            }
            let vals = |vals: &[Val]| -> Result<Vec<Val>> {
                vals.iter().map(|&val| val_of(to, val)).collect()
            };
            let (inputs, outputs) = (vals(&node.inputs)?, vals(&node.outputs)?);
            let grads: Vec<Option<Val>> =
                outputs.iter().map(|val| self.grads.get(val).copied()).collect();
            if grads.iter().all(Option::is_none) {
                continue;
            }
            let wants: Vec<bool> = node.inputs.iter().map(|val| is_active[val.index()]).collect();
            self.node(node, &inputs, &outputs, &grads, &wants)?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        node: &Node,
        inputs: &[Val],
        outputs: &[Val],
        grads: &[Option<Val>],
        wants: &[bool],
    ) -> Result<(), NoGradient> {
        let at = node.outputs.first().map_or(0, |val| val.0);
        match &node.kind {
            NodeKind::Prim(op, attrs) => {
                let grad = grads.iter().copied().flatten().next();
                let (Some(grad), Some(&y)) = (grad, outputs.first()) else { return Ok(()) };
                let call = Call { op: *op, attrs, x: inputs, y, outputs, grad, wants };
                if call.rule(self)? { Ok(()) } else { Err(self.refusal(at, *op)) }
            }
            NodeKind::Fused { op, attrs, expansion } => {
                if let (&[y], &[Some(grad)]) = (outputs, grads) {
                    let call = Call { op: *op, attrs, x: inputs, y, outputs, grad, wants };
                    if call.whole(self)? {
                        return Ok(());
                    }
                }
                let outer = self.inside;
                self.inside = outer.or(Some((at, *op)));
                self.expansion(expansion, inputs, grads, wants)?;
                self.inside = outer;
                Ok(())
            }
            NodeKind::Call { callback } => Err(NoGradient::Node {
                val: at,
                node: format!("call `{callback}`"),
                why: "plugins that are called at run time have none".to_owned(),
            }),
        }
    }

    /// The rule of a fused node that has none of its own: computes the values of its expansion
    /// again and walks that.
    fn expansion(
        &mut self,
        expansion: &Plan,
        inputs: &[Val],
        grads: &[Option<Val>],
        wants: &[bool],
    ) -> Result<(), NoGradient> {
        let mut to = vec![None; expansion.specs.len()];
        let mut is_active = vec![false; expansion.specs.len()];
        for (port, (&val, &is_wanted)) in expansion.inputs.iter().zip(inputs.iter().zip(wants)) {
            (to[port.val.index()], is_active[port.val.index()]) = (Some(val), is_wanted);
        }
        for node in &expansion.nodes {
            copy_node(&mut self.g, expansion, node, &mut to)?;
        }
        for (port, grad) in expansion.outputs.iter().zip(grads) {
            if let Some(grad) = grad {
                self.give(val_of(&to, port.val)?, *grad)?;
            }
        }
        self.walk(expansion, &to, is_active)
    }

    /// Adds `grad` to what `val` got so far.
    fn give(&mut self, val: Val, grad: Val) -> Result<()> {
        let (expected, found) = (self.g.spec(val), self.g.spec(grad));
        if expected != found {
            return Err(Error::shape("gradient", expected, found));
        }
        let sum = match self.grads.get(&val) {
            Some(&others) => self.g.add(others, grad)?,
            None => grad,
        };
        self.grads.insert(val, sum);
        Ok(())
    }

    fn refusal(&self, at: u32, op: OpId) -> NoGradient {
        let why = match op {
            ops::ATTEND => "it reads a state; training computes `attend_within`",
            ops::CAUSAL_CONV | ops::SELECTIVE_SCAN => "nothing trains what keeps a state",
            ops::ATTEND_WITHIN_GRAD => "second derivatives of attention are not known",
            _ => "the op has no rule",
        };
        let (val, node) = match self.inside {
            Some((at, whole)) => (at, format!("{whole}, in it {op}")),
            None => (at, op.to_string()),
        };
        NoGradient::Node { val, node, why: why.to_owned() }
    }
}

/// Whether the results of a node do not change with its inputs, but at single points.
fn is_flat(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Prim(ops::IS_POSITIVE | ops::FULL_LIKE, _))
}

/// One node with all that its rule reads. A rule describes the gradient of each input that is
/// wanted.
struct Call<'a> {
    op: OpId,
    attrs: &'a Attrs,
    /// Its inputs.
    x: &'a [Val],
    /// Its first result.
    y: Val,
    /// All of its results.
    outputs: &'a [Val],
    /// What its only result of floats got.
    grad: Val,
    /// Which inputs are differentiated by.
    wants: &'a [bool],
}

impl Call<'_> {
    /// Runs the rule of a primitive; whether there is one.
    fn rule(&self, b: &mut Backward) -> Result<bool> {
        Ok(self.elementwise(b)?
            || self.by_row(b)?
            || self.moved(b)?
            || self.product(b)?
            || self.attention(b)?)
    }

    /// Gives input `i` the gradient that `rule` describes, if it is wanted.
    fn give(
        &self,
        b: &mut Backward,
        i: usize,
        rule: impl FnOnce(&mut PlanBuilder) -> Result<Val>,
    ) -> Result<()> {
        if self.wants.get(i) == Some(&true) {
            let grad = rule(&mut b.g)?;
            b.give(self.x[i], grad)?;
        }
        Ok(())
    }
}

/// The plan without those nodes after the first `num_forward` whose results nobody reads.
fn without_dead_nodes(plan: &Plan, num_forward: usize) -> Result<Plan> {
    let mut is_read = vec![false; plan.specs.len()];
    plan.outputs.iter().for_each(|port| is_read[port.val.index()] = true);
    let mut is_live = vec![true; plan.nodes.len()];
    for (at, node) in plan.nodes.iter().enumerate().rev() {
        is_live[at] = at < num_forward || node.outputs.iter().any(|val| is_read[val.index()]);
        if is_live[at] {
            node.inputs.iter().for_each(|val| is_read[val.index()] = true);
        }
    }
    let mut copy = Copy::new(plan);
    copy.inputs(|_| true)?;
    copy.weights(|_| true)?;
    copy.states()?;
    copy.nodes(|at| is_live[at])?;
    copy.outputs()?;
    Ok(copy.into_parts().0.finish())
}
