//! Training: models whose parameters change, on plans that compute their gradient.
//!
//! A step is the decoder that serving describes, for whole sequences, with an objective on top and its
//! gradient behind; an update is the optimizer's plan, once for each shape of a parameter. The host owns
//! parameters and states and takes over the results of a step or none.

mod checkpoint;
mod columns;
pub(crate) mod compiled;
mod dataset;
mod disk;
mod listing;
mod loader;
mod lora;
mod measures;
mod parameters;
pub(crate) mod plans;
mod random;
mod rollouts;
mod routing;
mod states;
mod swap;
mod topics;
mod trainer;
mod updates;
mod utilization;

pub use checkpoint::{Checkpoint, Checkpoints};
pub use columns::{Column, Columns};
pub use dataset::{
    CurriculumState, DatasetLoader, DatasetOptions, DatasetPosition, Encoded, EncodedSequence,
    Example, ExampleEncoder, Format, LineError, LinePlace, Passed, Question, SourcePosition,
    Survey, TooLong, Turns,
};
pub use disk::{Disk, RealDisk};
pub use listing::{Damage, Listed, checkpoints_in, inspect_checkpoint};
pub use loader::{BatchLoader, LoaderPosition, TextLoader, TokenBatch};
pub use lora::Lora;
pub use parameters::{Parameter, Parameters};
pub use rollouts::{Rollout, RolloutOptions, Rollouts};
pub use states::States;
pub use swap::TrainSwapper;
pub use trainer::{StepReport, TrainOptions, Trainer, Verdict};
