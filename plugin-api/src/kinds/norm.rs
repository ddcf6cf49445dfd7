//! Norms: bring each row of activations to a fixed scale.

use super::{Traced, kind};

/// Traces `[x [.., width]]` into one value of the same shape.
///
/// The sink's scope holds the tensor `weight` and, where the norm has one, `bias`, each
/// `[width]`.
pub trait Norm: Traced {}

kind!(Norm, "norm", EngineStep, traced: true);
