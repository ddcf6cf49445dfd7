//! Quantizers: one block format each, from `f32` rows to bytes and back.
//!
//! The quantizer is the truth about its format. A backend never knows formats by name: it computes
//! by [`Lowering`], from numbers that [`Quantizer::unpack`] lays open.

use std::borrow::Cow;

use super::{SemanticId, kind};
use crate::error::{Error, Result};

/// Encodes and decodes one block format.
pub trait Quantizer: Send + Sync {
    /// Name and sizes of the format. [any thread]
    fn format(&self) -> FormatDesc;

    /// The class of arithmetic that a backend may compute this format with. [any thread]
    fn lowering(&self) -> Lowering;

    /// Blocks to numbers: `out` holds as many elements as `blocks` has blocks times the block
    /// length. [loading threads]
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the sizes do not fit; `out` is then untouched.
    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()>;

    /// Numbers to blocks: the reverse of [`decode`](Self::decode), with the format's rounding.
    /// `calibration` weighs the elements of each row where the method uses it. [loading threads]
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the sizes do not fit; [`Error::Unsupported`] for a format that
    /// is only read.
    fn encode(
        &self,
        rows: &[f32],
        calibration: Option<&Calibration<'_>>,
        out: &mut [u8],
    ) -> Result<()>;

    /// Blocks to codes, scales and minima, for formats whose lowering is [`Lowering::Affine`].
    /// [loading threads]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for other lowerings; [`Error::ShapeMismatch`] if the sizes do not fit.
    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        let _ = (blocks, out);
        Err(Error::unsupported(&self.format().name, "its lowering is not affine"))
    }

    /// Codes, scales and minima to blocks: the reverse of [`unpack`](Self::unpack), for who chooses codes with what
    /// activations tell. [any thread]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a format whose blocks cannot hold whatever scales; [`Error::ShapeMismatch`] if the
    /// sizes do not fit.
    fn pack(&self, parts: &Affine<'_>, out: &mut [u8]) -> Result<()> {
        let _ = (parts, out);
        Err(Error::unsupported(
            &self.format().name,
            "its blocks are not made of codes that others chose",
        ))
    }
}

kind!(Quantizer, "quantizer", EngineStep, traced: false);

/// Name and sizes of a block format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatDesc {
    /// The name in model files, such as `Q4_K`.
    pub name: Cow<'static, str>,
    /// Elements in a block, consecutive in a row.
    pub block_len: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// What the numbers mean.
    pub semantic_id: SemanticId,
}

impl FormatDesc {
    /// Bytes that `num_elements` take, if they fill whole blocks.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if they do not.
    pub fn size_bytes(&self, num_elements: usize) -> Result<usize> {
        let blocks = num_elements / self.block_len;
        match blocks.checked_mul(self.block_bytes) {
            Some(bytes) if num_elements.is_multiple_of(self.block_len) => Ok(bytes),
            _ => Err(Error::shape(
                &self.name,
                format!("whole blocks of {}", self.block_len),
                num_elements,
            )),
        }
    }

    /// Checks the sizes that `decode`, `encode` and `unpack` are called with.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if `num_elements` are not what `num_bytes` hold.
    pub fn check(&self, num_bytes: usize, num_elements: usize) -> Result<()> {
        let expected = self.size_bytes(num_elements)?;
        if expected == num_bytes {
            Ok(())
        } else {
            Err(Error::shape(&self.name, format!("{expected} bytes"), num_bytes))
        }
    }
}

/// The class of arithmetic that a format belongs to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Lowering {
    /// `scale[g] · (code − zero_point) + min[g]` with unsigned codes.
    Affine {
        /// Bits that a code needs: 1 to 8.
        bits: u32,
        /// Elements that share a scale: a multiple of 16, consecutive in a row.
        group: usize,
        /// Subtracted from every code.
        zero_point: u8,
        /// Whether groups have a minimum.
        has_min: bool,
        /// What scales and minima are made of.
        scales: Scales,
    },
    /// `scale[g] · table[code]`.
    Table {
        /// Bits of a code.
        bits: u32,
        /// The value of each code.
        table: Vec<f32>,
        /// Elements that share a scale.
        group: usize,
    },
    /// A float of its own for each element: `f32` is 8 and 23, `f16` 5 and 10, `bf16` 8 and 7.
    MiniFloat {
        /// Exponent bits.
        exponent: u32,
        /// Mantissa bits.
        mantissa: u32,
    },
    /// Nothing a backend could use: it computes on decoded numbers.
    Opaque,
}

/// What scales and minima are made of. `unpack` gives them as `f32` in any case: this says which
/// narrower form a backend may keep them in without losing a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scales {
    /// Any `f32`.
    F32,
    /// Each is exactly representable as `f16`.
    F16,
    /// Each is an `f16` times a whole number in `-128..=127`, exactly. Consecutive groups share
    /// the `f16` of their scales, and that of their minima.
    Product {
        /// Groups that share it: a block is made of such runs.
        groups: usize,
    },
}

/// Where [`Quantizer::unpack`] writes.
#[derive(Debug)]
pub struct AffineMut<'a> {
    /// One code an element.
    pub codes: &'a mut [u8],
    /// One scale a group.
    pub scales: &'a mut [f32],
    /// One minimum a group, empty for lowerings without.
    pub mins: &'a mut [f32],
}

/// What [`Quantizer::pack`] reads.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// One code an element.
    pub codes: &'a [u8],
    /// One scale a group, as the lowering says that they are.
    pub scales: &'a [f32],
    /// One minimum a group, empty for lowerings without.
    pub mins: &'a [f32],
}

impl Affine<'_> {
    /// Checks the sizes that `pack` is called with against the quantizer's format and lowering.
    ///
    /// # Errors
    ///
    /// As [`AffineMut::check`].
    pub fn check(&self, format: &FormatDesc, lowering: &Lowering, num_bytes: usize) -> Result<()> {
        let sizes = [self.codes.len(), self.scales.len(), self.mins.len()];
        check_sizes(sizes, format, lowering, num_bytes)
    }
}

impl AffineMut<'_> {
    /// Checks the sizes that `unpack` is called with against the quantizer's format and lowering.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if they are not what `num_bytes` hold; [`Error::Unsupported`] for a
    /// lowering that is not affine.
    pub fn check(&self, format: &FormatDesc, lowering: &Lowering, num_bytes: usize) -> Result<()> {
        let sizes = [self.codes.len(), self.scales.len(), self.mins.len()];
        check_sizes(sizes, format, lowering, num_bytes)
    }
}

/// Checks numbers of codes, scales and minima.
fn check_sizes(
    [codes, scales, mins]: [usize; 3],
    format: &FormatDesc,
    lowering: &Lowering,
    num_bytes: usize,
) -> Result<()> {
    let Lowering::Affine { group, has_min, .. } = *lowering else {
        return Err(Error::unsupported(&format.name, "its lowering is not affine"));
    };
    format.check(num_bytes, codes)?;
    let groups = codes / group;
    let expected = (groups, if has_min { groups } else { 0 });
    if (scales, mins) == expected {
        return Ok(());
    }
    let expected = format!("{} scales and {} minima", expected.0, expected.1);
    Err(Error::shape(&format.name, expected, format!("{scales} and {mins}")))
}

/// Statistics of the activations that a weight meets, from calibration data.
#[derive(Debug, Clone, Copy)]
pub struct Calibration<'a> {
    /// Mean square of each input channel, `[row length]`.
    pub mean_square: &'a [f32],
}

impl Calibration<'_> {
    /// The importance of `len` consecutive elements of rows from element `start` on: `len` numbers.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if rows are not whole blocks of `len`.
    pub fn importance(&self, start: usize, len: usize) -> Result<&[f32]> {
        let cols = self.mean_square.len();
        if cols == 0 || !cols.is_multiple_of(len) {
            return Err(Error::shape("calibration", format!("whole blocks of {len}"), cols));
        }
        Ok(&self.mean_square[start % cols..][..len])
    }
}
