//! Memories over the boundary, and the store that they are lent.

use plugin_api::prelude::*;
use plugin_api::testing::machine::Machine;
use plugin_api::testing::memory::turn;

use crate::rig::{both, check};

#[test]
fn behave_as_the_original_and_keep_their_rows_in_the_store_of_the_host() {
    let found = both::<dyn Memory>().map(|mut memory| {
        let machine = Machine::new();
        let host = machine.host("subject");
        let asked = turn("naïve", "東京?");
        let mut told = vec![memory.remember(&asked, "first", &host).unwrap()];
        told.push(memory.remember(&asked, "second", &host).unwrap());
        let recalled = memory.recall(&asked, &host).unwrap();
        let other = memory.recall(&turn("other", "東京?"), &host).unwrap();
        let none = memory.remember(&turn("", "x"), "y", &host).unwrap_err();
        machine.deny("store");
        let denied = memory.recall(&asked, &host).unwrap_err();
        (told, recalled, other, none, denied)
    });
    assert_eq!(found[0], found[1]);
    let (told, recalled, other, none, denied) = &found[1];
    assert_eq!(told[0], ["true", "東京?"]);
    assert_eq!(told[1], ["false", "東京?"], "a row that is there is not created");
    let of = |source: &str| recalled.iter().find(|passage| passage.source == source);
    assert_eq!(of("k1").map(|passage| &*passage.text), Some("first"), "all or nothing");
    assert_eq!((recalled.len(), other.len()), (3, 1));
    assert!(matches!(none, Error::Malformed { .. }) && matches!(denied, Error::Denied { .. }));
}

#[test]
fn panics_and_errors_are_contained() {
    let (machine, asked) = (Machine::new(), turn("s", "?"));
    check::<dyn Memory>(&[
        ("recall", &|memory| memory.recall(&asked, &machine.host("subject")).err()),
        ("remember", &|memory| memory.remember(&asked, "!", &machine.host("subject")).err()),
    ]);
}
