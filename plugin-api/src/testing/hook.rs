//! Contract suite of hooks: every topic is emitted once, and what hooks may not do is checked.

use super::machine::Machine;
use super::{Make, make};
use crate::config::Config;
use crate::events::{
    AfterGenerate, AfterStep, AfterToken, BeforeGenerate, BeforeStep, Event, Flow, HookFn,
    OnCancel, Record, Subscriptions, TOPICS, TrainAfterBackward, TrainAfterStep, TrainBeforeStep,
    TrainLr,
};
use crate::kinds::Capability;
use crate::kinds::decoding_strategy::FinishReason;
use crate::kinds::hook::Hook;

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
    let (text, reason) = ("some words", FinishReason::Stop);
    let mut after =
        AfterGenerate { request: 1, prompt_tokens: 2, tokens: 3, text, reason, seconds: 0.5, lent };
    let _ = emit::<AfterGenerate<'static>>(listening, &mut after, &machine);
    let mut cancel = OnCancel { request: 1, tokens: 3, lent };
    let _ = emit::<OnCancel<'static>>(listening, &mut cancel, &machine);
    emit_training(listening, &machine);
}

/// A step as it should be, and one whose numbers are none.
fn emit_training(listening: &mut Subscriptions, machine: &Machine) {
    let lent = std::marker::PhantomData;
    for (step, loss, grad_norm) in [(0, 5.5, 2.0), (1, f64::NAN, f64::INFINITY)] {
        let mut before = TrainBeforeStep { step, tokens: 8, lent };
        let _ = emit::<TrainBeforeStep<'static>>(listening, &mut before, machine);
        let mut backward = TrainAfterBackward { step, loss, grad_norm, grad_scale: 1.0, lent };
        let _ = emit::<TrainAfterBackward<'static>>(listening, &mut backward, machine);
        let mut lr = TrainLr { step, learning_rate: 1e-3, lent };
        let _ = emit::<TrainLr<'static>>(listening, &mut lr, machine);
        let (learning_rate, tokens, step_us) = (lr.learning_rate, 8, 50);
        let mut after =
            TrainAfterStep { step, loss, grad_norm, learning_rate, tokens, step_us, lent };
        let _ = emit::<TrainAfterStep<'static>>(listening, &mut after, machine);
    }
}
