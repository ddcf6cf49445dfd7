//! The selective state space recurrence, one token at a time.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
    math,
};

/// Lets the state decay and take in the token, and reads it.
///
/// With `d = ln(1 + e^dt)` for each channel: `state = e^(d · a) · state + d · x · b`, `out = c · state`.
///
/// | argument      | shape        | dtype |
/// |---------------|--------------|-------|
/// | `x`, `dt`     | `[width]`    | `f32` |
/// | `a`           | `[width, n]` | `f32` |
/// | `b`, `c`      | `[n]`        | `f32` |
/// | `state`       | `[width, n]` | `f32` |
/// | `out`         | `[width]`    | `f32` |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Gu and Dao, "Mamba", arXiv:2312.00752, algorithm 2; `selective_scan_ref` of its authors.
pub fn selective_scan(
    isa: Isa,
    [x, dt]: [&[f32]; 2],
    a: &[f32],
    [b, c]: [&[f32]; 2],
    state: &mut [f32],
    out: &mut [f32],
) {
    let (width, n) = (x.len(), b.len());
    assert!(dt.len() == width && out.len() == width, "selective_scan: dt, out are not [width]");
    assert!(a.len() == width * n && state.len() == a.len(), "selective_scan: not [width, n]");
    assert_eq!(c.len(), n, "selective_scan: c is not [n]");
    dispatch(isa, Scan { x, dt, a, b, c, state, out });
}

struct Scan<'a> {
    x: &'a [f32],
    dt: &'a [f32],
    a: &'a [f32],
    b: &'a [f32],
    c: &'a [f32],
    state: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Scan<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let n = self.b.len();
        for (i, out) in self.out.iter_mut().enumerate() {
            let d = softplus(self.dt[i]);
            let (by, taken) = (L::splat(d), L::splat(d * self.x[i]));
            let (a, state) = (&self.a[i * n..][..n], &mut self.state[i * n..][..n]);
            let mut sums = L::splat(0.0);
            let parts = state.chunks_mut(LANES).zip(a.chunks(LANES));
            let read = self.b.chunks(LANES).zip(self.c.chunks(LANES));
            for ((state, a), (b, c)) in parts.zip(read) {
                let decay = math::exp(by.mul(L::load_part(a, 0.0)));
                let kept = L::load_part(state, 0.0).mul(decay);
                let next = taken.fma(L::load_part(b, 0.0), kept);
                sums = next.fma(L::load_part(c, 0.0), sums);
                next.store_part(state);
            }
            *out = sums.sum();
        }
    }
}

/// `ln(1 + e^x)`, also where `e^x` is lost beside 1.
///
/// Source: Higham, "Accuracy and Stability of Numerical Algorithms", problem 1.5.
#[inline(always)]
fn softplus(x: f32) -> f32 {
    // Beyond, `e^-x` is nothing beside `x`.
    if x > 20.0 {
        return x;
    }
    let e = x.exp();
    let sum = 1.0 + e;
    if sum == 1.0 { e } else { sum.ln() * e / (sum - 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa() {
        for (width, n) in [(1, 1), (5, 16), (33, 7), (8, 40)] {
            let a: Vec<f32> = floats(width * n, 1).iter().map(|a| -4.0 * a.abs()).collect();
            let run = |isa: Isa| {
                let (mut state, mut all) = (vec![0.0; width * n], Vec::new());
                for token in 0..5 {
                    let [x, dt] = [2, 3].map(|seed| floats(width, seed + 10 * token));
                    let [b, c] = [4, 5].map(|seed| floats(n, seed + 10 * token));
                    let mut out = vec![f32::NAN; width];
                    selective_scan(isa, [&x, &dt], &a, [&b, &c], &mut state, &mut out);
                    all.extend(out);
                }
                all
            };
            let (mut state, mut exact) = (vec![0.0; width * n], Vec::new());
            for token in 0..5 {
                let [x, dt] = [2, 3].map(|seed| doubles(&floats(width, seed + 10 * token)));
                let [b, c] = [4, 5].map(|seed| doubles(&floats(n, seed + 10 * token)));
                let mut out = vec![f64::NAN; width];
                let a = doubles(&a);
                kernels_reference::selective_scan([&x, &dt], &a, [&b, &c], &mut state, &mut out);
                exact.extend(out);
            }
            let first = run(Isa::Scalar);
            assert_near(&first, &exact, 1e-5, &format!("{width} {n}"));
            for isa in isas() {
                assert_eq!(bits(&run(isa)), bits(&first), "{isa:?} {width} {n}");
            }
        }
    }
}
