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
    /// A micro-batch is about to be computed: its data, which may be changed. All micro-batches of a step come
    /// before the first is computed. Tokens and targets stay below the size of the vocabulary, or the step
    /// is an error. Answers other than `Continue` are ignored. [training thread]
    TrainMicroBatch, train_micro_batch, "train-micro-batch", budget_us: 200,
    |e| Record::new("train-micro-batch", 0, &[
        ("step", e.step as f64), ("micro_batch", e.micro_batch as f64),
        ("tokens", e.tokens.len() as f64),
    ]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// Which of the step, from 0.
        micro_batch: usize,
        /// `[tokens]`, sequence after sequence.
        tokens: &'a mut [u32],
        /// The token after each, `[tokens]`.
        targets: &'a mut [u32],
        /// How much each counts in the loss, `[tokens]`.
        weights: &'a mut [f32],
    }
}

event! {
    /// Loss and gradient of a micro-batch are there and were added to those of the step. `SkipStep` leaves the
    /// micro-batches after it out and the step without effect, `StopRun` ends the run, too. [training thread]
    TrainLoss, train_loss, "train-loss", budget_us: 200,
    |e| Record::new("train-loss", 0, &[
        ("step", e.step as f64), ("micro_batch", e.micro_batch as f64), ("loss", e.loss),
    ]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// Which of the step, from 0.
        micro_batch: usize,
        /// Its share of the step's loss.
        loss: f64,
    }
}

event! {
    /// The gradient of one parameter is there, over all micro-batches. Once for each, in the order of their
    /// names. `SkipStep` and `StopRun` as with `train-after-backward`. [training thread]
    TrainGradient, train_gradient, "train-gradient", budget_us: 200,
    |e| Record::new("train-gradient", 0, &[
        ("step", e.step as f64), ("index", e.index as f64), ("norm", e.norm), ("scale", e.scale),
    ]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// Which parameter, from 0.
        index: usize,
        /// What it is called: `layers.0.self_attn.q_proj.weight`.
        name: &'a str,
        /// Length of its gradient.
        norm: f64,
        /// What hooks may change: factor of this gradient, 1 at first.
        scale: f64,
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
    /// One parameter after its update, which may be changed. Once for each, in the order of their names; answers
    /// other than `Continue` are ignored. Only where a hook listens: observers alone do not
    /// see it. [training thread]
    TrainUpdate, train_update, "train-update", budget_us: 1_000,
    |e| Record::new("train-update", 0, &[("step", e.step as f64), ("index", e.index as f64)]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// Which parameter, from 0.
        index: usize,
        /// What it is called: `layers.0.self_attn.q_proj.weight`.
        name: &'a str,
        /// Its elements, row-major.
        values: &'a mut [f32],
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
