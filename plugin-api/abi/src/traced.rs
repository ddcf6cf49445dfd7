//! Traced kinds, version 1: norm, residual, rotary embedding, mixer, feed-forward, encoder, and the parts of training.

use std::ffi::c_void;

use crate::backend::TensorV1;
use crate::op_sink::OpSinkV1;
use crate::{Code, Out, RSlice, RStr, StableAbi};

/// The interface id; the kind is named when an instance is opened.
pub const ID: &str = "jackfield.traced/1";

/// How a plugin describes its part of a model.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct TracedV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Writes the semantic id as text. [any thread]
    pub semantic_id: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
    /// Describes the part over `inputs`, values with their specs; writes the marks of the hyperparameters
    /// that were read, and the resulting values.
    /// [compile thread]
    pub trace: unsafe extern "C" fn(
        this: *mut c_void,
        sink: *const OpSinkV1,
        inputs: RSlice<'_, u8>,
        index: u32,
        config: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// Computes what a trace left to a callback: reads `inputs`, writes `outputs`. [step thread]
    pub call: unsafe extern "C" fn(
        this: *mut c_void,
        callback: RStr<'_>,
        inputs: RSlice<'_, ShapedV1<'_>>,
        outputs: RSlice<'_, ShapedV1<'_>>,
        out: *const Out,
    ) -> Code,
    /// The marks of what was read, and what one layer keeps between steps; only of mixers. [compile thread]
    pub state: unsafe extern "C" fn(
        this: *mut c_void,
        index: u32,
        config: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// The marks of what was read, frequencies and scale; only of rotary embeddings. [compile thread]
    pub rotation:
        unsafe extern "C" fn(this: *mut c_void, config: RSlice<'_, u8>, out: *const Out) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}

/// A tensor with its extents, outermost first.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct ShapedV1<'a> {
    /// As many elements as the extents say.
    pub tensor: TensorV1,
    /// Extents.
    pub dims: RSlice<'a, usize>,
}
