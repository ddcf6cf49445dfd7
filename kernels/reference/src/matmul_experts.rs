//! Products with the weights that each row has chosen.

use crate::Real;

/// Writes `out[p, j] = sum over i of x[p / per_row, i] * w[chosen[p], j, i]`, in the order of `i`.
///
/// | argument | shape                |
/// |----------|----------------------|
/// | `x`      | `[pairs / per_row, k]` |
/// | `w`      | `[experts, n, k]`    |
/// | `chosen` | `[pairs]`            |
/// | `out`    | `[pairs, n]`         |
///
/// # Panics
///
/// If the lengths do not fit the shapes, or an expert is out of range.
pub fn matmul_experts<T: Real>(
    x: &[T],
    w: &[T],
    chosen: &[u32],
    [per_row, n, k]: [usize; 3],
    out: &mut [T],
) {
    assert_eq!(x.len() * per_row, chosen.len() * k, "matmul_experts: x is not [rows, k]");
    assert_eq!(out.len(), chosen.len() * n, "matmul_experts: out is not [pairs, n]");
    for (p, &expert) in chosen.iter().enumerate() {
        let x = &x[p / per_row * k..][..k];
        let w = &w[expert as usize * n * k..][..n * k];
        for j in 0..n {
            let products = x.iter().zip(&w[j * k..]).map(|(x, w)| *x * *w);
            out[p * n + j] = products.fold(T::zero(), |sum, product| sum + product);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_the_product_of_its_expert() {
        // Experts times one and times ten, of two outputs each.
        let w = [1.0, 0.0, 0.0, 1.0, 10.0, 0.0, 0.0, 10.0];
        let mut out = [0.0_f64; 8];
        matmul_experts(&[1.0, 2.0, 3.0, 4.0], &w, &[1, 0, 0, 1], [2, 2, 2], &mut out);
        assert_eq!(out, [10.0, 20.0, 1.0, 2.0, 3.0, 4.0, 30.0, 40.0]);
        let mut own = [0.0_f64; 4];
        matmul_experts(&[1.0, 2.0, 3.0, 4.0], &w, &[1, 0], [1, 2, 2], &mut own);
        assert_eq!(own, [10.0, 20.0, 3.0, 4.0]);
    }
}
