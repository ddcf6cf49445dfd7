//! What a run binds, where it has arrived.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kinds::backend::{Bindings, Buf, DomainId, Memory};
use crate::native::abi::backend::{BindingsV1, MemoryV1, TensorV1};
use crate::tensor::{TensorMut, TensorRef};

/// Lists of what the host lends, kept from run to run. Tensors are there during a run only.
#[derive(Default)]
pub(super) struct Received {
    inputs: Vec<TensorRef<'static>>,
    weights: Vec<Buf>,
    outputs: Vec<TensorMut<'static>>,
}

impl Received {
    /// The bindings behind a table.
    ///
    /// # Safety
    ///
    /// `there` and everything behind it is lent for as long as the answer lives, and `self` is
    /// cleared before that ends. Weights may be kept by nobody for longer than the host keeps them:
    /// until the fence of the run has passed.
    pub(super) unsafe fn fill<'a>(&'a mut self, there: &'a BindingsV1<'_>) -> Result<Bindings<'a>> {
        self.clear();
        for tensor in there.inputs.as_slice() {
            // SAFETY: as for this function.
            self.inputs.push(unsafe { tensor_ref(tensor) }?);
        }
        for tensor in there.outputs.as_slice() {
            // SAFETY: as for this function.
            self.outputs.push(unsafe { tensor_mut(tensor) }?);
        }
        let weights = there.weights.as_slice();
        self.weights.truncate(weights.len());
        for (i, memory) in weights.iter().enumerate() {
            match self.weights.get_mut(i) {
                None => self.weights.push(Arc::new(HostMemory(*memory))),
                Some(buf) => put(buf, *memory),
            }
        }
        let outputs: *mut TensorMut<'a> = self.outputs.as_mut_ptr().cast();
        // SAFETY: as for this function; a shorter lifetime for tensors that are gone by its end.
        let outputs = unsafe { std::slice::from_raw_parts_mut(outputs, self.outputs.len()) };
        // SAFETY: as for this function; the host borrows both exclusively.
        let (state, scratch) = unsafe {
            (slice_mut(there.state, there.state_len), slice_mut(there.scratch, there.scratch_len))
        };
        let (inputs, weights) = (&self.inputs[..], &self.weights[..]);
        Ok(Bindings { sizes: there.sizes.as_slice(), inputs, weights, state, scratch, outputs })
    }

    /// Ends the loan.
    pub(super) fn clear(&mut self) {
        self.inputs.clear();
        self.outputs.clear();
    }
}

/// Puts `memory` where an earlier run's was: in place, unless the backend has kept that.
fn put(buf: &mut Buf, memory: MemoryV1) {
    match Arc::get_mut(buf) {
        None => *buf = Arc::new(HostMemory(memory)),
        Some(mine) => {
            let mine: *mut HostMemory = std::ptr::from_mut(mine).cast();
            // SAFETY: every `Buf` of these lists is made of a `HostMemory`, above and here.
            unsafe { *mine = HostMemory(memory) };
        }
    }
}

/// A packed weight in the host's memory, for as long as the host lends it.
struct HostMemory(MemoryV1);

// SAFETY: what is behind it is only read, on whatever thread.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl Memory for HostMemory {
    fn domain(&self) -> DomainId {
        DomainId(self.0.domain)
    }

    fn host_bytes(&self) -> Option<&[u8]> {
        let MemoryV1 { start, len, .. } = self.0;
        if start.is_null() {
            return None;
        }
        // SAFETY: lent by the host for the run; see `Received::fill`.
        Some(unsafe { std::slice::from_raw_parts(start, len as usize) })
    }

    fn device_address(&self) -> Option<u64> {
        (self.0.device != 0).then_some(self.0.device)
    }
}

/// # Safety
///
/// What is behind `tensor` is lent for `'a`, to be read.
pub(in crate::native) unsafe fn tensor_ref<'a>(tensor: &TensorV1) -> Result<TensorRef<'a>> {
    let (start, len) = (tensor.start, tensor.len as usize);
    // SAFETY: as for this function; the host says with the code which elements it lends.
    unsafe {
        Ok(match tensor.dtype {
            0 => TensorRef::F64(std::slice::from_raw_parts(start.cast(), len)),
            1 => TensorRef::F32(std::slice::from_raw_parts(start.cast(), len)),
            5 => TensorRef::U32(std::slice::from_raw_parts(start.cast(), len)),
            other => return Err(unknown(other)),
        })
    }
}

/// # Safety
///
/// What is behind `tensor` is lent for `'a`, to be written, and to nobody else.
pub(in crate::native) unsafe fn tensor_mut<'a>(tensor: &TensorV1) -> Result<TensorMut<'a>> {
    let (start, len) = (tensor.start, tensor.len as usize);
    // SAFETY: as in `tensor_ref`.
    unsafe {
        Ok(match tensor.dtype {
            0 => TensorMut::F64(std::slice::from_raw_parts_mut(start.cast(), len)),
            1 => TensorMut::F32(std::slice::from_raw_parts_mut(start.cast(), len)),
            5 => TensorMut::U32(std::slice::from_raw_parts_mut(start.cast(), len)),
            other => return Err(unknown(other)),
        })
    }
}

/// # Safety
///
/// `len` bytes from `start` on are lent for `'a`, and to nobody else.
unsafe fn slice_mut<'a>(start: *mut u8, len: u64) -> &'a mut [u8] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: as for this function.
    unsafe { std::slice::from_raw_parts_mut(start, len as usize) }
}

fn unknown(dtype: u32) -> Error {
    Error::malformed("tensor", "dtype 0, 1 or 5", dtype)
}
