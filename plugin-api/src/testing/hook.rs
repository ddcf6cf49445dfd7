//! Contract suite of hooks: every topic is emitted once, and what hooks may not do is checked.

use super::machine::Machine;
use super::{Make, make};
use crate::config::Config;
use crate::error::Error;
use crate::events::{
    AfterGenerate, AfterLogits, AfterStep, AfterToken, BeforeGenerate, BeforeStep, Event, Flow,
    HookFn, HookState, LOGIT_BINS, OnCancel, Record, Subscriptions, TOPICS, TrainAfterBackward,
    TrainAfterCheckpoint, TrainAfterEvaluate, TrainAfterRestore, TrainAfterStep,
    TrainBeforeCheckpoint, TrainBeforeEvaluate, TrainBeforeStep, TrainEpoch, TrainException,
    TrainGradient, TrainLoss, TrainLr, TrainMicroBatch, TrainRunEnd, TrainRunStart, TrainUpdate,
    TrainWeights, spread,
};
use crate::kinds::Capability;
use crate::kinds::decoding_strategy::FinishReason;
use crate::kinds::hook::Hook;
use crate::wire::Wire;

/// Runs the whole suite on hooks made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Hook + 'static>(config: &Config) {
    suite_of(&make::<dyn Hook, T>, config);
}

/// The same for hooks that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Hook>, config: &Config) {
    for _ in 0..100 {
        drop(subscribe_by(make, config));
    }
    let mut listening = subscribe_by(make, config);
    assert!(
        !listening.hooks.is_empty() || !listening.observers.is_empty(),
        "listens on no topic at all"
    );
    for entry in &listening.hooks {
        assert!(TOPICS.contains(&entry.topic), "no such topic: {}", entry.topic);
    }
    emit_every_topic(&mut listening, &Config::new());
    check_checkpoints(&mut listening, &mut subscribe_by(make, config));
}

/// What a checkpoint keeps of one instance another takes over: it leaves the same.
fn check_checkpoints(old: &mut Subscriptions, new: &mut Subscriptions) {
    let (kept, machine, lent) = (state_of(old), Machine::new(), std::marker::PhantomData);
    let mut event = TrainAfterRestore { step: 2, state: &kept, lent };
    let flow = emit::<TrainAfterRestore<'static>>(new, &mut event, &machine);
    assert_ne!(flow, Flow::Refuse, "refuses the state that it left");
    assert_eq!(bytes_of(&state_of(new)), bytes_of(&kept), "goes on otherwise after a checkpoint");
    // What is not its own state must not end it.
    let mut others = HookState::new();
    others.set("another/name", &[f64::NAN, -1.0]);
    kept.iter().for_each(|(name, _)| others.set_f32(name, &[]));
    let mut event = TrainAfterRestore { step: 2, state: &others, lent };
    let _ = emit::<TrainAfterRestore<'static>>(new, &mut event, &machine);
}

fn state_of(listening: &mut Subscriptions) -> HookState {
    let mut state = HookState::new();
    let lent = std::marker::PhantomData;
    let mut event = TrainBeforeCheckpoint { step: 2, state: &mut state, lent };
    let _ = emit::<TrainBeforeCheckpoint<'static>>(listening, &mut event, &Machine::new());
    state
}

/// Numbers that are none compare too.
fn bytes_of(state: &HookState) -> Vec<u8> {
    let mut bytes = Vec::new();
    Wire::put(state, &mut bytes);
    bytes
}

/// What a new instance listens on.
///
/// # Panics
///
/// If the plugin refuses its configuration.
pub fn subscribe<T: Capability + Hook + 'static>(config: &Config) -> Subscriptions {
    subscribe_by(&make::<dyn Hook, T>, config)
}

fn subscribe_by(make: Make<'_, dyn Hook>, config: &Config) -> Subscriptions {
    let hook = make(config).expect("the configuration is the suite's own");
    let mut subscriptions = Subscriptions::new();
    hook.subscribe(&mut subscriptions).expect("subscribes");
    subscriptions
}

/// Calls the hooks of one topic in their order, then the observers, on `machine`.
///
/// # Panics
///
/// If a hook was registered for a topic with the function of another.
pub fn emit<E: Event>(
    listening: &mut Subscriptions,
    payload: &mut E::Payload<'_>,
    machine: &Machine,
) -> Flow {
    let host = machine.host("test");
    listening.hooks.sort_by_key(|entry| (entry.phase, entry.priority));
    let mut flow = Flow::Continue;
    for entry in listening.hooks.iter_mut().filter(|entry| entry.topic == E::NAME) {
        let hook = entry.hook.downcast_mut::<HookFn<E>>().expect("a hook of this topic");
        flow = flow.and(hook(payload, &host));
    }
    let record: Record = E::record(payload);
    for observer in &mut listening.observers {
        observer(&record, &host);
    }
    flow
}

/// What a hook made of the text after a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AfterTokenAnswer {
    /// Go on or end.
    pub flow: Flow,
    /// Bytes of the text that are kept.
    pub keep_bytes: usize,
    /// Bytes of them that are not shown yet.
    pub hold_bytes: usize,
}

/// Emits `AfterToken` with the answer `text` so far, for a request with `params`.
///
/// # Panics
///
/// If a hook keeps more than there is, cuts a character in two or shows what another holds back.
pub fn after_token(listening: &mut Subscriptions, text: &str, params: &Config) -> AfterTokenAnswer {
    let keep_bytes = text.len();
    let mut payload = AfterToken {
        request: 1,
        index: 0,
        token: 7,
        logprob: -0.25,
        text,
        keep_bytes,
        hold_bytes: 0,
        params,
        lent: std::marker::PhantomData,
    };
    let flow = emit::<AfterToken<'static>>(listening, &mut payload, &Machine::new());
    let (keep_bytes, hold_bytes) = (payload.keep_bytes, payload.hold_bytes);
    assert!(keep_bytes <= text.len() && hold_bytes <= keep_bytes, "{keep_bytes}, {hold_bytes}");
    assert!(text.is_char_boundary(keep_bytes), "cuts a character of {text:?}");
    assert!(text.is_char_boundary(keep_bytes - hold_bytes), "cuts a character of {text:?}");
    AfterTokenAnswer { flow, keep_bytes, hold_bytes }
}

/// Emits `AfterLogits` for these logits, those of the token at `index`, for a request with `params`; whether the rest of the answer has
/// precise weights.
///
/// # Panics
///
/// If a hook takes precise weights away again.
pub fn after_logits(
    listening: &mut Subscriptions,
    logits: &[f32],
    index: usize,
    is_precise: bool,
    params: &Config,
) -> bool {
    let mut counts = vec![0; LOGIT_BINS];
    let (deviation, skewness) = spread(logits, &mut counts);
    let mut payload = AfterLogits {
        request: 1,
        index,
        counts: &counts,
        deviation,
        skewness,
        is_precise,
        params,
        lent: std::marker::PhantomData,
    };
    let _ = emit::<AfterLogits<'static>>(listening, &mut payload, &Machine::new());
    assert!(payload.is_precise || !is_precise, "takes precise weights away again");
    payload.is_precise
}

fn emit_every_topic(listening: &mut Subscriptions, params: &Config) {
    let machine = Machine::new();
    let lent = std::marker::PhantomData;
    let mut prompt = "Hello".to_owned();
    let mut before = BeforeGenerate { request: 1, prompt: &mut prompt, params, lent };
    let flow = emit::<BeforeGenerate<'static>>(listening, &mut before, &machine);
    assert_eq!(flow, Flow::Continue, "refuses a request that has no parameters");
    let mut step = BeforeStep { step: 1, tokens: 2, seqs: 1, lent };
    let _ = emit::<BeforeStep<'static>>(listening, &mut step, &machine);
    let mut step = AfterStep { step: 1, tokens: 2, seqs: 1, model_us: 50, blocks_used: 1, lent };
    let _ = emit::<AfterStep<'static>>(listening, &mut step, &machine);
    for text in ["", "a", "é", "日本", "some words"] {
        let _ = after_token(listening, text, params);
    }
    for (logits, is_precise) in [(&[1.0, -2.0, 0.5][..], false), (&[f32::NAN], false), (&[], true)]
    {
        let _ = after_logits(listening, logits, 63, is_precise, params);
    }
    let (text, reason) = ("some words", FinishReason::Stop);
    let mut after =
        AfterGenerate { request: 1, prompt_tokens: 2, tokens: 3, text, reason, seconds: 0.5, lent };
    let _ = emit::<AfterGenerate<'static>>(listening, &mut after, &machine);
    let mut cancel = OnCancel { request: 1, tokens: 3, lent };
    let _ = emit::<OnCancel<'static>>(listening, &mut cancel, &machine);
    emit_training(listening, &machine);
}

/// Calls the hooks with an event, whatever they answer.
macro_rules! tell {
    ($on:expr, $machine:expr, $($event:ident { $($fields:tt)* })*) => {
        $({
            let mut event = $event { $($fields)*, lent: std::marker::PhantomData };
            let _ = emit::<$event<'static>>($on, &mut event, $machine);
        })*
    };
}

/// A run of a step as it should be, and one whose numbers are none.
fn emit_training(on: &mut Subscriptions, machine: &Machine) {
    let error = Error::outside("step 2", "the suite's own");
    let (name, index, path) = ("layers.0.mlp.up_proj.weight", 3, "checkpoints/step-00000002");
    tell! { on, machine,
        TrainRunStart { step: 0, num_steps: 2, num_elements: 3 }
        TrainEpoch { step: 0, epoch: 0 }
    }
    for (step, loss, norm) in [(0, 5.5, 2.0), (1, f64::NAN, f64::INFINITY)] {
        let (micro_batch, mut tokens, mut targets) = (0, [1, 2], [2, 3]);
        let (mut weights, mut values) = ([1.0, 0.0], [0.5, norm as f32, -1.5]);
        let (learning_rate, step_us) = (1e-3, 50);
        tell! { on, machine,
            TrainBeforeStep { step, tokens: 2 }
            TrainMicroBatch {
                step, micro_batch, tokens: &mut tokens, targets: &mut targets,
                weights: &mut weights
            }
            TrainLoss { step, micro_batch, loss }
            TrainGradient { step, index, name, norm, scale: 1.0 }
            TrainAfterBackward { step, loss, grad_norm: norm, grad_scale: 1.0 }
            TrainLr { step, learning_rate }
            TrainUpdate { step, index, name, values: &mut values }
            TrainAfterStep { step, loss, grad_norm: norm, learning_rate, tokens: 2, step_us }
            TrainWeights { step, index, name, values: &mut values }
            TrainBeforeEvaluate { step, tokens: 2 }
            TrainAfterEvaluate { step, loss }
        }
    }
    let (mut state, empty) = (HookState::new(), HookState::new());
    tell! { on, machine,
        TrainBeforeCheckpoint { step: 2, state: &mut state }
        TrainAfterCheckpoint { step: 2, path }
        TrainAfterRestore { step: 2, state: &empty }
        TrainException { step: 2, error: &error }
        TrainRunEnd { step: 2 }
    }
}
