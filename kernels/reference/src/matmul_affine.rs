//! Matrix product of quantized activations with affine-quantized weights.

use crate::{ACT_BLOCK, Real};

/// Weights of `y = scale * (code - zero_point) + min`, one scale and min per group along `k`.
#[derive(Clone, Copy, Debug)]
pub struct AffineRef<'a> {
    /// Unsigned codes, `[n, k]`.
    pub codes: &'a [u8],
    /// `[n, k / group]`
    pub scales: &'a [f32],
    /// `[n, k / group]`, or nothing for zeros.
    pub mins: Option<&'a [f32]>,
    /// The code that means zero where there is no min.
    pub zero_point: u8,
    /// Elements that share a scale.
    pub group: usize,
}

impl AffineRef<'_> {
    /// The weight at `at = row * k + column`; rows are whole groups, so the group is `at / group`.
    pub fn weight<T: Real>(&self, at: usize) -> T {
        let group = at / self.group;
        let code = T::from_f64(f64::from(self.codes[at]) - f64::from(self.zero_point));
        let scaled = T::from_f64(f64::from(self.scales[group])) * code;
        match self.mins {
            Some(mins) => scaled + T::from_f64(f64::from(mins[group])),
            None => scaled,
        }
    }
}

/// Writes `out[r, j] = sum over i of x[r, i] * w[j, i]`, both decoded first.
///
/// | argument   | shape                  | dtype                              |
/// |------------|------------------------|------------------------------------|
/// | `x_codes`  | `[rows, k]`            | `i8`, see [`crate::quantize_rows`] |
/// | `x_scales` | `[rows, ceil(k / 32)]` | `f32`                              |
/// | `w`        | `[n, k]`               | codes with scales                  |
/// | `out`      | `[rows, n]`            | computed in                        |
///
/// # Panics
///
/// If the lengths do not fit the shapes or `k` is not whole groups.
pub fn matmul_affine<T: Real>(
    x_codes: &[i8],
    x_scales: &[f32],
    w: &AffineRef<'_>,
    [rows, n, k]: [usize; 3],
    out: &mut [T],
) {
    let blocks = k.div_ceil(ACT_BLOCK);
    assert_eq!(x_codes.len(), rows * k, "matmul_affine: x_codes are not [rows, k]");
    assert_eq!(x_scales.len(), rows * blocks, "matmul_affine: x_scales are not [rows, blocks]");
    assert_eq!(w.codes.len(), n * k, "matmul_affine: codes are not [n, k]");
    assert_eq!(k % w.group, 0, "matmul_affine: k is not whole groups");
    assert_eq!(w.scales.len(), n * k / w.group, "matmul_affine: scales are not [n, k / group]");
    assert_eq!(out.len(), rows * n, "matmul_affine: out is not [rows, n]");
    for r in 0..rows {
        for j in 0..n {
            let mut sum = T::zero();
            for i in 0..k {
                let scale = T::from_f64(f64::from(x_scales[r * blocks + i / ACT_BLOCK]));
                let x = scale * T::from_f64(f64::from(x_codes[r * k + i]));
                sum += x * w.weight(j * k + i);
            }
            out[r * n + j] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_both_sides() {
        // Two groups of 2: weights (0, 2) + (8.5, 7.5); activations (2, 4, 6, -2).
        let w = AffineRef {
            codes: &[8, 9, 9, 7],
            scales: &[2.0, 0.5],
            mins: Some(&[0.0, 8.0]),
            zero_point: 8,
            group: 2,
        };
        let mut out = [0.0_f64];
        matmul_affine(&[1, 2, 3, -1], &[2.0], &w, [1, 1, 4], &mut out);
        assert_eq!(out, [2.0 * 4.0 + 8.5 * 6.0 - 7.5 * 2.0]);
        let mut out = [0.0_f32];
        let w = AffineRef { mins: None, ..w };
        matmul_affine(&[1, 2, 3, -1], &[2.0], &w, [1, 1, 4], &mut out);
        assert_eq!(out, [2.0 * 4.0 + 0.5 * 6.0 + 0.5 * 2.0]);
    }
}
