//! Contract suite of model sources: what holds whatever lies behind them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::machine::Machine;
use super::{Make, make};
use crate::config::Config;
use crate::error::Result;
use crate::kinds::Capability;
use crate::kinds::model_source::{ModelEntry, ModelSource};

/// Runs the whole suite on sources made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + ModelSource + 'static>(config: &Config) {
    suite_of(&make::<dyn ModelSource, T>, config);
}

/// The same for sources that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn ModelSource>, config: &Config) {
    let open = || make(config).expect("the configuration is the suite's own");
    let source = open();
    let listed = source.list();
    let names: BTreeSet<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names.len(), listed.len(), "two models have one name");

    let machine = Machine::new();
    let host = machine.host("test");
    for entry in &listed {
        assert!(!entry.description.is_empty(), "{}: says nothing to people", entry.name);
        let found = source.resolve(&entry.name, &host);
        assert_eq!(found, Ok(Some(entry.clone())), "a listed name means its entry");
        leaves_no_model_behind_when_it_fails(&*source, entry);
    }
    for name in ["", " ", "/", ":", "no such model", "../..", "a/b/c/d", "\u{0}"] {
        if let Ok(Some(entry)) = source.resolve(name, &host) {
            panic!("{name:?} means {entry:?} on an empty machine");
        }
    }
    for _ in 0..100 {
        drop(open());
    }
}

/// Fetches `name` into the folder `models` of `machine`, and gives the stages of the progress.
///
/// # Errors
///
/// What the source returns.
pub fn fetch<T: Capability + ModelSource>(
    config: &Config,
    name: &str,
    machine: &Machine,
) -> Result<(PathBuf, BTreeSet<String>)> {
    let source = T::from_config(config).expect("the configuration is the suite's own");
    let host = machine.host(T::NAME);
    let entry = source.resolve(name, &host)?.expect("the name is for this source");
    let mut stages = BTreeSet::new();
    let path = source.fetch(
        &entry,
        Path::new("models"),
        &mut |progress| {
            assert!(progress.total.is_none_or(|total| progress.done <= total), "{progress:?}");
            stages.insert(progress.stage.to_owned());
        },
        &host,
    )?;
    Ok((path, stages))
}

/// On a machine where everything fails, nothing that looks like a model may remain.
fn leaves_no_model_behind_when_it_fails(source: &dyn ModelSource, entry: &ModelEntry) {
    let machine = Machine::new();
    let host = machine.host("test");
    let fetched = source.fetch(entry, Path::new("models"), &mut |_| (), &host);
    assert!(fetched.is_err(), "{}: fetched from nowhere: {fetched:?}", entry.name);
    let models = [".gguf", ".safetensors"];
    for path in machine.files() {
        let name = path.display().to_string();
        assert!(!models.iter().any(|end| name.ends_with(end)), "left behind: {name}");
    }
}
