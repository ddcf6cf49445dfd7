//! Hooks: events go in as bytes, flow and edits come out.
//!
//! Topics are emitted on different threads and all closures of a hook share one guest, so calls of
//! them wait for each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin_api::events::{Flow, Phase, Record, Subscriptions};
use plugin_api::kinds::hook::Hook;
use plugin_api::wire::events::{Port, crossing};
use plugin_api::{Host, Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::hook::exports::jackfield::plugin::hook as wit;
use super::bindings::hook::{HookPlugin, HookPluginPre};
use super::capability;
use super::instance::{Instance, Plugin};
use super::state::State;

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = HookPluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn Hook>(plugin, move |config| {
        let instance = Instance::create(
            &theirs,
            |store| linked.instantiate(store),
            config,
            |world, store, config| world.jackfield_plugin_hook().call_create(store, config),
        )?;
        Ok(Box::new(WasmHook { guest: Arc::new(Guest(Mutex::new(instance))) }))
    }))
}

/// The one guest behind all closures of a hook.
struct Guest(Mutex<Instance<HookPlugin>>);

impl Guest {
    fn lock(&self) -> MutexGuard<'_, Instance<HookPlugin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct WasmHook {
    guest: Arc<Guest>,
}

impl Hook for WasmHook {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        let mut guest = self.guest.lock();
        let wanted =
            guest.call(|world, store| world.jackfield_plugin_hook().call_subscribe(store))?;
        if wanted.observers > OBSERVERS_MAX {
            let expected = format!("at most {OBSERVERS_MAX} observers");
            return guest.refuse("subscribe", &expected, &wanted.observers.to_string());
        }
        drop(guest);
        for (number, wanted) in (0..).zip(wanted.hooks) {
            let Some(crossing) = crossing(&wanted.topic) else { continue };
            let phase = match wanted.phase {
                wit::Phase::Early => Phase::Early,
                wit::Phase::Normal => Phase::Normal,
                wit::Phase::Late => Phase::Late,
            };
            let line = Line { guest: Arc::clone(&self.guest), number };
            crossing.import(on, (phase, wanted.priority), Box::new(line));
        }
        for number in 0..wanted.observers {
            let guest = Arc::clone(&self.guest);
            on.observe(move |record, _| {
                // An observer that failed is as none: its owner knows.
                let _ = guest.lock().call(|world, store| {
                    let hook = world.jackfield_plugin_hook();
                    hook.call_observe(store, number, &summary(record)).map(Ok)
                });
            });
        }
        Ok(())
    }
}

fn summary(record: &Record) -> wit::Summary {
    wit::Summary {
        topic: record.topic.to_owned(),
        request: record.request,
        values: record.iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// One subscription. The guest has the host that it was loaded with, whoever emits.
struct Line {
    guest: Arc<Guest>,
    number: u32,
}

impl Port for Line {
    fn on(&self, event: &[u8], _: &Host, answer: &mut Vec<u8>) -> Result<()> {
        *answer = self.guest.lock().call(|world, store| {
            world.jackfield_plugin_hook().call_on(store, self.number, event)
        })?;
        Ok(())
    }

    fn judged(&self, found: Result<Flow>) -> Result<Flow> {
        self.guest.lock().judged(found)
    }
}

/// More would only slow down each other.
const OBSERVERS_MAX: u32 = 64;
