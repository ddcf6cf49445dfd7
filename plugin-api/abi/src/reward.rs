//! Rewards, version 1.

use std::ffi::c_void;

use crate::{Code, Out, RSlice, RStr, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.reward/1";

/// How a plugin rates answers.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct RewardV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Writes a number for each answer, as bytes. [training thread]
    pub rate: unsafe extern "C" fn(
        this: *mut c_void,
        answers: RSlice<'_, RatedAnswerV1<'_>>,
        out: *const Out,
    ) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}

/// One answer of a model.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct RatedAnswerV1<'a> {
    /// What it answers.
    pub prompt: RStr<'a>,
    /// The answer.
    pub text: RStr<'a>,
    /// The answer that the data name, where `has_expected`.
    pub expected: RStr<'a>,
    /// Tokens of the answer.
    pub num_tokens: u64,
    /// 1 if the data name an answer.
    pub has_expected: u8,
    /// 1 if it came to an end by itself.
    pub is_finished: u8,
}
