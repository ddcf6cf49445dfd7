//! Rotary embeddings: what they have more than other traced kinds.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::traced::{TracedKind, at_layer};
use super::{Plugin, place, with};
use crate::kinds::Traced;
use crate::kinds::rotary_embedding::{Pairing, RotaryEmbedding};
use bindings::exports::jackfield::plugin::rotary_embedding as wit;

super::world!(part "rotary-embedding-part");

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
