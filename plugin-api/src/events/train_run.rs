//! What happens around the steps of a training run.

use super::{Event, Flow, HookState, Record, Subscriptions};
use crate::error::Error;
use crate::host::Host;

event! {
    /// A run begins, or goes on after a checkpoint. Answers other than `Continue` are ignored; likewise of
    /// all events here that name no other. [training thread]
    TrainRunStart, train_run_start, "train-run-start", budget_us: 10_000,
    |e| Record::new("train-run-start", 0, &[
        ("step", e.step as f64), ("num_steps", e.num_steps as f64),
        ("num_elements", e.num_elements as f64),
    ]),
    {
        /// Steps of the run before this part of it.
        step: u64,
        /// Steps of the whole run.
        num_steps: u64,
        /// Elements of all parameters.
        num_elements: usize,
    }
}

event! {
    /// A run is over: by its number of steps, by a hook, or by an error that `train-exception` told of.
    /// [training thread]
    TrainRunEnd, train_run_end, "train-run-end", budget_us: 10_000,
    |e| Record::new("train-run-end", 0, &[("step", e.step as f64)]),
    {
        /// Steps of the run, skipped ones counted.
        step: u64,
    }
}

event! {
    /// The next step begins to read the data anew; the epoch before, if there was one, is over.
    /// [training thread]
    TrainEpoch, train_epoch, "train-epoch", budget_us: 1_000,
    |e| Record::new("train-epoch", 0, &[("step", e.step as f64), ("epoch", e.epoch as f64)]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// How often all of the data was read before.
        epoch: u64,
    }
}

event! {
    /// One parameter as evaluation and export will see it: a copy, which may be changed. Once for each, in the
    /// order of their names; only where a hook listens. [training thread]
    TrainWeights, train_weights, "train-weights", budget_us: 1_000,
    |e| Record::new("train-weights", 0, &[
        ("step", e.step as f64), ("index", e.index as f64),
    ]),
    {
        /// Steps of the run so far, skipped ones counted.
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
    /// An evaluation begins: the loss of data that is not trained on. [training thread]
    TrainBeforeEvaluate, train_before_evaluate, "train-before-evaluate", budget_us: 1_000,
    |e| Record::new("train-before-evaluate", 0, &[
        ("step", e.step as f64), ("tokens", e.tokens as f64),
    ]),
    {
        /// Steps of the run so far, skipped ones counted.
        step: u64,
        /// Tokens that it reads.
        tokens: usize,
    }
}

event! {
    /// An evaluation is over. `StopRun` ends the run. [training thread]
    TrainAfterEvaluate, train_after_evaluate, "train-after-evaluate", budget_us: 1_000,
    |e| Record::new("train-after-evaluate", 0, &[("step", e.step as f64), ("loss", e.loss)]),
    {
        /// Steps of the run so far, skipped ones counted.
        step: u64,
        /// With the weights that `train-weights` left.
        loss: f64,
    }
}

event! {
    /// The run is about to be copied into a checkpoint. Each plugin is lent a state of its own, which begins
    /// empty and lies in the checkpoint; all hooks of a plugin on this topic share it. [training thread]
    TrainBeforeCheckpoint, train_before_checkpoint, "train-before-checkpoint", budget_us: 50_000,
    |e| Record::new("train-before-checkpoint", 0, &[("step", e.step as f64)]),
    {
        /// Steps of the run so far, skipped ones counted.
        step: u64,
        /// What the plugin needs to go on after this step.
        state: &'a mut HookState,
    }
}

event! {
    /// A checkpoint is on the disk under its own name. [training thread]
    TrainAfterCheckpoint, train_after_checkpoint, "train-after-checkpoint", budget_us: 1_000,
    |e| Record::new("train-after-checkpoint", 0, &[("step", e.step as f64)]),
    {
        /// Steps that it holds.
        step: u64,
        /// Where it lies.
        path: &'a str,
    }
}

event! {
    /// The run is to go on where a checkpoint stood. `Refuse` says that the state cannot be gone on from: the
    /// run does not. [training thread]
    TrainAfterRestore, train_after_restore, "train-after-restore", budget_us: 50_000,
    |e| Record::new("train-after-restore", 0, &[("step", e.step as f64)]),
    {
        /// Steps that the checkpoint holds.
        step: u64,
        /// What the plugin left there; empty if it was not there.
        state: &'a HookState,
    }
}

event! {
    /// A step or an evaluation failed; parameters and states are as before. [training thread]
    TrainException, train_exception, "train-exception", budget_us: 10_000,
    |e| Record::new("train-exception", 0, &[("step", e.step as f64)]),
    {
        /// Steps of the run before this one, skipped ones counted.
        step: u64,
        /// Why.
        error: &'a Error,
    }
}
