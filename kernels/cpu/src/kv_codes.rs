//! Keys and values as 8-bit codes: storing them, and reading them back while attending.
//!
//! A number is `code * scale` in `f32`, rounded once; a vector with a patch is that, plus
//! `patch code * patch scale`, rounded again. Whoever reads codes so reads equal bits.

use half::f16;

use crate::{
    attend::{AttendShape, KvRows, LINE_BYTES, SPLIT_POSITIONS, SequenceBlocks},
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
    store_kv::{BlockTable, TokenRefs},
};

/// Where codes, scales and patches lie.
///
/// ```text
/// block  token 0 | token 1 | ... | patch 0 | patch 1 | ...
/// token  codes i8 [heads, head_dim] | scales f16 [heads], if it has some
/// patch  tag u16 | scale f16 | two codes of 4 bits in a byte, the lower first, 8 added to each
/// ```
///
/// A tag is 0 for a patch that is free, else `1 + token * heads + head`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvCodeLayout {
    /// Heads of keys or values: vectors of a token.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// Whether each vector has a scale of its own, behind the codes of its token.
    pub has_scales: bool,
    /// Bytes of a token.
    pub row_bytes: usize,
    /// Patches of a block.
    pub num_patches: usize,
    /// Bytes of a patch.
    pub patch_bytes: usize,
    /// A vector is patched if its codes leave more than this share of its length, while there are
    /// patches.
    pub error_min: f32,
    /// Bytes of a block.
    pub block_bytes: usize,
}

/// Keys or values to read, `[num_blocks, block_bytes]`.
#[derive(Clone, Copy, Debug)]
pub struct KvCodes<'a> {
    /// Where they lie.
    pub layout: &'a KvCodeLayout,
    /// `[heads, head_dim]`, or empty if each vector has its own.
    pub channel_scales: &'a [f32],
    /// All blocks.
    pub bytes: &'a [u8],
}

/// Stores rows of the call's tokens into their slots, as codes.
///
/// | argument         | shape                                          |
/// |------------------|------------------------------------------------|
/// | `channel_scales` | `[heads, head_dim]`, or empty: scales in place |
/// | `x`              | `[tokens, heads, head_dim]`                    |
/// | `bytes`          | `[num_blocks, block_bytes]`                    |
///
/// A scale of a vector is its greatest magnitude over 127 as `f16`. KvCodes are clipped to ±127 and
/// rounded, ties to even. Patches of a stored token and of later ones of its block are taken away.
///
/// # Panics
///
/// If the lengths do not fit the layout or a slot is outside of `bytes`.
pub fn store_kv_codes(
    isa: Isa,
    layout: &KvCodeLayout,
    channel_scales: &[f32],
    x: &[f32],
    tokens: TokenRefs<'_>,
    table: BlockTable<'_>,
    bytes: &mut [u8],
) {
    let width = layout.heads * layout.head_dim;
    let len = tokens.positions.len() * width;
    assert_eq!(x.len(), len, "store_kv_codes: x is not [tokens, heads, head_dim]");
    assert_eq!(table.block_size, layout.block_size, "store_kv_codes: blocks differ");
    let num_scales = if layout.has_scales { 0 } else { width };
    assert_eq!(channel_scales.len(), num_scales, "store_kv_codes: not the scales of the layout");
    assert_eq!(
        tokens.positions.len(),
        tokens.sequence_index.len(),
        "store_kv_codes: tokens differ"
    );
    for (t, &position) in tokens.positions.iter().enumerate() {
        let (block, inside) =
            (position as usize / table.block_size, position as usize % table.block_size);
        assert!(block < table.blocks_per_seq, "store_kv_codes: position {position} is outside");
        let row = tokens.sequence_index[t] as usize * table.blocks_per_seq;
        let block = table.entries[row + block] as usize;
        let block = &mut bytes[block * layout.block_bytes..][..layout.block_bytes];
        let x = &x[t * width..][..width];
        dispatch(isa, Store { layout, channel_scales, x, block, inside });
    }
}

/// One token on its way into its block.
struct Store<'a> {
    layout: &'a KvCodeLayout,
    channel_scales: &'a [f32],
    x: &'a [f32],
    block: &'a mut [u8],
    inside: usize,
}

impl Kernel for Store<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (layout, head_dim) = (self.layout, self.layout.head_dim);
        let (rows, patches) = self.block.split_at_mut(layout.row_bytes * layout.block_size);
        for patch in patches.chunks_exact_mut(layout.patch_bytes) {
            if tag_of(patch) > self.inside * layout.heads {
                patch[..2].fill(0);
            }
        }
        let token = &mut rows[self.inside * layout.row_bytes..][..layout.row_bytes];
        let (codes, scales) = token.split_at_mut(self.x.len());
        for (head, x) in self.x.chunks_exact(head_dim).enumerate() {
            let codes = &mut codes[head * head_dim..][..head_dim];
            if layout.has_scales {
                let scale = f16::from_f32(peak::<L>(x) / 127.0);
                scales[2 * head..][..2].copy_from_slice(&scale.to_ne_bytes());
                let scale = scale.to_f32();
                encode::<L>(x, |_| L::splat(scale), codes);
                patch(layout, self.inside, head, x, codes, |_| scale, patches);
            } else {
                let scales = &self.channel_scales[head * head_dim..][..head_dim];
                encode::<L>(x, |c| L::load_part(part(scales, c), 1.0), codes);
                patch(layout, self.inside, head, x, codes, |c| scales[c], patches);
            }
        }
    }
}

fn tag_of(patch: &[u8]) -> usize {
    usize::from(u16::from_ne_bytes([patch[0], patch[1]]))
}

/// Up to a vector of numbers from `at` on.
#[inline(always)]
fn part(x: &[f32], at: usize) -> &[f32] {
    &x[at..x.len().min(at + LANES)]
}

/// Greatest magnitude; numbers that are none are passed over.
#[inline(always)]
fn peak<L: Lanes>(x: &[f32]) -> f32 {
    let mut peak = L::splat(0.0);
    for at in (0..x.len()).step_by(LANES) {
        peak = L::load_part(part(x, at), 0.0).abs().max(peak);
    }
    peak.peak()
}

/// Writes `x / scale_at`, clipped and rounded.
#[inline(always)]
fn encode<L: Lanes>(x: &[f32], scale_at: impl Fn(usize) -> L, codes: &mut [u8]) {
    let most = L::splat(127.0);
    for at in (0..x.len()).step_by(LANES) {
        let (x, scale) = (L::load_part(part(x, at), 0.0), scale_at(at));
        // What is no number becomes the least code; a scale of zero has nothing but zeros.
        let y = x.div(scale).max(most.neg()).min(most);
        let zero = L::splat(0.0);
        let y = zero.if_less(scale, y, zero);
        let mut lanes = [0; LANES];
        y.store_i8(&mut lanes);
        let end = codes.len().min(at + LANES);
        codes[at..end].copy_from_slice(&lanes[..end - at]);
    }
}

/// Keeps what codes leave of a vector, if that is much and there is a patch.
///
/// One number after the other: whether it is kept must not depend on the order of a sum.
fn patch(
    layout: &KvCodeLayout,
    inside: usize,
    head: usize,
    x: &[f32],
    codes: &[u8],
    scale_at: impl Fn(usize) -> f32,
    patches: &mut [u8],
) {
    let mut patches = patches.chunks_exact_mut(layout.patch_bytes);
    let Some(patch) = patches.find(|patch| tag_of(patch) == 0) else { return };
    let left = |c: usize| x[c] - f32::from(codes[c] as i8) * scale_at(c);
    let (mut lost, mut whole, mut peak) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (c, x) in x.iter().enumerate() {
        let left = left(c);
        lost += left * left;
        whole += x * x;
        peak = if left.abs() > peak { left.abs() } else { peak };
    }
    // What is no number is not much.
    let is_much = lost > layout.error_min * layout.error_min * whole;
    if !is_much {
        return;
    }
    let tag = 1 + inside * layout.heads + head;
    let scale = f16::from_f32(peak / 7.0);
    patch[..2].copy_from_slice(&(tag as u16).to_ne_bytes());
    patch[2..4].copy_from_slice(&scale.to_ne_bytes());
    let scale = scale.to_f32();
    let code = |c: usize| {
        if c >= x.len() || scale == 0.0 {
            return 8;
        }
        let y = left(c) / scale;
        let y = if y > -7.0 { y } else { -7.0 };
        let y = if y < 7.0 { y } else { 7.0 };
        (y.round_ties_even() as i8 + 8) as u8
    };
    for (pair, byte) in patch[4..].iter_mut().enumerate() {
        *byte = code(2 * pair) | code(2 * pair + 1) << 4;
    }
}

impl<'a> KvCodes<'a> {
    /// The rows of one head.
    pub(crate) fn head(self, head: usize) -> HeadCodes<'a> {
        let KvCodes { layout, channel_scales, bytes } = self;
        let scales = match layout.has_scales {
            true => &[][..],
            false => &channel_scales[head * layout.head_dim..][..layout.head_dim],
        };
        HeadCodes { layout, head, scales, bytes }
    }
}

/// The codes of one head.
#[derive(Clone, Copy)]
pub(crate) struct HeadCodes<'a> {
    layout: &'a KvCodeLayout,
    head: usize,
    /// `[head_dim]`, or empty.
    scales: &'a [f32],
    bytes: &'a [u8],
}

/// What codes of a split are multiplied with, and where patches lie.
pub(crate) struct CodeSplit {
    /// One for each position, where each has its own.
    scales: [f32; SPLIT_POSITIONS],
    /// The first byte of each position's patch; 0 where there is none.
    patches: [usize; SPLIT_POSITIONS],
}

impl HeadCodes<'_> {
    /// Scales of up to a vector of positions, which follow the codes of their tokens.
    #[inline(always)]
    fn load_scales<L: Lanes>(self, slots: &[usize], scales: &mut [f32]) {
        let KvCodeLayout { heads, head_dim, .. } = *self.layout;
        let behind = (heads - self.head) * head_dim + 2 * self.head;
        let mut halves = [f16::ZERO; LANES];
        for (half, slot) in halves.iter_mut().zip(slots) {
            let bytes = &self.bytes[slot + behind..][..2];
            *half = f16::from_ne_bytes([bytes[0], bytes[1]]);
        }
        L::load_f16(&halves).store_part(scales);
    }

    /// Finds the patches of `num` positions from `start` on.
    fn find_patches(
        self,
        sequence: SequenceBlocks<'_>,
        start: usize,
        num: usize,
        patches: &mut [usize; SPLIT_POSITIONS],
    ) {
        patches.fill(0);
        let layout = self.layout;
        let size = sequence.block_size;
        for block in start / size..(start + num).div_ceil(size) {
            let at = sequence.blocks[block] as usize * layout.block_bytes;
            let at = at + size * layout.row_bytes;
            for patch in 0..layout.num_patches {
                let at = at + patch * layout.patch_bytes;
                let tag = tag_of(&self.bytes[at..][..2]);
                let Some(vector) = tag.checked_sub(1) else { continue };
                let position = block * size + vector / layout.heads;
                if vector % layout.heads == self.head && (start..start + num).contains(&position) {
                    patches[position - start] = at;
                }
            }
        }
    }

    /// Adds a patch to the channels from `channel` on.
    fn add_patch<L: Lanes, const C: usize>(
        self,
        patch: usize,
        channel: usize,
        width: usize,
        x: &mut [L; C],
    ) {
        let patch = &self.bytes[patch..][..self.layout.patch_bytes];
        let scale = f16::from_ne_bytes([patch[2], patch[3]]).to_f32();
        for (vector, x) in x.iter_mut().enumerate() {
            let first = channel + vector * LANES;
            let mut codes = [0_u8; LANES];
            let num = (channel + width).saturating_sub(first);
            for (c, code) in (first..first + num.min(LANES)).zip(&mut codes) {
                let nibble = patch[4 + c / 2] >> (4 * (c % 2)) & 15;
                *code = nibble.wrapping_sub(8);
            }
            *x = x.add(L::load_i8(&codes).mul(L::splat(scale)));
        }
    }
}

impl KvRows for HeadCodes<'_> {
    type Split = CodeSplit;
    const NO_SPLIT: CodeSplit =
        CodeSplit { scales: [0.0; SPLIT_POSITIONS], patches: [0; SPLIT_POSITIONS] };

    #[inline(always)]
    fn strides(self, _: AttendShape, _: usize) -> [usize; 2] {
        [self.layout.block_bytes, self.layout.row_bytes]
    }

    #[inline(always)]
    fn open<L: Lanes>(
        self,
        sequence: SequenceBlocks<'_>,
        start: usize,
        slots: &[usize],
        split: &mut CodeSplit,
    ) {
        if self.layout.has_scales {
            for (slots, scales) in slots.chunks(LANES).zip(split.scales.chunks_mut(LANES)) {
                self.load_scales::<L>(slots, scales);
            }
        }
        if self.layout.num_patches > 0 {
            self.find_patches(sequence, start, slots.len(), &mut split.patches);
        }
    }

    #[inline(always)]
    fn load<L: Lanes, const C: usize>(
        self,
        split: &CodeSplit,
        position: usize,
        slot: usize,
        channel: usize,
        width: usize,
    ) -> [L; C] {
        let from = &self.bytes[slot + channel..][..width];
        let mut x = [L::splat(0.0); C];
        if C * LANES == width {
            for (x, from) in x.iter_mut().zip(from.as_chunks().0) {
                *x = L::load_i8(from);
            }
        } else {
            for (x, from) in x.iter_mut().zip(from.chunks(LANES)) {
                let mut codes = [0; LANES];
                codes[..from.len()].copy_from_slice(from);
                *x = L::load_i8(&codes);
            }
        }
        if self.layout.has_scales {
            let scale = L::splat(split.scales[position]);
            x = x.map(|x| x.mul(scale));
        } else {
            for (x, scales) in x.iter_mut().zip(self.scales[channel..][..width].chunks(LANES)) {
                *x = x.mul(L::load_part(scales, 0.0));
            }
        }
        let patch = split.patches[position];
        if patch != 0 {
            self.add_patch(patch, channel, width, &mut x);
        }
        x
    }

    #[inline(always)]
    fn prefetch<L: Lanes>(self, slot: usize, channel: usize, width: usize) {
        for c in (0..width).step_by(LINE_BYTES) {
            L::prefetch(self.bytes.as_ptr().wrapping_add(slot + channel + c));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attend::{AttendSpec, attend, attend_codes},
        testing::{bits, floats, isas},
    };

    const TOKENS: usize = 37;

    fn layout(heads: usize, head_dim: usize, has_scales: bool, num_patches: usize) -> KvCodeLayout {
        let row_bytes = heads * head_dim + if has_scales { 2 * heads } else { 0 };
        let (block_size, patch_bytes) = (8, 4 + head_dim.div_ceil(2));
        let block_bytes = block_size * row_bytes + num_patches * patch_bytes;
        let error_min = if has_scales { 0.0035 } else { 0.03 };
        KvCodeLayout {
            heads,
            head_dim,
            block_size,
            has_scales,
            row_bytes,
            num_patches,
            patch_bytes,
            error_min,
            block_bytes,
        }
    }

    fn layouts() -> impl Iterator<Item = (KvCodeLayout, Vec<f32>)> {
        [(1, 1), (2, 7), (3, 16), (2, 63), (1, 144)].into_iter().flat_map(|(heads, head_dim)| {
            [(true, 0), (false, 0), (true, 3), (false, 8)].map(|(has_scales, num_patches)| {
                let channels = 0..if has_scales { 0 } else { heads * head_dim };
                let scales = channels.map(|c| 0.008 + (c % 5) as f32 * 0.003).collect();
                (layout(heads, head_dim, has_scales, num_patches), scales)
            })
        })
    }

    fn table(entries: &[u32]) -> BlockTable<'_> {
        BlockTable { entries, blocks_per_seq: entries.len(), block_size: 8 }
    }

    const ENTRIES: [u32; 5] = [3, 0, 4, 1, 2];

    /// Stores the tokens `at_once` by `at_once`.
    fn store(
        isa: Isa,
        layout: &KvCodeLayout,
        scales: &[f32],
        x: &[f32],
        at_once: usize,
    ) -> Vec<u8> {
        let mut bytes = vec![0; ENTRIES.len() * layout.block_bytes];
        let width = layout.heads * layout.head_dim;
        let positions: Vec<u32> = (0..TOKENS as u32).collect();
        for (positions, x) in positions.chunks(at_once).zip(x.chunks(at_once * width)) {
            let sequence_index = vec![0; positions.len()];
            let tokens = TokenRefs { positions, sequence_index: &sequence_index };
            store_kv_codes(isa, layout, scales, x, tokens, table(&ENTRIES), &mut bytes);
        }
        bytes
    }

    /// What the codes of a token stand for, number by number.
    fn decode(layout: &KvCodeLayout, scales: &[f32], bytes: &[u8], token: usize) -> Vec<f32> {
        let block = ENTRIES[token / 8] as usize * layout.block_bytes;
        let (block, inside) = (&bytes[block..][..layout.block_bytes], token % 8);
        let row = &block[inside * layout.row_bytes..][..layout.row_bytes];
        let width = layout.heads * layout.head_dim;
        let half = |at: usize, of: &[u8]| f16::from_ne_bytes([of[at], of[at + 1]]).to_f32();
        let scale = |c: usize| match layout.has_scales {
            true => half(width + 2 * (c / layout.head_dim), row),
            false => scales[c],
        };
        let mut x: Vec<f32> = (0..width).map(|c| f32::from(row[c] as i8) * scale(c)).collect();
        for patch in block[8 * layout.row_bytes..].chunks(layout.patch_bytes) {
            for (head, x) in x.chunks_mut(layout.head_dim).enumerate() {
                if tag_of(patch) == 1 + inside * layout.heads + head {
                    for (c, x) in x.iter_mut().enumerate() {
                        let code = patch[4 + c / 2] >> (4 * (c % 2)) & 15;
                        *x += (f32::from(code) - 8.0) * half(2, patch);
                    }
                }
            }
        }
        x
    }

    #[test]
    fn codes_are_near_and_the_same_on_every_isa_in_every_chunk() {
        for (layout, scales) in layouts() {
            let x = floats(TOKENS * layout.heads * layout.head_dim, 5);
            let expected = store(Isa::Scalar, &layout, &scales, &x, TOKENS);
            for isa in isas() {
                for at_once in [1, 5, TOKENS] {
                    let found = store(isa, &layout, &scales, &x, at_once);
                    assert!(found == expected, "{isa:?} {layout:?} by {at_once}");
                }
            }
            let (mut patched, width) = (0, layout.heads * layout.head_dim);
            for (token, x) in x.chunks(width).enumerate() {
                for (c, (found, x)) in
                    decode(&layout, &scales, &expected, token).iter().zip(x).enumerate()
                {
                    let scale = if layout.has_scales { 2.0 / 127.0 } else { scales[c] };
                    let clipped = (x.abs() - 127.0 * scale).max(0.0);
                    let within = 0.501 * scale + clipped + 2.0 / 2048.0;
                    assert!((found - x).abs() <= within, "{layout:?} {token} {c}: {found} for {x}");
                }
            }
            for block in expected.chunks(layout.block_bytes) {
                let patches = block[8 * layout.row_bytes..].chunks(layout.patch_bytes);
                patched += patches.filter(|patch| tag_of(patch) > 0).count();
            }
            // A vector of one element loses nothing to a scale of its own.
            let loses = layout.head_dim > 1 || !layout.has_scales;
            assert_eq!(patched > 0, layout.num_patches > 0 && loses, "{layout:?}");
        }
    }

    /// Attends over codes, and over what they stand for: both have to be equal.
    fn attend_both(
        (layout, scales): (&KvCodeLayout, &[f32]),
        spec: AttendSpec,
        sinks: &[f32],
        [k, v]: [&[u8]; 2],
    ) {
        let (kv_heads, head_dim) = (layout.heads, layout.head_dim);
        let shape = AttendShape { heads: 2 * kv_heads, kv_heads, head_dim };
        let plain = |bytes: &[u8]| -> Vec<f32> {
            (0..TOKENS).flat_map(|token| decode(layout, scales, bytes, token)).collect()
        };
        let (plain_k, plain_v) = (plain(k), plain(v));
        let q = floats(TOKENS * 2 * kv_heads * head_dim, 3);
        let width = spec.values_of(head_dim);
        let positions: Vec<u32> = (0..TOKENS as u32).collect();
        for isa in isas() {
            let len = TOKENS * 2 * kv_heads * width;
            let [mut found, mut expected] = [vec![f32::NAN; len], vec![f32::NAN; len]];
            for head in 0..kv_heads {
                let (q, at) = (&q[head * 2 * head_dim..], head * 2 * width);
                let sequence = SequenceBlocks { blocks: &ENTRIES, block_size: 8 };
                let codes = |bytes| KvCodes { layout, channel_scales: scales, bytes };
                let (kv, out) = ([codes(k), codes(v)], &mut found[at..]);
                attend_codes(isa, spec, shape, head, q, sinks, &positions, sequence, kv, out);
                let sequence = SequenceBlocks { blocks: &[0], block_size: TOKENS };
                let (kv, out) = ([&plain_k[..], &plain_v[..]], &mut expected[at..]);
                attend(isa, spec, shape, head, q, sinks, &positions, sequence, kv, out);
            }
            assert_eq!(bits(&found), bits(&expected), "{isa:?} {layout:?} {spec:?}");
        }
    }

    #[test]
    fn attending_to_codes_is_attending_to_what_they_stand_for() {
        for (layout, scales) in layouts() {
            let (kv_heads, head_dim) = (layout.heads, layout.head_dim);
            let [k, v] = [1, 2].map(|seed| {
                let x = floats(TOKENS * kv_heads * head_dim, seed);
                store(Isa::Scalar, &layout, &scales, &x, TOKENS)
            });
            let (of, plain) = ((&layout, &scales[..]), AttendSpec::plain(0.3));
            attend_both(of, plain, &[], [&k, &v]);
            let sinks = floats(2 * kv_heads, 4);
            attend_both(of, AttendSpec { chunk: 9, ..plain }, &sinks, [&k, &v]);
            // Values that are the first channels of the keys.
            let value_dim = head_dim.div_ceil(2);
            attend_both(of, AttendSpec { value_dim, ..plain }, &sinks, [&k, &k]);
        }
    }

    #[test]
    fn what_is_written_again_loses_its_patch() {
        let layout = layout(2, 16, true, 16);
        let x = floats(TOKENS * 32, 9);
        let mut bytes = store(Isa::Scalar, &layout, &[], &x, TOKENS);
        let tags = |bytes: &[u8]| -> Vec<usize> {
            let block = &bytes[ENTRIES[0] as usize * layout.block_bytes..][..layout.block_bytes];
            let tags = block[8 * layout.row_bytes..].chunks(layout.patch_bytes).map(tag_of);
            tags.filter(|tag| *tag > 0).collect()
        };
        assert!(tags(&bytes).iter().any(|tag| *tag > 2 * 4), "{:?}", tags(&bytes));
        let tokens = TokenRefs { positions: &[4], sequence_index: &[0] };
        store_kv_codes(Isa::Scalar, &layout, &[], &[0.0; 32], tokens, table(&ENTRIES), &mut bytes);
        assert!(tags(&bytes).iter().all(|tag| *tag <= 2 * 4), "{:?}", tags(&bytes));
        assert_eq!(decode(&layout, &[], &bytes, 4), [0.0; 32]);
    }
}
