//! Swapping from outside: what a loader asks of whoever runs plugins, without knowing it.

use std::any::Any;
use std::time::Duration;

use thiserror::Error;

use crate::slot::Label;

/// Whoever runs plugins and can replace them while it runs: an engine.
///
/// Hooks are not slots of it: they are replaced with [`Bus::replace`](crate::Bus::replace).
pub trait SwapTarget: Send + Sync {
    /// Lets the plugin `name` fill `slot`: `instance` is a `Box<Box<dyn Kind>>` behind `Any` as
    /// `Provided::make` returns it. A slot is a kind, or a kind and a slot of it:
    /// `logits-processor/min-p`. Where several plugins of a kind stand side by side, the kind
    /// alone means the slot called `name`.
    ///
    /// Prepares in the calling thread, leaves an offer, and waits at most `limit` for the boundary
    /// that takes it in. An offer that no boundary took in time stays:
    /// [`Reach::NextBoundary`].
    ///
    /// # Errors
    ///
    /// [`SwapError`]; everything then stays as it was, and `instance` is dropped.
    fn swap(
        &self,
        slot: &str,
        name: &str,
        instance: Box<dyn Any + Send>,
        limit: Duration,
    ) -> Result<Swapped, SwapError>;

    /// What fills each slot.
    fn slots(&self) -> Vec<SlotStatus>;
}

/// A swap that was taken in, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swapped {
    /// What was replaced; nothing while requests still hold it.
    pub retired: Option<Label>,
    /// What replaces it.
    pub active: Label,
    /// From when on it counts.
    pub reach: Reach,
    /// Time to prepare it, in microseconds.
    pub prepare_us: u64,
    /// Time from the offer to the boundary, in microseconds.
    pub wait_us: u64,
}

/// From when on a swap counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// For everybody, from the next token on.
    MidStream,
    /// For requests that start now; running ones keep what they have.
    NewRequests,
    /// Nobody yet: it is prepared, and waits for a boundary. Events tell what became of it.
    NextBoundary,
}

/// What fills one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotStatus {
    /// The kind.
    pub kind: String,
    /// The slot's name among those of its kind; as the kind where there is only one.
    pub slot: String,
    /// What fills it.
    pub active: Label,
    /// Requests that it serves.
    pub requests: usize,
    /// Earlier generations that requests still hold, with their number, oldest first.
    pub draining: Vec<(Label, usize)>,
    /// Whether a swap is being prepared, or waits for a boundary.
    pub is_swapping: bool,
}

/// Why a swap was refused. Nothing has changed when one is returned.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SwapError {
    /// There is nothing of that kind and name to replace.
    #[error("{kind} `{name}`: no slot: expected one of {}", known.join(", "))]
    UnknownSlot {
        /// The kind.
        kind: String,
        /// The name.
        name: String,
        /// Slots that there are, as `kind` or `kind/name`.
        known: Vec<String>,
    },

    /// The instance is not of the kind that fills the slot.
    #[error("{kind} `{name}`: expected an instance of the kind, found something else")]
    WrongInstance {
        /// The kind.
        kind: String,
        /// The name.
        name: String,
    },

    /// An earlier swap is being prepared, or waits for a boundary.
    #[error("slot `{slot}`: an earlier swap waits for the next boundary: try again after it")]
    Pending {
        /// The slot.
        slot: String,
    },

    /// Too many earlier generations still have requests in flight.
    #[error(
        "slot `{slot}`: expected at most {draining_max} draining generations, found {draining}: wait for their requests to end"
    )]
    TooManyDraining {
        /// The slot.
        slot: String,
        /// Generations that would drain.
        draining: usize,
        /// How many may.
        draining_max: usize,
    },

    /// What is there cannot be taken over: a layout, pool, state or format differs.
    #[error("slot `{slot}`: {what}: expected {expected}, found {found}")]
    Differs {
        /// The slot.
        slot: String,
        /// What was compared.
        what: String,
        /// What lies in memory.
        expected: String,
        /// What the new plugin wants.
        found: String,
    },

    /// The plugin, or one that has to go along with it, refused or failed.
    #[error("slot `{slot}`: {what}: {source}")]
    Plugin {
        /// The slot.
        slot: String,
        /// What was being done: trace, compile, pool, handover.
        what: String,
        /// What the plugin said.
        source: plugin_api::Error,
    },

    /// A hook of `before-swap` refused.
    #[error("slot `{slot}`: a hook of before-swap refused")]
    Vetoed {
        /// The slot.
        slot: String,
    },

    /// Whoever ran the plugins is gone.
    #[error("slot `{slot}`: the engine has ended")]
    Ended {
        /// The slot.
        slot: String,
    },
}
