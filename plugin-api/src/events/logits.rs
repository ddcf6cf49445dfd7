//! How the logits of an answer lie, from time to time.

use super::{Event, Flow, Record, Subscriptions};
use crate::config::Config;
use crate::host::Host;

event! {
    /// [`LOGITS_EVERY`] tokens of an answer have come since the last such event, or since it began: how the logits of the
    /// last of them lie, before processors edit them. Where the model has precise weights beside it, the rest of the answer
    /// may have those. Answers of one sequence have such events; other answers than `Continue` are ignored. [step thread]
    AfterLogits, after_logits, "after-logits", budget_us: 200,
    |e| Record::new("after-logits", e.request, &[
        ("index", e.index as f64), ("deviation", e.deviation), ("skewness", e.skewness),
        ("is_precise", f64::from(u8::from(e.is_precise))),
    ]),
    {
        /// The request.
        request: u64,
        /// How many tokens of the answer came before the one that these logits gave.
        index: usize,
        /// How many logits lie in each of [`LOGIT_BINS`] equal parts of −[`LOGIT_RANGE`] to [`LOGIT_RANGE`] standard
        /// deviations from their mean; those outside are in the first and the last.
        counts: &'a [u32],
        /// Standard deviation of the logits.
        deviation: f64,
        /// Their third standardized moment: 0 where they lie as far above their mean as below.
        skewness: f64,
        /// Whether the rest of the answer has precise weights. Hooks only raise it; without such weights it has no effect.
        is_precise: bool,
        /// Parameters of the request.
        params: &'a Config,
    }
}

/// Tokens from one [`AfterLogits`] of an answer to the next.
pub const LOGITS_EVERY: usize = 64;
/// Parts that [`AfterLogits`] counts logits in.
pub const LOGIT_BINS: usize = 512;
/// Standard deviations from the mean that those parts reach to, either way.
pub const LOGIT_RANGE: f64 = 8.0;

/// Counts logits in [`LOGIT_BINS`] `counts`; their standard deviation and skewness, both not a number where there are no logits,
/// where all are equal and where one is not finite: then nothing is counted.
pub fn spread(logits: &[f32], counts: &mut [u32]) -> (f64, f64) {
    counts.fill(0);
    let num = logits.len() as f64;
    let mean = sum(logits, |x| x) / num;
    let variance = sum(logits, |x| (x - mean) * (x - mean)) / num;
    let deviation = variance.sqrt();
    if !deviation.is_finite() || deviation == 0.0 {
        return (f64::NAN, f64::NAN);
    }
    let third = sum(logits, |x| (x - mean) * (x - mean) * (x - mean)) / num;
    let by = counts.len() as f64 / (2.0 * LOGIT_RANGE);
    let last = counts.len().saturating_sub(1);
    for &x in logits {
        let place = ((f64::from(x) - mean) / deviation + LOGIT_RANGE) * by;
        // What lies before the first part is in it.
        counts[(place as usize).min(last)] += 1;
    }
    (deviation, third / (deviation * variance))
}

/// Eight sums side by side, which one vector holds.
fn sum(logits: &[f32], of: impl Fn(f64) -> f64) -> f64 {
    let (eights, rest) = logits.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        for (sum, &x) in sums.iter_mut().zip(eight) {
            *sum += of(f64::from(x));
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&x| of(f64::from(x))).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_counted_by_their_distance_from_the_mean() {
        // Mean 2, variance 1.5; z of 0, 2 and 5 are −1.633, 0 and 2.449.
        let logits = [0.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 5.0, 2.0, 2.0, 1.0];
        let mut counts = [0; LOGIT_BINS];
        let (deviation, skewness) = spread(&logits, &mut counts);
        // numpy: x.std(), ((x - x.mean()) ** 3).mean() / x.std() ** 3
        assert!((deviation - 1.080_123_449_734_643_5).abs() < 1e-12, "{deviation}");
        assert!((skewness - 1.190_340_128_278_994_5).abs() < 1e-9, "{skewness}");
        assert_eq!(counts.iter().sum::<u32>(), 12);
        assert_eq!(counts[LOGIT_BINS / 2], 9, "at the mean");
        let wide = [0.0_f32; 400].into_iter().chain([1e4]).collect::<Vec<_>>();
        let (_, skewness) = spread(&wide, &mut counts);
        assert!(skewness > 19.0 && counts[LOGIT_BINS - 1] == 1, "{skewness}");
        for none in [&[][..], &[1.0, 1.0], &[1.0, f32::INFINITY], &[f32::NAN]] {
            let (deviation, skewness) = spread(none, &mut counts);
            assert!(deviation.is_nan() && skewness.is_nan() && counts == [0; LOGIT_BINS]);
        }
    }
}
