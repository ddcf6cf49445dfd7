//! Rewards as components.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::{Plugin, make, place, with};
use crate::kinds::reward::{RatedAnswer, Reward};
use bindings::exports::jackfield::plugin::reward as wit;

super::world!("reward-plugin");

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn Reward>>> = const { RefCell::new(None) };
}

impl<P: Plugin<Kind = dyn Reward>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn rate(answers: Vec<wit::RatedAnswer>) -> Result<Vec<f64>, WireError> {
        let here = answers.iter().map(|it| RatedAnswer {
            prompt: &it.prompt,
            text: &it.text,
            expected: it.expected.as_deref(),
            num_tokens: it.num_tokens,
            is_finished: it.is_finished,
        });
        let here: Vec<_> = here.collect();
        with(&INSTANCE, |instance| Ok(instance.rate(&here)?))
    }
}
