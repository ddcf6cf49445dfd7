//! Swapping from outside: what a loader asks of whoever runs plugins, without knowing it.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::slot::Label;

/// Whoever runs plugins and can replace them while it runs: an engine.
///
/// Hooks are not slots of it: they are replaced with [`Bus::replace`](crate::Bus::replace).
pub trait SwapTarget: Send + Sync {
    /// Refills several slots at one boundary, or none of them; answers in the order of `set`.
    ///
    /// Prepares in the calling thread, leaves one offer, and waits at most `limit` for the boundary
    /// that takes it in. An offer that no boundary took in time stays:
    /// [`Reach::NextBoundary`].
    ///
    /// # Errors
    ///
    /// [`SwapError`], which names the slot that refused; everything then stays as it was, and the
    /// instances are dropped.
    fn swap_all(&self, set: Vec<Replacement>, limit: Duration) -> Result<Vec<Swapped>, SwapError>;

    /// A set of one: lets the plugin `name` fill `slot`, as in [`Replacement`].
    ///
    /// # Errors
    ///
    /// As for [`swap_all`](Self::swap_all).
    fn swap(
        &self,
        slot: &str,
        name: &str,
        instance: Box<dyn Any + Send>,
        limit: Duration,
    ) -> Result<Swapped, SwapError> {
        let one = Replacement { slot: slot.to_owned(), name: name.to_owned(), instance };
        let swapped = self.swap_all(vec![one], limit)?.pop();
        Ok(swapped.expect("a set of one has one answer"))
    }

    /// What fills each slot.
    fn slots(&self) -> Vec<SlotStatus>;
}

/// What is to fill a slot.
pub struct Replacement {
    /// A kind, or a kind and a slot of it: `logits-processor/min-p`. Where several plugins of a kind
    /// stand side by side, the kind alone means the slot called `name`.
    pub slot: String,
    /// Name of the plugin.
    pub name: String,
    /// A `Box<Box<dyn Kind>>` behind `Any`, as `Provided::make` returns it.
    pub instance: Box<dyn Any + Send>,
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.name, self.slot)
    }
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
    /// Time to prepare it and what came with it, in microseconds.
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

    /// Two plugins of one set are to fill the same slot.
    #[error("slot `{slot}`: expected one plugin of a set for it, found several")]
    Twice {
        /// The slot.
        slot: String,
    },

    /// Slots of one set belong to engines that run side by side and have no boundary in common.
    #[error(
        "slots `{slot}` and `{other}`: expected slots of one engine, found two: swap them apart"
    )]
    Apart {
        /// A slot.
        slot: String,
        /// One of another engine.
        other: String,
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
