//! Model sources, version 1.

use std::ffi::c_void;

use crate::host::{HostV1, PieceV1};
use crate::{Code, Out, RSlice, RStr, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.model-source/1";

/// How a plugin finds models.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct ModelSourceV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Writes the models that it can name, as bytes. [any thread]
    pub list: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
    /// Writes what a name means, or that it means nothing here, as bytes. [any thread]
    pub resolve: unsafe extern "C" fn(
        this: *mut c_void,
        name: RStr<'_>,
        host: *const HostV1,
        out: *const Out,
    ) -> Code,
    /// Brings a model below a folder and writes its path; `progress` takes progress as bytes.
    /// [any thread, slow]
    pub fetch: unsafe extern "C" fn(
        this: *mut c_void,
        entry: RSlice<'_, u8>,
        folder: RStr<'_>,
        progress: PieceV1,
        host: *const HostV1,
        out: *const Out,
    ) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}
