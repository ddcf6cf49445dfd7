//! What a hook keeps over a checkpoint.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::wire::{Reader, Wire, put_list, put_text};

/// Lists of numbers by name. A checkpoint holds one for each hook plugin; names are the plugin's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HookState(BTreeMap<String, Numbers>);

/// One list.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// For what there is much of.
    F32(Vec<f32>),
    /// For the rest; counts are exact up to 2⁵³.
    F64(Vec<f64>),
}

impl HookState {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps numbers under a name, in the place of those that it had.
    pub fn set(&mut self, name: &str, numbers: &[f64]) {
        self.0.insert(name.to_owned(), Numbers::F64(numbers.to_vec()));
    }

    /// The same in half the room.
    pub fn set_f32(&mut self, name: &str, numbers: &[f32]) {
        self.0.insert(name.to_owned(), Numbers::F32(numbers.to_vec()));
    }

    /// `N` numbers that were [`set`](Self::set) under this name.
    pub fn get<const N: usize>(&self, name: &str) -> Option<[f64; N]> {
        match self.0.get(name)? {
            Numbers::F64(numbers) => numbers.as_slice().try_into().ok(),
            Numbers::F32(_) => None,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All lists, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Numbers)> {
        self.0.iter().map(|(name, numbers)| (name.as_str(), numbers))
    }
}

impl FromIterator<(String, Numbers)> for HookState {
    fn from_iter<I: IntoIterator<Item = (String, Numbers)>>(lists: I) -> Self {
        Self(lists.into_iter().collect())
    }
}

impl Wire for HookState {
    fn put(&self, out: &mut Vec<u8>) {
        (self.0.len() as u32).put(out);
        for (name, numbers) in &self.0 {
            put_text(name, out);
            Wire::put(numbers, out);
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        let len = r.count(ENTRY_BYTES_MIN)?;
        (0..len).map(|_| Ok((Wire::take(r)?, Wire::take(r)?))).collect()
    }
}

impl Wire for Numbers {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::F32(numbers) => {
                out.push(0);
                put_list(numbers, out);
            }
            Self::F64(numbers) => {
                out.push(1);
                put_list(numbers, out);
            }
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        match u8::take(r)? {
            0 => Wire::take(r).map(Self::F32),
            1 => Wire::take(r).map(Self::F64),
            code => Err(Error::malformed("numbers of a hook", "0 for F32 or 1 for F64", code)),
        }
    }
}

/// An empty name, a kind, and no numbers.
const ENTRY_BYTES_MIN: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crosses_whole_or_not_at_all() {
        let mut state = HookState::new();
        assert!(state.is_empty());
        state.set("best", &[2.5, f64::INFINITY]);
        state.set_f32("norm.weight", &[1.0, -0.0, 3.5]);
        assert_eq!(state.get("best"), Some([2.5, f64::INFINITY]));
        assert_eq!(state.get::<1>("best"), None, "of another length");
        assert_eq!(state.get::<3>("norm.weight"), None, "of another type");
        let mut bytes = Vec::new();
        Wire::put(&state, &mut bytes);
        let mut r = Reader::new(&bytes);
        assert_eq!(HookState::take(&mut r).unwrap(), state);
        r.end().unwrap();
        for len in 0..bytes.len() {
            HookState::take(&mut Reader::new(&bytes[..len])).unwrap_err();
        }
    }
}
