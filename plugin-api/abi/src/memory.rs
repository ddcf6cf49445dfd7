//! Memories, version 1.

use std::ffi::c_void;

use crate::host::HostV1;
use crate::{Code, Out, RSlice, RStr, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.memory/1";

/// How a plugin recalls and remembers. Turns come as bytes.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct MemoryV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Writes the passages that belong in front of the next answer, as bytes. [any thread]
    pub recall: unsafe extern "C" fn(
        this: *mut c_void,
        turn: RSlice<'_, u8>,
        host: *const HostV1,
        out: *const Out,
    ) -> Code,
    /// Keeps what is worth keeping of a turn that was answered, and writes what people should know of it, as
    /// bytes. [any thread]
    pub remember: unsafe extern "C" fn(
        this: *mut c_void,
        turn: RSlice<'_, u8>,
        answer: RStr<'_>,
        host: *const HostV1,
        out: *const Out,
    ) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}
