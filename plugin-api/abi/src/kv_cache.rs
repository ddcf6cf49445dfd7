//! Caches of keys and values, version 1.

use std::ffi::c_void;

use crate::handover::HandoverV1;
use crate::prefix_caching::PrefixCachingV1;
use crate::{Code, Out, RSlice, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.kv-cache/1";

/// How a plugin decides where the state of each token lies.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct KvCacheV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Lays out memory: states and limits as bytes, writes the pool as bytes. [loading]
    pub pool: unsafe extern "C" fn(
        this: *mut c_void,
        states: RSlice<'_, u8>,
        limits: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// Makes room; `table` takes the block table, which stays valid until the next call.
    /// [step thread]
    pub reserve: unsafe extern "C" fn(
        this: *mut c_void,
        seq: u32,
        tokens: u64,
        moves: MovesV1,
        table: *mut BlockTableV1,
        out: *const Out,
    ) -> Code,
    /// Keeps the first reserved tokens. [step thread]
    pub commit: unsafe extern "C" fn(
        this: *mut c_void,
        seq: u32,
        keep: u64,
        moves: MovesV1,
        out: *const Out,
    ) -> Code,
    /// Starts a copy of a sequence. [step thread]
    pub fork: unsafe extern "C" fn(
        this: *mut c_void,
        parent: u32,
        child: u32,
        moves: MovesV1,
        out: *const Out,
    ) -> Code,
    /// Forgets tokens. [step thread]
    pub release:
        unsafe extern "C" fn(this: *mut c_void, seq: u32, upto: u64, out: *const Out) -> Code,
    /// Blocks in use and all blocks. [any thread between steps]
    pub usage: unsafe extern "C" fn(
        this: *mut c_void,
        used: *mut u64,
        total: *mut u64,
        out: *const Out,
    ) -> Code,
    /// Background work. [boundary]
    pub tick: unsafe extern "C" fn(
        this: *mut c_void,
        budget_bytes: u64,
        moves: MovesV1,
        out: *const Out,
    ) -> Code,
    /// Passes its state on. [boundary]
    pub handover: HandoverV1,
    /// Keeps blocks for sequences to come. [step thread]
    pub prefix_caching: PrefixCachingV1,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}

/// Takes copies of blocks that have to happen before the next step.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct MovesV1 {
    /// Passed back to `push`.
    pub to: *mut c_void,
    /// Appends a copy.
    pub push: unsafe extern "C" fn(to: *mut c_void, from_block: u32, to_block: u32),
}

/// A block table, borrowed from the plugin until its next call.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct BlockTableV1 {
    /// The first block.
    pub blocks: *const u32,
    /// How many.
    pub len: u64,
}
