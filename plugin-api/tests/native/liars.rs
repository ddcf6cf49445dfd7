//! Tables that no shim of ours would make: codes that nobody knows.

use std::ffi::c_void;

use plugin_api::native::abi::decoding_strategy::{
    ActionV1, ActionsOutV1, DecodingStrategyV1, EvalV1, EvalsOutV1, OutcomeV1,
};
use plugin_api::native::abi::hook::{HookV1, SubscriptionsV1};
use plugin_api::native::abi::host::HostV1;
use plugin_api::native::abi::{Open, Opened, Out, RSlice};
use plugin_api::native::{self, Crosses, Foreign};
use plugin_api::prelude::*;
use plugin_api::{Registrar, kinds::hook::Hook};

use crate::rig::try_import;

type OpenFn = unsafe extern "C" fn(*const Open<'_>, *mut Opened, *const Out) -> u32;

fn liar<K: Crosses + ?Sized>(open: OpenFn) -> Foreign {
    let entry = Box::leak(Box::new(native::entry_of::<K>(b"", open)));
    // SAFETY: its tables below keep the rules of the boundary, if not those of the kinds.
    unsafe { Foreign::new(entry) }
}

thread_local! {
    static REGISTER: std::cell::Cell<fn(&mut Registrar)> = const { std::cell::Cell::new(|_| {}) };
}

/// A plugin of its own, to be opened on this thread.
pub(crate) fn foreign_of<K: Crosses + ?Sized>(register: fn(&mut Registrar)) -> Foreign {
    unsafe extern "C" fn open<K: Crosses + ?Sized>(
        request: *const Open<'_>,
        opened: *mut Opened,
        out: *const Out,
    ) -> u32 {
        // SAFETY: the host's pointers are valid for the call.
        unsafe { native::open_of::<K>(REGISTER.get(), request, opened, out) }
    }
    REGISTER.set(register);
    liar::<K>(open::<K>)
}

unsafe extern "C" fn close(_this: *mut c_void, _out: *const Out) -> u32 {
    0
}

mod strategy {
    use super::*;

    static TABLE: DecodingStrategyV1 = DecodingStrategyV1 {
        size: size_of::<DecodingStrategyV1>() as u32,
        attach,
        open: open_request,
        plan,
        observe,
        finish,
        close,
    };

    pub(super) unsafe extern "C" fn open(
        _request: *const Open<'_>,
        opened: *mut Opened,
        _out: *const Out,
    ) -> u32 {
        let table = (&raw const TABLE).cast();
        // SAFETY: the host's, for this call.
        unsafe { *opened = Opened { this: std::ptr::null_mut(), table } };
        0
    }

    unsafe extern "C" fn attach(_: *mut c_void, _: *const HostV1, _: *const Out) -> u32 {
        0
    }

    unsafe extern "C" fn open_request(
        _this: *mut c_void,
        _group: u32,
        _seq: u32,
        _prompt: RSlice<'_, u32>,
        _params: RSlice<'_, u8>,
        out: *const Out,
    ) -> u32 {
        // SAFETY: the host's, for this call.
        unsafe { ((*out).write)((*out).to, RSlice::from_slice(&[9; 3])) };
        77
    }

    unsafe extern "C" fn plan(
        _this: *mut c_void,
        _group: u32,
        evals: EvalsOutV1,
        _out: *const Out,
    ) -> u32 {
        let (seq, want, top, drafts, guesses) = (1, 1, 0, 0, 0);
        let fair = EvalV1 { seq, want, top, drafts, guesses, is_atomic: 0, is_aside: 0 };
        // SAFETY: the host's, for this call.
        unsafe {
            (evals.push)(evals.to, fair, RSlice::from_slice(&[1, 2]));
            (evals.push)(evals.to, EvalV1 { want: 4, ..fair }, RSlice::from_slice(&[1, 2]));
        }
        0
    }

    unsafe extern "C" fn observe(
        _this: *mut c_void,
        group: u32,
        _results: RSlice<'_, OutcomeV1>,
        _next_seq: u32,
        actions: ActionsOutV1,
        _out: *const Out,
    ) -> u32 {
        let nothing = ActionV1 { upto: 0, action: 0, seq: 0, other: 0, logprob: 0.0 };
        let lies = [
            ActionV1 { action: 7, ..nothing },
            ActionV1 { action: 3, other: 4, ..nothing },
            ActionV1 { action: 1, other: 8, ..nothing },
        ];
        // SAFETY: the host's, for this call.
        unsafe {
            (actions.push)(actions.to, nothing);
            (actions.push)(actions.to, lies[group as usize]);
        }
        0
    }

    unsafe extern "C" fn finish(_this: *mut c_void, _group: u32, _out: *const Out) -> u32 {
        1
    }
}

#[test]
fn unknown_codes_of_a_strategy_are_errors_and_leave_nothing() {
    let make = || {
        try_import::<dyn DecodingStrategy>(
            liar::<dyn DecodingStrategy>(strategy::open),
            &Config::new(),
        )
        .unwrap()
    };
    let (mut strategy, watch) = make();
    let mut evals = Evals::default();
    let error = strategy.plan(GroupId(0), &mut evals).unwrap_err();
    assert_eq!((watch.faults(), evals.list.len()), (vec![error], 0));
    for group in 0..3 {
        let (mut strategy, watch) = make();
        let mut actions = Actions { next_seq: 9, ..Actions::default() };
        let error = strategy.observe(GroupId(group), &[], &mut actions).unwrap_err();
        assert_eq!((watch.faults(), actions.list.len(), actions.next_seq), (vec![error], 0, 9));
    }
    let (mut strategy, watch) = make();
    let request = RequestView { seq: SeqId(0), prompt: &[], params: &Config::new() };
    let error = strategy.open(GroupId(0), &request).unwrap_err();
    assert!(error.to_string().contains("cannot be read, code 77"), "{error}");
    watch.expect("code 77");
}

mod hook {
    use super::*;

    static TABLE: HookV1 =
        HookV1 { size: size_of::<HookV1>() as u32, subscribe, on, observe, close };

    pub(super) unsafe extern "C" fn open(
        _request: *const Open<'_>,
        opened: *mut Opened,
        _out: *const Out,
    ) -> u32 {
        let table = (&raw const TABLE).cast();
        // SAFETY: the host's, for this call.
        unsafe { *opened = Opened { this: std::ptr::null_mut(), table } };
        0
    }

    unsafe extern "C" fn subscribe(
        _this: *mut c_void,
        to: SubscriptionsV1,
        _out: *const Out,
    ) -> u32 {
        // SAFETY: the host's, for this call.
        unsafe {
            assert_eq!((to.hook)(to.to, "of-tomorrow".into(), 1, 0), 0);
            assert_eq!((to.hook)(to.to, "before-step".into(), 1, 0), 1);
        }
        0
    }

    unsafe extern "C" fn on(
        _this: *mut c_void,
        subscription: u32,
        event: RSlice<'_, u8>,
        _host: *const HostV1,
        out: *const Out,
    ) -> u32 {
        assert_eq!((subscription, event.len()), (1, 24));
        // A flow that nobody knows, then nothing of what was to come back.
        // SAFETY: the host's, for this call.
        unsafe { ((*out).write)((*out).to, RSlice::from_slice(&[8])) };
        0
    }

    unsafe extern "C" fn observe(
        _this: *mut c_void,
        _observer: u32,
        _record: RSlice<'_, u8>,
        _host: *const HostV1,
        _out: *const Out,
    ) -> u32 {
        0
    }
}

#[test]
fn an_unknown_topic_is_ignored_and_an_unknown_flow_is_a_fault() {
    let (hook, watch) =
        try_import::<dyn Hook>(liar::<dyn Hook>(hook::open), &Config::new()).unwrap();
    let mut on = Subscriptions::new();
    hook.subscribe(&mut on).unwrap();
    assert_eq!(on.hooks.iter().map(|hook| hook.topic).collect::<Vec<_>>(), ["before-step"]);
    let lent = std::marker::PhantomData;
    let mut event = plugin_api::events::BeforeStep { step: 0, tokens: 1, seqs: 2, lent };
    let machine = plugin_api::testing::machine::Machine::new();
    let flow = plugin_api::testing::hook::emit::<plugin_api::events::BeforeStep<'static>>(
        &mut on, &mut event, &machine,
    );
    assert_eq!((flow, event.tokens), (Flow::Continue, 1));
    watch.expect("flow: malformed");
}
