//! Rows of logits in host memory, as processors edit them and tokens are drawn from them.
//!
//! A row starts as the whole vocabulary. The first processor that cuts its tail turns it into a
//! short list of candidates, and everything after works on that list. No vocabulary is copied and
//! nothing is allocated once the lists have grown to their working size.

use plugin_api::kinds::logits_processor::{RowAccess, RowId};

/// The rows of one step.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// `[rows, vocab_size]`.
    pub(super) logits: Vec<f32>,
    vocab_size: usize,
    rows: Vec<Row>,
    top: Vec<(u32, f32)>,
}

#[derive(Debug, Default)]
struct Row {
    id: u32,
    /// Largest first; only meaningful when cut.
    candidates: Vec<(u32, f32)>,
    is_cut: bool,
}

impl Rows {
    /// Room for `rows_max` rows of `vocab_size` logits.
    pub(super) fn new(rows_max: usize, vocab_size: usize) -> Self {
        let mut rows = Vec::new();
        rows.resize_with(rows_max, Row::default);
        let logits = bytemuck::allocation::zeroed_vec(rows_max * vocab_size);
        Self { logits, vocab_size, rows, top: Vec::new() }
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Prepares a row for the logits that were just computed.
    pub(super) fn begin(&mut self, row: usize, id: RowId) {
        self.rows[row].id = id.0;
        self.rows[row].is_cut = false;
    }

    /// The rows at `active` as processors see them.
    pub(super) fn view<'a>(&'a mut self, active: &'a [usize]) -> View<'a> {
        View { rows: self, active }
    }

    /// The first rows, for a backend to write.
    pub(super) fn front_mut(&mut self, rows: usize) -> &mut [f32] {
        &mut self.logits[..rows * self.vocab_size]
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.logits[row * self.vocab_size..][..self.vocab_size]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.logits[row * self.vocab_size..][..self.vocab_size]
    }

    /// The likeliest token; the lowest id where several are.
    pub(super) fn argmax(&self, row: usize) -> u32 {
        let cut = &self.rows[row];
        if cut.is_cut {
            return cut.candidates.first().map_or(0, |(id, _)| *id);
        }
        let logits = self.row(row);
        let max = max_of(logits);
        logits.iter().position(|&x| x == max).unwrap_or(0) as u32
    }

    /// Draws a token with probabilities proportional to the exponentials of the logits. `u` is in
    /// `0..1`.
    pub(super) fn draw(&self, row: usize, u: f32) -> u32 {
        let cut = &self.rows[row];
        if cut.is_cut {
            let candidates = cut.candidates.iter().copied();
            return draw(candidates, u).unwrap_or_else(|| self.argmax(row));
        }
        let logits = self.row(row).iter();
        let all = logits.enumerate().map(|(id, &x)| (id as u32, x));
        draw(all, u).unwrap_or_else(|| self.argmax(row))
    }

    /// Natural logarithm of a token's probability as the row stands.
    pub(super) fn logprob(&mut self, row: usize, token: u32) -> f32 {
        let logit = self.logit(row, token);
        logit - self.log_sum_exp(row)
    }

    /// Appends the `n` likeliest tokens with the logarithms of their probabilities, as the row
    /// stands, largest first. Tokens that cannot be drawn are left out.
    pub(super) fn top_logprobs(&mut self, row: usize, n: usize, out: &mut Vec<(u32, f32)>) {
        let total = self.log_sum_exp(row);
        let mut top = std::mem::take(&mut self.top);
        let cut = &self.rows[row];
        if cut.is_cut {
            top.clear();
            top.extend(cut.candidates.iter().take(n));
        } else {
            select_top(self.row(row), n, &mut top);
        }
        let possible = top.iter().filter(|(_, x)| *x > f32::NEG_INFINITY);
        out.extend(possible.map(|(id, x)| (*id, x - total)));
        self.top = top;
    }

    fn logit(&self, row: usize, token: u32) -> f32 {
        let cut = &self.rows[row];
        if cut.is_cut {
            let found = cut.candidates.iter().find(|(id, _)| *id == token);
            return found.map_or(f32::NEG_INFINITY, |(_, x)| *x);
        }
        self.row(row).get(token as usize).copied().unwrap_or(f32::NEG_INFINITY)
    }

    fn log_sum_exp(&self, row: usize) -> f32 {
        let cut = &self.rows[row];
        let (max, sum) = if cut.is_cut {
            let max = cut.candidates.first().map_or(f32::NEG_INFINITY, |(_, x)| *x);
            (max, cut.candidates.iter().map(|(_, x)| (x - max).exp()).sum::<f32>())
        } else {
            let max = max_of(self.row(row));
            (max, self.row(row).iter().map(|x| (x - max).exp()).sum::<f32>())
        };
        if max == f32::NEG_INFINITY { max } else { max + sum.ln() }
    }

    /// Turns a row into its `k` largest logits.
    fn cut_to(&mut self, row: usize, k: usize) {
        if self.rows[row].is_cut {
            self.rows[row].candidates.truncate(k.max(1));
            return;
        }
        let mut candidates = std::mem::take(&mut self.rows[row].candidates);
        select_top(self.row(row), k, &mut candidates);
        self.rows[row].candidates = candidates;
        self.rows[row].is_cut = true;
    }
}

/// Some rows, as processors see them.
pub(super) struct View<'a> {
    rows: &'a mut Rows,
    active: &'a [usize],
}

impl RowAccess for View<'_> {
    fn num_rows(&self) -> usize {
        self.active.len()
    }

    fn id(&self, row: usize) -> RowId {
        RowId(self.rows.rows[self.active[row]].id)
    }

    fn vocab_size(&self) -> usize {
        self.rows.vocab_size
    }

    fn max(&mut self, row: usize) -> f32 {
        let row = self.active[row];
        let cut = &self.rows.rows[row];
        if cut.is_cut {
            cut.candidates.first().map_or(f32::NEG_INFINITY, |(_, x)| *x)
        } else {
            max_of(self.rows.row(row))
        }
    }

    fn log_sum_exp(&mut self, row: usize) -> f32 {
        self.rows.log_sum_exp(self.active[row])
    }

    fn logit(&mut self, row: usize, token: u32) -> f32 {
        self.rows.logit(self.active[row], token)
    }

    fn top_k(&mut self, row: usize, k: usize) -> &[(u32, f32)] {
        let row = self.active[row];
        if self.rows.rows[row].is_cut {
            let candidates = &self.rows.rows[row].candidates;
            return &candidates[..k.min(candidates.len())];
        }
        let mut top = std::mem::take(&mut self.rows.top);
        select_top(self.rows.row(row), k, &mut top);
        self.rows.top = top;
        &self.rows.top
    }

    fn scale(&mut self, row: usize, by: f32) {
        let row = self.active[row];
        if self.rows.rows[row].is_cut {
            self.rows.rows[row].candidates.iter_mut().for_each(|(_, x)| *x *= by);
        } else {
            self.rows.row_mut(row).iter_mut().for_each(|x| *x *= by);
        }
    }

    fn set(&mut self, row: usize, token: u32, logit: f32) {
        let row = self.active[row];
        if !self.rows.rows[row].is_cut {
            if let Some(x) = self.rows.row_mut(row).get_mut(token as usize) {
                *x = logit;
            }
            return;
        }
        let candidates = &mut self.rows.rows[row].candidates;
        match candidates.iter_mut().find(|(id, _)| *id == token) {
            Some((_, x)) => *x = logit,
            None if (token as usize) < self.rows.vocab_size => candidates.push((token, logit)),
            None => {}
        }
        candidates.sort_unstable_by(larger_first);
    }

    fn keep_above(&mut self, row: usize, threshold: f32) {
        let row = self.active[row];
        if self.rows.rows[row].is_cut {
            let candidates = &mut self.rows.rows[row].candidates;
            let keep = candidates.partition_point(|(_, x)| *x >= threshold);
            candidates.truncate(keep);
            return;
        }
        let count = self.rows.row(row).iter().filter(|x| **x >= threshold).count();
        self.rows.cut_to(row, count);
        self.rows.rows[row].candidates.truncate(count);
    }

    fn keep_top_k(&mut self, row: usize, k: usize) {
        let row = self.active[row];
        if k < self.rows.vocab_size {
            self.rows.cut_to(row, k);
        }
    }

    fn keep_top_p(&mut self, row: usize, p: f32) {
        let row = self.active[row];
        let total = self.rows.log_sum_exp(row);
        if !self.rows.rows[row].is_cut {
            // Guess how many tokens reach `p`; look at four times as many while they do not.
            let mut guess = TOP_P_GUESS;
            loop {
                let view = &mut *self.rows;
                let mut candidates = std::mem::take(&mut view.rows[row].candidates);
                select_top(view.row(row), guess, &mut candidates);
                let mass: f32 = candidates.iter().map(|(_, x)| (x - total).exp()).sum();
                view.rows[row].candidates = candidates;
                if mass >= p || guess >= view.vocab_size {
                    break;
                }
                guess = (guess * 4).min(view.vocab_size);
            }
            self.rows.rows[row].is_cut = true;
        }
        let candidates = &mut self.rows.rows[row].candidates;
        let mut mass = 0.0;
        let reached = candidates.iter().position(|(_, x)| {
            mass += (x - total).exp();
            mass >= p
        });
        if let Some(last) = reached {
            candidates.truncate(last + 1);
        }
    }

    fn mask(&mut self, row: usize, allowed: &[u32]) {
        let row = self.active[row];
        let word = |at: usize| allowed.get(at).copied().unwrap_or(0);
        if self.rows.rows[row].is_cut {
            let is_allowed = |id: u32| word(id as usize / 32) >> (id % 32) & 1 == 1;
            self.rows.rows[row].candidates.retain(|(id, _)| is_allowed(*id));
            return;
        }
        // Most words of a mask allow nothing or everything.
        for (at, logits) in self.rows.row_mut(row).chunks_mut(32).enumerate() {
            match word(at) {
                0 => logits.fill(f32::NEG_INFINITY),
                u32::MAX => {}
                word => {
                    let cut = logits.iter_mut().enumerate().filter(|(i, _)| word >> i & 1 == 0);
                    cut.for_each(|(_, x)| *x = f32::NEG_INFINITY);
                }
            }
        }
    }

    fn whole(&mut self, row: usize) -> &mut [f32] {
        let row = self.active[row];
        if self.rows.rows[row].is_cut {
            // Put the candidates back, so that the row is one representation again.
            let candidates = std::mem::take(&mut self.rows.rows[row].candidates);
            let logits = self.rows.row_mut(row);
            logits.fill(f32::NEG_INFINITY);
            for (id, x) in &candidates {
                logits[*id as usize] = *x;
            }
            self.rows.rows[row].candidates = candidates;
            self.rows.rows[row].is_cut = false;
        }
        self.rows.row_mut(row)
    }
}

/// Tokens that top-p looks at first: enough for most rows of a trained model.
const TOP_P_GUESS: usize = 64;

fn larger_first(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn max_of(logits: &[f32]) -> f32 {
    // Sixteen running maxima, so that the loop becomes vector instructions.
    let (chunks, rest) = logits.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}

/// The `k` largest of `logits` into `top`, largest first, ties by lowest id.
fn select_top(logits: &[f32], k: usize, top: &mut Vec<(u32, f32)>) {
    top.clear();
    let k = k.clamp(1, logits.len().max(1));
    let room = (2 * k).max(32);
    let mut threshold = f32::NEG_INFINITY;
    for (id, &x) in logits.iter().enumerate() {
        if x > threshold {
            top.push((id as u32, x));
            if top.len() == room {
                top.select_nth_unstable_by(k - 1, larger_first);
                top.truncate(k);
                threshold = top[k - 1].1;
            }
        }
    }
    top.sort_unstable_by(larger_first);
    top.truncate(k);
}

/// Draws from weighted tokens; nothing if no weight is positive.
fn draw(logits: impl Iterator<Item = (u32, f32)> + Clone, u: f32) -> Option<u32> {
    let max = logits.clone().fold(f32::NEG_INFINITY, |max, (_, x)| max.max(x));
    if max == f32::NEG_INFINITY {
        return None;
    }
    let total: f32 = logits.clone().map(|(_, x)| (x - max).exp()).sum();
    let (mut left, mut last) = (u * total, None);
    for (id, x) in logits {
        let weight = (x - max).exp();
        if weight > 0.0 {
            last = Some(id);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

/// A number in `0..1` that depends on nothing but its arguments: whatever the batch, the same
/// request draws the same tokens.
///
/// Source: SplitMix64, Steele, Lea and Flood, OOPSLA 2014.
pub(super) fn uniform(seed: u64, sequence: u64, position: u64) -> f32 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let state = mix(seed.wrapping_add(GAMMA)) ^ mix(sequence.wrapping_mul(GAMMA).wrapping_add(1));
    let bits = mix(state.wrapping_add(position.wrapping_add(1).wrapping_mul(GAMMA)));
    (bits >> 40) as f32 / (1_u64 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(logits: &[f32]) -> Rows {
        let mut rows = Rows::new(1, logits.len());
        rows.logits.copy_from_slice(logits);
        rows.begin(0, RowId(7));
        rows
    }

    #[test]
    fn cuts_compose_and_the_whole_row_comes_back() {
        let mut rows = rows(&[1.0, 4.0, 3.0, 4.0, 2.0]);
        let mut view = rows.view(&[0]);
        view.keep_top_k(0, 4);
        view.keep_above(0, 2.5);
        assert_eq!(view.top_k(0, 9), [(1, 4.0), (3, 4.0), (2, 3.0)]);
        view.scale(0, 0.5);
        view.mask(0, &[0b01110]);
        let cut = f32::NEG_INFINITY;
        assert_eq!(view.whole(0), [cut, 2.0, 1.5, 2.0, cut]);
    }

    #[test]
    fn top_p_keeps_the_token_that_crosses() {
        let p = [0.5_f32, 0.3, 0.15, 0.05];
        #[rustfmt::skip]
        let cases = [(0.4, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (1.0, 4)];
        for (threshold, kept) in cases {
            let mut rows = rows(&p.map(f32::ln));
            let mut view = rows.view(&[0]);
            view.keep_top_p(0, threshold - 1e-4);
            assert_eq!(view.top_k(0, 9).len(), kept, "p = {threshold}");
        }
    }

    #[test]
    fn selects_the_top_of_a_long_row() {
        let logits: Vec<f32> = (0..5_000_u64).map(|i| uniform(1, 2, i)).collect();
        let mut sorted: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        sorted.sort_by(larger_first);
        for k in [1, 2, 40, 4_999, 5_000] {
            let mut top = Vec::new();
            select_top(&logits, k, &mut top);
            assert_eq!(top, sorted[..k], "k = {k}");
        }
    }

    #[test]
    fn draws_in_proportion() {
        let rows = rows(&[0.6_f32.ln(), 0.1_f32.ln(), 0.3_f32.ln()]);
        let mut counts = [0_u32; 3];
        for position in 0..20_000 {
            counts[rows.draw(0, uniform(42, 0, position)) as usize] += 1;
        }
        // Three standard deviations of a binomial with n = 20,000.
        for (count, p) in counts.into_iter().zip([0.6, 0.1, 0.3]) {
            let expected: f64 = 20_000.0 * p;
            let tolerance = 3.0 * (expected * (1.0 - p)).sqrt();
            assert!((f64::from(count) - expected).abs() < tolerance, "{counts:?}");
        }
    }

    #[test]
    fn argmax_is_the_lowest_of_equals() {
        assert_eq!(rows(&[1.0, 3.0, 3.0]).argmax(0), 1);
        assert_eq!(rows(&[f32::NEG_INFINITY; 3]).argmax(0), 0);
    }
}
