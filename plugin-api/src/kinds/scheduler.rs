//! Schedulers: from what waits to what runs in one step. Data only.

use super::kv_cache::SeqId;
use super::{Handover, kind};
use crate::error::Result;

/// Chooses the batch of each step.
pub trait Scheduler: Send {
    /// Appends to `out` what shall run now, within `limits`. [step thread]
    ///
    /// An entry is picked at most once, with 1 to `pending` tokens; an atomic one whole or not at
    /// all.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from choosing. What it appended is dropped, and the engine chooses by order
    /// of arrival for this step: no request ends. The fault is told once for each error.
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()>;

    /// How this scheduler passes on what decides its choices, to another generation of the plugin
    /// of its name. One of another name starts afresh, and so does one without it or after one that
    /// has failed. [boundary]
    ///
    /// What [`save`](Handover::save) writes and [`restore`](Handover::restore) reads is exact:
    /// afterwards both choose alike. If either fails, the old generation stays.
    fn handover(&mut self) -> Option<&mut dyn Handover> {
        None
    }
}

kind!(Scheduler, "scheduler", EngineStep, traced: false);

/// An evaluation that waits, in order of arrival of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The sequence whose tokens wait.
    pub seq: SeqId,
    /// Tokens not evaluated yet.
    pub pending: usize,
    /// Whether the sequence has run before: starting another may exhaust memory, going on frees it.
    pub is_running: bool,
    /// Whether the tokens have to run in one step.
    pub is_atomic: bool,
    /// Higher goes first, where the policy looks at it.
    pub priority: i32,
}

/// How much one step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tokens over all sequences.
    pub tokens: usize,
    /// Sequences.
    pub seqs: usize,
}

/// What runs: an entry of the queue and how many of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// Index into the queue.
    pub index: usize,
    /// Tokens from the front of its pending ones.
    pub tokens: usize,
}
