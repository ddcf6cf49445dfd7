//! Schedulers: the queue goes in, what runs comes out and is checked.

use std::cell::RefCell;
use std::sync::Arc;

use plugin_api::kinds::scheduler::{Limits, Picked, Scheduler, Waiting};
use plugin_api::{Error, Handover, Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::scheduler::exports::jackfield::plugin::scheduler as wit;
use super::bindings::scheduler::{SchedulerPlugin, SchedulerPluginPre};
use super::capability;
use super::instance::{Instance, Plugin};
use super::state::State;

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = SchedulerPluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn Scheduler>(plugin, move |config| {
        let instance = Instance::create(
            &theirs,
            |store| linked.instantiate(store),
            config,
            |world, store, config| world.jackfield_plugin_scheduler().call_create(store, config),
        )?;
        let (instance, queue, is_taken) = (RefCell::new(instance), Vec::new(), Vec::new());
        Ok(Box::new(WasmScheduler { instance, queue, is_taken, blamed: None }))
    }))
}

struct WasmScheduler {
    /// Borrowed by one call at a time: the kind belongs to one thread.
    instance: RefCell<Instance<SchedulerPlugin>>,
    queue: Vec<wit::Waiting>,
    is_taken: Vec<bool>,
    /// The error that its owner was told of last.
    blamed: Option<Error>,
}

impl Scheduler for WasmScheduler {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        let start = out.len();
        self.ask(queue, limits, out).inspect_err(|error| {
            out.truncate(start);
            self.instance.get_mut().blame(error, &mut self.blamed);
        })
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        let has = self.instance.get_mut().call(|world, store| {
            world.jackfield_plugin_scheduler().call_has_handover(store).map(Ok)
        });
        if has == Ok(true) { Some(self) } else { None }
    }
}

impl Handover for WasmScheduler {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        let mut state = self
            .instance
            .borrow_mut()
            .call(|world, store| world.jackfield_plugin_scheduler().call_save(store))?;
        out.append(&mut state);
        Ok(())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        self.instance
            .get_mut()
            .call(|world, store| world.jackfield_plugin_scheduler().call_restore(store, bytes))
    }
}

impl WasmScheduler {
    fn ask(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        self.queue.clear();
        self.queue.extend(queue.iter().map(wire));
        let limits = wit::Limits { tokens: capped(limits.tokens), seqs: capped(limits.seqs) };
        let picked = self.instance.get_mut().call(|world, store| {
            world.jackfield_plugin_scheduler().call_pick(store, &self.queue, limits)
        })?;
        self.is_taken.clear();
        self.is_taken.resize(queue.len(), false);
        for picked in picked {
            let (index, tokens) = (picked.index as usize, picked.tokens as usize);
            let is_fair = queue.get(index).is_some_and(|entry| {
                let is_taken = std::mem::replace(&mut self.is_taken[index], true);
                !is_taken
                    && if entry.is_atomic {
                        tokens == entry.pending
                    } else {
                        tokens <= entry.pending
                    }
            });
            if !is_fair || tokens == 0 {
                let found = format!("entry {index} with {tokens} tokens");
                let expected = "entries of the queue, once each, with tokens that they have";
                return self.instance.get_mut().refuse("pick", expected, &found);
            }
            out.push(Picked { index, tokens });
        }
        Ok(())
    }
}

fn wire(entry: &Waiting) -> wit::Waiting {
    wit::Waiting {
        seq: entry.seq.0,
        pending: capped(entry.pending),
        is_running: entry.is_running,
        is_atomic: entry.is_atomic,
        priority: entry.priority,
    }
}

fn capped(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
