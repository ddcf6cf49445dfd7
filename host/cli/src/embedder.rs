//! The model that turns texts into vectors, beside the one that generates.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jackfield_engine::{Embedder, EncoderModel, EncoderOptions, EncoderSwapper};
use jackfield_runtime::{Replacement, SlotStatus, SwapError, SwapTarget, Swapped, SystemClock};
use plugin_api::{Backend, Kind};

use crate::progress::Bar;
use crate::setup::Session;

/// Fetches the model if need be and starts its thread, for which at most `jobs_max` requests wait.
pub(crate) fn start(session: &Session, model: &str, jobs_max: usize) -> Result<Embedder> {
    let path = session.fetch(model)?;
    // One thread: what more of them took, steps of the other model would wait for.
    let mut wiring = session.wiring.clone();
    for backend in wiring.names(<dyn Backend>::NAME) {
        wiring.table_mut(&backend).set("threads", 1);
    }
    let mut bar = Bar::elements(session.is_json);
    let model = EncoderModel::load(
        &path,
        &wiring,
        &session.registry(),
        &EncoderOptions::default(),
        &mut |done, total| bar.show("loading", done, Some(total)),
    )?;
    bar.clear();
    Ok(Embedder::start(model, jobs_max)?)
}

/// What replaces the plugin of an encoder.
pub(crate) fn swapper(session: &Session, embedder: &Embedder) -> EncoderSwapper {
    embedder.swapper(&session.bus, Arc::new(SystemClock::new()))
}

/// Slots of several that run side by side, as one.
pub(crate) struct SideBySide(pub(crate) Vec<Arc<dyn SwapTarget>>);

impl SwapTarget for SideBySide {
    fn swap_all(&self, set: Vec<Replacement>, limit: Duration) -> Result<Vec<Swapped>, SwapError> {
        let mut owner: Option<(&str, usize)> = None;
        for Replacement { slot, .. } in &set {
            let kind = slot.split('/').next().unwrap_or(slot);
            let has_it = |target: &Arc<dyn SwapTarget>| {
                target.slots().iter().any(|status| status.kind == kind)
            };
            // The first says what slots it has.
            let place = self.0.iter().position(has_it).unwrap_or(0);
            let (first, of_first) = *owner.get_or_insert((slot.as_str(), place));
            if place != of_first {
                let (slot, other) = (first.to_owned(), slot.clone());
                return Err(SwapError::Apart { slot, other });
            }
        }
        match owner {
            Some((_, place)) => self.0[place].swap_all(set, limit),
            None => Ok(Vec::new()),
        }
    }

    fn slots(&self) -> Vec<SlotStatus> {
        self.0.iter().flat_map(|target| target.slots()).collect()
    }
}
