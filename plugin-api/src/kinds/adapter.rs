//! Adapters: what is added to the products with frozen weights.

use super::{Traced, kind};

/// Traces `[x [.., in], y [.., out]]`, a value and its product with a weight, into what takes the place of `y`.
///
/// An adapter stands behind each product of [`linear`](crate::plan::OpSinkExt::linear) for which the
/// model has a weight [`MARK`]. Its weights are read as those of the product, beside `weight`. The
/// layer's hyperparameters hold what the adapter's file says of it, in the names of PEFT: `r`, `lora_alpha`, `use_rslora`.
pub trait Adapter: Traced {}

kind!(Adapter, "adapter", EngineStep, traced: true);

/// A weight of this name, after that of the product, says that an adapter stands there.
pub const MARK: &str = "lora_A.weight";
