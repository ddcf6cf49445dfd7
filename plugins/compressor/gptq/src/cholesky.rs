//! Factors of positive definite matrices.

/// The upper triangular `u` with `uᵀ u` the inverse of `a [n, n]`, row-major; nothing if `a` is not positive
/// definite.
///
/// With `p` the reversal of rows or columns and `l lᵀ` the Cholesky factors of `p a p`, `u` is `p l⁻¹ p`: one
/// factorization and one triangular inverse.
pub(crate) fn inverse_factor(mut a: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    a.reverse();
    let l = lower(a, n)?;
    let mut u = inverse_of_lower(&l, n);
    u.reverse();
    Some(u)
}

/// The lower Cholesky factor.
fn lower(mut a: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    for j in 0..n {
        let (own, below) = a[j * n..].split_at_mut(n);
        let pivot = own[j] - dot(&own[..j], &own[..j]);
        if !(pivot.is_finite() && pivot > 0.0) {
            return None;
        }
        own[j] = pivot.sqrt();
        own[j + 1..].fill(0.0);
        for row in below.chunks_exact_mut(n) {
            row[j] = (row[j] - dot(&row[..j], &own[..j])) / own[j];
        }
    }
    Some(a)
}

/// The inverse of a lower triangle.
fn inverse_of_lower(l: &[f64], n: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; n * n];
    for i in 0..n {
        let (done, own) = inverse.split_at_mut(i * n);
        let own = &mut own[..n];
        for (k, &factor) in l[i * n..][..i].iter().enumerate() {
            let earlier = &done[k * n..][..=k];
            own.iter_mut().zip(earlier).for_each(|(own, x)| *own -= factor * x);
        }
        let pivot = l[i * n + i];
        own[..i].iter_mut().for_each(|x| *x /= pivot);
        own[i] = 1.0 / pivot;
    }
    inverse
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (x, y))| *sum += x * y);
    }
    rest + sums.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::inverse_factor;

    #[test]
    fn the_factor_is_upper_and_that_of_the_inverse() {
        let n = 13;
        let b: Vec<f64> = (0..n * n).map(|i| ((i * i * 7 + 3) % 11) as f64 / 5.0 - 1.0).collect();
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                a[i * n + j] = (0..n).map(|k| b[i * n + k] * b[j * n + k]).sum();
            }
            a[i * n + i] += 0.5;
        }
        let u = inverse_factor(a.clone(), n).unwrap();
        let inverse = |i: usize, j: usize| (0..n).map(|k| u[k * n + i] * u[k * n + j]).sum::<f64>();
        for i in 0..n {
            for j in 0..n {
                let found: f64 = (0..n).map(|k| a[i * n + k] * inverse(k, j)).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((found - expected).abs() < 1e-8, "{i} {j}: {found}");
                assert!(j >= i || u[i * n + j] == 0.0, "{i} {j}");
            }
        }
        assert!(inverse_factor(vec![1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(inverse_factor(vec![f64::NAN], 1).is_none());
    }
}
