//! The tokens of a model: texts, decoded bytes, kinds, and the way from text to id.
//!
//! Texts lie end to end in one allocation each: a vocabulary of 262 thousand tokens is three
//! vectors and one table, not half a million strings.

use std::hash::{BuildHasher, RandomState};

/// Byte strings end to end, by index.
#[derive(Debug, Clone, Default)]
pub(super) struct Arena {
    /// `[len + 1]`: where each string starts, and where the last ends.
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self { offsets: vec![0], bytes: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Appends a string made of `parts`; `false` if the arena would pass 4 GiB.
    #[must_use]
    pub(super) fn push(&mut self, parts: &[u8]) -> bool {
        self.bytes.extend_from_slice(parts);
        match u32::try_from(self.bytes.len()) {
            Ok(end) => {
                self.offsets.push(end);
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn get(&self, index: u32) -> Option<&[u8]> {
        let start = *self.offsets.get(index as usize)?;
        let end = *self.offsets.get(index as usize + 1)?;
        Some(&self.bytes[start as usize..end as usize])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.offsets.windows(2).map(|pair| &self.bytes[pair[0] as usize..pair[1] as usize])
    }
}

/// What a token is for; GGUF's `token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Text.
    Normal,
    /// Stands for text that no token covers.
    Unknown,
    /// Structure: never part of the answer's text.
    Control,
    /// Text that is found before the tokenizer proper runs.
    UserDefined,
    /// A hole in the vocabulary.
    Unused,
    /// One byte.
    Byte,
}

/// All tokens of a model.
#[derive(Debug)]
pub(super) struct Vocab {
    texts: Arena,
    pieces: Arena,
    kinds: Vec<TokenKind>,
    index: Index,
}

impl Vocab {
    /// `texts[id]` is what the file calls a token, `pieces[id]` the bytes that it stands for.
    ///
    /// # Panics
    ///
    /// If the three differ in length.
    pub(super) fn new(texts: Arena, pieces: Arena, kinds: Vec<TokenKind>) -> Self {
        assert_eq!(texts.len(), pieces.len(), "vocabulary: texts and pieces differ in number");
        assert_eq!(texts.len(), kinds.len(), "vocabulary: texts and kinds differ in number");
        let index = Index::new(&texts);
        Self { texts, pieces, kinds, index }
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The id of the token whose text this is; of several the last.
    pub(super) fn id(&self, text: &[u8]) -> Option<u32> {
        self.index.find(&self.texts, text)
    }

    pub(super) fn text(&self, id: u32) -> Option<&[u8]> {
        self.texts.get(id)
    }

    pub(super) fn piece(&self, id: u32) -> Option<&[u8]> {
        self.pieces.get(id)
    }

    pub(super) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn set_kind(&mut self, id: u32, kind: TokenKind) {
        self.kinds[id as usize] = kind;
    }

    /// Ids and texts of the tokens of the given kinds.
    pub(super) fn of_kinds<'a>(
        &'a self,
        kinds: &'a [TokenKind],
    ) -> impl Iterator<Item = (u32, &'a [u8])> {
        let all = (0_u32..).zip(self.texts.iter()).zip(&self.kinds);
        all.filter(|(_, kind)| kinds.contains(kind)).map(|(token, _)| token)
    }
}

/// From text to id: open addressing, linear probing, at most half full.
#[derive(Debug)]
struct Index {
    hasher: RandomState,
    /// `[capacity]`: a part of the hash and the id, or [`FREE`].
    slots: Vec<(u32, u32)>,
}

impl Index {
    fn new(texts: &Arena) -> Self {
        let capacity = (texts.len() * 2).next_power_of_two().max(2);
        let mut index = Self { hasher: RandomState::new(), slots: vec![(0, FREE); capacity] };
        for (id, text) in (0_u32..).zip(texts.iter()) {
            let (tag, slot) = index.slot(texts, text);
            index.slots[slot] = (tag, id);
        }
        index
    }

    fn find(&self, texts: &Arena, text: &[u8]) -> Option<u32> {
        let (_, slot) = self.slot(texts, text);
        Some(self.slots[slot].1).filter(|id| *id != FREE)
    }

    /// The slot that holds `text`, or the free one where it belongs.
    fn slot(&self, texts: &Arena, text: &[u8]) -> (u32, usize) {
        let hash = self.hasher.hash_one(text);
        let tag = (hash >> 32) as u32;
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let (found_tag, id) = self.slots[slot];
            if id == FREE || (found_tag == tag && texts.get(id) == Some(text)) {
                return (tag, slot);
            }
            slot = (slot + 1) & mask;
        }
    }
}

const FREE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_text_and_of_equals_the_last() {
        let mut arena = Arena::new();
        for id in 0..1000 {
            assert!(arena.push(format!("t{}", id % 700).as_bytes()));
        }
        let vocab = Vocab::new(arena.clone(), arena, vec![TokenKind::Normal; 1000]);
        for id in 0..700_u32 {
            let last = if id < 300 { id + 700 } else { id };
            assert_eq!(vocab.id(format!("t{id}").as_bytes()), Some(last));
        }
        assert_eq!(vocab.id(b"t700"), None);
        assert_eq!((vocab.text(999), vocab.text(1000)), (Some(&b"t299"[..]), None));
    }
}
