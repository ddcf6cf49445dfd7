//! Walks the nodes of a plan, expansions inlined.

use plugin_api::kinds::backend::{NodeView, Support};
use plugin_api::plan::{Attrs, NodeKind, OpId, Plan, Spec, Val, ops};
use plugin_api::{Error, Result};

use super::builder::{Builder, SortedRows, Value, element_of};
use crate::code::{Place, SlotId};
use crate::support::support;

/// One node with everything around it.
pub(super) struct Call<'c> {
    pub(super) op: OpId,
    pub(super) attrs: &'c Attrs,
    pub(super) args: Vec<Value>,
    pub(super) specs: Vec<&'c Spec>,
    pub(super) results: Vec<&'c Spec>,
}

impl Call<'_> {
    pub(super) fn arg(&self, i: usize) -> Result<Value> {
        let arg = self.args.get(i).copied();
        arg.ok_or_else(|| Error::shape(self.op, format!("argument {i}"), "fewer"))
    }

    pub(super) fn spec(&self, i: usize) -> Result<&Spec> {
        let spec = self.specs.get(i).copied();
        spec.ok_or_else(|| Error::shape(self.op, format!("argument {i}"), "fewer"))
    }

    pub(super) fn result(&self, i: usize) -> Result<&Spec> {
        let spec = self.results.get(i).copied();
        spec.ok_or_else(|| Error::shape(self.op, format!("result {i}"), "fewer"))
    }

    pub(super) fn float(&self, name: &str) -> Result<f32> {
        Ok(self.attrs.get_float(name)? as f32)
    }
}

impl Builder<'_> {
    /// Adds the whole plan with its inputs and outputs.
    pub(super) fn plan(&mut self, plan: &Plan) -> Result<()> {
        let mut given = Vec::new();
        for (i, port) in plan.inputs.iter().enumerate() {
            let spec = plan.spec(port.val);
            let len = self.symbols.len(spec)?;
            given.push((port.val, Value::Slot(self.slot(Place::Input(i), element_of(spec)?, len))));
        }
        let weights = plan.weights.iter().enumerate();
        given.extend(weights.map(|(i, port)| (port.val, Value::Weight(i))));
        let states = plan.states.iter().enumerate();
        given.extend(states.map(|(i, port)| (port.val, Value::State(i))));
        let results = self.nodes(plan, &given)?;
        for (i, value) in results.into_iter().enumerate() {
            let slot = self.dense(value)?;
            match self.slots[slot].place {
                Place::Scratch(_) => self.slots[slot].place = Place::Output(i),
                _ => self.copy(slot, Place::Output(i)),
            }
        }
        Ok(())
    }

    /// Adds the nodes of a plan whose ports are `given`; returns its outputs.
    fn nodes(&mut self, plan: &Plan, given: &[(Val, Value)]) -> Result<Vec<Value>> {
        let mut values: Vec<Option<Value>> = vec![None; plan.specs.len()];
        given.iter().for_each(|(val, value)| values[val.index()] = Some(*value));
        let value_of = |values: &[Option<Value>], val: Val| {
            let value = values.get(val.index()).copied().flatten();
            value.ok_or_else(|| Error::malformed("plan", "an order that can be run", val.0))
        };
        for node in &plan.nodes {
            let args: Result<Vec<_>> =
                node.inputs.iter().map(|&val| value_of(&values, val)).collect();
            let args = args?;
            let specs = node.inputs.iter().map(|&val| plan.spec(val)).collect();
            let results = node.outputs.iter().map(|&val| plan.spec(val)).collect();
            let results = match (&node.kind, support(&NodeView { plan, node })) {
                (NodeKind::Prim(op, attrs), Support::Native)
                | (NodeKind::Fused { op, attrs, .. }, Support::Native) => {
                    self.call(&Call { op: *op, attrs, args, specs, results })?
                }
                (NodeKind::Fused { op, expansion, .. }, Support::Expand) => {
                    if expansion.inputs.len() != args.len() || !expansion.weights.is_empty() {
                        return Err(Error::malformed(op, "an expansion of its inputs", "another"));
                    }
                    let ports = expansion.inputs.iter().map(|port| port.val);
                    self.nodes(expansion, &ports.zip(args).collect::<Vec<_>>())?
                }
                (_, Support::No(missing)) => return Err(Error::unsupported("node", missing)),
                _ => return Err(Error::unsupported("node", "a kernel or an expansion")),
            };
            if results.len() != node.outputs.len() {
                return Err(Error::malformed("node", node.outputs.len(), results.len()));
            }
            for (val, value) in node.outputs.iter().zip(results) {
                self.expect_len(plan.spec(*val), value)?;
                values[val.index()] = Some(value);
            }
        }
        plan.outputs.iter().map(|port| value_of(&values, port.val)).collect()
    }

    /// A result has the size that the plan says: memory is bound and laid out by it.
    fn expect_len(&self, spec: &Spec, value: Value) -> Result<()> {
        match value {
            Value::Slot(slot)
                if self.slots[slot].len == self.symbols.len(spec)?
                    && self.slots[slot].element == element_of(spec)? =>
            {
                Ok(())
            }
            Value::Turned { slot, .. } | Value::Sorted(SortedRows { slot, .. })
                if self.slots[slot].len == self.symbols.len(spec)? =>
            {
                Ok(())
            }
            _ => Err(Error::malformed("plan", "results of the shape that ops give", spec)),
        }
    }

    /// Adds one op; returns its results.
    fn call(&mut self, call: &Call<'_>) -> Result<Vec<Value>> {
        let slot = |slot: SlotId| vec![Value::Slot(slot)];
        match call.op {
            ops::EMBED => self.embed(call).map(slot),
            ops::MATMUL => self.matmul(call).map(slot),
            ops::MATMUL_EXPERTS => Ok(vec![self.matmul_experts(call)?]),
            ops::MATMUL_ROWS => self.matmul_rows(call).map(slot),
            ops::ADD | ops::SUB | ops::MUL | ops::DIV | ops::MAX | ops::MIN => {
                self.binary(call).map(slot)
            }
            ops::SCALE | ops::OFFSET => self.shifted(call).map(slot),
            ops::REDUCE_SUM | ops::REDUCE_MEAN | ops::REDUCE_MAX => self.reduce(call).map(slot),
            ops::SOFTMAX => self.softmax(call).map(slot),
            ops::REDUCE_ROWS => self.reduce_rows(call).map(slot),
            ops::FULL_LIKE => self.full_like(call).map(slot),
            ops::TAKE_ALONG => self.take_along(call).map(slot),
            ops::SCATTER_ALONG => self.scatter_along(call).map(slot),
            ops::TOP_K => {
                let results = self.top_k(call)?;
                Ok(results.map(Value::Slot).to_vec())
            }
            ops::GATHER => self.gather(call).map(slot),
            ops::SCATTER_ADD => self.scatter_add(call).map(slot),
            ops::CONCAT => self.concat(call).map(slot),
            ops::SLICE => self.slice(call).map(slot),
            ops::RESHAPE => self.dense(call.arg(0)?).map(slot),
            ops::TRANSPOSE => Ok(vec![self.transpose(call)?]),
            ops::CAST => self.cast(call).map(slot),
            ops::CONSTANT => self.constant(call).map(slot),
            ops::ATTEND => self.attend(call).map(slot),
            ops::CAUSAL_CONV | ops::SELECTIVE_SCAN => self.recurrence(call).map(slot),
            ops::ATTEND_WITHIN => self.attend_within(call).map(slot),
            ops::ATTEND_WITHIN_GRAD => {
                let results = self.attend_within_grad(call)?;
                Ok(results.map(Value::Slot).to_vec())
            }
            ops::RMS_NORM | ops::LAYER_NORM => self.norm(call).map(slot),
            ops::ROPE => self.rope(call).map(slot),
            ops::SWIGLU | ops::GEGLU => Ok(vec![self.gated(call)?]),
            _ => self.unary(call).map(slot),
        }
    }
}
