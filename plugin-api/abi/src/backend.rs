//! Backends, version 1.

use std::ffi::c_void;

use crate::{Code, Out, RSlice, RSliceMut, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.backend/1";

/// How a plugin compiles and runs plans. Functions may be called from several threads at a time.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct BackendV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Writes the domains, then the kernels that were chosen, as bytes. [any thread]
    pub describe: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
    /// Writes how node number `node` of a plan would run. [compile thread]
    pub support: unsafe extern "C" fn(
        this: *mut c_void,
        plan: RSlice<'_, u8>,
        node: u64,
        out: *const Out,
    ) -> Code,
    /// Writes how a weight would lie. [loading threads]
    pub layout: unsafe extern "C" fn(
        this: *mut c_void,
        weight: RSlice<'_, u8>,
        lowering: RSlice<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// Packs rows. [loading threads, in parallel]
    pub pack: unsafe extern "C" fn(
        this: *mut c_void,
        raw: *const RawRowsV1<'_>,
        layout: RSlice<'_, u8>,
        packed: RSliceMut<'_, u8>,
        out: *const Out,
    ) -> Code,
    /// Compiles a plan. [compile thread]
    pub compile: unsafe extern "C" fn(
        this: *mut c_void,
        plan: RSlice<'_, u8>,
        bucket: RSlice<'_, u8>,
        memory: RSlice<'_, u8>,
        exe: *mut ExeV1,
        out: *const Out,
    ) -> Code,
    /// Runs a compiled plan. [step thread]
    pub run: unsafe extern "C" fn(
        this: *mut c_void,
        exe: *mut c_void,
        stream: u32,
        bind: *const BindingsV1<'_>,
        fence: *mut FenceV1,
        out: *const Out,
    ) -> Code,
    /// Waits for the fence of a run, with its bindings. [step thread]
    pub wait: unsafe extern "C" fn(
        this: *mut c_void,
        exe: *mut c_void,
        fence: FenceV1,
        bind: *const BindingsV1<'_>,
        out: *const Out,
    ) -> Code,
    /// Ends a compiled plan. [any thread]
    pub close_exe: unsafe extern "C" fn(exe: *mut c_void, out: *const Out) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}

/// Rows on their way into a layout.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct RawRowsV1<'a> {
    /// The weight, as bytes.
    pub desc: RSlice<'a, u8>,
    /// How its format computes, as bytes.
    pub lowering: RSlice<'a, u8>,
    /// Rows here.
    pub rows: u64,
    /// 1 if codes, scales and minima are given, 0 if floats are.
    pub is_affine: u8,
    /// `[rows, cols]`.
    pub codes: RSlice<'a, u8>,
    /// `[rows, cols / group]`.
    pub scales: RSlice<'a, f32>,
    /// As `scales`, or empty.
    pub mins: RSlice<'a, f32>,
    /// `[rows, cols]`.
    pub floats: RSlice<'a, f32>,
}

/// A compiled plan.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct ExeV1 {
    /// Passed back to `run`.
    pub exe: *mut c_void,
    /// Scratch memory that a run needs.
    pub scratch_bytes: u64,
}

/// When work is done: 0 it is, 1 once the device has passed `mark`.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct FenceV1 {
    /// A mark of the device.
    pub mark: u64,
    /// Whether there is one.
    pub is_pending: u32,
}

/// Everything that one run reads and writes.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct BindingsV1<'a> {
    /// The value of each symbol.
    pub sizes: RSlice<'a, usize>,
    /// Inputs, weights and outputs in the order of the plan.
    pub inputs: RSlice<'a, TensorV1>,
    /// Packed weights.
    pub weights: RSlice<'a, MemoryV1>,
    /// Tensors to write.
    pub outputs: RSlice<'a, TensorV1>,
    /// The state arena.
    pub state: *mut u8,
    /// Its bytes.
    pub state_len: u64,
    /// Scratch memory.
    pub scratch: *mut u8,
    /// Its bytes.
    pub scratch_len: u64,
}

/// A dense tensor in the process.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct TensorV1 {
    /// The first element.
    pub start: *mut c_void,
    /// Elements.
    pub len: u64,
    /// 0 f64, 1 f32, 5 u32, as in plan bytes.
    pub dtype: u32,
}

/// Memory that holds a packed weight.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct MemoryV1 {
    /// Its bytes if it lies in the process, else null.
    pub start: *const u8,
    /// How many.
    pub len: u64,
    /// Address on its device, or 0.
    pub device: u64,
    /// Where it lies.
    pub domain: u32,
}
