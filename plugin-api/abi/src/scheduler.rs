//! Schedulers, version 1.

use std::ffi::c_void;

use crate::handover::HandoverV1;
use crate::{Code, Out, RSlice, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.scheduler/1";

/// How a plugin chooses batches.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct SchedulerV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Chooses what runs; `picked` takes each choice. [step thread]
    pub pick: unsafe extern "C" fn(
        this: *mut c_void,
        queue: RSlice<'_, WaitingV1>,
        limits: LimitsV1,
        picked: PickedOutV1,
        out: *const Out,
    ) -> Code,
    /// Passes its state on. [boundary]
    pub handover: HandoverV1,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}

/// An evaluation that waits.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct WaitingV1 {
    /// Tokens not evaluated yet.
    pub pending: u64,
    /// The sequence.
    pub seq: u32,
    /// Higher goes first, where the policy looks at it.
    pub priority: i32,
    /// 1 if the sequence has run before.
    pub is_running: u8,
    /// 1 if the tokens have to run in one step.
    pub is_atomic: u8,
}

/// How much one step takes.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct LimitsV1 {
    /// Tokens over all sequences.
    pub tokens: u64,
    /// Sequences.
    pub seqs: u64,
}

/// Takes choices.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct PickedOutV1 {
    /// Passed back to `push`.
    pub to: *mut c_void,
    /// Appends an index into the queue with a count of tokens.
    pub push: unsafe extern "C" fn(to: *mut c_void, index: u64, tokens: u64),
}
