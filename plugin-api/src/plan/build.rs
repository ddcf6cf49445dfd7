//! The plain [`OpSink`]: collects a plan, knows no model and no plugins.

use super::fused::standard;
use super::infer::infer;
use super::ops::{Attrs, OpId};
use super::sink::{CALL_AXES_MAX, CALL_VALUES_MAX, OpSink};
use super::spec::{Spec, StateSpec, Word};
use super::{Node, NodeKind, Plan, Port, StatePort, Val};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Builds a [`Plan`] op by op.
#[derive(Debug, Default)]
pub struct PlanBuilder {
    plan: Plan,
    /// Whether expansions are taken as they come: only where they are being made.
    is_trusting: bool,
}

impl PlanBuilder {
    /// An empty plan.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty plan that takes expansions of the vocabulary's fused ops without making them again.
    pub(super) fn trusting() -> Self {
        Self { plan: Plan::default(), is_trusting: true }
    }

    /// The plan as described so far, its values numbered in the order of its text: ports first,
    /// then results. Equal descriptions give equal plans however their ports were interleaved.
    pub fn finish(self) -> Plan {
        renumbered(self.plan)
    }

    /// The plan as described so far, to look at.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Declares a weight of the model with its shape, or returns it if it was declared.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if it was declared with another shape.
    pub fn declare_weight(&mut self, name: &str, spec: Spec) -> Result<Val> {
        if let Some(port) = self.plan.weights.iter().find(|port| port.name == name) {
            return same_spec(name, &spec, self.plan.spec(port.val)).map(|()| port.val);
        }
        let val = self.value(spec);
        self.plan.weights.push(Port { name: name.to_owned(), val });
        Ok(val)
    }

    fn value(&mut self, spec: Spec) -> Val {
        let val = Val(self.plan.specs.len() as u32);
        self.plan.specs.push(spec);
        val
    }

    fn specs_of(&self, what: OpId, vals: &[Val]) -> Result<Vec<&Spec>> {
        let spec_of = |val: &Val| {
            let spec = self.plan.specs.get(val.index());
            spec.ok_or_else(|| Error::malformed(what, "a value of this plan", val.0))
        };
        vals.iter().map(spec_of).collect()
    }

    fn node(&mut self, kind: NodeKind, inputs: &[Val], results: Vec<Spec>) -> Vec<Val> {
        let outputs: Vec<Val> = results.into_iter().map(|spec| self.value(spec)).collect();
        self.plan.nodes.push(Node { kind, inputs: inputs.to_vec(), outputs: outputs.clone() });
        outputs
    }
}

impl OpSink for PlanBuilder {
    fn input(&mut self, name: &str, spec: Spec) -> Result<Val> {
        if let Some(port) = self.plan.inputs.iter().find(|port| port.name == name) {
            return same_spec(name, &spec, self.plan.spec(port.val)).map(|()| port.val);
        }
        let val = self.value(spec);
        self.plan.inputs.push(Port { name: name.to_owned(), val });
        Ok(val)
    }

    fn weight(&mut self, name: &str) -> Result<Val> {
        let port = self.plan.weights.iter().find(|port| port.name == name);
        port.map(|port| port.val).ok_or_else(|| Error::MissingWeight { name: name.to_owned() })
    }

    fn has_weight(&self, name: &str) -> bool {
        self.plan.weights.iter().any(|port| port.name == name)
    }

    fn state(&mut self, spec: StateSpec) -> Result<Val> {
        if self.plan.states.iter().any(|port| port.spec.name == spec.name) {
            return Err(Error::malformed("state", "a name used once", spec.name));
        }
        let val = self.value(Spec::new(DType::U8, []));
        self.plan.states.push(StatePort { spec, val });
        Ok(val)
    }

    fn op(&mut self, op: OpId, inputs: &[Val], attrs: Attrs) -> Result<Vec<Val>> {
        let results = infer(op, &self.specs_of(op, inputs)?, &attrs)?;
        Ok(self.node(NodeKind::Prim(op, attrs), inputs, results))
    }

    fn fused(
        &mut self,
        op: OpId,
        inputs: &[Val],
        attrs: Attrs,
        expansion: Plan,
    ) -> Result<Vec<Val>> {
        let given = self.specs_of(op, inputs)?;
        let taken: Vec<&Spec> =
            expansion.inputs.iter().map(|port| expansion.spec(port.val)).collect();
        if given != taken {
            let list = |specs: &[&Spec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>();
            return Err(Error::shape(op, list(&taken).join(", "), list(&given).join(", ")));
        }
        if !self.is_trusting
            && let Some(known) = standard(op, &given, &attrs)?
            && known != expansion
        {
            return Err(Error::malformed(op, "the expansion that the op stands for", "another"));
        }
        let results =
            expansion.outputs.iter().map(|port| expansion.spec(port.val).clone()).collect();
        let expansion = Box::new(expansion);
        Ok(self.node(NodeKind::Fused { op, attrs, expansion }, inputs, results))
    }

    fn slot(&mut self, slot: &str, _scope: &str, _inputs: &[Val]) -> Result<Vec<Val>> {
        let (kind, name) = ("slot".to_owned(), slot.to_owned());
        Err(Error::NotFound { kind, name, known: String::new() })
    }

    fn call(&mut self, callback: &str, inputs: &[Val], outputs: &[Spec]) -> Result<Vec<Val>> {
        let given = self.specs_of(Word::of("call"), inputs)?;
        check_crossing(callback, &given)?;
        check_crossing(callback, &outputs.iter().collect::<Vec<_>>())?;
        let kind = NodeKind::Call { callback: callback.to_owned() };
        Ok(self.node(kind, inputs, outputs.to_vec()))
    }

    fn output(&mut self, name: &str, val: Val) -> Result<()> {
        if self.plan.outputs.iter().any(|port| port.name == name) {
            return Err(Error::malformed("output", "a name used once", name));
        }
        self.specs_of(Word::of("output"), &[val])?;
        self.plan.outputs.push(Port { name: name.to_owned(), val });
        Ok(())
    }

    fn spec(&self, val: Val) -> &Spec {
        self.plan.spec(val)
    }
}

/// Refuses values that cannot be lent to a plugin, and more than it can be lent at a time.
fn check_crossing(callback: &str, specs: &[&Spec]) -> Result<()> {
    let what = || format!("callback `{callback}`");
    if specs.len() > CALL_VALUES_MAX {
        return Err(Error::shape(what(), format!("at most {CALL_VALUES_MAX} values"), specs.len()));
    }
    let is_fit = |spec: &Spec| {
        matches!(spec.dtype, DType::F32 | DType::U32) && spec.dims.len() <= CALL_AXES_MAX
    };
    match specs.iter().find(|spec| !is_fit(spec)) {
        None => Ok(()),
        Some(spec) => {
            Err(Error::shape(what(), format!("f32 or u32 with at most {CALL_AXES_MAX} axes"), spec))
        }
    }
}

fn same_spec(name: &str, given: &Spec, known: &Spec) -> Result<()> {
    if given == known { Ok(()) } else { Err(Error::shape(format!("`{name}`"), known, given)) }
}

fn renumbered(mut plan: Plan) -> Plan {
    let ports = plan.inputs.iter().chain(&plan.weights).map(|port| port.val);
    let states = plan.states.iter().map(|port| port.val);
    let results = plan.nodes.iter().flat_map(|node| node.outputs.iter().copied());
    let order: Vec<Val> = ports.chain(states).chain(results).collect();
    let mut number = vec![Val(0); order.len()];
    for (new, old) in order.iter().enumerate() {
        number[old.index()] = Val(new as u32);
    }
    plan.specs = order.iter().map(|val| plan.specs[val.index()].clone()).collect();
    let ports = plan.inputs.iter_mut().chain(&mut plan.weights).chain(&mut plan.outputs);
    let ports = ports.map(|port| &mut port.val);
    let states = plan.states.iter_mut().map(|port| &mut port.val);
    let nodes =
        plan.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().chain(&mut node.outputs));
    for val in ports.chain(states).chain(nodes) {
        *val = number[val.index()];
    }
    plan
}
