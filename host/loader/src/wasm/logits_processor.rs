//! Logits processors: rows stay here, the guest edits them by number.

use std::sync::Arc;

use plugin_api::kinds::logits_processor::{BatchChange, LogitsProcessor, LogitsRows, Need};
use plugin_api::{Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::logits_processor::exports::jackfield::plugin::logits_processor as wit;
use super::bindings::logits_processor::{LogitsProcessorPlugin, LogitsProcessorPluginPre};
use super::capability;
use super::instance::{Instance, Plugin};
use super::state::State;

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = LogitsProcessorPluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn LogitsProcessor>(plugin, move |config| {
        let mut instance = Instance::create(
            &theirs,
            |store| linked.instantiate(store),
            config,
            |world, store, config| {
                world.jackfield_plugin_logits_processor().call_create(store, config)
            },
        )?;
        let described = instance.call(|world, store| {
            world.jackfield_plugin_logits_processor().call_describe(store).map(Ok)
        })?;
        Ok(Box::new(WasmLogitsProcessor {
            instance,
            need: need_of(described.need),
            is_argmax_invariant: described.is_argmax_invariant,
            changes: Vec::new(),
            ids: Vec::new(),
        }))
    }))
}

struct WasmLogitsProcessor {
    instance: Instance<LogitsProcessorPlugin>,
    need: Need,
    is_argmax_invariant: bool,
    /// What has happened to rows and the guest has not been told: one call tells everything.
    changes: Vec<wit::Change>,
    ids: Vec<u32>,
}

impl WasmLogitsProcessor {
    fn tell_changes(&mut self) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let told = self.instance.call(|world, store| {
            world.jackfield_plugin_logits_processor().call_follow(store, &self.changes)
        });
        self.changes.clear();
        told
    }
}

impl LogitsProcessor for WasmLogitsProcessor {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let change = match *change {
            BatchChange::Added { row, params, history } => {
                self.tell_changes()?;
                return self.instance.call_with(params, |world, store, params| {
                    let guest = world.jackfield_plugin_logits_processor();
                    guest.call_add(store, row.0, params, history)
                });
            }
            BatchChange::Advanced { row, token } => {
                wit::Change::Advanced(wit::Advanced { row: row.0, token })
            }
            BatchChange::RolledBack { row, history } => {
                let history = history.to_vec();
                wit::Change::RolledBack(wit::RolledBack { row: row.0, history })
            }
            BatchChange::Forked { parent, child } => {
                wit::Change::Forked(wit::Forked { parent: parent.0, child: child.0 })
            }
            BatchChange::Removed { row } => wit::Change::Removed(row.0),
        };
        self.changes.push(change);
        if self.changes.len() < CHANGES_MAX { Ok(()) } else { self.tell_changes() }
    }

    fn need(&self) -> Need {
        self.need
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        self.tell_changes()?;
        let rows = logits.access();
        self.ids.clear();
        self.ids.extend((0..rows.num_rows()).map(|row| rows.id(row).0));
        let vocab_size = rows.vocab_size() as u32;
        self.instance.call_rows(rows, |world, store| {
            let guest = world.jackfield_plugin_logits_processor();
            guest.call_apply(store, &self.ids, vocab_size)
        })
    }

    fn is_argmax_invariant(&self) -> bool {
        self.is_argmax_invariant
    }
}

fn need_of(need: wit::Need) -> Need {
    match need {
        wit::Need::Nothing => Need::Nothing,
        wit::Need::Max => Need::Max,
        wit::Need::Top => Need::Top,
        wit::Need::Ids => Need::Ids,
        wit::Need::All => Need::All,
    }
}

/// Changes that are held back at most: steps in which the processor is skipped add some each.
const CHANGES_MAX: usize = 1024;
