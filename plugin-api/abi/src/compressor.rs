//! Compressors, version 1.

use std::ffi::c_void;

use crate::{Code, Out, RSlice, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.compressor/1";

/// How a plugin chooses weights again.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct CompressorV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Writes whether it reads second moments. [any thread]
    pub needs_moments: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
    /// Takes products as bytes, writes the weights chosen for them. [the thread of the run]
    pub compress:
        unsafe extern "C" fn(this: *mut c_void, products: RSlice<'_, u8>, out: *const Out) -> Code,
    /// Takes rows of channels as bytes, writes them multiplied with a matrix, or that there is none. [the thread of the run]
    pub rotate:
        unsafe extern "C" fn(this: *mut c_void, rows: RSlice<'_, u8>, out: *const Out) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}
