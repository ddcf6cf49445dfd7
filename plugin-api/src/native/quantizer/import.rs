//! Quantizers on the host's side.
//!
//! A format does not change during an instance's life: it is asked for once and judged then, so
//! that nobody divides by a block of nothing later.

use std::ffi::c_void;
use std::sync::Arc;

use super::Instance;
use crate::error::{Error, Result};
use crate::kinds::SemanticId;
use crate::kinds::quantizer::{
    Affine, AffineMut, Calibration, FormatDesc, Lowering, Quantizer, Scales,
};
use crate::native::Owner;
use crate::native::abi::quantizer::QuantizerV1;
use crate::native::abi::{Code, Opened, Out};
use crate::native::call::Remote;

/// A quantizer in another library.
struct Adapter {
    remote: Remote,
    table: &'static QuantizerV1,
    /// What the plugin said of its format, or why it cannot be worked with.
    described: Result<(FormatDesc, Lowering)>,
}

/// # Safety
///
/// `opened` came from `export` of a library that matches and stays mapped.
pub(in crate::native) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<QuantizerV1>() };
    let remote = Remote::new(opened.this, owner);
    // SAFETY: the table belongs to the instance.
    let described = remote.ask(|this, out| unsafe { (table.describe)(this, out) });
    let described = described.and_then(|(format, lowering)| {
        remote.judged(check(&format, &lowering))?;
        Ok((format, lowering))
    });
    Box::new(Adapter { remote, table, described })
}

/// Refuses sizes that nobody could compute with.
fn check(format: &FormatDesc, lowering: &Lowering) -> Result<()> {
    let has_size = |size: usize| (1..=BLOCK_MAX).contains(&size);
    if !has_size(format.block_len) || !has_size(format.block_bytes) {
        let expected = format!("blocks of 1 to {BLOCK_MAX} elements and bytes");
        let found = format!("{} in {}", format.block_len, format.block_bytes);
        return Err(Error::malformed(format!("format {}", format.name), expected, found));
    }
    let is_code = |bits: u32| (1..=8).contains(&bits);
    let is_group = |group: usize| group > 0 && format.block_len.is_multiple_of(group);
    let is_usable = match lowering {
        Lowering::Affine { bits, group, zero_point, scales, .. } => {
            is_code(*bits)
                && group.is_multiple_of(16)
                && is_group(*group)
                && u32::from(*zero_point) < 1 << bits
                && match scales {
                    Scales::Product { groups } => {
                        *groups > 0 && (format.block_len / group).is_multiple_of(*groups)
                    }
                    _ => true,
                }
        }
        Lowering::Table { bits, table, group } => {
            is_code(*bits) && table.len() == 1 << bits && is_group(*group)
        }
        Lowering::MiniFloat { exponent, mantissa } => {
            (1..=11).contains(exponent) && (0..=52).contains(mantissa)
        }
        Lowering::Opaque => true,
    };
    if is_usable {
        return Ok(());
    }
    let what = format!("lowering of {}", format.name);
    let expected = "codes of 1 to 8 bits in groups that a block is made of";
    Err(Error::malformed(what, expected, format!("{lowering:?}")))
}

/// No format has larger blocks, in elements or bytes.
const BLOCK_MAX: usize = 1 << 16;

impl Adapter {
    fn call(&self, function: impl FnOnce(*mut c_void, *const Out) -> Code) -> Result<()> {
        self.described.as_ref().map_err(Error::clone)?;
        self.remote.call(&mut Vec::new(), function)
    }
}

impl Quantizer for Adapter {
    fn format(&self) -> FormatDesc {
        match &self.described {
            Ok((format, _)) => format.clone(),
            // No model file names it, and sizes of 1 divide everything.
            Err(error) => FormatDesc {
                name: "unreadable format".into(),
                block_len: 1,
                block_bytes: 1,
                semantic_id: SemanticId::new(format!("unreadable: {error}")),
            },
        }
    }

    fn lowering(&self) -> Lowering {
        self.described.as_ref().map_or(Lowering::Opaque, |(_, lowering)| lowering.clone())
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        let table = self.table;
        // SAFETY: the table belongs to the instance; all pointers live until the call ends.
        self.call(|this, to| unsafe { (table.decode)(this, blocks.into(), out.into(), to) })
    }

    fn encode(
        &self,
        rows: &[f32],
        calibration: Option<&Calibration<'_>>,
        out: &mut [u8],
    ) -> Result<()> {
        let table = self.table;
        let mean_square = calibration.map_or(&[][..], |calibration| calibration.mean_square);
        if calibration.is_some() && mean_square.is_empty() {
            return Err(Error::shape("calibration", "a number for each channel", 0));
        }
        self.call(|this, to| {
            // SAFETY: as in `decode`.
            unsafe { (table.encode)(this, rows.into(), mean_square.into(), out.into(), to) }
        })
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        let table = self.table;
        let (codes, scales, mins) =
            ((&mut *out.codes).into(), (&mut *out.scales).into(), (&mut *out.mins).into());
        // SAFETY: as in `decode`.
        self.call(|this, to| unsafe {
            (table.unpack)(this, blocks.into(), codes, scales, mins, to)
        })
    }

    fn pack(&self, parts: &Affine<'_>, out: &mut [u8]) -> Result<()> {
        let table = self.table;
        let (codes, scales, mins) = (parts.codes.into(), parts.scales.into(), parts.mins.into());
        // SAFETY: as in `decode`.
        self.call(|this, to| unsafe { (table.pack)(this, codes, scales, mins, out.into(), to) })
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}
