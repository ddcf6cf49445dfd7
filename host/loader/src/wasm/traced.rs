//! What all traced kinds do: a guest describes its part into a lent sink.

use std::sync::Arc;

use plugin_api::kinds::{LayerRef, SemanticId, Traced};
use plugin_api::plan::{OpSink, Val};
use plugin_api::{Config, Error, Result};
use wasmtime::Store;

use super::bindings::traced::exports::jackfield::plugin::traced::Guest;
use super::graph;
use super::instance::{Instance, Plugin, Shared};
use super::state::State;

/// The exports of a traced kind.
pub(super) trait TracedWorld: Send + Sync + 'static {
    /// The interface `traced`.
    fn traced(&self) -> &Guest;
}

/// A traced part whose description lies in a guest.
pub(super) struct WasmTraced<W> {
    pub(super) shared: Shared<W>,
    semantic_id: SemanticId,
}

impl<W: TracedWorld> WasmTraced<W> {
    pub(super) fn create(
        plugin: &Arc<Plugin>,
        config: &Config,
        instantiate: impl Fn(&mut Store<State>) -> wasmtime::Result<W> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (plugin, config) = (Arc::clone(plugin), config.clone());
        let shared = Shared::new(move || {
            Instance::create(&plugin, &instantiate, &config, |world: &W, store, config| {
                world.traced().call_create(store, config)
            })
        })?;
        let id = shared.with(|instance| {
            instance.call(|world, store| world.traced().call_semantic_id(store).map(Ok))
        })?;
        Ok(Self { shared, semantic_id: SemanticId(id) })
    }
}

impl<W: TracedWorld> Traced for WasmTraced<W> {
    fn semantic_id(&self) -> SemanticId {
        self.semantic_id.clone()
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let given: Vec<u32> = x.iter().map(|val| val.0).collect();
        let (made, known) = self.shared.with(|instance| {
            instance.call_sink(g, x, at.config, |world, store, config| {
                let guest = world.traced();
                let graph = graph::handle();
                let made = guest.call_trace(&mut *store, graph, &given, at.index, config)?;
                Ok(made.map(|made| (made, store.data().known())))
            })
        })?;
        let made: Vec<Val> = made.into_iter().map(Val).collect();
        match made.iter().find(|val| !known.contains(val)) {
            Some(strange) => Err(Error::malformed("trace", "values of this trace", strange.0)),
            None => Ok(made),
        }
    }
}
