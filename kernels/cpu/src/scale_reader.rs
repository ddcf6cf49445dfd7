//! Reads the scales of a panel as lanes, one group after the other.

use half::f16;

use crate::{
    lanes::Lanes,
    scale_layout::{ScaleLayout, Scales},
};

/// Reads the scales and mins of one group after the other.
#[derive(Clone, Copy)]
pub(crate) struct ScaleReader<'a, L> {
    layout: ScaleLayout,
    bytes: &'a [u8],
    /// Groups left in the run.
    left: usize,
    /// The factors of scales and mins of the run.
    factors: [L; 2],
}

impl<'a, L: Lanes> ScaleReader<'a, L> {
    #[inline(always)]
    pub(crate) fn new(layout: ScaleLayout, bytes: &'a [u8]) -> Self {
        Self { layout, bytes, left: 0, factors: [L::splat(1.0); 2] }
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> (L, Option<L>) {
        let has_min = self.layout.has_min;
        match self.layout.scales {
            Scales::F32 => {
                let (floats, _) = self.take(self.layout.group_bytes()).as_chunks::<64>();
                let min = if has_min { Some(load_f32_bytes(&floats[1])) } else { None };
                (load_f32_bytes(&floats[0]), min)
            }
            Scales::F16 => {
                let (halves, _) = self.take(self.layout.group_bytes()).as_chunks::<32>();
                let min = if has_min { Some(load_f16_bytes(&halves[1])) } else { None };
                (load_f16_bytes(&halves[0]), min)
            }
            Scales::Product { groups } => {
                if self.left == 0 {
                    self.left = groups;
                    let (halves, _) = self.take(self.layout.factor_bytes()).as_chunks::<32>();
                    self.factors[0] = load_f16_bytes(&halves[0]);
                    if has_min {
                        self.factors[1] = load_f16_bytes(&halves[1]);
                    }
                }
                self.left -= 1;
                let (integers, _) = self.take(self.layout.group_bytes()).as_chunks::<16>();
                let scale = self.factors[0].mul(L::load_i8(&integers[0]));
                let min = if has_min {
                    Some(self.factors[1].mul(L::load_i8(&integers[1])))
                } else {
                    None
                };
                (scale, min)
            }
        }
    }

    #[inline(always)]
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        taken
    }
}

#[inline(always)]
fn load_f16_bytes<L: Lanes>(bytes: &[u8; 32]) -> L {
    let (pairs, _) = bytes.as_chunks::<2>();
    L::load_f16(&std::array::from_fn(|i| f16::from_le_bytes(pairs[i])))
}

#[inline(always)]
fn load_f32_bytes<L: Lanes>(bytes: &[u8; 64]) -> L {
    let (quads, _) = bytes.as_chunks::<4>();
    L::load(&std::array::from_fn(|i| f32::from_le_bytes(quads[i])))
}
