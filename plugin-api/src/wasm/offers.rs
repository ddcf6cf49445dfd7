//! What the host offers, as generated from `wit/v0.0`: one set of types for all worlds.

#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::mem_forget,
    clippy::use_self,
    clippy::undocumented_unsafe_blocks,
    clippy::needless_pass_by_value,
    elided_lifetimes_in_paths,
    reason = "generated from WIT"
)]

wit_bindgen::generate!({
    path: "wit/v0.0",
    world: "host-offers",
    runtime_path: "::plugin_api::wasm::rt",
    generate_all,
});
