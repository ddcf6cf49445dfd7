//! What happens in a training run, step by step.

use super::{Event, Flow, Record, Subscriptions};
use crate::host::Host;

event! {
    /// A step has its tokens and is about to compute. `SkipStep` leaves these tokens out, `StopRun` ends the
    /// run before the step. [training thread]
    TrainBeforeStep, train_before_step, "train-before-step", budget_us: 200,
    |e| Record::new("train-before-step", 0, &[
        ("step", e.step as f64), ("tokens", e.tokens as f64),
    ]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// Tokens in all micro-batches of the step.
        tokens: usize,
    }
}

event! {
    /// Loss and gradients are there, the parameters have not changed. `SkipStep` keeps them as they are,
    /// `StopRun` does that and ends the run. With `Continue` a norm that is not finite is an error of
    /// the run: it would ruin every parameter. [training thread]
    TrainAfterBackward, train_after_backward, "train-after-backward", budget_us: 200,
    |e| Record::new("train-after-backward", 0, &[
        ("step", e.step as f64), ("loss", e.loss), ("grad_norm", e.grad_norm),
    ]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// Of the step, over all micro-batches; a mean in nats for language models.
        loss: f64,
        /// Length of the gradient of all parameters together.
        grad_norm: f64,
        /// What hooks may change: factor of all gradients, 1 at first.
        grad_scale: f64,
    }
}

event! {
    /// The learning rate of the step is known and may be changed. Answers other than `Continue` are
    /// ignored. [training thread]
    TrainLr, train_lr, "train-lr", budget_us: 200,
    |e| Record::new("train-lr", 0, &[
        ("step", e.step as f64), ("learning_rate", e.learning_rate),
    ]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// That of the run times the factor of the schedule; what hooks leave is used.
        learning_rate: f64,
    }
}

event! {
    /// A step is over. `StopRun` ends the run, other answers go on. [training thread]
    TrainAfterStep, train_after_step, "train-after-step", budget_us: 200,
    |e| Record::new("train-after-step", 0, &[
        ("step", e.step as f64), ("loss", e.loss), ("grad_norm", e.grad_norm),
        ("learning_rate", e.learning_rate), ("tokens", e.tokens as f64),
        ("step_us", e.step_us as f64),
    ]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// Of the step, before its update; not a number if the step was skipped before it computed.
        loss: f64,
        /// Before hooks scaled it; not a number as the loss.
        grad_norm: f64,
        /// What the update used; 0 if the step was skipped.
        learning_rate: f64,
        /// Tokens in all micro-batches of the step.
        tokens: usize,
        /// Time that the step took, in microseconds.
        step_us: u64,
    }
}
