//! Binary ops, element by element, with the right side repeated where it is smaller.

use crate::Real;

/// What is computed from a left and a right element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `l + r`
    Add,
    /// `l - r`
    Sub,
    /// `l * r`
    Mul,
    /// `l / r`
    Div,
    /// The greater; `r` if either is NaN.
    Max,
    /// The lesser; `r` if either is NaN.
    Min,
}

/// How the right side lies against a left side of `[rows, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rhs {
    /// `[rows, width]`: element against element.
    Same,
    /// `[width]`: the same row against every row.
    Row,
    /// `[rows, 1]`: one value against a whole row.
    Column,
}

/// Writes `out = lhs op rhs`.
///
/// | argument     | shape                                        |
/// |--------------|----------------------------------------------|
/// | `lhs`, `out` | `[rows, width]`                              |
/// | `rhs`        | `[rows, width]`, `[width]` or `[rows, 1]`    |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn elementwise<T: Real>(
    op: BinaryOp,
    lhs: &[T],
    rhs: &[T],
    layout: Rhs,
    [rows, width]: [usize; 2],
    out: &mut [T],
) {
    let rhs_len = match layout {
        Rhs::Same => rows * width,
        Rhs::Row => width,
        Rhs::Column => rows,
    };
    assert_eq!(lhs.len(), rows * width, "elementwise: lhs is not [rows, width]");
    assert_eq!(rhs.len(), rhs_len, "elementwise: rhs does not fit its layout");
    assert_eq!(out.len(), rows * width, "elementwise: out is not [rows, width]");
    for row in 0..rows {
        for c in 0..width {
            let at = row * width + c;
            let r = match layout {
                Rhs::Same => rhs[at],
                Rhs::Row => rhs[c],
                Rhs::Column => rhs[row],
            };
            out[at] = apply(op, lhs[at], r);
        }
    }
}

fn apply<T: Real>(op: BinaryOp, l: T, r: T) -> T {
    match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div => l / r,
        BinaryOp::Max => l.greater(r),
        BinaryOp::Min => l.lesser(r),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_and_repeats_the_right_side() {
        let lhs = [1.0, 2.0, 3.0, 4.0];
        #[rustfmt::skip]
        let cases: [(BinaryOp, Rhs, &[f64], [f64; 4]); 8] = [
            (BinaryOp::Add, Rhs::Same,   &[4.0, 3.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0]),
            (BinaryOp::Sub, Rhs::Row,    &[1.0, 2.0],           [0.0, 0.0, 2.0, 2.0]),
            (BinaryOp::Mul, Rhs::Column, &[2.0, 10.0],          [2.0, 4.0, 30.0, 40.0]),
            (BinaryOp::Div, Rhs::Row,    &[2.0, 4.0],           [0.5, 0.5, 1.5, 1.0]),
            (BinaryOp::Max, Rhs::Row,    &[2.0, 3.0],           [2.0, 3.0, 3.0, 4.0]),
            (BinaryOp::Min, Rhs::Column, &[1.5, 3.5],           [1.0, 1.5, 3.0, 3.5]),
            (BinaryOp::Add, Rhs::Column, &[1.0, -1.0],          [2.0, 3.0, 2.0, 3.0]),
            (BinaryOp::Mul, Rhs::Same,   &[0.0, 1.0, 0.0, 1.0], [0.0, 2.0, 0.0, 4.0]),
        ];
        for (op, layout, rhs, expected) in cases {
            let mut out = [0.0; 4];
            elementwise(op, &lhs, rhs, layout, [2, 2], &mut out);
            assert_eq!(out, expected, "{op:?} {layout:?}");
        }
    }
}
