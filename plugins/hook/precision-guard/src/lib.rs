//! Precision guard: looks at the logits of every answer from time to time, and lets the rest of one whose logits lie strangely have
//! precise weights.
//!
//! What is usual is learnt from answers that precise weights give: how many of their logits lie how far from the mean, on average.
//! Strange is a histogram whose Kullback-Leibler divergence from that is large, or a large skewness.
//!
//! Source of divergences between histograms as a measure of what bits lose: Migacz, "8-bit inference with TensorRT", GTC 2017. The two
//! least thresholds are no law: how often usual answers cross them is measured, and both are raised to what few of them cross.

use plugin_api::events::{AfterLogits, LOGIT_BINS};
use plugin_api::prelude::*;

/// Compares the logits of answers with those that precise weights give.
#[derive(Debug)]
pub struct PrecisionGuard {
    /// The least divergence that is strange, in nats.
    divergence: f64,
    /// The least skewness that is strange, of either sign.
    skewness: f64,
    /// Of what precise weights give, the part that may be called strange.
    false_alarms: f64,
    /// How many histograms of precise weights make a baseline.
    calibration: usize,
    /// Those that there are, until there are as many, with their skewness.
    seen: Vec<(Vec<u32>, f64)>,
    baseline: Option<Baseline>,
    /// Whether there were answers with precise weights, or somebody was told that there are none.
    is_heard: bool,
    /// The last request that was to have them.
    asked: Option<u64>,
}

/// What is usual.
#[derive(Debug)]
struct Baseline {
    /// Natural logarithm of the part of logits in each part.
    log_share: Vec<f64>,
    divergence: f64,
    skewness: f64,
}

impl Capability for PrecisionGuard {
    const NAME: &'static str = "precision-guard";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            divergence: config.number_or("divergence", 0.02, 0.0..=1e3)?,
            skewness: config.number_or("skewness", 3.0, 0.0..=1e6)?,
            false_alarms: config.number_or("false_alarms", 0.004, 0.0..=1.0)?,
            calibration: config.count_or("calibration", 256, 2..=65_536)? as usize,
            seen: Vec::new(),
            baseline: None,
            is_heard: false,
            asked: None,
        })
    }
}

impl Hook for PrecisionGuard {
    fn subscribe(mut self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        on.after_logits(move |event, host| {
            self.look(event, host);
            Flow::Continue
        });
        Ok(())
    }
}

impl PrecisionGuard {
    fn look(&mut self, event: &mut AfterLogits<'_>, host: &Host) {
        if event.is_precise {
            self.is_heard = true;
            if self.baseline.is_none() {
                self.learn(event, host);
            }
            return;
        }
        if let Some(baseline) = &self.baseline {
            let Some(strange) = baseline.strange(event) else { return };
            let (request, index) = (event.request, event.index);
            host.info(format_args!(
                "request {request}: {strange} at token {index}: the rest has precise weights"
            ));
        }
        // Before there is a baseline, answers show what is usual once they have precise weights.
        event.is_precise = true;
        if self.asked.replace(event.request) == Some(event.request) && !self.is_heard {
            self.is_heard = true;
            host.warn(format_args!(
                "no answer gets precise weights: set precise_model, the same model in more bits, and engine.fallback"
            ));
        }
    }

    fn learn(&mut self, event: &AfterLogits<'_>, host: &Host) {
        if event.skewness.is_nan() || event.counts.len() != LOGIT_BINS {
            return;
        }
        self.seen.push((event.counts.to_vec(), event.skewness.abs()));
        if self.seen.len() < self.calibration {
            return;
        }
        let seen = std::mem::take(&mut self.seen);
        let mut total = vec![0_u64; LOGIT_BINS];
        for (counts, _) in &seen {
            total.iter_mut().zip(counts).for_each(|(sum, n)| *sum += u64::from(*n));
        }
        // Each is compared with the others.
        let others = |counts: &[u32]| {
            let rest = total.iter().zip(counts).map(|(sum, n)| sum - u64::from(*n));
            divergence(counts, &log_share(rest.collect()))
        };
        let divergences = seen.iter().map(|(counts, _)| others(counts)).collect();
        let skewness = seen.iter().map(|(_, skewness)| *skewness).collect();
        let baseline = Baseline {
            divergence: self.divergence.max(crossed_by(divergences, self.false_alarms)),
            skewness: self.skewness.max(crossed_by(skewness, self.false_alarms)),
            log_share: log_share(total),
        };
        host.info(format_args!(
            "strange is a divergence above {:.4} or a skewness above {:.2}, after {} looks at precise weights",
            baseline.divergence, baseline.skewness, self.calibration
        ));
        self.baseline = Some(baseline);
    }
}

impl Baseline {
    /// What is strange about these logits, if anything is.
    fn strange(&self, event: &AfterLogits<'_>) -> Option<String> {
        if event.skewness.is_nan() {
            return Some("logits that are no numbers".to_owned());
        }
        if event.skewness.abs() > self.skewness {
            return Some(format!("a skewness of {:.2}", event.skewness));
        }
        let found = divergence(event.counts, &self.log_share);
        (found > self.divergence).then(|| format!("a divergence of {found:.4}"))
    }
}

/// Logarithms of shares; what was never seen counts as half of once.
fn log_share(counts: Vec<u64>) -> Vec<f64> {
    let all = counts.iter().sum::<u64>() as f64 + 0.5 * counts.len() as f64;
    counts.into_iter().map(|n| ((n as f64 + 0.5) / all).ln()).collect()
}

/// The Kullback-Leibler divergence of a histogram from shares, in nats.
fn divergence(counts: &[u32], log_share: &[f64]) -> f64 {
    let all = counts.iter().map(|n| f64::from(*n)).sum::<f64>();
    let shares = counts.iter().zip(log_share).filter(|(n, _)| **n > 0);
    shares
        .map(|(n, expected)| {
            let share = f64::from(*n) / all;
            share * (share.ln() - expected)
        })
        .sum()
}

/// The number that at most `part` of all exceed.
fn crossed_by(mut all: Vec<f64>, part: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let above = (all.len() as f64 * part) as usize;
    all.into_iter().rev().nth(above).unwrap_or(0.0)
}

export_plugin!(PrecisionGuard);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::hook::{after_logits, subscribe, suite};
    use plugin_api::testing::random::Random;

    fn config() -> Config {
        Config::new().with("calibration", 16)
    }

    /// Logits as a sum of uniform numbers, or with so many of them far above the others.
    fn logits(random: &mut Random, num_far: usize, how_far: f32) -> Vec<f32> {
        let near = |_: usize| (0..6).map(|_| random.signed()).sum();
        let mut all: Vec<f32> = (0..20_000).map(near).collect();
        all[..num_far].iter_mut().for_each(|x| *x += how_far);
        all
    }

    #[test]
    fn passes_the_contract_suite() {
        suite::<PrecisionGuard>(&Config::new());
        suite::<PrecisionGuard>(&config());
    }

    #[test]
    fn learns_what_is_usual_and_finds_what_is_not() {
        let (mut on, mut random) = (subscribe::<PrecisionGuard>(&config()), Random::new(1));
        let params = Config::new();
        let mut look = |logits: &[f32], index, is_precise| {
            after_logits(&mut on, logits, index, is_precise, &params)
        };
        for _ in 0..8 {
            assert!(
                look(&logits(&mut random, 0, 0.0), 63, false),
                "shows what is usual from here on"
            );
            assert!(look(&logits(&mut random, 0, 0.0), 127, true));
            assert!(look(&logits(&mut random, 0, 0.0), 191, true));
        }
        for _ in 0..100 {
            assert!(!look(&logits(&mut random, 0, 0.0), 63, false), "a false alarm");
        }
        assert!(look(&logits(&mut random, 1000, 12.0), 63, false), "another shape");
        assert!(look(&logits(&mut random, 20, 80.0), 63, false), "skewed");
        assert!(look(&[1.0, f32::NAN], 63, false), "no numbers");
        // Scale and place do not matter: softmax has a temperature and no place.
        let moved: Vec<f32> = logits(&mut random, 0, 0.0).iter().map(|x| 3.0 * x - 40.0).collect();
        assert!(!look(&moved, 63, false));
    }

    #[test]
    fn thresholds_are_raised_to_what_few_usual_answers_cross() {
        let all: Vec<f64> = (0..100).map(f64::from).collect();
        assert!((crossed_by(all.clone(), 0.0) - 99.0).abs() < 1e-9);
        assert!((crossed_by(all.clone(), 0.05) - 94.0).abs() < 1e-9);
        assert!((crossed_by(all, 1.0) - 0.0).abs() < 1e-9);
        // KL of (1/2, 1/2) from (1/4, 3/4): ln 2 / 2 + ln (2/3) / 2.
        let found = divergence(&[1, 1], &[0.25_f64.ln(), 0.75_f64.ln()]);
        assert!((found - 0.143_841_036_225_89).abs() < 1e-12, "{found}");
    }

    #[test]
    fn refuses_numbers_out_of_range() {
        let wrong = Config::new().with("false_alarms", 1.5);
        let error = PrecisionGuard::from_config(&wrong).unwrap_err().to_string();
        assert!(error.contains("false_alarms: expected a number"), "{error}");
    }
}
