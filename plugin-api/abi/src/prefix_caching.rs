//! Finding blocks again by their keys, version 1: part of the table of caches.

use std::ffi::c_void;

use crate::{Code, Out, RSlice, StableAbi};

/// How a cache keeps blocks for sequences to come. Keys are 32 bytes each, side by side.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct PrefixCachingV1 {
    /// 1 if the others can be called. [step thread]
    pub is_offered:
        unsafe extern "C" fn(this: *mut c_void, answer: *mut u8, out: *const Out) -> Code,
    /// How many blocks could be adopted. [step thread]
    pub find: unsafe extern "C" fn(
        this: *mut c_void,
        keys: RSlice<'_, u8>,
        blocks: *mut u64,
        out: *const Out,
    ) -> Code,
    /// Starts a sequence with blocks that are there, and says how many. [step thread]
    pub adopt: unsafe extern "C" fn(
        this: *mut c_void,
        seq: u32,
        keys: RSlice<'_, u8>,
        blocks: *mut u64,
        out: *const Out,
    ) -> Code,
    /// Names blocks of a sequence from `first` on. [step thread]
    pub publish: unsafe extern "C" fn(
        this: *mut c_void,
        seq: u32,
        first: u64,
        keys: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
}
