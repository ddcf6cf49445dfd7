//! The topics that a trainer emits on.

use jackfield_runtime::{Bus, Topic};
use plugin_api::events::{
    AfterSwap, TrainAfterBackward, TrainAfterCheckpoint, TrainAfterEvaluate, TrainAfterRestore,
    TrainAfterStep, TrainBeforeCheckpoint, TrainBeforeEvaluate, TrainBeforeStep, TrainEpoch,
    TrainException, TrainGradient, TrainLoss, TrainLr, TrainMicroBatch, TrainRunEnd, TrainRunStart,
    TrainUpdate, TrainWeights,
};

macro_rules! topics {
    ($($field:ident: $event:ident,)*) => {
        /// One for each event of training.
        pub(super) struct Topics {
            $(pub(super) $field: Topic<$event<'static>>,)*
        }

        impl Topics {
            pub(super) fn new(bus: &Bus) -> Self {
                Self { $($field: bus.topic(),)* }
            }

            /// Takes in subscriptions made since the last time.
            pub(super) fn refresh(&mut self) {
                $(self.$field.refresh();)*
            }
        }
    };
}
topics! {
    run_start: TrainRunStart,
    epoch: TrainEpoch,
    before_step: TrainBeforeStep,
    micro_batch: TrainMicroBatch,
    loss: TrainLoss,
    gradient: TrainGradient,
    after_backward: TrainAfterBackward,
    lr: TrainLr,
    update: TrainUpdate,
    after_step: TrainAfterStep,
    weights: TrainWeights,
    before_evaluate: TrainBeforeEvaluate,
    after_evaluate: TrainAfterEvaluate,
    before_checkpoint: TrainBeforeCheckpoint,
    after_checkpoint: TrainAfterCheckpoint,
    after_restore: TrainAfterRestore,
    exception: TrainException,
    run_end: TrainRunEnd,
    after_swap: AfterSwap,
}
