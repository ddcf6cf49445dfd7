//! Residuals: how the result of a sublayer joins the stream around it.

use super::{Traced, kind};

/// Traces `[stream, branch]`, both `[tokens, hidden_size]`, into the new stream.
pub trait Residual: Traced {}

kind!(Residual, "residual", EngineStep, traced: true);
