//! What happens to plugins: swaps, their failures, and faults.

use super::{Event, Flow, Record, Subscriptions};
use crate::error::Error;
use crate::host::Host;

event! {
    /// A plugin is about to be replaced; `Refuse` keeps the one that runs, so a hook that fails
    /// does not stop swaps. [the thread that swaps]
    BeforeSwap, before_swap, "before-swap", budget_us: 10_000,
    |e| Record::new("before-swap", 0, &[("generation", f64::from(e.generation))]),
    {
        /// Kind of the slot.
        kind: &'a str,
        /// Name of the plugin that would fill it.
        name: &'a str,
        /// How often the slot would have been filled then.
        generation: u32,
    }
}

event! {
    /// A plugin was replaced. Answers other than `Continue` are ignored. [backstage thread]
    AfterSwap, after_swap, "after-swap", budget_us: 10_000,
    |e| Record::new("after-swap", 0, &[
        ("generation", f64::from(e.generation)), ("prepare_us", e.prepare_us as f64),
        ("wait_us", e.wait_us as f64), ("is_mid_stream", f64::from(u8::from(e.is_mid_stream))),
    ]),
    {
        /// Kind of the slot.
        kind: &'a str,
        /// Name of the plugin that fills it now.
        name: &'a str,
        /// How often the slot has been filled.
        generation: u32,
        /// Whether running requests go on with it too.
        is_mid_stream: bool,
        /// Time to prepare it, in microseconds.
        prepare_us: u64,
        /// Time from the offer to the boundary, in microseconds.
        wait_us: u64,
    }
}

event! {
    /// A swap was refused or failed, and everything is as before. Answers other than `Continue` are
    /// ignored. [the thread that swaps, or backstage thread]
    AfterRollback, after_rollback, "after-rollback", budget_us: 10_000,
    |e| Record::new("after-rollback", 0, &[("generation", f64::from(e.generation))]),
    {
        /// Kind of the slot.
        kind: &'a str,
        /// Name of the plugin that should have filled it.
        name: &'a str,
        /// How often the slot would have been filled.
        generation: u32,
        /// Why.
        reason: &'a str,
    }
}

event! {
    /// A plugin failed; what it was working on ends with its error. Only a scheduler's work goes on,
    /// by order of arrival, and each of its errors is told once. Answers other than `Continue` are
    /// ignored. [step thread]
    OnFault, on_fault, "on-fault", budget_us: 100,
    |e| Record::new("on-fault", e.request, &[]),
    {
        /// Kind of the plugin.
        kind: &'a str,
        /// Its name.
        plugin: &'a str,
        /// The request that it failed for, or 0.
        request: u64,
        /// What it said.
        error: &'a Error,
    }
}
