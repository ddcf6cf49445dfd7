//! Optimizers: how a parameter changes with its gradient.

use super::{Traced, kind};
use crate::error::{Error, Result};
use crate::plan::{Dim, OpSink, OpSinkExt, Spec, Val};

/// Traces `[parameter, gradient]`, both of the parameter's shape, into the new parameter.
///
/// Everything else has a name. A shape of `[1, 1]` is one value per row of `[1, n]`, which
/// elementwise optimizers reshape to.
///
/// | input           | shape        | what                                                       |
/// |-----------------|--------------|------------------------------------------------------------|
/// | `learning_rate` | `f32 [1, 1]` | of this step, from the schedule                            |
/// | `state.{name}`  | `f32`, fixed | what the optimizer keeps for this parameter, zeros at first |
///
/// For each `state.{name}` that it asks for, the trace makes an output of the same name and shape: the
/// state after the step. The host owns parameters and states, and takes over all results of a step
/// or none. A learning rate of 0 leaves the parameter as it is.
///
/// The layer's hyperparameters hold `parameter`, its name, as `layers.0.self_attn.q_proj.weight`: an
/// optimizer may treat embeddings and the head in another way than what has the same shape.
pub trait Optimizer: Traced {}

kind!(Optimizer, "optimizer", TrainingStep, traced: true);

/// A parameter of one step as one row, for optimizers that take its elements one by one.
#[derive(Debug)]
pub struct Elements {
    /// `[1, elements]`.
    pub parameter: Val,
    /// `[1, elements]`.
    pub gradient: Val,
    /// `[1, 1]`.
    pub learning_rate: Val,
    dims: Vec<i64>,
}

impl Elements {
    /// The rows of what a trace is given.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] unless that is a parameter and its gradient of fixed extents.
    pub fn of(g: &mut dyn OpSink, x: &[Val]) -> Result<Self> {
        let &[parameter, gradient] = x else {
            return Err(Error::shape("optimizer", "a parameter and its gradient", x.len()));
        };
        let spec = g.spec(parameter).clone();
        let dims = spec.dims.iter().map(|dim| dim.fixed().and_then(|n| i64::try_from(n).ok()));
        let dims: Option<Vec<i64>> = dims.collect();
        let elements = dims.iter().flatten().try_fold(1_i64, |product, &n| product.checked_mul(n));
        let (Some(dims), Some(elements)) = (dims, elements) else {
            return Err(Error::shape("optimizer", "a parameter of fixed extents", spec));
        };
        Ok(Self {
            parameter: g.reshape(parameter, &[1, elements])?,
            gradient: g.reshape(gradient, &[1, elements])?,
            learning_rate: learning_rate(g)?,
            dims,
        })
    }

    /// The state `name`, an element for each of the parameter.
    ///
    /// # Errors
    ///
    /// Whatever the sink returns; likewise the others here.
    pub fn state(&self, g: &mut dyn OpSink, name: &str) -> Result<Val> {
        let spec = g.spec(self.parameter).clone();
        state(g, name, spec)
    }

    /// The parameter less `step`, a row of elements, in its own shape: the result of a trace.
    pub fn less(&self, g: &mut dyn OpSink, step: Val) -> Result<Vec<Val>> {
        let row = g.sub(self.parameter, step)?;
        Ok(vec![g.reshape(row, &self.dims)?])
    }
}

/// The learning rate of the step, `[1, 1]`.
///
/// # Errors
///
/// Whatever the sink returns; likewise the others here.
pub fn learning_rate(g: &mut dyn OpSink) -> Result<Val> {
    g.input("learning_rate", Spec::f32([Dim::Fixed(1), Dim::Fixed(1)]))
}

/// What the optimizer keeps under `name`, as the step before left it.
pub fn state(g: &mut dyn OpSink, name: &str, spec: Spec) -> Result<Val> {
    g.input(&format!("{STATE}{name}"), spec)
}

/// Keeps `val` under `name` for the next step.
pub fn keep(g: &mut dyn OpSink, name: &str, val: Val) -> Result<()> {
    g.output(&format!("{STATE}{name}"), val)
}

/// What the names of states begin with.
pub const STATE: &str = "state.";
