//! Mixers: the only parts in which a token sees other tokens.

use super::{LayerRef, Traced, kind};
use crate::error::Result;
use crate::plan::StateSpec;

/// Traces `[x [tokens, hidden_size]]` into one value of the same shape, through one `attend` or
/// recurrence over a state that outlives the step.
///
/// A mixer never stores or lays out what it keeps: it declares [`state`](Self::state) and the
/// cache decides where that lies.
pub trait Mixer: Traced {
    /// What one layer keeps between steps. [compile thread]
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for hyperparameters that the mixer cannot work with.
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec>;
}

kind!(Mixer, "mixer", EngineStep, traced: true);
