//! Numbers as 8-bit codes: which scales they have, where both lie, and what is patched.
//!
//! All arithmetic is in `f32`, in the order written here, so that every backend stores and reads
//! the same bits.
//!
//! Source: symmetric codes with a scale for each token and head, or each channel, as in LLM.int8 and
//! KVQuant (arXiv:2401.18079, section 3.1).

use half::{bf16, f16};

use super::elements;
use crate::error::{Error, Result};
use crate::plan::{Part, StateSpec};
use crate::tensor::DType;

/// Codes from -127 to 127, symmetric around zero.
#[derive(Debug, Clone, PartialEq)]
pub struct AffineStorage {
    /// What codes are multiplied with.
    pub scales: CodeScales,
    /// How vectors that 8 bits keep badly are kept better.
    pub patches: Option<Patches>,
}

/// Where the scales of codes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum CodeScales {
    /// One for each vector, which is the last axis of a part: its greatest magnitude over 127,
    /// rounded to `f16`. Those of a token lie behind its codes.
    PerVector,
    /// One for each element of a token, for each part of the state in order: positive numbers,
    /// fixed. What goes beyond 127 of them is clipped.
    PerChannel(Vec<Vec<f32>>),
}

/// What is left of a vector after its codes, in 4 bits with a scale of its own, for some vectors of
/// each block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patches {
    /// Most vectors with a patch in one block of a part: the first ones that are eligible.
    pub per_block: usize,
    /// A vector is eligible if the length of what is left is more than this share of its own.
    pub error_min: f32,
}

/// Where codes, scales and patches lie in a block of one part.
///
/// ```text
/// block  token 0 | token 1 | ... | patch 0 | patch 1 | ...
/// token  codes i8 [elements] | scales f16 [vectors], if they are per vector
/// patch  tag u16 | scale f16 | two codes of 4 bits in a byte, the lower first, 8 added to each
/// ```
///
/// A tag is 0 for a patch that is free, else `1 + token * vectors + vector`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CodeLayout {
    /// Tokens in a block.
    pub block_size: usize,
    /// Vectors of a token: the product of all axes of the part but the last.
    pub num_vectors: usize,
    /// Elements of a vector: the last axis.
    pub vector_len: usize,
    /// Whether scales lie behind the codes.
    pub has_scales: bool,
    /// Bytes of a token.
    pub row_bytes: usize,
    /// Patches of a block.
    pub num_patches: usize,
    /// Bytes of a patch.
    pub patch_bytes: usize,
    /// See [`Patches::error_min`].
    pub error_min: f32,
    /// Bytes of a block, patches included.
    pub block_bytes: usize,
}

impl CodeLayout {
    pub(super) fn new(affine: &AffineStorage, part: &Part, block_size: usize) -> Self {
        let vector_len = part.dims.last().map_or(1, |&n| n as usize);
        let num_vectors = elements(part) / vector_len.max(1);
        let has_scales = affine.scales == CodeScales::PerVector;
        let scales = if has_scales { 2 * num_vectors } else { 0 };
        let row_bytes = elements(part).saturating_add(scales);
        let num_patches = affine.patches.map_or(0, |patches| patches.per_block);
        let patch_bytes = 4 + vector_len.div_ceil(2);
        let block_bytes = row_bytes
            .saturating_mul(block_size)
            .saturating_add(num_patches.saturating_mul(patch_bytes));
        let error_min = affine.patches.map_or(0.0, |patches| patches.error_min);
        Self {
            block_size,
            num_vectors,
            vector_len,
            has_scales,
            row_bytes,
            num_patches,
            patch_bytes,
            error_min,
            block_bytes,
        }
    }

    /// The layout of a block whose size is only known in bytes.
    fn of_block(affine: &AffineStorage, part: &Part, block: &[u8]) -> Self {
        let none = Self::new(affine, part, 0);
        let rows = block.len().saturating_sub(none.block_bytes) / none.row_bytes.max(1);
        Self::new(affine, part, rows)
    }

    fn tag(&self, patches: &[u8], patch: usize) -> usize {
        let at = patch * self.patch_bytes;
        usize::from(u16::from_ne_bytes([patches[at], patches[at + 1]]))
    }

    fn set_tag(&self, patches: &mut [u8], patch: usize, tag: usize) {
        let at = patch * self.patch_bytes;
        patches[at..at + 2].copy_from_slice(&(tag as u16).to_ne_bytes());
    }

    /// Frees the patches of token `inside` and later ones.
    fn free_patches(&self, patches: &mut [u8], inside: usize) {
        for patch in 0..self.num_patches {
            if self.tag(patches, patch) > inside * self.num_vectors {
                self.set_tag(patches, patch, 0);
            }
        }
    }
}

impl AffineStorage {
    pub(super) fn check(&self, state: &StateSpec, block_size: usize) -> Result<()> {
        let what = || format!("storage of `{}`", state.name);
        for part in &state.parts {
            let layout = CodeLayout::new(self, part, block_size);
            let tags = layout.num_vectors.saturating_mul(block_size);
            if self.patches.is_some() && tags >= usize::from(u16::MAX) {
                return Err(Error::malformed(what(), "fewer than 65535 vectors in a block", tags));
            }
        }
        let CodeScales::PerChannel(scales) = &self.scales else { return Ok(()) };
        if scales.len() != state.parts.len() {
            let expected = format!("scales for {} parts", state.parts.len());
            return Err(Error::malformed(what(), expected, scales.len()));
        }
        for (part, scales) in state.parts.iter().zip(scales) {
            if scales.len() != elements(part) {
                let expected = format!("{} scales for `{}`", elements(part), part.name);
                return Err(Error::malformed(what(), expected, scales.len()));
            }
            if let Some(wrong) = scales.iter().find(|x| !(x.is_finite() && **x > 0.0)) {
                return Err(Error::malformed(what(), "positive scales", wrong));
            }
        }
        Ok(())
    }

    fn channel_scales(&self, index: usize) -> &[f32] {
        match &self.scales {
            CodeScales::PerVector => &[],
            CodeScales::PerChannel(scales) => &scales[index],
        }
    }

    pub(super) fn write(
        &self,
        index: usize,
        part: &Part,
        block: &mut [u8],
        inside: usize,
        row: &[f32],
    ) {
        let layout = CodeLayout::of_block(self, part, block);
        let (channel_scales, len) = (self.channel_scales(index), layout.vector_len);
        let (rows, patches) = block.split_at_mut(layout.row_bytes * layout.block_size);
        layout.free_patches(patches, inside);
        let token = &mut rows[inside * layout.row_bytes..][..layout.row_bytes];
        let (codes, scales) = token.split_at_mut(row.len());
        for (vector, x) in row.chunks_exact(len).enumerate() {
            let codes = &mut codes[vector * len..][..len];
            let own = layout.has_scales.then(|| {
                let scale = f16::from_f32(peak(x) / 127.0);
                scales[2 * vector..][..2].copy_from_slice(&scale.to_ne_bytes());
                scale.to_f32()
            });
            let scale_of = |c: usize| own.unwrap_or_else(|| channel_scales[vector * len + c]);
            for (c, (code, &x)) in codes.iter_mut().zip(x).enumerate() {
                *code = code_of(x, scale_of(c), 127.0) as u8;
            }
            let left = |c: usize| x[c] - f32::from(codes[c] as i8) * scale_of(c);
            let free = (0..layout.num_patches).find(|&patch| layout.tag(patches, patch) == 0);
            if let Some(patch) = free.filter(|_| is_eligible(x, left, layout.error_min)) {
                layout.set_tag(patches, patch, 1 + inside * layout.num_vectors + vector);
                let at = patch * layout.patch_bytes;
                write_patch(len, left, &mut patches[at + 2..at + layout.patch_bytes]);
            }
        }
    }

    pub(super) fn read(
        &self,
        index: usize,
        part: &Part,
        block: &[u8],
        inside: usize,
        row: &mut [f32],
    ) {
        let layout = CodeLayout::of_block(self, part, block);
        let channel_scales = self.channel_scales(index);
        let (rows, patches) = block.split_at(layout.row_bytes * layout.block_size);
        let token = &rows[inside * layout.row_bytes..][..layout.row_bytes];
        let (codes, scales) = token.split_at(row.len());
        for (c, (x, &code)) in row.iter_mut().zip(codes).enumerate() {
            let scale = if layout.has_scales {
                let at = 2 * (c / layout.vector_len);
                f16::from_ne_bytes([scales[at], scales[at + 1]]).to_f32()
            } else {
                channel_scales[c]
            };
            *x = f32::from(code as i8) * scale;
        }
        for patch in 0..layout.num_patches {
            let tag = layout.tag(patches, patch);
            let first = inside * layout.num_vectors;
            if (first + 1..=first + layout.num_vectors).contains(&tag) {
                let at = patch * layout.patch_bytes;
                let row = &mut row[(tag - 1 - first) * layout.vector_len..][..layout.vector_len];
                add_patch(&patches[at + 2..at + layout.patch_bytes], row);
            }
        }
    }
}

/// Greatest magnitude; numbers that are none are passed over.
fn peak(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |peak, x| if x.abs() > peak { x.abs() } else { peak })
}

/// `x / scale`, clipped to `±max` and rounded, ties to even; 0 for a scale of 0. What is no number
/// becomes `-max`.
fn code_of(x: f32, scale: f32, max: f32) -> i8 {
    if scale == 0.0 {
        return 0;
    }
    let y = x / scale;
    let y = if y > -max { y } else { -max };
    let y = if y < max { y } else { max };
    y.round_ties_even() as i8
}

/// Whether what codes leave of a vector is more than the share `error_min` of it.
fn is_eligible(x: &[f32], left: impl Fn(usize) -> f32, error_min: f32) -> bool {
    let (mut lost, mut whole) = (0.0_f32, 0.0_f32);
    for (c, x) in x.iter().enumerate() {
        lost += left(c) * left(c);
        whole += x * x;
    }
    lost > error_min * error_min * whole
}

/// Scale and codes of 4 bits of `len` numbers.
fn write_patch(len: usize, left: impl Fn(usize) -> f32, out: &mut [u8]) {
    let peak = (0..len).map(|c| left(c).abs()).fold(0.0, |peak, x| if x > peak { x } else { peak });
    let scale = f16::from_f32(peak / 7.0);
    out[..2].copy_from_slice(&scale.to_ne_bytes());
    let code = |c: usize| (code_of(left(c), scale.to_f32(), 7.0) + 8) as u8;
    for (pair, byte) in out[2..].iter_mut().enumerate() {
        let (low, high) = (2 * pair, 2 * pair + 1);
        *byte = code(low) | if high < len { code(high) } else { 8 } << 4;
    }
}

fn add_patch(patch: &[u8], row: &mut [f32]) {
    let scale = f16::from_ne_bytes([patch[0], patch[1]]).to_f32();
    for (pair, byte) in row.chunks_mut(2).zip(&patch[2..]) {
        for (x, code) in pair.iter_mut().zip([byte & 15, byte >> 4]) {
            *x += (f32::from(code) - 8.0) * scale;
        }
    }
}

/// Stores a number, rounded to the nearest, ties to even.
pub(super) fn put_float(dtype: DType, x: f32, bytes: &mut [u8]) {
    match dtype {
        DType::F64 => bytes.copy_from_slice(&f64::from(x).to_ne_bytes()),
        DType::F16 => bytes.copy_from_slice(&f16::from_f32(x).to_ne_bytes()),
        DType::BF16 => bytes.copy_from_slice(&bf16::from_f32(x).to_ne_bytes()),
        _ => bytes.copy_from_slice(&x.to_ne_bytes()),
    }
}

/// Reads one.
pub(super) fn take_float(dtype: DType, bytes: &[u8]) -> f32 {
    match (dtype, bytes) {
        (DType::F64, &[a, b, c, d, e, f, g, h]) => {
            f64::from_ne_bytes([a, b, c, d, e, f, g, h]) as f32
        }
        (DType::F16, &[a, b]) => f16::from_ne_bytes([a, b]).to_f32(),
        (DType::BF16, &[a, b]) => bf16::from_ne_bytes([a, b]).to_f32(),
        (_, &[a, b, c, d]) => f32::from_ne_bytes([a, b, c, d]),
        _ => f32::NAN,
    }
}
