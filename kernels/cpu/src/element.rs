//! The three stored float types as [`Element`]s.

use half::{bf16, f16};

use crate::lanes::{Element, LANES, Lanes, sealed::Sealed};

impl Element for f32 {
    const ZERO: Self = 0.0;

    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Sealed for f32 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; LANES]) -> L {
        L::load(x)
    }
    #[inline(always)]
    fn store<L: Lanes>(x: L, out: &mut [Self; LANES]) {
        x.store(out);
    }
}

impl Element for f16 {
    const ZERO: Self = Self::ZERO;

    fn to_f32(self) -> f32 {
        self.to_f32()
    }
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
}

impl Sealed for f16 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; LANES]) -> L {
        L::load_f16(x)
    }
    #[inline(always)]
    fn store<L: Lanes>(x: L, out: &mut [Self; LANES]) {
        x.store_f16(out);
    }
}

impl Element for bf16 {
    const ZERO: Self = Self::ZERO;

    fn to_f32(self) -> f32 {
        self.to_f32()
    }
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
}

impl Sealed for bf16 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; LANES]) -> L {
        L::load_bf16(x)
    }
    #[inline(always)]
    fn store<L: Lanes>(x: L, out: &mut [Self; LANES]) {
        let mut lanes = [0.0; LANES];
        x.store(&mut lanes);
        *out = lanes.map(Self::from_f32);
    }
}

/// Up to sixteen elements as lanes, the other lanes zero.
#[inline(always)]
pub(crate) fn load_part<S: Element, L: Lanes>(x: &[S]) -> L {
    let mut lanes = [S::ZERO; LANES];
    lanes[..x.len()].copy_from_slice(x);
    S::load(&lanes)
}
