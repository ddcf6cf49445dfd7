//! Curricula as components.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::{Plugin, make, place, with};
use crate::error::Error;
use crate::kinds::curriculum::{Curriculum, SourceView};
use bindings::exports::jackfield::plugin::curriculum as wit;

super::world!("curriculum-plugin");

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn Curriculum>>> = const { RefCell::new(None) };
    /// Kept from call to call.
    static SOURCES: RefCell<Vec<SourceView>> = const { RefCell::new(Vec::new()) };
}

impl<P: Plugin<Kind = dyn Curriculum>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn next(sources: Vec<wit::SourceView>) -> Result<wit::Choice, WireError> {
        SOURCES.with_borrow_mut(|views| {
            views.clear();
            views.extend(sources.into_iter().map(|it| SourceView {
                num_examples: it.num_examples,
                given: it.given,
                next: it.next,
            }));
            let choice = with(&INSTANCE, |instance| instance.next(views))?;
            Ok(wit::Choice { source: choice.source as u32, again: choice.again })
        })
    }

    fn has_handover() -> bool {
        with(&INSTANCE, |instance| instance.handover().is_some())
    }

    fn save() -> Result<Vec<u8>, WireError> {
        with(&INSTANCE, |instance| {
            let mut state = Vec::new();
            instance.handover().ok_or_else(no_handover)?.save(&mut state)?;
            Ok(state)
        })
    }

    fn restore(state: Vec<u8>) -> Result<(), WireError> {
        with(&INSTANCE, |instance| {
            Ok(instance.handover().ok_or_else(no_handover)?.restore(&state)?)
        })
    }
}

fn no_handover() -> Error {
    Error::unsupported("handover", "this curriculum passes nothing on")
}
