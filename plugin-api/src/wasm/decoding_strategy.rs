//! Decoding strategies as components of the world `decoding-strategy-plugin`.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::{Plugin, config, make, place, with};
use crate::kinds::decoding_strategy::{
    Action, Actions, DecodingStrategy, Evals, FinishReason, GroupId, Outcome, RequestView, Want,
};
use crate::kinds::kv_cache::SeqId;
use bindings::exports::jackfield::plugin::decoding_strategy as wit;

super::world!("decoding-strategy-plugin");

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn DecodingStrategy>>> = const { RefCell::new(None) };
}

impl<P: Plugin<Kind = dyn DecodingStrategy>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn open(group: u32, seq: u32, prompt: Vec<u32>, params: &Settings) -> Result<(), WireError> {
        let copy = config::copied(params);
        let request = RequestView { seq: SeqId(seq), prompt: &prompt, params: &copy };
        let opened = with(&INSTANCE, |instance| instance.open(GroupId(group), &request));
        config::mark_read(&copy, params);
        Ok(opened?)
    }

    fn plan(group: u32) -> Result<Vec<wit::Eval>, WireError> {
        let mut evals = Evals::default();
        with(&INSTANCE, |instance| instance.plan(GroupId(group), &mut evals))?;
        let wire = evals.list.iter().map(|eval| wit::Eval {
            seq: eval.seq.0,
            tokens: evals.tokens[eval.start..][..eval.len].to_vec(),
            want: match eval.want {
                Want::Nothing => wit::Want::Nothing,
                Want::Argmax => wit::Want::Argmax,
                Want::Sample => wit::Want::Sample,
                Want::Top { k } => wit::Want::Top(k),
            },
            is_atomic: eval.is_atomic,
            is_aside: eval.is_aside,
            drafts: eval.drafts as u32,
            guesses: eval.guesses as u32,
        });
        Ok(wire.collect())
    }

    fn observe(
        group: u32,
        results: Vec<wit::Outcome>,
        next_seq: u32,
    ) -> Result<Vec<wit::Action>, WireError> {
        let outcome = |it: &wit::Outcome| Outcome {
            seq: SeqId(it.seq),
            token: it.token,
            logprob: it.logprob,
            draft: it.draft,
        };
        let results: Vec<Outcome> = results.iter().map(outcome).collect();
        let mut actions = Actions { list: Vec::new(), next_seq };
        with(&INSTANCE, |instance| instance.observe(GroupId(group), &results, &mut actions))?;
        Ok(actions.list.into_iter().map(wire_action).collect())
    }

    fn close(group: u32) {
        with(&INSTANCE, |instance| instance.close(GroupId(group)));
    }
}

fn wire_action(action: Action) -> wit::Action {
    match action {
        Action::Emit { seq, token, logprob } => {
            wit::Action::Emit(wit::Emitted { seq: seq.0, token, logprob })
        }
        Action::Fork { parent, child } => {
            wit::Action::Fork(wit::Forked { parent: parent.0, child: child.0 })
        }
        Action::Release { seq, upto } => {
            wit::Action::Release(wit::Released { seq: seq.0, upto: upto as u32 })
        }
        Action::Advance { seq, token } => wit::Action::Advance(wit::Advanced { seq: seq.0, token }),
        Action::Say { token, logprob } => wit::Action::Say(wit::Said { token, logprob }),
        Action::Copy { from, to } => wit::Action::Copy(wit::Copied { origin: from.0, to: to.0 }),
        Action::Finish { reason } => wit::Action::Finish(match reason {
            FinishReason::Stop => wit::FinishReason::Stop,
            FinishReason::Length => wit::FinishReason::Length,
            FinishReason::Refused => wit::FinishReason::Refused,
            FinishReason::Aborted => wit::FinishReason::Aborted,
        }),
    }
}
