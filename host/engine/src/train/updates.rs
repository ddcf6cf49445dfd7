//! Updates: what the optimizer makes of each parameter and its gradient.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::kinds::optimizer::STATE;
use plugin_api::plan::Port;
use plugin_api::{Backend, Optimizer, TensorMut, TensorRef};

use super::compiled::Compiled;
use super::parameters::{Parameter, Parameters};
use super::plans;
use super::states::States;
use crate::error::EngineError;

/// The plans of an optimizer.
pub(super) struct UpdatePlans {
    /// Each different one once.
    plans: Vec<Compiled>,
    /// Which of them is that of each parameter, in the order of their names.
    plan_of: Vec<usize>,
}

impl UpdatePlans {
    /// Describes the update of each parameter and compiles those that differ.
    pub(super) fn new(
        optimizer: &dyn Optimizer,
        parameters: &Parameters,
        backend: &Arc<dyn Backend>,
    ) -> Result<Self, EngineError> {
        let mut made = Self { plans: Vec::new(), plan_of: Vec::new() };
        for (name, Parameter { dims, .. }) in &parameters.0 {
            let plan = plans::update(optimizer, name, dims);
            let plan = plan.map_err(EngineError::plugin("optimizer"))?;
            let known = made.plans.iter().position(|known| known.plan == plan);
            made.plan_of.push(known.unwrap_or(made.plans.len()));
            if known.is_none() {
                made.plans.push(Compiled::new(plan, &[], backend)?);
            }
        }
        Ok(made)
    }

    /// Names and lengths of what is kept beside each parameter.
    pub(super) fn layout(&self, parameters: &Parameters) -> StateLayout {
        let lens = |at: &usize| -> BTreeMap<String, usize> {
            let plan = &self.plans[*at].plan;
            let len = |val| -> usize {
                let dims = plan.spec(val).dims.iter();
                dims.map(|dim| dim.fixed().map_or(1, |n| n as usize)).product()
            };
            let states = plan.inputs.iter().filter(|port| port.name.starts_with(STATE));
            states.map(|port| (port.name.clone(), len(port.val))).collect()
        };
        parameters.0.keys().cloned().zip(self.plan_of.iter().map(lens)).collect()
    }

    /// The outputs of the update of parameter `at`: the result, then states in an order of the plan.
    fn outputs(&self, at: usize) -> &[Port] {
        &self.plans[self.plan_of[at]].plan.outputs
    }
}

/// By parameter and state, the number of elements.
pub(super) type StateLayout = BTreeMap<String, BTreeMap<String, usize>>;

/// The plans of an optimizer, with what it keeps.
pub(super) struct Updates {
    plans: UpdatePlans,
    /// One entry for each parameter.
    states: States,
    /// Room for the results of each parameter's update, in the order of its plan's outputs.
    next: Vec<Vec<Vec<f32>>>,
}

impl Updates {
    /// With states that are zeros.
    pub(super) fn new(plans: UpdatePlans, parameters: &Parameters) -> Self {
        let layout = plans.layout(parameters);
        let room = |(at, (name, parameter)): (usize, (&String, &Parameter))| {
            let len = |port: &Port| layout[name].get(&port.name).copied().unwrap_or(0);
            let states = plans.outputs(at)[1..].iter().map(len);
            let lens = std::iter::once(parameter.values.len()).chain(states);
            lens.map(|len| vec![0.0; len]).collect()
        };
        let next = parameters.0.iter().enumerate().map(room).collect();
        let zeros = |(name, lens): (&String, &BTreeMap<String, usize>)| {
            let zeros = lens.iter().map(|(state, len)| (state.clone(), vec![0.0; *len]));
            (name.clone(), zeros.collect())
        };
        let states = layout.iter().map(zeros).collect();
        Self { plans, states, next }
    }

    /// Takes over the plans of an optimizer that keeps the same.
    pub(super) fn replace(&mut self, plans: UpdatePlans, parameters: &Parameters) {
        let states = std::mem::take(&mut self.states);
        *self = Self::new(plans, parameters);
        self.states = states;
    }

    pub(super) fn states(&self) -> &States {
        &self.states
    }

    /// Refuses states that are not those of this optimizer.
    pub(super) fn check(&self, states: &States) -> Result<(), EngineError> {
        if sizes(states) == sizes(&self.states) {
            return Ok(());
        }
        let (what, expected) = ("checkpoint", "the states of this optimizer");
        Err(EngineError::inconsistent(what, expected, "others"))
    }

    /// Takes over the states of another run, which were checked.
    pub(super) fn restore(&mut self, states: States) {
        // Parameters without states are not in files.
        self.states.extend(states);
    }

    /// Computes all parameters and states anew, then takes them over together.
    pub(super) fn step(
        &mut self,
        parameters: &mut Parameters,
        grads: &[Vec<f32>],
        learning_rate: f32,
    ) -> Result<(), EngineError> {
        let rate = [learning_rate];
        let old = parameters.0.values().zip(self.states.values()).zip(grads);
        for (at, (((parameter, states), grad), next)) in old.zip(&mut self.next).enumerate() {
            let plan = &mut self.plans.plans[self.plans.plan_of[at]];
            let input = |name: &str| {
                Some(match name {
                    "parameter" => TensorRef::F32(&parameter.values),
                    "gradient" => TensorRef::F32(grad),
                    "learning_rate" => TensorRef::F32(&rate),
                    _ => TensorRef::F32(states.get(name)?),
                })
            };
            let mut outputs: Vec<_> = next.iter_mut().map(|next| TensorMut::F32(next)).collect();
            plan.run(&[], input, &mut outputs)?;
        }
        let old = parameters.0.values_mut().zip(self.states.values_mut());
        for (at, ((parameter, states), next)) in old.zip(&mut self.next).enumerate() {
            let [values, kept @ ..] = &mut next[..] else { continue };
            std::mem::swap(&mut parameter.values, values);
            for (port, kept) in self.plans.outputs(at)[1..].iter().zip(kept) {
                if let Some(state) = states.get_mut(&port.name) {
                    std::mem::swap(state, kept);
                }
            }
        }
        Ok(())
    }
}

/// Names and lengths of states; parameters without any do not count.
fn sizes(states: &States) -> Vec<(&String, &String, usize)> {
    let mut sizes = Vec::new();
    for (parameter, states) in states {
        sizes.extend(states.iter().map(|(state, values)| (parameter, state, values.len())));
    }
    sizes
}
