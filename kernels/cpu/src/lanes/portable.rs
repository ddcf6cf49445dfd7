//! Sixteen lanes as an array: no instructions assumed, and the text that the others follow.

use half::{bf16, f16};

use super::{LANES, Lanes};

/// Lanes that every target has.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn map(mut self, f: impl Fn(f32) -> f32) -> Self {
        for x in &mut self.0 {
            *x = f(*x);
        }
        self
    }

    #[inline(always)]
    fn zip(mut self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for (a, b) in self.0.iter_mut().zip(b.0) {
            *a = f(*a, b);
        }
        self
    }

    #[inline(always)]
    fn fold(mut self, f: impl Fn(f32, f32) -> f32) -> f32 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                self.0[i] = f(self.0[i], self.0[i + half]);
            }
        }
        self.0[0]
    }
}

impl Lanes for Portable {
    type Ints = [i32; LANES];
    type Codes = [u8; 64];

    const BYTE_BIAS: i32 = 0;
    const TILE_ROWS: usize = 2;

    #[inline(always)]
    fn prefetch<T>(_at: *const T) {}

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }
    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        Self(*x)
    }
    #[inline(always)]
    fn load_f16(x: &[f16; LANES]) -> Self {
        Self(x.map(f16::to_f32))
    }
    #[inline(always)]
    fn load_bf16(x: &[bf16; LANES]) -> Self {
        Self(x.map(bf16::to_f32))
    }
    #[inline(always)]
    fn load_i8(x: &[u8; LANES]) -> Self {
        Self(x.map(|byte| f32::from(byte.cast_signed())))
    }
    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        *out = self.0;
    }
    #[inline(always)]
    fn store_f16(self, out: &mut [f16; LANES]) {
        *out = self.0.map(f16::from_f32);
    }
    #[inline(always)]
    fn store_i8(self, out: &mut [u8; LANES]) {
        *out = self.0.map(|x| (x.round_ties_even() as i8).cast_unsigned());
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.zip(b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(mut self, b: Self, c: Self) -> Self {
        for i in 0..LANES {
            self.0[i] = self.0[i].mul_add(b.0[i], c.0[i]);
        }
        self
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.zip(b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.zip(b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    fn neg(self) -> Self {
        self.map(|x| -x)
    }
    #[inline(always)]
    fn scale_by_power(self, n: Self) -> Self {
        // Half of the power at a time: the first product is exact, the second one rounds.
        let power = |n: i32| f32::from_bits(((n + 127) << 23).cast_unsigned());
        self.zip(n, |x, n| {
            let n = n as i32;
            x * power(n >> 1) * power(n - (n >> 1))
        })
    }
    #[inline(always)]
    fn if_less(mut self, b: Self, then: Self, otherwise: Self) -> Self {
        for i in 0..LANES {
            self.0[i] = if self.0[i] < b.0[i] { then.0[i] } else { otherwise.0[i] };
        }
        self
    }

    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        std::array::from_fn(|i| Self(std::array::from_fn(|j| rows[j].0[i])))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        self.fold(|a, b| a + b)
    }
    #[inline(always)]
    fn peak(self) -> f32 {
        self.fold(|a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn ints(x: i32) -> Self::Ints {
        [x; LANES]
    }
    #[inline(always)]
    fn from_ints(x: Self::Ints) -> Self {
        Self(x.map(|x| x as f32))
    }
    #[inline(always)]
    fn load_ints(x: &[i32; LANES]) -> Self::Ints {
        *x
    }
    #[inline(always)]
    fn codes(x: &[u8; 64]) -> Self::Codes {
        *x
    }
    #[inline(always)]
    fn low_nibbles(x: Self::Codes) -> Self::Codes {
        x.map(|x| x & 15)
    }
    #[inline(always)]
    fn high_nibbles(x: Self::Codes) -> Self::Codes {
        x.map(|x| x >> 4)
    }
    #[inline(always)]
    fn add_where(x: Self::Codes, bits: [u8; 8], value: u8) -> Self::Codes {
        let bits = u64::from_le_bytes(bits);
        std::array::from_fn(|i| x[i] + if bits >> i & 1 == 1 { value } else { 0 })
    }
    #[inline(always)]
    fn store_codes(x: Self::Codes, by: u8, out: &mut [u8; 64]) {
        *out = x.map(|x| x.wrapping_sub(by));
    }
    #[inline(always)]
    fn dot_small(sums: Self::Ints, codes: Self::Codes, x: [u8; 4]) -> Self::Ints {
        Self::dot_bytes(sums, codes, x)
    }
    #[inline(always)]
    fn dot_bytes(mut sums: Self::Ints, codes: Self::Codes, x: [u8; 4]) -> Self::Ints {
        let x = x.map(|x| i32::from(x.cast_signed()));
        for (lane, sum) in sums.iter_mut().enumerate() {
            for (i, x) in x.iter().enumerate() {
                *sum += i32::from(codes[4 * lane + i]) * x;
            }
        }
        sums
    }
}
