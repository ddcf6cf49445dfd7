//! What a run binds, on its way out.

use std::ffi::c_void;

use crate::kinds::backend::{Bindings, Buf};
use crate::native::abi::backend::{BindingsV1, MemoryV1, TensorV1};
use crate::tensor::{DType, TensorMut, TensorRef};

/// Lists of pointers, kept from run to run; empty between them.
#[derive(Default)]
pub(super) struct Sent {
    inputs: Vec<TensorV1>,
    weights: Vec<MemoryV1>,
    outputs: Vec<TensorV1>,
}

// SAFETY: the pointers are used by the thread that filled the lists, and are gone before another
// one gets them.
unsafe impl Send for Sent {}

impl Sent {
    /// The bindings as a table; valid while both are borrowed.
    pub(super) fn fill<'a>(&'a mut self, bind: &'a mut Bindings<'_>) -> BindingsV1<'a> {
        self.clear();
        self.inputs.extend(bind.inputs.iter().map(of_ref));
        self.weights.extend(bind.weights.iter().map(of_buf));
        self.outputs.extend(bind.outputs.iter_mut().map(of_mut));
        BindingsV1 {
            sizes: bind.sizes.into(),
            inputs: self.inputs[..].into(),
            weights: self.weights[..].into(),
            outputs: self.outputs[..].into(),
            state: bind.state.as_mut_ptr(),
            state_len: bind.state.len() as u64,
            scratch: bind.scratch.as_mut_ptr(),
            scratch_len: bind.scratch.len() as u64,
        }
    }

    pub(super) fn clear(&mut self) {
        self.inputs.clear();
        self.weights.clear();
        self.outputs.clear();
    }
}

pub(in crate::native) fn of_ref(tensor: &TensorRef<'_>) -> TensorV1 {
    let start: *const c_void = match tensor {
        TensorRef::F64(x) => x.as_ptr().cast(),
        TensorRef::F32(x) => x.as_ptr().cast(),
        TensorRef::U32(x) => x.as_ptr().cast(),
    };
    // Only read on the other side: inputs become `TensorRef` again.
    TensorV1 { start: start.cast_mut(), len: tensor.len() as u64, dtype: code(tensor.dtype()) }
}

pub(in crate::native) fn of_mut(tensor: &mut TensorMut<'_>) -> TensorV1 {
    let (len, dtype) = (tensor.len() as u64, code(tensor.dtype()));
    let start = match tensor {
        TensorMut::F64(x) => x.as_mut_ptr().cast(),
        TensorMut::F32(x) => x.as_mut_ptr().cast(),
        TensorMut::U32(x) => x.as_mut_ptr().cast(),
    };
    TensorV1 { start, len, dtype }
}

fn of_buf(memory: &Buf) -> MemoryV1 {
    let bytes = memory.host_bytes();
    MemoryV1 {
        start: bytes.map_or(std::ptr::null(), <[u8]>::as_ptr),
        len: bytes.map_or(0, <[u8]>::len) as u64,
        device: memory.device_address().unwrap_or(0),
        domain: memory.domain().0,
    }
}

fn code(dtype: DType) -> u32 {
    let known = DType::ALL.iter().find(|(known, _)| *known == dtype);
    known.map_or(u32::MAX, |(_, code)| u32::from(*code))
}
