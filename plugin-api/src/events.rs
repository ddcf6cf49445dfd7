//! Events: what happens, who may answer, and how to subscribe.
//!
//! A *hook* runs synchronously on the step thread, ordered by (phase, priority, plugin name), may
//! change what its event lends and answers with a [`Flow`]; the strictest answer wins. An
//! *observer* reads [`Record`]s on a thread of its own; it may lose some, and the losses are
//! counted. A topic without subscribers costs one atomic load. A hook never emits on its own topic.

use std::any::Any;

use crate::host::Host;
use crate::kinds::decoding_strategy::FinishReason;

/// A topic of the bus. `Payload` is what one event lends for the time of the call.
pub trait Event: 'static {
    /// The name in configuration, logs and records.
    const NAME: &'static str;
    /// Time that all hooks of this topic together should stay below, in microseconds.
    const BUDGET_US: u32;
    /// What is lent.
    type Payload<'a>;

    /// What observers read of an event.
    fn record(payload: &Self::Payload<'_>) -> Record;
}

/// What a hook answers. Strictest last: the strictest answer of all hooks wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Go on.
    Continue,
    /// End the request, with what there is.
    Finish(FinishReason),
    /// Leave this step of a training run without effect. Elsewhere as `Continue`.
    SkipStep,
    /// End the training run, without effect of this step. Elsewhere as `Continue`.
    StopRun,
    /// Do not begin, or break off. In training as `StopRun`.
    Refuse,
}

impl Flow {
    /// The stricter of two answers.
    pub fn and(self, other: Self) -> Self {
        let strictness = |flow: &Self| match flow {
            Self::Continue => 0,
            Self::Finish(_) => 1,
            Self::SkipStep => 2,
            Self::StopRun => 3,
            Self::Refuse => 4,
        };
        if strictness(&other) > strictness(&self) { other } else { self }
    }
}

/// When a hook runs among those of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Before everyone else: checks that may refuse.
    Early,
    /// The usual place.
    #[default]
    Normal,
    /// After everyone else: sees what the others left.
    Late,
}

/// What observers get: numbers only, copied, so that emitting neither allocates nor waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// [`Event::NAME`].
    pub topic: &'static str,
    /// The request, or 0.
    pub request: u64,
    /// Names and numbers; unused ones have an empty name.
    pub values: [(&'static str, f64); 6],
}

impl Record {
    /// A record with up to six numbers.
    pub fn new(topic: &'static str, request: u64, values: &[(&'static str, f64)]) -> Self {
        let mut record = Self { topic, request, values: [("", 0.0); 6] };
        for (place, value) in record.values.iter_mut().zip(values) {
            *place = *value;
        }
        record
    }

    /// The numbers that are set.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.values.into_iter().take_while(|(name, _)| !name.is_empty())
    }
}

/// A synchronous subscriber.
pub type HookFn<E> = Box<dyn for<'p> FnMut(&mut <E as Event>::Payload<'p>, &Host) -> Flow + Send>;

/// An asynchronous subscriber.
pub type ObserverFn = Box<dyn FnMut(&Record, &Host) + Send>;

/// One hook with its place in the order. `hook` is a [`HookFn`] of the topic's event.
pub struct HookEntry {
    /// [`Event::NAME`].
    pub topic: &'static str,
    /// First part of the order.
    pub phase: Phase,
    /// Second part of the order: lower runs first.
    pub priority: i32,
    /// The boxed [`HookFn`].
    pub hook: Box<dyn Any + Send>,
}

/// What a hook plugin wants to be called for.
#[derive(Default)]
pub struct Subscriptions {
    /// Synchronous subscribers.
    pub hooks: Vec<HookEntry>,
    /// Asynchronous subscribers of all topics.
    pub observers: Vec<ObserverFn>,
    phase: Phase,
    priority: i32,
}

impl Subscriptions {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the hooks that follow run among those of their topic.
    pub fn order(&mut self, phase: Phase, priority: i32) -> &mut Self {
        (self.phase, self.priority) = (phase, priority);
        self
    }

    /// Calls `observer` with the records of every topic, on a thread of its own.
    pub fn observe(&mut self, observer: impl FnMut(&Record, &Host) + Send + 'static) {
        self.observers.push(Box::new(observer));
    }

    /// Calls `hook` on the topic `E`; the named methods below spare the turbofish.
    pub fn on<E: Event>(&mut self, hook: HookFn<E>) {
        let (phase, priority) = (self.phase, self.priority);
        self.hooks.push(HookEntry { topic: E::NAME, phase, priority, hook: Box::new(hook) });
    }
}

/// Declares an event and the method that subscribes to it.
macro_rules! event {
    (
        $(#[$doc:meta])*
        $event:ident, $method:ident, $name:literal, budget_us: $budget:literal,
        $record:expr,
        { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[allow(clippy::needless_lifetimes, reason = "some payloads borrow nothing")]
        pub struct $event<'a> {
            $($(#[$field_doc])* pub $field: $type,)*
            /// Nothing: gives the lifetime to events whose fields borrow nothing.
            pub lent: std::marker::PhantomData<&'a ()>,
        }

        impl Event for $event<'static> {
            const NAME: &'static str = $name;
            const BUDGET_US: u32 = $budget;
            type Payload<'a> = $event<'a>;

            fn record(payload: &Self::Payload<'_>) -> Record {
                let describe: fn(&$event<'_>) -> Record = $record;
                describe(payload)
            }
        }

        $crate::wire::events::crosses!($event { $($field: $type,)* });

        impl Subscriptions {
            #[doc = concat!("Calls `hook` on every `", $name, "`: see [`", stringify!($event), "`].")]
            pub fn $method(
                &mut self,
                hook: impl for<'p> FnMut(&mut $event<'p>, &Host) -> Flow + Send + 'static,
            ) {
                self.on::<$event<'static>>(Box::new(hook));
            }
        }
    };
}

mod generation;
mod hook_state;
mod logits;
mod plugins;
mod train;
mod train_run;

pub use generation::{AfterGenerate, AfterStep, AfterToken, BeforeGenerate, BeforeStep, OnCancel};
pub use hook_state::{HookState, Numbers};
pub use logits::{AfterLogits, LOGIT_BINS, LOGIT_RANGE, LOGITS_EVERY, spread};
pub use plugins::{AfterRollback, AfterSwap, BeforeSwap, OnFault};
pub use train::{
    TrainAfterBackward, TrainAfterStep, TrainBeforeStep, TrainGradient, TrainLoss, TrainLr,
    TrainMicroBatch, TrainUpdate,
};
pub use train_run::{
    TrainAfterCheckpoint, TrainAfterEvaluate, TrainAfterRestore, TrainBeforeCheckpoint,
    TrainBeforeEvaluate, TrainEpoch, TrainException, TrainRunEnd, TrainRunStart, TrainWeights,
};

/// Lists the events.
macro_rules! topics {
    ($($event:ident),* $(,)?) => {
        /// Names of all topics.
        pub const TOPICS: [&str; [$($event::NAME),*].len()] = [$($event::NAME),*];

        /// How each of them crosses a library boundary.
        pub(crate) const CROSSINGS: &[crate::wire::events::Crossing] =
            &[$(crate::wire::events::Crossing::of::<$event<'static>>()),*];
    };
}
topics! {
    BeforeGenerate,
    BeforeStep,
    AfterStep,
    AfterToken,
    AfterLogits,
    AfterGenerate,
    OnCancel,
    BeforeSwap,
    AfterSwap,
    AfterRollback,
    OnFault,
    TrainRunStart,
    TrainEpoch,
    TrainBeforeStep,
    TrainMicroBatch,
    TrainLoss,
    TrainGradient,
    TrainAfterBackward,
    TrainLr,
    TrainUpdate,
    TrainAfterStep,
    TrainWeights,
    TrainBeforeEvaluate,
    TrainAfterEvaluate,
    TrainBeforeCheckpoint,
    TrainAfterCheckpoint,
    TrainAfterRestore,
    TrainException,
    TrainRunEnd,
}
