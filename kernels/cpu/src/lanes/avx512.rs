//! Sixteen lanes as one 512-bit register.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{LANES, Lanes};

/// Lanes of AVX-512 F, BW, VL, DQ and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

macro_rules! found {
    ($intrinsic:expr) => {
        // SAFETY: this type is used only where AVX-512 was found (header of `lanes`). Where a
        // pointer is read or written, it comes from a reference to an array of exactly that size,
        // and the access is an unaligned one.
        unsafe { $intrinsic }
    };
}

/// Quarters 0 and 2 of each.
#[inline(always)]
fn even(a: __m512, b: __m512) -> __m512 {
    found!(_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b))
}

/// Quarters 1 and 3 of each.
#[inline(always)]
fn odd(a: __m512, b: __m512) -> __m512 {
    found!(_mm512_shuffle_f32x4::<0b11_01_11_01>(a, b))
}

impl Lanes for Avx512 {
    type Ints = __m512i;
    type Codes = __m512i;

    const BYTE_BIAS: i32 = 0;
    const TILE_ROWS: usize = 8;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(found!(_mm512_set1_ps(x)))
    }
    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        Self(found!(_mm512_loadu_ps(x.as_ptr())))
    }
    #[inline(always)]
    fn load_f16(x: &[f16; LANES]) -> Self {
        Self(found!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()))))
    }
    #[inline(always)]
    fn load_bf16(x: &[bf16; LANES]) -> Self {
        let wide = found!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast())));
        Self(found!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))))
    }
    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        found!(_mm512_storeu_ps(out.as_mut_ptr(), self.0));
    }
    #[inline(always)]
    fn store_f16(self, out: &mut [f16; LANES]) {
        let halves = found!(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
        found!(_mm256_storeu_si256(out.as_mut_ptr().cast(), halves));
    }
    #[inline(always)]
    fn store_i8(self, out: &mut [u8; LANES]) {
        let bytes = found!(_mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0)));
        found!(_mm_storeu_si128(out.as_mut_ptr().cast(), bytes));
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Self(found!(_mm512_add_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Self(found!(_mm512_sub_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Self(found!(_mm512_mul_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Self(found!(_mm512_div_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(found!(_mm512_fmadd_ps(self.0, b.0, c.0)))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Self(found!(_mm512_max_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Self(found!(_mm512_min_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(found!(_mm512_sqrt_ps(self.0)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(found!(_mm512_abs_ps(self.0)))
    }
    #[inline(always)]
    fn neg(self) -> Self {
        Self(found!(_mm512_xor_ps(self.0, _mm512_set1_ps(-0.0))))
    }
    #[inline(always)]
    fn scale_by_power(self, n: Self) -> Self {
        Self(found!(_mm512_scalef_ps(self.0, n.0)))
    }
    #[inline(always)]
    fn if_less(self, b: Self, then: Self, otherwise: Self) -> Self {
        let mask = found!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, b.0));
        Self(found!(_mm512_mask_blend_ps(mask, otherwise.0, then.0)))
    }

    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        // Quarters of 128 bits: `of_four[4 * j + c]` holds in quarter `l` column `4 * l + c` of
        // rows `4 * j..4 * j + 4`; then the quarters themselves are transposed.
        let of_four: [__m512; LANES] = std::array::from_fn(|at| {
            let r = |i: usize| rows[at / 4 * 4 + i].0;
            let pairs = |a, b| found!((_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
            let ((low, high), (low_2, high_2)) = (pairs(r(0), r(1)), pairs(r(2), r(3)));
            let (a, b) = if at % 4 < 2 { (low, low_2) } else { (high, high_2) };
            let (a, b) = found!((_mm512_castps_pd(a), _mm512_castps_pd(b)));
            found!(_mm512_castpd_ps(if at % 2 == 0 {
                _mm512_unpacklo_pd(a, b)
            } else {
                _mm512_unpackhi_pd(a, b)
            }))
        });
        std::array::from_fn(|at| {
            let (quarter, c) = (at / 4, at % 4);
            let [a, b, c, d] = std::array::from_fn(|j| of_four[4 * j + c]);
            Self(match quarter {
                0 => even(even(a, b), even(c, d)),
                1 => even(odd(a, b), odd(c, d)),
                2 => odd(even(a, b), even(c, d)),
                _ => odd(odd(a, b), odd(c, d)),
            })
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        found!({
            let high = _mm512_extractf32x8_ps::<1>(self.0);
            let x = _mm256_add_ps(_mm512_castps512_ps256(self.0), high);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        })
    }
    #[inline(always)]
    fn peak(self) -> f32 {
        found!({
            let high = _mm512_extractf32x8_ps::<1>(self.0);
            let x = _mm256_max_ps(_mm512_castps512_ps256(self.0), high);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        })
    }

    #[inline(always)]
    fn ints(x: i32) -> Self::Ints {
        found!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn from_ints(x: Self::Ints) -> Self {
        Self(found!(_mm512_cvtepi32_ps(x)))
    }
    #[inline(always)]
    fn codes(x: &[u8; 64]) -> Self::Codes {
        found!(_mm512_loadu_si512(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn low_nibbles(x: Self::Codes) -> Self::Codes {
        found!(_mm512_and_si512(x, _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn high_nibbles(x: Self::Codes) -> Self::Codes {
        found!(_mm512_and_si512(_mm512_srli_epi16::<4>(x), _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn dot_small(sums: Self::Ints, codes: Self::Codes, x: [u8; 4]) -> Self::Ints {
        Self::dot_bytes(sums, codes, x)
    }
    #[inline(always)]
    fn dot_bytes(sums: Self::Ints, codes: Self::Codes, x: [u8; 4]) -> Self::Ints {
        found!(_mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi32(i32::from_ne_bytes(x))))
    }
}
