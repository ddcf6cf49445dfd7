//! Updates: what the optimizer makes of each parameter and its gradient.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::kinds::optimizer::STATE;
use plugin_api::{Backend, Optimizer, TensorMut, TensorRef};

use super::checkpoint::States;
use super::compiled::Compiled;
use super::parameters::{Parameter, Parameters};
use super::plans;
use crate::error::EngineError;

/// The elements of a parameter and of its states.
type Updated = (Vec<f32>, BTreeMap<String, Vec<f32>>);

/// The plans of an optimizer, with what it keeps.
pub(super) struct Updates {
    /// By the shape of a parameter.
    plans: BTreeMap<Vec<u64>, Compiled>,
    /// One entry for each parameter.
    states: States,
}

impl Updates {
    /// Describes and compiles the update of each shape; states are zeros.
    pub(super) fn new(
        optimizer: &dyn Optimizer,
        parameters: &Parameters,
        backend: &Arc<dyn Backend>,
    ) -> Result<Self, EngineError> {
        let mut plans: BTreeMap<Vec<u64>, Compiled> = BTreeMap::new();
        let mut states = States::new();
        for (name, Parameter { dims, .. }) in &parameters.0 {
            if !plans.contains_key(dims) {
                let plan = plans::update(optimizer, dims);
                let plan = plan.map_err(EngineError::plugin("optimizer"))?;
                plans.insert(dims.clone(), Compiled::new(plan, &[], backend)?);
            }
            states.insert(name.clone(), zeros(&plans[dims]));
        }
        Ok(Self { plans, states })
    }

    pub(super) fn states(&self) -> &States {
        &self.states
    }

    /// Takes over the states of another run.
    pub(super) fn restore(&mut self, states: States) -> Result<(), EngineError> {
        if sizes(&states) != sizes(&self.states) {
            let (what, expected) = ("checkpoint", "the states of this optimizer");
            return Err(EngineError::inconsistent(what, expected, "others"));
        }
        // Parameters without states are not in files.
        self.states.extend(states);
        Ok(())
    }

    /// Computes all parameters and states anew, then takes them over together.
    pub(super) fn step(
        &mut self,
        parameters: &mut Parameters,
        grads: &[Vec<f32>],
        learning_rate: f32,
    ) -> Result<(), EngineError> {
        let mut next = Vec::with_capacity(grads.len());
        for ((name, parameter), grad) in parameters.0.iter().zip(grads) {
            next.push(self.one(name, parameter, grad, learning_rate)?);
        }
        let old = parameters.0.values_mut().zip(self.states.values_mut());
        for ((parameter, states), (values, kept)) in old.zip(next) {
            (parameter.values, *states) = (values, kept);
        }
        Ok(())
    }

    /// The parameter and its states after the step.
    fn one(
        &mut self,
        name: &str,
        parameter: &Parameter,
        grad: &[f32],
        learning_rate: f32,
    ) -> Result<Updated, EngineError> {
        let plan = self.plans.get_mut(&parameter.dims).expect("every shape has a plan");
        let states = &self.states[name];
        let rate = [learning_rate];
        let input = |name: &str| {
            Some(match name {
                "parameter" => TensorRef::F32(&parameter.values),
                "gradient" => TensorRef::F32(grad),
                "learning_rate" => TensorRef::F32(&rate),
                _ => TensorRef::F32(states.get(name)?),
            })
        };
        // The result comes first, then states in an order of the plan.
        let names: Vec<String> =
            plan.plan.outputs[1..].iter().map(|port| port.name.clone()).collect();
        let mut values = vec![0.0; parameter.values.len()];
        let mut kept: Vec<Vec<f32>> =
            names.iter().map(|name| vec![0.0; states.get(name).map_or(0, Vec::len)]).collect();
        let mut outputs = vec![TensorMut::F32(&mut values)];
        outputs.extend(kept.iter_mut().map(|state| TensorMut::F32(state)));
        plan.run(&[], input, &mut outputs)?;
        drop(outputs);
        Ok((values, names.into_iter().zip(kept).collect()))
    }
}

/// States of a parameter before its first step.
fn zeros(update: &Compiled) -> BTreeMap<String, Vec<f32>> {
    let states = update.plan.inputs.iter().filter(|port| port.name.starts_with(STATE));
    states
        .map(|port| {
            let dims = update.plan.spec(port.val).dims.iter();
            let len = dims.map(|dim| dim.fixed().map_or(1, |n| n as usize)).product();
            (port.name.clone(), vec![0.0; len])
        })
        .collect()
}

/// Names and lengths of states; parameters without any do not count.
fn sizes(states: &States) -> Vec<(&String, &String, usize)> {
    let mut sizes = Vec::new();
    for (parameter, states) in states {
        sizes.extend(states.iter().map(|(state, values)| (parameter, state, values.len())));
    }
    sizes
}
