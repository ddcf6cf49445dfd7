//! Durations in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many durations were at most so long, for some lengths.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper ends of the buckets in seconds, ascending.
    ends: &'static [f64],
    /// One a bucket, and one for what is longer.
    counts: Vec<AtomicU64>,
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(ends: &'static [f64]) -> Self {
        let counts = (0..=ends.len()).map(|_| AtomicU64::new(0)).collect();
        Self { ends, counts, sum_us: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.ends.partition_point(|end| *end < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn sum_seconds(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Upper ends with the number of durations up to there; the last end is infinite.
    pub(crate) fn cumulative(&self) -> Vec<(f64, u64)> {
        let ends = self.ends.iter().copied().chain([f64::INFINITY]);
        let mut total = 0;
        let counted = ends.zip(&self.counts).map(|(end, count)| {
            total += count.load(Ordering::Relaxed);
            (end, total)
        });
        counted.collect()
    }

    pub(crate) fn mean(&self) -> Option<f64> {
        let count = self.cumulative().last().map_or(0, |(_, count)| *count);
        (count > 0).then(|| self.sum_seconds() / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_up_to_and_with_the_end_of_a_bucket() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for ms in [250, 500, 501, 1000, 5000] {
            histogram.observe(Duration::from_millis(ms));
        }
        assert_eq!(histogram.cumulative(), [(0.5, 2), (1.0, 4), (f64::INFINITY, 5)]);
        assert_eq!(histogram.sum_seconds(), 7.251);
        assert_eq!(histogram.mean(), Some(7.251 / 5.0));
    }
}
