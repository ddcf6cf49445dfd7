//! Quantizers, version 1.

use std::ffi::c_void;

use crate::{Code, Out, RSlice, RSliceMut, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.quantizer/1";

/// How a plugin reads and writes a block format.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct QuantizerV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Writes the format, then the lowering, as bytes. [any thread]
    pub describe: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
    /// Blocks to numbers. [loading threads]
    pub decode: unsafe extern "C" fn(
        this: *mut c_void,
        blocks: RSlice<'_, u8>,
        numbers: RSliceMut<'_, f32>,
        out: *const Out,
    ) -> Code,
    /// Numbers to blocks; `mean_square` is empty without calibration. [loading threads]
    pub encode: unsafe extern "C" fn(
        this: *mut c_void,
        rows: RSlice<'_, f32>,
        mean_square: RSlice<'_, f32>,
        blocks: RSliceMut<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// Blocks to codes, scales and minima. [loading threads]
    pub unpack: unsafe extern "C" fn(
        this: *mut c_void,
        blocks: RSlice<'_, u8>,
        codes: RSliceMut<'_, u8>,
        scales: RSliceMut<'_, f32>,
        mins: RSliceMut<'_, f32>,
        out: *const Out,
    ) -> Code,
    /// Codes, scales and minima to blocks. [any thread]
    pub pack: unsafe extern "C" fn(
        this: *mut c_void,
        codes: RSlice<'_, u8>,
        scales: RSlice<'_, f32>,
        mins: RSlice<'_, f32>,
        blocks: RSliceMut<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}
