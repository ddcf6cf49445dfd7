//! Quantizers on the plugin's side.

use std::ffi::c_void;

use super::Instance;
use crate::kinds::quantizer::{Affine, AffineMut, Calibration};
use crate::native::abi::quantizer::QuantizerV1;
use crate::native::abi::{Code, Out, RSlice, RSliceMut};
use crate::native::guard::{self, answer, guard, shared};

static TABLE: QuantizerV1 = QuantizerV1 {
    size: size_of::<QuantizerV1>() as u32,
    describe,
    decode,
    encode,
    unpack,
    pack,
    close: guard::close::<Instance>,
};

pub(in crate::native) fn export(instance: Box<Instance>) -> (*mut c_void, *const c_void) {
    (guard::export(instance), (&raw const TABLE).cast())
}

unsafe extern "C" fn describe(this: *mut c_void, out: *const Out) -> Code {
    // SAFETY: the host opened this instance here, and `out` is its own for this call.
    unsafe {
        guard(out, || {
            let quantizer = shared::<Instance>(this);
            answer(out, &(quantizer.format(), quantizer.lowering()));
            Ok(())
        })
    }
}

unsafe extern "C" fn decode(
    this: *mut c_void,
    blocks: RSlice<'_, u8>,
    numbers: RSliceMut<'_, f32>,
    out: *const Out,
) -> Code {
    // SAFETY: as in `describe`; the slices are lent for the call.
    unsafe {
        guard(out, || shared::<Instance>(this).decode(blocks.as_slice(), numbers.into_mut_slice()))
    }
}

unsafe extern "C" fn encode(
    this: *mut c_void,
    rows: RSlice<'_, f32>,
    mean_square: RSlice<'_, f32>,
    blocks: RSliceMut<'_, u8>,
    out: *const Out,
) -> Code {
    let mean_square = mean_square.as_slice();
    let calibration = Calibration { mean_square };
    let calibration = (!mean_square.is_empty()).then_some(&calibration);
    // SAFETY: as in `decode`.
    unsafe {
        guard(out, || {
            shared::<Instance>(this).encode(rows.as_slice(), calibration, blocks.into_mut_slice())
        })
    }
}

unsafe extern "C" fn unpack(
    this: *mut c_void,
    blocks: RSlice<'_, u8>,
    codes: RSliceMut<'_, u8>,
    scales: RSliceMut<'_, f32>,
    mins: RSliceMut<'_, f32>,
    out: *const Out,
) -> Code {
    let (codes, scales, mins) =
        (codes.into_mut_slice(), scales.into_mut_slice(), mins.into_mut_slice());
    // SAFETY: as in `decode`.
    unsafe {
        guard(out, || {
            let mut open = AffineMut { codes, scales, mins };
            shared::<Instance>(this).unpack(blocks.as_slice(), &mut open)
        })
    }
}

unsafe extern "C" fn pack(
    this: *mut c_void,
    codes: RSlice<'_, u8>,
    scales: RSlice<'_, f32>,
    mins: RSlice<'_, f32>,
    blocks: RSliceMut<'_, u8>,
    out: *const Out,
) -> Code {
    let (codes, scales, mins) = (codes.as_slice(), scales.as_slice(), mins.as_slice());
    // SAFETY: as in `decode`.
    unsafe {
        guard(out, || {
            let parts = Affine { codes, scales, mins };
            shared::<Instance>(this).pack(&parts, blocks.into_mut_slice())
        })
    }
}
