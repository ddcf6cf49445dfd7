//! Schedulers: the queue goes in, what runs comes out and is checked.

use std::sync::Arc;

use plugin_api::kinds::scheduler::{Limits, Picked, Scheduler, Waiting};
use plugin_api::{Provided, Result};
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
        Ok(Box::new(WasmScheduler { instance, queue: Vec::new(), is_taken: Vec::new() }))
    }))
}

struct WasmScheduler {
    instance: Instance<SchedulerPlugin>,
    queue: Vec<wit::Waiting>,
    is_taken: Vec<bool>,
}

impl Scheduler for WasmScheduler {
    /// What the guest picks. A guest that stopped, which is logged, is stood in for by order of
    /// arrival until it is replaced: requests do not stand still for a broken policy.
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) {
        let start = out.len();
        if self.ask(queue, limits, out).is_err() {
            out.truncate(start);
            by_arrival(queue, limits, out);
        }
    }
}

impl WasmScheduler {
    fn ask(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        self.queue.clear();
        self.queue.extend(queue.iter().map(wire));
        let limits = wit::Limits { tokens: capped(limits.tokens), seqs: capped(limits.seqs) };
        let picked = self.instance.call(|world, store| {
            world.jackfield_plugin_scheduler().call_pick(store, &self.queue, limits).map(Ok)
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
                return self.instance.refuse("pick", expected, &found);
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

fn by_arrival(queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) {
    let (mut tokens_left, mut seqs_left) = (limits.tokens, limits.seqs);
    for is_running in [true, false] {
        for (index, entry) in queue.iter().enumerate() {
            let tokens = entry.pending.min(tokens_left);
            let is_whole = tokens == entry.pending;
            let is_fit = tokens > 0 && seqs_left > 0 && (is_whole || !entry.is_atomic);
            if entry.is_running == is_running && is_fit {
                out.push(Picked { index, tokens });
                tokens_left -= tokens;
                seqs_left -= 1;
            }
        }
    }
}
