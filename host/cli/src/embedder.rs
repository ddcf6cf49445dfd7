//! The model that turns texts into vectors, beside the one that generates.

use anyhow::Result;
use jackfield_engine::{Embedder, EncoderModel, EncoderOptions};
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
