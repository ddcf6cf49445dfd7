//! Objectives: what a training run makes small.

use super::{Traced, kind};

/// Traces `[logits f32 [rows, vocab_size]]` into the loss `[1]`.
///
/// The sink has these inputs, by name; `rows` is the outermost extent of the logits:
///
/// | input          | shape            | what                                                      |
/// |----------------|------------------|-----------------------------------------------------------|
/// | `targets`      | `u32 [rows]`     | the token after each, below `vocab_size`                  |
/// | `loss_weights` | `f32 [rows, 1]`  | share of the token in the loss; 0 where it does not count |
///
/// The host gives weights whose sum over all micro-batches of a step is 1. The loss is a sum over
/// rows, so that losses and gradients of micro-batches add up to those of the step, however it is
/// divided.
pub trait Objective: Traced {}

kind!(Objective, "objective", TrainingStep, traced: true);
