//! Byte-level byte-pair encoding, as GPT-2, Llama 3, Qwen and SmolLM use it.
//!
//! Written here and not taken from `tokenizers`, because merges between ids load several times
//! faster than a map of string pairs, and special tokens are found as llama.cpp finds them.

use std::collections::HashMap;

use super::Encoder;
use super::byte_level;
use super::merge::{Merged, Merger, NO_TOKEN};
use super::pre_tokenizer::PreTokenizer;
use super::special::{Fragment, SpecialTokens};
use super::vocab::Vocab;

/// Merge rules over a vocabulary.
#[derive(Debug)]
pub(super) struct ByteLevelBpe {
    pre_tokenizer: PreTokenizer,
    special: SpecialTokens,
    /// `[256]`: the token of each byte, or [`NO_TOKEN`].
    byte_ids: Vec<u32>,
    merges: HashMap<(u32, u32), Merged>,
}

/// A merge rule that the vocabulary does not know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadMerge {
    pub(super) index: usize,
    pub(super) text: String,
}

impl ByteLevelBpe {
    /// `merges` are `left right`, best first.
    pub(super) fn new<'a>(
        vocab: &Vocab,
        pre_tokenizer: PreTokenizer,
        merges: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Self, BadMerge> {
        let mut by_pair = HashMap::with_capacity(merges.len());
        let mut joined = Vec::new();
        for (index, rule) in merges.enumerate() {
            let (pair, merged) = read_rule(vocab, rule, &mut joined).ok_or_else(|| BadMerge {
                index,
                text: String::from_utf8_lossy(rule).into_owned(),
            })?;
            // Of equal rules the first counts.
            by_pair.entry(pair).or_insert(Merged { rank: index as u32, id: merged });
        }
        let byte_ids = (0..=255).map(|byte| {
            let text = byte_level::char_of(byte);
            vocab.id(text.encode_utf8(&mut [0; 4]).as_bytes()).unwrap_or(NO_TOKEN)
        });
        Ok(Self {
            pre_tokenizer,
            special: SpecialTokens::new(vocab),
            byte_ids: byte_ids.collect(),
            merges: by_pair,
        })
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        if self.pre_tokenizer.ignores_merges() {
            let text: String = word.bytes().map(byte_level::char_of).collect();
            if let Some(id) = vocab.id(text.as_bytes()) {
                ids.push(id);
                return;
            }
        }
        merger.clear();
        for byte in word.bytes() {
            merger.push(self.byte_ids[byte as usize], 1);
        }
        merger.merge(|left, right| self.merges.get(&(left.id, right.id)).copied());
        // A byte without a token cannot be said in this vocabulary; llama.cpp drops it too.
        ids.extend(merger.symbols().map(|symbol| symbol.id).filter(|id| *id != NO_TOKEN));
    }
}

impl Encoder for ByteLevelBpe {
    fn encode(&self, vocab: &Vocab, text: &str, parse_special: bool) -> Vec<u32> {
        // English has 4 to 5 bytes a token.
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        let mut merger = Merger::default();
        for fragment in self.special.split(text, parse_special) {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(text) => {
                    for word in self.pre_tokenizer.split(text) {
                        self.encode_word(vocab, word, &mut merger, &mut ids);
                    }
                }
            }
        }
        ids
    }
}

/// The pair and the result of a rule: ids of `left`, `right` and `leftright`.
fn read_rule(vocab: &Vocab, rule: &[u8], joined: &mut Vec<u8>) -> Option<((u32, u32), u32)> {
    // A left side that begins with a space is possible in no byte-level vocabulary, yet llama.cpp
    // looks from the second byte on.
    let space = 1 + rule.get(1..)?.iter().position(|byte| *byte == b' ')?;
    let (left, right) = (&rule[..space], &rule[space + 1..]);
    joined.clear();
    joined.extend_from_slice(left);
    joined.extend_from_slice(right);
    Some(((vocab.id(left)?, vocab.id(right)?), vocab.id(joined)?))
}
