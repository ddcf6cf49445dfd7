//! The weights that stand beside those of the model: another adapter, or none, for requests that come after.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jackfield_runtime::{Label, Registry, Replacement, SwapError, SwapTarget as _, Swapped};
use plugin_api::{Adapter, Backend, Kind, Traced};

use super::Swapper;
use crate::error::EngineError;
use crate::model::adapter::{AdapterFiles, LoadedAdapter, SLOT, name_of};
use crate::model::trace::{TracedPart, TracedParts};
use crate::model::weights::Quantizers;
use crate::wiring::Wiring;

/// An adapter that is to stand beside the weights, or none.
pub(super) struct NewAdapter(Option<Opened>);

struct Opened {
    files: AdapterFiles,
    quantizers: Quantizers,
    /// The plugin that describes its products, for an engine that has none yet.
    plugin: (String, Box<dyn Traced>),
}

impl Swapper {
    /// Lets requests that come from now on have the adapter in `folder`, or none; those that run keep the one that
    /// they began with. Opens, checks and packs in the calling thread.
    ///
    /// # Errors
    ///
    /// [`SwapError`] as for every slot, with what is wrong with the files: everything then stays as it was.
    pub fn exchange_adapter(
        &self,
        folder: Option<&Path>,
        wiring: &Wiring,
        registry: &Registry,
        limit: Duration,
    ) -> Result<Swapped, SwapError> {
        let slot = format!("{}/{SLOT}", <dyn Adapter>::NAME);
        let refused = |error: EngineError| SwapError::Differs {
            slot: slot.clone(),
            what: "adapter".to_owned(),
            expected: "one that stands beside the model".to_owned(),
            found: error.to_string(),
        };
        let model = self.shared.model.upgrade();
        let model = model.ok_or_else(|| SwapError::Ended { slot: slot.clone() })?;
        let open = |folder: &Path| -> Result<Opened, EngineError> {
            let (name, plugin) = wiring.adapter(registry)?;
            let files = AdapterFiles::open(folder, &model.architecture, model.rows)?;
            let quantizers = wiring.quantizers(registry)?;
            Ok(Opened { files, quantizers, plugin: (name, plugin) })
        };
        let opened = folder.map(open).transpose().map_err(refused)?;
        drop(model);
        let (name, instance) = (name_of(folder), Box::new(NewAdapter(opened)));
        let swapped = self.swap_all(vec![Replacement { slot, name, instance }], limit)?.pop();
        Ok(swapped.expect("a set of one has one answer"))
    }
}

impl NewAdapter {
    /// Packs it, and adds the plugin that describes its products to `parts` where there is none.
    pub(super) fn load(
        self,
        parts: &mut TracedParts,
        backend: &dyn Backend,
    ) -> Result<Option<LoadedAdapter>, EngineError> {
        let Some(Opened { files, quantizers, plugin: (name, instance) }) = self.0 else {
            return Ok(None);
        };
        let part = || Arc::new(TracedPart { label: Label::first(&name), instance });
        parts.entry(<dyn Adapter>::NAME.to_owned()).or_insert_with(part);
        files.pack(&quantizers, backend).map(Some)
    }
}
