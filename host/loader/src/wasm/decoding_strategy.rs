//! Decoding strategies: results go in, evaluations and actions come out.

use std::sync::Arc;

use plugin_api::kinds::decoding_strategy::{
    Action, Actions, DecodingStrategy, Eval, Evals, FinishReason, GroupId, Outcome, RequestView,
    Want,
};
use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::{Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::decoding_strategy::exports::jackfield::plugin::decoding_strategy as wit;
use super::bindings::decoding_strategy::{DecodingStrategyPlugin, DecodingStrategyPluginPre};
use super::capability;
use super::instance::{Instance, Plugin};
use super::state::State;

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = DecodingStrategyPluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn DecodingStrategy>(plugin, move |config| {
        let instance = Instance::create(
            &theirs,
            |store| linked.instantiate(store),
            config,
            |world, store, config| {
                world.jackfield_plugin_decoding_strategy().call_create(store, config)
            },
        )?;
        Ok(Box::new(WasmDecodingStrategy { instance, outcomes: Vec::new() }))
    }))
}

struct WasmDecodingStrategy {
    instance: Instance<DecodingStrategyPlugin>,
    outcomes: Vec<wit::Outcome>,
}

impl DecodingStrategy for WasmDecodingStrategy {
    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        self.instance.call_with(request.params, |world, store, params| {
            let guest = world.jackfield_plugin_decoding_strategy();
            guest.call_open(store, group.0, request.seq.0, request.prompt, params)
        })
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        let evals = self.instance.call(|world, store| {
            world.jackfield_plugin_decoding_strategy().call_plan(store, group.0)
        })?;
        for eval in evals {
            let (start, len) = (out.tokens.len(), eval.tokens.len());
            out.tokens.extend_from_slice(&eval.tokens);
            let want = match eval.want {
                wit::Want::Nothing => Want::Nothing,
                wit::Want::Argmax => Want::Argmax,
                wit::Want::Sample => Want::Sample,
                wit::Want::Top(k) => Want::Top { k },
            };
            let (seq, is_atomic, is_aside) = (SeqId(eval.seq), eval.is_atomic, eval.is_aside);
            let (drafts, guesses) = (eval.drafts as usize, eval.guesses as usize);
            out.list.push(Eval { seq, start, len, want, is_atomic, is_aside, drafts, guesses });
        }
        Ok(())
    }

    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        self.outcomes.clear();
        self.outcomes.extend(results.iter().map(|it| wit::Outcome {
            seq: it.seq.0,
            token: it.token,
            logprob: it.logprob,
            draft: it.draft,
        }));
        let actions = self.instance.call(|world, store| {
            let guest = world.jackfield_plugin_decoding_strategy();
            guest.call_observe(store, group.0, &self.outcomes, out.next_seq)
        })?;
        for action in actions {
            if let wit::Action::Fork(fork) = &action {
                if fork.child != out.next_seq {
                    let found = format!("child {}", fork.child);
                    let expected = format!("child {}, the next free sequence", out.next_seq);
                    return self.instance.refuse("fork", &expected, &found);
                }
                out.next_seq += 1;
            }
            out.list.push(action_of(&action));
        }
        Ok(())
    }

    fn close(&mut self, group: GroupId) {
        // The request has ended whatever the guest does; a trap shows in the next call.
        let _ = self.instance.call(|world, store| {
            world.jackfield_plugin_decoding_strategy().call_close(store, group.0).map(Ok)
        });
    }
}

fn action_of(action: &wit::Action) -> Action {
    match *action {
        wit::Action::Emit(wit::Emitted { seq, token, logprob }) => {
            Action::Emit { seq: SeqId(seq), token, logprob }
        }
        wit::Action::Advance(wit::Advanced { seq, token }) => {
            Action::Advance { seq: SeqId(seq), token }
        }
        wit::Action::Say(wit::Said { token, logprob }) => Action::Say { token, logprob },
        wit::Action::Copy(wit::Copied { origin, to }) => {
            Action::Copy { from: SeqId(origin), to: SeqId(to) }
        }
        wit::Action::Fork(wit::Forked { parent, child }) => {
            Action::Fork { parent: SeqId(parent), child: SeqId(child) }
        }
        wit::Action::Release(wit::Released { seq, upto }) => {
            Action::Release { seq: SeqId(seq), upto: upto as usize }
        }
        wit::Action::Finish(reason) => Action::Finish {
            reason: match reason {
                wit::FinishReason::Stop => FinishReason::Stop,
                wit::FinishReason::Length => FinishReason::Length,
                wit::FinishReason::Refused => FinishReason::Refused,
                wit::FinishReason::Aborted => FinishReason::Aborted,
            },
        },
    }
}
