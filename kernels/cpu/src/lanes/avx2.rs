//! Sixteen lanes as two 256-bit registers.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{LANES, Lanes};

/// Lanes of AVX2, FMA and F16C: `0..8` and `8..16`.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

macro_rules! found {
    ($intrinsic:expr) => {
        // SAFETY: this type is used only where AVX2, FMA and F16C were found (header of `lanes`).
        // Where a pointer is read or written, it and the one a half further come from a reference
        // to an array of both halves, and the access is an unaligned one.
        unsafe { $intrinsic }
    };
}

/// Applies an intrinsic to both halves.
macro_rules! both {
    ($intrinsic:ident, $($x:expr),+) => {
        Self(found!($intrinsic($($x.0),+)), found!($intrinsic($($x.1),+)))
    };
}

impl Avx2 {
    #[inline(always)]
    fn quad(x: [u8; 4]) -> __m256i {
        found!(_mm256_set1_epi32(i32::from_ne_bytes(x)))
    }
    /// Half of `add_where`: each byte gets the byte of the word that holds its bit, then that bit.
    #[inline(always)]
    fn add_half(x: __m256i, bits: [u8; 4], value: u8) -> __m256i {
        found!({
            let one = 0x0101_0101_0101_0101_i64;
            let holders = _mm256_set_epi64x(3 * one, 2 * one, one, 0);
            let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
            let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(bits)), holders);
            let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, own), own);
            let value = _mm256_set1_epi8(value.cast_signed());
            _mm256_add_epi8(x, _mm256_and_si256(is_set, value))
        })
    }

    /// Adds the products of eight lanes' four codes below 129: pairs stay within an `i16`.
    #[inline(always)]
    fn dot_half(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        found!({
            let pairs = _mm256_maddubs_epi16(codes, x);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }

    /// As [`Self::dot_half`] for `codes - 128`: their magnitude times `x` with their sign. A pair
    /// is at most `2 * 128 * 127`, which an `i16` holds.
    #[inline(always)]
    fn dot_half_centered(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        found!({
            let centered = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
            let signed = _mm256_sign_epi8(x, centered);
            Self::dot_half(sums, _mm256_abs_epi8(centered), signed)
        })
    }

    #[inline(always)]
    fn power(n: __m256i) -> __m256 {
        found!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
            n,
            _mm256_set1_epi32(127)
        ))))
    }

    #[inline(always)]
    fn scale_half(x: __m256, n: __m256) -> __m256 {
        found!({
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let x = _mm256_mul_ps(x, Self::power(half));
            _mm256_mul_ps(x, Self::power(_mm256_sub_epi32(n, half)))
        })
    }

    /// Rows to columns, eight by eight.
    #[inline(always)]
    fn transpose_half(mut x: [__m256; 8]) -> [__m256; 8] {
        // In each four rows: `x[4 * j + c]` becomes, in its half `l`, column `4 * l + c` of rows
        // `4 * j..4 * j + 4`.
        for four in x.as_chunks_mut::<4>().0 {
            let [a, b, c, d] = *four;
            let (ab_low, ab_high) = found!((_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)));
            let (cd_low, cd_high) = found!((_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)));
            let (ab, cd) = found!((_mm256_castps_pd(ab_low), _mm256_castps_pd(cd_low)));
            four[0] = found!(_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)));
            four[1] = found!(_mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
            let (ab, cd) = found!((_mm256_castps_pd(ab_high), _mm256_castps_pd(cd_high)));
            four[2] = found!(_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)));
            four[3] = found!(_mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
        }
        for i in 0..4 {
            let (a, b) = (x[i], x[4 + i]);
            x[i] = found!(_mm256_permute2f128_ps::<0x20>(a, b));
            x[4 + i] = found!(_mm256_permute2f128_ps::<0x31>(a, b));
        }
        x
    }

    #[inline(always)]
    fn if_less_half(a: __m256, b: __m256, then: __m256, otherwise: __m256) -> __m256 {
        found!(_mm256_blendv_ps(otherwise, then, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }
}

impl Lanes for Avx2 {
    type Ints = (__m256i, __m256i);
    type Codes = (__m256i, __m256i);

    const BYTE_BIAS: i32 = 128;
    const TILE_ROWS: usize = 2;

    #[inline(always)]
    fn prefetch<T>(at: *const T) {
        // SAFETY: every x86-64 machine has the instruction, and it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        let x = found!(_mm256_set1_ps(x));
        Self(x, x)
    }
    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        let at = x.as_ptr();
        Self(found!(_mm256_loadu_ps(at)), found!(_mm256_loadu_ps(at.add(8))))
    }
    #[inline(always)]
    fn load_f16(x: &[f16; LANES]) -> Self {
        let at = x.as_ptr();
        Self(
            found!(_mm256_cvtph_ps(_mm_loadu_si128(at.cast()))),
            found!(_mm256_cvtph_ps(_mm_loadu_si128(at.add(8).cast()))),
        )
    }
    #[inline(always)]
    fn load_bf16(x: &[bf16; LANES]) -> Self {
        let at = x.as_ptr();
        let low = found!(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast())));
        let high = found!(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(8).cast())));
        Self(
            found!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low))),
            found!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(high))),
        )
    }
    #[inline(always)]
    fn load_i8(x: &[u8; LANES]) -> Self {
        let bytes = found!(_mm_loadu_si128(x.as_ptr().cast()));
        let high = found!(_mm_unpackhi_epi64(bytes, bytes));
        Self(
            found!(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))),
            found!(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high))),
        )
    }
    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        let at = out.as_mut_ptr();
        found!(_mm256_storeu_ps(at, self.0));
        found!(_mm256_storeu_ps(at.add(8), self.1));
    }
    #[inline(always)]
    fn store_f16(self, out: &mut [f16; LANES]) {
        let at = out.as_mut_ptr();
        let low = found!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
        let high = found!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1));
        found!(_mm_storeu_si128(at.cast(), low));
        found!(_mm_storeu_si128(at.add(8).cast(), high));
    }
    #[inline(always)]
    fn store_i8(self, out: &mut [u8; LANES]) {
        found!({
            let (low, high) = (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            // Packing works within 128-bit halves; the permutation puts the quarters in order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm_packs_epi16(low, high));
        });
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        both!(_mm256_add_ps, self, b)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        both!(_mm256_sub_ps, self, b)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        both!(_mm256_mul_ps, self, b)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        both!(_mm256_div_ps, self, b)
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        both!(_mm256_fmadd_ps, self, b, c)
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        both!(_mm256_max_ps, self, b)
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        both!(_mm256_min_ps, self, b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        both!(_mm256_sqrt_ps, self)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        let sign = Self::splat(-0.0);
        both!(_mm256_andnot_ps, sign, self)
    }
    #[inline(always)]
    fn neg(self) -> Self {
        let sign = Self::splat(-0.0);
        both!(_mm256_xor_ps, self, sign)
    }
    #[inline(always)]
    fn scale_by_power(self, n: Self) -> Self {
        Self(Self::scale_half(self.0, n.0), Self::scale_half(self.1, n.1))
    }
    #[inline(always)]
    fn if_less(self, b: Self, then: Self, otherwise: Self) -> Self {
        Self(
            Self::if_less_half(self.0, b.0, then.0, otherwise.0),
            Self::if_less_half(self.1, b.1, then.1, otherwise.1),
        )
    }

    #[inline(always)]
    fn transpose(x: [Self; LANES]) -> [Self; LANES] {
        // `[top or bottom][left or right]`
        let mut corners = [[[x[0].0; 8]; 2]; 2];
        for i in 0..LANES {
            corners[i / 8][0][i % 8] = x[i].0;
            corners[i / 8][1][i % 8] = x[i].1;
        }
        let [[top_left, top_right], [bottom_left, bottom_right]] = corners;
        let (top_left, top_right) =
            (Self::transpose_half(top_left), Self::transpose_half(top_right));
        let (bottom_left, bottom_right) =
            (Self::transpose_half(bottom_left), Self::transpose_half(bottom_right));
        let mut columns = x;
        for i in 0..8 {
            columns[i] = Self(top_left[i], bottom_left[i]);
            columns[8 + i] = Self(top_right[i], bottom_right[i]);
        }
        columns
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        found!({
            let x = _mm256_add_ps(self.0, self.1);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        })
    }
    #[inline(always)]
    fn peak(self) -> f32 {
        found!({
            let x = _mm256_max_ps(self.0, self.1);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        })
    }

    #[inline(always)]
    fn ints(x: i32) -> Self::Ints {
        let x = found!(_mm256_set1_epi32(x));
        (x, x)
    }
    #[inline(always)]
    fn from_ints(x: Self::Ints) -> Self {
        both!(_mm256_cvtepi32_ps, x)
    }
    #[inline(always)]
    fn load_ints(x: &[i32; LANES]) -> Self::Ints {
        let at = x.as_ptr();
        (found!(_mm256_loadu_si256(at.cast())), found!(_mm256_loadu_si256(at.add(8).cast())))
    }
    #[inline(always)]
    fn codes(x: &[u8; 64]) -> Self::Codes {
        let at = x.as_ptr();
        (found!(_mm256_loadu_si256(at.cast())), found!(_mm256_loadu_si256(at.add(32).cast())))
    }
    #[inline(always)]
    fn low_nibbles(x: Self::Codes) -> Self::Codes {
        let mask = found!(_mm256_set1_epi8(15));
        (found!(_mm256_and_si256(x.0, mask)), found!(_mm256_and_si256(x.1, mask)))
    }
    #[inline(always)]
    fn high_nibbles(x: Self::Codes) -> Self::Codes {
        let down = (found!(_mm256_srli_epi16::<4>(x.0)), found!(_mm256_srli_epi16::<4>(x.1)));
        Self::low_nibbles(down)
    }
    #[inline(always)]
    fn add_where(x: Self::Codes, bits: [u8; 8], value: u8) -> Self::Codes {
        let [a, b, c, d, e, f, g, h] = bits;
        (Self::add_half(x.0, [a, b, c, d], value), Self::add_half(x.1, [e, f, g, h], value))
    }
    #[inline(always)]
    fn store_codes(x: Self::Codes, by: u8, out: &mut [u8; 64]) {
        let (by, at) = (found!(_mm256_set1_epi8(by.cast_signed())), out.as_mut_ptr());
        found!(_mm256_storeu_si256(at.cast(), _mm256_sub_epi8(x.0, by)));
        found!(_mm256_storeu_si256(at.add(32).cast(), _mm256_sub_epi8(x.1, by)));
    }
    #[inline(always)]
    fn dot_small(sums: Self::Ints, codes: Self::Codes, x: [u8; 4]) -> Self::Ints {
        let x = Self::quad(x);
        (Self::dot_half(sums.0, codes.0, x), Self::dot_half(sums.1, codes.1, x))
    }
    #[inline(always)]
    fn dot_bytes(sums: Self::Ints, codes: Self::Codes, x: [u8; 4]) -> Self::Ints {
        let x = Self::quad(x);
        (Self::dot_half_centered(sums.0, codes.0, x), Self::dot_half_centered(sums.1, codes.1, x))
    }
}
