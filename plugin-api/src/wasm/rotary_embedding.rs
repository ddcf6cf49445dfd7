//! Rotary embeddings: what they have more than other traced kinds.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::traced::{TracedKind, at_layer};
use super::{Plugin, place, with};
use crate::kinds::Traced;
use crate::kinds::rotary_embedding::{Pairing, RotaryEmbedding};
use bindings::exports::jackfield::plugin::rotary_embedding as wit;

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
        world: "rotary-embedding-part",
        with: {
            "jackfield:plugin/types@0.0.0": crate::wasm::offers::jackfield::plugin::types,
            "jackfield:plugin/settings@0.0.0": crate::wasm::offers::jackfield::plugin::settings,
        },
        pub_export_macro: true,
        runtime_path: "::plugin_api::wasm::rt",
    });
}

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn RotaryEmbedding>>> = const { RefCell::new(None) };
}

impl TracedKind for dyn RotaryEmbedding {
    fn keep(instance: Box<Self>) -> Result<(), WireError> {
        place(&INSTANCE, instance)
    }

    fn look<R>(act: impl FnOnce(&dyn Traced) -> R) -> R {
        with(&INSTANCE, |instance| act(instance))
    }
}

impl<P: Plugin<Kind = dyn RotaryEmbedding>> wit::Guest for P {
    fn rotation_at(settings: &Settings) -> Result<wit::Rotation, WireError> {
        with(&INSTANCE, |instance| {
            at_layer(0, settings, |at| {
                let rotation = instance.rotation(at.config)?;
                Ok(wit::Rotation {
                    inv_freq: rotation.inv_freq,
                    pairing: match rotation.pairing {
                        Pairing::HalfSplit => wit::Pairing::HalfSplit,
                        Pairing::Interleaved => wit::Pairing::Interleaved,
                    },
                    attention_factor: rotation.attention_factor,
                })
            })
        })
    }
}
