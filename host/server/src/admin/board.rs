//! The plugins of a server: which fill its slots, and what happens to them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use jackfield_loader::{Grants, Plugins, Services};
use jackfield_runtime::{Bus, SwapError, Swapped};
use plugin_api::Host;
use plugin_api::events::{Flow, Subscriptions};

use crate::metrics::Metrics;

/// The plugins of a server, and where it hears of them.
#[derive(Clone)]
pub struct Board {
    /// Which file fills which slot.
    pub plugins: Arc<Plugins>,
    /// What happens.
    pub bus: Bus,
    /// Lets new requests have the adapter in a folder, or none.
    pub adapter: Exchange<Option<PathBuf>>,
    /// Lets new requests have weights of a model in more bits, by patterns of their names.
    pub mask: Exchange<Vec<String>>,
}

/// Lets new requests have something else, once there is an engine.
pub type Exchange<T> = Arc<OnceLock<Box<dyn Fn(&T) -> Result<Swapped, SwapError> + Send + Sync>>>;

impl Board {
    /// Counts what happens to plugins.
    pub(crate) fn count(&self, metrics: &Arc<Metrics>) {
        let mut on = Subscriptions::new();
        let (swaps, rollbacks, faults) =
            (Arc::clone(metrics), Arc::clone(metrics), Arc::clone(metrics));
        on.after_swap(move |event, _| {
            swaps.plugin_swaps.add(1);
            let us = event.prepare_us + event.wait_us;
            swaps.plugin_swap_seconds.observe(std::time::Duration::from_micros(us));
            Flow::Continue
        });
        on.after_rollback(move |_, _| {
            rollbacks.plugin_refusals.add(1);
            Flow::Continue
        });
        on.on_fault(move |_, _| {
            faults.plugin_faults.add(1);
            Flow::Continue
        });
        self.bus.subscribe(&host("http-server"), on);
    }
}

/// A handle without any grants, for what the server itself subscribes to.
pub(crate) fn host(name: &str) -> Host {
    Services::new().host(name, Grants::none())
}
