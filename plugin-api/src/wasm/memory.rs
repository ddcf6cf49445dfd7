//! Memories as components.

use std::cell::RefCell;

use super::host::host;
use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::{Plugin, make, place, with};
use crate::kinds::memory::{Memory, Message, Turn};
use bindings::exports::jackfield::plugin::memory as wit;

super::world!("memory-plugin", "jackfield:plugin/store@0.0.0" => store);

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn Memory>>> = const { RefCell::new(None) };
}

impl<P: Plugin<Kind = dyn Memory>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn recall(turn: wit::Turn) -> Result<Vec<wit::Passage>, WireError> {
        let passages = with(&INSTANCE, |instance| instance.recall(&turn_of(turn), &host()))?;
        let wire =
            |it: crate::kinds::memory::Passage| wit::Passage { source: it.source, text: it.text };
        Ok(passages.into_iter().map(wire).collect())
    }

    fn remember(turn: wit::Turn, answer: String) -> Result<Vec<String>, WireError> {
        with(&INSTANCE, |instance| Ok(instance.remember(&turn_of(turn), &answer, &host())?))
    }
}

fn turn_of(turn: wit::Turn) -> Turn {
    let wit::Turn { session, messages, tokens_max } = turn;
    let messages = messages.into_iter().map(|it| Message { role: it.role, content: it.content });
    Turn { session, messages: messages.collect(), tokens_max }
}
