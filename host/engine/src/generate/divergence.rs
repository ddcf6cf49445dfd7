//! How far a model's predictions are from those of the model that it was made of.

use super::engine::Engine;
use super::perplexity::{Perplexity, Window, Windows};
use crate::error::EngineError;

/// What two models made of the same text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Divergence {
    /// Of the original.
    pub reference: Perplexity,
    /// Of the other model.
    pub found: Perplexity,
    /// Sum over tokens of the Kullback-Leibler divergence of the other model from the original, in nats.
    pub kl: f64,
    /// Largest divergence after a token.
    pub kl_max: f64,
    /// Tokens after which the likeliest one is the same.
    pub same: u64,
    /// Seconds that the original, and the other model, took.
    pub seconds: [f64; 2],
}

impl Divergence {
    /// Mean over tokens, in nats.
    pub fn kl_mean(&self) -> f64 {
        self.kl / self.found.tokens as f64
    }

    /// Part of the tokens after which the likeliest one is the same.
    pub fn same_likeliest(&self) -> f64 {
        self.same as f64 / self.found.tokens as f64
    }

    /// Adds what was found of another text.
    pub fn join(&mut self, other: &Self) {
        self.reference.add(&other.reference);
        self.found.add(&other.found);
        self.kl += other.kl;
        self.kl_max = self.kl_max.max(other.kl_max);
        self.same += other.same;
        self.seconds = [0, 1].map(|i| self.seconds[i] + other.seconds[i]);
    }

    /// Counts the predictions of `target`.
    pub fn add(&mut self, target: u32, reference: &[f32], found: &[f32]) {
        let (p, q) = (log_softmax(reference), log_softmax(found));
        for (count, logprobs) in [(&mut self.reference, &p), (&mut self.found, &q)] {
            let nll = -logprobs.get(target as usize).copied().unwrap_or(f64::NEG_INFINITY);
            count.tokens += 1;
            count.nll += nll;
            count.nll_squared += nll * nll;
        }
        let terms = p.iter().zip(&q).map(|(p, q)| if *p < LEAST { 0.0 } else { p.exp() * (p - q) });
        let kl = terms.sum::<f64>().max(0.0);
        self.kl += kl;
        self.kl_max = self.kl_max.max(kl);
        self.same += u64::from(likeliest(reference) == likeliest(found));
    }
}

/// Lets both models predict the tokens of a text that count. `now` tells seconds; `progress` is told tokens done, and
/// answers whether to go on: what was found until then is returned otherwise.
///
/// # Errors
///
/// As [`Windows::check`] and [`Engine::evaluate`]; [`EngineError::Inconsistent`] for models that tell different numbers of
/// tokens apart.
pub fn diverge(
    [reference, found]: [&mut Engine; 2],
    tokens: &[u32],
    windows: Windows,
    now: &dyn Fn() -> f64,
    progress: &mut dyn FnMut(usize, &Divergence) -> bool,
) -> Result<Divergence, EngineError> {
    for engine in [&*reference, &*found] {
        windows.check(engine.model().context_length)?;
    }
    let [ours, theirs] = [&*found, &*reference].map(|engine| engine.model().num_logits);
    if ours != theirs {
        let expected = format!("{theirs} logits, as the original has");
        return Err(EngineError::inconsistent("models to compare", expected, ours));
    }
    let (mut divergence, mut rows) = (Divergence::default(), Vec::new());
    for Window { start, counted, end } in windows.of(tokens.len()) {
        let (part, from) = (&tokens[start..end - 1], counted - 1 - start);
        let begun = now();
        rows.clear();
        reference.evaluate(part, from, part.len(), &mut |_, row| rows.extend_from_slice(row))?;
        let between = now();
        let mut others = rows.chunks_exact(theirs.max(1));
        let mut made = 0.0;
        found.evaluate(part, from, part.len(), &mut |position, row| {
            let began = now();
            if let Some(other) = others.next() {
                divergence.add(tokens[start + position + 1], other, row);
            }
            made += now() - began;
        })?;
        divergence.seconds[0] += between - begun;
        divergence.seconds[1] += now() - between - made;
        divergence.reference.windows += 1;
        divergence.found.windows += 1;
        if !progress(end, &divergence) {
            break;
        }
    }
    Ok(divergence)
}

/// Natural logarithms of probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let log_sum = f64::from(max) + sum.ln();
    logits.iter().map(|&x| f64::from(x) - log_sum).collect()
}

fn likeliest(row: &[f32]) -> Option<usize> {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(id, _)| id)
}

/// Less likely than this (`e` to it) is nothing, which adds nothing, whatever the other model says.
const LEAST: f64 = -600.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_of_two_coins_is_known() {
        let logits = |p: f64| [p.ln() as f32, (1.0 - p).ln() as f32];
        let mut found = Divergence::default();
        found.add(0, &logits(0.5), &logits(0.75));
        let expected = 0.5 * (0.5_f64 / 0.75).ln() + 0.5 * (0.5_f64 / 0.25).ln();
        assert!((found.kl_mean() - expected).abs() < 1e-6, "{found:?}");
        assert!((found.reference.perplexity() - 2.0).abs() < 1e-6);
        assert!((found.found.perplexity() - 4.0 / 3.0).abs() < 1e-6);
        found.add(1, &logits(0.75), &logits(0.75));
        assert!((found.kl_max - expected).abs() < 1e-6 && found.found.tokens == 2);
        assert_eq!(found.same, 1, "one half is not the likeliest of the first");
    }

    #[test]
    fn what_cannot_be_adds_nothing() {
        let mut found = Divergence::default();
        found.add(0, &[0.0, f32::NEG_INFINITY], &[0.0, f32::NEG_INFINITY]);
        assert_eq!((found.kl, found.found.nll), (0.0, 0.0));
    }
}
