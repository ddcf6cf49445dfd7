//! Causal depthwise convolution, one token at a time.

use crate::Real;

/// Adds up each channel's last inputs, the token's own included, and keeps all but the oldest.
///
/// | argument | shape                                     |
/// |----------|-------------------------------------------|
/// | `x`      | `[width]`, the token                      |
/// | `w`      | `[width, kernel]`, the last for the token |
/// | `state`  | `[kernel - 1, width]`, oldest first       |
/// | `out`    | `[width]`                                 |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Gu and Dao, "Mamba", arXiv:2312.00752, section 3.4.
pub fn causal_conv<T: Real>(x: &[T], w: &[T], state: &mut [T], out: &mut [T]) {
    let width = x.len();
    let kernel = w.len().checked_div(width).unwrap_or(1);
    assert!(kernel > 0 && w.len() == width * kernel, "causal_conv: w is not [width, kernel]");
    assert_eq!(state.len(), (kernel - 1) * width, "causal_conv: state is not [kernel - 1, width]");
    assert_eq!(out.len(), width, "causal_conv: out is not [width]");
    for c in 0..width {
        let mut sum = T::zero();
        for j in 0..kernel - 1 {
            sum += w[c * kernel + j] * state[j * width + c];
        }
        out[c] = sum + w[c * kernel + kernel - 1] * x[c];
    }
    let oldest = width.min(state.len());
    state.copy_within(oldest.., 0);
    let newest = state.len() - oldest;
    state[newest..].copy_from_slice(&x[..oldest]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighs_the_last_inputs_of_each_channel() {
        let w = [1.0, 10.0, 100.0, 2.0, 20.0, 200.0];
        let (mut state, mut out) = ([0.0; 4], [0.0; 2]);
        let expected = [[100.0, 200.0], [210.0, 420.0], [321.0, 642.0], [432.0, 864.0]];
        for (t, expected) in expected.into_iter().enumerate() {
            let x = [(t + 1) as f64; 2];
            causal_conv(&x, &w, &mut state, &mut out);
            assert_eq!(out, expected, "token {t}");
        }
        assert_eq!(state, [3.0, 3.0, 4.0, 4.0]);
    }

    #[test]
    fn a_kernel_of_one_keeps_nothing() {
        let mut out = [0.0; 2];
        causal_conv(&[3.0, 4.0], &[2.0, 5.0], &mut [], &mut out);
        assert_eq!(out, [6.0, 20.0]);
    }
}
