//! The macro that makes a plugin crate a component.

/// Exports the functions of the world of `$kind`; `export_plugin!` writes the call.
#[doc(hidden)]
#[macro_export]
macro_rules! export_wasm {
    ("logits-processor", $register:path) => {
        $crate::export_wasm!(@ LogitsProcessor, $register,
            __export_logits_processor_plugin_impl, logits_processor);
    };
    ("norm", $register:path) => {
        $crate::export_wasm!(@ Norm, $register, __export_traced_plugin_impl, traced);
    };
    ("residual", $register:path) => {
        $crate::export_wasm!(@ Residual, $register, __export_traced_plugin_impl, traced);
    };
    ("feed-forward", $register:path) => {
        $crate::export_wasm!(@ FeedForward, $register, __export_traced_plugin_impl, traced);
    };
    ("moe-router", $register:path) => {
        $crate::export_wasm!(@ MoeRouter, $register, __export_traced_plugin_impl, traced);
    };
    ("encoder", $register:path) => {
        $crate::export_wasm!(@ Encoder, $register, __export_traced_plugin_impl, traced);
    };
    ("objective", $register:path) => {
        $crate::export_wasm!(@ Objective, $register, __export_traced_plugin_impl, traced);
    };
    ("optimizer", $register:path) => {
        $crate::export_wasm!(@ Optimizer, $register, __export_traced_plugin_impl, traced);
    };
    ("adapter", $register:path) => {
        $crate::export_wasm!(@ Adapter, $register, __export_traced_plugin_impl, traced);
    };
    ("lr-schedule", $register:path) => {
        $crate::export_wasm!(@ LrSchedule, $register, __export_traced_plugin_impl, traced);
    };
    ("mixer", $register:path) => {
        $crate::export_wasm!(@ Mixer, $register, __export_traced_plugin_impl, traced,
            __export_mixer_part_impl, mixer);
    };
    ("rotary-embedding", $register:path) => {
        $crate::export_wasm!(@ RotaryEmbedding, $register, __export_traced_plugin_impl, traced,
            __export_rotary_embedding_part_impl, rotary_embedding);
    };
    ("model-source", $register:path) => {
        $crate::export_wasm!(@ ModelSource, $register,
            __export_model_source_plugin_impl, model_source);
    };
    ("memory", $register:path) => {
        $crate::export_wasm!(@ Memory, $register, __export_memory_plugin_impl, memory);
    };
    ("hook", $register:path) => {
        $crate::export_wasm!(@ Hook, $register, __export_hook_plugin_impl, hook);
    };
    ("scheduler", $register:path) => {
        $crate::export_wasm!(@ Scheduler, $register, __export_scheduler_plugin_impl, scheduler);
    };
    ("output-parser", $register:path) => {
        $crate::export_wasm!(@ OutputParser, $register, __export_output_parser_plugin_impl, output_parser);
    };
    ("reward", $register:path) => {
        $crate::export_wasm!(@ Reward, $register, __export_reward_plugin_impl, reward);
    };
    ("curriculum", $register:path) => {
        $crate::export_wasm!(@ Curriculum, $register, __export_curriculum_plugin_impl, curriculum);
    };
    ("decoding-strategy", $register:path) => {
        $crate::export_wasm!(@ DecodingStrategy, $register,
            __export_decoding_strategy_plugin_impl, decoding_strategy);
    };
    ("quantizer", $register:path) => {
        $crate::export_wasm!(@ Quantizer, $register, __export_quantizer_plugin_impl, quantizer);
    };
    // Kinds that are not components: the crate still builds, as a library.
    ($kind:literal, $register:path) => {};
    (@ $kind:ident, $register:path, $($export:ident, $module:ident),+) => {
        struct Component;
        impl $crate::wasm::Plugin for Component {
            type Kind = dyn $crate::$kind;
            fn register(registrar: &mut $crate::Registrar) {
                $register(registrar);
            }
        }
        $($crate::$export!(Component with_types_in $crate::wasm::$module::bindings);)+
    };
}
