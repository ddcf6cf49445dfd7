//! Feed-forward parts: work on each token alone.

use super::{Traced, kind};

/// Traces `[x [tokens, hidden_size]]` into one value of the same shape.
pub trait FeedForward: Traced {}

kind!(FeedForward, "feed-forward", EngineStep, traced: true);
