//! The worlds of `plugin-api/wit/v0.0`, as generated for a host.
//!
//! What the host offers is generated once; the world of each kind refers to it.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    clippy::all,
    clippy::use_self,
    clippy::needless_pass_by_value,
    clippy::undocumented_unsafe_blocks,
    clippy::semicolon_if_nothing_returned,
    reason = "generated from WIT"
)]

pub(super) mod offers {
    wasmtime::component::bindgen!({
        path: "../../plugin-api/wit/v0.0",
        world: "host-offers",
        imports: { default: trappable },
        with: {
            "jackfield:plugin/settings.config": crate::wasm::settings::Table,
            "jackfield:plugin/settings.values": crate::wasm::settings::Items,
            "jackfield:plugin/files.file": crate::wasm::services::OpenFile,
            "jackfield:plugin/graph.graph": crate::wasm::graph::LentGraph,
        },
    });
}

/// Generates the module of one world over the types of [`offers`].
macro_rules! world {
    ($module:ident, $world:literal) => {
        pub(super) mod $module {
            wasmtime::component::bindgen!({
                path: "../../plugin-api/wit/v0.0",
                world: $world,
                imports: { default: trappable },
                with: { "jackfield:plugin": crate::wasm::bindings::offers::jackfield::plugin },
            });
        }
    };
}

world!(curriculum, "curriculum-plugin");
world!(output_parser, "output-parser-plugin");
world!(decoding_strategy, "decoding-strategy-plugin");
world!(hook, "hook-plugin");
world!(logits_processor, "logits-processor-plugin");
world!(memory, "memory-plugin");
world!(mixer, "mixer-part");
world!(model_source, "model-source-plugin");
world!(quantizer, "quantizer-plugin");
world!(reward, "reward-plugin");
world!(rotary_embedding, "rotary-embedding-part");
world!(scheduler, "scheduler-plugin");
world!(traced, "traced-plugin");
