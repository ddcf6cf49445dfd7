//! Rows of logits in plain memory: what processors are tested on.
//!
//! Slow and obviously right. Remembers what was read of the rows, to be compared with the
//! [`Need`] that a processor declares.

use crate::kinds::logits_processor::{Need, RowAccess, RowId};

/// Rows of equal length.
#[derive(Debug, Clone)]
pub struct Rows {
    /// One id per row.
    pub ids: Vec<RowId>,
    /// The logits of each row.
    pub logits: Vec<Vec<f32>>,
    /// The most that any call has read.
    pub read: Need,
    top: Vec<(u32, f32)>,
}

impl Rows {
    /// Rows with the ids 0, 1, 2 …
    pub fn new(logits: &[&[f32]]) -> Self {
        let logits: Vec<_> = logits.iter().map(|row| row.to_vec()).collect();
        let ids = (0..logits.len()).map(|i| RowId(i as u32)).collect();
        Self { ids, logits, read: Need::Nothing, top: Vec::new() }
    }

    /// Token ids of a row by falling logit, ties by lowest id.
    fn ranking(&self, row: usize) -> Vec<usize> {
        let logits = &self.logits[row];
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order
    }

    fn cut_after(&mut self, row: usize, num_kept: usize) {
        for token in self.ranking(row).into_iter().skip(num_kept) {
            self.logits[row][token] = f32::NEG_INFINITY;
        }
    }

    fn reads(&mut self, need: Need) {
        self.read = self.read.max(need);
    }
}

impl RowAccess for Rows {
    fn num_rows(&self) -> usize {
        self.logits.len()
    }

    fn id(&self, row: usize) -> RowId {
        self.ids[row]
    }

    fn vocab_size(&self) -> usize {
        self.logits.first().map_or(0, Vec::len)
    }

    fn max(&mut self, row: usize) -> f32 {
        self.reads(Need::Max);
        self.logits[row].iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    fn log_sum_exp(&mut self, row: usize) -> f32 {
        self.reads(Need::Top);
        let max = self.logits[row].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if max == f32::NEG_INFINITY {
            return max;
        }
        let sum: f64 = self.logits[row].iter().map(|l| f64::from(l - max).exp()).sum();
        max + sum.ln() as f32
    }

    fn logit(&mut self, row: usize, token: u32) -> f32 {
        self.reads(Need::Ids);
        self.logits[row].get(token as usize).copied().unwrap_or(f32::NEG_INFINITY)
    }

    fn top_k(&mut self, row: usize, k: usize) -> &[(u32, f32)] {
        self.reads(Need::Top);
        let top = self.ranking(row).into_iter().take(k);
        self.top = top.map(|token| (token as u32, self.logits[row][token])).collect();
        &self.top
    }

    fn scale(&mut self, row: usize, by: f32) {
        self.logits[row].iter_mut().for_each(|logit| *logit *= by);
    }

    fn set(&mut self, row: usize, token: u32, logit: f32) {
        if let Some(place) = self.logits[row].get_mut(token as usize) {
            *place = logit;
        }
    }

    fn keep_above(&mut self, row: usize, threshold: f32) {
        for logit in self.logits[row].iter_mut().filter(|logit| **logit < threshold) {
            *logit = f32::NEG_INFINITY;
        }
    }

    fn keep_top_k(&mut self, row: usize, k: usize) {
        self.cut_after(row, k);
    }

    fn keep_top_p(&mut self, row: usize, p: f32) {
        let logits = &self.logits[row];
        let ranking = self.ranking(row);
        let Some(&first) = ranking.first() else { return };
        let weight = |token: usize| f64::from(logits[token] - logits[first]).exp();
        let target = f64::from(p) * ranking.iter().map(|&token| weight(token)).sum::<f64>();
        let (mut num_kept, mut reached) = (1, weight(first));
        while reached < target && num_kept < ranking.len() {
            reached += weight(ranking[num_kept]);
            num_kept += 1;
        }
        self.cut_after(row, num_kept);
    }

    fn mask(&mut self, row: usize, allowed: &[u32]) {
        for (token, logit) in self.logits[row].iter_mut().enumerate() {
            let word = allowed.get(token / 32).copied().unwrap_or(0);
            if word >> (token % 32) & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn whole(&mut self, row: usize) -> &mut [f32] {
        self.reads(Need::All);
        &mut self.logits[row]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: f32 = f32::NEG_INFINITY;

    type Case = (&'static str, fn(&mut Rows), [f32; 4]);

    #[test]
    fn edits_do_what_the_trait_says() {
        let ln = f32::ln;
        let row = [ln(0.2), ln(0.5), ln(0.2), ln(0.1)];
        #[rustfmt::skip]
        let cases: [Case; 8] = [
            ("scale",          |r| r.scale(0, 2.0),         row.map(|l| l * 2.0)),
            ("set",            |r| r.set(0, 3, 1.0),        [row[0], row[1], row[2], 1.0]),
            ("set outside",    |r| r.set(0, 9, 1.0),        row),
            ("keep above",     |r| r.keep_above(0, 0.2_f32.ln()), [row[0], row[1], row[2], CUT]),
            ("top k, tie",     |r| r.keep_top_k(0, 2),      [row[0], row[1], CUT, CUT]),
            ("top p crosses",  |r| r.keep_top_p(0, 0.6),    [row[0], row[1], CUT, CUT]),
            ("top p of 0",     |r| r.keep_top_p(0, 0.0),    [CUT, row[1], CUT, CUT]),
            ("mask",           |r| r.mask(0, &[0b1001]),    [row[0], CUT, CUT, row[3]]),
        ];
        for (name, edit, expected) in cases {
            let mut rows = Rows::new(&[&row]);
            edit(&mut rows);
            assert_eq!(rows.logits[0], expected, "{name}");
        }
    }

    #[test]
    fn answers_from_the_row() {
        let mut rows = Rows::new(&[&[0.0, 0.0, CUT]]);
        assert_eq!(rows.max(0), 0.0);
        assert_eq!(rows.read, Need::Max);
        assert!((rows.log_sum_exp(0) - 2.0_f32.ln()).abs() < 1e-6);
        assert_eq!(rows.top_k(0, 2), [(0, 0.0), (1, 0.0)]);
        assert_eq!(rows.logit(0, 7), CUT);
        assert_eq!(rows.read, Need::Ids);
    }
}
