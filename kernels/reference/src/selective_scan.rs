//! The selective state space recurrence, one token at a time.

use crate::Real;

/// Lets the state decay and take in the token, and reads it.
///
/// With `d = ln(1 + e^dt)` for each channel: `state = e^(d · a) · state + d · x · b`, `out = c · state`.
///
/// | argument      | shape        |
/// |---------------|--------------|
/// | `x`, `dt`     | `[width]`    |
/// | `a`           | `[width, n]` |
/// | `b`, `c`      | `[n]`        |
/// | `state`       | `[width, n]` |
/// | `out`         | `[width]`    |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Gu and Dao, "Mamba", arXiv:2312.00752, algorithm 2; `selective_scan_ref` of its authors.
pub fn selective_scan<T: Real>(
    [x, dt]: [&[T]; 2],
    a: &[T],
    [b, c]: [&[T]; 2],
    state: &mut [T],
    out: &mut [T],
) {
    let (width, n) = (x.len(), b.len());
    assert!(dt.len() == width && out.len() == width, "selective_scan: dt, out are not [width]");
    assert!(a.len() == width * n && state.len() == a.len(), "selective_scan: not [width, n]");
    assert_eq!(c.len(), n, "selective_scan: c is not [n]");
    for i in 0..width {
        let d = softplus(dt[i]);
        let taken = d * x[i];
        let mut sum = T::zero();
        for j in 0..n {
            let k = i * n + j;
            state[k] = state[k] * (d * a[k]).exp() + taken * b[j];
            sum += state[k] * c[j];
        }
        out[i] = sum;
    }
}

/// `ln(1 + e^x)`, also where `e^x` is lost beside 1.
///
/// Source: Higham, "Accuracy and Stability of Numerical Algorithms", problem 1.5.
fn softplus<T: Real>(x: T) -> T {
    // Beyond, `e^-x` is nothing beside `x` in single precision.
    if x > T::from_f64(20.0) {
        return x;
    }
    let e = x.exp();
    let sum = T::one() + e;
    if sum == T::one() { e } else { sum.ln() * e / (sum - T::one()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decays_and_takes_in() {
        // d = ln 2, a = -1: half of the state is left.
        let (mut state, mut out) = ([8.0_f64, 4.0], [0.0]);
        let ln2 = 2.0_f64.ln();
        selective_scan(
            [&[3.0], &[0.0]],
            &[-1.0, 0.0],
            [&[1.0, 2.0], &[1.0, 10.0]],
            &mut state,
            &mut out,
        );
        let expected = [4.0 + 3.0 * ln2, 4.0 + 6.0 * ln2];
        assert!((state[0] - expected[0]).abs() < 1e-12 && (state[1] - expected[1]).abs() < 1e-12);
        assert!((out[0] - expected[0] - 10.0 * expected[1]).abs() < 1e-12, "{out:?}");
    }

    #[test]
    fn softplus_is_exact_where_it_is_small() {
        for x in [-40.0_f64, -20.0, -7.0, 0.0, 3.0, 19.0, 25.0] {
            let exact = x.exp().ln_1p();
            let found = f64::from(softplus(x as f32));
            assert!((found - exact).abs() <= 4e-7 * exact, "{x}: {found}, not {exact}");
        }
    }
}
