//! Exponential functions on lanes.
//!
//! Polynomials after Moshier, "Cephes" (`expf.c`, `tanhf.c`): within 2 units in the last place of
//! the true value for results that are normal numbers.

use std::f32::consts::LOG2_E;

use crate::lanes::Lanes;

/// `e^x`; 0 below about -104, infinity above about 88.7, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(x: L) -> L {
    // The bound comes first, so that NaN stays. Beyond the bounds the result is 0 or infinity.
    let x = L::splat(EXP_MAX).min(L::splat(EXP_MIN).max(x));
    // Adding and subtracting 1.5 * 2^23 rounds to a whole number.
    let n = x.fma(L::splat(LOG2_E), L::splat(ROUNDER)).sub(L::splat(ROUNDER));
    let r = n.fma(L::splat(-LN2_HIGH), x);
    let r = n.fma(L::splat(-LN2_LOW), r);
    let mut p = L::splat(EXP_POLYNOMIAL[0]);
    for c in &EXP_POLYNOMIAL[1..] {
        p = p.fma(r, L::splat(*c));
    }
    let y = p.fma(r.mul(r), r.add(L::splat(1.0)));
    y.scale_by_power(n)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    one.div(one.add(exp(x.neg())))
}

/// `x / (1 + e^-x)`
#[inline(always)]
pub(crate) fn silu<L: Lanes>(x: L) -> L {
    x.div(L::splat(1.0).add(exp(x.neg())))
}

/// `x * sigmoid(2u)` with `u = sqrt(2/pi) * (x + 0.044715 x^3)`, which is GELU's tanh form:
/// `(1 + tanh u) / 2 = sigmoid(2u)`.
#[inline(always)]
pub(crate) fn gelu_tanh<L: Lanes>(x: L) -> L {
    let inner = x.mul(x).fma(L::splat(GELU_CUBE), L::splat(1.0));
    let minus_2u = x.mul(inner).mul(L::splat(GELU_MINUS_TWICE_ROOT));
    x.div(L::splat(1.0).add(exp(minus_2u)))
}

/// `x/2 * (1 + erf(x / sqrt(2)))`: `x` times the normal distribution function, whose tail is
/// `e^(-x^2/2)` times a polynomial in `t = 1 / (1 + 0.3 |x|)`. The polynomial is a least-squares
/// fit, weighted to spread the error: relative error 3.4e-8 up to 14, where the tail is no normal
/// number.
#[inline(always)]
pub(crate) fn gelu<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    let t = one.div(x.abs().fma(L::splat(GELU_STEP), one));
    let mut p = L::splat(GELU_POLYNOMIAL[0]);
    for c in &GELU_POLYNOMIAL[1..] {
        p = p.fma(t, L::splat(*c));
    }
    let tail = p.mul(exp(x.mul(x).mul(L::splat(-0.5))));
    x.mul(x.if_less(L::splat(0.0), tail, one.sub(tail)))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<L: Lanes>(x: L) -> L {
    let (one, two) = (L::splat(1.0), L::splat(2.0));
    let magnitude = x.abs();
    let far = one.sub(two.div(exp(magnitude.add(magnitude)).add(one)));
    let far = x.if_less(L::splat(0.0), far.neg(), far);
    let square = x.mul(x);
    let mut p = L::splat(TANH_POLYNOMIAL[0]);
    for c in &TANH_POLYNOMIAL[1..] {
        p = p.fma(square, L::splat(*c));
    }
    let near = p.mul(square).fma(x, x);
    magnitude.if_less(L::splat(TANH_NEAR), near, far)
}

const EXP_MIN: f32 = -110.0;
const EXP_MAX: f32 = 100.0;
const ROUNDER: f32 = 12_582_912.0;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
const EXP_POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
const GELU_CUBE: f32 = 0.044_715;
const GELU_MINUS_TWICE_ROOT: f32 = -1.595_769_2; // -2 * sqrt(2 / pi)
const GELU_STEP: f32 = 0.3;
const GELU_POLYNOMIAL: [f32; 10] = [
    -4.509_208_3e-3,
    6.181_470_3e-2,
    -2.216_707_6e-1,
    2.950_402_2e-1,
    -1.285_674_1e-1,
    1.687_382_2e-1,
    8.623_909e-2,
    1.235_976_14e-1,
    1.193_015_95e-1,
    1.595_28e-5,
];
const TANH_NEAR: f32 = 0.625;
const TANH_POLYNOMIAL: [f32; 5] =
    [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
