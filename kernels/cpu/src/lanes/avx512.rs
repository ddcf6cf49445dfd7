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
    fn prefetch<T>(at: *const T) {
        // SAFETY: every x86-64 machine has the instruction, and it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

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
    fn load_i8(x: &[u8; LANES]) -> Self {
        let wide = found!(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast())));
        Self(found!(_mm512_cvtepi32_ps(wide)))
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
    fn transpose(mut x: [Self; LANES]) -> [Self; LANES] {
        // In each four rows: `x[4 * j + c]` becomes, in its quarter `l` of 128 bits, column
        // `4 * l + c` of rows `4 * j..4 * j + 4`.
        for four in x.as_chunks_mut::<4>().0 {
            let [a, b, c, d] = [four[0].0, four[1].0, four[2].0, four[3].0];
            let (ab_low, ab_high) = found!((_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
            let (cd_low, cd_high) = found!((_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
            let (ab, cd) = found!((_mm512_castps_pd(ab_low), _mm512_castps_pd(cd_low)));
            four[0].0 = found!(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)));
            four[1].0 = found!(_mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
            let (ab, cd) = found!((_mm512_castps_pd(ab_high), _mm512_castps_pd(cd_high)));
            four[2].0 = found!(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)));
            four[3].0 = found!(_mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
        }
        // Then the quarters are transposed.
        for i in 0..4 {
            let [a, b, c, d] = [x[i].0, x[4 + i].0, x[8 + i].0, x[12 + i].0];
            let (ab_even, ab_odd) = (even(a, b), odd(a, b));
            let (cd_even, cd_odd) = (even(c, d), odd(c, d));
            x[i].0 = even(ab_even, cd_even);
            x[4 + i].0 = even(ab_odd, cd_odd);
            x[8 + i].0 = odd(ab_even, cd_even);
            x[12 + i].0 = odd(ab_odd, cd_odd);
        }
        x
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
    fn load_ints(x: &[i32; LANES]) -> Self::Ints {
        found!(_mm512_loadu_si512(x.as_ptr().cast()))
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
    fn add_where(x: Self::Codes, bits: [u8; 8], value: u8) -> Self::Codes {
        let value = found!(_mm512_set1_epi8(value.cast_signed()));
        found!(_mm512_mask_add_epi8(x, u64::from_le_bytes(bits), x, value))
    }
    #[inline(always)]
    fn store_codes(x: Self::Codes, by: u8, out: &mut [u8; 64]) {
        let less = found!(_mm512_sub_epi8(x, _mm512_set1_epi8(by.cast_signed())));
        found!(_mm512_storeu_si512(out.as_mut_ptr().cast(), less));
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
