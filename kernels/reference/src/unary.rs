//! Unary ops, element by element.

use crate::Real;

/// What is computed from one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-x`
    Neg,
    /// `e^x`
    Exp,
    /// `ln x`
    Log,
    /// Square root.
    Sqrt,
    /// `1 / sqrt(x)`
    Rsqrt,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `x * sigmoid(x)`; Elfwing et al., arXiv:1702.03118.
    Silu,
    /// `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`; Hendrycks and Gimpel,
    /// arXiv:1606.08415, section 2.
    GeluTanh,
    /// `x/2 * (1 + erf(x / sqrt(2)))`: `x` times the normal distribution function; the same
    /// source.
    Gelu,
    /// The error function, `2/sqrt(pi)` times the integral of `e^-t^2` from 0 to `x`.
    Erf,
    /// 1 where `x > 0`, otherwise 0: also for NaN.
    IsPositive,
}

/// Writes `out[i] = op(x[i])`.
///
/// # Panics
///
/// If the lengths differ.
pub fn unary<T: Real>(op: UnaryOp, x: &[T], out: &mut [T]) {
    assert_eq!(x.len(), out.len(), "unary: x and out differ in length");
    for (x, out) in x.iter().zip(out) {
        *out = apply(op, *x);
    }
}

/// Writes `out[i] = x[i] * factor`.
///
/// # Panics
///
/// If the lengths differ.
pub fn scale<T: Real>(x: &[T], factor: T, out: &mut [T]) {
    assert_eq!(x.len(), out.len(), "scale: x and out differ in length");
    for (x, out) in x.iter().zip(out) {
        *out = *x * factor;
    }
}

/// Writes `out[i] = x[i] + value`.
///
/// # Panics
///
/// If the lengths differ.
pub fn offset<T: Real>(x: &[T], value: T, out: &mut [T]) {
    assert_eq!(x.len(), out.len(), "offset: x and out differ in length");
    for (x, out) in x.iter().zip(out) {
        *out = *x + value;
    }
}

pub(crate) fn apply<T: Real>(op: UnaryOp, x: T) -> T {
    let one = T::one();
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Exp => x.exp(),
        UnaryOp::Log => x.ln(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Rsqrt => one / x.sqrt(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Sigmoid => one / (one + (-x).exp()),
        UnaryOp::Silu => x / (one + (-x).exp()),
        UnaryOp::GeluTanh => {
            let root = T::from_f64((2.0 / std::f64::consts::PI).sqrt());
            let inner = root * (x + T::from_f64(0.044_715) * x * x * x);
            T::from_f64(0.5) * x * (one + inner.tanh())
        }
        UnaryOp::Gelu => {
            let z = x.to_f64() * std::f64::consts::FRAC_1_SQRT_2;
            x * T::from_f64(0.5 * (1.0 + erf(z)))
        }
        UnaryOp::Erf => T::from_f64(erf(x.to_f64())),
        UnaryOp::IsPositive if x > T::zero() => one,
        UnaryOp::IsPositive => T::zero(),
    }
}

/// The error function: `2/sqrt(pi) e^(-z^2) (z + 2z^3/3 + 4z^5/15 + ...)`. All terms have the sign
/// of `z`, so that nothing cancels. Abramowitz and Stegun, 7.1.6.
fn erf(z: f64) -> f64 {
    if z.abs() > ERF_IS_ONE {
        return z.signum();
    }
    let (mut term, mut sum, mut n) = (z, z, 0.0);
    while term.abs() > sum.abs() * f64::EPSILON / 4.0 {
        n += 1.0;
        term = term * 2.0 * z * z / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() * sum
}

/// Beyond this the error function is one to the last bit of an `f64`.
const ERF_IS_ONE: f64 = 6.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_values_computed_by_hand() {
        #[rustfmt::skip]
        let cases = [
            (UnaryOp::Neg,       3.0,   -3.0),
            (UnaryOp::Exp,       1.0,   std::f64::consts::E),
            (UnaryOp::Log,       1.0,   0.0),
            (UnaryOp::Sqrt,      9.0,   3.0),
            (UnaryOp::Rsqrt,     4.0,   0.5),
            (UnaryOp::Tanh,      0.0,   0.0),
            (UnaryOp::Sigmoid,   0.0,   0.5),
            (UnaryOp::Silu,      1.0,   0.731_058_578_630_004_9),
            (UnaryOp::GeluTanh,  1.0,   0.841_191_990_608_827_7),
            (UnaryOp::GeluTanh, -1.0,  -0.158_808_009_391_172_32),
            // The normal distribution function at 1 and 2: 0.841344746068542..., 0.977249868051820...
            (UnaryOp::Gelu,      0.0,   0.0),
            (UnaryOp::Gelu,      1.0,   0.841_344_746_068_542_9),
            (UnaryOp::Gelu,     -1.0,  -0.158_655_253_931_457_05),
            (UnaryOp::Gelu,      2.0,   1.954_499_736_103_641_6),
            (UnaryOp::Gelu,     -2.0,  -0.045_500_263_896_358_42),
            (UnaryOp::Gelu,     20.0,   20.0),
            // Abramowitz and Stegun, table 7.1
            (UnaryOp::Erf,       0.5,   0.520_499_877_813_046_5),
            (UnaryOp::Erf,      -2.0,  -0.995_322_265_018_952_7),
            (UnaryOp::IsPositive, 1e-9, 1.0),
            (UnaryOp::IsPositive, 0.0,  0.0),
            (UnaryOp::IsPositive, f64::NAN, 0.0),
        ];
        for (op, x, expected) in cases {
            let mut out = [0.0_f64];
            unary(op, &[x], &mut out);
            assert!((out[0] - expected).abs() < 1e-12, "{op:?}({x}) = {}", out[0]);
        }
    }

    #[test]
    fn gelu_keeps_what_is_no_number_and_ends_at_the_line() {
        let mut out = [0.0_f64; 3];
        unary(UnaryOp::Gelu, &[f64::NAN, f64::INFINITY, -40.0], &mut out);
        assert!(out[0].is_nan() && out[1] == f64::INFINITY && out[2] == 0.0, "{out:?}");
    }

    #[test]
    fn scales_and_offsets_every_element() {
        let mut out = [0.0_f32; 3];
        scale(&[1.0, 2.0, 3.0], 2.0, &mut out);
        assert_eq!(out, [2.0, 4.0, 6.0]);
        offset(&[1.0, 2.0, 3.0], -1.0, &mut out);
        assert_eq!(out, [0.0, 1.0, 2.0]);
    }
}
