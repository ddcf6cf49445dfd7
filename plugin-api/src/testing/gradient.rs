//! Gradients against central differences in `f64`.

use super::interpreter::{Feed, FusedAs, Numbers};
use super::random::Random;
use super::tolerance::peak;
use crate::plan::gradient::gradient_of;
use crate::plan::{Dim, Plan, Port, gradient, rewrite};
use crate::tensor::DType;

/// Checks the gradient of every output of floats by every weight and input of floats. The plan keeps
/// no state; `feed` holds what it reads, away from kinks. Plans that round to 16 bits are left out:
/// a difference sees their steps and no slope.
///
/// # Panics
///
/// With the parameter and the element whose gradient is wrong, and for plans that have none.
pub fn check(plan: &Plan, feed: &Feed) {
    if plan.specs.iter().any(|spec| matches!(spec.dtype, DType::F16 | DType::BF16)) {
        return;
    }
    let scene = Scene::new(plan, feed);
    if let Err(error) = scene.compare(&scene.gradient) {
        panic!("{error}\n{plan}");
    }
}

/// A plan with its gradient, and the differences that say what that should be.
#[derive(Debug)]
pub struct Scene {
    /// Computes the loss, and its gradient by each parameter as the last outputs.
    pub gradient: Plan,
    feed: Feed,
    params: Vec<Param>,
}

#[derive(Debug)]
struct Param {
    name: String,
    /// Elements with the central difference of the loss by each.
    differences: Vec<(usize, Difference)>,
    /// A way to go with all elements at once, one up or down each.
    direction: Vec<f64>,
    /// The central difference along it.
    along: Difference,
}

/// A central difference with two steps.
#[derive(Debug, Clone, Copy)]
struct Difference {
    /// Extrapolated to no step: Richardson.
    value: f64,
    /// How much the half step changed: where the loss bends hard, as a norm of next to nothing
    /// does, the difference is worth as much less.
    doubt: f64,
}

impl Scene {
    /// Joins the outputs into one loss with random factors, and takes the differences.
    ///
    /// # Panics
    ///
    /// If the plan does not run, or has no gradient.
    pub fn new(plan: &Plan, feed: &Feed) -> Self {
        let weights: Vec<&str> = plan.weights.iter().map(|port| port.name.as_str()).collect();
        let whole = rewrite::weights_as_inputs(plan, &weights);
        let whole = whole.and_then(|plan| rewrite::with_weighed_sum(&plan, LOSS));
        let (whole, loss) = whole.unwrap_or_else(|e| panic!("{e}\n{plan}"));
        let mut feed = feed.clone();
        let mut random = Random::new(23);
        let mut names = Vec::new();
        for Port { name, val } in &whole.inputs {
            if !whole.spec(*val).dtype.is_float() {
                continue;
            }
            let Some(values) = feed.values_of(name) else {
                let len = len_of(&whole, *val, &feed);
                let factors: Vec<f64> = (0..len).map(|_| f64::from(random.signed())).collect();
                feed = feed.doubles(name, &factors);
                continue;
            };
            feed = feed.doubles(name, &values);
            names.push(name.as_str());
        }
        let gradient =
            gradient(&whole, loss, &names).unwrap_or_else(|error| panic!("{error}\n{whole}"));
        let params = names.iter().map(|name| differences(&whole, &feed, name)).collect();
        Self { gradient, feed, params }
    }

    /// Compares what `gradient` computes with the differences.
    ///
    /// # Errors
    ///
    /// A sentence with the first element that is wrong.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn compare(&self, gradient: &Plan) -> Result<(), String> {
        let outputs = self.feed.run::<f64>(gradient, FusedAs::Expansion);
        let outputs = outputs.unwrap_or_else(|error| panic!("{error}\n{gradient}"));
        for param in &self.params {
            let name = gradient_of(&param.name);
            let at = gradient.outputs.iter().position(|port| port.name == name);
            let Some(Numbers::Reals(grads)) = at.and_then(|at| outputs.get(at)) else {
                return Err(format!("`{name}`: expected an output, found none"));
            };
            let len = param.direction.len();
            if grads.len() != len {
                return Err(format!("`{name}`: {} of {len} elements", grads.len()));
            }
            let expected: Vec<f64> = param.differences.iter().map(|(_, x)| x.value).collect();
            let limit = TOLERANCE * (1.0 + peak(&expected));
            for &(i, Difference { value: expected, doubt }) in &param.differences {
                let found = grads[i];
                // A NaN is no gradient, so `<=` and not `>`.
                let is_near = (found - expected).abs() <= limit + doubt;
                if !is_near {
                    return Err(format!("`{name}`, element {i}: {found}, expected {expected}"));
                }
            }
            let found: f64 = grads.iter().zip(&param.direction).map(|(a, b)| a * b).sum();
            let size: f64 = grads.iter().map(|x| x.abs()).sum();
            let Difference { value: expected, doubt } = param.along;
            let is_near = (found - expected).abs() <= TOLERANCE * (1.0 + size) + doubt;
            if !is_near {
                return Err(format!("`{name}`, all elements: {found}, expected {expected}"));
            }
        }
        Ok(())
    }
}

/// The central differences of the loss by some elements of an input, and by all at once.
fn differences(plan: &Plan, feed: &Feed, name: &str) -> Param {
    let values = feed.values_of(name).unwrap_or_default();
    let mut random = Random::new(values.len() as u64);
    let elements: Vec<usize> = if values.len() <= ELEMENTS {
        (0..values.len()).collect()
    } else {
        (0..ELEMENTS).map(|_| random.below(values.len())).collect()
    };
    let loss_at = |direction: &[f64], by: f64| {
        let values: Vec<f64> = values.iter().zip(direction).map(|(x, d)| x + by * d).collect();
        loss(plan, &feed.clone().doubles(name, &values))
    };
    let central = |direction: &[f64], step: f64| {
        (loss_at(direction, step) - loss_at(direction, -step)) / (2.0 * step)
    };
    let along = |direction: &[f64]| {
        let (whole, half) = (central(direction, STEP), central(direction, STEP / 2.0));
        Difference { value: (4.0 * half - whole) / 3.0, doubt: (whole - half).abs() }
    };
    let unit = |i: usize| {
        let mut direction = vec![0.0; values.len()];
        direction[i] = 1.0;
        direction
    };
    let differences = elements.into_iter().map(|i| (i, along(&unit(i)))).collect();
    let direction: Vec<f64> =
        values.iter().map(|_| if random.below(2) == 0 { 1.0 } else { -1.0 }).collect();
    Param { name: name.to_owned(), differences, along: along(&direction), direction }
}

fn loss(plan: &Plan, feed: &Feed) -> f64 {
    let outputs = feed.run::<f64>(plan, FusedAs::Expansion);
    match outputs.map(|mut outputs| outputs.pop()) {
        Ok(Some(Numbers::Reals(loss))) if loss.len() == 1 => loss[0],
        other => panic!("a loss is expected, found {other:?}\n{plan}"),
    }
}

fn len_of(plan: &Plan, val: crate::plan::Val, feed: &Feed) -> usize {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(n) => *n as usize,
        Dim::Symbol(symbol) => feed.size_of(*symbol),
    };
    plan.spec(val).dims.iter().map(size).product()
}

/// The output that all others are joined into.
const LOSS: &str = "weighed sum";
/// Half the way that an element moves.
const STEP: f64 = 1e-5;
/// Most elements of a parameter that are moved.
const ELEMENTS: usize = 16;
/// Of a difference, relative to the greatest: the error of a central difference is that of
/// `STEP` squared, rounding adds 1e-11 of the loss.
const TOLERANCE: f64 = 1e-7;
