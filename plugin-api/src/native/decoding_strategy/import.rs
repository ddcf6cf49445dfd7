//! Decoding strategies on the host's side.

use std::ffi::c_void;
use std::sync::Arc;

use super::{Instance, REASONS, WANTS};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::kinds::decoding_strategy::{
    Action, Actions, DecodingStrategy, Eval, Evals, GroupId, Outcome, RequestView, Want,
};
use crate::kinds::kv_cache::SeqId;
use crate::native::Owner;
use crate::native::abi::decoding_strategy::{
    ActionV1, ActionsOutV1, DecodingStrategyV1, EvalV1, EvalsOutV1, OutcomeV1,
};
use crate::native::abi::{Opened, RSlice};
use crate::native::call::Remote;
use crate::native::host::Lender;
use crate::wire::{take_marks, to_bytes};

/// A strategy in another library.
struct Adapter {
    remote: Remote,
    table: &'static DecodingStrategyV1,
    results: Vec<OutcomeV1>,
    bytes: Vec<u8>,
}

/// # Safety
///
/// `opened` came from `export` of a library that matches and stays mapped.
pub(in crate::native) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<DecodingStrategyV1>() };
    let remote = Remote::new(opened.this, owner);
    Box::new(Adapter { remote, table, results: Vec::new(), bytes: Vec::new() })
}

impl DecodingStrategy for Adapter {
    fn attach(&mut self, host: &Host) -> Result<()> {
        let (table, lender) = (self.table, Lender::new(host));
        let host = lender.lend();
        self.remote.call(&mut self.bytes, |this, out| {
            // SAFETY: the table belongs to the instance; the services live until the call ends.
            unsafe { (table.attach)(this, &raw const host, out) }
        })
    }

    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        let (table, params) = (self.table, to_bytes(request.params));
        let (seq, prompt) = (request.seq.0, RSlice::from_slice(request.prompt));
        self.remote.call(&mut self.bytes, |this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.open)(this, group.0, seq, prompt, params[..].into(), out) }
        })?;
        take_marks(request.params, &self.bytes);
        Ok(())
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        let (table, before) = (self.table, (out.list.len(), out.tokens.len()));
        let mut taker = EvalsTaker { evals: out, unknown: None };
        let evals = EvalsOutV1 { to: (&raw mut taker).cast(), push: push_eval };
        // SAFETY: as in `open`.
        let called = self
            .remote
            .call(&mut self.bytes, |this, to| unsafe { (table.plan)(this, group.0, evals, to) });
        let checked = called.and_then(|()| match taker.unknown {
            None => Ok(()),
            Some(want) => {
                let error = Error::malformed("evaluation", "a want of 0 to 3", want);
                self.remote.judged(Err(error))
            }
        });
        if checked.is_err() {
            out.list.truncate(before.0);
            out.tokens.truncate(before.1);
        }
        checked
    }

    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        self.results.clear();
        self.results.extend(results.iter().map(|outcome| OutcomeV1 {
            seq: outcome.seq.0,
            token: outcome.token.unwrap_or(0),
            has_token: u8::from(outcome.token.is_some()),
            logprob: outcome.logprob,
            draft: outcome.draft.unwrap_or(0),
            has_draft: u8::from(outcome.draft.is_some()),
        }));
        let (table, before, next_seq) = (self.table, out.list.len(), out.next_seq);
        let mut taker = ActionsTaker { list: &mut out.list, next_seq, unknown: None };
        let actions = ActionsOutV1 { to: (&raw mut taker).cast(), push: push_action };
        let there = RSlice::from_slice(&self.results);
        // SAFETY: as in `open`.
        let called = self.remote.call(&mut self.bytes, |this, to| unsafe {
            (table.observe)(this, group.0, there, next_seq, actions, to)
        });
        let next_seq = taker.next_seq;
        let checked = called.and_then(|()| match taker.unknown {
            None => Ok(()),
            Some(action) => {
                let expected = format!("a known one, forks into {next_seq}");
                let error = Error::malformed("action", expected, format!("{action:?}"));
                self.remote.judged(Err(error))
            }
        });
        match checked {
            Ok(()) => out.next_seq = next_seq,
            Err(_) => out.list.truncate(before),
        }
        checked
    }

    fn close(&mut self, group: GroupId) {
        let table = self.table;
        // SAFETY: as in `open`.
        self.remote.tell(|this, out| unsafe { (table.finish)(this, group.0, out) });
    }
}

/// Takes evaluations, and the first that cannot be one.
struct EvalsTaker<'a> {
    evals: &'a mut Evals,
    unknown: Option<u32>,
}

unsafe extern "C" fn push_eval(to: *mut c_void, eval: EvalV1, tokens: RSlice<'_, u32>) {
    // SAFETY: `to` is the taker in `plan`, for the call that this is part of.
    let taker = unsafe { &mut *to.cast::<EvalsTaker<'_>>() };
    let want = match WANTS.get(eval.want as usize) {
        Some(&known) => known,
        None if eval.want as usize == WANTS.len() => Want::Top { k: eval.top },
        None => {
            taker.unknown.get_or_insert(eval.want);
            return;
        }
    };
    let (start, len) = (taker.evals.tokens.len(), tokens.len());
    taker.evals.tokens.extend_from_slice(tokens.as_slice());
    taker.evals.list.push(Eval {
        seq: SeqId(eval.seq),
        start,
        len,
        want,
        is_atomic: eval.is_atomic != 0,
        is_aside: eval.is_aside != 0,
        drafts: eval.drafts as usize,
        guesses: eval.guesses as usize,
    });
}

/// Takes actions, and the first that cannot be one.
struct ActionsTaker<'a> {
    list: &'a mut Vec<Action>,
    /// What the next fork makes: an id that is taken already would be somebody else's.
    next_seq: u32,
    unknown: Option<ActionV1>,
}

unsafe extern "C" fn push_action(to: *mut c_void, action: ActionV1) {
    // SAFETY: `to` is the taker in `observe`, for the call that this is part of.
    let taker = unsafe { &mut *to.cast::<ActionsTaker<'_>>() };
    let (seq, other) = (SeqId(action.seq), action.other);
    let known = match action.action {
        0 => Some(Action::Emit { seq, token: other, logprob: action.logprob }),
        1 if other == taker.next_seq => {
            taker.next_seq = taker.next_seq.wrapping_add(1);
            Some(Action::Fork { parent: seq, child: SeqId(other) })
        }
        2 => usize::try_from(action.upto).ok().map(|upto| Action::Release { seq, upto }),
        3 => REASONS.get(other as usize).map(|&reason| Action::Finish { reason }),
        4 => Some(Action::Advance { seq, token: other }),
        5 => Some(Action::Say { token: other, logprob: action.logprob }),
        6 => Some(Action::Copy { from: seq, to: SeqId(other) }),
        _ => None,
    };
    match known {
        Some(known) => taker.list.push(known),
        None => drop(taker.unknown.get_or_insert(action)),
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}
