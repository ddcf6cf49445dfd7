//! How numbers are spread: what marks layers that mind to have fewer bits.

/// A sample of numbers, described.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    /// Range over the range of the middle half.
    pub(super) dispersion: f64,
    /// Third central moment over the third power of the deviation.
    pub(super) skewness: f64,
    /// Where one in a thousand lies below, and above: the edges of histograms.
    edges: [f32; 2],
}

impl Spread {
    pub(super) fn of(x: &[f32]) -> Self {
        let mut sorted: Vec<f32> = x.iter().copied().filter(|x| x.is_finite()).collect();
        sorted.sort_by(f32::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else {
            return Self { dispersion: 0.0, skewness: 0.0, edges: [0.0; 2] };
        };
        let at = |q: f64| sorted[(last as f64 * q).round() as usize];
        let middle = f64::from(at(0.75)) - f64::from(at(0.25));
        let range = f64::from(sorted[last]) - f64::from(sorted[0]);
        let n = sorted.len() as f64;
        let mean = sorted.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let moment =
            |power: i32| sorted.iter().map(|&x| (f64::from(x) - mean).powi(power)).sum::<f64>() / n;
        let deviation = moment(2).sqrt();
        Self {
            dispersion: if middle > 0.0 { range / middle } else { 0.0 },
            skewness: if deviation > 0.0 { moment(3) / deviation.powi(3) } else { 0.0 },
            edges: [at(0.001), at(0.999)],
        }
    }

    /// Kullback-Leibler divergence of the histogram of `found` from that of `expected`, over the same edges with room below and
    /// above; counts are smoothed, so that it is finite. In nats.
    ///
    /// With `n` numbers even samples of one distribution are `(bins − 1) / 2n` apart.
    pub(super) fn divergence(&self, expected: &[f32], found: &[f32]) -> f64 {
        let (p, q) = (self.histogram(expected), self.histogram(found));
        let smooth = |counts: &[f64]| {
            let total = counts.iter().sum::<f64>() * (1.0 + SMOOTHING * counts.len() as f64);
            let each = counts.iter().sum::<f64>() * SMOOTHING;
            counts.iter().map(|count| (count + each) / total.max(1.0)).collect::<Vec<f64>>()
        };
        let pairs = smooth(&p).into_iter().zip(smooth(&q));
        pairs.filter(|(p, _)| *p > 0.0).map(|(p, q)| p * (p / q).ln()).sum::<f64>().max(0.0)
    }

    fn histogram(&self, x: &[f32]) -> Vec<f64> {
        let [low, high] = self.edges;
        let width = ((high - low) / BINS as f32).max(f32::MIN_POSITIVE);
        let mut counts = vec![0.0; BINS + 2];
        for x in x.iter().filter(|x| x.is_finite()) {
            // Casts saturate.
            let bin = if *x < low { 0 } else { (((x - low) / width) as usize).saturating_add(1) };
            counts[bin.min(BINS + 1)] += 1.0;
        }
        counts
    }
}

/// Part of the squares of a matrix of rows of `cols` numbers that its first singular value has, by power iteration.
pub(super) fn energy_ratio(x: &[f32], cols: usize) -> f64 {
    let all: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if cols == 0 || all <= 0.0 {
        return 0.0;
    }
    let mut direction: Vec<f64> = (0..cols).map(|i| 1.0 + (i % 7) as f64 / 7.0).collect();
    let mut first = 0.0;
    for _ in 0..ITERATIONS {
        let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        direction.iter_mut().for_each(|x| *x /= length);
        let mut next = vec![0.0; cols];
        first = 0.0;
        for row in x.chunks_exact(cols) {
            let along: f64 = row.iter().zip(&direction).map(|(x, d)| f64::from(*x) * d).sum();
            first += along * along;
            next.iter_mut().zip(row).for_each(|(next, x)| *next += along * f64::from(*x));
        }
        direction = next;
    }
    first / all
}

const BINS: usize = 512;
/// Of all counts, added to each.
const SMOOTHING: f64 = 1e-6;
const ITERATIONS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers along a bell curve, by the sum of twelve even ones.
    fn bell(seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut even = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1_u64 << 24) as f32
        };
        (0..60_000).map(|_| (0..12).map(|_| even()).sum::<f32>() - 6.0).collect()
    }

    #[test]
    fn a_bell_curve_is_what_is_known_of_it() {
        let x = bell(1);
        let spread = Spread::of(&x);
        assert!((5.5..8.0).contains(&spread.dispersion), "{spread:?}");
        assert!(spread.skewness.abs() < 0.05, "{spread:?}");
        assert_eq!(spread.divergence(&x, &x), 0.0);
        // Two samples: half of the bins over their number.
        let other = spread.divergence(&x, &bell(2));
        assert!(other > 0.002 && other < 0.02, "{other}");
        let wider: Vec<f32> = x.iter().map(|x| 1.5 * x).collect();
        // ln 1.5 + 1 / (2 · 1.5²) − 1/2 for bell curves.
        let expected = 1.5_f64.ln() + 1.0 / 4.5 - 0.5;
        let found = spread.divergence(&x, &wider);
        assert!((found / expected - 1.0).abs() < 0.15, "{found} {expected}");
    }

    #[test]
    fn long_tails_are_seen() {
        let mut x = bell(3);
        let usual = Spread::of(&x);
        x[7] = 40.0;
        let tailed = Spread::of(&x);
        assert!(tailed.dispersion > 4.0 * usual.dispersion && tailed.skewness > 0.5, "{tailed:?}");
        let squares: Vec<f32> = x[8..].iter().map(|x| x * x).collect();
        // Of a chi-squared distribution with one degree of freedom: √8.
        assert!((Spread::of(&squares).skewness / 8.0_f64.sqrt() - 1.0).abs() < 0.1);
    }

    #[test]
    fn energy_is_that_of_the_first_singular_value() {
        // Rows (3, 0) and (0, 1): 9 of 10.
        assert!((energy_ratio(&[3.0, 0.0, 0.0, 1.0], 2) - 0.9).abs() < 1e-9);
        assert!((energy_ratio(&[1.0, 2.0, 2.0, 4.0, -1.0, -2.0], 2) - 1.0).abs() < 1e-9);
        assert_eq!((energy_ratio(&[0.0; 4], 2), energy_ratio(&[], 0)), (0.0, 0.0));
    }

    #[test]
    fn nothing_is_described_without_a_fault() {
        let nothing = Spread::of(&[]);
        assert_eq!((nothing.dispersion, nothing.divergence(&[], &[1.0])), (0.0, 0.0));
        let same = Spread::of(&[2.0; 100]);
        assert_eq!((same.dispersion, same.skewness), (0.0, 0.0));
        assert_eq!(same.divergence(&[2.0; 100], &[2.0; 100]), 0.0);
    }
}
