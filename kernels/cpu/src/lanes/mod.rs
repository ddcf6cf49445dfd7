//! Sixteen floats at a time: the tiny trait that every kernel is written on.
//!
//! Three implementations do the same IEEE operations: equal inputs give equal bits. Values of
//! [`Avx2`] and [`Avx512`] are made and used only inside `dispatch`'s copies of a kernel, that is
//! after their instructions were found: this is the invariant behind `unsafe` in their files.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use half::{bf16, f16};

pub(crate) use self::portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::{avx2::Avx2, avx512::Avx512};

/// Lanes of a vector, and rows of a weight panel.
pub(crate) const LANES: usize = 16;

/// Sixteen `f32` lanes, with the integer dots that quantized products need.
pub trait Lanes: Copy {
    /// Sixteen `i32` sums.
    type Ints: Copy;
    /// Sixty-four unsigned codes: four for each lane.
    type Codes: Copy;

    /// What [`Lanes::dot_bytes`] subtracts from every code.
    const BYTE_BIAS: i32;
    /// Activation rows that one tile of a product keeps in registers: 1, 2, 4 or 8.
    const TILE_ROWS: usize;

    /// Has the cache line at an address brought closer, whether anything lies there or not.
    fn prefetch<T>(at: *const T);

    /// The same value in all lanes.
    fn splat(x: f32) -> Self;
    /// Lane `i` is `x[i]`.
    fn load(x: &[f32; LANES]) -> Self;
    /// Lane `i` is `x[i]`, exactly.
    fn load_f16(x: &[f16; LANES]) -> Self;
    /// Lane `i` is `x[i]`, exactly.
    fn load_bf16(x: &[bf16; LANES]) -> Self;
    /// Lane `i` is `x[i]`, as `i8`.
    fn load_i8(x: &[u8; LANES]) -> Self;
    /// `out[i]` is lane `i`.
    fn store(self, out: &mut [f32; LANES]);
    /// `out[i]` is lane `i`, rounded to nearest, ties to even.
    fn store_f16(self, out: &mut [f16; LANES]);
    /// `out[i]` is lane `i`, rounded to nearest, ties to even. Lanes must lie in `-128..=127`.
    fn store_i8(self, out: &mut [u8; LANES]);

    /// `self + b`
    fn add(self, b: Self) -> Self;
    /// `self - b`
    fn sub(self, b: Self) -> Self;
    /// `self * b`
    fn mul(self, b: Self) -> Self;
    /// `self / b`
    fn div(self, b: Self) -> Self;
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// The greater; `b` if either is NaN or both are zeros.
    fn max(self, b: Self) -> Self;
    /// The lesser; `b` if either is NaN or both are zeros.
    fn min(self, b: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Magnitude.
    fn abs(self) -> Self;
    /// Opposite sign.
    fn neg(self) -> Self;
    /// `self * 2^n` for whole `n` in `-160..=160`, rounded once.
    fn scale_by_power(self, n: Self) -> Self;
    /// `then` where `self < b`, else `otherwise`.
    fn if_less(self, b: Self, then: Self, otherwise: Self) -> Self;

    /// Lane `j` of result `i` is lane `i` of `rows[j]`.
    fn transpose(rows: [Self; LANES]) -> [Self; LANES];

    /// Sum of the lanes: `i` with `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    fn sum(self) -> f32;
    /// Greatest lane, in the order of [`Lanes::sum`].
    fn peak(self) -> f32;

    /// The same sum in all lanes.
    fn ints(x: i32) -> Self::Ints;
    /// The sums as floats; exact below 2^24.
    fn from_ints(x: Self::Ints) -> Self;
    /// Lane `i` is `x[i]`.
    fn load_ints(x: &[i32; LANES]) -> Self::Ints;
    /// Sixty-four codes: `4 * lane + i`.
    fn codes(x: &[u8; 64]) -> Self::Codes;
    /// The low nibble of each byte.
    fn low_nibbles(x: Self::Codes) -> Self::Codes;
    /// The high nibble of each byte.
    fn high_nibbles(x: Self::Codes) -> Self::Codes;
    /// Adds `value` to the codes whose bit in `bits` is set: the lowest bit of the first byte is
    /// that of the first code. No sum may exceed 255.
    fn add_where(x: Self::Codes, bits: [u8; 8], value: u8) -> Self::Codes;
    /// `out[i]` is code `i` less `by`, wrapping around.
    fn store_codes(x: Self::Codes, by: u8, out: &mut [u8; 64]);
    /// Adds `sum of codes[4 * lane + i] * x[i]` to each lane; codes below 128, `x` as `i8` above -128.
    fn dot_small(sums: Self::Ints, codes: Self::Codes, x: [u8; 4]) -> Self::Ints;
    /// Adds `sum of (codes[4 * lane + i] - BYTE_BIAS) * x[i]`, any codes, `x` as `i8` above -128.
    fn dot_bytes(sums: Self::Ints, codes: Self::Codes, x: [u8; 4]) -> Self::Ints;

    /// Up to sixteen values, the other lanes `fill`.
    #[inline(always)]
    fn load_part(x: &[f32], fill: f32) -> Self {
        let mut lanes = [fill; LANES];
        lanes[..x.len()].copy_from_slice(x);
        Self::load(&lanes)
    }

    /// The first `out.len()` lanes, sixteen at most.
    #[inline(always)]
    fn store_part(self, out: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        out.copy_from_slice(&lanes[..out.len()]);
    }
}

/// What tables, weights and caches are stored in: `f32`, `f16` or `bf16`.
pub trait Element: Copy + Send + Sync + sealed::Sealed {
    /// Zero.
    const ZERO: Self;
    /// The same value, exactly.
    fn to_f32(self) -> f32;
    /// The nearest value, ties to even.
    fn from_f32(x: f32) -> Self;
}

pub(crate) mod sealed {
    use super::{LANES, Lanes};

    /// The part of `Element` that other crates neither call nor implement.
    pub trait Sealed: Sized {
        /// Sixteen elements as lanes.
        fn load<L: Lanes>(x: &[Self; LANES]) -> L;
        /// Lanes as sixteen elements.
        fn store<L: Lanes>(x: L, out: &mut [Self; LANES]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        isa::{Kernel, dispatch},
        testing::isas,
    };

    struct Transpose;

    impl Kernel for Transpose {
        type Out = ();

        #[inline(always)]
        fn run<L: Lanes>(self) {
            let row = |j: usize| L::load(&std::array::from_fn(|i| (j * LANES + i) as f32));
            for (i, column) in L::transpose(std::array::from_fn(row)).into_iter().enumerate() {
                let mut found = [0.0; LANES];
                column.store(&mut found);
                assert_eq!(found, std::array::from_fn(|j| (j * LANES + i) as f32));
            }
        }
    }

    #[test]
    fn rows_become_columns() {
        isas().for_each(|isa| dispatch(isa, Transpose));
    }
}
