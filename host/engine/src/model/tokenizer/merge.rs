//! Merging neighbours, best pair first: the loop that byte-level BPE and SentencePiece share.
//!
//! The two differ in what makes a pair good: the rank of its merge rule (BPE, Sennrich et al.,
//! arXiv:1508.07909) or the score of the token that it makes (SentencePiece as in llama.cpp).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One stretch of a word while it is being merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// Its token; [`NO_TOKEN`] if none has its text.
    pub(super) id: u32,
    /// Where it starts, in bytes of the word.
    pub(super) start: u32,
    /// Its length in bytes; 0 once its left neighbour has swallowed it.
    pub(super) len: u32,
    prev: u32,
    next: u32,
}

/// What a pair of neighbours would become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merged {
    /// The smallest is merged first; among equals the leftmost.
    pub(super) rank: u32,
    /// The token that results.
    pub(super) id: u32,
}

/// A pair in the queue: rank, left symbol, then what it was and becomes.
type Candidate = Reverse<(u32, u32, u32, u32, u32)>;

/// Reusable room for merging words.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
}

impl Merger {
    /// Starts a word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a first, unmerged symbol of `len` bytes.
    pub(super) fn push(&mut self, id: u32, len: u32) {
        let at = self.symbols.len() as u32;
        let (start, prev) = match self.symbols.last_mut() {
            Some(last) => {
                last.next = at;
                (last.start + last.len, at - 1)
            }
            None => (0, NONE),
        };
        self.symbols.push(Symbol { id, start, len, prev, next: NONE });
    }

    /// Merges until no pair can be; `pair` says what two neighbours would become.
    pub(super) fn merge(&mut self, pair: impl Fn(&Symbol, &Symbol) -> Option<Merged>) {
        for right in 1..self.symbols.len() as u32 {
            self.propose(right - 1, right, &pair);
        }
        while let Some(Reverse((_, left, right, len, id))) = self.queue.pop() {
            let (l, r) = (self.symbols[left as usize], self.symbols[right as usize]);
            // A candidate is void once either side has been merged elsewhere: the right symbol
            // never changes its start, so equal lengths mean equal symbols.
            if l.len == 0 || r.len == 0 || l.len + r.len != len {
                continue;
            }
            self.symbols[right as usize].len = 0;
            let merged = &mut self.symbols[left as usize];
            (merged.id, merged.len, merged.next) = (id, len, r.next);
            if r.next != NONE {
                self.symbols[r.next as usize].prev = left;
            }
            self.propose(l.prev, left, &pair);
            self.propose(left, r.next, &pair);
        }
    }

    /// What is left, from left to right.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn propose(
        &mut self,
        left: u32,
        right: u32,
        pair: impl Fn(&Symbol, &Symbol) -> Option<Merged>,
    ) {
        if left == NONE || right == NONE {
            return;
        }
        let (l, r) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some(merged) = pair(l, r) {
            self.queue.push(Reverse((merged.rank, left, right, l.len + r.len, merged.id)));
        }
    }
}

/// No token has this text.
pub(super) const NO_TOKEN: u32 = u32::MAX;
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    /// Merges `text` with rules `(left, right, rank)`; ids are indices into the list of texts.
    fn merge(text: &str, rules: &[(&str, &str)]) -> Vec<String> {
        let mut merger = Merger::default();
        merger.clear();
        text.bytes().for_each(|byte| merger.push(byte.into(), 1));
        let slice =
            |symbol: &Symbol| &text[symbol.start as usize..(symbol.start + symbol.len) as usize];
        merger.merge(|l, r| {
            let rank = rules.iter().position(|rule| *rule == (slice(l), slice(r)))?;
            Some(Merged { rank: rank as u32, id: 0 })
        });
        merger.symbols().map(|symbol| slice(symbol).to_owned()).collect()
    }

    #[test]
    fn merges_by_rank_then_from_the_left() {
        let rules = [("a", "a"), ("aa", "a"), ("b", "c"), ("a", "b"), ("aa", "bc")];
        #[rustfmt::skip]
        let cases: [(&str, &[&str]); 6] = [
            ("",       &[]),
            ("a",      &["a"]),
            ("aaa",    &["aaa"]),
            ("aaaa",   &["aa", "aa"]),
            ("abc",    &["a", "bc"]),
            ("aabc",   &["aabc"]),
        ];
        for (text, expected) in cases {
            assert_eq!(merge(text, &rules), expected, "{text}");
        }
    }
}
