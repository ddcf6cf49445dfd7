//! Compares the layouts of tables, type by type: a plugin that says that it matches may be wrong.

use abi_stable::abi_stability::abi_checking::{
    CheckingGlobals, check_layout_compatibility_with_globals,
};
use plugin_api::native::Foreign;

use crate::error::LoadError;

/// Checks the table that a plugin of `kind` hands out against this host's.
///
/// The globals of the check are made for each: shared ones would keep pointers into every library
/// that was ever looked at.
pub(super) fn check(file: &str, foreign: Foreign, kind: &str) -> Result<(), LoadError> {
    let differs = |difference: String| LoadError::Abi { file: file.to_owned(), difference };
    let (interface, ours, theirs) =
        foreign.layouts(kind).map_err(|error| differs(error.to_string()))?;
    if theirs.is_null() {
        return Err(differs(format!("it does not know `{interface}`")));
    }
    // SAFETY: the plugin was built with this very version of the layout's types: its digest says.
    let theirs = unsafe { &*theirs };
    let globals = CheckingGlobals::new();
    check_layout_compatibility_with_globals(ours, theirs, &globals).map_err(|errors| {
        // Both layouts stand before the errors, over a hundred lines.
        let text = errors.to_string();
        let (_, errors) = text.split_once("error(s).").unwrap_or(("", &text));
        let words: Vec<_> = errors.split_whitespace().collect();
        differs(format!("`{interface}`: {}", words.join(" ")))
    })
}
