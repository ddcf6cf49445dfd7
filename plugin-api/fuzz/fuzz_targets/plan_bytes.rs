//! Bytes are refused, or are a plan whose own bytes read back as it.
//!
//! A small plan to start from: `layer()` in `tests/plan.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plugin_api::plan::Plan;

fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = Plan::from_bytes(bytes) else { return };
    let again = plan.to_bytes();
    assert!(again.len() <= bytes.len());
    assert_eq!(Plan::from_bytes(&again).map(|plan| plan.to_bytes()), Ok(again));
    let _ = plan.to_string();
});
