//! The two products of a tile: queries with keys, weights with values.

use super::{KvRows, Row, Weights};
use crate::lanes::{LANES, Lanes};

/// Vectors of positions that a block of keys has.
const KEY_VECTORS: usize = 4;
/// Channels of a block of keys.
const KEY_CHANNELS: usize = 64;

/// Positions ahead whose values are brought closer.
const VALUES_AHEAD: usize = 24;

/// Keys of some positions, channels outermost: `[channel][position]`.
pub(crate) type Keys = [[[f32; LANES]; KEY_VECTORS]; KEY_CHANNELS];

pub(crate) const KEYS_ZERO: Keys = [[[0.0; LANES]; KEY_VECTORS]; KEY_CHANNELS];

/// Writes the score of each of the tile's rows with each position: `slots` says where the
/// positions' keys begin. Numbers beyond them are of no meaning.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "each is a tensor")]
pub(crate) fn scores<R: KvRows, L: Lanes>(
    scale: f32,
    head_dim: usize,
    q: &[f32],
    (k, split): (R, &R::Split),
    slots: &[usize],
    rows: &[Row],
    keys: &mut Keys,
    weights: &mut Weights,
) {
    for (block, here) in slots.chunks(KEY_VECTORS * LANES).enumerate() {
        let next = slots.get((block + 1) * KEY_VECTORS * LANES..).unwrap_or_default();
        for &slot in next.iter().take(KEY_VECTORS * LANES) {
            k.prefetch::<L>(slot, 0, head_dim);
        }
        let slots = here;
        let first = block * KEY_VECTORS * LANES;
        for channel in (0..head_dim).step_by(KEY_CHANNELS) {
            let len = KEY_CHANNELS.min(head_dim - channel);
            load_keys::<R, L>((k, split), (first, slots), channel, len, keys);
            let keys = &keys[..len];
            let scale = if channel + len == head_dim { Some(scale) } else { None };
            let mut row = 0;
            while row < rows.len() {
                let span = Span { q, rows: &rows[row..], channel, scale };
                let weights = &mut weights[row..];
                row += match rows.len() - row {
                    4.. if L::TILE_ROWS >= 4 => span.products::<L, 4>(keys, first, weights),
                    3 if L::TILE_ROWS >= 4 => span.products::<L, 3>(keys, first, weights),
                    2.. => span.products::<L, 2>(keys, first, weights),
                    _ => span.products::<L, 1>(keys, first, weights),
                };
            }
        }
    }
}

/// Transposes `len` channels of the keys of `slots`, the first of which is position `first` of the
/// split; further positions are zeros.
#[inline(always)]
fn load_keys<R: KvRows, L: Lanes>(
    (k, split): (R, &R::Split),
    (first, slots): (usize, &[usize]),
    channel: usize,
    len: usize,
    keys: &mut Keys,
) {
    for (vector, slots) in slots.chunks(LANES).enumerate() {
        for from in (0..len).step_by(LANES) {
            let width = LANES.min(len - from);
            let mut rows = [L::splat(0.0); LANES];
            for (i, (row, slot)) in rows.iter_mut().zip(slots).enumerate() {
                let position = first + vector * LANES + i;
                [*row] = k.load::<L, 1>(split, position, *slot, channel + from, width);
            }
            for (column, keys) in L::transpose(rows).into_iter().zip(&mut keys[from..][..width]) {
                column.store(&mut keys[vector]);
            }
        }
    }
}

/// Some channels of some rows on their way to scores.
struct Span<'a> {
    q: &'a [f32],
    rows: &'a [Row],
    /// The first channel; others have been added to the scores before.
    channel: usize,
    /// What to multiply with after the last channel.
    scale: Option<f32>,
}

impl Span<'_> {
    /// Adds the products of `R` rows to the scores from position `first` on; returns `R`.
    #[inline(always)]
    fn products<L: Lanes, const R: usize>(
        &self,
        keys: &[[[f32; LANES]; KEY_VECTORS]],
        first: usize,
        weights: &mut [[f32; super::SPLIT_POSITIONS]],
    ) -> usize {
        let q: [&[f32]; R] =
            std::array::from_fn(|r| &self.q[self.rows[r].at + self.channel..][..keys.len()]);
        let mut sums = [[L::splat(0.0); KEY_VECTORS]; R];
        if self.channel > 0 {
            for r in 0..R {
                for (sum, x) in sums[r].iter_mut().zip(weights[r][first..].as_chunks().0) {
                    *sum = L::load(x);
                }
            }
        }
        for (c, keys) in keys.iter().enumerate() {
            let mut k = [L::splat(0.0); KEY_VECTORS];
            for v in 0..KEY_VECTORS {
                k[v] = L::load(&keys[v]);
            }
            for r in 0..R {
                let q = L::splat(q[r][c]);
                for v in 0..KEY_VECTORS {
                    sums[r][v] = q.fma(k[v], sums[r][v]);
                }
            }
        }
        for r in 0..R {
            let out = weights[r][first..].as_chunks_mut().0;
            for (sum, out) in sums[r].iter().zip(out) {
                match self.scale {
                    Some(scale) => sum.mul(L::splat(scale)).store(out),
                    None => sum.store(out),
                }
            }
        }
        R
    }
}

/// Writes `out = out * old + (sum of weights[j] * v[j]) * new` for each row of the tile that sees
/// a position of the split.
#[inline(always)]
pub(crate) fn values<R: KvRows, L: Lanes>(
    head_dim: usize,
    (v, split): (R, &R::Split),
    slots: &[usize],
    rows: &[Row],
    weights: &Weights,
    out: &mut [f32],
) {
    let mut row = 0;
    while row < rows.len() {
        let left = rows.len() - row;
        let mut of =
            Values { head_dim, v, split, slots, rows: &rows[row..], weights: &weights[row..], out };
        row += match left {
            4.. if L::TILE_ROWS >= 4 => of.rows::<L, 4>(),
            3 if L::TILE_ROWS >= 4 => of.rows::<L, 3>(),
            2.. => of.rows::<L, 2>(),
            _ => of.rows::<L, 1>(),
        };
    }
}

struct Values<'a, R: KvRows> {
    head_dim: usize,
    v: R,
    split: &'a R::Split,
    slots: &'a [usize],
    rows: &'a [Row],
    weights: &'a [[f32; super::SPLIT_POSITIONS]],
    out: &'a mut [f32],
}

impl<V: KvRows> Values<'_, V> {
    /// All channels of `R` rows; returns `R`.
    #[inline(always)]
    fn rows<L: Lanes, const R: usize>(&mut self) -> usize {
        let mut channel = 0;
        while channel < self.head_dim {
            channel += match (self.head_dim - channel) / LANES {
                4.. if L::TILE_ROWS >= 4 => self.channels::<L, R, 4>(channel),
                2.. => self.channels::<L, R, 2>(channel),
                _ => self.channels::<L, R, 1>(channel),
            };
        }
        R
    }

    /// `C` vectors of channels, the last of which may be short; returns their number of channels.
    #[inline(always)]
    fn channels<L: Lanes, const R: usize, const C: usize>(&mut self, channel: usize) -> usize {
        let width = (C * LANES).min(self.head_dim - channel);
        // What all rows see is read once for all; each row has its own positions before and after.
        let (mut from, mut to) = (0, usize::MAX);
        for row in &self.rows[..R] {
            (from, to) = (from.max(row.seen.0), to.min(row.seen.1));
        }
        let to = to.max(from);
        let mut sums = [[L::splat(0.0); C]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            let (first, end) = self.rows[r].seen;
            *sums = self.sum::<L, 1, C>([*sums], r, first..end.min(from), channel, width)[0];
        }
        sums = self.sum::<L, R, C>(sums, 0, from..to, channel, width);
        for (r, sums) in sums.iter_mut().enumerate() {
            let (first, end) = self.rows[r].seen;
            *sums = self.sum::<L, 1, C>([*sums], r, first.max(to)..end, channel, width)[0];
        }
        for (row, sums) in self.rows.iter().zip(&sums) {
            let Row { to, seen, old, new, .. } = *row;
            if seen.0 == seen.1 {
                continue;
            }
            let out = &mut self.out[to + channel..][..width];
            for (sum, out) in sums.iter().zip(out.chunks_mut(LANES)) {
                let merged = L::load_part(out, 0.0).mul(L::splat(old)).add(sum.mul(L::splat(new)));
                merged.store_part(out);
            }
        }
        width
    }

    /// Adds `weights[j] * v[j]` for the positions `range` to the sums of `R` rows from `row` on.
    #[inline(always)]
    fn sum<L: Lanes, const R: usize, const C: usize>(
        &self,
        mut sums: [[L; C]; R],
        row: usize,
        range: std::ops::Range<usize>,
        channel: usize,
        width: usize,
    ) -> [[L; C]; R] {
        if range.is_empty() {
            return sums;
        }
        let weights: [&[f32]; R] = std::array::from_fn(|r| &self.weights[row + r][range.clone()]);
        let ahead = self.slots.get(range.start + VALUES_AHEAD..).unwrap_or_default();
        let first = range.start;
        let slots = &self.slots[range];
        for (j, slot) in slots.iter().enumerate() {
            if let Some(&next) = ahead.get(j) {
                self.v.prefetch::<L>(next, channel, width);
            }
            let v = self.v.load::<L, C>(self.split, first + j, *slot, channel, width);
            for r in 0..R {
                let weight = L::splat(weights[r][j]);
                for c in 0..C {
                    sums[r][c] = weight.fma(v[c], sums[r][c]);
                }
            }
        }
        sums
    }
}
