//! Who a foreign instance belongs to.

use crate::error::Error;

/// The load that a foreign instance was made by. Adapters keep it alive for as long as they live,
/// and tell it when their plugin failed in a way that a plugin must not.
pub trait Owner: Send + Sync {
    /// For people: `plugin min-p#3`.
    fn label(&self) -> String;

    /// The plugin panicked or answered garbage.
    fn fault(&self, error: &Error);

    /// Makes a call into the plugin, once and before it returns. An owner that wants to give the
    /// library back makes them all on a thread that ends first; what is lent to a call therefore
    /// must not care which thread it is.
    fn run(&self, call: &mut dyn FnMut()) {
        call();
    }
}
