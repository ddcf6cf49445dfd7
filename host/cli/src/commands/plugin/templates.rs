//! What `jackfield plugin new` writes: templates, embedded.
//!
//! A template is a plugin called `my-plugin`, of the type `MyPlugin`, that works as it is.

/// `src/lib.rs` of each kind in Rust.
pub(super) const RUST: [(&str, &str); 13] = [
    ("backend", include_str!("../../../templates/rust/backend.rs")),
    ("decoding-strategy", include_str!("../../../templates/rust/decoding_strategy.rs")),
    ("feed-forward", include_str!("../../../templates/rust/feed_forward.rs")),
    ("hook", include_str!("../../../templates/rust/hook.rs")),
    ("kv-cache", include_str!("../../../templates/rust/kv_cache.rs")),
    ("logits-processor", include_str!("../../../templates/rust/logits_processor.rs")),
    ("mixer", include_str!("../../../templates/rust/mixer.rs")),
    ("model-source", include_str!("../../../templates/rust/model_source.rs")),
    ("norm", include_str!("../../../templates/rust/norm.rs")),
    ("quantizer", include_str!("../../../templates/rust/quantizer.rs")),
    ("residual", include_str!("../../../templates/rust/residual.rs")),
    ("rotary-embedding", include_str!("../../../templates/rust/rotary_embedding.rs")),
    ("scheduler", include_str!("../../../templates/rust/scheduler.rs")),
];

/// Kinds that may be components.
pub(super) const WASM: [&str; 10] = [
    "decoding-strategy",
    "feed-forward",
    "logits-processor",
    "mixer",
    "model-source",
    "norm",
    "quantizer",
    "residual",
    "rotary-embedding",
    "scheduler",
];

/// The source file of a logits processor in another language, and what builds it.
pub(super) const C: (&str, &str) = ("plugin.c", include_str!("../../../templates/c/plugin.c"));
pub(super) const PYTHON: (&str, &str) =
    ("plugin.py", include_str!("../../../templates/python/plugin.py"));
pub(super) const JS: (&str, &str) = ("plugin.js", include_str!("../../../templates/js/plugin.js"));

/// Files of `plugin-api/wit/v0.0`.
pub(super) const WIT: [(&str, &str); 11] = [
    (
        "decoding-strategy.wit",
        include_str!("../../../../../plugin-api/wit/v0.0/decoding-strategy.wit"),
    ),
    ("host.wit", include_str!("../../../../../plugin-api/wit/v0.0/host.wit")),
    (
        "logits-processor.wit",
        include_str!("../../../../../plugin-api/wit/v0.0/logits-processor.wit"),
    ),
    ("mixer.wit", include_str!("../../../../../plugin-api/wit/v0.0/mixer.wit")),
    ("model-source.wit", include_str!("../../../../../plugin-api/wit/v0.0/model-source.wit")),
    ("quantizer.wit", include_str!("../../../../../plugin-api/wit/v0.0/quantizer.wit")),
    (
        "rotary-embedding.wit",
        include_str!("../../../../../plugin-api/wit/v0.0/rotary-embedding.wit"),
    ),
    ("scheduler.wit", include_str!("../../../../../plugin-api/wit/v0.0/scheduler.wit")),
    ("settings.wit", include_str!("../../../../../plugin-api/wit/v0.0/settings.wit")),
    ("traced.wit", include_str!("../../../../../plugin-api/wit/v0.0/traced.wit")),
    ("types.wit", include_str!("../../../../../plugin-api/wit/v0.0/types.wit")),
];
