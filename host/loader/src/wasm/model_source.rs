//! Model sources: the guest finds and fetches, through services that check its grants.

#![allow(unsafe_code, reason = "follows what is lent")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_api::kinds::model_source::{ModelEntry, ModelSource, Progress};
use plugin_api::{Error, Host, Provided, Result};
use wasmtime::component::{HasSelf, InstancePre, Linker};

use super::bindings::model_source::exports::jackfield::plugin::model_source as wit;
use super::bindings::model_source::{ModelSourcePlugin, ModelSourcePluginPre};
use super::bindings::offers::jackfield::plugin::progress;
use super::capability;
use super::instance::{Instance, Plugin, Shared};
use super::lend::{Lending, Lent};
use super::state::State;

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    progress::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl progress::Host for State {
    fn report(&mut self, stage: String, done: u64, total: Option<u64>) -> wasmtime::Result<()> {
        let Lent::Progress(progress) = &mut self.lent else {
            wasmtime::bail!("progress: called outside of `fetch`");
        };
        // SAFETY: `Lent::Progress` is there only while the lending lasts, and the reference
        // borrows the state, so there is one at a time.
        let tell = unsafe { progress.get() };
        tell(Progress { stage: &stage, done, total });
        Ok(())
    }
}

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = ModelSourcePluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn ModelSource>(plugin, move |config| {
        let (plugin, linked, config) = (Arc::clone(&theirs), linked.clone(), config.clone());
        let shared = Shared::new(move || {
            Instance::create(
                &plugin,
                |store| linked.instantiate(store),
                &config,
                |world, store, config| {
                    world.jackfield_plugin_model_source().call_create(store, config)
                },
            )
        })?;
        let known = shared.with(|instance| {
            instance.call(|world, store| {
                world.jackfield_plugin_model_source().call_known(store).map(Ok)
            })
        })?;
        Ok(Box::new(WasmModelSource { shared, known: known.into_iter().map(entry_of).collect() }))
    }))
}

/// A source in a guest. Its services are those that it was loaded with, whoever calls.
struct WasmModelSource {
    shared: Shared<ModelSourcePlugin>,
    known: Vec<ModelEntry>,
}

impl ModelSource for WasmModelSource {
    fn list(&self) -> Vec<ModelEntry> {
        self.known.clone()
    }

    fn resolve(&self, name: &str, _host: &Host) -> Result<Option<ModelEntry>> {
        let found = self.shared.with(|instance| {
            instance.call_slow(|world, store| {
                world.jackfield_plugin_model_source().call_resolve(store, name)
            })
        })?;
        Ok(found.map(entry_of))
    }

    fn fetch(
        &self,
        entry: &ModelEntry,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        _host: &Host,
    ) -> Result<PathBuf> {
        let folder = folder.to_str();
        let folder = folder.ok_or_else(|| Error::malformed("folder", "UTF-8", "other bytes"))?;
        let ModelEntry { name, description, size_bytes } = entry.clone();
        let model = wit::Model { name, description, size_bytes };
        let path = self.shared.with(|instance| {
            instance.call_slow(|world, store| {
                let mut store = Lending::progress(store, progress);
                world.jackfield_plugin_model_source().call_fetch(&mut *store, &model, folder)
            })
        })?;
        Ok(path.into())
    }
}

fn entry_of(model: wit::Model) -> ModelEntry {
    let wit::Model { name, description, size_bytes } = model;
    ModelEntry { name, description, size_bytes }
}
