//! Curricula: what sources tell goes in, a choice comes out and is checked.

use std::cell::RefCell;
use std::sync::Arc;

use plugin_api::kinds::curriculum::{Choice, Curriculum, SourceView};
use plugin_api::{Error, Handover, Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::curriculum::exports::jackfield::plugin::curriculum as wit;
use super::bindings::curriculum::{CurriculumPlugin, CurriculumPluginPre};
use super::capability;
use super::instance::{Instance, Plugin};
use super::state::State;

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = CurriculumPluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn Curriculum>(plugin, move |config| {
        let instance = Instance::create(
            &theirs,
            |store| linked.instantiate(store),
            config,
            |world, store, config| world.jackfield_plugin_curriculum().call_create(store, config),
        )?;
        let (instance, sources) = (RefCell::new(instance), Vec::new());
        Ok(Box::new(WasmCurriculum { instance, sources, blamed: None }))
    }))
}

struct WasmCurriculum {
    /// Borrowed by one call at a time: the kind belongs to one thread.
    instance: RefCell<Instance<CurriculumPlugin>>,
    sources: Vec<wit::SourceView>,
    /// The error that its owner was told of last.
    blamed: Option<Error>,
}

impl Curriculum for WasmCurriculum {
    fn next(&mut self, sources: &[SourceView]) -> Result<Choice> {
        self.ask(sources)
            .inspect_err(|error| self.instance.get_mut().blame(error, &mut self.blamed))
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        let has = self.instance.get_mut().call(|world, store| {
            world.jackfield_plugin_curriculum().call_has_handover(store).map(Ok)
        });
        if has == Ok(true) { Some(self) } else { None }
    }
}

impl Handover for WasmCurriculum {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        let mut state = self
            .instance
            .borrow_mut()
            .call(|world, store| world.jackfield_plugin_curriculum().call_save(store))?;
        out.append(&mut state);
        Ok(())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        self.instance
            .get_mut()
            .call(|world, store| world.jackfield_plugin_curriculum().call_restore(store, bytes))
    }
}

impl WasmCurriculum {
    fn ask(&mut self, sources: &[SourceView]) -> Result<Choice> {
        self.sources.clear();
        self.sources.extend(sources.iter().map(|source| wit::SourceView {
            num_examples: source.num_examples,
            given: source.given,
            next: source.next,
        }));
        let choice = self.instance.get_mut().call(|world, store| {
            world.jackfield_plugin_curriculum().call_next(store, &self.sources)
        })?;
        let source = choice.source as usize;
        if source >= sources.len() {
            let expected = format!("one of {} sources", sources.len());
            return self.instance.get_mut().refuse("next", &expected, &format!("{source}"));
        }
        Ok(Choice { source, again: choice.again })
    }
}
