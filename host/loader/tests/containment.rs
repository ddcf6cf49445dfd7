//! What a native plugin does wrong in a call ends that instance, is told of, and touches no other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/process.rs"]
mod process;
#[path = "support/stand.rs"]
mod stand;
mod support;

use jackfield_loader::{LoadedPlugin, Loader};
use plugin_api::kinds::logits_processor::{BatchChange, LogitsRows, Need, RowId};
use plugin_api::testing::rows::Rows;
use plugin_api::{Config, Error, LogitsProcessor};
use stand::{Faults, answer, made, options};
use support::puppet;
use tempfile::TempDir;

/// A loader and what it was told of.
struct Loading {
    loader: Loader,
    faults: Faults,
    folder: TempDir,
}

impl Loading {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (options, faults) = options(&folder.path().join("state"), None);
        Self { loader: Loader::new(options).unwrap(), faults, folder }
    }

    fn load(&self, build: &[u8], mode: &str) -> LoadedPlugin {
        let path = self.folder.path().join("puppet.so");
        std::fs::write(&path, puppet(build, mode)).unwrap();
        self.loader.load(&path, &Config::new()).unwrap()
    }

    /// What was told of since the last time.
    fn told(&self) -> Vec<(String, String)> {
        let told = std::mem::take(&mut *self.faults.lock().unwrap());
        told.into_iter().map(|(generation, error)| (generation.label().to_owned(), error)).collect()
    }
}

/// Begins a row with a parameter.
fn add(
    processor: &mut dyn LogitsProcessor,
    scale: impl Into<plugin_api::Value>,
) -> Result<(), Error> {
    let params = Config::new().with("puppet_scale", scale);
    processor.batch(&BatchChange::Added { row: RowId(0), params: &params, history: &[1] })
}

/// Lets a processor edit one row of `vocab_size` logits.
fn edit(processor: &mut dyn LogitsProcessor, vocab_size: usize) -> Result<Vec<f32>, Error> {
    let mut rows = Rows::new(&[&vec![1.0; vocab_size]]);
    processor.apply(&mut LogitsRows::new(&mut rows))?;
    Ok(rows.logits.remove(0))
}

#[test]
fn a_panic_in_apply_ends_that_instance_alone() {
    let loading = Loading::new();
    let old = loading.load(support::native(), "answer=1");
    let mut bystander = made(&old, &Config::new()).unwrap();
    let loaded = loading.load(support::native(), "odd-vocabulary");
    let generation = loaded.generation.clone().unwrap();
    let mut one = made(&loaded, &Config::new()).unwrap();
    let mut other = made(&loaded, &Config::new()).unwrap();
    assert_eq!(edit(&mut *one, 8).unwrap(), [1.0; 8]);
    assert_eq!((loading.told(), generation.faults().0), (vec![], 0));

    let error = edit(&mut *one, 7).unwrap_err().to_string();
    let label = format!("puppet ({:.8})", loaded.origin.as_ref().unwrap().hash);
    assert!(error.contains(&label) && error.contains("it panicked: the puppet is not odd"));
    let told = loading.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, label);
    assert_eq!(told[0].1, error);
    assert_eq!(generation.faults().0, 1);
    assert_eq!(generation.faults().1.unwrap().to_string(), error);

    // Never called again, whatever is asked of it: these would not panic.
    let stopped = |error: Error| error.to_string().contains("an earlier call panicked");
    assert!(stopped(edit(&mut *one, 8).unwrap_err()));
    assert!(stopped(add(&mut *one, 2.0).unwrap_err()));
    assert_eq!(loading.told(), [], "told of once");

    // Neither its sibling nor another generation noticed.
    add(&mut *other, 2.0).unwrap();
    assert_eq!(edit(&mut *other, 8).unwrap(), [2.0; 8]);
    assert_eq!(answer(&mut *bystander), Ok(1.0));
    assert_eq!(generation.instances(), 2);
    drop(one);
    assert_eq!(generation.instances(), 1);
    assert_eq!(edit(&mut *made(&loaded, &Config::new()).unwrap(), 8).unwrap(), [1.0; 8]);
}

#[test]
fn a_panic_in_batch_ends_that_instance_alone() {
    let loading = Loading::new();
    let loaded = loading.load(support::native(), "unwraps-params");
    let mut one = made(&loaded, &Config::new()).unwrap();
    let mut other = made(&loaded, &Config::new()).unwrap();
    let error = add(&mut *one, "loud").unwrap_err().to_string();
    assert!(error.contains("it panicked: "), "{error}");
    assert!(add(&mut *one, 2.0).unwrap_err().to_string().contains("an earlier call panicked"));
    assert!(edit(&mut *one, 8).unwrap_err().to_string().contains("an earlier call panicked"));
    assert_eq!(loading.told().len(), 1);
    add(&mut *other, 3.0).unwrap();
    assert_eq!(edit(&mut *other, 2).unwrap(), [3.0; 2]);
    assert_eq!(loading.told(), []);
}

#[test]
fn an_error_is_no_fault() {
    let loading = Loading::new();
    let loaded = loading.load(support::native(), "fair");
    let mut processor = made(&loaded, &Config::new()).unwrap();
    let error = add(&mut *processor, "loud").unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    add(&mut *processor, 2.0).unwrap();
    assert_eq!(edit(&mut *processor, 2).unwrap(), [2.0; 2]);
    assert_eq!((loading.told(), loaded.generation.unwrap().faults().0), (vec![], 0));
}

#[test]
fn a_panic_at_its_end_is_told_and_ends_nothing_else() {
    let loading = Loading::new();
    let loaded = loading.load(support::native(), "panic@drop");
    let one = made(&loaded, &Config::new()).unwrap();
    let mut other = made(&loaded, &Config::new()).unwrap();
    drop(one);
    let told = loading.told();
    assert!(told.len() == 1 && told[0].1.contains("the puppet panics at drop"), "{told:?}");
    assert_eq!(edit(&mut *other, 2).unwrap(), [1.0; 2]);
    assert_eq!(loaded.generation.unwrap().instances(), 1);
}

#[test]
fn a_panic_whose_payload_panics_is_a_panic() {
    let loading = Loading::new();
    let loaded = loading.load(support::native(), "panic-payload@apply");
    let mut processor = made(&loaded, &Config::new()).unwrap();
    let error = edit(&mut *processor, 2).unwrap_err().to_string();
    assert!(error.contains("it panicked: a panic"), "{error}");
    assert_eq!(loading.told().len(), 1);
}

#[test]
fn a_thousand_panics_are_a_thousand_errors() {
    let loading = Loading::new();
    let loaded = loading.load(support::native(), "panic@apply");
    for _ in 0..1000 {
        let mut processor = made(&loaded, &Config::new()).unwrap();
        assert!(edit(&mut *processor, 2).is_err());
    }
    assert_eq!(loading.told().len(), 1000);
    assert_eq!(loaded.generation.unwrap().instances(), 0);
}

/// A call of a processor.
type Call = fn(&mut dyn LogitsProcessor) -> Result<(), Error>;

/// An answer that no shim gives ends the instance: in a call, while it is made, at its end.
fn answers_are_faults(word: &str) {
    let loading = Loading::new();
    let calls: [(&str, Call); 2] =
        [("apply", |p| edit(p, 2).map(drop)), ("batch", |p| add(p, 2.0))];
    for (point, call) in calls {
        let loaded = loading.load(support::raw(), &format!("{word}@{point}"));
        let mut processor = made(&loaded, &Config::new()).unwrap();
        let error = call(&mut *processor).unwrap_err().to_string();
        assert!(error.contains("an error that cannot be read"), "{word}@{point}: {error}");
        let told = loading.told();
        assert!(told.len() == 1 && told[0].1 == error, "{word}@{point}: {told:?}");
        let again = [add(&mut *processor, 2.0), edit(&mut *processor, 2).map(drop)];
        for again in again {
            assert!(again.unwrap_err().to_string().contains("an earlier call"), "{word}@{point}");
        }
        assert_eq!(loading.told(), []);
    }
    for point in ["need", "argmax", "close"] {
        let loaded = loading.load(support::raw(), &format!("{word}@{point}"));
        drop(made(&loaded, &Config::new()));
        assert_eq!(loading.told().len(), 1, "{word}@{point}");
    }
}

#[test]
fn a_code_that_there_is_not_is_a_fault() {
    answers_are_faults("code");
}

#[test]
fn an_error_that_cannot_be_read_is_a_fault() {
    answers_are_faults("garbage");
}

#[test]
fn a_property_that_makes_no_sense_is_taken_for_the_safest() {
    let loading = Loading::new();
    let loaded = loading.load(support::raw(), "wild@need");
    assert_eq!(made(&loaded, &Config::new()).unwrap().need(), Need::All);
    let loaded = loading.load(support::raw(), "wild@argmax");
    assert!(!made(&loaded, &Config::new()).unwrap().is_argmax_invariant());
}
