//! Model sources as components of the world `model-source-plugin`.

use std::cell::RefCell;
use std::path::Path;

use super::host::host;
use super::offers::jackfield::plugin::progress;
use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::{Plugin, make, place, with};
use crate::kinds::model_source::{ModelEntry, ModelSource};
use bindings::exports::jackfield::plugin::model_source as wit;

super::world!("model-source-plugin",
    "jackfield:plugin/files@0.0.0" => files,
    "jackfield:plugin/network@0.0.0" => network,
    "jackfield:plugin/processes@0.0.0" => processes,
    "jackfield:plugin/progress@0.0.0" => progress,
);

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn ModelSource>>> = const { RefCell::new(None) };
}

impl<P: Plugin<Kind = dyn ModelSource>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn known() -> Vec<wit::Model> {
        with(&INSTANCE, |instance| instance.list().into_iter().map(wire).collect())
    }

    fn resolve(name: String) -> Result<Option<wit::Model>, WireError> {
        with(&INSTANCE, |instance| Ok(instance.resolve(&name, &host())?.map(wire)))
    }

    fn fetch(model: wit::Model, folder: String) -> Result<String, WireError> {
        let wit::Model { name, description, size_bytes } = model;
        let entry = ModelEntry { name, description, size_bytes };
        with(&INSTANCE, |instance| {
            let mut tell = |it: crate::kinds::model_source::Progress<'_>| {
                progress::report(it.stage, it.done, it.total);
            };
            let fetched = instance.fetch(&entry, Path::new(&folder), &mut tell, &host())?;
            Ok(fetched.to_string_lossy().into_owned())
        })
    }
}

fn wire(entry: ModelEntry) -> wit::Model {
    let ModelEntry { name, description, size_bytes } = entry;
    wit::Model { name, description, size_bytes }
}
