//! Unary ops, element by element.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
    math,
};

/// What is computed from one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-x`
    Neg,
    /// `e^x`
    Exp,
    /// `ln x`, one element at a time.
    Log,
    /// Square root.
    Sqrt,
    /// `1 / sqrt(x)`
    Rsqrt,
    /// 1 where x > 0, otherwise 0.
    IsPositive,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `x * sigmoid(x)`; Elfwing et al., arXiv:1702.03118.
    Silu,
    /// `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`; Hendrycks and Gimpel,
    /// arXiv:1606.08415, section 2.
    GeluTanh,
    /// `x/2 * (1 + erf(x / sqrt(2)))`; the same source.
    Gelu,
    /// Cosine of radians, one element at a time.
    Cos,
    /// Sine of radians, one element at a time.
    Sin,
}

/// Writes `out[i] = op(x[i])`.
///
/// # Panics
///
/// If the lengths differ.
pub fn unary(isa: Isa, op: UnaryOp, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "unary: x and out differ in length");
    match op {
        UnaryOp::Neg => dispatch(isa, Map { x, out, op: Neg }),
        UnaryOp::Exp => dispatch(isa, Map { x, out, op: Exp }),
        UnaryOp::Log => x.iter().zip(out).for_each(|(x, out)| *out = x.ln()),
        UnaryOp::Cos => x.iter().zip(out).for_each(|(x, out)| *out = x.cos()),
        UnaryOp::Sin => x.iter().zip(out).for_each(|(x, out)| *out = x.sin()),
        UnaryOp::Sqrt => dispatch(isa, Map { x, out, op: Sqrt }),
        UnaryOp::Rsqrt => dispatch(isa, Map { x, out, op: Rsqrt }),
        UnaryOp::IsPositive => dispatch(isa, Map { x, out, op: IsPositive }),
        UnaryOp::Tanh => dispatch(isa, Map { x, out, op: Tanh }),
        UnaryOp::Sigmoid => dispatch(isa, Map { x, out, op: Sigmoid }),
        UnaryOp::Silu => dispatch(isa, Map { x, out, op: Silu }),
        UnaryOp::GeluTanh => dispatch(isa, Map { x, out, op: GeluTanh }),
        UnaryOp::Gelu => dispatch(isa, Map { x, out, op: Gelu }),
    }
}

/// Writes `out[i] = x[i] * factor`.
///
/// # Panics
///
/// If the lengths differ.
pub fn scale(isa: Isa, x: &[f32], factor: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "scale: x and out differ in length");
    dispatch(isa, Map { x, out, op: Scale(factor) });
}

/// Writes `out[i] = x[i] + value`.
///
/// # Panics
///
/// If the lengths differ.
pub fn offset(isa: Isa, x: &[f32], value: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "offset: x and out differ in length");
    dispatch(isa, Map { x, out, op: Offset(value) });
}

/// A function of one element.
trait Function: Copy {
    fn apply<L: Lanes>(self, x: L) -> L;
}

struct Map<'a, F> {
    x: &'a [f32],
    out: &'a mut [f32],
    op: F,
}

impl<F: Function> Kernel for Map<'_, F> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (x, x_tail) = self.x.as_chunks::<LANES>();
        let (out, out_tail) = self.out.as_chunks_mut::<LANES>();
        for (x, out) in x.iter().zip(out) {
            self.op.apply(L::load(x)).store(out);
        }
        if !x_tail.is_empty() {
            self.op.apply(L::load_part(x_tail, 0.0)).store_part(out_tail);
        }
    }
}

macro_rules! function {
    ($name:ident $(($field:ty))?, |$this:pat_param, $x:ident, $lanes:ident| $value:expr) => {
        #[derive(Clone, Copy)]
        struct $name $(($field))?;

        impl Function for $name {
            #[inline(always)]
            fn apply<$lanes: Lanes>(self, $x: $lanes) -> $lanes {
                let $this = self;
                $value
            }
        }
    };
}

function!(Neg, |_, x, L| x.neg());
function!(Exp, |_, x, L| math::exp(x));
function!(Sqrt, |_, x, L| x.sqrt());
function!(Rsqrt, |_, x, L| L::splat(1.0).div(x.sqrt()));
function!(IsPositive, |_, x, L| L::splat(0.0).if_less(x, L::splat(1.0), L::splat(0.0)));
function!(Tanh, |_, x, L| math::tanh(x));
function!(Sigmoid, |_, x, L| math::sigmoid(x));
function!(Silu, |_, x, L| math::silu(x));
function!(GeluTanh, |_, x, L| math::gelu_tanh(x));
function!(Gelu, |_, x, L| math::gelu(x));
function!(Scale(f32), |Scale(factor), x, L| x.mul(L::splat(factor)));
function!(Offset(f32), |Offset(value), x, L| x.add(L::splat(value)));

#[cfg(test)]
mod tests {
    use kernels_reference as reference;
    use reference::UnaryOp as Other;

    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    const OPS: [(UnaryOp, Other); 10] = [
        (UnaryOp::Neg, Other::Neg),
        (UnaryOp::Exp, Other::Exp),
        (UnaryOp::Log, Other::Log),
        (UnaryOp::Sqrt, Other::Sqrt),
        (UnaryOp::Rsqrt, Other::Rsqrt),
        (UnaryOp::Tanh, Other::Tanh),
        (UnaryOp::Sigmoid, Other::Sigmoid),
        (UnaryOp::Silu, Other::Silu),
        (UnaryOp::GeluTanh, Other::GeluTanh),
        (UnaryOp::Gelu, Other::Gelu),
    ];

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa() {
        for (op, other) in OPS {
            for len in [0, 1, 7, 8, 9, 16, 63, 257, 4096] {
                let mut x: Vec<f32> = floats(len, 7).iter().map(|x| x * 20.0).collect();
                if matches!(op, UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Rsqrt) {
                    x.iter_mut().for_each(|x| *x = x.abs() + 0.01);
                }
                let mut expected = vec![0.0_f64; len];
                reference::unary(other, &doubles(&x), &mut expected);
                let mut first = vec![0.0; len];
                unary(Isa::Scalar, op, &x, &mut first);
                assert_near(&first, &expected, 1e-6, &format!("{op:?} {len}"));
                for isa in isas() {
                    let mut found = vec![0.0; len];
                    unary(isa, op, &x, &mut found);
                    assert_eq!(bits(&found), bits(&first), "{isa:?} {op:?} {len}");
                }
            }
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let x: Vec<f32> = (-87_000..88_000).map(|i| i as f32 / 1000.0).collect();
        for isa in isas() {
            let mut found = vec![0.0; x.len()];
            unary(isa, UnaryOp::Exp, &x, &mut found);
            for (x, found) in x.iter().zip(found) {
                let expected = f64::from(*x).exp();
                let error = (f64::from(found) - expected).abs() / expected;
                assert!(error < 2.0 * f64::from(f32::EPSILON), "{isa:?}: exp({x}) = {found}");
            }
        }
    }

    #[test]
    fn gelu_is_within_a_millionth_of_its_magnitude_or_of_a_thousandth() {
        let x: Vec<f32> = (-140_000..140_000).map(|i| i as f32 / 10_000.0).collect();
        let mut expected = vec![0.0; x.len()];
        reference::unary(Other::Gelu, &doubles(&x), &mut expected);
        let mut found = vec![0.0; x.len()];
        unary(Isa::detect(), UnaryOp::Gelu, &x, &mut found);
        for ((x, found), expected) in x.iter().zip(found).zip(expected) {
            let error = (f64::from(found) - expected).abs() / expected.abs().max(1e-3);
            assert!(error < 1e-6, "gelu({x}) = {found}, not {expected}");
        }
    }

    #[test]
    fn special_values_are_those_of_the_functions() {
        const INF: f32 = f32::INFINITY;
        #[rustfmt::skip]
        let cases = [
            (UnaryOp::Exp,     [-INF, INF, 0.0, -200.0],  [0.0, INF, 1.0, 0.0]),
            (UnaryOp::Exp,     [88.0, 89.0, -103.0, 200.0], [1.651_636_3e38, INF, 1e-45, INF]),
            (UnaryOp::Tanh,    [-INF, INF, 0.0, 40.0],    [-1.0, 1.0, 0.0, 1.0]),
            (UnaryOp::Sigmoid, [-INF, INF, 0.0, 200.0],   [0.0, 1.0, 0.5, 1.0]),
            (UnaryOp::Silu,    [INF, 0.0, 100.0, -200.0], [INF, 0.0, 100.0, -0.0]),
            (UnaryOp::Gelu,    [INF, 0.0, 100.0, -200.0], [INF, 0.0, 100.0, -0.0]),
        ];
        for isa in isas() {
            for (op, x, expected) in cases {
                let mut found = [0.0; 4];
                unary(isa, op, &x, &mut found);
                for (found, expected) in found.iter().zip(expected) {
                    let is_near = *found == expected || (found / expected - 1.0).abs() < 1e-6;
                    assert!(is_near, "{isa:?} {op:?}: {found}, not {expected}");
                }
            }
            for op in
                [UnaryOp::Exp, UnaryOp::Tanh, UnaryOp::Sigmoid, UnaryOp::GeluTanh, UnaryOp::Gelu]
            {
                let mut found = [0.0];
                unary(isa, op, &[f32::NAN], &mut found);
                assert!(found[0].is_nan(), "{isa:?} {op:?}");
            }
        }
    }

    #[test]
    fn scales_and_offsets_every_element() {
        let x = floats(63, 3);
        for isa in isas() {
            let (mut scaled, mut moved) = (x.clone(), x.clone());
            scale(isa, &x, 3.0, &mut scaled);
            offset(isa, &x, 3.0, &mut moved);
            for i in 0..x.len() {
                assert_eq!((scaled[i], moved[i]), (x[i] * 3.0, x[i] + 3.0), "{isa:?} {i}");
            }
        }
    }
}
