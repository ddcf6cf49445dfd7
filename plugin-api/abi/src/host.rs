//! What a plugin may call back, version 1.

use std::ffi::c_void;

use crate::{Code, Out, RSlice, RStr, StableAbi};

/// The host's services with one plugin's grants, lent for one call.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct HostV1 {
    /// Passed back to every function.
    pub of: *mut c_void,
    /// The plugin's name.
    pub plugin: RStr<'static>,
    /// Takes a log line; 0 for people, 1 for somebody to look at.
    pub log: unsafe extern "C" fn(of: *mut c_void, level: u32, message: RStr<'_>),
    /// Microseconds since the host started.
    pub monotonic_us: unsafe extern "C" fn(of: *mut c_void) -> u64,
    /// Any other service by its name in `HostServices`, arguments and answer as bytes. `piece` is
    /// called with each part of an answer that comes in parts, and while a program runs; another
    /// code than [`OK`](crate::OK) from it ends the service.
    pub call: unsafe extern "C" fn(
        of: *mut c_void,
        service: RStr<'_>,
        arguments: RSlice<'_, u8>,
        piece: PieceV1,
        out: *const Out,
    ) -> Code,
    /// Reads from an opened file at a position; writes what was read.
    pub read: unsafe extern "C" fn(
        of: *mut c_void,
        file: u64,
        position: u64,
        len: u64,
        out: *const Out,
    ) -> Code,
    /// Closes an opened file.
    pub close: unsafe extern "C" fn(of: *mut c_void, file: u64),
}

/// Takes parts of an answer.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct PieceV1 {
    /// Passed back to `take`.
    pub to: *mut c_void,
    /// Takes one part.
    pub take: unsafe extern "C" fn(to: *mut c_void, part: RSlice<'_, u8>) -> Code,
}
