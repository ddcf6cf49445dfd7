//! Output parsers, version 1.

use std::ffi::c_void;

use crate::{Code, Out, RSlice, RStr, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.output-parser/1";

/// How a plugin reads answers. Pieces are written to `out` as bytes.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct OutputParserV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// An answer begins, with the parameters of its request as bytes; `out` gets their marks. [step thread]
    pub open: unsafe extern "C" fn(
        this: *mut c_void,
        answer: u32,
        params: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// Text follows. [step thread]
    pub push: unsafe extern "C" fn(
        this: *mut c_void,
        answer: u32,
        text: RStr<'_>,
        out: *const Out,
    ) -> Code,
    /// The answer is complete. [step thread]
    pub finish: unsafe extern "C" fn(this: *mut c_void, answer: u32, out: *const Out) -> Code,
    /// Its request has ended. [step thread]
    pub end: unsafe extern "C" fn(this: *mut c_void, answer: u32, out: *const Out) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}
