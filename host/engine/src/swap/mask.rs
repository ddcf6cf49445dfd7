//! Which weights stand in for those of the model: another mask, for requests that come after.

use std::time::Duration;

use jackfield_runtime::{Registry, Replacement, SwapError, SwapTarget as _, Swapped};
use plugin_api::Backend;

use super::Swapper;
use crate::error::EngineError;
use crate::model::loaded::Companions;
use crate::model::precise::{Mask, SLOT, StandIns};
use crate::model::weights::Quantizers;
use crate::wiring::Wiring;

/// A mask that is to stand before the weights.
pub(super) struct NewMask {
    mask: Mask,
    quantizers: Quantizers,
}

impl Swapper {
    /// Lets requests that come from now on have those weights of the precise model whose names fit one of `patterns`; those that run
    /// keep theirs. What does not lie in memory is packed in the calling thread.
    ///
    /// # Errors
    ///
    /// [`SwapError`] as for every slot, with the pattern that fits nothing: everything then stays as it was.
    pub fn exchange_mask(
        &self,
        patterns: &[String],
        wiring: &Wiring,
        registry: &Registry,
        limit: Duration,
    ) -> Result<Swapped, SwapError> {
        let slot = format!("{}/{}", SLOT.0, SLOT.1);
        let refused = |error: EngineError| SwapError::Differs {
            slot: slot.clone(),
            what: "mask".to_owned(),
            expected: "names of weights of the precise model".to_owned(),
            found: error.to_string(),
        };
        let plans = self.shared.live_plans();
        let active = plans.last().ok_or_else(|| SwapError::Ended { slot: slot.clone() })?;
        let files = active.companions.precise.1.files();
        let mask = files.and_then(|files| files.mask(patterns)).map_err(refused)?;
        let quantizers = wiring.quantizers(registry).map_err(refused)?;
        drop(plans);
        let (name, instance) = (mask.label(), Box::new(NewMask { mask, quantizers }));
        let swapped = self.swap_all(vec![Replacement { slot, name, instance }], limit)?.pop();
        Ok(swapped.expect("a set of one has one answer"))
    }
}

impl NewMask {
    /// The weights that stand in by it; what is packed already is shared.
    pub(super) fn load(
        &self,
        active: &Companions,
        backend: &dyn Backend,
    ) -> Result<StandIns, EngineError> {
        active.precise.1.masked(&self.mask, &self.quantizers, backend, 1)
    }
}
