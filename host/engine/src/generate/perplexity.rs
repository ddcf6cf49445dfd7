//! Perplexity: how well a model predicts a text, in windows as long as it may look back.

use super::engine::Engine;
use crate::error::EngineError;

/// How a text that is longer than the context is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// Windows of `length` tokens that begin every `stride` tokens; of each those count that no window before
    /// it had. As the documentation of transformers has it, "Perplexity of fixed-length models".
    Sliding {
        /// Tokens of a window.
        length: usize,
        /// Tokens from the beginning of one to that of the next: at most `length`.
        stride: usize,
    },
    /// Windows of `length` tokens one after the other, of which the second half counts; what does not fill one
    /// is left out. As `llama-perplexity` has it.
    Halves {
        /// Tokens of a window.
        length: usize,
    },
}

/// A part of a text, and which of its tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first token.
    pub start: usize,
    /// The first token whose probability counts: after the first.
    pub counted: usize,
    /// The token after its last.
    pub end: usize,
}

/// What was found of a text, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Perplexity {
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Sum of the negative natural logarithms of their probabilities.
    pub nll: f64,
    /// Sum of the squares of these.
    pub nll_squared: f64,
    /// Windows that were computed.
    pub windows: u64,
}

impl Windows {
    /// Refuses lengths that leave nothing to predict.
    ///
    /// # Errors
    ///
    /// [`EngineError::Request`] with what is possible in a context of `context_length` tokens.
    pub fn check(&self, context_length: usize) -> Result<(), EngineError> {
        let (least, length) = match self {
            Self::Sliding { length, .. } => (2, *length),
            Self::Halves { length } => (4, *length),
        };
        if length < least || length > context_length {
            let expected =
                format!("{least} to {context_length} tokens, as the engine has room for");
            return Err(EngineError::Request {
                what: "window",
                expected,
                found: length.to_string(),
            });
        }
        match self {
            Self::Sliding { stride, .. } if *stride == 0 || *stride > length => {
                let expected = format!("1 to {length} tokens, the length of a window");
                Err(EngineError::Request { what: "stride", expected, found: stride.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Cuts a text of `tokens` tokens.
    pub fn of(&self, tokens: usize) -> Vec<Window> {
        let mut windows = Vec::new();
        match *self {
            Self::Sliding { length, stride } => {
                let (mut start, mut done) = (0, 0);
                while done < tokens {
                    let end = (start + length).min(tokens);
                    let window = Window { start, counted: done.max(start + 1), end };
                    windows.extend((window.counted < end).then_some(window));
                    (start, done) = (start + stride.max(1), end);
                }
            }
            Self::Halves { length } => {
                let starts = (0..tokens / length.max(1)).map(|n| n * length);
                windows.extend(starts.map(|start| Window {
                    start,
                    counted: start + length / 2 + 1,
                    end: start + length,
                }));
            }
        }
        windows
    }
}

impl Perplexity {
    /// Mean of the negative logarithms: the loss, in nats. Not a number without tokens.
    pub fn loss(&self) -> f64 {
        self.nll / self.tokens as f64
    }

    /// `e` to the loss.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }

    /// Standard error of the perplexity, as if tokens were independent of each other.
    pub fn standard_error(&self) -> f64 {
        let tokens = self.tokens as f64;
        let variance = self.nll_squared / tokens - self.loss() * self.loss();
        self.perplexity() * (variance.max(0.0) / (tokens - 1.0).max(1.0)).sqrt()
    }

    /// Adds what was found of another text.
    pub fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.nll += other.nll;
        self.nll_squared += other.nll_squared;
        self.windows += other.windows;
    }
}

impl Engine {
    /// Predicts the tokens of one text that count. `first` takes the place of the first token of each window but
    /// those of [`Windows::Sliding`]. `progress` is told tokens done, and answers whether to go on: what was found
    /// until then is returned otherwise.
    ///
    /// # Errors
    ///
    /// As [`Windows::check`] and [`evaluate`](Self::evaluate).
    pub fn perplexity(
        &mut self,
        tokens: &[u32],
        windows: Windows,
        first: Option<u32>,
        progress: &mut dyn FnMut(usize, &Perplexity) -> bool,
    ) -> Result<Perplexity, EngineError> {
        windows.check(self.model().context_length)?;
        let mut found = Perplexity::default();
        for Window { start, counted, end } in windows.of(tokens.len()) {
            let mut part = tokens[start..end - 1].to_vec();
            if let (Windows::Halves { .. }, Some(first)) = (windows, first) {
                part[0] = first;
            }
            let chunk = part.len();
            self.evaluate(&part, counted - 1 - start, chunk, &mut |position, logits| {
                let nll = -logprob(logits, tokens[start + position + 1]);
                found.tokens += 1;
                found.nll += nll;
                found.nll_squared += nll * nll;
            })?;
            found.windows += 1;
            if !progress(end, &found) {
                break;
            }
        }
        Ok(found)
    }
}

/// Natural logarithm of the probability of a token.
fn logprob(logits: &[f32], token: u32) -> f64 {
    let Some(logit) = logits.get(token as usize) else { return f64::NEG_INFINITY };
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(*logit) - f64::from(max) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(windows: Windows, tokens: usize) -> Vec<[usize; 3]> {
        let windows = windows.of(tokens).into_iter();
        windows.map(|w| [w.start, w.counted, w.end]).collect()
    }

    #[test]
    fn windows_are_those_of_transformers_and_llama_perplexity() {
        let sliding = |length, stride| Windows::Sliding { length, stride };
        assert_eq!(cut(sliding(4, 4), 10), [[0, 1, 4], [4, 5, 8], [8, 9, 10]]);
        assert_eq!(cut(sliding(4, 2), 7), [[0, 1, 4], [2, 4, 6], [4, 6, 7]]);
        assert_eq!(cut(sliding(4, 4), 9), [[0, 1, 4], [4, 5, 8]], "one token predicts nothing");
        assert_eq!(cut(sliding(8, 3), 5), [[0, 1, 5]]);
        assert!(cut(sliding(8, 3), 0).is_empty() && cut(sliding(8, 3), 1).is_empty());
        let halves = Windows::Halves { length: 8 };
        assert_eq!(cut(halves, 20), [[0, 5, 8], [8, 13, 16]]);
        assert!(cut(halves, 7).is_empty());
    }

    #[test]
    fn every_token_but_the_first_counts_once_where_windows_overlap() {
        for (length, stride, tokens) in [(5, 1, 23), (5, 3, 23), (7, 6, 50)] {
            let windows = Windows::Sliding { length, stride }.of(tokens);
            let counted: Vec<usize> = windows.iter().flat_map(|w| w.counted..w.end).collect();
            assert_eq!(counted, (1..tokens).collect::<Vec<_>>(), "{length} {stride}");
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let refused = |windows: Windows| windows.check(64).unwrap_err().to_string();
        let sliding = |length, stride| Windows::Sliding { length, stride };
        assert!(refused(sliding(65, 1)).contains("window: expected 2 to 64"));
        assert!(refused(sliding(8, 9)).contains("stride: expected 1 to 8"));
        assert!(refused(sliding(8, 0)).contains("stride"));
        assert!(refused(Windows::Halves { length: 3 }).contains("window: expected 4"));
        assert!(sliding(64, 64).check(64).is_ok());
    }
}
