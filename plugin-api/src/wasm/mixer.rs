//! Mixers: what they have more than other traced kinds.

use std::cell::RefCell;

use super::offers::jackfield::plugin::graph::StateSpec as WireState;
use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::sink::wire_state;
use super::traced::{TracedKind, at_layer};
use super::{Plugin, place, with};
use crate::kinds::Traced;
use crate::kinds::mixer::Mixer;
use bindings::exports::jackfield::plugin::mixer as wit;

super::world!(part "mixer-part",
    "jackfield:plugin/graph@0.0.0" => graph,
);

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn Mixer>>> = const { RefCell::new(None) };
}

impl TracedKind for dyn Mixer {
    fn keep(instance: Box<Self>) -> Result<(), WireError> {
        place(&INSTANCE, instance)
    }

    fn look<R>(act: impl FnOnce(&dyn Traced) -> R) -> R {
        with(&INSTANCE, |instance| act(instance))
    }
}

impl<P: Plugin<Kind = dyn Mixer>> wit::Guest for P {
    fn state(layer: u32, settings: &Settings) -> Result<WireState, WireError> {
        with(&INSTANCE, |instance| {
            at_layer(layer, settings, |at| Ok(wire_state(instance.state(at)?)))
        })
    }
}
