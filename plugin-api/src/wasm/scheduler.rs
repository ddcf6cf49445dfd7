//! Schedulers as components of the world `scheduler-plugin`.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::{Plugin, make, place, with};
use crate::error::Error;
use crate::kinds::kv_cache::SeqId;
use crate::kinds::scheduler::{Limits, Picked, Scheduler, Waiting};
use bindings::exports::jackfield::plugin::scheduler as wit;

super::world!("scheduler-plugin");

/// Buffers that are kept from step to step.
#[derive(Default)]
struct Work {
    queue: Vec<Waiting>,
    picked: Vec<Picked>,
}

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn Scheduler>>> = const { RefCell::new(None) };
    static WORK: RefCell<Work> =
        const { RefCell::new(Work { queue: Vec::new(), picked: Vec::new() }) };
}

impl<P: Plugin<Kind = dyn Scheduler>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn pick(queue: Vec<wit::Waiting>, limits: wit::Limits) -> Result<Vec<wit::Picked>, WireError> {
        WORK.with_borrow_mut(|work| {
            work.queue.clear();
            work.queue.extend(queue.into_iter().map(waiting_of));
            work.picked.clear();
            let limits = Limits { tokens: limits.tokens as usize, seqs: limits.seqs as usize };
            with(&INSTANCE, |instance| instance.pick(&work.queue, &limits, &mut work.picked))?;
            let wire =
                |it: &Picked| wit::Picked { index: it.index as u32, tokens: it.tokens as u32 };
            Ok(work.picked.iter().map(wire).collect())
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
    Error::unsupported("handover", "this scheduler passes nothing on")
}

fn waiting_of(it: wit::Waiting) -> Waiting {
    Waiting {
        seq: SeqId(it.seq),
        pending: it.pending as usize,
        is_running: it.is_running,
        is_atomic: it.is_atomic,
        priority: it.priority,
    }
}
