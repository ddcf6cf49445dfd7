//! Routers of a mixture of experts: which experts a token goes to, and how much each counts.

use super::{Traced, kind};

/// Traces `[x [tokens, hidden_size]]` into two values: how much each choice counts, `f32 [tokens,
/// choices]`, and which expert it is, `u32 [tokens, choices]`. No token chooses an expert twice.
///
/// Its weights are called `router.weight` `[experts, hidden_size]`, and `router.bias`.
pub trait MoeRouter: Traced {}

kind!(MoeRouter, "moe-router", EngineStep, traced: true);
