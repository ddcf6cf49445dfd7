//! Decoding strategies on the plugin's side.

use std::ffi::c_void;

use super::{Instance, REASONS, WANTS, code};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kinds::decoding_strategy::{
    Action, Actions, Evals, GroupId, Outcome, RequestView, Want,
};
use crate::kinds::kv_cache::SeqId;
use crate::native::abi::decoding_strategy::{
    ActionV1, ActionsOutV1, DecodingStrategyV1, EvalV1, EvalsOutV1, OutcomeV1,
};
use crate::native::abi::host::HostV1;
use crate::native::abi::{Code, Out, RSlice};
use crate::native::guard::{self, guard, instance, write};
use crate::native::host::Lent;
use crate::wire::{from_bytes, marks};

/// A strategy with the buffers that it fills, which are kept from call to call.
struct Exported {
    strategy: Box<Instance>,
    evals: Evals,
    results: Vec<Outcome>,
    actions: Actions,
}

static TABLE: DecodingStrategyV1 = DecodingStrategyV1 {
    size: size_of::<DecodingStrategyV1>() as u32,
    attach,
    open,
    plan,
    observe,
    finish,
    close: guard::close::<Exported>,
};

pub(in crate::native) fn export(strategy: Box<Instance>) -> (*mut c_void, *const c_void) {
    let (evals, actions) = (Evals::default(), Actions::default());
    let exported = Exported { strategy, evals, results: Vec::new(), actions };
    (guard::export(Box::new(exported)), (&raw const TABLE).cast())
}

unsafe extern "C" fn attach(this: *mut c_void, host: *const HostV1, out: *const Out) -> Code {
    // SAFETY: the host opened this instance here, calls it from one thread at a time, and lends its
    // services and `out` for the call.
    unsafe {
        guard(out, || {
            let strategy = &mut instance::<Exported>(this).strategy;
            Lent::default().with(host, |host| strategy.attach(host))
        })
    }
}

unsafe extern "C" fn open(
    this: *mut c_void,
    group: u32,
    seq: u32,
    prompt: RSlice<'_, u32>,
    params: RSlice<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: the host opened this instance here, calls it from one thread at a time, and `out` is
    // its own for this call.
    unsafe {
        guard(out, || {
            let params: Config = from_bytes(params.as_slice())?;
            let (seq, prompt) = (SeqId(seq), prompt.as_slice());
            let request = RequestView { seq, prompt, params: &params };
            instance::<Exported>(this).strategy.open(GroupId(group), &request)?;
            write(out, &marks(&params));
            Ok(())
        })
    }
}

unsafe extern "C" fn plan(
    this: *mut c_void,
    group: u32,
    evals: EvalsOutV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `open`; `evals` is lent for the call.
    unsafe {
        guard(out, || {
            let Exported { strategy, evals: planned, .. } = &mut **instance::<Exported>(this);
            planned.clear();
            strategy.plan(GroupId(group), planned)?;
            for eval in &planned.list {
                let tokens = planned.tokens.get(eval.start..).and_then(|x| x.get(..eval.len));
                let tokens = tokens.ok_or_else(|| {
                    Error::shape("evaluation", "tokens of the plan", format!("{eval:?}"))
                })?;
                let (want, top) = match eval.want {
                    Want::Top { k } => (WANTS.len() as u32, k),
                    want => (code(&WANTS, &want), 0),
                };
                let there = EvalV1 {
                    seq: eval.seq.0,
                    want,
                    top,
                    drafts: eval.drafts as u32,
                    guesses: eval.guesses as u32,
                    is_atomic: u8::from(eval.is_atomic),
                    is_aside: u8::from(eval.is_aside),
                };
                (evals.push)(evals.to, there, tokens.into());
            }
            Ok(())
        })
    }
}

unsafe extern "C" fn observe(
    this: *mut c_void,
    group: u32,
    results: RSlice<'_, OutcomeV1>,
    next_seq: u32,
    actions: ActionsOutV1,
    out: *const Out,
) -> Code {
    let body = || -> Result<()> {
        // SAFETY: as in `open`.
        let exported = unsafe { &mut **instance::<Exported>(this) };
        let Exported { strategy, results: seen, actions: wanted, .. } = exported;
        seen.clear();
        seen.extend(results.as_slice().iter().map(|outcome| Outcome {
            seq: SeqId(outcome.seq),
            token: (outcome.has_token != 0).then_some(outcome.token),
            logprob: outcome.logprob,
            draft: (outcome.has_draft != 0).then_some(outcome.draft),
        }));
        wanted.list.clear();
        wanted.next_seq = next_seq;
        strategy.observe(GroupId(group), seen, wanted)?;
        for action in &wanted.list {
            // SAFETY: `actions` is lent for the call.
            unsafe { (actions.push)(actions.to, to_code(action)) };
        }
        Ok(())
    };
    // SAFETY: as in `open`.
    unsafe { guard(out, body) }
}

fn to_code(action: &Action) -> ActionV1 {
    let nothing = ActionV1 { upto: 0, action: 0, seq: 0, other: 0, logprob: 0.0 };
    match *action {
        Action::Emit { seq, token, logprob } => {
            ActionV1 { action: 0, seq: seq.0, other: token, logprob, ..nothing }
        }
        Action::Fork { parent, child } => {
            ActionV1 { action: 1, seq: parent.0, other: child.0, ..nothing }
        }
        Action::Release { seq, upto } => {
            ActionV1 { action: 2, seq: seq.0, upto: upto as u64, ..nothing }
        }
        Action::Advance { seq, token } => {
            ActionV1 { action: 4, seq: seq.0, other: token, ..nothing }
        }
        Action::Say { token, logprob } => ActionV1 { action: 5, other: token, logprob, ..nothing },
        Action::Copy { from, to } => ActionV1 { action: 6, seq: from.0, other: to.0, ..nothing },
        Action::Finish { reason } => {
            ActionV1 { action: 3, other: code(&REASONS, &reason), ..nothing }
        }
    }
}

unsafe extern "C" fn finish(this: *mut c_void, group: u32, out: *const Out) -> Code {
    // SAFETY: as in `open`.
    unsafe {
        guard(out, || {
            instance::<Exported>(this).strategy.close(GroupId(group));
            Ok(())
        })
    }
}
