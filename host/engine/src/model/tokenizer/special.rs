//! Finds special tokens in text before the tokenizer proper sees it.
//!
//! As llama.cpp's `tokenizer_st_partition`: longest special first, each over all text that is left;
//! control tokens only when asked for, user-defined ones always.

use std::ops::Range;

use super::vocab::{TokenKind, Vocab};

/// A stretch of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// Still to be tokenized; never empty.
    Text(&'t str),
    /// A special token.
    Token(u32),
}

/// The special tokens of a vocabulary.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    /// Sorted by text.
    tokens: Vec<Special>,
}

#[derive(Debug)]
struct Special {
    text: String,
    id: u32,
    /// Found even when special tokens are not to be parsed.
    is_always: bool,
}

impl SpecialTokens {
    /// Collects control, unknown and user-defined tokens; those that are empty or not UTF-8 cannot
    /// occur in a text.
    pub(super) fn new(vocab: &Vocab) -> Self {
        let kinds = [TokenKind::Control, TokenKind::Unknown, TokenKind::UserDefined];
        let mut tokens: Vec<_> = vocab
            .of_kinds(&kinds)
            .filter(|(_, text)| !text.is_empty())
            .filter_map(|(id, text)| {
                let text = std::str::from_utf8(text).ok()?.to_owned();
                let is_always = vocab.kind(id) == Some(TokenKind::UserDefined);
                Some(Special { text, id, is_always })
            })
            .collect();
        // Of equal texts the first is found; ids are deterministic that way.
        tokens.sort_by(|a, b| (&a.text, a.id).cmp(&(&b.text, b.id)));
        tokens.dedup_by(|b, a| a.text == b.text);
        Self { tokens }
    }

    /// Cuts `text` at its special tokens.
    pub(super) fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Fragment<'t>> {
        let mut fragments = Vec::new();
        if !text.is_empty() {
            fragments.push(Fragment::Text(text));
        }
        for special in self.present(text, parse_special) {
            let mut next = Vec::with_capacity(fragments.len());
            for fragment in fragments {
                match fragment {
                    Fragment::Text(text) => cut(text, special, &mut next),
                    token @ Fragment::Token(_) => next.push(token),
                }
            }
            fragments = next;
        }
        fragments
    }

    /// The special tokens that occur in `text` at all, longest first.
    fn present(&self, text: &str, parse_special: bool) -> Vec<&Special> {
        let mut is_present = vec![false; self.tokens.len()];
        for at in 0..text.len() {
            self.mark_at(&text.as_bytes()[at..], &mut is_present);
        }
        let mut present: Vec<_> = self
            .tokens
            .iter()
            .zip(&is_present)
            .filter(|(special, is_present)| **is_present && (parse_special || special.is_always))
            .map(|(special, _)| special)
            .collect();
        present.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        present
    }

    /// Marks every token that `rest` starts with. The tokens that agree with `rest` so far are a
    /// range of the sorted list, which each further byte narrows.
    fn mark_at(&self, rest: &[u8], is_present: &mut [bool]) {
        let mut range = 0..self.tokens.len();
        for (depth, byte) in rest.iter().enumerate() {
            range = self.narrow(range, depth, *byte);
            let Some(shortest) = self.tokens.get(range.start).filter(|_| !range.is_empty()) else {
                return;
            };
            if shortest.text.len() == depth + 1 {
                is_present[range.start] = true;
            }
        }
    }

    /// The part of `range` whose texts have `byte` at `depth`; all of `range` agrees before that.
    fn narrow(&self, range: Range<usize>, depth: usize, byte: u8) -> Range<usize> {
        let at = |special: &Special| special.text.as_bytes().get(depth).copied();
        let tokens = &self.tokens[range.clone()];
        let start = tokens.partition_point(|special| at(special) < Some(byte));
        let len = tokens[start..].partition_point(|special| at(special) == Some(byte));
        range.start + start..range.start + start + len
    }
}

fn cut<'t>(text: &'t str, special: &Special, fragments: &mut Vec<Fragment<'t>>) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(special.text.as_str()) {
        if !before.is_empty() {
            fragments.push(Fragment::Text(before));
        }
        fragments.push(Fragment::Token(special.id));
        rest = after;
    }
    if !rest.is_empty() {
        fragments.push(Fragment::Text(rest));
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocab::Arena;
    use super::*;

    fn special(tokens: &[(&str, TokenKind)]) -> SpecialTokens {
        let mut arena = Arena::new();
        assert!(tokens.iter().all(|(text, _)| arena.push(text.as_bytes())));
        let kinds = tokens.iter().map(|(_, kind)| *kind).collect();
        SpecialTokens::new(&Vocab::new(arena.clone(), arena, kinds))
    }

    #[test]
    fn cuts_longest_first_and_control_only_when_asked() {
        use Fragment::{Text, Token};
        let special = special(&[
            ("<a>", TokenKind::Control),
            ("\n", TokenKind::UserDefined),
            ("\n\n", TokenKind::UserDefined),
            ("x", TokenKind::Normal),
            ("<a><b>", TokenKind::Control),
            ("", TokenKind::Control),
        ]);
        let cases: [(&str, bool, &[Fragment<'_>]); 6] = [
            ("", true, &[]),
            ("x", true, &[Text("x")]),
            ("x<a>y", true, &[Text("x"), Token(0), Text("y")]),
            ("x<a>y", false, &[Text("x<a>y")]),
            ("<a><b><a>", true, &[Token(4), Token(0)]),
            ("a\n\n\nü", false, &[Text("a"), Token(2), Token(1), Text("ü")]),
        ];
        for (text, parse_special, expected) in cases {
            assert_eq!(special.split(text, parse_special), expected, "{text:?}");
        }
    }
}
