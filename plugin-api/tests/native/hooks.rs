//! Hooks over the boundary: every event, edits, flows, records and parameters.

use std::marker::PhantomData;

use plugin_api::events::{
    AfterGenerate, AfterLogits, AfterRollback, AfterStep, AfterSwap, AfterToken, BeforeGenerate,
    BeforeStep, BeforeSwap, Event, HookEntry, HookFn, HookState, OnCancel, OnFault, TOPICS,
    TrainAfterBackward, TrainAfterCheckpoint, TrainAfterEvaluate, TrainAfterRestore,
    TrainAfterStep, TrainBeforeCheckpoint, TrainBeforeEvaluate, TrainBeforeStep, TrainEpoch,
    TrainException, TrainGradient, TrainLoss, TrainLr, TrainMicroBatch, TrainRunEnd, TrainRunStart,
    TrainUpdate, TrainWeights,
};
use plugin_api::kinds::hook::Hook;
use plugin_api::prelude::*;
use plugin_api::testing::hook::emit;
use plugin_api::testing::machine::Machine;

use crate::rig::{Watch, both, direct, import, told};
use crate::subject::denied;

/// A topic that no host emits.
struct Unheard;

impl Event for Unheard {
    const NAME: &'static str = "unheard";
    const BUDGET_US: u32 = 1;
    type Payload<'a> = ();

    fn record((): &()) -> plugin_api::events::Record {
        plugin_api::events::Record::new("unheard", 0, &[])
    }
}

/// What the subject subscribes to: everything, edited where it can be.
pub(crate) fn subscribe(panics: &str, on: &mut Subscriptions) {
    let (in_hook, in_observer) = (panics == "hook", panics == "observer");
    on.on::<Unheard>(Box::new(|(), _| Flow::Refuse));
    on.order(Phase::Early, -7).before_generate(move |event, host| {
        assert!(!in_hook, "on purpose, in hook");
        host.info(format_args!("{event:?} {:?}", event.params.text("read")));
        event.prompt.push_str(" and more");
        Flow::Refuse
    });
    macro_rules! log {
        ($($method:ident => $flow:expr),*) => {
            $(on.$method(|event, host| {
                host.info(format_args!("{event:?}"));
                $flow
            });)*
        };
    }
    log!(
        before_step => Flow::Continue,
        after_generate => Flow::Finish(FinishReason::Stop),
        on_cancel => Flow::Finish(FinishReason::Length)
    );
    on.order(Phase::Late, 3);
    log!(
        before_swap => Flow::Refuse,
        after_swap => Flow::Finish(FinishReason::Refused),
        after_rollback => Flow::Finish(FinishReason::Aborted),
        on_fault => Flow::Continue
    );
    log!(train_before_step => Flow::SkipStep, train_after_step => Flow::StopRun);
    log!(
        train_run_start => Flow::Continue,
        train_epoch => Flow::Continue,
        train_before_evaluate => Flow::Continue,
        train_after_evaluate => Flow::StopRun,
        train_after_checkpoint => Flow::Continue,
        train_after_restore => Flow::Continue,
        train_exception => Flow::Continue,
        train_run_end => Flow::Continue,
        train_loss => Flow::SkipStep
    );
    on.train_micro_batch(|event, _| {
        event.tokens.swap(0, 1);
        event.targets[1] += 1;
        event.weights[0] = f32::NAN;
        Flow::Continue
    });
    on.train_before_checkpoint(|event, _| {
        event.state.set("step", &[event.step as f64, f64::NEG_INFINITY]);
        event.state.set_f32("norm.weight", &[0.5, -0.0]);
        Flow::Continue
    });
    on.train_gradient(|event, _| {
        event.scale = event.norm + event.name.len() as f64;
        Flow::Continue
    });
    on.train_update(|event, _| {
        event.values.iter_mut().for_each(|x| *x *= 2.0);
        Flow::Continue
    });
    on.train_weights(|event, _| {
        event.values.reverse();
        Flow::Continue
    });
    on.train_after_backward(|event, _| {
        event.grad_scale = 0.5 * event.grad_norm;
        Flow::Continue
    });
    on.train_lr(|event, _| {
        event.learning_rate *= 0.25;
        Flow::Continue
    });
    on.after_step(|event, _| {
        event.tokens += 1;
        Flow::Continue
    });
    on.after_token(|event, host| {
        let stop = event.params.text_or("stop", "none").unwrap_or("wrong");
        host.info(format_args!("{} {} {stop}", event.text, event.logprob));
        event.keep_bytes = event.text.find(stop).unwrap_or(event.text.len());
        event.hold_bytes += 2;
        Flow::Continue
    });
    on.after_logits(|event, host| {
        host.info(format_args!("{:?} {}", event.counts, event.skewness));
        event.is_precise |= event.deviation > 1.0;
        Flow::Continue
    });
    on.observe(move |record, host| {
        assert!(!in_observer, "on purpose, in observer");
        host.warn(format_args!("{record:?}"));
    });
}

fn subscribed(hook: Box<dyn Hook>) -> Subscriptions {
    let mut on = Subscriptions::new();
    hook.subscribe(&mut on).unwrap();
    on
}

/// Emits every event; what came of each.
fn emit_all(on: &mut Subscriptions, machine: &Machine) -> Vec<String> {
    let lent = PhantomData;
    let mut prompt = "Hello".to_owned();
    let params = Config::at("request").with("read", "yes").with("misspelt", 1);
    let error = denied("fault");
    let mut said = Vec::new();
    macro_rules! emit {
        ($($event:ident { $($fields:tt)* })*) => {
            $({
                let mut event = $event { $($fields)*, lent };
                let flow = emit::<$event<'static>>(on, &mut event, machine);
                said.push(format!("{event:?}: {flow:?}"));
            })*
        };
    }
    let (kind, name, generation) = ("norm", "rms-norm", 3);
    let (mut state, mut kept) = (HookState::new(), HookState::new());
    state.set("before", &[1.0]);
    kept.set("step", &[7.0]);
    emit! {
        BeforeGenerate { request: 1, prompt: &mut prompt, params: &params }
        BeforeStep { step: 1, tokens: 2, seqs: 3 }
        AfterStep { step: 1, tokens: 2, seqs: 3, model_us: 4, blocks_used: 5 }
        AfterToken {
            request: 1, index: 2, token: 3, logprob: f32::NAN, text: "some words", keep_bytes: 10,
            hold_bytes: 0, params: &params
        }
        AfterLogits {
            request: 1, index: 63, counts: &[1, 0, 2], deviation: 1.5, skewness: -0.5,
            is_precise: false, params: &params
        }
        AfterGenerate {
            request: 1, prompt_tokens: 2, tokens: 3, text: "some", reason: FinishReason::Length,
            seconds: 0.5
        }
        OnCancel { request: 1, tokens: 3 }
        BeforeSwap { kind, name, generation }
        AfterSwap { kind, name, generation, is_mid_stream: true, prepare_us: 5, wait_us: 6 }
        AfterRollback { kind, name, generation, reason: "it failed" }
        OnFault { kind, plugin: name, request: 1, error: &error }
        TrainRunStart { step: 1, num_steps: 2, num_elements: 3 }
        TrainEpoch { step: 1, epoch: 2 }
        TrainMicroBatch {
            step: 1, micro_batch: 2, tokens: &mut [1, 2, 3], targets: &mut [2, 3, 4],
            weights: &mut [1.0, 0.5, 0.0]
        }
        TrainLoss { step: 1, micro_batch: 2, loss: 3.5 }
        TrainGradient { step: 1, index: 2, name, norm: 3.5, scale: 1.0 }
        TrainUpdate { step: 1, index: 2, name, values: &mut [1.0, -2.0] }
        TrainWeights { step: 1, index: 2, name, values: &mut [1.0, -2.0] }
        TrainBeforeEvaluate { step: 1, tokens: 2 }
        TrainAfterEvaluate { step: 1, loss: 2.5 }
        TrainBeforeCheckpoint { step: 1, state: &mut state }
        TrainAfterCheckpoint { step: 1, path: "step-00000001" }
        TrainAfterRestore { step: 1, state: &kept }
        TrainException { step: 1, error: &error }
        TrainRunEnd { step: 1 }
        TrainBeforeStep { step: 1, tokens: 2 }
        TrainAfterBackward { step: 1, loss: 2.5, grad_norm: 3.5, grad_scale: 1.0 }
        TrainLr { step: 1, learning_rate: 0.5 }
        TrainAfterStep {
            step: 1, loss: 2.5, grad_norm: 3.5, learning_rate: 0.5, tokens: 4, step_us: 5
        }
    }
    assert_eq!(said.len(), TOPICS.len(), "an event that is not emitted here");
    said.push(format!("{prompt} {:?}", params.unread().collect::<Vec<_>>()));
    said
}

#[test]
fn behaves_as_the_original_on_every_event() {
    let [mut direct, mut foreign] = both::<dyn Hook>().map(subscribed);
    let order = |on: &Subscriptions| -> Vec<_> {
        let hooks = on.hooks.iter().filter(|hook| hook.topic != "unheard");
        hooks.map(|hook: &HookEntry| (hook.topic, hook.phase, hook.priority)).collect()
    };
    assert_eq!(order(&direct), order(&foreign));
    assert_eq!(foreign.observers.len(), 1);
    let (here, there) = (Machine::new(), Machine::new());
    for _ in 0..2 {
        let found = emit_all(&mut foreign, &there);
        assert_eq!(found, emit_all(&mut direct, &here));
        assert!(found.last().unwrap().contains("Hello and more [\"misspelt\"]"), "{found:?}");
    }
    assert_eq!(there.log(), here.log());
    assert!(there.log().len() > 30);
}

fn after_token(on: &mut Subscriptions, request: u64, params: &Config) -> (usize, usize) {
    let (text, lent) = ("a b c", PhantomData);
    let mut event = AfterToken {
        request,
        index: 0,
        token: 0,
        logprob: 0.0,
        text,
        keep_bytes: 5,
        hold_bytes: 0,
        params,
        lent,
    };
    let _ = emit::<AfterToken<'static>>(on, &mut event, &Machine::new());
    (event.keep_bytes, event.hold_bytes)
}

#[test]
fn parameters_stay_those_of_their_request() {
    let (hook, watch) = import::<dyn Hook>(&Config::new());
    let mut on = subscribed(hook);
    let params = |request: u64| {
        let stop = ["a", "b", "c", "z"][(request % 4) as usize];
        Config::new().with("stop", stop)
    };
    let expected = |request: u64| [0, 2, 4, 5][(request % 4) as usize];
    // More than either side remembers, forwards and back.
    for request in (0..200).chain((0..200).rev()).chain(150..200) {
        let kept = after_token(&mut on, request, &params(request)).0;
        assert_eq!(kept, expected(request), "request {request}");
    }
    // A number that is used again for something else.
    assert_eq!(after_token(&mut on, 199, &params(0)).0, 0);
    let known = params(1);
    assert_eq!(after_token(&mut on, 0, &known).0, 2);
    assert_eq!(known.unread().count(), 0, "marks come back");
    assert!(watch.faults().is_empty());
}

#[test]
fn a_hook_or_observer_that_panics_is_as_none() {
    for part in ["hook", "observer"] {
        let (hook, watch) = import::<dyn Hook>(&told("panics", part));
        let mut on = subscribed(hook);
        let machine = Machine::new();
        let said = emit_all(&mut on, &machine);
        watch.expect(&format!("on purpose, in {part}"));
        let said_again = emit_all(&mut on, &machine);
        assert!(
            said_again.iter().take(10).all(|said| said.ends_with("Continue")),
            "{said_again:?}"
        );
        assert_eq!(said[0].ends_with("Continue"), part == "hook");
        drop(on);
        watch.expect("on purpose");
    }
}

#[test]
fn errors_of_subscribing_keep_it_from_being_loaded() {
    let (hook, watch) = import::<dyn Hook>(&told("fails", "subscribe"));
    let error = hook.subscribe(&mut Subscriptions::new());
    assert_eq!((error, watch.faults()), (Err(denied("subscribe")), Vec::new()));
    let (hook, watch) = import::<dyn Hook>(&told("panics", "subscribe"));
    assert!(hook.subscribe(&mut Subscriptions::new()).is_err());
    watch.expect("on purpose, in subscribe");
}

#[test]
fn topics_may_run_on_different_threads() {
    let (hook, watch) = import::<dyn Hook>(&Config::new());
    let on = subscribed(hook);
    let watch: &Watch = &watch;
    std::thread::scope(|scope| {
        for mut entry in on.hooks {
            scope.spawn(move || {
                let host = Machine::new().host("test");
                let Some(hook) = entry.hook.downcast_mut::<HookFn<BeforeStep<'static>>>() else {
                    return;
                };
                for step in 0..200 {
                    let mut event = BeforeStep { step, tokens: 0, seqs: 0, lent: PhantomData };
                    assert_eq!(hook(&mut event, &host), Flow::Continue);
                }
            });
        }
    });
    assert!(watch.faults().is_empty());
    drop(direct::<dyn Hook>(&Config::new()));
}

#[test]
fn a_host_that_is_kept_is_of_no_use_after_the_call() {
    thread_local! {
        static KEPT: std::cell::RefCell<Option<Host>> = const { std::cell::RefCell::new(None) };
    }
    struct Keeper;
    impl Capability for Keeper {
        const NAME: &'static str = "subject";
        fn from_config(_: &Config) -> Result<Self> {
            Ok(Self)
        }
    }
    impl Hook for Keeper {
        fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
            on.before_step(|_, host| {
                KEPT.set(Some(host.clone()));
                assert_eq!(host.services().unix_seconds(), Ok(1_000_000.5));
                Flow::Continue
            });
            Ok(())
        }
    }
    let foreign =
        crate::liars::foreign_of::<dyn Hook>(|registrar| registrar.provide::<dyn Hook, Keeper>());
    let (hook, watch) = crate::rig::try_import::<dyn Hook>(foreign, &Config::new()).unwrap();
    let mut on = subscribed(hook);
    let machine = Machine::new();
    let mut event = BeforeStep { step: 0, tokens: 0, seqs: 0, lent: PhantomData };
    let _ = emit::<BeforeStep<'static>>(&mut on, &mut event, &machine);
    let kept = KEPT.take().unwrap();
    kept.info(format_args!("unheard"));
    assert!(matches!(kept.services().unix_seconds(), Err(Error::Outside { .. })));
    assert_eq!((kept.services().monotonic_us(), machine.log().len()), (0, 0));
    assert!(watch.faults().is_empty());
}
