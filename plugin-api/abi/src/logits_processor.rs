//! Logits processors, version 1.

use std::ffi::c_void;

use crate::host::HostV1;
use crate::{Code, Out, RSlice, RSliceMut, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.logits-processor/1";

/// What a plugin does with rows of logits.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct LogitsProcessorV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Lends the host's services, once, before anything else. [any thread but the step thread]
    pub open: unsafe extern "C" fn(this: *mut c_void, host: *const HostV1, out: *const Out) -> Code,
    /// Follows the batch; `out` gets an error, or the marks of an added row's parameters.
    /// [step thread]
    pub batch: unsafe extern "C" fn(
        this: *mut c_void,
        change: *const BatchChangeV1<'_>,
        out: *const Out,
    ) -> Code,
    /// What rows must answer: 0 nothing, 1 the peak, 2 the top, 3 single ids, 4 everything.
    /// [any thread]
    pub need: unsafe extern "C" fn(this: *mut c_void, need: *mut u32, out: *const Out) -> Code,
    /// 1 if the largest logit stays the largest. [any thread]
    pub is_argmax_invariant:
        unsafe extern "C" fn(this: *mut c_void, answer: *mut u8, out: *const Out) -> Code,
    /// Edits rows. [step thread]
    pub apply:
        unsafe extern "C" fn(this: *mut c_void, rows: *const RowsV1, out: *const Out) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}

/// What happened to a row.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct BatchChangeV1<'a> {
    /// 0 added, 1 advanced, 2 rolled back, 3 forked, 4 removed.
    pub change: u32,
    /// The row; of a fork, the child.
    pub row: u32,
    /// The token of an advance, the parent of a fork.
    pub other: u32,
    /// Parameters of an added row, as bytes.
    pub params: RSlice<'a, u8>,
    /// Tokens of an added row or those that a rollback leaves.
    pub history: RSlice<'a, u32>,
}

/// Rows that are lent for one call. Row numbers count from 0 in the call.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct RowsV1 {
    /// Passed back to every function.
    pub of: *mut c_void,
    /// Rows in the step.
    pub num_rows: u32,
    /// Logits in a row.
    pub vocab_size: u32,
    /// What can be done with them.
    pub access: *const RowAccessV1,
}

/// What the host does with rows.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct RowAccessV1 {
    /// The row's id in [`BatchChangeV1`].
    pub id: unsafe extern "C" fn(of: *mut c_void, row: u32) -> u32,
    /// The largest logit.
    pub max: unsafe extern "C" fn(of: *mut c_void, row: u32) -> f32,
    /// Logarithm of the sum of exponentials.
    pub log_sum_exp: unsafe extern "C" fn(of: *mut c_void, row: u32) -> f32,
    /// The logit of a token.
    pub logit: unsafe extern "C" fn(of: *mut c_void, row: u32, token: u32) -> f32,
    /// Writes the largest logits with their tokens, largest first, and returns how many.
    pub top_k: unsafe extern "C" fn(
        of: *mut c_void,
        row: u32,
        tokens: RSliceMut<'_, u32>,
        logits: RSliceMut<'_, f32>,
    ) -> u32,
    /// Multiplies.
    pub scale: unsafe extern "C" fn(of: *mut c_void, row: u32, by: f32),
    /// Sets one logit.
    pub set: unsafe extern "C" fn(of: *mut c_void, row: u32, token: u32, logit: f32),
    /// Cuts what is below a threshold.
    pub keep_above: unsafe extern "C" fn(of: *mut c_void, row: u32, threshold: f32),
    /// Cuts all but the largest.
    pub keep_top_k: unsafe extern "C" fn(of: *mut c_void, row: u32, k: u64),
    /// Cuts all but the fewest largest whose probabilities reach `p`.
    pub keep_top_p: unsafe extern "C" fn(of: *mut c_void, row: u32, p: f32),
    /// Cuts where the bit is 0.
    pub mask: unsafe extern "C" fn(of: *mut c_void, row: u32, allowed: RSlice<'_, u32>),
    /// The whole row, in place: as many logits as the vocabulary has.
    pub whole: unsafe extern "C" fn(of: *mut c_void, row: u32) -> *mut f32,
}
