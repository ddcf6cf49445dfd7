//! How far numbers may lie apart: the one table of every parity test.

use crate::plan::ops::{self, OpId};

/// What found numbers may differ by from expected ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Times the scale of the numbers: their greatest magnitude unless the test knows better.
    pub relative: f64,
    /// Added to that.
    pub absolute: f64,
}

impl Tolerance {
    /// Equal numbers; NaN equals NaN.
    pub const EXACT: Self = Self { relative: 0.0, absolute: 0.0 };

    /// Panics with the first pair that lies too far apart.
    ///
    /// # Panics
    ///
    /// If one does, or if the lengths differ.
    pub fn assert(self, what: &str, found: &[f64], expected: &[f64], scale: f64) {
        assert_eq!(found.len(), expected.len(), "{what}: lengths differ");
        let limit = self.relative * scale + self.absolute;
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            let is_equal = a == b || (a.is_nan() && b.is_nan());
            assert!(
                is_equal || (a - b).abs() <= limit,
                "{what}: element {i} is {a}, expected {b} within {limit:.3e}"
            );
        }
    }
}

/// The tolerance of one op that computes in `f32`, against the same op in `f64`.
pub fn of_op(op: OpId) -> Tolerance {
    let relative = match op {
        ops::EMBED
        | ops::GATHER
        | ops::CONCAT
        | ops::SLICE
        | ops::RESHAPE
        | ops::TRANSPOSE
        | ops::NEG
        | ops::MAX
        | ops::MIN
        | ops::REDUCE_MAX
        | ops::TOP_K
        | ops::CONSTANT
        | ops::FULL_LIKE
        | ops::IS_POSITIVE
        | ops::TAKE_ALONG
        | ops::CAST => return Tolerance::EXACT,
        ops::MATMUL | ops::MATMUL_EXPERTS | ops::MATMUL_ROWS | ops::ATTEND | ops::ATTEND_WITHIN => {
            3e-6
        }
        ops::ATTEND_WITHIN_GRAD => 1e-5, // products three deep, with a mean taken off
        ops::COS | ops::SIN | ops::ROPE => 5e-5, // angles of up to some hundred radians in f32
        ops::EXP | ops::SOFTMAX | ops::LOG => 3e-6,
        _ => 2e-6,
    };
    Tolerance { relative, absolute: 1e-12 }
}

/// A matmul whose backend rounds activations to 8 bits per block of 32 elements, against exact
/// activations, relative to `sqrt(k) · rms(x) · rms(w)`: five standard deviations.
pub const ROUNDED_ACTIVATIONS: Tolerance = Tolerance { relative: 4e-2, absolute: 1e-12 };

/// A whole fused op in `f32` against its expansion in `f32`.
pub const WHOLE: Tolerance = Tolerance { relative: 5e-6, absolute: 1e-12 };

/// A traced part, several ops deep, in `f32` against the same in `f64`.
pub const TRACED: Tolerance = Tolerance { relative: 1e-4, absolute: 1e-9 };

/// The greatest magnitude of finite numbers.
pub fn peak(x: &[f64]) -> f64 {
    x.iter().filter(|x| x.is_finite()).fold(0.0, |peak, x| peak.max(x.abs()))
}
