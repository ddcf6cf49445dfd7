//! How plans name what plugins compute at run time.

use std::fmt;

use plugin_api::kinds::SemanticId;
use plugin_api::plan::Word;
use plugin_api::{Error, Result};

/// A callback in a plan, `{slot}.{name} of {semantic id}`: plans that compute something else are other
/// bytes, and so are their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Callback<'a> {
    /// The slot whose plugin is called.
    pub(crate) slot: &'a str,
    /// What the plugin calls it.
    pub(crate) name: &'a str,
}

impl<'a> Callback<'a> {
    /// The callback `name` of the plugin in `slot`, as plans have it.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for a name that is no word.
    pub(crate) fn text(slot: &str, name: &str, id: &SemanticId) -> Result<String> {
        Word::new(name)?;
        Ok(format!("{} of {id}", Callback { slot, name }))
    }

    /// What [`text`](Self::text) made.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for other text.
    pub(crate) fn of(text: &'a str) -> Result<Self> {
        let parsed = text.split_once(" of ").and_then(|(called, _)| called.split_once('.'));
        let (slot, name) = parsed
            .ok_or_else(|| Error::malformed("callback", "`slot.name of semantic id`", text))?;
        Ok(Self { slot, name })
    }
}

impl fmt::Display for Callback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.name)
    }
}
