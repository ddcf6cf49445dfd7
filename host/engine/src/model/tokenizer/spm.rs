//! SentencePiece by scores, as Llama 2 and Gemma use it: the pair whose token has the highest score
//! merges first; what no token covers is said in bytes.
//!
//! Not the Viterbi search of a unigram model: ids equal llama.cpp's `llm_tokenizer_spm`, which
//! merges greedily.

use super::Encoder;
use super::merge::{Merged, Merger, NO_TOKEN};
use super::special::{Fragment, SpecialTokens};
use super::vocab::Vocab;

/// Scores over a vocabulary.
#[derive(Debug)]
pub(super) struct ScoredMerges {
    special: SpecialTokens,
    /// `[vocab_size]`: smaller is merged earlier.
    ranks: Vec<u32>,
    /// `[256]`: the token of each byte, or that of unknown text, or [`NO_TOKEN`].
    byte_ids: Vec<u32>,
    adds_space_prefix: bool,
}

impl ScoredMerges {
    /// `scores[id]`, higher is better; `unknown` stands for bytes without a token.
    pub(super) fn new(
        vocab: &Vocab,
        scores: impl Iterator<Item = f32>,
        unknown: Option<u32>,
        adds_space_prefix: bool,
    ) -> Self {
        let byte_ids = (0..=255_u8).map(|byte| {
            let id = vocab.id(format!("<0x{byte:02X}>").as_bytes());
            id.or_else(|| vocab.id(&[byte])).or(unknown).unwrap_or(NO_TOKEN)
        });
        Self {
            special: SpecialTokens::new(vocab),
            ranks: scores.map(rank_of).collect(),
            byte_ids: byte_ids.collect(),
            adds_space_prefix,
        }
    }

    fn encode_text(&self, vocab: &Vocab, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        merger.clear();
        for (at, character) in text.char_indices() {
            let symbol = &text[at..at + character.len_utf8()];
            let id = vocab.id(symbol.as_bytes()).unwrap_or(NO_TOKEN);
            merger.push(id, symbol.len() as u32);
        }
        let bytes = text.as_bytes();
        merger.merge(|left, right| {
            let end = right.start + right.len;
            let id = vocab.id(&bytes[left.start as usize..end as usize])?;
            Some(Merged { rank: *self.ranks.get(id as usize)?, id })
        });
        for symbol in merger.symbols() {
            if symbol.id != NO_TOKEN {
                ids.push(symbol.id);
                continue;
            }
            let span = symbol.start as usize..(symbol.start + symbol.len) as usize;
            let said = bytes[span].iter().map(|byte| self.byte_ids[*byte as usize]);
            ids.extend(said.filter(|id| *id != NO_TOKEN));
        }
    }
}

impl Encoder for ScoredMerges {
    fn encode(&self, vocab: &Vocab, text: &str, parse_special: bool) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        let mut merger = Merger::default();
        let mut is_after_special = true;
        for fragment in self.special.split(text, parse_special) {
            match fragment {
                Fragment::Token(id) => {
                    ids.push(id);
                    is_after_special = true;
                }
                Fragment::Text(text) => {
                    let prefix =
                        if self.adds_space_prefix && is_after_special { SPACE } else { "" };
                    let text = [prefix, &text.replace(' ', SPACE)].concat();
                    self.encode_text(vocab, &text, &mut merger, &mut ids);
                    is_after_special = false;
                }
            }
        }
        ids
    }
}

/// The bytes that a token's text stands for: `▁` is a space.
pub(super) fn decode(text: &[u8], bytes: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        match rest.strip_prefix(SPACE.as_bytes()) {
            Some(after) => {
                bytes.push(b' ');
                rest = after;
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
}

/// The byte that `<0x0A>` stands for.
pub(super) fn byte_of(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let [high, low] = digits else { return None };
    u8::try_from(value(high)? * 16 + value(low)?).ok()
}

/// Orders scores as integers, the highest first: flips the bits of an `f32` so that they compare as
/// the numbers do, then turns them round. Adding 0 makes -0 equal 0.
fn rank_of(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    !ascending
}

/// U+2581, what SentencePiece writes for a space.
const SPACE: &str = "▁";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_as_scores_do() {
        let scores = [f32::INFINITY, 7.5, 0.0, -0.5, -1000.0, f32::NEG_INFINITY];
        assert!(scores.map(rank_of).is_sorted());
        assert_eq!(rank_of(0.0), rank_of(-0.0));
    }

    #[test]
    fn texts_stand_for_bytes() {
        let mut bytes = Vec::new();
        decode("▁a▁\u{2582}".as_bytes(), &mut bytes);
        assert_eq!(bytes, " a \u{2582}".as_bytes());
        let cases =
            [("<0x0A>", Some(10)), ("<0xff>", Some(255)), ("<0x1>", None), ("<0x+1>", None)];
        for (text, expected) in cases {
            assert_eq!(byte_of(text.as_bytes()), expected, "{text}");
        }
    }
}
