//! Curricula, version 1.

use std::ffi::c_void;

use crate::handover::HandoverV1;
use crate::{Code, Out, RSlice, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.curriculum/1";

/// How a plugin chooses what is learnt next.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct CurriculumV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Chooses one example. [training thread]
    pub next: unsafe extern "C" fn(
        this: *mut c_void,
        sources: RSlice<'_, SourceViewV1>,
        choice: *mut ChoiceV1,
        out: *const Out,
    ) -> Code,
    /// Passes its state on. [boundary]
    pub handover: HandoverV1,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}

/// One source of examples.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct SourceViewV1 {
    /// Examples that it has.
    pub num_examples: u64,
    /// Examples that were chosen of it as new ones.
    pub given: u64,
    /// Which example comes next.
    pub next: u64,
}

/// What is learnt next.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct ChoiceV1 {
    /// Index of the source.
    pub source: u64,
    /// The example, where `is_again`.
    pub again: u64,
    /// 1 for an example that was the next before.
    pub is_again: u8,
}
