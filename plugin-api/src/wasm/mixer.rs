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

pub mod bindings {
    //! The world, as generated.
    #![allow(
        missing_docs,
        unreachable_pub,
        unsafe_code,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::mem_forget,
        clippy::use_self,
        clippy::undocumented_unsafe_blocks,
        clippy::needless_pass_by_value,
        elided_lifetimes_in_paths,
        reason = "generated from WIT"
    )]
    wit_bindgen::generate!({
        path: "wit/v0.0",
        world: "mixer-part",
        with: {
            "jackfield:plugin/types@0.0.0": crate::wasm::offers::jackfield::plugin::types,
            "jackfield:plugin/settings@0.0.0": crate::wasm::offers::jackfield::plugin::settings,
            "jackfield:plugin/graph@0.0.0": crate::wasm::offers::jackfield::plugin::graph,
        },
        pub_export_macro: true,
        runtime_path: "::plugin_api::wasm::rt",
    });
}

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
