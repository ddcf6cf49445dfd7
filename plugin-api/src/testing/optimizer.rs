//! Contract suite of optimizers.

use std::collections::BTreeMap;

use super::interpreter::{Arithmetic, Feed, FusedAs, Numbers};
use super::random::Random;
use super::tolerance::{TRACED, peak};
use super::traced::{Scene, check_instances, check_name};
use super::{Make, make};
use crate::config::Config;
use crate::kinds::optimizer::{Optimizer, STATE};
use crate::kinds::{Capability, Traced};
use crate::plan::{Dim, Plan, Port, Spec};

/// Shapes of parameters: norms and matrices.
const SHAPES: [&[u64]; 8] = [&[1], &[7], &[63], &[1, 1], &[1, 9], &[8, 3], &[5, 9], &[9, 257]];

/// Runs the whole suite.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Optimizer + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn Optimizer, T>);
}

/// The same for optimizers that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Optimizer>) {
    let optimizer = check_instances(make);
    let id = optimizer.semantic_id();
    assert!(!id.0.is_empty(), "a semantic id says something");
    for dims in SHAPES {
        let plan = trace(&*optimizer, dims);
        let what = format!("{id}, parameter {dims:?}");
        assert_eq!(plan.to_bytes(), trace(&*optimizer, dims).to_bytes(), "{what}: two traces");
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).as_ref(), Ok(&plan), "{what}: bytes differ");
        check_ports(&what, &plan);
        check_steps(&what, &plan);
        check_descent(&what, &plan);
    }
}

/// Ports are those of the kind, and each state that is read is written.
fn check_ports(what: &str, plan: &Plan) {
    assert!(plan.states.is_empty() && plan.weights.is_empty(), "{what}: other ports\n{plan}");
    let results = plan.outputs.iter().filter(|port| !port.name.starts_with(STATE));
    let results: Vec<&Spec> = results.map(|port| plan.spec(port.val)).collect();
    assert_eq!(results, [plan.spec(plan.inputs[0].val)], "{what}: the parameter, in its shape");
    for Port { name, val } in &plan.inputs {
        if name.starts_with(STATE) {
            let written = plan.outputs.iter().find(|port| port.name == *name);
            let written = written.unwrap_or_else(|| panic!("{what}: `{name}` is not written"));
            assert_eq!(plan.spec(written.val), plan.spec(*val), "{what}: `{name}`");
        } else {
            let known = ["parameter", "gradient", "learning_rate"];
            assert!(known.contains(&name.as_str()), "{what}: input `{name}` is not given");
        }
    }
    for Port { name, .. } in plan.outputs.iter().filter(|port| port.name.starts_with(STATE)) {
        assert!(plan.input_index(name).is_some(), "{what}: nobody reads `{name}`");
    }
}

/// Steps from states of zeros are finite, near their `f64` selves, and still at rate 0.
fn check_steps(what: &str, plan: &Plan) {
    let mut random = Random::new(5);
    let len = len_of(plan, plan.inputs[0].val.index());
    let start: Vec<f64> = (0..len).map(|_| f64::from(random.signed())).collect();
    let (mut single, mut exact) = (Run::new(plan, &start), Run::new(plan, &start));
    for step in 0..4 {
        // No gradient at all is one, too: of an expert that no token chose.
        let scale = if step == 1 { 0.0 } else { 1.0 };
        let gradient: Vec<f64> = (0..len).map(|_| scale * f64::from(random.signed())).collect();
        let before = exact.parameter.clone();
        let mut still = exact.clone();
        still.step::<f64>(plan, &gradient, 0.0);
        assert_eq!(still.parameter, before, "{what}: a rate of 0 changes nothing");
        single.step::<f32>(plan, &gradient, 0.01);
        exact.step::<f64>(plan, &gradient, 0.01);
        let is_finite = exact.parameter.iter().all(|x| x.is_finite());
        assert!(is_finite, "{what}: step {step} is finite");
        let limit = peak(&exact.parameter);
        TRACED.assert(&format!("{what}: step {step}"), &single.parameter, &exact.parameter, limit);
    }
}

/// Steps go downhill: half the square of the distance to a point gets less.
fn check_descent(what: &str, plan: &Plan) {
    let mut random = Random::new(6);
    let len = len_of(plan, plan.inputs[0].val.index());
    let away = |random: &mut Random| if random.below(2) == 0 { 2.0 } else { -2.0 };
    let goal: Vec<f64> = (0..len).map(|_| away(&mut random)).collect();
    let mut run = Run::new(plan, &vec![0.0; len]);
    let distance = |x: &[f64]| -> f64 { x.iter().zip(&goal).map(|(x, y)| (x - y).powi(2)).sum() };
    let first = distance(&run.parameter);
    for _ in 0..20 {
        let gradient: Vec<f64> = run.parameter.iter().zip(&goal).map(|(x, y)| x - y).collect();
        run.step::<f64>(plan, &gradient, 0.02);
    }
    let last = distance(&run.parameter);
    assert!(last < first, "{what}: twenty steps lead from {first} to {last}");
}

/// The plan of one step of a parameter.
///
/// # Panics
///
/// If the optimizer cannot be traced.
pub fn trace(optimizer: &dyn Traced, dims: &[u64]) -> Plan {
    trace_of(optimizer, "layers.0.mlp.up_proj.weight", dims)
}

/// The same of the parameter called `name`.
///
/// # Panics
///
/// If the optimizer cannot be traced.
pub fn trace_of(optimizer: &dyn Traced, name: &str, dims: &[u64]) -> Plan {
    let dims: Vec<Dim> = dims.iter().map(|&n| Dim::Fixed(n)).collect();
    let spec = Spec::f32(dims);
    let inputs = [("parameter", spec.clone()), ("gradient", spec)];
    match Scene::new(&Config::new().with("parameter", name)).trace(optimizer, &inputs) {
        Ok(plan) => plan,
        Err(error) => panic!("{}: the trace failed: {error}", optimizer.semantic_id()),
    }
}

/// A parameter on its way, with what its optimizer keeps.
#[derive(Debug, Clone)]
pub struct Run {
    /// The parameter.
    pub parameter: Vec<f64>,
    states: BTreeMap<String, Vec<f64>>,
}

impl Run {
    /// A parameter before its first step by a plan of [`trace`].
    pub fn new(plan: &Plan, parameter: &[f64]) -> Self {
        let states = plan.inputs.iter().filter(|port| port.name.starts_with(STATE));
        let zeros = |port: &Port| (port.name.clone(), vec![0.0; len_of(plan, port.val.index())]);
        Self { parameter: parameter.to_vec(), states: states.map(zeros).collect() }
    }

    /// One step.
    ///
    /// # Panics
    ///
    /// If the plan does not run.
    pub fn step<T: Arithmetic>(&mut self, plan: &Plan, gradient: &[f64], learning_rate: f64) {
        let mut feed = Feed::new()
            .doubles("parameter", &self.parameter)
            .doubles("gradient", gradient)
            .doubles("learning_rate", &[learning_rate]);
        for (name, values) in &self.states {
            feed = feed.doubles(name, values);
        }
        let outputs = feed.run::<T>(plan, FusedAs::Expansion);
        let outputs = outputs.unwrap_or_else(|error| panic!("a step: {error}\n{plan}"));
        for (port, numbers) in plan.outputs.iter().zip(outputs) {
            let reals = Numbers::into_reals(numbers).expect("an output of floats");
            let reals = reals.into_iter().map(kernels_reference::Stored::to_f64).collect();
            match self.states.get_mut(&port.name) {
                Some(state) => *state = reals,
                None => self.parameter = reals,
            }
        }
    }
}

fn len_of(plan: &Plan, index: usize) -> usize {
    let dims = plan.specs[index].dims.iter();
    dims.map(|dim| dim.fixed().map_or(1, |n| n as usize)).product()
}
