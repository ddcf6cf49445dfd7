//! Causal depthwise convolution, one token at a time.

/// Adds up each channel's last inputs, the token's own included, and keeps all but the oldest. Sums are in
/// the order of the inputs, so that bits do not depend on the instruction set.
///
/// | argument | shape                                     | dtype |
/// |----------|-------------------------------------------|-------|
/// | `x`      | `[width]`, the token                      | `f32` |
/// | `w`      | `[width, kernel]`, the last for the token | `f32` |
/// | `state`  | `[kernel - 1, width]`, oldest first       | `f32` |
/// | `out`    | `[width]`                                 | `f32` |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Gu and Dao, "Mamba", arXiv:2312.00752, section 3.4.
pub fn causal_conv(x: &[f32], w: &[f32], state: &mut [f32], out: &mut [f32]) {
    let width = x.len();
    let kernel = w.len().checked_div(width).unwrap_or(1);
    assert!(kernel > 0 && w.len() == width * kernel, "causal_conv: w is not [width, kernel]");
    assert_eq!(state.len(), (kernel - 1) * width, "causal_conv: state is not [kernel - 1, width]");
    assert_eq!(out.len(), width, "causal_conv: out is not [width]");
    for (c, (out, w)) in out.iter_mut().zip(w.chunks_exact(kernel)).enumerate() {
        let mut sum = 0.0;
        for (j, w) in w[..kernel - 1].iter().enumerate() {
            sum += w * state[j * width + c];
        }
        *out = sum + w[kernel - 1] * x[c];
    }
    let oldest = width.min(state.len());
    state.copy_within(oldest.., 0);
    let newest = state.len() - oldest;
    state[newest..].copy_from_slice(&x[..oldest]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, doubles, floats};

    #[test]
    fn is_near_the_reference() {
        for (width, kernel) in [(1, 1), (7, 4), (33, 2), (64, 4)] {
            let w = floats(width * kernel, 1);
            let mut state = vec![0.0; (kernel - 1) * width];
            let mut exact_state = doubles(&state);
            for token in 0..6 {
                let x = floats(width, 2 + token);
                let (mut out, mut exact) = (vec![f32::NAN; width], vec![f64::NAN; width]);
                causal_conv(&x, &w, &mut state, &mut out);
                let (x, w) = (doubles(&x), doubles(&w));
                kernels_reference::causal_conv(&x, &w, &mut exact_state, &mut exact);
                assert_near(&out, &exact, 1e-6, &format!("{width} {kernel}, token {token}"));
                assert_eq!(doubles(&state), exact_state);
            }
        }
    }
}
