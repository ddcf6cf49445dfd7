//! Memories: turns go in, passages come out; what is kept the guest keeps in the store of its host.

use std::sync::Arc;

use plugin_api::kinds::memory::{Memory, Passage, Turn};
use plugin_api::{Host, Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::memory::exports::jackfield::plugin::memory as wit;
use super::bindings::memory::{MemoryPlugin, MemoryPluginPre};
use super::capability;
use super::instance::{Instance, Plugin};
use super::state::State;

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = MemoryPluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn Memory>(plugin, move |config| {
        let instance = Instance::create(
            &theirs,
            |store| linked.instantiate(store),
            config,
            |world, store, config| world.jackfield_plugin_memory().call_create(store, config),
        )?;
        Ok(Box::new(WasmMemory { instance }))
    }))
}

/// A memory in a guest. Its services are those that it was loaded with, whoever calls.
struct WasmMemory {
    instance: Instance<MemoryPlugin>,
}

impl Memory for WasmMemory {
    fn recall(&mut self, turn: &Turn, _host: &Host) -> Result<Vec<Passage>> {
        let turn = wire(turn);
        let passages = self
            .instance
            .call(|world, store| world.jackfield_plugin_memory().call_recall(store, &turn))?;
        let passage = |wit::Passage { source, text }| Passage { source, text };
        Ok(passages.into_iter().map(passage).collect())
    }

    fn remember(&mut self, turn: &Turn, answer: &str, _host: &Host) -> Result<Vec<String>> {
        let turn = wire(turn);
        self.instance.call(|world, store| {
            world.jackfield_plugin_memory().call_remember(store, &turn, answer)
        })
    }
}

fn wire(turn: &Turn) -> wit::Turn {
    let messages = turn.messages.iter();
    let messages =
        messages.map(|it| wit::Message { role: it.role.clone(), content: it.content.clone() });
    let (session, tokens_max) = (turn.session.clone(), turn.tokens_max);
    wit::Turn { session, messages: messages.collect(), tokens_max }
}
