//! What hooks and observers may and may not do to each other.

use super::*;
use plugin_api::Config;
use plugin_api::events::{AfterToken, BeforeStep};
use plugin_api::kinds::decoding_strategy::FinishReason;
use plugin_api::testing::machine::Machine;
use std::marker::PhantomData;

fn host(plugin: &str) -> Host {
    Machine::new().host(plugin)
}

fn step(step: u64) -> BeforeStep<'static> {
    BeforeStep { step, tokens: 1, seqs: 1, lent: PhantomData }
}

#[test]
fn hooks_run_by_phase_then_priority_then_name() {
    let bus = Bus::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    #[rustfmt::skip]
    let hooks = [
        ("d", Phase::Late,   0), ("c", Phase::Normal, 5), ("b", Phase::Normal, 5),
        ("e", Phase::Late,   1), ("a", Phase::Early,  9), ("f", Phase::Normal, -1),
    ];
    for (name, phase, priority) in hooks {
        let seen = Arc::clone(&seen);
        let mut on = Subscriptions::new();
        on.order(phase, priority).before_step(move |_, host| {
            seen.lock().unwrap().push(host.plugin().to_owned());
            Flow::Continue
        });
        bus.subscribe(&host(name), on);
    }
    let mut topic = bus.topic::<BeforeStep<'static>>();
    assert_eq!(topic.emit(&mut step(0)), Flow::Continue);
    assert!(seen.lock().unwrap().is_empty(), "subscriptions take effect at a refresh");
    topic.refresh();
    assert_eq!(topic.emit(&mut step(1)), Flow::Continue);
    assert_eq!(*seen.lock().unwrap(), ["a", "f", "b", "c", "d", "e"]);
}

#[test]
fn the_strictest_answer_wins_and_edits_are_seen() {
    let bus = Bus::new();
    let mut on = Subscriptions::new();
    on.after_token(|event, _| {
        event.hold_bytes = 3;
        Flow::Finish(FinishReason::Stop)
    });
    on.after_token(|event, _| {
        assert_eq!(event.hold_bytes, 3);
        Flow::Continue
    });
    bus.subscribe(&host("stop"), on);
    let mut topic = bus.topic::<AfterToken<'static>>();
    topic.refresh();
    let params = Config::new();
    let mut event = AfterToken {
        request: 1,
        index: 0,
        token: 2,
        logprob: 0.0,
        text: "ab",
        keep_bytes: 2,
        hold_bytes: 0,
        params: &params,
        lent: PhantomData,
    };
    assert_eq!(topic.emit(&mut event), Flow::Finish(FinishReason::Stop));
    assert_eq!(event.hold_bytes, 3);
}

#[test]
fn a_panicking_hook_is_removed_and_the_others_stay() {
    let bus = Bus::new();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let mut on = Subscriptions::new();
    on.before_step(|_, _| panic!("a plugin's mistake"));
    on.before_step(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        Flow::Continue
    });
    bus.subscribe(&host("fragile"), on);
    let mut topic = bus.topic::<BeforeStep<'static>>();
    topic.refresh();
    for n in 0..3 {
        assert_eq!(topic.emit(&mut step(n)), Flow::Continue);
    }
    assert_eq!((calls.load(Ordering::Relaxed), topic.faults()), (3, 1));
    let what = "plugin fragile: its hook on before-step";
    let error = Error::outside(what, "it panicked: a plugin's mistake");
    assert_eq!(bus.faults(), [HookFault { plugin: "fragile".to_owned(), error }]);
    assert_eq!(bus.faults(), [], "told once");
}

#[test]
fn all_hooks_that_panic_at_one_event_are_removed() {
    let bus = Bus::new();
    for name in ["a", "b", "c"] {
        let mut on = Subscriptions::new();
        match name {
            "b" => on.before_step(|_, _| Flow::Refuse),
            _ => on.before_step(move |_, _| panic!("{name}")),
        };
        bus.subscribe(&host(name), on);
    }
    let mut topic = bus.topic::<BeforeStep<'static>>();
    topic.refresh();
    assert_eq!(topic.emit(&mut step(0)), Flow::Refuse);
    assert_eq!((topic.hooks.len(), topic.faults(), bus.faults().len()), (1, 2, 2));
}

#[test]
fn unsubscribing_empties_a_topic() {
    let bus = Bus::new();
    let mut on = Subscriptions::new();
    on.before_step(|_, _| Flow::Refuse);
    bus.subscribe(&host("strict"), on);
    let mut topic = bus.topic::<BeforeStep<'static>>();
    topic.refresh();
    assert_eq!(topic.emit(&mut step(0)), Flow::Refuse);
    assert!(topic.has_hooks());
    bus.unsubscribe("strict");
    topic.refresh();
    assert!(topic.is_empty() && !topic.has_hooks());
    assert_eq!(topic.emit(&mut step(1)), Flow::Continue);
}

#[test]
fn a_replaced_hook_hands_over_between_two_events() {
    let bus = Bus::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let subscriptions = |version: u64| {
        let (mut on, seen) = (Subscriptions::new(), Arc::clone(&seen));
        on.before_step(move |event, _| {
            seen.lock().unwrap().push((version, event.step));
            Flow::Continue
        });
        on
    };
    bus.subscribe(&host("other"), subscriptions(0));
    bus.subscribe(&host("counter"), subscriptions(1));
    let mut topic = bus.topic::<BeforeStep<'static>>();
    for n in 0..2 {
        topic.refresh();
        assert_eq!(topic.emit(&mut step(n)), Flow::Continue);
        bus.replace(&host("counter"), subscriptions(2));
    }
    assert_eq!(*seen.lock().unwrap(), [(1, 0), (0, 0), (2, 1), (0, 1)]);
    bus.replace(&host("counter"), Subscriptions::new());
    bus.unsubscribe("other");
    topic.refresh();
    assert!(topic.is_empty());
}

#[test]
fn observers_get_records_in_order_or_count_the_loss() {
    let bus = Bus::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut on = Subscriptions::new();
    let sink = Arc::clone(&seen);
    on.observe(move |record, _| sink.lock().unwrap().push(record.values[0].1));
    bus.subscribe(&host("metrics"), on);
    let mut topic = bus.topic::<BeforeStep<'static>>();
    topic.refresh();
    let emitted = 10_000_u64;
    for n in 0..emitted {
        let _ = topic.emit(&mut step(n));
    }
    bus.flush();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len() as u64 + bus.lost(), emitted);
    assert!(seen.is_sorted(), "records arrive in the order they were emitted");
}

#[test]
fn an_observer_that_hangs_loses_only_its_own_records() {
    let bus = Bus::new();
    let (release, hang) = sync_channel::<()>(0);
    let mut on = Subscriptions::new();
    on.observe(move |_, _| _ = hang.recv());
    bus.subscribe(&host("stuck"), on);
    let mut topic = bus.topic::<BeforeStep<'static>>();
    topic.refresh();
    for n in 0..QUEUE_RECORDS_MAX as u64 * 2 {
        assert_eq!(topic.emit(&mut step(n)), Flow::Continue);
    }
    assert!(bus.lost() > 0);
    drop(release);
}
