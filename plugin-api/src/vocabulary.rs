//! The tokens of a model, as plugins that look into them see them.
//!
//! A plugin asks for it with [`HostServices::vocabulary`](crate::host::HostServices::vocabulary).

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::wire::{Reader, Wire};

/// The tokens of one model, and how text becomes them: what a host lends of a tokenizer.
pub trait Tokens: Send + Sync {
    /// What each token stands for.
    fn vocabulary(&self) -> Arc<Vocabulary>;

    /// Cuts text that stands within a text into tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Outside`] if the model is gone.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;
}

/// What each token of a model stands for, and which of them end an answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Vocabulary {
    /// `[len + 1]`: where the bytes of each token begin, and where the last end.
    offsets: Vec<u32>,
    bytes: Vec<u8>,
    /// Ids of tokens that are structure, ascending.
    special: Vec<u32>,
    /// Ids of tokens after which an answer is over, ascending.
    ends: Vec<u32>,
}

impl Vocabulary {
    /// A vocabulary of tokens in the order of their ids, each the bytes that it stands for. `special`
    /// and `ends` are ids; their order does not matter.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for an id that no token has, and for 4 GiB of text or more.
    pub fn new<'a>(
        tokens: impl IntoIterator<Item = &'a [u8]>,
        special: Vec<u32>,
        ends: Vec<u32>,
    ) -> Result<Self> {
        let (mut offsets, mut bytes) = (vec![0], Vec::new());
        for token in tokens {
            bytes.extend_from_slice(token);
            let end = u32::try_from(bytes.len());
            let large = |_| Error::malformed("vocabulary", "less than 4 GiB of text", bytes.len());
            offsets.push(end.map_err(large)?);
        }
        Self { offsets, bytes, special, ends }.checked()
    }

    /// Sorts ids and looks at every number: bytes from another side may hold any.
    fn checked(mut self) -> Result<Self> {
        let len = self.len() as u32;
        for ids in [&mut self.special, &mut self.ends] {
            ids.sort_unstable();
            ids.dedup();
            if let Some(id) = ids.last().filter(|id| **id >= len) {
                return Err(Error::malformed("vocabulary", format!("ids below {len}"), id));
            }
        }
        let ascend = self.offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        let last = self.offsets.last().copied();
        if !ascend || last != u32::try_from(self.bytes.len()).ok() {
            let expected = "offsets that ascend to the end of the text";
            return Err(Error::malformed("vocabulary", expected, "others"));
        }
        Ok(self)
    }

    /// Number of tokens, holes included. A row of logits may be wider.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that a token stands for, which may be part of a character; of a special token its name;
    /// nothing for holes and ids that no token has.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let place = self.offsets.get(id as usize..).and_then(|rest| rest.get(..2));
        let range = place.map(|place| place[0] as usize..place[1] as usize);
        range.and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    /// Whether a token is structure and no part of the text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok()
    }

    /// Ids of the tokens after which an answer is over, ascending.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Wire for Vocabulary {
    const MIN_BYTES: usize = 16;

    fn put(&self, out: &mut Vec<u8>) {
        self.offsets.put(out);
        self.bytes.put(out);
        self.special.put(out);
        self.ends.put(out);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        let (offsets, bytes) = (Wire::take(r)?, Wire::take(r)?);
        Self { offsets, bytes, special: Wire::take(r)?, ends: Wire::take(r)? }.checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{from_bytes, to_bytes};

    #[test]
    fn knows_bytes_structure_and_ends() {
        let tokens: [&[u8]; 4] = [b"a", b"", b"<end>", b"\xf0\x9f"];
        let vocabulary = Vocabulary::new(tokens, vec![2], vec![2, 2]).unwrap();
        assert_eq!((vocabulary.len(), vocabulary.ends()), (4, &[2][..]));
        for (id, token) in tokens.iter().enumerate() {
            assert_eq!(vocabulary.bytes(id as u32), *token);
        }
        assert_eq!((vocabulary.bytes(4), vocabulary.bytes(u32::MAX)), (&[][..], &[][..]));
        assert!(vocabulary.is_special(2) && !vocabulary.is_special(0));
        assert_eq!(from_bytes::<Vocabulary>(&to_bytes(&vocabulary)).unwrap(), vocabulary);
    }

    #[test]
    fn refuses_what_does_not_fit_together() {
        let one: [&[u8]; 1] = [b"a"];
        let error = Vocabulary::new(one, vec![], vec![1]).unwrap_err();
        assert_eq!(error.to_string(), "vocabulary: malformed: expected ids below 1, found 1");
        let garbled =
            Vocabulary { offsets: vec![0, 9], ..Vocabulary::new(one, vec![], vec![]).unwrap() };
        assert!(from_bytes::<Vocabulary>(&to_bytes(&garbled)).is_err());
        let empty = Vocabulary { offsets: vec![], bytes: vec![], special: vec![], ends: vec![] };
        assert!(from_bytes::<Vocabulary>(&to_bytes(&empty)).is_err());
    }
}
