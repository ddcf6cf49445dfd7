//! The sink that traced plugins describe themselves to, version 1.

use std::ffi::c_void;

use crate::{Code, Out, RSlice, RStr, StableAbi};

/// Receives the ops of a trace, lent for one call. Specs, states, attributes and plans are bytes;
/// answers go to `out`: values as `u32` each followed by its spec.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct OpSinkV1 {
    /// Passed back to every function.
    pub of: *mut c_void,
    /// A step input.
    pub input: unsafe extern "C" fn(
        of: *mut c_void,
        name: RStr<'_>,
        spec: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// A weight.
    pub weight: unsafe extern "C" fn(of: *mut c_void, name: RStr<'_>, out: *const Out) -> Code,
    /// 1 if there is such a weight.
    pub has_weight: unsafe extern "C" fn(of: *mut c_void, name: RStr<'_>) -> u8,
    /// Something kept between steps.
    pub state: unsafe extern "C" fn(of: *mut c_void, spec: RSlice<'_, u8>, out: *const Out) -> Code,
    /// An op of the vocabulary.
    pub op: unsafe extern "C" fn(
        of: *mut c_void,
        op: RStr<'_>,
        inputs: RSlice<'_, u32>,
        attrs: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// An op with its expansion.
    pub fused: unsafe extern "C" fn(
        of: *mut c_void,
        op: RStr<'_>,
        inputs: RSlice<'_, u32>,
        attrs: RSlice<'_, u8>,
        expansion: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// The plugin that is wired into a slot.
    pub slot: unsafe extern "C" fn(
        of: *mut c_void,
        slot: RStr<'_>,
        scope: RStr<'_>,
        inputs: RSlice<'_, u32>,
        out: *const Out,
    ) -> Code,
    /// A call at run time.
    pub call: unsafe extern "C" fn(
        of: *mut c_void,
        callback: RStr<'_>,
        inputs: RSlice<'_, u32>,
        outputs: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// An output of the plan.
    pub output:
        unsafe extern "C" fn(of: *mut c_void, name: RStr<'_>, value: u32, out: *const Out) -> Code,
}
