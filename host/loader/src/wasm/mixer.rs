//! Mixers: traced, and say what one layer keeps.

use std::sync::Arc;

use plugin_api::kinds::LayerRef;
use plugin_api::kinds::mixer::Mixer;
use plugin_api::plan::StateSpec;
use plugin_api::{Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::mixer::{MixerPart, MixerPartIndices};
use super::bindings::traced::exports::jackfield::plugin::traced::Guest;
use super::bindings::traced::{TracedPlugin, TracedPluginIndices};
use super::capability;
use super::graph::state_of;
use super::instance::Plugin;
use super::state::State;
use super::traced::{TracedWorld, WasmTraced};

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let (traced, own) = (TracedPluginIndices::new(&linked)?, MixerPartIndices::new(&linked)?);
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn Mixer>(plugin, move |config| {
        let (linked, traced, own) = (linked.clone(), traced.clone(), own.clone());
        let made = WasmTraced::create(&theirs, config, move |store| {
            let instance = linked.instantiate(&mut *store)?;
            let traced = traced.load(&mut *store, &instance)?;
            Ok(MixerWorld { traced, own: own.load(store, &instance)? })
        });
        Ok(Box::new(made?))
    }))
}

struct MixerWorld {
    traced: TracedPlugin,
    own: MixerPart,
}

impl TracedWorld for MixerWorld {
    fn traced(&self) -> &Guest {
        self.traced.jackfield_plugin_traced()
    }
}

impl Mixer for WasmTraced<MixerWorld> {
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec> {
        let spec = self.shared.with(|instance| {
            instance.call_with(at.config, |world, store, config| {
                world.own.jackfield_plugin_mixer().call_state(store, at.index, config)
            })
        });
        spec.map(state_of)
    }
}
