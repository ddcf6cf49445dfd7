//! Carrying a state into another generation, version 1: part of the tables of kinds that keep one.

use std::ffi::c_void;

use crate::{Code, Out, RSlice, StableAbi};

/// How an instance passes on what it has learnt.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct HandoverV1 {
    /// 1 if the others can be called. [boundary]
    pub is_offered:
        unsafe extern "C" fn(this: *mut c_void, answer: *mut u8, out: *const Out) -> Code,
    /// Writes the state. [boundary]
    pub save: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
    /// Takes over a state. [boundary]
    pub restore:
        unsafe extern "C" fn(this: *mut c_void, state: RSlice<'_, u8>, out: *const Out) -> Code,
}
