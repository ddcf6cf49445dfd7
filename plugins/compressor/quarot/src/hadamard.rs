//! Multiplying rows with Hadamard matrices, of many orders.
//!
//! Source: Paley, "On Orthogonal Matrices", J. Math. Phys. 12, 1933; Ashkboos et al., "QuaRot", arXiv:2404.00456, section 3.

/// A symmetric or other Hadamard matrix of order `2^m · k`: the Kronecker product of Sylvester's and a small one.
#[derive(Debug)]
pub(crate) struct Hadamard {
    /// `[k, k]` of ones and minus ones.
    small: Vec<f32>,
    k: usize,
    width: usize,
}

impl Hadamard {
    /// The one for rows of `width`, if one is known.
    pub(crate) fn new(width: usize) -> Option<Self> {
        let odd = width >> width.trailing_zeros().min(usize::BITS - 1);
        let mut k = odd.max(1);
        while k <= width {
            if width.is_multiple_of(k)
                && (width / k).is_power_of_two()
                && let Some(small) = small(k)
            {
                return Some(Self { small, k, width });
            }
            k *= 2;
        }
        None
    }

    /// Multiplies a row with it, divided by the root of its order: lengths stay.
    pub(crate) fn multiply(&self, row: &mut [f64]) {
        let Self { small, k, width } = self;
        let mut half = *k;
        while half < *width {
            for pair in row.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        let by = (*width as f64).sqrt().recip();
        let mut products = vec![0.0; *k];
        for part in row.chunks_exact_mut(*k) {
            products.fill(0.0);
            for (x, line) in part.iter().zip(small.chunks_exact(*k)) {
                products.iter_mut().zip(line).for_each(|(sum, sign)| *sum += x * f64::from(*sign));
            }
            part.iter_mut().zip(&products).for_each(|(x, sum)| *x = sum * by);
        }
    }
}

/// A matrix of order `k`: trivial ones, and both of Paley's by primes.
fn small(k: usize) -> Option<Vec<f32>> {
    match k {
        1 => Some(vec![1.0]),
        2 => Some(vec![1.0, 1.0, 1.0, -1.0]),
        _ if !k.is_multiple_of(4) => None,
        _ if is_prime(k - 1) => Some(first(k - 1)),
        _ if is_prime(k / 2 - 1) && (k / 2 - 1) % 4 == 1 => Some(second(k / 2 - 1)),
        _ => None,
    }
}

/// Order `q + 1`, for primes that leave 3 over 4: `I + S`, with `S` skew.
fn first(q: usize) -> Vec<f32> {
    let signs = signs(q);
    let entry = |i: usize, j: usize| match (i, j) {
        (0, _) => 1.0,
        (_, 0) => -1.0,
        _ if i == j => 1.0,
        _ => signs[(q + j - i) % q],
    };
    matrix(q + 1, entry)
}

/// Order `2 (q + 1)`, for primes that leave 1 over 4: zeros of a symmetric matrix of order `q + 1` become one block,
/// ones another.
fn second(q: usize) -> Vec<f32> {
    let signs = signs(q);
    let symmetric = |i: usize, j: usize| match (i, j) {
        _ if i == j => 0.0,
        (0, _) | (_, 0) => 1.0,
        _ => signs[(q + j - i) % q],
    };
    let entry = |i: usize, j: usize| match (symmetric(i / 2, j / 2), (i % 2, j % 2)) {
        (0.0, (0, 0)) => 1.0,
        (0.0, _) => -1.0,
        (sign, (1, 1)) => -sign,
        (sign, _) => sign,
    };
    matrix(2 * (q + 1), entry)
}

fn matrix(order: usize, entry: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    (0..order * order).map(|at| entry(at / order, at % order)).collect()
}

/// Of each residue of `q`: 1 for squares, -1 for others, 0 for 0.
fn signs(q: usize) -> Vec<f32> {
    let mut signs = vec![-1.0; q];
    (1..q).for_each(|x| signs[x * x % q] = 1.0);
    signs[0] = 0.0;
    signs
}

fn is_prime(n: usize) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_widths_of_models_are_orthogonal_signs() {
        // SmolLM2, Qwen2.5-0.5B, Gemma 3 270M, Llama and others; heads.
        for width in [1, 2, 4, 12, 20, 28, 36, 60, 64, 80, 96, 128, 576, 640, 896, 1536, 2048, 5120]
        {
            let hadamard = Hadamard::new(width).unwrap_or_else(|| panic!("{width}"));
            let line = |i: usize| {
                let mut row = vec![0.0; width];
                row[i] = (width as f64).sqrt();
                hadamard.multiply(&mut row);
                row
            };
            let lines: Vec<Vec<f64>> = (0..width.min(70)).map(line).collect();
            for (i, a) in lines.iter().enumerate() {
                assert!(a.iter().all(|x| (x.abs() - 1.0).abs() < 1e-9), "{width}: {a:?}");
                for (j, b) in lines.iter().enumerate() {
                    let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    let expected = if i == j { width as f64 } else { 0.0 };
                    assert!((product - expected).abs() < 1e-6, "{width}: {i} {j} {product}");
                }
            }
        }
        for width in [0, 3, 6, 7, 9, 18, 100] {
            assert!(Hadamard::new(width).is_none(), "{width}");
        }
    }
}
