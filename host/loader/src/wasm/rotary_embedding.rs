//! Rotary embeddings: traced, and say how fast each pair of channels turns.

use std::sync::Arc;

use plugin_api::kinds::rotary_embedding::{Pairing, RotaryEmbedding, Rotation};
use plugin_api::{Config, Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::rotary_embedding::exports::jackfield::plugin::rotary_embedding as wit;
use super::bindings::rotary_embedding::{RotaryEmbeddingPart, RotaryEmbeddingPartIndices};
use super::bindings::traced::exports::jackfield::plugin::traced::Guest;
use super::bindings::traced::{TracedPlugin, TracedPluginIndices};
use super::capability;
use super::instance::Plugin;
use super::state::State;
use super::traced::{TracedWorld, WasmTraced};

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let (traced, own) =
        (TracedPluginIndices::new(&linked)?, RotaryEmbeddingPartIndices::new(&linked)?);
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn RotaryEmbedding>(plugin, move |config| {
        let (linked, traced, own) = (linked.clone(), traced.clone(), own.clone());
        let made = WasmTraced::create(&theirs, config, move |store| {
            let instance = linked.instantiate(&mut *store)?;
            let traced = traced.load(&mut *store, &instance)?;
            Ok(RotaryEmbeddingWorld { traced, own: own.load(store, &instance)? })
        });
        Ok(Box::new(made?))
    }))
}

struct RotaryEmbeddingWorld {
    traced: TracedPlugin,
    own: RotaryEmbeddingPart,
}

impl TracedWorld for RotaryEmbeddingWorld {
    fn traced(&self) -> &Guest {
        self.traced.jackfield_plugin_traced()
    }
}

impl RotaryEmbedding for WasmTraced<RotaryEmbeddingWorld> {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        let rotation = self.shared.with(|instance| {
            instance.call_with(config, |world, store, config| {
                world.own.jackfield_plugin_rotary_embedding().call_rotation_at(store, config)
            })
        })?;
        Ok(Rotation {
            inv_freq: rotation.inv_freq,
            pairing: match rotation.pairing {
                wit::Pairing::HalfSplit => Pairing::HalfSplit,
                wit::Pairing::Interleaved => Pairing::Interleaved,
            },
            attention_factor: rotation.attention_factor,
        })
    }
}
