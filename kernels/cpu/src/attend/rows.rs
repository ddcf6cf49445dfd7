//! What tiles read keys and values from: rows of floats, or of codes.

use super::{AttendShape, SequenceBlocks};
use crate::{
    element::load_part,
    lanes::{Element, LANES, Lanes},
};

/// Rows of keys or values of one head, found by slots.
pub(crate) trait KvRows: Copy {
    /// What a split has to know of its positions besides their slots.
    type Split;
    /// Before one is opened.
    const NO_SPLIT: Self::Split;

    /// How far blocks of `block_size` rows lie apart, and rows, in the unit of slots.
    fn strides(self, shape: AttendShape, block_size: usize) -> [usize; 2];

    /// Gets to know the positions from `start` on, which lie at `slots`.
    fn open<L: Lanes>(
        self,
        sequence: SequenceBlocks<'_>,
        start: usize,
        slots: &[usize],
        split: &mut Self::Split,
    );

    /// `width` channels from `channel` on of the row at `slot`, which is `position` of the split;
    /// what is beyond them is zero. At most `C` vectors.
    fn load<L: Lanes, const C: usize>(
        self,
        split: &Self::Split,
        position: usize,
        slot: usize,
        channel: usize,
        width: usize,
    ) -> [L; C];

    /// Has the same channels brought closer.
    fn prefetch<L: Lanes>(self, slot: usize, channel: usize, width: usize);
}

/// Rows of floats, `[num_blocks, block_size, kv_heads, head_dim]`.
#[derive(Clone, Copy)]
pub(crate) struct Elements<'a, S>(pub(crate) &'a [S]);

/// Bytes of a cache line.
pub(crate) const LINE_BYTES: usize = 64;

impl<S: Element> KvRows for Elements<'_, S> {
    type Split = ();
    const NO_SPLIT: () = ();

    #[inline(always)]
    fn strides(self, shape: AttendShape, block_size: usize) -> [usize; 2] {
        let row = shape.kv_heads * shape.head_dim;
        [block_size * row, row]
    }

    #[inline(always)]
    fn open<L: Lanes>(self, _: SequenceBlocks<'_>, _: usize, _: &[usize], (): &mut ()) {}

    #[inline(always)]
    fn load<L: Lanes, const C: usize>(
        self,
        (): &(),
        _: usize,
        slot: usize,
        channel: usize,
        width: usize,
    ) -> [L; C] {
        let from = &self.0[slot + channel..][..width];
        let mut x = [L::splat(0.0); C];
        if C * LANES == width {
            for (x, from) in x.iter_mut().zip(from.as_chunks().0) {
                *x = S::load(from);
            }
        } else {
            for (x, from) in x.iter_mut().zip(from.chunks(LANES)) {
                *x = load_part::<S, L>(from);
            }
        }
        x
    }

    #[inline(always)]
    fn prefetch<L: Lanes>(self, slot: usize, channel: usize, width: usize) {
        for c in (0..width).step_by(LINE_BYTES / size_of::<S>()) {
            L::prefetch(self.0.as_ptr().wrapping_add(slot + channel + c));
        }
    }
}
