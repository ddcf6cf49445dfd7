//! Tensors of a callback: lent to the other side for one call.

use super::abi::backend::TensorV1;
use super::abi::traced::ShapedV1;
use super::backend::{of_mut, of_ref, tensor_mut, tensor_ref};
use crate::error::{Error, Result};
use crate::plan::CALL_VALUES_MAX;
use crate::tensor::{Shaped, ShapedMut, TensorMut, TensorRef};

/// Calls `call` with tensors as they cross.
///
/// # Errors
///
/// What `call` returns; [`Error::ShapeMismatch`] for more tensors than cross.
pub(super) fn sent<R>(
    inputs: &[Shaped<'_>],
    outputs: &mut [ShapedMut<'_>],
    call: impl FnOnce(&[ShapedV1<'_>], &[ShapedV1<'_>]) -> Result<R>,
) -> Result<R> {
    let nothing = TensorV1 { start: std::ptr::null_mut(), len: 0, dtype: 0 };
    let mut there = [[ShapedV1 { tensor: nothing, dims: (&[][..]).into() }; CALL_VALUES_MAX]; 2];
    let [ins, outs] = &mut there;
    for (place, input) in places(ins, inputs.len())?.iter_mut().zip(inputs) {
        *place = ShapedV1 { tensor: of_ref(&input.values), dims: input.dims.into() };
    }
    for (place, output) in places(outs, outputs.len())?.iter_mut().zip(&mut *outputs) {
        *place = ShapedV1 { tensor: of_mut(&mut output.values), dims: output.dims.into() };
    }
    call(&ins[..inputs.len()], &outs[..outputs.len()])
}

/// Calls `call` with the tensors that arrived.
///
/// # Errors
///
/// What `call` returns; [`Error::Malformed`] for elements of another type.
///
/// # Safety
///
/// All that is behind the tensors is lent for this call, `outputs` to nobody else.
pub(super) unsafe fn received<R>(
    inputs: &[ShapedV1<'_>],
    outputs: &[ShapedV1<'_>],
    call: impl FnOnce(&[Shaped<'_>], &mut [ShapedMut<'_>]) -> Result<R>,
) -> Result<R> {
    let mut ins = [Shaped { dims: &[], values: TensorRef::F32(&[]) }; CALL_VALUES_MAX];
    for (place, there) in places(&mut ins, inputs.len())?.iter_mut().zip(inputs) {
        // SAFETY: as for this function.
        let values = unsafe { tensor_ref(&there.tensor) }?;
        *place = Shaped { dims: there.dims.as_slice(), values };
    }
    let nothing = |_| ShapedMut { dims: &[], values: TensorMut::F32(&mut []) };
    let mut outs: [ShapedMut<'_>; CALL_VALUES_MAX] = std::array::from_fn(nothing);
    for (place, there) in places(&mut outs, outputs.len())?.iter_mut().zip(outputs) {
        // SAFETY: as for this function.
        let values = unsafe { tensor_mut(&there.tensor) }?;
        *place = ShapedMut { dims: there.dims.as_slice(), values };
    }
    call(&ins[..inputs.len()], &mut outs[..outputs.len()])
}

fn places<T>(all: &mut [T; CALL_VALUES_MAX], num: usize) -> Result<&mut [T]> {
    let expected = || format!("at most {CALL_VALUES_MAX} values");
    all.get_mut(..num).ok_or_else(|| Error::shape("callback", expected(), num))
}
