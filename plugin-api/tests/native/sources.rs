//! Model sources and host services over the boundary.

use std::path::Path;

use plugin_api::host::Ended;
use plugin_api::prelude::*;
use plugin_api::testing::machine::{Answer, Machine};

use crate::rig::{both, check, direct, import, told};
use crate::subject::denied;

fn machine() -> Machine {
    let machine = Machine::new();
    let answer = Answer { body: b"0123456789abcdefghij".to_vec(), ..Answer::default() };
    machine.answer("https://models.test/m", answer);
    machine.put("/models/junk/x", "junk");
    machine.put("/models/other", "other");
    machine.program("check", |command, _| {
        let output = format!("{command:?}");
        Ok(Ended { status: Some(3), output, errors: "none".to_owned() })
    });
    machine
}

fn wanted() -> ModelEntry {
    ModelEntry { name: "m".to_owned(), description: "tiny".to_owned(), size_bytes: Some(18) }
}

/// What a fetch returns, what it tells meanwhile, and what it does to a machine.
fn fetched(source: &dyn ModelSource, machine: &Machine) -> (Result<String>, Vec<String>, String) {
    let mut told = Vec::new();
    let mut tell = |now: Progress<'_>| told.push(format!("{now:?}"));
    let path = source.fetch(&wanted(), Path::new("/models"), &mut tell, &machine.host("subject"));
    let path = path.map(|path| path.display().to_string());
    let after = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        machine.files(),
        machine.file("/models/m"),
        machine.requests(),
        machine.commands(),
        machine.log(),
    );
    (path, told, after)
}

#[test]
fn behaves_as_the_original_with_every_service() {
    let [direct, foreign] = both::<dyn ModelSource>();
    assert_eq!(direct.list(), foreign.list());
    let (here, there) = (machine(), machine());
    for name in ["known", "other"] {
        let expected = direct.resolve(name, &here.host("subject"));
        assert_eq!(foreign.resolve(name, &there.host("subject")), expected);
    }
    let found = fetched(&*foreign, &there);
    assert_eq!(found, fetched(&*direct, &here));
    assert_eq!(found.0, Ok("/models/m".to_owned()));
    assert!(found.1.len() == 3 && found.2.contains("1 ticks"), "{found:?}");
}

#[test]
fn denials_and_errors_cross_unchanged() {
    for service in ["files", "network", "processes", "clock"] {
        let [direct, foreign] = both::<dyn ModelSource>();
        let (here, there) = (machine(), machine());
        here.deny(service);
        there.deny(service);
        let found = fetched(&*foreign, &there);
        assert_eq!(found, fetched(&*direct, &here), "{service}");
        let expected = direct.resolve("a", &here.host("subject"));
        assert_eq!(foreign.resolve("a", &there.host("subject")), expected, "{service}");
        let is_denied = |error: &Error| matches!(error, Error::Denied { .. });
        assert!(found.0.is_err_and(|e| is_denied(&e)) || expected.is_err_and(|e| is_denied(&e)));
    }
    let machine = machine();
    machine.answer("https://models.test/m", Answer { status: Some(500), ..Answer::default() });
    let (foreign, _) = import::<dyn ModelSource>(&Config::new());
    let expected = fetched(&*direct::<dyn ModelSource>(&Config::new()), &machine).0;
    assert_eq!(fetched(&*foreign, &machine).0, expected);
}

#[test]
fn what_fails_between_the_pieces_stays_what_it_is() {
    let (foreign, watch) = import::<dyn ModelSource>(&told("fails", "piece"));
    assert_eq!(fetched(&*foreign, &machine()).0, Err(denied("piece")));
    assert!(watch.faults().is_empty());
    for method in ["piece", "tick"] {
        let (foreign, watch) = import::<dyn ModelSource>(&told("panics", method));
        assert!(fetched(&*foreign, &machine()).0.is_err());
        watch.expect(&format!("panicked: on purpose, in {method}"));
    }
}

#[test]
fn a_host_that_panics_in_progress_does_so_after_the_call() {
    let (foreign, watch) = import::<dyn ModelSource>(&Config::new());
    let machine = machine();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut tell = |_: Progress<'_>| panic!("the host's own");
        foreign.fetch(&wanted(), Path::new("/models"), &mut tell, &machine.host("subject"))
    }));
    assert!(caught.is_err());
    assert!(watch.faults().is_empty(), "it is no fault of the plugin");
}

#[test]
fn panics_and_errors_are_contained() {
    check::<dyn ModelSource>(&[
        ("list", &|s| {
            assert!(s.list().is_empty());
            None
        }),
        ("resolve", &|s| s.resolve("a", &machine().host("subject")).err()),
        ("fetch", &|s| fetched(s, &machine()).0.err()),
    ]);
}
