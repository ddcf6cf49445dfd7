//! The text of an answer while it grows: what may be shown and what waits.

use crate::model::{StreamDecoder, Tokenizer};

/// Tokens and text of one answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Everything decoded so far.
    pub(super) text: String,
    pub(super) num_tokens: usize,
    decoder: StreamDecoder,
    /// Bytes of `text` that were handed out.
    shown: usize,
}

impl Answer {
    /// Appends a token.
    pub(super) fn push(&mut self, token: u32, tokenizer: &Tokenizer) {
        self.num_tokens += 1;
        if !tokenizer.is_special(token) {
            let text = self.decoder.push(tokenizer.decode_bytes(token));
            self.text.push_str(text);
        }
    }

    /// Hands out what was not shown yet, but for the last `hold` bytes.
    pub(super) fn show(&mut self, hold: usize) -> &str {
        let mut end = self.text.len().saturating_sub(hold).max(self.shown);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let end = end.max(self.shown);
        let start = std::mem::replace(&mut self.shown, end);
        &self.text[start..end]
    }

    /// What was not shown yet.
    pub(super) fn rest(&self) -> &str {
        &self.text[self.shown..]
    }

    /// Shortens the answer; what was shown stays shown.
    pub(super) fn cut(&mut self, keep_bytes: usize) {
        let mut keep = keep_bytes.clamp(self.shown, self.text.len());
        while !self.text.is_char_boundary(keep) {
            keep -= 1;
        }
        self.text.truncate(keep);
        self.decoder = StreamDecoder::new();
    }

    /// Ends the answer: a character that never came whole is replaced.
    pub(super) fn finish(&mut self) {
        let rest = self.decoder.finish();
        self.text.push_str(rest);
    }
}
