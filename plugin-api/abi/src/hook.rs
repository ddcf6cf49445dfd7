//! Hooks, version 1.

use std::ffi::c_void;

use crate::host::HostV1;
use crate::{Code, Out, RSlice, RStr, StableAbi};

/// The interface id.
pub const ID: &str = "jackfield.hook/1";

/// How a plugin listens.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct HookV1 {
    /// Bytes of this table as the plugin was built.
    pub size: u32,
    /// Names what it wants to be called for; called once. [loading]
    pub subscribe: unsafe extern "C" fn(
        this: *mut c_void,
        subscriptions: SubscriptionsV1,
        out: *const Out,
    ) -> Code,
    /// An event of a subscription; writes flow and edits, see [`events`](crate::events).
    /// [the event's thread]
    pub on: unsafe extern "C" fn(
        this: *mut c_void,
        subscription: u32,
        event: RSlice<'_, u8>,
        host: *const HostV1,
        out: *const Out,
    ) -> Code,
    /// A record for an observer. [observers' thread]
    pub observe: unsafe extern "C" fn(
        this: *mut c_void,
        observer: u32,
        record: RSlice<'_, u8>,
        host: *const HostV1,
        out: *const Out,
    ) -> Code,
    /// Ends the instance. [any thread]
    pub close: unsafe extern "C" fn(this: *mut c_void, out: *const Out) -> Code,
}

/// Takes subscriptions, numbered from 0 in the order they come.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct SubscriptionsV1 {
    /// Passed back to the functions.
    pub to: *mut c_void,
    /// A hook on a topic: phase 0 early, 1 normal, 2 late; lower priorities run first.
    pub hook:
        unsafe extern "C" fn(to: *mut c_void, topic: RStr<'_>, phase: u32, priority: i32) -> u32,
    /// An observer of all topics.
    pub observer: unsafe extern "C" fn(to: *mut c_void) -> u32,
}
