//! Decoding strategies, version 1.

use std::ffi::c_void;

use crate::host::HostV1;
use crate::{Code, Out, RSlice, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.decoding-strategy/1";

/// How a plugin turns evaluations into an answer.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct DecodingStrategyV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Lends the host's services, once, before anything else. [any thread but the step thread]
    pub attach:
        unsafe extern "C" fn(this: *mut c_void, host: *const HostV1, out: *const Out) -> Code,
    /// A request begins: its parameters as bytes; `out` gets their marks. [step thread]
    pub open: unsafe extern "C" fn(
        this: *mut c_void,
        group: u32,
        seq: u32,
        prompt: RSlice<'_, u32>,
        params: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// Plans evaluations. [step thread]
    pub plan: unsafe extern "C" fn(
        this: *mut c_void,
        group: u32,
        evals: EvalsOutV1,
        out: *const Out,
    ) -> Code,
    /// Results have arrived. [step thread]
    pub observe: unsafe extern "C" fn(
        this: *mut c_void,
        group: u32,
        results: RSlice<'_, OutcomeV1>,
        next_seq: u32,
        actions: ActionsOutV1,
        out: *const Out,
    ) -> Code,
    /// The request has ended. [step thread]
    pub finish: unsafe extern "C" fn(this: *mut c_void, group: u32, out: *const Out) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}

/// Takes evaluations.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct EvalsOutV1 {
    /// Passed back to `push`.
    pub to: *mut c_void,
    /// Appends the evaluation of `tokens`.
    pub push: unsafe extern "C" fn(to: *mut c_void, eval: EvalV1, tokens: RSlice<'_, u32>),
}

/// How tokens are evaluated, and what for.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct EvalV1 {
    /// The sequence that they follow.
    pub seq: u32,
    /// 0 nothing, 1 the likeliest, 2 a sample, 3 the `top` likeliest.
    pub want: u32,
    /// How many, if `want` is 3.
    pub top: u32,
    /// Drafts among the tokens, at the end.
    pub drafts: u32,
    /// How many more the draft model may guess after them.
    pub guesses: u32,
    /// 1 if they have to run in one step.
    pub is_atomic: u8,
    /// 1 if what is chosen is no part of the answer.
    pub is_aside: u8,
}

/// The result of one evaluation.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct OutcomeV1 {
    /// The sequence.
    pub seq: u32,
    /// The chosen token.
    pub token: u32,
    /// 1 if one was chosen.
    pub has_token: u8,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The draft in its place.
    pub draft: u32,
    /// 1 if there was one.
    pub has_draft: u8,
}

/// Takes actions.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct ActionsOutV1 {
    /// Passed back to `push`.
    pub to: *mut c_void,
    /// Appends an action.
    pub push: unsafe extern "C" fn(to: *mut c_void, action: ActionV1),
}

/// One action: 0 emit `seq`, `other` = token, `logprob`; 1 fork `seq` = parent, `other` = child;
/// 2 release `seq` from `upto`; 3 finish, `other` = 0 stop, 1 length, 2 refused, 3 aborted; 4 advance
/// `seq` by `other` = token; 5 say `other` = token, `logprob`; 6 copy `seq` to `other`.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct ActionV1 {
    /// Tokens to keep.
    pub upto: u64,
    /// Which action.
    pub action: u32,
    /// The sequence.
    pub seq: u32,
    /// Token, child or reason.
    pub other: u32,
    /// Natural logarithm of the token's probability.
    pub logprob: f32,
}
