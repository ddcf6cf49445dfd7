//! What is wrong with a component, or goes wrong when it runs.

use plugin_api::Config;

use super::support::{self, puppet, sealed, with_manifest};
use super::{As, Failure, failure};

/// Each by name.
pub(crate) fn failures() -> Vec<Failure> {
    use As::{Keys, Start, Wasm};
    let build = support::component();
    let deed = |mode: &str| puppet(build, mode);
    let mut all = vec![
        failure(
            "a manifest of another kind",
            sealed(with_manifest(build, "logits-processor", "norm")),
            &[Wasm],
            &[],
        ),
        failure(
            "a manifest of an unknown kind",
            sealed(with_manifest(build, "logits-processor", "teapot")),
            &[Wasm, Start],
            &["teapot"],
        ),
        failure("init is an error", deed("error@create"), &[Start, Wasm], &["refused at create"]),
        failure("init panics", deed("panic@create"), &[Start, Wasm], &["panics at create"]),
        failure("init aborts", deed("abort@create"), &[Start, Wasm], &[]),
        failure("init ends the process", deed("exit@create"), &[Start, Wasm], &[]),
        failure("init crashes", deed("segfault@create"), &[Start, Wasm], &[]),
        failure("init overflows its stack", deed("overflow@create"), &[Start, Wasm], &[]),
        failure("init takes all memory", deed("oom@create"), &[Start, Wasm], &[]),
        failure("init hangs", deed("hang@create"), &[Start, Wasm], &["deadline"]),
    ];
    all.push(Failure {
        config: Config::at("plugin.puppet").with("another", 2.0),
        ..failure("an unknown key", puppet(build, "fair"), &[Keys], &["[plugin.puppet]", "another"])
    });
    all
}
